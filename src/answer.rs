//! From a reason to a decision, and to the answer that a person or a client gets.

mod context;
mod page;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::claims::VerifiedIdToken;
use crate::config::{Config, TokenConfig};
use crate::env::Env;
use crate::http::{RequestEdits, Response};
use crate::reason::{ExchangeFault, Reason};
use crate::rules::{AnswerMode, Demand};

pub use context::{Attempts, RequestContext, RequestKind};

/// How long a failed step-up counts, in seconds.
pub const ATTEMPTS_LIFETIME_SECS: u64 = 300;

/// When another try makes sense after an answer of the provider that was no good, in seconds.
const RETRY_AFTER_SECS: u64 = 5;

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
    /// What changes in the request before it goes on to the app.
    pub request: RequestEdits,
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

    const fn status(self) -> u16 {
        match self {
            Self::Forward | Self::Report => 200,
            Self::Redirect => 302,
            Self::Challenge => 401,
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::Unavailable => 503,
        }
    }

    /// The kind of an answer that explains itself.
    const fn of_failure(reason: &Reason) -> Self {
        match reason {
            Reason::KeysUnavailable { .. }
            | Reason::PushedAuthorizationFailed
            | Reason::ProviderError(_)
            | Reason::TokenExchangeFailed(
                ExchangeFault::Unavailable(_) | ExchangeFault::Refused(_) | ExchangeFault::Malformed(_),
            ) => Self::Unavailable,
            Reason::PathRejected(_)
            | Reason::HeadersRejected
            | Reason::CallbackMalformed(_)
            | Reason::TransactionMissing
            | Reason::TransactionExpired
            | Reason::ResponseIssuerMismatch
            | Reason::TokenExchangeFailed(ExchangeFault::CodeRefused) => Self::BadRequest,
            _ => Self::Forbidden,
        }
    }
}

impl Decision {
    /// No rule applies.
    pub(crate) const fn not_protected(request: RequestEdits) -> Self {
        Self {
            kind: DecisionKind::Forward,
            reason: Reason::NotProtected,
            rules: Vec::new(),
            response: None,
            request,
            response_headers: Vec::new(),
        }
    }

    /// The request goes on to the app, because everything asked for is proven. A count of step-ups for it is over.
    pub(crate) fn satisfied(demand: &Demand, config: &Config, attempts: &Attempts) -> Self {
        let mut decision = Self::forward(DecisionKind::Forward, Reason::Satisfied, demand, &config.token);
        if attempts.counted(&demand.rules).is_some() {
            decision.response_headers.push(("set-cookie", clear_attempts(config)));
        }
        decision
    }

    /// The request goes on to the app, though not everything asked for is proven: the rules only report.
    pub(crate) fn reported(demand: &Demand, reason: Reason, token: &TokenConfig) -> Self {
        Self::forward(DecisionKind::Report, reason, demand, token)
    }

    fn forward(kind: DecisionKind, reason: Reason, demand: &Demand, token: &TokenConfig) -> Self {
        Self {
            kind,
            reason,
            rules: demand.rules.to_vec(),
            response: None,
            request: RequestEdits::default(),
            response_headers: vec![vary(token)],
        }
    }

    fn answered(kind: DecisionKind, reason: Reason, rules: &[Arc<str>], response: Response) -> Self {
        Self {
            kind,
            reason,
            rules: rules.to_vec(),
            response: Some(response),
            request: RequestEdits::default(),
            response_headers: Vec::new(),
        }
    }

    /// A redirect that sets cookies.
    pub(crate) fn redirect(reason: Reason, rules: &[Arc<str>], location: String, cookies: Vec<String>) -> Self {
        let mut headers = vec![("location", location), ("cache-control", "no-store".to_owned())];
        headers.extend(cookies.into_iter().map(|cookie| ("set-cookie", cookie)));
        let response = Response { status: 302, headers, body: Cow::Borrowed(""), grpc_status: None };
        Self::answered(DecisionKind::Redirect, reason, rules, response)
    }
}

/// What answers are made from.
pub struct Answerer<'a> {
    pub config: &'a Config,
    pub context: &'a RequestContext,
    /// The rules that ask, for logs and metrics.
    pub rules: &'a [Arc<str>],
    pub env: Env<'a>,
}

