//! What an answer needs to know of the request.

use std::time::Duration;

use http::Uri;

use crate::cookie::{OwnCookies, cookie_value};
use crate::http::{Fields, Request, is_local_path};
use crate::rules::RuleNames;
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
        let told = Told::by(request.fields);
        Self {
            kind: told.kind(token_in_header),
            own_path: repeatable_path(request),
            sets_out: told.sets_out(),
            referer: told.referer.flatten(),
            attempts,
            cookies: OwnCookies::default(),
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
    pub fn attempts_before(&self, rules: &RuleNames, completed: bool, now: Timestamp) -> u32 {
        match self.attempts.counted(rules) {
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
    pub fn counted(&self, rules: &RuleNames) -> Option<(u32, Timestamp)> {
        let value = self.0.as_deref()?;
        let counted = value.strip_prefix(rules.fingerprint())?.strip_prefix('.')?;
        let (count, last) = counted.split_once('.').unwrap_or((counted, "0"));
        Some((count.parse().ok()?, Timestamp::from_secs(last.parse().ok()?)))
    }
}

/// What the fields tell of who asks. Where one comes more than once, its first value counts; one that is not UTF-8 tells
/// nothing.
#[derive(Default)]
struct Told {
    is_grpc: Option<bool>,
    is_script: Option<bool>,
    is_mode_navigate: Option<bool>,
    is_dest_document: Option<bool>,
    is_site_none: Option<bool>,
    is_site_same_origin: Option<bool>,
    is_by_person: Option<bool>,
    switches_protocol: bool,
    accepts_html: bool,
    accepts_other: bool,
    referer: Option<Option<String>>,
}

impl Told {
    /// One look over all fields.
    fn by(fields: &dyn Fields) -> Self {
        let mut told = Self::default();
        fields.each(&mut |name, value| told.note(name, value));
        told
    }

    fn note(&mut self, name: &[u8], value: &[u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let text = || std::str::from_utf8(value).ok();
        let says = |expected: &str| text().map(|text| text.trim().eq_ignore_ascii_case(expected));
        // By length first: most fields are none of these.
        match name.len() {
            6 if is("accept") => self.accept(value),
            7 if is("referer") => note_first(&mut self.referer, || text().map(str::to_owned)),
            7 if is("upgrade") => self.switches_protocol = true,
            9 if is(":protocol") => self.switches_protocol = true,
            12 if is("content-type") => note_first(&mut self.is_grpc, || {
                text().is_some_and(|text| text.trim_start().to_ascii_lowercase().starts_with("application/grpc"))
            }),
            14 if is("sec-fetch-mode") => note_first(&mut self.is_mode_navigate, || says("navigate").unwrap_or(true)),
            14 if is("sec-fetch-dest") => note_first(&mut self.is_dest_document, || says("document").unwrap_or(true)),
            14 if is("sec-fetch-site") => {
                note_first(&mut self.is_site_none, || text() == Some("none"));
                note_first(&mut self.is_site_same_origin, || text() == Some("same-origin"));
            }
            14 if is("sec-fetch-user") => note_first(&mut self.is_by_person, || says("?1").unwrap_or(false)),
            16 if is("x-requested-with") => {
                note_first(&mut self.is_script, || says("XMLHttpRequest").unwrap_or(false));
            }
            _ => {}
        }
    }

    fn accept(&mut self, value: &[u8]) {
        for range in value.split(|&byte| byte == b',') {
            let name = range.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
            let is_html =
                [&b"text/html"[..], b"application/xhtml+xml"].iter().any(|html| name.eq_ignore_ascii_case(html));
            self.accepts_html |= is_html;
            self.accepts_other |= !is_html && !name.is_empty() && name != b"*/*";
        }
    }

    /// A navigation, by the Fetch Metadata fields where they are, and by what it accepts: HTML, or nothing in particular.
    fn kind(&self, by_api_client: bool) -> RequestKind {
        if self.is_grpc == Some(true) {
            return RequestKind::Grpc;
        }
        let navigates = !by_api_client
            && self.is_script != Some(true)
            && self.is_mode_navigate != Some(false)
            && self.is_dest_document != Some(false)
            && !self.switches_protocol
            && (self.accepts_html || !self.accepts_other);
        if navigates { RequestKind::Navigation } else { RequestKind::Other }
    }

    /// Whether the person typed the address, or followed a link of the app. Scripts never say so (Fetch Metadata,
    /// `Sec-Fetch-User`); what comes back through redirects still does.
    fn sets_out(&self) -> bool {
        self.is_site_none == Some(true) || self.is_site_same_origin == Some(true) && self.is_by_person == Some(true)
    }
}

fn note_first<T>(slot: &mut Option<T>, value: impl FnOnce() -> T) {
    slot.get_or_insert_with(value);
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
            (&[("Content-Type", " Application/GRPC"), ("content-type", "text/plain")], Grpc),
            (&[("content-type", "text/plain"), ("content-type", "application/grpc")], Navigation),
            (&[("Sec-Fetch-Mode", " Navigate "), ("sec-fetch-mode", "cors")], Navigation),
            (&[("sec-fetch-mode", "cors"), ("sec-fetch-mode", "navigate")], Other),
            (&[("X-Requested-With", "xmlhttprequest")], Other),
            (&[(":protocol", "websocket")], Other),
            (&[("accept", "application/json"), ("ACCEPT", "Text/HTML;q=0.1")], Navigation),
            (&[("accept", " , ;q=1, */*;q=0.1")], Navigation),
            (&[("x-requested-with-more", "XMLHttpRequest")], Navigation),
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
        let rules = RuleNames::from(vec!["a rule".into()]);
        let abc = rules.fingerprint();
        let attempts = |fields: &[(&str, &str)]| {
            context("GET", "/", fields).attempts_before(&rules, false, Timestamp::from_secs(1000))
        };
        assert_eq!(attempts(&[]), 0);
        assert_eq!(attempts(&[("cookie", &format!("__Host-stepgate_attempts={abc}.2"))]), 2);
        assert_eq!(
            attempts(&[("cookie", &format!("stepgate_attempts={abc}.2"))]),
            0,
            "another host of the site may set it"
        );
        assert_eq!(attempts(&[("cookie", "__Host-stepgate_attempts=xyz.2")]), 0);
        assert_eq!(attempts(&[("cookie", &format!("__Host-stepgate_attempts={abc}.-2"))]), 0);
        assert_eq!(
            attempts(&[("cookie", &format!("__Host-stepgate_attempts={abc}.2")), ("sec-fetch-site", "cross-site")]),
            2
        );
        assert_eq!(
            attempts(&[("cookie", &format!("__Host-stepgate_attempts={abc}.2")), ("sec-fetch-site", "none")]),
            0
        );
        let counted = format!("__Host-stepgate_attempts={abc}.2");
        let by_script = [("cookie", counted.as_str()), ("sec-fetch-site", "same-origin")];
        assert_eq!(attempts(&by_script), 2);
        assert_eq!(attempts(&[by_script[0], by_script[1], ("sec-fetch-user", "?1")]), 0);
        let typed = |last: &str| {
            attempts(&[("cookie", &format!("__Host-stepgate_attempts={abc}.2.{last}")), ("sec-fetch-site", "none")])
        };
        assert_eq!((typed("940"), typed("941")), (0, 2), "it may be a return from a step-up that is under way");
    }
}
