//! A module for Envoy that checks signatures of any message the way the gate has its host check a token's: the gate's own
//! key sets, encodings and host call. `tests/e2e/vectors.test.mjs` sends it published test vectors, which are no tokens.
//!
//! A request's body is `{ "jwk": …, "checks": [{ "alg", "message", "signature" }] }`, the last two in base64url; without
//! `jwk` the key is a client secret. The answer is a list of verdicts: `valid`, `invalid`, `unsupported`, `no key`.

#![cfg(all(target_arch = "wasm32", target_os = "wasi"))]

// The host's side of the gate is private: here is its source once more.
#[allow(dead_code, reason = "one of its calls is needed")]
#[path = "../../../src/host/envoy/abi.rs"]
mod abi;
#[path = "../../../src/host/envoy/verify.rs"]
mod verify;

mod gate {
    pub use stepgate::Outcome;
}

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};
use serde::Deserialize;
use serde_json::{Value, json};
use stepgate::jose::{Algorithm, KeySet, SignatureCheck, VerificationKey};
use stepgate::secret::Secret;
use stepgate::{http, jose, time};

/// Envoy calls this after `_initialize`, which is the gate's: from here on its requests come to this module.
#[unsafe(no_mangle)]
pub extern "C" fn main(_: i32, _: i32) -> i32 {
    proxy_wasm::set_root_context(|_| Box::new(Root));
    0
}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream;

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        if end_of_stream {
            let request = serde_json::from_slice(&abi::buffer(abi::Buffer::HttpRequestBody, size)).expect("a request");
            let verdicts = serde_json::to_vec(&verdicts(&request)).expect("texts");
            self.send_http_response(200, Vec::new(), Some(&verdicts));
        }
        Action::Pause
    }
}

#[derive(Deserialize)]
struct Request {
    jwk: Option<Value>,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    alg: String,
    message: String,
    signature: String,
}

fn verdicts(Request { jwk, checks }: &Request) -> Vec<&'static str> {
    checks.iter().map(|check| verdict(jwk.as_ref(), check)).collect()
}

fn verdict(jwk: Option<&Value>, Check { alg, message, signature }: &Check) -> &'static str {
    let algorithm = Algorithm::named(alg).expect("an algorithm");
    let decode = |text: &str| BASE64URL.decode(text).expect("base64url");
    let key = match jwk {
        None => Some(VerificationKey::ClientSecret(Secret::new("secret"))),
        Some(jwk) => KeySet::from_value(&json!({ "keys": [jwk] }))
            .ok()
            .and_then(|(keys, _)| keys.select(algorithm, jwk["kid"].as_str())?.ok())
            .map(VerificationKey::Public),
    };
    let Some(key) = key else { return "no key" };
    let check = SignatureCheck::new(algorithm, &key, &decode(message), &decode(signature));
    match verify::verify_signature(&check) {
        gate::Outcome::Verified(true) => "valid",
        gate::Outcome::Verified(false) => "invalid",
        _ => "unsupported",
    }
}
