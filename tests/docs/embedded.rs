//! The gate configurations inside configurations of hosts.

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
fn passed_on(tree: &Value) -> BTreeSet<String> {
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
    let variables = passed_on(tree);
    let config = found.remove(0);
    let env = |name: &str| super::environment(name).filter(|_| variables.contains(name));
    judge(&config, &env).unwrap_or_else(|errors| panic!("{place}: {errors}"));
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
    for (path, logs_in) in [("envoy/envoy.yaml", true), ("envoy/envoy-own-login.yaml", false)] {
        let documents = yaml_file(path);
        let [document] = documents.as_slice() else { panic!("{path}: one document") };
        let config = of(document, path);
        assert_eq!(config.get("callback").is_some(), logs_in, "{path}");
        let clusters = document["static_resources"]["clusters"].as_array().expect("clusters");
        assert!(clusters.iter().any(|cluster| cluster["name"] == config["provider"]["cluster"]));
    }
}

/// The resource of a kind in a file of Kubernetes resources, of which there is one. Their shape, and what they refer to, is
/// checked in `tests/e2e/kubernetes.test.mjs`.
fn resource(path: &str, kind: &str) -> Value {
    let mut found = yaml_file(path).into_iter().filter(|document| document["kind"] == kind);
    let resource = found.next().unwrap_or_else(|| panic!("{path}: no {kind}"));
    assert!(found.next().is_none(), "{path}: several {kind}");
    resource
}

#[test]
fn in_envoy_dynamic() {
    let path = "envoy/dynamic/gate.yaml";
    let documents = yaml_file(path);
    let [document] = documents.as_slice() else { panic!("{path}: one document") };
    assert_eq!(of(document, path)["callback"], of(&yaml_file("envoy/envoy.yaml")[0], "envoy.yaml")["callback"]);
}

#[test]
fn in_istio_resources() {
    for (path, port) in [("envoy/istio-wasmplugin.yaml", 443), ("envoy/istio-sidecar.yaml", 8443)] {
        let plugin = resource(path, "WasmPlugin");
        let config = of(&plugin, path);
        assert_eq!(plugin["spec"]["phase"], "AUTHN");
        assert_eq!(plugin["spec"]["failStrategy"], "FAIL_CLOSE");
        by_digest(plugin["spec"]["url"].as_str().and_then(|url| url.strip_prefix("oci://")));

        let host = issuer_host(&config);
        let entry = resource(path, "ServiceEntry");
        let destination = resource(path, "DestinationRule");
        let settings = &destination["spec"]["trafficPolicy"]["portLevelSettings"][0];
        assert_eq!(config["provider"]["cluster"], format!("outbound|{port}||{host}"));
        assert_eq!(entry["spec"]["hosts"], json!([host]));
        assert_eq!(entry["spec"]["ports"][0]["number"], port);
        assert_eq!(destination["spec"]["host"], host);
        assert_eq!(settings["port"]["number"], port);
        assert_eq!(settings["tls"]["mode"], "SIMPLE");
        assert_eq!(settings["tls"]["sni"], host);
        assert_eq!(settings["tls"]["subjectAltNames"], json!([host]));
        for resource in [&entry, &destination] {
            assert_eq!(resource["spec"]["exportTo"], json!(["."]));
            assert_eq!(resource["metadata"]["namespace"], plugin["metadata"]["namespace"]);
        }
    }
}

#[test]
fn in_envoy_gateway_yaml() {
    let path = "envoy/envoy-gateway.yaml";
    let policy = resource(path, "EnvoyExtensionPolicy");
    of(&policy, path);
    let image = &policy["spec"]["wasm"][0]["code"]["image"];
    let digest = by_digest(image["url"].as_str());
    assert_eq!(image["sha256"], digest);
}

#[test]
fn a_secret_that_nobody_has_filled_in_is_refused() {
    for (path, kind) in [
        ("envoy/istio-wasmplugin.yaml", "WasmPlugin"),
        ("envoy/istio-sidecar.yaml", "WasmPlugin"),
        ("envoy/envoy-gateway.yaml", "EnvoyExtensionPolicy"),
    ] {
        let config = of(&resource(path, kind), path);
        for empty in ["STEPGATE_CLIENT_SECRET", "STEPGATE_KEY"] {
            let env = |name: &str| if name == empty { Some(String::new()) } else { super::environment(name) };
            assert!(Config::from_value(&config, &env).is_err(), "{path}: `{empty}` is empty");
        }
    }
}

/// The digest by which an image is referred to.
fn by_digest(image: Option<&str>) -> &str {
    let (_, digest) = image.expect("an image").split_once("@sha256:").expect("a digest");
    assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    digest
}

fn issuer_host(config: &Value) -> String {
    let issuer: ::http::Uri = config["provider"]["issuer"].as_str().expect("an issuer").parse().expect("a URL");
    issuer.host().expect("a host").to_owned()
}
