//! A case file as written: every field known and of its type, or refused with every problem that it has.

use std::collections::BTreeSet;

use serde_json::Value;

use super::CaseErrors;
use super::token::TOKEN_FIELDS;
use crate::config::{ConfigErrors, Node, Object};
use crate::reason::Reason;

/// A file of cases, read and checked.
#[derive(Clone, Debug)]
pub struct CaseFile {
    /// What the file is called in outcomes and errors.
    pub(super) name: String,
    /// The configuration of its own.
    pub(super) config: Option<Value>,
    /// The page that is asked for where a case names none.
    pub(super) page: Option<String>,
    /// The cases, with names of their own.
    pub(super) cases: Vec<(String, Value)>,
}

const FILE_FIELDS: [&str; 4] = ["about", "config", "page", "cases"];

const CASE_FIELDS: [&str; 13] = [
    "name",
    "config",
    "token",
    "tokens",
    "transaction",
    "transactions",
    "start",
    "sealed_with",
    "request",
    "replies",
    "expect",
    "skip",
    "why",
];

const REQUEST_FIELDS: [&str; 5] = ["method", "authority", "path", "headers", "body"];

const REPLY_FIELDS: [&str; 4] = ["status", "json", "text", "failure"];

const EXPECT_FIELDS: [&str; 12] = [
    "decision",
    "reason",
    "status",
    "headers",
    "cookies",
    "authorize",
    "endpoint",
    "body",
    "page",
    "sealed",
    "app",
    "posted",
];

const TRANSACTION_FIELDS: [&str; 9] =
    ["state", "nonce", "verifier", "demand", "return_to", "origin", "subject", "issued_at", "attempts"];

const START_FIELDS: [&str; 4] = ["demand", "return_to", "origin", "issued_at"];

/// The endpoints, and of these the ones that are asked by POST.
const ENDPOINTS: [&str; 4] = ["metadata", "keys", "token", "pushed_authorization"];
pub const POSTED: [&str; 2] = ["token", "pushed_authorization"];

const DECISIONS: [&str; 7] = ["forward", "report", "redirect", "challenge", "bad_request", "forbidden", "unavailable"];

const RUNNERS: [&str; 2] = ["library", "envoy"];

const EXPECTED_TEXT: &str =
    "a string, `true` (anything), `null` (nothing), or an object with any of contains, ends, lacks";

const HEADERS: &str = "a list of `[name, value]` or `[name, value, count]`, or `null`";

/// How often one header field may be repeated.
const REPEATED_FIELDS: u64 = 100_000;

impl CaseFile {
    /// Reads a case file. `name` is what outcomes and errors call it.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn from_value(name: &str, document: &Value) -> Result<Self, CaseErrors> {
        let mut all = CaseErrors::default();
        let mut errors = ConfigErrors::default();
        let node = Node { path: String::new(), value: document };
        let mut file = Self { name: name.to_owned(), config: None, page: None, cases: Vec::new() };
        let mut written = Vec::new();
        if let Some(root) = Object::open(&node, &FILE_FIELDS, &mut errors) {
            root.get("about").and_then(|about| about.string("a string", &mut errors));
            file.config =
                root.get("config").filter(|config| is_object(config, &mut errors)).map(|node| node.value.clone());
            let accepted = "a path with one `/` at its start";
            file.page = root.get("page").and_then(|page| {
                page.parsed(accepted, &mut errors, |text| text.starts_with('/').then(|| text.to_owned()))
            });
            let accepted = "a list of cases";
            let cases = root.required("cases", accepted, &mut errors);
            written = cases.map_or_else(Vec::new, |cases| cases.items(usize::MAX, accepted, &mut errors));
        }
        let mut names = BTreeSet::new();
        let mut named = Vec::new();
        for case in written {
            match case.value.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) {
                Some(name) if names.insert(name) => named.push((name, case.value)),
                Some(name) => errors.push(format!("{}.name", case.path), format!("another case is named `{name}`")),
                None if case.value.is_object() => {
                    errors.missing(format!("{}.name", case.path), "a string, unlike that of any other case");
                }
                None => errors.invalid(&case, &format!("an object with any of {}", CASE_FIELDS.join(", "))),
            }
        }
        all.add(name, None, &errors);
        for (case, value) in named {
            let mut errors = ConfigErrors::default();
            check_case(&Node { path: String::new(), value }, &mut errors);
            all.add(name, Some(case), &errors);
            file.cases.push((case.to_owned(), value.clone()));
        }
        all.or(file)
    }
}

