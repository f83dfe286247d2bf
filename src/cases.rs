//! Decision cases: requests with the decision that must come of them, in the format that `tests/cases/README.md` tells.
//!
//! This is no part of the core, and of no module: it is what hosts and users' own policies are tested with. It mints
//! tokens, makes keys and draws randomness, none of which a gate does, and so is compiled for native targets alone.
//!
//! ```
//! use serde_json::json;
//! use stepgate::cases::{self, CaseFile};
//!
//! let config = json!({
//!     "provider": { "issuer": "https://idp.example.com", "cluster": "idp" },
//!     "client": { "id": "portal", "redirect_uri": "https://app.example.com/callback" },
//!     "rules": [{ "paths": ["/salary/**"] }],
//! });
//! let file = json!({
//!     "page": "/salary",
//!     "cases": [{
//!         "name": "a password is not enough",
//!         "token": { "claims": { "amr": ["pwd"] } },
//!         "expect": { "decision": "redirect", "reason": "amr_insufficient" },
//!     }],
//! });
//! let file = CaseFile::from_value("payroll", &file)?;
//! for case in file.expand(Some(&config), 1_800_000_000)? {
//!     let outcome = cases::run(&case);
//!     assert!(outcome.is_as_expected(), "{outcome}");
//! }
//! # Ok::<(), cases::CaseErrors>(())
//! ```

mod compare;
mod errors;
mod expand;
mod file;
mod junit;
pub mod keys;
mod provider;
mod run;
mod text;
mod token;

pub use compare::Difference;
pub use errors::{CaseError, CaseErrors};
pub use expand::{Case, CaseRequest};
pub use file::CaseFile;
pub use junit::junit;
pub use provider::without_environment;
pub use run::{Decided, Outcome, learn_beforehand, run};
pub use token::mint;

#[cfg(test)]
mod tests;
