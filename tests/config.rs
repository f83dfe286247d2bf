//! Configurations that must be refused: with every problem at once, each with its place.

use serde_json::{Value, json};
use stepgate::Config;
use stepgate::config::RESERVED_HEADERS;

#[allow(dead_code, reason = "each test crate uses a part of it")]
mod support;

#[path = "support/judged.rs"]
mod judged;

use judged::judge;
use support::keys;

fn minimal() -> Value {
    json!({
        "provider": { "issuer": "https://idp.example.com/" },
        "client": { "id": "client", "redirect_uri": "https://app.example.com/callback" },
        "rules": [{ "paths": ["/salary/**"] }],
    })
}

fn errors(document: &Value) -> Vec<String> {
    let env = |name: &str| match name {
        "SET" => Some("value".to_owned()),
        "KEY" => Some(KEY.to_owned()),
        _ => None,
    };
    match judge(document, &env) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.as_slice().iter().map(ToString::to_string).collect(),
    }
}

/// The errors of the minimal configuration with one place changed.
fn with(pointer: &str, value: Value) -> Vec<String> {
    errors(&changed(minimal(), pointer, value))
}

fn changed(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
    parent.as_object_mut().unwrap().insert(name.to_owned(), value);
    document
}

/// 32 times the byte 251.
const KEY: &str = "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=";

/// The minimal configuration of a gate that completes the flow.
fn completing() -> Value {
    let document = changed(minimal(), "/callback", json!({ "keys": [KEY], "cookie": {} }));
    changed(document, "/client/secret", json!("secret"))
}

/// The errors of that configuration with one place changed.
fn completing_with(pointer: &str, value: Value) -> Vec<String> {
    errors(&changed(completing(), pointer, value))
}

fn assert_only(found: &[String], expected: &str, what: &str) {
    assert!(found.len() == 1 && found[0].starts_with(expected), "{what}:\n  {found:?}\n  {expected}");
}

#[test]
fn the_minimal_configuration_is_accepted() {
    assert_eq!(errors(&minimal()), [""; 0]);
}

#[test]
fn everything_that_the_reference_shows_is_accepted() {
    let document = json!({
        "provider": {
            "issuer": "https://tenant.auth0.com/",
            "cluster": { "accounts.google.com": "accounts", "www.googleapis.com": "keys" },
            "authorization_endpoint": "https://tenant.auth0.com/authorize",
            "token_endpoint": "https://tenant.auth0.com/oauth/token",
            "end_session_endpoint": "https://tenant.auth0.com/oidc/logout",
            "jwks_uri": "https://tenant.auth0.com/.well-known/jwks.json",
            "refresh": "10m", "max_stale": "24h", "unknown_kid_cooldown": "60s", "timeout": "5s",
        },
        "client": {
            "id": "k3yC1ient", "audiences": [], "redirect_uri": "https://app.example.com/callback",
            "secret": { "env": "SET" }, "authentication": "client_secret_basic",
        },
        "token": { "cookie": "id_token", "header": null, "algorithms": ["RS256"], "leeway": "60s", "max_bytes": 16384 },
        "step_up": {
            "acr_values": "http://schemas.openid.net/pape/policies/2007/06/multi-factor", "scope": "openid", "claims": null,
            "params": {}, "login_url": null, "return_to_param": null, "max_attempts": 3,
        },
        "acr_levels": ["bronze", "silver", "gold"],
        "rules": [{
            "name": "payroll", "hosts": ["app.example.com", "*.corp.example.com"], "paths": ["/salary/**"], "except": ["/salary/help"],
            "methods": ["GET", "POST"],
            "require": { "amr": "mfa", "acr": { "at_least": "silver" }, "max_age": "15m", "claims": { "acrs": { "contains": "c1" } } },
            "step_up": {}, "answer": "auto", "mode": "enforce",
        }],
        "mode": "enforce",
        "case_insensitive_paths": false,
        "callback": {
            "keys": [{ "env": "KEY" }],
            "cookie": { "domain": null, "path": "/", "same_site": "Lax", "max_age": "token" },
            "seal_token": false, "response_mode": "query", "hint": "none", "pushed_authorization": false,
            "logout_path": null, "error_page": null,
        },
        "forward": { "headers": { "x-user-id": "sub" }, "strip_token": false },
    });
    assert_eq!(errors(&document), [""; 0]);
}

#[test]
fn every_other_value_that_the_reference_names_is_accepted() {
    let unpadded = KEY.trim_end_matches('=');
    let rotated = [KEY, unpadded, &unpadded.replace('+', "-").replace('/', "_"), &format!("{KEY}\n")];
    for (pointer, value) in [
        ("/callback/keys", json!(rotated)),
        ("/callback/cookie/domain", json!("EXAMPLE.com")),
        ("/callback/cookie/domain", json!("app.example.com")),
        ("/callback/cookie/path", json!("/salary")),
        ("/callback/cookie/same_site", json!("None")),
        ("/callback/cookie/max_age", json!("session")),
        ("/callback/cookie/max_age", json!("400d")),
        ("/callback/seal_token", json!(true)),
        ("/callback/response_mode", json!("form_post")),
        ("/callback/hint", json!("login_hint")),
        ("/callback/hint", json!("id_token_hint")),
        ("/callback/pushed_authorization", json!(true)),
        ("/callback/logout_path", json!("/logout")),
        ("/callback/error_page", json!("<h1>{{title}}</h1>{{message}}{{detail}}{{reason}}{{link_url}}{{link_text}}")),
        ("/client/authentication", json!("client_secret_post")),
        ("/client/authentication", json!("none")),
        ("/rules/0/paths", json!(["/**"])),
        ("/client/redirect_uri", json!("http://localhost:8080/salary/callback")),
        ("/forward", json!({ "headers": { "X-User-Id": "sub", "x-roles": "https://example.com/roles" } })),
        ("/forward", json!({ "headers": {}, "strip_token": true })),
    ] {
        assert_eq!(completing_with(pointer, value.clone()), [""; 0], "{pointer} {value}");
    }
}

