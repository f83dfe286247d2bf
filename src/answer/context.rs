//! What an answer needs to know of the request.

use std::time::Duration;

use http::Uri;

use crate::cookie::{OwnCookies, cookie_value};
use crate::http::{Request, is_local_path};
use crate::time::Timestamp;

/// The cookie that counts step-ups in a row, for a `redirect_uri` on plain http (loopback) …
pub const ATTEMPTS_COOKIE: &str = "stepgate_attempts";

/// … and on https (RFC 6265bis section 4.1.3.2).
pub const SECURE_ATTEMPTS_COOKIE: &str = "__Host-stepgate_attempts";

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A browser that goes to a page, or a client that says nothing of itself.
    Navigation,
    /// A script, an API client, a WebSocket.
    Other,
    /// A gRPC client.
    Grpc,
}

/// What an answer needs to know of the request.
#[derive(Clone)]
pub struct RequestContext {
    /// Who asks.
    pub kind: RequestKind,
    /// The request's own path and query, where a browser can be sent to them again.
    own_path: Option<String>,
    referer: Option<String>,
    /// What the attempts cookie says.
    pub attempts: Attempts,
    /// The cookies of a flow that the gate completes itself.
    pub cookies: OwnCookies,
    /// Whether the person set out for this page just now, so that no step-up came before.
    sets_out: bool,
}

impl RequestContext {
    /// Reads the request. A token in a header is an API client's; with such a header configured, no browser sends
    /// one.
    pub fn of(request: &Request<'_>, token_in_header: bool, attempts: Attempts) -> Self {
        Self {
            kind: kind_of(request, token_in_header),
            own_path: repeatable_path(request),
            referer: request.first("referer"),
            attempts,
            cookies: OwnCookies::default(),
            sets_out: sets_out(request),
        }
    }

    /// The path and query to come back to: the request's own, else `/`.
    pub fn return_to(&self) -> &str {
        self.own_path.as_deref().unwrap_or("/")
    }

    /// The path to come back to, without query.
    pub fn return_path(&self) -> Option<&str> {
        self.return_to().split('?').next()
    }

    /// The page to come back to, for who knows the app's origin. A request that a browser cannot repeat, or that a script
    /// made, came from a page, which its `Referer` names: that is where the person was.
    pub fn page(&self, origin: &str) -> String {
        let referer = || self.referer.as_deref().and_then(|url| local_part(url, origin));
        let page = match self.kind {
            RequestKind::Navigation => self.own_path.clone().or_else(referer),
            RequestKind::Other | RequestKind::Grpc => referer().or_else(|| self.own_path.clone()),
        };
        page.unwrap_or_else(|| "/".to_owned())
    }

    /// How many step-ups for these rules came before this one. Where the gate completes them, `completed`, it counts those that
    /// came back, and nothing that goes round by itself takes long.
    pub fn attempts_before(&self, fingerprint: impl FnOnce() -> String, completed: bool, now: Timestamp) -> u32 {
        match self.attempts.counted(fingerprint) {
            Some((_, last)) if (self.sets_out || completed) && now.since(last) >= ATTEMPT_IN_PROGRESS => 0,
            Some((count, _)) => count,
            None => 0,
        }
    }
}

/// For so long after a redirect every request may be a return from it: browsers carry the headers of a person's own
/// navigation through redirects.
pub const ATTEMPT_IN_PROGRESS: Duration = Duration::from_secs(60);

/// The attempts cookie: the fingerprint of the rules, how many step-ups for them came in a row, and when the last one did,
/// in seconds, with dots between.
///
/// The count is the browser's to keep and may be forged: it protects the person from an endless loop, and nobody else from
/// anything.
#[derive(Clone, Debug)]
pub struct Attempts(Option<String>);

impl Attempts {
    /// Reads the cookie, by the one name that the gate sets: any other may come from another host of the site.
    pub fn of(request: &Request<'_>, secure: bool) -> Self {
        Self(cookie_value(request, Self::cookie(secure)))
    }

    /// What the cookie says, where somebody has looked already.
    pub const fn from_value(value: Option<String>) -> Self {
        Self(value)
    }

