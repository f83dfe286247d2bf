//! `plain` or `sealed`, then header fields: only the one good token opens `/salary`, and no other cookie does anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::json;
use stepgate::seal::{Purpose, SealingKeys};
use stepgate::time::Timestamp;
use stepgate::{Config, Decision, DecisionKind, Gate};

use crate::text::{fields, lines};
use crate::world::{
    AUTHORIZE, CALLBACK, END_SESSION, GOOD_TOKEN, Host, LOGOUT, NOW, SEALING_KEY_BYTES, config, document_with_callback,
    is_own_cookie,
};

const TOKEN_COOKIE: &str = "id_token";

static PLAIN: LazyLock<Config> = LazyLock::new(|| with_sealing(false));
static SEALED: LazyLock<Config> = LazyLock::new(|| with_sealing(true));

fn with_sealing(seal_token: bool) -> Config {
    let mut document = document_with_callback();
    document["callback"]["seal_token"] = json!(seal_token);
    document["forward"] = json!({ "headers": { "x-user": "sub" }, "strip_token": true });
    config(&document)
}

/// What stands for itself in a field, and the parts of it that chunks are made of.
static VALUES: LazyLock<Vec<(&str, String)>> = LazyLock::new(|| {
    let seal = |key, purpose| SealingKeys::new(&[key; 32], &[]).seal(purpose, GOOD_TOKEN.as_bytes(), &[1; 32]);
    let sealed = seal(SEALING_KEY_BYTES[0], Purpose::IdToken(TOKEN_COOKIE));
    let half = |text: &str, second: bool| {
        let (first, rest) = text.split_at(text.len() / 2);
        if second { rest } else { first }.to_owned()
    };
    vec![
        ("<token>", GOOD_TOKEN.clone()),
        ("<token.0>", half(&GOOD_TOKEN, false)),
        ("<token.1>", half(&GOOD_TOKEN, true)),
        ("<sealed>", sealed.clone()),
        ("<sealed.0>", half(&sealed, false)),
        ("<sealed.1>", half(&sealed, true)),
        ("<by another key>", seal(8, Purpose::IdToken(TOKEN_COOKIE))),
        ("<for another cookie>", seal(SEALING_KEY_BYTES[0], Purpose::IdToken("other"))),
        ("<state>", "A".repeat(22)),
    ]
});

pub fn cookies(input: &[u8]) -> bool {
    let [variant, rest] = lines(input);
    let values: Vec<(&str, &str)> = VALUES.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let fields = fields(rest, &values);
    let is_sealed = variant == b"sealed";
    let host = Host::new(Timestamp::from_secs(NOW), &[AUTHORIZE, END_SESSION]);
    let mut gate = Gate::new(if is_sealed { SEALED.clone() } else { PLAIN.clone() });

    let decision = host.get(&mut gate, b"/salary", &fields);
    let forwards = decision.kind == DecisionKind::Forward;
    if forwards {
        let good = BTreeSet::from([GOOD_TOKEN.as_bytes().to_vec()]);
        assert_eq!(tokens(&fields, is_sealed), good, "forwards it");
        assert_eq!(added(&decision, "x-user"), ["ada"]);
    }
    check_edits(&fields, &decision);
    check_edits(&fields, &host.get(&mut gate, b"/news", &fields));

    let callback = format!("{CALLBACK}?code=x&state={}", "A".repeat(22));
    for own in [callback.as_str(), LOGOUT] {
        let decision = host.get(&mut gate, own.as_bytes(), &fields);
        let response = decision.response.expect("an answer");
        for (_, cookie) in response.headers.iter().filter(|(name, _)| *name == "set-cookie") {
            assert!(cookie.contains("=;"), "nothing has proven anything, and yet it sets {cookie}");
        }
    }
    forwards
}

/// Every cookie of a request.
fn pairs(fields: &[(String, Vec<u8>)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let trim = |text: &[u8]| -> Vec<u8> {
        let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
        let end = text.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
        text[start..end].to_vec()
    };
    let of_field = |field: &[u8]| -> Vec<(Vec<u8>, Vec<u8>)> {
        let pairs = field.split(|&byte| byte == b';').filter(|pair| pair.contains(&b'='));
        let split = |pair: &[u8]| {
            let mut parts = pair.splitn(2, |&byte| byte == b'=').map(trim);
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        };
        pairs.map(split).collect()
    };
    let cookies = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("cookie"));
    cookies.flat_map(|(_, value)| of_field(value)).collect()
}

/// Every token that anybody could find in a request: the gate may take one only where there is no other.
fn tokens(fields: &[(String, Vec<u8>)], is_sealed: bool) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    let mut chunks: BTreeMap<u64, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for (name, value) in pairs(fields).into_iter().filter(|(_, value)| !value.is_empty()) {
        if name == TOKEN_COOKIE.as_bytes() {
            found.insert(value);
        } else if let Some(number) = name.strip_prefix(b"id_token.").and_then(|number| std::str::from_utf8(number).ok())
            && let Ok(number) = number.parse()
        {
            chunks.entry(number).or_default().insert(value);
        }
    }
    assert!(chunks.values().all(|values| values.len() == 1), "takes one of two chunks of a number");
    let joined: Vec<u8> = chunks.into_values().flatten().flatten().collect();
    found.extend((!joined.is_empty()).then_some(joined));
    if is_sealed {
        let keys = SealingKeys::new(&SEALING_KEY_BYTES, &[]);
        let open = |sealed: Vec<u8>| keys.open(Purpose::IdToken(TOKEN_COOKIE), std::str::from_utf8(&sealed).ok()?);
        found = found.into_iter().map(|sealed| open(sealed).unwrap_or_default()).collect();
    }
    found.extend(bearer_tokens(fields));
    found
}

/// RFC 6750 section 2.1; several fields of one name may have been joined with commas.
fn bearer_tokens(fields: &[(String, Vec<u8>)]) -> Vec<Vec<u8>> {
    let headers = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let values = headers.flat_map(|(_, value)| value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
    let pairs = values.filter_map(|value| value.split_at_checked(7));
    pairs
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
        .map(|(_, token)| token.trim_ascii().to_vec())
        .collect()
}

fn added<'a>(decision: &'a Decision, name: &str) -> Vec<&'a str> {
    let fields = decision.request.added.iter().filter(|(known, _)| known == name);
    fields.filter_map(|(_, value)| std::str::from_utf8(value).ok()).collect()
}

/// What goes on to the app has neither the token nor a cookie of the gate's, and no identity that the client has made up.
fn check_edits(fields: &[(String, Vec<u8>)], decision: &Decision) {
    if decision.response.is_some() {
        return;
    }
    let edits = &decision.request;
    let mut seen: Vec<(String, Vec<u8>)> = fields
        .iter()
        .filter(|(name, _)| !edits.removed.iter().any(|removed| removed.eq_ignore_ascii_case(name.as_bytes())))
        .cloned()
        .collect();
    let is_identity = |name: &str| {
        let plain: String = name
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' })
            .collect();
        plain == "x-user"
    };
    assert!(!seen.iter().any(|(name, _)| is_identity(name)), "passes the client's own x-user on");
    seen.extend(edits.added.clone());
    for (name, _) in pairs(&seen) {
        let name = String::from_utf8_lossy(&name);
        assert!(!is_own_cookie(&name, &PLAIN), "passes {name} on");
    }
    assert!(bearer_tokens(&seen).is_empty(), "passes the token on");
}
