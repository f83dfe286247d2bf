//! `step_up`, `acr_levels` and `rules`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::decode::{ConfigErrors, Node, Object};
use super::{endpoint_url, fields};
use crate::oidc::{LoginRoute, RESERVED_PARAMETERS, StepUp};
use crate::path::{PathIndex, PathPattern};
use crate::policy::{AcrCondition, AmrCondition, ClaimCondition, ClaimTest, Requirement};
use crate::rules::{AnswerMode, Demand, HostPattern, Rule, Rules};

/// How many rules a configuration may have.
pub const MAX_RULES: usize = 10_000;

/// How many hosts, paths, exceptions or methods a rule may have.
pub const MAX_PATTERNS: usize = 1_000;

/// How many values a condition may list.
pub const MAX_VALUES: usize = 64;

const MAX_AGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 60 * 60);

/// Whether a rule only reports, by `mode`.
const MODES: [(&str, bool); 2] = [("enforce", false), ("report", true)];

/// What the document says for every rule that does not say it itself.
struct Defaults {
    step_up: StepUpFields,
    report_only: bool,
}

pub(super) struct Decoded {
    pub rules: Rules,
    pub all_have_login_url: bool,
    pub login_urls: Vec<LoginUrl>,
    /// How long what each rule asks of the provider is as JSON, with the rule's place.
    pub demand_bytes: Vec<(String, usize)>,
}

/// A login route that a rule leads to, and a host that the rule is for.
pub(super) struct LoginUrl {
    pub place: String,
    pub url: String,
    pub authority: String,
}

pub(super) fn decode(root: &Object<'_>, errors: &mut ConfigErrors) -> Option<Decoded> {
    let case_insensitive =
        root.get("case_insensitive_paths").map_or(Some(false), |node| node.boolean(errors)).unwrap_or(false);
    let levels = root
        .get("acr_levels")
        .filter(|node| node.value.as_array().is_none_or(|list| !list.is_empty()))
        .map_or_else(Vec::new, |node| node.strings(MAX_VALUES, "string", errors));
    if levels.iter().enumerate().any(|(index, level)| levels.iter().skip(index + 1).any(|other| other == level)) {
        errors.push("acr_levels", "names a level twice");
    }
    let defaults = Defaults {
        step_up: root.get("step_up").map_or_else(StepUpFields::default, |node| StepUpFields::decode(&node, errors)),
        report_only: root.get("mode").and_then(|node| node.one_of(&MODES, errors)).unwrap_or(false),
    };
    let node = root.required("rules", "a list with at least one rule", errors)?;
    let items = node.items(MAX_RULES, "a list with at least one rule", errors);
    if items.is_empty() {
        return None;
    }
    let mut rules = Rules::new(case_insensitive);
    let mut login_urls = Vec::new();
    let mut demand_bytes = Vec::new();
    let mut all_have_login_url = true;
    let mut names: Vec<&str> = Vec::new();
    for item in &items {
        let Some(object) = Object::open(item, &fields::RULE, errors) else { continue };
        if let Some(name) = object.get("name").as_ref().and_then(|node| node.string("a name", errors)) {
            if names.contains(&name) {
                errors.push(object.place("name"), format!("`{name}` is the name of another rule"));
            }
            names.push(name);
        }
        let Some((rule, hosts, paths)) = decode_rule(&object, &defaults, &levels, case_insensitive, errors) else {
            continue;
        };
        if rule.demand.step_up.login.is_none() {
            let bytes = serde_json::to_vec(&*rule.demand).map_or(usize::MAX, |json| json.len());
            demand_bytes.push((item.path.clone(), bytes));
        }
        all_have_login_url &= rule.demand.step_up.login.is_some();
        if let Some(login) = &rule.demand.step_up.login {
            let own = object.get("step_up").and_then(|node| node.value.get("login_url").map(|_| node.path));
            let place = format!("{}.login_url", own.as_deref().unwrap_or("step_up"));
            let authorities =
                if hosts.is_empty() { vec![String::new()] } else { hosts.iter().map(example_of).collect() };
            login_urls.extend(authorities.into_iter().map(|authority| LoginUrl {
                place: place.clone(),
                url: login.url.clone(),
                authority,
            }));
        }
        rules.insert(rule, &hosts, &paths);
    }
    Some(Decoded { rules, all_have_login_url, login_urls, demand_bytes })
}

