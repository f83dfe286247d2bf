//! The tables of `docs/configuration.md` against the configuration itself.

use super::*;
use stepgate::config::RESERVED_HEADERS;

/// Each table: its heading, the fields, where an object of that kind stands, and a document that has one.
pub fn tables() -> Vec<(&'static str, Vec<&'static str>, &'static str, Value)> {
    let with = |over: Value| merged(smallest(), &over);
    let rule = |members: Value| with(json!({ "rules": [merged(json!({ "paths": ["/salary/**"] }), &members)] }));
    vec![
        ("## The document", fields::ROOT.to_vec(), "", smallest()),
        ("## `provider`", fields::PROVIDER.to_vec(), "/provider", smallest()),
        ("## `client`", fields::CLIENT.to_vec(), "/client", smallest()),
        ("## `token`", fields::TOKEN.to_vec(), "/token", with(json!({ "token": {} }))),
        ("## `step_up`", fields::STEP_UP.to_vec(), "/step_up", with(json!({ "step_up": {} }))),
        ("## `step_up`", fields::STEP_UP.to_vec(), "/rules/0/step_up", rule(json!({ "step_up": {} }))),
        ("## `rules[]`", fields::RULE.to_vec(), "/rules/0", smallest()),
        ("## `rules[].require`", fields::REQUIRE.to_vec(), "/rules/0/require", rule(json!({ "require": {} }))),
        ("## `callback`", fields::CALLBACK.to_vec(), "/callback", with(login())),
        ("## `callback.cookie`", fields::CALLBACK_COOKIE.to_vec(), "/callback/cookie", with(login())),
        ("## `forward`", fields::FORWARD.to_vec(), "/forward", with(json!({ "forward": {} }))),
    ]
}

/// What a gate that completes the login has beside the smallest configuration.
fn login() -> Value {
    json!({ "client": { "secret": SECRET }, "callback": { "keys": [STANDARD.encode(SECRET)], "cookie": {} } })
}

pub fn page() -> Page {
    Page::read("docs/configuration.md")
}

/// The document with one field set, or taken away.
pub fn set(document: &Value, at: &str, field: &str, value: Option<Value>) -> Value {
    let mut document = document.clone();
    let object = document.pointer_mut(at).and_then(Value::as_object_mut).expect("an object");
    match value {
        Some(value) => object.insert(field.to_owned(), value),
        None => object.remove(field),
    };
    document
}

pub fn the_span(cell: &str) -> Option<String> {
    let spans = spans(cell);
    (spans.len() == 1 && cell == format!("`{}`", spans[0])).then(|| spans[0].clone())
}

#[test]
fn names_every_field_in_order_and_no_other() {
    for (heading, fields, ..) in tables() {
        let named: Vec<String> = page().table(heading).iter().map(|row| the_span(&row[0]).expect("a name")).collect();
        assert_eq!(named, fields, "{heading}");
    }
}

#[test]
fn defaults_are_what_happens_without_the_field() {
    let mut checked = 0;
    for (heading, _, at, document) in tables() {
        for row in page().table(heading) {
            let (field, default) = (the_span(&row[0]).expect("a name"), &row[2]);
            if default == "required" {
                let place = format!("{}{field}: missing", place(at));
                let refused = refusal(&set(&document, at, &field, None));
                assert!(refused.contains(&place), "{heading} {field}: {refused}");
            } else if let Some(default) = the_span(default) {
                let text = |value| format!("{:?}", accepted(&set(&document, at, &field, value), heading));
                let (with, without) = (text(Some(yaml(&default, &field))), text(None));
                assert_eq!(with, without, "{heading} {field}: `{default}` is not what happens without it");
            } else {
                assert!(
                    [
                        "discovered",
                        "chosen",
                        "none",
                        "the first path",
                        "every host",
                        "every method",
                        "that of the document"
                    ]
                    .contains(&default.as_str()),
                    "{heading} {field}: a default in words, `{default}`"
                );
                accepted(&set(&document, at, &field, None), heading);
            }
            checked += 1;
        }
    }
    assert!(checked > 40);
}

fn place(at: &str) -> String {
    match at {
        "" => String::new(),
        _ => format!("{}.", at.trim_start_matches('/').replace("/0", "[0]").replace('/', ".")),
    }
}

/// What the gate says it accepts: `(from, to)` of a range, or the words of which one is accepted.
pub enum Accepted {
    Range(String, String),
    Words(Vec<String>),
}

