//! The flow that the gate completes itself: from the redirect to the provider to the ID Token's cookie.

use std::sync::Arc;

use super::{BodyRequest, Gate, Inquiry, Outcome, Pending, Purpose, Stage, Step};
use crate::answer::{Decision, Failure, RequestKind, clear_attempts};
use crate::claims::VerifiedIdToken;
use crate::config::{CallbackConfig, Hint, ResponseMode};
use crate::encoding::base64url_encode;
use crate::env::Env;
use crate::flow::{
    AuthorizationResponse, CallbackRequest, MAX_FORM_BYTES, OwnCookieNames, Route, Start, Transaction, code_challenge,
    id_token, pushed_request, pushed_request_uri, query, subject_digest, token_request, way_back,
};
use crate::http::{Request, append_query};
use crate::jose::Jws;
use crate::oidc::AuthorizationRequest;
use crate::provider::{Lookup, Service};
use crate::reason::{ExchangeFault, Reason};
use crate::rules::Demand;
use crate::seal::Purpose as SealPurpose;

/// The longest token that goes into a URL as a hint, in bytes.
pub const MAX_HINT_BYTES: usize = 4_096;

/// A person who is about to be sent to the provider.
pub(super) struct Departure {
    /// What is asked for, and why.
    demand: Demand,
    reason: Reason,
    /// How many step-ups came before this one.
    attempts: u32,
    /// The path and query to come back to.
    return_to: String,
    /// The origin to come back to, where it is not that of the callback.
    origin: Option<String>,
    /// The digest of the `sub` that must stay.
    subject: Option<String>,
    /// What the provider is told of who is logged in.
    hint: Option<(&'static str, String)>,
    /// Whether the person has to log in anew, whatever the provider makes of `max_age`.
    afresh: bool,
    /// Cookies that are over.
    cookies: Vec<String>,
    /// What the browser has, or what came of the last step-up.
    token: Option<Arc<VerifiedIdToken>>,
}

/// What was drawn and sealed for a departure.
pub(super) struct Prepared {
    endpoint: String,
    cookies: Vec<String>,
}

/// A person who is back from the provider.
pub(super) struct Returned {
    response: AuthorizationResponse,
    transaction: Transaction,
    /// The digest of the `sub` of the valid token that the browser has by now.
    current_subject: Option<String>,
}

impl Departure {
    /// Where to come back to.
    fn way_back(&self) -> String {
        way_back(self.origin.as_deref(), &self.return_to)
    }
}

impl Gate {
    /// A request for one of the gate's own paths. It never reaches the app.
    pub(super) fn begin_own(&mut self, route: Route, request: &Request<'_>, env: Env<'_>) -> Step {
        let (found, attempts) = self.find_token(request);
        let mut inquiry = self.inquire(request, false, attempts, env);
        match found {
            Ok(found) => inquiry.token = found.map(|found| found.token.into()),
            Err(reason) => inquiry.ambiguous = reason == Reason::TokenAmbiguous,
        }
        match route {
            Route::Logout => self.log_out(inquiry, env),
            // Nobody's body is worth waiting for without a login under way.
            Route::CallbackForm if !self.has_transaction(&inquiry) => {
                self.fail_login(&inquiry, Reason::TransactionMissing, None, env)
            }
            Route::CallbackForm => {
                let body = BodyRequest { max_bytes: MAX_FORM_BYTES, timeout: self.config.provider.timeout };
                Step::Body(body, Pending { inquiry, stage: Stage::Form })
            }
            Route::Callback if request.method == b"GET" => self.receive(inquiry, query(request.path), false, env),
            Route::Callback => {
                self.fail_login(&inquiry, Reason::CallbackMalformed("its method is not the one asked for"), None, env)
            }
        }
    }

