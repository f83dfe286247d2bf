//! Forged tokens: each takes a token that would pass, changes the one thing that its row names, and must be refused for
//! the reason that its row gives. Whatever can be signed is signed by the provider's own key, so that nothing but the
//! forgery decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64URL};
use jwt_compact::alg::{Hs256, Hs256Key};
use jwt_compact::{Algorithm as _, AlgorithmSignature as _};
use p256::ecdsa::Signature;
use rsa_by_jwt_compact::BigUint;
use serde_json::{Value, json};
use stepgate::http::Request;
use stepgate::jose::{Algorithm, KeySet};
use stepgate::time::Timestamp;
use stepgate::{Config, Decision, Env, Gate, Outcome, Step};

#[allow(dead_code, reason = "each test crate uses a part of it")]
mod support;

use support::keys;

#[path = "forge/table.rs"]
mod table;

use table::{FORGERIES, TOLERATED};

/// Times in the table are absolute: this is now.
const NOW: u64 = 1_800_000_000;

/// The default of `token.max_bytes`.
const MAX_BYTES: usize = 16_384;

/// What a forgery starts from: a token of this key and algorithm, and the gate that lets it pass.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Base {
    gate: Setting,
    key: &'static str,
    algorithm: &'static str,
}

/// Whose algorithms are …
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Setting {
    /// … all that use a key of the provider.
    Public,
    /// … RS256, which is the default.
    Default,
    /// … RS256, and HS256 with the client secret.
    Secret,
}

const RS256: Base = Base { gate: Setting::Public, key: "rsa", algorithm: "RS256" };
const RS512: Base = Base { algorithm: "RS512", ..RS256 };
const PS256: Base = Base { algorithm: "PS256", ..RS256 };
const ES256: Base = Base { key: "ec", algorithm: "ES256", ..RS256 };
const EDDSA: Base = Base { key: "ed", algorithm: "EdDSA", ..RS256 };
/// Where the algorithm does not matter: the cheapest.
const ANY: Base = ES256;
const DEFAULT: Base = Base { gate: Setting::Default, ..RS256 };
const EITHER: Base = Base { gate: Setting::Secret, ..RS256 };
const HS256: Base = Base { gate: Setting::Secret, key: "secret", algorithm: "HS256" };

type Bytes = Vec<u8>;