#[test]
fn each_wrong_value_of_callback_has_its_place() {
    let path_rule =
        "a path such as `/logout`, not `/`: one `/` at its start, no query, no `%`, no `;`, at most 512 characters";
    let key_rule = "must be 32 random bytes in base64";
    for (pointer, value, expected) in [
        ("/callback", json!(true), "callback: must be an object with any of keys, cookie, "),
        ("/callback", json!({}), "callback.keys: missing, must be a list of keys, each 32 bytes in base64"),
        ("/callback/key", json!([KEY]), "callback.key: unknown field, accepted here: keys, cookie, "),
        (
            "/callback/keys",
            json!([]),
            "callback.keys: must be a list of keys, each 32 bytes in base64, or `{ env: NAME }`",
        ),
        ("/callback/keys", json!(vec![KEY; 9]), "callback.keys: must have at most 8 entries, got 9"),
        ("/callback/keys", json!([KEY, "c2hvcnQ="]), &format!("callback.keys[1]: {key_rule}")),
        ("/callback/keys", json!([format!("{KEY}{KEY}")]), &format!("callback.keys[0]: {key_rule}")),
        ("/callback/keys", json!(["k".repeat(32)]), &format!("callback.keys[0]: {key_rule}")),
        ("/callback/keys", json!([{ "env": "SET" }]), &format!("callback.keys[0]: {key_rule}")),
        (
            "/callback/keys",
            json!([{ "env": "UNSET" }]),
            "callback.keys[0].env: the environment variable `UNSET` is not set",
        ),
        ("/callback/keys", json!([7]), "callback.keys[0]: must be a string that is not empty, or `{ env: NAME }`"),
        (
            "/callback/cookie",
            json!("Lax"),
            "callback.cookie: must be an object with any of domain, path, same_site, max_age",
        ),
        ("/callback/cookie/secure", json!(false), "callback.cookie.secure: unknown field, accepted here: domain, path"),
        (
            "/callback/cookie/domain",
            json!(".example.com"),
            "callback.cookie.domain: must be a domain such as `example.com`",
        ),
        ("/callback/cookie/domain", json!("example.com:443"), "callback.cookie.domain: must be a domain such as"),
        ("/callback/cookie/domain", json!("example.com; Path=/x"), "callback.cookie.domain: must be a domain such as"),
        ("/callback/cookie/domain", json!("com"), "callback.cookie.domain: must be a domain such as `example.com`"),
        (
            "/callback/cookie/domain",
            json!("xample.com"),
            "callback.cookie.domain: must be the host of `client.redirect_uri` or a",
        ),
        ("/callback/cookie/domain", json!("x.app.example.com"), "callback.cookie.domain: must be the host of"),
        ("/callback/cookie/path", json!("salary"), "callback.cookie.path: must be a path with one `/` at its start"),
        ("/callback/cookie/path", json!("/a; Domain=com"), "callback.cookie.path: must be a path with"),
        ("/callback/cookie/path", json!("/a;b"), "callback.cookie.path: must be a path with"),
        ("/callback/cookie/path", json!(format!("/{}", "a".repeat(512))), "callback.cookie.path: must be a path with"),
        (
            "/callback/cookie/same_site",
            json!("Strict"),
            "callback.cookie.same_site: must be `Lax` or `None`: browsers send no `Strict`",
        ),
        (
            "/callback/cookie/same_site",
            json!("lax"),
            "callback.cookie.same_site: must be one of `Lax`, `None`, got `lax`",
        ),
        (
            "/callback/cookie/max_age",
            json!("forever"),
            "callback.cookie.max_age: must be `token`, `session`, or a duration from 1s to 400d",
        ),
        ("/callback/cookie/max_age", json!(60), "callback.cookie.max_age: must be `token`, `session`, or a duration"),
        ("/callback/cookie/max_age", json!("0s"), "callback.cookie.max_age: must be a duration from 1s to 400d"),
        ("/callback/cookie/max_age", json!("401d"), "callback.cookie.max_age: must be a duration from 1s to 400d"),
        ("/callback/seal_token", json!("yes"), "callback.seal_token: must be `true` or `false`, got `yes`"),
        (
            "/callback/response_mode",
            json!("fragment"),
            "callback.response_mode: must be one of `query`, `form_post`, got `fragment`",
        ),
        (
            "/callback/hint",
            json!("email"),
            "callback.hint: must be one of `none`, `login_hint`, `id_token_hint`, got `email`",
        ),
        (
            "/callback/pushed_authorization",
            json!(1),
            "callback.pushed_authorization: must be `true` or `false`, got `1`",
        ),
        ("/callback/logout_path", json!("logout"), &format!("callback.logout_path: must be {path_rule}")),
        ("/callback/logout_path", json!("//logout"), &format!("callback.logout_path: must be {path_rule}")),
        ("/callback/logout_path", json!("/log%6fut"), &format!("callback.logout_path: must be {path_rule}")),
        ("/callback/logout_path", json!("/logout?x"), &format!("callback.logout_path: must be {path_rule}")),
        (
            "/callback/logout_path",
            json!("/callback"),
            "callback.logout_path: is the path of `client.redirect_uri`: it must be another",
        ),
        ("/callback/error_page", json!(7), "callback.error_page: must be an HTML page, got `7`"),
        (
            "/callback/error_page",
            json!("{{colour}}"),
            "callback.error_page: has a place that is none of `{{title}}`, `{{message}}`",
        ),
        ("/callback/error_page", json!("{{title"), "callback.error_page: has a `{{` without `}}`"),
        (
            "/callback/error_page",
            json!("a".repeat(65_537)),
            "callback.error_page: must have at most 65536 bytes, got 65537",
        ),
        (
            "/client/redirect_uri",
            json!("https://app.example.com/callback?a=b"),
            &format!("client.redirect_uri: with `callback`, its path must be {path_rule}"),
        ),
        (
            "/client/redirect_uri",
            json!("https://app.example.com/call%20back"),
            "client.redirect_uri: with `callback`, its path must be",
        ),
        (
            "/client/redirect_uri",
            json!("https://app.example.com//callback"),
            "client.redirect_uri: with `callback`, its path must be",
        ),
        (
            "/client/redirect_uri",
            json!("https://app.example.com../callback"),
            "client.redirect_uri: with `callback`, its host must be a host name",
        ),
        (
            "/client/secret",
            Value::Null,
            "client.secret: missing, must be the client secret, since with `callback` the gate exchanges codes",
        ),
        (
            "/client/authentication",
            json!("private_key_jwt"),
            "client.secret: must be a private EC key on P-256 as a JWK in JSON",
        ),
        (
            "/token",
            json!({ "cookie": "__Host-Stepgate_id" }),
            "token.cookie: must not contain `stepgate_`, which the gate's other cookies do",
        ),
        (
            "/token",
            json!({ "cookie": "c".repeat(65) }),
            "token.cookie: with `callback`, must have at most 64 characters",
        ),
        (
            "/provider/end_session_endpoint",
            json!("/logout"),
            "provider.end_session_endpoint: must be an https URL without fragment",
        ),
    ] {
        assert_only(&completing_with(pointer, value.clone()), expected, &format!("{pointer} {value}"));
    }
}

