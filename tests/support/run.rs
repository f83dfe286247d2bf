//! Runs a case through the library.

use std::collections::BTreeMap;

use serde_json::Value;
use stepgate::http::{Request, Response};
use stepgate::provider::{Fetch, FetchFailure, Reply};
use stepgate::time::Timestamp;
use stepgate::{Config, Decision, Env, Gate, Outcome, Step};

use super::expand::Case;

/// Runs a case at `now`; the error says how the decision differs from what the case expects. Never shows a token.
pub fn run(case: &Case, now: u64) -> Result<(), String> {
    check(case, &decide(case, now)?)
}

fn decide(case: &Case, now: u64) -> Result<Decision, String> {
    let now = Timestamp::from_secs(now);
    let config = Config::from_value(&case.config, &|_| None).map_err(|errors| errors.to_string())?;
    let mut gate = Gate::new(config);
    let mut replies = case.replies.clone();
    // As in a running host, the background has fetched before the request comes.
    let mut earlier = Timestamp::from_millis(now.as_millis() - 60_000);
    for _ in 0..4 {
        for fetch in gate.due(earlier) {
            earlier = Timestamp::from_millis(earlier.as_millis() + 1);
            if let Some(reply) = next_reply(&mut replies, &fetch, earlier) {
                let _ = gate.learn(fetch.endpoint, &reply, earlier);
            }
        }
    }
    let headers: Vec<(&str, Vec<u8>)> =
        case.request.headers.iter().map(|(name, value)| (name.as_str(), latin1(value))).collect();
    let (authority, path) = (latin1(&case.request.authority), latin1(&case.request.path));
    let method = case.request.method.as_bytes();
    let request = Request { method, authority: &authority, path: &path, fields: &headers };
    let env = Env { now, entropy: &|| [7; 32] };
    let mut step = gate.begin(&request, env);
    for _ in 0..8 {
        step = match step {
            Step::Done(decision) => return Ok(decision),
            Step::Verify(_, pending) => gate.resume(pending, Outcome::Unsupported, env),
            Step::Body(_, pending) => gate.resume(pending, Outcome::Body(latin1(&case.request.body)), env),
            Step::Fetch(fetch, pending) => {
                let reply = next_reply(&mut replies, &fetch, now)
                    .ok_or_else(|| format!("an unexpected fetch of {}", fetch.url))?;
                gate.resume(pending, Outcome::Fetched(reply), env)
            }
        };
    }
    Err("no decision after eight steps".to_owned())
}

fn next_reply(replies: &mut BTreeMap<String, Vec<Value>>, fetch: &Fetch, at: Timestamp) -> Option<Reply> {
    let list = replies.get_mut(fetch.endpoint.name())?;
    let written = if list.len() > 1 { list.remove(0) } else { list.first()?.clone() };
    let body = match (&written["json"], &written["text"]) {
        (Value::Null, Value::String(text)) => text.clone(),
        (Value::Null, _) => String::new(),
        (json, _) => json.to_string(),
    };
    Some(match written["failure"].as_str() {
        Some("timeout") => Reply::failed(fetch, at, FetchFailure::Timeout),
        Some("reset") => Reply::failed(fetch, at, FetchFailure::Reset),
        Some(other) => panic!("no failure is named `{other}`"),
        None => {
            let status = written["status"].as_u64().unwrap_or(200);
            Reply::from_http(fetch, at, status.try_into().expect("a status"), body.into_bytes())
        }
    })
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).expect("a character up to U+00FF")).collect()
}

const EXPECT_FIELDS: [&str; 7] = ["decision", "reason", "status", "headers", "authorize", "endpoint", "body"];

