//! From a case as written to a case as run: defaults filled in, tokens minted, keys and times put in place.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::provider::{stand_in, without_environment};
use super::text::{Names, merge, place, put_keys, put_times, substitute_all, substituted};
use super::token::{self, Carrier};
use super::{CaseErrors, CaseFile};
use crate::config::{CallbackConfig, Config, ConfigErrors, Node, ResponseMode};
use crate::flow::{OwnCookieNames, Start, Transaction, subject_digest};
use crate::http::form_encode;
use crate::rules::Demand;
use crate::seal::{Purpose, SealingKeys};

/// A case as run.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// The file that it stands in.
    pub file: String,
    /// Its name in that file.
    pub name: String,
    /// The configuration that it is decided by, with every key in its place.
    pub config: Value,
    /// The request.
    pub request: CaseRequest,
    /// What the provider answers, by endpoint, in order; the last one stays.
    pub replies: BTreeMap<String, Vec<Value>>,
    /// What is expected.
    pub expect: Value,
    /// Runners that cannot run it, with the reason. This one is `library`.
    pub skip: BTreeMap<String, String>,
    /// The configuration, read.
    #[serde(skip)]
    pub(super) gate: Config,
    /// What was minted and sealed for it.
    #[serde(skip)]
    pub(super) names: Names,
    /// When it is decided, in seconds since the Unix epoch.
    #[serde(skip)]
    pub(super) now: u64,
}

/// A request. Each character of `path`, `authority`, `body` and header values is one byte (ISO 8859-1), so that cases can name
/// any byte.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the fields are the names")]
pub struct CaseRequest {
    pub method: String,
    pub authority: String,
    pub path: String,
    /// `None`: the host cannot tell.
    pub headers: Option<Vec<(String, String)>>,
    pub body: String,
}

/// Whatever is sealed for a case may be the same in each run.
const ENTROPY: [u8; 32] = [9; 32];

/// What a file's cases have in common.
struct Base<'a> {
    file: &'a str,
    config: Value,
    /// Whether it is somebody's own, whose provider is stood in for.
    is_given: bool,
    /// The page that is asked for.
    page: &'a str,
    /// The page that a login leads back to.
    return_to: &'a str,
    now: u64,
}

/// The pages of files with a configuration of their own.
const PAGE: &str = "/salary";
const RETURN_TO: &str = "/salary?month=may";

impl CaseFile {
    /// The cases as run at `now` (seconds since the Unix epoch), by the file's own configuration or by the one that is given: whose
    /// provider is stood in for then, as `tests/cases/README.md` tells.
    ///
    /// # Errors
    /// Every problem of every case, that of configurations among them.
    pub fn expand(&self, config: Option<&Value>, now: u64) -> Result<Vec<Case>, CaseErrors> {
        let mut all = CaseErrors::default();
        let (config, is_given) = match (config, &self.config) {
            (Some(given), None) => (given, true),
            (None, Some(own)) => (own, false),
            (Some(_), Some(_)) => {
                all.add(
                    &self.name,
                    None,
                    &ConfigErrors::single("config", "is not accepted: the cases are run with another configuration"),
                );
                return all.or(Vec::new());
            }
            (None, None) => {
                all.add(
                    &self.name,
                    None,
                    &ConfigErrors::single("config", "missing, must be the configuration that the cases are run with"),
                );
                return all.or(Vec::new());
            }
        };
        let mut errors = ConfigErrors::default();
        // Nothing in somebody's own configuration stands for something else.
        let config = if is_given { config.clone() } else { written(config, &mut errors) };
        decode(&config, &mut errors);
        all.add(&self.name, None, &errors);
        let mut cases = Vec::new();
        if errors.is_empty() {
            let defaults = if is_given { ("/", "/") } else { (PAGE, RETURN_TO) };
            let (page, return_to) = self.page.as_deref().map_or(defaults, |page| (page, page));
            let base = Base { file: &self.name, config, is_given, page, return_to, now };
            for (name, case) in &self.cases {
                let mut errors = ConfigErrors::default();
                let case = expand(&base, name, case, &mut errors);
                all.add(&self.name, Some(name), &errors);
                cases.extend(case.filter(|_| errors.is_empty()));
            }
        }
        all.or(cases)
    }
}