#[test]
fn prefixes_of_cookies_need_what_browsers_ask_of_them() {
    let with_cookie = |name: &str| changed(completing(), "/token", json!({ "cookie": name }));
    for name in ["__Host-id", "__Secure-id", "id"] {
        assert_eq!(errors(&with_cookie(name)), [""; 0], "{name}");
    }
    let expected = "token.cookie: `__Host-` allows neither `callback.cookie.domain` nor another path than `/`";
    for (field, value) in [("domain", "example.com"), ("path", "/salary")] {
        let place = format!("/callback/cookie/{field}");
        for name in ["__Host-id", "__hOST-id"] {
            assert_only(&errors(&changed(with_cookie(name), &place, json!(value))), expected, field);
        }
        assert_eq!(errors(&changed(with_cookie("__Secure-id"), &place, json!(value))), [""; 0]);
    }
    for name in ["__Host-id", "__Secure-id", "__host-id", "__SECURE-id"] {
        let on_http = changed(with_cookie(name), "/client/redirect_uri", json!("http://localhost/callback"));
        assert_only(&errors(&on_http), "token.cookie: this prefix needs a `client.redirect_uri` with https", name);
    }
    let none_on_http = changed(completing(), "/client/redirect_uri", json!("http://localhost/callback"));
    let none_on_http = changed(none_on_http, "/callback/cookie/same_site", json!("None"));
    assert_only(
        &errors(&none_on_http),
        "callback.cookie.same_site: `None` needs a `client.redirect_uri` with https",
        "",
    );
}

#[test]
fn each_way_to_authenticate_needs_its_own_secret() {
    let document = |method: &str, secret: Value| {
        let document = changed(completing(), "/client/secret", secret);
        changed(document, "/client/authentication", json!(method))
    };
    let key = |patch: Value| {
        let mut jwk: Value = serde_json::from_str(&keys::client_key()).unwrap();
        jwk.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
        json!(jwk.to_string())
    };
    for (method, secret) in [
        ("client_secret_basic", json!("s")),
        ("client_secret_post", json!("s")),
        ("none", Value::Null),
        ("none", json!("for HS256, say")),
        ("private_key_jwt", key(json!({ "kid": "1" }))),
    ] {
        assert_eq!(errors(&document(method, secret)), [""; 0], "{method}");
    }
    for method in ["client_secret_basic", "client_secret_post"] {
        assert_only(
            &errors(&document(method, Value::Null)),
            "client.secret: missing, must be the client secret",
            method,
        );
    }
    let expected = "client.secret: must be a private EC key on P-256 as a JWK in JSON, for `private_key_jwt`";
    for secret in [
        Value::Null,
        json!("s"),
        json!({ "env": "SET" }),
        key(json!({ "d": null })),
        key(json!({ "crv": "P-384" })),
        key(json!({ "kty": "RSA" })),
    ] {
        assert_only(&errors(&document("private_key_jwt", secret)), expected, "private_key_jwt");
    }
    let hs256 = |method, secret| changed(document(method, secret), "/token", json!({ "algorithms": ["HS256"] }));
    assert_eq!(errors(&hs256("none", json!("s".repeat(32)))), [""; 0]);
    let expected =
        "token.algorithms: HS256 contradicts `client.authentication: private_key_jwt`, whose secret is a key";
    assert_only(&errors(&hs256("private_key_jwt", key(json!({})))), expected, "HS256");
}

