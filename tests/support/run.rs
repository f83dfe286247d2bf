//! Runs a case through the library.

use std::collections::BTreeMap;

use serde_json::Value;
use stepgate::flow::{Start, Transaction, subject_digest};
use stepgate::http::{Fields, Request, Response};
use stepgate::provider::{Fetch, FetchFailure, Reply};
use stepgate::time::Timestamp;
use stepgate::{Config, Decision, Env, Gate, Outcome, Step};

use super::expand::Case;
use super::keys;

/// Runs a case at `now`; the error says how the decision differs from what the case expects. Never shows a token.
pub fn run(case: &Case, now: u64) -> Result<(), String> {
    let (decision, posts) = decide(case, now)?;
    check(case, &decision)?;
    check_sealed(case, &decision)?;
    check_app(case, &decision)?;
    check_posts(case, &posts)
}

/// What the provider got by POST, as `(endpoint, form, authorization)`.
type Post = (&'static str, String, Option<String>);

fn decide(case: &Case, now: u64) -> Result<(Decision, Vec<Post>), String> {
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
            Step::Verify(_, pending) => gate.resume(pending, Outcome::Unsupported, env),
            Step::Body(asked, pending) => {
                let body = Some(latin1(&case.request.body)).filter(|body| body.len() <= asked.max_bytes);
                gate.resume(pending, body.map_or(Outcome::Unsupported, Outcome::Body), env)
            }
            Step::Fetch(fetch, pending) => {
                if let Some(form) = &fetch.form {
                    let authorization = form.authorization.as_ref().map(|value| value.reveal().to_owned());
                    posts.push((fetch.endpoint.name(), form.body.reveal().to_owned(), authorization));
                }
                // A fetch takes its time.
                env.now = Timestamp::from_millis(env.now.as_millis() + 1);
                let reply = next_reply(&mut replies, &fetch, env.now)
                    .ok_or_else(|| format!("an unexpected fetch of {}", fetch.url))?;
                gate.resume(pending, Outcome::Fetched(reply), env)
            }
        };
    }
    Err("no decision after eight steps".to_owned())
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
    check_cookies(&object(expect.get("cookies")), decision)?;
    let location = step_up_url(decision.response.as_ref());
    let (endpoint, query) = location.as_deref().map_or((None, ""), |url| {
        url.split_once('?').map_or((Some(url), ""), |(endpoint, query)| (Some(endpoint), query))
    });
    if let Some(expected) = expect.get("endpoint") {
        compare("endpoint", endpoint, expected)?;
    }
    check_parameters(query, expect.get("authorize"))?;
    let body = decision.response.as_ref().map_or("", |response| response.body.as_ref());
    for (name, expected) in object(expect.get("body")) {
        let body: Value = serde_json::from_str(body).map_err(|_| "the body is not JSON")?;
        if body.get(&name) != Some(&expected) && !(expected == Value::Bool(true) && body.get(&name).is_some()) {
            return Err(format!("body member `{name}`"));
        }
    }
    expect.get("page").map_or(Ok(()), |expected| compare("page", Some(body), expected))
}

fn check_parameters(form: &str, expected: Option<&Value>) -> Result<(), String> {
    let parameters: Vec<(String, String)> = form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    for (name, expected) in object(expected) {
        let values: Vec<&str> =
            parameters.iter().filter(|(found, _)| *found == name).map(|(_, value)| value.as_str()).collect();
        if values.len() > 1 {
            return Err(format!("parameter `{name}` comes {} times", values.len()));
        }
        compare(&format!("parameter `{name}`"), values.first().copied(), &expected)?;
    }
    Ok(())
}

/// The cookies that an answer sets, by name. A name that ends in `*` stands for all others that begin so.
fn check_cookies(expected: &[(String, Value)], decision: &Decision) -> Result<(), String> {
    let of_answer = decision.response.iter().flat_map(|response| &response.headers);
    let fields = of_answer.chain(&decision.response_headers);
    let lines: Vec<&str> = fields.filter(|(field, _)| *field == "set-cookie").map(|(_, line)| line.as_str()).collect();
    for (name, expected_lines) in expected {
        let is_meant = |line: &&&str| {
            let cookie = line.split('=').next().unwrap_or_default();
            match name.strip_suffix('*') {
                Some(prefix) => cookie.starts_with(prefix) && expected.iter().all(|(other, _)| other != cookie),
                None => cookie == name,
            }
        };
        let found: Vec<&str> = lines.iter().filter(is_meant).copied().collect();
        let several = match expected_lines {
            Value::Array(several) => several.as_slice(),
            one => std::slice::from_ref(one),
        };
        if found.len() > several.len() {
            return Err(format!("cookie `{name}` comes {} times", found.len()));
        }
        for (index, expected) in several.iter().enumerate() {
            check_cookie(&format!("cookie `{name}`"), found.get(index).copied(), expected)?;
        }
    }
    Ok(())
}

