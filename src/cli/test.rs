//! `stepgate test`.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use stepgate::cases::{self, CaseErrors, CaseFile, Outcome};

use super::document::{Document, yaml_problem};
use super::{Exit, Problem, explain, output, read_input, stand_in};

#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration, as in `check`, and behind it files of cases in YAML or JSON. The configuration is left out where every
    /// file of cases has a `config` of its own. Neither is read from standard input
    #[arg(required = true, value_names = ["CONFIG", "CASES"])]
    files: Vec<PathBuf>,
    /// Write a report for CI servers in the format of JUnit
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Report<'a> {
    passed: usize,
    failed: usize,
    skipped: usize,
    cases: &'a [Outcome],
}

pub fn run(arguments: &Arguments) -> Result<Exit, Problem> {
    if let Some(file) = arguments.junit.as_ref().filter(|file| file.exists()) {
        // A report of another run would be taken for this one's.
        std::fs::remove_file(file).map_err(|error| Problem::failure(format!("{}: {error}", file.display())))?;
    }
    let (config, files) = configuration(&arguments.files)?;
    let now = explain::current_time()?.as_secs();
    let mut outcomes = Vec::new();
    let mut problems = Vec::new();
    for (file, document) in files {
        let name = file.display().to_string();
        let cases = CaseFile::from_value(&name, &document).and_then(|cases| cases.expand(config.as_ref(), now));
        match cases {
            Ok(cases) => outcomes.extend(cases.iter().map(cases::run)),
            Err(errors) => problems.push(errors),
        }
    }
    if !problems.is_empty() {
        let lines = problems.iter().flat_map(CaseErrors::as_slice).map(|error| format!("\n  {error}"));
        return Err(Problem::failure(format!("the cases cannot be run{}", lines.collect::<String>())));
    }
    if let Some(file) = &arguments.junit {
        let report = cases::junit(&outcomes)?;
        std::fs::write(file, report).map_err(|error| Problem::failure(format!("{}: {error}", file.display())))?;
    }
    let count = |wanted: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| wanted(outcome)).count();
    let skipped = count(&|outcome| outcome.skipped.is_some());
    let failed = count(&|outcome| !outcome.is_as_expected());
    let passed = outcomes.len() - skipped - failed;
    if arguments.json {
        output::json(&Report { passed, failed, skipped, cases: &outcomes })?;
    } else {
        for outcome in outcomes.iter().filter(|outcome| !outcome.is_as_expected()) {
            let outcome = output::plain_lines(&outcome.to_string());
            output::line(format_args!("{} {outcome}", output::red("FAIL")))?;
        }
        let verdict = if failed == 0 && passed > 0 { output::green("pass") } else { output::red("fail") };
        output::line(format_args!("{verdict}: {passed} passed, {failed} failed, {skipped} skipped"))?;
    }
    Ok(if failed == 0 && passed > 0 { Exit::Pass } else { Exit::Failure })
}

/// Files of cases, each with its document.
type Files<'a> = Vec<(&'a Path, Value)>;

/// The configuration, where one is given, and the files of cases.
fn configuration(files: &[PathBuf]) -> Result<(Option<Value>, Files<'_>), Problem> {
    let Some((first, others)) = files.split_first() else { return Ok((None, Vec::new())) };
    if files.iter().any(|file| file == Path::new("-")) {
        return Err(Problem::failure("`test` reads no standard input: name the files"));
    }
    if parsed(first).is_ok_and(|document| document.get("cases").is_some()) {
        return Ok((None, all(files)?));
    }
    let document = Document::read(first)?;
    stand_in::valid(&document)?;
    if others.is_empty() {
        return Err(Problem::failure(format!("there are no files of cases behind `{}`", first.display())));
    }
    Ok((Some(document.value), all(others)?))
}

fn all(files: &[PathBuf]) -> Result<Files<'_>, Problem> {
    files.iter().map(|file| Ok((file.as_path(), parsed(file)?))).collect()
}

fn parsed(file: &Path) -> Result<Value, Problem> {
    serde_saphyr::from_str(&read_input(file)?).map_err(|error| {
        let (place, problem) = yaml_problem(file, &error);
        Problem::failure(format!("{place}: {problem}"))
    })
}
