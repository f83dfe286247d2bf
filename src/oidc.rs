//! OpenID Connect: asking the provider for more.

mod authorize;

pub use authorize::{AuthorizationRequest, LoginRoute, RESERVED_PARAMETERS, StepUp, as_strs, state_for_app};
