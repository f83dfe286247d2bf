//! A gate, an honest provider behind it, browsers in front of it, and what holds for every answer.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use stepgate::http::{Request, Response, form_decode};
use stepgate::provider::{Endpoint, Fetch, Reply};
use stepgate::time::Timestamp;
use stepgate::{Config, Decision, DecisionKind, Env, Gate, Outcome, Step};

use crate::support::{keys, mint};

pub const NOW: u64 = 1_800_000_000;
pub const HOST: &str = "app.example.com";
const REDIRECT_URI: &str = "https://app.example.com/callback";
pub const ISSUER: &str = "https://idp.test/";
const AUTHORIZE: &str = "https://idp.test/authorize?";
const END_SESSION: &str = "https://idp.test/end?";
const DOMAIN: &str = "example.com";
pub const TRANSACTION: &str = "__Host-stepgate_tx_";
pub const ATTEMPTS: &str = "__Host-stepgate_attempts";
pub const PAGE: (&str, &str) = ("accept", "text/html");
pub const SCRIPT: (&str, &str) = ("accept", "application/json");

pub type Parameters = BTreeMap<String, String>;

/// A login is enough for most pages, `/salary` asks for a second factor.
pub fn config() -> Value {
    json!({
        "provider": { "issuer": ISSUER },
        "client": { "id": "client", "redirect_uri": REDIRECT_URI, "secret": keys::SECRET },
        "token": { "algorithms": ["ES256"] },
        "callback": { "keys": [STANDARD.encode([1; 32])], "logout_path": "/logout" },
        "rules": [{ "paths": ["/**"], "require": {} }, { "paths": ["/salary/**"] }],
    })
}

pub fn config_of_domain() -> Value {
    let mut config = config();
    config["callback"]["cookie"] = json!({ "domain": DOMAIN });
    config
}

/// What the provider has a code for.
struct Grant {
    challenge: String,
    token: String,
    used: bool,
}

/// A gate and the provider behind it.
pub struct World {
    config: Value,
    gate: Gate,
    pub now: u64,
    drawn: Cell<u64>,
    grants: Vec<Grant>,
    pub exchanges: usize,
    /// Whether the provider takes codes twice, and with any verifier.
    pub careless: bool,
    /// The last redirect to the provider.
    pub asked: Parameters,
    /// The provider's `request_uri` for pushed parameters.
    pub request_uri: String,
}

#[derive(Clone, Default)]
pub struct Browser(pub BTreeMap<String, String>);

