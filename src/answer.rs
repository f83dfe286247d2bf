//! From a reason to a decision, and to the answer that a person or a client gets.

mod context;
mod page;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::config::{Config, TokenConfig};
use crate::encoding::base64url_encode;
use crate::env::Env;
use crate::http::Response;
use crate::oidc::AuthorizationRequest;
use crate::reason::Reason;
use crate::rules::{AnswerMode, Demand};

pub use context::RequestContext;
use context::{ATTEMPTS_COOKIE, RequestKind, SECURE_ATTEMPTS_COOKIE};

/// How long a failed step-up counts, in seconds.
pub const ATTEMPTS_LIFETIME_SECS: u64 = 300;

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

    /// The request goes on to the app, because everything asked for is proven.
    pub(crate) fn satisfied(demand: &Demand, token: &TokenConfig) -> Self {
        Self::forward(DecisionKind::Forward, Reason::Satisfied, demand, token)
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
                let attempts = self.context.attempts(&fingerprint(self.demand));
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
        let attempts = format!("{}.{attempts}", fingerprint(self.demand));
        let headers = vec![
            ("location", location),
            ("cache-control", "no-store".to_owned()),
            ("set-cookie", self.attempts_cookie(&attempts, ATTEMPTS_LIFETIME_SECS)),
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
        let mut response = self.problem(401, reason, vec![("www-authenticate", challenge)], Some(step_up_url));
        response.grpc_status = self.grpc(16);
        response
    }

    /// Too many attempts: an explanation instead of yet another redirect. The count starts anew, so that the person
    /// may try again.
    fn give_up(&self, attempts: u32, because: Reason) -> Decision {
        let reason = Reason::StepUpFailed { attempts, because: Box::new(because) };
        let forget = vec![("set-cookie", self.attempts_cookie("", 0))];
        let response = self.explained(403, &reason, forget);
        self.decision(DecisionKind::Forbidden, reason, response)
    }

    /// An answer that explains itself: a page to a browser, a problem document to anything else.
    fn explained(&self, status: u16, reason: &Reason, mut headers: Vec<(&'static str, String)>) -> Response {
        if self.context.kind != RequestKind::Navigation {
            let mut response = self.problem(status, reason, headers, None);
            response.grpc_status = self.grpc(match status {
                400 => 3,
                403 => 7,
                _ => 14,
            });
            return response;
        }
        headers.extend(page::headers());
        headers.push(("cache-control", "no-store".to_owned()));
        Response { status, headers, body: page::render(status, reason).into(), grpc_status: None }
    }

    /// RFC 9457.
    fn problem(
        &self,
        status: u16,
        reason: &Reason,
        mut headers: Vec<(&'static str, String)>,
        step_up_url: Option<&str>,
    ) -> Response {
        headers.push(("content-type", "application/problem+json".to_owned()));
        headers.push(("cache-control", "no-store".to_owned()));
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

    fn grpc(&self, status: u32) -> Option<u32> {
        (self.context.kind == RequestKind::Grpc).then_some(status)
    }

    fn attempts_cookie(&self, value: &str, max_age: u64) -> String {
        let (name, secure) = if self.config.client.redirect_uri.starts_with("https:") {
            (SECURE_ATTEMPTS_COOKIE, "; Secure")
        } else {
            (ATTEMPTS_COOKIE, "")
        };
        format!("{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}")
    }
}

/// A short name for a set of rules, to count attempts by.
fn fingerprint(demand: &Demand) -> String {
    let mut hash = Sha256::new();
    for name in &demand.rules {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name.as_bytes());
    }
    base64url_encode(hash.finalize().get(..9).unwrap_or_default())
}

/// A quoted-string (RFC 9110 section 5.6.4).
fn quoted(text: &str) -> String {
    let visible = text.chars().filter(|character| matches!(character, ' '..='~'));
    let escaped: String = visible
        .flat_map(|character| matches!(character, '"' | '\\').then_some('\\').into_iter().chain([character]))
        .collect();
    format!("\"{escaped}\"")
}