pub fn told(refused: &str) -> Option<Accepted> {
    let line = refused.lines().nth(1)?;
    let accepted = line.split_once("must be ")?.1;
    if let Some((_, words)) = accepted.split_once("one of `") {
        let list = words.split_once(", got").map_or(words, |(list, _)| list);
        return Some(Accepted::Words(spans(&format!("`{list}"))));
    }
    let range = accepted.strip_prefix("a duration from ").or_else(|| accepted.strip_prefix("a whole number from "))?;
    let (from, rest) = range.split_once(" to ")?;
    let to = rest.split_once(',').map_or(rest, |(to, _)| to);
    Some(Accepted::Range(from.to_owned(), to.to_owned()))
}

#[test]
fn ranges_and_words_are_the_ones_that_the_gate_tells() {
    let mut checked = 0;
    for (heading, _, at, document) in tables() {
        for row in page().table(heading) {
            let (field, cell) = (the_span(&row[0]).expect("a name"), &row[3]);
            let wrong = if field == "algorithms" { json!(["?"]) } else { json!("?") };
            match told(&refusal(&set(&document, at, &field, Some(wrong)))) {
                Some(Accepted::Range(from, to)) => {
                    assert_eq!(*cell, format!("`{from}` to `{to}`"), "{heading} {field}");
                    for end in [from, to] {
                        let end = end.parse::<u64>().map_or_else(|_| json!(end), |number| json!(number));
                        let mut document = set(&document, at, &field, Some(end));
                        // One range depends on another field.
                        if field == "refresh" {
                            document = set(&document, at, "max_stale", Some(json!("30d")));
                        }
                        if field == "max_stale" {
                            document = set(&document, at, "refresh", Some(json!("1s")));
                        }
                        accepted(&document, &format!("{heading} {field}"));
                    }
                    checked += 1;
                }
                Some(Accepted::Words(words)) => {
                    assert!(cell.starts_with("one of `"), "{heading} {field}: {cell}");
                    assert_eq!(spans(cell), words, "{heading} {field}");
                    checked += 1;
                }
                None => {
                    assert!(!cell.contains("` to `") && !cell.starts_with("one of `"), "{heading} {field}: {cell}");
                }
            }
        }
    }
    assert_eq!(checked, 17, "ranges and lists of words");
}

#[test]
fn other_words_are_the_ones_that_the_gate_tells() {
    let document = merged(smallest(), &login());
    let refused = refusal(&set(&document, "/callback/cookie", "max_age", Some(json!("?"))));
    let row = page().table("## `callback.cookie`").into_iter().find(|row| row[0] == "`max_age`").expect("a row");
    assert!(refused.contains(&format!("must be {}, got", row[3])), "{refused}");
    for age in ["token", "session", "1s", "400d"] {
        accepted(&set(&document, "/callback/cookie", "max_age", Some(json!(age))), age);
    }
    let strict = refusal(&set(&document, "/callback/cookie", "same_site", Some(json!("Strict"))));
    assert!(strict.contains("must be `Lax` or `None`"), "{strict}");
}

#[test]
fn places_of_the_error_page_are_all_named() {
    let places: Vec<String> = page().table("### `error_page`").iter().map(|row| spans(&row[0]).remove(0)).collect();
    let with =
        |text: &str| refusal(&merged(merged(smallest(), &login()), &json!({ "callback": { "error_page": text } })));
    for place in &places {
        assert_eq!(with(place), "", "{place}");
    }
    let told = with("{{another}}");
    let (_, known) = told.split_once("none of ").expect("the places");
    assert_eq!(spans(known), places);
}

#[test]
fn fields_that_carry_no_identity_are_all_named() {
    let text = page().text;
    let (_, list) = text.split_once("These fields mean something else already and are refused:").expect("the list");
    let (list, _) = list.split_once("\n\n").expect("its end");
    assert_eq!(spans(list), RESERVED_HEADERS);
}

#[test]
fn reserved_parameters_are_all_named() {
    let text = page().text;
    let (_, list) = text.split_once("`params` may not name them:").expect("the list");
    let (list, _) = list.split_once("\n\n").expect("its end");
    assert_eq!(spans(list), RESERVED_PARAMETERS);
}

#[test]
fn the_example_of_a_refusal_is_what_the_gate_says() {
    let mut document = smallest();
    let provider = document["provider"].as_object_mut().expect("an object");
    let issuer = provider.remove("issuer").expect("an issuer");
    provider.insert("isuer".to_owned(), issuer);
    assert_eq!(page().block("text problems").text, refusal(&document) + "\n");
}

