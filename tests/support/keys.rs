//! Test keys, made anew for each run: no private key is ever written down.

use std::sync::LazyLock;

use jwt_compact::alg::{Ed25519, Es256, Hs256, Hs256Key, Rsa};
use jwt_compact::jwk::JsonWebKey;
use jwt_compact::{Algorithm, AlgorithmExt as _, AlgorithmSignature, UntrustedToken};
use rand_core::{OsRng, RngCore};
use rsa_by_jwt_compact::RsaPrivateKey;
use serde_json::{Map, Value, json};

/// The client secret of cases that use HS256.
pub const SECRET: &str = "a client secret of more than 32 bytes";

static RSA: LazyLock<RsaPrivateKey> = LazyLock::new(|| RsaPrivateKey::new(&mut OsRng, 2048).expect("RSA key"));
static RSA_OTHER: LazyLock<RsaPrivateKey> = LazyLock::new(|| RsaPrivateKey::new(&mut OsRng, 2048).expect("RSA key"));
static RSA_WEAK: LazyLock<RsaPrivateKey> = LazyLock::new(|| RsaPrivateKey::new(&mut OsRng, 1024).expect("RSA key"));
static EC: LazyLock<p256::ecdsa::SigningKey> = LazyLock::new(|| p256::ecdsa::SigningKey::random(&mut OsRng));
static CLIENT: LazyLock<p256::ecdsa::SigningKey> = LazyLock::new(|| p256::ecdsa::SigningKey::random(&mut OsRng));
static ED: LazyLock<ed25519_dalek::SigningKey> = LazyLock::new(|| {
    let mut seed = [0; 32];
    OsRng.fill_bytes(&mut seed);
    ed25519_dalek::SigningKey::from_bytes(&seed)
});

/// A key's public half as a JWK with `kid` and `use`.
pub fn public_jwk(name: &str) -> Value {
    let jwk = match name {
        "rsa" => serde_json::to_value(JsonWebKey::from(&RSA.to_public_key())),
        "rsa_other" => serde_json::to_value(JsonWebKey::from(&RSA_OTHER.to_public_key())),
        "rsa_weak" => serde_json::to_value(JsonWebKey::from(&RSA_WEAK.to_public_key())),
        "ec" => serde_json::to_value(JsonWebKey::from(EC.verifying_key())),
        "ed" => serde_json::to_value(JsonWebKey::from(&ED.verifying_key())),
        other => panic!("no test key is named `{other}`"),
    };
    let mut jwk = jwk.expect("a JWK is JSON");
    jwk["kid"] = json!(name);
    jwk["use"] = json!("sig");
    jwk
}

/// The client's own key as a private JWK in JSON, for `private_key_jwt`.
pub fn client_key() -> String {
    let mut jwk = serde_json::to_value(JsonWebKey::from(&*CLIENT)).expect("a JWK is JSON");
    jwk["kid"] = json!("client");
    jwk.to_string()
}

/// The claims of a token that the client's own key has signed.
pub fn client_claims(token: &str) -> Option<Map<String, Value>> {
    let token = UntrustedToken::new(token).ok()?;
    let token = Es256.validator::<Map<String, Value>>(CLIENT.verifying_key()).validate(&token).ok()?;
    Some(token.claims().custom.clone())
}

/// The algorithm that a key signs with unless a case names another.
pub fn default_algorithm(key: &str) -> &'static str {
    match key {
        "ec" => "ES256",
        "ed" => "EdDSA",
        "secret" | "public" => "HS256",
        _ => "RS256",
    }
}

/// Signs a message. `secret` is [`SECRET`]; `public` signs HS256 with the RSA public key's modulus, as in a confusion attack.
pub fn sign(key: &str, algorithm: &str, message: &[u8]) -> Vec<u8> {
    let rsa = |key: &RsaPrivateKey| {
        let scheme: Rsa = algorithm.parse().expect("an RSA algorithm");
        scheme.sign(key, message).as_bytes().into_owned()
    };
    match key {
        "rsa" => rsa(&RSA),
        "rsa_other" => rsa(&RSA_OTHER),
        "rsa_weak" => rsa(&RSA_WEAK),
        "ec" => Es256.sign(&EC, message).as_bytes().into_owned(),
        "ed" => Ed25519.sign(&ED, message).as_bytes().into_owned(),
        "secret" => Hs256.sign(&Hs256Key::new(SECRET), message).as_bytes().into_owned(),
        "public" => {
            let modulus = public_jwk("rsa")["n"].as_str().expect("n").to_owned();
            Hs256.sign(&Hs256Key::new(modulus), message).as_bytes().into_owned()
        }
        "none" => Vec::new(),
        other => panic!("no test key is named `{other}`"),
    }
}
