//! Provider metadata (OpenID Connect Discovery section 3).

use serde_json::Value;

use super::{Fault, Service};
use crate::config::endpoint_url;
use crate::encoding::parse_json_object;

pub struct Metadata {
    authorization_endpoint: String,
    pub jwks_uri: String,
    token_endpoint: Option<String>,
    /// OpenID Connect RP-Initiated Logout section 2.1.
    end_session_endpoint: Option<String>,
    /// RFC 9126 section 5.
    pushed_authorization_request_endpoint: Option<String>,
    /// `authorization_response_iss_parameter_supported` (RFC 9207 section 3).
    pub names_issuer_in_responses: bool,
}

impl Metadata {
    /// Parses a metadata document. Its issuer must be the configured one, byte for byte; where that is https, so
    /// must its endpoints be.
    pub fn parse(body: &[u8], issuer: &str) -> Result<Self, Fault> {
        let document = parse_json_object(body).map_err(|_| Fault::Malformed("not a strict JSON object"))?;
        if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err(Fault::IssuerMismatch);
        }
        let endpoint = |name: &str, problem: &'static str| {
            let url = document.get(name).and_then(Value::as_str).and_then(endpoint_url);
            let secure = |url: &String| url.starts_with("https:") || issuer.starts_with("http:");
            url.filter(secure).ok_or(Fault::Malformed(problem))
        };
        // One that cannot be used is none.
        let optional = |name: &str| endpoint(name, "").ok();
        let names_issuer = document.get("authorization_response_iss_parameter_supported");
        Ok(Self {
            authorization_endpoint: endpoint("authorization_endpoint", "no usable `authorization_endpoint`")?,
            jwks_uri: endpoint("jwks_uri", "no usable `jwks_uri`")?,
            token_endpoint: optional("token_endpoint"),
            end_session_endpoint: optional("end_session_endpoint"),
            // Without it the request would take the browser's way.
            pushed_authorization_request_endpoint: match document.get("pushed_authorization_request_endpoint") {
                None | Some(Value::Null) => None,
                Some(_) => Some(endpoint(
                    "pushed_authorization_request_endpoint",
                    "no usable `pushed_authorization_request_endpoint`",
                )?),
            },
            names_issuer_in_responses: names_issuer == Some(&Value::Bool(true)),
        })
    }

    /// The address of an endpoint, where the provider has it.
    pub fn endpoint(&self, service: Service) -> Option<&str> {
        match service {
            Service::Authorization => Some(&self.authorization_endpoint),
            Service::Token => self.token_endpoint.as_deref(),
            Service::EndSession => self.end_session_endpoint.as_deref(),
            Service::PushedAuthorization => self.pushed_authorization_request_endpoint.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(issuer: &str, jwks_uri: &str) -> Result<(), Fault> {
        let body = format!(
            r#"{{"issuer":"https://idp/","authorization_endpoint":"https://idp/authorize","jwks_uri":"{jwks_uri}"}}"#
        );
        Metadata::parse(body.as_bytes(), issuer).map(drop)
    }

    #[test]
    fn the_issuer_must_be_the_configured_one() {
        assert_eq!(parse("https://idp/", "https://idp/keys"), Ok(()));
        for other in ["https://idp", "https://IDP/", "https://idp/x"] {
            assert_eq!(parse(other, "https://idp/keys"), Err(Fault::IssuerMismatch), "{other}");
        }
    }

    #[test]
    fn endpoints_of_an_https_issuer_are_https() {
        for bad in ["http://localhost/keys", "http://idp/keys", "keys", "file:///keys", "https://user@idp/keys", ""] {
            assert!(matches!(parse("https://idp/", bad), Err(Fault::Malformed(_))), "{bad}");
        }
    }
}
