//! From a reason to a decision, and to the answer that a person or a client gets.

mod context;
mod page;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::json;

use crate::config::{Config, TokenConfig};
use crate::env::Env;
use crate::http::Response;
use crate::oidc::AuthorizationRequest;
use crate::reason::Reason;
use crate::rules::{AnswerMode, Demand};

use context::{ATTEMPTS_COOKIE, RequestKind, SECURE_ATTEMPTS_COOKIE};
pub use context::{Attempts, RequestContext};

/// How long a failed step-up counts, in seconds.
pub const ATTEMPTS_LIFETIME_SECS: u64 = 300;

/// The gRPC status codes of the gate's answers.
const GRPC_INVALID_ARGUMENT: u32 = 3;
const GRPC_PERMISSION_DENIED: u32 = 7;
const GRPC_UNAVAILABLE: u32 = 14;
const GRPC_UNAUTHENTICATED: u32 = 16;

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The kind of decision, for metrics.
    pub kind: DecisionKind,
    /// What decided it.
    pub reason: Reason,
    /// The names of the rules that asked, in the document's order.
    pub rules: Vec<Arc<str>>,
    /// The gate's own answer; none when the request goes on to the app.
    pub response: Option<Response>,
    /// Fields to add to the app's response.
    pub response_headers: Vec<(&'static str, String)>,
}

/// The kind of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DecisionKind {
    /// The request goes on to the app.
    Forward,
    /// It goes on to the app, though a rule that only reports is not satisfied.
    Report,
    /// 302.
    Redirect,
    /// 401.
    Challenge,
    /// 400.
    BadRequest,
    /// 403.
    Forbidden,
    /// 503.
    Unavailable,
}

impl DecisionKind {
    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Report => "report",
            Self::Redirect => "redirect",
            Self::Challenge => "challenge",
            Self::BadRequest => "bad_request",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Decision {
    /// No rule applies.
    pub(crate) const fn not_protected() -> Self {
        Self {
            kind: DecisionKind::Forward,
            reason: Reason::NotProtected,
            rules: Vec::new(),
            response: None,
            response_headers: Vec::new(),
        }
    }

    /// The request goes on to the app, because everything asked for is proven. A count of step-ups for it is over.
    pub(crate) fn satisfied(demand: &Demand, config: &Config, attempts: &Attempts) -> Self {
        let mut decision = Self::forward(DecisionKind::Forward, Reason::Satisfied, demand, &config.token);
        if attempts.counted(|| demand.fingerprint()).is_some() {
            decision.response_headers.push(("set-cookie", attempts_cookie(config, "", 0)));
        }
        decision
    }

    /// The request goes on to the app, though not everything asked for is proven: the rules only report.
    pub(crate) fn reported(demand: &Demand, reason: Reason, token: &TokenConfig) -> Self {
        Self::forward(DecisionKind::Report, reason, demand, token)
    }

    /// What the app answers depends on who asks, which caches must know.
    fn forward(kind: DecisionKind, reason: Reason, demand: &Demand, token: &TokenConfig) -> Self {
        let vary = match &token.header {
            Some(header) => format!("Cookie, {header}"),
            None => "Cookie".to_owned(),
        };
        Self { kind, reason, rules: demand.rules.clone(), response: None, response_headers: vec![("vary", vary)] }
    }
}

/// What an answer is made from.
pub struct Answerer<'a> {
    pub config: &'a Config,
    pub context: &'a RequestContext,
    pub demand: &'a Demand,
    pub env: Env<'a>,
}