#[test]
fn inline_keys_need_a_token_endpoint_and_rule_out_pushing() {
    let mut document = completing();
    document["provider"]["authorization_endpoint"] = json!("https://idp.example.com/authorize");
    document["provider"]["jwks"] = json!({ "keys": [{
        "kty": "OKP", "crv": "Ed25519", "use": "sig", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }] });
    let expected = "provider.token_endpoint: missing, must be an https URL without fragment";
    assert_only(&errors(&document), expected, "no token endpoint");
    document["provider"]["token_endpoint"] = json!("https://idp.example.com/token");
    assert_eq!(errors(&document), [""; 0]);
    document["callback"]["pushed_authorization"] = json!(true);
    let expected = "callback.pushed_authorization: needs the provider's metadata, which `provider.jwks` rules out";
    assert_only(&errors(&document), expected, "nothing announces the endpoint");
}

#[test]
fn a_cookie_that_the_app_sets_is_not_sealed() {
    let document = changed(completing(), "/step_up", json!({ "login_url": "/login" }));
    assert_eq!(errors(&document), [""; 0]);
    assert_eq!(errors(&changed(document.clone(), "/callback/seal_token", json!(false))), [""; 0]);
    let expected = "step_up.login_url: contradicts `callback.seal_token`: the cookie that the app sets is not sealed";
    assert_only(&errors(&changed(document, "/callback/seal_token", json!(true))), expected, "login_url");
    let mut document = changed(completing(), "/callback/seal_token", json!(true));
    document["rules"][0]["step_up"] = json!({ "login_url": null });
    assert_eq!(errors(&document), [""; 0]);
    document["rules"][0]["step_up"] = json!({ "login_url": "/login" });
    assert_only(&errors(&document), &format!("rules[0].{expected}"), "of a rule");
}

#[test]
fn a_sealed_token_is_not_shown_in_a_url() {
    let document = changed(completing(), "/callback/seal_token", json!(true));
    let with_hint = |hint: &str| errors(&changed(document.clone(), "/callback/hint", json!(hint)));
    assert_eq!(with_hint("login_hint"), [""; 0]);
    let expected = "callback.hint: contradicts `callback.seal_token`: `id_token_hint` shows the token in a URL";
    assert_only(&with_hint("id_token_hint"), expected, "id_token_hint");
}

#[test]
fn what_a_rule_asks_for_fits_into_a_cookie() {
    let rules = |length: usize| {
        let required = json!({ "claims": { "department": { "equals": "x".repeat(length) } } });
        json!([{ "paths": ["/a"] }, { "paths": ["/b"], "require": required }])
    };
    assert_eq!(completing_with("/rules", rules(1_200)), [""; 0]);
    let expected =
        "rules[1]: what the rule requires and asks for must take at most 1536 bytes as JSON to fit into a cookie, got ";
    assert_only(&completing_with("/rules", rules(1_500)), expected, "a long claim");
    assert_eq!(with("/rules", rules(1_500)), [""; 0], "an app with its own callback keeps nothing in cookies");
    let mut rules = rules(1_500);
    rules[1]["step_up"] = json!({ "login_url": "/login" });
    assert_eq!(completing_with("/rules", rules), [""; 0], "nor does a login route of the app's own");
}

