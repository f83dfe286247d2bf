//! What the gate knows of the identity provider: metadata and keys, refreshed in the background, kept through
//! outages.

mod metadata;
mod source;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{KeySource, ProviderConfig};
use crate::encoding::parse_json;
use crate::jose::{Algorithm, Key, KeySet};
use crate::secret::Secret;
use crate::time::Timestamp;
use metadata::Metadata;
use source::Source;

/// The largest metadata document, in bytes.
pub const MAX_METADATA_BYTES: usize = 256 * 1024;

/// The largest key set, in bytes.
pub const MAX_KEY_SET_BYTES: usize = 512 * 1024;

/// The longest answer to a POST, in bytes: an ID Token, and access and refresh tokens that nobody looks at.
pub const MAX_POST_REPLY_BYTES: usize = 256 * 1024;

/// How many unknown key IDs are remembered.
pub const MAX_UNKNOWN_KIDS: usize = 256;

/// For how many cooldowns an unknown key ID asks for no further refetch, unless a refresh comes first: a junk ID
/// must not take the place of an honest one for ever.
pub const UNKNOWN_KID_COOLDOWNS: u32 = 5;

/// What a fetch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `/.well-known/openid-configuration` (OpenID Connect Discovery section 4).
    Metadata,
    /// `jwks_uri`.
    Keys,
    /// The token endpoint (RFC 6749 section 3.2).
    Token,
    /// The pushed authorization request endpoint (RFC 9126).
    PushedAuthorization,
}

impl Endpoint {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Keys => "keys",
            Self::Token => "token",
            Self::PushedAuthorization => "pushed_authorization",
        }
    }

    /// Whether one fetch serves everybody. Any other is one request's alone: it is made once, never shared and never
    /// made again.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Metadata | Self::Keys)
    }
}

/// What a POST carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// `application/x-www-form-urlencoded`.
    pub body: Secret,
    /// The value of the `authorization` header field.
    pub authorization: Option<Secret>,
}

/// A request that the gate wants made: a GET, or a POST of a form. Hosts make one request for all that ask for the same
/// URL at a time, where the endpoint is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// What it is for.
    pub endpoint: Endpoint,
    /// An absolute URL, https or loopback.
    pub url: String,
    /// What to POST; a GET without it.
    pub form: Option<Form>,
    /// How long it may take.
    pub timeout: Duration,
    /// How long its body may be.
    pub max_bytes: usize,
    /// An attempt that ended after this moment, good or bad, answers it as well. So several workers share one
    /// request.
    pub newer_than: Timestamp,
    /// Whether an unknown key ID asks for it.
    pub for_unknown_kid: bool,
}

impl Fetch {
    /// Whether this fetch, under way, brings what another one asks for.
    #[must_use]
    pub fn serves(&self, other: &Self) -> bool {
        other.endpoint.is_shared() && self.endpoint == other.endpoint && self.url == other.url
    }
}

/// How a fetch ended.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// When it ended.
    pub at: Timestamp,
    /// When the last fetch for an unknown key ID ended, on any worker.
    pub unknown_kid_at: Option<Timestamp>,
    /// The body of a 200 (of a 201 where a POST created something), or what went wrong.
    pub result: Result<Arc<[u8]>, FetchFailure>,
}

impl fmt::Debug for Reply {
    /// Without the body, which may be a token's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = self.result.as_ref().map(|body| body.len());
        f.debug_struct("Reply").field("at", &self.at).field("result", &result).finish_non_exhaustive()
    }
}

/// What can go wrong with a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFailure {
    /// No answer in time.
    Timeout,
    /// No request could be made.
    Unreachable,
    /// The answer broke off.
    Reset,
    /// The body is longer than allowed.
    TooLarge,
    /// A status other than 200.
    Status(u16),
    /// An OAuth error (RFC 6749 section 5.2), by its code.
    OAuth(&'static str),
    /// Another worker's attempt failed.
    Elsewhere,
}

