//! The case format as users meet it: what is refused, what stands in for their provider, and how a difference reads.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Case, CaseErrors, CaseFile, Outcome, junit, run, without_environment};
use crate::config::Config;

const NOW: u64 = 1_800_000_000;

/// A configuration as somebody has it: everything discovered, secrets from the environment.
fn own() -> Value {
    json!({
        "provider": { "issuer": "https://tenant.example.com/", "cluster": "idp" },
        "client": { "id": "portal", "redirect_uri": "https://app.example.com:8443/back", "secret": { "env": "SECRET" } },
        "token": { "cookie": "__Host-id_token" },
        "callback": { "keys": [{ "env": "KEY" }, { "env": "OLD_KEY" }] },
        "rules": [{ "paths": ["/**"], "except": ["/back"], "require": {} }, { "paths": ["/salary/**"] }],
    })
}

fn with(mut config: Value, patch: Value) -> Value {
    super::text::merge(&mut config, &patch);
    config
}

fn expanded(config: &Value, file: Value) -> Result<Vec<Case>, CaseErrors> {
    CaseFile::from_value("file", &file)?.expand(Some(config), NOW)
}

/// The one case, as run.
fn case(config: &Value, mut case: Value) -> Case {
    case["name"] = json!("it");
    let file = json!({ "page": "/salary", "cases": [case] });
    expanded(config, file).unwrap_or_else(|errors| panic!("{errors}")).remove(0)
}

fn outcome(config: &Value, written: Value) -> Outcome {
    run(&case(config, written))
}

#[track_caller]
fn passes(config: &Value, written: Value) {
    let outcome = outcome(config, written);
    assert!(outcome.is_as_expected(), "{outcome}");
}

/// What a file with these cases is refused for, a line for each problem.
fn problems(file: Value) -> Vec<String> {
    let errors = expanded(&own(), file).expect_err("problems");
    errors.as_slice().iter().map(ToString::to_string).collect()
}

/// What one case is refused for, without file and name.
fn problems_of(mut case: Value) -> Vec<String> {
    case["name"] = json!("it");
    if case["expect"].is_null() {
        case["expect"] = forwarded();
    }
    let problems = problems(json!({ "cases": [case] }));
    let own = |problem: &String| problem.strip_prefix("file, `it`: ").expect("the case's").to_owned();
    problems.iter().map(own).collect()
}

fn forwarded() -> Value {
    json!({ "decision": "forward", "reason": "satisfied" })
}

fn mfa() -> Value {
    json!({ "claims": { "amr": ["mfa"] } })
}

