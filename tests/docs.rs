//! The documentation, held to its word: every gate configuration in it is accepted, the reference names what the
//! configuration has, the answers that it shows are the ones that the gate gives, and what it points to is there.
//!
//! A fenced block tells by the words behind its fence what it is, and each kind is checked here or, where that needs
//! Envoy or JavaScript, in `tests/e2e/docs.test.mjs`. A kind that nobody checks is an error.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use stepgate::config::fields;
use stepgate::http::{Request, Response};
use stepgate::oidc::RESERVED_PARAMETERS;
use stepgate::time::Timestamp;
use stepgate::{Config, Decision, DecisionKind, Env, Gate, Outcome, Reason, Step};

#[path = "docs/markdown.rs"]
mod markdown;

use markdown::{Block, Page, spans};

/// Every kind of block.
const KINDS: [&str; 21] = [
    "yaml stepgate",           // a gate configuration
    "yaml stepgate example",   // the one of the page's examples
    "yaml stepgate-part",      // laid over the smallest one it is one
    "json stepgate-part",      //
    "yaml envoy http_filters", // Envoy accepts it: tests/e2e/docs.test.mjs; so with the next four
    "yaml envoy vm_config",
    "yaml envoy clusters",
    "yaml envoy bootstrap",
    "yaml envoy access_log",
    "yaml istio", // must be YAML, its access log must be ours; so with the next two
    "yaml envoy-gateway",
    "yaml prometheus", // and its expressions must match: tests/e2e/docs.test.mjs
    "json",            // must be JSON
    "http request",    // a request, and the answer behind it must be the gate's
    "http",
    "js auth0-action", // is run: tests/e2e/docs.test.mjs
    "js",              // from demo/, shortened
    "sh",              // only commands that are known
    "text",
    "text problems", // what a configuration with these problems is answered with
    "text state",    // the `state` of the page's first example
];

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn pages() -> Vec<Page> {
    let docs = std::fs::read_dir(root("docs")).expect("docs/");
    let mut paths: Vec<String> =
        docs.map(|entry| format!("docs/{}", entry.expect("an entry").file_name().display())).collect();
    paths.sort();
    paths.insert(0, "README.md".to_owned());
    assert!(paths.iter().all(|path| path.ends_with(".md")), "{paths:?}");
    paths.iter().map(|path| Page::read(path)).collect()
}

fn yaml(text: &str, place: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{place}: {error}"))
}

fn yaml_file(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Laid over it (RFC 7396).
fn merged(mut base: Value, over: &Value) -> Value {
    match (&mut base, over) {
        (Value::Object(members), Value::Object(changes)) => {
            for (name, change) in changes {
                let member = members.remove(name).unwrap_or(Value::Null);
                members.insert(name.clone(), merged(member, change));
            }
            base
        }
        _ => over.clone(),
    }
}

/// The smallest useful configuration, as the reference has it.
fn smallest() -> Value {
    let page = Page::read("docs/configuration.md");
    let block = page.block("yaml stepgate");
    yaml(&block.text, &block.place)
}

fn accepted(config: &Value, place: &str) -> Config {
    let env = |_: &str| Some(SECRET.to_owned());
    Config::from_value(config, &env).unwrap_or_else(|errors| panic!("{place}: {errors}"))
}

fn refusal(config: &Value) -> String {
    match Config::from_value(config, &|_| None) {
        Ok(_) => String::new(),
        Err(errors) => errors.to_string(),
    }
}

/// The gate configuration of a block, if it is one.
fn gate_configuration(block: &Block) -> Option<Value> {
    match block.info.as_str() {
        "yaml stepgate" | "yaml stepgate example" => Some(yaml(&block.text, &block.place)),
        "yaml stepgate-part" => {
            let part = yaml(&block.text, &block.place);
            // A part that sets keys of its own has no use for the cluster, and says so.
            Some(merged(smallest(), &part))
        }
        "json stepgate-part" => {
            let part = serde_json::from_str(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.place));
            Some(merged(smallest(), &part))
        }
        _ => None,
    }
}

