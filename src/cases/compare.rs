//! How a decision differs from what a case expects. Nothing here shows a token or a secret.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::file::POSTED;
use super::{Case, keys};
use crate::answer::{Decision, DecisionKind};
use crate::flow::{Start, Transaction, subject_digest};
use crate::http::{Response, form_decode};

/// One thing that is not as a case expects it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What it is about: `reason`, ``header `location` ``, …
    pub what: String,
    /// What the case expects.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n    expected {}\n    found    {}", self.what, self.expected, self.found)
    }
}

/// What the provider got by POST.
pub struct Post {
    pub endpoint: &'static str,
    pub form: String,
    pub authorization: Option<String>,
}

/// How long 32 bytes are in base64url: what is as long could be a key, a signature or something sealed, and is not shown.
const HIDDEN_LENGTH: usize = 43;

/// How a JSON object begins in base64url, such as the parts of a token.
const ENCODED_OBJECT: &str = "eyJ";

/// How many characters of a value are shown.
const SHOWN_CHARACTERS: usize = 400;

/// A text as it may be shown: what was minted for the case by its name, and anything that looks like a token, a key or
/// a random value by its length and a fingerprint, so that two of them can be told apart.
pub fn shown(text: &str, case: &Case) -> String {
    let mut minted: Vec<(&str, &str)> =
        case.names.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    minted.retain(|(name, value)| *name != "now" && !value.is_empty());
    // What contains another comes first.
    minted.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    let named = minted.iter().fold(text.to_owned(), |text, (name, value)| text.replace(value, &format!("${{{name}}}")));
    let secret = case.gate.client.secret.as_ref();
    let named = secret.map_or_else(|| named.clone(), |secret| named.replace(secret.reveal(), "$secret"));
    let is_part = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    let mut result = String::new();
    let mut rest = named.as_str();
    while !rest.is_empty() {
        let (run, after) = rest.split_at(rest.find(|character| !is_part(character)).unwrap_or(rest.len()));
        if run.len() < HIDDEN_LENGTH && !run.starts_with(ENCODED_OBJECT) {
            result.push_str(run);
        } else {
            let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(run.as_bytes()));
            let fingerprint = digest.get(..6).unwrap_or_default();
            result.push_str(&format!("({} characters, fingerprint {fingerprint})", run.len()));
        }
        let mut others = after.chars();
        result.extend(others.next());
        rest = others.as_str();
    }
    match result.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", result.get(..end).unwrap_or_default()),
        None => result,
    }
}

/// All that differs.
pub fn differences(case: &Case, decision: &Decision, posts: &[Post]) -> Vec<Difference> {
    let mut found = Differences { case, list: Vec::new() };
    found.decision(decision);
    found.kind(decision);
    found.fields(decision);
    found.cookies(decision);
    found.address(decision);
    found.body(decision);
    found.sealed(decision);
    found.app(decision);
    found.posts(posts);
    found.list
}

struct Differences<'a> {
    case: &'a Case,
    list: Vec<Difference>,
}

impl<'a> Differences<'a> {
    fn push(&mut self, what: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) {
        self.list.push(Difference { what: what.into(), expected: expected.into(), found: found.into() });
    }