#[test]
fn every_problem_of_a_file_is_told_at_once() {
    let file = json!({
        "abuot": "a slip",
        "page": "salary",
        "cases": [
            { "name": "one", "expect": { "decision": "pass", "reason": "satisfied", "headres": {} }, "tokne": {} },
            { "name": "one", "expect": forwarded() },
            { "expect": forwarded() },
            "text",
            {
                "name": "two",
                "token": { "kye": "rsa" },
                "tokens": { "a": { "in": "header" }, "b": 1 },
                "request": { "headers": [["a"], ["b", "c", -1], ["d", "e", 100_001]], "path": 5 },
                "replies": { "tokens": {}, "keys": [], "token": { "status": 42, "text": "a", "json": {}, "failure": "slow" } },
                "expect": { "decision": "forward", "reason": "fine", "cookies": { "a": 1 }, "posted": { "keys": {} } },
                "skip": { "library": 1 },
            },
        ],
    });
    let expected = [
        "file: abuot: unknown field, accepted here: about, config, page, cases",
        "file: page: must be a path with one `/` at its start, got `salary`",
        "file: cases[1].name: another case is named `one`",
        "file: cases[2].name: missing, must be a string, unlike that of any other case",
        "file: cases[3]: must be an object with any of name, config, token, tokens, transaction, transactions, start, \
         sealed_with, request, replies, expect, skip, why, got `text`",
        "file, `one`: tokne: unknown field, accepted here: name, config, token, tokens, transaction, transactions, start, \
         sealed_with, request, replies, expect, skip, why",
        "file, `one`: expect.headres: unknown field, accepted here: decision, reason, status, headers, cookies, authorize, \
         endpoint, body, page, sealed, app, posted",
        "file, `one`: expect.decision: must be one of `forward`, `report`, `redirect`, `challenge`, `bad_request`, \
         `forbidden`, `unavailable`, got `pass`",
        "file, `two`: token.kye: unknown field, accepted here: key, alg, header, claims, header_text, claims_text, mangle, in",
        "file, `two`: tokens.a.in: unknown field, accepted here: key, alg, header, claims, header_text, claims_text, mangle",
        "file, `two`: tokens.b: must be an object with any of key, alg, header, claims, header_text, claims_text, mangle, got `1`",
        "file, `two`: request.path: must be a string, got `5`",
        "file, `two`: request.headers[0]: must be `[name, value]` or `[name, value, count]`, strings and a number up to 100000",
        "file, `two`: request.headers[1]: must be `[name, value]` or `[name, value, count]`, strings and a number up to 100000",
        "file, `two`: request.headers[2]: must be `[name, value]` or `[name, value, count]`, strings and a number up to 100000",
        "file, `two`: replies.keys: must be a reply, or a list of replies, got an empty list",
        "file, `two`: replies.token.status: must be a whole number from 100 to 599, got `42`",
        "file, `two`: replies.token.text: contradicts `json`: give one of them",
        "file, `two`: replies.token.failure: must be one of `timeout`, `reset`, got `slow`",
        "file, `two`: replies.tokens: unknown field, accepted here: metadata, keys, token, pushed_authorization",
    ];
    let found = problems(file);
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    let last: Vec<&str> = found[expected.len()..].iter().map(|line| line.split(", got").next().unwrap()).collect();
    assert!(last[0].starts_with("file, `two`: expect.reason: must be one of `not_protected`, "), "{}", last[0]);
    let expected = [
        "file, `two`: expect.cookies.a: must be a string, `true` (anything), `null` (nothing), or an object with any of \
         contains, ends, lacks",
        "file, `two`: expect.posted.keys: unknown field, accepted here: token, pushed_authorization",
        "file, `two`: skip.library: must be the reason, a string",
    ];
    assert_eq!(last[1..], expected);
}

#[test]
fn a_file_says_what_it_is_about_and_has_cases() {
    assert_eq!(
        problems(json!([])),
        ["file: must be an object with any of about, config, page, cases, got an empty list"]
    );
    assert_eq!(problems(json!({})), ["file: cases: missing, must be a list of cases"]);
    assert_eq!(problems(json!({ "cases": [] })), ["file: cases: must be a list of cases, got an empty list"]);
    assert_eq!(
        problems(json!({ "cases": [{ "name": "it" }] })),
        ["file, `it`: expect: missing, must be an object with `decision` and `reason`"]
    );
}

#[test]
fn what_cannot_be_minted_is_told_with_its_place() {
    let refused = |case: Value, expected: &str| assert_eq!(problems_of(case), [expected]);
    let keys = "`rsa`, `rsa_other`, `rsa_weak`, `ec`, `ed`, `secret`, `public`, `none`";
    refused(json!({ "token": { "key": "rsb" } }), &format!("token.key: must be one of {keys}, got `rsb`"));
    let rsa = "RS256, RS384, RS512, PS256, PS384, PS512";
    let tokens = json!({ "a": { "alg": "ES256" } });
    refused(json!({ "tokens": tokens }), &format!("tokens.a.alg: must be one of {rsa} with an RSA key, got `ES256`"));
    refused(json!({ "token": { "claims": [] } }), "token.claims: must be an object, got an empty list");
    refused(json!({ "token": { "claims_text": "<now" } }), "token.claims_text: `<now` without a closing bracket");
    refused(
        json!({ "token": { "claims_text": "<now*2>" } }),
        "token.claims_text: `<now*2>` is no time: `<now>`, `<now-10>` and `<now+3600>` are",
    );
    refused(
        json!({ "token": { "claims_text": "no JSON", "mangle": "tampered_claims" } }),
        "token.mangle: `tampered_claims`: these claims are no JSON object",
    );
    for mangle in ["tampered_signature", "short_signature"] {
        refused(
            json!({ "token": { "key": "none", "mangle": mangle } }),
            &format!("token.mangle: `{mangle}`: there is none"),
        );
    }
    refused(
        json!({ "token": { "header": { "jwk": { "$jwk": "secret" } } } }),
        "token.header.jwk.$jwk: must be one of `rsa`, `rsa_other`, `rsa_weak`, `ec`, `ed`, got `secret`",
    );
    refused(
        json!({ "token": { "in": "header" } }),
        "token.in: must be `cookie`: the configuration has no `token.header`",
    );
    refused(json!({ "token": { "in": "body" } }), "token.in: must be one of `cookie`, `header`, got `body`");
}

