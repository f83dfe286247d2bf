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

/// A cached token takes about this many times its length: itself, and its claims.
const BYTES_PER_TOKEN_BYTE: usize = 4;

/// Verified tokens, least recently used first out.
pub struct TokenCache {
    entries: LruCache<Box<str>, Entry>,
    bytes: usize,
}

struct Entry {
    token: Arc<VerifiedIdToken>,
    key: VerificationKey,
}

impl TokenCache {
    pub fn new() -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0 }
    }

    /// The verified token, unless it has expired, or its key is not in the set any more. Without a set that may still be used,
    /// there is no key.
    pub fn get(&mut self, token: &str, keys: Option<&KeySet>, now: Timestamp) -> Option<Arc<VerifiedIdToken>> {
        let entry = self.entries.get(token)?;
        let has_key = match &entry.key {
            VerificationKey::Public(key) => keys.is_some_and(|keys| keys.contains(key)),
            VerificationKey::ClientSecret(_) => true,
        };
        if has_key && now < entry.token.expires() {
            return Some(entry.token.clone());
        }
        self.remove(token);
        None
    }

    pub fn insert(&mut self, token: &str, verified: Arc<VerifiedIdToken>, key: VerificationKey) {
        self.remove(token);
        self.bytes += cost(token);
        self.entries.put(token.into(), Entry { token: verified, key });
        while self.bytes > MAX_CACHED_BYTES || self.entries.len() > MAX_CACHED_TOKENS {
            let Some((evicted, _)) = self.entries.pop_lru() else { break };
            self.bytes = self.bytes.saturating_sub(cost(&evicted));
        }
    }

    fn remove(&mut self, token: &str) {
        if self.entries.pop(token).is_some() {
            self.bytes = self.bytes.saturating_sub(cost(token));
        }
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
        assert_eq!(cache.entries.len(), MAX_CACHED_TOKENS);
        assert!(cache.get("0", None, NOW).is_some(), "it was used just now");
        assert!(cache.get("1", None, NOW).is_none());
    }

    #[test]
    fn the_bytes_of_all_tokens_are_bounded() {
        let (mut cache, token) = (TokenCache::new(), verified());
        for number in 0..1000 {
            cache.insert(&format!("{number:16384}"), token.clone(), secret());
            assert!(cache.bytes <= MAX_CACHED_BYTES);
        }
        assert_eq!(cache.entries.len(), MAX_CACHED_BYTES / 16384 / BYTES_PER_TOKEN_BYTE);
        for number in 0..1000 {
            cache.remove(&format!("{number:16384}"));
        }
        assert_eq!(cache.bytes, 0, "what is forgotten is counted off");
    }

    #[test]
    fn an_expired_token_is_forgotten() {
        let mut cache = TokenCache::new();
        cache.insert("token", verified(), secret());
        assert!(cache.get("token", None, Timestamp::from_secs(1999)).is_some());
        assert!(cache.get("token", None, Timestamp::from_secs(2000)).is_none());
        assert_eq!(cache.entries.len(), 0);
    }
}
