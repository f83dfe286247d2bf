//! What JavaScript is told, as JSON.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::answer::Decision;
use crate::config::ConfigErrors;
use crate::gate::BodyRequest;
use crate::jose::Algorithm;
use crate::provider::{Fault, Fetch};
use crate::secret::Secret;

#[derive(Serialize)]
#[serde(tag = "step", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Message<'a> {
    /// The request goes on to the app.
    Forward {
        decision: &'static str,
        reason: &'static str,
        rules: &'a [Arc<str>],
        /// The names of fields to remove, …
        removed: Vec<Cow<'a, str>>,
        /// … those to add then, …
        added: Vec<(&'a str, Cow<'a, str>)>,
        /// … and those to add to the app's response.
        response: &'a [(&'static str, String)],
    },
    /// The gate's own answer.
    Answer {
        decision: &'static str,
        reason: &'static str,
        rules: &'a [Arc<str>],
        status: u16,
        fields: Vec<(&'static str, Cow<'a, str>)>,
        body: &'a str,
    },
    Fetch {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u32>,
        /// How long the request waits for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        wait: Option<u64>,
        flight: u32,
        /// None: somebody else makes it.
        #[serde(skip_serializing_if = "Option::is_none")]
        call: Option<Call<'a>>,
    },
    Verify {
        id: u32,
        algorithm: &'static str,
        /// DER SubjectPublicKeyInfo.
        key: String,
        message_bytes: usize,
    },
    Body {
        id: u32,
        max_bytes: usize,
        wait: u64,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Call<'a> {
    url: &'a str,
    form: Option<&'a str>,
    authorization: Option<&'a str>,
    timeout: u64,
    max_bytes: usize,
}

impl<'a> Call<'a> {
    fn of(fetch: &'a Fetch) -> Self {
        let form = fetch.form.as_ref();
        Self {
            url: &fetch.url,
            form: form.map(|form| form.body.reveal()),
            authorization: form.and_then(|form| form.authorization.as_ref()).map(Secret::reveal),
            timeout: millis(fetch.timeout),
            max_bytes: fetch.max_bytes,
        }
    }
}

#[derive(Serialize)]
struct Landed<'a> {
    endpoint: &'static str,
    url: &'a str,
    result: Cow<'static, str>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct Problem<'a> {
    path: &'a str,
    problem: &'a str,
}

/// A decision. `to_grpc`: an answer goes to a client of gRPC. `as_utf8`: the runtime encodes header fields as UTF-8, otherwise
/// character by character.
pub fn decided(decision: &Decision, to_grpc: bool, as_utf8: bool) -> String {
    let (kind, reason, rules) = (decision.kind.name(), decision.reason.code(), decision.rules.as_slice());
    let Some(response) = &decision.response else {
        let edits = &decision.request;
        return json(&Message::Forward {
            decision: kind,
            reason,
            rules,
            removed: edits.removed.iter().map(|name| String::from_utf8_lossy(name)).collect(),
            added: edits.added.iter().map(|(name, value)| (name.as_str(), field_text(value, as_utf8))).collect(),
            response: &decision.response_headers,
        });
    };
    let mut fields: Vec<(&str, Cow<'_, str>)> =
        response.headers.iter().map(|(name, value)| (*name, value.as_str().into())).collect();
    let (mut status, mut body) = (response.status, response.body.as_ref());
    // A client of gRPC looks for its status in the fields of a 200 without content ("Trailers-Only").
    if let Some(code) = response.grpc_status.filter(|_| to_grpc) {
        fields.retain(|(name, _)| !matches!(*name, "content-type" | "content-length"));
        fields.push(("content-type", "application/grpc".into()));
        fields.push(("grpc-status", code.to_string().into()));
        (status, body) = (200, "");
    }
    json(&Message::Answer { decision: kind, reason, rules, status, fields, body })
}

/// A fetch that a request waits for, and how long. Without `call` somebody else makes it.
pub fn awaited(flight: u32, call: Option<&Fetch>, id: u32, wait: Duration) -> String {
    json(&Message::Fetch { id: Some(id), wait: Some(millis(wait)), flight, call: call.map(Call::of) })
}

/// Fetches that no request waits for.
pub fn background(fetches: &[(u32, Fetch)]) -> String {
    let messages = fetches.iter().map(|(flight, fetch)| {
        let call = Some(Call::of(fetch));
        Message::Fetch { id: None, wait: None, flight: *flight, call }
    });
    json(&messages.collect::<Vec<_>>())
}

pub fn verify(id: u32, algorithm: Algorithm, spki: &[u8], message_bytes: usize) -> String {
    json(&Message::Verify { id, algorithm: algorithm.name(), key: STANDARD.encode(spki), message_bytes })
}

pub fn body(id: u32, body: BodyRequest) -> String {
    json(&Message::Body { id, max_bytes: body.max_bytes, wait: millis(body.timeout) })
}

/// What became of a fetch.
pub fn landed(fetch: &Fetch, learned: &Result<(), Fault>) -> String {
    let result = learned.as_ref().map_or_else(|fault| fault.name().into(), |()| "ok".into());
    let problem = learned.as_ref().err().map(ToString::to_string);
    json(&Landed { endpoint: fetch.endpoint.name(), url: &fetch.url, result, problem })
}

pub fn problems(errors: &ConfigErrors) -> String {
    let problems = errors.as_slice().iter().map(|error| Problem { path: &error.path, problem: &error.problem });
    json(&problems.collect::<Vec<_>>())
}

/// Nothing here fails to serialize; what is no JSON is no permission either.
fn json(message: &impl Serialize) -> String {
    serde_json::to_string(message).unwrap_or_default()
}

fn field_text(value: &[u8], as_utf8: bool) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) if as_utf8 || text.is_ascii() => text.into(),
        _ => value.iter().copied().map(char::from).collect::<String>().into(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
