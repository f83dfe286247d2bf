//! The gate: one request in, one decision out, with the host doing the I/O in between.

mod login;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::{Answerer, Attempts, Decision, Failure, RequestContext, vary};
use crate::cache::TokenCache;
use crate::claims::{Expected, VerifiedIdToken};
use crate::config::{CallbackConfig, Config, TokenConfig};
use crate::cookie::{Found, OneCookie, find_token, own_cookies};
use crate::encoding::base64url_encode;
use crate::env::Env;
use crate::flow::{OwnCookieNames, Start, id_token, origin_of, pushed_request_uri, route};
use crate::forward;
use crate::http::{Request, RequestEdits};
use crate::jose::{Algorithm, Jws, Key, SignatureCheck, SignedClaims, VerificationKey};
use crate::oidc::{AuthorizationRequest, state_for_app};
use crate::provider::{Asked, Endpoint, Fault, Fetch, Lookup, Provider, Reply, Service};
use crate::reason::Reason;
use crate::rules::{Demand, Demands};
use crate::seal::{Purpose as SealPurpose, sealed_len};
use crate::time::Timestamp;
use login::{Departure, Prepared, Returned};

/// What happens next with a request.
#[derive(Debug)]
pub enum Step {
    /// It is decided.
    Done(Decision),
    /// The host fetches this, then resumes.
    Fetch(Fetch, Pending),
    /// The host checks this signature, if it can, then resumes.
    Verify(SignatureCheck, Pending),
    /// The host collects the request's body, if it can, then resumes.
    Body(BodyRequest, Pending),
}

/// A request's body that the gate has to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyRequest {
    /// How long it may be.
    pub max_bytes: usize,
    /// How long it may take.
    pub timeout: Duration,
}

/// What the host brings back.
pub enum Outcome {
    /// The fetch ended, well or badly.
    Fetched(Reply),
    /// The host's own crypto says whether the signature is valid.
    Verified(bool),
    /// The whole body.
    Body(Vec<u8>),
    /// The host cannot do what the step asks for: a signature is then checked in software, and whatever else it is was waited
    /// for in vain.
    Unsupported,
}

impl fmt::Debug for Outcome {
    /// Without a body, which may carry a code.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetched(reply) => f.debug_tuple("Fetched").field(reply).finish(),
            Self::Verified(valid) => f.debug_tuple("Verified").field(valid).finish(),
            Self::Body(body) => f.debug_tuple("Body").field(&body.len()).finish(),
            Self::Unsupported => f.write_str("Unsupported"),
        }
    }
}

