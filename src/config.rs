//! The configuration document: parsed and validated in one go, or refused with every problem that it has.

mod callback;
mod decode;
mod forward;
mod rules;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::Uri;
use serde_json::{Map, Value};

use crate::encoding::parse_json;
use crate::jose::{Algorithm, AssertionKey, KeySet};
use crate::rules::Rules;
use crate::secret::Secret;

pub use callback::{
    CallbackConfig, CookieConfig, CookieMaxAge, Hint, MAX_COOKIE_NAME_BYTES, MAX_DEMAND_BYTES, MAX_ERROR_PAGE_BYTES,
    MAX_OWN_PATH_BYTES, MAX_SEALING_KEYS, ResponseMode, SameSite,
};
pub use decode::{ConfigError, ConfigErrors};
pub(crate) use decode::{Node, Object};
pub use forward::{ForwardConfig, MAX_IDENTITY_HEADERS, RESERVED_HEADERS, field_key};

/// The longest configuration document, in bytes.
pub const MAX_CONFIG_BYTES: usize = 8 * 1024 * 1024;

/// How many further audiences may be accepted.
pub const MAX_AUDIENCES: usize = 64;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const REFRESH: RangeInclusive<Duration> = SECOND..=DAY;
const MAX_STALE: RangeInclusive<Duration> = SECOND..=Duration::from_secs(30 * 24 * 60 * 60);
const COOLDOWN: RangeInclusive<Duration> = SECOND..=DAY;
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
const LEEWAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
const TOKEN_BYTES: RangeInclusive<u64> = 256..=65_536;

/// RFC 7518 section 3.2: a key of the same size as the hash output, or larger.
const MIN_HS256_SECRET: usize = 32;

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The identity provider.
    pub provider: ProviderConfig,
    /// The app as the provider knows it.
    pub client: ClientConfig,
    /// Where the ID Token is and what it may look like.
    pub token: TokenConfig,
    /// The flow that the gate completes itself, where it does.
    pub callback: Option<CallbackConfig>,
    /// What the app is told of who asks.
    pub forward: ForwardConfig,
    pub(crate) rules: Rules,
    /// Whether any step-up leads to the provider, and not to the app's own login route.
    pub(crate) asks_provider: bool,
}

/// The identity provider.
#[derive(Clone, Debug)]
pub struct ProviderConfig {
    /// Compared with `iss` byte for byte.
    pub issuer: String,
    /// Which Envoy cluster reaches which host.
    pub cluster: Clusters,
    /// The authorization endpoint, unless it is discovered.
    pub authorization_endpoint: Option<String>,
    /// The token endpoint, unless it is discovered.
    pub token_endpoint: Option<String>,
    /// Where a logout goes on, unless it is discovered.
    pub end_session_endpoint: Option<String>,
    /// Where the keys come from.
    pub keys: KeySource,
    /// How often keys and metadata are refreshed.
    pub refresh: Duration,
    /// How long the last known good ones serve.
    pub max_stale: Duration,
    /// The least time between two refetches for an unknown key ID.
    pub unknown_kid_cooldown: Duration,
    /// How long a fetch, and a request that waits for one, may take.
    pub timeout: Duration,
}

/// Where the provider's keys come from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// In the configuration.
    Inline(KeySet),
    /// From this URL.
    Url(String),
    /// From the `jwks_uri` of the provider's metadata.
    Discovered,
    /// Nowhere: only HS256 is allowed.
    SecretOnly,
}

/// Envoy clusters by the host they reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clusters {
    /// None is named.
    None,
    /// One for every host.
    Every(String),
    /// One for each host.
    ByHost(BTreeMap<String, String>),
}

/// The app as the provider knows it.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `client_id`.
    pub id: String,
    /// Further audiences that a token may name.
    pub audiences: Vec<String>,
    /// `redirect_uri`.
    pub redirect_uri: String,
    /// The client secret.
    pub secret: Option<Secret>,
    /// How the client authenticates itself to the provider.
    pub authentication: ClientAuthentication,
}

impl ClientConfig {
    /// Whether the app is on https, so that cookies are `Secure`. On http it is on loopback.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.redirect_uri.starts_with("https:")
    }
}

