//! `callback`: the flow that the gate completes itself.

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::Uri;
use serde_json::{Map, Value};

use super::decode::{ConfigErrors, Node, Object};
use super::{ClientAuthentication, ClientConfig, KeySource, ProviderConfig, TokenConfig, fields, rules};
use crate::http::is_local_path;
use crate::rules::readable_host;
use crate::seal::{KEY_BYTES, SealingKeys};
use crate::template::Template;

/// How many keys may open what was sealed.
pub const MAX_SEALING_KEYS: usize = 8;

/// The longest error page, in bytes.
pub const MAX_ERROR_PAGE_BYTES: usize = 65_536;

/// The longest name of a cookie that the gate sets, in bytes.
pub const MAX_COOKIE_NAME_BYTES: usize = 64;

/// The longest path of the gate's own, in bytes.
pub const MAX_OWN_PATH_BYTES: usize = 512;

/// What a rule asks for may take this many bytes as JSON, so that it fits into a cookie with all else.
pub const MAX_DEMAND_BYTES: usize = 1_536;

const COOKIE_MAX_AGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(400 * 24 * 60 * 60);

/// The flow that the gate completes itself.
#[derive(Clone, Debug)]
pub struct CallbackConfig {
    /// What seals the cookies.
    pub keys: SealingKeys,
    /// The cookie that carries the ID Token.
    pub cookie: CookieConfig,
    /// Whether that cookie is sealed.
    pub seal_token: bool,
    /// How the provider's answer comes.
    pub response_mode: ResponseMode,
    /// What the provider is told of who is logged in.
    pub hint: Hint,
    /// Whether authorization requests are pushed, where the provider has it (RFC 9126).
    pub pushed_authorization: bool,
    /// The path that logs out.
    pub logout_path: Option<String>,
    /// An error page of one's own.
    pub error_page: Option<Template>,
    /// The origin of `client.redirect_uri`, such as `https://app.example.com`.
    pub origin: String,
    /// Its host, lower case, without port.
    pub host: Vec<u8>,
    /// Its path.
    pub path: String,
}

/// How the cookie with the ID Token is set (RFC 6265bis section 4.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieConfig {
    /// `Domain`; without one, the cookie is the host's alone.
    pub domain: Option<String>,
    /// `Path`.
    pub path: String,
    /// `SameSite`.
    pub same_site: SameSite,
    /// `Max-Age`.
    pub max_age: CookieMaxAge,
    /// `Secure`.
    pub secure: bool,
}

/// `SameSite`. `Strict` is none of them: such a cookie is not sent after the redirect from the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Sent on navigations from other sites.
    Lax,
    /// Sent from anywhere.
    None,
}

impl SameSite {
    /// The attribute's value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

/// How long the browser keeps the cookie with the ID Token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieMaxAge {
    /// Until the token expires.
    Token,
    /// Until the browser is closed.
    Session,
    /// So long, and no longer than the token.
    AtMost(Duration),
}

/// How the provider's answer comes (OAuth 2.0 Multiple Response Types section 2.1, OAuth 2.0 Form Post Response Mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseMode {
    /// In the query of a GET.
    Query,
    /// In the body of a POST.
    FormPost,
}

/// What the provider is told of who is logged in (OpenID Connect Core section 3.1.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Nothing.
    None,
    /// `login_hint`, from the old token's claims.
    LoginHint,
    /// `id_token_hint`, the old token.
    IdTokenHint,
}

/// Decodes `callback`.
pub(super) fn decode(
    node: &Node<'_>,
    client: Option<&ClientConfig>,
    env: &dyn Fn(&str) -> Option<String>,
    errors: &mut ConfigErrors,
) -> Option<CallbackConfig> {
    let object = Object::open(node, &fields::CALLBACK, errors)?;
    let keys = decode_keys(&object, env, errors);
    let secure = client.is_none_or(ClientConfig::is_secure);
    let cookie = decode_cookie(&object, secure, errors);
    let seal_token = object.get("seal_token").map_or(Some(false), |node| node.boolean(errors));
    let modes = [("query", ResponseMode::Query), ("form_post", ResponseMode::FormPost)];
    let response_mode =
        object.get("response_mode").map_or(Some(ResponseMode::Query), |node| node.one_of(&modes, errors));
    let hints = [("none", Hint::None), ("login_hint", Hint::LoginHint), ("id_token_hint", Hint::IdTokenHint)];
    let hint = object.get("hint").map_or(Some(Hint::None), |node| node.one_of(&hints, errors));
    let pushed_authorization = object.get("pushed_authorization").map_or(Some(false), |node| node.boolean(errors));
    let logout_path = object.get("logout_path").map_or(Some(None), |node| {
        node.parsed(OWN_PATH, errors, |path| is_own_path(path).then(|| Some(path.to_owned())))
    });
    let error_page = object.get("error_page").map_or(Some(None), |node| decode_error_page(&node, errors).map(Some));
    let place = client.and_then(|client| decode_place(client, errors));
    if let (Some((_, _, path)), Some(Some(logout_path))) = (&place, &logout_path)
        && path == logout_path
    {
        errors.push(object.place("logout_path"), "is the path of `client.redirect_uri`: it must be another");
    }
    let (origin, host, path) = place?;
    Some(CallbackConfig {
        keys: keys?,
        cookie: cookie?,
        seal_token: seal_token?,
        response_mode: response_mode?,
        hint: hint?,
        pushed_authorization: pushed_authorization?,
        logout_path: logout_path?,
        error_page: error_page?,
        origin,
        host,
        path,
    })
}