#[test]
fn each_wrong_value_of_forward_has_its_place() {
    let many: Value = (0..65).map(|number| (format!("x-{number}"), json!("sub"))).collect();
    for (value, expected) in [
        (json!(["x-user-id"]), "forward: must be an object with any of headers, strip_token"),
        (json!({ "header": {} }), "forward.header: unknown field, accepted here: headers, strip_token"),
        (
            json!({ "headers": ["x-user-id"] }),
            "forward.headers: must be an object from header field to claim, got a list",
        ),
        (json!({ "headers": many }), "forward.headers: must have at most 64 entries, got 65"),
        (json!({ "headers": { "x-user-id": 1 } }), "forward.headers.x-user-id: must be a claim's name, got `1`"),
        (json!({ "headers": { "x-user-id": null } }), "forward.headers.x-user-id: must be a claim's name, got `null`"),
        (json!({ "headers": { "x-user-id": "" } }), "forward.headers.x-user-id: must be a claim's name"),
        (json!({ "headers": { "": "sub" } }), "forward.headers.: is no header field's name"),
        (json!({ "headers": { "x user": "sub" } }), "forward.headers.x user: is no header field's name"),
        (json!({ "headers": { ":path": "sub" } }), "forward.headers.:path: is no header field's name"),
        (json!({ "headers": { "x-\u{e9}": "sub" } }), "forward.headers.x-\u{e9}: is no header field's name"),
        (
            json!({ "headers": { "Cookie": "sub" } }),
            "forward.headers.Cookie: is a header field with a meaning of its own",
        ),
        (
            json!({ "headers": { "content_length": "sub" } }),
            "forward.headers.content_length: is a header field with a meaning",
        ),
        (
            json!({ "headers": { "X-User": "sub", "x_user": "email" } }),
            "forward.headers.x_user: is another spelling of a header field that is there already",
        ),
        (json!({ "strip_token": "yes" }), "forward.strip_token: must be `true` or `false`, got `yes`"),
    ] {
        assert_only(&with("/forward", value.clone()), expected, &value.to_string());
    }
    for reserved in RESERVED_HEADERS {
        let found = with("/forward", json!({ "headers": { reserved.to_uppercase().replace('-', "_"): "sub" } }));
        assert_eq!(found.len(), 1, "{reserved}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let document = json!({
        "provider": { "issuer": "http://idp.example.com", "refresh": "-5s", "colour": 1 },
        "client": { "redirect_uri": "/callback" },
        "token": { "algorithms": ["RS256", "none"], "leeway": 60 },
        "rules": [
            { "paths": ["/salary/"], "require": { "max_age": "-5s" } },
            { "paths": [], "mode": "shadow" },
        ],
    });
    let found = errors(&document);
    let expected = [
        "client.id: missing, must be",
        "client.redirect_uri: must be an https URL without fragment (http only for loopback hosts), got `/callback`",
        "token.algorithms[1]: must be one of `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `EdDSA`, `HS256`, got `none`",
        "token.leeway: must be a duration from 0s to 10m, such as `90s`, `15m` or `24h`, got `60`",
        "provider.colour: unknown field, accepted here: issuer, cluster",
        "provider.issuer: must be an https URL",
        "provider.refresh: must be a duration from 1s to 1d, such as `90s`, `15m` or `24h`, got `-5s`",
        "rules[0].paths[0]: must be a path without a slash at its end",
        "rules[0].require.max_age: must be a duration from 1s to 365d, such as `90s`, `15m` or `24h`, got `-5s`",
        "rules[1].paths: must be a list with at least one path, got an empty list",
        "rules[1].mode: must be one of `enforce`, `report`, got `shadow`",
    ];
    for line in expected {
        assert!(found.iter().any(|error| error.starts_with(line)), "missing: {line}\nin:\n{}", found.join("\n"));
    }
    assert_eq!(found.len(), expected.len(), "{}", found.join("\n"));
}

