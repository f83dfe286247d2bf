//! What the gate says to the provider behind the browser's back, and what it makes of the answers.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::config::{ClientAuthentication, Config};
use crate::encoding::{base64url_encode, parse_json_object};
use crate::env::Env;
use crate::http::form_encode;
use crate::provider::{Endpoint, Fetch, FetchFailure, Form, MAX_POST_REPLY_BYTES, Reply};
use crate::reason::ExchangeFault;
use crate::secret::Secret;
use crate::time::Timestamp;

/// How long a client assertion is valid.
pub const ASSERTION_LIFETIME: Duration = Duration::from_secs(60);

/// RFC 7523 section 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The token request (OpenID Connect Core section 3.1.3.1).
pub fn token_request(config: &Config, url: String, code: &Secret, verifier: &str, env: Env<'_>) -> Fetch {
    let parameters = [
        ("grant_type", "authorization_code"),
        ("code", code.reveal()),
        ("redirect_uri", &config.client.redirect_uri),
        ("code_verifier", verifier),
    ];
    post(config, Endpoint::Token, url, &parameters, env)
}

/// The pushed authorization request (RFC 9126 section 2.1).
pub fn pushed_request(config: &Config, url: String, parameters: &[(&str, &str)], env: Env<'_>) -> Fetch {
    post(config, Endpoint::PushedAuthorization, url, parameters, env)
}

/// A POST that the client authenticates itself in (OpenID Connect Core section 9).
fn post(config: &Config, endpoint: Endpoint, url: String, parameters: &[(&str, &str)], env: Env<'_>) -> Fetch {
    let client = &config.client;
    let secret = client.secret.as_ref().map_or("", |secret| secret.reveal());
    let mut parameters = parameters.to_vec();
    let mut authorization = None;
    let assertion;
    match &client.authentication {
        ClientAuthentication::Basic => authorization = Some(basic(&client.id, secret)),
        ClientAuthentication::Post => parameters.push(("client_secret", secret)),
        ClientAuthentication::PrivateKeyJwt(key) => {
            let signed = key.as_ref().and_then(|key| key.sign(assertion_claims(config, env)));
            assertion = signed.unwrap_or_default();
            parameters.extend([("client_assertion_type", JWT_BEARER), ("client_assertion", &assertion)]);
        }
        ClientAuthentication::None => {}
    }
    let in_form = !matches!(client.authentication, ClientAuthentication::Basic);
    if in_form && parameters.iter().all(|(name, _)| *name != "client_id") {
        parameters.push(("client_id", &client.id));
    }
    let form = Form { body: Secret::new(&form_encode(&parameters)), authorization };
    Fetch {
        endpoint,
        url,
        form: Some(form),
        timeout: config.provider.timeout,
        max_bytes: MAX_POST_REPLY_BYTES,
        newer_than: Timestamp::default(),
        for_unknown_kid: false,
    }
}

/// RFC 6749 section 2.3.1: both parts are form-encoded before they are joined.
fn basic(id: &str, secret: &str) -> Secret {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let credentials = STANDARD.encode(format!("{}:{}", encode(id), encode(secret)));
    Secret::new(&format!("Basic {credentials}"))
}

/// RFC 7523 section 3. The audience is the issuer alone: a name that no other server's endpoint can share.
fn assertion_claims(config: &Config, env: Env<'_>) -> Map<String, Value> {
    let now = env.now.as_millis() / 1000;
    let claims = json!({
        "iss": config.client.id,
        "sub": config.client.id,
        "aud": config.provider.issuer,
        "jti": base64url_encode(&(env.entropy)()),
        "iat": now,
        "exp": now.saturating_add(ASSERTION_LIFETIME.as_secs()),
    });
    claims.as_object().cloned().unwrap_or_default()
}

/// The ID Token of a token response (RFC 6749 section 5.1, OpenID Connect Core section 3.1.3.3).
///
/// # Errors
/// Why there is none.
pub fn id_token(reply: &Reply) -> Result<String, ExchangeFault> {
    let body = reply.result.as_ref().map_err(|failure| fault(*failure))?;
    let malformed = ExchangeFault::Malformed;
    let answer = parse_json_object(body).map_err(|_| malformed("no strict JSON object"))?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    // The value is case-insensitive.
    if !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(malformed("`token_type` is not `Bearer`"));
    }
    text("id_token").map(str::to_owned).ok_or(malformed("no `id_token`"))
}

fn fault(failure: FetchFailure) -> ExchangeFault {
    match failure {
        FetchFailure::OAuth("invalid_grant") => ExchangeFault::CodeRefused,
        FetchFailure::OAuth(code) => ExchangeFault::Refused(code),
        // Envoy answers 504 itself when the time is up.
        FetchFailure::Timeout | FetchFailure::Status(504) => ExchangeFault::Unavailable("timeout"),
        FetchFailure::Unreachable | FetchFailure::Elsewhere => ExchangeFault::Unavailable("unreachable"),
        FetchFailure::Reset => ExchangeFault::Unavailable("reset"),
        FetchFailure::TooLarge => ExchangeFault::Malformed("too long"),
        FetchFailure::Status(429 | 500..) => ExchangeFault::Unavailable("a server error"),
        FetchFailure::Status(_) => ExchangeFault::Malformed("a status that is not 200"),
    }
}

/// The `request_uri` of an answer to a pushed authorization request (RFC 9126 section 2.2).
pub fn pushed_request_uri(reply: &Reply) -> Option<String> {
    let answer = parse_json_object(reply.result.as_ref().ok()?).ok()?;
    answer.get("request_uri")?.as_str().filter(|uri| !uri.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_is_of_this_moment_and_for_a_minute() {
        let document = json!({
            "provider": { "issuer": "https://idp/" },
            "client": { "id": "c", "redirect_uri": "https://app.example.com/callback" },
            "rules": [{ "paths": ["/salary"] }],
        });
        let config = Config::from_value(&document, &|_| None).unwrap();
        let env = Env { now: Timestamp::from_millis(1_800_000_000_999), entropy: &|| [7; 32] };
        let claims = assertion_claims(&config, env);
        assert_eq!((&claims["iat"], &claims["exp"]), (&json!(1_800_000_000), &json!(1_800_000_060)));
    }
}
