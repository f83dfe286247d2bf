//! Edge runtimes (workerd, Deno, Node), by wasm-bindgen. JavaScript (`edge/`) does the I/O; what it must know of a request
//! stands in one [`session::Session`] per configuration.
//!
//! Crossings are few: a request comes as one text, a step goes back as JSON, or as nothing where the request passes just as
//! the one before it.

mod head;
mod message;
mod session;
mod waiting;

use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::config::Config;
use crate::env::Env;
use crate::gate::Outcome;
use crate::provider::FetchFailure;
use crate::time::Timestamp;
use head::Lengths;
use session::Session;

#[wasm_bindgen]
extern "C" {
    /// What JavaScript keeps of a request.
    pub type Request;

    /// Its header fields: name, value, name, value …, with U+0000 behind each.
    #[wasm_bindgen(method, catch)]
    fn fields(this: &Request) -> Result<String, JsValue>;

    /// What configurations may refer to: environment variables, or bindings.
    pub type Environment;

    #[wasm_bindgen(method)]
    fn lookup(this: &Environment, name: &str) -> Option<String>;

    #[wasm_bindgen(js_namespace = crypto, js_name = getRandomValues)]
    fn fill_with_entropy(bytes: &mut [u8]);
}

/// 32 bytes of the runtime's cryptographic source. It is there in every runtime; its absence would throw, which ends the call.
fn entropy() -> [u8; 32] {
    let mut bytes = [0; 32];
    fill_with_entropy(&mut bytes);
    bytes
}

/// Milliseconds since the Unix epoch, as `Date.now()` tells them.
fn timestamp(millis: f64) -> Timestamp {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    Timestamp::from_millis(millis as u64)
}

fn env(now: f64) -> Env<'static> {
    Env { now: timestamp(now), entropy: &entropy }
}

/// A gate.
#[wasm_bindgen]
pub struct Core(Session);

#[wasm_bindgen]
impl Core {
    /// Makes a gate. `as_utf8`: the runtime decodes header fields as UTF-8, and not byte by byte.
    ///
    /// # Errors
    /// All that is wrong with the configuration, as JSON.
    #[wasm_bindgen(constructor)]
    pub fn new(config: &str, environment: &Environment, as_utf8: bool) -> Result<Self, String> {
        let env = |name: &str| environment.lookup(name);
        match Config::from_json(config.as_bytes(), &env) {
            Ok(config) => Ok(Self(Session::new(config, as_utf8))),
            Err(errors) => Err(message::problems(&errors)),
        }
    }

    /// The header field that may carry a token, beside the cookie.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn header(&self) -> Option<String> {
        self.0.config().token.header.clone()
    }

    /// Where a request's head is to be written, of so many bytes at most.
    pub fn page(&mut self, size: usize) -> *const u8 {
        self.0.page(size)
    }

    /// A new request, whose head of so many bytes stands in the page: its method, authority, path, the values of the field named
    /// [`Self::header`] with U+0000 between (of length -1 where it is not there) and its cookies, one after the other. Without a
    /// result, it passes as the one before it did.
    #[allow(clippy::too_many_arguments, reason = "numbers cross for nothing, an object does not")]
    pub fn begin(
        &mut self,
        now: f64,
        bytes: usize,
        method: u32,
        authority: u32,
        path: u32,
        header: i32,
        request: &Request,
    ) -> Option<String> {
        let ask = || request.fields().ok();
        let lengths = Lengths { method, authority, path, header: u32::try_from(header).ok() };
        self.0.begin(bytes, lengths, &ask, env(now))
    }

    /// A fetch that was waited for has ended, or the wait has.
    pub fn fetched(&mut self, id: u32, now: f64) -> Option<String> {
        self.0.fetched(id, env(now))
    }

    /// The verdict of WebCrypto on a signature; none where it has no say.
    pub fn verified(&mut self, id: u32, now: f64, valid: Option<bool>) -> Option<String> {
        self.0.resume(id, valid.map_or(Outcome::Unsupported, Outcome::Verified), env(now))
    }

    /// A request's body, if it could be had.
    pub fn collected(&mut self, id: u32, now: f64, body: Option<Vec<u8>>) -> Option<String> {
        self.0.resume(id, body.map_or(Outcome::Unsupported, Outcome::Body), env(now))
    }

    /// What was signed, and behind it the signature. Asked for once.
    #[must_use]
    pub fn signed(&mut self, id: u32) -> Vec<u8> {
        self.0.signed(id)
    }

    /// The request is gone.
    pub fn forget(&mut self, id: u32) {
        self.0.forget(id);
    }

    /// What is to be fetched in the background: a list of fetches, where there are any.
    pub fn due(&mut self, now: f64) -> Option<String> {
        self.0.due(timestamp(now))
    }

    /// An HTTP answer to a fetch. The result tells what became of it.
    pub fn land(&mut self, flight: u32, now: f64, status: u16, body: Vec<u8>) -> Option<String> {
        self.0.land(flight, timestamp(now), Ok((status, body)))
    }

    /// A fetch that brought no HTTP answer.
    pub fn crash(&mut self, flight: u32, now: f64, failure: &str) -> Option<String> {
        let failure = match failure {
            "timeout" => FetchFailure::Timeout,
            "too_large" => FetchFailure::TooLarge,
            "reset" => FetchFailure::Reset,
            _ => FetchFailure::Unreachable,
        };
        self.0.land(flight, timestamp(now), Err(failure))
    }

    /// How many requests are on hold.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting()
    }
}
