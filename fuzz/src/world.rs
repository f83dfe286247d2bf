//! The provider, the app and the gate that the targets share, and what the host checks in whatever the gate says.

use std::cell::Cell;
use std::sync::LazyLock;

use serde_json::{Value, json};
use stepgate::config::{MAX_COOKIE_NAME_BYTES, ResponseMode};
use stepgate::flow::MAX_COOKIE_VALUE_BYTES;
use stepgate::http::{Request, Response};
use stepgate::provider::{Fetch, FetchFailure, Reply};
use stepgate::time::Timestamp;
use stepgate::{Config, Decision, DecisionKind, Env, Gate, Outcome, Step};

use crate::keys;

pub const NOW: u64 = 1_800_000_000;
pub const ISSUER: &str = "https://idp.example.com/";
pub const AUTHORIZE: &str = "https://idp.example.com/authorize";
pub const TOKEN_ENDPOINT: &str = "https://idp.example.com/token";
pub const END_SESSION: &str = "https://idp.example.com/logout";
pub const CLIENT: &str = "client";
pub const APP: &str = "app.example.com";
pub const CALLBACK: &str = "/callback";
pub const LOGOUT: &str = "/logout";
/// 32 bytes in base64.
pub const SEALING_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
pub const SEALING_KEY_BYTES: [u8; 32] = [7; 32];