    /// The cookie's name.
    pub const fn cookie(secure: bool) -> &'static str {
        if secure { SECURE_ATTEMPTS_COOKIE } else { ATTEMPTS_COOKIE }
    }

    /// The count for these rules and the time of the last step-up, if there is one.
    ///
    /// Most requests have no such cookie, and need no fingerprint made.
    pub fn counted(&self, fingerprint: impl FnOnce() -> String) -> Option<(u32, Timestamp)> {
        let value = self.0.as_deref()?;
        let counted = value.strip_prefix(&fingerprint())?.strip_prefix('.')?;
        let (count, last) = counted.split_once('.').unwrap_or((counted, "0"));
        Some((count.parse().ok()?, Timestamp::from_secs(last.parse().ok()?)))
    }
}

/// A navigation, by the Fetch Metadata headers where they are, and by what it accepts.
fn kind_of(request: &Request<'_>, by_api_client: bool) -> RequestKind {
    let says = |name: &str, allowed: &[&str]| {
        request.first(name).is_none_or(|value| allowed.iter().any(|allowed| value.trim().eq_ignore_ascii_case(allowed)))
    };
    let is_present = |name: &str| {
        let mut present = false;
        request.fields.visit(name, &mut |_| present = true);
        present
    };
    let content_type = request.first("content-type").unwrap_or_default();
    if content_type.trim_start().to_ascii_lowercase().starts_with("application/grpc") {
        return RequestKind::Grpc;
    }
    let navigates = !by_api_client
        && request.first("x-requested-with").is_none_or(|value| !value.trim().eq_ignore_ascii_case("XMLHttpRequest"))
        && says("sec-fetch-mode", &["navigate"])
        && says("sec-fetch-dest", &["document"])
        && !is_present("upgrade")
        && !is_present(":protocol")
        && accepts_pages(request);
    if navigates { RequestKind::Navigation } else { RequestKind::Other }
}