/// An answer that explains why a request or a login got no further.
pub struct Failure<'a> {
    pub reason: Reason,
    /// Where to try again; the home page without it.
    pub try_again: Option<&'a str>,
    pub cookies: Vec<String>,
    /// What was asked for and what came.
    pub comparison: Option<Comparison>,
}

impl Failure<'_> {
    /// An answer that only explains itself.
    pub const fn of(reason: Reason) -> Self {
        Self { reason, try_again: None, cookies: Vec::new(), comparison: None }
    }
}

/// What the provider was asked for, and what came, by the names of parameters and claims.
pub struct Comparison {
    asked: Map<String, Value>,
    came: Map<String, Value>,
}

impl Comparison {
    /// Compares what a rule asks for with a token; without one nothing came.
    pub fn of(demand: &Demand, token: Option<&VerifiedIdToken>) -> Self {
        let max_age = demand.requirement.max_age.map(|max_age| Value::from(max_age.as_secs()));
        let acr_values = Some(&demand.step_up.acr_values).filter(|values| !values.is_empty());
        let asked = [("acr_values", acr_values.map(|values| Value::from(values.join(" ")))), ("max_age", max_age)];
        let came = ["amr", "acr", "auth_time"]
            .map(|claim| (claim, Some(token.and_then(|token| token.claim(claim)).cloned().unwrap_or(Value::Null))));
        let members = |list: &[(&str, Option<Value>)]| {
            list.iter().filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?))).collect()
        };
        Self { asked: members(&asked), came: members(&came) }
    }

    fn text(&self) -> String {
        let list = |members: &Map<String, Value>| {
            let one = |(name, value): (&String, &Value)| match value {
                Value::Null => format!("no {name}"),
                Value::String(text) => format!("{name} {text}"),
                other => format!("{name} {other}"),
            };
            members.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        match self.asked.is_empty() {
            true => format!("What came: {}.", list(&self.came)),
            false => format!("Asked for: {}. What came: {}.", list(&self.asked), list(&self.came)),
        }
    }
}

