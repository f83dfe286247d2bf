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

/// How long their cookies may be together: servers refuse requests with header fields of 16 KiB and more.
pub const MAX_TRANSACTIONS_BYTES: usize = 8_000;

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

    /// A login begins and ends on one host, so that no other host of the site can bring its own.
    pub fn transaction_prefix(self) -> &'static str {
        if self.transaction_secure() { "__Host-stepgate_tx_" } else { "stepgate_tx_" }
    }

    /// The `state` in the name of a transaction's cookie.
    pub fn state_of(self, name: &str) -> Option<String> {
        let state = name.strip_prefix(self.transaction_prefix())?;
        is_state(state).then(|| state.to_owned())
    }

    fn transaction_cookie(self, state: &str, value: &str, max_age: u64) -> String {
        let secure = if self.transaction_secure() { "; Secure" } else { "" };
        let same_site = if self.callback.response_mode == ResponseMode::FormPost { "None" } else { "Lax" };
        let prefix = self.transaction_prefix();
        format!("{prefix}{state}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite={same_site}{secure}")
    }

    /// Sets the cookie of a new transaction, and clears those that are over, or one too many.
    pub fn begin(self, state: &str, sealed: &str, present: &OwnCookies, now: Timestamp) -> Vec<String> {
        let mut cookies = vec![self.transaction_cookie(state, sealed, TRANSACTION_LIFETIME.as_secs())];
        // The oldest first; what cannot be opened may be another gate's, and goes only when there are too many.
        let mut others: Vec<(Timestamp, &str, usize)> = Vec::new();
        for (state, sealed) in &present.transactions {
            let bytes = sealed.as_ref().map_or(0, String::len);
            match sealed.as_deref().and_then(|sealed| Transaction::open(&self.callback.keys, state, sealed)) {
                Some(transaction) if transaction.is_expired(now) => cookies.push(self.end(state)),
                Some(transaction) => others.push((transaction.issued_at(), state, bytes)),
                None => others.push((Timestamp::default(), state, bytes)),
            }
        }
        others.sort_unstable();
        let (mut count, mut bytes) = (others.len() + 1, sealed.len());
        bytes += others.iter().map(|(_, _, bytes)| bytes).sum::<usize>();
        for (_, state, size) in others {
            if count <= MAX_TRANSACTIONS && bytes <= MAX_TRANSACTIONS_BYTES {
                break;
            }
            cookies.push(self.end(state));
            (count, bytes) = (count - 1, bytes - size);
        }
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
        let stale = self.stale(&self.callback.path, present).into_iter().filter(|name| !chunks.contains(name));
        let mut cookies: Vec<String> = stale.map(|name| self.clear_token(&name)).collect();
        let mut rest = value;
        for name in &chunks {
            let (chunk, after) = rest.split_at_checked(MAX_COOKIE_VALUE_BYTES).unwrap_or((rest, ""));
            cookies.push(self.token_cookie(name, chunk, self.callback.cookie.domain.as_deref(), max_age));
            rest = after;
        }
        Some(cookies)
    }

    /// Clears all of the gate's cookies that a browser has.
    pub fn clear(self, present: &OwnCookies) -> Vec<String> {
        let own_path = self.callback.logout_path.as_deref().unwrap_or_default();
        let tokens = self.stale(own_path, present).into_iter().map(|name| self.clear_token(&name));
        tokens.chain(present.transactions.iter().map(|(state, _)| self.end(state))).collect()
    }

    /// Clears cookies of the token's name that were set for another domain: by another host of the site, or by this gate before
    /// its configuration changed. Only when two different tokens came: which cookie is which, a request does not tell.
    pub fn clear_elsewhere(self, present: &OwnCookies) -> Vec<String> {
        let host = String::from_utf8_lossy(&self.callback.host);
        let is_name = host.rsplit('.').next().is_some_and(|label| label.starts_with(|c: char| c.is_ascii_alphabetic()));
        if self.token_cookie.to_ascii_lowercase().starts_with("__host-") || !is_name {
            return Vec::new();
        }
        let parents =
            host.char_indices().filter(|(_, character)| *character == '.').filter_map(|(dot, _)| host.get(dot + 1..));
        let domains = std::iter::once(&*host).chain(parents).filter(|domain| domain.contains('.')).map(Some);
        let configured = self.callback.cookie.domain.as_deref();
        let others: Vec<_> = domains.chain([None]).filter(|domain| *domain != configured).collect();
        let clear = |name: &String| {
            others.iter().map(|domain| self.token_cookie(name, "", *domain, Some(Duration::ZERO))).collect::<Vec<_>>()
        };
        present.token.iter().flat_map(clear).collect()
    }

    /// The names under which a browser may have a token. A request tells, unless the cookies do not come with it: for want of
    /// path, or because another site makes it a POST.
    fn stale(self, own_path: &str, present: &OwnCookies) -> Vec<String> {
        let path = self.callback.cookie.path.as_str();
        let below = own_path.strip_prefix(path);
        let comes =
            path == "/" || below.is_some_and(|below| below.is_empty() || below.starts_with('/') || path.ends_with('/'));
        let mut names = vec![self.token_cookie.to_owned()];
        if comes && self.callback.response_mode == ResponseMode::Query {
            names.extend(present.token.iter().filter(|name| *name != self.token_cookie).cloned());
        } else {
            names.extend((0..MAX_CHUNKS).map(|number| format!("{}.{number}", self.token_cookie)));
        }
        names
    }

    fn clear_token(self, name: &str) -> String {
        self.token_cookie(name, "", self.callback.cookie.domain.as_deref(), Some(Duration::ZERO))
    }

    fn token_cookie(self, name: &str, value: &str, domain: Option<&str>, max_age: Option<Duration>) -> String {
        let cookie = &self.callback.cookie;
        let (path, same_site) = (&cookie.path, cookie.same_site.name());
        let domain = domain.map_or_else(String::new, |domain| format!("; Domain={domain}"));
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Config;
    use crate::policy::Requirement;
    use crate::rules::{AnswerMode, Demand};
    use crate::seal::SealingKeys;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    /// The callback of a configuration whose sealing key is all sevens.
    fn callback(cookie: Value, response_mode: &str) -> CallbackConfig {
        let document = json!({
            "provider": { "issuer": "https://idp/" },
            "client": { "id": "c", "redirect_uri": "https://a.app.example.com/callback", "authentication": "none" },
            "callback": {
                "keys": ["BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="],
                "cookie": cookie,
                "response_mode": response_mode,
                "logout_path": "/logout",
            },
            "rules": [{ "paths": ["/salary"] }],
        });
        Config::from_value(&document, &|_| None).unwrap().callback.unwrap()
    }

    fn names(callback: &CallbackConfig) -> OwnCookieNames<'_> {
        OwnCookieNames { callback, token_cookie: "id_token" }
    }

    /// The names that are set, and the names that are cleared.
    fn sorted(cookies: &[String]) -> (Vec<&str>, Vec<&str>) {
        let (cleared, set): (Vec<_>, Vec<_>) = cookies.iter().partition(|cookie| cookie.contains("Max-Age=0;"));
        fn names<'a>(cookies: &[&'a String]) -> Vec<&'a str> {
            cookies.iter().filter_map(|cookie| cookie.split('=').next()).collect()
        }
        (names(&set), names(&cleared))
    }

    /// A login under way that began so many seconds ago, sealed to about this length.
    fn under_way(state: usize, age: u64, length: usize) -> (String, Option<String>) {
        let state = format!("{state:022}");
        let demand = Demand {
            rules: Vec::new().into(),
            requirement: Requirement::default(),
            step_up: Default::default(),
            answer: AnswerMode::Auto,
        };
        let transaction = Transaction {
            nonce: "n".repeat(length * 3 / 4),
            verifier: String::new(),
            demand,
            return_to: "/".into(),
            origin: None,
            subject: None,
            issued_at: NOW.as_secs() - age,
            attempts: 1,
        };
        let sealed = transaction.seal(&SealingKeys::new(&[7; 32], &[]), &state, &[1; 32]);
        (state, Some(sealed.unwrap()))
    }

    fn cleared_states(present: Vec<(String, Option<String>)>, sealed: &str) -> Vec<usize> {
        let callback = callback(json!({}), "query");
        let present = OwnCookies { token: Vec::new(), transactions: present };
        let cookies = names(&callback).begin(&"s".repeat(22), sealed, &present, NOW);
        let (set, cleared) = sorted(&cookies);
        assert_eq!(set, [format!("__Host-stepgate_tx_{}", "s".repeat(22))]);
        cleared.iter().map(|name| name.rsplit('_').next().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn logins_under_way_are_bounded_in_number_and_the_oldest_give_way() {
        let some = |count: usize| (0..count).map(|state| under_way(state, 100 + state as u64, 10)).collect::<Vec<_>>();
        assert_eq!(cleared_states(some(MAX_TRANSACTIONS - 1), "x"), [0; 0]);
        assert_eq!(cleared_states(some(MAX_TRANSACTIONS), "x"), [7]);
        assert_eq!(cleared_states(some(MAX_TRANSACTIONS + 2), "x"), [9, 8, 7]);
    }

    #[test]
    fn what_is_over_goes_and_what_is_another_gates_goes_first() {
        let mut present: Vec<_> = (0..MAX_TRANSACTIONS - 1).map(|state| under_way(state, 100, 10)).collect();
        present.push((format!("{:022}", 99), Some("another gate's".into())));
        assert_eq!(cleared_states(present.clone(), "x"), [99]);
        present.push(under_way(50, TRANSACTION_LIFETIME.as_secs(), 10));
        assert_eq!(cleared_states(present, "x"), [50, 99]);
        assert_eq!(cleared_states(vec![(format!("{:022}", 99), None)], "x"), [0; 0]);
    }

    #[test]
    fn logins_under_way_are_bounded_in_bytes() {
        let large: Vec<_> = (0..3).map(|state| under_way(state, 100 - state as u64, 2_000)).collect();
        let bytes: usize = large.iter().map(|(_, sealed)| sealed.as_ref().unwrap().len()).sum();
        assert_eq!(cleared_states(large.clone(), &"x".repeat(MAX_TRANSACTIONS_BYTES - bytes)), [0; 0]);
        assert_eq!(cleared_states(large.clone(), &"x".repeat(MAX_TRANSACTIONS_BYTES - bytes + 1)), [0]);
        let oldest = large[0].1.as_ref().unwrap().len();
        assert_eq!(cleared_states(large.clone(), &"x".repeat(MAX_TRANSACTIONS_BYTES - bytes + oldest)), [0]);
        assert_eq!(cleared_states(large, &"x".repeat(MAX_TRANSACTIONS_BYTES - bytes + oldest + 1)), [0, 1]);
    }

    #[test]
    fn a_long_token_comes_in_chunks_and_leaves_no_older_one_behind() {
        let callback = callback(json!({}), "query");
        let present = |token: &[&str]| OwnCookies {
            token: token.iter().map(|name| (*name).to_owned()).collect(),
            transactions: Vec::new(),
        };
        let set = |length: usize, before: &[&str]| {
            let expires = NOW.plus(Duration::from_secs(60));
            names(&callback).set_token(&"x".repeat(length), expires, &present(before), NOW)
        };
        let one = set(MAX_COOKIE_VALUE_BYTES, &["id_token.0", "id_token.1", "id_token.007"]).unwrap();
        assert_eq!(sorted(&one), (vec!["id_token"], vec!["id_token.0", "id_token.1", "id_token.007"]));
        assert!(one.last().unwrap().ends_with("; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"));
        let two = set(MAX_COOKIE_VALUE_BYTES + 1, &["id_token.0", "id_token.2"]).unwrap();
        assert_eq!(sorted(&two), (vec!["id_token.0", "id_token.1"], vec!["id_token", "id_token.2"]));
        assert!(set(MAX_COOKIE_VALUE_BYTES * MAX_CHUNKS, &[]).is_some());
        assert!(set(MAX_COOKIE_VALUE_BYTES * MAX_CHUNKS + 1, &[]).is_none());
    }

    #[test]
    fn where_cookies_do_not_come_all_that_there_may_be_are_cleared() {
        let nothing = OwnCookies::default();
        let cleared = |cookie: Value, mode: &str| {
            let callback = callback(cookie, mode);
            let cookies = names(&callback).set_token("x", NOW, &nothing, NOW).unwrap();
            let logout = names(&callback).clear(&nothing);
            (cookies.len() - 1, logout.len())
        };
        assert_eq!(cleared(json!({}), "query"), (0, 1));
        assert_eq!(cleared(json!({}), "form_post"), (MAX_CHUNKS, MAX_CHUNKS + 1));
        assert_eq!(cleared(json!({ "path": "/salary" }), "query"), (MAX_CHUNKS, MAX_CHUNKS + 1));
        assert_eq!(cleared(json!({ "path": "/callback" }), "query"), (0, MAX_CHUNKS + 1));
    }

    #[test]
    fn cookies_of_other_domains_are_cleared_where_there_may_be_any() {
        let present = OwnCookies { token: vec!["id_token".into()], transactions: Vec::new() };
        let domains = |cookie: Value| {
            let callback = callback(cookie, "query");
            let cookies = names(&callback).clear_elsewhere(&present);
            let domain = |cookie: &String| {
                let attribute = cookie.split("; ").find_map(|attribute| attribute.strip_prefix("Domain="));
                attribute.unwrap_or("none").to_owned()
            };
            cookies.iter().map(domain).collect::<Vec<_>>()
        };
        assert_eq!(domains(json!({})), ["a.app.example.com", "app.example.com", "example.com"]);
        assert_eq!(domains(json!({ "domain": "example.com" })), ["a.app.example.com", "app.example.com", "none"]);
    }
}
