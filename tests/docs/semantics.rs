//! What the reference says in prose of paths, methods, hosts and rules that apply together.

use super::*;

fn asker(rules: Value) -> Asker {
    let endpoint = json!({ "provider": { "authorization_endpoint": "https://idp.example.com/authorize" } });
    Asker::new(&merged(merged(smallest(), &endpoint), &rules))
}

/// The reason of a request without a token: `token_missing` where a rule applies.
fn reason(asker: &Asker, method: &str, host: &str, path: &str) -> &'static str {
    asker.ask(method, host, path, &[]).reason.code()
}

fn location(asker: &Asker, path: &str) -> http::Uri {
    let response = asker.ask("GET", "app.example.com", path, &[]).response.expect("an answer");
    response.header("location").expect("a location").parse().expect("a URL")
}

fn parameter(url: &http::Uri, name: &str) -> Option<String> {
    let query = url.query().expect("a query");
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.replace("%3A", ":").replace("%2F", "/"))
}

#[test]
fn paths() {
    let asker = asker(json!({ "rules": [{ "paths": ["/salary/**"], "except": ["/salary/help"] }] }));
    let cases = [
        ("/salary", "token_missing"),
        ("/salary/", "token_missing"),
        ("/salary/a/b", "token_missing"),
        ("/salaryx", "not_protected"),
        ("/?/salary", "not_protected"),
        ("/SALARY", "not_protected"),
        ("/salary/help", "not_protected"),
        ("/salary/help?x", "not_protected"),
        ("/salary/help/", "token_missing"),
        ("/salary//help", "token_missing"),
        ("/x/..%2fsalary/help", "token_missing"),
        ("/x/..%2fsalary", "token_missing"),
        ("/%2573alary", "token_missing"),
        ("/x\\..\\salary", "token_missing"),
        ("/salary;v=1", "token_missing"),
        ("//salary", "token_missing"),
        ("//host/salary", "token_missing"),
        ("/salary.", "token_missing"),
        ("/%EF%BD%93alary", "token_missing"),
        ("/salary/%zz", "path_rejected"),
        ("/salary%00", "path_rejected"),
        ("/news/%zz", "not_protected"),
    ];
    for (path, expected) in cases {
        assert_eq!(reason(&asker, "GET", "app.example.com", path), expected, "{path}");
    }
    let folding = json!({ "case_insensitive_paths": true });
    let folding = Asker { config: merged(asker.config, &folding) };
    assert_eq!(reason(&folding, "GET", "app.example.com", "/SALARY"), "token_missing");
}

#[test]
fn hosts_and_methods() {
    let hosts = ["app.example.com", "*.corp.example.com"];
    let asker = asker(json!({ "rules": [{ "paths": ["/a"], "hosts": hosts, "methods": ["GET"] }] }));
    for host in ["app.example.com", "APP.example.com:8443", "app.example.com.", "x.y.corp.example.com", "", "a b"] {
        assert_eq!(reason(&asker, "GET", host, "/a"), "token_missing", "{host}");
    }
    for host in ["corp.example.com", "example.com"] {
        assert_eq!(reason(&asker, "GET", host, "/a"), "not_protected", "{host}");
    }
    assert_eq!(reason(&asker, "HEAD", "app.example.com", "/a"), "token_missing");
    assert_eq!(reason(&asker, "get", "app.example.com", "/a"), "token_missing");
    assert_eq!(reason(&asker, "POST", "app.example.com", "/a"), "not_protected");
}