impl fmt::Display for FetchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("timeout"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Reset => f.write_str("reset"),
            Self::TooLarge => f.write_str("too_large"),
            Self::Status(status) => write!(f, "status_{status}"),
            Self::OAuth(code) => f.write_str(code),
            Self::Elsewhere => f.write_str("elsewhere"),
        }
    }
}

impl Reply {
    /// An HTTP answer to a fetch.
    #[must_use]
    pub fn from_http(fetch: &Fetch, at: Timestamp, status: u16, body: Vec<u8>) -> Self {
        let created = status == 201 && fetch.endpoint == Endpoint::PushedAuthorization;
        let result = match status {
            _ if body.len() > fetch.max_bytes => Err(FetchFailure::TooLarge),
            200 => Ok(body.into()),
            201 if created => Ok(body.into()),
            400 | 401 if !fetch.endpoint.is_shared() => {
                Err(oauth_error(&body).map_or(FetchFailure::Status(status), FetchFailure::OAuth))
            }
            other => Err(FetchFailure::Status(other)),
        };
        Self { at, unknown_kid_at: fetch.for_unknown_kid.then_some(at), result }
    }

    /// A fetch that brought no HTTP answer.
    #[must_use]
    pub fn failed(fetch: &Fetch, at: Timestamp, failure: FetchFailure) -> Self {
        Self { at, unknown_kid_at: fetch.for_unknown_kid.then_some(at), result: Err(failure) }
    }
}

/// The error codes of token endpoints that are told on (RFC 6749 section 5.2, RFC 9126 section 2.3).
const OAUTH_ERRORS: [&str; 8] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_request_object",
    "access_denied",
];

fn oauth_error(body: &[u8]) -> Option<&'static str> {
    let document = parse_json(body).ok()?;
    let code = document.get("error")?.as_str()?;
    OAUTH_ERRORS.into_iter().find(|known| *known == code)
}

/// Why a reply is of no use. What was known before stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no document.
    Fetch(FetchFailure),
    /// The document is not what it should be.
    Malformed(&'static str),
    /// The metadata names another issuer (OpenID Connect Discovery section 4.3).
    IssuerMismatch,
}

impl Fault {
    /// The name in metrics.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Fetch(failure) => failure.to_string(),
            Self::Malformed(_) => "malformed".to_owned(),
            Self::IssuerMismatch => "issuer_mismatch".to_owned(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch(failure) => write!(f, "the fetch failed: {failure}"),
            Self::Malformed(problem) => write!(f, "the document is not usable: {problem}"),
            Self::IssuerMismatch => f.write_str("the document names another issuer than `provider.issuer`"),
        }
    }
}

/// Which endpoints a request waited for already: each at most once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    metadata: bool,
    keys: bool,
}

impl Asked {
    pub(crate) fn note(&mut self, endpoint: Endpoint) {
        if endpoint.is_shared() {
            *self.of(endpoint) = true;
        }
    }

    fn of(&mut self, endpoint: Endpoint) -> &mut bool {
        match endpoint {
            Endpoint::Keys => &mut self.keys,
            _ => &mut self.metadata,
        }
    }
}

/// Something the provider has, or what stands between.
#[derive(Debug)]
pub(crate) enum Lookup<T> {
    Found(T),
    /// It is known to be unknown.
    Unknown,
    /// It may be found after this.
    Fetch(Fetch),
    /// It cannot be had before this time has passed.
    Unavailable(Duration),
}

/// An endpoint of the provider that a request leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Authorization,
    Token,
    EndSession,
    PushedAuthorization,
}

impl Service {
    fn configured(self, config: &ProviderConfig) -> Option<&str> {
        match self {
            Self::Authorization => config.authorization_endpoint.as_deref(),
            Self::Token => config.token_endpoint.as_deref(),
            Self::EndSession => config.end_session_endpoint.as_deref(),
            Self::PushedAuthorization => None,
        }
    }
}

pub(crate) struct Provider {
    config: ProviderConfig,
    metadata: Option<Source<Metadata>>,
    keys: Option<Source<KeySet>>,
    unknown_kids: UnknownKids,
}

