//! What comes to the gate's own paths.

use http::Uri;

use super::cookies::is_state;
use crate::config::{CallbackConfig, ResponseMode};
use crate::http::{Request, form_decode};
use crate::reason::Reason;
use crate::rules::readable_host;
use crate::secret::Secret;

/// The longest body of a form_post response, in bytes.
pub const MAX_FORM_BYTES: usize = 16 * 1024;

/// The longest `code`, in bytes.
const MAX_CODE_BYTES: usize = 8 * 1024;

/// A path that the gate answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `client.redirect_uri`, with its parameters in the query.
    Callback,
    /// `client.redirect_uri`, with its parameters in the body.
    CallbackForm,
    /// `callback.logout_path`.
    Logout,
}

/// Which of the gate's own paths a request is for.
pub fn route(callback: &CallbackConfig, request: &Request<'_>) -> Option<Route> {
    let path = request.path.split(|&byte| byte == b'?').next().unwrap_or_default();
    let is_logout = callback.logout_path.as_ref().is_some_and(|own| own.as_bytes() == path);
    if !is_logout && callback.path.as_bytes() != path {
        return None;
    }
    if is_logout {
        return origin_of(callback, request.authority).map(|_| Route::Logout);
    }
    // Ports are often another outside.
    readable_host(request.authority).filter(|host| *host == callback.host)?;
    Some(match callback.response_mode {
        ResponseMode::FormPost if request.method == b"POST" => Route::CallbackForm,
        _ => Route::Callback,
    })
}

/// The origin that a person comes back to: the callback's, or that of a host below the domain that the cookie is for. `None`:
/// the cookie would not get there.
pub fn origin_of(callback: &CallbackConfig, authority: &[u8]) -> Option<String> {
    let host = readable_host(authority)?;
    if host == callback.host {
        return Some(callback.origin.clone());
    }
    let above = host.strip_suffix(callback.cookie.domain.as_ref()?.as_bytes())?;
    if !above.is_empty() && !above.ends_with(b".") {
        return None;
    }
    let (scheme, _) = callback.origin.split_once("://")?;
    let uri: Uri = format!("{scheme}://{}", std::str::from_utf8(authority).ok()?.to_ascii_lowercase()).parse().ok()?;
    // A browser is to be sent there: no empty label, and a port that is one.
    let authority = uri.authority()?;
    let is_plain = !authority.host().split('.').any(str::is_empty);
    let port_fits = authority.as_str() == authority.host() || authority.port_u16().is_some();
    (is_plain && port_fits).then(|| format!("{scheme}://{authority}"))
}

/// What a request to the callback wants.
#[derive(Debug)]
pub enum CallbackRequest {
    /// To start a login: the content of the link.
    Start(String),
    /// To end one.
    Response(AuthorizationResponse),
}

/// An authentication response (OpenID Connect Core sections 3.1.2.5 and 3.1.2.6).
#[derive(Debug)]
pub struct AuthorizationResponse {
    /// `state`.
    pub state: String,
    /// `iss` (RFC 9207).
    pub issuer: Option<String>,
    /// `code`, or what `error` means.
    pub outcome: Result<Secret, Reason>,
}