#[test]
fn what_stands_for_something_must_be_there() {
    let of_path = |path: &str| problems_of(json!({ "request": { "path": path } }));
    assert_eq!(of_path("/${token}"), ["request.path: nothing is named `token`, there is: `now`"]);
    assert_eq!(of_path("/${token"), ["request.path: `${` without a closing brace"]);
    let counted = "behind `*` must be a number, for at most 16777216 bytes";
    assert_eq!(of_path("/${x*many}"), [format!("request.path: `${{x*many}}`: {counted}")]);
    assert_eq!(of_path("/${x*16777217}"), [format!("request.path: `${{x*16777217}}`: {counted}")]);
    let range = "must be a range such as `0-10` or `10-`, up to 10";
    for wrong in ["5-11", "6-5", "5", "-5"] {
        let problem = format!("request.path: `${{now:{wrong}}}`: {range}");
        assert_eq!(of_path(&format!("/${{now:{wrong}}}")), [problem]);
    }
    assert_eq!(of_path("/€"), ["request.path: each character is one byte, up to U+00FF: `€` is not"]);
    let expect = json!({ "decision": "forward", "reason": "satisfied", "app": { "x": "${ada}" } });
    assert_eq!(problems_of(json!({ "expect": expect })), ["expect.app.x: nothing is named `ada`, there is: `now`"]);
}

#[test]
fn what_is_sealed_must_fit_the_configuration() {
    let without = with(own(), json!({ "callback": null }));
    let file = json!({ "cases": [{ "name": "it", "transaction": {}, "expect": forwarded() }] });
    let errors = expanded(&without, file).expect_err("no callback");
    assert_eq!(errors.as_slice()[0].problem, "needs `callback` in the configuration");
    let [problem] = &problems_of(json!({ "transaction": { "attempts": "once" } }))[..] else { panic!("one") };
    assert!(problem.starts_with("transaction: invalid type: string \"once\""), "{problem}");
    assert_eq!(problems_of(json!({ "transaction": { "state": 5 } })), ["transaction.state: must be a string"]);
    let long = json!({ "transaction": { "nonce": "${x*5000}" } });
    assert_eq!(problems_of(long), ["transaction: does not fit into a cookie"]);
    // What stands there may be a key: it is not shown.
    for wrong in [json!("hunter2"), json!(["hunter2"])] {
        let problems = problems_of(json!({ "sealed_with": wrong, "transaction": {} }));
        assert_eq!(problems, ["sealed_with: must be 32 bytes in base64"]);
    }
    let config = json!({ "rules": [{ "paths": ["/salary/**"] }] });
    let [problem] = &problems_of(json!({ "config": config, "transaction": {} }))[..] else { panic!("one") };
    assert!(problem.starts_with("transaction.demand: missing: no rule asks for a login"), "{problem}");
}

#[test]
fn there_is_one_configuration() {
    let case = json!([{ "name": "it", "expect": { "decision": "redirect", "reason": "token_missing" } }]);
    let alone = CaseFile::from_value("file", &json!({ "cases": case })).unwrap();
    let problem = alone.expand(None, NOW).expect_err("no configuration").to_string();
    assert_eq!(
        problem,
        "1 problem in the cases\n  file: config: missing, must be the configuration that the cases are run with"
    );
    let config = with(own(), json!({ "callback": null }));
    let complete = CaseFile::from_value("file", &json!({ "config": config, "cases": case })).unwrap();
    assert!(complete.expand(None, NOW).is_ok());
    let problem = complete.expand(Some(&config), NOW).expect_err("two configurations").to_string();
    assert!(
        problem.ends_with("file: config: is not accepted: the cases are run with another configuration"),
        "{problem}"
    );
}