    fn has_transaction(&self, inquiry: &Inquiry) -> bool {
        let keys = self.config.callback.as_ref().map(|callback| &callback.keys);
        let opens = |(state, sealed): &(String, Option<String>)| {
            keys.zip(sealed.as_ref()).is_some_and(|(keys, sealed)| Transaction::open(keys, state, sealed).is_some())
        };
        inquiry.context.cookies.transactions.iter().any(opens)
    }

    /// Leads a person to the provider, or tells a script where to lead the person.
    pub(super) fn log_in(
        &self,
        inquiry: Inquiry,
        callback: &CallbackConfig,
        (demand, reason): (&Demand, Reason),
        token: Option<Arc<VerifiedIdToken>>,
        env: Env<'_>,
    ) -> Step {
        let answerer = self.answerer(&inquiry, &demand.rules, env);
        let Some(origin) = inquiry.origin.clone() else {
            let main_page = format!("{}/", callback.origin);
            let failure = Failure { try_again: Some(&main_page), ..Failure::of(Reason::HostMismatch) };
            return Step::Done(answerer.failure(failure));
        };
        let elsewhere = Some(&origin).filter(|origin| **origin != callback.origin);
        if elsewhere.is_none() && !answerer.challenges(demand) {
            let departure = self.departure(&inquiry, (demand, reason), token, env);
            return self.depart(inquiry, Box::new(departure), env);
        }
        // A script cannot follow a redirect to the provider, and needs no cookie. From another host, the login begins where it
        // will end.
        let start = Start {
            demand: demand.clone(),
            return_to: inquiry.context.page(&origin),
            origin: elsewhere.cloned(),
            issued_at: env.now.as_secs(),
        };
        let sealed = start.seal(&callback.keys, &(env.entropy)());
        let url = sealed.map(|sealed| append_query(&self.config.client.redirect_uri, &[("step_up", sealed)]));
        Step::Done(match (answerer.challenges(demand), url) {
            (true, url) => answerer.challenge(demand, reason, url.as_deref()),
            (false, Some(url)) => Decision::redirect(reason, &demand.rules, url, Vec::new()),
            (false, None) => answerer.failure(Failure::of(Reason::StepUpTooLong)),
        })
    }

    /// A person who is sent to the provider from a page of the callback's host.
    fn departure(
        &self,
        inquiry: &Inquiry,
        (demand, reason): (&Demand, Reason),
        token: Option<Arc<VerifiedIdToken>>,
        env: Env<'_>,
    ) -> Departure {
        let valid = token.as_ref().filter(|token| token.check_times(env.now, self.config.token.leeway).is_ok());
        let raw = inquiry.token.as_deref();
        let how = self.config.callback.as_ref().map_or(Hint::None, |callback| callback.hint);
        Departure {
            demand: demand.clone(),
            reason,
            attempts: inquiry.context.attempts_before(&demand.rules, true, env.now),
            return_to: inquiry.context.page(inquiry.origin.as_deref().unwrap_or_default()),
            origin: None,
            subject: valid.map(|token| subject_digest(token.subject())),
            hint: token.as_deref().and_then(|token| hint(how, token, raw?)),
            afresh: false,
            cookies: Vec::new(),
            token,
        }
    }

