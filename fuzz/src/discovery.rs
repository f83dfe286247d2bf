//! A provider's history, an event in each line: `metadata` and `keys` bring a document, `down` takes one away, `clock` sets the
//! clock, `get` sends a token. Nothing of another issuer counts, and nothing passes before the signer's key has come.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::Value;
use stepgate::http::Request;
use stepgate::provider::{Endpoint, Fetch, FetchFailure, Reply};
use stepgate::time::Timestamp;
use stepgate::{Config, DecisionKind, Gate, Outcome};

use crate::keys;
use crate::text::{fill, words};
use crate::world::{self, APP, GOOD_TOKEN, Host, ISSUER, NOW, config};

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let mut document = world::document();
    document["provider"] = serde_json::json!({ "issuer": ISSUER });
    config(&document)
});

/// More events teach nothing new.
const MAX_EVENTS: usize = 32;

pub fn discovery(input: &[u8]) -> bool {
    let mut provider = Provider::new();
    let mut any_passes = false;
    for event in input.split(|&byte| byte == b'\n').take(MAX_EVENTS) {
        let [name, rest] = words(event);
        match name {
            b"metadata" => provider.brings(Endpoint::Metadata, rest),
            b"keys" => provider.brings(Endpoint::Keys, rest),
            b"down" => provider.breaks_down(),
            b"clock" => provider.host.now = Timestamp::from_millis(number(rest)),
            b"get" => any_passes |= provider.passes(rest),
            _ => {}
        }
    }
    any_passes
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(NOW * 1000)
}

struct Provider {
    gate: Gate,
    host: Host,
    metadata: Option<Vec<u8>>,
    keys: Option<Vec<u8>>,
    /// Where keys may come from, by all honest metadata so far.
    key_urls: BTreeSet<String>,
    had_key: bool,
}

impl Provider {
    fn new() -> Self {
        Self {
            gate: Gate::new(CONFIG.clone()),
            host: Host::new(Timestamp::from_secs(NOW), &[]),
            metadata: None,
            keys: None,
            key_urls: BTreeSet::new(),
            had_key: false,
        }
    }

    fn brings(&mut self, endpoint: Endpoint, body: &[u8]) {
        let key_set = keys::key_set().to_string();
        let metadata = world::metadata(ISSUER).to_string();
        let body = fill(body, &[("<keys>", &key_set), ("<metadata>", &metadata)]);
        let document: Value = serde_json::from_slice(&body).unwrap_or_default();
        let is_honest = endpoint == Endpoint::Metadata && document["issuer"] == ISSUER;
        let https = |name: &str| document[name].as_str().filter(|url| is_honest && url.starts_with("https://"));
        self.host.endpoints.extend(https("authorization_endpoint").map(str::to_owned));
        self.key_urls.extend(https("jwks_uri").map(str::to_owned));
        let trusted = &keys::key_set()["keys"][2]["x"];
        let mut listed = document["keys"].as_array().into_iter().flatten();
        self.had_key |= endpoint == Endpoint::Keys && listed.any(|key| key["x"] == *trusted);
        match endpoint {
            Endpoint::Keys => self.keys = Some(body.clone()),
            _ => self.metadata = Some(body.clone()),
        }
        let reply = Reply { at: self.host.now, unknown_kid_at: None, result: Ok(body.into()) };
        // Whether it was of use shows in what the gate does from now on.
        let _ = self.gate.learn(endpoint, &reply, self.host.now);
        self.check_due();
    }

    fn breaks_down(&mut self) {
        (self.metadata, self.keys) = (None, None);
        for endpoint in [Endpoint::Metadata, Endpoint::Keys] {
            let now = self.host.now;
            let reply = Reply { at: now, unknown_kid_at: Some(now), result: Err(FetchFailure::Reset) };
            let _ = self.gate.learn(endpoint, &reply, now);
        }
    }

    fn check_due(&mut self) {
        for fetch in self.gate.due(self.host.now) {
            check_fetch(&fetch, &self.key_urls);
        }
    }

    /// Asks for `/salary` with the good token, or one of this key ID and payload, which the trusted key signs.
    fn passes(&mut self, text: &[u8]) -> bool {
        let [kid, payload] = words(text);
        let header = serde_json::json!({ "alg": "EdDSA", "kid": String::from_utf8_lossy(kid) }).to_string();
        let token = match payload {
            b"" => GOOD_TOKEN.clone(),
            _ => keys::token("ed", header.as_bytes(), payload),
        };
        let fields = vec![("cookie", format!("id_token={token}"))];
        let request = Request { method: b"GET", authority: APP.as_bytes(), path: b"/salary", fields: &fields };
        let Self { gate, host, metadata, keys, key_urls, .. } = self;
        let decision = host.decide(gate, &request, b"", &mut |fetch| {
            check_fetch(fetch, key_urls);
            let body = if fetch.endpoint == Endpoint::Keys { keys.clone() } else { metadata.clone() };
            match body {
                Some(body) => Outcome::Fetched(Reply::from_http(fetch, host.now, 200, body)),
                None => Outcome::Unsupported,
            }
        });
        let forwards = decision.kind == DecisionKind::Forward;
        if forwards {
            let claims: Value = serde_json::from_slice(payload).unwrap_or_default();
            assert!(self.had_key, "forwards it before the key has come");
            assert!(payload.is_empty() || claims["iss"] == ISSUER, "forwards another issuer's token");
        }
        self.check_due();
        forwards
    }
}

/// A document is fetched from where the configuration or honest metadata says.
fn check_fetch(fetch: &Fetch, key_urls: &BTreeSet<String>) {
    let is_right = match fetch.endpoint {
        Endpoint::Metadata => fetch.url == format!("{ISSUER}.well-known/openid-configuration"),
        Endpoint::Keys => key_urls.contains(&fetch.url),
        Endpoint::Token | Endpoint::PushedAuthorization => false,
    };
    assert!(is_right && fetch.form.is_none(), "fetches {}", fetch.url);
}
