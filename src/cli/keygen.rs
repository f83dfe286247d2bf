//! `stepgate keygen`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Exit, Problem, entropy, output};

#[derive(clap::Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub fn run(arguments: &Arguments) -> Result<Exit, Problem> {
    let key = STANDARD.encode(entropy()?);
    if arguments.json {
        output::json(&json!({ "key": key }))?;
    } else {
        output::line(&key)?;
    }
    Ok(Exit::Pass)
}