#[test]
fn what_is_wrong_with_a_configuration_is_told_once_or_for_the_case_that_breaks_it() {
    let two = json!({ "cases": [
        { "name": "one", "expect": forwarded() },
        { "name": "two", "config": { "token": { "leeway": "1h" } }, "expect": forwarded() },
    ] });
    let problem = "config.token.leeway: must be a duration from 0s to 10m, such as `90s`, `15m` or `24h`, got `1h`";
    assert_eq!(problems(two.clone()), [format!("file, `two`: {problem}")]);
    let errors =
        expanded(&with(own(), json!({ "token": { "leeway": "1h" } })), two).expect_err("a wrong configuration");
    let lines: Vec<String> = errors.as_slice().iter().map(ToString::to_string).collect();
    assert_eq!(lines, [format!("file: {problem}")]);
}

#[test]
fn secrets_of_the_environment_have_stand_ins() {
    let config = without_environment(&own());
    assert!(config["client"]["secret"].as_str().unwrap().len() >= 32);
    assert_ne!(config["callback"]["keys"][0], config["callback"]["keys"][1]);
    assert!(Config::from_value(&config, &|_| None).is_ok());
    let signing = with(own(), json!({ "client": { "authentication": "private_key_jwt" } }));
    assert!(Config::from_value(&without_environment(&signing), &|_| None).is_ok());
    // What is no such reference stays, for the configuration's own errors.
    for odd in [json!({ "env": 5 }), json!({ "env": "" }), json!({ "env": "A", "file": "b" }), json!("literal")] {
        let config = with(own(), json!({ "client": { "secret": null }, "callback": { "keys": [odd] } }));
        assert_eq!(without_environment(&config), config);
    }
}

#[test]
fn the_provider_is_stood_in_for() {
    let config = &case(&own(), json!({ "expect": forwarded() })).config;
    let endpoint = |name: &str| config["provider"][name].as_str().unwrap_or_default();
    assert_eq!(endpoint("authorization_endpoint"), "https://tenant.example.com/authorize");
    assert_eq!(endpoint("token_endpoint"), "https://tenant.example.com/token");
    assert_eq!(endpoint("end_session_endpoint"), "https://tenant.example.com/end_session");
    assert_eq!(config["provider"]["jwks"]["keys"].as_array().map(Vec::len), Some(1));
    // What is configured stays, but for the keys.
    let given =
        json!({ "authorization_endpoint": "https://login.example.com/a", "jwks_uri": "https://keys.example.com/" });
    let config = &case(&with(own(), json!({ "provider": given })), json!({ "expect": forwarded() })).config;
    assert_eq!(config["provider"]["authorization_endpoint"], "https://login.example.com/a");
    assert_eq!(config["provider"]["jwks_uri"], Value::Null);
}

#[test]
fn tokens_fit_the_configuration() {
    passes(&own(), json!({ "token": mfa(), "expect": forwarded() }));
    passes(
        &own(),
        json!({ "token": mfa(), "request": { "path": "/else" }, "expect": { "decision": "forward", "reason": "satisfied" } }),
    );
    let sealing = with(own(), json!({ "callback": { "seal_token": true } }));
    passes(&sealing, json!({ "token": mfa(), "expect": forwarded() }));
    for (algorithm, key) in [("PS384", "rsa"), ("ES256", "ec"), ("EdDSA", "ed"), ("HS256", "secret")] {
        let config = with(own(), json!({ "token": { "algorithms": [algorithm] } }));
        let token = with(mfa(), json!({ "key": key, "alg": algorithm }));
        passes(&config, json!({ "token": token, "expect": forwarded() }));
    }
    let all = with(own(), json!({ "token": { "algorithms": ["RS256", "ES256", "EdDSA", "HS256"] } }));
    for key in ["rsa", "ec", "ed", "secret"] {
        passes(&all, json!({ "token": with(mfa(), json!({ "key": key })), "expect": forwarded() }));
    }
    let other = with(mfa(), json!({ "key": "rsa_other" }));
    passes(&own(), json!({ "token": other, "expect": { "decision": "redirect", "reason": "key_unknown" } }));
}

#[test]
fn a_token_comes_in_a_header_where_the_case_says_so() {
    let token = with(mfa(), json!({ "in": "header" }));
    for (header, begins) in [("authorization", "Bearer eyJ"), ("x-id-token", "eyJ")] {
        let config = with(own(), json!({ "token": { "header": header } }));
        let case = case(&config, json!({ "token": token, "expect": forwarded() }));
        let headers = case.request.headers.as_ref().unwrap();
        let [(name, value)] = &headers[..] else { panic!("one header") };
        assert!(name == header && value.starts_with(begins), "{name}");
        assert!(run(&case).is_as_expected());
    }
}

