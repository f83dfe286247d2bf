//! Why a request was decided as it was: stable codes, with both sides of a comparison where that helps.

use std::fmt;
use std::time::Duration;

use crate::time::{DisplayAge, DisplayDuration};

/// Why the code brought no ID Token (OpenID Connect Core section 3.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeFault {
    /// The token endpoint refused the code itself: it was used, has expired, or is another client's.
    CodeRefused,
    /// It answered with another OAuth error (RFC 6749 section 5.2).
    Refused(&'static str),
    /// There was no answer, or none of use.
    Unavailable(&'static str),
    /// It answered with something else than RFC 6749 section 5.1 and OpenID Connect ask for.
    Malformed(&'static str),
}

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
    /// The provider says that it cannot prove what was asked for (OpenID Connect Core Unmet Authentication Requirements 1.0).
    StepUpUnmet,
    /// What the rules ask for together does not fit into a cookie.
    StepUpTooLong,
    /// The request's host is one that the login does not cover.
    HostMismatch,
    /// The header fields cannot be read, so that identity fields could not be removed for certain.
    HeadersRejected,
    /// The person, or the provider, has said no (`access_denied`, RFC 6749 section 4.1.2.1).
    AuthorizationDenied,
    /// The provider would have to ask the person, and was told not to (OpenID Connect Core section 3.1.2.6).
    LoginRequired,
    /// The provider answered the authorization request with another error.
    ProviderError(&'static str),
    /// The callback's parameters are not an authorization response.
    CallbackMalformed(&'static str),
    /// The callback does not belong to a login that this browser has begun, or it is over.
    TransactionMissing,
    /// The login took too long.
    TransactionExpired,
    /// The authorization response comes from another issuer (RFC 9207).
    ResponseIssuerMismatch,
    /// The authorization request could not be pushed (RFC 9126).
    PushedAuthorizationFailed,
    /// The code brought no ID Token.
    TokenExchangeFailed(ExchangeFault),
    /// The new token was made for another login.
    NonceMismatch,
    /// The new token is of another person than the one who is logged in.
    SubjectMismatch,
    /// The login is complete.
    LoginCompleted,
    /// The person has logged out.
    LoggedOut,
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
    pub const CODES: [&'static str; 37] = [
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
        "step_up_too_long",
        "host_mismatch",
        "headers_rejected",
        "authorization_denied",
        "login_required",
        "provider_error",
        "callback_malformed",
        "transaction_missing",
        "transaction_expired",
        "response_issuer_mismatch",
        "pushed_authorization_failed",
        "token_exchange_failed",
        "nonce_mismatch",
        "subject_mismatch",
        "login_completed",
        "logged_out",
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
            Self::StepUpFailed { .. } | Self::StepUpUnmet => "step_up_failed",
            Self::StepUpTooLong => "step_up_too_long",
            Self::HostMismatch => "host_mismatch",
            Self::HeadersRejected => "headers_rejected",
            Self::AuthorizationDenied => "authorization_denied",
            Self::LoginRequired => "login_required",
            Self::ProviderError(_) => "provider_error",
            Self::CallbackMalformed(_) => "callback_malformed",
            Self::TransactionMissing => "transaction_missing",
            Self::TransactionExpired => "transaction_expired",
            Self::ResponseIssuerMismatch => "response_issuer_mismatch",
            Self::PushedAuthorizationFailed => "pushed_authorization_failed",
            Self::TokenExchangeFailed(_) => "token_exchange_failed",
            Self::NonceMismatch => "nonce_mismatch",
            Self::SubjectMismatch => "subject_mismatch",
            Self::LoginCompleted => "login_completed",
            Self::LoggedOut => "logged_out",
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
            Self::TokenExpired { ago } => write!(f, "the ID Token expired {} ago", DisplayAge(*ago)),
            Self::TokenNotYetValid(claim) => write!(f, "the ID Token's `{claim}` lies in the future"),
            Self::AmrMissing => f.write_str("the ID Token does not say how the person logged in (no `amr`)"),
            Self::AmrInsufficient => f.write_str("the person logged in by other means than the rule asks for (`amr`)"),
            Self::AcrInsufficient => f.write_str("the login's level is not one that the rule accepts (`acr`)"),
            Self::AuthTimeMissing => {
                f.write_str("the ID Token does not say when the person logged in (no `auth_time`)")
            }
            Self::AuthTooOld { age, max_age } => {
                write!(f, "the login is {} old, the rule allows {}", DisplayAge(*age), DisplayDuration(*max_age))
            }
            Self::ClaimInsufficient { claim } => {
                write!(f, "the claim `{claim}` is not what the rule asks for")
            }
            Self::KeysUnavailable { .. } => f.write_str("the identity provider's keys are not available"),
            Self::StepUpFailed { attempts, because } if **because == Self::TokenMissing => {
                write!(
                    f,
                    "after {attempts} attempts there still is no ID Token: its cookie does not come with this request"
                )
            }
            Self::StepUpFailed { attempts, because } => {
                write!(f, "{attempts} attempts brought no sufficient login: {because}")
            }
            Self::StepUpUnmet => f.write_str("the identity provider cannot prove what the rule asks for"),
            Self::StepUpTooLong => f.write_str("what the rules ask for together does not fit into a cookie"),
            Self::HostMismatch => f.write_str(
                "the login is for another host (that of `client.redirect_uri`, or below `callback.cookie.domain`)",
            ),
            Self::HeadersRejected => f.write_str("the request's header fields cannot be read"),
            Self::AuthorizationDenied => f.write_str("the login was cancelled, or the identity provider refused it"),
            Self::LoginRequired => f.write_str("the identity provider needs the person to log in"),
            Self::ProviderError(error) => write!(f, "the identity provider answered with an error: {error}"),
            Self::CallbackMalformed(what) => write!(f, "the identity provider's answer cannot be read: {what}"),
            Self::TransactionMissing => {
                f.write_str("this is no answer to a login that this browser has begun, or that login is over")
            }
            Self::TransactionExpired => f.write_str("the login took too long"),
            Self::ResponseIssuerMismatch => f.write_str("the answer comes from another identity provider"),
            Self::PushedAuthorizationFailed => {
                f.write_str("the identity provider did not take the authorization request")
            }
            Self::TokenExchangeFailed(fault) => write!(f, "the code brought no ID Token: {fault}"),
            Self::NonceMismatch => f.write_str("the new ID Token was made for another login (`nonce`)"),
            Self::SubjectMismatch => f.write_str("the new ID Token is of another person than the one who is logged in"),
            Self::LoginCompleted => f.write_str("the login is complete"),
            Self::LoggedOut => f.write_str("the person has logged out"),
        }
    }
}

impl fmt::Display for ExchangeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CodeRefused => {
                f.write_str("the identity provider refused it, since it was used before or has expired")
            }
            Self::Refused(error) => write!(f, "the token endpoint answered `{error}`"),
            Self::Unavailable(what) => write!(f, "the token endpoint gave no answer ({what})"),
            Self::Malformed(what) => write!(f, "the token endpoint's answer cannot be used: {what}"),
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
