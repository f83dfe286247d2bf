//! The provider's public keys (RFC 7517), each checked before it can verify anything.

use std::fmt;
use std::sync::Arc;

use jwt_compact::jwk::JsonWebKey;
use p256::pkcs8::EncodePublicKey as _;
use rsa::pkcs8::EncodePublicKey as _;
use rsa::{BoxedUint, PublicKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Algorithm;

/// How many keys of a set are looked at.
pub const MAX_KEYS: usize = 100;

/// RFC 7518 section 3.3: 2048 bits or larger.
pub const MIN_RSA_BITS: usize = 2048;

/// What larger ones cost to verify is not worth it.
pub const MAX_RSA_BITS: usize = 4096;

/// NIST SP 800-56B section 6.2: at least 65537, and odd.
pub const MIN_RSA_EXPONENT: u32 = 65_537;

/// A public key that may verify ID Tokens.
pub struct Key {
    kid: Option<Box<str>>,
    algorithm: Option<Algorithm>,
    material: Material,
    spki: Box<[u8]>,
}

pub(super) enum Material {
    Rsa(PublicKey),
    P256(p256::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
}

/// Why a key of a set is not used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KeyProblem {
    /// Not for us: another use, type or algorithm. Common in honest sets.
    Foreign,
    /// For us, but not acceptable.
    Faulty(String),
}

/// What is wrong with a whole set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySetError {
    /// Not an object with a list `keys`.
    NotAKeySet,
    /// More than [`MAX_KEYS`] keys.
    TooManyKeys,
    /// No key in it can be used.
    NoUsableKey,
}

impl fmt::Display for KeySetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAKeySet => f.write_str("not an object with a list `keys`"),
            Self::TooManyKeys => write!(f, "more than {MAX_KEYS} keys"),
            Self::NoUsableKey => f.write_str("no key in it can be used"),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Key {
    /// The key as a DER SubjectPublicKeyInfo (RFC 5280 section 4.1), for a host's own crypto.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(super) fn material(&self) -> &Material {
        &self.material
    }

    /// Whether the key may be used with the algorithm.
    #[must_use]
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm as A;
        let type_fits = match self.material {
            Material::Rsa(_) => {
                matches!(algorithm, A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512)
            }
            Material::P256(_) => algorithm == A::Es256,
            Material::Ed25519(_) => algorithm == A::EdDsa,
        };
        type_fits && self.algorithm.is_none_or(|own| own == algorithm)
    }

    fn parse(jwk: &Value) -> Result<Self, KeyProblem> {
        let Value::Object(members) = jwk else { return Err(faulty("not an object")) };
        let text = |name: &str| match members.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(faulty(format!("`{name}` is not a string"))),
        };
        let (key_type, kid, usage) = (text("kty")?, text("kid")?, text("use")?);
        if usage.is_some_and(|usage| usage != "sig") || !may_verify(members)? {
            return Err(KeyProblem::Foreign);
        }
        let algorithm = match text("alg")? {
            None => None,
            Some(name) => Some(Algorithm::named(name).ok_or(KeyProblem::Foreign)?),
        };
        if !matches!(key_type, Some("RSA" | "EC" | "OKP")) {
            return Err(if key_type.is_none() { faulty("`kty` is missing") } else { KeyProblem::Foreign });
        }
        let curve = text("crv")?;
        if key_type != Some("RSA") && !matches!(curve, Some("P-256" | "Ed25519")) {
            return Err(KeyProblem::Foreign);
        }
        if members.contains_key("d") {
            return Err(faulty("it is a private key"));
        }
        let jwk = JsonWebKey::deserialize(jwk).map_err(|_| faulty("a member is missing or malformed"))?;
        let (material, spki): Encoded = match key_type {
            Some("RSA") => rsa_key(&jwk)?,
            Some("EC") => {
                let key = p256::ecdsa::VerifyingKey::try_from(&jwk).map_err(|_| faulty("not a point of P-256"))?;
                (
                    Material::P256(key),
                    p256::PublicKey::from(key).to_public_key_der().ok().map(|der| der.as_bytes().into()),
                )
            }
            _ => {
                let key = ed25519_dalek::VerifyingKey::try_from(&jwk).map_err(|_| faulty("not a point of Ed25519"))?;
                if key.is_weak() {
                    return Err(faulty("a point of small order"));
                }
                (Material::Ed25519(key), key.to_public_key_der().ok().map(|der| der.as_bytes().into()))
            }
        };
        let spki = spki.ok_or_else(|| faulty("cannot be encoded"))?;
        let key = Self { kid: kid.map(Into::into), algorithm, material, spki };
        match algorithm {
            Some(own) if !key.fits(own) => Err(faulty("`alg` is for another type of key")),
            _ => Ok(key),
        }
    }
}

