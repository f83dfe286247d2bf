//! What is wrong with a case file.

use std::fmt;

use serde::Serialize;

use crate::config::ConfigErrors;

/// One problem of a case file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaseError {
    /// The file, by the name that it was given.
    pub file: String,
    /// The case; none where it is about the file as a whole.
    pub case: Option<String>,
    /// Where: a path such as `token.key`; empty for the whole.
    pub path: String,
    /// What was found, and what is accepted.
    pub problem: String,
}

impl fmt::Display for CaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(case) = &self.case {
            write!(f, ", `{case}`")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// All problems of a case file, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct CaseErrors(Vec<CaseError>);

impl CaseErrors {
    /// The problems.
    #[must_use]
    pub fn as_slice(&self) -> &[CaseError] {
        &self.0
    }

    /// Adds what was found in a case, or in the file.
    pub(super) fn add(&mut self, file: &str, case: Option<&str>, problems: &ConfigErrors) {
        self.0.extend(problems.as_slice().iter().map(|error| CaseError {
            file: file.to_owned(),
            case: case.map(str::to_owned),
            path: error.path.clone(),
            problem: error.problem.clone(),
        }));
    }

    pub(super) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for CaseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, plural) = (self.0.len(), if self.0.len() == 1 { "" } else { "s" });
        write!(f, "{count} problem{plural} in the cases")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for CaseErrors {}
