//! A configuration document in JSON: what is accepted, a gate runs with, and what its rules protect stays closed.

use serde_json::{Value, json};
use stepgate::config::{CallbackConfig, ResponseMode};
use stepgate::http::Request;
use stepgate::provider::{Endpoint, Fetch};
use stepgate::time::Timestamp;
use stepgate::{Config, Decision, DecisionKind, Gate, Outcome};

use crate::keys;
use crate::world::{self, APP, AUTHORIZE, END_SESSION, Host, NOW};

/// More rules teach nothing new.
const MAX_RULES: usize = 4;

pub fn configuration(input: &[u8]) -> bool {
    let env = |name: &str| (name == "SECRET").then(|| keys::SECRET.to_owned());
    let config = match Config::from_json(input, &env) {
        Ok(config) => config,
        Err(errors) => {
            assert!(!errors.as_slice().is_empty(), "refuses it without a reason");
            return false;
        }
    };
    let document: Value = serde_json::from_slice(input).expect("strict JSON is JSON");
    assert!(Config::from_value(&document, &env).is_ok());

    let mut app = App::new(config, &document);
    let rules = document["rules"].as_array().expect("a list").iter().take(MAX_RULES);
    rules.for_each(|rule| app.visit(rule));
    app.log_out();
    true
}

/// An app behind a gate of this configuration, and its provider.
struct App {
    gate: Gate,
    host: Host,
    metadata: Vec<u8>,
}

impl App {
    fn new(config: Config, document: &Value) -> Self {
        let mut host = Host::new(Timestamp::from_secs(NOW), &[AUTHORIZE, END_SESSION]);
        let provider = &config.provider;
        host.endpoints
            .extend([&provider.authorization_endpoint, &provider.end_session_endpoint].into_iter().flatten().cloned());
        let rules = document["rules"].as_array().into_iter().flatten();
        let login_urls = rules.chain([document]).filter_map(|place| place["step_up"]["login_url"].as_str());
        host.endpoints.extend(login_urls.map(str::to_owned));
        let metadata = world::metadata(&provider.issuer).to_string().into_bytes();
        Self { gate: Gate::new(config), host, metadata }
    }

    /// A page that a rule protects: first without a token, then through a login that the provider does not complete.
    fn visit(&mut self, rule: &Value) {
        let path = example_path(rule["paths"][0].as_str().expect("a path"));
        let authority = rule["hosts"][0].as_str().unwrap_or(APP).replace('*', "a");
        let method = rule["methods"][0].as_str().unwrap_or("GET");
        let is_enforced = rule["mode"].as_str() != Some("report");
        let is_closed = is_enforced && rule.get("except").is_none_or(|except| except == &json!([]));
        for accept in ["text/html", "application/json"] {
            let fields = vec![("accept", accept)];
            let request = Request {
                method: method.as_bytes(),
                authority: authority.as_bytes(),
                path: path.as_bytes(),
                fields: &fields,
            };
            let decision = self.decide(&request, b"");
            assert!(!is_closed || decision.kind != DecisionKind::Forward, "forwards {path}");
            self.come_back(&decision);
        }
    }

    /// Goes where a decision leads, as far as that is the callback.
    fn come_back(&mut self, departure: &Decision) {
        let Some(callback) = self.gate.config().callback.clone() else { return };
        let location = departure.response.as_ref().and_then(|response| response.header("location"));
        let start = location.and_then(|location| location.strip_prefix(callback.origin.as_str()));
        match start {
            Some(start) => {
                let fields = vec![("accept", "text/html")];
                let path = start.as_bytes();
                let started =
                    self.decide(&Request { method: b"GET", authority: &callback.host, path, fields: &fields }, b"");
                self.end_login(&callback, &started);
            }
            None => self.end_login(&callback, departure),
        }
    }

    fn end_login(&mut self, callback: &CallbackConfig, departure: &Decision) {
        let headers = departure.response.iter().flat_map(|response| &response.headers);
        let set = headers.filter(|(name, _)| *name == "set-cookie");
        let cookies: Vec<&str> = set.filter_map(|(_, cookie)| cookie.split(';').next()).collect();
        let state = cookies.iter().find_map(|pair| pair.split_once("stepgate_tx_")?.1.get(..22)).unwrap_or_default();
        let parameters = format!("code=x&state={state}");
        let (method, target, body) = match callback.response_mode {
            ResponseMode::Query => ("GET", format!("{}?{parameters}", callback.path), String::new()),
            ResponseMode::FormPost => ("POST", callback.path.clone(), parameters),
        };
        let fields = vec![("cookie", cookies.join("; "))];
        let request =
            Request { method: method.as_bytes(), authority: &callback.host, path: target.as_bytes(), fields: &fields };
        assert!(self.decide(&request, body.as_bytes()).response.is_some(), "passes the callback on");
    }

    fn log_out(&mut self) {
        let Some(callback) = self.gate.config().callback.clone() else { return };
        let Some(path) = &callback.logout_path else { return };
        let fields = vec![("cookie", format!("{}.0=x", self.gate.config().token.cookie))];
        let request = Request { method: b"GET", authority: &callback.host, path: path.as_bytes(), fields: &fields };
        let decision = self.decide(&request, b"");
        assert_eq!(decision.kind, DecisionKind::Redirect, "passes the logout on");
    }

    fn decide(&mut self, request: &Request<'_>, body: &[u8]) -> Decision {
        let Self { gate, host, metadata } = self;
        host.decide(gate, request, body, &mut |fetch| reply(fetch, host.now, metadata))
    }
}

fn reply(fetch: &Fetch, now: Timestamp, metadata: &[u8]) -> Outcome {
    let body = match fetch.endpoint {
        Endpoint::Metadata => metadata.to_vec(),
        Endpoint::Keys => keys::key_set().to_string().into_bytes(),
        Endpoint::PushedAuthorization => br#"{"request_uri":"urn:example:request"}"#.to_vec(),
        Endpoint::Token => return world::reply(fetch, now, None),
    };
    world::reply(fetch, now, Some(body))
}

/// A path that the pattern matches, with all that is not plain encoded.
fn example_path(pattern: &str) -> String {
    let byte = |byte: u8| match byte {
        b'*' => "x".to_owned(),
        b'/' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    pattern.bytes().map(byte).collect()
}