impl Provider {
    /// `services`: the endpoints that will be asked for.
    pub fn new(config: &ProviderConfig, services: &[Service]) -> Self {
        let fetched = !matches!(config.keys, KeySource::Inline(_));
        let discovers_keys = matches!(config.keys, KeySource::Discovered);
        let discovers_endpoint = fetched && services.iter().any(|service| service.configured(config).is_none());
        Self {
            metadata: (discovers_keys || discovers_endpoint).then(Source::default),
            keys: matches!(config.keys, KeySource::Discovered | KeySource::Url(_)).then(Source::default),
            unknown_kids: UnknownKids::default(),
            config: config.clone(),
        }
    }

    /// The keys, where there are any at this moment.
    pub fn key_set(&self, now: Timestamp) -> Option<&KeySet> {
        match &self.config.keys {
            KeySource::Inline(keys) => Some(keys),
            _ => self.keys.as_ref()?.value(now, self.config.max_stale),
        }
    }

    /// An endpoint of the provider. `Unknown`: it has none.
    pub fn endpoint(&self, service: Service, now: Timestamp, mut asked: Asked) -> Lookup<String> {
        if let Some(endpoint) = service.configured(&self.config) {
            return Lookup::Found(endpoint.to_owned());
        }
        let Some(source) = &self.metadata else { return Lookup::Unknown };
        match source.value(now, self.config.max_stale) {
            Some(metadata) => metadata.endpoint(service).map_or(Lookup::Unknown, |url| Lookup::Found(url.to_owned())),
            None => self.fetch_or_give_up(Endpoint::Metadata, now, &mut asked),
        }
    }

    /// Whether every authorization response names its issuer (RFC 9207 section 3). Without metadata nobody has said so.
    pub fn names_issuer_in_responses(&self, now: Timestamp, mut asked: Asked) -> Lookup<bool> {
        let Some(source) = &self.metadata else { return Lookup::Found(false) };
        match source.value(now, self.config.max_stale) {
            Some(metadata) => Lookup::Found(metadata.names_issuer_in_responses),
            None => self.fetch_or_give_up(Endpoint::Metadata, now, &mut asked),
        }
    }

    /// The key for a token. The inner error is a key of that name that does not fit the algorithm.
    pub fn key(
        &mut self,
        algorithm: Algorithm,
        kid: Option<&str>,
        now: Timestamp,
        mut asked: Asked,
    ) -> Lookup<Result<Arc<Key>, ()>> {
        let Some(keys) = self.key_set(now) else {
            return self.fetch_or_give_up(Endpoint::Keys, now, &mut asked);
        };
        match (keys.select(algorithm, kid), kid) {
            (Some(selected), _) => Lookup::Found(selected),
            (None, Some(kid)) if self.keys.is_some() => self.refetch_for(kid, now, asked),
            (None, _) => Lookup::Unknown,
        }
    }

    fn refetch_for<T>(&mut self, kid: &str, now: Timestamp, asked: Asked) -> Lookup<T> {
        let Some(source) = &self.keys else { return Lookup::Unknown };
        if asked.keys {
            // A fetch that began for another purpose may be older than the key.
            if !source.is_failing() && self.unknown_kids.refetched_at == Some(source.attempted_at()) {
                self.unknown_kids.remember(kid, now);
            }
            return Lookup::Unknown;
        }
        let lifetime = self.config.unknown_kid_cooldown.saturating_mul(UNKNOWN_KID_COOLDOWNS).min(self.config.refresh);
        if self.unknown_kids.is_known(kid, now, lifetime)
            || self.unknown_kids.is_cooling_down(now, self.config.unknown_kid_cooldown)
        {
            return Lookup::Unknown;
        }
        match self.fetch(Endpoint::Keys, now) {
            Some(fetch) => Lookup::Fetch(Fetch { for_unknown_kid: true, ..fetch }),
            None => Lookup::Unknown,
        }
    }