#[test]
fn every_contradiction_is_refused() {
    let cases = [
        ("provider.jwks: contradicts", json!({ "provider": { "jwks": { "keys": [] }, "jwks_uri": "https://a/k" } })),
        ("must not be shorter", json!({ "provider": { "refresh": "2h", "max_stale": "1h" } })),
        ("provider.authorization_endpoint: missing", json!({ "provider": { "jwks": { "keys": [key()] } } })),
        ("HS256 needs `client.secret`", json!({ "token": { "algorithms": ["HS256"] } })),
        ("of at least 32 bytes", json!({ "token": { "algorithms": ["HS256"] }, "client": { "secret": "short" } })),
        (
            "HS256 contradicts",
            json!({ "token": { "algorithms": ["HS256"] }, "client": { "secret": SECRET, "authentication": "private_key_jwt" } }),
        ),
        ("is not set", json!({ "client": { "secret": { "env": "NOT_SET" } } })),
        ("a loop", json!({ "client": { "redirect_uri": "https://app.example.com/salary/callback" } })),
        ("a loop", json!({ "step_up": { "login_url": "/salary/login" } })),
        (
            "the name of another",
            json!({ "rules": [{ "name": "a", "paths": ["/a"] }, { "name": "a", "paths": ["/b"] }] }),
        ),
        ("needs `login_url`", json!({ "step_up": { "return_to_param": "to" } })),
        (
            "one of `acr_levels`",
            json!({ "rules": [{ "paths": ["/a"], "require": { "acr": { "at_least": "gold" } } }] }),
        ),
        ("set by Stepgate itself", json!({ "step_up": { "params": { "state": "x" } } })),
        ("client.secret: missing", merged(login(), &json!({ "client": { "secret": null } }))),
        (
            "must be a private EC key on P-256",
            merged(login(), &json!({ "client": { "authentication": "private_key_jwt" } })),
        ),
        (
            "provider.token_endpoint: missing",
            merged(
                login(),
                &json!({ "provider": { "authorization_endpoint": "https://a/a", "jwks": { "keys": [key()] } } }),
            ),
        ),
        (
            "which `provider.jwks` rules out",
            merged(
                login(),
                &json!({ "provider": { "jwks": { "keys": [key()] } }, "callback": { "pushed_authorization": true } }),
            ),
        ),
        (
            "its path must be a path",
            merged(login(), &json!({ "client": { "redirect_uri": "https://app.example.com/callback?a" } })),
        ),
        (
            "its path must be a path",
            merged(login(), &json!({ "client": { "redirect_uri": "https://app.example.com/%63allback" } })),
        ),
        ("it must be another", merged(login(), &json!({ "callback": { "logout_path": "/callback" } }))),
        (
            "the host of `client.redirect_uri` or a domain above it",
            merged(login(), &json!({ "callback": { "cookie": { "domain": "pay.example.com" } } })),
        ),
        (
            "`None` needs",
            merged(
                login(),
                &json!({ "client": { "redirect_uri": "http://localhost/c" }, "callback": { "cookie": { "same_site": "None" } } }),
            ),
        ),
        (
            "`__Host-` allows neither",
            merged(
                login(),
                &json!({ "token": { "cookie": "__Host-t" }, "callback": { "cookie": { "domain": "example.com" } } }),
            ),
        ),
        (
            "`__Host-` allows neither",
            merged(login(), &json!({ "token": { "cookie": "__Host-t" }, "callback": { "cookie": { "path": "/a" } } })),
        ),
        (
            "this prefix needs",
            merged(
                login(),
                &json!({ "client": { "redirect_uri": "http://localhost/c" }, "token": { "cookie": "__Secure-t" } }),
            ),
        ),
        (
            "`__Host-` allows neither",
            merged(
                login(),
                &json!({ "token": { "cookie": "__host-t" }, "callback": { "cookie": { "domain": "example.com" } } }),
            ),
        ),
        ("must not contain `stepgate_`", merged(login(), &json!({ "token": { "cookie": "my_stepgate_token" } }))),
        (
            "contradicts `callback.seal_token`",
            merged(login(), &json!({ "callback": { "seal_token": true }, "step_up": { "login_url": "/login" } })),
        ),
        (
            "callback.hint: contradicts `callback.seal_token`",
            merged(login(), &json!({ "callback": { "seal_token": true, "hint": "id_token_hint" } })),
        ),
        ("another spelling", json!({ "forward": { "headers": { "x-user": "sub", "X_User": "email" } } })),
    ];
    for (refused, over) in &cases {
        let told = refusal(&merged(smallest(), over));
        assert!(told.contains(refused), "{over}: {told}");
    }
    accepted(
        &merged(
            merged(smallest(), &login()),
            &json!({ "client": { "redirect_uri": "https://app.example.com/salary/callback" } }),
        ),
        "with `callback`, the redirect URI may lie under a rule",
    );
    // The last row is Envoy's, three rows have two cases, and one has three.
    let rows = page().table("## Contradictions that are refused").len();
    assert_eq!(rows - 1 + 3 + 2, cases.len(), "a row without a case");
}

