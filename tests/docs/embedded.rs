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
    for (path, logs_in) in [("envoy/envoy.yaml", true), ("envoy/envoy-own-login.yaml", false)] {
        let documents = yaml_file(path);
        let [document] = documents.as_slice() else { panic!("{path}: one document") };
        let config = of(document, path);
        assert_eq!(config.get("callback").is_some(), logs_in, "{path}");
        let clusters = document["static_resources"]["clusters"].as_array().expect("clusters");
        assert!(clusters.iter().any(|cluster| cluster["name"] == config["provider"]["cluster"]));
    }
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
    variables.iter().for_each(|variable| known(variable, "name valueFrom"));

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
