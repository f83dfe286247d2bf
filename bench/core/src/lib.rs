//! What is measured, by time (`benches/decisions.rs`) and by instructions (`main.rs`): the decisions of `make bench`, without
//! Envoy around them. Nothing in here differs from run to run.

use std::hint::black_box;

use serde_json::{Value, json};
use stepgate::http::Request;
use stepgate::time::Timestamp;
use stepgate::{Config, Env, Gate, Outcome, Step};

/// When the tokens were minted.
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

const ENV: Env<'static> = Env { now: NOW, entropy: &|| [7; 32] };

const OPEN: &str = "/news/2026/11";
const PROTECTED: &str = "/salary/2026/11";

/// 81 readings, of which some are protected.
const MANY_READINGS: &str = "/x/..%2fsalary%2F;v=1/%252e/2026//11%20";

/// More than the cache holds, so that each new token pushes out another.
const CACHE_FILLING: usize = 5_000;

/// What is measured, and how it is repeated.
pub enum Work {
    /// The same gate decides again and again.
    Again(Box<dyn FnMut()>),
    /// Each time a gate that has seen nothing decides; making it takes no part.
    Afresh(fn() -> Gate, Box<dyn Fn(&mut Gate)>),
}

/// Makes all that a scenario needs, which takes a while.
pub type Prepare = fn() -> Work;

/// The scenarios by name.
pub const SCENARIOS: [(&str, Prepare); 11] = [
    ("unprotected", || again(gate(), OPEN, Some("mfa"), "not_protected")),
    ("seen", || again(gate(), PROTECTED, Some("mfa"), "satisfied")),
    ("seen_1000_rules", || again(made(&with_rules(1000)), PROTECTED, Some("mfa"), "satisfied")),
    ("seen_many_readings", || again(gate(), MANY_READINGS, Some("mfa"), "satisfied")),
    ("seen_callback_forward", || again(made(&with_callback()), PROTECTED, Some("mfa"), "satisfied")),
    ("redirect_no_token", || again(gate(), PROTECTED, None, "token_missing")),
    ("redirect_no_mfa", || again(gate(), PROTECTED, Some("password"), "amr_insufficient")),
    ("new_by_host", new_by_host),
    ("new_rs256_software", || in_software("mfa")),
    ("new_es256_software", || in_software("mfa_es256")),
    ("start", start),
];

/// Who checks a signature.
#[derive(Clone, Copy)]
enum Verifier {
    /// Nobody: the token was seen before.
    Nobody,
    /// A host that finds every signature valid.
    Host,
    Software,
}

fn again(mut gate: Gate, path: &'static str, token: Option<&str>, reason: &'static str) -> Work {
    let browser = Browser::new(path, token.map(|name| minted()["tokens"][name].as_str().expect("a token").to_owned()));
    browser.ask(&mut gate, Verifier::Host, reason);
    Work::Again(Box::new(move || browser.ask(&mut gate, Verifier::Nobody, reason)))
}

fn new_by_host() -> Work {
    let mut gate = gate();
    let mut token = minted()["tokens"]["mfa"].as_str().expect("a token").to_owned();
    let mut number = 0;
    let mut ask_with_the_next = move || {
        // The host finds any signature valid, so the number in its place makes another token. The last character stays: not
        // every one can end a base64url text.
        token.replace_range(token.len() - 9..token.len() - 1, &format!("{number:08}"));
        number += 1;
        Browser::new(PROTECTED, Some(token.clone())).ask(&mut gate, Verifier::Host, "satisfied");
    };
    (0..CACHE_FILLING).for_each(|_| ask_with_the_next());
    Work::Again(Box::new(ask_with_the_next))
}

fn in_software(token: &str) -> Work {
    let browser = Browser::new(PROTECTED, minted()["tokens"][token].as_str().map(str::to_owned));
    Work::Afresh(gate, Box::new(move |gate| browser.ask(gate, Verifier::Software, "satisfied")))
}