#[test]
fn a_domain_of_the_cookie_has_a_dot() {
    let with = |redirect: &str, domain: &str| {
        let over = json!({ "client": { "redirect_uri": redirect }, "callback": { "cookie": { "domain": domain } } });
        merged(merged(smallest(), &login()), &over)
    };
    let told = refusal(&with("http://app.localhost/callback", "localhost"));
    assert!(told.contains("browsers take no cookie for all hosts below `localhost`"), "{told}");
    accepted(&with("https://app.example.com/callback", "example.com"), "a domain");
    let told = refusal(&with("https://app.example.com/callback", "com"));
    assert!(told.contains("not a top-level domain"), "{told}");
}

fn key() -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
}

/// Every `MAX_…`, `MIN_…` and the like of the source and of the edge package, with its value.
pub fn limits() -> BTreeSet<(String, u64)> {
    let mut limits = BTreeSet::new();
    let mut directories = vec![root("src"), root("edge")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            // What the command-line tool takes is no limit of the gate's.
            if path == root("src/cli") || path == root("src/cli.rs") {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else {
                let text = std::fs::read_to_string(&path).expect("a file");
                limits.extend(text.lines().filter_map(limit));
            }
        }
    }
    limits
}

fn limit(line: &str) -> Option<(String, u64)> {
    if let Some(of_javascript) = line.strip_prefix("export const MAX_") {
        let (name, value) = of_javascript.trim_end_matches(';').split_once(" = ")?;
        return Some((format!("MAX_{name}"), value.parse().unwrap_or_else(|_| panic!("{line}"))));
    }
    let constant = line.strip_prefix("pub const ").or_else(|| line.strip_prefix("const "))?;
    let (name, rest) = constant.split_once(": ")?;
    let bound = ["MAX_", "MIN_"].iter().any(|prefix| name.starts_with(prefix));
    let named =
        ["UNKNOWN_KID_COOLDOWNS", "LEASE_MARGIN", "ATTEMPT_IN_PROGRESS"].contains(&name) || name.contains("_LIFETIME");
    let (_, expression) = rest.trim_end_matches(';').split_once(" = ")?;
    if !bound && !named || name == "MAX_SHOWN" || expression.contains("..=") {
        return None;
    }
    let product = |text: &str| -> Option<u64> {
        text.split(" * ").map(|factor| factor.replace('_', "").parse::<u64>().ok()).product()
    };
    let value: Option<u64> = if expression == "(1 << 53) - 1" {
        Some((1 << 53) - 1)
    } else if let Some(seconds) = expression.strip_prefix("Duration::from_secs(") {
        product(seconds.trim_end_matches(')')).map(|seconds| seconds * 1000)
    } else if let Some(millis) = expression.strip_prefix("Duration::from_millis(") {
        product(millis.trim_end_matches(')'))
    } else {
        product(expression)
    };
    Some((name.to_owned(), value.unwrap_or_else(|| panic!("{line}"))))
}

/// A value as the page writes it; durations in milliseconds.
pub fn written(text: &str) -> u64 {
    let plain = text.replace(',', "");
    let digits: String = plain.chars().take_while(char::is_ascii_digit).collect();
    let scale = match plain[digits.len()..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        other => panic!("a unit `{other}`"),
    };
    digits.parse::<u64>().expect("a number") * scale
}

#[test]
fn lengths_of_lists_are_the_limits() {
    let limits = limits();
    let mut checked = 0;
    for heading in ["## The document", "## `client`", "## `rules[]`", "## `callback`", "## `forward`"] {
        for row in page().table(heading) {
            let limit = match the_span(&row[0]).expect("a name").as_str() {
                "rules" => "MAX_RULES",
                "acr_levels" => "MAX_VALUES",
                "audiences" => "MAX_AUDIENCES",
                "hosts" | "paths" | "except" | "methods" => "MAX_PATTERNS",
                "keys" => "MAX_SEALING_KEYS",
                "headers" => "MAX_IDENTITY_HEADERS",
                _ => continue,
            };
            let cell = row[3].strip_prefix("1 to ").or_else(|| row[3].strip_prefix("at most ")).expect("a length");
            let length = written(cell.split(' ').next().expect("a number"));
            assert!(limits.contains(&(limit.to_owned(), length)), "{heading} {row:?}");
            checked += 1;
        }
    }
    assert_eq!(checked, 9);
}

#[test]
fn limits_are_all_named_with_their_values() {
    let rows = page().table("## Limits");
    let named: BTreeSet<(String, u64)> =
        rows.iter().map(|row| (the_span(&row[0]).expect("a name"), written(&row[1]))).collect();
    assert_eq!(named, limits());
}
