//! The flow that the gate completes itself: from the redirect to the provider to the ID Token's cookie.

use std::sync::Arc;

use super::{BodyRequest, Gate, Inquiry, Outcome, Pending, Purpose, Stage, Step};
use crate::answer::{Answerer, Decision, Failure, RequestContext, clear_attempts};
use crate::claims::VerifiedIdToken;
use crate::config::{CallbackConfig, Hint, ResponseMode};
use crate::encoding::base64url_encode;
use crate::env::Env;
use crate::flow::{
    AuthorizationResponse, CallbackRequest, MAX_FORM_BYTES, OwnCookieNames, Route, Start, Transaction, code_challenge,
    id_token, pushed_request, pushed_request_uri, query, subject_digest, token_request,
};
use crate::http::{Request, append_query};
use crate::oidc::{AuthorizationRequest, as_strs};
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
}

/// A person who is back from the provider.
pub(super) struct Returned {
    response: AuthorizationResponse,
    transaction: Transaction,
    /// The digest of the `sub` of the valid token that the browser has by now.
    current_subject: Option<String>,
}

impl Gate {
    /// A request for one of the gate's own paths. It never reaches the app.
    pub(super) fn begin_own(&mut self, route: Route, request: &Request<'_>, env: Env<'_>) -> Step {
        let mut inquiry = self.inquire(request, false, env);
        inquiry.token = self.find_token(request).ok().flatten().map(|found| found.token.into());
        match route {
            Route::Logout => self.log_out(inquiry, env),
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

    /// The link that starts a login for these rules, for a script that cannot follow a redirect to the provider. `None`:
    /// what they ask for together does not fit.
    pub(super) fn start_url(
        &self,
        callback: &CallbackConfig,
        demand: &Demand,
        context: &RequestContext,
        env: Env<'_>,
    ) -> Option<String> {
        let return_to = context.page(&callback.origin);
        let start = Start { demand: demand.clone(), return_to, issued_at: env.now.as_secs() };
        let sealed = start.seal(&callback.keys, &(env.entropy)())?;
        Some(append_query(&self.config.client.redirect_uri, &[("step_up", &sealed)]))
    }

    /// A person who is sent to the provider from a page.
    pub(super) fn departure(
        &self,
        callback: &CallbackConfig,
        inquiry: &Inquiry,
        (demand, reason): (&Demand, Reason),
        token: Option<Arc<VerifiedIdToken>>,
        env: Env<'_>,
    ) -> Departure {
        let valid = token.as_ref().filter(|token| token.check_times(env.now, self.config.token.leeway).is_ok());
        let raw = inquiry.token.as_deref();
        Departure {
            demand: demand.clone(),
            reason,
            attempts: inquiry.context.attempts_before(|| demand.fingerprint(), env.now),
            return_to: inquiry.context.page(&callback.origin),
            subject: valid.map(|token| subject_digest(token.subject())),
            hint: token.as_deref().and_then(|token| hint(callback.hint, token, raw?)),
            afresh: false,
            cookies: Vec::new(),
            token,
        }
    }

    /// Sends a person to the provider, unless that was in vain too often.
    pub(super) fn depart(&self, inquiry: Inquiry, mut departure: Box<Departure>, env: Env<'_>) -> Step {
        let Some(names) = self.own_cookie_names() else { return self.not_completed(&inquiry, env) };
        let demand = &departure.demand;
        let answerer = Answerer { config: &self.config, context: &inquiry.context, rules: &demand.rules, env };
        if departure.attempts >= demand.step_up.max_attempts {
            let cookies = departure.cookies.clone();
            let failure =
                Failure { try_again: Some(&departure.return_to), cookies, ..Failure::of(departure.reason.clone()) };
            let because = (departure.attempts, departure.reason.clone());
            return Step::Done(answerer.give_up(demand, departure.token.as_deref(), because, failure));
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
            let (attempts, reason) = (transaction.attempts, departure.reason.clone());
            return Step::Done(answerer.step_up(demand, reason, attempts, request.url(&endpoint), cookies));
        };
        let fetch = pushed_request(&self.config, pushed, &as_strs(&request.parameters()), env);
        departure.cookies.splice(0..0, begun);
        let prepared = Prepared { endpoint };
        Step::Fetch(fetch, Pending { inquiry, stage: Stage::Pushed(departure, prepared) })
    }

    /// The authorization request was pushed, or not.
    pub(super) fn pushed(
        &self,
        inquiry: &Inquiry,
        departure: &Departure,
        prepared: Prepared,
        outcome: &Outcome,
        env: Env<'_>,
    ) -> Step {
        let demand = &departure.demand;
        let answerer = Answerer { config: &self.config, context: &inquiry.context, rules: &demand.rules, env };
        let request_uri = match outcome {
            Outcome::Fetched(reply) => pushed_request_uri(reply),
            _ => None,
        };
        let Some(request_uri) = request_uri else {
            let failure =
                Failure { try_again: Some(&departure.return_to), ..Failure::of(Reason::PushedAuthorizationFailed) };
            return Step::Done(answerer.failure(failure));
        };
        let parameters = [("client_id", self.config.client.id.as_str()), ("request_uri", &request_uri)];
        let location = append_query(&prepared.endpoint, &parameters);
        let (reason, attempts) = (departure.reason.clone(), departure.attempts + 1);
        Step::Done(answerer.step_up(demand, reason, attempts, location, departure.cookies.clone()))
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
                if start.is_expired(env.now) {
                    let failure =
                        Failure { try_again: Some(&start.return_to), ..Failure::of(Reason::TransactionExpired) };
                    return Step::Done(self.answerer(&inquiry, env).failure(failure));
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
        let Some(callback) = &self.config.callback else { return self.not_completed(&inquiry, env) };
        let reason = match self.evaluate(&start.demand, token.as_deref(), env.now) {
            Ok(()) => {
                let rules = &start.demand.rules;
                return Step::Done(Decision::redirect(Reason::Satisfied, rules, start.return_to, Vec::new()));
            }
            Err(reason) => reason,
        };
        if matches!(reason, Reason::KeysUnavailable { .. }) {
            return Step::Done(self.answerer(&inquiry, env).failure(Failure::of(reason)));
        }
        let mut departure = self.departure(callback, &inquiry, (&start.demand, reason), token.ok(), env);
        departure.return_to = start.return_to;
        self.depart(inquiry, Box::new(departure), env)
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
            Lookup::Unknown => false,
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
            Err(Reason::StepUpUnmet) => self.give_up(&inquiry, &returned, None, Reason::StepUpUnmet, env),
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
            if transaction.attempts >= transaction.demand.step_up.max_attempts {
                return self.give_up(&inquiry, returned, Some(&token), reason, env);
            }
            let departure = Departure {
                demand: transaction.demand.clone(),
                // By its clock the provider found the login fresh enough, and would do so again.
                afresh: matches!(reason, Reason::AuthTooOld { .. }),
                reason,
                attempts: transaction.attempts,
                return_to: transaction.return_to.clone(),
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
        let Some(mut cookies) = names.set_token(&value, token.expires(), &inquiry.context.cookies, env.now) else {
            let reason = Reason::TokenMalformed("too long for cookies");
            return self.fail_login(&inquiry, reason, Some(returned), env);
        };
        cookies.push(names.end(&returned.response.state));
        let (rules, location) = (&transaction.demand.rules, transaction.return_to.clone());
        Step::Done(Decision::redirect(Reason::LoginCompleted, rules, location, cookies))
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
                let hint = inquiry.token.as_deref().filter(|token| token.len() <= MAX_HINT_BYTES);
                parameters.extend(hint.map(|token| ("id_token_hint", token)));
                append_query(&endpoint, &parameters)
            }
            Lookup::Fetch(fetch) => return Step::Fetch(fetch, Pending { inquiry, stage: Stage::Logout }),
            // The gate's own session ends all the same.
            Lookup::Unknown | Lookup::Unavailable(_) => "/".to_owned(),
        };
        let mut cookies = names.clear(&inquiry.context.cookies);
        cookies.push(clear_attempts(&self.config));
        Step::Done(Decision::redirect(Reason::LoggedOut, &[], location, cookies))
    }

    fn give_up(
        &self,
        inquiry: &Inquiry,
        returned: &Returned,
        token: Option<&VerifiedIdToken>,
        because: Reason,
        env: Env<'_>,
    ) -> Step {
        let Transaction { demand, attempts, return_to, .. } = &returned.transaction;
        let answerer = Answerer { config: &self.config, context: &inquiry.context, rules: &demand.rules, env };
        let failure =
            Failure { try_again: Some(return_to), cookies: self.ended(returned), ..Failure::of(because.clone()) };
        Step::Done(answerer.give_up(demand, token, (*attempts, because), failure))
    }

    /// A login that got no further. Its transaction is over.
    pub(super) fn fail_login(
        &self,
        inquiry: &Inquiry,
        reason: Reason,
        returned: Option<&Returned>,
        env: Env<'_>,
    ) -> Step {
        let rules = returned.map_or(&[][..], |returned| &returned.transaction.demand.rules);
        let answerer = Answerer { config: &self.config, context: &inquiry.context, rules, env };
        let failure = Failure {
            try_again: returned.map(|returned| returned.transaction.return_to.as_str()),
            cookies: returned.map_or_else(Vec::new, |returned| self.ended(returned)),
            ..Failure::of(reason)
        };
        Step::Done(answerer.failure(failure))
    }

    fn ended(&self, returned: &Returned) -> Vec<String> {
        let names = self.own_cookie_names();
        names.map_or_else(Vec::new, |names: OwnCookieNames<'_>| vec![names.end(&returned.response.state)])
    }

    fn answerer<'a>(&'a self, inquiry: &'a Inquiry, env: Env<'a>) -> Answerer<'a> {
        Answerer { config: &self.config, context: &inquiry.context, rules: &[], env }
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