impl Answerer<'_> {
    /// The cookie that counts step-ups for these rules.
    pub fn counted(&self, demand: &Demand, attempts: u32) -> String {
        let count = format!("{}.{attempts}.{}", demand.rules.fingerprint(), self.env.now.as_secs());
        attempts_cookie(self.config, &count, ATTEMPTS_LIFETIME_SECS)
    }

    /// Whether a step-up is answered with 401.
    pub fn challenges(&self, demand: &Demand) -> bool {
        match demand.answer {
            AnswerMode::Redirect => false,
            AnswerMode::Unauthorized => true,
            AnswerMode::Auto => self.context.kind != RequestKind::Navigation,
        }
    }

    /// 401 (RFC 9470 section 3, RFC 6750 section 3).
    pub fn challenge(&self, demand: &Demand, reason: Reason, step_up_url: Option<&str>) -> Decision {
        let error = if reason.is_insufficient() { "insufficient_user_authentication" } else { "invalid_token" };
        let mut challenge = format!("Bearer error=\"{error}\", error_description={}", quoted(&reason.to_string()));
        let acr_values = demand.step_up.acr_values.join(" ");
        if !acr_values.is_empty() {
            challenge.push_str(&format!(", acr_values={}", quoted(&acr_values)));
        }
        if let Some(max_age) = demand.requirement.max_age {
            challenge.push_str(&format!(", max_age=\"{}\"", max_age.as_secs()));
        }
        let url = step_up_url.map(|url| ("step_up_url".to_owned(), Value::from(url)));
        let headers = vec![("www-authenticate", challenge)];
        let response = self.problem(DecisionKind::Challenge, &reason, headers, url);
        Decision::answered(DecisionKind::Challenge, reason, self.rules, response)
    }

    /// Too many attempts: an explanation instead of yet another redirect. The count starts anew, so that the person
    /// may try again.
    pub fn give_up(
        &self,
        demand: &Demand,
        token: Option<&VerifiedIdToken>,
        attempts: u32,
        failure: Failure<'_>,
    ) -> Decision {
        let mut cookies = vec![clear_attempts(self.config)];
        cookies.extend(failure.cookies);
        let because = failure.reason;
        // Where no token comes, there is nothing to compare.
        let comparison = (because != Reason::TokenMissing).then(|| Comparison::of(demand, token));
        let reason = match because {
            because @ Reason::StepUpUnmet => because,
            because => Reason::StepUpFailed { attempts, because: Box::new(because) },
        };
        self.failure(Failure { reason, try_again: failure.try_again, cookies, comparison })
    }

    /// An answer that explains itself: a page to a browser, a problem document to anything else.
    pub fn failure(&self, failure: Failure<'_>) -> Decision {
        let Failure { reason, try_again, cookies, comparison } = failure;
        let kind = DecisionKind::of_failure(&reason);
        let mut headers: Vec<(&'static str, String)> =
            cookies.into_iter().map(|cookie| ("set-cookie", cookie)).collect();
        if kind == DecisionKind::Unavailable {
            let seconds = match &reason {
                Reason::KeysUnavailable { retry_after } => retry_after.as_millis().div_ceil(1000).max(1).to_string(),
                _ => RETRY_AFTER_SECS.to_string(),
            };
            headers.push(("retry-after", seconds));
        }
        let response = if self.context.kind == RequestKind::Navigation {
            let own = self.config.callback.as_ref().and_then(|callback| callback.error_page.as_ref());
            headers.extend(page::headers(own.is_some()));
            headers.push(("cache-control", "no-store".to_owned()));
            let mut detail = reason.to_string();
            if let Some(comparison) = &comparison {
                detail = format!("{detail}. {}", comparison.text());
            }
            let text = if reason == Reason::HostMismatch { "Main page" } else { "Try again" };
            let link = try_again.map_or(("/", "Home page"), |path| (path, text));
            let body = page::render(own, &reason, &detail, link).into();
            Response { status: kind.status(), headers, body, grpc_status: None }
        } else {
            let members = comparison.map(|Comparison { asked, came }| [("asked", asked), ("came", came)]);
            let members = members.into_iter().flatten().map(|(name, value)| (name.to_owned(), Value::Object(value)));
            self.problem(kind, &reason, headers, members)
        };
        Decision::answered(kind, reason, self.rules, response)
    }

    /// RFC 9457. A gRPC client gets the detail alone: Envoy makes the body its `grpc-message`.
    fn problem(
        &self,
        kind: DecisionKind,
        reason: &Reason,
        mut headers: Vec<(&'static str, String)>,
        members: impl IntoIterator<Item = (String, Value)>,
    ) -> Response {
        let status = kind.status();
        let no_store = ("cache-control", "no-store".to_owned());
        if self.context.kind == RequestKind::Grpc {
            headers.push(no_store);
            let grpc_status = match kind {
                DecisionKind::BadRequest => GRPC_INVALID_ARGUMENT,
                DecisionKind::Challenge => GRPC_UNAUTHENTICATED,
                DecisionKind::Forbidden => GRPC_PERMISSION_DENIED,
                _ => GRPC_UNAVAILABLE,
            };
            return Response { status, headers, body: reason.to_string().into(), grpc_status: Some(grpc_status) };
        }
        headers.extend([("content-type", "application/problem+json".to_owned()), no_store]);
        let title = match kind {
            DecisionKind::Challenge => "A stronger login is needed",
            _ => page::words(reason).0,
        };
        let mut body = json!({
            "title": title,
            "status": status,
            "detail": reason.to_string(),
            "reason": reason.code(),
        });
        if let Some(all) = body.as_object_mut() {
            all.extend(members);
        }
        Response { status, headers, body: body.to_string().into(), grpc_status: None }
    }
}

fn attempts_cookie(config: &Config, value: &str, max_age: u64) -> String {
    let is_secure = config.client.is_secure();
    let (name, secure) = (Attempts::cookie(is_secure), if is_secure { "; Secure" } else { "" });
    format!("{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}")
}

/// What the app answers depends on who asks, which caches must know.
pub fn vary(token: &TokenConfig) -> (&'static str, String) {
    let fields = match &token.header {
        Some(header) => format!("Cookie, {header}"),
        None => "Cookie".to_owned(),
    };
    ("vary", fields)
}

/// The cookie that ends the count of step-ups.
pub fn clear_attempts(config: &Config) -> String {
    attempts_cookie(config, "", 0)
}

/// A quoted-string (RFC 9110 section 5.6.4).
fn quoted(text: &str) -> String {
    let visible = text.chars().filter(|character| matches!(character, ' '..='~'));
    let escaped: String = visible
        .flat_map(|character| matches!(character, '"' | '\\').then_some('\\').into_iter().chain([character]))
        .collect();
    format!("\"{escaped}\"")
}
