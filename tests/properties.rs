//! Properties that hold for any input: nothing panics, a disguise never opens a path, a forged token never passes.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use stepgate::http::Request;
use stepgate::path::{MAX_PATH_READINGS, MAX_READING_BYTES, Readings};
use stepgate::time::Timestamp;
use stepgate::{Config, DecisionKind, Env, Gate, Outcome, Step};

#[allow(dead_code, reason = "each test crate uses a part of it")]
mod support;

use support::{keys, mint};

const NOW: u64 = 1_800_000_000;

static CONFIG: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "provider": {
            "issuer": "https://idp/",
            "authorization_endpoint": "https://idp/authorize",
            "jwks": { "keys": [keys::public_jwk("rsa"), keys::public_jwk("ec"), keys::public_jwk("ed")] },
        },
        "client": { "id": "client", "redirect_uri": "https://app.example.com/callback" },
        "token": { "header": "authorization", "algorithms": ["RS256", "ES256", "EdDSA"] },
        "rules": [{ "paths": ["/salary/**"], "except": ["/salary/help"] }],
    })
});

static TOKENS: LazyLock<Vec<String>> = LazyLock::new(|| {
    ["rsa", "ec", "ed"].map(|key| mint(&json!({ "key": key, "claims": { "amr": ["mfa"] } }), &CONFIG, NOW)).to_vec()
});

fn gate() -> Gate {
    Gate::new(Config::from_value(&CONFIG, &|_| None).unwrap())
}

