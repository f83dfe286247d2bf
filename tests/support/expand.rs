//! From a case as written to a case as run: defaults filled in, tokens minted, keys and times put in place.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use stepgate::flow::{Start, Transaction, subject_digest};
use stepgate::seal::{Purpose, SealingKeys};

use super::keys;

/// A case as run.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// `file/name`.
    pub name: String,
    pub config: Value,
    pub request: CaseRequest,
    /// Replies by endpoint, in order; the last one stays.
    pub replies: BTreeMap<String, Vec<Value>>,
    pub expect: Value,
    /// Runners that cannot run it, with the reason.
    pub skip: BTreeMap<String, String>,
}

/// A request. Each character of `path`, `authority` and header values is one byte (ISO 8859-1), so that cases can name any byte.
#[derive(Clone, Debug, Serialize)]
pub struct CaseRequest {
    pub method: String,
    pub authority: String,
    pub path: String,
    /// `None`: the host cannot tell.
    pub headers: Option<Vec<(String, String)>>,
    pub body: String,
}

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

/// What `${…}` stands for.
type Names = BTreeMap<String, String>;

/// Whatever is sealed for a case may be the same in each run.
const ENTROPY: [u8; 32] = [9; 32];

/// All cases of all files, as of `now` (seconds since the Unix epoch).
pub fn all(now: u64) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("tests/cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files.iter().flat_map(|path| file(path, now)).collect()
}

fn file(path: &Path, now: u64) -> Vec<Case> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a file name");
    let text = fs::read_to_string(path).expect("a case file");
    let written: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{stem}: {error}"));
    document(stem, &written, now)
}

/// The cases of a document such as a file holds.
pub fn document(stem: &str, document: &Value, now: u64) -> Vec<Case> {
    let cases = document["cases"].as_array().unwrap_or_else(|| panic!("{stem}: no `cases`"));
    cases.iter().map(|case| expand(stem, &document["config"], case, now)).collect()
}

fn expand(stem: &str, base: &Value, case: &Value, now: u64) -> Case {
    let name = format!("{stem}/{}", case["name"].as_str().unwrap_or_else(|| panic!("{stem}: a case without a name")));
    for field in case.as_object().expect("a case is an object").keys() {
        assert!(CASE_FIELDS.contains(&field.as_str()), "{name}: unknown field `{field}`");
    }
    let mut config = base.clone();
    merge(&mut config, &case["config"]);
    let config = substitute_all(&config, &Names::new());
    let names = names(case, &config, now);
    let replies = substitute_all(&put_keys(&case["replies"]), &names);
    let replies = replies.as_object().cloned().unwrap_or_default().into_iter();
    let replies = replies.map(|(endpoint, replies)| match replies {
        Value::Array(list) => (endpoint, list),
        one => (endpoint, vec![one]),
    });
    Case {
        request: request(&case["request"], &config, &names, &name),
        config: put_keys(&config),
        replies: replies.collect(),
        expect: substitute_all(&case["expect"], &names),
        skip: serde_json::from_value(case["skip"].clone()).unwrap_or_default(),
        name,
    }
}

/// What a case mints and seals, by name.
fn names(case: &Value, config: &Value, now: u64) -> Names {
    let mut names = Names::from([("now".to_owned(), now.to_string())]);
    let keys = sealing_keys(case["sealed_with"].as_str().or(config["callback"]["keys"][0].as_str()));
    for (name, specification) in specifications(case, "token") {
        let token = mint(&specification, config, now);
        if let Some(keys) = &keys {
            let purpose = Purpose::IdToken(token_cookie(config));
            names.insert(format!("sealed:{name}"), keys.seal(purpose, token.as_bytes(), &ENTROPY));
        }
        names.insert(name, token);
    }
    for (name, specification) in specifications(case, "transaction") {
        let keys = keys.as_ref().expect("`callback.keys` to seal a transaction with");
        let (state, sealed) = seal_transaction(specification, keys, now);
        names.insert(format!("{name}.state"), state.clone());
        names.insert(name, format!("{}{state}={sealed}", transaction_prefix(config)));
    }
    if let Some(state) = names.get("transaction.state").cloned() {
        names.insert("state".to_owned(), state);
    }
    if case["start"].is_object() {
        let keys = keys.as_ref().expect("`callback.keys` to seal a link with");
        let written = json!({ "demand": demand(), "return_to": "/salary?month=may", "issued_at": "now-10" });
        let start: Start = serde_json::from_value(patched(written, &case["start"], now)).expect("a start");
        names.insert("start".to_owned(), start.seal(keys, &ENTROPY).expect("it fits"));
    }
    names
}

