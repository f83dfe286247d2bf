//! What stands in for the provider, and for secrets, where cases run with somebody's own configuration.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::keys;

/// Puts a stand-in in the place of each `{ env: NAME }`: a client secret or a private key, and for each name another key that seals.
#[must_use]
pub fn without_environment(config: &Value) -> Value {
    let mut config = config.clone();
    let secret = client_secret(&config);
    if let Some(place) = config.pointer_mut("/client/secret").filter(|place| variable(place).is_some()) {
        *place = secret;
    }
    for key in config.pointer_mut("/callback/keys").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(name) = variable(key) {
            *key = json!(STANDARD.encode(Sha256::digest(name.as_bytes())));
        }
    }
    config
}

/// The name of an environment variable, where there is one.
fn variable(value: &Value) -> Option<&str> {
    let members = value.as_object().filter(|members| members.len() == 1)?;
    members.get("env")?.as_str().filter(|name| !name.is_empty())
}

fn client_secret(config: &Value) -> Value {
    match config.pointer("/client/authentication").and_then(Value::as_str) {
        Some("private_key_jwt") => json!(keys::client_key()),
        _ => json!(keys::SECRET),
    }
}

/// Has the runner stand in for the client's secret and for the provider of `config`, into which a case's `patch` was merged: nothing
/// is fetched, unless the case has replies for what would be, or the configuration cannot do without. What the patch says of
/// these stays. Gives the replies for what is fetched, by endpoint.
pub fn stand_in(config: &mut Value, patch: &Value, replies: &Value) -> Map<String, Value> {
    let says = |pointer: &str| patch.pointer(pointer).is_some_and(|value| !value.is_null());
    let secret = client_secret(config);
    if let Some(place) = config.pointer_mut("/client/secret").filter(|_| !says("/client/secret")) {
        *place = secret;
    }
    let keys = key_set(config.pointer("/token/algorithms"));
    let pushes = config.pointer("/callback/pushed_authorization") == Some(&Value::Bool(true));
    let is_replied = |endpoint: &str| replies.get(endpoint).is_some_and(|reply| !reply.is_null());
    let Some(provider) = config.get_mut("provider").and_then(Value::as_object_mut) else { return Map::new() };
    let issuer = provider.get("issuer").and_then(Value::as_str).unwrap_or_default();
    let issuer = issuer.strip_suffix('/').unwrap_or(issuer).to_owned();
    let endpoint = |path: &str| json!(format!("{issuer}/{path}"));
    let fetches = pushes || is_replied("metadata") || is_replied("keys") || says("/provider/jwks_uri");
    if !says("/provider/jwks") {
        provider.remove("jwks");
        if !fetches {
            provider.remove("jwks_uri");
            keys.iter().for_each(|keys| drop(provider.insert("jwks".to_owned(), keys.clone())));
        }
    }
    let endpoints = [
        ("authorization_endpoint", endpoint("authorize")),
        ("token_endpoint", endpoint("token")),
        ("end_session_endpoint", endpoint("end_session")),
    ];
    if !fetches {
        for (name, url) in endpoints {
            let place = provider.entry(name).or_insert(Value::Null);
            *place = if place.is_null() { url } else { place.take() };
        }
        return Map::new();
    }
    let further = [
        ("issuer", provider.get("issuer").cloned().unwrap_or_default()),
        ("jwks_uri", endpoint("jwks")),
        ("pushed_authorization_request_endpoint", endpoint("par")),
    ];
    let metadata: Map<String, Value> =
        endpoints.into_iter().chain(further).map(|(name, url)| (name.to_owned(), url)).collect();
    let keys = keys.unwrap_or_else(|| json!({ "keys": [] }));
    Map::from_iter([("metadata".to_owned(), json!({ "json": metadata })), ("keys".to_owned(), json!({ "json": keys }))])
}

/// The test keys for the algorithms that a configuration allows; none where it allows HS256 alone.
fn key_set(algorithms: Option<&Value>) -> Option<Value> {
    let default = [json!("RS256")];
    let algorithms = algorithms.and_then(Value::as_array).map_or(&default[..], Vec::as_slice);
    let allows = |name: &str| algorithms.iter().filter_map(Value::as_str).any(|algorithm| algorithm.starts_with(name));
    let kinds = [("rsa", allows("RS") || allows("PS")), ("ec", allows("ES")), ("ed", allows("EdDSA"))];
    let used = kinds.iter().filter(|(_, used)| *used);
    let keys: Vec<Value> = used.filter_map(|(key, _)| keys::public_jwk(key).ok()).collect();
    (!keys.is_empty()).then(|| json!({ "keys": keys }))
}
