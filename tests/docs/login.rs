//! What the pages say of the login that the gate completes, and of what the app is told.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use stepgate::http::Fields;
use stepgate::provider::{Endpoint, Fetch, Reply};

use super::*;

const PROVIDER: &str = "https://idp.example.com";
const PAGE: [(&str, &str); 1] = [("accept", "text/html")];
const SCRIPT: [(&str, &str); 1] = [("accept", "application/json")];

/// A browser before the gate of the page of decisions, and the provider behind it.
struct Browser {
    asker: Asker,
    gate: Gate,
    now: Timestamp,
    /// How often randomness was drawn.
    drawn: u8,
    host: &'static str,
    cookies: BTreeMap<String, String>,
    /// The claims of the next token.
    claims: Value,
    /// What the token endpoint answers instead of a token.
    exchange: Option<(u16, &'static str)>,
    /// The parameters of the last redirect to the provider.
    asked: BTreeMap<String, String>,
    fetched: Vec<Fetch>,
}

fn header(response: &Response, name: &str) -> String {
    response.header(name).unwrap_or_default().to_owned()
}

fn query(url: &str) -> BTreeMap<String, String> {
    let (_, query) = url.split_once('?').unwrap_or_default();
    form(query.as_bytes())
}

fn form(encoded: &[u8]) -> BTreeMap<String, String> {
    stepgate::http::form_decode(encoded).into_iter().collect()
}

impl Browser {
    fn new(over: Value) -> Self {
        let page = Page::read("docs/decisions.md");
        let block = page.block("yaml stepgate example");
        let asker = Asker::new(&merged(yaml(&block.text, &block.place), &over));
        Self {
            gate: Gate::new(accepted(&asker.config, "the example")),
            asker,
            now: now(),
            drawn: 0,
            host: "app.example.com",
            cookies: BTreeMap::new(),
            claims: json!({ "amr": ["pwd", "otp", "mfa"] }),
            exchange: None,
            asked: BTreeMap::new(),
            fetched: Vec::new(),
        }
    }