fn faulty(problem: impl Into<String>) -> KeyProblem {
    KeyProblem::Faulty(problem.into())
}

/// RFC 7517 section 4.3.
fn may_verify(members: &Map<String, Value>) -> Result<bool, KeyProblem> {
    match members.get("key_ops") {
        None => Ok(true),
        Some(Value::Array(operations)) => Ok(operations.iter().any(|operation| operation == "verify")),
        Some(_) => Err(faulty("`key_ops` is not a list")),
    }
}

/// A key, and its DER encoding if it has one.
type Encoded = (Material, Option<Box<[u8]>>);

fn rsa_key(jwk: &JsonWebKey<'_>) -> Result<Encoded, KeyProblem> {
    let JsonWebKey::Rsa { modulus, public_exponent, .. } = jwk else { return Err(faulty("not an RSA key")) };
    let modulus = number(modulus);
    let bits = modulus.bit_width_vartime() as usize;
    if bits < MIN_RSA_BITS {
        return Err(faulty(format!("an RSA key of {bits} bits, at least {MIN_RSA_BITS} are needed")));
    }
    let exponent = number(public_exponent);
    let odd = public_exponent.last().is_some_and(|byte| byte & 1 == 1);
    if !odd || exponent < BoxedUint::from(MIN_RSA_EXPONENT) {
        return Err(faulty(format!("an RSA exponent that is even or below {MIN_RSA_EXPONENT}")));
    }
    let key = PublicKey::new_with_size_limits(modulus, exponent, MIN_RSA_BITS..=MAX_RSA_BITS).map_err(|_| {
        faulty(format!("not an RSA key of at most {MAX_RSA_BITS} bits with an odd modulus and a small odd exponent"))
    })?;
    let spki = key.to_public_key_der().ok().map(|der| der.as_bytes().into());
    Ok((Material::Rsa(key), spki))
}

/// A number without the zeros before it, which would make all arithmetic with it as long as they are.
fn number(bytes: &[u8]) -> BoxedUint {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    BoxedUint::from_be_slice_vartime(bytes.get(zeros..).unwrap_or_default())
}

/// The usable keys of a JSON Web Key Set (RFC 7517 section 5).
#[derive(Clone, Debug)]
pub struct KeySet {
    keys: Vec<Arc<Key>>,
    /// The IDs of keys that are there for something else.
    foreign: Vec<Box<str>>,
}