    /// Sends a person to the provider, unless that was in vain too often.
    pub(super) fn depart(&self, inquiry: Inquiry, departure: Box<Departure>, env: Env<'_>) -> Step {
        let Some(names) = self.own_cookie_names() else { return self.not_completed(&inquiry, env) };
        let demand = &departure.demand;
        let answerer = self.answerer(&inquiry, &demand.rules, env);
        if departure.attempts >= demand.step_up.max_attempts {
            let cookies = departure.cookies.clone();
            let way_back = departure.way_back();
            let failure = Failure { try_again: Some(&way_back), cookies, ..Failure::of(departure.reason.clone()) };
            let token = departure.token.as_deref();
            return Step::Done(answerer.give_up(demand, token, departure.attempts, failure));
        }
        let pushed = match names.callback.pushed_authorization {
            true => self.provider.endpoint(Service::PushedAuthorization, env.now, inquiry.asked),
            false => Lookup::Unknown,
        };
        let (endpoint, pushed) = match (self.provider.endpoint(Service::Authorization, env.now, inquiry.asked), pushed)
        {
            (Lookup::Found(endpoint), Lookup::Found(pushed)) => (endpoint, Some(pushed)),
            (Lookup::Found(endpoint), Lookup::Unknown) => (endpoint, None),
            (Lookup::Fetch(fetch), _) | (_, Lookup::Fetch(fetch)) => {
                return Step::Fetch(fetch, Pending { inquiry, stage: Stage::Departure(departure) });
            }
            (Lookup::Unavailable(retry_after), _) | (_, Lookup::Unavailable(retry_after)) => {
                return Step::Done(answerer.failure(Failure::of(Reason::KeysUnavailable { retry_after })));
            }
            (Lookup::Unknown, _) => {
                let retry_after = self.config.provider.timeout;
                return Step::Done(answerer.failure(Failure::of(Reason::KeysUnavailable { retry_after })));
            }
        };
        let (for_ids, for_verifier) = ((env.entropy)(), (env.entropy)());
        let (for_state, for_nonce) = for_ids.split_at(16);
        let state = base64url_encode(for_state);
        let transaction = Transaction {
            nonce: base64url_encode(for_nonce),
            verifier: base64url_encode(&for_verifier),
            demand: demand.clone(),
            return_to: departure.return_to.clone(),
            origin: departure.origin.clone(),
            subject: departure.subject.clone(),
            issued_at: env.now.as_secs(),
            attempts: departure.attempts + 1,
        };
        let Some(sealed) = transaction.seal(&names.callback.keys, &state, &(env.entropy)()) else {
            return Step::Done(answerer.failure(Failure::of(Reason::StepUpTooLong)));
        };
        let mut further = vec![
            ("code_challenge", code_challenge(&transaction.verifier)),
            ("code_challenge_method", "S256".to_owned()),
        ];
        if names.callback.response_mode == ResponseMode::FormPost {
            further.push(("response_mode", "form_post".to_owned()));
        }
        if departure.afresh {
            further.push(("prompt", "login".to_owned()));
        }
        further.extend(departure.hint.clone());
        let request = AuthorizationRequest {
            client_id: &self.config.client.id,
            redirect_uri: &self.config.client.redirect_uri,
            step_up: &demand.step_up,
            max_age: demand.requirement.max_age,
            state: &state,
            nonce: &transaction.nonce,
            further,
        };
        let begun = names.begin(&state, &sealed, &inquiry.context.cookies, env.now);
        let Some(pushed) = pushed else {
            let cookies = begun.into_iter().chain(departure.cookies.clone()).collect();
            let location = request.url(&endpoint);
            return Step::Done(Decision::redirect(departure.reason, &departure.demand.rules, location, cookies));
        };
        let parameters = request.parameters();
        let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        let fetch = pushed_request(&self.config, pushed, &parameters, env);
        let prepared = Prepared { endpoint, cookies: begun };
        Step::Fetch(fetch, Pending { inquiry, stage: Stage::Pushed(departure, prepared) })
    }

    /// The authorization request was pushed, or not.
    pub(super) fn pushed(
        &self,
        inquiry: &Inquiry,
        departure: Departure,
        prepared: Prepared,
        outcome: &Outcome,
        env: Env<'_>,
    ) -> Step {
        let rules = &departure.demand.rules;
        let request_uri = match outcome {
            Outcome::Fetched(reply) => pushed_request_uri(reply),
            _ => None,
        };
        let Some(request_uri) = request_uri else {
            let answerer = self.answerer(inquiry, rules, env);
            let way_back = departure.way_back();
            let failure = Failure {
                try_again: Some(&way_back),
                cookies: departure.cookies,
                ..Failure::of(Reason::PushedAuthorizationFailed)
            };
            return Step::Done(answerer.failure(failure));
        };
        let parameters = [("client_id", self.config.client.id.as_str()), ("request_uri", &request_uri)];
        let location = append_query(&prepared.endpoint, &parameters);
        let cookies = prepared.cookies.into_iter().chain(departure.cookies).collect();
        Step::Done(Decision::redirect(departure.reason, rules, location, cookies))
    }