/// How the client authenticates itself to the provider (OpenID Connect Core section 9).
#[derive(Clone, Debug)]
pub enum ClientAuthentication {
    /// `client_secret_basic`.
    Basic,
    /// `client_secret_post`.
    Post,
    /// `private_key_jwt`; without a key where the secret is none.
    PrivateKeyJwt(Option<AssertionKey>),
    /// A public client.
    None,
}

/// Where the ID Token is and what it may look like.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// The cookie's name.
    pub cookie: String,
    /// A header that may carry the token as well, lower case.
    pub header: Option<String>,
    /// The signature algorithms that are accepted.
    pub algorithms: Vec<Algorithm>,
    /// The tolerance for clocks that differ.
    pub leeway: Duration,
    /// The longest token, in bytes.
    pub max_bytes: usize,
}

impl Config {
    /// Parses and validates a configuration document in JSON. `env` looks up an environment variable.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn from_json(document: &[u8], env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        if document.len() > MAX_CONFIG_BYTES {
            let problem = format!("must have at most {MAX_CONFIG_BYTES} bytes, got {}", document.len());
            return Err(ConfigErrors::single("", problem));
        }
        if document.trim_ascii().is_empty() {
            return Err(ConfigErrors::single("", "is empty, must be a JSON object"));
        }
        let document =
            parse_json(document).map_err(|error| ConfigErrors::single("", format!("not valid JSON: {error}")))?;
        Self::from_value(&document, env)
    }

    /// Validates a configuration document. `env` looks up an environment variable.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn from_value(document: &Value, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let root = Node { path: String::new(), value: document };
        let config = decode_config(&root, env, &mut errors);
        match config {
            Some(config) if errors.is_empty() => Ok(config),
            _ => Err(errors),
        }
    }
}

/// The fields of each object of the document, in the order of the reference.
pub mod fields {
    /// The document itself.
    pub const ROOT: [&str; 10] = [
        "provider",
        "client",
        "token",
        "step_up",
        "acr_levels",
        "rules",
        "mode",
        "case_insensitive_paths",
        "callback",
        "forward",
    ];
    /// `provider`.
    pub const PROVIDER: [&str; 11] = [
        "issuer",
        "cluster",
        "authorization_endpoint",
        "token_endpoint",
        "end_session_endpoint",
        "jwks_uri",
        "jwks",
        "refresh",
        "max_stale",
        "unknown_kid_cooldown",
        "timeout",
    ];
    /// `client`.
    pub const CLIENT: [&str; 5] = ["id", "audiences", "redirect_uri", "secret", "authentication"];
    /// `token`.
    pub const TOKEN: [&str; 5] = ["cookie", "header", "algorithms", "leeway", "max_bytes"];
    /// `step_up`, and `rules[].step_up`.
    pub const STEP_UP: [&str; 7] =
        ["acr_values", "scope", "claims", "params", "login_url", "return_to_param", "max_attempts"];
    /// `rules[]`.
    pub const RULE: [&str; 9] = ["name", "hosts", "paths", "except", "methods", "require", "step_up", "answer", "mode"];
    /// `callback`.
    pub const CALLBACK: [&str; 8] =
        ["keys", "cookie", "seal_token", "response_mode", "hint", "pushed_authorization", "logout_path", "error_page"];
    /// `callback.cookie`.
    pub const CALLBACK_COOKIE: [&str; 4] = ["domain", "path", "same_site", "max_age"];
    /// `forward`.
    pub const FORWARD: [&str; 2] = ["headers", "strip_token"];
    /// `rules[].require`.
    pub const REQUIRE: [&str; 4] = ["amr", "acr", "max_age", "claims"];
}