/// The one token that opens `/salary`.
pub static GOOD_TOKEN: LazyLock<String> =
    LazyLock::new(|| keys::token("ed", br#"{"alg":"EdDSA","kid":"ed"}"#, good_claims().to_string().as_bytes()));

pub fn good_claims() -> Value {
    json!({ "iss": ISSUER, "sub": "ada", "aud": CLIENT, "iat": NOW - 10, "exp": NOW + 3600, "amr": ["mfa"] })
}

/// `/salary` and all below it needs a second factor, apart from `/salary/help`.
pub fn document() -> Value {
    json!({
        "provider": {
            "issuer": ISSUER,
            "authorization_endpoint": AUTHORIZE,
            "token_endpoint": TOKEN_ENDPOINT,
            "end_session_endpoint": END_SESSION,
            "jwks": keys::key_set(),
        },
        "client": { "id": CLIENT, "redirect_uri": format!("https://{APP}{CALLBACK}"), "secret": keys::SECRET },
        "token": { "header": "authorization", "algorithms": ["RS256", "ES256", "EdDSA", "HS256"] },
        "rules": [{ "paths": ["/salary/**"], "except": ["/salary/help"] }],
    })
}

/// The same, with a login that the gate completes.
pub fn document_with_callback() -> Value {
    let mut document = document();
    document["callback"] = json!({ "keys": [SEALING_KEY], "logout_path": LOGOUT });
    document
}

pub fn config(document: &Value) -> Config {
    Config::from_value(document, &|_| None).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The metadata of a provider of this issuer.
pub fn metadata(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "authorization_endpoint": AUTHORIZE,
        "jwks_uri": "https://idp.example.com/keys",
        "token_endpoint": TOKEN_ENDPOINT,
        "end_session_endpoint": END_SESSION,
        "pushed_authorization_request_endpoint": "https://idp.example.com/par",
    })
}

/// The reply to a fetch: this body, or none.
pub fn reply(fetch: &Fetch, now: Timestamp, body: Option<Vec<u8>>) -> Outcome {
    Outcome::Fetched(match body {
        Some(body) => Reply::from_http(fetch, now, 200, body),
        None => Reply::failed(fetch, now, FetchFailure::Timeout),
    })
}

/// The host of a gate.
pub struct Host {
    pub now: Timestamp,
    /// Where a redirect may lead, apart from the app.
    pub endpoints: Vec<String>,
    drawn: Cell<u8>,
}

/// No request takes more steps: metadata and keys, a pushed request, a form, an exchange, three signatures.
const MAX_STEPS: usize = 16;

impl Host {
    pub fn new(now: Timestamp, endpoints: &[&str]) -> Self {
        Self { now, endpoints: endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect(), drawn: Cell::new(0) }
    }

    /// Takes a request to its decision, and checks the decision. A form gets the body; signatures are checked in software.
    pub fn decide(
        &self,
        gate: &mut Gate,
        request: &Request<'_>,
        body: &[u8],
        reply: &mut dyn FnMut(&Fetch) -> Outcome,
    ) -> Decision {
        let entropy = || {
            self.drawn.set(self.drawn.get().wrapping_add(1));
            [self.drawn.get(); 32]
        };
        let env = Env { now: self.now, entropy: &entropy };
        let mut step = gate.begin(request, env);
        for _ in 0..MAX_STEPS {
            let (pending, outcome) = match step {
                Step::Done(decision) => {
                    self.check(gate.config(), &decision);
                    return decision;
                }
                Step::Verify(_, pending) => (pending, Outcome::Unsupported),
                Step::Body(_, pending) => (pending, Outcome::Body(body.to_vec())),
                Step::Fetch(fetch, pending) => {
                    assert!(is_plain_url(&fetch.url), "fetches {}", fetch.url);
                    (pending, reply(&fetch))
                }
            };
            step = gate.resume(pending, outcome, env);
        }
        panic!("no decision after {MAX_STEPS} steps");
    }

    /// A GET of this path, without fetches.
    pub fn get(&self, gate: &mut Gate, path: &[u8], fields: &[(String, Vec<u8>)]) -> Decision {
        let request = Request { method: b"GET", authority: APP.as_bytes(), path, fields: &fields.to_vec() };
        self.decide(gate, &request, b"", &mut |_| Outcome::Unsupported)
    }

    fn check(&self, config: &Config, decision: &Decision) {
        let passes = matches!(decision.kind, DecisionKind::Forward | DecisionKind::Report);
        assert_eq!(passes, decision.response.is_none());
        for (name, value) in &decision.request.added {
            assert!(is_field_name(name) && is_field_value(value), "adds {name}");
        }
        let headers = decision.response.iter().flat_map(|response| &response.headers);
        for (name, value) in headers.chain(&decision.response_headers) {
            assert!(is_field_name(name) && is_field_value(value.as_bytes()), "{name}: {value:?}");
            if *name == "set-cookie" {
                check_cookie(config, value);
            }
        }
        if let Some(response) = &decision.response {
            self.check_response(config, response);
        }
    }

    fn check_response(&self, config: &Config, response: &Response) {
        let has = |name| response.header(name).is_some();
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(has("location"), response.status == 302);
        assert_eq!(has("www-authenticate"), response.status == 401);
        assert_eq!(has("retry-after"), response.status == 503);
        if let Some(location) = response.header("location") {
            assert!(self.may_lead_to(config, location), "leads to {location}");
        }
        match response.header("content-type") {
            Some("application/problem+json") => {
                let body: Value = serde_json::from_str(&response.body).expect("the body is JSON");
                if let Some(url) = body["step_up_url"].as_str() {
                    assert!(self.may_lead_to(config, url), "leads to {url}");
                }
            }
            Some(_) if config.callback.as_ref().is_none_or(|callback| callback.error_page.is_none()) => {
                check_page(&response.body);
            }
            _ => {}
        }
    }

    /// To the app, to the provider, or to the start of a login at the callback.
    fn may_lead_to(&self, config: &Config, location: &str) -> bool {
        let is_endpoint = |endpoint: &String| {
            let rest = location.strip_prefix(endpoint.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['?', '&']) || endpoint.ends_with('?'))
        };
        let start = location.strip_prefix(config.client.redirect_uri.as_str());
        let is_start = config.callback.is_some() && start.is_some_and(|start| start.starts_with("?step_up="));
        let is_provider = is_plain_url(location) && self.endpoints.iter().any(is_endpoint);
        is_local(location) || is_provider || is_start || is_on_site(config, location)
    }
}

/// A page of a host that the cookie with the token is for.
fn is_on_site(config: &Config, location: &str) -> bool {
    let Some(callback) = &config.callback else { return false };
    let scheme = if is_secure(config) { "https://" } else { "http://" };
    let Some((authority, _)) = location.strip_prefix(scheme).and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    let is_plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    let domain = callback.cookie.domain.as_deref();
    let below = domain.and_then(|domain| host.trim_end_matches('.').strip_suffix(domain));
    is_plain
        && is_local(&location[scheme.len() + authority.len()..])
        && below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
}

