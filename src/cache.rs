//! Tokens that were verified, so that a signature is checked once. What a rule asks for is evaluated on every
//! request all the same.

use std::sync::Arc;

use lru::LruCache;

use crate::claims::VerifiedIdToken;
use crate::jose::{KeySet, VerificationKey};
use crate::time::Timestamp;

/// How many tokens are kept.
pub const MAX_CACHED_TOKENS: usize = 4096;

/// How many bytes they may take, by estimate.
pub const MAX_CACHED_BYTES: usize = 8 * 1024 * 1024;

/// Of both, so much may be taken by tokens that came more than once, in quarters.
const IN_USE_QUARTERS: usize = 3;

/// A cached token takes about this many times its length: itself, and its claims.
const BYTES_PER_TOKEN_BYTE: usize = 4;

/// Verified tokens, in two segments: one that comes for the second time moves from `fresh` to `in_use`. Within each the least
/// recently used goes first, and what `in_use` has no place for is fresh again. So tokens that come once, however many, push
/// out only each other.
pub struct TokenCache {
    fresh: Segment,
    in_use: Segment,
}

struct Segment {
    entries: LruCache<Box<str>, Entry>,
    bytes: usize,
}

struct Entry {
    token: Arc<VerifiedIdToken>,
    key: VerificationKey,
}

impl Entry {
    fn is_good(&self, keys: Option<&KeySet>, now: Timestamp) -> bool {
        let has_key = match &self.key {
            VerificationKey::Public(key) => keys.is_some_and(|keys| keys.contains(key)),
            VerificationKey::ClientSecret(_) => true,
        };
        has_key && now < self.token.expires()
    }
}

impl TokenCache {
    pub fn new() -> Self {
        Self { fresh: Segment::new(), in_use: Segment::new() }
    }

    /// The verified token, unless it has expired, or its key is not in the set any more. Without a set that may still be used,
    /// there is no key.
    pub fn get(&mut self, token: &str, keys: Option<&KeySet>, now: Timestamp) -> Option<Arc<VerifiedIdToken>> {
        if let Some(entry) = self.in_use.entries.get(token) {
            if entry.is_good(keys, now) {
                return Some(entry.token.clone());
            }
            self.in_use.take(token);
            return None;
        }
        let (token, entry) = self.fresh.take(token).filter(|(_, entry)| entry.is_good(keys, now))?;
        let verified = entry.token.clone();
        self.in_use.put(token, entry);
        while self.in_use.exceeds(IN_USE_QUARTERS) {
            let Some((token, entry)) = self.in_use.take_oldest() else { break };
            self.fresh.put(token, entry);
        }
        Some(verified)
    }

    pub fn insert(&mut self, token: &str, verified: Arc<VerifiedIdToken>, key: VerificationKey) {
        self.in_use.take(token);
        self.fresh.put(token.into(), Entry { token: verified, key });
        while self.bytes() > MAX_CACHED_BYTES || self.len() > MAX_CACHED_TOKENS {
            if self.fresh.take_oldest().or_else(|| self.in_use.take_oldest()).is_none() {
                break;
            }
        }
    }

    const fn bytes(&self) -> usize {
        self.fresh.bytes + self.in_use.bytes
    }

    fn len(&self) -> usize {
        self.fresh.entries.len() + self.in_use.entries.len()
    }
}

impl Segment {
    fn new() -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0 }
    }

    fn put(&mut self, token: Box<str>, entry: Entry) {
        self.take(&token);
        self.bytes += cost(&token);
        self.entries.put(token, entry);
    }

    fn take(&mut self, token: &str) -> Option<(Box<str>, Entry)> {
        let taken = self.entries.pop_entry(token)?;
        self.bytes = self.bytes.saturating_sub(cost(token));
        Some(taken)
    }

    fn take_oldest(&mut self) -> Option<(Box<str>, Entry)> {
        let (token, entry) = self.entries.pop_lru()?;
        self.bytes = self.bytes.saturating_sub(cost(&token));
        Some((token, entry))
    }

    /// Whether it takes more than so many quarters of the cache.
    fn exceeds(&self, quarters: usize) -> bool {
        self.bytes > MAX_CACHED_BYTES / 4 * quarters || self.entries.len() > MAX_CACHED_TOKENS / 4 * quarters
    }
}