/// A host that the pattern matches.
fn example_of(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(host) => String::from_utf8_lossy(host).into_owned(),
        HostPattern::Below(domain) => format!("x{}", String::from_utf8_lossy(domain)),
    }
}

fn decode_rule(
    object: &Object<'_>,
    defaults: &Defaults,
    levels: &[String],
    case_insensitive: bool,
    errors: &mut ConfigErrors,
) -> Option<(Rule, Vec<HostPattern>, Vec<PathPattern>)> {
    let hosts = object.get("hosts").map_or_else(Vec::new, |node| decode_hosts(&node, errors));
    let paths_node = object.required("paths", "a list with at least one path", errors);
    let paths = paths_node.as_ref().map_or_else(Vec::new, |node| decode_paths(node, errors));
    let mut except = PathIndex::new(case_insensitive);
    let except_node = object.get("except").filter(|node| node.value.as_array().is_none_or(|list| !list.is_empty()));
    for pattern in except_node.map_or_else(Vec::new, |node| decode_paths(&node, errors)) {
        except.insert(&pattern, ());
    }
    let methods = object.get("methods").map(|node| decode_methods(&node, errors));
    let requirement = object.get("require").map_or_else(
        || Some(Requirement { amr: vec![AmrCondition::AnyOf(vec!["mfa".to_owned()])], ..Requirement::default() }),
        |node| decode_require(&node, levels, errors),
    );
    let step_up = object.get("step_up").map_or_else(StepUpFields::default, |node| StepUpFields::decode(&node, errors));
    let answers =
        [("auto", AnswerMode::Auto), ("redirect", AnswerMode::Redirect), ("unauthorized", AnswerMode::Unauthorized)];
    let answer = object.get("answer").map_or(Some(AnswerMode::Auto), |node| node.one_of(&answers, errors));
    let report_only = object.get("mode").map_or(Some(defaults.report_only), |node| node.one_of(&MODES, errors));
    let first_path = paths_node
        .and_then(|node| node.value.as_array().and_then(|list| list.first()).and_then(Value::as_str))
        .unwrap_or_default();
    let name = object.get("name").and_then(|node| node.value.as_str()).unwrap_or(first_path);
    let requirement = requirement?;
    let step_up = step_up.or(&defaults.step_up);
    let names_acr_values = step_up.acr_values.is_some();
    let step_up = step_up.effective(&requirement);
    let demand = Demand { rules: vec![name.into()].into(), requirement, step_up, answer: answer? };
    let rule = Rule { methods, except, demand: Arc::new(demand), names_acr_values, report_only: report_only? };
    Some((rule, hosts, paths))
}

fn decode_hosts(node: &Node<'_>, errors: &mut ConfigErrors) -> Vec<HostPattern> {
    let items = node.items(MAX_PATTERNS, "a list of hosts (leave it out for every host)", errors);
    let accepted = "a host name without port such as `app.example.com`, or `*.example.com` for all below a domain";
    items.iter().filter_map(|item| item.parsed(accepted, errors, HostPattern::parse)).collect()
}

fn decode_paths(node: &Node<'_>, errors: &mut ConfigErrors) -> Vec<PathPattern> {
    let items = node.items(MAX_PATTERNS, "a list with at least one path", errors);
    let mut patterns = Vec::new();
    for item in &items {
        let Some(text) = item.string("a path such as `/salary/**`", errors) else { continue };
        match PathPattern::parse(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(problem) => errors.invalid(item, &problem.to_string()),
        }
    }
    patterns
}

fn decode_methods(node: &Node<'_>, errors: &mut ConfigErrors) -> Vec<String> {
    let items = node.items(MAX_PATTERNS, "a list of methods (leave it out for every method)", errors);
    let accepted = "a method such as `GET`";
    let parse = |text: &str| super::is_token(text).then(|| text.to_ascii_uppercase());
    items.iter().filter_map(|item| item.parsed(accepted, errors, parse)).collect()
}