/// The specifications of a kind, by name; the single one has the name of its kind.
fn specifications(case: &Value, kind: &str) -> Map<String, Value> {
    let mut specifications = case[format!("{kind}s")].as_object().cloned().unwrap_or_default();
    if !case[kind].is_null() {
        specifications.insert(kind.to_owned(), case[kind].clone());
    }
    let counted = |(name, specification)| (name, substitute_all(&specification, &Names::new()));
    specifications.into_iter().map(counted).collect()
}

fn sealing_keys(key: Option<&str>) -> Option<SealingKeys> {
    let key = STANDARD.decode(key?).expect("a key in base64");
    Some(SealingKeys::new(&key.try_into().expect("32 bytes"), &[]))
}

/// Seals a transaction; gives its `state` as well.
fn seal_transaction(specification: Value, keys: &SealingKeys, now: u64) -> (String, String) {
    let written = json!({
        "state": "0123456789-abcdefghi_J",
        "nonce": "nonce",
        "verifier": "verifier",
        "demand": demand(),
        "return_to": "/salary?month=may",
        "subject": null,
        "issued_at": "now-10",
        "attempts": 1,
    });
    let mut written = patched(written, &specification, now);
    let state = written.as_object_mut().and_then(|members| members.remove("state")).expect("a state");
    let state = state.as_str().expect("a string").to_owned();
    if let Some(subject) = written["subject"].as_str() {
        written["subject"] = json!(subject_digest(subject));
    }
    let transaction: Transaction = serde_json::from_value(written).expect("a transaction");
    let sealed = transaction.seal(keys, &state, &ENTROPY).expect("it fits");
    (state, sealed)
}

/// What the default rule asks for, in the form in which it is sealed.
fn demand() -> Value {
    json!({
        "rules": ["/salary/**"],
        "requirement": { "amr": [{ "AnyOf": ["mfa"] }], "acr": [], "max_age": null, "claims": [] },
        "step_up": {
            "acr_values": ["http://schemas.openid.net/pape/policies/2007/06/multi-factor"],
            "scope": ["openid"],
            "claims": {},
            "params": [],
            "max_attempts": 3,
        },
        "answer": "Auto",
    })
}

fn patched(mut written: Value, patch: &Value, now: u64) -> Value {
    merge(&mut written, patch);
    written.as_object_mut().into_iter().for_each(|members| put_times(members, now));
    written
}

fn token_cookie(config: &Value) -> &str {
    config["token"]["cookie"].as_str().unwrap_or("id_token")
}