    /// Something is missing: wait for it if a fetch makes sense now, and was not waited for already.
    fn fetch_or_give_up<T>(&self, endpoint: Endpoint, now: Timestamp, asked: &mut Asked) -> Lookup<T> {
        let next = self.next_attempt(endpoint);
        if *asked.of(endpoint) || next > now {
            return Lookup::Unavailable(next.since(now).max(Duration::from_secs(1)));
        }
        match self.fetch(endpoint, now) {
            Some(fetch) => Lookup::Fetch(fetch),
            // The keys' address comes with the metadata.
            None if endpoint == Endpoint::Keys => self.fetch_or_give_up(Endpoint::Metadata, now, asked),
            None => Lookup::Unavailable(Duration::from_secs(1)),
        }
    }

    fn next_attempt(&self, endpoint: Endpoint) -> Timestamp {
        let refresh = self.config.refresh;
        match endpoint {
            Endpoint::Metadata => self.metadata.as_ref().map(|source| source.next_attempt(refresh)),
            Endpoint::Keys => self.keys.as_ref().map(|source| source.next_attempt(refresh)),
            Endpoint::Token | Endpoint::PushedAuthorization => None,
        }
        .unwrap_or_default()
    }

    fn fetch(&self, endpoint: Endpoint, now: Timestamp) -> Option<Fetch> {
        let (url, max_bytes, newer_than) = match endpoint {
            Endpoint::Metadata => {
                let issuer = &self.config.issuer;
                let issuer = issuer.strip_suffix('/').unwrap_or(issuer);
                let url = format!("{issuer}/.well-known/openid-configuration");
                (url, MAX_METADATA_BYTES, self.metadata.as_ref()?.attempted_at())
            }
            Endpoint::Keys => {
                let url = match &self.config.keys {
                    KeySource::Url(url) => url.clone(),
                    _ => self.metadata.as_ref()?.value(now, self.config.max_stale)?.jwks_uri.clone(),
                };
                (url, MAX_KEY_SET_BYTES, self.keys.as_ref()?.attempted_at())
            }
            Endpoint::Token | Endpoint::PushedAuthorization => return None,
        };
        let timeout = self.config.timeout;
        Some(Fetch { endpoint, url, form: None, timeout, max_bytes, newer_than, for_unknown_kid: false })
    }

    /// What the background should fetch now.
    pub fn due(&mut self, now: Timestamp) -> Vec<Fetch> {
        self.follow_clock(now);
        let sources = [(Endpoint::Metadata, self.metadata.is_some()), (Endpoint::Keys, self.keys.is_some())];
        let due = sources.into_iter().filter(|(_, is_fetched)| *is_fetched).map(|(endpoint, _)| endpoint);
        due.filter(|endpoint| self.next_attempt(*endpoint) <= now)
            .filter_map(|endpoint| self.fetch(endpoint, now))
            .collect()
    }

    /// After the clock was set back, nothing lies in the future.
    pub fn follow_clock(&mut self, now: Timestamp) {
        if let Some(source) = &mut self.metadata {
            source.follow_clock(now);
        }
        if let Some(source) = &mut self.keys {
            source.follow_clock(now);
        }
        self.unknown_kids.follow_clock(now);
    }

    /// Takes a reply in. One that is not newer than what is known changes nothing.
    pub fn learn(&mut self, endpoint: Endpoint, reply: &Reply, now: Timestamp) -> Result<(), Fault> {
        self.follow_clock(now);
        let at = reply.at.min(now);
        self.unknown_kids.refetched(reply.unknown_kid_at.map(|at| at.min(now)));
        let body = reply.result.as_deref().map_err(|failure| Fault::Fetch(*failure));
        match endpoint {
            Endpoint::Metadata => {
                let Some(source) = &mut self.metadata else { return Ok(()) };
                source.take(at, || Metadata::parse(body?, &self.config.issuer))
            }
            Endpoint::Keys => {
                let Some(source) = &mut self.keys else { return Ok(()) };
                source.take(at, || parse_key_set(body?))
            }
            Endpoint::Token | Endpoint::PushedAuthorization => body.map(drop),
        }
    }
}

fn parse_key_set(body: &[u8]) -> Result<KeySet, Fault> {
    let document = parse_json(body).map_err(|_| Fault::Malformed("not strict JSON"))?;
    match KeySet::from_value(&document) {
        Ok((keys, _)) => Ok(keys),
        Err(crate::jose::KeySetError::NoUsableKey) => Err(Fault::Malformed("no usable key")),
        Err(_) => Err(Fault::Malformed("not a JSON Web Key Set")),
    }
}