#[test]
fn the_default_request_is_for_the_app_and_the_page() {
    let case_of = |file: Value| expanded(&own(), file).unwrap().remove(0).request;
    let cases = json!([{ "name": "it", "expect": forwarded() }]);
    let request = case_of(json!({ "cases": cases }));
    assert_eq!((request.authority.as_str(), request.path.as_str()), ("app.example.com:8443", "/"));
    assert_eq!(case_of(json!({ "page": "/a?b", "cases": cases })).path, "/a?b");
}

#[test]
fn a_login_under_way_asks_for_what_the_page_does() {
    let completed = |page: &str, amr: &str| {
        json!({
            "tokens": { "new": { "claims": { "nonce": "nonce", "amr": [amr] } } },
            "transaction": { "return_to": page },
            "replies": { "token": { "json": { "id_token": "${new}", "token_type": "Bearer" } } },
            "expect": { "decision": "redirect", "reason": "login_completed", "headers": { "location": page } },
        })
    };
    passes(&own(), completed("/salary", "mfa"));
    passes(&own(), completed("/else", "pwd"));
    assert_eq!(outcome(&own(), completed("/salary", "pwd")).decided.unwrap().reason, "amr_insufficient");
    let by_form = with(own(), json!({ "callback": { "response_mode": "form_post" } }));
    passes(&by_form, completed("/salary", "mfa"));
    let signing = with(own(), json!({ "client": { "authentication": "private_key_jwt" } }));
    let assertion = json!({ "iss": "portal", "aud": "https://tenant.example.com/" });
    let posted = json!({ "expect": { "posted": { "token": { "client_assertion": assertion } } } });
    passes(&signing, with(completed("/salary", "mfa"), posted));
}

#[test]
fn what_is_pushed_or_replied_is_fetched() {
    let pushing = with(own(), json!({ "callback": { "pushed_authorization": true } }));
    let departure = json!({
        "replies": { "pushed_authorization": { "status": 201, "json": { "request_uri": "urn:a", "expires_in": 60 } } },
        "expect": {
            "decision": "redirect",
            "reason": "token_missing",
            "endpoint": "https://tenant.example.com/authorize",
            "authorize": { "request_uri": "urn:a" },
        },
    });
    passes(&pushing, departure);
    let down = json!({
        "token": mfa(),
        "replies": { "keys": { "failure": "timeout" } },
        "expect": { "decision": "unavailable", "reason": "keys_unavailable" },
    });
    passes(&own(), down);
    let rotated = json!({
        "token": with(mfa(), json!({ "key": "rsa_other" })),
        "replies": { "keys": [{ "json": { "keys": [{ "$jwk": "rsa" }] } }, { "json": { "keys": [{ "$jwk": "rsa_other" }] } }] },
        "expect": forwarded(),
    });
    passes(&own(), rotated);
}

#[test]
fn a_case_may_say_what_the_provider_is() {
    let keys = json!({ "config": { "provider": { "jwks": { "keys": [{ "$jwk": "ec" }] } }, "token": { "algorithms": ["ES256"] } } });
    let good = json!({ "token": with(mfa(), json!({ "key": "ec" })), "expect": forwarded() });
    passes(&own(), with(keys, good));
    let uri = json!({
        "config": { "provider": { "jwks_uri": "https://tenant.example.com/keys" } },
        "token": mfa(),
        "expect": forwarded(),
    });
    let case = case(&own(), uri);
    assert_eq!(case.config["provider"]["jwks"], Value::Null);
    assert!(run(&case).is_as_expected());
    let secret =
        json!({ "config": { "client": { "secret": "a secret of the case itself, so long" } }, "expect": forwarded() });
    assert_eq!(self::case(&own(), secret).config["client"]["secret"], "a secret of the case itself, so long");
    let literal = with(own(), json!({ "client": { "secret": "hunter2" } }));
    assert_eq!(self::case(&literal, json!({ "expect": forwarded() })).config["client"]["secret"], super::keys::SECRET);
}