#[test]
fn every_block_is_of_a_kind_that_is_checked() {
    let mut found = BTreeSet::new();
    for block in pages().iter().flat_map(Page::blocks) {
        assert!(KINDS.contains(&block.info.as_str()), "{}: nobody checks a block `{}`", block.place, block.info);
        match block.info.split(' ').next() {
            Some("yaml") => drop(yaml(&block.text, &block.place)),
            Some("json") => {
                let _: Value =
                    serde_json::from_str(&block.text).unwrap_or_else(|error| panic!("{}: {error}", block.place));
            }
            _ => {}
        }
        found.insert(block.info);
    }
    assert_eq!(found, KINDS.into_iter().map(str::to_owned).collect(), "every kind has a block");
}

#[test]
fn every_gate_configuration_is_accepted() {
    let mut count = 0;
    for block in pages().iter().flat_map(Page::blocks) {
        if let Some(config) = gate_configuration(&block) {
            accepted(&config, &block.place);
            count += 1;
        }
    }
    assert!(count >= 15, "only {count}");
}

/// The gate configurations inside configurations of hosts.
mod embedded {
    use super::*;

    /// Calls `visit` with every object in a tree.
    fn objects(tree: &Value, visit: &mut dyn FnMut(&Map<String, Value>)) {
        match tree {
            Value::Object(members) => {
                visit(members);
                members.values().for_each(|member| objects(member, visit));
            }
            Value::Array(items) => items.iter().for_each(|item| objects(item, visit)),
            _ => {}
        }
    }

