//! The gate: one request in, one decision out, with the host doing the I/O in between.

use std::fmt;
use std::sync::Arc;

use crate::answer::{Answerer, Attempts, Decision, RequestContext};
use crate::cache::TokenCache;
use crate::claims::{Expected, VerifiedIdToken};
use crate::config::Config;
use crate::cookie::{Found, find_token};
use crate::env::Env;
use crate::http::Request;
use crate::jose::{Algorithm, Jws, SignatureCheck, SignedClaims, VerificationKey};
use crate::provider::{Asked, Endpoint, Fault, Fetch, Lookup, Provider, Reply};
use crate::reason::Reason;
use crate::rules::{Demand, Demands};
use crate::time::Timestamp;

/// What happens next with a request.
#[derive(Debug)]
pub enum Step {
    /// It is decided.
    Done(Decision),
    /// The host fetches this, then resumes.
    Fetch(Fetch, Pending),
    /// The host checks this signature, if it can, then resumes.
    Verify(SignatureCheck, Pending),
}

/// What the host brings back.
#[derive(Debug)]
pub enum Outcome {
    /// The fetch ended, well or badly.
    Fetched(Reply),
    /// The host's own crypto says whether the signature is valid.
    Verified(bool),
    /// The host cannot check this signature; the gate does it in software.
    Unsupported,
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

/// What is known of a request that some rule applies to.
struct Inquiry {
    context: RequestContext,
    demands: Demands,
    /// When the request came.
    since: Timestamp,
    asked: Asked,
}

/// What a request on hold waits for.
enum Stage {
    /// A document that may bring the key for this token.
    Key(Box<Jws>, Endpoint),
    /// The verdict on this token's signature by this key.
    Signature(Box<Jws>, VerificationKey),
    /// The provider's authorization endpoint, for a step-up with this reason.
    StepUp(Reason),
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
        let provider = Provider::new(&config.provider, config.asks_provider);
        Self { provider, cache: TokenCache::new(), config }
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Decides a request, or says what that needs.
    pub fn begin(&mut self, request: &Request<'_>, env: Env<'_>) -> Step {
        let readings = self.config.rules.readings(request.path);
        let demands = self.config.rules.matching(request.authority, request.method, &readings);
        if demands.enforced.is_none() && demands.reported.is_none() {
            return Step::Done(Decision::not_protected());
        }
        let found = match readings.defect {
            Some(defect) => Err(Reason::PathRejected(defect)),
            None => find_token(request, &self.config.token.cookie, self.config.token.header.as_deref())
                .and_then(|found| found.ok_or(Reason::TokenMissing)),
        };
        let keys = self.provider.key_set(env.now);
        let cached = found.as_ref().ok().and_then(|found| self.cache.get(&found.token, keys, env.now));
        if let Some(verified) = &cached
            && let Ok(decision) = self.judge(&demands, Ok(verified), &Attempts::of(request), env.now)
        {
            return Step::Done(decision);
        }
        let context = RequestContext::of(request, found.as_ref().is_ok_and(|found| found.in_header));
        let inquiry = Inquiry { context, demands, since: env.now, asked: Asked::default() };
        let token = match (cached, found) {
            (Some(verified), _) => return self.conclude(inquiry, Ok(verified), env),
            (None, Err(reason)) => return self.conclude(inquiry, Err(reason), env),
            (None, Ok(Found { token, .. })) => token,
        };
        match Jws::parse(&token, self.config.token.max_bytes, &self.config.token.algorithms) {
            Ok(jws) => self.find_key(inquiry, Box::new(jws), env),
            Err(reason) => self.conclude(inquiry, Err(reason), env),
        }
    }

