//! workerd: a configuration, a worker, and the gate's document.

use std::path::Path;

use serde_json::json;

use super::{App, Deployment, File, Problem, file};

const WORKER: &str = r#"import { createGate, protect } from "stepgate/worker";

import config from "./stepgate.json";

export default protect(
  (env) => createGate({ config, env }),
  (request, env) => env.APP.fetch(request),
);
"#;

/// The package's modules that a worker needs, by how they are imported.
const MODULES: [(&str, &str, &str); 9] = [
    ("stepgate/worker", "worker.js", "esModule"),
    ("stepgate/workerd.js", "workerd.js", "esModule"),
    ("stepgate/guard.js", "guard.js", "esModule"),
    ("stepgate/gate.js", "gate.js", "esModule"),
    ("stepgate/call.js", "call.js", "esModule"),
    ("stepgate/keys.js", "keys.js", "esModule"),
    ("stepgate/web.js", "web.js", "esModule"),
    ("stepgate/stepgate_core.js", "stepgate_core.js", "esModule"),
    ("stepgate/stepgate_core_bg.wasm", "stepgate_core_bg.wasm", "wasm"),
];

pub fn render(deployment: &Deployment) -> Result<Vec<File>, Problem> {
    let quoted = |text: &str| json!(text).to_string();
    let modules = MODULES.map(|(name, file, kind)| {
        format!("    (name = {}, {kind} = embed {}),", quoted(name), quoted(&format!("stepgate/{file}")))
    });
    let variables =
        deployment.variables.iter().map(|name| format!("    (name = {0}, fromEnvironment = {0}),\n", quoted(name)));
    let app = deployment.app.clone().unwrap_or_else(|| App { host: "127.0.0.1".to_owned(), port: 8081 });
    let app = quoted(&format!("{}:{}", app.host, app.port));
    // workerd reaches no loopback address unless it is told to.
    let is_local = deployment.reached.iter().any(|reached| !reached.secure);
    let allowed = if is_local { r#"["public", "local"]"# } else { r#"["public"]"# };
    let configuration = format!(
        r#"# workerd with Stepgate, by `stepgate render`: workerd serve config.capnp
# The edge package is in the folder `stepgate` beside this file. The variables that the gate needs must be in workerd's environment. Look at the socket's address, and put TLS there.

using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "gate", worker = .gate),
    (name = "app", external = (address = {app}, http = ())),
    (name = "internet", network = (allow = {allowed}, tlsOptions = (trustBrowserCas = true))),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8080", http = (), service = "gate")],
);

const gate :Workerd.Worker = (
  modules = [
    (name = "worker.js", esModule = embed "worker.js"),
    (name = "stepgate.json", json = embed "stepgate.json"),
{}
  ],
  bindings = [
    (name = "APP", service = "app"),
{}  ],
  compatibilityDate = "2026-11-01",
);
"#,
        modules.join("\n"),
        variables.collect::<String>(),
    );
    let document =
        serde_json::to_string_pretty(&deployment.document).map_err(|error| Problem::failure(error.to_string()))?;
    let mut files = vec![
        file("config.capnp", configuration),
        file("worker.js", WORKER.to_owned()),
        file("stepgate.json", format!("{document}\n")),
    ];
    for (_, name, _) in MODULES {
        let source = Path::new(deployment.module.as_deref().unwrap_or_default()).join(name);
        let content =
            std::fs::read(&source).map_err(|error| Problem::failure(format!("{}: {error}", source.display())))?;
        files.push((format!("stepgate/{name}"), content));
    }
    Ok(files)
}
