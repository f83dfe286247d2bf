//! What the gate has to remember of a login under way.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::cookies::MAX_COOKIE_VALUE_BYTES;
use crate::encoding::base64url_encode;
use crate::rules::Demand;
use crate::seal::{Purpose, SealingKeys, sealed_len};
use crate::time::Timestamp;

/// How long a login may take.
pub const TRANSACTION_LIFETIME: Duration = Duration::from_secs(600);

/// How long a link that starts a login works.
pub const START_LIFETIME: Duration = Duration::from_secs(3600);

/// A login under way. It is sealed into a cookie whose name has its `state`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// `nonce`, which the new token must repeat.
    pub nonce: String,
    /// The PKCE code verifier (RFC 7636 section 4.1).
    pub verifier: String,
    /// What the new token must prove.
    pub demand: Demand,
    /// The path and query to come back to.
    pub return_to: String,
    /// The origin to come back to, where it is not that of the callback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The digest of the `sub` that the browser's token had, if that was still valid.
    pub subject: Option<String>,
    /// When it began, in seconds since the Unix epoch.
    pub issued_at: u64,
    /// How many logins in a row, with this one.
    pub attempts: u32,
}

impl Transaction {
    /// Seals it. Where it is too long for a cookie, the way back loses its query, then its path; `None` when that does not help.
    #[must_use]
    pub fn seal(&self, keys: &SealingKeys, state: &str, entropy: &[u8; 32]) -> Option<String> {
        let (path, _) = self.return_to.split_once('?').unwrap_or((&self.return_to, ""));
        [self.return_to.as_str(), path, "/"].into_iter().find_map(|return_to| {
            let shortened = Self { return_to: return_to.to_owned(), ..self.clone() };
            seal(keys, Purpose::Transaction(state), &shortened, entropy)
        })
    }

    /// Opens the transaction of this `state`.
    #[must_use]
    pub fn open(keys: &SealingKeys, state: &str, sealed: &str) -> Option<Self> {
        open(keys, Purpose::Transaction(state), sealed)
    }

    /// Where to come back to.
    #[must_use]
    pub fn way_back(&self) -> String {
        way_back(self.origin.as_deref(), &self.return_to)
    }

    /// When it began.
    #[must_use]
    pub const fn issued_at(&self) -> Timestamp {
        Timestamp::from_secs(self.issued_at)
    }

    /// Whether it has taken too long.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now.since(self.issued_at()) >= TRANSACTION_LIFETIME
    }
}

/// What a link that starts a login has to say: scripts get it with a 401, where a cookie would be one too many.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// What a token must prove.
    pub demand: Demand,
    /// The path and query to come back to.
    pub return_to: String,
    /// The origin to come back to, where it is not that of the callback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// When the link was made, in seconds since the Unix epoch.
    pub issued_at: u64,
}

impl Start {
    /// Seals it. Where it is too long, the way back is `/`; `None` when that does not help.
    #[must_use]
    pub fn seal(&self, keys: &SealingKeys, entropy: &[u8; 32]) -> Option<String> {
        [self.return_to.as_str(), "/"].into_iter().find_map(|return_to| {
            let shortened = Self { return_to: return_to.to_owned(), ..self.clone() };
            seal(keys, Purpose::Start, &shortened, entropy)
        })
    }

    /// Opens the content of a link.
    #[must_use]
    pub fn open(keys: &SealingKeys, sealed: &str) -> Option<Self> {
        open(keys, Purpose::Start, sealed)
    }

    /// Where to come back to.
    #[must_use]
    pub fn way_back(&self) -> String {
        way_back(self.origin.as_deref(), &self.return_to)
    }

    /// Whether the link is too old.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now.since(Timestamp::from_secs(self.issued_at)) >= START_LIFETIME
    }
}

/// Where a person comes back to: an address of another origin, or a local path.
pub fn way_back(origin: Option<&str>, return_to: &str) -> String {
    format!("{}{return_to}", origin.unwrap_or_default())
}

fn seal(keys: &SealingKeys, purpose: Purpose<'_>, content: &impl Serialize, entropy: &[u8; 32]) -> Option<String> {
    let json = serde_json::to_vec(content).ok()?;
    (sealed_len(json.len()) <= MAX_COOKIE_VALUE_BYTES).then(|| keys.seal(purpose, &json, entropy))
}

