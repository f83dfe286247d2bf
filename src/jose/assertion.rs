//! The client's own key, for `private_key_jwt` (OpenID Connect Core section 9, RFC 7523).

use std::fmt;

use jwt_compact::alg::Es256;
use jwt_compact::jwk::JsonWebKey;
use jwt_compact::{AlgorithmExt as _, Claims, Header};
use p256::ecdsa::SigningKey;
use serde_json::{Map, Value};

use crate::encoding::parse_json_object;

/// A private EC key on P-256, which signs ES256.
#[derive(Clone)]
pub struct AssertionKey {
    key: SigningKey,
    kid: Option<Box<str>>,
}

impl fmt::Debug for AssertionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssertionKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl AssertionKey {
    /// Reads a private key from a JWK in JSON (RFC 7517).
    #[must_use]
    pub fn from_jwk(json: &str) -> Option<Self> {
        let members = parse_json_object(json.as_bytes()).ok()?;
        let kid = members.get("kid").and_then(Value::as_str).map(Into::into);
        let jwk: JsonWebKey<'_> = serde_json::from_value(Value::Object(members)).ok()?;
        Some(Self { key: SigningKey::try_from(&jwk).ok()?, kid })
    }

    /// Signs claims as a JWT. The signature needs no randomness (RFC 6979).
    #[must_use]
    pub fn sign(&self, claims: Map<String, Value>) -> Option<String> {
        let mut header = Header::empty();
        header.key_id = self.kid.as_deref().map(str::to_owned);
        Es256.token(&header, &Claims::new(claims), &self.key).ok()
    }
}