    fn expected(&self, name: &str) -> Option<&'a Value> {
        self.case.expect.get(name)
    }

    fn members(&self, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.expected(name).and_then(Value::as_object).into_iter().flatten()
    }

    /// A text, in quotes; nothing where there is none.
    fn quoted(&self, text: Option<&str>) -> String {
        text.map_or_else(|| "nothing".to_owned(), |text| format!("{:?}", shown(text, self.case)))
    }

    /// `true`: anything; `null`: nothing; `{ contains, ends, lacks }`: texts; otherwise the very value.
    fn text(&mut self, what: &str, found: Option<&str>, expected: &Value) {
        let fits = match expected {
            Value::Bool(true) => found.is_some_and(|found| !found.is_empty()),
            Value::Null => found.is_none(),
            Value::String(text) => found == Some(text),
            Value::Object(tests) => found.is_some_and(|found| {
                tests.iter().all(|(test, text)| match (test.as_str(), text.as_str()) {
                    ("contains", Some(text)) => found.contains(text),
                    ("ends", Some(text)) => found.ends_with(text),
                    ("lacks", Some(text)) => !found.contains(text),
                    _ => false,
                })
            }),
            _ => false,
        };
        if !fits {
            let (expected, found) = (self.described(expected), self.quoted(found));
            self.push(what, expected, found);
        }
    }

    fn described(&self, expected: &Value) -> String {
        match expected {
            Value::Bool(true) => "anything".to_owned(),
            Value::Null => "nothing".to_owned(),
            Value::String(text) => self.quoted(Some(text)),
            Value::Object(tests) => {
                let test = |(test, text): (&String, &Value)| format!("{test} {}", self.quoted(text.as_str()));
                tests.iter().map(test).collect::<Vec<_>>().join(", ")
            }
            other => self.json(Some(other)),
        }
    }

    fn json(&self, value: Option<&Value>) -> String {
        value.map_or_else(|| "nothing".to_owned(), |value| shown(&value.to_string(), self.case))
    }

    fn decision(&mut self, decision: &Decision) {
        let status = decision.response.as_ref().map_or(200, |response| response.status);
        for (what, found) in [("decision", decision.kind.name()), ("reason", decision.reason.code())] {
            let expected = self.expected(what).and_then(Value::as_str).unwrap_or_default();
            if expected != found {
                let because = if what == "reason" { format!(" ({})", decision.reason) } else { String::new() };
                self.push(what, expected, format!("{found}{because}"));
            }
        }
        if let Some(expected) = self.expected("status").filter(|expected| expected.as_u64() != Some(status.into())) {
            self.push("status", expected.to_string(), status.to_string());
        }
    }

    /// What holds for every answer of a kind, and no case has to say.
    fn kind(&mut self, decision: &Decision) {
        let kind = decision.kind.name();
        let status = match decision.kind {
            DecisionKind::Forward | DecisionKind::Report => {
                if decision.response.is_some() {
                    self.push("answer", format!("none, since it is `{kind}`"), "one");
                }
                return;
            }
            DecisionKind::Redirect => 302,
            DecisionKind::Challenge => 401,
            DecisionKind::BadRequest => 400,
            DecisionKind::Forbidden => 403,
            DecisionKind::Unavailable => 503,
        };
        let Some(response) = &decision.response else {
            return self.push("answer", format!("one, since it is `{kind}`"), "none");
        };
        if response.status != status {
            self.push(format!("status of `{kind}`"), status.to_string(), response.status.to_string());
        }
        if response.header("cache-control") != Some("no-store") {
            let found = self.quoted(response.header("cache-control"));
            self.push(format!("header `cache-control` of `{kind}`"), "\"no-store\"", found);
        }
        for (name, of) in [("location", 302), ("www-authenticate", 401), ("retry-after", 503)] {
            let (found, is_due) = (response.header(name), status == of);
            if found.is_some() != is_due {
                let found = self.quoted(found);
                self.push(format!("header `{name}` of `{kind}`"), if is_due { "anything" } else { "nothing" }, found);
            }
        }
    }

    fn fields(&mut self, decision: &Decision) {
        for (name, expected) in self.members("headers") {
            let from_app = decision.response_headers.iter().find(|(field, _)| *field == name);
            let own = decision.response.as_ref().and_then(|response| header(response, name));
            let found = own.or_else(|| from_app.map(|(_, value)| value.clone()));
            self.text(&format!("header `{name}`"), found.as_deref(), expected);
        }
    }

    /// The cookies that an answer sets, by name. A name that ends in `*` stands for all others that begin so.
    fn cookies(&mut self, decision: &Decision) {
        let of_answer = decision.response.iter().flat_map(|response| &response.headers);
        let fields = of_answer.chain(&decision.response_headers);
        let lines: Vec<&str> =
            fields.filter(|(field, _)| *field == "set-cookie").map(|(_, line)| line.as_str()).collect();
        for (name, expected) in self.members("cookies") {
            let is_meant = |line: &&&str| {
                let cookie = line.split('=').next().unwrap_or_default();
                match name.strip_suffix('*') {
                    Some(prefix) => {
                        cookie.starts_with(prefix) && self.members("cookies").all(|(other, _)| other != cookie)
                    }
                    None => cookie == name,
                }
            };
            let found: Vec<&str> = lines.iter().filter(is_meant).copied().collect();
            let several = match expected {
                Value::Array(several) => several.as_slice(),
                one => std::slice::from_ref(one),
            };
            let what = format!("cookie `{name}`");
            if found.len() > several.len() {
                self.push(&what, format!("{} at most", several.len()), found.len().to_string());
            }
            for (index, expected) in several.iter().enumerate() {
                self.cookie(&what, found.get(index).copied(), expected);
            }
        }
    }

    fn cookie(&mut self, what: &str, line: Option<&str>, expected: &Value) {
        let is_empty = line.is_some_and(|line| line.contains("=;"));
        let is_cleared = is_empty && line.is_some_and(|line| line.contains("; Max-Age=0;"));
        let wrong = match expected {
            Value::String(text) if text == "cleared" => (!is_cleared).then_some("cleared"),
            Value::Bool(true) => is_empty.then_some("a value"),
            _ => None,
        };
        match wrong {
            Some(expected) => {
                let found = self.quoted(line);
                self.push(what, expected, found);
            }
            None if expected == "cleared" => {}
            None => self.text(what, line, expected),
        }
    }

    /// Where a step-up leads.
    fn address(&mut self, decision: &Decision) {
        let location = step_up_url(decision.response.as_ref());
        let (endpoint, query) = location.as_deref().map_or((None, ""), |url| {
            url.split_once('?').map_or((Some(url), ""), |(endpoint, query)| (Some(endpoint), query))
        });
        if let Some(expected) = self.expected("endpoint") {
            self.text("endpoint", endpoint, expected);
        }
        self.parameters("parameter", query, self.members("authorize"));
    }

    fn parameters<'e>(&mut self, what: &str, form: &str, expected: impl Iterator<Item = (&'e String, &'e Value)>) {
        let parameters = form_decode(form.as_bytes());
        for (name, expected) in expected {
            let values: Vec<&str> =
                parameters.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect();
            let what = format!("{what} `{name}`");
            if values.len() > 1 {
                self.push(&what, "once at most", format!("{} times", values.len()));
            }
            self.text(&what, values.first().copied(), expected);
        }
    }

    fn body(&mut self, decision: &Decision) {
        let body = decision.response.as_ref().map_or("", |response| response.body.as_ref());
        let json: Value = serde_json::from_str(body).unwrap_or_default();
        for (name, expected) in self.members("body") {
            let found = json.get(name);
            if found != Some(expected) && !(*expected == Value::Bool(true) && found.is_some()) {
                let (expected, found) = (self.json(Some(expected)), self.json(found));
                self.push(format!("body member `{name}`"), expected, found);
            }
        }
        if let Some(expected) = self.expected("page") {
            self.text("page", Some(body), expected);
        }
    }

    /// What the gate has sealed: the transaction that begins, or the content of the link that starts one.
    fn sealed(&mut self, decision: &Decision) {
        if self.members("sealed").next().is_none() {
            return;
        }
        let Some(sealed) = unsealed(self.case, decision) else {
            return self.push("sealed", "a transaction, or a link that starts one", "none");
        };
        for (name, expected) in self.members("sealed") {
            let digest = expected.as_str().filter(|_| name == "subject").map(|subject| subject_digest(subject).into());
            let expected = digest.as_ref().unwrap_or(expected);
            let found = sealed.get(name).unwrap_or(&Value::Null);
            if found != expected {
                let (expected, found) = (self.json(Some(expected)), self.json(Some(found)));
                self.push(format!("sealed `{name}`"), expected, found);
            }
        }
    }

    /// The request as the app gets it.
    fn app(&mut self, decision: &Decision) {
        if self.members("app").next().is_some() && decision.response.is_some() {
            return self.push("app", "a request", "none");
        }
        let edits = &decision.request;
        let is_removed = |name: &str| edits.removed.iter().any(|removed| removed.eq_ignore_ascii_case(name.as_bytes()));
        let kept = self.case.request.headers.iter().flatten().filter(|(name, _)| !is_removed(name)).cloned();
        let latin1 = |value: &[u8]| value.iter().copied().map(char::from).collect();
        let added = edits.added.iter().map(|(name, value)| (name.clone(), latin1(value)));
        let fields: Vec<(String, String)> = kept.chain(added).collect();
        for (name, expected) in self.members("app") {
            let values: Vec<&str> = fields
                .iter()
                .filter(|(field, _)| field.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
                .collect();
            let joined = values.join(if name == "cookie" { "; " } else { ", " });
            self.text(&format!("the app's `{name}`"), (!values.is_empty()).then_some(&joined), expected);
        }
    }

    /// What the provider got: once where it was to be asked, and as expected.
    fn posts(&mut self, posts: &[Post]) {
        for endpoint in POSTED {
            let sent: Vec<&Post> = posts.iter().filter(|post| post.endpoint == endpoint).collect();
            let due = usize::from(self.case.replies.contains_key(endpoint));
            if sent.len() != due {
                let times = |count| if count == 1 { "once".to_owned() } else { format!("{count} times") };
                self.push(format!("`{endpoint}` asked"), times(due), times(sent.len()));
            }
            let expected = self.expected("posted").and_then(|posted| posted.get(endpoint)).and_then(Value::as_object);
            if let (Some(post), Some(expected)) = (sent.first(), expected) {
                self.post(post, expected);
            }
        }
    }

    fn post(&mut self, post: &Post, expected: &Map<String, Value>) {
        let what = format!("`{}` parameter", post.endpoint);
        for (name, expected) in expected {
            match (name.as_str(), expected) {
                ("authorization", _) => {
                    self.authorization(post, expected);
                }
                ("client_assertion", Value::Object(claims)) => self.assertion(post, claims),
                _ => self.parameters(&what, &post.form, std::iter::once((name, expected))),
            }
        }
    }

    /// Whose credentials are not shown, short as they may be.
    fn authorization(&mut self, post: &Post, expected: &Value) {
        let count = self.list.len();
        self.text(&format!("`{}` header `authorization`", post.endpoint), post.authorization.as_deref(), expected);
        let scheme = post.authorization.as_deref().and_then(|value| value.split(' ').next());
        if let (Some(difference), Some(scheme)) = (self.list.get_mut(count), scheme) {
            difference.found = format!("{scheme} (not shown)");
        }
    }

    /// The client's own token (RFC 7523): by its key, and with these claims.
    fn assertion(&mut self, post: &Post, expected: &Map<String, Value>) {
        let parameters = form_decode(post.form.as_bytes());
        let assertion = parameters.iter().find(|(name, _)| name == "client_assertion");
        let Some(claims) = assertion.and_then(|(_, assertion)| keys::client_claims(assertion)) else {
            return self.push("`client_assertion`", "signed by the client's key", "none that is");
        };
        for (name, expected) in expected {
            let found = claims.get(name);
            if found != Some(expected) {
                let (expected, found) = (self.json(Some(expected)), self.json(found));
                self.push(format!("`client_assertion` claim `{name}`"), expected, found);
            }
        }
    }
}

