//! `stepgate render`: the deployment that a configuration needs, made from the examples in `envoy/`.

mod envoy;
mod kubernetes;
mod workerd;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use http::Uri;
use serde_json::Value;
use stepgate::Config;
use stepgate::config::Clusters;

use super::document::Document;
use super::{Exit, Problem, output, stand_in};

#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration, as in `check`
    config: PathBuf,
    /// What it is to run in
    #[arg(long = "for", value_enum, value_name = "HOST")]
    target: Target,
    /// The module: a file for Envoy; an image, best by its digest, for Istio and Envoy Gateway; for workerd the folder of the edge
    /// package, which is copied. Without it, an example stands in its place
    #[arg(long, value_name = "FILE|IMAGE")]
    module: Option<String>,
    /// Where the app is; for Envoy Gateway its Service [default: 127.0.0.1:8081, in Kubernetes app:8080]
    #[arg(long, value_name = "HOST:PORT", value_parser = App::parse)]
    app: Option<App>,
    /// The namespace, in Kubernetes [default: istio-ingress, default]
    #[arg(long, value_parser = parse_namespace)]
    namespace: Option<String>,
    /// Write the files into this folder, instead of the one file to standard output
    #[arg(long, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    Envoy,
    Istio,
    EnvoyGateway,
    Workerd,
}

/// Where an app is.
#[derive(Clone)]
struct App {
    host: String,
    port: u16,
}

