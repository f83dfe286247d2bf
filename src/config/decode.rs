//! Reading a configuration document: every problem is collected, each with its place, what was found and what is
//! accepted.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::time::{DisplayDuration, parse_duration};

/// How many characters of a wrong value an error shows.
const MAX_SHOWN: usize = 80;

/// One problem of a configuration document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where: a path such as `rules[0].require.max_age`; empty for the document itself.
    pub path: String,
    /// What was found, and what is accepted.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.path.is_empty() { "configuration" } else { &self.path };
        write!(f, "{place}: {}", self.problem)
    }
}

/// All problems of a configuration document, in the document's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// A single problem.
    #[must_use]
    pub fn single(path: &str, problem: impl Into<String>) -> Self {
        Self(vec![ConfigError { path: path.to_owned(), problem: problem.into() }])
    }

    /// The problems.
    #[must_use]
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn push(&mut self, path: impl Into<String>, problem: impl Into<String>) {
        self.0.push(ConfigError { path: path.into(), problem: problem.into() });
    }

    /// [`Self::push`], unless the same was said already.
    pub(super) fn push_once(&mut self, path: &str, problem: String) {
        let error = ConfigError { path: path.to_owned(), problem };
        if !self.0.contains(&error) {
            self.0.push(error);
        }
    }

    pub(crate) fn missing(&mut self, path: impl Into<String>, accepted: &str) {
        self.push(path, format!("missing, must be {accepted}"));
    }

    pub(crate) fn invalid(&mut self, at: &Node<'_>, accepted: &str) {
        self.push(&at.path, format!("must be {accepted}, got {}", at.shown()));
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, plural) = (self.0.len(), if self.0.len() == 1 { "" } else { "s" });
        write!(f, "{count} problem{plural} in the configuration")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// A value of the document and its place.
pub(crate) struct Node<'a> {
    pub path: String,
    pub value: &'a Value,
}

impl<'a> Node<'a> {
    pub fn shown(&self) -> String {
        let text = match self.value {
            // A URL with a password in it.
            Value::String(text) if text.contains("://") && text.contains('@') => {
                return "a URL with user information".to_owned();
            }
            Value::String(text) => text.clone(),
            Value::Object(_) => return "an object".to_owned(),
            Value::Array(items) if items.is_empty() => return "an empty list".to_owned(),
            Value::Array(_) => return "a list".to_owned(),
            other => other.to_string(),
        };
        match text.char_indices().nth(MAX_SHOWN) {
            Some((end, _)) => format!("`{}…`", text.get(..end).unwrap_or_default()),
            None => format!("`{text}`"),
        }
    }

    pub fn string(&self, accepted: &str, errors: &mut ConfigErrors) -> Option<&'a str> {
        match self.value {
            Value::String(text) if !text.is_empty() => Some(text),
            _ => {
                errors.invalid(self, accepted);
                None
            }
        }
    }

    pub fn parsed<T>(&self, accepted: &str, errors: &mut ConfigErrors, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let parsed = self.value.as_str().and_then(parse);
        if parsed.is_none() {
            errors.invalid(self, accepted);
        }
        parsed
    }

    pub fn one_of<T: Copy>(&self, accepted: &[(&str, T)], errors: &mut ConfigErrors) -> Option<T> {
        let names: Vec<String> = accepted.iter().map(|(name, _)| format!("`{name}`")).collect();
        self.parsed(&format!("one of {}", names.join(", ")), errors, |text| {
            accepted.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
        })
    }

    pub fn boolean(&self, errors: &mut ConfigErrors) -> Option<bool> {
        if self.value.as_bool().is_none() {
            errors.invalid(self, "`true` or `false`");
        }
        self.value.as_bool()
    }

    pub fn duration(&self, range: &RangeInclusive<Duration>, errors: &mut ConfigErrors) -> Option<Duration> {
        let accepted = format!(
            "a duration from {} to {}, such as `90s`, `15m` or `24h`",
            DisplayDuration(*range.start()),
            DisplayDuration(*range.end())
        );
        self.parsed(&accepted, errors, |text| parse_duration(text).filter(|duration| range.contains(duration)))
    }

    pub fn integer(&self, range: &RangeInclusive<u64>, errors: &mut ConfigErrors) -> Option<u64> {
        let integer = self.value.as_u64().filter(|integer| range.contains(integer));
        if integer.is_none() {
            errors.invalid(self, &format!("a whole number from {} to {}", range.start(), range.end()));
        }
        integer
    }

    /// The items of a list that must not be empty, nor longer than `limit`.
    pub fn items(&self, limit: usize, accepted: &str, errors: &mut ConfigErrors) -> Vec<Node<'a>> {
        match self.value {
            Value::Array(items) if items.len() > limit => {
                errors.push(&self.path, format!("must have at most {limit} entries, got {}", items.len()));
                Vec::new()
            }
            Value::Array(items) if !items.is_empty() => items
                .iter()
                .enumerate()
                .map(|(index, value)| Node { path: format!("{}[{index}]", self.path), value })
                .collect(),
            _ => {
                errors.invalid(self, accepted);
                Vec::new()
            }
        }
    }

    pub fn strings(&self, limit: usize, accepted: &str, errors: &mut ConfigErrors) -> Vec<String> {
        let items = self.items(limit, &format!("a list of {accepted}s"), errors);
        items.iter().filter_map(|item| item.string(&format!("a {accepted}"), errors)).map(str::to_owned).collect()
    }
}

/// An object of the document whose members are all known.
pub(crate) struct Object<'a> {
    path: String,
    members: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// Opens an object and reports the members that are not known.
    pub fn open(node: &Node<'a>, known: &[&str], errors: &mut ConfigErrors) -> Option<Self> {
        let Value::Object(members) = node.value else {
            errors.invalid(node, &format!("an object with any of {}", known.join(", ")));
            return None;
        };
        let object = Self { path: node.path.clone(), members };
        for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
            errors.push(object.place(name), format!("unknown field, accepted here: {}", known.join(", ")));
        }
        Some(object)
    }

    pub fn place(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A member; `null` is the same as none.
    pub fn get(&self, name: &str) -> Option<Node<'a>> {
        let value = self.members.get(name).filter(|value| !value.is_null())?;
        Some(Node { path: self.place(name), value })
    }

    /// Reports members that are `null`, where leaving one out by mistake would ask for less.
    pub fn refuse_nulls(&self, errors: &mut ConfigErrors) {
        for (name, _) in self.members.iter().filter(|(_, value)| value.is_null()) {
            errors.push(self.place(name), "must have a value, got `null`; leave it out to ask for nothing of the kind");
        }
    }

    pub fn required(&self, name: &str, accepted: &str, errors: &mut ConfigErrors) -> Option<Node<'a>> {
        let node = self.get(name);
        if node.is_none() {
            errors.missing(self.place(name), accepted);
        }
        node
    }

    pub fn required_string(&self, name: &str, accepted: &str, errors: &mut ConfigErrors) -> Option<&'a str> {
        self.required(name, accepted, errors)?.string(accepted, errors)
    }
}
