//! Attacks on the login that the gate completes, class by class. Every answer, of whatever attack, is held to what
//! `flow_attacks/world.rs` says of all; `tests/e2e/flow-attacks.test.mjs` tries the same in real Envoy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};
use stepgate::DecisionKind;

#[allow(dead_code, reason = "each test crate uses a part of it")]
mod support;
#[path = "flow_attacks/world.rs"]
mod world;

use world::{
    ATTEMPTS, Ask, Browser, HOST, ISSUER, NOW, PAGE, Parameters, SCRIPT, TRANSACTION, World, callback, config,
    config_of_domain, found, is_path, links, location, query,
};

static CORPUS: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("vectors/attacks.json")).unwrap());

/// The payloads of one kind, of all classes.
fn payloads(kind: &str) -> Vec<String> {
    fn texts(value: &Value) -> Vec<String> {
        match value {
            Value::Object(classes) => classes.values().flat_map(texts).collect(),
            Value::Array(list) => list.iter().flat_map(texts).collect(),
            text => vec![text.as_str().unwrap().to_owned()],
        }
    }
    texts(&CORPUS[kind])
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn no_address_leads_elsewhere() {
    let payloads = payloads("targets");
    assert!(payloads.len() >= 150, "{}", payloads.len());
    for (config, host) in [(config(), HOST), (config_of_domain(), "pay.example.com")] {
        let mut world = World::new(config);
        let mut completed = 0;
        for payload in &payloads {
            let encoded = escaped(payload);
            let to_callback = |names: &[&str]| {
                names.iter().fold("/callback?".to_owned(), |query, name| format!("{query}{name}={encoded}&"))
            };
            let queries = [
                format!("/salary?return_to={encoded}&redirect_uri={payload}"),
                to_callback(&["step_up"]),
                to_callback(&["state", "code", "iss", "redirect_uri", "return_to"]),
                format!("{}&redirect_uri={encoded}&return_to={encoded}", callback(&"A".repeat(22), "0")),
                format!("/logout?post_logout_redirect_uri={encoded}&return_to={payload}"),
            ];
            let page = |target| Ask { host, ..Ask::page(target) };
            let of_own_origin = format!("https://{host}{payload}");
            let mut asks = vec![page(payload), Ask { method: "POST", ..page(payload) }];
            asks.extend(queries.iter().map(|target| Ask::page(target)));
            for referer in [payload, &of_own_origin] {
                asks.push(Ask { method: "POST", ..page("/salary") }.with("referer", referer));
                asks.push(Ask { headers: vec![SCRIPT], ..page("/salary") }.with("referer", referer));
            }
            let others =
                ["x-forwarded-host", "x-forwarded-uri", "x-original-url", "x-rewrite-url", "forwarded", "origin"];
            asks.push(others.iter().fold(page("/salary"), |ask, name| ask.with(name, payload)));
            for ask in asks {
                let decisions = world.follow(&mut Browser::default(), &ask);
                completed += decisions.iter().filter(|decision| decision.reason.code() == "login_completed").count();
            }
        }
        assert!(completed > 5 * payloads.len(), "{completed} logins were tried to their end");
    }
}

#[test]
fn no_host_leads_elsewhere() {
    let payloads = payloads("hosts");
    let completed = |config: Value| {
        let mut world = World::new(config);
        let mut origins = BTreeSet::new();
        for host in &payloads {
            let ask = Ask { host, ..Ask::page("/salary?a=//b") };
            let end = world.follow(&mut Browser::default(), &ask).pop().unwrap();
            if let Some((origin, _)) = location(&end).split_once("/salary") {
                assert!(
                    origin.is_empty() || origin == format!("https://{}", host.to_lowercase()),
                    "{host:?}: {origin}"
                );
                origins.insert(origin.to_owned());
            }
        }
        origins
    };
    assert_eq!(completed(config()), BTreeSet::from([String::new()]), "without a domain, one host alone");
    let origins = completed(config_of_domain());
    assert!(origins.contains("https://pay.example.com:8443") && origins.len() > 10, "{origins:?}");
}

#[test]
fn another_sites_page_is_not_come_back_to() {
    let mut world = World::new(config());
    let mut chosen = 0;
    for payload in payloads("targets").iter().filter(|payload| payload.starts_with("http")) {
        let referer = format!("{payload}/chosen");
        let ask = Ask { headers: vec![SCRIPT], ..Ask::page("/salary") }.with("referer", &referer);
        let end = world.follow(&mut Browser::default(), &ask).pop().unwrap();
        if location(&end).contains("chosen") {
            chosen += 1;
            assert!(referer.starts_with("https://app.example.com/") || referer.starts_with("https://app.example.com?"));
        }
    }
    assert!(chosen > 0, "a page of its own is");
}

#[test]
fn the_apps_own_login_route_gets_no_other_address() {
    let mut config = config();
    config.as_object_mut().unwrap().remove("callback");
    config["step_up"] = json!({ "login_url": "/login", "return_to_param": "return_to" });
    config["rules"] = json!([{ "paths": ["/**"], "except": ["/login", "/callback"] }]);
    let mut world = World::new(config);
    for payload in payloads("targets") {
        let decision = world.go(&mut Browser::default(), &payload);
        if decision.kind == DecisionKind::Redirect {
            let location = location(&decision);
            assert!(location.starts_with("/login?"), "{payload:?}: {location}");
            assert!(is_path(&query(&location)["return_to"]), "{payload:?}: {location}");
        }
    }
}

#[test]
fn nothing_from_outside_breaks_a_field() {
    let mut config = config_of_domain();
    config["callback"]["hint"] = json!("login_hint");
    config["forward"] = json!({ "headers": { "x-user-id": "sub", "x-mail": "email", "x-groups": "groups" } });
    let mut pushing = config.clone();
    pushing["callback"]["pushed_authorization"] = json!(true);
    let (mut world, mut pushing) = (World::new(config), World::new(pushing));
    // What ends or splits a field, a cookie or a parameter where it is not looked at.
    for breaker in payloads("breakers") {
        for value in [breaker.clone(), format!("a{breaker}b"), format!("{}{breaker}", "A".repeat(22))] {
            let (encoded, cookie) =
                (escaped(&value), format!("id_token.0{value}=x; {TRANSACTION}{value}=x; {value}=x; id_token={value}"));
            let host = format!("{value}.example.com");
            let referer = format!("https://{HOST}/{value}");
            let path = format!("/salary/{value}");
            let ended = |name: &str| format!("/callback?{name}={encoded}");
            let answered = |rest: &str| format!("/callback?state={}&{rest}={encoded}", "A".repeat(22));
            let targets = [
                path.clone(),
                ended("state"),
                ended("step_up"),
                answered("code"),
                answered("error"),
                answered("code=x&iss"),
                answered("error=access_denied&error_description"),
                format!("/logout?{value}"),
                format!("/salary?{value}={encoded}"),
            ];
            let mut asks: Vec<Ask<'_>> = targets.iter().map(|target| Ask::page(target)).collect();
            asks.extend([PAGE, SCRIPT].map(|kind| Ask { host: &host, headers: vec![kind], ..Ask::page("/salary") }));
            asks.push(Ask { method: "POST", ..Ask::page("/salary") }.with("referer", &referer));
            asks.push(Ask { method: &value, ..Ask::page("/salary") });
            asks.extend(["/salary", "/logout", "/callback"].map(|target| Ask::page(target).with("cookie", &cookie)));
            let fields = ["accept", "sec-fetch-site", "sec-fetch-user", "content-type", "x-user-id", "authorization"];
            asks.push(fields.iter().fold(Ask::page("/salary"), |ask, name| ask.with(name, &value)));
            for ask in &asks {
                world.follow(&mut Browser::default(), ask);
            }

            let claims = json!({ "sub": value, "email": value, "groups": [value], "amr": [value], "acr": value });
            let mut person = world.log_in("/", claims.clone());
            assert_eq!(world.go(&mut person, "/").kind, DecisionKind::Forward);
            let stepped_up = world.set_out(&mut person, "/salary");
            assert_eq!(stepped_up["login_hint"], value);
            // In vain: the page that explains it shows claims.
            for _ in 0..3 {
                let asked = world.asked.clone();
                let code = world.grant(&asked, claims.clone());
                world.go(&mut person, &callback(&asked["state"], &code));
            }

            pushing.request_uri = value;
            let location = location(&pushing.go(&mut Browser::default(), "/salary"));
            assert_eq!(query(&location)["request_uri"], pushing.request_uri);
        }
    }
}

#[test]
fn two_tokens_of_one_name_are_nobodys() {
    let mut world = World::new(config());
    let [ada, mallory] =
        ["ada", "mallory"].map(|sub| world.token(json!({ "key": "ec", "claims": { "sub": sub, "amr": ["mfa"] } })));
    let opens = |world: &mut World, cookies: &[String]| {
        let fields = cookies.iter().fold(Ask::page("/salary"), |ask, cookie| ask.with("cookie", cookie));
        world.send(&mut Browser::default(), &fields).kind == DecisionKind::Forward
    };
    let pair = |name: &str, token: &str| format!("{name}={token}");
    assert!(opens(&mut world, &[pair("id_token", &ada)]));
    assert!(opens(&mut world, &[pair("id_token", &ada), pair("id_token", &ada)]), "one token twice is one token");
    let (start, end) = mallory.split_at(mallory.len() / 2);
    let tossed = [
        pair("id_token", &mallory),
        pair(" id_token", &mallory),
        pair("id_token\t", &mallory),
        pair("id_token.0", &mallory),
        format!("id_token.0={start}; id_token.1={end}"),
        format!("id_token.1={end}; id_token.0={start}"),
        format!("id_token.0={start}"),
        pair("id_token.00", &mallory),
        pair("id_token.16", &mallory),
        "id_token=x".to_owned(),
    ];
    for tossed in &tossed {
        for other in ["", "theme=dark; ", "x; ; =; "] {
            let (own, tossed) = (format!("{other}id_token={ada}"), format!("{other}{tossed}"));
            for cookies in [[own.clone(), tossed.clone()], [tossed.clone(), own.clone()]] {
                assert!(!opens(&mut world, &cookies), "{}", cookies[1]);
                assert!(!opens(&mut world, &[cookies.join("; ")]), "{}", cookies[1]);
            }
        }
    }
}

/// Names that a server less strict, or a browser's rules for prefixes, may take for this one.
fn look_alikes(name: &str) -> Vec<String> {
    let bare = name.trim_start_matches("__Host-");
    payloads("names").iter().map(|look_alike| look_alike.replace("{name}", name).replace("{bare}", bare)).collect()
}

#[test]
fn no_other_name_is_taken_for_one_with_a_prefix() {
    let mut config = config();
    config["token"]["cookie"] = json!("__Host-id_token");
    let mut world = World::new(config);
    let token = world.token(json!({ "key": "ec", "claims": { "sub": "mallory", "amr": ["mfa"] } }));
    let as_whom = |world: &mut World, cookie: &str| {
        found(&world.send(&mut Browser::default(), &Ask::page("/salary").with("cookie", cookie)))
    };
    assert_eq!(as_whom(&mut world, &format!("__Host-id_token={token}")), "forward satisfied");
    for name in look_alikes("__Host-id_token") {
        assert_eq!(as_whom(&mut world, &format!("{name}={token}")), "redirect token_missing", "{name:?}");
    }
    for value in [format!("\"{token}\""), token.replace('.', "%2e"), format!("{token},{token}"), format!("x={token}")] {
        assert_eq!(as_whom(&mut world, &format!("__Host-id_token={value}")), "redirect token_malformed", "{value}");
    }

    // Nor can a host of the site bring a login of its own.
    let mut mallory = Browser::default();
    let asked = world.set_out(&mut mallory, "/salary");
    let code = world.grant(&asked, json!({ "sub": "mallory", "amr": ["mfa"] }));
    let back = callback(&asked["state"], &code);
    let (name, sealed) = mallory.transactions().next().unwrap();
    for name in look_alikes(name) {
        let cookie = format!("{name}={sealed}");
        let answer = world.send(&mut Browser::default(), &Ask::page(&back).with("cookie", &cookie));
        assert_eq!(found(&answer), "bad_request transaction_missing", "{name:?}");
    }
    let (own, other) = (format!("{name}={sealed}"), format!("{name}=x{sealed}"));
    for cookies in [[&own, &other], [&other, &own]] {
        let ask = Ask::page(&back).with("cookie", cookies[0]).with("cookie", cookies[1]);
        assert_eq!(found(&world.send(&mut Browser::default(), &ask)), "bad_request transaction_missing");
    }
    assert_eq!(world.exchanges, 0);
    assert_eq!(
        found(&world.send(&mut Browser::default(), &Ask::page(&back).with("cookie", &own))),
        "redirect login_completed"
    );
}

#[test]
fn a_login_is_finished_once() {
    let mut world = World::new(config());
    let mut ada = Browser::default();
    let asked = world.set_out(&mut ada, "/");
    let kept = ada.clone();
    let code = world.grant(&asked, json!({}));
    let back = callback(&asked["state"], &code);
    assert_eq!(found(&world.go(&mut Browser::default(), &back)), "bad_request transaction_missing", "another browser");
    assert_eq!(world.exchanges, 0);
    assert_eq!(found(&world.go(&mut ada, &back)), "redirect login_completed");
    assert_eq!(found(&world.go(&mut ada, &back)), "bad_request transaction_missing", "the same again");
    assert_eq!(world.exchanges, 1);
    assert_eq!(
        found(&world.go(&mut kept.clone(), &back)),
        "bad_request token_exchange_failed",
        "with a cookie that was kept"
    );

    // The code of another login: the provider knows by the verifier, the gate by the nonce.
    for (careless, expected) in [(false, "bad_request token_exchange_failed"), (true, "forbidden nonce_mismatch")] {
        world.careless = careless;
        let asked = world.set_out(&mut ada.clone(), "/salary");
        let stolen = world.grant(&asked, json!({ "amr": ["mfa"] }));
        let mut mallory = Browser::default();
        for code in [stolen, code.clone()] {
            let own = world.set_out(&mut mallory, "/");
            assert_eq!(found(&world.go(&mut mallory, &callback(&own["state"], &code))), expected);
            assert_eq!(mallory.token(), None);
        }
    }

    world.now += 600;
    assert_eq!(found(&world.go(&mut kept.clone(), &back)), "bad_request transaction_expired");
}

#[test]
fn another_providers_answer_is_no_answer() {
    let mut world = World::new(config());
    let issuers = [
        "",
        "https://idp.test",
        "https://idp.test//",
        "https://IDP.test/",
        "https://idp.test/ ",
        "https://idp.test/%2e",
        "https%253a//idp.test/",
        "https://evil.example/",
        "null",
        "https://idp.test/,https://idp.test/",
    ];
    let with_issuer = issuers.map(|issuer| (format!("&iss={issuer}"), "response_issuer_mismatch"));
    let twice = [
        (String::new(), "response_issuer_mismatch"),
        (format!("&iss={ISSUER}&iss={ISSUER}"), "callback_malformed"),
        (format!("&iss={ISSUER}&iss=https://evil.example/"), "callback_malformed"),
        (format!("&issuer={ISSUER}&ISS={ISSUER}"), "response_issuer_mismatch"),
    ];
    for (parameters, expected) in with_issuer.into_iter().chain(twice) {
        for outcome in ["code=0", "error=access_denied"] {
            let mut ada = Browser::default();
            let asked = world.set_out(&mut ada, "/");
            let decision = world.go(&mut ada, &format!("/callback?state={}&{outcome}{parameters}", asked["state"]));
            assert_eq!(found(&decision), format!("bad_request {expected}"), "{parameters:?}");
        }
    }
    assert_eq!(world.exchanges, 0, "no code is taken to the wrong provider");

    // The right endpoint, and what another provider, or this one for another client, has issued.
    let others = [
        (json!({ "key": "ec", "claims": { "iss": "https://evil.example/" } }), "issuer_mismatch"),
        (json!({ "key": "ec", "claims": { "aud": "another" } }), "audience_mismatch"),
        (json!({ "key": "ec", "claims": { "aud": ["another", "client"], "azp": "another" } }), "audience_mismatch"),
        (json!({ "key": "ed", "header": { "kid": "ec" } }), "algorithm_not_allowed"),
        (json!({ "key": "rsa", "header": { "alg": "ES256", "kid": "ec" } }), "signature_invalid"),
        (json!({ "key": "secret", "header": { "kid": "ec" } }), "algorithm_not_allowed"),
        (json!({ "key": "ec", "mangle": "tampered_claims" }), "signature_invalid"),
        (json!({ "key": "ec", "claims": { "nonce": null } }), "nonce_mismatch"),
    ];
    for (specification, expected) in others {
        let mut ada = Browser::default();
        let asked = world.set_out(&mut ada, "/salary");
        let claims = json!({ "amr": ["mfa"], "nonce": asked["nonce"] });
        let mut specification = specification;
        let own = specification["claims"].as_object().cloned().unwrap_or_default();
        specification["claims"] = claims;
        specification["claims"].as_object_mut().unwrap().extend(own);
        let code = world.grant_token(&asked, specification);
        let decision = world.go(&mut ada, &callback(&asked["state"], &code));
        assert_eq!(found(&decision), format!("forbidden {expected}"));
        assert!(ada.0.is_empty(), "{:?}", ada.0.keys());
    }
}

#[test]
fn nobody_is_logged_in_as_somebody_else() {
    let mut world = World::new(config());
    let mut mallory = Browser::default();
    let asked = world.set_out(&mut mallory, "/");
    let code = world.grant(&asked, json!({ "sub": "mallory" }));
    let back = callback(&asked["state"], &code);
    let (name, sealed) = mallory.transactions().next().map(|(name, sealed)| (name.clone(), sealed.clone())).unwrap();

    let mut ada = world.log_in("/", json!({ "sub": "ada" }));
    let token = ada.token().cloned();
    let exchanges = world.exchanges;
    assert_eq!(found(&world.go(&mut ada, &back)), "bad_request transaction_missing");
    let own = world.set_out(&mut ada, "/salary");
    assert_eq!(found(&world.go(&mut ada, &back)), "bad_request transaction_missing", "beside a login of her own");
    assert_eq!(
        found(&world.go(&mut ada.clone(), &callback(&own["state"], &code))),
        "bad_request token_exchange_failed"
    );
    let mut tossed = ada.clone();
    tossed.0.insert(format!("{TRANSACTION}{}", own["state"]), sealed.clone());
    assert_eq!(found(&world.go(&mut tossed, &callback(&own["state"], &code))), "bad_request transaction_missing");
    assert_eq!(world.exchanges, exchanges + 1);
    // Even in her browser, his login is not hers while she is logged in.
    ada.0.insert(name, sealed);
    assert_eq!(found(&world.go(&mut ada, &back)), "forbidden subject_mismatch");
    assert_eq!(ada.token(), token.as_ref());
}

#[test]
fn a_step_up_stays_with_its_person() {
    let mut world = World::new(config());
    for other in ["bob", "Ada", "ada ", "ada\0", "\u{430}da", "ad", "adaa"] {
        let mut ada = world.log_in("/", json!({ "sub": "ada" }));
        let token = ada.token().cloned();
        let asked = world.set_out(&mut ada, "/salary");
        let code = world.grant(&asked, json!({ "sub": other, "amr": ["mfa"] }));
        let back = callback(&asked["state"], &code);
        let mut logged_out = ada.clone();
        logged_out.0.remove("id_token");
        assert_eq!(found(&world.go(&mut ada, &back)), "forbidden subject_mismatch", "{other:?}");
        assert_eq!(ada.token(), token.as_ref());
        world.careless = true;
        assert_eq!(found(&world.go(&mut logged_out, &back)), "forbidden subject_mismatch", "{other:?}: it is sealed");
        world.careless = false;
    }

    // Two logins at once: who is there first stays.
    let (mut tabs, mut last) = (Browser::default(), Parameters::new());
    for sub in ["ada", "bob"] {
        let asked = world.set_out(&mut tabs, "/");
        let code = world.grant(&asked, json!({ "sub": sub }));
        last.insert(sub.to_owned(), callback(&asked["state"], &code));
    }
    assert_eq!(found(&world.go(&mut tabs, &last["ada"])), "redirect login_completed");
    assert_eq!(found(&world.go(&mut tabs, &last["bob"])), "forbidden subject_mismatch");
}

#[test]
fn a_login_for_less_does_not_open_more() {
    let mut world = World::new(config());
    let weak = json!({ "amr": ["pwd"] });
    let mut ada = world.log_in("/", weak.clone());
    assert_eq!(found(&world.go(&mut ada, "/")), "forward satisfied");
    assert_eq!(found(&world.go(&mut ada, "/salary")), "redirect amr_insufficient");

    // Begun for the second factor, which somebody takes out of the request on its way.
    let mut mallory = Browser::default();
    let mut asked = world.set_out(&mut mallory, "/salary");
    for attempt in 1..=3 {
        let code = world.grant(&asked, weak.clone());
        let decision = world.go(&mut mallory, &callback(&asked["state"], &code));
        let expected = if attempt < 3 { "redirect amr_insufficient" } else { "forbidden step_up_failed" };
        assert_eq!((found(&decision).as_str(), mallory.token()), (expected, None));
        asked = world.asked.clone();
    }

    // The answer to the one, in place of that to the other.
    for (careless, expected) in [(false, "bad_request token_exchange_failed"), (true, "forbidden nonce_mismatch")] {
        world.careless = careless;
        let mut tabs = Browser::default();
        let (weak_one, strong_one) = (world.set_out(&mut tabs, "/"), world.set_out(&mut tabs, "/salary"));
        let code = world.grant(&weak_one, weak.clone());
        assert_eq!(found(&world.go(&mut tabs, &callback(&strong_one["state"], &code))), expected);
        assert_eq!(tabs.token(), None);
    }
}

#[test]
fn parts_of_two_logins_make_none() {
    let mut world = World::new(config());
    let two = |world: &mut World| {
        let mut browser = Browser::default();
        let both = [world.set_out(&mut browser, "/a"), world.set_out(&mut browser, "/b")];
        (browser, both)
    };
    for (careless, expected) in [(false, "bad_request token_exchange_failed"), (true, "forbidden nonce_mismatch")] {
        world.careless = careless;
        // The codes.
        let (mut browser, [first, second]) = two(&mut world);
        let code = world.grant(&second, json!({}));
        assert_eq!(found(&world.go(&mut browser, &callback(&first["state"], &code))), expected);
        // The challenges, as the provider was asked.
        let (mut browser, [mut first, second]) = two(&mut world);
        first.insert("code_challenge".to_owned(), second["code_challenge"].clone());
        let code = world.grant(&first, json!({}));
        let expected = if careless { "redirect login_completed" } else { expected };
        assert_eq!(found(&world.go(&mut browser, &callback(&first["state"], &code))), expected);
    }
    world.careless = false;
    // The nonces.
    let (mut browser, [mut first, second]) = two(&mut world);
    first.insert("nonce".to_owned(), second["nonce"].clone());
    let code = world.grant(&first, json!({}));
    assert_eq!(found(&world.go(&mut browser, &callback(&first["state"], &code))), "forbidden nonce_mismatch");
    // The cookies.
    let (mut browser, [first, second]) = two(&mut world);
    let names = [&first, &second].map(|asked| format!("{TRANSACTION}{}", asked["state"]));
    let values = [&names[1], &names[0]].map(|name| browser.0[name].clone());
    browser.0.extend(names.into_iter().zip(values));
    let exchanges = world.exchanges;
    for asked in [first, second] {
        let code = world.grant(&asked, json!({}));
        assert_eq!(
            found(&world.go(&mut browser, &callback(&asked["state"], &code))),
            "bad_request transaction_missing"
        );
    }
    // A link is no transaction, and a transaction is no link.
    let decision = world.send(&mut Browser::default(), &Ask { headers: vec![SCRIPT], ..Ask::page("/salary") });
    let link = links(&decision).remove(0);
    let (_, start) = link.split_once("step_up=").unwrap();
    let state = "A".repeat(22);
    let mut browser = Browser(BTreeMap::from([(format!("{TRANSACTION}{state}"), start.to_owned())]));
    assert_eq!(found(&world.go(&mut browser, &callback(&state, "0"))), "bad_request transaction_missing");
    world.set_out(&mut browser, "/salary");
    let (_, sealed) = browser.transactions().last().unwrap();
    let target = format!("/callback?step_up={sealed}");
    assert_eq!(found(&world.go(&mut Browser::default(), &target)), "bad_request transaction_missing");
    assert_eq!(world.exchanges, exchanges);
}

#[test]
fn no_elevation_is_set_before_it_is_proven() {
    let mut config = config();
    config["rules"] = json!([
        { "paths": ["/**"], "require": {} },
        { "paths": ["/salary/**"], "require": { "amr": { "all_of": ["mfa", "hwk"] }, "acr": "gold", "max_age": "5m" } },
    ]);
    let mut world = World::new(config);
    let good = json!({ "sub": "ada", "amr": ["mfa", "hwk"], "acr": "gold", "auth_time": NOW });
    let failing = [
        ("amr", json!(null), "amr_missing"),
        ("amr", json!(["mfa"]), "amr_insufficient"),
        ("amr", json!("mfa hwk"), "token_malformed"),
        ("acr", json!("silver"), "acr_insufficient"),
        ("auth_time", json!(null), "auth_time_missing"),
        ("auth_time", json!(NOW - 301), "auth_too_old"),
        ("auth_time", json!(NOW + 3600), "token_not_yet_valid"),
        ("exp", json!(NOW - 3600), "token_expired"),
    ];
    for (claim, value, expected) in failing {
        let mut ada = world.log_in("/", json!({ "sub": "ada" }));
        let token = ada.token().cloned();
        let asked = world.set_out(&mut ada, "/salary");
        let mut claims = good.clone();
        claims[claim] = value;
        let code = world.grant(&asked, claims);
        let decision = world.go(&mut ada, &callback(&asked["state"], &code));
        assert_eq!(decision.reason.code(), expected);
        assert_eq!(ada.token(), token.as_ref(), "{expected}: the old token stays");
        assert_ne!(world.go(&mut ada, "/salary").kind, DecisionKind::Forward);
    }
    let mut ada = world.log_in("/salary", good);
    assert_eq!(found(&world.go(&mut ada, "/salary")), "forward satisfied");
}

#[test]
fn a_forged_count_opens_nothing() {
    let mut world = World::new(config());
    let weak = json!({ "sub": "ada", "amr": ["pwd"] });
    let mut ada = Browser::default();
    let asked = world.set_out(&mut ada, "/salary");
    let code = world.grant(&asked, json!({ "sub": "ada", "amr": ["mfa"] }));
    world.go(&mut ada, &callback(&asked["state"], &code));
    let count = ada.0[ATTEMPTS].clone();
    let (fingerprint, _) = count.split_once('.').unwrap();
    let numbers = [
        "0",
        "1",
        "2",
        "3",
        "4294967295",
        "4294967296",
        "-1",
        "+3",
        "03",
        "3.5",
        "",
        " 3",
        "x",
        "99999999999999999999999",
    ];
    for number in numbers {
        for time in ["0", &NOW.to_string(), "18446744073709551615", "18446744073709551616", "-1", "", "x"] {
            let forged = format!("{fingerprint}.{number}.{time}");
            let mut mallory = Browser(BTreeMap::from([(ATTEMPTS.to_owned(), forged.clone())]));
            let kind = world.go(&mut mallory, "/salary").kind;
            assert!(matches!(kind, DecisionKind::Redirect | DecisionKind::Forbidden), "{forged}: {kind:?}");
            ada.0.insert(ATTEMPTS.to_owned(), forged);
            assert_eq!(found(&world.go(&mut ada, "/salary")), "forward satisfied", "nor does it close anything");
            for name in look_alikes(ATTEMPTS) {
                let mut tossed = Browser(BTreeMap::from([(name.clone(), format!("{fingerprint}.3.{NOW}"))]));
                assert_eq!(world.go(&mut tossed, "/salary").kind, DecisionKind::Redirect, "{name:?}");
            }
        }
    }

    // Within a login the count is sealed.
    let mut loops = Browser::default();
    let mut asked = world.set_out(&mut loops, "/salary");
    let reasons: Vec<String> = (0..3)
        .map(|_| {
            loops.0.insert(ATTEMPTS.to_owned(), format!("{fingerprint}.0.{NOW}"));
            let code = world.grant(&asked, weak.clone());
            let decision = world.go(&mut loops, &callback(&asked["state"], &code));
            asked = world.asked.clone();
            found(&decision)
        })
        .collect();
    assert_eq!(reasons, ["redirect amr_insufficient", "redirect amr_insufficient", "forbidden step_up_failed"]);
}

#[test]
fn the_security_policy_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ")).skip(2);
    for row in rows {
        let (_, tests) = row.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        let paths: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!paths.is_empty(), "{row}");
        for path in paths {
            assert!(root.join(path).exists(), "SECURITY.md: there is no `{path}`");
        }
    }
}