fn check_case(node: &Node<'_>, errors: &mut ConfigErrors) {
    let Some(case) = Object::open(node, &CASE_FIELDS, errors) else { return };
    if let Some(config) = case.get("config") {
        is_object(&config, errors);
    }
    if let Some(token) = case.get("token") {
        Object::open(&token, &TOKEN_FIELDS, errors);
    }
    // Only the one token has a place in the default request.
    let known = TOKEN_FIELDS.split_last().map_or(&[][..], |(_, others)| others);
    each(case.get("tokens"), errors, &mut |_, token, errors| {
        Object::open(&token, known, errors);
    });
    if let Some(transaction) = case.get("transaction") {
        Object::open(&transaction, &TRANSACTION_FIELDS, errors);
    }
    each(case.get("transactions"), errors, &mut |_, transaction, errors| {
        Object::open(&transaction, &TRANSACTION_FIELDS, errors);
    });
    if let Some(start) = case.get("start") {
        Object::open(&start, &START_FIELDS, errors);
    }
    if case.get("sealed_with").is_some_and(|key| !key.value.is_string()) {
        errors.push("sealed_with", "must be 32 bytes in base64");
    }
    if let Some(request) = case.get("request") {
        check_request(&request, errors);
    }
    each(case.get("replies"), errors, &mut |endpoint, replies, errors| {
        check_known(endpoint, &ENDPOINTS, &replies, errors);
        let several = match replies.value {
            Value::Array(_) => replies.items(usize::MAX, "a reply, or a list of replies", errors),
            _ => vec![replies],
        };
        several.iter().for_each(|reply| check_reply(reply, errors));
    });
    if let Some(expect) = case.required("expect", "an object with `decision` and `reason`", errors) {
        check_expectation(&expect, errors);
    }
    each(case.get("skip"), errors, &mut |runner, reason, errors| {
        check_known(runner, &RUNNERS, &reason, errors);
        reason.string("the reason, a string", errors);
    });
    if let Some(why) = case.get("why") {
        why.string("a string", errors);
    }
}

fn check_request(node: &Node<'_>, errors: &mut ConfigErrors) {
    let Some(request) = Object::open(node, &REQUEST_FIELDS, errors) else { return };
    for name in ["method", "authority", "path", "body"] {
        if let Some(text) = request.get(name).filter(|text| !text.value.is_string()) {
            errors.invalid(&text, "a string");
        }
    }
    let Some(headers) = request.get("headers") else { return };
    let Value::Array(fields) = headers.value else { return errors.invalid(&headers, HEADERS) };
    for (index, field) in fields.iter().enumerate() {
        let fits = match field.as_array().map(Vec::as_slice) {
            Some([name, value]) => name.is_string() && value.is_string(),
            Some([name, value, count]) => {
                name.is_string() && value.is_string() && count.as_u64().is_some_and(|count| count <= REPEATED_FIELDS)
            }
            _ => false,
        };
        if !fits {
            let place = format!("{}[{index}]", headers.path);
            errors.push(
                place,
                format!(
                    "must be `[name, value]` or `[name, value, count]`, strings and a number up to {REPEATED_FIELDS}"
                ),
            );
        }
    }
}