    /// What came to the callback.
    pub(super) fn receive(&mut self, inquiry: Inquiry, parameters: &[u8], in_body: bool, env: Env<'_>) -> Step {
        let Some(callback) = &self.config.callback else { return self.not_completed(&inquiry, env) };
        let response = match CallbackRequest::read(parameters, callback.response_mode, in_body) {
            Ok(CallbackRequest::Response(response)) => response,
            Ok(CallbackRequest::Start(sealed)) => {
                let Some(start) = Start::open(&callback.keys, &sealed) else {
                    return self.fail_login(&inquiry, Reason::TransactionMissing, None, env);
                };
                if inquiry.context.kind != RequestKind::Navigation {
                    let reason =
                        Reason::CallbackMalformed("a login starts with a page, not with a script or a picture");
                    return self.fail_login(&inquiry, reason, None, env);
                }
                if start.is_expired(env.now) {
                    let way_back = start.way_back();
                    let failure = Failure { try_again: Some(&way_back), ..Failure::of(Reason::TransactionExpired) };
                    return Step::Done(self.answerer(&inquiry, &[], env).failure(failure));
                }
                return self.look_at(inquiry, Purpose::Start(Box::new(start)), env);
            }
            Err(reason) => return self.fail_login(&inquiry, reason, None, env),
        };
        let known = inquiry.context.cookies.transactions.iter().find(|(state, _)| *state == response.state);
        let sealed = known.and_then(|(_, sealed)| sealed.as_deref());
        let opened = sealed.and_then(|sealed| Transaction::open(&callback.keys, &response.state, sealed));
        let Some(transaction) = opened else {
            return self.fail_login(&inquiry, Reason::TransactionMissing, None, env);
        };
        let returned = Box::new(Returned { response, transaction, current_subject: None });
        if returned.transaction.is_expired(env.now) {
            return self.fail_login(&inquiry, Reason::TransactionExpired, Some(&returned), env);
        }
        self.check_response(inquiry, returned, env)
    }

    /// A login that starts by a link. Its page may have been satisfied meanwhile.
    pub(super) fn start(
        &self,
        inquiry: Inquiry,
        start: Start,
        token: Result<Arc<VerifiedIdToken>, Reason>,
        env: Env<'_>,
    ) -> Step {
        let reason = match self.evaluate(&start.demand, token.as_deref(), env.now) {
            Ok(()) => return Step::Done(self.start_satisfied(&inquiry, &start, token.as_deref().ok(), env)),
            Err(reason) => reason,
        };
        if matches!(reason, Reason::KeysUnavailable { .. }) {
            return Step::Done(self.answerer(&inquiry, &[], env).failure(Failure::of(reason)));
        }
        let departure = self.departure(&inquiry, (&start.demand, reason), token.ok(), env);
        let departure = Departure { return_to: start.return_to, origin: start.origin, ..departure };
        self.depart(inquiry, Box::new(departure), env)
    }

    /// Back at once. Another host that sent the person here may see another token than this one does, and would send the person
    /// again: that counts like a login.
    fn start_satisfied(
        &self,
        inquiry: &Inquiry,
        start: &Start,
        token: Option<&VerifiedIdToken>,
        env: Env<'_>,
    ) -> Decision {
        let demand = &start.demand;
        if start.origin.is_none() {
            return Decision::redirect(Reason::Satisfied, &demand.rules, start.way_back(), Vec::new());
        }
        let answerer = self.answerer(inquiry, &demand.rules, env);
        let attempts = inquiry.context.attempts_before(&demand.rules, true, env.now);
        if attempts >= demand.step_up.max_attempts {
            let way_back = start.way_back();
            let failure = Failure { try_again: Some(&way_back), ..Failure::of(Reason::TokenAmbiguous) };
            return answerer.give_up(demand, token, attempts, failure);
        }
        let counted = answerer.counted(demand, attempts + 1);
        Decision::redirect(Reason::Satisfied, &demand.rules, start.way_back(), vec![counted])
    }

