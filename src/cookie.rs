//! Where the ID Token is in a request: a cookie, perhaps in chunks, or a header.

use std::collections::BTreeMap;

use memchr::memchr;

use crate::http::Request;
use crate::reason::Reason;

/// How many chunks a token may come in.
pub const MAX_CHUNKS: usize = 16;

/// How many digits a chunk's number may have to be one: with more, a cookie is somebody else's.
pub const MAX_CHUNK_DIGITS: usize = 20;

/// A token as found in a request, and where.
pub struct Found {
    /// The token. Not looked at yet, not even for its length.
    pub token: String,
    /// Whether it came in the header, as from an API client.
    pub in_header: bool,
}

/// Finds the token. Cookie names are compared byte for byte, values are neither decoded nor unquoted (RFC 6265
/// section 5.4 sends what was set); an empty value is no token. `open` turns the cookie's value into the token. `beside` gets to
/// see all cookies in the same look: most of a request is its cookies.
///
/// # Errors
/// [`Reason::TokenAmbiguous`] and [`Reason::TokenMalformed`].
pub fn find_token(
    request: &Request<'_>,
    cookie: &str,
    header: Option<&str>,
    open: &dyn Fn(String) -> Result<String, Reason>,
    beside: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<Option<Found>, Reason> {
    let in_cookie = from_cookies(request, cookie, beside);
    let in_header = header.map_or(Ok(None), |name| from_header(request, name))?;
    let in_cookie = in_cookie?.map(open).transpose()?;
    match (in_header, in_cookie) {
        (Some(header), Some(cookie)) if header != cookie => Err(Reason::TokenAmbiguous),
        (Some(token), _) => Ok(Some(Found { token, in_header: true })),
        (None, cookie) => Ok(cookie.map(|token| Found { token, in_header: false })),
    }
}

/// The value of a cookie, when all cookies of that name agree.
pub fn cookie_value(request: &Request<'_>, name: &str) -> Option<String> {
    let mut cookie = OneCookie::named(name);
    visit_cookies(request, &mut |name, value| cookie.look(name, value));
    cookie.value()
}

/// Looks out for one cookie.
pub struct OneCookie<'a> {
    name: &'a str,
    values: Values,
}

impl<'a> OneCookie<'a> {
    pub fn named(name: &'a str) -> Self {
        Self { name, values: Values::default() }
    }

    pub fn look(&mut self, name: &[u8], value: &[u8]) {
        if name == self.name.as_bytes() {
            self.values.add(value);
        }
    }

    /// Its value, when all cookies of that name agree.
    pub fn value(self) -> Option<String> {
        self.values.only().ok().flatten()
    }
}

/// How many cookies of the gate's own are looked at, of each kind.
pub const MAX_OWN_COOKIES: usize = 64;

/// The cookies of the gate's own that a request has.
#[derive(Clone, Default)]
pub struct OwnCookies {
    /// The names of those that carry the token: itself, and its chunks.
    pub token: Vec<String>,
    /// The logins under way: `state`, and the sealed transaction unless there are two different ones.
    pub transactions: Vec<(String, Option<String>)>,
}

/// Whether a cookie's name is that of the token, or of one of its chunks however it is numbered.
pub fn is_token_cookie(name: &[u8], token_cookie: &str) -> bool {
    let suffix = name.strip_prefix(token_cookie.as_bytes());
    suffix.is_some_and(|suffix| suffix.is_empty() || suffix.strip_prefix(b".").is_some_and(is_chunk_number))
}

/// Finds the cookies of the gate's own. `state_of` takes a name for that of a transaction, and tells its `state`.
pub fn own_cookies(request: &Request<'_>, token_cookie: &str, state_of: &dyn Fn(&str) -> Option<String>) -> OwnCookies {
    let mut own = OwnCookies::default();
    visit_cookies(request, &mut |name, value| {
        let Ok(name) = std::str::from_utf8(name) else { return };
        if is_token_cookie(name.as_bytes(), token_cookie) {
            if own.token.len() < MAX_OWN_COOKIES && own.token.iter().all(|known| known != name) {
                own.token.push(name.to_owned());
            }
        } else if let Some(state) = state_of(name) {
            let value = std::str::from_utf8(value).ok().map(str::to_owned);
            if let Some((_, known)) = own.transactions.iter_mut().find(|(known, _)| *known == state) {
                *known = known.take().filter(|known| Some(known) == value.as_ref());
            } else if own.transactions.len() < MAX_OWN_COOKIES {
                own.transactions.push((state, value));
            }
        }
    });
    own
}

