//! HTTP as the gate sees it: a request's parts by reference, an answer's parts by value.

use std::borrow::Cow;
use std::fmt;

/// Header fields that a host can look up lazily. Values are bytes, in the order received.
pub trait Fields {
    /// Calls `visit` with each field's name and value, in order. False when the host cannot tell what fields there are.
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> bool;

    /// Calls `visit` with the value of each field of that name, in order.
    fn visit(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        self.each(&mut |field, value| {
            if field.eq_ignore_ascii_case(name.as_bytes()) {
                visit(value);
            }
        });
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Fields for Vec<(N, V)> {
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        self.iter().for_each(|(field, value)| visit(field.as_ref().as_bytes(), value.as_ref()));
        true
    }
}

/// A request's head.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method, as sent.
    pub method: &'a [u8],
    /// `Host` or `:authority`, as sent; empty when absent.
    pub authority: &'a [u8],
    /// The request target, query included, as sent; empty when absent.
    pub path: &'a [u8],
    /// All other fields.
    pub fields: &'a dyn Fields,
}

impl Request<'_> {
    /// The first value of a field, when it is UTF-8.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<String> {
        let mut found: Option<Option<String>> = None;
        self.fields.visit(name, &mut |value| {
            if found.is_none() {
                found = Some(std::str::from_utf8(value).ok().map(str::to_owned));
            }
        });
        found.flatten()
    }
}

/// What a host changes in a request before it goes on to the app: first fields go, then others come.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RequestEdits {
    /// The names of fields to remove, each with all its values.
    pub removed: Vec<Vec<u8>>,
    /// Fields to add: name (lower case) and value.
    pub added: Vec<(String, Vec<u8>)>,
}

impl fmt::Debug for RequestEdits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestEdits").finish_non_exhaustive()
    }
}

/// An answer of the gate's own.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Field names (lower case) and values.
    pub headers: Vec<(&'static str, String)>,
    /// The body, UTF-8.
    pub body: Cow<'static, str>,
    /// The gRPC status code, for a gRPC request.
    pub grpc_status: Option<u32>,
}

impl fmt::Debug for Response {
    /// Without the values of fields, which may be cookies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        f.debug_struct("Response").field("status", &self.status).field("fields", &fields).finish_non_exhaustive()
    }
}

impl Response {
    /// The first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str())
    }
}

/// Percent-encodes query parameters and appends them to a URL that may already have a query (WHATWG
/// `application/x-www-form-urlencoded`).
#[must_use]
pub fn append_query<V: AsRef<str>>(url: &str, parameters: &[(&str, V)]) -> String {
    // A value grows to three times its length at most, and usually by much less.
    let more: usize = parameters.iter().map(|(name, value)| name.len() + value.as_ref().len() * 3 / 2 + 2).sum();
    let mut whole = String::with_capacity(url.len() + 1 + more);
    whole.push_str(url);
    if !url.contains('?') {
        whole.push('?');
    }
    let query = whole.find('?').map_or(0, |mark| mark + 1);
    form_urlencoded::Serializer::for_suffix(whole, query).extend_pairs(parameters).finish()
}

/// Encodes parameters as `application/x-www-form-urlencoded` (WHATWG URL section 5.2).
#[must_use]
pub fn form_encode<V: AsRef<str>>(parameters: &[(&str, V)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

/// Decodes `application/x-www-form-urlencoded` (WHATWG URL section 5.1).
#[must_use]
pub fn form_decode(form: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(form).into_owned().collect()
}

/// A path and query of the same origin: one leading slash and then neither slash nor backslash, which browsers take for
/// another host, and nothing but visible ASCII (RFC 3986 section 4.2).
#[must_use]
pub fn is_local_path(target: &str) -> bool {
    let plain = target.bytes().all(|byte| byte.is_ascii_graphic()) && !target.contains('#');
    plain && target.strip_prefix('/').is_some_and(|rest| !rest.starts_with(['/', '\\']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_path_leads_to_no_other_origin() {
        for local in ["/", "/a?b=//c\\", "/a//b", "/?x=%5c"] {
            assert!(is_local_path(local), "{local}");
        }
        for foreign in
            ["", "a", "//evil", "/\\evil", "\\/evil", "https://evil/", "/a\tb", "/a\r\nb", "/a#b", "/\u{e9}", " /a"]
        {
            assert!(!is_local_path(foreign), "{foreign:?}");
        }
    }

    #[test]
    fn parameters_are_appended_to_any_query() {
        assert_eq!(append_query("https://a/b", &[("c", "d e&f")]), "https://a/b?c=d+e%26f");
        assert_eq!(append_query("https://a/b?x=y", &[("c", "d")]), "https://a/b?x=y&c=d");
        assert_eq!(append_query("https://a/b?", &[("c", "d")]), "https://a/b?c=d");
    }
}