    /// Whether the response comes from the provider (RFC 9207 section 2.4), and what it says.
    pub(super) fn check_response(&mut self, inquiry: Inquiry, returned: Box<Returned>, env: Env<'_>) -> Step {
        let must_name_issuer = match self.provider.names_issuer_in_responses(env.now, inquiry.asked) {
            Lookup::Found(must) => must,
            Lookup::Fetch(fetch) => {
                return Step::Fetch(fetch, Pending { inquiry, stage: Stage::Response(returned) });
            }
            Lookup::Unavailable(retry_after) => {
                return self.fail_login(&inquiry, Reason::KeysUnavailable { retry_after }, Some(&returned), env);
            }
            Lookup::Unknown => true,
        };
        let is_issuers = match &returned.response.issuer {
            Some(issuer) => *issuer == self.config.provider.issuer,
            None => !must_name_issuer,
        };
        if !is_issuers {
            return self.fail_login(&inquiry, Reason::ResponseIssuerMismatch, Some(&returned), env);
        }
        match &returned.response.outcome {
            Ok(_) => self.look_at(inquiry, Purpose::Return(returned), env),
            Err(Reason::StepUpUnmet) => self.unmet(&inquiry, &returned, env),
            Err(reason) => self.fail_login(&inquiry, reason.clone(), Some(&returned), env),
        }
    }

    /// Exchanges the code for a token. Whoever is logged in must stay the same person.
    pub(super) fn exchange(
        &self,
        inquiry: Inquiry,
        mut returned: Box<Returned>,
        current: Result<Arc<VerifiedIdToken>, Reason>,
        env: Env<'_>,
    ) -> Step {
        let leeway = self.config.token.leeway;
        let valid = current.ok().filter(|token| token.check_times(env.now, leeway).is_ok());
        returned.current_subject = valid.map(|token| subject_digest(token.subject()));
        let url = match self.provider.endpoint(Service::Token, env.now, inquiry.asked) {
            Lookup::Found(url) => url,
            Lookup::Fetch(fetch) => {
                return Step::Fetch(fetch, Pending { inquiry, stage: Stage::Response(returned) });
            }
            Lookup::Unavailable(retry_after) => {
                return self.fail_login(&inquiry, Reason::KeysUnavailable { retry_after }, Some(&returned), env);
            }
            Lookup::Unknown => {
                let fault = ExchangeFault::Unavailable("the provider names none");
                return self.fail_login(&inquiry, Reason::TokenExchangeFailed(fault), Some(&returned), env);
            }
        };
        let code = match &returned.response.outcome {
            Ok(code) => code,
            Err(reason) => return self.fail_login(&inquiry, reason.clone(), Some(&returned), env),
        };
        let fetch = token_request(&self.config, url, code, &returned.transaction.verifier, env);
        Step::Fetch(fetch, Pending { inquiry, stage: Stage::Exchange(returned) })
    }

    /// The token endpoint has answered, or not.
    pub(super) fn exchanged(
        &mut self,
        mut inquiry: Inquiry,
        returned: Box<Returned>,
        outcome: Outcome,
        env: Env<'_>,
    ) -> Step {
        let token = match &outcome {
            Outcome::Fetched(reply) => id_token(reply),
            _ => Err(ExchangeFault::Unavailable("unreachable")),
        };
        let token = match token {
            Ok(token) => token,
            Err(fault) => {
                return self.fail_login(&inquiry, Reason::TokenExchangeFailed(fault), Some(&returned), env);
            }
        };
        // The new token's key may be newer than the one that the old token was looked at with.
        inquiry.asked = Default::default();
        inquiry.since = env.now;
        inquiry.token = Some(token.into());
        self.look_at(inquiry, Purpose::Login(returned), env)
    }