/// What is changed, everything else being as in the base. JSON is text, so that it can be what no JSON library writes.
enum Forgery {
    /// Nothing.
    Unchanged,
    /// This member of the header has this value; none at all where that is empty.
    Header(&'static str, &'static str),
    /// The same of several members, and the message is signed like this. `$attacker` is the attacker's own public JWK.
    Signed(&'static [(&'static str, &'static str)], fn(&[u8]) -> Bytes),
    /// The header is these bytes.
    HeaderBytes(fn(&str) -> Bytes),
    /// This claim has this value; none at all where that is empty.
    Claim(&'static str, &'static str),
    /// The claims are these bytes.
    ClaimsBytes(fn(&str) -> Bytes),
    /// The signature is these bytes.
    Signature(fn(&[u8]) -> Bytes),
    /// The parts are put together like this: `{h}`, `{p}` and `{s}`.
    Form(&'static str),
    /// The whole token is rewritten.
    Text(fn(&str) -> String),
    /// It is so many bytes long.
    Length(usize),
}

/// What is attacked, and how; and the reason of the refusal.
type Row = (&'static str, Base, Forgery, &'static str);

#[test]
fn forgeries_are_refused_each_for_its_reason() {
    let mut wrong = Vec::new();
    let mut genuine = BTreeMap::new();
    for (attack, base, forgery, reason) in FORGERIES {
        let genuine = genuine.entry(*base).or_insert_with(|| forge(*base, &Forgery::Unchanged));
        let token = forge(*base, forgery);
        assert_ne!(token, *genuine, "{attack}: nothing is forged");
        let mut gate = gate(base.gate);
        // Twice in software, since a gate learns nothing from a forgery. Then by a host that takes any signature for good,
        // which changes the verdict on nothing else.
        let by_host = (*reason != table::BAD_SIGNATURE).then_some(Outcome::Verified(true));
        for verdict in [Outcome::Unsupported, Outcome::Unsupported].into_iter().chain(by_host) {
            let checked = format!("{verdict:?}");
            let found = outcome(&decide(&mut gate, &token, verdict));
            if found != ("refused", *reason) {
                wrong.push(format!("{attack} ({checked}): {found:?}, expected {reason}"));
            }
        }
        let passes = decide(&mut gate, genuine, Outcome::Unsupported);
        assert_eq!(outcome(&passes), ("forwarded", "satisfied"), "the token that `{attack}` forges");
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), FORGERIES.len());
}

#[test]
fn what_is_odd_and_yet_no_forgery_passes() {
    for (oddity, base, forgery, reason) in TOLERATED {
        let decision = decide(&mut gate(base.gate), &forge(*base, forgery), Outcome::Unsupported);
        assert_eq!(outcome(&decision), ("forwarded", *reason), "{oddity}: {}", decision.reason);
    }
}

#[test]
fn each_row_is_there_once() {
    let attacks: BTreeSet<&str> = FORGERIES.iter().chain(TOLERATED).map(|(attack, ..)| *attack).collect();
    assert_eq!(attacks.len(), FORGERIES.len() + TOLERATED.len());
    assert!(FORGERIES.len() >= 200, "only {} forgeries", FORGERIES.len());
}

/// What becomes of the request, and why. Nothing but an answer of the gate's own is a refusal.
fn outcome(decision: &Decision) -> (&'static str, &'static str) {
    let fate = match (decision.kind.name(), &decision.response) {
        ("forward", None) => "forwarded",
        ("redirect", Some(_)) => "refused",
        _ => "neither",
    };
    (fate, decision.reason.code())
}

fn decide(gate: &mut Gate, token: &str, verdict: Outcome) -> Decision {
    let fields = vec![("cookie", format!("id_token={token}"))];
    let request = Request { method: b"GET", authority: b"app.example.com", path: b"/salary", fields: &fields };
    let env = Env { now: Timestamp::from_secs(NOW), entropy: &|| [7; 32] };
    let step = match gate.begin(&request, env) {
        Step::Verify(_, pending) => gate.resume(pending, verdict, env),
        step => step,
    };
    match step {
        Step::Done(decision) => decision,
        other => panic!("not decided: {other:?}"),
    }
}

fn gate(setting: Setting) -> Gate {
    static CONFIGS: LazyLock<[Config; 3]> = LazyLock::new(|| {
        let rsa = keys::public_jwk("rsa");
        let with = |name: &str, value: &str, kid: &str| {
            let mut jwk = rsa.clone();
            (jwk[name], jwk["kid"]) = (json!(value), json!(kid));
            jwk
        };
        let all = json!([
            rsa,
            with("alg", "RS256", "rsa-for-RS256"),
            with("use", "enc", "rsa-for-encryption"),
            keys::public_jwk("ec"),
            keys::public_jwk("ed"),
        ]);
        let public: Vec<&str> =
            Algorithm::ALL.iter().map(|algorithm| algorithm.name()).filter(|name| *name != "HS256").collect();
        [
            config(&all, &json!({ "algorithms": public })),
            config(&json!([rsa]), &json!({})),
            config(&json!([rsa]), &json!({ "algorithms": ["RS256", "HS256"] })),
        ]
    });
    Gate::new(CONFIGS[setting as usize].clone())
}

fn config(keys: &Value, token: &Value) -> Config {
    let document = json!({
        "provider": {
            "issuer": "https://idp.example.com/",
            "authorization_endpoint": "https://idp.example.com/authorize",
            "jwks": { "keys": keys },
        },
        "client": {
            "id": "client",
            "secret": keys::SECRET,
            "redirect_uri": "https://app.example.com/callback",
            "audiences": ["client-on-phones"],
        },
        "token": token,
        "rules": [{ "paths": ["/salary/**"], "require": { "amr": "mfa", "acr": "gold", "max_age": "15m" } }],
    });
    Config::from_value(&document, &|_| None).unwrap()
}

fn forge(base: Base, forgery: &Forgery) -> String {
    let quoted = |text: &str| format!("\"{text}\"");
    let mut header = vec![("alg", quoted(base.algorithm)), ("kid", quoted(base.key)), ("typ", quoted("JWT"))];
    let mut claims = vec![
        ("iss", quoted("https://idp.example.com/")),
        ("sub", quoted("ada")),
        ("aud", quoted("client")),
        ("iat", "1800000000".to_owned()),
        ("exp", "1800003600".to_owned()),
        ("auth_time", "1800000000".to_owned()),
        ("amr", r#"["pwd","mfa"]"#.to_owned()),
        ("acr", quoted("gold")),
    ];
    match forgery {
        Forgery::Header(name, value) => put(&mut header, name, value),
        Forgery::Claim(name, value) => put(&mut claims, name, value),
        Forgery::Signed(members, _) => members.iter().for_each(|(name, value)| put(&mut header, name, value)),
        _ => {}
    }
    let (header, claims) = (object(&header), object(&claims));
    let genuine = |message: &[u8]| keys::sign(base.key, base.algorithm, message);
    match forgery {
        Forgery::Unchanged | Forgery::Header(..) | Forgery::Claim(..) => assemble(header, claims, genuine),
        Forgery::Signed(_, sign) => assemble(header, claims, sign),
        Forgery::HeaderBytes(rewrite) => assemble(rewrite(&header), claims, genuine),
        Forgery::ClaimsBytes(rewrite) => assemble(header, rewrite(&claims), genuine),
        Forgery::Signature(rewrite) => assemble(header, claims, |message| rewrite(&genuine(message))),
        Forgery::Form(form) => {
            let token = assemble(header, claims, genuine);
            let parts: Vec<&str> = token.split('.').collect();
            form.replace("{h}", parts[0]).replace("{p}", parts[1]).replace("{s}", parts[2])
        }
        Forgery::Text(rewrite) => rewrite(&assemble(header, claims, genuine)),
        Forgery::Length(length) => {
            let room = length - ".".len() - ".".len() - encoded(genuine(b"").len());
            let (header, claims) = filling(room, &header, &claims);
            assemble(header, claims, genuine)
        }
    }
}

/// The header and the claims, made so long that they have this length together. Not every length is one of base64: with
/// some white space in the header, one of them fits.
fn filling(room: usize, header: &str, claims: &str) -> (String, Bytes) {
    let empty = and(claims, r#""pad":"""#);
    let fitting = (0..3).find_map(|spaces| {
        let header = header.to_owned() + &" ".repeat(spaces);
        let letters = (room - encoded(header.len())) * 3 / 4 - empty.len();
        let claims = and(claims, &format!(r#""pad":"{}""#, "x".repeat(letters)));
        (encoded(header.len()) + encoded(claims.len()) == room).then_some((header, claims))
    });
    fitting.expect("a token of that length")
}

fn put(members: &mut Vec<(&'static str, String)>, name: &'static str, value: &str) {
    let value = if value == "$attacker" { keys::public_jwk("rsa_other").to_string() } else { value.to_owned() };
    match members.iter().position(|(known, _)| *known == name) {
        Some(at) if value.is_empty() => drop(members.remove(at)),
        Some(at) => members[at].1 = value,
        None => members.push((name, value)),
    }
}

fn object(members: &[(&str, String)]) -> String {
    let members: Vec<String> = members.iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
    format!("{{{}}}", members.join(","))
}

fn assemble(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>, sign: impl Fn(&[u8]) -> Bytes) -> String {
    let message = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(claims));
    let signature = BASE64URL.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// How long bytes are in base64url.
const fn encoded(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

// What the table is written with.

fn by_attacker(message: &[u8]) -> Bytes {
    keys::sign("rsa_other", "RS256", message)
}

fn unsigned(_: &[u8]) -> Bytes {
    Bytes::new()
}

fn hmac(key: impl AsRef<[u8]>, message: &[u8]) -> Bytes {
    Hs256.sign(&Hs256Key::new(key), message).as_bytes().into_owned()
}

/// The provider's RSA key as DER SubjectPublicKeyInfo, and in PEM.
fn der() -> Bytes {
    let (set, _) = KeySet::from_value(&json!({ "keys": [keys::public_jwk("rsa")] })).unwrap();
    set.select(Algorithm::Rs256, Some("rsa")).unwrap().unwrap().spki().to_vec()
}

fn pem() -> String {
    let text = STANDARD.encode(der());
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

fn modulus() -> Bytes {
    BASE64URL.decode(keys::public_jwk("rsa")["n"].as_str().unwrap()).unwrap()
}

fn flipped(bytes: &[u8], at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

/// The text with one more member at the end of its object.
fn and(object: &str, member: &str) -> Bytes {
    format!("{},{member}}}", object.strip_suffix('}').unwrap()).into_bytes()
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

/// The order of P-256's group, and that of Ed25519's.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
const ED25519_ORDER: [u8; 32] = [
    0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x14, 0xde, 0xf9,
    0xde, 0xa2, 0xf7, 0x9c, 0xd6, 0x58, 0x12, 0x63, 0x1a, 0x5c, 0xf5, 0xd3, 0xed,
];

/// The same signature with the other of the two `s` that verify (and the other `r`, which does not).
fn high_s(signature: &[u8]) -> Bytes {
    let (r, s) = Signature::from_slice(signature).unwrap().split_scalars();
    Signature::from_scalars(r, -s).unwrap().to_bytes().to_vec()
}

fn negative_r(signature: &[u8]) -> Bytes {
    let (r, s) = Signature::from_slice(signature).unwrap().split_scalars();
    Signature::from_scalars(-r, s).unwrap().to_bytes().to_vec()
}

fn ecdsa_der(signature: &[u8]) -> Bytes {
    Signature::from_slice(signature).unwrap().to_der().as_bytes().to_vec()
}

/// RFC 8032 section 5.1.7: `S` in the range 0 ≤ S < L, lest each signature have a second one.
fn s_plus_order(signature: &[u8]) -> Bytes {
    let s = BigUint::from_bytes_le(&signature[32..]) + BigUint::from_bytes_be(&ED25519_ORDER);
    let mut s = s.to_bytes_le();
    s.resize(32, 0);
    [&signature[..32], &s].concat()
}

/// `n - s`, a root of the negative message.
fn negative_rsa(signature: &[u8]) -> Bytes {
    let difference = BigUint::from_bytes_be(&modulus()) - BigUint::from_bytes_be(signature);
    let bytes = difference.to_bytes_be();
    [vec![0; 256 - bytes.len()], bytes].concat()
}

/// One of the unused bits of a part's last character is set: the same bytes to a lenient decoder.
fn stray_bit(token: &str, part: usize) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    assert!(!parts[part].len().is_multiple_of(4), "no unused bits");
    let last = ALPHABET.find(parts[part].pop().unwrap()).unwrap();
    parts[part].push(char::from(ALPHABET.as_bytes()[last | 1]));
    parts.join(".")
}
