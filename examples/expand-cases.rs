//! Prints the decision cases as run at a given time, as JSON: for runners that are not written in Rust.
//!
//! `cargo run --example expand-cases -- SECONDS_SINCE_THE_UNIX_EPOCH`

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

#[allow(dead_code, reason = "what tests take from the runner is in there too")]
#[path = "../tests/support/mod.rs"]
mod support;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let now = std::env::args().nth(1).ok_or("usage: expand-cases SECONDS_SINCE_THE_UNIX_EPOCH")?;
    let mut cases = Vec::new();
    for case in support::all_cases(now.parse()?) {
        let mut printed = serde_json::to_value(&case)?;
        printed["name"] = format!("{}/{}", case.file, case.name).into();
        cases.push(printed);
    }
    println!("{}", serde_json::to_string(&cases)?);
    Ok(())
}