impl CallbackRequest {
    /// Reads the parameters of a request to the callback.
    ///
    /// # Errors
    /// [`Reason::CallbackMalformed`]
    pub fn read(parameters: &[u8], mode: ResponseMode, in_body: bool) -> Result<Self, Reason> {
        let parameters = form_decode(parameters);
        let only = |name: &str, twice: &'static str| {
            let mut values = parameters.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str());
            match (values.next(), values.next()) {
                (value, None) => Ok(value),
                _ => Err(Reason::CallbackMalformed(twice)),
            }
        };
        if let Some(start) = only("step_up", "`step_up` comes twice")?.filter(|_| !in_body) {
            return Ok(Self::Start(start.to_owned()));
        }
        if in_body != (mode == ResponseMode::FormPost) {
            return Err(Reason::CallbackMalformed("it did not come by the response mode that was asked for"));
        }
        let (code, error) = (only("code", "`code` comes twice")?, only("error", "`error` comes twice")?);
        let state = only("state", "`state` comes twice")?;
        let issuer = only("iss", "`iss` comes twice")?.map(str::to_owned);
        let state = state.ok_or(Reason::CallbackMalformed("no `state`"))?;
        if !is_state(state) {
            return Err(Reason::CallbackMalformed("`state` is not one of this gate"));
        }
        let outcome = match (code, error) {
            (Some(code), None) if (1..=MAX_CODE_BYTES).contains(&code.len()) => Ok(Secret::new(code)),
            (Some(_), None) => return Err(Reason::CallbackMalformed("`code` is empty or too long")),
            (None, Some(error)) => Err(refusal(error)),
            (Some(_), Some(_)) => return Err(Reason::CallbackMalformed("both `code` and `error`")),
            (None, None) => return Err(Reason::CallbackMalformed("neither `code` nor `error`")),
        };
        Ok(Self::Response(AuthorizationResponse { state: state.to_owned(), issuer, outcome }))
    }
}

/// The error codes that are told on (RFC 6749 section 4.1.2.1, OpenID Connect Core section 3.1.2.6).
const PROVIDER_ERRORS: [&str; 12] = [
    "invalid_request",
    "unauthorized_client",
    "unsupported_response_type",
    "invalid_scope",
    "server_error",
    "temporarily_unavailable",
    "invalid_request_uri",
    "invalid_request_object",
    "request_not_supported",
    "request_uri_not_supported",
    "registration_not_supported",
    "invalid_target",
];

fn refusal(error: &str) -> Reason {
    match error {
        "access_denied" => Reason::AuthorizationDenied,
        "login_required" | "interaction_required" | "consent_required" | "account_selection_required" => {
            Reason::LoginRequired
        }
        "unmet_authentication_requirements" => Reason::StepUpUnmet,
        _ => {
            let known = PROVIDER_ERRORS.into_iter().find(|known| *known == error);
            Reason::ProviderError(known.unwrap_or("one that is in no standard"))
        }
    }
}

/// The query of a request target, as bytes.
pub fn query(target: &[u8]) -> &[u8] {
    let at = target.iter().position(|&byte| byte == b'?');
    at.and_then(|at| target.get(at + 1..)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_to_come_back_to_is_one_that_browsers_take() {
        let document = serde_json::json!({
            "provider": { "issuer": "https://idp/" },
            "client": { "id": "c", "redirect_uri": "https://app.example.com/callback", "authentication": "none" },
            "callback": {
                "keys": ["BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="],
                "cookie": { "domain": "example.com" },
            },
            "rules": [{ "paths": ["/salary"] }],
        });
        let callback = crate::config::Config::from_value(&document, &|_| None).unwrap().callback.unwrap();
        let origin = |authority: &str| origin_of(&callback, authority.as_bytes());
        assert_eq!(origin("APP.example.com:8443").as_deref(), Some("https://app.example.com"));
        assert_eq!(origin("Pay.example.com").as_deref(), Some("https://pay.example.com"));
        assert_eq!(origin("example.com:8443").as_deref(), Some("https://example.com:8443"));
        for foreign in [
            "example.org",
            "notexample.com",
            "pay.example.com:99999",
            "pay.example.com:",
            ".example.com",
            "a..example.com",
            "pay.example.com.",
            "a@example.com",
        ] {
            assert_eq!(origin(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_code_is_bounded() {
        let read = |length: usize| {
            let query = format!("state={}&code={}", "s".repeat(22), "c".repeat(length));
            CallbackRequest::read(query.as_bytes(), ResponseMode::Query, false).is_ok()
        };
        assert_eq!([0, 1, MAX_CODE_BYTES, MAX_CODE_BYTES + 1].map(read), [false, true, true, false]);
    }
}