fn decode_config(root: &Node<'_>, env: &dyn Fn(&str) -> Option<String>, errors: &mut ConfigErrors) -> Option<Config> {
    let object = Object::open(root, &fields::ROOT, errors)?;
    let client_node = object.required("client", "an object with `id` and `redirect_uri`", errors);
    let client = client_node.and_then(|node| decode_client(&node, env, errors));
    let token = decode_token(&object, client.as_ref(), errors);
    let algorithms = token.as_ref().map_or(&[][..], |token| token.algorithms.as_slice());
    let provider_node = object.required("provider", "an object with `issuer`", errors);
    let provider = provider_node.and_then(|node| decode_provider(&node, algorithms, errors));
    let decoded = rules::decode(&object, errors);
    let callback_node = object.get("callback");
    let callback = callback_node.as_ref().map(|node| callback::decode(node, client.as_ref(), env, errors));
    let forward = object.get("forward").map_or(Some(ForwardConfig::default()), |node| forward::decode(&node, errors));
    if let (Some(provider), Some(decoded)) = (&provider, &decoded) {
        check_endpoint_known(provider, decoded, errors);
    }
    if let (Some(client), Some(decoded)) = (&client, &decoded) {
        check_way_back(client, callback.is_some(), decoded, errors);
    }
    if let (Some(Some(callback)), Some(provider), Some(client), Some(token), Some(decoded)) =
        (&callback, &provider, &client, &token, &decoded)
    {
        callback::check(callback, (provider, client, token), decoded, errors);
    }
    let decoded = decoded?;
    Some(Config {
        provider: provider?,
        client: client?,
        token: token?,
        callback: match callback {
            Some(callback) => Some(callback?),
            None => None,
        },
        forward: forward?,
        asks_provider: !decoded.all_have_login_url,
        rules: decoded.rules,
    })
}

fn decode_provider(node: &Node<'_>, algorithms: &[Algorithm], errors: &mut ConfigErrors) -> Option<ProviderConfig> {
    let object = Object::open(node, &fields::PROVIDER, errors)?;
    let endpoint = |name: &str, errors: &mut ConfigErrors| {
        object.get(name).and_then(|node| node.parsed(ENDPOINT, errors, endpoint_url))
    };
    let authorization_endpoint = endpoint("authorization_endpoint", errors);
    let token_endpoint = endpoint("token_endpoint", errors);
    let end_session_endpoint = endpoint("end_session_endpoint", errors);
    let jwks_uri = endpoint("jwks_uri", errors);
    let issuer = object
        .required("issuer", ISSUER, errors)
        .and_then(|node| node.parsed(ISSUER, errors, |text| endpoint_url(text).filter(|url| !url.contains('?'))));
    let inline = object.get("jwks");
    if let (Some(inline), true) = (&inline, jwks_uri.is_some()) {
        errors.push(&inline.path, "contradicts `provider.jwks_uri`: give one of them");
    }
    let jwks = inline.as_ref().and_then(|node| decode_jwks(node, errors));
    let keys = match (jwks, jwks_uri) {
        (Some(keys), _) => KeySource::Inline(keys),
        (None, Some(url)) => KeySource::Url(url),
        (None, None) if algorithms == [Algorithm::Hs256] => KeySource::SecretOnly,
        (None, None) => KeySource::Discovered,
    };
    let duration = |name: &str, range: RangeInclusive<Duration>, default: Duration, errors: &mut ConfigErrors| {
        object.get(name).map_or(Some(default), |node| node.duration(&range, errors))
    };
    let refresh = duration("refresh", REFRESH, Duration::from_secs(600), errors);
    let max_stale = duration("max_stale", MAX_STALE, DAY, errors);
    if let (Some(refresh), Some(max_stale)) = (refresh, max_stale)
        && max_stale < refresh
    {
        errors.push(object.place("max_stale"), "must not be shorter than `provider.refresh`");
    }
    let unknown_kid_cooldown = duration("unknown_kid_cooldown", COOLDOWN, Duration::from_secs(60), errors);
    let timeout = duration("timeout", TIMEOUT, Duration::from_secs(5), errors);
    let cluster = object.get("cluster").map_or(Some(Clusters::None), |node| decode_clusters(&node, errors));
    Some(ProviderConfig {
        issuer: issuer?,
        cluster: cluster?,
        authorization_endpoint,
        token_endpoint,
        end_session_endpoint,
        keys,
        refresh: refresh?,
        max_stale: max_stale?,
        unknown_kid_cooldown: unknown_kid_cooldown?,
        timeout: timeout?,
    })
}

const ISSUER: &str = "an https URL without query and fragment, exactly as in `iss` (http only for loopback hosts)";
const ENDPOINT: &str = "an https URL without fragment (http only for loopback hosts)";

pub(crate) fn endpoint_url(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    // As it is written: who asks later whether it is https looks at the text.
    let secure = match text.split_once("://")?.0 {
        "https" => true,
        "http" => is_loopback(authority.host()),
        _ => false,
    };
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains('#');
    (secure && plain).then(|| text.to_owned())
}

/// Loopback addresses, and the names that RFC 6761 section 6.3 keeps for them.
fn is_loopback(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]") || host.ends_with(".localhost")
}