#[test]
fn a_difference_shows_both_sides() {
    let outcome = outcome(
        &own(),
        json!({
            "token": { "claims": { "amr": ["pwd"] } },
            "expect": {
                "decision": "forward",
                "reason": "satisfied",
                "status": 200,
                "headers": { "location": null },
                "cookies": { "__Host-id_token": "cleared", "__Host-stepgate_tx_*": [{ "contains": "Secure", "lacks": "HttpOnly" }] },
                "endpoint": "https://tenant.example.com/login",
                "authorize": { "acr_values": "gold", "scope": true, "prompt": true, "state": "s" },
                "body": { "error": "invalid_token" },
                "page": { "ends": "</html>" },
                "sealed": { "return_to": "/", "subject": "ada" },
                "app": { "x-user": "ada" },
            },
        }),
    );
    let found = |what: &str| {
        let difference = outcome.differences.iter().find(|difference| difference.what == what);
        difference.map(|difference| (difference.expected.as_str(), difference.found.as_str()))
    };
    assert_eq!(found("decision"), Some(("forward", "redirect")));
    let because = "amr_insufficient (the person logged in by other means than the rule asks for (`amr`))";
    assert_eq!(found("reason"), Some(("satisfied", because)));
    assert_eq!(found("status"), Some(("200", "302")));
    let (expected, location) = found("header `location`").unwrap();
    assert!(expected == "nothing" && location.starts_with("\"https://tenant.example.com/authorize?"), "{location}");
    assert_eq!(found("cookie `__Host-id_token`"), Some(("cleared", "nothing")));
    let (expected, cookie) = found("cookie `__Host-stepgate_tx_*`").unwrap();
    assert_eq!(expected, "contains \"Secure\", lacks \"HttpOnly\"");
    assert!(cookie.starts_with("\"__Host-stepgate_tx_") && cookie.contains(" characters, fingerprint "), "{cookie}");
    let (login, authorize) = ("\"https://tenant.example.com/login\"", "\"https://tenant.example.com/authorize\"");
    assert_eq!(found("endpoint"), Some((login, authorize)));
    let acr = "\"http://schemas.openid.net/pape/policies/2007/06/multi-factor\"";
    assert_eq!(found("parameter `acr_values`"), Some(("\"gold\"", acr)));
    assert_eq!(found("parameter `scope`"), None);
    assert_eq!(found("parameter `prompt`"), Some(("anything", "nothing")));
    assert_eq!(found("body member `error`"), Some(("\"invalid_token\"", "nothing")));
    assert_eq!(found("page"), Some(("ends \"</html>\"", "\"\"")));
    assert_eq!(found("sealed `return_to`"), Some(("\"/\"", "\"/salary\"")));
    assert_eq!(found("sealed `subject`"), None);
    assert_eq!(found("app"), Some(("a request", "none")));
}

#[test]
fn what_the_provider_gets_is_compared() {
    let completing = |expect: Value| {
        let mut expected = json!({ "decision": "redirect", "reason": "login_completed" });
        super::text::merge(&mut expected, &expect);
        outcome(
            &own(),
            json!({
                "tokens": { "new": { "claims": { "nonce": "nonce", "amr": ["mfa"] } } },
                "transaction": {},
                "replies": { "token": { "json": { "id_token": "${new}", "token_type": "Bearer" } } },
                "expect": expected,
            }),
        )
    };
    let posted =
        json!({ "code": "another", "client_secret": true, "authorization": "Basic abc", "client_assertion": {} });
    let found = completing(json!({ "posted": { "token": posted } }));
    let lines: BTreeSet<String> =
        found.differences.iter().map(|one| format!("{}: {} / {}", one.what, one.expected, one.found)).collect();
    let expected = [
        "`client_assertion`: signed by the client's key / none that is",
        "`token` header `authorization`: \"Basic abc\" / Basic (not shown)",
        "`token` parameter `client_secret`: anything / nothing",
        "`token` parameter `code`: \"another\" / \"code\"",
    ];
    assert_eq!(lines, expected.map(str::to_owned).into());
    // Asked without a reply, and not asked where one is ready.
    let unasked = outcome(&own(), json!({ "token": mfa(), "replies": { "token": {} }, "expect": forwarded() }));
    assert_eq!(unasked.differences[0].what, "`token` asked");
    assert_eq!((&*unasked.differences[0].expected, &*unasked.differences[0].found), ("once", "0 times"));
    let asked = json!({ "transaction": {}, "expect": { "decision": "redirect", "reason": "login_completed" } });
    let asked = outcome(&own(), asked);
    assert!(asked.decided.is_none());
    assert_eq!(asked.differences[0].found, "asked at https://tenant.example.com/token");
}