const OWN_PATH: &str =
    "a path such as `/logout`, not `/`: one `/` at its start, no query, no `%`, no `;`, at most 512 characters";

fn is_own_path(path: &str) -> bool {
    is_cookie_path(path) && path != "/"
}

fn is_cookie_path(path: &str) -> bool {
    is_local_path(path) && !path.contains(['?', '%', ';']) && path.len() <= MAX_OWN_PATH_BYTES
}

fn decode_keys(
    object: &Object<'_>,
    env: &dyn Fn(&str) -> Option<String>,
    errors: &mut ConfigErrors,
) -> Option<SealingKeys> {
    let accepted = "a list of keys, each 32 bytes in base64, or `{ env: NAME }`";
    let node = object.required("keys", accepted, errors)?;
    if !node.value.is_array() {
        // What stands there may be a key: it is not shown.
        errors.push(&node.path, format!("must be {accepted}"));
        return None;
    }
    let items = node.items(MAX_SEALING_KEYS, accepted, errors);
    let mut keys = Vec::new();
    for item in &items {
        let Some(secret) = super::decode_secret(item, env, errors) else { continue };
        match sealing_key(secret.reveal()) {
            Some(key) => keys.push(key),
            None => errors.push(&item.path, format!("must be {KEY_BYTES} random bytes in base64")),
        }
    }
    let (first, others) = keys.split_first().filter(|_| keys.len() == items.len())?;
    Some(SealingKeys::new(first, others))
}

/// Either alphabet, with padding or without: what key generators print.
fn sealing_key(text: &str) -> Option<[u8; KEY_BYTES]> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decode = |alphabet| GeneralPurpose::new(alphabet, lenient).decode(text.trim()).ok();
    decode(&STANDARD).or_else(|| decode(&URL_SAFE))?.try_into().ok()
}

fn decode_cookie(callback: &Object<'_>, secure: bool, errors: &mut ConfigErrors) -> Option<CookieConfig> {
    let empty = Value::Object(Map::new());
    let node = callback.get("cookie").unwrap_or(Node { path: callback.place("cookie"), value: &empty });
    let object = Object::open(&node, &fields::CALLBACK_COOKIE, errors)?;
    let domain = object.get("domain").map_or(Some(None), |node| {
        let accepted = "a domain such as `example.com`, without a dot at its start, and not a top-level domain";
        node.parsed(accepted, errors, |text| {
            let host = readable_host(text.as_bytes()).filter(|host| *host == text.to_ascii_lowercase().as_bytes())?;
            let domain = String::from_utf8(host).ok()?;
            let labels = domain.split('.').collect::<Vec<_>>();
            let is_domain = labels.len() > 1 && labels.iter().all(|label| !label.is_empty());
            (is_domain || domain == "localhost").then_some(Some(domain))
        })
    });
    let path = object.get("path").map_or(Some("/".to_owned()), |node| {
        let accepted = "a path with one `/` at its start, no query, no `;` and no `%`, at most 512 characters";
        node.parsed(accepted, errors, |path| is_cookie_path(path).then(|| path.to_owned()))
    });
    let same_site = object.get("same_site").map_or(Some(SameSite::Lax), |node| {
        if node.value.as_str() == Some("Strict") {
            let problem = "must be `Lax` or `None`: browsers send no `Strict` cookie after the redirect from the provider, \
                so that the login would never end";
            errors.push(&node.path, problem);
            return None;
        }
        node.one_of(&[("Lax", SameSite::Lax), ("None", SameSite::None)], errors)
    });
    if same_site == Some(SameSite::None) && !secure {
        errors.push(object.place("same_site"), "`None` needs a `client.redirect_uri` with https");
    }
    let max_age = object.get("max_age").map_or(Some(CookieMaxAge::Token), |node| match node.value.as_str() {
        Some("token") => Some(CookieMaxAge::Token),
        Some("session") => Some(CookieMaxAge::Session),
        Some(text) if text.starts_with(|first: char| first.is_ascii_digit()) => {
            node.duration(&COOKIE_MAX_AGE, errors).map(CookieMaxAge::AtMost)
        }
        _ => {
            errors.invalid(&node, "`token`, `session`, or a duration from 1s to 400d");
            None
        }
    });
    Some(CookieConfig { domain: domain?, path: path?, same_site: same_site?, max_age: max_age?, secure })
}

