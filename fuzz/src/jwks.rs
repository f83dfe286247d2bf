//! A key set: only strong keys are taken from it, and only a set with the signer's key lets its token pass.

use ed25519_dalek::pkcs8::DecodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use serde_json::Value;
use stepgate::jose::{Algorithm, Key, KeySet, MAX_KEYS, MIN_RSA_BITS, MIN_RSA_EXPONENT};
use stepgate::provider::{Endpoint, Reply};
use stepgate::time::Timestamp;
use stepgate::{DecisionKind, Gate};

use crate::keys;
use crate::world::{AUTHORIZE, GOOD_TOKEN, Host, NOW, config, document};

pub fn jwks(input: &[u8]) -> bool {
    let document: Value = serde_json::from_slice(input).unwrap_or_default();
    check_set(&document);

    let now = Timestamp::from_secs(NOW);
    let mut gate = gate();
    let reply = Reply { at: now, unknown_kid_at: None, result: Ok(input.into()) };
    let is_learned = gate.learn(Endpoint::Keys, &reply, now).is_ok();
    assert!(!is_learned || KeySet::from_value(&document).is_ok());

    let host = Host::new(now, &[AUTHORIZE]);
    let fields = [("cookie".to_owned(), format!("id_token={}", *GOOD_TOKEN).into_bytes())];
    let forwards = host.get(&mut gate, b"/salary", &fields).kind == DecisionKind::Forward;
    let mut listed = document["keys"].as_array().into_iter().flatten();
    let has_key = listed.any(|key| key["x"] == keys::key_set()["keys"][2]["x"]);
    assert!(!forwards || is_learned && has_key, "forwards it");
    forwards
}

fn gate() -> Gate {
    let mut document = document();
    let provider = document["provider"].as_object_mut().expect("an object");
    provider.remove("jwks");
    provider.insert("jwks_uri".to_owned(), "https://idp.example.com/keys".into());
    Gate::new(config(&document))
}

fn check_set(document: &Value) {
    let Ok((set, faults)) = KeySet::from_value(document) else { return };
    let list = document["keys"].as_array().expect("a list");
    assert!(!set.is_empty() && set.len() + faults.len() <= list.len() && list.len() <= MAX_KEYS);
    assert!(faults.iter().all(|(position, _)| *position < list.len()));
    let names = list.iter().filter_map(|key| key["kid"].as_str()).map(Some).chain([None]);
    for name in names {
        for algorithm in Algorithm::ALL {
            if let Some(Ok(key)) = set.select(algorithm, name) {
                assert!(key.fits(algorithm) && set.contains(&key) && is_strong(&key, algorithm));
            }
        }
    }
}

fn is_strong(key: &Key, algorithm: Algorithm) -> bool {
    match algorithm {
        Algorithm::Hs256 => false,
        Algorithm::Es256 => p256::PublicKey::from_public_key_der(key.spki()).is_ok(),
        Algorithm::EdDsa => {
            ed25519_dalek::VerifyingKey::from_public_key_der(key.spki()).is_ok_and(|key| !key.is_weak())
        }
        _ => rsa::RsaPublicKey::from_public_key_der(key.spki()).is_ok_and(|key| {
            let is_odd = |number: &rsa::BigUint| number.to_bytes_le().first().is_some_and(|byte| byte & 1 == 1);
            let fits = key.n().bits() >= MIN_RSA_BITS && *key.e() >= rsa::BigUint::from(MIN_RSA_EXPONENT);
            fits && is_odd(key.n()) && is_odd(key.e())
        }),
    }
}