impl App {
    fn parse(text: &str) -> Result<Self, String> {
        let authority: http::uri::Authority =
            text.parse().map_err(|_| "a host and a port, with `:` between".to_owned())?;
        let port = authority.port_u16().filter(|port| *port > 0).ok_or("there is no port")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || text.contains('@') {
            return Err("a host and a port, with `:` between".to_owned());
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// A name that Kubernetes takes (RFC 1123).
    fn is_service(&self) -> bool {
        is_label(&self.host)
    }
}

/// A name that Kubernetes takes, of one label (RFC 1123).
fn is_label(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    plain && (1..=63).contains(&name.len()) && !name.starts_with('-') && !name.ends_with('-')
}

fn parse_namespace(text: &str) -> Result<String, String> {
    if is_label(text) { Ok(text.to_owned()) } else { Err("lower case letters, digits and dashes".to_owned()) }
}

/// A host of the provider that the gate makes calls to.
struct Reached {
    host: String,
    port: u16,
    secure: bool,
}

/// What is rendered.
struct Deployment {
    /// The gate's document.
    document: Value,
    /// The hosts that it makes calls to.
    reached: Vec<Reached>,
    /// The clusters that the document names, by host.
    clusters: BTreeMap<String, String>,
    /// The variables that it refers to.
    variables: Vec<String>,
    /// The host of `client.redirect_uri`.
    host: String,
    module: Option<String>,
    app: Option<App>,
    namespace: Option<String>,
}

/// What the app's cluster is called.
const APP_CLUSTER: &str = "app";

/// A file's name and content.
type File = (String, Vec<u8>);

pub fn run(arguments: &Arguments) -> Result<Exit, Problem> {
    let document = Document::read(&arguments.config)?;
    let config = stand_in::valid(&document)?;
    arguments.refuse_what_does_not_fit()?;
    let deployment = Deployment::of(arguments, document.value, &config)?;
    let files = match arguments.target {
        Target::Envoy => vec![file("envoy.yaml", envoy::render(deployment)?)],
        Target::Istio => vec![file("istio.yaml", kubernetes::istio(deployment)?)],
        Target::EnvoyGateway => vec![file("envoy-gateway.yaml", kubernetes::envoy_gateway(deployment)?)],
        Target::Workerd => workerd::render(&deployment)?,
    };
    match (&arguments.output, files.as_slice()) {
        (Some(folder), files) => write(folder, files)?,
        (None, [(_, content)]) => std::io::stdout().write_all(content)?,
        (None, _) => return Err(Problem::failure("it takes several files: name a folder by `--output`")),
    }
    for (what, given) in [("--module", arguments.module.is_some()), ("--app", arguments.app.is_some())] {
        if !given {
            anstream::eprintln!(
                "{}: without `{what}`, an example stands in its place: change it",
                output::yellow("note")
            );
        }
    }
    Ok(Exit::Pass)
}

impl Arguments {
    fn refuse_what_does_not_fit(&self) -> Result<(), Problem> {
        let in_kubernetes = matches!(self.target, Target::Istio | Target::EnvoyGateway);
        if self.namespace.is_some() && !in_kubernetes {
            return Err(Problem::failure("`--namespace` is for Kubernetes: `istio` and `envoy-gateway`"));
        }
        if matches!(self.target, Target::Istio) && self.app.is_some() {
            return Err(Problem::failure(
                "`--app` has no place in what Istio needs: the app is behind your own routes",
            ));
        }
        if matches!(self.target, Target::EnvoyGateway) && self.app.as_ref().is_some_and(|app| !app.is_service()) {
            return Err(Problem::failure(
                "for `envoy-gateway`, `--app` is the name of a Service in the namespace, and its port",
            ));
        }
        if matches!(self.target, Target::Workerd) && self.module.is_none() {
            return Err(Problem::failure(
                "for `workerd`, `--module` is the folder of the edge package, which `make edge` makes",
            ));
        }
        Ok(())
    }
}

fn file(name: &str, content: String) -> File {
    (name.to_owned(), content.into_bytes())
}

/// Writes new files, none where one is there already: it may have been edited.
fn write(folder: &Path, files: &[File]) -> Result<(), Problem> {
    let failed = |file: &Path| {
        let file = file.display().to_string();
        move |error: std::io::Error| Problem::failure(format!("{file}: {error}"))
    };
    if let Some((name, _)) = files.iter().find(|(name, _)| folder.join(name).exists()) {
        let file = folder.join(name);
        return Err(Problem::failure(format!(
            "{}: is there already, and may have been edited: name another folder",
            file.display()
        )));
    }
    for (name, content) in files {
        let file = folder.join(name);
        let parent = file.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(failed(parent))?;
        let created = std::fs::OpenOptions::new().write(true).create_new(true).open(&file);
        created.and_then(|mut created| created.write_all(content)).map_err(failed(&file))?;
        output::line(file.display())?;
    }
    Ok(())
}

impl Deployment {
    fn of(arguments: &Arguments, document: Value, config: &Config) -> Result<Self, Problem> {
        let reached = reached(config);
        let by_host = |name: &dyn Fn(&Reached) -> String| -> BTreeMap<String, String> {
            reached.iter().map(|reached| (reached.host.clone(), name(reached))).collect()
        };
        let clusters = match &config.provider.cluster {
            Clusters::ByHost(names) => {
                by_host(&|reached| names.get(&reached.host).cloned().unwrap_or_else(|| reached.host.clone()))
            }
            Clusters::Every(name) if reached.len() == 1 => by_host(&|_| name.clone()),
            Clusters::Every(_) | Clusters::None if reached.len() == 1 => by_host(&|_| "idp".to_owned()),
            Clusters::Every(_) | Clusters::None => by_host(&|reached| reached.host.clone()),
        };
        let names: BTreeSet<&String> = clusters.values().collect();
        if matches!(arguments.target, Target::Envoy)
            && (names.len() < clusters.len() || names.contains(&APP_CLUSTER.to_owned()))
        {
            return Err(Problem::failure(format!(
                "`provider.cluster` gives two hosts one name, or calls one `{APP_CLUSTER}`, which is the app's here"
            )));
        }
        let host = config.client.redirect_uri.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
        let variables = stand_in::variables(&document);
        Ok(Self {
            document,
            reached,
            clusters,
            variables,
            host: host.unwrap_or_default(),
            module: arguments.module.clone(),
            app: arguments.app.clone(),
            namespace: arguments.namespace.clone(),
        })
    }

    /// The document, with the cluster that each host has here. One name stands for every host, so it stands alone only where nobody
    /// named clusters by host.
    fn with_clusters(&self, cluster: &dyn Fn(&Reached) -> String) -> Value {
        let mut document = self.document.clone();
        let names: BTreeMap<String, String> =
            self.reached.iter().map(|reached| (reached.host.clone(), cluster(reached))).collect();
        if let Some(provider) = document.get_mut("provider").and_then(Value::as_object_mut) {
            let named_by_host = provider.get("cluster").is_some_and(Value::is_object);
            let cluster = match names.len() {
                0 => None,
                1 if !named_by_host => names.into_values().next().map(Value::from),
                _ => Some(names.into_iter().map(|(host, name)| (host, Value::from(name))).collect()),
            };
            match cluster {
                Some(cluster) => provider.insert("cluster".to_owned(), cluster),
                None => provider.remove("cluster"),
            };
        }
        document
    }
}

/// The hosts that a gate makes calls to, and those that it has a cluster for.
fn reached(config: &Config) -> Vec<Reached> {
    let mut urls = stand_in::fetched_urls(config);
    if let Clusters::ByHost(names) = &config.provider.cluster {
        urls.extend(names.keys().map(|host| format!("https://{host}/")));
    }
    let mut reached: Vec<Reached> = Vec::new();
    for uri in urls.iter().filter_map(|url| url.parse::<Uri>().ok()) {
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        if reached.iter().all(|known| known.host != host) {
            reached.push(Reached { host, port, secure });
        }
    }
    reached
}

/// The documents of an example.
fn parse(example: &str) -> Result<Vec<Value>, Problem> {
    serde_saphyr::from_multiple(example).map_err(|error| Problem::failure(format!("the example: {error}")))
}

/// YAML, with a heading.
fn yaml(heading: &str, documents: &[Value]) -> Result<String, Problem> {
    let mut text = heading.lines().map(|line| format!("# {line}\n")).collect::<String>();
    for (index, document) in documents.iter().enumerate() {
        let separator = if index == 0 { "\n" } else { "---\n" };
        let document =
            serde_saphyr::to_string(document).map_err(|error| Problem::failure(format!("not YAML: {error}")))?;
        text.push_str(separator);
        text.push_str(document.trim_end());
        text.push('\n');
    }
    Ok(text)
}

/// The first object below a value for which a condition holds.
fn find<'a>(value: &'a mut Value, wanted: &dyn Fn(&Value) -> bool) -> Option<&'a mut Value> {
    if wanted(value) {
        return Some(value);
    }
    match value {
        Value::Object(members) => members.values_mut().find_map(|member| find(member, wanted)),
        Value::Array(items) => items.iter_mut().find_map(|item| find(item, wanted)),
        _ => None,
    }
}

/// Replaces a text everywhere below a value, where it is all of a string.
fn replace(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) if text == from => to.clone_into(text),
        Value::Object(members) => members.values_mut().for_each(|member| replace(member, from, to)),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, from, to)),
        _ => {}
    }
}

/// Puts a value where a JSON pointer leads.
fn set(value: &mut Value, pointer: &str, new: impl Into<Value>) -> Result<(), Problem> {
    let place = value.pointer_mut(pointer);
    *place.ok_or_else(|| Problem::failure(format!("the example has no `{pointer}`")))? = new.into();
    Ok(())
}