/// A request on hold. Owned, and used once.
pub struct Pending {
    inquiry: Inquiry,
    stage: Stage,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// What is known of a request whose token is looked at.
struct Inquiry {
    context: RequestContext,
    /// When the request came.
    since: Timestamp,
    asked: Asked,
    /// The origin to come back to, where the gate completes the login and its cookie gets there.
    origin: Option<String>,
    /// The token that the browser has, verified or not.
    token: Option<Box<str>>,
    /// Whether it has two different ones.
    ambiguous: bool,
}

/// What a token is looked at for.
enum Purpose {
    /// To let the request through, and to tell the app who asks.
    Access(Demands, RequestEdits),
    /// To start a login by a link, unless it is not needed any more.
    Start(Box<Start>),
    /// To know who is logged in when a login ends.
    Return(Box<Returned>),
    /// To log in: it is the token that the provider has issued.
    Login(Box<Returned>),
}

/// What a request on hold waits for.
enum Stage {
    /// A document that may bring the key for this token.
    Key(Purpose, Box<Jws>, Endpoint),
    /// The verdict on this token's signature by this key.
    Signature(Purpose, Box<Jws>, VerificationKey),
    /// The provider's authorization endpoint, for a step-up to the app's own callback.
    StepUp(Purpose, Result<Arc<VerifiedIdToken>, Reason>),
    /// The provider's authorization endpoint, for a login that the gate completes.
    Departure(Box<Departure>),
    /// The answer to a pushed authorization request.
    Pushed(Box<Departure>, Prepared),
    /// The body of a form_post response.
    Form,
    /// The provider's metadata, at the end of a login.
    Response(Box<Returned>),
    /// The answer of the token endpoint.
    Exchange(Box<Returned>),
    /// The provider's end_session_endpoint.
    Logout,
}

/// The gate. One per configuration and thread; it holds keys and verified tokens.
pub struct Gate {
    config: Config,
    provider: Provider,
    cache: TokenCache,
}

impl Gate {
    /// A gate that knows no keys yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let callback = config.callback.as_ref();
        let services = [
            (Service::Authorization, config.asks_provider),
            (Service::Token, callback.is_some()),
            (Service::PushedAuthorization, callback.is_some_and(|callback| callback.pushed_authorization)),
            (Service::EndSession, callback.is_some_and(|callback| callback.logout_path.is_some())),
        ];
        let asked_for: Vec<Service> =
            services.into_iter().filter(|(_, asked_for)| *asked_for).map(|(service, _)| service).collect();
        Self { provider: Provider::new(&config.provider, &asked_for), cache: TokenCache::new(), config }
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Decides a request, or says what that needs.
    pub fn begin(&mut self, request: &Request<'_>, env: Env<'_>) -> Step {
        if let Some(route) = self.config.callback.as_ref().and_then(|callback| route(callback, request)) {
            return self.begin_own(route, request, env);
        }
        let is_own_cookie = |name: &str| {
            let is_attempts = name == Attempts::cookie(self.config.client.is_secure());
            is_attempts || self.own_cookie_names().is_some_and(|names| names.state_of(name).is_some())
        };
        let edits = match forward::scrub(request, &self.config.forward, &self.config.token, &is_own_cookie) {
            Ok(edits) => edits,
            Err(reason) => {
                let attempts = Attempts::of(request, self.config.client.is_secure());
                let context = RequestContext::of(request, false, attempts);
                let answerer = Answerer { config: &self.config, context: &context, rules: &[], env };
                return Step::Done(answerer.failure(Failure::of(reason)));
            }
        };
        let readings = self.config.rules.readings(request.path);
        let demands = self.config.rules.matching(request.authority, request.method, &readings);
        let is_protected = demands.enforced.is_some() || demands.reported.is_some();
        if !is_protected && self.config.forward.headers.is_empty() {
            return Step::Done(Decision::not_protected(edits));
        }
        let (found, attempts) = self.find_token(request);
        let found = match readings.defect.filter(|_| is_protected) {
            Some(defect) => Err(Reason::PathRejected(defect)),
            None => found.and_then(|found| found.ok_or(Reason::TokenMissing)),
        };
        let keys = self.provider.key_set(env.now);
        let cached = found.as_ref().ok().and_then(|found| self.cache.get(&found.token, keys, env.now));
        if let Some(verified) = &cached
            && let Ok(decision) = self.judge(&demands, Ok(verified), &attempts, env.now)
        {
            return Step::Done(self.forwarded(decision, edits, Some(verified), env.now));
        }
        let mut inquiry = self.inquire(request, found.as_ref().is_ok_and(|found| found.in_header), attempts, env);
        let purpose = Purpose::Access(demands, edits);
        match found {
            Ok(found) => inquiry.token = Some(found.token.into()),
            Err(reason) => return self.conclude(inquiry, purpose, Err(reason), env),
        }
        match cached {
            Some(verified) => self.conclude(inquiry, purpose, Ok(verified), env),
            None => self.examine(inquiry, purpose, env),
        }
    }

    /// What is known of a request so far.
    fn inquire(&self, request: &Request<'_>, token_in_header: bool, attempts: Attempts, env: Env<'_>) -> Inquiry {
        let mut context = RequestContext::of(request, token_in_header, attempts);
        if let Some(names) = self.own_cookie_names() {
            context.cookies = own_cookies(request, names.token_cookie, &|name| names.state_of(name));
        }
        let origin = self.config.callback.as_ref().and_then(|callback| origin_of(callback, request.authority));
        Inquiry { context, since: env.now, asked: Asked::default(), origin, token: None, ambiguous: false }
    }

