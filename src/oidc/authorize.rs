//! The authentication request (OpenID Connect Core section 3.1.2.1) that a step-up leads to.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::encoding::base64url_encode;
use crate::http::append_query;
use crate::policy::add_missing;

/// Parameters that the gate sets itself; `step_up.params` may not name them.
pub const RESERVED_PARAMETERS: [&str; 15] = [
    "response_type",
    "response_mode",
    "client_id",
    "client_secret",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "acr_values",
    "max_age",
    "claims",
    "code_challenge",
    "code_challenge_method",
    "request",
    "request_uri",
];

/// The longest path that `state` carries for the way back, in bytes.
const MAX_RETURN_PATH: usize = 1024;

/// How to ask for what one or several rules require.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepUp {
    /// `acr_values`, in order of preference.
    pub acr_values: Vec<String>,
    /// `scope` values.
    pub scope: Vec<String>,
    /// The `claims` request parameter (OpenID Connect Core section 5.5).
    pub claims: Map<String, Value>,
    /// Further parameters.
    pub params: Vec<(String, String)>,
    /// The app's own login route, instead of the provider. The gate completes no such flow, so it seals none.
    #[serde(skip)]
    pub login: Option<LoginRoute>,
    /// How many step-ups may fail in a row.
    pub max_attempts: u32,
}

/// The app's own login route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginRoute {
    /// A URL, or a path of the app.
    pub url: String,
    /// The parameter that carries the way back.
    pub return_to_param: Option<String>,
}

impl StepUp {
    /// Adds what another rule asks for, apart from `acr_values`. Values add up; where only one can stand, that of the
    /// earlier rule does, and the lower limit of attempts.
    pub fn unite(&mut self, other: &Self) {
        add_missing(&mut self.scope, &other.scope);
        for (name, value) in &other.params {
            if self.params.iter().all(|(mine, _)| mine != name) {
                self.params.push((name.clone(), value.clone()));
            }
        }
        merge(&mut self.claims, &other.claims);
        self.login = self.login.take().or_else(|| other.login.clone());
        self.max_attempts = self.max_attempts.min(other.max_attempts);
    }
}

fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (name, theirs) in from {
        match (into.get_mut(name), theirs) {
            (Some(Value::Object(mine)), Value::Object(theirs)) => merge(mine, theirs),
            (Some(_), _) => {}
            (None, _) => {
                into.insert(name.clone(), theirs.clone());
            }
        }
    }
}

/// All that an authentication request is made of.
#[derive(Debug)]
pub struct AuthorizationRequest<'a> {
    /// `client_id`.
    pub client_id: &'a str,
    /// `redirect_uri`.
    pub redirect_uri: &'a str,
    /// What to ask for.
    pub step_up: &'a StepUp,
    /// `max_age`, in whole seconds.
    pub max_age: Option<Duration>,
    /// `state`.
    pub state: &'a str,
    /// `nonce`.
    pub nonce: &'a str,
    /// What the flow that the gate completes itself adds: PKCE, `response_mode`, a hint.
    pub further: Vec<(&'a str, String)>,
}

impl AuthorizationRequest<'_> {
    /// The parameters, each once.
    #[must_use]
    pub fn parameters(&self) -> Vec<(&str, Cow<'_, str>)> {
        let mut parameters = vec![
            ("response_type", "code".into()),
            ("client_id", self.client_id.into()),
            ("redirect_uri", self.redirect_uri.into()),
            ("scope", listed(&self.step_up.scope)),
            ("state", self.state.into()),
            ("nonce", self.nonce.into()),
        ];
        parameters.extend(self.step_up.requested(self.max_age));
        for (name, value) in &self.further {
            // What the configuration names itself stands.
            if parameters.iter().all(|(known, _)| known != name) {
                parameters.push((name, value.into()));
            }
        }
        parameters
    }

    /// The URL to send the browser to.
    #[must_use]
    pub fn url(&self, endpoint: &str) -> String {
        append_query(endpoint, &self.parameters())
    }
}

