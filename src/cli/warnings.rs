//! What is legal in a configuration, and yet rarely meant.

use std::time::Duration;

use serde_json::Value;
use stepgate::Config;
use stepgate::config::{ClientAuthentication, Clusters, KeySource};
use stepgate::explain::WrittenRule;
use stepgate::jose::Algorithm;
use stepgate::path::PathPattern;
use stepgate::time::DisplayDuration;

use super::document::Document;
use super::stand_in;

/// A leeway beyond this is more than clocks differ.
const MUCH_LEEWAY: Duration = Duration::from_secs(120);

/// How many rules are compared with each other.
const MAX_COMPARED: usize = 1_000;

/// A place in the document, and what is risky about it.
pub type Warning = (String, String);

/// All warnings about a valid document.
pub fn of(document: &Value, config: &Config) -> Vec<Warning> {
    let mut warnings = Vec::new();
    secrets(document, &mut warnings);
    provider(document, config, &mut warnings);
    token(config, &mut warnings);
    rules(document, config, &mut warnings);
    warnings
}

/// What the host has around a document that takes away from it.
pub fn around(document: &Document, config: &Config) -> Vec<Warning> {
    let Some(around) = &document.around else { return Vec::new() };
    let mut warnings = Vec::new();
    let says = |pointer: &str, wanted: &Value| around.pointer(pointer) == Some(wanted);
    let opens = [
        ("/failure_policy", "FAIL_OPEN".into()),
        ("/fail_open", true.into()),
        ("/failOpen", true.into()),
        ("/failStrategy", "FAIL_OPEN".into()),
    ];
    for (pointer, wanted) in &opens {
        if says(pointer, wanted) {
            let name = pointer.trim_start_matches('/');
            warnings.push((
                String::new(),
                format!("`{name}`: requests get to the app without the gate when it has crashed or was refused"),
            ));
        }
    }
    let list = |pointer: &str| around.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    let mut handed_over: Vec<&str> =
        list("/vm_config/environment_variables/host_env_keys").filter_map(Value::as_str).collect();
    let own = around.pointer("/vm_config/environment_variables/key_values").and_then(Value::as_object);
    handed_over.extend(own.into_iter().flat_map(|values| values.keys()).map(String::as_str));
    handed_over.extend(list("/env/hostKeys").filter_map(Value::as_str));
    handed_over.extend(list("/vmConfig/env").filter_map(|variable| variable.get("name")?.as_str()));
    for (place, name) in stand_in::references(&document.value) {
        if !handed_over.contains(&name.as_str()) {
            let message =
                "the host does not hand this variable over to the module, where it will not be set".to_owned();
            warnings.push((place, message));
        }
    }
    if !stand_in::fetched_urls(config).is_empty() && config.provider.cluster == Clusters::None {
        warnings.push(("provider".to_owned(), "has no `cluster`, without which Envoy fetches nothing".to_owned()));
    }
    warnings
}

fn secrets(document: &Value, warnings: &mut Vec<Warning>) {
    let literal =
        "a literal secret: whoever sees the configuration has it; `{ env: NAME }` takes it from the environment";
    if document.pointer("/client/secret").is_some_and(Value::is_string) {
        warnings.push(("client.secret".to_owned(), literal.to_owned()));
    }
    let keys = document.pointer("/callback/keys").and_then(Value::as_array).into_iter().flatten();
    for (index, _) in keys.enumerate().filter(|(_, key)| key.is_string()) {
        warnings.push((format!("callback.keys[{index}]"), literal.to_owned()));
    }
}

fn provider(document: &Value, config: &Config, warnings: &mut Vec<Warning>) {
    if config.provider.issuer.starts_with("http:") {
        warnings.push(("provider.issuer".to_owned(), "plain http: for tests on one machine only".to_owned()));
    }
    if config.client.redirect_uri.starts_with("http:") {
        warnings.push((
            "client.redirect_uri".to_owned(),
            "plain http: for tests on one machine only; cookies are not `Secure`".to_owned(),
        ));
    }
    if matches!(config.provider.keys, KeySource::Inline(_)) && document.pointer("/provider/refresh").is_some() {
        warnings.push(("provider.refresh".to_owned(), "has no effect: with `jwks` nothing is ever fetched".to_owned()));
    }
    if config.callback.is_some() && matches!(config.client.authentication, ClientAuthentication::None) {
        warnings.push((
            "client.authentication".to_owned(),
            "a public client: nothing but PKCE keeps another from exchanging a code that leaked".to_owned(),
        ));
    }
}