#[test]
fn each_wrong_value_has_its_place_and_what_is_accepted() {
    for (pointer, value, expected) in [
        ("/provider/issuer", json!("https://idp/?x"), "provider.issuer: must be an https URL without query"),
        ("/mode", json!("off"), "mode: must be one of `enforce`, `report`, got `off`"),
        ("/provider/issuer", json!("https://user@idp/"), "provider.issuer: "),
        ("/provider/issuer", json!("HTTPS://idp/"), "provider.issuer: "),
        ("/client/redirect_uri", json!("Https://app/callback"), "client.redirect_uri: must be an https URL"),
        ("/provider/issuer", json!(7), "provider.issuer: "),
        ("/provider/jwks_uri", json!("http://idp/keys"), "provider.jwks_uri: must be an https URL"),
        ("/provider/jwks_uri", json!("https://idp/a b"), "provider.jwks_uri: "),
        (
            "/provider/jwks",
            json!({ "keys": [] }),
            "provider.jwks: must be a JSON Web Key Set with at least one usable key",
        ),
        ("/provider/jwks", json!({}), "provider.jwks: must be a JSON Web Key Set with at least one usable key: not an"),
        (
            "/provider/jwks",
            json!({ "keys": {} }),
            "provider.jwks: must be a JSON Web Key Set with at least one usable key",
        ),
        (
            "/provider/jwks",
            json!({ "keys": [{ "kty": "oct" }] }),
            "provider.jwks: must be a JSON Web Key Set with at least one usable key: no key",
        ),
        (
            "/provider/jwks",
            json!({ "keys": vec![json!({ "kty": "oct" }); 101] }),
            "provider.jwks: must be a JSON Web Key Set with at least one usable key: more than 100 keys",
        ),
        ("/provider/cluster", json!({}), "provider.cluster: must be a cluster's name"),
        ("/provider/cluster", json!({ "idp": "" }), "provider.cluster.idp: must be a cluster's name, got ``"),
        ("/provider/cluster", json!({ "idp": 1 }), "provider.cluster.idp: must be a cluster's name, got `1`"),
        ("/provider/timeout", json!("2m"), "provider.timeout: must be a duration from 100ms to 1m"),
        ("/provider/max_stale", json!("5m"), "provider.max_stale: must not be shorter than `provider.refresh`"),
        ("/client/id", json!(""), "client.id: must be the client ID, a string, got ``"),
        ("/client/audiences", json!("x"), "client.audiences: must be a list of strings, got `x`"),
        ("/client/secret", json!({ "env": "UNSET" }), "client.secret.env: the environment variable `UNSET` is not set"),
        ("/client/secret", json!({ "env": "" }), "client.secret.env: must be the name of an environment variable"),
        ("/client/secret", json!({ "env": 7 }), "client.secret.env: must be the name of an environment variable"),
        ("/client/secret", json!({ "env": "SET", "file": "x" }), "client.secret.file: unknown field"),
        ("/client/secret", json!(7), "client.secret: must be a string that is not empty, or `{ env: NAME }`"),
        ("/client/authentication", json!("basic"), "client.authentication: must be one of `client_secret_basic`"),
        (
            "/client/redirect_uri",
            json!("https://app/salary/callback"),
            "client.redirect_uri: falls under the rule `/salary/**` itself, a loop",
        ),
        ("/token", json!({ "cookie": "a b" }), "token.cookie: must be a cookie's name"),
        ("/token", json!({ "header": "cookie" }), "token.header: must be a header field's name, not `cookie`"),
        (
            "/token",
            json!({ "algorithms": [] }),
            "token.algorithms: must be a list of signature algorithms, got an empty list",
        ),
        ("/token", json!({ "algorithms": vec!["RS256"; 10] }), "token.algorithms: must have at most 9 entries, got 10"),
        ("/token", json!({ "algorithms": ["HS256"] }), "token.algorithms: HS256 needs `client.secret`"),
        ("/token", json!({ "max_bytes": 1.5 }), "token.max_bytes: must be a whole number from 256 to 65536, got `1.5`"),
        (
            "/step_up",
            json!({ "scope": "email" }),
            "step_up.scope: must be a string of scopes separated by spaces, `openid` among them",
        ),
        ("/step_up", json!({ "params": { "state": "x" } }), "step_up.params.state: `state` is set by Stepgate itself"),
        ("/step_up", json!({ "params": { "x": 1 } }), "step_up.params.x: must be a string, got `1`"),
        ("/step_up", json!({ "login_url": "//evil/" }), "step_up.login_url: must be a path that starts with one `/`"),
        (
            "/step_up",
            json!({ "login_url": "/salary/login" }),
            "step_up.login_url: falls under the rule `/salary/**` itself",
        ),
        ("/step_up", json!({ "return_to_param": "r" }), "step_up.return_to_param: needs `login_url` beside it"),
        (
            "/step_up",
            json!({ "return_to_param": "r", "login_url": null }),
            "step_up.return_to_param: needs `login_url` beside it",
        ),
        (
            "/step_up",
            json!({ "max_attempts": 0 }),
            "step_up.max_attempts: must be a whole number from 1 to 100, got `0`",
        ),
        ("/rules", json!([]), "rules: must be a list with at least one rule, got an empty list"),
        (
            "/rules",
            json!([{ "paths": ["/a"], "hosts": ["a:80"] }]),
            "rules[0].hosts[0]: must be a host name without port",
        ),
        ("/rules", json!([{ "paths": ["/a"], "hosts": ["*x"] }]), "rules[0].hosts[0]: "),
        ("/rules", json!([{ "paths": ["/a"], "methods": ["G T"] }]), "rules[0].methods[0]: must be a method"),
        (
            "/rules",
            json!([{ "paths": ["/a"], "require": { "amr": { "any_of": [], "all_of": [] } } }]),
            "rules[0].require.amr: must be a value such as `mfa`",
        ),
        (
            "/rules",
            json!([{ "paths": ["/a"], "require": { "acr": { "at_least": "gold" } } }]),
            "rules[0].require.acr.at_least: must be one of `acr_levels`, which is empty, got `gold`",
        ),
        (
            "/rules",
            json!([{ "paths": ["/a"], "require": { "claims": { "x": "y" } } }]),
            "rules[0].require.claims.x: must be `{ contains: VALUE }` or `{ equals: VALUE }`, got `y`",
        ),
        (
            "/rules",
            json!([{ "paths": ["/a"], "require": { "max_age": "1500ms" } }]),
            "rules[0].require.max_age: must be a whole number of seconds",
        ),
        (
            "/rules",
            json!([{ "name": "a", "paths": ["/a"] }, { "name": "a", "paths": ["/b"] }]),
            "rules[1].name: `a` is the name of another rule",
        ),
    ] {
        assert_only(&with(pointer, value.clone()), expected, &format!("{pointer} {value}"));
    }
}

/// `require: { amr: }` in YAML: a slip that must not turn into "no second factor".
#[test]
fn a_requirement_without_a_value_is_refused() {
    let found = with("/rules", json!([{ "paths": ["/a"], "require": { "amr": null } }]));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("rules[0].require.amr: must have a value, got `null`"), "{found:?}");
}

