//! Step-up authentication in front of any web app.
//!
//! A request to a sensitive path must carry an OpenID Connect ID Token that proves what the path asks for: by
//! default, a second factor (`amr` contains `mfa`). [`Gate`] decides; it never performs I/O, never reads a clock,
//! never draws randomness and never panics. A host (Envoy by proxy-wasm, an edge runtime, a test) does the I/O and
//! feeds the results back as values:
//!
//! ```text
//! Gate::begin(Request, Env)            -> Step
//! Gate::resume(Pending, Outcome, Env)  -> Step
//! enum Step { Done(Decision), Fetch(Fetch, Pending), Verify(SignatureCheck, Pending), Body(BodyRequest, Pending) }
//! ```
//!
//! The target triple chooses the host: `wasm32-wasip1` builds the Envoy module, `wasm32-unknown-unknown` the one for edge
//! runtimes.

#![deny(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::unwrap_used,
    missing_docs
)]
#![cfg_attr(test, allow(clippy::string_slice, reason = "a test may panic"))]

#[cfg(not(target_family = "wasm"))]
pub mod cases;
pub mod config;
#[cfg(not(target_family = "wasm"))]
pub mod explain;
pub mod flow;
pub mod http;
pub mod jose;
pub mod oidc;
pub mod path;
pub mod provider;
pub mod reason;
pub mod seal;
pub mod secret;
pub mod time;
pub mod wire;

mod answer;
mod cache;
mod claims;
mod cookie;
mod encoding;
mod env;
mod forward;
mod gate;
mod policy;
mod rules;
mod template;

#[cfg(target_arch = "wasm32")]
mod host;

pub use answer::{Decision, DecisionKind};
pub use claims::VerifiedIdToken;
pub use config::{Config, ConfigErrors};
pub use env::Env;
pub use gate::{BodyRequest, Gate, Outcome, Pending, Step};
pub use jose::SignatureCheck;
pub use reason::Reason;

// A dependency (`rand_core`, for signing, which never happens here) wants a source of randomness to link against.
// It gets an error.
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
mod no_entropy {
    fn refuse(_: &mut [u8]) -> Result<(), getrandom::Error> {
        Err(getrandom::Error::UNSUPPORTED)
    }
    getrandom::register_custom_getrandom!(refuse);
}
