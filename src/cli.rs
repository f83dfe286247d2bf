//! The commands. Each is a module of its own; what they share is [`document`], [`stand_in`] and [`output`].

mod check;
mod decode;
mod document;
mod explain;
mod keygen;
mod output;
mod render;
mod stand_in;
mod test;
mod warnings;

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// The JSON Schema of the configuration.
const SCHEMA: &str = include_str!("../schema/stepgate.schema.json");

/// The largest file or input that is read, in bytes.
const MAX_INPUT_BYTES: u64 = 16 * 1024 * 1024;

/// Step-up authentication in front of any web app: check, explain, test and render configurations of the gate.
#[derive(Parser)]
#[command(name = "stepgate", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  pass: the configuration is valid, the request goes on to the app, the cases agree
  1  failure: a request is refused, a case fails, a file cannot be read, the command line is wrong
  2  step up: the request is sent to the identity provider, or told to go there
  3  the configuration is not valid";

#[derive(Subcommand)]
enum Command {
    /// Find everything that is wrong with a configuration, and what is risky about it
    Check(check::Arguments),
    /// Show why a request is decided as it is: readings of its path, rules, checks, and the answer
    Explain(Box<explain::Arguments>),
    /// Run cases of your own: requests, and the decisions that you expect
    Test(test::Arguments),
    /// Show what is in an ID Token, without checking its signature
    Decode(decode::Arguments),
    /// Write a working deployment for Envoy, Istio, Envoy Gateway or workerd
    Render(render::Arguments),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Make a key for `callback.keys`
    Keygen(keygen::Arguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    const fn prints_json(&self) -> bool {
        match self {
            Self::Check(arguments) => arguments.json,
            Self::Explain(arguments) => arguments.json,
            Self::Test(arguments) => arguments.json,
            Self::Decode(arguments) => arguments.json,
            Self::Keygen(arguments) => arguments.json,
            Self::Render(_) | Self::Schema | Self::Completions { .. } => false,
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Pass,
    /// 1.
    Failure,
    /// 2.
    StepUp,
    /// 3.
    InvalidConfiguration,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Pass => 0,
            Exit::Failure => 1,
            Exit::StepUp => 2,
            Exit::InvalidConfiguration => 3,
        })
    }
}

/// A command that could not do its work: the text for people, and how it ends.
#[derive(Debug)]
pub struct Problem {
    text: String,
    exit: Exit,
    is_broken_pipe: bool,
}

impl Problem {
    /// Something other than the configuration.
    pub fn failure(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: Exit::Failure, is_broken_pipe: false }
    }

    /// The configuration.
    pub fn configuration(text: impl Into<String>) -> Self {
        Self { text: text.into(), exit: Exit::InvalidConfiguration, is_broken_pipe: false }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self { is_broken_pipe: error.kind() == io::ErrorKind::BrokenPipe, ..Self::failure(error.to_string()) }
    }
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Clap's own code for wrong usage is 2, which is "step up" here.
            let exit = if usage.use_stderr() { Exit::Failure } else { Exit::Pass };
            let text = without_tokens(&usage.render().ansi().to_string());
            if exit == Exit::Pass {
                let _ = write!(anstream::stdout(), "{text}");
            } else {
                let _ = write!(anstream::stderr(), "{text}");
            }
            return exit.into();
        }
    };
    let as_json = arguments.command.prints_json();
    match run(arguments.command) {
        Ok(exit) => exit.into(),
        // Whoever reads the output has seen enough; nobody has heard the verdict.
        Err(problem) if problem.is_broken_pipe => Exit::Failure.into(),
        Err(problem) => {
            if as_json {
                // For programs: whatever else happens, there is a document.
                let _ = output::json(&serde_json::json!({ "error": without_tokens(&problem.text) }));
            }
            let text = output::plain_lines(&without_tokens(&problem.text));
            output::warn(format_args!("{}: {text}", output::red("error")));
            problem.exit.into()
        }
    }
}

fn run(command: Command) -> Result<Exit, Problem> {
    match command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Decode(arguments) => decode::run(&arguments),
        Command::Render(arguments) => render::run(&arguments),
        Command::Schema => print(SCHEMA),
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "stepgate", &mut script);
            io::stdout().write_all(&script)?;
            Ok(Exit::Pass)
        }
    }
}

/// What JSON Web Tokens begin with: `{"`, `{ "`, and `{` with a line break behind it, in base64url.
const TOKENS_BEGIN: [&str; 4] = ["eyJ", "eyAi", "ewog", "ew0K"];

/// A text in which nothing looks like a token: command lines end up in logs.
fn without_tokens(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((before, token)) =
        TOKENS_BEGIN.iter().filter_map(|begin| rest.split_once(begin)).min_by_key(|(before, _)| before.len())
    {
        let part_of_one = |character: char| character.is_ascii_alphanumeric() || "-_.~+/=".contains(character);
        rest = token.trim_start_matches(part_of_one);
        shown.push_str(before);
        shown.push_str("(a token, not shown)");
    }
    shown + rest
}

fn print(text: &str) -> Result<Exit, Problem> {
    io::stdout().write_all(text.as_bytes())?;
    Ok(Exit::Pass)
}

/// The content of a file, or of standard input for `-`.
fn read_input(file: &Path) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    let name = document::shown(file);
    let read = |reader: &mut dyn io::Read, bytes: &mut Vec<u8>| reader.take(MAX_INPUT_BYTES + 1).read_to_end(bytes);
    let outcome = if file == Path::new("-") {
        read(&mut io::stdin(), &mut bytes)
    } else {
        std::fs::File::open(file).and_then(|mut file| read(&mut file, &mut bytes))
    };
    outcome.map_err(|error| Problem::failure(format!("{name}: {error}")))?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        return Err(Problem::failure(format!("{name}: longer than {MAX_INPUT_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| Problem::failure(format!("{name}: not UTF-8")))
}

/// A token from the command line, or from a file or standard input.
fn read_token(token: Option<&str>, file: Option<&PathBuf>) -> Result<Option<String>, Problem> {
    let text = match (token, file) {
        (Some("-"), _) => read_input(Path::new("-"))?,
        (Some(token), _) => token.to_owned(),
        (None, Some(file)) => read_input(file)?,
        (None, None) => return Ok(None),
    };
    let token = text.trim().trim_matches(['"', '\'']);
    let token = token.strip_prefix("Bearer ").unwrap_or(token).trim();
    if token.is_empty() { Err(Problem::failure("the token is empty")) } else { Ok(Some(token.to_owned())) }
}

/// 32 bytes of the system's cryptographic source.
fn entropy() -> Result<[u8; 32], Problem> {
    let mut bytes = [0; 32];
    getrandom::getrandom(&mut bytes).map_err(|error| Problem::failure(format!("no random numbers: {error}")))?;
    Ok(bytes)
}