impl Answerer<'_> {
    /// Whether the answer needs the provider's authorization endpoint.
    pub fn leads_to_provider(&self, reason: &Reason) -> bool {
        let steps_up = !matches!(reason, Reason::PathRejected(_) | Reason::KeysUnavailable { .. });
        steps_up && self.demand.step_up.login.is_none()
    }

    /// The decision for a request that is not satisfied. `endpoint` is the provider's authorization endpoint, where
    /// needed.
    pub fn answer(&self, reason: Reason, endpoint: &str) -> Decision {
        let (kind, response) = match &reason {
            Reason::PathRejected(_) => (DecisionKind::BadRequest, self.explained(400, &reason, Vec::new())),
            Reason::KeysUnavailable { retry_after } => {
                let seconds = retry_after.as_millis().div_ceil(1000).max(1).to_string();
                let response = self.explained(503, &reason, vec![("retry-after", seconds)]);
                (DecisionKind::Unavailable, response)
            }
            _ if self.challenges() => (DecisionKind::Challenge, self.challenge(&reason, &self.step_up_url(endpoint))),
            _ => {
                let attempts = self.context.attempts_before(|| self.demand.fingerprint(), self.env.now);
                if attempts >= self.demand.step_up.max_attempts {
                    return self.give_up(attempts, reason);
                }
                (DecisionKind::Redirect, self.redirect(self.step_up_url(endpoint), attempts + 1))
            }
        };
        self.decision(kind, reason, response)
    }

    fn decision(&self, kind: DecisionKind, reason: Reason, response: Response) -> Decision {
        let rules = self.demand.rules.clone();
        Decision { kind, reason, rules, response: Some(response), response_headers: Vec::new() }
    }

    fn challenges(&self) -> bool {
        match self.demand.answer {
            AnswerMode::Redirect => false,
            AnswerMode::Unauthorized => true,
            AnswerMode::Auto => self.context.kind != RequestKind::Navigation,
        }
    }

    fn step_up_url(&self, endpoint: &str) -> String {
        let max_age = self.demand.requirement.max_age;
        match &self.demand.step_up.login {
            Some(login) => login.url(&self.demand.step_up, max_age, &self.context.return_to),
            None => AuthorizationRequest {
                endpoint,
                client_id: &self.config.client.id,
                redirect_uri: &self.config.client.redirect_uri,
                step_up: &self.demand.step_up,
                max_age,
                return_path: self.context.return_path(),
                entropy: &(self.env.entropy)(),
            }
            .url(),
        }
    }

    fn redirect(&self, location: String, attempts: u32) -> Response {
        let now = self.env.now.as_millis() / 1000;
        let attempts = format!("{}.{attempts}.{now}", self.demand.fingerprint());
        let headers = vec![
            ("location", location),
            ("cache-control", "no-store".to_owned()),
            ("set-cookie", attempts_cookie(self.config, &attempts, ATTEMPTS_LIFETIME_SECS)),
        ];
        Response { status: 302, headers, body: Cow::Borrowed(""), grpc_status: None }
    }

    /// RFC 9470 section 3, RFC 6750 section 3.
    fn challenge(&self, reason: &Reason, step_up_url: &str) -> Response {
        let error = if reason.is_insufficient() { "insufficient_user_authentication" } else { "invalid_token" };
        let mut challenge = format!("Bearer error=\"{error}\", error_description={}", quoted(&reason.to_string()));
        let acr_values = self.demand.step_up.acr_values.join(" ");
        if !acr_values.is_empty() {
            challenge.push_str(&format!(", acr_values={}", quoted(&acr_values)));
        }
        if let Some(max_age) = self.demand.requirement.max_age {
            challenge.push_str(&format!(", max_age=\"{}\"", max_age.as_secs()));
        }
        self.problem(401, reason, vec![("www-authenticate", challenge)], Some(step_up_url))
    }

    /// Too many attempts: an explanation instead of yet another redirect. The count starts anew, so that the person
    /// may try again.
    fn give_up(&self, attempts: u32, because: Reason) -> Decision {
        let reason = Reason::StepUpFailed { attempts, because: Box::new(because) };
        let forget = vec![("set-cookie", attempts_cookie(self.config, "", 0))];
        let response = self.explained(403, &reason, forget);
        self.decision(DecisionKind::Forbidden, reason, response)
    }

    /// An answer that explains itself: a page to a browser, a problem document to anything else.
    fn explained(&self, status: u16, reason: &Reason, mut headers: Vec<(&'static str, String)>) -> Response {
        if self.context.kind != RequestKind::Navigation {
            return self.problem(status, reason, headers, None);
        }
        headers.extend(page::headers());
        headers.push(("cache-control", "no-store".to_owned()));
        Response { status, headers, body: page::render(status, reason).into(), grpc_status: None }
    }

    /// RFC 9457. A gRPC client gets the detail alone: Envoy makes the body its `grpc-message`.
    fn problem(
        &self,
        status: u16,
        reason: &Reason,
        mut headers: Vec<(&'static str, String)>,
        step_up_url: Option<&str>,
    ) -> Response {
        let no_store = ("cache-control", "no-store".to_owned());
        if self.context.kind == RequestKind::Grpc {
            headers.push(no_store);
            let grpc_status = match status {
                400 => GRPC_INVALID_ARGUMENT,
                401 => GRPC_UNAUTHENTICATED,
                403 => GRPC_PERMISSION_DENIED,
                _ => GRPC_UNAVAILABLE,
            };
            return Response { status, headers, body: reason.to_string().into(), grpc_status: Some(grpc_status) };
        }
        headers.extend([("content-type", "application/problem+json".to_owned()), no_store]);
        let mut body = json!({
            "title": page::title(status),
            "status": status,
            "detail": reason.to_string(),
            "reason": reason.code(),
        });
        if let (Some(url), Some(members)) = (step_up_url, body.as_object_mut()) {
            members.insert("step_up_url".to_owned(), url.into());
        }
        Response { status, headers, body: body.to_string().into(), grpc_status: None }
    }
}

fn attempts_cookie(config: &Config, value: &str, max_age: u64) -> String {
    let (name, secure) = match config.client.redirect_uri.starts_with("https:") {
        true => (SECURE_ATTEMPTS_COOKIE, "; Secure"),
        false => (ATTEMPTS_COOKIE, ""),
    };
    format!("{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}")
}

/// A quoted-string (RFC 9110 section 5.6.4).
fn quoted(text: &str) -> String {
    let visible = text.chars().filter(|character| matches!(character, ' '..='~'));
    let escaped: String = visible
        .flat_map(|character| matches!(character, '"' | '\\').then_some('\\').into_iter().chain([character]))
        .collect();
    format!("\"{escaped}\"")
}
