//! HTTP as the gate sees it: a request's parts by reference, an answer's parts by value.

use std::borrow::Cow;

/// Header fields that a host can look up lazily. Names are lower case; values are bytes, in the order received.
pub trait Fields {
    /// Calls `visit` with the value of each field of that name, in order.
    fn visit(&self, name: &str, visit: &mut dyn FnMut(&[u8]));
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Fields for Vec<(N, V)> {
    fn visit(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        for (field, value) in self {
            if field.as_ref().eq_ignore_ascii_case(name) {
                visit(value.as_ref());
            }
        }
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

/// An answer of the gate's own.
#[derive(Clone, Debug, PartialEq, Eq)]
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
pub fn append_query(url: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    let separator = match url.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{url}{separator}{}", query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_appended_to_any_query() {
        assert_eq!(append_query("https://a/b", &[("c", "d e&f")]), "https://a/b?c=d+e%26f");
        assert_eq!(append_query("https://a/b?x=y", &[("c", "d")]), "https://a/b?x=y&c=d");
        assert_eq!(append_query("https://a/b?", &[("c", "d")]), "https://a/b?c=d");
    }
}