    fn go(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Decision {
        self.send(method, target, headers, b"")
    }

    fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Decision {
        let mut headers: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        headers.extend(self.cookies.iter().map(|(name, value)| ("cookie".to_owned(), format!("{name}={value}"))));
        let (method, authority, path) = (method.as_bytes(), self.host.as_bytes(), target.as_bytes());
        let drawn = Cell::new(self.drawn);
        let entropy = || {
            drawn.set(drawn.get() + 1);
            [drawn.get(); 32]
        };
        let env = Env { now: self.now, entropy: &entropy };
        let mut step = self.gate.begin(&Request { method, authority, path, fields: &headers }, env);
        let decision = loop {
            step = match step {
                Step::Done(decision) => break decision,
                Step::Verify(_, pending) => self.gate.resume(pending, Outcome::Unsupported, env),
                Step::Body(_, pending) => self.gate.resume(pending, Outcome::Body(body.to_vec()), env),
                Step::Fetch(fetch, pending) => {
                    let (status, body) = self.reply(&fetch);
                    let reply = Reply::from_http(&fetch, env.now, status, body.into_bytes());
                    self.fetched.push(fetch);
                    self.gate.resume(pending, Outcome::Fetched(reply), env)
                }
            };
        };
        self.drawn = drawn.get();
        if let Some(response) = &decision.response {
            self.take(response);
        }
        decision
    }

    fn reply(&self, fetch: &Fetch) -> (u16, String) {
        match (fetch.endpoint, self.exchange) {
            (Endpoint::Metadata, _) => {
                let metadata = json!({
                    "issuer": PROVIDER,
                    "authorization_endpoint": format!("{PROVIDER}/authorize"),
                    "jwks_uri": format!("{PROVIDER}/jwks"),
                    "pushed_authorization_request_endpoint": format!("{PROVIDER}/par"),
                });
                (200, metadata.to_string())
            }
            (_, Some((status, body))) => (status, body.to_owned()),
            (Endpoint::PushedAuthorization, None) => (201, json!({ "request_uri": "urn:x:1" }).to_string()),
            (Endpoint::Token, None) => {
                let token = self.asker.token(&merged(json!({ "nonce": self.asked["nonce"] }), &self.claims));
                (200, json!({ "token_type": "bearer", "id_token": token }).to_string())
            }
            (Endpoint::Keys, None) => panic!("keys"),
        }
    }

    fn take(&mut self, response: &Response) {
        for (_, cookie) in response.headers.iter().filter(|(name, _)| *name == "set-cookie") {
            let (name, rest) = cookie.split_once('=').expect("a name");
            let (value, attributes) = rest.split_once(';').expect("attributes");
            match attributes.contains("Max-Age=0;") {
                true => drop(self.cookies.remove(name)),
                false => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        let location = header(response, "location");
        if location.starts_with(&format!("{PROVIDER}/authorize")) {
            self.asked = query(&location);
        }
    }

    /// Back from the provider, with these parameters beside `state`.
    fn back(&mut self, parameters: &str, headers: &[(&str, &str)]) -> Decision {
        self.host = "app.example.com";
        let target = format!("/callback?state={}&{parameters}", self.asked["state"]);
        self.go("GET", &target, headers)
    }

    /// Follows a redirect to an address of the callback's host.
    fn follow(&mut self, decision: &Decision) -> Decision {
        self.host = "app.example.com";
        let url = location(decision);
        self.go("GET", url.strip_prefix("https://app.example.com").expect("the gate's own origin"), &PAGE)
    }

    /// Logs in, and says where that ends.
    fn log_in(&mut self, target: &str) -> String {
        self.go("GET", target, &PAGE);
        location(&self.back("code=c", &PAGE))
    }

    /// The token in its cookie, or in its chunks.
    fn token(&self) -> Option<String> {
        let chunks: String =
            self.cookies.range("id_token".to_owned().."id_token/".to_owned()).map(|(_, part)| part.as_str()).collect();
        Some(chunks).filter(|token| !token.is_empty())
    }
}

fn location(decision: &Decision) -> String {
    header(decision.response.as_ref().expect("an answer"), "location")
}

fn found(decision: &Decision) -> (&'static str, &'static str) {
    (decision.reason.code(), decision.kind.name())
}

fn problem(decision: &Decision) -> Value {
    serde_json::from_str(&decision.response.as_ref().expect("an answer").body).expect("JSON")
}

/// Fields that the host does not hand over.
struct Unreadable;

impl Fields for Unreadable {
    fn each(&self, _: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        false
    }
}

#[test]
fn decisions_are_the_ones_in_the_table() {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    let mut see = |decision: &Decision| seen.push(found(decision));

    // The answer that is read.
    let mut browser = Browser::new(json!({ "forward": { "headers": { "x-user-id": "sub" } } }));
    let request = Request { method: b"GET", authority: b"app.example.com", path: b"/", fields: &Unreadable };
    let Step::Done(rejected) = browser.gate.begin(&request, Env { now: now(), entropy: &|| [7; 32] }) else {
        panic!("a decision")
    };
    see(&rejected);
    see(&browser.go("GET", "/", &PAGE));
    see(&browser.go("GET", "/salary/%zz", &PAGE));
    see(&browser.go("GET", "/salary", &PAGE));
    for malformed in ["", "?code=c", "?state=x&code=c", "?state=BwcHBwcHBwcHBwcHBwcHBw&code=c&code=c"] {
        see(&browser.go("GET", &format!("/callback{malformed}"), &PAGE));
    }
    see(&browser.go("HEAD", "/callback", &PAGE));
    see(&browser.go("GET", "/callback?state=CwcHBwcHBwcHBwcHBwcHBw&code=c", &PAGE));
    let answers =
        ["access_denied", "login_required", "consent_required", "invalid_scope", "unmet_authentication_requirements"];
    for error in answers {
        browser.go("GET", "/salary", &PAGE);
        see(&browser.back(&format!("error={error}"), &PAGE));
        see(&browser.back(&format!("error={error}"), &PAGE));
    }
    browser.go("GET", "/salary", &PAGE);
    see(&browser.back("code=c&iss=https://other.example.com", &PAGE));
    browser.go("GET", "/salary", &PAGE);
    browser.now = browser.now.plus(Duration::from_secs(600));
    see(&browser.back("code=c", &PAGE));

    // The exchange, and the new token.
    let mut browser = Browser::new(json!({ "callback": { "logout_path": "/logout" } }));
    for (status, body) in [(400, r#"{"error":"invalid_grant"}"#), (401, r#"{"error":"invalid_client"}"#), (500, "")] {
        browser.go("GET", "/salary", &PAGE);
        browser.exchange = Some((status, body));
        see(&browser.back("code=c", &PAGE));
        browser.fetched.retain(|fetch| fetch.endpoint == Endpoint::Token);
        assert_eq!(browser.fetched.drain(..).count(), 1, "it is not tried again");
    }
    browser.exchange = None;
    let amr = json!(["mfa"]);
    for claims in [json!({ "nonce": "another", "amr": amr }), json!({ "aud": "another", "amr": amr })] {
        browser.go("GET", "/salary", &PAGE);
        browser.claims = claims;
        see(&browser.back("code=c", &PAGE));
        assert_eq!(browser.token(), None);
    }
    browser.claims = json!({ "amr": amr });
    browser.go("GET", "/salary", &PAGE);
    see(&browser.back("code=c", &PAGE));
    see(&browser.go("GET", "/salary", &PAGE));
    browser.now = browser.now.plus(Duration::from_secs(550));
    let mut too_old = Browser::new(json!({ "rules": [{ "paths": ["/salary/**"], "require": { "max_age": "1m" } }] }));
    too_old.log_in("/salary");
    too_old.now = too_old.now.plus(Duration::from_secs(61));
    see(&too_old.go("GET", "/salary", &PAGE));
    too_old.claims = json!({ "sub": "another" });
    see(&too_old.back("code=c", &PAGE));
    see(&browser.go("GET", "/logout", &PAGE));

    // What cannot be asked for.
    let mut pushing = Browser::new(json!({ "callback": { "pushed_authorization": true } }));
    pushing.exchange = Some((400, r#"{"error":"invalid_client"}"#));
    see(&pushing.go("GET", "/salary", &PAGE));
    let rule = |name: &str| {
        let values: Vec<String> = (0..60).map(|number| format!("{name}-value-{number}")).collect();
        json!({ "name": name, "paths": ["/salary/**"], "require": { "amr": { "any_of": values } } })
    };
    let mut long = Browser::new(json!({ "rules": [rule("a"), rule("b"), rule("c"), rule("d")] }));
    see(&long.go("GET", "/salary", &PAGE));
    long.host = "pay.example.com";
    see(&long.go("GET", "/salary", &PAGE));

    let page = Page::read("docs/decisions.md");
    let table: BTreeMap<String, Vec<String>> = page
        .table("## Reason codes")
        .iter()
        .map(|row| {
            let step_up = row[1] == "step-up";
            let kinds = if step_up {
                ["redirect", "challenge", "forbidden"].map(str::to_owned).to_vec()
            } else {
                spans(&row[1])
            };
            (spans(&row[0]).remove(0), kinds)
        })
        .collect();
    for (code, kind) in &seen {
        assert!(table[*code].iter().any(|known| known == kind), "{code} is {kind}");
    }
    let all: BTreeSet<&str> = seen.iter().map(|(code, _)| *code).collect();
    let of_the_login = Reason::CODES.iter().skip_while(|code| **code != "step_up_failed");
    for code in of_the_login {
        assert!(all.contains(code), "{code} was not tried");
        for kind in &table[*code] {
            assert!(seen.contains(&(*code, kind.as_str())), "{code} was never {kind}");
        }
    }
}

#[test]
fn a_login_that_never_suffices_ends_as_the_page_shows_it() {
    let page = Page::read("docs/decisions.md");
    let expected: Value = serde_json::from_str(&page.block("json step-up-failed").text).expect("JSON");
    let mut browser = Browser::new(json!({}));
    browser.claims = json!({ "amr": ["pwd", "otp", "mfa"], "auth_time": now().as_secs() - 3600 });
    assert_eq!(found(&browser.go("GET", "/salary", &PAGE)), ("token_missing", "redirect"));
    for _ in 1..3 {
        assert_eq!(found(&browser.back("code=c", &SCRIPT)), ("auth_too_old", "redirect"));
        assert_eq!(browser.asked["prompt"], "login");
    }
    assert_eq!(problem(&browser.back("code=c", &SCRIPT)), expected);
    assert!(browser.cookies.is_empty(), "nothing is set, and the count is over: {:?}", browser.cookies.keys());

    let mut own = Browser::new(json!({ "step_up": { "params": { "prompt": "select_account" } } }));
    own.claims = browser.claims;
    own.go("GET", "/salary", &PAGE);
    own.back("code=c", &PAGE);
    assert_eq!(own.asked["prompt"], "select_account");
}

#[test]
fn the_way_back_is_as_the_table_has_it() {
    let from = ("referer", "https://app.example.com/from?x=y");
    let foreign = ("referer", "https://evil.example/from");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Headers<'_>, &str); 6] = [
        ("GET", &[PAGE[0], from], "/salary?month=6"),
        ("POST", &[PAGE[0], from], "/from?x=y"),
        ("POST", &[PAGE[0], foreign], "/"),
        ("GET", &[SCRIPT[0], from], "/from?x=y"),
        ("GET", &[SCRIPT[0], foreign], "/salary?month=6"),
        ("POST", &[SCRIPT[0]], "/"),
    ];
    for (method, headers, expected) in cases {
        let mut browser = Browser::new(json!({}));
        let answer = browser.go(method, "/salary?month=6", headers);
        if headers[0] == SCRIPT[0] {
            assert!(browser.cookies.is_empty(), "no cookie is set for a script");
            let problem = problem(&answer);
            let link = problem["step_up_url"].as_str().expect("a link");
            let target = link.strip_prefix("https://app.example.com").expect("the gate's own origin");
            browser.go("GET", target, &PAGE);
        }
        assert_eq!(location(&browser.back("code=c", &PAGE)), expected, "{method} {headers:?}");
    }
}

#[test]
fn a_link_to_a_login_works_for_an_hour_and_leads_back_where_it_is_not_needed() {
    let mut browser = Browser::new(json!({}));
    let link = problem(&browser.go("GET", "/salary", &SCRIPT))["step_up_url"].as_str().expect("a link").to_owned();
    let target = link.strip_prefix("https://app.example.com").expect("the gate's own origin");
    browser.log_in("/salary");
    let answer = browser.go("GET", target, &PAGE);
    assert_eq!((found(&answer), location(&answer).as_str()), (("satisfied", "redirect"), "/salary"));
    browser.cookies.clear();
    browser.now = browser.now.plus(Duration::from_secs(3599));
    assert_eq!(found(&browser.go("GET", target, &PAGE)), ("token_missing", "redirect"));
    browser.now = browser.now.plus(Duration::from_secs(1));
    assert_eq!(found(&browser.go("GET", target, &PAGE)), ("transaction_expired", "bad_request"));
}

#[test]
fn a_step_up_wears_off_for_its_rule_alone() {
    let rules = json!([
        { "name": "all", "paths": ["/**"], "require": {} },
        { "name": "now", "paths": ["/now"], "require": { "max_age": "1m" } },
    ]);
    let mut browser = Browser::new(json!({ "rules": rules }));
    browser.log_in("/now");
    browser.now = browser.now.plus(Duration::from_millis(60_999));
    assert_eq!(found(&browser.go("GET", "/now", &PAGE)), ("satisfied", "forward"), "whole seconds");
    browser.now = browser.now.plus(Duration::from_millis(1));
    assert_eq!(found(&browser.go("GET", "/now", &PAGE)), ("auth_too_old", "redirect"));
    assert_eq!(found(&browser.go("GET", "/", &PAGE)), ("satisfied", "forward"));
}

#[test]
fn keys_change_without_a_login_lost() {
    let key = |byte: u8| STANDARD.encode([byte; 32]);
    let gate = |keys: &[u8], seal: bool| {
        let keys: Vec<String> = keys.iter().map(|byte| key(*byte)).collect();
        Browser::new(json!({ "callback": { "keys": keys, "seal_token": seal } }))
    };
    let moved = |from: &Browser, mut to: Browser| {
        (to.cookies, to.asked) = (from.cookies.clone(), from.asked.clone());
        to
    };
    for seal in [false, true] {
        let mut old = gate(&[1], seal);
        old.go("GET", "/salary", &PAGE);
        let mut both = moved(&old, gate(&[2, 1], seal));
        assert_eq!(found(&both.back("code=c", &PAGE)), ("login_completed", "redirect"), "another gate, the same keys");
        let mut new = moved(&old, gate(&[2], seal));
        assert_eq!(found(&new.back("code=c", &PAGE)), ("transaction_missing", "bad_request"));
        old.back("code=c", &PAGE);
        let mut new = moved(&old, gate(&[2], seal));
        let expected = if seal { ("token_malformed", "redirect") } else { ("satisfied", "forward") };
        assert_eq!(found(&new.go("GET", "/salary", &PAGE)), expected);
        assert_eq!(old.token().expect("a token").contains('.'), !seal);
    }
}

#[test]
fn cookies_have_the_attributes_of_the_table() {
    let page = Page::read("docs/configuration.md");
    let section = page.text.split_once("## `callback.cookie`").expect("the section").1;
    let attributes = |start: &str| {
        let row = section.lines().find(|line| line.starts_with(start)).expect("a row");
        spans(row.split('|').nth(3).expect("a cell"))
    };
    let set = |decision: &Decision| -> Vec<String> {
        let headers = &decision.response.as_ref().expect("an answer").headers;
        headers.iter().filter(|(name, _)| *name == "set-cookie").map(|(_, value)| value.clone()).collect()
    };
    let mut browser = Browser::new(json!({}));
    let begun = set(&browser.go("GET", "/salary", &PAGE));
    let completed = set(&browser.back("code=c", &PAGE));
    let count = completed.iter().find(|cookie| cookie.starts_with("__Host-stepgate_attempts=")).expect("a count");
    for (start, cookie) in [("| `__Host-stepgate_attempts`", count), ("| `__Host-stepgate_tx_", &begun[0])] {
        let mut listed = attributes(start);
        listed.retain(|attribute| attribute != "None" && attribute != "form_post");
        let given: BTreeSet<&str> = cookie.split("; ").skip(1).collect();
        assert_eq!(given, listed.iter().map(String::as_str).collect(), "{start}");
    }
    let (_, given) = completed[0].split_once("; ").expect("attributes");
    assert_eq!(given, "Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure");

    let cookie = json!({ "domain": "example.com", "path": "/salary", "same_site": "None", "max_age": "1m" });
    let mut configured = Browser::new(
        json!({ "client": { "redirect_uri": "https://app.example.com/salary/callback" }, "callback": { "cookie": cookie } }),
    );
    let begun = set(&configured.go("GET", "/salary", &PAGE));
    assert!(begun[0].starts_with("__Host-stepgate_tx_") && !begun[0].contains("; Domain="), "{}", begun[0]);
    let target = format!("/salary/callback?code=c&state={}", configured.asked["state"]);
    let completed = set(&configured.go("GET", &target, &PAGE));
    let (_, given) = completed[0].split_once("; ").expect("attributes");
    assert_eq!(given, "Domain=example.com; Path=/salary; Max-Age=60; HttpOnly; SameSite=None; Secure");

    let mut posting = Browser::new(json!({ "callback": { "response_mode": "form_post" } }));
    let begun = set(&posting.go("GET", "/salary", &PAGE));
    assert!(begun[0].ends_with("; SameSite=None; Secure"), "{}", begun[0]);
    assert_eq!(posting.asked["response_mode"], "form_post");
    let body = format!("state={}&code=c", posting.asked["state"]);
    let completed = posting.send("POST", "/callback", &PAGE, body.as_bytes());
    assert_eq!(found(&completed), ("login_completed", "redirect"));
    let again = posting.send("POST", "/callback", &PAGE, body.as_bytes());
    assert_eq!(found(&again), ("transaction_missing", "bad_request"));
}

/// How many cookies of the token's an answer clears.
fn cleared(decision: &Decision) -> usize {
    let headers = &decision.response.as_ref().expect("an answer").headers;
    headers.iter().filter(|(_, value)| value.starts_with("id_token") && value.contains("; Max-Age=0;")).count()
}

#[test]
fn what_does_not_come_with_the_request_is_cleared_by_every_name() {
    let overs = [
        (json!({}), true, [1, 2]),
        (json!({ "callback": { "response_mode": "form_post" } }), false, [17 - 2, 17 - 1]),
        (json!({ "callback": { "cookie": { "path": "/salary" } } }), false, [17 - 2, 17 - 1]),
    ];
    for (over, comes, expected) in overs {
        let mut browser = Browser::new(over.clone());
        for (length, expected) in [4000, 0].into_iter().zip(expected) {
            browser.claims = json!({ "amr": ["mfa"], "long": "x".repeat(length) });
            let old = std::mem::take(&mut browser.cookies);
            browser.go("GET", "/salary", &PAGE);
            browser.cookies.extend(old.into_iter().filter(|_| comes));
            let body = format!("state={}&code=c", browser.asked["state"]);
            let completed = match browser.asked.get("response_mode") {
                Some(_) => browser.send("POST", "/callback", &PAGE, body.as_bytes()),
                None => browser.back("code=c", &PAGE),
            };
            assert_eq!(found(&completed), ("login_completed", "redirect"));
            assert_eq!(cleared(&completed), expected, "{over}");
        }
    }
}

#[test]
fn a_token_set_for_another_domain_goes_when_two_came() {
    let mut browser =
        Browser::new(json!({ "callback": { "cookie": { "domain": "example.com" }, "logout_path": "/logout" } }));
    browser.go("GET", "/salary", &PAGE);
    let of_old = ("cookie", "id_token=one");
    browser.cookies.insert("id_token".to_owned(), "another".to_owned());
    let completed = browser.back("code=c", &[PAGE[0], of_old]);
    assert_eq!(found(&completed), ("login_completed", "redirect"));
    browser.cookies.insert("id_token".to_owned(), "another".to_owned());
    let left = browser.go("GET", "/logout", &[of_old]);
    for (decision, own) in [(completed, 0), (left, 1)] {
        let headers = decision.response.expect("an answer").headers;
        let cookies: Vec<&str> = headers.iter().map(|(_, value)| value.as_str()).collect();
        for domain in ["", "; Domain=app.example.com"] {
            let expected = format!("id_token={domain}; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure");
            assert!(cookies.contains(&expected.as_str()), "{domain}: {cookies:?}");
        }
        let cleared = "id_token=; Domain=example.com; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure";
        assert_eq!(cookies.iter().filter(|cookie| **cookie == cleared).count(), own, "{cookies:?}");
    }
}

#[test]
fn a_link_to_a_login_is_for_navigations() {
    let mut browser = Browser::new(json!({}));
    let link = problem(&browser.go("GET", "/salary", &SCRIPT))["step_up_url"].as_str().expect("a link").to_owned();
    let target = link.strip_prefix("https://app.example.com").expect("the gate's own origin");
    for headers in [SCRIPT[0], ("sec-fetch-dest", "image")] {
        assert_eq!(found(&browser.go("GET", target, &[headers])), ("callback_malformed", "bad_request"));
    }
    assert!(browser.cookies.is_empty());
}

#[test]
fn a_login_counts_when_it_is_complete_and_for_a_minute() {
    let mut browser = Browser::new(json!({}));
    for _ in 0..5 {
        assert_eq!(found(&browser.go("GET", "/salary", &PAGE)), ("token_missing", "redirect"), "it was not finished");
    }
    let mut last = Vec::new();
    for wait in [0, 59, 60, 0] {
        browser.cookies.retain(|name, _| name == "__Host-stepgate_attempts"); // the token's does not reach the page
        browser.now = browser.now.plus(Duration::from_secs(wait));
        browser.log_in("/salary");
        let count = &browser.cookies["__Host-stepgate_attempts"];
        last.push(count.split('.').nth(1).expect("a number").to_owned());
    }
    assert_eq!(last, ["1", "2", "1", "2"]);
}

#[test]
fn a_ninth_login_ends_the_oldest() {
    let mut browser = Browser::new(json!({}));
    let mut names = Vec::new();
    for second in 0..9 {
        browser.now = now().plus(Duration::from_secs(second));
        browser.go("GET", "/salary", &PAGE);
        names.push(format!("__Host-stepgate_tx_{}", browser.asked["state"]));
    }
    assert_eq!(browser.cookies.keys().collect::<BTreeSet<_>>(), names[1..].iter().collect());

    let claims = json!({ "id_token": { "x".repeat(1000): null } });
    let mut long = Browser::new(json!({ "step_up": { "claims": claims } }));
    for _ in 0..8 {
        long.go("GET", "/salary", &PAGE);
    }
    let bytes: usize = long.cookies.values().map(String::len).sum();
    assert!((2..8).contains(&long.cookies.len()) && bytes <= 8000, "{} cookies, {bytes} bytes", long.cookies.len());
}

#[test]
fn a_login_begins_and_ends_on_the_host_of_the_redirect_uri() {
    let mut alone = Browser::new(json!({}));
    alone.host = "pay.example.com";
    for headers in [PAGE, SCRIPT] {
        assert_eq!(found(&alone.go("GET", "/salary", &headers)), ("host_mismatch", "forbidden"));
    }

    let mut shared = Browser::new(json!({ "callback": { "cookie": { "domain": "example.com" } } }));
    for host in ["other.example", "notexample.com"] {
        shared.host = host;
        assert_eq!(found(&shared.go("GET", "/salary", &PAGE)), ("host_mismatch", "forbidden"), "{host}");
    }
    shared.host = "pay.example.com";
    let start = shared.go("GET", "/salary?month=6", &PAGE);
    assert_eq!(found(&start), ("token_missing", "redirect"));
    assert!(location(&start).starts_with("https://app.example.com/callback?step_up="), "{}", location(&start));
    assert!(shared.cookies.is_empty(), "the login has not begun");
    assert_eq!(found(&shared.follow(&start)), ("token_missing", "redirect"));
    assert!(shared.cookies.keys().all(|name| name.starts_with("__Host-stepgate_tx_")));
    assert_eq!(location(&shared.back("code=c", &PAGE)), "https://pay.example.com/salary?month=6");
    shared.host = "pay.example.com";
    assert_eq!(found(&shared.go("GET", "/salary", &PAGE)), ("satisfied", "forward"));
    assert_eq!(found(&shared.go("GET", "/callback", &PAGE)), ("not_protected", "forward"), "another host's path");
    shared.host = "app.example.com:8443";
    assert_eq!(found(&shared.go("GET", "/callback", &PAGE)), ("callback_malformed", "bad_request"));
}

#[test]
fn a_logout_leads_to_the_provider_or_home() {
    let mut browser = Browser::new(json!({
        "provider": { "end_session_endpoint": "https://idp.example.com/logout" },
        "callback": { "logout_path": "/logout" },
    }));
    browser.log_in("/salary");
    let token = browser.token().expect("a token");
    let answer = browser.go("POST", "/logout", &PAGE);
    let parameters = query(&location(&answer));
    assert_eq!(parameters["post_logout_redirect_uri"], "https://app.example.com/");
    assert_eq!((parameters["client_id"].as_str(), &parameters["id_token_hint"]), ("k3yC1ient", &token));
    assert!(browser.cookies.is_empty(), "{:?}", browser.cookies);
    let hint = |browser: &mut Browser| query(&location(&browser.go("GET", "/logout", &PAGE))).remove("id_token_hint");
    browser.cookies.insert("id_token".to_owned(), "no.token".to_owned());
    assert_eq!(hint(&mut browser), None, "not a well-formed token");
    browser.claims = json!({ "amr": ["mfa"], "long": "x".repeat(4000) });
    browser.log_in("/salary");
    assert_eq!(hint(&mut browser), None, "a long one");
    let mut sealing = Browser::new(json!({
        "provider": { "end_session_endpoint": "https://idp.example.com/logout" },
        "callback": { "logout_path": "/logout", "seal_token": true },
    }));
    sealing.log_in("/salary");
    assert_eq!(hint(&mut sealing), None, "what is sealed is not to be read in a URL");

    let mut without = Browser::new(json!({ "callback": { "logout_path": "/logout" } }));
    without.log_in("/salary");
    assert_eq!(location(&without.go("GET", "/logout", &PAGE)), "/");
    assert_eq!(without.token(), None);
}

#[test]
fn the_provider_is_told_who_is_logged_in() {
    let hint = |kind: &str, claims: Value| {
        let mut browser = Browser::new(json!({ "callback": { "hint": kind } }));
        browser.claims = merged(json!({ "amr": ["mfa"] }), &claims);
        browser.log_in("/salary");
        let token = browser.token().expect("a token");
        browser.now = browser.now.plus(Duration::from_secs(900 + 60)); // expired
        browser.go("GET", "/salary", &PAGE);
        let told = browser.asked.get("login_hint").or(browser.asked.get("id_token_hint")).cloned();
        told.map(|told| if told == token { "the token".to_owned() } else { told })
    };
    assert_eq!(hint("none", json!({ "email": "ada@example.com" })), None);
    let all = json!({ "login_hint": "h", "email": "e", "preferred_username": "p" });
    for (out, expected) in [("", "h"), ("login_hint", "e"), ("email", "p")] {
        let mut claims = all.clone();
        let names = ["login_hint", "email"];
        let gone = names.iter().take_while(|_| !out.is_empty()).take(1 + usize::from(out == "email"));
        gone.for_each(|name| drop(claims.as_object_mut().expect("an object").remove(*name)));
        assert_eq!(hint("login_hint", claims).as_deref(), Some(expected));
    }
    assert_eq!(hint("id_token_hint", json!({})).as_deref(), Some("the token"));
    assert_eq!(hint("id_token_hint", json!({ "long": "x".repeat(4000) })), None);
}

#[test]
fn pushed_parameters_are_not_in_the_url() {
    let mut browser = Browser::new(json!({ "callback": { "pushed_authorization": true } }));
    let answer = browser.go("GET", "/salary", &PAGE);
    assert_eq!(location(&answer), "https://idp.example.com/authorize?client_id=k3yC1ient&request_uri=urn%3Ax%3A1");
    let pushed = browser.fetched.last().and_then(|fetch| fetch.form.as_ref()).expect("a form");
    assert!(pushed.authorization.is_some());
    let parameters = form(pushed.body.reveal().as_bytes());
    assert!(parameters.contains_key("code_challenge") && parameters.contains_key("acr_values"));
    assert_eq!(pushed.body.reveal().matches("client_id=").count(), 1);
}

#[test]
fn an_assertion_names_the_client_and_the_issuer() {
    let key = json!({
        "kty": "EC", "crv": "P-256", "kid": "2026-11",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
    });
    let page = Page::read("docs/decisions.md");
    let block = page.block("yaml stepgate example");
    let own = json!({ "client": { "secret": key.to_string(), "authentication": "private_key_jwt" } });
    let asker = Asker { config: merged(yaml(&block.text, &block.place), &own) };
    let mut browser = Browser::new(json!({}));
    browser.go("GET", "/salary", &PAGE);
    browser.gate = Gate::new(accepted(&asker.config, "an assertion"));
    browser.exchange = Some((500, ""));
    browser.back("code=c", &PAGE);
    let sent = browser.fetched.last().and_then(|fetch| fetch.form.as_ref()).expect("a form");
    let parameters = form(sent.body.reveal().as_bytes());
    let parts: Vec<Value> = parameters["client_assertion"]
        .split('.')
        .take(2)
        .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON"))
        .collect();
    assert_eq!((&parts[0]["alg"], &parts[0]["kid"]), (&json!("ES256"), &json!("2026-11")));
    for (claim, expected) in [("iss", "k3yC1ient"), ("sub", "k3yC1ient"), ("aud", PROVIDER)] {
        assert_eq!(parts[1][claim], expected, "{claim}");
    }
    assert_eq!(parts[1]["exp"].as_u64().expect("a time") - parts[1]["iat"].as_u64().expect("a time"), 60);
}

#[test]
fn an_error_page_of_ones_own_is_the_answer_to_navigations() {
    let page = Page::read("docs/configuration.md");
    let block = page.blocks().into_iter().find(|block| block.text.contains("error_page: |")).expect("the example");
    let part = yaml(&block.text, &block.place);
    let mut browser = Browser::new(json!({ "callback": part["callback"] }));
    browser.go("GET", "/salary?a", &PAGE);
    let answer = browser.back("error=access_denied", &PAGE);
    let response = answer.response.expect("an answer");
    for text in ["<link rel=\"stylesheet\"", "<h1>The login was cancelled</h1>", "href=\"/salary?a\">Try again<"] {
        assert!(response.body.contains(text), "{text}: {}", response.body);
    }
    let policy = header(&response, "content-security-policy");
    assert!(policy.contains("style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'"), "{policy}");
    assert!(policy.contains("default-src 'none'") && !policy.contains("script"), "{policy}");
}

#[test]
fn identity_comes_from_the_gate_alone() {
    let headers = json!({ "x-user-id": "sub", "x-groups": "groups", "x-empty": "empty" });
    let mut browser = Browser::new(json!({ "forward": { "headers": headers, "strip_token": true } }));
    let spellings = ["x-user-id", "X-User-Id", "x_user_id", "X_User.Id", "x~user!id"];
    let forged: Vec<(&str, &str)> = spellings.iter().map(|name| (*name, "root")).chain([("x-other", "1")]).collect();
    for path in ["/", "/public"] {
        let decision = browser.go("GET", path, &forged);
        assert_eq!(decision.response_headers, [("vary", "Cookie".to_owned())], "{path}");
        let removed: Vec<&[u8]> = decision.request.removed.iter().map(Vec::as_slice).collect();
        assert_eq!(removed, spellings.map(str::as_bytes), "{path}");
        assert!(decision.request.added.is_empty());
    }
    browser.claims = json!({ "amr": ["mfa"], "sub": "ada", "groups": ["a", "b"], "empty": "" });
    browser.log_in("/salary");
    browser.cookies.insert("theme".to_owned(), "dark".to_owned());
    for path in ["/", "/salary"] {
        let decision = browser.go("GET", path, &PAGE);
        assert!(decision.response_headers.contains(&("vary", "Cookie".to_owned())), "{path}");
        let added = decision.request.added;
        let told: Vec<(&str, &str)> =
            added.iter().map(|(name, value)| (name.as_str(), std::str::from_utf8(value).expect("text"))).collect();
        assert_eq!(told, [("cookie", "theme=dark"), ("x-groups", "[\"a\",\"b\"]"), ("x-user-id", "ada")], "{path}");
    }
    browser.now = browser.now.plus(Duration::from_secs(600 + 60));
    let added = browser.go("GET", "/", &PAGE).request.added;
    assert!(added.iter().all(|(name, _)| name == "cookie"), "an expired token tells nothing");
}

#[test]
fn requests_to_the_provider_are_counted_by_endpoint() {
    use Endpoint::{Keys, Metadata, PushedAuthorization, Token};
    let [metadata, keys, token, pushed] = [Metadata, Keys, Token, PushedAuthorization].map(Endpoint::name);
    let page = Page::read("docs/decisions.md");
    assert!(page.text.contains(&format!("<{metadata}, {keys}, {token} or {pushed}>")));
}
