//! `stepgate check`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::document::{Document, Position, shown};
use super::{Exit, Problem, output, stand_in, warnings};

#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration in YAML or JSON: by itself, or inside an Envoy configuration, an Istio `WasmPlugin` or an Envoy Gateway
    /// `EnvoyExtensionPolicy`; `-` reads standard input
    #[arg(required = true)]
    config: Vec<PathBuf>,
    /// Fail where there are warnings
    #[arg(long)]
    deny_warnings: bool,
    /// Take report mode for intended: it is a note, and no warning
    #[arg(long)]
    allow_report: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What was found in one configuration.
#[derive(Serialize)]
struct Report {
    file: String,
    within: String,
    valid: bool,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    notes: Vec<Finding>,
}

/// Something at a place.
#[derive(Serialize)]
struct Finding {
    path: String,
    #[serde(flatten)]
    position: Position,
    message: String,
}

pub fn run(arguments: &Arguments) -> Result<Exit, Problem> {
    let mut reports = Vec::new();
    let mut failed = false;
    for file in &arguments.config {
        match Document::read_all(file) {
            Ok(documents) => reports.extend(documents.iter().map(|document| check(document, arguments.allow_report))),
            // The other files are still worth a look.
            Err(problem) => {
                failed |= problem.exit == Exit::Failure;
                reports.push(Report::unreadable(file, problem));
            }
        }
    }
    if arguments.json {
        output::json(&reports)?;
    } else {
        reports.iter().try_for_each(print)?;
    }
    let has = |of: fn(&Report) -> &Vec<Finding>| reports.iter().any(|report| !of(report).is_empty());
    Ok(if failed {
        Exit::Failure
    } else if has(|report| &report.errors) {
        Exit::InvalidConfiguration
    } else if arguments.deny_warnings && has(|report| &report.warnings) {
        Exit::Failure
    } else {
        Exit::Pass
    })
}

impl Report {
    /// What stands in the place of a report about a file that could not be read.
    fn unreadable(file: &Path, problem: Problem) -> Self {
        let position = Position { line: 1, column: 1 };
        let errors = vec![Finding { path: String::new(), position, message: problem.text }];
        let file = shown(file);
        Self { file, within: String::new(), valid: false, errors, warnings: Vec::new(), notes: Vec::new() }
    }
}

fn check(document: &Document, allow_report: bool) -> Report {
    let finding =
        |path: &str, message: String| Finding { path: path.to_owned(), position: document.position(path), message };
    let configured = stand_in::configure(&document.value);
    let mut allowed = Vec::new();
    let (errors, warnings) = match &configured.config {
        Ok(config) => {
            let mut found = warnings::of(&document.value, config);
            found.extend(warnings::around(document, config));
            let (reporting, found): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|(path, _)| allow_report && (path == "mode" || path.ends_with(".mode")));
            allowed.extend(reporting.into_iter().map(|(path, message)| finding(&path, message)));
            (Vec::new(), found.into_iter().map(|(path, message)| finding(&path, message)).collect())
        }
        Err(errors) => {
            let errors = errors.as_slice().iter();
            (errors.map(|error| finding(&error.path, error.problem.clone())).collect(), Vec::new())
        }
    };
    let notes = configured.unset.iter().map(|(path, name)| {
        let name = if looks_like_a_variable(name) { format!("`{name}`") } else { "of this name".to_owned() };
        finding(path, format!("the variable {name} is not set here; where the gate runs it must be"))
    });
    let notes = allowed.into_iter().chain(notes).collect();
    let valid = errors.is_empty();
    Report { file: shown(&document.file), within: document.within.clone(), valid, errors, warnings, notes }
}

/// What does not may be the secret itself.
fn looks_like_a_variable(name: &str) -> bool {
    name.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
}

fn print(report: &Report) -> Result<(), Problem> {
    let Report { file, within, errors, warnings, notes, .. } = report;
    let kinds = [(errors, output::red("error")), (warnings, output::yellow("warning")), (notes, output::dim("note"))];
    for (findings, kind) in kinds {
        for Finding { path, position: Position { line, column }, message } in findings {
            let place = if path.is_empty() { "configuration" } else { path };
            let (place, message) = (output::plain(place), output::plain(message));
            output::line(format_args!("{file}:{line}:{column}: {kind}: {place}: {message}"))?;
        }
    }
    let within = if within.is_empty() { String::new() } else { format!(" ({within})") };
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let verdict = match (errors.len(), warnings.len()) {
        (0, 0) => output::green("valid").to_string(),
        (0, warnings) => format!("{}, {}", output::green("valid"), count(warnings, "warning")),
        (errors, _) => format!("{}, {}", output::red("not valid"), count(errors, "problem")),
    };
    output::line(format_args!("{file}{within}: {verdict}"))
}