fn unsealed(case: &Case, decision: &Decision) -> Option<Value> {
    let keys = &case.gate.callback.as_ref()?.keys;
    let response = decision.response.as_ref()?;
    let begun = response.headers.iter().find_map(|(_, value)| {
        let (_, cookie) = value.split_once("stepgate_tx_")?;
        let (state, sealed) = cookie.split(';').next()?.split_once('=')?;
        serde_json::to_value(Transaction::open(keys, state, sealed)?).ok()
    });
    let linked = || {
        let url = step_up_url(Some(response))?;
        let (_, query) = url.split_once('?')?;
        let (_, sealed) = form_decode(query.as_bytes()).into_iter().find(|(name, _)| name == "step_up")?;
        serde_json::to_value(Start::open(keys, &sealed)?).ok()
    };
    begun.or_else(linked)
}

/// A header of the answer as the client sees it: the host writes `grpc-status`.
fn header(response: &Response, name: &str) -> Option<String> {
    match name {
        "grpc-status" => response.grpc_status.map(|status| status.to_string()),
        _ => response.header(name).map(str::to_owned),
    }
}

fn step_up_url(response: Option<&Response>) -> Option<String> {
    let response = response?;
    let in_body = || {
        let body: Value = serde_json::from_str(&response.body).ok()?;
        body.get("step_up_url")?.as_str().map(str::to_owned)
    };
    response.header("location").map(str::to_owned).or_else(in_body)
}