fn transaction_prefix(config: &Value) -> &'static str {
    let on_https = config["client"]["redirect_uri"].as_str().is_some_and(|uri| uri.starts_with("https:"));
    match on_https || config["callback"]["response_mode"] == "form_post" {
        true => "__Host-stepgate_tx_",
        false => "stepgate_tx_",
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        if !patch.is_null() {
            *target = patch.clone();
        }
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let members = target.as_object_mut().expect("an object");
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Replaces `{ "$jwk": NAME, … }` by that key's public JWK, with the other members merged in, the string `$secret` by the
/// secret, and `$client_key` by the client's private key.
fn put_keys(value: &Value) -> Value {
    match value {
        Value::Object(members) => match members.get("$jwk").and_then(Value::as_str) {
            Some(key) => {
                let mut jwk = keys::public_jwk(key);
                let mut patch = members.clone();
                patch.remove("$jwk");
                merge(&mut jwk, &Value::Object(patch));
                jwk
            }
            None => Value::Object(members.iter().map(|(name, value)| (name.clone(), put_keys(value))).collect()),
        },
        Value::Array(items) => items.iter().map(put_keys).collect(),
        Value::String(text) if text == "$secret" => json!(keys::SECRET),
        Value::String(text) if text == "$client_key" => json!(keys::client_key()),
        other => other.clone(),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Once(String, String),
    Often(String, String, usize),
}

fn request(written: &Value, config: &Value, names: &Names, name: &str) -> CaseRequest {
    let redirect_uri = config["client"]["redirect_uri"].as_str().unwrap_or_default();
    let callback = redirect_uri.splitn(4, '/').nth(3).unwrap_or_default();
    let returns = names.contains_key("transaction");
    let text = |field: &str, default: &str| substitute(written[field].as_str().unwrap_or(default), names);
    let path = match returns {
        true => format!(
            "/{callback}?code=code&state=${{state}}&iss={}",
            config["provider"]["issuer"].as_str().expect("an issuer")
        ),
        false => "/salary".to_owned(),
    };
    let default_cookie = || {
        let token = names.contains_key("token").then(|| format!("{}=${{token}}", token_cookie(config)));
        let cookies: Vec<String> = token.into_iter().chain(returns.then(|| "${transaction}".to_owned())).collect();
        if cookies.is_empty() { json!([]) } else { json!([["cookie", cookies.join("; ")]]) }
    };
    let headers = written.get("headers").cloned().unwrap_or_else(default_cookie);
    let headers: Option<Vec<Field>> =
        serde_json::from_value(headers).unwrap_or_else(|error| panic!("{name}: headers: {error}"));
    let repeated = |field| {
        let (field, value, count) = match field {
            Field::Once(field, value) => (field, value, 1),
            Field::Often(field, value, count) => (field, value, count),
        };
        vec![(field, substitute(&value, names)); count]
    };
    CaseRequest {
        method: text("method", "GET"),
        authority: text("authority", "app.example.com"),
        path: text("path", &path),
        headers: headers.map(|fields| fields.into_iter().flat_map(repeated).collect()),
        body: text("body", ""),
    }
}

/// Replaces `${…}` in every string and every member's name.
fn substitute_all(value: &Value, names: &Names) -> Value {
    match value {
        Value::String(text) => json!(substitute(text, names)),
        Value::Array(items) => items.iter().map(|item| substitute_all(item, names)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (substitute(name, names), substitute_all(value, names))).collect()
        }
        other => other.clone(),
    }
}

/// Replaces `${token}` by what has that name, `${token:10-20}` by some of its characters, `${x*1000}` by that many `x`, and
/// `${now+60}` by that time.
fn substitute(text: &str, names: &Names) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (expression, after) = after.split_once('}').expect("a closing brace");
        result.push_str(before);
        rest = after;
        if let Some((letter, count)) = expression.split_once('*') {
            result.push_str(&letter.repeat(count.parse().expect("a count")));
            continue;
        }
        let now = names.get("now").map(|now| now.parse().expect("a time"));
        if let Some(time) = now.and_then(|now| time(expression, now)) {
            result.push_str(&time.to_string());
            continue;
        }
        let whole = names.get(expression).map(|value| (value, None));
        let part = || expression.rsplit_once(':').and_then(|(name, range)| Some((names.get(name)?, Some(range))));
        let (value, range) = whole.or_else(part).unwrap_or_else(|| panic!("nothing is named `{expression}`"));
        let slice = range.map_or(value.as_str(), |range| {
            let (start, end) = range.split_once('-').expect("a range");
            let end = if end.is_empty() { value.len() } else { end.parse().expect("an end") };
            &value[start.parse().expect("a start")..end]
        });
        result.push_str(slice);
    }
    result.push_str(rest);
    result
}