fn decode_clusters(node: &Node<'_>, errors: &mut ConfigErrors) -> Option<Clusters> {
    let accepted = "a cluster's name, or an object from host to cluster";
    match node.value {
        Value::Object(hosts) if !hosts.is_empty() => {
            let named = hosts.iter().filter_map(|(host, value)| {
                let place = Node { path: format!("{}.{host}", node.path), value };
                Some((host.to_ascii_lowercase(), place.string("a cluster's name", errors)?.to_owned()))
            });
            Some(Clusters::ByHost(named.collect()))
        }
        _ => node.string(accepted, errors).map(|name| Clusters::Every(name.to_owned())),
    }
}

fn decode_jwks(node: &Node<'_>, errors: &mut ConfigErrors) -> Option<KeySet> {
    let keys = KeySet::from_value(node.value);
    match keys {
        Ok((keys, ignored)) => {
            for (index, problem) in ignored {
                errors.push(format!("{}.keys[{index}]", node.path), format!("cannot be used: {problem}"));
            }
            Some(keys)
        }
        Err(problem) => {
            errors.push(&node.path, format!("must be a JSON Web Key Set with at least one usable key: {problem}"));
            None
        }
    }
}

fn decode_client(
    node: &Node<'_>,
    env: &dyn Fn(&str) -> Option<String>,
    errors: &mut ConfigErrors,
) -> Option<ClientConfig> {
    let object = Object::open(node, &fields::CLIENT, errors)?;
    let id = object.required_string("id", "the client ID, a string", errors).map(str::to_owned);
    let audiences = object.get("audiences").filter(|node| node.value.as_array().is_none_or(|list| !list.is_empty()));
    let audiences = audiences.map_or_else(Vec::new, |node| node.strings(MAX_AUDIENCES, "string", errors));
    let redirect_uri =
        object.required("redirect_uri", ENDPOINT, errors).and_then(|node| node.parsed(ENDPOINT, errors, endpoint_url));
    let secret = object.get("secret").and_then(|node| decode_secret(&node, env, errors));
    let method = object.get("authentication").map_or(Some(Method::Basic), |node| node.one_of(&METHODS, errors));
    let authentication = match method? {
        Method::Basic => ClientAuthentication::Basic,
        Method::Post => ClientAuthentication::Post,
        Method::PrivateKeyJwt => {
            let key = secret.as_ref().and_then(|secret| AssertionKey::from_jwk(secret.reveal()));
            ClientAuthentication::PrivateKeyJwt(key)
        }
        Method::None => ClientAuthentication::None,
    };
    Some(ClientConfig { id: id?, audiences, redirect_uri: redirect_uri?, secret, authentication })
}

#[derive(Clone, Copy)]
enum Method {
    Basic,
    Post,
    PrivateKeyJwt,
    None,
}

const METHODS: [(&str, Method); 4] = [
    ("client_secret_basic", Method::Basic),
    ("client_secret_post", Method::Post),
    ("private_key_jwt", Method::PrivateKeyJwt),
    ("none", Method::None),
];

/// A secret: a literal, or the name of an environment variable. Errors never show it.
fn decode_secret(node: &Node<'_>, env: &dyn Fn(&str) -> Option<String>, errors: &mut ConfigErrors) -> Option<Secret> {
    match node.value {
        Value::String(literal) if !literal.is_empty() => Some(Secret::new(literal)),
        Value::Object(_) => {
            let object = Object::open(node, &["env"], errors)?;
            let variable = object.required_string("env", "the name of an environment variable", errors)?;
            let value = env(variable).filter(|value| !value.is_empty());
            if value.is_none() {
                // What does not look like a variable's name may be the secret itself.
                let looks_like_one = variable.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
                let problem = match looks_like_one {
                    true => format!("the environment variable `{variable}` is not set, or not passed on to the module"),
                    false => {
                        "the environment variable of this name (not shown: it might be a secret) is not set, or not passed on to the module".to_owned()
                    }
                };
                errors.push(object.place("env"), problem);
            }
            value.map(|value| Secret::new(&value))
        }
        _ => {
            errors.push(&node.path, "must be a string that is not empty, or `{ env: NAME }`");
            None
        }
    }
}

