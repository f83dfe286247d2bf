//! What stands in for what only a running gate has: environment variables, the provider's documents, a token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use stepgate::cases::{learn_beforehand, without_environment};
use stepgate::config::{ConfigErrors, KeySource};
use stepgate::jose::Algorithm;
use stepgate::provider::{Endpoint, Fetch, Reply};
use stepgate::time::Timestamp;
use stepgate::{Config, Gate};

use super::Problem;
use super::document::Document;

/// 32 bytes in base64, long enough for any secret.
const STAND_IN_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// How long a token of the tool's own is valid, in seconds.
const LIFETIME_SECS: u64 = 600;

/// A configuration that was read with stand-ins for variables that are not set.
pub struct Configured {
    pub config: Result<Config, ConfigErrors>,
    /// The places in the document that name a variable which is not set, with its name.
    pub unset: Vec<(String, String)>,
}

/// Reads a configuration. A variable that is not set here may well be where the gate runs: something of the right kind stands in.
pub fn configure(document: &Value) -> Configured {
    let references = references(document).into_iter();
    let unset: Vec<_> = references.filter(|(_, name)| std::env::var_os(name).is_none()).collect();
    let stand_ins = without_environment(document);
    let lookup = |name: &str| {
        let Some((place, _)) = unset.iter().find(|(_, unset)| unset == name) else { return std::env::var(name).ok() };
        let pointer = format!("/{}", place.trim_end_matches(".env").replace(['.', '['], "/").replace(']', ""));
        let stand_in = stand_ins.pointer(&pointer).and_then(Value::as_str);
        // One that is written wrongly has none there: any text will do.
        Some(stand_in.unwrap_or(STAND_IN_KEY).to_owned())
    };
    Configured { config: Config::from_value(document, &lookup), unset }
}

/// The configuration of a document that must be valid.
///
/// # Errors
/// Every problem, each with its line and column.
pub fn valid(document: &Document) -> Result<Config, Problem> {
    configure(&document.value).config.map_err(|errors| {
        let lines = errors.as_slice().iter().map(|error| format!("\n  {}: {error}", document.at(&error.path)));
        Problem::configuration(format!("the configuration is not valid{}", lines.collect::<String>()))
    })
}

/// The variables that a document refers to, each once.
pub fn variables(document: &Value) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (_, name) in references(document) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Each `{ env: NAME }` of a document.
pub fn references(document: &Value) -> Vec<(String, String)> {
    let name = |value: &Value| value.get("env").and_then(Value::as_str).map(str::to_owned);
    let secret = document.pointer("/client/secret").and_then(name).map(|name| ("client.secret.env".to_owned(), name));
    let keys = document.pointer("/callback/keys").and_then(Value::as_array).into_iter().flatten().enumerate();
    let keys = keys.filter_map(|(index, key)| Some((format!("callback.keys[{index}].env"), name(key)?)));
    secret.into_iter().chain(keys).collect()
}

/// The provider, as far as a gate has to know it.
pub struct Provider {
    /// Its metadata.
    pub metadata: Value,
    /// Its keys, where they are known.
    pub keys: Option<String>,
}

impl Provider {
    /// A provider with endpoints below its issuer.
    pub fn new(issuer: &str, keys: Option<String>) -> Self {
        let at = |path: &str| format!("{}/{path}", issuer.trim_end_matches('/'));
        let metadata = json!({
            "issuer": issuer,
            "authorization_endpoint": at("authorize"),
            "token_endpoint": at("token"),
            "jwks_uri": at("jwks"),
            "end_session_endpoint": at("logout"),
        });
        Self { metadata, keys }
    }

