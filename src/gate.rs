//! The gate: one request in, one decision out, with the host doing the I/O in between.

use std::fmt;
use std::sync::Arc;

use crate::answer::{Answerer, Asked as AskedFor, Decision, RequestContext};
use crate::cache::TokenCache;
use crate::claims::{Expected, VerifiedIdToken};
use crate::config::Config;
use crate::cookie::{Found, find_token};
use crate::env::Env;
use crate::http::Request;
use crate::jose::{Algorithm, Jws, Key, SignatureCheck, SignedClaims};
use crate::provider::{Asked, Endpoint, Fault, Fetch, Lookup, Provider, Reply};
use crate::reason::Reason;
use crate::rules::Matched;
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
    context: RequestContext,
    enforced: Option<AskedFor>,
    reported: Option<AskedFor>,
    asked: Asked,
    stage: Stage,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

enum Stage {
    /// A key is needed for this token.
    Key(Box<Jws>, Endpoint),
    /// The signature is being checked.
    Signature(Box<Jws>, Arc<Key>),
    /// A step-up for this reason needs the provider's authorization endpoint.
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
        let matched = self.config.rules.matching(request.authority, request.method, &readings);
        if matched.enforced.is_empty() && matched.reported.is_empty() {
            return Step::Done(Decision::forward(Reason::NotProtected));
        }
        let Matched { enforced, reported } = matched;
        let (enforced, reported) = (AskedFor::united(&enforced), AskedFor::united(&reported));
        let token = match readings.defect {
            Some(defect) => Err(Reason::PathRejected(defect)),
            None => find_token(request, &self.config.token.cookie, self.config.token.header.as_deref()),
        };
        let in_header = matches!(&token, Ok(Some(found)) if found.in_header);
        let context = RequestContext::of(request, in_header, self.config.token.header.is_some());
        let pending = |stage| Pending { context, enforced, reported, asked: Asked::default(), stage };
        match token {
            Err(reason) => self.conclude(pending(Stage::StepUp(reason.clone())), Err(reason), env),
            Ok(None) => {
                let reason = Reason::TokenMissing;
                self.conclude(pending(Stage::StepUp(reason.clone())), Err(reason), env)
            }
            Ok(Some(Found { token, .. })) => {
                if let Some(verified) = self.cache.get(&token, env.now) {
                    return self.conclude(pending(Stage::StepUp(Reason::Satisfied)), Ok(verified), env);
                }
                match Jws::parse(&token, self.config.token.max_bytes, &self.config.token.algorithms) {
                    Ok(jws) => self.find_key(pending(Stage::StepUp(Reason::Satisfied)), Box::new(jws), env),
                    Err(reason) => self.conclude(pending(Stage::StepUp(reason.clone())), Err(reason), env),
                }
            }
        }
    }

    /// Goes on with a request on hold. An outcome of another kind than the step asked for counts as the worst one.
    pub fn resume(&mut self, pending: Pending, outcome: Outcome, env: Env<'_>) -> Step {
        let Pending { context, enforced, reported, mut asked, stage } = pending;
        let endpoint = match &stage {
            Stage::Key(_, endpoint) => Some(*endpoint),
            Stage::StepUp(_) => Some(Endpoint::Metadata),
            Stage::Signature(..) => None,
        };
        if let Some(endpoint) = endpoint {
            asked.note(endpoint);
            if let Outcome::Fetched(reply) = &outcome {
                // A fault leaves things as they were, and they are looked at below.
                let _ = self.learn(endpoint, reply, env.now);
            }
        }
        let rest = |stage| Pending { context, enforced, reported, asked, stage };
        match stage {
            Stage::StepUp(reason) => self.conclude(rest(Stage::StepUp(reason.clone())), Err(reason), env),
            Stage::Key(jws, _) => self.find_key(rest(Stage::StepUp(Reason::Satisfied)), jws, env),
            Stage::Signature(jws, key) => {
                let token: Box<str> = jws.token().into();
                let claims = match outcome {
                    Outcome::Verified(valid) => jws.verify_by_host(valid),
                    Outcome::Unsupported => jws.verify_in_software(&key),
                    Outcome::Fetched(_) => Err(Reason::SignatureInvalid),
                };
                let verified = self.accept(&token, claims, Some(key));
                self.conclude(rest(Stage::StepUp(Reason::Satisfied)), verified, env)
            }
        }
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
        if let (Endpoint::Keys, Some(keys)) = (endpoint, self.provider.key_set(now)) {
            self.cache.retain_keys(keys);
        }
        Ok(())
    }

    fn find_key(&mut self, pending: Pending, jws: Box<Jws>, env: Env<'_>) -> Step {
        if jws.algorithm() == Algorithm::Hs256 {
            let token: Box<str> = jws.token().into();
            let claims = match &self.config.client.secret {
                Some(secret) => jws.verify_with_secret(secret),
                None => Err(Reason::KeyUnknown),
            };
            let verified = self.accept(&token, claims, None);
            return self.conclude(pending, verified, env);
        }
        self.provider.follow_clock(env.now);
        let unusable = match self.provider.key(jws.algorithm(), jws.kid(), env.now, pending.asked) {
            Lookup::Found(Ok(key)) => {
                let check = jws.signature_check(&key);
                return Step::Verify(check, Pending { stage: Stage::Signature(jws, key), ..pending });
            }
            // A rule that only reports never holds a request.
            Lookup::Fetch(fetch) if pending.enforced.is_some() => {
                let stage = Stage::Key(jws, fetch.endpoint);
                return Step::Fetch(fetch, Pending { stage, ..pending });
            }
            Lookup::Found(Err(())) => {
                Reason::AlgorithmNotAllowed("the key is of another type or for another algorithm")
            }
            Lookup::Fetch(fetch) if fetch.for_unknown_kid => Reason::KeyUnknown,
            Lookup::Fetch(fetch) => Reason::KeysUnavailable { retry_after: fetch.timeout },
            Lookup::Unknown => Reason::KeyUnknown,
            Lookup::Unavailable(retry_after) => Reason::KeysUnavailable { retry_after },
        };
        self.conclude(pending, Err(unusable), env)
    }

    fn accept(
        &mut self,
        token: &str,
        claims: Result<SignedClaims, Reason>,
        key: Option<Arc<Key>>,
    ) -> Result<Arc<VerifiedIdToken>, Reason> {
        let client = &self.config.client;
        let issuer = &self.config.provider.issuer;
        let expected = Expected { issuer, client_id: &client.id, audiences: &client.audiences };
        let verified = Arc::new(VerifiedIdToken::accept(claims?, expected)?);
        self.cache.insert(token, verified.clone(), key);
        Ok(verified)
    }

    /// Everything is known about the token; what is left is what the rules ask for, and how to answer.
    fn conclude(&mut self, pending: Pending, token: Result<Arc<VerifiedIdToken>, Reason>, env: Env<'_>) -> Step {
        let leeway = self.config.token.leeway;
        let finding = |asked: &Option<AskedFor>| {
            let asked = asked.as_ref()?;
            let token = token.as_ref().map_err(Clone::clone);
            let satisfied = token.and_then(|token| {
                token.check_times(env.now, leeway)?;
                asked.requirement.evaluate(token, env.now)
            });
            satisfied.err()
        };
        let Some(reason) = finding(&pending.enforced) else {
            let reported = finding(&pending.reported);
            let rules = pending.reported.as_ref().filter(|_| reported.is_some()).or(pending.enforced.as_ref());
            let rules = rules.or(pending.reported.as_ref()).map_or_else(Vec::new, |asked| asked.rules.clone());
            return Step::Done(Decision::passed(reported, rules, &self.config.token));
        };
        let Some(asked) = &pending.enforced else { return Step::Done(Decision::forward(Reason::NotProtected)) };
        let answerer = Answerer { config: &self.config, context: &pending.context, asked, env };
        if !answerer.leads_to_provider(&reason) {
            return Step::Done(answerer.answer(reason, ""));
        }
        match self.provider.authorization_endpoint(env.now, pending.asked) {
            Lookup::Found(endpoint) => Step::Done(answerer.answer(reason, &endpoint)),
            Lookup::Fetch(fetch) => Step::Fetch(fetch, Pending { stage: Stage::StepUp(reason), ..pending }),
            Lookup::Unavailable(retry_after) => {
                Step::Done(answerer.answer(Reason::KeysUnavailable { retry_after }, ""))
            }
            Lookup::Unknown => {
                let retry_after = self.config.provider.timeout;
                Step::Done(answerer.answer(Reason::KeysUnavailable { retry_after }, ""))
            }
        }
    }
}
