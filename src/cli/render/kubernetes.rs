//! Istio and Envoy Gateway: the examples in `envoy/` with this gate, its provider and this app.

use serde_json::{Value, json};

use super::{App, Deployment, Problem, Reached, parse, replace, set, yaml};

const ISTIO: &str = include_str!("../../../envoy/istio-wasmplugin.yaml");
const ENVOY_GATEWAY: &str = include_str!("../../../envoy/envoy-gateway.yaml");

/// What the examples call the provider and the app.
const PROVIDER_HOST: &str = "tenant.auth0.com";
const APP_HOST: &str = "app.example.com";
const PROVIDER_NAME: &str = "stepgate-provider";

const ISTIO_HEADING: &str = "\
Stepgate at an Istio ingress gateway, by `stepgate render`. The gateway's pods need the variables that the gate reads in
their environment, from a Secret.";

const ENVOY_GATEWAY_HEADING: &str = "\
Stepgate with Envoy Gateway, by `stepgate render`. Look at the Gateway, its class and its certificate. The Secret `stepgate` holds
what the gate reads from its environment.";

pub fn istio(deployment: Deployment) -> Result<String, Problem> {
    deployment.needs_tls("Istio")?;
    let mut documents = Vec::new();
    for mut example in parse(ISTIO)? {
        // Before the document comes in, whose texts are its own.
        replace(&mut example, APP_HOST, &deployment.host);
        match kind(&example) {
            "WasmPlugin" => {
                let document =
                    deployment.with_clusters(&|Reached { host, port, .. }| format!("outbound|{port}||{host}"));
                set(&mut example, "/spec/pluginConfig", document)?;
                let variables = deployment.variables.iter();
                let env: Vec<Value> = variables.map(|name| json!({ "name": name, "valueFrom": "HOST" })).collect();
                set(&mut example, "/spec/vmConfig/env", env)?;
                deployment.remove_unused(&mut example, "/spec", "vmConfig");
                if let Some(module) = &deployment.module {
                    // Istio takes an image that names no scheme for one.
                    let scheme = if module.contains("://") { "" } else { "oci://" };
                    set(&mut example, "/spec/url", format!("{scheme}{module}"))?;
                }
                documents.push(example);
            }
            "ServiceEntry" | "DestinationRule" => {
                documents.extend(deployment.for_each_host(&example, &|example, port| {
                    let pointers = ["/spec/ports/0/number", "/spec/trafficPolicy/portLevelSettings/0/port/number"];
                    for place in pointers {
                        if let Some(place) = example.pointer_mut(place) {
                            *place = port.into();
                        }
                    }
                }));
            }
            _ => documents.push(example),
        }
    }
    deployment.place(&mut documents, "istio-ingress");
    yaml(ISTIO_HEADING, &documents)
}

pub fn envoy_gateway(deployment: Deployment) -> Result<String, Problem> {
    deployment.needs_tls("Envoy Gateway")?;
    let namespace = deployment.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let mut documents = Vec::new();
    for mut example in parse(ENVOY_GATEWAY)? {
        replace(&mut example, APP_HOST, &deployment.host);
        let is_provider = example.pointer("/metadata/name").and_then(Value::as_str) == Some(PROVIDER_NAME);
        match kind(&example) {
            _ if is_provider => {
                documents.extend(deployment.for_each_host(&example, &|example, port| {
                    if let Some(place) = example.pointer_mut("/spec/endpoints/0/fqdn/port") {
                        *place = port.into();
                    }
                }));
            }
            "EnvoyExtensionPolicy" => {
                let names = deployment.names();
                let document = deployment.with_clusters(&|reached| {
                    let name = names.iter().find(|(host, _)| *host == reached.host).map(|(_, name)| name.as_str());
                    format!("httproute/{namespace}/{}/rule/0", name.unwrap_or(PROVIDER_NAME))
                });
                set(&mut example, "/spec/wasm/0/config", document)?;
                set(&mut example, "/spec/wasm/0/env/hostKeys", deployment.variables.clone())?;
                deployment.remove_unused(&mut example, "/spec/wasm/0", "env");
                if let Some(module) = &deployment.module {
                    deployment.set_image(&mut example, module)?;
                }
                documents.push(example);
            }
            "EnvoyProxy" => {
                let env: Vec<Value> = deployment.variables.iter().map(|name| variable(name)).collect();
                set(&mut example, "/spec/provider/kubernetes/envoyDeployment/container/env", env)?;
                documents.push(example);
            }
            _ => documents.push(example),
        }
    }
    for document in documents.iter_mut().filter(|document| kind(document) == "HTTPRoute") {
        if let Some(App { host, port }) = &deployment.app
            && document.pointer("/metadata/name").and_then(Value::as_str) == Some("app")
        {
            set(document, "/spec/rules/0/backendRefs/0/name", host.clone())?;
            set(document, "/spec/rules/0/backendRefs/0/port", *port)?;
        }
    }
    deployment.place(&mut documents, "default");
    yaml(ENVOY_GATEWAY_HEADING, &documents)
}