#[test]
fn no_outcome_shows_a_token_or_a_secret() {
    let config =
        with(own(), json!({ "forward": { "headers": { "x-sub": "sub" } }, "token": { "header": "authorization" } }));
    let case = case(
        &config,
        json!({
            "token": mfa(),
            "tokens": { "new": { "claims": { "nonce": "nonce", "amr": ["mfa"] } } },
            "transaction": {},
            "replies": { "token": { "json": { "id_token": "${new}", "token_type": "Bearer" } } },
            "expect": {
                "decision": "forward",
                "reason": "satisfied",
                "cookies": { "__Host-id_token": "${new}" },
                "posted": { "token": { "authorization": null, "code_verifier": null } },
            },
        }),
    );
    let token = case.names["new"].clone();
    let shown = format!("{}\n{}", run(&case), serde_json::to_string(&run(&case)).unwrap());
    assert!(shown.contains("\"__Host-id_token=${new}; Path=/"), "{shown}");
    for part in token.split('.').chain([super::keys::SECRET, "Y2xpZW50"]) {
        assert!(!shown.contains(part), "{shown}");
    }
    for secret in [super::keys::SECRET, "short secret"] {
        let client = json!({ "authentication": "client_secret_post", "secret": secret });
        let outcome = outcome(
            &own(),
            json!({
                "config": { "client": client },
                "transaction": {},
                "replies": { "token": { "status": 500 } },
                "expect": {
                    "decision": "unavailable",
                    "reason": "token_exchange_failed",
                    "posted": { "token": { "client_secret": null } },
                },
            }),
        );
        let found: Vec<&str> = outcome.differences.iter().map(|difference| difference.found.as_str()).collect();
        assert_eq!(found, ["\"$secret\""]);
    }
    let forwarded = self::case(
        &config,
        json!({
            "token": with(mfa(), json!({ "in": "header" })),
            "expect": { "decision": "forward", "reason": "satisfied", "app": { "authorization": "${token:0-100}" } },
        }),
    );
    let shown = run(&forwarded).to_string();
    assert!(shown.contains("found    \"Bearer ${token}\""), "{shown}");
    assert!(!shown.contains(&forwarded.names["token"][..30]), "{shown}");
}

#[test]
fn an_outcome_reads_well() {
    let written = json!({ "token": mfa(), "expect": { "decision": "redirect", "reason": "satisfied" } });
    assert_eq!(
        outcome(&own(), written).to_string(),
        "file/it: 1 difference\n  \
           decided: forward, satisfied, status 200 (every requirement is met), for /**, /salary/**\n  \
           decision\n    \
             expected redirect\n    \
             found    forward"
    );
}

#[test]
fn junit_has_a_suite_for_each_file() {
    let cases = json!([
        { "name": "a <b> & \"c\"\u{1}", "token": mfa(), "expect": forwarded() },
        { "name": "differs", "request": { "path": "/salary" }, "expect": { "decision": "redirect", "reason": "satisfied" } },
        { "name": "skipped", "skip": { "library": "no <reason>" }, "expect": forwarded() },
    ]);
    let cases = expanded(&own(), json!({ "cases": cases })).unwrap();
    let mut outcomes: Vec<Outcome> = cases.iter().map(run).collect();
    let mut other = outcomes[0].clone();
    (other.file, other.name) = ("another".into(), "same".into());
    outcomes.push(other);
    let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="stepgate" tests="4" failures="1" skipped="1">
  <testsuite name="another" tests="1" failures="0" skipped="0">
    <testcase classname="another" name="same"/>
  </testsuite>
  <testsuite name="file" tests="3" failures="1" skipped="1">
    <testcase classname="file" name="a &lt;b&gt; &amp; &quot;c&quot;�"/>
    <testcase classname="file" name="differs">
      <failure message="not as expected: reason">file/differs: 1 difference
  decided: redirect, token_missing, status 302 (there is no ID Token), for /**, /salary/**
  reason
    expected satisfied
    found    token_missing (there is no ID Token)</failure>
    </testcase>
    <testcase classname="file" name="skipped">
      <skipped message="no &lt;reason&gt;"/>
    </testcase>
  </testsuite>
</testsuites>"#;
    assert_eq!(junit(&outcomes).unwrap(), expected);
}