fn check(case: &Case, decision: &Decision) -> Result<(), String> {
    let expect = case.expect.as_object().ok_or("no `expect`")?;
    if let Some(unknown) = expect.keys().find(|name| !EXPECT_FIELDS.contains(&name.as_str())) {
        return Err(format!("unknown field `expect.{unknown}`"));
    }
    let text = |name: &str| expect.get(name).and_then(Value::as_str);
    let (kind, code) = (decision.kind.name(), decision.reason.code());
    if text("decision") != Some(kind) || text("reason") != Some(code) {
        return Err(format!(
            "decided {kind}/{code} ({}), expected {:?}/{:?}",
            decision.reason,
            text("decision"),
            text("reason")
        ));
    }
    check_answer(decision)?;
    let status = decision.response.as_ref().map_or(200, |response| u64::from(response.status));
    if expect.get("status").is_some_and(|expected| expected.as_u64() != Some(status)) {
        return Err(format!("status {status}"));
    }
    for (name, expected) in object(expect.get("headers")) {
        let from_app = decision.response_headers.iter().find(|(field, _)| *field == name);
        let own = decision.response.as_ref().and_then(|response| header(response, &name));
        let found = own.or_else(|| from_app.map(|(_, value)| value.clone()));
        compare(&format!("header `{name}`"), found.as_deref(), &expected)?;
    }
    let location = step_up_url(decision.response.as_ref());
    let (endpoint, query) = location.as_deref().map_or((None, ""), |url| {
        url.split_once('?').map_or((Some(url), ""), |(endpoint, query)| (Some(endpoint), query))
    });
    if let Some(expected) = expect.get("endpoint") {
        compare("endpoint", endpoint, expected)?;
    }
    let parameters: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    for (name, expected) in object(expect.get("authorize")) {
        let values: Vec<&str> =
            parameters.iter().filter(|(found, _)| *found == name).map(|(_, value)| value.as_str()).collect();
        if values.len() > 1 {
            return Err(format!("parameter `{name}` comes {} times", values.len()));
        }
        compare(&format!("parameter `{name}`"), values.first().copied(), &expected)?;
    }
    let body = decision.response.as_ref().map_or("", |response| response.body.as_ref());
    for (name, expected) in object(expect.get("body")) {
        let body: Value = serde_json::from_str(body).map_err(|_| "the body is not JSON")?;
        if body.get(&name) != Some(&expected) && !(expected == Value::Bool(true) && body.get(&name).is_some()) {
            return Err(format!("body member `{name}`"));
        }
    }
    Ok(())
}

/// What holds for every answer of a kind, and no case has to say.
fn check_answer(decision: &Decision) -> Result<(), String> {
    let status = match decision.kind.name() {
        "redirect" => 302,
        "challenge" => 401,
        "bad_request" => 400,
        "forbidden" => 403,
        "unavailable" => 503,
        _ => {
            return decision.response.as_ref().map_or(Ok(()), |_| Err("an answer to a request that passes".to_owned()));
        }
    };
    let response = decision.response.as_ref().ok_or("no answer")?;
    let has = |name| response.header(name).is_some();
    let fits = response.status == status
        && response.header("cache-control") == Some("no-store")
        && has("location") == (status == 302)
        && has("www-authenticate") == (status == 401)
        && has("retry-after") == (status == 503);
    if fits { Ok(()) } else { Err(format!("not an answer of this kind: {response:?}")) }
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
    let in_body = || serde_json::from_str::<Value>(&response.body).ok()?["step_up_url"].as_str().map(str::to_owned);
    response.header("location").map(str::to_owned).or_else(in_body)
}

fn object(value: Option<&Value>) -> Vec<(String, Value)> {
    let members = value.and_then(Value::as_object);
    members.map_or_else(Vec::new, |members| members.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// `true`: anything; `null`: nothing; `{ "contains": TEXT }`; otherwise the very value.
fn compare(what: &str, found: Option<&str>, expected: &Value) -> Result<(), String> {
    let fits = match expected {
        Value::Bool(true) => found.is_some_and(|found| !found.is_empty()),
        Value::Null => found.is_none(),
        Value::String(text) => found == Some(text),
        Value::Object(test) => {
            let text = test.get("contains").and_then(Value::as_str);
            text.is_some_and(|text| found.is_some_and(|found| found.contains(text)))
        }
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected}")) }
}
