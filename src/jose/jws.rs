//! A signed token in JWS Compact Serialization (RFC 7515): strict parsing, then one of two ways to check the
//! signature.

use std::fmt;
use std::sync::Arc;

use jwt_compact::alg::{Ed25519, Es256, Hs256, Hs256Key};
use jwt_compact::{AlgorithmExt as _, Empty, UntrustedToken, ValidationError};
use serde_json::{Map, Value};

use super::Algorithm;
use super::jwk::{Key, Material};
use super::rsa::Rsa;
use crate::encoding::{base64url_decode, parse_json_object};
use crate::reason::Reason;
use crate::secret::Secret;

/// The longest `kid` that is looked up, in bytes.
pub const MAX_KID_BYTES: usize = 256;

/// A well-formed token whose signature nobody has checked yet.
pub struct Jws {
    token: Box<str>,
    parsed: UntrustedToken<'static>,
    algorithm: Algorithm,
    claims: Map<String, Value>,
}

/// What a signature is checked with.
#[derive(Clone, Debug)]
pub enum VerificationKey {
    /// A key of the provider.
    Public(Arc<Key>),
    /// The client secret, for HS256. No host gets to see it.
    ClientSecret(Secret),
}

/// The claims of a token whose signature was checked. Only this module makes one.
pub struct SignedClaims(Map<String, Value>);

impl fmt::Debug for SignedClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedClaims(…)")
    }
}

impl SignedClaims {
    pub(crate) fn into_inner(self) -> Map<String, Value> {
        self.0
    }
}

impl fmt::Debug for Jws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jws").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Jws {
    /// Parses a token and checks all of its header.
    ///
    /// # Errors
    /// [`Reason::TokenMalformed`] and [`Reason::AlgorithmNotAllowed`].
    pub fn parse(token: &str, max_bytes: usize, allowed: &[Algorithm]) -> Result<Self, Reason> {
        if token.len() > max_bytes {
            return Err(Reason::TokenMalformed("longer than `token.max_bytes`"));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Reason::TokenMalformed("not three parts"));
        };
        let decode = |part: &str| {
            base64url_decode(part.as_bytes()).ok_or(Reason::TokenMalformed("a part is not canonical base64url"))
        };
        let (header, payload, _) = (decode(header)?, decode(payload)?, decode(signature)?);
        let header = parse_json_object(&header).map_err(|_| Reason::TokenMalformed("the header is not strict JSON"))?;
        let claims =
            parse_json_object(&payload).map_err(|_| Reason::TokenMalformed("the payload is not strict JSON"))?;
        let algorithm = check_header(&header, allowed)?;
        let parsed = UntrustedToken::new(token)
            .map_err(|_| Reason::TokenMalformed("a header parameter has the wrong type"))?
            .into_owned();
        Ok(Self { token: token.into(), parsed, algorithm, claims })
    }

    /// The token's algorithm, one that is allowed.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The token's `kid`.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.parsed.header().key_id.as_deref()
    }

    /// The token itself. It is a credential.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What a host's own crypto has to check.
    #[must_use]
    pub fn signature_check(&self, key: &VerificationKey) -> SignatureCheck {
        let message = self.token.rsplit_once('.').map_or("", |(message, _)| message);
        SignatureCheck::new(self.algorithm, key, message.as_bytes(), self.parsed.signature_bytes())
    }

    /// Takes the verdict of a host's own crypto on [`Self::signature_check`].
    ///
    /// # Errors
    /// [`Reason::SignatureInvalid`].
    pub fn verify_by_host(self, valid: bool) -> Result<SignedClaims, Reason> {
        if valid { Ok(SignedClaims(self.claims)) } else { Err(Reason::SignatureInvalid) }
    }

    /// Checks the signature in software.
    ///
    /// # Errors
    /// [`Reason::SignatureInvalid`], and [`Reason::TokenMalformed`] for a time that is no time.
    pub fn verify_in_software(self, key: &VerificationKey) -> Result<SignedClaims, Reason> {
        let key = match key {
            VerificationKey::Public(key) => key.material(),
            VerificationKey::ClientSecret(secret) if self.algorithm == Algorithm::Hs256 => {
                return self.validate(&Hs256, &Hs256Key::new(secret.reveal()));
            }
            VerificationKey::ClientSecret(_) => return Err(Reason::AlgorithmNotAllowed("the key is of another type")),
        };
        match (key, self.algorithm) {
            (Material::Rsa(key), algorithm) => match Rsa::new(algorithm) {
                Some(rsa) => self.validate(&rsa, key),
                None => Err(Reason::AlgorithmNotAllowed("the key is of another type")),
            },
            (Material::P256(key), Algorithm::Es256) => self.validate(&Es256, key),
            (Material::Ed25519(key), Algorithm::EdDsa) => self.validate(&Ed25519, key),
            _ => Err(Reason::AlgorithmNotAllowed("the key is of another type")),
        }
    }

    fn validate<A: jwt_compact::Algorithm>(self, algorithm: &A, key: &A::VerifyingKey) -> Result<SignedClaims, Reason> {
        match algorithm.validator::<Empty>(key).validate(&self.parsed) {
            Ok(_) => Ok(SignedClaims(self.claims)),
            Err(ValidationError::MalformedClaims(_)) => Err(Reason::TokenMalformed("a time is not a number")),
            Err(ValidationError::AlgorithmMismatch { .. }) => Err(Reason::AlgorithmNotAllowed("`alg`")),
            Err(_) => Err(Reason::SignatureInvalid),
        }
    }
}