/// Reads a configuration, with stand-ins for what comes from the environment.
fn decode(config: &Value, errors: &mut ConfigErrors) -> Option<Config> {
    match Config::from_value(&without_environment(config), &|_| None) {
        Ok(config) => Some(config),
        Err(problems) => {
            problems.as_slice().iter().for_each(|error| errors.push(place("config", &error.path), &*error.problem));
            None
        }
    }
}

/// A configuration of a case file, with keys and counted characters in place.
fn written(config: &Value, errors: &mut ConfigErrors) -> Value {
    put_keys("config", &substitute_all("config", config, &Names::new(), errors), errors)
}

fn expand(base: &Base<'_>, name: &str, case: &Value, errors: &mut ConfigErrors) -> Option<Case> {
    let part = |name: &str| case.get(name).filter(|value| !value.is_null()).cloned().unwrap_or_else(|| json!({}));
    let (patch, mut replies) = (written(&part("config"), errors), part("replies"));
    let mut config = base.config.clone();
    merge(&mut config, &patch);
    if base.is_given {
        let defaults = stand_in(&mut config, &patch, &replies);
        replies = Value::Object(defaults.into_iter().chain(members(&replies)).collect());
    }
    let config = without_environment(&config);
    let gate = decode(&config, errors)?;
    let world = World { base, case, config: &config, gate: &gate };
    let (names, carrier) = world.names(errors)?;
    if !errors.is_empty() {
        // What could not be minted would be missed by all that names it.
        return None;
    }
    let replies = substitute_all("replies", &put_keys("replies", &replies, errors), &names, errors);
    let replies = members(&replies).map(|(endpoint, replies)| match replies {
        Value::Array(list) => (endpoint, list),
        one => (endpoint, vec![one]),
    });
    let skip = members(&part("skip"));
    Some(Case {
        file: base.file.to_owned(),
        name: name.to_owned(),
        request: world.request(&part("request"), &names, carrier, errors),
        replies: replies.collect(),
        expect: substitute_all("expect", &part("expect"), &names, errors),
        skip: skip.filter_map(|(runner, reason)| Some((runner, reason.as_str()?.to_owned()))).collect(),
        config,
        gate,
        names,
        now: base.now,
    })
}

fn members(value: &Value) -> impl Iterator<Item = (String, Value)> + use<> {
    value.as_object().cloned().unwrap_or_default().into_iter()
}

/// What a case is expanded in.
struct World<'a> {
    base: &'a Base<'a>,
    case: &'a Value,
    config: &'a Value,
    gate: &'a Config,
}

