//! Runs a case through the library.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::Case;
use super::compare::{Difference, Post, differences, shown};
use crate::answer::Decision;
use crate::env::Env;
use crate::gate::{self, Gate, Step};
use crate::http::{Fields, Request};
use crate::provider::{Endpoint, Fault, Fetch, FetchFailure, Reply};
use crate::time::Timestamp;

/// What came of a case. It never shows a token or a secret.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The file that the case stands in.
    pub file: String,
    /// Its name in that file.
    pub name: String,
    /// Why it was not run.
    pub skipped: Option<String>,
    /// What was decided; none where it came to no decision.
    pub decided: Option<Decided>,
    /// Everything that is not as expected.
    pub differences: Vec<Difference>,
}

/// The decision that a case came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// The kind: `forward`, `redirect`, …
    pub decision: &'static str,
    /// The reason code.
    pub reason: &'static str,
    /// The reason in words.
    pub because: String,
    /// The status of the gate's own answer; 200 where the request goes on to the app.
    pub status: u16,
    /// The names of the rules that asked, in the configuration's order.
    pub rules: Vec<String>,
}

impl Outcome {
    /// Whether nothing differs. What was not run does not.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}: ", self.file, self.name)?;
        match (&self.skipped, self.differences.len()) {
            (Some(reason), _) => write!(f, "not run ({reason})")?,
            (None, 0) => f.write_str("as expected")?,
            (None, 1) => f.write_str("1 difference")?,
            (None, count) => write!(f, "{count} differences")?,
        }
        if let Some(decided) = &self.decided {
            write!(f, "\n  {decided}")?;
        }
        self.differences.iter().try_for_each(|difference| write!(f, "\n  {difference}"))
    }
}

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "decided: {}, {}, status {} ({})", self.decision, self.reason, self.status, self.because)?;
        match self.rules.as_slice() {
            [] => Ok(()),
            rules => write!(f, ", for {}", rules.join(", ")),
        }
    }
}

/// Runs a case.
#[must_use]
pub fn run(case: &Case) -> Outcome {
    let mut outcome = Outcome {
        file: case.file.clone(),
        name: case.name.clone(),
        skipped: case.skip.get("library").cloned(),
        decided: None,
        differences: Vec::new(),
    };
    if outcome.skipped.is_some() {
        return outcome;
    }
    match decide(case) {
        Ok((decision, posts)) => {
            outcome.decided = Some(decided(&decision));
            outcome.differences = differences(case, &decision, &posts);
        }
        Err(difference) => outcome.differences.push(difference),
    }
    outcome
}

fn decided(decision: &Decision) -> Decided {
    Decided {
        decision: decision.kind.name(),
        reason: decision.reason.code(),
        because: decision.reason.to_string(),
        status: decision.response.as_ref().map_or(200, |response| response.status),
        rules: decision.rules.iter().map(|name| name.to_string()).collect(),
    }
}

fn decide(case: &Case) -> Result<(Decision, Vec<Post>), Difference> {
    let now = Timestamp::from_secs(case.now);
    let mut gate = Gate::new(case.gate.clone());
    let mut replies = case.replies.clone();
    // What it cannot use is what some cases are about: the request shows what comes of it.
    let _ = learn_beforehand(&mut gate, now, &mut |fetch, at| next_reply(&mut replies, fetch, at));
    let known = case.request.headers.as_ref().map(|headers| -> Vec<(&str, Vec<u8>)> {
        headers.iter().map(|(name, value)| (name.as_str(), latin1(value))).collect()
    });
    let fields: &dyn Fields = known.as_ref().map_or(&Unreadable, |known| known);
    let (authority, path) = (latin1(&case.request.authority), latin1(&case.request.path));
    let method = case.request.method.as_bytes();
    let request = Request { method, authority: &authority, path: &path, fields };
    let mut env = Env { now, entropy: &|| [7; 32] };
    let mut posts = Vec::new();
    let mut step = gate.begin(&request, env);
    for _ in 0..8 {
        step = match step {
            Step::Done(decision) => return Ok((decision, posts)),
            Step::Verify(_, pending) => gate.resume(pending, gate::Outcome::Unsupported, env),
            Step::Body(asked, pending) => {
                let body = Some(latin1(&case.request.body)).filter(|body| body.len() <= asked.max_bytes);
                gate.resume(pending, body.map_or(gate::Outcome::Unsupported, gate::Outcome::Body), env)
            }
            Step::Fetch(fetch, pending) => {
                if let Some(form) = &fetch.form {
                    let authorization = form.authorization.as_ref().map(|value| value.reveal().to_owned());
                    let endpoint = fetch.endpoint.name();
                    posts.push(Post { endpoint, form: form.body.reveal().to_owned(), authorization });
                }
                // A fetch takes its time.
                env.now = Timestamp::from_millis(env.now.as_millis().saturating_add(1));
                let reply = next_reply(&mut replies, &fetch, env.now).ok_or_else(|| Difference {
                    what: "the provider".to_owned(),
                    expected: format!("not to be asked: there is no `replies.{}`", fetch.endpoint.name()),
                    found: format!("asked at {}", shown(&fetch.url, case)),
                })?;
                gate.resume(pending, gate::Outcome::Fetched(reply), env)
            }
        };
    }
    Err(Difference {
        what: "decision".to_owned(),
        expected: "one after eight steps at most".to_owned(),
        found: "none".to_owned(),
    })
}

/// Has a gate fetch in the background what it wants, as in a running host before a request comes at `now`. Gives what was of no use.
pub fn learn_beforehand(
    gate: &mut Gate,
    now: Timestamp,
    reply: &mut dyn FnMut(&Fetch, Timestamp) -> Option<Reply>,
) -> Vec<(Endpoint, Fault)> {
    let mut at = Timestamp::from_millis(now.as_millis().saturating_sub(60_000));
    let mut faults = Vec::new();
    // Metadata, then keys, and each again where it failed.
    for _ in 0..4 {
        for fetch in gate.due(at) {
            at = Timestamp::from_millis(at.as_millis().saturating_add(1));
            if let Some(reply) = reply(&fetch, at) {
                faults.extend(gate.learn(fetch.endpoint, &reply, at).err().map(|fault| (fetch.endpoint, fault)));
            }
        }
    }
    faults
}

/// The fields of a request whose host cannot tell them.
struct Unreadable;

impl Fields for Unreadable {
    fn each(&self, _: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        false
    }
}

fn next_reply(replies: &mut BTreeMap<String, Vec<Value>>, fetch: &Fetch, at: Timestamp) -> Option<Reply> {
    let list = replies.get_mut(fetch.endpoint.name())?;
    let written = if list.len() > 1 { list.remove(0) } else { list.first()?.clone() };
    match written.get("failure").and_then(Value::as_str) {
        Some("timeout") => return Some(Reply::failed(fetch, at, FetchFailure::Timeout)),
        Some(_) => return Some(Reply::failed(fetch, at, FetchFailure::Reset)),
        None => {}
    }
    let json = written.get("json").filter(|json| !json.is_null()).map(Value::to_string);
    let text = || written.get("text").and_then(Value::as_str).map(str::to_owned);
    let body = json.or_else(text).unwrap_or_default();
    let status = written.get("status").and_then(Value::as_u64).and_then(|status| status.try_into().ok());
    Some(Reply::from_http(fetch, at, status.unwrap_or(200), body.into_bytes()))
}

/// Each character as one byte: there are no others in a case that was expanded.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().filter_map(|character| u8::try_from(u32::from(character)).ok()).collect()
}
