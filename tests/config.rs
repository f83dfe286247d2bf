//! Configurations that must be refused: with every problem at once, each with its place.

use serde_json::{Value, json};
use stepgate::Config;

fn minimal() -> Value {
    json!({
        "provider": { "issuer": "https://idp.example.com/" },
        "client": { "id": "client", "redirect_uri": "https://app.example.com/callback" },
        "rules": [{ "paths": ["/salary/**"] }],
    })
}

fn errors(document: &Value) -> Vec<String> {
    match Config::from_value(document, &|name| (name == "SET").then(|| "value".to_owned())) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.as_slice().iter().map(ToString::to_string).collect(),
    }
}

/// The errors of the minimal configuration with one place changed.
fn with(pointer: &str, value: Value) -> Vec<String> {
    let mut document = minimal();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
    parent.as_object_mut().unwrap().insert(name.to_owned(), value);
    errors(&document)
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
        "case_insensitive_paths": false,
        "callback": null,
        "forward": null,
    });
    assert_eq!(errors(&document), [""; 0]);
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
        ("/provider/issuer", json!("https://user@idp/"), "provider.issuer: "),
        ("/provider/issuer", json!(7), "provider.issuer: "),
        ("/provider/jwks_uri", json!("http://idp/keys"), "provider.jwks_uri: must be an https URL"),
        ("/provider/jwks_uri", json!("https://idp/a b"), "provider.jwks_uri: "),
        (
            "/provider/jwks",
            json!({ "keys": [] }),
            "provider.jwks: must be a JSON Web Key Set with at least one usable key",
        ),
        ("/provider/cluster", json!({}), "provider.cluster: must be a cluster's name"),
        ("/provider/cluster", json!({ "idp": 1 }), "provider.cluster.idp: must be a cluster's name, got `1`"),
        ("/provider/timeout", json!("2m"), "provider.timeout: must be a duration from 100ms to 1m"),
        ("/provider/max_stale", json!("5m"), "provider.max_stale: must not be shorter than `provider.refresh`"),
        ("/client/id", json!(""), "client.id: must be the client ID, a string, got ``"),
        ("/client/audiences", json!("x"), "client.audiences: must be a list of strings, got `x`"),
        ("/client/secret", json!({ "env": "UNSET" }), "client.secret.env: the environment variable `UNSET` is not set"),
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
        let found = with(pointer, value.clone());
        assert!(found.len() == 1 && found[0].starts_with(expected), "{pointer} {value}:\n  {found:?}\n  {expected}");
    }
}

/// `require: { amr: }` in YAML: a slip that must not turn into "no second factor".
#[test]
fn a_requirement_without_a_value_is_refused() {
    let found = with("/rules", json!([{ "paths": ["/a"], "require": { "amr": null } }]));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("rules[0].require.amr: must have a value, got `null`"), "{found:?}");
}

#[test]
fn what_may_be_a_secret_is_not_shown() {
    assert!(!with("/provider/issuer", json!("https://svc:hunter2@idp/")).join("").contains("hunter2"));
    assert!(!with("/client/secret", json!({ "env": "hunter2!" })).join("").contains("hunter2"));
}

#[test]
fn levels_are_named_once_and_claims_not_asked_for_in_vain() {
    assert_eq!(with("/acr_levels", json!(["bronze", "silver", "bronze"])), ["acr_levels: names a level twice"]);
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
    document["step_up"] = json!({ "login_url": "/login" });
    assert_eq!(errors(&document), [""; 0]);
    document["provider"]["jwks_uri"] = json!("https://idp/keys");
    assert!(errors(&document)[0].starts_with("provider.jwks: contradicts `provider.jwks_uri`"));
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
    let config = Config::from_value(&document, &|_| None).unwrap();
    assert!(!format!("{config:?}").contains("horse"));
    document["client"]["secret"] = json!([secret]);
    assert!(!errors(&document).join("\n").contains("horse"));
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