fn decode_require(node: &Node<'_>, levels: &[String], errors: &mut ConfigErrors) -> Option<Requirement> {
    let object = Object::open(node, &fields::REQUIRE, errors)?;
    object.refuse_nulls(errors);
    let amr = object.get("amr").map_or(Some(Vec::new()), |node| Some(vec![decode_amr(&node, errors)?]));
    let acr = object.get("acr").map_or(Some(Vec::new()), |node| Some(vec![decode_acr(&node, levels, errors)?]));
    let max_age = object.get("max_age").map_or(Some(None), |node| {
        let max_age = node.duration(&MAX_AGE, errors)?;
        if max_age.subsec_nanos() != 0 {
            errors.invalid(&node, "a whole number of seconds");
        }
        Some(Some(max_age))
    });
    let claims = object.get("claims").map_or(Some(Vec::new()), |node| decode_claims(&node, errors));
    Some(Requirement { amr: amr?, acr: acr?, max_age: max_age?, claims: claims? })
}

fn decode_amr(node: &Node<'_>, errors: &mut ConfigErrors) -> Option<AmrCondition> {
    let accepted = "a value such as `mfa`, `{ any_of: [...] }` or `{ all_of: [...] }`";
    if node.value.is_object() {
        let (test, operand) = single_member(node, &["any_of", "all_of"], accepted, errors)?;
        let values = operand.strings(MAX_VALUES, "value", errors);
        return Some(if test == "any_of" { AmrCondition::AnyOf(values) } else { AmrCondition::AllOf(values) });
    }
    Some(AmrCondition::AnyOf(vec![node.string(accepted, errors)?.to_owned()]))
}

fn decode_acr(node: &Node<'_>, levels: &[String], errors: &mut ConfigErrors) -> Option<AcrCondition> {
    let accepted = "a value, `{ any_of: [...] }` or `{ at_least: LEVEL }`";
    if node.value.is_object() {
        let (test, operand) = single_member(node, &["any_of", "at_least"], accepted, errors)?;
        if test == "any_of" {
            let values = operand.strings(MAX_VALUES, "value", errors);
            return Some(AcrCondition { accepted: values.clone(), asked: values });
        }
        let accepted = if levels.is_empty() {
            "one of `acr_levels`, which is empty".to_owned()
        } else {
            format!("one of `acr_levels` ({})", levels.join(", "))
        };
        let at_least = |text: &str| {
            let index = levels.iter().position(|level| level == text)?;
            Some(AcrCondition { accepted: levels.get(index..)?.to_vec(), asked: vec![text.to_owned()] })
        };
        return operand.parsed(&accepted, errors, at_least);
    }
    let value = vec![node.string(accepted, errors)?.to_owned()];
    Some(AcrCondition { accepted: value.clone(), asked: value })
}

fn decode_claims(node: &Node<'_>, errors: &mut ConfigErrors) -> Option<Vec<ClaimCondition>> {
    let Value::Object(claims) = node.value else {
        errors.invalid(node, "an object from claim to `{ contains: VALUE }` or `{ equals: VALUE }`");
        return None;
    };
    if claims.is_empty() {
        errors.push(&node.path, "must name at least one claim; leave it out to ask for none");
    }
    let conditions = claims.iter().filter_map(|(claim, value)| {
        let place = Node { path: format!("{}.{claim}", node.path), value };
        let accepted = "`{ contains: VALUE }` or `{ equals: VALUE }`";
        if !value.is_object() {
            errors.invalid(&place, accepted);
            return None;
        }
        let (test, operand) = single_member(&place, &["contains", "equals"], accepted, errors)?;
        if operand.value.is_object() || operand.value.is_array() {
            errors.invalid(&operand, "a string, a number or a boolean");
            return None;
        }
        let operand = operand.value.clone();
        let test = if test == "contains" { ClaimTest::Contains(operand) } else { ClaimTest::Equals(operand) };
        Some(ClaimCondition { claim: claim.clone(), test })
    });
    Some(conditions.collect())
}

/// The one member of an object that must have exactly one.
fn single_member<'a>(
    node: &Node<'a>,
    known: &[&'static str],
    accepted: &str,
    errors: &mut ConfigErrors,
) -> Option<(&'static str, Node<'a>)> {
    let object = Object::open(node, known, errors)?;
    let mut present = known.iter().filter_map(|name| Some((*name, object.get(name)?)));
    match (present.next(), present.next()) {
        (Some(only), None) => Some(only),
        _ => {
            errors.push(&node.path, format!("must be {accepted}, exactly one of them"));
            None
        }
    }
}

/// The fields of a `step_up` object that are given.
#[derive(Clone, Default)]
struct StepUpFields {
    acr_values: Option<Vec<String>>,
    scope: Option<Vec<String>>,
    claims: Option<Map<String, Value>>,
    params: Option<Vec<(String, String)>>,
    login_url: Option<String>,
    return_to_param: Option<String>,
    max_attempts: Option<u32>,
}