#[test]
fn acr_values_are_chosen_in_that_order() {
    let multi_factor = "http://schemas.openid.net/pape/policies/2007/06/multi-factor";
    let levels = json!(["bronze", "silver", "gold"]);
    let cases = [
        (json!([{ "paths": ["/a"] }]), Some(multi_factor)),
        (json!([{ "paths": ["/a"], "require": {} }]), None),
        (json!([{ "paths": ["/a"], "require": { "max_age": "1m" } }]), None),
        (json!([{ "paths": ["/a"], "require": { "acr": "gold" } }]), Some("gold")),
        (json!([{ "paths": ["/a"], "require": { "acr": { "any_of": ["x", "y"] }, "amr": "mfa" } }]), Some("x+y")),
        (json!([{ "paths": ["/a"], "require": { "acr": { "at_least": "silver" } } }]), Some("silver")),
        (json!([{ "paths": ["/a"], "step_up": { "acr_values": "other" } }]), Some("other")),
        (
            json!([
                { "name": "1", "paths": ["/a"], "step_up": { "acr_values": "other" } },
                { "name": "2", "paths": ["/a"], "require": { "acr": { "at_least": "silver" } } },
                { "name": "3", "paths": ["/a"], "require": { "acr": { "at_least": "gold" } } },
                { "name": "4", "paths": ["/a"] },
            ]),
            Some("other+gold"),
        ),
    ];
    for (rules, expected) in cases {
        let given = parameter(&location(&asker(json!({ "acr_levels": levels, "rules": rules })), "/a"), "acr_values");
        assert_eq!(given.as_deref(), expected, "{rules}");
    }
}

#[test]
fn rules_that_apply_together_are_united() {
    let rules = json!([
        { "name": "1", "paths": ["/a"], "require": { "max_age": "15m" }, "step_up": { "params": { "p": "1" }, "scope": "openid a" } },
        { "name": "2", "paths": ["/*"], "except": ["/callback"], "require": { "max_age": "5m" }, "step_up": { "params": { "p": "2", "q": "2" }, "scope": "openid b" } },
    ]);
    let united = location(&asker(json!({ "rules": rules })), "/a");
    for (name, expected) in [("max_age", "300"), ("p", "1"), ("q", "2"), ("scope", "openid+a+b")] {
        assert_eq!(parameter(&united, name).as_deref(), Some(expected), "{name}");
    }
    let strict = asker(json!({ "rules": [
        { "name": "1", "paths": ["/a"], "answer": "redirect" },
        { "name": "2", "paths": ["/a"], "answer": "unauthorized" },
    ] }));
    assert_eq!(strict.ask("GET", "h", "/a", &[]).response.expect("an answer").status, 401);
}

#[test]
fn a_rule_that_reports_forwards() {
    let reporting = asker(json!({ "rules": [{ "paths": ["/a"], "mode": "report" }] }));
    let decision = reporting.ask("GET", "h", "/a", &[]);
    assert_eq!((decision.kind, decision.reason.code()), (DecisionKind::Report, "token_missing"));
    assert_eq!(decision.response, None);
    assert_eq!(decision.response_headers, [("vary", "Cookie".to_owned())]);
}

#[test]
fn an_api_client_sends_its_token_in_a_header() {
    let asker = asker(json!({ "token": { "header": "authorization" } }));
    let password = asker.token(&json!({ "amr": ["pwd"] }));
    let headers = [("authorization".to_owned(), format!("Bearer {password}"))];
    let decision = asker.ask("GET", "h", "/salary", &headers);
    assert_eq!((decision.kind, decision.reason.code()), (DecisionKind::Challenge, "amr_insufficient"));

    let strong = asker.token(&json!({ "amr": ["mfa"] }));
    let headers = [("authorization".to_owned(), format!("Bearer {strong}"))];
    let decision = asker.ask("GET", "h", "/salary", &headers);
    assert_eq!(decision.reason.code(), "satisfied");
    assert_eq!(decision.response_headers, [("vary", "Cookie, authorization".to_owned())]);
}

#[test]
fn null_is_the_default_and_an_empty_requirement_is_none() {
    let null = merged(smallest(), &json!({ "rules": [{ "paths": ["/a"], "require": { "amr": null } }] }));
    assert!(refusal(&null).contains("require.amr: must have a value, got `null`"), "{null}");
    for (require, expected) in [(Value::Null, "amr_missing"), (json!({}), "satisfied")] {
        let asker = asker(json!({ "rules": [{ "paths": ["/a"], "require": require }] }));
        let headers = [("cookie".to_owned(), format!("id_token={}", asker.token(&json!({}))))];
        assert_eq!(asker.ask("GET", "h", "/a", &headers).reason.code(), expected);
    }
}