/// Mints a token: see the format's description.
pub fn mint(specification: &Value, config: &Value, now: u64) -> String {
    let key = specification["key"].as_str().unwrap_or("rsa");
    let algorithm = specification["alg"].as_str().unwrap_or_else(|| keys::default_algorithm(key));
    let mut header = json!({ "alg": algorithm, "kid": key, "typ": "JWT" });
    merge(&mut header, &put_keys(&specification["header"]));
    let mut claims = json!({
        "iss": config["provider"]["issuer"],
        "sub": "ada",
        "aud": config["client"]["id"],
        "iat": "now-10",
        "exp": "now+3600",
    });
    merge(&mut claims, &specification["claims"]);
    if let Some(claims) = claims.as_object_mut() {
        put_times(claims, now);
    }
    let raw = |field: &str| specification[field].as_str().map(|text| put_time_in_text(text, now));
    let header = raw("header_text").unwrap_or_else(|| header.to_string());
    let claims = raw("claims_text").unwrap_or_else(|| claims.to_string());
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(keys::sign(key, algorithm, message.as_bytes()));
    mangle(specification["mangle"].as_str(), &message, &signature)
}

/// Replaces claims such as `now`, `now-10` and `now+3600` by numbers.
fn put_times(claims: &mut Map<String, Value>, now: u64) {
    for value in claims.values_mut() {
        if let Some(time) = value.as_str().and_then(|text| time(text, now)) {
            *value = json!(time);
        }
    }
}

fn time(text: &str, now: u64) -> Option<u64> {
    match text.strip_prefix("now")? {
        "" => Some(now),
        offset => now.checked_add_signed(offset.parse().ok()?),
    }
}

/// Replaces `<now+3600>` in a text.
fn put_time_in_text(text: &str, now: u64) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<now") {
        let (offset, after) = after.split_once('>').expect("a closing bracket");
        result.push_str(before);
        result.push_str(&time(&format!("now{offset}"), now).expect("a time").to_string());
        rest = after;
    }
    result + rest
}

fn mangle(how: Option<&str>, message: &str, signature: &str) -> String {
    let (header, payload) = message.split_once('.').expect("two parts");
    match how {
        None => format!("{message}.{signature}"),
        Some("no_signature") => format!("{message}."),
        Some("two_parts") => message.to_owned(),
        Some("four_parts") => format!("{message}.{signature}.{signature}"),
        Some("five_parts") => format!("{message}.{signature}.{signature}.{signature}"),
        Some("padded") => format!("{message}.{signature}=="),
        Some("standard_base64") => format!("{header}.+/{payload}.{signature}"),
        Some("whitespace") => format!("{header}.{payload} .{signature}"),
        Some("not_base64") => format!("{header}.{payload}!.{signature}"),
        Some("trailing_bits") => format!("{message}.{}", with_trailing_bits(signature)),
        Some("tampered_claims") => {
            let claims = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
            let mut claims: Value = serde_json::from_slice(&claims).expect("JSON");
            claims["amr"] = json!(["pwd", "mfa"]);
            claims["sub"] = json!("mallory");
            format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string()))
        }
        Some("tampered_signature") => {
            let mut bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
            bytes[0] ^= 1;
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(bytes))
        }
        Some("zero_signature") => {
            let length = URL_SAFE_NO_PAD.decode(signature).expect("base64url").len();
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(vec![0; length]))
        }
        Some("short_signature") => {
            let bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(&bytes[..bytes.len() - 1]))
        }
        Some(other) => panic!("no mangling is named `{other}`"),
    }
}

/// The same bytes to a lenient decoder: the unused bits of the last character are set.
fn with_trailing_bits(text: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    assert!(!text.len().is_multiple_of(4), "no unused bits");
    let last = text.bytes().last().expect("a character");
    let position = ALPHABET.iter().position(|letter| *letter == last).expect("base64url");
    format!("{}{}", &text[..text.len() - 1], char::from(ALPHABET[position | 1]))
}