impl StepUpFields {
    fn decode(node: &Node<'_>, errors: &mut ConfigErrors) -> Self {
        let Some(object) = Object::open(node, &fields::STEP_UP, errors) else { return Self::default() };
        let words = |text: &str| -> Vec<String> { text.split_ascii_whitespace().map(str::to_owned).collect() };
        let acr_values = object.get("acr_values").and_then(|node| {
            node.parsed("a string of values separated by spaces, empty to send none", errors, |text| Some(words(text)))
        });
        let scope = object.get("scope").and_then(|node| {
            let accepted = "a string of scopes separated by spaces, `openid` among them";
            node.parsed(accepted, errors, |text| {
                Some(words(text)).filter(|scopes| scopes.iter().any(|scope| scope == "openid"))
            })
        });
        let claims = object.get("claims").and_then(|node| {
            if !node.value.is_object() {
                errors.invalid(&node, "an object, the OpenID Connect `claims` request parameter");
            }
            node.value.as_object().cloned()
        });
        let params = object.get("params").and_then(|node| decode_params(&node, errors));
        let login_url = object.get("login_url").and_then(|node| {
            let accepted =
                "a path that starts with one `/`, or an https URL without fragment (http only for loopback hosts)";
            node.parsed(accepted, errors, |text| local_path(text).or_else(|| endpoint_url(text)))
        });
        let return_to_param =
            object.get("return_to_param").and_then(|node| node.string("a parameter's name", errors)).map(str::to_owned);
        let max_attempts = object
            .get("max_attempts")
            .and_then(|node| node.integer(&(1..=100), errors))
            .and_then(|attempts| u32::try_from(attempts).ok());
        if return_to_param.is_some() && object.get("login_url").is_none() {
            errors.push(object.place("return_to_param"), "needs `login_url` beside it");
        }
        Self { acr_values, scope, claims, params, login_url, return_to_param, max_attempts }
    }

    /// These fields, and the defaults where one is not given.
    fn or(self, defaults: &Self) -> Self {
        let (login_url, return_to_param) = match self.login_url {
            Some(url) => (Some(url), self.return_to_param),
            None => (defaults.login_url.clone(), defaults.return_to_param.clone()),
        };
        Self {
            acr_values: self.acr_values.or_else(|| defaults.acr_values.clone()),
            scope: self.scope.or_else(|| defaults.scope.clone()),
            claims: self.claims.or_else(|| defaults.claims.clone()),
            params: self.params.or_else(|| defaults.params.clone()),
            login_url,
            return_to_param,
            max_attempts: self.max_attempts.or(defaults.max_attempts),
        }
    }

    /// What a rule with this requirement asks for.
    fn effective(self, requirement: &Requirement) -> StepUp {
        let return_to_param = self.return_to_param;
        StepUp {
            acr_values: self.acr_values.unwrap_or_else(|| requirement.acr_values()),
            scope: self.scope.unwrap_or_else(|| vec!["openid".to_owned()]),
            claims: self.claims.unwrap_or_default(),
            params: self.params.unwrap_or_default(),
            login: self.login_url.map(|url| LoginRoute { url, return_to_param }),
            max_attempts: self.max_attempts.unwrap_or(3),
        }
    }
}

fn decode_params(node: &Node<'_>, errors: &mut ConfigErrors) -> Option<Vec<(String, String)>> {
    let Value::Object(params) = node.value else {
        errors.invalid(node, "an object from parameter to string");
        return None;
    };
    let decoded = params.iter().filter_map(|(name, value)| {
        let place = Node { path: format!("{}.{name}", node.path), value };
        if RESERVED_PARAMETERS.contains(&name.as_str()) {
            errors.push(place.path, format!("`{name}` is set by Stepgate itself"));
            return None;
        }
        Some((name.clone(), place.string("a string", errors)?.to_owned()))
    });
    Some(decoded.collect())
}

/// A path on the same origin: RFC 3986 section 4.2 reads `//` as an authority, browsers `/\` as well.
fn local_path(text: &str) -> Option<String> {
    let rest = text.strip_prefix('/')?;
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains('#');
    (plain && !rest.starts_with(['/', '\\'])).then(|| text.to_owned())
}