fn decide(gate: &mut Gate, method: &[u8], authority: &[u8], path: &[u8], fields: Vec<(&str, Vec<u8>)>) -> DecisionKind {
    let env = Env { now: Timestamp::from_secs(NOW), entropy: &|| [7; 32] };
    let step = gate.begin(&Request { method, authority, path, fields: &fields }, env);
    match step {
        Step::Done(decision) => decision.kind,
        Step::Verify(_, pending) => match gate.resume(pending, Outcome::Unsupported, env) {
            Step::Done(decision) => decision.kind,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// One of the ways in which a byte of a path can be written.
fn spelled(byte: u8, way: u8) -> Vec<u8> {
    match way {
        0 | 1 => vec![byte],
        2 => format!("%{byte:02x}").into_bytes(),
        3 => format!("%{byte:02X}").into_bytes(),
        4 => format!("%25{byte:02x}").into_bytes(),
        _ if byte == b'/' => b"\\".to_vec(),
        _ => vec![byte],
    }
}

/// Segments that lead nowhere.
fn detour() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "",
        "",
        "/.",
        "/",
        "/x/..",
        "/%2e",
        "/x/%2e%2e",
        "/x%2f..",
        "/x\\..",
        "/;a=b/.",
        "/x/..;a",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_request_panics_and_none_passes_without_a_token(
        method in prop::collection::vec(any::<u8>(), 0..8),
        authority in prop::collection::vec(any::<u8>(), 0..16),
        tail in prop::collection::vec(any::<u8>(), 0..64),
        cookie in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut gate = gate();
        let fields = vec![("cookie", cookie.clone()), ("authorization", cookie.clone()), ("accept", cookie)];
        let path = [b"/salary/", tail.as_slice()].concat();
        let kind = decide(&mut gate, &method, &authority, &path, fields.clone());
        // `/salary/help`, in whatever spelling, cannot come about by chance.
        prop_assert!(matches!(kind, DecisionKind::Redirect | DecisionKind::Challenge | DecisionKind::BadRequest));
        decide(&mut gate, &method, &authority, &tail, fields);
    }

    #[test]
    fn no_spelling_of_a_protected_path_opens_it(
        ways in prop::collection::vec(0u8..6, 7),
        detours in prop::collection::vec(detour(), 2),
        suffix in prop::sample::select(vec!["", "", ".", "%20", ";x", "%3bx", "%00"]),
        end in prop::sample::select(vec!["", "/", "//", "?x", "#x", "/.", "/x", "%2fx"]),
    ) {
        let mut path = detours[0].as_bytes().to_vec();
        for (byte, way) in b"/salary".iter().zip(&ways) {
            path.extend(spelled(*byte, *way));
        }
        path.extend(suffix.as_bytes());
        path.extend(detours[1].as_bytes());
        path.extend(end.as_bytes());
        let kind = decide(&mut gate(), b"GET", b"app", &path, Vec::new());
        prop_assert!(kind != DecisionKind::Forward, "{}", String::from_utf8_lossy(&path));
    }

    #[test]
    fn readings_are_bounded_and_have_the_path_among_them(path in prop::collection::vec(prop::sample::select(b"/%25ef.;\\#?0a2 \t\0\xc0\xaf".to_vec()), 0..80)) {
        let target = [b"/", path.as_slice()].concat();
        let readings = Readings::of(&target, false);
        prop_assert!(readings.paths.len() <= MAX_PATH_READINGS);
        prop_assert!(readings.paths.iter().map(Vec::len).sum::<usize>() <= MAX_READING_BYTES);
        let query = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        prop_assert!(readings.is_unbounded() || readings.paths.contains(&target[..query].to_vec()));
    }

    #[test]
    fn a_token_with_any_byte_changed_does_not_pass(which in 0usize..3, position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut token = TOKENS[which].clone().into_bytes();
        let position = position.index(token.len());
        prop_assume!(token[position] != byte && byte != b';');
        // A space or tab at the end is not part of a cookie's value.
        prop_assume!(!(matches!(byte, b' ' | b'\t') && (position == 0 || position + 1 == token.len())));
        token[position] = byte;
        let kind = decide(&mut gate(), b"GET", b"app", b"/salary", vec![("cookie", [b"id_token=", token.as_slice()].concat())]);
        prop_assert_eq!(kind, DecisionKind::Redirect);
    }

    #[test]
    fn no_claims_panic(claims in "\\PC{0,40}|\\{(\"(iss|sub|aud|exp|iat|amr|acr|azp|nbf|auth_time)\":(-?[0-9]{1,25}(\\.[0-9])?|\"x\"|null|\\[\\]|\\{\\}),?){0,6}\\}") {
        let token = mint(&json!({ "key": "ed", "claims_text": claims }), &CONFIG, NOW);
        let kind = decide(&mut gate(), b"GET", b"app", b"/salary", vec![("cookie", format!("id_token={token}").into_bytes())]);
        prop_assert_eq!(kind, DecisionKind::Redirect);
    }

    #[test]
    fn no_configuration_panics(text in "\\PC{0,60}", pointer in prop::sample::select(vec![
        "/provider", "/provider/issuer", "/provider/jwks", "/client", "/client/redirect_uri", "/token", "/token/algorithms", "/rules", "/rules/0",
        "/rules/0/paths", "/rules/0/paths/0", "/rules/0/except/0",
    ]), number in any::<f64>()) {
        let _ = Config::from_json(text.as_bytes(), &|_| None);
        for value in [json!(text), json!(number), json!([text]), json!({ text.clone(): text }), json!([]), json!({}), json!(true)] {
            let mut document = CONFIG.clone();
            *document.pointer_mut(pointer).unwrap() = value;
            let _ = Config::from_value(&document, &|_| None);
        }
    }
}

/// A valid token does pass, so that the properties above mean something.
#[test]
fn a_token_as_minted_passes() {
    for token in TOKENS.iter() {
        let kind =
            decide(&mut gate(), b"GET", b"app", b"/salary", vec![("cookie", format!("id_token={token}").into_bytes())]);
        assert_eq!(kind, DecisionKind::Forward);
    }
    assert_eq!(decide(&mut gate(), b"GET", b"app", b"/salary/help", Vec::new()), DecisionKind::Forward);
    assert_eq!(decide(&mut gate(), b"GET", b"app", b"/news", Vec::new()), DecisionKind::Forward);
}
