//! Why a request was decided as it was: stable codes, with both sides of a comparison where that helps.

use std::fmt;
use std::time::Duration;

use crate::time::DisplayDuration;

/// The finding that decided a request. [`Reason::code`] is stable; the text of `Display` is for people.
///
/// No variant carries a token, a claim's value or anything else that belongs to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// No rule matches the request.
    NotProtected,
    /// Every requirement is met.
    Satisfied,
    /// The path cannot be read safely, and some reading of it falls under a rule.
    PathRejected(PathDefect),
    /// The request carries no ID Token.
    TokenMissing,
    /// Two different tokens claim to be the one.
    TokenAmbiguous,
    /// The token is not a well-formed ID Token.
    TokenMalformed(&'static str),
    /// The token's header asks for something that is not allowed: its algorithm, `crit`, `typ`, or a key that does
    /// not fit.
    AlgorithmNotAllowed(&'static str),
    /// No key of the provider fits the token, not even after a refetch.
    KeyUnknown,
    /// The signature does not verify.
    SignatureInvalid,
    /// `iss` is another issuer.
    IssuerMismatch,
    /// `aud` or `azp` names somebody else.
    AudienceMismatch,
    /// `exp` has passed.
    TokenExpired {
        /// For how long it has been expired, leeway included.
        ago: Duration,
    },
    /// `nbf`, `iat` or `auth_time` lies in the future.
    TokenNotYetValid(&'static str),
    /// The token has no `amr`.
    AmrMissing,
    /// `amr` lacks a value that the rule asks for.
    AmrInsufficient,
    /// `acr` is absent or not one that the rule accepts.
    AcrInsufficient,
    /// The rule limits the age of the login, but the token has no `auth_time`.
    AuthTimeMissing,
    /// The login is older than the rule allows.
    AuthTooOld {
        /// `now - auth_time`.
        age: Duration,
        /// What the rule allows.
        max_age: Duration,
    },
    /// Another claim that the rule asks for is absent or different.
    ClaimInsufficient {
        /// The claim's name.
        claim: Box<str>,
    },
    /// The provider's keys (or its metadata) were never fetched, or are too old.
    KeysUnavailable {
        /// When another try makes sense.
        retry_after: Duration,
    },
    /// Too many step-ups brought no token that satisfies the rule.
    StepUpFailed {
        /// How many step-ups were tried.
        attempts: u32,
        /// Why the last token did not do.
        because: Box<Reason>,
    },
}

/// What makes a path unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathDefect {
    /// The request has no path.
    Absent,
    /// A NUL or another control character, as itself or percent-encoded.
    ControlCharacter,
    /// A `%` that two hexadecimal digits do not follow.
    MalformedEscape,
    /// An overlong UTF-8 encoding, which hides an ASCII character.
    OverlongEncoding,
    /// More plausible readings than the gate will follow.
    TooManyReadings,
}

impl Reason {
    /// Every code, in the order of the decision table.
    pub const CODES: [&'static str; 21] = [
        "not_protected",
        "path_rejected",
        "token_missing",
        "token_ambiguous",
        "token_malformed",
        "algorithm_not_allowed",
        "key_unknown",
        "signature_invalid",
        "issuer_mismatch",
        "audience_mismatch",
        "token_expired",
        "token_not_yet_valid",
        "amr_missing",
        "amr_insufficient",
        "acr_insufficient",
        "auth_time_missing",
        "auth_too_old",
        "claim_insufficient",
        "keys_unavailable",
        "step_up_failed",
        "satisfied",
    ];

    /// The stable code, for metrics, logs and bodies.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotProtected => "not_protected",
            Self::Satisfied => "satisfied",
            Self::PathRejected(_) => "path_rejected",
            Self::TokenMissing => "token_missing",
            Self::TokenAmbiguous => "token_ambiguous",
            Self::TokenMalformed(_) => "token_malformed",
            Self::AlgorithmNotAllowed(_) => "algorithm_not_allowed",
            Self::KeyUnknown => "key_unknown",
            Self::SignatureInvalid => "signature_invalid",
            Self::IssuerMismatch => "issuer_mismatch",
            Self::AudienceMismatch => "audience_mismatch",
            Self::TokenExpired { .. } => "token_expired",
            Self::TokenNotYetValid(_) => "token_not_yet_valid",
            Self::AmrMissing => "amr_missing",
            Self::AmrInsufficient => "amr_insufficient",
            Self::AcrInsufficient => "acr_insufficient",
            Self::AuthTimeMissing => "auth_time_missing",
            Self::AuthTooOld { .. } => "auth_too_old",
            Self::ClaimInsufficient { .. } => "claim_insufficient",
            Self::KeysUnavailable { .. } => "keys_unavailable",
            Self::StepUpFailed { .. } => "step_up_failed",
        }
    }

    /// Whether the token is valid as such and only proves too little (RFC 9470's `insufficient_user_authentication`).
    #[must_use]
    pub const fn is_insufficient(&self) -> bool {
        matches!(
            self,
            Self::AmrMissing
                | Self::AmrInsufficient
                | Self::AcrInsufficient
                | Self::AuthTimeMissing
                | Self::AuthTooOld { .. }
                | Self::ClaimInsufficient { .. }
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotProtected => f.write_str("no rule matches"),
            Self::Satisfied => f.write_str("every requirement is met"),
            Self::PathRejected(defect) => write!(f, "the path cannot be read safely: {defect}"),
            Self::TokenMissing => f.write_str("there is no ID Token"),
            Self::TokenAmbiguous => f.write_str("there are two different ID Tokens"),
            Self::TokenMalformed(what) => write!(f, "the ID Token is malformed: {what}"),
            Self::AlgorithmNotAllowed(what) => write!(f, "the ID Token's header is not allowed: {what}"),
            Self::KeyUnknown => f.write_str("the provider has no key for the ID Token"),
            Self::SignatureInvalid => f.write_str("the ID Token's signature does not verify"),
            Self::IssuerMismatch => f.write_str("the ID Token comes from another issuer"),
            Self::AudienceMismatch => f.write_str("the ID Token was made for another client"),
            Self::TokenExpired { ago } => write!(f, "the ID Token expired {} ago", DisplayDuration(*ago)),
            Self::TokenNotYetValid(claim) => write!(f, "the ID Token's `{claim}` lies in the future"),
            Self::AmrMissing => f.write_str("the ID Token does not say how the person logged in (no `amr`)"),
            Self::AmrInsufficient => f.write_str("the person logged in by other means than the rule asks for (`amr`)"),
            Self::AcrInsufficient => f.write_str("the login's level is not one that the rule accepts (`acr`)"),
            Self::AuthTimeMissing => {
                f.write_str("the ID Token does not say when the person logged in (no `auth_time`)")
            }
            Self::AuthTooOld { age, max_age } => {
                write!(f, "the login is {} old, the rule allows {}", DisplayDuration(*age), DisplayDuration(*max_age))
            }
            Self::ClaimInsufficient { claim } => {
                write!(f, "the claim `{claim}` is not what the rule asks for")
            }
            Self::KeysUnavailable { .. } => f.write_str("the identity provider's keys are not available"),
            Self::StepUpFailed { attempts, because } => {
                write!(f, "{attempts} attempts brought no sufficient login: {because}")
            }
        }
    }
}

impl fmt::Display for PathDefect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "the request has none",
            Self::ControlCharacter => "it has a control character",
            Self::MalformedEscape => "it has a malformed percent-escape",
            Self::OverlongEncoding => "it has an overlong UTF-8 encoding",
            Self::TooManyReadings => "it has too many plausible readings",
        })
    }
}
