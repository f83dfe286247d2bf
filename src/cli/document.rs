//! A configuration in a file: YAML or JSON, alone or inside what a host is configured with, with the place of each value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use super::{Problem, read_input};

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    pub line: u64,
    pub column: u64,
}

/// A gate's configuration, as it stands in a file.
#[derive(Debug)]
pub struct Document {
    /// The file.
    pub file: PathBuf,
    /// Where in the file's own structure it stands; empty where it is all of it.
    pub within: String,
    /// The document.
    pub value: Value,
    /// What a host has around it: Envoy's plugin, the `spec` of a `WasmPlugin`, the extension of an `EnvoyExtensionPolicy`.
    pub around: Option<Value>,
    places: BTreeMap<String, Position>,
}

impl Document {
    /// Reads the one configuration of a file.
    pub fn read(file: &Path) -> Result<Self, Problem> {
        let mut documents = Self::read_all(file)?;
        match (documents.pop(), documents.len()) {
            (Some(document), 0) => Ok(document),
            (_, others) => Err(Problem::failure(format!(
                "{}: has {} configurations of a gate, one is wanted here",
                file.display(),
                others + 1
            ))),
        }
    }

    /// Reads every configuration of a file: the file itself, or those inside an Envoy configuration or Kubernetes resources.
    pub fn read_all(file: &Path) -> Result<Vec<Self>, Problem> {
        let text = read_input(file)?;
        let name = shown(file);
        if text.trim().is_empty() {
            return Err(Problem::configuration(format!("{name}: is empty")));
        }
        let is_json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if is_json && let Err(error) = serde_json::from_str::<Value>(&text) {
            return Err(Problem::configuration(format!("{name}: not valid JSON: {error}")));
        }
        let parsed: Vec<Spanned<Node>> = serde_saphyr::from_multiple(&text).map_err(|error| {
            let (place, problem) = yaml_problem(file, &error);
            Problem::configuration(format!("{place}: not valid YAML: {problem}"))
        })?;
        let mut found = Vec::new();
        for document in &parsed {
            collect(file, "", None, document, &mut found);
        }
        // What looks like none is taken for one with mistakes.
        if let ([only], true) = (parsed.as_slice(), found.is_empty()) {
            found.push(Self::of(file, "", None, only));
        }
        if found.is_empty() {
            return Err(Problem::configuration(format!("{name}: has no configuration of a gate")));
        }
        Ok(found)
    }

    fn of(file: &Path, within: &str, around: Option<&Node>, node: &Spanned<Node>) -> Self {
        let mut places = BTreeMap::from([(String::new(), position(node))]);
        record(node, "", &mut places);
        let around = around.map(Node::to_value);
        Self { file: file.to_owned(), within: within.to_owned(), value: node.value.to_value(), around, places }
    }

    /// Where a place of the document stands, such as `rules[0].paths`; of something that is missing, where it would stand.
    pub fn position(&self, place: &str) -> Position {
        let mut place = place;
        loop {
            if let Some(position) = self.places.get(place) {
                return *position;
            }
            place = place.rfind(['.', '[']).and_then(|end| place.get(..end)).unwrap_or_default();
        }
    }

    /// How messages name the file and a place in it.
    pub fn at(&self, place: &str) -> String {
        let Position { line, column } = self.position(place);
        format!("{}:{line}:{column}", shown(&self.file))
    }
}

/// A file's name, as messages have it.
pub fn shown(file: &Path) -> String {
    if file == Path::new("-") { "<stdin>".to_owned() } else { file.display().to_string() }
}

/// Where in a file there is something wrong with its YAML, and what.
pub fn yaml_problem(file: &Path, error: &serde_saphyr::Error) -> (String, String) {
    let place = error.location().map_or_else(String::new, |at| format!(":{}:{}", at.line(), at.column()));
    (format!("{}{place}", shown(file)), problem_of_yaml(error))
}

fn problem_of_yaml(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    if let Some(key) = text.strip_prefix("duplicate mapping key: ").and_then(|rest| rest.split(',').next()) {
        return format!("the key `{key}` stands there for the second time");
    }
    if text.starts_with("budget breached") {
        return "too large or too deep, aliases resolved".to_owned();
    }
    text.to_owned()
}

/// Finds what looks like a gate's configuration, from the outside in.
fn collect(file: &Path, within: &str, around: Option<&Node>, node: &Spanned<Node>, found: &mut Vec<Document>) {
    match &node.value {
        Node::Object(members) => {
            let has = |name: &str| members.iter().any(|(key, _)| key.value == name);
            if has("provider") && has("client") || has("provider") && has("rules") || has("client") && has("rules") {
                found.push(Document::of(file, within, around, node));
                return;
            }
            for (key, value) in members {
                let within = if within.is_empty() { key.value.clone() } else { format!("{within}.{}", key.value) };
                // The value of a protobuf message stands one level deeper.
                let is_place = ["configuration", "pluginConfig", "config"].contains(&key.value.as_str());
                let around = if is_place { Some(&node.value) } else { around.filter(|_| key.value == "value") };
                collect(file, &within, around, value, found);
            }
        }
        Node::List(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(file, &format!("{within}[{index}]"), None, item, found);
            }
        }
        // A `google.protobuf.StringValue` holds JSON.
        Node::Scalar(Value::String(text)) if text.trim_start().starts_with('{') => {
            if let Ok(inner) = serde_saphyr::from_str::<Spanned<Node>>(text) {
                let from = found.len();
                collect(file, within, around, &inner, found);
                for document in found.iter_mut().skip(from) {
                    document.places = BTreeMap::from([(String::new(), position(node))]);
                }
            }
        }
        Node::Scalar(_) => {}
    }
}

fn position<T>(node: &Spanned<T>) -> Position {
    Position { line: node.referenced.line(), column: node.referenced.column() }
}

/// Notes the place of everything below a node: of a member where its name stands.
fn record(node: &Spanned<Node>, path: &str, places: &mut BTreeMap<String, Position>) {
    match &node.value {
        Node::Object(members) => {
            for (key, value) in members {
                let path = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                record(value, &path, places);
                places.insert(path, position(key));
            }
        }
        Node::List(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                places.insert(path.clone(), position(item));
                record(item, &path, places);
            }
        }
        Node::Scalar(_) => {}
    }
}

/// A value whose parts have a place each.
#[derive(Debug)]
enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Object(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Node {
    fn to_value(&self) -> Value {
        match self {
            Self::Scalar(value) => value.clone(),
            Self::List(items) => items.iter().map(|item| item.value.to_value()).collect(),
            Self::Object(members) => {
                let members = members.iter().map(|(key, value)| (key.value.clone(), value.value.to_value()));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has too")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Deserialize::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number that is not finite"))?;
        Ok(Node::Scalar(number.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Node::Object(members))
    }
}