    /// What answers to a request are made from. The rules are those that ask.
    fn answerer<'a>(&'a self, inquiry: &'a Inquiry, rules: &'a [Arc<str>], env: Env<'a>) -> Answerer<'a> {
        Answerer { config: &self.config, context: &inquiry.context, rules, env }
    }

    fn own_cookie_names(&self) -> Option<OwnCookieNames<'_>> {
        let callback = self.config.callback.as_ref()?;
        Some(OwnCookieNames { callback, token_cookie: &self.config.token.cookie })
    }

    /// The token of a request, a sealed one opened, and the count of attempts that is beside it.
    pub(crate) fn find_token(&self, request: &Request<'_>) -> (Result<Option<Found>, Reason>, Attempts) {
        let TokenConfig { cookie, header, max_bytes, .. } = &self.config.token;
        let sealing = self.config.callback.as_ref().filter(|callback| callback.seal_token);
        let open = |value: String| {
            let Some(CallbackConfig { keys, .. }) = sealing else { return Ok(value) };
            if value.len() > sealed_len(*max_bytes) {
                return Err(Reason::TokenMalformed("longer than `token.max_bytes`"));
            }
            let opened = keys.open(SealPurpose::IdToken(cookie), &value);
            let text = opened.and_then(|token| String::from_utf8(token).ok());
            text.ok_or(Reason::TokenMalformed("its cookie was not sealed with a key of this gate"))
        };
        let mut attempts = OneCookie::named(Attempts::cookie(self.config.client.is_secure()));
        let found =
            find_token(request, cookie, header.as_deref(), &open, &mut |name, value| attempts.look(name, value));
        (found, Attempts::from_value(attempts.value()))
    }

    /// Looks at the token that the browser has, or has not.
    fn look_at(&mut self, inquiry: Inquiry, purpose: Purpose, env: Env<'_>) -> Step {
        let Some(token) = &inquiry.token else {
            return self.conclude(inquiry, purpose, Err(Reason::TokenMissing), env);
        };
        let keys = self.provider.key_set(env.now);
        if let Some(verified) = self.cache.get(token, keys, env.now) {
            return self.conclude(inquiry, purpose, Ok(verified), env);
        }
        self.examine(inquiry, purpose, env)
    }

    /// Looks at a token that is not in the cache.
    fn examine(&mut self, inquiry: Inquiry, purpose: Purpose, env: Env<'_>) -> Step {
        let token = inquiry.token.as_deref().unwrap_or_default();
        match Jws::parse(token, self.config.token.max_bytes, &self.config.token.algorithms) {
            Ok(jws) => self.find_key(inquiry, purpose, Box::new(jws), env),
            Err(reason) => self.conclude(inquiry, purpose, Err(reason), env),
        }
    }

    /// Goes on with a request on hold. An outcome of another kind than the step asked for counts as the worst one.
    pub fn resume(&mut self, pending: Pending, outcome: Outcome, env: Env<'_>) -> Step {
        let Pending { mut inquiry, stage } = pending;
        match stage {
            Stage::Key(purpose, jws, endpoint) => {
                self.take_in(&mut inquiry, endpoint, &outcome, env.now);
                self.find_key(inquiry, purpose, jws, env)
            }
            Stage::StepUp(purpose, token) => {
                self.take_in(&mut inquiry, Endpoint::Metadata, &outcome, env.now);
                self.conclude(inquiry, purpose, token, env)
            }
            Stage::Departure(departure) => {
                self.take_in(&mut inquiry, Endpoint::Metadata, &outcome, env.now);
                self.depart(inquiry, departure, env)
            }
            Stage::Pushed(departure, prepared) => self.pushed(&inquiry, *departure, prepared, &outcome, env),
            Stage::Form => match outcome {
                Outcome::Body(form) => self.receive(inquiry, &form, true, env),
                _ => self.fail_login(&inquiry, Reason::CallbackMalformed("its form did not come"), None, env),
            },
            Stage::Response(returned) => {
                self.take_in(&mut inquiry, Endpoint::Metadata, &outcome, env.now);
                self.check_response(inquiry, returned, env)
            }
            Stage::Exchange(returned) => self.exchanged(inquiry, returned, outcome, env),
            Stage::Logout => {
                self.take_in(&mut inquiry, Endpoint::Metadata, &outcome, env.now);
                self.log_out(inquiry, env)
            }
            Stage::Signature(purpose, jws, key) => {
                let token: Box<str> = jws.token().into();
                let claims = match (outcome, &key) {
                    (Outcome::Verified(valid), VerificationKey::Public(_)) => jws.verify_by_host(valid),
                    (Outcome::Unsupported, _) => jws.verify_in_software(&key),
                    // No host gets to see a client secret, so none can have an opinion.
                    (Outcome::Verified(_), VerificationKey::ClientSecret(_))
                    | (Outcome::Fetched(_) | Outcome::Body(_), _) => Err(Reason::SignatureInvalid),
                };
                let verified = self.accept(token, claims, key);
                self.conclude(inquiry, purpose, verified, env)
            }
        }
    }

