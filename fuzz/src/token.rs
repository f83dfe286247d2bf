//! A key's name, a header and a payload, or else one line, a whole token: nothing opens `/salary` that no trusted key has
//! signed, or that says anything else than a good token does.

use std::sync::LazyLock;

use serde_json::Value;
use stepgate::jose::{Algorithm, Jws, MAX_KID_BYTES};
use stepgate::time::Timestamp;
use stepgate::{Config, DecisionKind, Gate};

use crate::keys;
use crate::text::{fill, lines};
use crate::world::{AUTHORIZE, CLIENT, GOOD_TOKEN, Host, ISSUER, NOW, config, document};

static CONFIG: LazyLock<Config> = LazyLock::new(|| config(&document()));

pub fn token(input: &[u8]) -> bool {
    let is_whole = !input.contains(&b'\n');
    let [key, header, payload] = lines(input);
    let key = String::from_utf8_lossy(key);
    let token = match is_whole {
        true => String::from_utf8_lossy(&fill(input, &[("<token>", &GOOD_TOKEN)])).into_owned(),
        false => keys::token(&key, header, payload),
    };
    check_parsed(&token);

    let host = Host::new(Timestamp::from_secs(NOW), &[AUTHORIZE]);
    let fields = [("authorization".to_owned(), format!("Bearer {token}").into_bytes())];
    let forwards = host.get(&mut Gate::new(CONFIG.clone()), b"/salary", &fields).kind == DecisionKind::Forward;
    let may_pass = match is_whole {
        // The field's value is trimmed, and may be a list.
        true => token.split(',').any(|token| token.trim_ascii().ends_with(GOOD_TOKEN.as_str())),
        false => is_signed(&key, header) && is_sufficient(payload),
    };
    assert!(!forwards || may_pass, "forwards it");
    forwards
}

fn check_parsed(token: &str) {
    let (max_bytes, algorithms) = (CONFIG.token.max_bytes, &CONFIG.token.algorithms);
    let Ok(parsed) = Jws::parse(token, max_bytes, algorithms) else { return };
    assert_eq!(parsed.token(), token);
    assert!(token.len() <= max_bytes && algorithms.contains(&parsed.algorithm()));
    assert!(parsed.kid().is_none_or(|kid| kid.len() <= MAX_KID_BYTES));
    let others: Vec<Algorithm> = algorithms.iter().copied().filter(|other| *other != parsed.algorithm()).collect();
    assert!(Jws::parse(token, max_bytes, &others).is_err(), "takes an algorithm that is not allowed");
    assert!(Jws::parse(token, token.len() - 1, algorithms).is_err(), "takes a token that is too long");
}

/// By a trusted key, with the algorithm that the header names.
fn is_signed(key: &str, header: &[u8]) -> bool {
    let header: Value = serde_json::from_slice(header).unwrap_or_default();
    keys::algorithm(key).is_some_and(|algorithm| header["alg"] == algorithm)
}

/// What OpenID Connect Core section 3.1.3.7 and the rule ask for, said once more.
fn is_sufficient(payload: &[u8]) -> bool {
    let claims: Value = serde_json::from_slice(payload).unwrap_or_default();
    let audience = match &claims["aud"] {
        Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    };
    let started = |name: &str| claims.get(name).is_none_or(|time| time.as_u64().is_some_and(|time| time <= NOW + 60));
    claims["iss"] == ISSUER
        && claims["sub"].as_str().is_some_and(|subject| !subject.is_empty())
        && !audience.is_empty()
        && audience.iter().all(|name| name == CLIENT)
        && claims.get("azp").is_none_or(|party| party == CLIENT)
        && claims["exp"].as_u64().is_some_and(|end| NOW < end.saturating_add(60))
        && claims["iat"].is_u64()
        && ["iat", "nbf", "auth_time"].into_iter().all(started)
        && claims["amr"].as_array().is_some_and(|methods| methods.iter().any(|method| method == "mfa"))
        && claims.get("events").is_none()
}