    /// The provider's token has been looked at. Nothing is set before it has proven everything.
    pub(super) fn arrive(
        &self,
        inquiry: Inquiry,
        returned: &Returned,
        token: Result<Arc<VerifiedIdToken>, Reason>,
        env: Env<'_>,
    ) -> Step {
        let transaction = &returned.transaction;
        let token = match token.and_then(|token| self.check_login(returned, &token, env).map(|()| token)) {
            Ok(token) => token,
            Err(reason) => return self.fail_login(&inquiry, reason, Some(returned), env),
        };
        let Some(names) = self.own_cookie_names() else { return self.not_completed(&inquiry, env) };
        if let Err(reason) = transaction.demand.requirement.evaluate(&token, env.now) {
            let departure = Departure {
                demand: transaction.demand.clone(),
                // By its clock the provider found the login fresh enough, and would do so again.
                afresh: matches!(reason, Reason::AuthTooOld { .. }),
                reason,
                attempts: transaction.attempts,
                return_to: transaction.return_to.clone(),
                origin: transaction.origin.clone(),
                subject: transaction.subject.clone(),
                hint: inquiry.token.as_deref().and_then(|raw| hint(names.callback.hint, &token, raw)),
                cookies: vec![names.end(&returned.response.state)],
                token: Some(token),
            };
            return self.depart(inquiry, Box::new(departure), env);
        }
        let value = match (names.callback.seal_token, inquiry.token.as_deref().unwrap_or_default()) {
            (false, token) => token.to_owned(),
            (true, token) => {
                let purpose = SealPurpose::IdToken(names.token_cookie);
                names.callback.keys.seal(purpose, token.as_bytes(), &(env.entropy)())
            }
        };
        let present = &inquiry.context.cookies;
        let Some(set) = names.set_token(&value, token.expires(), present, env.now) else {
            let reason = Reason::TokenMalformed("too long for cookies");
            return self.fail_login(&inquiry, reason, Some(returned), env);
        };
        // First what goes: to some cookie jars a cookie of the host and one of its domain are the same.
        let mut cookies = if inquiry.ambiguous { names.clear_elsewhere(present) } else { Vec::new() };
        cookies.extend(set);
        cookies.push(names.end(&returned.response.state));
        // Should the page ask again, because the cookie does not reach it or the provider's clock is another, that counts.
        let (demand, location) = (&transaction.demand, transaction.way_back());
        let answerer = self.answerer(&inquiry, &demand.rules, env);
        cookies.push(answerer.counted(demand, transaction.attempts));
        Step::Done(Decision::redirect(Reason::LoginCompleted, &demand.rules, location, cookies))
    }

    /// What every login asks of its token, whatever the rule (OpenID Connect Core section 3.1.3.7).
    fn check_login(&self, returned: &Returned, token: &VerifiedIdToken, env: Env<'_>) -> Result<(), Reason> {
        token.check_times(env.now, self.config.token.leeway)?;
        let transaction = &returned.transaction;
        if token.claim("nonce").and_then(serde_json::Value::as_str) != Some(&transaction.nonce) {
            return Err(Reason::NonceMismatch);
        }
        let subject = subject_digest(token.subject());
        let is_same = |known: &Option<String>| known.as_ref().is_none_or(|known| *known == subject);
        if !is_same(&transaction.subject) || !is_same(&returned.current_subject) {
            return Err(Reason::SubjectMismatch);
        }
        Ok(())
    }

