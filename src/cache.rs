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
    entries: LruCache<Tail, Entry>,
    bytes: usize,
}

/// The end of a token, which is that of its signature: a short name for it.
type Tail = [u8; 24];

struct Entry {
    text: Box<str>,
    token: Arc<VerifiedIdToken>,
    key: VerificationKey,
}

impl Entry {
    /// Tells a token from another that only ends like it. Eight bytes at a time: `memcmp` in WebAssembly takes one.
    fn is_of(&self, text: &str) -> bool {
        let (mine, my_rest) = self.text.as_bytes().as_chunks::<8>();
        let (theirs, their_rest) = text.as_bytes().as_chunks::<8>();
        let pairs = mine.iter().zip(theirs).map(|(a, b)| u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b));
        mine.len() == theirs.len() && my_rest == their_rest && pairs.fold(0, |differences, one| differences | one) == 0
    }

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
    pub fn get(&mut self, text: &str, keys: Option<&KeySet>, now: Timestamp) -> Option<Arc<VerifiedIdToken>> {
        let tail = tail(text);
        if let Some(entry) = self.in_use.entries.get(&tail).filter(|entry| entry.is_of(text)) {
            if entry.is_good(keys, now) {
                return Some(entry.token.clone());
            }
            self.in_use.take(&tail);
            return None;
        }
        self.fresh.entries.peek(&tail).filter(|entry| entry.is_of(text))?;
        let entry = self.fresh.take(&tail).filter(|entry| entry.is_good(keys, now))?;
        let verified = entry.token.clone();
        self.in_use.put(entry);
        while self.in_use.exceeds(IN_USE_QUARTERS) {
            let Some(entry) = self.in_use.take_oldest() else { break };
            self.fresh.put(entry);
        }
        Some(verified)
    }

    pub fn insert(&mut self, text: Box<str>, verified: Arc<VerifiedIdToken>, key: VerificationKey) {
        self.in_use.take(&tail(&text));
        self.fresh.put(Entry { text, token: verified, key });
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

    fn put(&mut self, entry: Entry) {
        self.bytes += cost(&entry.text);
        if let Some(replaced) = self.entries.put(tail(&entry.text), entry) {
            self.bytes = self.bytes.saturating_sub(cost(&replaced.text));
        }
    }

    fn take(&mut self, tail: &Tail) -> Option<Entry> {
        let taken = self.entries.pop(tail)?;
        self.bytes = self.bytes.saturating_sub(cost(&taken.text));
        Some(taken)
    }

    fn take_oldest(&mut self) -> Option<Entry> {
        let (_, entry) = self.entries.pop_lru()?;
        self.bytes = self.bytes.saturating_sub(cost(&entry.text));
        Some(entry)
    }

    /// Whether it takes more than so many quarters of the cache.
    fn exceeds(&self, quarters: usize) -> bool {
        self.bytes > MAX_CACHED_BYTES / 4 * quarters || self.entries.len() > MAX_CACHED_TOKENS / 4 * quarters
    }
}

/// The last bytes of a token; what is shorter has zeros before it.
fn tail(text: &str) -> Tail {
    let mut tail = Tail::default();
    tail.iter_mut().rev().zip(text.bytes().rev()).for_each(|(into, byte)| *into = byte);
    tail
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
            cache.insert(number.to_string().into(), token.clone(), secret());
        }
        assert!(cache.get("0", None, NOW).is_some());
        cache.insert("one more".into(), token, secret());
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
            cache.insert(name.as_str().into(), token.clone(), secret());
            assert!(cache.get(name, None, NOW).is_some());
        }
        for number in 0..5 * MAX_CACHED_TOKENS {
            cache.insert(number.to_string().into(), token.clone(), secret());
        }
        assert!(in_use.iter().all(|name| cache.get(name, None, NOW).is_some()));
        assert_eq!(cache.len(), MAX_CACHED_TOKENS);
    }

    #[test]
    fn tokens_in_use_leave_a_place_for_others() {
        let (mut cache, token) = (TokenCache::new(), verified());
        let limit = MAX_CACHED_TOKENS / 4 * IN_USE_QUARTERS;
        for number in 0..=limit {
            cache.insert(number.to_string().into(), token.clone(), secret());
            assert!(cache.get(&number.to_string(), None, NOW).is_some());
        }
        assert_eq!((cache.in_use.entries.len(), cache.fresh.entries.len()), (limit, 1));
        assert!(cache.fresh.entries.contains(&tail("0")), "the one that was used least recently is fresh again");
    }

    #[test]
    fn the_bytes_of_all_tokens_are_bounded() {
        let (mut cache, token) = (TokenCache::new(), verified());
        let name = |number: usize| format!("{number:16384}");
        for number in 0..1000 {
            cache.insert(name(number).into(), token.clone(), secret());
            assert!(cache.get(&name(number), None, NOW).is_some());
            assert!(cache.bytes() <= MAX_CACHED_BYTES);
            assert!(cache.in_use.bytes <= MAX_CACHED_BYTES / 4 * IN_USE_QUARTERS);
        }
        assert_eq!(cache.len(), MAX_CACHED_BYTES / 16384 / BYTES_PER_TOKEN_BYTE);
        assert_eq!(cache.in_use.bytes, MAX_CACHED_BYTES / 4 * IN_USE_QUARTERS, "it is full, to the byte");
        for number in 0..1000 {
            cache.in_use.take(&tail(&name(number)));
            cache.fresh.take(&tail(&name(number)));
        }
        assert_eq!(cache.bytes(), 0, "what is forgotten is counted off");
    }

    #[test]
    fn a_token_that_ends_like_another_is_another() {
        let (mut cache, token) = (TokenCache::new(), verified());
        let ending = "an end of more than 24 bytes";
        let names = ["a", "b", "", "a token of 32 bytes and more, of ", "a token of 32 bytes and more, or "];
        let names: Vec<String> = names.iter().map(|name| format!("{name}{ending}")).collect();
        for name in &names {
            cache.insert(name.as_str().into(), token.clone(), secret());
            for other in &names {
                assert_eq!(cache.get(other, None, NOW).is_some(), name == other, "{name} {other}");
            }
            assert_eq!((cache.len(), cache.bytes()), (1, cost(name)), "the last one takes the place");
        }
    }

    #[test]
    fn an_expired_token_is_forgotten() {
        let mut cache = TokenCache::new();
        cache.insert("token".into(), verified(), secret());
        assert!(cache.get("token", None, Timestamp::from_secs(1999)).is_some());
        assert!(cache.get("token", None, Timestamp::from_secs(1999)).is_some());
        assert!(cache.get("token", None, Timestamp::from_secs(2000)).is_none());
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
        cache.insert("token".into(), verified(), secret());
        assert!(cache.get("token", None, Timestamp::from_secs(2000)).is_none());
        assert_eq!((cache.len(), cache.bytes()), (0, 0));
    }
}