/// The `cookie` field without some cookies; `None` when there is nothing to take out. All else stays as it is.
pub fn without_cookies(request: &Request<'_>, is_out: &dyn Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut kept: Vec<u8> = Vec::new();
    let mut any_out = false;
    request.fields.visit("cookie", &mut |field| {
        for pair in field.split(|&byte| byte == b';').map(trim).filter(|pair| !pair.is_empty()) {
            let name = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
            if is_out(trim(name)) {
                any_out = true;
                continue;
            }
            if !kept.is_empty() {
                kept.extend(b"; ");
            }
            kept.extend(pair);
        }
    });
    any_out.then_some(kept)
}

/// The values of the `authorization` field that are no Bearer token; `None` when all stay.
pub fn without_bearer(request: &Request<'_>) -> Option<Vec<Vec<u8>>> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut any_out = false;
    request.fields.visit("authorization", &mut |field| {
        let is_bearer = field.split(|&byte| byte == b',').any(|value| strip_bearer(value).is_some());
        any_out |= is_bearer;
        if !is_bearer {
            kept.push(field.to_vec());
        }
    });
    any_out.then_some(kept)
}

/// Several fields of one name may have been joined with commas (RFC 9110 section 5.3); a token has none.
fn from_header(request: &Request<'_>, name: &str) -> Result<Option<String>, Reason> {
    let mut values = Values::default();
    request.fields.visit(name, &mut |field| {
        for value in field.split(|&byte| byte == b',') {
            match strip_bearer(value) {
                Some(token) => values.add(token),
                // Another scheme, such as Basic, is somebody else's.
                None if name == "authorization" => {}
                None => values.add(value.trim_ascii()),
            }
        }
    });
    values.only()
}