/// Elsewhere it is the same as none.
#[test]
fn a_field_without_a_value_is_none() {
    for rule in [
        json!({ "name": null, "hosts": null, "except": null, "methods": null, "require": null, "step_up": null }),
        json!({ "answer": null, "mode": null, "require": { "amr": { "any_of": ["mfa"], "all_of": null } } }),
        json!({ "require": { "acr": { "any_of": ["gold"], "at_least": null }, "claims": { "x": { "equals": "y", "contains": null } } } }),
        json!({ "step_up": { "acr_values": null, "scope": null, "return_to_param": null, "login_url": null } }),
    ] {
        let rule = changed(rule, "/paths", json!(["/a"]));
        assert_eq!(with("/rules", json!([rule])), [""; 0], "{rule}");
    }
    for (pointer, value) in [
        ("/mode", Value::Null),
        ("/callback", Value::Null),
        ("/forward", json!({ "headers": null, "strip_token": null })),
        ("/token", json!({ "cookie": null, "algorithms": null, "leeway": null, "max_bytes": null })),
        ("/provider", json!({ "issuer": "https://idp", "jwks": null, "jwks_uri": "https://idp/keys" })),
        ("/client/audiences", Value::Null),
    ] {
        assert_eq!(with(pointer, value), [""; 0], "{pointer}");
    }
    let with_query = changed(minimal(), "/client/redirect_uri", json!("https://app.example.com/callback?a"));
    let on_http = changed(minimal(), "/client/redirect_uri", json!("http://localhost/callback"));
    for document in [with_query, changed(on_http, "/token", json!({ "cookie": "__Host-id" }))] {
        assert_eq!(errors(&changed(document, "/callback", Value::Null)), [""; 0]);
    }
    let pushed = changed(completing(), "/callback/pushed_authorization", json!(true));
    assert_eq!(errors(&changed(pushed, "/provider/jwks", Value::Null)), [""; 0]);
    for require in [json!({ "amr": { "any_of": null } }), json!({ "claims": { "x": { "equals": null } } })] {
        let found = with("/rules", json!([{ "paths": ["/a"], "require": require }]));
        assert!(found.len() == 1 && found[0].ends_with("exactly one of them"), "{found:?}");
    }
}

#[test]
fn what_may_be_a_secret_is_not_shown() {
    assert!(!with("/provider/issuer", json!("https://svc:hunter2@idp/")).join("").contains("hunter2"));
    assert!(!with("/client/secret", json!({ "env": "hunter2!" })).join("").contains("hunter2"));
}

#[test]
fn levels_are_named_once_and_claims_not_asked_for_in_vain() {
    assert_eq!(with("/acr_levels", json!(["bronze", "silver", "bronze"])), ["acr_levels: names a level twice"]);
    let levels = changed(minimal(), "/acr_levels", json!(["bronze", "silver"]));
    let rules = json!([{ "paths": ["/a"], "require": { "acr": { "at_least": "gold" } } }]);
    let expected = "rules[0].require.acr.at_least: must be one of `acr_levels` (bronze, silver), got `gold`";
    assert_only(&errors(&changed(levels, "/rules", rules)), expected, "gold");
    let found = with("/rules", json!([{ "paths": ["/a"], "require": { "claims": {} } }]));
    assert!(found[0].starts_with("rules[0].require.claims: must name at least one claim"), "{found:?}");
}

#[test]
fn inline_keys_need_an_authorization_endpoint_or_a_login_route() {
    let mut document = minimal();
    document["provider"]["jwks"] = json!({ "keys": [{
        "kty": "OKP", "crv": "Ed25519", "use": "sig", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }] });
    assert_eq!(errors(&document).len(), 1);
    assert!(errors(&document)[0].starts_with("provider.authorization_endpoint: missing"));
    let own_login = json!({ "login_url": "/login" });
    let rules = json!([{ "paths": ["/a"], "step_up": own_login }, { "paths": ["/b"], "step_up": {} }]);
    let mut of_each_rule = changed(document.clone(), "/rules", rules);
    assert!(errors(&of_each_rule)[0].starts_with("provider.authorization_endpoint: missing"));
    of_each_rule["rules"][1]["step_up"] = own_login.clone();
    assert_eq!(errors(&of_each_rule), [""; 0]);
    document["provider"]["jwks_uri"] = Value::Null;
    document["step_up"] = own_login;
    assert_eq!(errors(&document), [""; 0]);
    document["provider"]["jwks_uri"] = json!("https://idp/keys");
    assert!(errors(&document)[0].starts_with("provider.jwks: contradicts `provider.jwks_uri`"));
}