/// `state` for an app that owns its callback: 22 random characters, and, where there is a path to come back to, a dot and
/// that path in base64url. It is not sealed: who reads it must treat the path as anybody's.
#[must_use]
pub fn state_for_app(random: &[u8], return_path: Option<&str>) -> String {
    let random = base64url_encode(random);
    match return_path.filter(|path| path.len() <= MAX_RETURN_PATH) {
        Some(path) => format!("{random}.{}", base64url_encode(path.as_bytes())),
        None => random,
    }
}

impl StepUp {
    /// The parameters that carry what is asked for: `acr_values`, `max_age`, `claims` and further ones.
    fn requested(&self, max_age: Option<Duration>) -> Vec<(&str, Cow<'_, str>)> {
        let mut parameters = Vec::new();
        if !self.acr_values.is_empty() {
            parameters.push(("acr_values", listed(&self.acr_values)));
        }
        parameters.extend(max_age.map(|max_age| ("max_age", max_age.as_secs().to_string().into())));
        if !self.claims.is_empty() {
            parameters.push(("claims", Value::Object(self.claims.clone()).to_string().into()));
        }
        parameters.extend(self.params.iter().map(|(name, value)| (name.as_str(), value.into())));
        parameters
    }
}

/// A list of values as one parameter has it.
fn listed(values: &[String]) -> Cow<'_, str> {
    match values {
        [one] => one.into(),
        several => several.join(" ").into(),
    }
}

impl LoginRoute {
    /// The URL of the app's login route with what to ask for, and the way back.
    #[must_use]
    pub fn url(&self, step_up: &StepUp, max_age: Option<Duration>, return_to: &str) -> String {
        let mut parameters = step_up.requested(max_age);
        parameters.extend(self.return_to_param.as_deref().map(|name| (name, return_to.into())));
        if parameters.is_empty() {
            return self.url.clone();
        }
        append_query(&self.url, &parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn united_step_ups_ask_for_both() {
        let mut first = StepUp {
            acr_values: vec!["gold".into()],
            scope: vec!["openid".into()],
            claims: object(json!({"id_token": {"acr": {"essential": true}}})),
            params: vec![("prompt".into(), "login".into())],
            login: None,
            max_attempts: 3,
        };
        let second = StepUp {
            acr_values: vec!["gold".into(), "silver".into()],
            scope: vec!["openid".into(), "email".into()],
            claims: object(json!({"id_token": {"acr": {"essential": false}, "amr": null}})),
            params: vec![("prompt".into(), "none".into()), ("audience".into(), "x".into())],
            login: Some(LoginRoute { url: "/login".into(), return_to_param: None }),
            max_attempts: 2,
        };
        first.unite(&second);
        assert_eq!(first.scope, ["openid", "email"]);
        assert_eq!(Value::Object(first.claims), json!({"id_token": {"acr": {"essential": true}, "amr": null}}));
        assert_eq!(first.params, [("prompt".into(), "login".into()), ("audience".into(), "x".into())]);
        assert_eq!(first.login, second.login);
        assert_eq!(first.max_attempts, 2);
    }

    #[test]
    fn state_carries_a_path_of_bounded_length() {
        assert_eq!(state_for_app(&[7; 16], Some("/salary")), "BwcHBwcHBwcHBwcHBwcHBw.L3NhbGFyeQ");
        assert_eq!(state_for_app(&[7; 16], Some(&"/".repeat(MAX_RETURN_PATH + 1))), "BwcHBwcHBwcHBwcHBwcHBw");
    }

    #[test]
    fn what_the_configuration_names_comes_once() {
        let step_up = StepUp { params: vec![("login_hint".into(), "ada".into())], ..StepUp::default() };
        let request = AuthorizationRequest {
            client_id: "c",
            redirect_uri: "https://app/callback",
            step_up: &step_up,
            max_age: None,
            state: "s",
            nonce: "n",
            further: vec![("login_hint", "bob".into()), ("code_challenge", "x".into())],
        };
        let url = request.url("https://idp/authorize?tenant=1");
        assert!(url.starts_with("https://idp/authorize?tenant=1&response_type=code&client_id=c&"));
        assert!(url.ends_with("&state=s&nonce=n&login_hint=ada&code_challenge=x"), "{url}");
    }
}
