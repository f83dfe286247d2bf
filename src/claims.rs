//! The claims of an ID Token (OpenID Connect Core section 2) and their validation (section 3.1.3.7).

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::jose::SignedClaims;
use crate::reason::Reason;
use crate::time::Timestamp;

/// The greatest NumericDate that is accepted: the end of the year 262142, where jwt-compact's calendar ends. A JSON number
/// carries it exactly.
pub const MAX_NUMERIC_DATE: u64 = 8_210_266_876_799;

/// An ID Token with a checked signature, well-formed, from the issuer, and made for this client. Whether it is
/// still valid is asked anew each time: [`Self::check_times`].
#[derive(Clone)]
pub struct VerifiedIdToken {
    expires: Timestamp,
    not_before: Option<Timestamp>,
    issued_at: Timestamp,
    auth_time: Option<Timestamp>,
    amr: Option<Vec<String>>,
    acr: Option<String>,
    claims: Map<String, Value>,
}

impl fmt::Debug for VerifiedIdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedIdToken").finish_non_exhaustive()
    }
}

/// Whom a token must come from, and whom it must be for.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Equal to `iss`, byte for byte.
    pub issuer: &'a str,
    /// `aud` and `azp` name this client …
    pub client_id: &'a str,
    /// … or one of these, and nobody else.
    pub audiences: &'a [String],
}

impl VerifiedIdToken {
    /// Checks everything that does not change with time.
    ///
    /// # Errors
    /// [`Reason::TokenMalformed`], [`Reason::IssuerMismatch`], [`Reason::AudienceMismatch`].
    pub fn accept(claims: SignedClaims, expected: Expected<'_>) -> Result<Self, Reason> {
        let claims = claims.into_inner();
        let malformed = Reason::TokenMalformed;
        // OpenID Connect Back-Channel Logout section 2.4: what a Logout Token has, and an ID Token does not.
        if claims.contains_key("events") {
            return Err(malformed("a Logout Token"));
        }
        let issuer = text(&claims, "iss", "`iss` is not a string")?.ok_or(malformed("no `iss`"))?;
        let subject = text(&claims, "sub", "`sub` is not a string")?.ok_or(malformed("no `sub`"))?;
        if subject.is_empty() {
            return Err(malformed("`sub` is empty"));
        }
        let audience = audience(&claims)?;
        let authorized_party = text(&claims, "azp", "`azp` is not a string")?;
        let token = Self {
            expires: time(&claims, "exp", "`exp` is not a whole number of seconds")?.ok_or(malformed("no `exp`"))?,
            not_before: time(&claims, "nbf", "`nbf` is not a whole number of seconds")?,
            issued_at: time(&claims, "iat", "`iat` is not a whole number of seconds")?.ok_or(malformed("no `iat`"))?,
            auth_time: time(&claims, "auth_time", "`auth_time` is not a whole number of seconds")?,
            amr: strings(&claims, "amr", "`amr` is not a list of strings")?,
            acr: text(&claims, "acr", "`acr` is not a string")?.map(str::to_owned),
            claims: Map::new(),
        };
        if issuer != expected.issuer {
            return Err(Reason::IssuerMismatch);
        }
        let accepted =
            |name: &str| name == expected.client_id || expected.audiences.iter().any(|audience| audience == name);
        if audience.is_empty() || !audience.into_iter().chain(authorized_party).all(accepted) {
            return Err(Reason::AudienceMismatch);
        }
        Ok(Self { claims, ..token })
    }

    /// Checks `exp` (exclusive), `nbf`, `iat` and `auth_time` against the clock.
    ///
    /// # Errors
    /// [`Reason::TokenExpired`], [`Reason::TokenNotYetValid`].
    pub fn check_times(&self, now: Timestamp, leeway: Duration) -> Result<(), Reason> {
        let end = self.expires.plus(leeway);
        if now >= end {
            return Err(Reason::TokenExpired { ago: now.since(end) });
        }
        let latest = now.plus(leeway);
        let starts = [("nbf", self.not_before), ("iat", Some(self.issued_at)), ("auth_time", self.auth_time)];
        match starts.into_iter().find(|(_, start)| start.is_some_and(|start| start > latest)) {
            Some((claim, _)) => Err(Reason::TokenNotYetValid(claim)),
            None => Ok(()),
        }
    }

    /// Whom the token is about.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.claims.get("sub").and_then(Value::as_str).unwrap_or_default()
    }

    /// When the token expires.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// When the token begins to be valid, where it says so.
    #[must_use]
    pub const fn not_before(&self) -> Option<Timestamp> {
        self.not_before
    }

    /// When the token was issued.
    #[must_use]
    pub const fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// When the person logged in.
    #[must_use]
    pub const fn auth_time(&self) -> Option<Timestamp> {
        self.auth_time
    }

    /// How the person logged in.
    #[must_use]
    pub fn amr(&self) -> Option<&[String]> {
        self.amr.as_deref()
    }

    /// The level of the login.
    #[must_use]
    pub fn acr(&self) -> Option<&str> {
        self.acr.as_deref()
    }

    /// Any claim.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }
}

/// A claim that is a string. One of another type is a refusal, never "absent".
fn text<'a>(claims: &'a Map<String, Value>, name: &str, problem: &'static str) -> Result<Option<&'a str>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Reason::TokenMalformed(problem)),
    }
}

/// A claim that is a NumericDate. Fractions, negative numbers and times beyond any calendar are refused.
fn time(claims: &Map<String, Value>, name: &str, problem: &'static str) -> Result<Option<Timestamp>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_u64().filter(|secs| *secs <= MAX_NUMERIC_DATE) {
            Some(secs) => Ok(Some(Timestamp::from_secs(secs))),
            None => Err(Reason::TokenMalformed(problem)),
        },
    }
}

fn strings(claims: &Map<String, Value>, name: &str, problem: &'static str) -> Result<Option<Vec<String>>, Reason> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let items = value.as_array().ok_or(Reason::TokenMalformed(problem))?;
    let strings = items.iter().map(|item| item.as_str().map(str::to_owned).ok_or(Reason::TokenMalformed(problem)));
    strings.collect::<Result<_, _>>().map(Some)
}

fn audience(claims: &Map<String, Value>) -> Result<Vec<&str>, Reason> {
    let problem = Reason::TokenMalformed("`aud` is neither a string nor a list of strings");
    match claims.get("aud") {
        None => Err(Reason::TokenMalformed("no `aud`")),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(items)) => items.iter().map(|item| item.as_str().ok_or_else(|| problem.clone())).collect(),
        Some(_) => Err(problem),
    }
}