/// RFC 6750 section 2.1; the scheme is case-insensitive (RFC 9110 section 11.1).
fn strip_bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.trim_ascii().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn from_cookies(
    request: &Request<'_>,
    name: &str,
    beside: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<Option<String>, Reason> {
    let mut whole = Values::default();
    let mut chunks: BTreeMap<usize, Values> = BTreeMap::new();
    let mut stray_chunk = false;
    visit_cookies(request, &mut |cookie, value| {
        beside(cookie, value);
        let Some(suffix) = cookie.strip_prefix(name.as_bytes()) else { return };
        if suffix.is_empty() {
            whole.add(value);
        } else if let Some(number) = suffix.strip_prefix(b".").filter(|digits| is_chunk_number(digits)) {
            match chunk_number(number) {
                Some(number) => chunks.entry(number).or_default().add(value),
                None => stray_chunk |= !value.is_empty(),
            }
        }
    });
    let whole = whole.only()?;
    let mut joined = String::new();
    let mut expected = 0;
    for (number, values) in chunks {
        // A cleared chunk is none.
        let Some(chunk) = values.only()? else { continue };
        stray_chunk |= number != expected;
        expected += 1;
        joined.push_str(&chunk);
    }
    if stray_chunk {
        return Err(Reason::TokenMalformed("its chunks are not numbered 0, 1, … without a gap"));
    }
    match (whole, joined) {
        (whole, joined) if joined.is_empty() => Ok(whole),
        (Some(whole), joined) if whole != joined => Err(Reason::TokenAmbiguous),
        (_, joined) => Ok(Some(joined)),
    }
}

fn is_chunk_number(digits: &[u8]) -> bool {
    digits.len() <= MAX_CHUNK_DIGITS && digits.iter().all(u8::is_ascii_digit)
}

/// A chunk's number, in its one spelling.
fn chunk_number(digits: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(digits).ok()?;
    let number: usize = text.parse().ok()?;
    (number < MAX_CHUNKS && number.to_string() == text).then_some(number)
}

/// Calls `visit` with each cookie's name and value. Several `cookie` fields are one list (RFC 9113 section 8.2.3).
fn visit_cookies(request: &Request<'_>, visit: &mut dyn FnMut(&[u8], &[u8])) {
    request.fields.visit("cookie", &mut |field| {
        let mut rest = Some(field);
        while let Some(field) = rest {
            let (pair, others) = split_once(field, b';').map_or((field, None), |(pair, others)| (pair, Some(others)));
            if let Some((name, value)) = split_once(pair, b'=') {
                visit(trim(name), trim(value));
            }
            rest = others;
        }
    });
}

/// Most of a request's bytes are those of its token: they are not looked at one by one.
fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let (before, after) = text.split_at_checked(memchr(separator, text)?)?;
    Some((before, after.get(1..)?))
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The values that were found under one name.
#[derive(Default)]
struct Values {
    first: Option<Vec<u8>>,
    differ: bool,
}

impl Values {
    fn add(&mut self, value: &[u8]) {
        match &self.first {
            _ if value.is_empty() => {}
            None => self.first = Some(value.to_vec()),
            Some(first) => self.differ |= first != value,
        }
    }

    fn only(self) -> Result<Option<String>, Reason> {
        if self.differ {
            return Err(Reason::TokenAmbiguous);
        }
        let text = self.first.map(String::from_utf8).transpose();
        text.map_err(|_| Reason::TokenMalformed("it has bytes that are not ASCII"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(fields: &[(&str, &[u8])]) -> Result<Option<String>, &'static str> {
        let request = Request { method: b"GET", authority: b"", path: b"/", fields: &fields.to_vec() };
        find_token(&request, "id_token", Some("authorization"), &Ok, &mut |_, _| {})
            .map(|found| found.map(|found| found.token))
            .map_err(|reason| reason.code())
    }

    fn cookie(value: &str) -> Result<Option<String>, &'static str> {
        find(&[("cookie", value.as_bytes())])
    }

    fn token(value: &str) -> Result<Option<String>, &'static str> {
        Ok(Some(value.to_owned()))
    }

    #[test]
    fn names_are_compared_byte_for_byte_and_values_taken_as_they_are() {
        assert_eq!(cookie("a=b; id_token=x; c=d"), token("x"));
        assert_eq!(cookie(" \tid_token \t= x=y \t;"), token("x=y"));
        assert_eq!(cookie("id_token=\"x\""), token("\"x\""));
        assert_eq!(cookie("id_token=%78"), token("%78"));
        for other in [
            "ID_TOKEN=x",
            "xid_token=x",
            "id_tokenx=x",
            "id%5ftoken=x",
            "id_token",
            "id_token=",
            "",
            ";;=;",
            "id_token.x=y",
        ] {
            assert_eq!(cookie(other), Ok(None), "{other}");
        }
        assert_eq!(find(&[("cookie", b"id_token=\xff")]), Err("token_malformed"));
        assert_eq!(find(&[("cookie", b"x=\xff; id_token=y")]), token("y"));
    }

    #[test]
    fn one_name_with_two_values_is_nobodys() {
        assert_eq!(cookie("id_token=x; id_token=x"), token("x"));
        assert_eq!(cookie("id_token=x; id_token=y"), Err("token_ambiguous"));
        assert_eq!(find(&[("cookie", b"id_token=x"), ("cookie", b"id_token=y")]), Err("token_ambiguous"));
        assert_eq!(find(&[("cookie", b"id_token.0=x"), ("cookie", b"id_token.1=y")]), token("xy"));
        assert_eq!(cookie("id_token=xy; id_token.0=x; id_token.1=y"), token("xy"));
        assert_eq!(cookie("id_token=xz; id_token.0=x; id_token.1=y"), Err("token_ambiguous"));
        assert_eq!(cookie("id_token.0=x; id_token.0=y"), Err("token_ambiguous"));
    }

    #[test]
    fn chunks_are_numbered_without_a_gap() {
        assert_eq!(cookie("id_token.1=b; id_token.0=a; id_token.2=c"), token("abc"));
        assert_eq!(cookie("id_token.0=a; id_token.1="), token("a"), "a cleared chunk is none");
        for gap in [
            "id_token.1=b",
            "id_token.0=a; id_token.2=c",
            "id_token.0=a; id_token.01=b",
            "id_token.0=a; id_token.99999999999999999999=b",
            "id_token.0=a; id_token.=b",
        ] {
            assert_eq!(cookie(gap), Err("token_malformed"), "{gap}");
        }
        let numbered = |digits: usize| cookie(&format!("id_token.0=a; id_token.{}=b", "9".repeat(digits)));
        assert_eq!(numbered(MAX_CHUNK_DIGITS), Err("token_malformed"));
        assert_eq!(numbered(MAX_CHUNK_DIGITS + 1), token("a"));
        let chunks = |count: usize| (0..count).map(|number| format!("id_token.{number}=a;")).collect::<String>();
        assert_eq!(cookie(&chunks(MAX_CHUNKS)), token(&"a".repeat(MAX_CHUNKS)));
        assert_eq!(cookie(&chunks(MAX_CHUNKS + 1)), Err("token_malformed"));
    }

    #[test]
    fn the_gates_own_cookies_are_looked_at_up_to_a_number() {
        let pairs = |name: &str, count: usize| (0..count).map(|n| format!("{name}{n}=x;")).collect::<String>();
        let fields =
            [("cookie", pairs("id_token.", MAX_OWN_COOKIES + 1)), ("cookie", pairs("tx_", MAX_OWN_COOKIES + 1))];
        let request = Request { method: b"GET", authority: b"", path: b"/", fields: &fields.to_vec() };
        let own = own_cookies(&request, "id_token", &|name| name.strip_prefix("tx_").map(str::to_owned));
        assert_eq!((own.token.len(), own.transactions.len()), (MAX_OWN_COOKIES, MAX_OWN_COOKIES));
    }

    #[test]
    fn a_login_with_two_different_transactions_has_none() {
        let fields = vec![("cookie", "tx_a=1; tx_b=1; tx_a=1; tx_b=2; tx_b=1")];
        let request = Request { method: b"GET", authority: b"", path: b"/", fields: &fields };
        let own = own_cookies(&request, "id_token", &|name| name.strip_prefix("tx_").map(str::to_owned));
        assert_eq!(own.transactions, [("a".to_owned(), Some("1".to_owned())), ("b".to_owned(), None)]);
    }

    #[test]
    fn what_is_taken_out_of_a_cookie_field_leaves_all_else() {
        let kept = |value: &str| {
            let fields = vec![("cookie", value)];
            let request = Request { method: b"GET", authority: b"", path: b"/", fields: &fields };
            let kept = without_cookies(&request, &|name| is_token_cookie(name, "id_token"));
            kept.map(|kept| String::from_utf8(kept).unwrap())
        };
        assert_eq!(kept("a=b; c"), None);
        assert_eq!(
            kept("a=b;id_token=x; c;; id_token.0=y; id_tokens=z; d=\"e f\"").as_deref(),
            Some("a=b; c; id_tokens=z; d=\"e f\"")
        );
        assert_eq!(kept("id_token=\"x\"; id_token ; id_token.00=").as_deref(), Some(""));
    }

    #[test]
    fn a_header_may_carry_the_token_too() {
        assert_eq!(find(&[("authorization", b"Bearer x")]), token("x"));
        assert_eq!(find(&[("authorization", b"bearer  x ")]), token("x"));
        assert_eq!(find(&[("authorization", b"Basic eDp5"), ("cookie", b"id_token=y")]), token("y"));
        assert_eq!(find(&[("authorization", b"Bearer x"), ("cookie", b"id_token=y")]), Err("token_ambiguous"));
        assert_eq!(find(&[("authorization", b"Bearer x"), ("authorization", b"Bearer y")]), Err("token_ambiguous"));
        assert_eq!(find(&[("authorization", b"Bearer x,Bearer y")]), Err("token_ambiguous"));
        assert_eq!(find(&[("authorization", b"Bearer x, Bearer x")]), token("x"));
    }
}
