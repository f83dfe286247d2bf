//! The pages that a person sees when neither the app nor the provider answers.

use crate::reason::{ExchangeFault, Reason};
use crate::template::{self, Template};

/// The built-in page.
const PAGE: &str = include_str!("page.html");

/// Its second link.
const HOME: &str = " <a href=\"/\">Home page</a>";

/// What a page says above the fold: its title, and what a person can do.
pub fn words(reason: &Reason) -> (&'static str, &'static str) {
    match reason {
        Reason::PathRejected(_) => {
            ("This address cannot be read", "Check the address for typing errors, or start from the home page.")
        }
        Reason::HeadersRejected => ("This request cannot be read", "It has more header fields than can be looked at."),
        Reason::KeysUnavailable { .. } => (
            "The login service does not answer",
            "This page needs it to check your login. Please try again in a moment.",
        ),
        Reason::PushedAuthorizationFailed
        | Reason::ProviderError(_)
        | Reason::TokenExchangeFailed(
            ExchangeFault::Unavailable(_) | ExchangeFault::Refused(_) | ExchangeFault::Malformed(_),
        ) => (
            "The login service has a problem",
            "Your login could not be completed, and nothing has changed. Please try again in a moment.",
        ),
        Reason::StepUpFailed { because, .. } if **because == Reason::TokenMissing => (
            "Your login does not reach this page",
            "You logged in, but the cookie that proves it does not come with your requests. Allow cookies for this \
             site, or tell the people who run it what is written below.",
        ),
        Reason::StepUpFailed { .. } | Reason::StepUpUnmet => (
            "Your login was not sufficient",
            "You were asked to log in again, but what came back still does not prove what this page needs. Try again \
             later, or tell the people who run this site what is written below.",
        ),
        Reason::StepUpTooLong => {
            ("This page asks for too much", "The people who run this site can help: tell them what is written below.")
        }
        Reason::HostMismatch => {
            ("There is no login at this address", "The same page may be there under the site's main address.")
        }
        Reason::AuthorizationDenied => (
            "The login was cancelled",
            "Nothing has changed. The page that you wanted stays closed until you confirm that it is you.",
        ),
        Reason::LoginRequired => ("You need to log in", "The login service wants to hear from you first."),
        Reason::TransactionMissing
        | Reason::TransactionExpired
        | Reason::TokenExchangeFailed(ExchangeFault::CodeRefused) => (
            "This login is over",
            "It was completed already, took too long, or was begun in another browser. If you are not logged in, go \
             back to the page that you wanted.",
        ),
        Reason::SubjectMismatch => (
            "You logged in as somebody else",
            "The login that you confirmed belongs to another account than the one you were using. Nothing has \
             changed. Log out first to change accounts.",
        ),
        _ => ("The login could not be completed", "Nothing has changed. You can start again."),
    }
}

/// The header fields of a page. A page of one's own may bring its own pictures and styles from the same origin.
pub fn headers(own: bool) -> [(&'static str, String); 4] {
    let policy = match own {
        true => {
            "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; \
             base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        }
        false => "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    };
    [
        ("content-type", "text/html; charset=utf-8".to_owned()),
        ("content-security-policy", policy.to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
        ("referrer-policy", "no-referrer".to_owned()),
    ]
}

/// Renders a page, the built-in one unless there is another. The link is its address and its text.
pub fn render(own: Option<&Template>, reason: &Reason, detail: &str, link: (&str, &str)) -> String {
    let (title, message) = words(reason);
    let values = [
        ("title", title),
        ("message", message),
        ("detail", detail),
        ("reason", reason.code()),
        ("link_url", link.0),
        ("link_text", link.1),
    ];
    match own {
        Some(template) => template.render(&values),
        // The link leads home already.
        None if link.0.ends_with('/') => template::render(&PAGE.replacen(HOME, "", 1), &values),
        None => template::render(PAGE, &values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_page_is_a_template() {
        assert!(Template::parse(PAGE).is_ok());
        assert!(PAGE.contains(HOME));
    }

    #[test]
    fn what_comes_from_outside_is_escaped() {
        let reason = Reason::ClaimInsufficient { claim: "<script>\"'&".into() };
        let page = render(None, &reason, &reason.to_string(), ("/", "Home page"));
        assert!(page.contains("&lt;script&gt;&quot;&#39;&amp;"));
        assert!(!page.contains("<script>"));
    }
}
