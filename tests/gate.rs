//! What takes more than one request: caching, refetching, outages, restarts of the clock.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwt_compact::jwk::JsonWebKey;
use rsa_by_jwt_compact::RsaPublicKey;
use rsa_by_jwt_compact::pkcs8::DecodePublicKey as _;
use serde_json::{Value, json};
use stepgate::http::Request;
use stepgate::provider::{Endpoint, Fetch, FetchFailure, Reply};
use stepgate::time::Timestamp;
use stepgate::{Config, Decision, Env, Gate, Outcome, Pending, Step};

#[allow(dead_code, reason = "each test crate uses a part of it")]
mod support;

use support::{keys, mint};

const NOW: u64 = 1_800_000_000;

fn config(provider: Value) -> Value {
    json!({
        "provider": provider,
        "client": { "id": "client", "redirect_uri": "https://app.example.com/callback" },
        "rules": [{ "paths": ["/salary/**"] }],
    })
}

fn fetching() -> Value {
    config(json!({
        "issuer": "https://idp/",
        "authorization_endpoint": "https://idp/authorize",
        "jwks_uri": "https://idp/keys",
    }))
}

fn inline() -> Value {
    config(json!({
        "issuer": "https://idp/",
        "authorization_endpoint": "https://idp/authorize",
        "jwks": { "keys": [keys::public_jwk("rsa")] },
    }))
}

fn gate(config: &Value) -> Gate {
    Gate::new(Config::from_value(config, &|_| None).unwrap())
}

fn token(config: &Value, specification: Value) -> String {
    mint(&specification, config, NOW)
}

fn good_token(config: &Value) -> String {
    token(config, json!({ "claims": { "amr": ["mfa"] } }))
}

fn env(secs: u64) -> Env<'static> {
    Env { now: Timestamp::from_secs(secs), entropy: &|| [7; 32] }
}

fn begin(gate: &mut Gate, token: &str, secs: u64) -> Step {
    let fields = vec![("cookie", format!("id_token={token}"))];
    let request = Request { method: b"GET", authority: b"app", path: b"/salary", fields: &fields };
    gate.begin(&request, env(secs))
}

fn decided(step: Step) -> Decision {
    match step {
        Step::Done(decision) => decision,
        other => panic!("not decided: {other:?}"),
    }
}

fn fetch(step: Step) -> (Fetch, Pending) {
    match step {
        Step::Fetch(fetch, pending) => (fetch, pending),
        other => panic!("no fetch: {other:?}"),
    }
}

/// Goes on through software verification.
fn verified(gate: &mut Gate, step: Step, secs: u64) -> Decision {
    match step {
        Step::Verify(_, pending) => decided(gate.resume(pending, Outcome::Unsupported, env(secs))),
        other => decided(other),
    }
}

fn decide(gate: &mut Gate, token: &str, secs: u64) -> Decision {
    let step = begin(gate, token, secs);
    verified(gate, step, secs)
}

