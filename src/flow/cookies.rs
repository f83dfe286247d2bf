//! The cookies that the gate sets and clears (RFC 6265bis).

use std::time::Duration;

use super::transaction::{TRANSACTION_LIFETIME, Transaction};
use crate::config::{CallbackConfig, CookieMaxAge, ResponseMode};
use crate::cookie::{MAX_CHUNKS, OwnCookies};
use crate::time::Timestamp;

/// The longest value of a cookie: browsers keep 4,096 bytes of name and value (RFC 6265bis section 5.7).
pub const MAX_COOKIE_VALUE_BYTES: usize = 4_000;

/// How many logins may be under way in one browser.
pub const MAX_TRANSACTIONS: usize = 8;

/// The length of `state`: 16 random bytes in base64url.
const STATE_CHARACTERS: usize = 22;

/// What the gate's cookies are called.
#[derive(Clone, Copy)]
pub struct OwnCookieNames<'a> {
    pub callback: &'a CallbackConfig,
    pub token_cookie: &'a str,
}

impl OwnCookieNames<'_> {
    /// A transaction's cookie must come back with a POST from another site where the provider answers so: `None` needs
    /// `Secure`.
    fn transaction_secure(self) -> bool {
        self.callback.cookie.secure || self.callback.response_mode == ResponseMode::FormPost
    }

    fn transaction_prefix(self) -> &'static str {
        match (self.transaction_secure(), &self.callback.cookie.domain) {
            (true, None) => "__Host-stepgate_tx_",
            (true, Some(_)) => "__Secure-stepgate_tx_",
            (false, _) => "stepgate_tx_",
        }
    }

    /// The `state` in the name of a transaction's cookie.
    pub fn state_of(self, name: &str) -> Option<String> {
        let state = name.strip_prefix(self.transaction_prefix())?;
        is_state(state).then(|| state.to_owned())
    }

    fn transaction_cookie(self, state: &str, value: &str, max_age: u64) -> String {
        let domain = self.domain();
        let secure = if self.transaction_secure() { "; Secure" } else { "" };
        let same_site = if self.callback.response_mode == ResponseMode::FormPost { "None" } else { "Lax" };
        let prefix = self.transaction_prefix();
        format!("{prefix}{state}={value}{domain}; Path=/; Max-Age={max_age}; HttpOnly; SameSite={same_site}{secure}")
    }

    fn domain(self) -> String {
        self.callback.cookie.domain.as_ref().map_or_else(String::new, |domain| format!("; Domain={domain}"))
    }

    /// Sets the cookie of a new transaction, and clears those that are over, or one too many.
    pub fn begin(self, state: &str, sealed: &str, present: &OwnCookies, now: Timestamp) -> Vec<String> {
        let mut cookies = vec![self.transaction_cookie(state, sealed, TRANSACTION_LIFETIME.as_secs())];
        // The oldest first; what cannot be opened may be another gate's, and goes only when there are too many.
        let mut open: Vec<(Timestamp, &str)> = Vec::new();
        for (state, sealed) in &present.transactions {
            let transaction =
                sealed.as_deref().and_then(|sealed| Transaction::open(&self.callback.keys, state, sealed));
            match transaction {
                Some(transaction) if transaction.is_expired(now) => cookies.push(self.end(state)),
                Some(transaction) => open.push((transaction.issued_at(), state)),
                None => open.push((Timestamp::default(), state)),
            }
        }
        open.sort_unstable();
        let too_many = (open.len() + 1).saturating_sub(MAX_TRANSACTIONS);
        cookies.extend(open.iter().take(too_many).map(|(_, state)| self.end(state)));
        cookies
    }

    /// Clears the cookie of a transaction.
    pub fn end(self, state: &str) -> String {
        self.transaction_cookie(state, "", 0)
    }

    /// Sets the cookies of a new ID Token, and clears what an older one has left. `None`: it is too long for cookies.
    pub fn set_token(
        self,
        value: &str,
        expires: Timestamp,
        present: &OwnCookies,
        now: Timestamp,
    ) -> Option<Vec<String>> {
        let lifetime = expires.since(now);
        let max_age = match self.callback.cookie.max_age {
            CookieMaxAge::Token => Some(lifetime),
            CookieMaxAge::Session => None,
            CookieMaxAge::AtMost(longest) => Some(lifetime.min(longest)),
        };
        let chunks: Vec<String> = if value.len() <= MAX_COOKIE_VALUE_BYTES {
            vec![self.token_cookie.to_owned()]
        } else {
            let count = value.len().div_ceil(MAX_COOKIE_VALUE_BYTES);
            (0..count).map(|number| format!("{}.{number}", self.token_cookie)).collect()
        };
        if chunks.len() > MAX_CHUNKS {
            return None;
        }
        let stale = present.token.iter().filter(|name| !chunks.contains(name));
        let mut cookies: Vec<String> = stale.map(|name| self.clear_token(name)).collect();
        let mut rest = value;
        for name in &chunks {
            let (chunk, after) = rest.split_at_checked(MAX_COOKIE_VALUE_BYTES).unwrap_or((rest, ""));
            cookies.push(self.token_cookie(name, chunk, max_age));
            rest = after;
        }
        Some(cookies)
    }

    /// Clears all of the gate's cookies that a browser has.
    pub fn clear(self, present: &OwnCookies) -> Vec<String> {
        let mut names = present.token.clone();
        if names.iter().all(|name| name != self.token_cookie) {
            names.push(self.token_cookie.to_owned());
        }
        let tokens = names.iter().map(|name| self.clear_token(name));
        tokens.chain(present.transactions.iter().map(|(state, _)| self.end(state))).collect()
    }

    fn clear_token(self, name: &str) -> String {
        self.token_cookie(name, "", Some(Duration::ZERO))
    }

    fn token_cookie(self, name: &str, value: &str, max_age: Option<Duration>) -> String {
        let cookie = &self.callback.cookie;
        let (domain, path, same_site) = (self.domain(), &cookie.path, cookie.same_site.name());
        let max_age = max_age.map_or_else(String::new, |max_age| format!("; Max-Age={}", max_age.as_secs()));
        let secure = if cookie.secure { "; Secure" } else { "" };
        format!("{name}={value}{domain}; Path={path}{max_age}; HttpOnly; SameSite={same_site}{secure}")
    }
}

/// Whether a text could be a `state` of the gate's own.
pub fn is_state(text: &str) -> bool {
    text.len() == STATE_CHARACTERS
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