fn start() -> Work {
    let document = with_rules(10).to_string();
    Work::Again(Box::new(move || {
        let config = Config::from_json(document.as_bytes(), &|_| None).expect("a configuration");
        black_box(Gate::new(config));
    }))
}

/// A browser's navigation, as in bench/arrangements.mjs.
struct Browser {
    path: &'static str,
    fields: Vec<(&'static str, String)>,
}

impl Browser {
    fn new(path: &'static str, token: Option<String>) -> Self {
        let token = token.map(|token| format!("id_token={token}; ")).unwrap_or_default();
        let cookie = format!(
            "_ga=GA1.1.1204487325.1761912345; theme=dark; {token}session=8f14e45fceea167a5a36dedd4bea2543; \
             csrftoken=Qm9vdHN0cmFwLXN0ZXBnYXRlLTIwMjY; _ga_4XK2L9P1QZ=GS1.1.1763971200.12.1.1763972345.60.0.0"
        );
        let fields = [
            ("cache-control", "max-age=0"),
            ("sec-ch-ua", r#""Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99""#),
            ("sec-ch-ua-mobile", "?0"),
            ("sec-ch-ua-platform", r#""Linux""#),
            ("upgrade-insecure-requests", "1"),
            (
                "user-agent",
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
            ),
            (
                "accept",
                "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8",
            ),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-user", "?1"),
            ("sec-fetch-dest", "document"),
            ("referer", "https://app.example.com/news"),
            ("accept-encoding", "gzip, deflate, br, zstd"),
            ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
            ("cookie", &cookie),
        ];
        Self { path, fields: fields.map(|(name, value)| (name, value.to_owned())).into() }
    }

    /// The gate decides for this reason, or what is measured is something else.
    fn ask(&self, gate: &mut Gate, verifier: Verifier, reason: &str) {
        let request =
            Request { method: b"GET", authority: b"app.example.com", path: self.path.as_bytes(), fields: &self.fields };
        let mut step = gate.begin(black_box(&request), ENV);
        let decision = loop {
            step = match (step, verifier) {
                (Step::Done(decision), _) => break decision,
                (Step::Verify(_, pending), Verifier::Host) => gate.resume(pending, Outcome::Verified(true), ENV),
                (Step::Verify(_, pending), Verifier::Software) => gate.resume(pending, Outcome::Unsupported, ENV),
                (other, _) => panic!("not asked for here: {other:?}"),
            };
        };
        assert_eq!(black_box(decision).reason.code(), reason);
    }
}

fn minted() -> Value {
    serde_json::from_str(include_str!("tokens.json")).expect("JSON")
}

fn gate() -> Gate {
    made(&with_rules(1))
}

fn made(config: &Value) -> Gate {
    Gate::new(Config::from_value(config, &|_| None).expect("a configuration"))
}

/// So many rules, of which one is for the protected path.
fn with_rules(count: usize) -> Value {
    let mut rules: Vec<Value> = (1..count)
        .map(|at| json!({ "paths": [format!("/area-{at}/**")], "except": [format!("/area-{at}/help")] }))
        .collect();
    rules.push(json!({ "paths": ["/salary/**"] }));
    json!({
        "provider": {
            "issuer": "https://idp.example.test/",
            "authorization_endpoint": "https://idp.example.test/authorize",
            "jwks": minted()["jwks"],
        },
        "client": {
            "id": "k3yC1ient",
            "redirect_uri": "https://app.example.com/callback",
            "secret": "a client secret of more than 32 bytes",
        },
        "token": { "algorithms": ["RS256", "ES256"] },
        "rules": rules,
    })
}

/// The gate completes logins and tells the app who asks.
fn with_callback() -> Value {
    let mut config = with_rules(1);
    config["provider"]["token_endpoint"] = json!("https://idp.example.test/token");
    config["callback"] = json!({ "keys": ["BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="] });
    config["forward"] = json!({ "headers": { "x-user-id": "sub", "x-user-email": "email" }, "strip_token": true });
    config
}