fn key_set(names: &[&str]) -> Vec<u8> {
    let keys: Vec<Value> = names.iter().map(|name| keys::public_jwk(name)).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

fn learn(gate: &mut Gate, names: &[&str], secs: u64) {
    let at = Timestamp::from_secs(secs);
    for fetch in gate.due(at) {
        let reply = Reply::from_http(&fetch, at, 200, key_set(names));
        gate.learn(fetch.endpoint, &reply, at).unwrap();
    }
}

fn fail(gate: &mut Gate, secs: u64) -> usize {
    let at = Timestamp::from_secs(secs);
    let due = gate.due(at);
    for fetch in &due {
        gate.learn(fetch.endpoint, &Reply::failed(fetch, at, FetchFailure::Timeout), at).unwrap_err();
    }
    due.len()
}

#[test]
fn a_signature_is_checked_once_and_the_rest_on_every_request() {
    let mut config = inline();
    config["rules"][0]["require"] = json!({ "amr": "mfa", "max_age": "15m" });
    let mut gate = gate(&config);
    let token = token(&config, json!({ "claims": { "amr": ["mfa"], "auth_time": "now" } }));
    let step = begin(&mut gate, &token, NOW);
    assert!(matches!(step, Step::Verify(..)));
    assert_eq!(verified(&mut gate, step, NOW).reason.code(), "satisfied");
    assert_eq!(decided(begin(&mut gate, &token, NOW + 900)).reason.code(), "satisfied");
    assert_eq!(decided(begin(&mut gate, &token, NOW + 901)).reason.code(), "auth_too_old");
    let expired = decide(&mut gate, &token, NOW + 3600 + 60);
    assert_eq!(expired.reason.code(), "token_expired");
}

#[test]
fn the_hosts_verdict_counts() {
    let config = inline();
    let token = good_token(&config);
    for (outcome, reason) in [
        (Outcome::Verified(true), "satisfied"),
        (Outcome::Verified(false), "signature_invalid"),
        (
            Outcome::Fetched(Reply {
                at: Timestamp::from_secs(1),
                unknown_kid_at: None,
                result: Err(FetchFailure::Reset),
            }),
            "signature_invalid",
        ),
    ] {
        let mut gate = gate(&config);
        let Step::Verify(check, pending) = begin(&mut gate, &token, NOW) else { panic!("no check") };
        assert_eq!(check.algorithm().name(), "RS256");
        let signature = URL_SAFE_NO_PAD.encode(check.signature());
        assert_eq!([check.message(), b".", signature.as_bytes()].concat(), token.as_bytes());
        let key = JsonWebKey::from(&RsaPublicKey::from_public_key_der(check.spki().unwrap()).unwrap()).to_string();
        assert_eq!(serde_json::from_str::<Value>(&key).unwrap()["n"], keys::public_jwk("rsa")["n"]);
        assert_eq!(decided(gate.resume(pending, outcome, env(NOW))).reason.code(), reason);
    }
}

#[test]
fn a_refused_token_is_not_cached() {
    let config = inline();
    let mut gate = gate(&config);
    let token = token(&config, json!({ "mangle": "tampered_signature" }));
    for _ in 0..2 {
        assert!(matches!(begin(&mut gate, &token, NOW), Step::Verify(..)));
        assert_eq!(decide(&mut gate, &token, NOW).reason.code(), "signature_invalid");
    }
}

#[test]
fn cached_tokens_go_when_their_key_goes() {
    let config = fetching();
    let mut gate = gate(&config);
    let token = good_token(&config);
    learn(&mut gate, &["rsa", "ec"], NOW);
    assert_eq!(decide(&mut gate, &token, NOW).reason.code(), "satisfied");
    learn(&mut gate, &["rsa", "rsa_other"], NOW + 600);
    assert_eq!(decided(begin(&mut gate, &token, NOW + 600)).reason.code(), "satisfied", "the key is still there");
    learn(&mut gate, &["rsa_other"], NOW + 1200);
    let (_, pending) = fetch(begin(&mut gate, &token, NOW + 1200));
    let reply =
        Reply { at: Timestamp::from_secs(NOW + 1201), unknown_kid_at: None, result: Err(FetchFailure::Timeout) };
    assert_eq!(decided(gate.resume(pending, Outcome::Fetched(reply), env(NOW + 1201))).reason.code(), "key_unknown");
}

#[test]
fn requests_before_the_first_keys_wait_and_a_failure_answers_503() {
    let config = fetching();
    let mut gate = gate(&config);
    let token = good_token(&config);
    let (wanted, pending) = fetch(begin(&mut gate, &token, NOW));
    assert_eq!((wanted.endpoint, wanted.url.as_str()), (Endpoint::Keys, "https://idp/keys"));
    let failed = Reply::failed(&wanted, Timestamp::from_secs(NOW), FetchFailure::Timeout);
    let decision = decided(gate.resume(pending, Outcome::Fetched(failed), env(NOW)));
    assert_eq!(decision.reason.code(), "keys_unavailable");
    assert_eq!(decision.response.unwrap().header("retry-after"), Some("1"));
    assert_eq!(
        decided(begin(&mut gate, &token, NOW)).reason.code(),
        "keys_unavailable",
        "no attempt until the retry is due"
    );
    let (wanted, pending) = fetch(begin(&mut gate, &token, NOW + 1));
    let reply = Reply::from_http(&wanted, Timestamp::from_secs(NOW + 1), 200, key_set(&["rsa"]));
    let step = gate.resume(pending, Outcome::Fetched(reply), env(NOW + 1));
    assert_eq!(verified(&mut gate, step, NOW + 1).reason.code(), "satisfied");
}

#[test]
fn a_request_without_token_needs_no_keys() {
    let mut gate = gate(&fetching());
    let request = Request { method: b"GET", authority: b"app", path: b"/salary", fields: &Vec::<(&str, &str)>::new() };
    assert_eq!(decided(gate.begin(&request, env(NOW))).reason.code(), "token_missing");
}

#[test]
fn good_keys_survive_an_outage_until_they_are_too_old() {
    let config = fetching();
    let mut gate = gate(&config);
    let token = token(&config, json!({ "claims": { "amr": ["mfa"], "exp": "now+1000000" } }));
    learn(&mut gate, &["rsa"], NOW);
    assert_eq!(fail(&mut gate, NOW + 600), 1);
    assert_eq!(fail(&mut gate, NOW + 600), 0, "the next attempt is not due yet");
    assert_eq!(fail(&mut gate, NOW + 601), 1);
    assert_eq!(decide(&mut gate, &token, NOW + 24 * 3600).reason.code(), "satisfied");
    assert!(
        matches!(begin(&mut gate, &token, NOW + 24 * 3600 + 1), Step::Fetch(..)),
        "nor do cached tokens outlive them"
    );
    let other = self::token(&config, json!({ "claims": { "amr": ["mfa"], "sub": "bob", "exp": "now+1000000" } }));
    let (_, pending) = fetch(begin(&mut gate, &other, NOW + 24 * 3600 + 1));
    let reply = Reply {
        at: Timestamp::from_secs(NOW + 24 * 3600 + 1),
        unknown_kid_at: None,
        result: Err(FetchFailure::Timeout),
    };
    let decision = decided(gate.resume(pending, Outcome::Fetched(reply), env(NOW + 24 * 3600 + 1)));
    assert_eq!(decision.reason.code(), "keys_unavailable");
}

#[test]
fn a_useless_document_is_no_better_than_none() {
    let config = fetching();
    let mut gate = gate(&config);
    learn(&mut gate, &["rsa"], NOW);
    let weak = json!({ "keys": [keys::public_jwk("rsa_weak")] }).to_string();
    let documents = ["", "{}", "[]", r#"{"keys":[]}"#, r#"{"keys":{}}"#, "<html>", r#"{"keys":[{}]}"#, &weak];
    for (number, document) in (1..).zip(documents) {
        let at = Timestamp::from_secs(NOW + 600 * number);
        for fetch in gate.due(at) {
            let reply = Reply::from_http(&fetch, at, 200, document.as_bytes().to_vec());
            gate.learn(fetch.endpoint, &reply, at).unwrap_err();
        }
    }
    assert_eq!(decide(&mut gate, &good_token(&config), NOW).reason.code(), "satisfied");
}

/// Asks with a key ID that the set lacks; the refetch, if there is one, brings the same set again.
fn ask_with_unknown_kid(gate: &mut Gate, config: &Value, kid: &str, secs: u64) -> bool {
    let token = token(config, json!({ "header": { "kid": kid } }));
    match begin(gate, &token, secs) {
        Step::Done(decision) => {
            assert_eq!(decision.reason.code(), "key_unknown");
            false
        }
        Step::Fetch(fetch, pending) => {
            assert!(fetch.for_unknown_kid);
            let reply = Reply::from_http(&fetch, Timestamp::from_secs(secs), 200, key_set(&["rsa"]));
            let decision = decided(gate.resume(pending, Outcome::Fetched(reply), env(secs)));
            assert_eq!(decision.reason.code(), "key_unknown");
            true
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unknown_kid_is_fetched_for_once_and_junk_not_more_than_once_per_cooldown() {
    let config = fetching();
    let mut gate = gate(&config);
    learn(&mut gate, &["rsa"], NOW);
    assert!(ask_with_unknown_kid(&mut gate, &config, "junk0", NOW + 5), "a new key soon after a refresh is found");
    let fetched =
        (1..1000).filter(|number| ask_with_unknown_kid(&mut gate, &config, &format!("junk{number}"), NOW + 6));
    assert_eq!(fetched.count(), 0, "no more within the cooldown");
    assert!(!ask_with_unknown_kid(&mut gate, &config, "junk0", NOW + 66), "the same junk is remembered");
    assert!(ask_with_unknown_kid(&mut gate, &config, "fresh", NOW + 66), "and takes no honest key's turn");
    assert!(!ask_with_unknown_kid(&mut gate, &config, "another", NOW + 66 + 59));
    assert!(ask_with_unknown_kid(&mut gate, &config, "another", NOW + 66 + 60));
    assert!(ask_with_unknown_kid(&mut gate, &config, "junk0", NOW + 600), "not for ever");
}

#[test]
fn a_rotated_key_is_found_by_the_request_that_needs_it() {
    let config = fetching();
    let mut gate = gate(&config);
    learn(&mut gate, &["rsa_other"], NOW);
    let (wanted, pending) = fetch(begin(&mut gate, &good_token(&config), NOW + 1));
    let reply = Reply::from_http(&wanted, Timestamp::from_secs(NOW + 1), 200, key_set(&["rsa_other", "rsa"]));
    let step = gate.resume(pending, Outcome::Fetched(reply), env(NOW + 1));
    assert_eq!(verified(&mut gate, step, NOW + 1).reason.code(), "satisfied");
}

#[test]
fn a_fetch_that_began_before_the_rotation_does_not_condemn_the_key() {
    let config = fetching();
    let mut gate = gate(&config);
    learn(&mut gate, &["rsa_other"], NOW);
    let token = good_token(&config);
    let (_, pending) = fetch(begin(&mut gate, &token, NOW + 1));
    // The reply to a background refresh that was under way: not one for an unknown kid.
    let reply =
        Reply { at: Timestamp::from_secs(NOW + 1), unknown_kid_at: None, result: Ok(key_set(&["rsa_other"]).into()) };
    assert_eq!(decided(gate.resume(pending, Outcome::Fetched(reply), env(NOW + 1))).reason.code(), "key_unknown");
    assert!(matches!(begin(&mut gate, &token, NOW + 2), Step::Fetch(..)), "it is asked for at once");
}

#[test]
fn discovery_comes_before_keys_and_must_name_the_issuer() {
    let config = config(json!({ "issuer": "https://idp/" }));
    let metadata = |issuer: &str| {
        json!({ "issuer": issuer, "authorization_endpoint": "https://idp/auth", "jwks_uri": "https://idp/jwks" })
            .to_string()
            .into_bytes()
    };
    let token = good_token(&config);
    let mut gate = gate(&config);
    let (wanted, pending) = fetch(begin(&mut gate, &token, NOW));
    assert_eq!(wanted.url, "https://idp/.well-known/openid-configuration");
    let at = Timestamp::from_secs(NOW);
    let reply = Reply::from_http(&wanted, at, 200, metadata("https://idp/"));
    let (wanted, pending) = fetch(gate.resume(pending, Outcome::Fetched(reply), env(NOW)));
    assert_eq!(wanted.url, "https://idp/jwks");
    let reply = Reply::from_http(&wanted, at, 200, key_set(&["rsa"]));
    let step = gate.resume(pending, Outcome::Fetched(reply), env(NOW));
    assert_eq!(verified(&mut gate, step, NOW).reason.code(), "satisfied");

    let mut gate = self::gate(&config);
    let (wanted, pending) = fetch(begin(&mut gate, &token, NOW));
    let reply = Reply::from_http(&wanted, at, 200, metadata("https://evil/"));
    let decision = decided(gate.resume(pending, Outcome::Fetched(reply), env(NOW)));
    assert_eq!(decision.reason.code(), "keys_unavailable");
}

#[test]
fn a_wait_that_was_in_vain_teaches_nothing() {
    let config = fetching();
    let mut gate = gate(&config);
    let token = good_token(&config);
    let (_, pending) = fetch(begin(&mut gate, &token, NOW));
    let decision = decided(gate.resume(pending, Outcome::Unsupported, env(NOW)));
    assert_eq!(decision.reason.code(), "keys_unavailable");
    assert!(matches!(begin(&mut gate, &token, NOW), Step::Fetch(..)), "the provider has not failed");
}

#[test]
fn a_rule_that_only_reports_never_holds_a_request() {
    let mut config = fetching();
    config["rules"][0]["mode"] = json!("report");
    let mut gate = gate(&config);
    let token = good_token(&config);
    let decision = decided(begin(&mut gate, &token, NOW));
    assert_eq!((decision.kind.name(), decision.reason.code()), ("report", "keys_unavailable"));
    assert_eq!(decision.response, None);
    learn(&mut gate, &["rsa_other"], NOW);
    let decision = decided(begin(&mut gate, &token, NOW + 1));
    assert_eq!((decision.kind.name(), decision.reason.code()), ("report", "key_unknown"));
}

#[test]
fn a_clock_set_back_stops_neither_refreshes_nor_requests() {
    let config = fetching();
    let mut gate = gate(&config);
    learn(&mut gate, &["rsa"], NOW + 1_000_000);
    assert_eq!(decide(&mut gate, &good_token(&config), NOW).reason.code(), "satisfied");
    learn(&mut gate, &["rsa_other"], NOW + 600);
    let token = token(&config, json!({ "key": "rsa_other", "claims": { "amr": ["mfa"] } }));
    assert_eq!(decide(&mut gate, &token, NOW + 600).reason.code(), "satisfied");
}

#[test]
fn replies_of_any_size_are_bounded() {
    let mut gate = gate(&fetching());
    let at = Timestamp::from_secs(NOW);
    let fetch = gate.due(at).remove(0);
    let exact = Reply::from_http(&fetch, at, 200, vec![b' '; fetch.max_bytes]);
    assert!(exact.result.is_ok());
    let reply = Reply::from_http(&fetch, at, 200, vec![b' '; fetch.max_bytes + 1]);
    assert_eq!(reply.result, Err(FetchFailure::TooLarge));
}

#[test]
fn nothing_that_a_gate_shows_has_a_token_in_it() {
    let config = inline();
    let mut gate = gate(&config);
    let token = token(&config, json!({ "claims": { "amr": ["pwd"], "sub": "confidential-subject" } }));
    let step = begin(&mut gate, &token, NOW);
    let mut shown = format!("{step:?}");
    let decision = verified(&mut gate, step, NOW);
    shown.push_str(&format!("{decision:?} {:?}", gate.config().client));
    for secret in [token.as_str(), &token[token.len() - 40..], "confidential-subject"] {
        assert!(!shown.contains(secret));
    }
}

#[test]
fn the_loop_guard_ends_in_an_explanation_and_starts_anew() {
    let config = inline();
    let mut gate = gate(&config);
    let token = token(&config, json!({}));
    let mut attempts = String::new();
    let mut answers = Vec::new();
    for _ in 0..5 {
        let fields =
            vec![("cookie", format!("id_token={token}; {attempts}")), ("sec-fetch-site", "cross-site".to_owned())];
        let request = Request { method: b"GET", authority: b"app", path: b"/salary", fields: &fields };
        let step = gate.begin(&request, env(NOW));
        let response = verified(&mut gate, step, NOW).response.unwrap();
        attempts = response.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        answers.push(response.status);
    }
    assert_eq!(answers, [302, 302, 302, 403, 302]);
}

#[test]
fn a_request_that_passes_ends_the_count_for_its_rules() {
    let config = inline();
    let mut gate = gate(&config);
    let (weak, good) = (token(&config, json!({})), good_token(&config));
    let ask = |gate: &mut Gate, token: &str, attempts: &str| {
        let fields = vec![("cookie", format!("id_token={token}; {attempts}"))];
        let request = Request { method: b"GET", authority: b"app", path: b"/salary", fields: &fields };
        let step = gate.begin(&request, env(NOW));
        verified(gate, step, NOW)
    };
    let response = ask(&mut gate, &weak, "").response.unwrap();
    let counted = response.header("set-cookie").unwrap().split(';').next().unwrap();
    let cleared = |decision: Decision| decision.response_headers.iter().any(|(_, value)| value.contains("Max-Age=0"));
    for _ in 0..2 {
        assert!(cleared(ask(&mut gate, &good, counted)), "whether the token is cached or not");
    }
    assert!(!cleared(ask(&mut gate, &good, "")));
    assert!(!cleared(ask(&mut gate, &good, "__Host-stepgate_attempts=other.1")), "another rule's count goes on");
}

#[test]
fn what_ended_before_the_request_came_is_not_the_refetch_that_it_asks_for() {
    let config = fetching();
    let mut gate = gate(&config);
    learn(&mut gate, &["rsa_other"], NOW);
    let token = good_token(&config);
    // Another worker has refetched for a junk key ID, before the rotation.
    let older = |secs| Reply {
        at: Timestamp::from_secs(secs),
        unknown_kid_at: Some(Timestamp::from_secs(secs)),
        result: Ok(key_set(&["rsa_other"]).into()),
    };
    let (_, pending) = fetch(begin(&mut gate, &token, NOW + 10));
    let decision = decided(gate.resume(pending, Outcome::Fetched(older(NOW + 5)), env(NOW + 10)));
    assert_eq!(decision.reason.code(), "key_unknown", "the cooldown of all workers counts");
    let (wanted, pending) = fetch(begin(&mut gate, &token, NOW + 65));
    let reply = Reply::from_http(&wanted, Timestamp::from_secs(NOW + 65), 200, key_set(&["rsa"]));
    let step = gate.resume(pending, Outcome::Fetched(reply), env(NOW + 65));
    assert_eq!(verified(&mut gate, step, NOW + 65).reason.code(), "satisfied", "and the honest key is not condemned");
}

#[test]
fn the_number_of_keys_is_bounded() {
    use stepgate::jose::{KeySet, KeySetError, MAX_KEYS};

    let keys = |count: usize| {
        let keys: Vec<Value> = (0..count)
            .map(|number| {
                let mut jwk = keys::public_jwk("ec");
                jwk["kid"] = json!(number.to_string());
                jwk
            })
            .collect();
        KeySet::from_value(&json!({ "keys": keys }))
    };
    assert_eq!(keys(MAX_KEYS).unwrap().0.len(), MAX_KEYS);
    assert_eq!(keys(MAX_KEYS + 1).unwrap_err(), KeySetError::TooManyKeys);
}

#[test]
fn a_host_has_no_say_where_it_was_given_no_key() {
    let mut config = inline();
    config["client"]["secret"] = json!(keys::SECRET);
    config["token"] = json!({ "algorithms": ["HS256"] });
    let mut gate = gate(&config);
    let token = token(&config, json!({ "key": "secret", "claims": { "amr": ["mfa"] } }));
    let resumed = |gate: &mut Gate, outcome: Outcome| match begin(gate, &token, NOW) {
        Step::Verify(check, pending) => {
            assert_eq!(check.spki(), None);
            decided(gate.resume(pending, outcome, env(NOW))).reason.code()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(resumed(&mut gate, Outcome::Verified(true)), "signature_invalid");
    assert_eq!(resumed(&mut gate, Outcome::Unsupported), "satisfied");
}

#[test]
fn a_key_for_an_algorithm_of_another_type_is_no_key() {
    use stepgate::jose::KeySet;

    let mut jwk = keys::public_jwk("ec");
    jwk["alg"] = json!("RS256");
    let (set, faults) = KeySet::from_value(&json!({ "keys": [keys::public_jwk("rsa"), jwk] })).unwrap();
    assert_eq!(set.len(), 1);
    assert_eq!(faults, [(1, "`alg` is for another type of key".to_owned())]);
}

#[test]
fn an_answer_varies_by_a_field_once() {
    let mut config = inline();
    config["forward"] = json!({ "headers": { "x-user-id": "sub" } });
    let mut gate = gate(&config);
    let token = good_token(&config);
    let decision = decide(&mut gate, &token, NOW);
    let varies = decision.response_headers.iter().filter(|(name, _)| *name == "vary");
    assert_eq!(varies.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["Cookie"]);
}

#[test]
fn cached_tokens_go_when_their_key_is_for_something_else() {
    let config = fetching();
    let token = good_token(&config);
    let at = Timestamp::from_secs(NOW + 600);
    for (member, value) in [("kid", "another"), ("alg", "RS512")] {
        let mut gate = gate(&config);
        learn(&mut gate, &["rsa"], NOW);
        assert_eq!(decide(&mut gate, &token, NOW).reason.code(), "satisfied");
        let mut jwk = keys::public_jwk("rsa");
        jwk[member] = json!(value);
        for fetch in gate.due(at) {
            let reply = Reply::from_http(&fetch, at, 200, json!({ "keys": [jwk] }).to_string().into_bytes());
            gate.learn(fetch.endpoint, &reply, at).unwrap();
        }
        let step = begin(&mut gate, &token, NOW + 600);
        assert!(!matches!(step, Step::Done(ref decision) if decision.reason.code() == "satisfied"), "{member}");
    }
}
