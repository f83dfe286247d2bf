//! The documentation, held to its word: every gate configuration in it is accepted, the reference names what the
//! configuration has, the answers that it shows are the ones that the gate gives, and what it points to is there.
//!
//! A fenced block tells by the words behind its fence what it is, and each kind is checked here or, where that needs
//! Envoy or JavaScript, in `tests/e2e/docs.test.mjs`. A kind that nobody checks is an error.

use std::collections::BTreeSet;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use stepgate::cases::CaseFile;
use stepgate::config::fields;
use stepgate::http::{Request, Response};
use stepgate::oidc::RESERVED_PARAMETERS;
use stepgate::time::Timestamp;
use stepgate::{Config, Decision, DecisionKind, Env, Gate, Outcome, Reason, Step};

#[path = "docs/decisions.rs"]
mod decisions;
#[path = "docs/embedded.rs"]
mod embedded;
#[path = "docs/login.rs"]
mod login;
#[path = "docs/markdown.rs"]
mod markdown;
#[path = "docs/reference.rs"]
mod reference;
#[path = "docs/rotation.rs"]
mod rotation;
#[path = "docs/semantics.rs"]
mod semantics;
#[path = "docs/troubleshooting.rs"]
mod troubleshooting;

use markdown::{Block, Page, spans};

/// Every kind of block.
const KINDS: [&str; 29] = [
    "yaml stepgate",           // a gate configuration
    "yaml stepgate example",   // the one of the page's examples
    "yaml stepgate-part",      // laid over the smallest one it is one
    "json stepgate-part",      //
    "yaml cases",              // agree with the page's first gate configuration
    "yaml envoy http_filters", // Envoy accepts it: tests/e2e/docs.test.mjs; so with the next four
    "yaml envoy vm_config",
    "yaml envoy clusters",
    "yaml envoy bootstrap",
    "yaml envoy access_log",
    "yaml envoy before", // filters that the gate takes the place of
    "yaml istio",        // must be YAML, its access log must be ours; so with the next two
    "yaml envoy-gateway",
    "yaml prometheus",     // and its expressions must match: tests/e2e/docs.test.mjs
    "yaml github-actions", // its commands are known, as those of `sh` are
    "json",                // must be JSON
    "json stepgate",       // a gate configuration
    "js worker",           // is run, as it stands: tests/e2e/edge.test.mjs; so with the next two
    "js deno",             //
    "js node",             //
    "json step-up-failed", // the answer to a login that never suffices
    "http request",        // a request, and the answer behind it must be the gate's
    "http",
    "sh",         // only commands that are known
    "sh cluster", // so, too, and they need a cluster: nothing runs them here
    "text",
    "text other",    // other software's configuration, which nothing here can check
    "text problems", // what a configuration with these problems is answered with
    "text state",    // the `state` of the page's first example
];

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The environment of the documented commands: a key of 32 bytes, and secrets.
fn environment(variable: &str) -> Option<String> {
    Some(if variable.starts_with("STEPGATE_KEY") { STANDARD.encode(SECRET) } else { SECRET.to_owned() })
}

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
    Config::from_value(config, &environment).unwrap_or_else(|errors| panic!("{place}: {errors}"))
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
        "yaml stepgate" | "yaml stepgate example" | "json stepgate" => Some(yaml(&block.text, &block.place)),
        "yaml stepgate-part" => {
            let part = yaml(&block.text, &block.place);
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
    assert!(count >= 14, "only {count}");
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
                Step::Body(..) => panic!("a body is asked for"),
            };
        }
    }
}

fn now() -> Timestamp {
    // The time of the examples.
    Timestamp::from_secs(1_795_496_808)
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
            // Variables may follow.
            if let Some(target) = span.strip_prefix("make ").and_then(|rest| rest.split(' ').next()) {
                assert!(targets.contains(target), "{}: no target `{span}`", page.path);
            }
        }
    }
}

#[test]
fn commands_are_known_and_do_what_is_said() {
    let targets = make_targets();
    let mut statuses = Vec::new();
    for block in pages().iter().flat_map(Page::blocks) {
        let place = &block.place;
        let commands = match block.info.as_str() {
            "sh" => block.text.lines().map(str::to_owned).collect(),
            "yaml github-actions" => steps(&yaml(&block.text, place)),
            _ => continue,
        };
        for line in &commands {
            match line.split_once(' ') {
                Some(("make", target)) => assert!(targets.contains(target), "{place}: {line}"),
                // Run, and their output used: tests/e2e/docs.test.mjs.
                Some(("openssl" | "node", _)) => {}
                Some(("stepgate", rest)) => {
                    let known = ["check", "explain", "test", "decode", "schema", "render", "keygen", "completions"];
                    assert!(known.contains(&rest.split(' ').next().expect("a word")), "{place}: {line}");
                }
                // Run in their order, each with what the page says of it: tests/e2e/deployment.test.mjs.
                Some(("cp" | "mv" | "export" | "envoy", _)) if block.place.starts_with("docs/envoy.md:") => {}
                Some(("curl", rest)) if rest.starts_with("-i ") => statuses.push(curl(rest)),
                Some(("curl", _)) if block.place.starts_with("docs/envoy.md:") => {}
                // Run: tests/e2e/oci.test.mjs and tests/e2e/release.test.mjs.
                Some(("skopeo" | "sha256sum", _)) => {}
                Some(("envoy", rest)) => assert_eq!(rest, "--mode validate -c envoy.yaml", "{place}"),
                _ => panic!("{place}: an unknown command, {line}"),
            }
        }
    }
    assert_eq!(statuses, [302, 401], "as docs/envoy.md says");
}

#[test]
fn cases_agree_with_the_configuration_of_their_page() {
    let mut count = 0;
    for page in pages() {
        let blocks = page.blocks();
        for block in blocks.iter().filter(|block| block.info == "yaml cases") {
            let config = blocks.iter().find(|block| block.info == "yaml stepgate").expect("a configuration");
            let config = yaml(&config.text, &config.place);
            let cases = CaseFile::from_value(&block.place, &yaml(&block.text, &block.place));
            let cases = cases.and_then(|cases| cases.expand(Some(&config), 1_800_000_000));
            for case in cases.unwrap_or_else(|errors| panic!("{errors}")) {
                let outcome = stepgate::cases::run(&case);
                assert!(outcome.is_as_expected(), "{outcome}");
                count += 1;
            }
        }
    }
    assert!(count >= 3, "only {count}");
}

#[test]
fn commands_for_a_cluster_are_known_and_their_files_exist() {
    let mut count = 0;
    for block in pages().iter().flat_map(Page::blocks).filter(|block| block.info == "sh cluster") {
        for line in block.text.replace("\\\n", " ").lines() {
            let mut words = line.split_whitespace();
            let program = words.next().expect("a command");
            assert!(["kubectl", "istioctl", "helm"].contains(&program), "{}: {line}", block.place);
            for file in words.filter(|word| word.starts_with("envoy/")) {
                assert!(root(file).exists(), "{}: there is no `{file}`", block.place);
            }
            count += 1;
        }
    }
    assert!(count >= 10, "only {count}");
}

/// The commands of a workflow's steps.
fn steps(workflow: &Value) -> Vec<String> {
    let jobs = workflow["jobs"].as_object().expect("jobs");
    let steps = jobs.values().flat_map(|job| job["steps"].as_array().expect("steps"));
    let commands: Vec<String> = steps.filter_map(|step| Some(step.get("run")?.as_str()?.to_owned())).collect();
    assert!(!commands.is_empty(), "a workflow does something");
    commands
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
