//! `forward`: what the app is told of who asks.

use serde_json::Value;

use super::decode::{ConfigErrors, Node, Object};
use super::{fields, is_token};

/// How many identity headers there may be.
pub const MAX_IDENTITY_HEADERS: usize = 64;

/// Fields that mean something to HTTP itself, or to whoever reads credentials: none of them can be an identity header.
pub const RESERVED_HEADERS: [&str; 24] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authorization",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-envoy-original-path",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

/// What the app is told of who asks.
#[derive(Clone, Debug, Default)]
pub struct ForwardConfig {
    /// Header fields, lower case, and the claim that each carries.
    pub headers: Vec<(String, String)>,
    /// Whether the app gets the token.
    pub strip_token: bool,
}

impl ForwardConfig {
    /// Whether requests go on as they came.
    #[must_use]
    pub fn changes_nothing(&self) -> bool {
        self.headers.is_empty() && !self.strip_token
    }
}

/// A field's name as the most lenient app reads it: CGI variables (RFC 3875 section 4.1.18) know neither case nor
/// punctuation.
#[must_use]
pub fn field_key(name: &[u8]) -> Vec<u8> {
    let key = |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    name.iter().map(key).collect()
}

/// Decodes `forward`.
pub(super) fn decode(node: &Node<'_>, errors: &mut ConfigErrors) -> Option<ForwardConfig> {
    let object = Object::open(node, &fields::FORWARD, errors)?;
    let headers = object.get("headers").map_or(Some(Vec::new()), |node| decode_headers(&node, errors));
    let strip_token = object.get("strip_token").map_or(Some(false), |node| node.boolean(errors));
    Some(ForwardConfig { headers: headers?, strip_token: strip_token? })
}

fn decode_headers(node: &Node<'_>, errors: &mut ConfigErrors) -> Option<Vec<(String, String)>> {
    let Value::Object(members) = node.value else {
        errors.invalid(node, "an object from header field to claim");
        return None;
    };
    if members.len() > MAX_IDENTITY_HEADERS {
        errors.push(&node.path, format!("must have at most {MAX_IDENTITY_HEADERS} entries, got {}", members.len()));
        return None;
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in members {
        let place = Node { path: format!("{}.{name}", node.path), value };
        let claim = place.string("a claim's name", errors);
        let lower = name.to_ascii_lowercase();
        if !is_token(name) {
            errors.push(&place.path, "is no header field's name (RFC 9110 section 5.1)");
        } else if RESERVED_HEADERS.iter().any(|reserved| field_key(reserved.as_bytes()) == field_key(lower.as_bytes()))
        {
            errors.push(&place.path, "is a header field with a meaning of its own");
        } else if headers.iter().any(|(other, _)| field_key(other.as_bytes()) == field_key(lower.as_bytes())) {
            errors.push(&place.path, "is another spelling of a header field that is there already");
        } else if let Some(claim) = claim {
            headers.push((lower, claim.to_owned()));
        }
    }
    Some(headers)
}