fn token(config: &Config, warnings: &mut Vec<Warning>) {
    if config.token.algorithms.contains(&Algorithm::Hs256) {
        warnings
            .push(("token.algorithms".to_owned(), "HS256: whoever has the client secret can make tokens".to_owned()));
    }
    if config.token.leeway > MUCH_LEEWAY {
        let leeway = DisplayDuration(config.token.leeway);
        warnings
            .push(("token.leeway".to_owned(), format!("{leeway}: tokens are taken for so long after they expired")));
    }
    let prefixed = ["__Host-", "__Secure-"].iter().any(|prefix| config.token.cookie.starts_with(prefix));
    if config.callback.is_some() && config.client.is_secure() && !prefixed {
        warnings.push((
            "token.cookie".to_owned(),
            "without the prefix `__Host-` (or `__Secure-`, with a domain), other hosts of the domain can set the cookie".to_owned(),
        ));
    }
}

/// A rule of the document, as far as rules are compared.
struct Written<'a> {
    rule: &'a Value,
    hosts: Vec<&'a str>,
    methods: Vec<String>,
    paths: Vec<PathPattern>,
    except: Vec<PathPattern>,
    /// What it asks for and how, apart from where.
    asks: String,
}

impl<'a> Written<'a> {
    fn of(rule: &'a Value) -> Self {
        let WrittenRule { hosts, methods, paths, except } = WrittenRule::of(rule);
        let patterns = |texts: &[&str]| texts.iter().filter_map(|text| PathPattern::parse(text).ok()).collect();
        let asks = ["require", "step_up", "answer", "mode"].map(|name| rule.get(name).cloned().unwrap_or_default());
        let asks = Value::from(asks.to_vec()).to_string();
        Self { rule, hosts, methods, paths: patterns(&paths), except: patterns(&except), asks }
    }

    /// Whether it applies wherever the other does.
    fn covers(&self, other: &Self) -> bool {
        let paths_cover = other.paths.iter().all(|theirs| self.paths.iter().any(|mine| mine.covers(theirs)));
        let leaves_nothing_more_out =
            self.except.iter().all(|mine| other.except.iter().any(|theirs| theirs.covers(mine)));
        includes(&self.hosts, &other.hosts)
            && includes(&self.methods, &other.methods)
            && paths_cover
            && leaves_nothing_more_out
    }
}

/// Whether a list has all of another. An empty one stands for everything.
fn includes<T: PartialEq>(mine: &[T], theirs: &[T]) -> bool {
    mine.is_empty() || !theirs.is_empty() && theirs.iter().all(|item| mine.contains(item))
}

fn rules(document: &Value, config: &Config, warnings: &mut Vec<Warning>) {
    let written: Vec<Written<'_>> =
        document.get("rules").and_then(Value::as_array).into_iter().flatten().map(Written::of).collect();
    let reports_by_default = document.get("mode").and_then(Value::as_str) == Some("report");
    if reports_by_default {
        warnings.push(("mode".to_owned(), "report: nothing is enforced but what rules say themselves".to_owned()));
    }
    for (index, rule) in written.iter().enumerate() {
        let place = format!("rules[{index}]");
        if rule.rule.get("mode").and_then(Value::as_str) == Some("report") {
            warnings.push((format!("{place}.mode"), "report: this rule is not enforced".to_owned()));
        }
        if rule.paths.iter().all(|path| rule.except.iter().any(|except| except.covers(path))) {
            warnings
                .push((format!("{place}.except"), "leaves out every path of the rule, which never applies".to_owned()));
        }
        for (number, except) in rule.except.iter().enumerate() {
            if !rule.paths.iter().any(|path| path.covers(except) || except.covers(path)) {
                let message = "leaves out nothing: it is below no path of the rule".to_owned();
                warnings.push((format!("{place}.except[{number}]"), message));
            }
        }
        let earlier = written.iter().take(index.min(MAX_COMPARED));
        let same = |other: &&Written<'_>| other.asks == rule.asks && other.covers(rule);
        if let Some(other) = earlier.clone().position(|other| same(&other)) {
            warnings.push((
                place.clone(),
                format!("asks for nothing that `rules[{other}]` does not ask for there already"),
            ));
        }
        let strict = rule.rule.pointer("/require/max_age").is_some();
        let lasting = config.callback.is_none() && rule.rule.pointer("/step_up/login_url").is_some();
        if strict && lasting && rule.rule.pointer("/step_up/return_to_param").is_none() {
            let message = "without `return_to_param` people end wherever the app's login route leads".to_owned();
            warnings.push((format!("{place}.step_up.login_url"), message));
        }
    }
}
