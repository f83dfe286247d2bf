//! Fixed keys, so that an input means the same in every run. None of them is a secret.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwt_compact::alg::{Ed25519, Es256, Hs256, Hs256Key};
use jwt_compact::jwk::JsonWebKey;
use jwt_compact::{Algorithm as _, AlgorithmSignature};
use serde_json::{Value, json};

/// The client secret.
pub const SECRET: &str = "a client secret of more than 32 bytes";

/// The modulus of RFC 7515 appendix A.2.
const MODULUS: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR\
    T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg\
    665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";

fn ed25519(seed: u8) -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[seed; 32])
}

fn p256() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_bytes(&[2; 32].into()).expect("a scalar of P-256")
}

/// The provider's keys. Nobody here has the RSA key's private half.
pub fn key_set() -> Value {
    let rsa = json!({ "kty": "RSA", "n": MODULUS, "e": "AQAB" });
    let ec = serde_json::to_value(JsonWebKey::from(p256().verifying_key())).expect("a JWK is JSON");
    let ed = serde_json::to_value(JsonWebKey::from(&ed25519(1).verifying_key())).expect("a JWK is JSON");
    let keys = [("rsa", rsa), ("ec", ec), ("ed", ed)].map(|(name, mut jwk)| {
        jwk["kid"] = json!(name);
        jwk["use"] = json!("sig");
        jwk
    });
    json!({ "keys": keys })
}

/// The algorithm of a key that the gate trusts.
pub fn algorithm(key: &str) -> Option<&'static str> {
    match key {
        "ed" => Some("EdDSA"),
        "ec" => Some("ES256"),
        "secret" => Some("HS256"),
        _ => None,
    }
}

/// Signs with a trusted key, with a `stranger`'s, or with HS256 by a public key's text, as in a confusion attack. Any other
/// name stands for itself: it is the signature.
pub fn sign(key: &str, message: &[u8]) -> Vec<u8> {
    match key {
        "ed" => Ed25519.sign(&ed25519(1), message).as_bytes().into_owned(),
        "ec" => Es256.sign(&p256(), message).as_bytes().into_owned(),
        "secret" => Hs256.sign(&Hs256Key::new(SECRET), message).as_bytes().into_owned(),
        "stranger" => Ed25519.sign(&ed25519(3), message).as_bytes().into_owned(),
        "modulus" => Hs256.sign(&Hs256Key::new(MODULUS), message).as_bytes().into_owned(),
        signature => signature.as_bytes().to_vec(),
    }
}

/// A token of this header and payload, well-formed or not.
pub fn token(key: &str, header: &[u8], payload: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = sign(key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}