    /// Goes on with a request on hold. An outcome of another kind than the step asked for counts as the worst one.
    pub fn resume(&mut self, pending: Pending, outcome: Outcome, env: Env<'_>) -> Step {
        let Pending { mut inquiry, stage } = pending;
        match stage {
            Stage::Key(jws, endpoint) => {
                self.take_in(&mut inquiry, endpoint, &outcome, env.now);
                self.find_key(inquiry, jws, env)
            }
            Stage::StepUp(reason) => {
                self.take_in(&mut inquiry, Endpoint::Metadata, &outcome, env.now);
                self.conclude(inquiry, Err(reason), env)
            }
            Stage::Signature(jws, key) => {
                let token: Box<str> = jws.token().into();
                let claims = match outcome {
                    Outcome::Verified(valid) => jws.verify_by_host(valid),
                    Outcome::Unsupported => jws.verify_in_software(&key),
                    Outcome::Fetched(_) => Err(Reason::SignatureInvalid),
                };
                let verified = self.accept(&token, claims, key);
                self.conclude(inquiry, verified, env)
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
        self.provider.learn(endpoint, reply, now)
    }

    fn find_key(&mut self, inquiry: Inquiry, jws: Box<Jws>, env: Env<'_>) -> Step {
        if jws.algorithm() == Algorithm::Hs256 {
            return match self.config.client.secret.clone() {
                Some(secret) => Self::verify(inquiry, jws, VerificationKey::ClientSecret(secret)),
                None => self.conclude(inquiry, Err(Reason::KeyUnknown), env),
            };
        }
        self.provider.follow_clock(env.now);
        let unusable = match self.provider.key(jws.algorithm(), jws.kid(), env.now, inquiry.asked) {
            Lookup::Found(Ok(key)) => return Self::verify(inquiry, jws, VerificationKey::Public(key)),
            // A rule that only reports never holds a request.
            Lookup::Fetch(fetch) if inquiry.demands.enforced.is_some() => {
                let stage = Stage::Key(jws, fetch.endpoint);
                return Step::Fetch(fetch, Pending { inquiry, stage });
            }
            Lookup::Found(Err(())) => Reason::AlgorithmNotAllowed("its key is of another type or use"),
            Lookup::Fetch(fetch) if fetch.for_unknown_kid => Reason::KeyUnknown,
            Lookup::Fetch(fetch) => Reason::KeysUnavailable { retry_after: fetch.timeout },
            Lookup::Unknown => Reason::KeyUnknown,
            Lookup::Unavailable(retry_after) => Reason::KeysUnavailable { retry_after },
        };
        self.conclude(inquiry, Err(unusable), env)
    }

    fn verify(inquiry: Inquiry, jws: Box<Jws>, key: VerificationKey) -> Step {
        let check = jws.signature_check(&key);
        Step::Verify(check, Pending { inquiry, stage: Stage::Signature(jws, key) })
    }

    fn accept(
        &mut self,
        token: &str,
        claims: Result<SignedClaims, Reason>,
        key: VerificationKey,
    ) -> Result<Arc<VerifiedIdToken>, Reason> {
        let client = &self.config.client;
        let issuer = &self.config.provider.issuer;
        let expected = Expected { issuer, client_id: &client.id, audiences: &client.audiences };
        let verified = Arc::new(VerifiedIdToken::accept(claims?, expected)?);
        self.cache.insert(token, verified.clone(), key);
        Ok(verified)
    }

    /// Everything is known about the token; what is left is what the rules ask for, and how to answer.
    fn conclude(&mut self, inquiry: Inquiry, token: Result<Arc<VerifiedIdToken>, Reason>, env: Env<'_>) -> Step {
        match self.judge(&inquiry.demands, token.as_deref(), &inquiry.context.attempts, env.now) {
            Ok(decision) => Step::Done(decision),
            Err((demand, reason)) => match self.step_up(&inquiry, &demand, reason.clone(), env) {
                Ok(decision) => Step::Done(decision),
                Err(fetch) => Step::Fetch(fetch, Pending { inquiry, stage: Stage::StepUp(reason) }),
            },
        }
    }

    /// The decision to forward, or what is asked for and why it is not met.
    fn judge(
        &self,
        demands: &Demands,
        token: Result<&VerifiedIdToken, &Reason>,
        attempts: &Attempts,
        now: Timestamp,
    ) -> Result<Decision, (Arc<Demand>, Reason)> {
        let evaluate = |demand: &Demand| {
            let token = token.map_err(Clone::clone)?;
            token.check_times(now, self.config.token.leeway)?;
            demand.requirement.evaluate(token, now)
        };
        if let Some(demand) = &demands.enforced {
            evaluate(demand).map_err(|reason| (demand.clone(), reason))?;
        }
        let unmet = demands.reported.as_ref().and_then(|demand| Some((demand, evaluate(demand).err()?)));
        Ok(match (unmet, demands.enforced.as_ref().or(demands.reported.as_ref())) {
            (Some((demand, reason)), _) => Decision::reported(demand, reason, &self.config.token),
            (None, Some(demand)) => Decision::satisfied(demand, &self.config, attempts),
            (None, None) => Decision::not_protected(),
        })
    }

    /// The answer to a request that is not satisfied, or the fetch that it needs.
    fn step_up(&self, inquiry: &Inquiry, demand: &Demand, reason: Reason, env: Env<'_>) -> Result<Decision, Fetch> {
        let answerer = Answerer { config: &self.config, context: &inquiry.context, demand, env };
        if !answerer.leads_to_provider(&reason) {
            return Ok(answerer.answer(reason, ""));
        }
        let retry_after = match self.provider.authorization_endpoint(env.now, inquiry.asked) {
            Lookup::Found(endpoint) => return Ok(answerer.answer(reason, &endpoint)),
            Lookup::Fetch(fetch) => return Err(fetch),
            Lookup::Unavailable(retry_after) => retry_after,
            Lookup::Unknown => self.config.provider.timeout,
        };
        Ok(answerer.answer(Reason::KeysUnavailable { retry_after }, ""))
    }
}