fn decode_error_page(node: &Node<'_>, errors: &mut ConfigErrors) -> Option<Template> {
    let text = node.string("an HTML page", errors)?;
    if text.len() > MAX_ERROR_PAGE_BYTES {
        errors.push(&node.path, format!("must have at most {MAX_ERROR_PAGE_BYTES} bytes, got {}", text.len()));
        return None;
    }
    Template::parse(text).map_err(|problem| errors.push(&node.path, problem)).ok()
}

/// Origin, host and path of the redirect URI.
fn decode_place(client: &ClientConfig, errors: &mut ConfigErrors) -> Option<(String, Vec<u8>, String)> {
    let uri: Uri = client.redirect_uri.parse().ok()?;
    let authority = uri.authority()?.as_str();
    if !is_own_path(uri.path()) || uri.query().is_some() {
        errors.push("client.redirect_uri", format!("with `callback`, its path must be {OWN_PATH}"));
        return None;
    }
    let origin = format!("{}://{}", uri.scheme_str()?, authority.to_ascii_lowercase());
    let Some(host) = readable_host(authority.as_bytes()) else {
        errors.push("client.redirect_uri", "with `callback`, its host must be a host name or an IP literal");
        return None;
    };
    Some((origin, host, uri.path().to_owned()))
}

/// What `callback` asks of the rest of the document.
pub(super) fn check(
    callback: &CallbackConfig,
    (provider, client, token): (&ProviderConfig, &ClientConfig, &TokenConfig),
    decoded: &rules::Decoded,
    errors: &mut ConfigErrors,
) {
    match (&client.authentication, &client.secret) {
        (ClientAuthentication::Basic | ClientAuthentication::Post, None) => errors.missing(
            "client.secret",
            "the client secret, since with `callback` the gate exchanges codes; a public client has `client.authentication: none`",
        ),
        (ClientAuthentication::PrivateKeyJwt(None), _) => {
            errors.push("client.secret", "must be a private EC key on P-256 as a JWK in JSON, for `private_key_jwt`");
        }
        _ => {}
    }
    if matches!(provider.keys, KeySource::Inline(_)) {
        if provider.token_endpoint.is_none() {
            let accepted = "an https URL without fragment (http only for loopback hosts), since with `provider.jwks` it is not discovered";
            errors.missing("provider.token_endpoint", accepted);
        }
        if callback.pushed_authorization {
            errors.push(
                "callback.pushed_authorization",
                "needs the provider's metadata, which `provider.jwks` rules out",
            );
        }
    }
    if let Some(login) = decoded.login_urls.first().filter(|_| callback.seal_token) {
        errors.push(&login.place, "contradicts `callback.seal_token`: the cookie that the app sets is not sealed");
    }
    if callback.seal_token && callback.hint == Hint::IdTokenHint {
        errors.push("callback.hint", "contradicts `callback.seal_token`: `id_token_hint` shows the token in a URL");
    }
    check_cookie(callback, token, errors);
    for (place, bytes) in &decoded.demand_bytes {
        if *bytes > MAX_DEMAND_BYTES {
            let problem = format!(
                "what the rule requires and asks for must take at most {MAX_DEMAND_BYTES} bytes as JSON to fit into a cookie, got {bytes}"
            );
            errors.push(place, problem);
        }
    }
}

fn check_cookie(callback: &CallbackConfig, token: &TokenConfig, errors: &mut ConfigErrors) {
    let (cookie, name) = (&callback.cookie, token.cookie.as_str());
    if name.len() > MAX_COOKIE_NAME_BYTES {
        errors.push("token.cookie", format!("with `callback`, must have at most {MAX_COOKIE_NAME_BYTES} characters"));
    }
    let lower = name.to_ascii_lowercase();
    if lower.contains("stepgate_") {
        errors.push("token.cookie", "must not contain `stepgate_`, which the gate's other cookies do");
    }
    // Browsers know the prefixes in any case (RFC 6265bis section 4.1.3).
    let host_only = lower.starts_with("__host-");
    if (host_only || lower.starts_with("__secure-")) && !cookie.secure {
        errors.push("token.cookie", "this prefix needs a `client.redirect_uri` with https");
    }
    if host_only && (cookie.domain.is_some() || cookie.path != "/") {
        errors.push("token.cookie", "`__Host-` allows neither `callback.cookie.domain` nor another path than `/`");
    }
    if let Some(domain) = &cookie.domain {
        let below = callback.host.strip_suffix(domain.as_bytes());
        if below.is_none_or(|below| !below.is_empty() && !below.ends_with(b".")) {
            errors.push("callback.cookie.domain", "must be the host of `client.redirect_uri` or a domain above it");
        } else if domain == "localhost" && callback.host != b"localhost" {
            errors.push("callback.cookie.domain", "browsers take no cookie for all hosts below `localhost`");
        }
    }
}
