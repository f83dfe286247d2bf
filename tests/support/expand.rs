//! From a case as written to a case as run: defaults filled in, tokens minted, keys and times put in place.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value, json};

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
    pub headers: Vec<(String, String)>,
    pub body: String,
}

const CASE_FIELDS: [&str; 9] = ["name", "config", "token", "tokens", "request", "replies", "expect", "skip", "why"];

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
    let document: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{stem}: {error}"));
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
    let mut tokens: BTreeMap<String, String> = BTreeMap::new();
    let mut specifications = case["tokens"].as_object().cloned().unwrap_or_default();
    if !case["token"].is_null() {
        specifications.insert("token".to_owned(), case["token"].clone());
    }
    for (token, specification) in &specifications {
        tokens.insert(token.clone(), mint(specification, &config, now));
    }
    let replies = case["replies"].as_object().cloned().unwrap_or_default();
    let replies = replies
        .into_iter()
        .map(|(endpoint, replies)| {
            let list = match replies {
                Value::Array(list) => list,
                one => vec![one],
            };
            (endpoint, list.iter().map(put_keys).collect())
        })
        .collect();
    Case {
        request: request(&case["request"], &tokens, &name),
        config: put_keys(&config),
        replies,
        expect: case["expect"].clone(),
        skip: serde_json::from_value(case["skip"].clone()).unwrap_or_default(),
        name,
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

/// Replaces `{ "$jwk": NAME, … }` by that key's public JWK, with the other members merged in, and the string `$secret` by the secret.
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
        other => other.clone(),
    }
}

fn request(written: &Value, tokens: &BTreeMap<String, String>, name: &str) -> CaseRequest {
    let text = |field: &str, default: &str| written[field].as_str().unwrap_or(default).to_owned();
    let default_cookie = || match tokens.get("token") {
        Some(_) => json!([["cookie", "id_token=${token}"]]),
        None => json!([]),
    };
    let headers = written.get("headers").cloned().unwrap_or_else(default_cookie);
    let headers: Vec<(String, String)> =
        serde_json::from_value(headers).unwrap_or_else(|error| panic!("{name}: headers: {error}"));
    let headers = headers.into_iter().map(|(field, value)| (field, substitute(&value, tokens))).collect();
    CaseRequest {
        method: text("method", "GET"),
        authority: text("authority", "app.example.com"),
        path: text("path", "/salary"),
        headers,
        body: substitute(&text("body", ""), tokens),
    }
}

/// Replaces `${token}` by the token of that name, `${token:10-20}` by some of its characters, and `${x*1000}` by that many `x`.
fn substitute(text: &str, tokens: &BTreeMap<String, String>) -> String {
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
        let (name, range) = expression.split_once(':').map_or((expression, None), |(name, range)| (name, Some(range)));
        let token = tokens.get(name).unwrap_or_else(|| panic!("no token is named `{name}`"));
        let slice = range.map_or(token.as_str(), |range| {
            let (start, end) = range.split_once('-').expect("a range");
            let end = if end.is_empty() { token.len() } else { end.parse().expect("an end") };
            &token[start.parse().expect("a start")..end]
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