fn check_reply(node: &Node<'_>, errors: &mut ConfigErrors) {
    let Some(reply) = Object::open(node, &REPLY_FIELDS, errors) else { return };
    if let Some(status) = reply.get("status") {
        status.integer(&(100..=599), errors);
    }
    if let Some(text) = reply.get("text").filter(|text| !text.value.is_string()) {
        errors.invalid(&text, "a string");
    }
    if let (Some(text), Some(_)) = (reply.get("text"), reply.get("json")) {
        errors.push(text.path, "contradicts `json`: give one of them");
    }
    if let Some(failure) = reply.get("failure") {
        failure.one_of(&[("timeout", ()), ("reset", ())], errors);
    }
}

fn check_expectation(node: &Node<'_>, errors: &mut ConfigErrors) {
    let Some(expect) = Object::open(node, &EXPECT_FIELDS, errors) else { return };
    let kinds = DECISIONS.map(|name| (name, ()));
    let accepted = format!("one of {}", DECISIONS.map(|name| format!("`{name}`")).join(", "));
    expect.required("decision", &accepted, errors).and_then(|node| node.one_of(&kinds, errors));
    let accepted = "one of the reason codes";
    if let Some(reason) = expect.required("reason", accepted, errors) {
        reason.one_of(&Reason::CODES.map(|code| (code, ())), errors);
    }
    if let Some(status) = expect.get("status") {
        status.integer(&(100..=599), errors);
    }
    for name in ["headers", "authorize", "app"] {
        each(expect.get(name), errors, &mut |_, text, errors| check_text(&text, errors));
    }
    for name in ["endpoint", "page"] {
        if let Some(text) = expect.get(name) {
            check_text(&text, errors);
        }
    }
    each(expect.get("cookies"), errors, &mut |_, cookie, errors| match cookie.value {
        Value::Array(_) => {
            let several = cookie.items(usize::MAX, EXPECTED_TEXT, errors);
            several.iter().for_each(|one| check_text(one, errors));
        }
        _ => check_text(&cookie, errors),
    });
    each(expect.get("body"), errors, &mut |_, _, _| {});
    each(expect.get("sealed"), errors, &mut |name, value, errors| {
        check_known(name, &TRANSACTION_FIELDS, &value, errors);
    });
    each(expect.get("posted"), errors, &mut |endpoint, parameters, errors| {
        check_known(endpoint, &POSTED, &parameters, errors);
        each(Some(parameters), errors, &mut |name, value, errors| match (name, value.value) {
            ("client_assertion", Value::Object(_)) => {}
            _ => check_text(&value, errors),
        });
    });
}

/// What [`super::compare`] understands.
fn check_text(node: &Node<'_>, errors: &mut ConfigErrors) {
    match node.value {
        Value::String(_) | Value::Null | Value::Bool(true) => {}
        Value::Object(members) if !members.is_empty() => {
            let Some(tests) = Object::open(node, &["contains", "ends", "lacks"], errors) else { return };
            for name in ["contains", "ends", "lacks"] {
                tests.get(name).and_then(|text| text.string("a string", errors));
            }
        }
        _ => errors.invalid(node, EXPECTED_TEXT),
    }
}

fn check_known(name: &str, known: &[&str], node: &Node<'_>, errors: &mut ConfigErrors) {
    if !known.contains(&name) {
        errors.push(&node.path, format!("unknown field, accepted here: {}", known.join(", ")));
    }
}

fn is_object(node: &Node<'_>, errors: &mut ConfigErrors) -> bool {
    if !node.value.is_object() {
        errors.invalid(node, "an object");
    }
    node.value.is_object()
}

/// The members of an object whose names are free.
fn each(node: Option<Node<'_>>, errors: &mut ConfigErrors, check: &mut dyn FnMut(&str, Node<'_>, &mut ConfigErrors)) {
    let Some(node) = node.filter(|node| is_object(node, errors)) else { return };
    for (name, value) in node.value.as_object().into_iter().flatten() {
        check(name, Node { path: format!("{}.{name}", node.path), value }, errors);
    }
}