    /// Takes in what a request waited for. Whether it was of use shows when the request goes on. A reply that is older than
    /// the request is news to this gate, but it is not what the request asked for.
    fn take_in(&mut self, inquiry: &mut Inquiry, endpoint: Endpoint, outcome: &Outcome, now: Timestamp) {
        let Outcome::Fetched(reply) = outcome else { return inquiry.asked.note(endpoint) };
        if reply.at >= inquiry.since {
            inquiry.asked.note(endpoint);
        }
        let _ = self.learn(endpoint, reply, now);
    }

    /// What should be fetched now in the background, so that requests need not wait.
    pub fn due(&mut self, now: Timestamp) -> Vec<Fetch> {
        self.provider.due(now)
    }

    /// Takes in what a fetch brought. A reply that is not newer than what is known changes nothing.
    ///
    /// # Errors
    /// Why the reply is of no use; what was known before stays.
    pub fn learn(&mut self, endpoint: Endpoint, reply: &Reply, now: Timestamp) -> Result<(), Fault> {
        self.provider.learn(endpoint, reply, now)?;
        match endpoint {
            Endpoint::Metadata | Endpoint::Keys => Ok(()),
            Endpoint::Token => id_token(reply).map(drop).map_err(|_| Fault::Malformed("no ID Token")),
            Endpoint::PushedAuthorization => {
                pushed_request_uri(reply).map(drop).ok_or(Fault::Malformed("no `request_uri`"))
            }
        }
    }

    fn find_key(&mut self, inquiry: Inquiry, purpose: Purpose, jws: Box<Jws>, env: Env<'_>) -> Step {
        if jws.algorithm() == Algorithm::Hs256 {
            return match self.config.client.secret.clone() {
                Some(secret) => Self::verify(inquiry, purpose, jws, VerificationKey::ClientSecret(secret)),
                None => self.conclude(inquiry, purpose, Err(Reason::KeyUnknown), env),
            };
        }
        self.provider.follow_clock(env.now);
        match self.provider.key(jws.algorithm(), jws.kid(), env.now, inquiry.asked) {
            Lookup::Found(Ok(key)) => Self::verify(inquiry, purpose, jws, VerificationKey::Public(key)),
            Lookup::Fetch(fetch) if purpose.may_wait() => {
                let stage = Stage::Key(purpose, jws, fetch.endpoint);
                Step::Fetch(fetch, Pending { inquiry, stage })
            }
            other => self.conclude(inquiry, purpose, Err(no_key(&other)), env),
        }
    }