fn check_header(header: &Map<String, Value>, allowed: &[Algorithm]) -> Result<Algorithm, Reason> {
    let text = |name: &str, problem: &'static str| match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(Reason::TokenMalformed(problem)),
    };
    let name = text("alg", "`alg` is not a string")?.ok_or(Reason::TokenMalformed("no `alg`"))?;
    let kid = text("kid", "`kid` is not a string")?;
    let token_type = text("typ", "`typ` is not a string")?;
    let algorithm = Algorithm::named(name)
        .filter(|algorithm| allowed.contains(algorithm))
        .ok_or(Reason::AlgorithmNotAllowed("`alg` is not one of `token.algorithms`"))?;
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(Reason::AlgorithmNotAllowed("`crit` or `b64`"));
    }
    if token_type.is_some_and(|token_type| !token_type.eq_ignore_ascii_case("JWT")) {
        return Err(Reason::AlgorithmNotAllowed("`typ` is not `JWT`"));
    }
    if kid.is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
        return Err(Reason::TokenMalformed("`kid` is too long"));
    }
    Ok(algorithm)
}

/// A signature for a host's own crypto to check. The message is the token's first two parts.
pub struct SignatureCheck {
    algorithm: Algorithm,
    key: Option<Arc<Key>>,
    message: Box<[u8]>,
    signature: Box<[u8]>,
}

impl fmt::Debug for SignatureCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignatureCheck").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl SignatureCheck {
    /// A check of any message; [`Jws::signature_check`] makes that of a token.
    #[must_use]
    pub fn new(algorithm: Algorithm, key: &VerificationKey, message: &[u8], signature: &[u8]) -> Self {
        let key = match key {
            VerificationKey::Public(key) => Some(key.clone()),
            VerificationKey::ClientSecret(_) => None,
        };
        Self { algorithm, key, message: message.into(), signature: signature.into() }
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The public key, DER SubjectPublicKeyInfo; none for HS256, which only the gate can check.
    #[must_use]
    pub fn spki(&self) -> Option<&[u8]> {
        self.key.as_deref().map(Key::spki)
    }

    /// What was signed.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// The signature as in the token; for ES256 that is `r ‖ s` (RFC 7518 section 3.4).
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// An ES256 signature as a DER ECDSA-Sig-Value (RFC 3279 section 2.2.3); `None` when it is not a pair of
    /// scalars of the curve, zero among them.
    #[must_use]
    pub fn ecdsa_signature_der(&self) -> Option<Vec<u8>> {
        let signature = p256::ecdsa::Signature::from_slice(&self.signature).ok()?;
        Some(signature.to_der().as_bytes().to_vec())
    }
}