fn decode_token(root: &Object<'_>, client: Option<&ClientConfig>, errors: &mut ConfigErrors) -> Option<TokenConfig> {
    let empty = Value::Object(Map::new());
    let node = root.get("token").unwrap_or(Node { path: "token".to_owned(), value: &empty });
    let object = Object::open(&node, &fields::TOKEN, errors)?;
    let cookie = object.get("cookie").map_or(Some("id_token".to_owned()), |node| {
        node.parsed("a cookie's name (RFC 6265 section 4.1.1)", errors, |name| is_token(name).then(|| name.to_owned()))
    });
    let header = object.get("header").map_or(Some(None), |node| {
        let accepted = "a header field's name, not `cookie`";
        node.parsed(accepted, errors, |name| {
            let name = name.to_ascii_lowercase();
            (is_token(&name) && name != "cookie").then_some(Some(name))
        })
    });
    let algorithms = object.get("algorithms").map_or_else(
        || Some(vec![Algorithm::Rs256]),
        |node| {
            let items = node.items(Algorithm::ALL.len(), "a list of signature algorithms", errors);
            let named = Algorithm::ALL.map(|algorithm| (algorithm.name(), algorithm));
            let decoded: Vec<_> = items.iter().filter_map(|item| item.one_of(&named, errors)).collect();
            (!decoded.is_empty()).then_some(decoded)
        },
    );
    if let (Some(algorithms), Some(client)) = (&algorithms, client)
        && algorithms.contains(&Algorithm::Hs256)
    {
        let place = object.place("algorithms");
        match &client.secret {
            None => errors.push(place, "HS256 needs `client.secret`"),
            Some(_) if matches!(client.authentication, ClientAuthentication::PrivateKeyJwt(_)) => {
                errors.push(place, "HS256 contradicts `client.authentication: private_key_jwt`, whose secret is a key");
            }
            Some(secret) if secret.reveal().len() < MIN_HS256_SECRET => {
                let problem = format!("HS256 needs a `client.secret` of at least {MIN_HS256_SECRET} bytes (RFC 7518)");
                errors.push(place, problem);
            }
            Some(_) => {}
        }
    }
    let leeway = object.get("leeway").map_or(Some(Duration::from_secs(60)), |node| node.duration(&LEEWAY, errors));
    let max_bytes = object.get("max_bytes").map_or(Some(16_384), |node| node.integer(&TOKEN_BYTES, errors));
    Some(TokenConfig {
        cookie: cookie?,
        header: header?,
        algorithms: algorithms?,
        leeway: leeway?,
        max_bytes: usize::try_from(max_bytes?).ok()?,
    })
}

/// RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_tchar)
}

/// Without metadata the authorization endpoint must be configured, unless every rule leads to the app's own login
/// route.
fn check_endpoint_known(provider: &ProviderConfig, decoded: &rules::Decoded, errors: &mut ConfigErrors) {
    let fetches_nothing = matches!(provider.keys, KeySource::Inline(_));
    if fetches_nothing && provider.authorization_endpoint.is_none() && !decoded.all_have_login_url {
        let accepted = format!("{ENDPOINT}, since with `provider.jwks` nothing is fetched");
        errors.missing("provider.authorization_endpoint", &accepted);
    }
}

/// The places that a step-up leads to must not ask for a step-up themselves.
fn check_way_back(client: &ClientConfig, own_callback: bool, decoded: &rules::Decoded, errors: &mut ConfigErrors) {
    // What the gate answers itself is under no rule.
    if let Some(uri) = client.redirect_uri.parse::<Uri>().ok().filter(|_| !own_callback) {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        check_reachable("client.redirect_uri", authority, uri.path(), decoded, errors);
    }
    for login in &decoded.login_urls {
        if login.url.starts_with('/') {
            check_reachable(&login.place, &login.authority, &login.url, decoded, errors);
        }
    }
}

fn check_reachable(place: &str, authority: &str, path: &str, decoded: &rules::Decoded, errors: &mut ConfigErrors) {
    let readings = decoded.rules.readings(path.as_bytes());
    let demands = decoded.rules.matching(authority.as_bytes(), b"GET", &readings);
    if let Some(name) = demands.enforced.as_ref().and_then(|demand| demand.rules.first()) {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let problem = format!("falls under the rule `{name}` itself, a loop: add `{path}` to the rule's `except`");
        errors.push_once(place, problem);
    }
}