    /// Clears the gate's cookies, and leads to the end of the provider's session (OpenID Connect RP-Initiated Logout section 2).
    pub(super) fn log_out(&self, inquiry: Inquiry, env: Env<'_>) -> Step {
        let Some(names) = self.own_cookie_names() else { return self.not_completed(&inquiry, env) };
        let location = match self.provider.endpoint(Service::EndSession, env.now, inquiry.asked) {
            Lookup::Found(endpoint) => {
                let after = format!("{}/", names.callback.origin);
                let mut parameters =
                    vec![("client_id", self.config.client.id.as_str()), ("post_logout_redirect_uri", &after)];
                let algorithms = &self.config.token.algorithms;
                let is_hint = |token: &&str| Jws::parse(token, MAX_HINT_BYTES, algorithms).is_ok();
                // What is sealed is not to be read in a URL.
                let hint = inquiry.token.as_deref().filter(is_hint).filter(|_| !names.callback.seal_token);
                parameters.extend(hint.map(|token| ("id_token_hint", token)));
                append_query(&endpoint, &parameters)
            }
            Lookup::Fetch(fetch) => return Step::Fetch(fetch, Pending { inquiry, stage: Stage::Logout }),
            // The gate's own session ends all the same.
            Lookup::Unknown | Lookup::Unavailable(_) => match &inquiry.origin {
                Some(origin) if *origin != names.callback.origin => format!("{}/", names.callback.origin),
                _ => "/".to_owned(),
            },
        };
        let mut cookies = names.clear(&inquiry.context.cookies);
        if inquiry.ambiguous {
            cookies.extend(names.clear_elsewhere(&inquiry.context.cookies));
        }
        cookies.push(clear_attempts(&self.config));
        Step::Done(Decision::redirect(Reason::LoggedOut, &[], location, cookies))
    }

    /// The provider cannot prove what was asked for.
    fn unmet(&self, inquiry: &Inquiry, returned: &Returned, env: Env<'_>) -> Step {
        let Transaction { demand, attempts, .. } = &returned.transaction;
        let way_back = returned.transaction.way_back();
        let failure =
            Failure { try_again: Some(&way_back), cookies: self.ended(returned), ..Failure::of(Reason::StepUpUnmet) };
        let answerer = self.answerer(inquiry, &demand.rules, env);
        Step::Done(answerer.give_up(demand, None, *attempts, failure))
    }

    /// A login that got no further. Its transaction is over.
    pub(super) fn fail_login(
        &self,
        inquiry: &Inquiry,
        reason: Reason,
        returned: Option<&Returned>,
        env: Env<'_>,
    ) -> Step {
        let rules = returned.map_or(&[][..], |returned| &*returned.transaction.demand.rules);
        let answerer = self.answerer(inquiry, rules, env);
        let way_back = returned.map(|returned| returned.transaction.way_back());
        let failure = Failure {
            try_again: way_back.as_deref(),
            cookies: returned.map_or_else(Vec::new, |returned| self.ended(returned)),
            ..Failure::of(reason)
        };
        Step::Done(answerer.failure(failure))
    }

    fn ended(&self, returned: &Returned) -> Vec<String> {
        let names = self.own_cookie_names();
        names.map_or_else(Vec::new, |names: OwnCookieNames<'_>| vec![names.end(&returned.response.state)])
    }

    /// Without `callback` no request gets here; if one did, it would get no further.
    fn not_completed(&self, inquiry: &Inquiry, env: Env<'_>) -> Step {
        self.fail_login(inquiry, Reason::TransactionMissing, None, env)
    }
}

/// What the provider is told of who is logged in (OpenID Connect Core section 3.1.2.1).
fn hint(hint: Hint, token: &VerifiedIdToken, raw: &str) -> Option<(&'static str, String)> {
    let claim = |name: &&str| token.claim(name).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty());
    match hint {
        Hint::None => None,
        Hint::LoginHint => {
            let known = ["login_hint", "email", "preferred_username"].iter().find_map(claim);
            known.map(|known| ("login_hint", known.to_owned()))
        }
        Hint::IdTokenHint => (raw.len() <= MAX_HINT_BYTES).then(|| ("id_token_hint", raw.to_owned())),
    }
}
