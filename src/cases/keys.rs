//! Test keys, made anew for each run: no private key is ever written down.

use std::fmt;
use std::sync::LazyLock;

use jwt_compact::alg::{Ed25519, Es256, Hs256, Hs256Key, Rsa};
use jwt_compact::jwk::JsonWebKey;
use jwt_compact::{Algorithm, AlgorithmExt as _, AlgorithmSignature, UntrustedToken};
use rand_core::{OsRng, RngCore};
use rsa_by_jwt_compact::RsaPrivateKey;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The client secret that stands in for a real one.
pub const SECRET: &str = "a client secret of more than 32 bytes";

/// What signs a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TestKey {
    Rsa,
    /// A key that the provider does not have.
    RsaOther,
    /// 1,024 bits.
    RsaWeak,
    Ec,
    Ed,
    /// HS256 with [`SECRET`].
    Secret,
    /// HS256 with the RSA key's modulus, as in a confusion attack.
    Public,
    /// Nothing signs.
    None,
}

impl TestKey {
    pub const ALL: [(&'static str, Self); 8] = [
        ("rsa", Self::Rsa),
        ("rsa_other", Self::RsaOther),
        ("rsa_weak", Self::RsaWeak),
        ("ec", Self::Ec),
        ("ed", Self::Ed),
        ("secret", Self::Secret),
        ("public", Self::Public),
        ("none", Self::None),
    ];

    /// The algorithm that it signs with unless a case names another.
    pub const fn default_algorithm(self) -> &'static str {
        match self {
            Self::Ec => "ES256",
            Self::Ed => "EdDSA",
            Self::Secret | Self::Public => "HS256",
            Self::Rsa | Self::RsaOther | Self::RsaWeak | Self::None => "RS256",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, key)| *key)
    }

    fn rsa(self) -> Option<&'static RsaPrivateKey> {
        static RSA: LazyLock<Option<RsaPrivateKey>> = LazyLock::new(|| RsaPrivateKey::new(&mut OsRng, 2048).ok());
        static OTHER: LazyLock<Option<RsaPrivateKey>> = LazyLock::new(|| RsaPrivateKey::new(&mut OsRng, 2048).ok());
        static WEAK: LazyLock<Option<RsaPrivateKey>> = LazyLock::new(|| RsaPrivateKey::new(&mut OsRng, 1024).ok());
        match self {
            Self::Rsa => RSA.as_ref(),
            Self::RsaOther => OTHER.as_ref(),
            Self::RsaWeak => WEAK.as_ref(),
            _ => None,
        }
    }
}

static EC: LazyLock<p256::ecdsa::SigningKey> = LazyLock::new(|| p256::ecdsa::SigningKey::random(&mut OsRng));
static CLIENT: LazyLock<p256::ecdsa::SigningKey> = LazyLock::new(|| p256::ecdsa::SigningKey::random(&mut OsRng));
static ED: LazyLock<ed25519_dalek::SigningKey> = LazyLock::new(|| {
    let mut seed = [0; 32];
    OsRng.fill_bytes(&mut seed);
    ed25519_dalek::SigningKey::from_bytes(&seed)
});

/// Why there is no such key, or no such signature: what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError(String);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyError {}

/// The public half of `rsa`, `rsa_other`, `rsa_weak`, `ec` or `ed` as a JWK with `kid` and `use`.
///
/// # Errors
/// There is no such key.
pub fn public_jwk(name: &str) -> Result<Value, KeyError> {
    let key = TestKey::named(name);
    let jwk = match key {
        Some(TestKey::Ec) => jwk(&JsonWebKey::from(EC.verifying_key())),
        Some(TestKey::Ed) => jwk(&JsonWebKey::from(&ED.verifying_key())),
        _ => key.and_then(TestKey::rsa).and_then(|key| jwk(&JsonWebKey::from(&key.to_public_key()))),
    };
    let mut jwk = jwk
        .ok_or_else(|| KeyError(format!("must be one of `rsa`, `rsa_other`, `rsa_weak`, `ec`, `ed`, got `{name}`")))?;
    jwk.insert("kid".to_owned(), json!(name));
    jwk.insert("use".to_owned(), json!("sig"));
    Ok(Value::Object(jwk))
}

fn jwk(key: &impl Serialize) -> Option<Map<String, Value>> {
    match serde_json::to_value(key) {
        Ok(Value::Object(members)) => Some(members),
        _ => None,
    }
}

/// The client's own key as a private JWK in JSON, for `private_key_jwt`.
#[must_use]
pub fn client_key() -> String {
    let mut jwk = jwk(&JsonWebKey::from(&*CLIENT)).unwrap_or_default();
    jwk.insert("kid".to_owned(), json!("client"));
    Value::Object(jwk).to_string()
}

/// The claims of a token that the client's own key has signed.
pub(super) fn client_claims(token: &str) -> Option<Map<String, Value>> {
    let token = UntrustedToken::new(token).ok()?;
    let token = Es256.validator::<Map<String, Value>>(CLIENT.verifying_key()).validate(&token).ok()?;
    Some(token.claims().custom.clone())
}

/// Signs a message by the key of that name: one of those of [`public_jwk`], `secret`, which is [`SECRET`] for HS256, `public`, which
/// is HS256 with the RSA key's modulus, or `none`.
///
/// # Errors
/// There is no such key, or it is an RSA key and the algorithm is none of RSA.
pub fn sign(key: &str, algorithm: &str, message: &[u8]) -> Result<Vec<u8>, KeyError> {
    let names = TestKey::ALL.map(|(name, _)| format!("`{name}`")).join(", ");
    let key = TestKey::named(key).ok_or_else(|| KeyError(format!("must be one of {names}, got `{key}`")))?;
    sign_with(key, algorithm, message)
}

pub(super) fn sign_with(key: TestKey, algorithm: &str, message: &[u8]) -> Result<Vec<u8>, KeyError> {
    Ok(match key {
        TestKey::Ec => Es256.sign(&EC, message).as_bytes().into_owned(),
        TestKey::Ed => Ed25519.sign(&ED, message).as_bytes().into_owned(),
        TestKey::Secret => Hs256.sign(&Hs256Key::new(SECRET), message).as_bytes().into_owned(),
        TestKey::Public => {
            let jwk = public_jwk("rsa")?;
            let modulus = jwk.get("n").and_then(Value::as_str).unwrap_or_default();
            Hs256.sign(&Hs256Key::new(modulus), message).as_bytes().into_owned()
        }
        TestKey::None => Vec::new(),
        TestKey::Rsa | TestKey::RsaOther | TestKey::RsaWeak => {
            let scheme: Option<Rsa> = algorithm.parse().ok();
            let (Some(scheme), Some(key)) = (scheme, key.rsa()) else {
                let accepted = "RS256, RS384, RS512, PS256, PS384, PS512";
                return Err(KeyError(format!("must be one of {accepted} with an RSA key, got `{algorithm}`")));
            };
            scheme.sign(key, message).as_bytes().into_owned()
        }
    })
}