const fn cost(token: &str) -> usize {
    token.len().saturating_mul(BYTES_PER_TOKEN_BYTE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::Expected;
    use crate::jose::{Algorithm, Jws};
    use crate::secret::Secret;
    use jwt_compact::alg::{Hs256, Hs256Key};
    use jwt_compact::{AlgorithmExt as _, Claims, Header};
    use serde_json::json;

    const SECRET: &str = "a client secret of more than 32 bytes";
    const NOW: Timestamp = Timestamp::from_secs(1000);

    fn verified() -> Arc<VerifiedIdToken> {
        let claims = Claims::new(json!({ "iss": "i", "sub": "s", "aud": "c", "iat": 1000, "exp": 2000 }));
        let token = Hs256.token(&Header::empty(), &claims, &Hs256Key::new(SECRET)).unwrap();
        let jws = Jws::parse(&token, 1000, &[Algorithm::Hs256]).unwrap();
        let claims = jws.verify_in_software(&secret()).unwrap();
        let expected = Expected { issuer: "i", client_id: "c", audiences: &[] };
        Arc::new(VerifiedIdToken::accept(claims, expected).unwrap())
    }

    fn secret() -> VerificationKey {
        VerificationKey::ClientSecret(Secret::new(SECRET))
    }

    #[test]
    fn the_number_of_tokens_is_bounded_and_the_least_used_goes_first() {
        let (mut cache, token) = (TokenCache::new(), verified());
        for number in 0..MAX_CACHED_TOKENS {
            cache.insert(&number.to_string(), token.clone(), secret());
        }
        assert!(cache.get("0", None, NOW).is_some());
        cache.insert("one more", token, secret());
        assert_eq!(cache.len(), MAX_CACHED_TOKENS);
        assert!(cache.get("0", None, NOW).is_some(), "it was used just now");
        assert!(cache.get("1", None, NOW).is_none());
        assert!(cache.get("2", None, NOW).is_some());
    }

    #[test]
    fn a_flood_of_tokens_that_come_once_leaves_those_in_use() {
        let (mut cache, token) = (TokenCache::new(), verified());
        let in_use: Vec<String> = (0..200).map(|number| format!("in use {number}")).collect();
        for name in &in_use {
            cache.insert(name, token.clone(), secret());
            assert!(cache.get(name, None, NOW).is_some());
        }
        for number in 0..5 * MAX_CACHED_TOKENS {
            cache.insert(&number.to_string(), token.clone(), secret());
        }
        assert!(in_use.iter().all(|name| cache.get(name, None, NOW).is_some()));
        assert_eq!(cache.len(), MAX_CACHED_TOKENS);
    }

    #[test]
    fn tokens_in_use_leave_a_place_for_others() {
        let (mut cache, token) = (TokenCache::new(), verified());
        let limit = MAX_CACHED_TOKENS / 4 * IN_USE_QUARTERS;
        for number in 0..=limit {
            cache.insert(&number.to_string(), token.clone(), secret());
            assert!(cache.get(&number.to_string(), None, NOW).is_some());
        }
        assert_eq!((cache.in_use.entries.len(), cache.fresh.entries.len()), (limit, 1));
        assert!(cache.fresh.entries.contains("0"), "the one that was used least recently is fresh again");
    }

    #[test]
    fn the_bytes_of_all_tokens_are_bounded() {
        let (mut cache, token) = (TokenCache::new(), verified());
        let name = |number: usize| format!("{number:16384}");
        for number in 0..1000 {
            cache.insert(&name(number), token.clone(), secret());
            assert!(cache.get(&name(number), None, NOW).is_some());
            assert!(cache.bytes() <= MAX_CACHED_BYTES);
            assert!(cache.in_use.bytes <= MAX_CACHED_BYTES / 4 * IN_USE_QUARTERS);
        }
        assert_eq!(cache.len(), MAX_CACHED_BYTES / 16384 / BYTES_PER_TOKEN_BYTE);
        assert_eq!(cache.in_use.bytes, MAX_CACHED_BYTES / 4 * IN_USE_QUARTERS, "it is full, to the byte");
        for number in 0..1000 {
            cache.in_use.take(&name(number));
            cache.fresh.take(&name(number));
        }
        assert_eq!(cache.bytes(), 0, "what is forgotten is counted off");
    }

    #[test]
    fn an_expired_token_is_forgotten() {
        let mut cache = TokenCache::new();
        cache.insert("token", verified(), secret());
        assert!(cache.get("token", None, Timestamp::from_secs(1999)).is_some());
        assert!(cache.get("token", None, Timestamp::from_secs(1999)).is_some());
        assert!(cache.get("token", None, Timestamp::from_secs(2000)).is_none());
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
        cache.insert("token", verified(), secret());
        assert!(cache.get("token", None, Timestamp::from_secs(2000)).is_none());
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }
}