/// One slash, and then neither slash nor backslash, which browsers take for another host.
fn is_local(location: &str) -> bool {
    let visible = location.bytes().all(|byte| byte.is_ascii_graphic());
    visible && location.starts_with('/') && !location[1..].starts_with(['/', '\\'])
}

fn is_plain_url(url: &str) -> bool {
    let visible = url.bytes().all(|byte| byte.is_ascii_graphic());
    visible && !url.contains('#') && (url.starts_with("https://") || url.starts_with("http://"))
}

/// RFC 9110 section 5.6.2.
pub fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_field_value(value: &[u8]) -> bool {
    !value.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t')
}

/// What comes from outside adds neither a tag nor an end of an attribute to the built-in page, whose second link is only there
/// where the first does not lead home.
fn check_page(page: &str) {
    const PAGE: &str = include_str!("../../src/answer/page.html");
    const HOME: &str = " <a href=\"/\">Home page</a>";
    let own = if page.contains(HOME) { PAGE.to_owned() } else { PAGE.replacen(HOME, "", 1) };
    for character in ['<', '>', '"'] {
        assert_eq!(page.matches(character).count(), own.matches(character).count(), "{page}");
    }
}

/// A cookie that the gate sets or clears: one of its own, and nothing beside it.
fn check_cookie(config: &Config, text: &str) {
    let mut parts = text.split("; ");
    let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a name and a value");
    assert!(is_own_cookie(name, config), "sets {text}");
    // RFC 6265 section 4.1.1.
    let is_octet = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\');
    assert!(value.bytes().all(is_octet), "sets {text}");
    assert!(value.is_empty() || name.len() <= MAX_COOKIE_NAME_BYTES && value.len() <= MAX_COOKIE_VALUE_BYTES);
    let attributes: Vec<(&str, &str)> = parts.map(|part| part.split_once('=').unwrap_or((part, ""))).collect();
    let value_of = |name: &str| {
        let mut values = attributes.iter().filter(|(known, _)| *known == name).map(|(_, value)| *value);
        let value = values.next();
        assert!(values.next().is_none(), "sets {text}");
        value
    };
    for (name, value) in &attributes {
        assert!(["Domain", "Path", "Max-Age", "HttpOnly", "SameSite", "Secure"].contains(name), "sets {text}");
        assert!(!value.contains(';'), "sets {text}");
    }
    let (secure, same_site) = (value_of("Secure"), value_of("SameSite"));
    assert_eq!(value_of("HttpOnly"), Some(""), "sets {text}");
    assert!(secure == Some("") || !is_secure(config), "sets {text}");
    assert!(matches!(same_site, Some("Lax" | "None")) && (same_site == Some("Lax") || secure.is_some()), "sets {text}");
    assert!(!name.starts_with("__") || secure == Some(""), "sets {text}");
    let host_only = value_of("Domain").is_none() && value_of("Path") == Some("/");
    assert!(!name.starts_with("__Host-") || host_only, "sets {text}");
}

/// Whether the app is on https. Schemes know no case (RFC 3986 section 3.1).
fn is_secure(config: &Config) -> bool {
    config.client.redirect_uri.to_ascii_lowercase().starts_with("https:")
}

/// Whether a cookie is the gate's: the token or one of its chunks, a login under way, the count of attempts.
pub fn is_own_cookie(name: &str, config: &Config) -> bool {
    let chunk = name.strip_prefix(config.token.cookie.as_str());
    let is_number = |number: &str| number.bytes().all(|byte| byte.is_ascii_digit());
    let is_token = chunk.is_some_and(|chunk| chunk.is_empty() || chunk.strip_prefix('.').is_some_and(is_number));
    let is_secure = is_secure(config);
    let comes_by_post = config.callback.as_ref().is_some_and(|own| own.response_mode == ResponseMode::FormPost);
    let prefix = |secure: bool| if secure { "__Host-stepgate_" } else { "stepgate_" };
    let state = name.strip_prefix(prefix(is_secure || comes_by_post)).and_then(|rest| rest.strip_prefix("tx_"));
    let is_state = |state: &str| {
        state.len() == 22 && state.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    is_token || state.is_some_and(is_state) || name.strip_prefix(prefix(is_secure)) == Some("attempts")
}
