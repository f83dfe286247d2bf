//! A whole login, in lines: the variant; the page that was asked for; its `Referer`; the callback's parameters; its cookies;
//! what the provider's key signs; and what the token endpoint answers, in JSON. Nobody gets a cookie with a token but who has
//! begun the login and comes back with the provider's answer to it, and the way back is the app's.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use stepgate::http::Request;
use stepgate::provider::{Endpoint, Fetch};
use stepgate::time::Timestamp;
use stepgate::{Config, Decision, DecisionKind, Gate, Reason};

use crate::keys;
use crate::text::{fill, lines};
use crate::world::{
    self, APP, AUTHORIZE, CALLBACK, END_SESSION, Host, ISSUER, NOW, TOKEN_ENDPOINT, config, document_with_callback,
};

const REQUEST_URI: &str = "urn:example:request";

pub fn callback(input: &[u8]) -> bool {
    let [variant, page, referer, parameters, cookies, payload, answer] = lines(input);
    let variant = Variant::of(variant);
    let mut provider = Provider { variant, payload, answer, login: None, has_exchanged: false };
    let host = Host::new(Timestamp::from_secs(NOW), &[AUTHORIZE, END_SESSION]);
    let mut gate = Gate::new(variant.config());

    let fields = vec![("referer", referer)];
    let request = Request { method: b"GET", authority: APP.as_bytes(), path: page, fields: &fields };
    let departure = host.decide(&mut gate, &request, b"", &mut |fetch| provider.reply(fetch, host.now));
    provider.login = provider.login.or_else(|| departure.response.as_ref()?.header("location").and_then(Login::of));
    let (Some(login), Some(cookie)) = (&provider.login, cookies_of(&departure).first().cloned()) else {
        return false;
    };

    let values = [
        ("<state>", login.state.as_str()),
        ("<cookie>", cookie.as_str()),
        ("<iss>", "https%3A%2F%2Fidp.example.com%2F"),
    ];
    let (parameters, cookies) = (fill(parameters, &values), fill(cookies, &values));
    let names_state = form_urlencoded::parse(&parameters).any(|(name, value)| name == "state" && value == login.state);
    let fields = vec![("cookie", cookies)];
    let target = [CALLBACK.as_bytes(), b"?", if variant.form_post { b"" } else { &parameters }].concat();
    let method: &[u8] = if variant.form_post { b"POST" } else { b"GET" };
    let request = Request { method, authority: APP.as_bytes(), path: &target, fields: &fields };
    let arrival = host.decide(&mut gate, &request, &parameters, &mut |fetch| provider.reply(fetch, host.now));

    assert!(arrival.response.is_some(), "passes the callback on");
    assert!(!provider.has_exchanged || names_state, "exchanges another login's code");
    let jar = cookies_of(&arrival).into_iter().filter(|cookie| cookie.starts_with("id_token")).collect::<Vec<_>>();
    let completes = arrival.reason == Reason::LoginCompleted;
    assert_eq!(!jar.is_empty(), completes, "sets a token at another time than the end of a login");
    if completes {
        assert!(provider.has_exchanged && provider.has_signed(), "takes a token that is not the login's");
        assert_eq!(arrival.response.as_ref().and_then(|response| response.header("location")), way_back(page, referer));
        let fields = [("cookie".to_owned(), jar.join("; ").into_bytes())];
        assert_eq!(host.get(&mut gate, b"/salary", &fields).kind, DecisionKind::Forward, "refuses its own cookie");
    }
    completes
}

/// Of every variant: reading a document takes as long as all else.
static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| {
    let variant = |bits| Variant { form_post: bits & 4 != 0, sealed: bits & 2 != 0, pushed: bits & 1 != 0 };
    (0..8).map(|bits: u8| config(&variant(bits).document())).collect()
});

#[derive(Clone, Copy)]
struct Variant {
    form_post: bool,
    sealed: bool,
    pushed: bool,
}

impl Variant {
    fn of(text: &[u8]) -> Self {
        let names = |name: &[u8]| text.split(|&byte| byte == b' ').any(|word| word == name);
        Self { form_post: names(b"form_post"), sealed: names(b"sealed"), pushed: names(b"pushed") }
    }

    fn config(self) -> Config {
        let index = usize::from(self.form_post) << 2 | usize::from(self.sealed) << 1 | usize::from(self.pushed);
        CONFIGS[index].clone()
    }