fn check_cookie(what: &str, line: Option<&str>, expected: &Value) -> Result<(), String> {
    let is_empty = line.is_some_and(|line| line.contains("=;"));
    match expected {
        Value::String(text) if text == "cleared" => {
            let is_cleared = is_empty && line.is_some_and(|line| line.contains("; Max-Age=0;"));
            if is_cleared { Ok(()) } else { Err(format!("{what}: found {line:?}, expected it to be cleared")) }
        }
        Value::Bool(true) if is_empty => Err(format!("{what} is empty")),
        _ => compare(what, line, expected),
    }
}

/// What the gate has sealed: the transaction that begins, or the content of the link that starts one.
fn check_sealed(case: &Case, decision: &Decision) -> Result<(), String> {
    let expected = object(case.expect.get("sealed"));
    if expected.is_empty() {
        return Ok(());
    }
    let config = Config::from_value(&case.config, &|_| None).map_err(|errors| errors.to_string())?;
    let keys = config.callback.ok_or("nothing is sealed without `callback`")?.keys;
    let response = decision.response.as_ref().ok_or("no answer")?;
    let begun = response.headers.iter().find_map(|(_, value)| {
        let (_, cookie) = value.split_once("stepgate_tx_")?;
        let (state, sealed) = cookie.split(';').next()?.split_once('=')?;
        serde_json::to_value(Transaction::open(&keys, state, sealed)?).ok()
    });
    let linked = || {
        let url = step_up_url(Some(response))?;
        let (_, query) = url.split_once('?')?;
        let (_, sealed) = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "step_up")?;
        serde_json::to_value(Start::open(&keys, &sealed)?).ok()
    };
    let sealed = begun.or_else(linked).ok_or("nothing is sealed")?;
    for (name, mut expected) in expected {
        if let (true, Some(subject)) = (name == "subject", expected.as_str()) {
            expected = subject_digest(subject).into();
        }
        if sealed[&name] != expected {
            return Err(format!("sealed `{name}`: found {}, expected {expected}", sealed[&name]));
        }
    }
    Ok(())
}

/// The request as the app gets it.
fn check_app(case: &Case, decision: &Decision) -> Result<(), String> {
    let expected = object(case.expect.get("app"));
    if !expected.is_empty() && decision.response.is_some() {
        return Err("the app gets nothing".to_owned());
    }
    let edits = &decision.request;
    let is_removed = |name: &str| edits.removed.iter().any(|removed| removed.eq_ignore_ascii_case(name.as_bytes()));
    let kept = case.request.headers.iter().flatten().filter(|(name, _)| !is_removed(name)).cloned();
    let added = edits.added.iter().map(|(name, value)| (name.clone(), value.iter().copied().map(char::from).collect()));
    let fields: Vec<(String, String)> = kept.chain(added).collect();
    for (name, expected) in expected {
        let values: Vec<&str> = fields
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(&name))
            .map(|(_, value)| value.as_str())
            .collect();
        let joined = values.join(if name == "cookie" { "; " } else { ", " });
        compare(&format!("the app's `{name}`"), (!values.is_empty()).then_some(&joined), &expected)?;
    }
    Ok(())
}

/// What the provider got: once where it was to be asked, and as expected.
fn check_posts(case: &Case, posts: &[Post]) -> Result<(), String> {
    for endpoint in ["token", "pushed_authorization"] {
        let mut sent = posts.iter().filter(|(posted, ..)| *posted == endpoint);
        let (post, is_again) = (sent.next(), sent.next().is_some());
        if is_again || post.is_some() != case.replies.contains_key(endpoint) {
            return Err(format!("`{endpoint}` was asked {}", if is_again { "again" } else { "never" }));
        }
        let Some((_, form, authorization)) = post else { continue };
        let mut expected = case.expect["posted"][endpoint].clone();
        if let Some(expected) = expected.as_object_mut().and_then(|members| members.remove("authorization")) {
            compare("authorization", authorization.as_deref(), &expected)?;
        }
        if let Some(expected) = expected.as_object_mut().and_then(|members| members.remove("client_assertion")) {
            check_assertion(form, &expected)?;
        }
        check_parameters(form, Some(&expected))?;
    }
    Ok(())
}

/// The client's own token (RFC 7523): by its key, and with these claims.
fn check_assertion(form: &str, expected: &Value) -> Result<(), String> {
    let assertion = form_urlencoded::parse(form.as_bytes()).find(|(name, _)| name == "client_assertion");
    let claims =
        assertion.and_then(|(_, assertion)| keys::client_claims(&assertion)).ok_or("no assertion of the client")?;
    let differs = object(Some(expected)).into_iter().find(|(name, value)| claims.get(name) != Some(value));
    differs.map_or(Ok(()), |(name, _)| Err(format!("the assertion's `{name}`")))
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

/// `true`: anything; `null`: nothing; `{ contains, ends, lacks }`: texts; otherwise the very value.
fn compare(what: &str, found: Option<&str>, expected: &Value) -> Result<(), String> {
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
    if fits { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected}")) }
}