/// Whether the request asks for HTML, or for nothing in particular.
fn accepts_pages(request: &Request<'_>) -> bool {
    let mut ranges: Vec<String> = Vec::new();
    request.fields.visit("accept", &mut |value| {
        let value = String::from_utf8_lossy(value).to_ascii_lowercase();
        let names = value.split(',').filter_map(|range| range.split(';').next());
        ranges.extend(names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
    });
    let names_html = ranges.iter().any(|range| matches!(range.as_str(), "text/html" | "application/xhtml+xml"));
    names_html || ranges.iter().all(|range| range == "*/*")
}

/// Whether the person typed the address, or followed a link of the app. Scripts never say so (Fetch Metadata,
/// `Sec-Fetch-User`); what comes back through redirects still does.
fn sets_out(request: &Request<'_>) -> bool {
    let site = request.first("sec-fetch-site").unwrap_or_default();
    let by_person = request.first("sec-fetch-user").is_some_and(|value| value.trim() == "?1");
    site == "none" || site == "same-origin" && by_person
}

/// The request's own path and query, where a browser can be sent to them.
fn repeatable_path(request: &Request<'_>) -> Option<String> {
    let repeatable = [b"GET".as_slice(), b"HEAD"].contains(&request.method);
    let target = std::str::from_utf8(request.path).ok().filter(|_| repeatable)?;
    is_local_path(target).then(|| target.to_owned())
}

/// The path and query of a URL of this origin.
fn local_part(url: &str, origin: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let own = format!("{}://{}", uri.scheme_str()?, uri.authority()?.as_str().to_ascii_lowercase());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    (own == origin && is_local_path(path)).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(method: &str, path: &str, fields: &[(&str, &str)]) -> RequestContext {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let request = Request { method: method.as_bytes(), authority: b"", path: path.as_bytes(), fields: &fields };
        RequestContext::of(&request, false, Attempts::of(&request, true))
    }

    #[test]
    fn a_request_that_says_nothing_of_itself_is_a_navigation() {
        use RequestKind::{Grpc, Navigation, Other};
        let cases: &[(&[(&str, &str)], RequestKind)] = &[
            (&[], Navigation),
            (&[("accept", "*/*")], Navigation),
            (&[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")], Navigation),
            (&[("accept", "text/html"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], Navigation),
            (&[("accept", "application/json")], Other),
            (&[("accept", "application/json, text/plain, */*")], Other),
            (&[("accept", "image/avif,image/webp,*/*")], Other),
            (&[("accept", "*/*"), ("sec-fetch-mode", "cors")], Other),
            (&[("accept", "text/html"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], Other),
            (&[("x-requested-with", "XMLHttpRequest")], Other),
            (&[("upgrade", "websocket")], Other),
            (&[("content-type", "application/grpc+proto")], Grpc),
        ];
        for (fields, kind) in cases {
            assert_eq!(context("GET", "/", fields).kind, *kind, "{fields:?}");
        }
    }

    #[test]
    fn the_way_back_is_a_path_of_the_same_origin() {
        assert_eq!(context("GET", "/a?b=c", &[]).return_to(), "/a?b=c");
        assert_eq!(context("GET", "/a?b=c", &[]).return_path(), Some("/a"));
        assert_eq!(context("POST", "/a", &[]).return_to(), "/");
        for unsafe_path in ["//evil", "/\\evil", "http://evil/", "", "*", "/a\tb", "/a#b", "/\u{e9}"] {
            assert_eq!(context("GET", unsafe_path, &[]).return_to(), "/", "{unsafe_path:?}");
        }
    }

    #[test]
    fn a_request_that_cannot_be_repeated_leads_back_to_its_page() {
        let page = |method: &str, fields: &[(&str, &str)]| context(method, "/a?b", fields).page("https://app");
        assert_eq!(page("GET", &[("referer", "https://app/from")]), "/a?b");
        assert_eq!(page("POST", &[("referer", "https://app/from?x=y")]), "/from?x=y");
        assert_eq!(page("POST", &[]), "/");
        let script = ("sec-fetch-mode", "cors");
        assert_eq!(page("GET", &[script, ("referer", "https://APP/from")]), "/from");
        assert_eq!(page("GET", &[script]), "/a?b");
        for foreign in
            ["https://evil/from", "http://app/from", "https://app:8443/", "https://app@evil/", "https://app//evil", "x"]
        {
            assert_eq!(page("POST", &[("referer", foreign)]), "/", "{foreign}");
        }
    }

    #[test]
    fn attempts_count_only_returns_for_the_same_rules() {
        let attempts = |fields: &[(&str, &str)]| {
            context("GET", "/", fields).attempts_before(|| "abc".to_owned(), false, Timestamp::from_secs(1000))
        };
        assert_eq!(attempts(&[]), 0);
        assert_eq!(attempts(&[("cookie", "__Host-stepgate_attempts=abc.2")]), 2);
        assert_eq!(attempts(&[("cookie", "stepgate_attempts=abc.2")]), 0, "another host of the site may set it");
        assert_eq!(attempts(&[("cookie", "__Host-stepgate_attempts=xyz.2")]), 0);
        assert_eq!(attempts(&[("cookie", "__Host-stepgate_attempts=abc.-2")]), 0);
        assert_eq!(attempts(&[("cookie", "__Host-stepgate_attempts=abc.2"), ("sec-fetch-site", "cross-site")]), 2);
        assert_eq!(attempts(&[("cookie", "__Host-stepgate_attempts=abc.2"), ("sec-fetch-site", "none")]), 0);
        let by_script = [("cookie", "__Host-stepgate_attempts=abc.2"), ("sec-fetch-site", "same-origin")];
        assert_eq!(attempts(&by_script), 2);
        assert_eq!(attempts(&[by_script[0], by_script[1], ("sec-fetch-user", "?1")]), 0);
        let typed = |last: &str| {
            attempts(&[("cookie", &format!("__Host-stepgate_attempts=abc.2.{last}")), ("sec-fetch-site", "none")])
        };
        assert_eq!((typed("940"), typed("941")), (0, 2), "it may be a return from a step-up that is under way");
    }
}
