//! The flow that the gate completes itself (OpenID Connect Core section 3.1): what is sealed into the browser, what
//! comes back, and the cookies that are set in the end.
//!
//! Nothing is kept on a server: a flow that starts at one gate finishes at any other that has the same keys.

mod callback;
mod cookies;
mod exchange;
mod transaction;

pub use callback::MAX_FORM_BYTES;
pub(crate) use callback::{AuthorizationResponse, CallbackRequest, Route, origin_of, query, route};
pub(crate) use cookies::OwnCookieNames;
pub use cookies::{MAX_COOKIE_VALUE_BYTES, MAX_TRANSACTIONS, MAX_TRANSACTIONS_BYTES};
pub use exchange::ASSERTION_LIFETIME;
pub(crate) use exchange::{id_token, pushed_request, pushed_request_uri, token_request};
pub use transaction::{START_LIFETIME, Start, TRANSACTION_LIFETIME, Transaction, subject_digest};
pub(crate) use transaction::{code_challenge, way_back};