    /// What this gate makes of a token by the keys that it knows now, apart from its times and of what a rule asks for.
    /// `verdict`: somebody else's on the signature, which is checked in software otherwise. Nothing remembers the outcome.
    ///
    /// # Errors
    /// What is wrong with the token.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn inspect(
        &mut self,
        token: &str,
        verdict: Option<bool>,
        now: Timestamp,
    ) -> Result<VerifiedIdToken, Reason> {
        let client = &self.config.client;
        let jws = Jws::parse(token, self.config.token.max_bytes, &self.config.token.algorithms)?;
        let key = if jws.algorithm() == Algorithm::Hs256 {
            VerificationKey::ClientSecret(client.secret.clone().ok_or(Reason::KeyUnknown)?)
        } else {
            match self.provider.key(jws.algorithm(), jws.kid(), now, Asked::default()) {
                Lookup::Found(Ok(key)) => VerificationKey::Public(key),
                other => return Err(no_key(&other)),
            }
        };
        let claims = match verdict {
            Some(valid) => jws.verify_by_host(valid),
            None => jws.verify_in_software(&key),
        };
        VerifiedIdToken::accept(claims?, self.expected())
    }

    fn expected(&self) -> Expected<'_> {
        let client = &self.config.client;
        Expected { issuer: &self.config.provider.issuer, client_id: &client.id, audiences: &client.audiences }
    }

    fn verify(inquiry: Inquiry, purpose: Purpose, jws: Box<Jws>, key: VerificationKey) -> Step {
        let check = jws.signature_check(&key);
        Step::Verify(check, Pending { inquiry, stage: Stage::Signature(purpose, jws, key) })
    }

    fn accept(
        &mut self,
        token: Box<str>,
        claims: Result<SignedClaims, Reason>,
        key: VerificationKey,
    ) -> Result<Arc<VerifiedIdToken>, Reason> {
        let verified = Arc::new(VerifiedIdToken::accept(claims?, self.expected())?);
        self.cache.insert(token, verified.clone(), key);
        Ok(verified)
    }

    /// Everything is known about the token; what is left is what it is looked at for.
    fn conclude(
        &mut self,
        inquiry: Inquiry,
        purpose: Purpose,
        token: Result<Arc<VerifiedIdToken>, Reason>,
        env: Env<'_>,
    ) -> Step {
        match purpose {
            Purpose::Access(demands, edits) => {
                match self.judge(&demands, token.as_deref(), &inquiry.context.attempts, env.now) {
                    Ok(decision) => Step::Done(self.forwarded(decision, edits, token.as_deref().ok(), env.now)),
                    Err((demand, reason)) => {
                        self.step_up(inquiry, Purpose::Access(demands, edits), (&demand, reason), token, env)
                    }
                }
            }
            Purpose::Start(start) => self.start(inquiry, *start, token, env),
            Purpose::Return(returned) => self.exchange(inquiry, returned, token, env),
            Purpose::Login(returned) => self.arrive(inquiry, &returned, token, env),
        }
    }

    /// The request as the app is to see it.
    fn forwarded(
        &self,
        mut decision: Decision,
        mut edits: RequestEdits,
        token: Option<&VerifiedIdToken>,
        now: Timestamp,
    ) -> Decision {
        let leeway = self.config.token.leeway;
        if let Some(token) = token.filter(|token| token.check_times(now, leeway).is_ok()) {
            forward::identify(&mut edits, &self.config.forward, token);
        }
        let told = !self.config.forward.headers.is_empty();
        if told && decision.response_headers.iter().all(|(name, _)| *name != "vary") {
            decision.response_headers.push(vary(&self.config.token));
        }
        decision.request = edits;
        decision
    }

    /// The decision to forward, or what is asked for and why it is not met.
    fn judge(
        &self,
        demands: &Demands,
        token: Result<&VerifiedIdToken, &Reason>,
        attempts: &Attempts,
        now: Timestamp,
    ) -> Result<Decision, (Arc<Demand>, Reason)> {
        let evaluate = |demand: &Demand| self.evaluate(demand, token, now);
        if let Some(demand) = &demands.enforced {
            evaluate(demand).map_err(|reason| (demand.clone(), reason))?;
        }
        let unmet = demands.reported.as_ref().and_then(|demand| Some((demand, evaluate(demand).err()?)));
        Ok(match (unmet, demands.enforced.as_ref().or(demands.reported.as_ref())) {
            (Some((demand, reason)), _) => Decision::reported(demand, reason, &self.config.token),
            (None, Some(demand)) => Decision::satisfied(demand, &self.config, attempts),
            (None, None) => Decision::not_protected(RequestEdits::default()),
        })
    }

    /// Whether a token proves what is asked for at this moment.
    fn evaluate(
        &self,
        demand: &Demand,
        token: Result<&VerifiedIdToken, &Reason>,
        now: Timestamp,
    ) -> Result<(), Reason> {
        let token = token.map_err(Clone::clone)?;
        token.check_times(now, self.config.token.leeway)?;
        demand.requirement.evaluate(token, now)
    }

    /// The answer to a request that is not satisfied, or the fetch that it needs.
    fn step_up(
        &self,
        inquiry: Inquiry,
        purpose: Purpose,
        (demand, reason): (&Demand, Reason),
        token: Result<Arc<VerifiedIdToken>, Reason>,
        env: Env<'_>,
    ) -> Step {
        let answerer = self.answerer(&inquiry, &demand.rules, env);
        if matches!(reason, Reason::PathRejected(_) | Reason::KeysUnavailable { .. }) {
            return Step::Done(answerer.failure(Failure::of(reason)));
        }
        let max_age = demand.requirement.max_age;
        let location = match (&demand.step_up.login, &self.config.callback) {
            (Some(login), _) => login.url(&demand.step_up, max_age, inquiry.context.return_to()),
            (None, Some(callback)) => {
                return self.log_in(inquiry, callback, (demand, reason), token.ok(), env);
            }
            (None, None) => match self.provider.endpoint(Service::Authorization, env.now, inquiry.asked) {
                Lookup::Found(endpoint) => self.url_for_app(&endpoint, demand, &inquiry.context, env),
                Lookup::Fetch(fetch) => {
                    return Step::Fetch(fetch, Pending { inquiry, stage: Stage::StepUp(purpose, token) });
                }
                Lookup::Unavailable(retry_after) => {
                    return Step::Done(answerer.failure(Failure::of(Reason::KeysUnavailable { retry_after })));
                }
                Lookup::Unknown => {
                    let retry_after = self.config.provider.timeout;
                    return Step::Done(answerer.failure(Failure::of(Reason::KeysUnavailable { retry_after })));
                }
            },
        };
        if answerer.challenges(demand) {
            return Step::Done(answerer.challenge(demand, reason, Some(&location)));
        }
        let attempts = inquiry.context.attempts_before(&demand.rules, false, env.now);
        if attempts >= demand.step_up.max_attempts {
            let failure = Failure { try_again: Some(inquiry.context.return_to()), ..Failure::of(reason) };
            return Step::Done(answerer.give_up(demand, token.as_deref().ok(), attempts, failure));
        }
        let counted = answerer.counted(demand, attempts + 1);
        Step::Done(Decision::redirect(reason, &demand.rules, location, vec![counted]))
    }

    /// The authorize URL whose answer goes to the app.
    fn url_for_app(&self, endpoint: &str, demand: &Demand, context: &RequestContext, env: Env<'_>) -> String {
        let entropy = (env.entropy)();
        let (for_state, for_nonce) = entropy.split_at(16);
        let request = AuthorizationRequest {
            client_id: &self.config.client.id,
            redirect_uri: &self.config.client.redirect_uri,
            step_up: &demand.step_up,
            max_age: demand.requirement.max_age,
            state: &state_for_app(for_state, context.return_path()),
            nonce: &base64url_encode(for_nonce),
            further: Vec::new(),
        };
        request.url(endpoint)
    }
}

/// Why there is no key to verify a token with, where nobody waits for one.
fn no_key(lookup: &Lookup<Result<Arc<Key>, ()>>) -> Reason {
    match lookup {
        Lookup::Found(_) => Reason::AlgorithmNotAllowed("its key is of another type or use"),
        Lookup::Fetch(fetch) if !fetch.for_unknown_kid => Reason::KeysUnavailable { retry_after: fetch.timeout },
        Lookup::Fetch(_) | Lookup::Unknown => Reason::KeyUnknown,
        Lookup::Unavailable(retry_after) => Reason::KeysUnavailable { retry_after: *retry_after },
    }
}

impl Purpose {
    /// Whether a request waits for keys. A rule that only reports never holds one.
    const fn may_wait(&self) -> bool {
        match self {
            Self::Access(demands, _) => demands.enforced.is_some(),
            Self::Start(_) | Self::Return(_) | Self::Login(_) => true,
        }
    }
}