    /// Tells a gate all that it wants to know beforehand.
    ///
    /// # Errors
    /// Why one of the documents is of no use.
    pub fn teach(&self, gate: &mut Gate, now: Timestamp) -> Result<(), Problem> {
        let mut reply = |fetch: &Fetch, at: Timestamp| {
            let document = match fetch.endpoint {
                Endpoint::Metadata => self.metadata.to_string(),
                Endpoint::Keys => self.keys.clone()?,
                Endpoint::Token | Endpoint::PushedAuthorization => return None,
            };
            Some(Reply::from_http(fetch, at, 200, document.into_bytes()))
        };
        match learn_beforehand(gate, now, &mut reply).first() {
            Some((endpoint, fault)) => {
                Err(Problem::failure(format!("the provider's {} are of no use: {fault}", endpoint.name())))
            }
            None => Ok(()),
        }
    }
}

/// The URLs that a gate makes calls to, as far as the configuration tells: the provider's metadata may name others.
pub fn fetched_urls(config: &Config) -> Vec<String> {
    // What a gate wants first is its metadata, its keys, or nothing.
    let mut urls: Vec<String> =
        Gate::new(config.clone()).due(Timestamp::default()).into_iter().map(|fetch| fetch.url).collect();
    if let KeySource::Url(url) = &config.provider.keys {
        urls.push(url.clone());
    }
    if config.callback.is_some() {
        urls.extend(config.provider.token_endpoint.clone());
    }
    urls
}

/// Takes the configured keys out, so that others can be told. A configuration that knows only a secret has none.
pub fn without_keys(document: &Value, config: &Config) -> Value {
    let mut document = document.clone();
    if matches!(config.provider.keys, KeySource::Inline(_))
        && let Some(provider) = document.get_mut("provider").and_then(Value::as_object_mut)
    {
        provider.remove("jwks");
    }
    document
}

/// A key set with one public key of the kind that an algorithm needs, whose private half is published. Nothing is verified by it.
pub fn key_set(algorithm: Option<Algorithm>, kid: Option<&str>) -> String {
    let mut key = match algorithm {
        // RFC 7515 appendix A.3.
        Some(Algorithm::Es256) => json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        }),
        // RFC 8037 appendix A.2.
        Some(Algorithm::EdDsa) => json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        }),
        // RFC 7515 appendix A.2.
        _ => json!({
            "kty": "RSA",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
            "e": "AQAB",
        }),
    };
    if let (Some(kid), Some(key)) = (kid, key.as_object_mut()) {
        key.insert("kid".to_owned(), kid.into());
    }
    json!({ "keys": [key] }).to_string()
}

/// What a token's header says of its key.
pub fn key_of(token: &str) -> (Option<Algorithm>, Option<String>) {
    let header = token.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).unwrap_or_default();
    let header: Value = serde_json::from_slice(&header).unwrap_or_default();
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    (text("alg").and_then(Algorithm::named), text("kid").map(str::to_owned))
}

/// An ID Token with these claims, in place of defaults that this gate accepts; `null` removes one. Its signature is none.
pub fn token(config: &Config, claims: &Map<String, Value>, now: Timestamp) -> Result<String, Problem> {
    let algorithms = &config.token.algorithms;
    let algorithm = algorithms.iter().find(|algorithm| **algorithm != Algorithm::Hs256).ok_or_else(|| {
        Problem::failure("`--claims` makes no token where only HS256 is accepted: give a token by `--token`")
    })?;
    let now = now.as_secs();
    let mut payload = json!({
        "iss": config.provider.issuer,
        "sub": "somebody",
        "aud": config.client.id,
        "iat": now,
        "exp": now + LIFETIME_SECS,
        "auth_time": now,
    });
    if let Some(payload) = payload.as_object_mut() {
        for (name, value) in claims {
            if value.is_null() {
                payload.remove(name);
            } else {
                payload.insert(name.clone(), value.clone());
            }
        }
    }
    let header = json!({ "alg": algorithm.name(), "typ": "JWT" });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    Ok(format!("{}.{}.{}", part(&header), part(&payload), URL_SAFE_NO_PAD.encode("no signature")))
}