    fn texts(list: &Value) -> impl Iterator<Item = String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned)
    }

    /// The environment variables that reach the module.
    fn environment(tree: &Value) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        objects(tree, &mut |object| {
            for list in ["host_env_keys", "hostKeys"] {
                names.extend(texts(object.get(list).unwrap_or(&Value::Null)));
            }
            let listed = object.get("vmConfig").and_then(|vm| vm["env"].as_array()).into_iter().flatten();
            names.extend(listed.filter_map(|variable| variable["name"].as_str()).map(str::to_owned));
        });
        names
    }

    /// The gate configuration in a host's, as the module gets it. With it everything that must be so around it.
    fn of(tree: &Value, place: &str) -> Value {
        let mut found = Vec::new();
        objects(tree, &mut |object| {
            if let Some(any) = object.get("configuration") {
                found.push(match any["@type"].as_str() {
                    Some("type.googleapis.com/google.protobuf.Struct") => any["value"].clone(),
                    Some("type.googleapis.com/google.protobuf.StringValue") => {
                        let text = any["value"].as_str().expect("a string");
                        serde_json::from_str(text).unwrap_or_else(|error| panic!("{place}: {error}"))
                    }
                    other => panic!("{place}: `configuration` is a {other:?}"),
                });
                assert!(object.contains_key("failure_policy"), "{place}: the policy is told");
            }
            found.extend(object.get("pluginConfig").cloned());
            if object.contains_key("code") && !object.contains_key("vm_id") {
                found.extend(object.get("config").cloned());
            }
            for (name, open) in [("failure_policy", "FAIL_OPEN"), ("failStrategy", "FAIL_OPEN")] {
                assert_ne!(object.get(name), Some(&json!(open)), "{place}: never fail open");
            }
            for name in ["fail_open", "failOpen"] {
                assert_ne!(object.get(name), Some(&json!(true)), "{place}: never fail open");
            }
        });
        assert_eq!(found.len(), 1, "{place}: one gate configuration");
        let variables = environment(tree);
        let config = found.remove(0);
        let env = |name: &str| variables.contains(name).then(|| SECRET.to_owned());
        Config::from_value(&config, &env).unwrap_or_else(|errors| panic!("{place}: {errors}"));
        config
    }

    #[test]
    fn in_the_pages() {
        let blocks: Vec<Block> = pages().iter().flat_map(Page::blocks).collect();
        let filters: Vec<&Block> = blocks.iter().filter(|block| block.info == "yaml envoy http_filters").collect();
        assert!(filters.len() >= 2);
        for block in filters {
            of(&yaml(&block.text, &block.place), &block.place);
        }
    }

    #[test]
    fn in_envoy_yaml() {
        let path = "envoy/envoy.yaml";
        let documents = yaml_file(path);
        let [document] = documents.as_slice() else { panic!("{path}: one document") };
        let config = of(document, path);
        let clusters = document["static_resources"]["clusters"].as_array().expect("clusters");
        assert!(clusters.iter().any(|cluster| cluster["name"] == config["provider"]["cluster"]));
    }

    #[test]
    fn in_istio_wasmplugin_yaml() {
        let path = "envoy/istio-wasmplugin.yaml";
        let documents = yaml_file(path);
        let [plugin, entry, destination] = documents.as_slice() else { panic!("{path}: three documents") };
        let config = of(plugin, path);

        kubernetes(plugin, "extensions.istio.io/v1alpha1", "WasmPlugin");
        known(&plugin["spec"], "selector url sha256 phase failStrategy vmConfig pluginConfig");
        assert_eq!(plugin["spec"]["phase"], "AUTHN");
        module(&plugin["spec"]);
        let variables = plugin["spec"]["vmConfig"]["env"].as_array().expect("variables");
        variables.iter().for_each(|variable| known(variable, "name valueFrom value"));

        kubernetes(entry, "networking.istio.io/v1", "ServiceEntry");
        known(&entry["spec"], "exportTo hosts location resolution ports");
        kubernetes(destination, "networking.istio.io/v1", "DestinationRule");
        known(&destination["spec"], "exportTo host trafficPolicy");
        known(&destination["spec"]["trafficPolicy"], "portLevelSettings");
        let settings = &destination["spec"]["trafficPolicy"]["portLevelSettings"][0];
        known(&settings["tls"], "mode sni caCertificates subjectAltNames");

        let host = issuer_host(&config);
        assert_eq!(config["provider"]["cluster"], format!("outbound|443||{host}"));
        assert_eq!(entry["spec"]["hosts"], json!([host]));
        assert_eq!(entry["spec"]["ports"][0]["number"], 443);
        assert_eq!(destination["spec"]["host"], host);
        assert_eq!(settings["port"]["number"], 443);
        assert_eq!(settings["tls"]["sni"], host);
        assert_eq!(settings["tls"]["subjectAltNames"], json!([host]));
    }

    #[test]
    fn in_envoy_gateway_yaml() {
        let path = "envoy/envoy-gateway.yaml";
        let documents = yaml_file(path);
        let [policy, patch] = documents.as_slice() else { panic!("{path}: two documents") };
        let config = of(policy, path);

        kubernetes(policy, "gateway.envoyproxy.io/v1alpha1", "EnvoyExtensionPolicy");
        known(&policy["spec"], "targetRefs wasm");
        let wasm = &policy["spec"]["wasm"][0];
        known(wasm, "name code failOpen env config");
        known(&wasm["env"], "hostKeys");
        known(&wasm["code"], "type http");
        assert_eq!(wasm["code"]["type"], "HTTP");
        known(&wasm["code"]["http"], "url sha256");
        module(&wasm["code"]["http"]);

        kubernetes(patch, "gateway.envoyproxy.io/v1alpha1", "EnvoyPatchPolicy");
        known(&patch["spec"], "targetRef type jsonPatches");
        assert_eq!(patch["spec"]["targetRef"], policy["spec"]["targetRefs"][0]);
        let patch = &patch["spec"]["jsonPatches"][0];
        known(patch, "type name operation");
        known(&patch["operation"], "op path value");
        let cluster = &patch["operation"]["value"];
        assert_eq!(patch["name"], cluster["name"]);
        assert_eq!(config["provider"]["cluster"], cluster["name"]);
        let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        assert_eq!(endpoint["address"]["socket_address"]["address"], issuer_host(&config));
        assert_eq!(cluster["transport_socket"]["typed_config"]["sni"], issuer_host(&config));
    }

    fn kubernetes(resource: &Value, version: &str, kind: &str) {
        known(resource, "apiVersion kind metadata spec");
        assert_eq!((&resource["apiVersion"], &resource["kind"]), (&json!(version), &json!(kind)));
        known(&resource["metadata"], "name namespace");
        assert!(resource["metadata"]["namespace"].is_string());
    }

    /// Exactly these fields, all of them of the API.
    fn known(object: &Value, names: &str) {
        let members: BTreeSet<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(members, names.split(' ').collect());
    }

    fn module(source: &Value) {
        let digest = source["sha256"].as_str().expect("a string, not a number");
        assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(source["url"].as_str().is_some_and(|url| url.starts_with("https://")));
    }

    fn issuer_host(config: &Value) -> String {
        let issuer: ::http::Uri = config["provider"]["issuer"].as_str().expect("an issuer").parse().expect("a URL");
        issuer.host().expect("a host").to_owned()
    }
}