/// A variable of a container, from the Secret `stepgate`, whose keys are called so: `STEPGATE_CLIENT_SECRET` is `client-secret`.
fn variable(name: &str) -> Value {
    let key = name.trim_start_matches("STEPGATE_").to_ascii_lowercase().replace('_', "-");
    json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": "stepgate", "key": key } } })
}

fn kind(document: &Value) -> &str {
    document.get("kind").and_then(Value::as_str).unwrap_or_default()
}

impl Deployment {
    fn needs_tls(&self, host: &str) -> Result<(), Problem> {
        match self.reached.iter().find(|reached| !reached.secure) {
            Some(reached) => Err(Problem::configuration(format!(
                "`{}` is reached by plain http, which the resources for {host} do not provide for",
                reached.host
            ))),
            None => Ok(()),
        }
    }

    /// What the resources for each host are called.
    fn names(&self) -> Vec<(String, String)> {
        let names = self.reached.iter().enumerate().map(|(index, reached)| {
            let suffix = if index == 0 { String::new() } else { format!("-{}", index + 1) };
            (reached.host.clone(), format!("{PROVIDER_NAME}{suffix}"))
        });
        names.collect()
    }

    /// An example's resource once for each host of the provider. `edit` gets the port.
    fn for_each_host(&self, example: &Value, edit: &dyn Fn(&mut Value, u16)) -> Vec<Value> {
        let resources = self.reached.iter().zip(self.names()).map(|(reached, (host, name))| {
            let mut resource = example.clone();
            replace(&mut resource, PROVIDER_HOST, &host);
            replace(&mut resource, PROVIDER_NAME, &name);
            replace(&mut resource, &format!("{PROVIDER_NAME}.invalid"), &format!("{name}.invalid"));
            edit(&mut resource, reached.port);
            resource
        });
        resources.collect()
    }

    /// Removes what hands over variables, where there are none.
    fn remove_unused(&self, document: &mut Value, pointer: &str, name: &str) {
        let members = document.pointer_mut(pointer).and_then(Value::as_object_mut);
        if let Some(members) = members.filter(|_| self.variables.is_empty()) {
            members.remove(name);
        }
    }

    fn set_image(&self, policy: &mut Value, module: &str) -> Result<(), Problem> {
        set(policy, "/spec/wasm/0/code/image/url", module.trim_start_matches("oci://"))?;
        let image = policy.pointer_mut("/spec/wasm/0/code/image").and_then(Value::as_object_mut);
        if let Some(image) = image {
            // By digest, the image says itself what it is.
            match module.rsplit_once("@sha256:") {
                Some((_, digest)) => image.insert("sha256".to_owned(), digest.into()),
                None => image.remove("sha256"),
            };
        }
        Ok(())
    }

    /// Puts resources into the namespace.
    fn place(&self, documents: &mut [Value], example_namespace: &str) {
        for document in documents {
            if let Some(namespace) = &self.namespace
                && let Some(place) = document.pointer_mut("/metadata/namespace")
                && place.as_str() == Some(example_namespace)
            {
                *place = namespace.clone().into();
            }
        }
    }
}