fn open<T: for<'de> Deserialize<'de>>(keys: &SealingKeys, purpose: Purpose<'_>, sealed: &str) -> Option<T> {
    let json = Some(sealed).filter(|sealed| sealed.len() <= MAX_COOKIE_VALUE_BYTES)?;
    serde_json::from_slice(&keys.open(purpose, json)?).ok()
}

/// `code_challenge` with the method S256 (RFC 7636 section 4.2).
#[must_use]
pub fn code_challenge(verifier: &str) -> String {
    base64url_encode(&Sha256::digest(verifier.as_bytes()))
}

/// A short name for a `sub`, to compare it by.
#[must_use]
pub fn subject_digest(subject: &str) -> String {
    base64url_encode(Sha256::digest(subject.as_bytes()).get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Requirement;
    use crate::rules::AnswerMode;

    fn keys() -> SealingKeys {
        SealingKeys::new(&[1; 32], &[])
    }

    fn transaction(return_to: &str, rule: &str) -> Transaction {
        let demand = Demand {
            rules: vec![rule.into()].into(),
            requirement: Requirement::default(),
            step_up: Default::default(),
            answer: AnswerMode::Auto,
        };
        Transaction {
            nonce: "n".into(),
            verifier: "v".into(),
            demand,
            return_to: return_to.into(),
            origin: None,
            subject: None,
            issued_at: 1000,
            attempts: 1,
        }
    }

    fn way_back(return_to: &str, rule: &str) -> Option<String> {
        let sealed = transaction(return_to, rule).seal(&keys(), "state", &[7; 32])?;
        assert!(sealed.len() <= MAX_COOKIE_VALUE_BYTES);
        Some(Transaction::open(&keys(), "state", &sealed)?.return_to)
    }

    #[test]
    fn the_way_back_gets_shorter_before_nothing_fits() {
        let long = "x".repeat(MAX_COOKIE_VALUE_BYTES);
        assert_eq!(way_back("/a?b=c", "r").as_deref(), Some("/a?b=c"));
        assert_eq!(way_back(&format!("/a?{long}"), "r").as_deref(), Some("/a"));
        assert_eq!(way_back(&format!("/{long}?b"), "r").as_deref(), Some("/"));
        assert_eq!(way_back("/a", &long), None);
    }

    #[test]
    fn a_link_leads_home_before_nothing_fits() {
        let way_back = |return_to: &str, rule: &str| {
            let demand = transaction("/", rule).demand;
            let start = Start { demand, return_to: return_to.into(), origin: None, issued_at: 1000 };
            Some(Start::open(&keys(), &start.seal(&keys(), &[7; 32])?)?.return_to)
        };
        let long = "x".repeat(MAX_COOKIE_VALUE_BYTES);
        assert_eq!(way_back("/a?b=c", "r").as_deref(), Some("/a?b=c"));
        assert_eq!(way_back(&format!("/a?{long}"), "r").as_deref(), Some("/"));
        assert_eq!(way_back("/a", &long), None);
    }

    #[test]
    fn a_transaction_opens_for_its_state_alone_and_ends() {
        let sealed = transaction("/", "r").seal(&keys(), "state", &[7; 32]).unwrap();
        assert!(Transaction::open(&keys(), "other", &sealed).is_none());
        let opened = Transaction::open(&keys(), "state", &sealed).unwrap();
        assert!(!opened.is_expired(Timestamp::from_secs(1000 + 599)));
        assert!(opened.is_expired(Timestamp::from_secs(1000 + 600)));
        let start = Start { demand: opened.demand, return_to: "/".into(), origin: None, issued_at: 1000 };
        let sealed = start.seal(&keys(), &[7; 32]).unwrap();
        assert!(Transaction::open(&keys(), "state", &sealed).is_none());
        let start = Start::open(&keys(), &sealed).unwrap();
        assert!(!start.is_expired(Timestamp::from_secs(1000 + 3599)));
        assert!(start.is_expired(Timestamp::from_secs(1000 + 3600)));
    }

    #[test]
    fn the_challenge_is_that_of_rfc_7636_appendix_b() {
        let challenge = code_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
