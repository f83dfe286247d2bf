//! `stepgate`, the command-line tool: checks, explains, tests and renders configurations with the gate's own core.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
