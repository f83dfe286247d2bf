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