impl KeySet {
    /// Reads a set from parsed JSON. Keys that cannot be used are left out; the second value tells of those that
    /// are faulty, by their position.
    ///
    /// # Errors
    /// When it is no set, or no key in it can be used.
    pub fn from_value(document: &Value) -> Result<(Self, Vec<(usize, String)>), KeySetError> {
        let list = document.get("keys").and_then(Value::as_array).ok_or(KeySetError::NotAKeySet)?;
        if list.len() > MAX_KEYS {
            return Err(KeySetError::TooManyKeys);
        }
        let mut faults = Vec::new();
        let mut foreign: Vec<Box<str>> = Vec::new();
        let mut keys: Vec<(usize, Arc<Key>)> = Vec::new();
        for (position, jwk) in list.iter().enumerate() {
            match Key::parse(jwk) {
                Ok(key) if keys.iter().any(|(_, other)| other.spki == key.spki && other.kid == key.kid) => {}
                Ok(key) => keys.push((position, Arc::new(key))),
                Err(KeyProblem::Foreign) => {
                    foreign.extend(jwk.get("kid").and_then(Value::as_str).map(Into::into));
                }
                Err(KeyProblem::Faulty(problem)) => faults.push((position, problem)),
            }
        }
        // Which of two keys of one name was meant cannot be known.
        let named_twice =
            |key: &Key| key.kid.is_some() && keys.iter().filter(|(_, other)| other.kid == key.kid).count() > 1;
        let (ambiguous, usable): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(|(_, key)| named_twice(key));
        faults
            .extend(ambiguous.into_iter().map(|(position, _)| (position, "another key has the same `kid`".to_owned())));
        if usable.is_empty() {
            return Err(KeySetError::NoUsableKey);
        }
        let keys: Vec<Arc<Key>> = usable.into_iter().map(|(_, key)| key).collect();
        foreign.retain(|kid| keys.iter().all(|key| key.kid.as_deref() != Some(kid)));
        Ok((Self { keys, foreign }, faults))
    }

    /// The key for a token: the one that its `kid` names, or, without `kid`, the only one that fits its algorithm
    /// (OpenID Connect Core section 10.1).
    ///
    /// The inner error is a key of that name that does not fit the algorithm, or is there for something else.
    #[must_use]
    pub fn select(&self, algorithm: Algorithm, kid: Option<&str>) -> Option<Result<Arc<Key>, ()>> {
        match kid {
            Some(kid) => {
                if self.foreign.iter().any(|foreign| **foreign == *kid) {
                    return Some(Err(()));
                }
                let key = self.keys.iter().find(|key| key.kid.as_deref() == Some(kid))?;
                Some(if key.fits(algorithm) { Ok(key.clone()) } else { Err(()) })
            }
            None => {
                let mut fitting = self.keys.iter().filter(|key| key.fits(algorithm));
                match (fitting.next(), fitting.next()) {
                    (Some(only), None) => Some(Ok(only.clone())),
                    _ => None,
                }
            }
        }
    }

    /// Whether this very key is in the set.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        let is_same = |own: &Key| own.spki == key.spki && own.kid == key.kid && own.algorithm == key.algorithm;
        self.keys.iter().any(|own| std::ptr::eq(&**own, key) || is_same(own))
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never true: a set has at least one usable key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::base64url_encode;
    use rsa::traits::PublicKeyParts as _;
    use serde_json::json;

    /// An RSA key with an odd modulus of so many bits, and so many zeros before it.
    fn rsa_of(bits: usize, zeros: usize) -> Result<Key, KeyProblem> {
        let mut modulus = vec![0; bits.div_ceil(8)];
        modulus[0] = 1 << ((bits - 1) % 8);
        *modulus.last_mut().unwrap() |= 1;
        let modulus = [vec![0; zeros], modulus].concat();
        Key::parse(&json!({ "kty": "RSA", "n": base64url_encode(&modulus), "e": "AQAB" }))
    }

    #[test]
    fn an_rsa_modulus_has_bounds() {
        for bits in [MIN_RSA_BITS, MAX_RSA_BITS] {
            assert!(rsa_of(bits, 0).is_ok(), "{bits}");
        }
        for bits in [MIN_RSA_BITS - 1, MAX_RSA_BITS + 1] {
            assert!(matches!(rsa_of(bits, 0), Err(KeyProblem::Faulty(_))), "{bits}");
        }
    }

    #[test]
    fn zeros_before_a_number_are_nothing() {
        let plain = rsa_of(MIN_RSA_BITS, 0).unwrap();
        for zeros in [1, 100_000] {
            let padded = rsa_of(MIN_RSA_BITS, zeros).unwrap();
            assert_eq!(padded.spki(), plain.spki());
            let Material::Rsa(key) = padded.material() else { panic!("an RSA key") };
            assert_eq!(key.n().bits_precision(), u32::try_from(MIN_RSA_BITS).unwrap(), "no longer to compute with");
        }
    }
}
