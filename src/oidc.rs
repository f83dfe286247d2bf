//! OpenID Connect: asking the provider for more.

mod authorize;

pub use authorize::{AuthorizationRequest, LoginRoute, RESERVED_PARAMETERS, StepUp, state_for_app};