/// The tables of `docs/configuration.md` against the configuration itself.
mod reference {
    use super::*;

    /// Each table: its heading, the fields, where an object of that kind stands, and a document that has one.
    fn tables() -> Vec<(&'static str, Vec<&'static str>, &'static str, Value)> {
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
        ]
    }

    const NOT_SUPPORTED: [&str; 2] = ["callback", "forward"];

    fn page() -> Page {
        Page::read("docs/configuration.md")
    }

    /// The document with one field set, or taken away.
    fn set(document: &Value, at: &str, field: &str, value: Option<Value>) -> Value {
        let mut document = document.clone();
        let object = document.pointer_mut(at).and_then(Value::as_object_mut).expect("an object");
        match value {
            Some(value) => object.insert(field.to_owned(), value),
            None => object.remove(field),
        };
        document
    }

    fn the_span(cell: &str) -> Option<String> {
        let spans = spans(cell);
        (spans.len() == 1 && cell == format!("`{}`", spans[0])).then(|| spans[0].clone())
    }

    #[test]
    fn names_every_field_in_order_and_no_other() {
        for (heading, fields, ..) in tables() {
            let named: Vec<String> =
                page().table(heading).iter().map(|row| the_span(&row[0]).expect("a name")).collect();
            assert_eq!(named, fields, "{heading}");
        }
    }

    #[test]
    fn defaults_are_what_happens_without_the_field() {
        let mut checked = 0;
        for (heading, _, at, document) in tables() {
            let without = format!("{:?}", accepted(&document, heading));
            for row in page().table(heading) {
                let (field, default) = (the_span(&row[0]).expect("a name"), &row[2]);
                if default == "required" {
                    let place = format!("{}{field}: missing", place(at));
                    let refused = refusal(&set(&document, at, &field, None));
                    assert!(refused.contains(&place), "{heading} {field}: {refused}");
                } else if let Some(default) = the_span(default) {
                    let explicit = set(&document, at, &field, Some(yaml(&default, &field)));
                    let with = format!("{:?}", accepted(&explicit, &format!("{heading} {field}")));
                    assert_eq!(with, without, "{heading} {field}: `{default}` is not what happens without it");
                } else {
                    assert!(
                        ["discovered", "chosen", "the first path", "every host", "every method"]
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
    enum Accepted {
        Range(String, String),
        Words(Vec<String>),
    }

    fn told(refused: &str) -> Option<Accepted> {
        let line = refused.lines().nth(1)?;
        let accepted = line.split_once("must be ")?.1;
        if let Some((_, words)) = accepted.split_once("one of `") {
            let list = words.split_once(", got").map_or(words, |(list, _)| list);
            return Some(Accepted::Words(spans(&format!("`{list}"))));
        }
        let range =
            accepted.strip_prefix("a duration from ").or_else(|| accepted.strip_prefix("a whole number from "))?;
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
        assert_eq!(checked, 13, "ranges and lists of words");
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for row in page().table("## The document") {
            let field = the_span(&row[0]).expect("a name");
            let refused = refusal(&set(&smallest(), "", &field, Some(json!({}))));
            let told = refused.contains(&format!("{field}: not supported yet"));
            assert_eq!(told, NOT_SUPPORTED.contains(&field.as_str()), "{field}: {refused}");
            assert_eq!(told, row[3] == "not supported yet", "{field}");
        }
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
            (
                "provider.jwks: contradicts",
                json!({ "provider": { "jwks": { "keys": [] }, "jwks_uri": "https://a/k" } }),
            ),
            ("must not be shorter", json!({ "provider": { "refresh": "2h", "max_stale": "1h" } })),
            ("provider.authorization_endpoint: missing", json!({ "provider": { "jwks": { "keys": [key()] } } })),
            ("HS256 needs `client.secret`", json!({ "token": { "algorithms": ["HS256"] } })),
            ("of at least 32 bytes", json!({ "token": { "algorithms": ["HS256"] }, "client": { "secret": "short" } })),
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
        ];
        for (refused, over) in cases {
            let told = refusal(&merged(smallest(), &over));
            assert!(told.contains(refused), "{over}: {told}");
        }
        // The last row is Envoy's, and two rows have two cases.
        let rows = page().table("## Contradictions that are refused").len();
        assert_eq!(rows - 1 + 2, cases_count(), "a row without a case");
    }

    const fn cases_count() -> usize {
        12
    }

    fn key() -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })
    }

    /// Every `MAX_…`, `MIN_…` and the like of the source, with its value.
    fn limits() -> BTreeSet<(String, u64)> {
        let mut limits = BTreeSet::new();
        let mut directories = vec![root("src")];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).expect("a directory") {
                let path = entry.expect("an entry").path();
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
        let constant = line.strip_prefix("pub const ").or_else(|| line.strip_prefix("const "))?;
        let (name, rest) = constant.split_once(": ")?;
        let bound = ["MAX_", "MIN_"].iter().any(|prefix| name.starts_with(prefix));
        let named = ["UNKNOWN_KID_COOLDOWNS", "LEASE_MARGIN", "ATTEMPTS_LIFETIME_SECS"].contains(&name);
        let (_, expression) = rest.trim_end_matches(';').split_once(" = ")?;
        if !bound && !named || name == "MAX_SHOWN" || expression.contains("..=") {
            return None;
        }
        let product =
            |text: &str| text.split(" * ").map(|factor| factor.replace('_', "").parse::<u64>().ok()).product();
        let value: Option<u64> = if expression == "(1 << 53) - 1" {
            Some((1 << 53) - 1)
        } else if let Some(seconds) = expression.strip_prefix("Duration::from_secs(") {
            product(seconds.trim_end_matches(')')).map(|seconds: u64| seconds * 1000)
        } else if let Some(millis) = expression.strip_prefix("Duration::from_millis(") {
            product(millis.trim_end_matches(')'))
        } else {
            product(expression)
        };
        Some((name.to_owned(), value.unwrap_or_else(|| panic!("{line}"))))
    }

    /// A value as the page writes it; durations in milliseconds.
    fn written(text: &str) -> u64 {
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
    fn limits_are_all_named_with_their_values() {
        let rows = page().table("## Limits");
        let named: BTreeSet<(String, u64)> =
            rows.iter().map(|row| (the_span(&row[0]).expect("a name"), written(&row[1]))).collect();
        assert_eq!(named, limits());
    }
}

/// A gate that runs a request through the library.
struct Asker {
    config: Value,
}

impl Asker {
    /// With the client secret as key, so that tokens can be made here.
    fn new(config: &Value) -> Self {
        let hs256 = json!({ "token": { "algorithms": ["HS256"] }, "client": { "secret": SECRET } });
        Self { config: merged(config.clone(), &hs256) }
    }

    fn token(&self, claims: &Value) -> String {
        let now = now().as_millis() / 1000;
        let claims = merged(
            json!({
                "iss": self.config["provider"]["issuer"], "aud": self.config["client"]["id"], "sub": "somebody",
                "iat": now, "exp": now + 600, "auth_time": now,
            }),
            claims,
        );
        let parts = [json!({ "alg": "HS256" }), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = parts.join(".");
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
        mac.update(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    fn ask(&self, method: &str, authority: &str, path: &str, headers: &[(String, String)]) -> Decision {
        let mut gate = Gate::new(accepted(&self.config, "the example"));
        let headers = headers.to_vec();
        let request = Request {
            method: method.as_bytes(),
            authority: authority.as_bytes(),
            path: path.as_bytes(),
            fields: &headers,
        };
        let env = Env { now: now(), entropy: &|| [7; 32] };
        let mut step = gate.begin(&request, env);
        loop {
            step = match step {
                Step::Done(decision) => return decision,
                Step::Verify(_, pending) => gate.resume(pending, Outcome::Unsupported, env),
                Step::Fetch(fetch, _) => panic!("a fetch of {}", fetch.url),
            };
        }
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    Timestamp::from_secs(since.as_secs())
}

/// The message of an `http` block: its first line, its fields, its body.
fn message(block: &Block) -> (String, Vec<(String, String)>, String) {
    let (head, body) = block.text.split_once("\n\n").unwrap_or((&block.text, ""));
    let mut lines = head.lines();
    let first = lines.next().expect("a line").to_owned();
    let field = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
    (
        first,
        lines.map(|line| field(line).unwrap_or_else(|| panic!("{}: {line}", block.place))).collect(),
        body.to_owned(),
    )
}

mod decisions {
    use super::*;

    fn page() -> Page {
        Page::read("docs/decisions.md")
    }

    fn names(heading: &str) -> Vec<String> {
        page().table(heading).iter().map(|row| spans(&row[0]).remove(0)).collect()
    }

    #[test]
    fn every_reason_code_is_named_in_order() {
        assert_eq!(names("## Reason codes"), Reason::CODES);
    }

    #[test]
    fn every_kind_of_decision_is_named() {
        use DecisionKind::{BadRequest, Challenge, Forbidden, Forward, Redirect, Report, Unavailable};
        let kinds = [Forward, Report, Redirect, Challenge, BadRequest, Forbidden, Unavailable];
        assert_eq!(names("## Kinds of decision"), kinds.map(DecisionKind::name));
    }

    #[test]
    fn reasons_that_are_named_anywhere_exist() {
        // A word in a code span that looks like a reason, of the same shape as some of them.
        let looks = |span: &String| {
            ["token_", "amr_", "acr_insuff", "auth_t", "keys_", "step_up_f"].iter().any(|start| span.starts_with(start))
        };
        let claims_and_fields = ["auth_time", "token_endpoint", "amr_values"];
        for page in pages() {
            for span in page.spans().into_iter().filter(looks) {
                let known = Reason::CODES.contains(&span.as_str()) || claims_and_fields.contains(&span.as_str());
                assert!(known, "{}: no reason `{span}`", page.path);
            }
        }
    }

    /// The examples, each a request and the answer to it.
    fn examples() -> Vec<(Block, Block)> {
        let mut examples = Vec::new();
        let mut request = None;
        for block in page().blocks() {
            match block.info.as_str() {
                "http request" => request = Some(block),
                "http" => examples.push((request.take().expect("a request before the answer"), block)),
                _ => {}
            }
        }
        assert!(request.is_none(), "an answer to each request");
        examples
    }

    fn example_config() -> Value {
        let block = page().block("yaml stepgate example");
        yaml(&block.text, &block.place)
    }

    fn answer(asker: &Asker, request: &Block) -> Response {
        let (first, mut headers, _) = message(request);
        let [method, path, _] = first.split(' ').collect::<Vec<_>>()[..] else { panic!("{first}") };
        let password_alone = asker.token(&json!({ "amr": ["pwd"] }));
        headers.iter_mut().for_each(|(_, value)| *value = value.replace("eyJ…", &password_alone));
        let host = headers.iter().position(|(name, _)| name == "host").expect("a host");
        let (_, host) = headers.remove(host);
        asker.ask(method, &host, path, &headers).response.expect("an answer of the gate's own")
    }

    #[test]
    fn the_examples_are_what_the_gate_answers() {
        let asker = Asker::new(&example_config());
        let examples = examples();
        assert_eq!(examples.len(), 3);
        for (request, expected) in examples {
            let given = answer(&asker, &request);
            let (first, headers, body) = message(&expected);
            assert!(first.starts_with(&format!("HTTP/1.1 {} ", given.status)), "{}: {first}", expected.place);
            let given_headers: Vec<(String, String)> =
                given.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
            assert_eq!(given_headers, headers, "{}", expected.place);
            if body.is_empty() {
                assert_eq!(given.body, "", "{}", expected.place);
            } else {
                let (given, expected): (Value, Value) =
                    (serde_json::from_str(&given.body).expect("JSON"), serde_json::from_str(&body).expect("JSON"));
                assert_eq!(given, expected);
            }
        }
    }

    #[test]
    fn the_members_of_a_problem_are_all_named() {
        let members: BTreeSet<String> = page().table("### 401").iter().map(|row| spans(&row[0]).remove(0)).collect();
        let (_, challenge) = examples().into_iter().find(|(_, answer)| answer.text.contains(" 401 ")).expect("a 401");
        let problem: Value = serde_json::from_str(&message(&challenge).2).expect("JSON");
        assert_eq!(members, problem.as_object().expect("an object").keys().cloned().collect());
    }

    #[test]
    fn the_state_is_the_one_of_the_example() {
        let state = page().block("text state").text;
        let (_, answer) = examples().remove(0);
        assert!(answer.text.contains(&format!("&state={}&", state.trim())));
        let (_, path) = state.trim().split_once('.').expect("a dot");
        let path = String::from_utf8(URL_SAFE_NO_PAD.decode(path).expect("base64url")).expect("a path");
        assert!(page().text.contains(&format!("here `{path}`")));
    }

    #[test]
    fn the_third_redirect_is_the_last() {
        let asker = Asker::new(&example_config());
        let mut headers = Vec::new();
        let mut statuses = Vec::new();
        for _ in 0..5 {
            let decision = asker.ask("GET", "app.example.com", "/salary", &headers);
            let response = decision.response.expect("an answer");
            statuses.push(response.status);
            let cookie = response.header("set-cookie").expect("a cookie");
            headers = vec![("cookie".to_owned(), cookie.split(';').next().expect("a pair").to_owned())];
        }
        assert_eq!(statuses, [302, 302, 302, 403, 302]);
    }

    #[test]
    fn what_counts_as_a_navigation() {
        let asker = Asker::new(&example_config());
        let cases: [(&[(&str, &str)], u16); 10] = [
            (&[], 302),
            (&[("accept", "*/*")], 302),
            (&[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")], 302),
            (&[("accept", "application/json")], 401),
            (&[("x-requested-with", "XMLHttpRequest")], 401),
            (&[("sec-fetch-mode", "cors")], 401),
            (&[("sec-fetch-dest", "iframe")], 401),
            (&[("upgrade", "websocket")], 401),
            (&[(":protocol", "websocket")], 401),
            (&[("content-type", "application/grpc")], 401),
        ];
        for (headers, status) in cases {
            let owned: Vec<(String, String)> =
                headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let given = asker.ask("GET", "app.example.com", "/salary", &owned).response.expect("an answer");
            assert_eq!(given.status, status, "{headers:?}");
        }
    }

    #[test]
    fn counters_tags_and_the_access_log_are_those_of_envoy_yaml() {
        let document = yaml_file("envoy/envoy.yaml").remove(0);
        let block = page().block("yaml envoy bootstrap");
        let tags = yaml(&block.text, &block.place);
        assert_eq!(tags["stats_config"]["stats_tags"], document["stats_config"]["stats_tags"]);

        let text = std::fs::read_to_string(root("envoy/envoy.yaml")).expect("a file");
        let formats =
            pages().into_iter().flat_map(|page| page.blocks()).filter(|block| block.text.contains("%START_TIME%"));
        let mut count = 0;
        for block in formats {
            for line in block.text.lines().filter(|line| line.contains('%')) {
                let line = line.trim();
                assert!(text.contains(line), "{}: `{line}` is not in envoy.yaml", block.place);
            }
            assert!(block.text.contains("%FILTER_STATE(wasm.stepgate:PLAIN)%"), "{}", block.place);
            count += 1;
        }
        assert_eq!(count, 3);

        let source = std::fs::read_to_string(root("src/host/envoy/metrics.rs")).expect("a file");
        for counter in names("## Counters") {
            let name = counter.strip_prefix("wasmcustom.").expect("the namespace");
            let mut parts = name.split('.');
            assert!(source.contains(&format!("\"{}", parts.next().expect("a name"))), "{name}");
            for part in parts {
                let (label, _) = part.split_once('=').expect("a label");
                assert!(source.contains(&format!(".{label}=")), "{name}: {label}");
            }
        }
    }
}

#[test]
fn the_way_to_the_login_route_is_as_the_reference_shows_it() {
    let page = Page::read("docs/configuration.md");
    let block = page.blocks().into_iter().find(|block| block.text.contains("login_url: /login")).expect("the example");
    let asker = Asker::new(&gate_configuration(&block).expect("a configuration"));
    let decision = asker.ask("GET", "app.example.com", "/salary?month=6", &[]);
    let response = decision.response.expect("an answer");
    let location = response.header("location").expect("a location");
    assert!(page.text.contains(&format!("`{location}`")), "{location}");
}

#[test]
fn every_link_leads_somewhere() {
    let mut pages = pages();
    pages.push(Page::read("ARCHITECTURE.md"));
    for page in &pages {
        for link in page.links() {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let directory = PathBuf::from(&page.path).parent().expect("a directory").to_owned();
            let target = if file.is_empty() { root(&page.path) } else { root("").join(directory).join(file) };
            assert!(target.exists(), "{}: `{link}` leads nowhere", page.path);
            if let Some(anchor) = anchor {
                let target = Page { path: file.to_owned(), text: std::fs::read_to_string(target).expect("a page") };
                assert!(target.anchors().contains(anchor), "{}: `{link}`: no such heading", page.path);
            }
        }
    }
}

fn make_targets() -> BTreeSet<String> {
    let makefile = std::fs::read_to_string(root("Makefile")).expect("a Makefile");
    let rules = makefile.lines().filter(|line| !line.starts_with(['\t', '.', '#', ' ']));
    rules
        .filter_map(|line| line.split_once(": ").or_else(|| line.strip_suffix(':').map(|name| (name, ""))))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn make_targets_and_files_that_are_named_exist() {
    let targets = make_targets();
    assert!(targets.contains("demo") && targets.contains("dist/stepgate.wasm"), "{targets:?}");
    let directories = ["src/", "docs/", "envoy/", "demo/", "tests/", "tools/", "examples/", "dist/"];
    for page in pages() {
        let blocks: Vec<String> = page
            .blocks()
            .into_iter()
            .flat_map(|block| block.text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        for span in page.spans().iter().chain(&blocks) {
            let path = directories.iter().any(|directory| span.starts_with(directory));
            assert!(!path || targets.contains(span) || root(span).exists(), "{}: there is no `{span}`", page.path);
        }
        for span in page.spans() {
            if let Some(target) = span.strip_prefix("make ") {
                assert!(targets.contains(target), "{}: no target `{span}`", page.path);
            }
        }
    }
}

#[test]
fn commands_are_known_and_do_what_is_said() {
    let targets = make_targets();
    let mut statuses = Vec::new();
    for block in pages().iter().flat_map(Page::blocks).filter(|block| block.info == "sh") {
        for line in block.text.lines() {
            let place = &block.place;
            match line.split_once(' ') {
                Some(("make", target)) => assert!(targets.contains(target), "{place}: {line}"),
                Some(("envoy", rest)) => assert_eq!(rest, "--mode validate -c envoy.yaml", "{place}"),
                Some(("curl", rest)) => statuses.push(curl(rest)),
                _ => panic!("{place}: an unknown command, {line}"),
            }
        }
    }
    assert_eq!(statuses, [302, 401], "as docs/envoy.md says");
}

/// What the smallest gate answers to a `curl`.
fn curl(arguments: &str) -> u16 {
    let (headers, url) = match arguments.strip_prefix("-i -H '").and_then(|rest| rest.split_once("' ")) {
        Some((header, url)) => {
            let (name, value) = header.split_once(": ").expect("a header");
            (vec![(name.to_ascii_lowercase(), value.to_owned())], url)
        }
        None => (vec![("accept".to_owned(), "*/*".to_owned())], arguments.strip_prefix("-i ").expect("-i")),
    };
    let url: http::Uri = url.parse().expect("a URL");
    let endpoint = json!({ "provider": { "authorization_endpoint": "https://tenant.auth0.com/authorize" } });
    let asker = Asker::new(&merged(smallest(), &endpoint));
    let decision = asker.ask("GET", url.host().expect("a host"), url.path(), &headers);
    decision.response.expect("an answer of the gate's own").status
}

#[test]
fn nothing_leads_to_the_machine_it_was_written_on() {
    for page in pages() {
        for word in ["/work/", "/root/", "/tmp/", "shared/", "localhost:5000"] {
            assert!(!page.text.contains(word), "{}: `{word}`", page.path);
        }
    }
    assert!(Page::read("README.md").text.lines().count() <= 130);
}
