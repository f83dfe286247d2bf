//! What a rule asks of an ID Token, and whether a token proves it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::claims::VerifiedIdToken;
use crate::reason::Reason;
use crate::time::Timestamp;

/// What a requirement on `amr` asks the provider for, unless the configuration names something else.
pub const MULTI_FACTOR: &str = "http://schemas.openid.net/pape/policies/2007/06/multi-factor";

/// What one or several rules ask for. Everything in it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Conditions on `amr` (RFC 8176).
    pub amr: Vec<AmrCondition>,
    /// Conditions on `acr` (OpenID Connect Core section 2).
    pub acr: Vec<AcrCondition>,
    /// The greatest age of the login: `now - auth_time`.
    pub max_age: Option<Duration>,
    /// Conditions on further claims.
    pub claims: Vec<ClaimCondition>,
}

/// A condition on the values in `amr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AmrCondition {
    /// At least one of the values is there.
    AnyOf(Vec<String>),
    /// All of the values are there.
    AllOf(Vec<String>),
}

/// A condition on `acr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcrCondition {
    /// The values that satisfy it.
    pub accepted: Vec<String>,
    /// The values to ask the provider for, in order of preference.
    pub asked: Vec<String>,
}

/// A condition on any other claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimCondition {
    /// The claim's name, taken literally.
    pub claim: String,
    /// What its value must be.
    pub test: ClaimTest,
}

/// What a claim's value must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimTest {
    /// The claim is this value.
    Equals(Value),
    /// The claim is a list with this value in it.
    Contains(Value),
}

impl Requirement {
    /// Adds what another rule asks for: the result is at least as strict as either.
    pub fn unite(&mut self, other: &Self) {
        add_missing(&mut self.amr, &other.amr);
        add_missing(&mut self.acr, &other.acr);
        add_missing(&mut self.claims, &other.claims);
        self.max_age = match (self.max_age, other.max_age) {
            (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
            (mine, theirs) => mine.or(theirs),
        };
    }

    /// The `acr_values` that ask the provider for it: the values that satisfy every condition on `acr`, or multi-factor
    /// where there is only a condition on `amr`. A requirement of neither asks for none.
    #[must_use]
    pub fn acr_values(&self) -> Vec<String> {
        if self.acr.is_empty() && !self.amr.is_empty() {
            return vec![MULTI_FACTOR.to_owned()];
        }
        let mut asked: Vec<String> = Vec::new();
        for condition in &self.acr {
            add_missing(&mut asked, &condition.asked);
        }
        let satisfies_all = |value: &&String| self.acr.iter().all(|condition| condition.accepted.contains(value));
        let common: Vec<String> = asked.iter().filter(satisfies_all).cloned().collect();
        // Conditions that contradict each other: whatever is asked for, the gate explains in the end that it was not enough.
        if common.is_empty() { asked } else { common }
    }

    /// Whether the token proves all of it at this moment.
    ///
    /// # Errors
    /// The first thing that is not proven, in the order `amr`, `acr`, `auth_time`, other claims.
    pub fn evaluate(&self, token: &VerifiedIdToken, now: Timestamp) -> Result<(), Reason> {
        self.amr.iter().try_for_each(|condition| condition.evaluate(token.amr()))?;
        self.acr.iter().try_for_each(|condition| condition.evaluate(token.acr()))?;
        if let Some(max_age) = self.max_age {
            // Whole seconds, as providers count: they would find the same login still fresh, and the redirects would go round.
            let age = now.since(token.auth_time().ok_or(Reason::AuthTimeMissing)?);
            let age = Duration::from_secs(age.as_secs());
            if age > max_age {
                return Err(Reason::AuthTooOld { age, max_age });
            }
        }
        self.claims.iter().try_for_each(|condition| condition.evaluate(token))
    }
}

/// Appends what is not there yet, in order.
pub fn add_missing<T: Clone + PartialEq>(into: &mut Vec<T>, from: &[T]) {
    for item in from {
        if !into.contains(item) {
            into.push(item.clone());
        }
    }
}

impl AmrCondition {
    fn evaluate(&self, amr: Option<&[String]>) -> Result<(), Reason> {
        let amr = amr.ok_or(Reason::AmrMissing)?;
        let satisfied = match self {
            Self::AnyOf(values) => values.iter().any(|value| amr.contains(value)),
            Self::AllOf(values) => values.iter().all(|value| amr.contains(value)),
        };
        if satisfied { Ok(()) } else { Err(Reason::AmrInsufficient) }
    }
}

impl AcrCondition {
    fn evaluate(&self, acr: Option<&str>) -> Result<(), Reason> {
        let satisfied = acr.is_some_and(|acr| self.accepted.iter().any(|accepted| accepted == acr));
        if satisfied { Ok(()) } else { Err(Reason::AcrInsufficient) }
    }
}

impl ClaimCondition {
    fn evaluate(&self, token: &VerifiedIdToken) -> Result<(), Reason> {
        let value = token.claim(&self.claim);
        let satisfied = match &self.test {
            ClaimTest::Equals(expected) => value == Some(expected),
            ClaimTest::Contains(expected) => {
                value.and_then(Value::as_array).is_some_and(|items| items.contains(expected))
            }
        };
        if satisfied { Ok(()) } else { Err(Reason::ClaimInsufficient { claim: self.claim.as_str().into() }) }
    }
}