impl World<'_> {
    /// What a case mints and seals, by name, and where the default request carries its token.
    fn names(&self, errors: &mut ConfigErrors) -> Option<(Names, Carrier)> {
        let now = self.base.now;
        let mut names = Names::from([("now".to_owned(), now.to_string())]);
        let mut carrier = Carrier::Cookie;
        let keys = self.sealing_keys(errors)?;
        for (path, name, specification) in self.specifications("token", errors) {
            let node = Node { path, value: &specification };
            let Some((token, carried)) = token::mint_at(&node, self.config, now, errors) else { continue };
            if carried == Carrier::Header && self.gate.token.header.is_none() {
                errors.push(place(&node.path, "in"), "must be `cookie`: the configuration has no `token.header`");
            }
            if name == "token" {
                carrier = carried;
            }
            if let Some(keys) = &keys {
                let purpose = Purpose::IdToken(&self.gate.token.cookie);
                names.insert(format!("sealed:{name}"), keys.seal(purpose, token.as_bytes(), &ENTROPY));
            }
            names.insert(name, token);
        }
        for (path, name, specification) in self.specifications("transaction", errors) {
            let Some((callback, keys)) = self.sealing(&path, &keys, errors) else { continue };
            let Some((state, sealed)) = self.transaction(&path, &specification, keys, errors) else { continue };
            let names_of = OwnCookieNames { callback, token_cookie: &self.gate.token.cookie };
            names.insert(name.clone(), format!("{}{state}={sealed}", names_of.transaction_prefix()));
            names.insert(format!("{name}.state"), state);
        }
        if let Some(state) = names.get("transaction.state").cloned() {
            names.insert("state".to_owned(), state);
        }
        if let Some(specification) = self.case.get("start").filter(|start| start.is_object()) {
            let (_, keys) = self.sealing("start", &keys, errors)?;
            names.insert("start".to_owned(), self.start(specification, keys, errors)?);
        }
        Some((names, carrier))
    }

    /// The specifications of a kind, with place and name; the single one has the name of its kind.
    fn specifications(&self, kind: &str, errors: &mut ConfigErrors) -> Vec<(String, String, Value)> {
        let plural = format!("{kind}s");
        let several = self.case.get(&plural).and_then(Value::as_object).into_iter().flatten();
        let several = several.map(|(name, specification)| (format!("{plural}.{name}"), name.clone(), specification));
        let single = self.case.get(kind).filter(|specification| !specification.is_null());
        let single = single.map(|specification| (kind.to_owned(), kind.to_owned(), specification));
        let counted = |(path, name, specification): (String, String, &Value)| {
            let specification = substitute_all(&path, specification, &Names::new(), errors);
            (path, name, specification)
        };
        several.chain(single).map(counted).collect()
    }

    /// The keys to seal with, where there are any.
    fn sealing_keys(&self, errors: &mut ConfigErrors) -> Option<Option<SealingKeys>> {
        let Some(key) = self.case.get("sealed_with").and_then(Value::as_str) else {
            return Some(self.gate.callback.as_ref().map(|callback| callback.keys.clone()));
        };
        let key: Option<[u8; 32]> = STANDARD.decode(key).ok().and_then(|key| key.try_into().ok());
        if key.is_none() {
            errors.push("sealed_with", "must be 32 bytes in base64");
        }
        Some(Some(SealingKeys::new(&key?, &[])))
    }

    fn sealing<'k>(
        &self,
        path: &str,
        keys: &'k Option<SealingKeys>,
        errors: &mut ConfigErrors,
    ) -> Option<(&CallbackConfig, &'k SealingKeys)> {
        let both = self.gate.callback.as_ref().zip(keys.as_ref());
        if both.is_none() {
            errors.push(path, "needs `callback` in the configuration");
        }
        both
    }

    /// Seals a transaction; gives its `state` as well.
    fn transaction(
        &self,
        path: &str,
        specification: &Value,
        keys: &SealingKeys,
        errors: &mut ConfigErrors,
    ) -> Option<(String, String)> {
        let written = json!({
            "state": "0123456789-abcdefghi_J",
            "nonce": "nonce",
            "verifier": "verifier",
            "subject": null,
            "attempts": 1,
        });
        let mut written = self.begun(path, written, specification, errors)?;
        let state = written.remove("state").unwrap_or_default();
        let Value::String(state) = state else {
            errors.push(place(path, "state"), "must be a string");
            return None;
        };
        if let Some(subject) = written.get_mut("subject")
            && let Some(text) = subject.as_str()
        {
            *subject = json!(subject_digest(text));
        }
        let transaction: Transaction = read(path, written, errors)?;
        let sealed = fits(path, transaction.seal(keys, &state, &ENTROPY), errors)?;
        Some((state, sealed))
    }

    /// Seals the content of a link.
    fn start(&self, specification: &Value, keys: &SealingKeys, errors: &mut ConfigErrors) -> Option<String> {
        let specification = substitute_all("start", specification, &Names::new(), errors);
        let start: Start = read("start", self.begun("start", json!({}), &specification, errors)?, errors)?;
        fits("start", start.seal(keys, &ENTROPY), errors)
    }

    /// What a transaction and a link have in common: begun ten seconds ago, for what the rules ask for on the page to come back to.
    fn begun(
        &self,
        path: &str,
        mut written: Value,
        specification: &Value,
        errors: &mut ConfigErrors,
    ) -> Option<Map<String, Value>> {
        let return_to = specification.get("return_to").and_then(Value::as_str).unwrap_or(self.base.return_to);
        // What the file is about, where no rule applies to the very page.
        let demand = [return_to, self.base.return_to].into_iter().find_map(|page| self.demand(page));
        if demand.is_none() && specification.get("demand").is_none_or(Value::is_null) {
            let problem =
                "missing: no rule asks for a login on the page to come back to (`return_to`); name another one there";
            errors.push(place(path, "demand"), problem);
            return None;
        }
        merge(&mut written, &json!({ "demand": demand.as_deref(), "return_to": return_to, "issued_at": "now-10" }));
        merge(&mut written, specification);
        let Value::Object(mut members) = written else { return None };
        put_times(&mut members, self.base.now);
        Some(members)
    }

    /// What the rules ask for on a page.
    fn demand(&self, page: &str) -> Option<Arc<Demand>> {
        let rules = &self.gate.rules;
        rules.matching(self.authority().as_bytes(), b"GET", &rules.readings(page.as_bytes())).enforced
    }

    /// The host of the app.
    fn authority(&self) -> String {
        let uri: Option<Uri> = self.gate.client.redirect_uri.parse().ok();
        uri.as_ref().and_then(Uri::authority).map_or_else(String::new, |authority| authority.as_str().to_owned())
    }

    /// A request: where there is a login under way the provider's answer to it, unless the case says otherwise.
    fn request(&self, written: &Value, names: &Names, carrier: Carrier, errors: &mut ConfigErrors) -> CaseRequest {
        let default = self.default_request(names, carrier);
        let mut text = |field: &str, default: String| {
            let written = written.get(field).and_then(Value::as_str);
            let text = written.map_or(default, |text| substituted(&place("request", field), text, names, errors));
            check_bytes(&place("request", field), &text, errors);
            text
        };
        let (method, authority) = (text("method", default.method), text("authority", default.authority));
        let (path, body) = (text("path", default.path), text("body", default.body));
        let headers = match written.get("headers") {
            None => default.headers,
            Some(Value::Array(fields)) => {
                let fields = fields.iter().enumerate().flat_map(|(index, field)| {
                    let place = format!("request.headers[{index}]");
                    let text = |at: usize| field.get(at).and_then(Value::as_str).unwrap_or_default();
                    let value = substituted(&place, text(1), names, errors);
                    check_bytes(&place, &value, errors);
                    let count = field.get(2).and_then(Value::as_u64).unwrap_or(1);
                    vec![(text(0).to_owned(), value); usize::try_from(count).unwrap_or(1)]
                });
                Some(fields.collect())
            }
            Some(_) => None,
        };
        CaseRequest { method, authority, path, headers, body }
    }

    fn default_request(&self, names: &Names, carrier: Carrier) -> CaseRequest {
        let mut request = CaseRequest {
            method: "GET".to_owned(),
            authority: self.authority(),
            path: self.base.page.to_owned(),
            headers: None,
            body: String::new(),
        };
        let mut headers = Vec::new();
        let mut cookies = Vec::new();
        let seals = self.gate.callback.as_ref().is_some_and(|callback| callback.seal_token);
        let cookie_value = names.get(if seals { "sealed:token" } else { "token" });
        match (names.get("token"), carrier, &self.gate.token.header) {
            (Some(token), Carrier::Header, Some(header)) => {
                let scheme = if header == "authorization" { "Bearer " } else { "" };
                headers.push((header.clone(), format!("{scheme}{token}")));
            }
            _ => cookies.extend(cookie_value.map(|value| format!("{}={value}", self.gate.token.cookie))),
        }
        if let (Some(callback), Some(transaction), Some(state)) =
            (&self.gate.callback, names.get("transaction"), names.get("state"))
        {
            cookies.push(transaction.clone());
            let answer = form_encode(&[("code", "code"), ("state", state), ("iss", &self.gate.provider.issuer)]);
            match callback.response_mode {
                ResponseMode::Query => request.path = format!("{}?{answer}", callback.path),
                ResponseMode::FormPost => {
                    headers.push(("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned()));
                    request.method = "POST".to_owned();
                    request.path.clone_from(&callback.path);
                    request.body = answer;
                }
            }
        }
        if !cookies.is_empty() {
            headers.push(("cookie".to_owned(), cookies.join("; ")));
        }
        request.headers = Some(headers);
        request
    }
}

fn check_bytes(path: &str, text: &str, errors: &mut ConfigErrors) {
    if let Some(other) = text.chars().find(|character| u32::from(*character) > 0xff) {
        errors.push(path, format!("each character is one byte, up to U+00FF: `{other}` is not"));
    }
}

fn read<T: serde::de::DeserializeOwned>(
    path: &str,
    written: Map<String, Value>,
    errors: &mut ConfigErrors,
) -> Option<T> {
    serde_json::from_value(Value::Object(written)).map_err(|error| errors.push(path, error.to_string())).ok()
}

fn fits(path: &str, sealed: Option<String>, errors: &mut ConfigErrors) -> Option<String> {
    if sealed.is_none() {
        errors.push(path, "does not fit into a cookie");
    }
    sealed
}