#[test]
fn each_faulty_key_has_its_place() {
    let good =
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    let with_key = |key: Value| {
        let document =
            changed(minimal(), "/provider/authorization_endpoint", json!("https://idp.example.com/authorize"));
        errors(&changed(document, "/provider/jwks", json!({ "keys": [good, key] })))
    };
    let of_it = |patch: Value| {
        let mut key = good.clone();
        let members = key.as_object_mut().unwrap();
        members.insert("kid".to_owned(), json!("2"));
        members.extend(patch.as_object().unwrap().clone());
        key
    };
    for key in [
        of_it(json!({ "use": "enc", "x": 1 })),
        of_it(json!({ "key_ops": ["sign"], "d": "AQAB" })),
        of_it(json!({ "alg": "ES512" })),
        of_it(json!({ "crv": "X25519" })),
        of_it(json!({ "alg": "ES512", "x": 1 })),
        json!({ "kty": "EC" }),
        json!({ "kty": "oct", "k": "AQAB" }),
        json!({ "use": "enc" }),
    ] {
        assert_eq!(with_key(key.clone()), [""; 0], "{key} is there for something else");
    }
    for (key, expected) in [
        (json!("key"), "not an object"),
        (of_it(json!({ "kty": null })), "`kty` is not a string"),
        (of_it(json!({ "kid": 2 })), "`kid` is not a string"),
        (of_it(json!({ "use": 1 })), "`use` is not a string"),
        (of_it(json!({ "key_ops": "verify" })), "`key_ops` is not a list"),
        (json!({ "crv": "Ed25519", "x": good["x"] }), "`kty` is missing"),
        (json!({ "kty": "OKP", "crv": "Ed25519" }), "a member is missing or malformed"),
        (json!({ "kty": "RSA", "e": "AQAB" }), "a member is missing or malformed"),
        (json!({ "kty": "RSA", "n": "AQAB" }), "a member is missing or malformed"),
        (json!({ "kty": "RSA", "n": 1, "e": "AQAB" }), "a member is missing or malformed"),
        (json!({ "kty": "RSA", "n": "AQAB", "e": 1 }), "a member is missing or malformed"),
        (json!({ "kty": "EC", "crv": "P-256", "x": 1, "y": "AQAB" }), "a member is missing or malformed"),
        (json!({ "kty": "EC", "crv": "P-256", "x": "AQAB", "y": 1 }), "a member is missing or malformed"),
        (of_it(json!({ "kid": "1", "x": "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw" })), "no key in it can be used"),
        (of_it(json!({ "d": "AQAB" })), "it is a private key"),
        (of_it(json!({ "x": null })), "a member is missing or malformed"),
        (of_it(json!({ "x": "AQAB" })), "not a point of Ed25519"),
        (of_it(json!({ "alg": "ES256" })), "`alg` is for another type of key"),
        (json!({ "kty": "EC", "crv": "P-256", "x": "AQAB" }), "a member is missing or malformed"),
        (json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB" }), "an RSA key of 17 bits, at least 2048 are needed"),
    ] {
        let found = with_key(key.clone());
        assert!(found.len() == 1 && found[0].starts_with("provider.jwks") && found[0].ends_with(expected), "{found:?}");
    }
}

#[test]
fn a_secret_that_a_variable_holds_is_long_enough_for_hs256() {
    let document = changed(minimal(), "/token", json!({ "algorithms": ["HS256"] }));
    let with_secret = |name: &str| errors(&changed(document.clone(), "/client/secret", json!({ "env": name })));
    assert_eq!(with_secret("KEY"), [""; 0]);
    assert_only(&with_secret("SET"), "token.algorithms: HS256 needs a `client.secret` of at least 32 bytes", "SET");
}

#[test]
fn hosts_limit_where_a_loop_is_seen() {
    let mut document = minimal();
    document["rules"] = json!([{ "paths": ["/**"], "hosts": ["admin.example.com"] }]);
    assert_eq!(errors(&document), [""; 0], "the callback is on another host");
    document["rules"][0]["step_up"] = json!({ "login_url": "/login" });
    assert_eq!(errors(&document).len(), 1);
    document["rules"][0]["except"] = json!(["/login"]);
    assert_eq!(errors(&document), [""; 0]);
}

#[test]
fn a_secret_is_never_shown() {
    let secret = "correct horse battery staple and more";
    let mut document = minimal();
    document["client"]["secret"] = json!(secret);
    document["token"] = json!({ "algorithms": ["HS256"] });
    let config = judge(&document, &|_| None).unwrap();
    assert!(!format!("{config:?}").contains("horse"));
    document["client"]["secret"] = json!([secret]);
    assert!(!errors(&document).join("\n").contains("horse"));
}

#[test]
fn a_key_is_never_shown() {
    let config = judge(&completing(), &|_| None).unwrap();
    assert!(!format!("{config:?}").contains(&KEY[..8]));
    for wrong in [json!(KEY), json!([&KEY[4..]]), json!([[KEY]]), json!([{ "env": KEY }]), json!({ "env": KEY })] {
        let found = completing_with("/callback/keys", wrong);
        assert!(!found.is_empty() && !found.join("\n").contains(&KEY[..8]), "{found:?}");
    }
    let assertion = changed(completing(), "/client/secret", json!(keys::client_key()));
    let assertion = changed(assertion, "/client/authentication", json!("private_key_jwt"));
    let jwk: Value = serde_json::from_str(&keys::client_key()).unwrap();
    let config = judge(&assertion, &|_| None).unwrap();
    assert!(!format!("{config:?}").contains(jwk["d"].as_str().unwrap()));
}

#[test]
fn documents_that_are_no_objects_are_refused() {
    for (text, expected) in [
        ("", "configuration: is empty, must be a JSON object"),
        ("  \n", "configuration: is empty"),
        ("{", "configuration: not valid JSON"),
        ("[]", "configuration: must be an object"),
        ("null", "configuration: must be an object"),
        (r#"{"rules":[],"rules":[]}"#, "configuration: not valid JSON: duplicate member"),
    ] {
        let errors = Config::from_json(text.as_bytes(), &|_| None).unwrap_err();
        assert!(errors.as_slice()[0].to_string().starts_with(expected), "{text}: {errors}");
    }
}

#[test]
fn lists_are_bounded() {
    let paths: Vec<String> = (0..1001).map(|number| format!("/p{number}")).collect();
    let found = with("/rules", json!([{ "paths": paths }]));
    assert_eq!(found, ["rules[0].paths: must have at most 1000 entries, got 1001"]);
}
