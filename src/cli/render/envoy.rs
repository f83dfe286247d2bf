//! Plain Envoy: `envoy/envoy.yaml` with this gate, its clusters and this app.

use serde_json::{Value, json};

use super::{APP_CLUSTER, App, Deployment, Problem, Reached, find, parse, set, yaml};

const EXAMPLE: &str = include_str!("../../../envoy/envoy.yaml");

const HEADING: &str = "\
Envoy with Stepgate, by `stepgate render`. Look at the listener's address, and put TLS there; look at the limits in
overload_manager. The variables that the gate needs must be in Envoy's environment.";

pub fn render(deployment: Deployment) -> Result<String, Problem> {
    let mut documents = parse(EXAMPLE)?;
    let envoy = documents.first_mut().ok_or_else(|| Problem::failure("the example is empty"))?;
    let document =
        deployment.with_clusters(&|reached| deployment.clusters.get(&reached.host).cloned().unwrap_or_default());
    let gate = find(envoy, &|value| value.get("vm_config").is_some())
        .ok_or_else(|| Problem::failure("the example has no gate"))?;
    set(gate, "/configuration/value", document)?;
    set(gate, "/vm_config/environment_variables/host_env_keys", deployment.variables.clone())?;
    if deployment.variables.is_empty()
        && let Some(vm) = gate.get_mut("vm_config").and_then(Value::as_object_mut)
    {
        vm.remove("environment_variables");
    }
    if let Some(module) = &deployment.module {
        set(gate, "/vm_config/code/local/filename", module.clone())?;
    }
    let app = deployment.app.clone().unwrap_or_else(|| App { host: "127.0.0.1".to_owned(), port: 8081 });
    let mut clusters = vec![cluster(APP_CLUSTER, &app.host, app.port, false)];
    clusters.extend(deployment.reached.iter().map(|Reached { host, port, secure }| {
        let name = deployment.clusters.get(host).map_or(host.as_str(), String::as_str);
        cluster(name, host, *port, *secure)
    }));
    set(envoy, "/static_resources/clusters", clusters)?;
    yaml(HEADING, &documents)
}

/// A cluster of one host. The provider's certificate is verified: what comes from there decides who gets in.
fn cluster(name: &str, host: &str, port: u16, secure: bool) -> Value {
    // RFC 6761 section 6.3: these names are loopback, whatever a resolver says.
    let is_loopback = host == "localhost" || host.ends_with(".localhost");
    let address = if is_loopback { "127.0.0.1" } else { host.trim_start_matches('[').trim_end_matches(']') };
    let is_address = address.parse::<std::net::IpAddr>().is_ok();
    let mut cluster = json!({
        "name": name,
        "type": if is_address { "STATIC" } else { "LOGICAL_DNS" },
        "connect_timeout": "2s",
        "per_connection_buffer_limit_bytes": 32768,
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [
                { "endpoint": { "address": { "socket_address": { "address": address, "port_value": port } } } },
            ] }],
        },
    });
    if secure && let Some(cluster) = cluster.as_object_mut() {
        let socket = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": host,
                "common_tls_context": { "validation_context": {
                    "trusted_ca": { "filename": "/etc/ssl/certs/ca-certificates.crt" },
                    "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": host } }],
                } },
            },
        });
        cluster.insert("transport_socket".to_owned(), socket);
    }
    cluster
}