/// Key IDs that a refetch did not bring, so that junk cannot drive downloads.
#[derive(Default)]
struct UnknownKids {
    known: VecDeque<(Box<str>, Timestamp)>,
    refetched_at: Option<Timestamp>,
}

impl UnknownKids {
    fn remember(&mut self, kid: &str, now: Timestamp) {
        if self.known.len() >= MAX_UNKNOWN_KIDS {
            self.known.pop_front();
        }
        self.known.push_back((kid.into(), now));
    }

    /// A kid is asked for once; later the background refresh brings it, if anything does.
    fn is_known(&mut self, kid: &str, now: Timestamp, lifetime: Duration) -> bool {
        while self.known.front().is_some_and(|(_, since)| since.plus(lifetime) <= now) {
            self.known.pop_front();
        }
        self.known.iter().any(|(known, _)| **known == *kid)
    }

    fn refetched(&mut self, at: Option<Timestamp>) {
        self.refetched_at = self.refetched_at.max(at);
    }

    fn is_cooling_down(&self, now: Timestamp, cooldown: Duration) -> bool {
        self.refetched_at.is_some_and(|at| now < at.plus(cooldown))
    }

    fn follow_clock(&mut self, now: Timestamp) {
        self.refetched_at = self.refetched_at.map(|at| at.min(now));
        for (_, since) in &mut self.known {
            *since = (*since).min(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_remembered_key_ids_is_bounded() {
        let (mut kids, now, lifetime) = (UnknownKids::default(), Timestamp::from_secs(1000), Duration::from_secs(300));
        for number in 0..=MAX_UNKNOWN_KIDS {
            kids.remember(&number.to_string(), now);
        }
        assert_eq!(kids.known.len(), MAX_UNKNOWN_KIDS);
        assert!(!kids.is_known("0", now, lifetime), "the oldest went");
        assert!(kids.is_known("1", now, lifetime));
        assert!(!kids.is_known("1", now.plus(lifetime), lifetime), "and all go in time");
        assert!(kids.known.is_empty());
    }

    #[test]
    fn a_clock_set_back_neither_prolongs_a_cooldown_nor_the_memory_of_a_key_id() {
        let (mut kids, now, minute) = (UnknownKids::default(), Timestamp::from_secs(1000), Duration::from_secs(60));
        kids.refetched(Some(Timestamp::from_secs(1_000_000)));
        kids.remember("junk", Timestamp::from_secs(1_000_000));
        kids.follow_clock(now);
        assert!(kids.is_cooling_down(now, minute));
        assert!(!kids.is_cooling_down(now.plus(minute), minute));
        assert!(kids.is_known("junk", now, minute));
        assert!(!kids.is_known("junk", now.plus(minute), minute));
    }

    #[test]
    fn an_error_code_is_what_an_endpoint_of_oauth_answers() {
        let fetch = |endpoint| Fetch {
            endpoint,
            url: "https://idp/".into(),
            form: None,
            timeout: Duration::from_secs(5),
            max_bytes: 100,
            newer_than: Timestamp::default(),
            for_unknown_kid: false,
        };
        let failure = |endpoint| {
            let body = br#"{"error":"invalid_grant"}"#.to_vec();
            Reply::from_http(&fetch(endpoint), Timestamp::default(), 400, body).result.unwrap_err()
        };
        assert_eq!(failure(Endpoint::Token), FetchFailure::OAuth("invalid_grant"));
        assert_eq!(failure(Endpoint::Keys), FetchFailure::Status(400));
    }

    #[test]
    fn metrics_tell_faults_apart() {
        let faults =
            [Fault::Fetch(FetchFailure::Status(500)), Fault::Malformed("not strict JSON"), Fault::IssuerMismatch];
        assert_eq!(faults.map(|fault| fault.name()), ["status_500", "malformed", "issuer_mismatch"]);
    }
}