/// A request; what is left out is that of a browser that goes to the callback's host.
#[derive(Clone)]
pub struct Ask<'a> {
    pub method: &'a str,
    pub host: &'a str,
    pub target: &'a str,
    pub headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Ask<'a> {
    pub fn page(target: &'a str) -> Self {
        Self { method: "GET", host: HOST, target, headers: vec![PAGE] }
    }

    pub fn with(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl World {
    pub fn new(config: Value) -> Self {
        let gate = Gate::new(Config::from_value(&config, &|_| None).unwrap());
        let drawn = Cell::new(0);
        let (grants, asked, request_uri) = (Vec::new(), Parameters::new(), "urn:x:1".to_owned());
        Self { config, gate, now: NOW, drawn, grants, exchanges: 0, careless: false, asked, request_uri }
    }

    pub fn go(&mut self, browser: &mut Browser, target: &str) -> Decision {
        self.send(browser, &Ask::page(target))
    }

    pub fn send(&mut self, browser: &mut Browser, ask: &Ask<'_>) -> Decision {
        let mut fields: Vec<(&str, String)> =
            ask.headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        fields.extend(browser.0.iter().map(|(name, value)| ("cookie", format!("{name}={value}"))));
        let request = Request {
            method: ask.method.as_bytes(),
            authority: ask.host.as_bytes(),
            path: ask.target.as_bytes(),
            fields: &fields,
        };
        let drawn = self.drawn.clone();
        let entropy = || {
            drawn.set(drawn.get() + 1);
            let bytes = drawn.get().to_be_bytes();
            std::array::from_fn(|at| bytes[at % 8] ^ u8::try_from(at).unwrap())
        };
        let env = Env { now: Timestamp::from_secs(self.now), entropy: &entropy };
        let mut step = self.gate.begin(&request, env);
        let decision = loop {
            step = match step {
                Step::Done(decision) => break decision,
                Step::Verify(_, pending) => self.gate.resume(pending, Outcome::Unsupported, env),
                Step::Body(..) => panic!("no form is asked for"),
                Step::Fetch(fetch, pending) => {
                    let (status, body) = self.reply(&fetch);
                    let reply = Reply::from_http(&fetch, env.now, status, body.into_bytes());
                    self.gate.resume(pending, Outcome::Fetched(reply), env)
                }
            };
        };
        self.drawn = drawn;
        self.check(ask, &decision);
        browser.take(&decision);
        let location = location(&decision);
        if location.starts_with(AUTHORIZE) {
            self.asked = query(&location);
        }
        decision
    }

    fn reply(&mut self, fetch: &Fetch) -> (u16, String) {
        let form = fetch.form.as_ref().map(|form| form_decode(form.body.reveal().as_bytes()));
        match fetch.endpoint {
            Endpoint::Metadata => (200, metadata().to_string()),
            Endpoint::Keys => (200, json!({ "keys": [keys::public_jwk("ec")] }).to_string()),
            Endpoint::PushedAuthorization => (201, json!({ "request_uri": self.request_uri }).to_string()),
            Endpoint::Token => {
                self.exchanges += 1;
                let form: Parameters = form.unwrap().into_iter().collect();
                let refused = (400, json!({ "error": "invalid_grant" }).to_string());
                let grant = form["code"].parse().ok().and_then(|number: usize| self.grants.get_mut(number));
                let Some(grant) = grant else { return refused };
                let proven = URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"])) == grant.challenge;
                if !self.careless && (grant.used || !proven) {
                    return refused;
                }
                grant.used = true;
                (200, json!({ "token_type": "Bearer", "id_token": grant.token }).to_string())
            }
        }
    }

    /// The provider is asked so, and issues a code for a token with these claims.
    pub fn grant(&mut self, asked: &Parameters, claims: Value) -> String {
        let mut claims = claims;
        if claims.get("nonce").is_none() {
            claims["nonce"] = json!(asked["nonce"]);
        }
        self.grant_token(asked, json!({ "key": "ec", "claims": claims }))
    }

    pub fn grant_token(&mut self, asked: &Parameters, specification: Value) -> String {
        let token = self.token(specification);
        self.grants.push(Grant { challenge: asked["code_challenge"].clone(), token, used: false });
        (self.grants.len() - 1).to_string()
    }

    pub fn token(&self, specification: Value) -> String {
        mint(&specification, &self.config, self.now)
    }

    /// Sets out for a page; gives what the provider is asked.
    pub fn set_out(&mut self, browser: &mut Browser, target: &str) -> Parameters {
        assert_eq!(self.go(browser, target).kind, DecisionKind::Redirect, "{target}");
        self.asked.clone()
    }

    /// Logs in for a page, as somebody whose token has these claims.
    pub fn log_in(&mut self, target: &str, claims: Value) -> Browser {
        let mut browser = Browser::default();
        let asked = self.set_out(&mut browser, target);
        let code = self.grant(&asked, claims);
        assert_eq!(found(&self.go(&mut browser, &callback(&asked["state"], &code))), "redirect login_completed");
        browser
    }

    /// Follows redirects of the gate and the provider, to the page; gives every decision.
    pub fn follow(&mut self, browser: &mut Browser, ask: &Ask<'_>) -> Vec<Decision> {
        let mut decisions = vec![self.send(browser, ask)];
        loop {
            let next = links(decisions.last().unwrap()).into_iter().find_map(|link| {
                if link.starts_with(AUTHORIZE) {
                    let asked = self.asked.clone();
                    let code = self.grant(&asked, json!({ "amr": ["mfa"] }));
                    return Some(callback(&asked["state"], &code));
                }
                let start = link.strip_prefix("https://app.example.com")?;
                start.starts_with("/callback?step_up=").then(|| start.to_owned())
            });
            match next {
                Some(target) if decisions.len() < 5 => decisions.push(self.go(browser, &target)),
                _ => return decisions,
            }
        }
    }

    /// What holds for every answer.
    fn check(&self, ask: &Ask<'_>, decision: &Decision) {
        let context = || format!("{} {:?} at {:?}: {}", ask.method, ask.target, ask.host, decision.reason.code());
        for (name, value) in &decision.request.added {
            assert!(value.iter().all(|byte| *byte >= b' ' && *byte != 0x7f), "{}: {name} breaks its line", context());
        }
        for link in links(decision) {
            assert!(self.may_lead_to(ask.host, &link), "{} leads to {link:?}", context());
        }
        let Some(Response { headers, .. }) = &decision.response else { return };
        assert!(headers.iter().filter(|(name, _)| *name == "location").count() <= 1, "{}", context());
        for (name, value) in headers {
            assert!(HEADERS.contains(name), "{}: {name}", context());
            assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{}: {name}: {value:?}", context());
        }
        for (name, value, attributes) in cookies(decision) {
            assert!(name.strip_prefix(TRANSACTION).is_none_or(is_random), "{}: {name}", context());
            let names = ["id_token", "__Host-id_token", ATTEMPTS];
            let stem = name.trim_end_matches(|character: char| character.is_ascii_digit()).trim_end_matches('.');
            assert!(names.contains(&stem) || name.starts_with(TRANSACTION), "{}: {name}", context());
            assert!(attributes.is_subset(&BTreeSet::from(ATTRIBUTES)), "{}: {attributes:?}", context());
            let is_elevation = stem.ends_with("id_token") && !value.is_empty();
            assert!(!is_elevation || decision.reason.code() == "login_completed", "{} sets a token", context());
        }
    }

    /// The provider's endpoints, the gate's own link to a login, its main page, and the origin that the request was for.
    fn may_lead_to(&self, host: &str, link: &str) -> bool {
        if let Some(asked) = link.strip_prefix(AUTHORIZE) {
            return is_authentication_request(asked);
        }
        if link.starts_with(END_SESSION) {
            return query(link).get("post_logout_redirect_uri").is_some_and(|uri| uri == "https://app.example.com/");
        }
        if let Some(start) = link.strip_prefix("https://app.example.com/callback?step_up=") {
            return is_random(start);
        }
        link == "https://app.example.com/" || is_path(link) || self.is_of_domain(host, link)
    }

    fn is_of_domain(&self, host: &str, link: &str) -> bool {
        if self.config["callback"]["cookie"]["domain"] != DOMAIN {
            return false;
        }
        let Some((origin, path)) = link.strip_prefix("https://").and_then(|rest| rest.split_once('/')) else {
            return false;
        };
        let (name, port) = origin.split_once(':').unwrap_or((origin, ""));
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let is_below = name == DOMAIN || name.ends_with(".example.com");
        // The start link's request is for the callback's host; where the login began is what it says.
        let is_own = host == HOST || host.eq_ignore_ascii_case(origin);
        is_name && is_below && is_own && port.bytes().all(|byte| byte.is_ascii_digit()) && is_path(&format!("/{path}"))
    }
}

const HEADERS: [&str; 9] = [
    "location",
    "cache-control",
    "set-cookie",
    "content-type",
    "content-security-policy",
    "x-content-type-options",
    "referrer-policy",
    "retry-after",
    "www-authenticate",
];

const ATTRIBUTES: [&str; 8] = [
    "Path=/",
    "HttpOnly",
    "Secure",
    "SameSite=Lax",
    "Domain=example.com",
    "Domain=app.example.com",
    "Max-Age",
    "Max-Age=0",
];

/// A path of whatever origin it is read at: browsers drop controls, and read `//` and `/\` as another host.
pub fn is_path(link: &str) -> bool {
    link.bytes().all(|byte| byte.is_ascii_graphic()) && link.starts_with('/') && !link[1..].starts_with(['/', '\\'])
}

/// Base64url of 16 bytes or more.
fn is_random(text: &str) -> bool {
    text.len() >= 22 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Nothing but what the configuration and chance have put there.
fn is_authentication_request(asked: &str) -> bool {
    let pairs = form_decode(asked.as_bytes());
    let parameters: Parameters = pairs.iter().cloned().collect();
    if let [(client_id, _), (request_uri, _)] = pairs.as_slice() {
        return client_id == "client_id" && request_uri == "request_uri";
    }
    let fixed = [
        ("response_type", "code"),
        ("client_id", "client"),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "openid"),
        ("code_challenge_method", "S256"),
    ];
    let optional = ["acr_values", "max_age", "login_hint", "prompt"];
    let random = ["state", "nonce", "code_challenge"];
    pairs.len() == parameters.len()
        && fixed.iter().all(|(name, value)| parameters.get(*name).is_some_and(|found| found == value))
        && random.iter().all(|name| parameters.get(*name).is_some_and(|found| is_random(found)))
        && parameters.keys().map(String::as_str).all(|name| {
            optional.contains(&name) || random.contains(&name) || fixed.iter().any(|(fixed, _)| *fixed == name)
        })
}

impl Browser {
    fn take(&mut self, decision: &Decision) {
        for (name, value, attributes) in cookies(decision) {
            match attributes.contains("Max-Age=0") {
                true => drop(self.0.remove(name)),
                false => drop(self.0.insert(name.to_owned(), value.to_owned())),
            }
        }
    }

    pub fn token(&self) -> Option<&String> {
        self.0.get("id_token")
    }

    pub fn transactions(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter().filter(|(name, _)| name.starts_with(TRANSACTION))
    }
}

/// The cookies that an answer sets: name, value, attributes.
pub fn cookies(decision: &Decision) -> Vec<(&str, &str, BTreeSet<&str>)> {
    let headers = decision.response.iter().flat_map(|response| &response.headers).chain(&decision.response_headers);
    headers
        .filter(|(name, _)| *name == "set-cookie")
        .map(|(_, cookie)| {
            let (name, rest) = cookie.split_once('=').unwrap();
            let mut parts = rest.split("; ");
            let value = parts.next().unwrap();
            let attribute = |text| match text {
                "Max-Age=0" => text,
                _ => text.strip_prefix("Max-Age=").map_or(text, |_| "Max-Age"),
            };
            (name, value, parts.map(attribute).collect())
        })
        .collect()
}

/// Wherever an answer can lead: its `Location`, the link of a challenge, those of a page.
pub fn links(decision: &Decision) -> Vec<String> {
    let Some(response) = &decision.response else { return Vec::new() };
    let mut links: Vec<String> = response.header("location").map(str::to_owned).into_iter().collect();
    if let Ok(problem) = serde_json::from_str::<Value>(&response.body) {
        links.extend(problem["step_up_url"].as_str().map(str::to_owned));
    }
    let pages = response.body.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    links.extend(pages.map(|link| link.replace("&quot;", "\"").replace("&#39;", "'").replace("&amp;", "&")));
    links
}

pub fn location(decision: &Decision) -> String {
    decision.response.as_ref().and_then(|response| response.header("location")).unwrap_or_default().to_owned()
}

pub fn query(url: &str) -> Parameters {
    form_decode(url.split_once('?').unwrap_or_default().1.as_bytes()).into_iter().collect()
}

pub fn callback(state: &str, code: &str) -> String {
    format!("/callback?state={state}&code={code}&iss={ISSUER}")
}

pub fn found(decision: &Decision) -> String {
    format!("{} {}", decision.kind.name(), decision.reason.code())
}

fn metadata() -> Value {
    json!({
        "issuer": ISSUER,
        "authorization_endpoint": "https://idp.test/authorize",
        "token_endpoint": "https://idp.test/token",
        "jwks_uri": "https://idp.test/jwks",
        "end_session_endpoint": "https://idp.test/end",
        "pushed_authorization_request_endpoint": "https://idp.test/par",
        "authorization_response_iss_parameter_supported": true,
    })
}