    fn document(self) -> Value {
        let mut document = document_with_callback();
        document["callback"]["seal_token"] = json!(self.sealed);
        document["callback"]["response_mode"] = json!(if self.form_post { "form_post" } else { "query" });
        if self.pushed {
            document["provider"] = json!({ "issuer": ISSUER });
            document["callback"]["pushed_authorization"] = json!(true);
        }
        document
    }
}

/// What a login is known by.
struct Login {
    state: String,
    nonce: String,
    challenge: String,
}

impl Login {
    /// From an authorization request that says everything once, and nothing that is not the gate's.
    fn of(parameters: &str) -> Option<Self> {
        let query = parameters.split_once('?').map_or(parameters, |(_, query)| query);
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let value = |name: &str| {
            let mut values = pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone());
            let value = values.next();
            assert!(values.next().is_none(), "says {name} twice");
            value
        };
        let login = Self { state: value("state")?, nonce: value("nonce")?, challenge: value("code_challenge")? };
        assert_eq!(value("response_type").as_deref(), Some("code"));
        assert_eq!(value("redirect_uri"), Some(format!("https://{APP}{CALLBACK}")));
        assert_eq!(value("code_challenge_method").as_deref(), Some("S256"));
        Some(login)
    }
}

struct Provider<'a> {
    variant: Variant,
    payload: &'a [u8],
    answer: &'a [u8],
    login: Option<Login>,
    has_exchanged: bool,
}

impl Provider<'_> {
    fn reply(&mut self, fetch: &Fetch, now: Timestamp) -> stepgate::Outcome {
        let body = match fetch.endpoint {
            Endpoint::Metadata => world::metadata(ISSUER).to_string().into_bytes(),
            Endpoint::Keys => keys::key_set().to_string().into_bytes(),
            Endpoint::PushedAuthorization => {
                assert!(self.variant.pushed);
                self.login = self.login.take().or_else(|| Login::of(form(fetch)));
                json!({ "request_uri": REQUEST_URI }).to_string().into_bytes()
            }
            Endpoint::Token => {
                assert_eq!(fetch.url, TOKEN_ENDPOINT);
                let login = self.login.as_ref().expect("a login was begun");
                let verifier = form_urlencoded::parse(form(fetch).as_bytes()).find(|(name, _)| name == "code_verifier");
                let challenge = verifier.map(|(_, verifier)| code_challenge(&verifier));
                assert_eq!(challenge.as_ref(), Some(&login.challenge), "sends another login's verifier");
                self.has_exchanged = true;
                fill(self.answer, &[("<token>", &keys::token("ed", br#"{"alg":"EdDSA","kid":"ed"}"#, &self.signed()))])
            }
        };
        world::reply(fetch, now, Some(body))
    }

    /// The payload that the provider's key signs.
    fn signed(&self) -> Vec<u8> {
        let login = self.login.as_ref();
        fill(self.payload, &[("<nonce>", login.map_or("", |login| &login.nonce))])
    }

    /// Whether that is for this login, and the answer carries it.
    fn has_signed(&self) -> bool {
        let claims: Value = serde_json::from_slice(&self.signed()).unwrap_or_default();
        let answer: Value = serde_json::from_slice(self.answer).unwrap_or_default();
        let is_nonce = self.login.as_ref().is_some_and(|login| claims["nonce"] == login.nonce);
        let is_sufficient = claims["amr"].as_array().is_some_and(|methods| methods.contains(&json!("mfa")));
        is_nonce && is_sufficient && claims["iss"] == ISSUER && answer["id_token"] == "<token>"
    }
}

/// RFC 7636 section 4.2.
fn code_challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

fn form(fetch: &Fetch) -> &str {
    fetch.form.as_ref().expect("a form").body.reveal()
}

/// The cookies that an answer sets to something, apart from the count of attempts, as a browser sends them.
fn cookies_of(decision: &Decision) -> Vec<String> {
    let headers = decision.response.iter().flat_map(|response| &response.headers);
    let set = headers.filter(|(name, _)| *name == "set-cookie").filter_map(|(_, cookie)| cookie.split(';').next());
    set.filter(|pair| !pair.ends_with('=') && !pair.contains("stepgate_attempts")).map(str::to_owned).collect()
}

/// The page, where a browser can be sent there, or else the one that it came from.
fn way_back<'a>(page: &'a [u8], referer: &'a [u8]) -> Option<&'a str> {
    let is_local = |path: &str| {
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        is_plain && path.starts_with('/') && !path.starts_with("//") && !path.starts_with("/\\")
    };
    let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).ok();
    let from = || text(referer)?.strip_prefix("https://app.example.com").filter(|path| is_local(path));
    text(page).filter(|page| is_local(page)).or_else(from).or(Some("/"))
}
