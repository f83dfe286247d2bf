//! Why a request is decided as it is: every reading of its path, every rule, every check with both sides. For people; the
//! gate decides without it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::answer::Decision;
use crate::claims::VerifiedIdToken;
use crate::config::Config;
use crate::encoding::{base64url_decode, parse_json_object};
use crate::env::Env;
use crate::flow::route;
use crate::gate::{Gate, Outcome, Step};
use crate::http::Request;
use crate::oidc::StepUp;
use crate::path::{PathIndex, PathPattern, Readings};
use crate::policy::{AcrCondition, AmrCondition, ClaimTest, Requirement};
use crate::provider::{Fetch, FetchFailure, Reply};
use crate::reason::Reason;
use crate::rules::{AnswerMode, Demand, HostPattern, Rule, Rules};
use crate::time::{DisplayAge, DisplayDuration, Timestamp};

/// Everything that leads to a decision, and the decision.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// Whether the gate answers the path itself, whatever the rules say: it is that of `client.redirect_uri`, or `logout_path`.
    pub is_own_path: bool,
    /// What the path may mean.
    pub path: PathExplained,
    /// Each rule of the configuration, in its order.
    pub rules: Vec<RuleExplained>,
    /// Each check in the order of the gate's. The first that fails is the reason.
    pub checks: Vec<Check>,
    /// What was decided.
    pub answer: Answer,
}

/// What a path may mean.
#[derive(Debug, Serialize)]
pub struct PathExplained {
    /// Each reading that some server may have. A rule applies when one of them matches.
    pub readings: Vec<String>,
    /// What makes it unreadable.
    pub defect: Option<String>,
    /// Whether these are all, so that an exception can be granted.
    pub certain: bool,
}

/// What one rule has to do with the request.
#[derive(Debug, Serialize)]
pub struct RuleExplained {
    /// Its place in the document.
    pub place: String,
    /// Its name.
    pub name: String,
    /// Whether it only reports.
    pub report_only: bool,
    /// Whether it applies to the request.
    pub applies: bool,
    /// Why it does, or does not.
    pub because: String,
}

/// One check, with both sides.
#[derive(Debug, Serialize)]
pub struct Check {
    /// The name of the rule that asks, where one does.
    pub rule: Option<String>,
    /// What is looked at.
    pub what: String,
    /// What is asked for.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// Whether it is met; none where it was not reached.
    pub met: Option<bool>,
    /// The reason code that it leads to when it is not met.
    pub code: Option<&'static str>,
}

/// A decision.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// The kind of decision.
    pub decision: &'static str,
    /// The reason code.
    pub reason: &'static str,
    /// The reason in words.
    pub because: String,
    /// The rules that asked.
    pub rules: Vec<Arc<str>>,
    /// The status of the gate's own answer; none where the app answers.
    pub status: Option<u16>,
    /// The fields of the gate's own answer, and those that the app's gets. Cookies stand without their values.
    pub headers: Vec<(String, String)>,
    /// Where the gate sends the browser, taken apart.
    pub location: Option<Location>,
    /// The header fields that the app does not get.
    pub removed: Vec<String>,
    /// The header fields that the app gets from the gate.
    pub added: Vec<(String, String)>,
}

/// A URL, taken apart.
#[derive(Debug, Serialize)]
pub struct Location {
    /// Without its query.
    pub endpoint: String,
    /// The parameters, decoded.
    pub parameters: Vec<(String, String)>,
}

/// The token that a request carries, as the gate finds it. It is a credential.
#[must_use]
pub fn token_of(gate: &Gate, request: &Request<'_>) -> Option<String> {
    Some(gate.find_token(request).0.ok()??.token)
}

/// Explains a request by the configuration `document` of this gate, which has learned the provider's documents already: what it
/// asks for beyond them cannot be had. `verdict`: what to take a signature for, instead of checking it.
pub fn explain(
    gate: &mut Gate,
    document: &Value,
    request: &Request<'_>,
    verdict: Option<bool>,
    env: Env<'_>,
) -> Explanation {
    let readings = gate.config().rules.readings(request.path);
    let rules = explain_rules(gate.config(), document, request, &readings);
    let demanding = gate.config().rules.all().zip(&rules).filter(|(_, explained)| explained.applies);
    let demanding =
        demanding.map(|(rule, _)| (rule.demand.rules.join(", "), rule.demand.requirement.clone())).collect::<Vec<_>>();
    let checks = explain_checks(gate, request, &demanding, &readings, verdict, env.now);
    let is_own_path = gate.config().callback.as_ref().is_some_and(|callback| route(callback, request).is_some());
    let decision = decide(gate, request, verdict, env);
    Explanation { is_own_path, path: explain_path(&readings), rules, checks, answer: explain_answer(&decision) }
}

/// Takes a request to its decision.
fn decide(gate: &mut Gate, request: &Request<'_>, verdict: Option<bool>, env: Env<'_>) -> Decision {
    let mut step = gate.begin(request, env);
    loop {
        step = match step {
            Step::Done(decision) => return decision,
            Step::Verify(_, pending) => {
                gate.resume(pending, verdict.map_or(Outcome::Unsupported, Outcome::Verified), env)
            }
            Step::Body(_, pending) => gate.resume(pending, Outcome::Unsupported, env),
            Step::Fetch(fetch, pending) => gate.resume(pending, Outcome::Fetched(nothing(&fetch, env.now)), env),
        };
    }
}

fn nothing(fetch: &Fetch, now: Timestamp) -> Reply {
    Reply::failed(fetch, now.plus(Duration::from_millis(1)), FetchFailure::Unreachable)
}

fn explain_path(readings: &Readings) -> PathExplained {
    PathExplained {
        readings: readings.paths.iter().map(|path| shown(path)).collect(),
        defect: readings.defect.map(|defect| defect.to_string()),
        certain: readings.is_certain(),
    }
}

/// Where a rule applies, as a valid document writes it.
pub struct WrittenRule<'a> {
    /// `hosts`; none for every one.
    pub hosts: Vec<&'a str>,
    /// `paths`.
    pub paths: Vec<&'a str>,
    /// `except`.
    pub except: Vec<&'a str>,
    /// `methods`, upper case; none for every one.
    pub methods: Vec<String>,
}

impl<'a> WrittenRule<'a> {
    /// Reads a rule of the document.
    #[must_use]
    pub fn of(rule: &'a Value) -> Self {
        let list = |name: &str| -> Vec<&'a str> {
            rule.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
        };
        let methods = list("methods").iter().map(|method| method.to_ascii_uppercase()).collect();
        Self { hosts: list("hosts"), paths: list("paths"), except: list("except"), methods }
    }
}

fn explain_rules(config: &Config, document: &Value, request: &Request<'_>, readings: &Readings) -> Vec<RuleExplained> {
    let written = document.get("rules").and_then(Value::as_array).into_iter().flatten();
    let rules = written.enumerate().zip(config.rules.all());
    rules
        .map(|((index, written), rule)| {
            let (applies, because) =
                applies(&WrittenRule::of(written), request, readings, config.rules.is_case_insensitive());
            RuleExplained {
                place: format!("rules[{index}]"),
                name: rule.demand.rules.join(", "),
                report_only: rule.report_only,
                applies,
                because,
            }
        })
        .collect()
}

/// Whether a rule applies, and why. Asks the index of rules itself, with one condition after the other.
fn applies(
    written: &WrittenRule<'_>,
    request: &Request<'_>,
    readings: &Readings,
    case_insensitive: bool,
) -> (bool, String) {
    let hosts: Vec<HostPattern> = written.hosts.iter().filter_map(|host| HostPattern::parse(host)).collect();
    let parse = |patterns: &[&str]| -> Vec<PathPattern> {
        patterns.iter().filter_map(|pattern| PathPattern::parse(pattern).ok()).collect()
    };
    let paths = parse(&written.paths);
    let matches = |hosts: &[HostPattern], methods: &[String], except: &[&str]| {
        let mut index = PathIndex::new(case_insensitive);
        parse(except).iter().for_each(|pattern| index.insert(pattern, ()));
        let mut rules = Rules::new(case_insensitive);
        rules.insert(placeholder(methods, index), hosts, &paths);
        rules.matching(request.authority, request.method, readings).enforced.is_some()
    };
    let listed = |items: &[&str]| items.iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", ");
    let methods: Vec<&str> = written.methods.iter().map(String::as_str).collect();
    if !matches(&[], &[], &[]) {
        return (false, format!("no reading of the path matches {}", listed(&written.paths)));
    }
    if !matches(&hosts, &[], &[]) {
        return (false, format!("the host `{}` is none of {}", shown(request.authority), listed(&written.hosts)));
    }
    if !matches(&[], &written.methods, &[]) {
        return (false, format!("the method `{}` is none of {}", shown(request.method), listed(&methods)));
    }
    if !matches(&[], &[], &written.except) {
        return (false, format!("every reading is left out by {}", listed(&written.except)));
    }
    if readings.is_unbounded() {
        return (true, "the path cannot be read, so it could be any".to_owned());
    }
    let found = readings.paths.iter().find_map(|path| {
        let pattern = written.paths.iter().find(|pattern| {
            let mut index = PathIndex::new(case_insensitive);
            parse(&[pattern]).iter().for_each(|pattern| index.insert(pattern, ()));
            let mut found = false;
            index.matching(path, |()| found = true);
            found
        })?;
        Some(format!("`{}` matches `{pattern}`", shown(path)))
    });
    (true, found.unwrap_or_else(|| "a reading of the path matches".to_owned()))
}

/// A rule of which only the conditions matter.
fn placeholder(methods: &[String], except: PathIndex<()>) -> Rule {
    let demand = Demand {
        rules: Vec::new().into(),
        requirement: Requirement::default(),
        step_up: StepUp::default(),
        answer: AnswerMode::Auto,
    };
    let methods = Some(methods.to_vec()).filter(|methods| !methods.is_empty());
    Rule { methods, except, demand: Arc::new(demand), names_acr_values: false, report_only: false }
}

/// The checks of a token in the order of the gate's, the verdict on each taken from the gate's own functions.
fn explain_checks(
    gate: &mut Gate,
    request: &Request<'_>,
    demanding: &[(String, Requirement)],
    readings: &Readings,
    verdict: Option<bool>,
    now: Timestamp,
) -> Vec<Check> {
    if demanding.is_empty() {
        return Vec::new();
    }
    if let Some(defect) = readings.defect {
        let refusal = Reason::PathRejected(defect);
        return vec![Check::failed("path", "one that can be read safely", &defect.to_string(), &refusal)];
    }
    let cookie = &gate.config().token.cookie;
    let place = match &gate.config().token.header {
        Some(header) => format!("in the cookie `{cookie}` or the header field `{header}`"),
        None => format!("in the cookie `{cookie}`"),
    };
    let found = match gate.find_token(request).0 {
        Ok(Some(found)) => found,
        Ok(None) => return vec![Check::failed("ID Token", &place, "absent", &Reason::TokenMissing)],
        Err(reason) => return vec![Check::failed("ID Token", &place, &reason.to_string(), &reason)],
    };
    let mut checks = vec![Check::met("ID Token", &place, &format!("{} bytes", found.token.len()))];
    let inspected = gate.inspect(&found.token, verdict, now);
    checks.extend(explain_form(gate.config(), &found.token, inspected.as_ref().err(), verdict));
    let Ok(token) = inspected else { return checks };
    checks.extend(explain_times(&token, gate.config().token.leeway, now));
    for (rule, requirement) in demanding {
        checks.extend(explain_requirement(rule, requirement, &token, now));
    }
    checks
}

/// What does not change with time. `failed` is the gate's own verdict.
fn explain_form(config: &Config, token: &str, failed: Option<&Reason>, verdict: Option<bool>) -> Vec<Check> {
    let part = |index: usize| -> Map<String, Value> {
        let decoded = token.split('.').nth(index).and_then(|part| base64url_decode(part.as_bytes()));
        decoded.and_then(|bytes| parse_json_object(&bytes).ok()).unwrap_or_default()
    };
    let (header, claims) = (part(0), part(1));
    let text = |object: &Map<String, Value>, name: &str| object.get(name).map_or("absent".to_owned(), Value::to_string);
    let algorithms: Vec<&str> = config.token.algorithms.iter().map(|algorithm| algorithm.name()).collect();
    let audiences: Vec<String> = std::iter::once(&config.client.id)
        .chain(&config.client.audiences)
        .map(|audience| format!("`{audience}`"))
        .collect();
    let azp = claims.get("azp").map(|azp| format!(", `azp` {azp}")).unwrap_or_default();
    let typ = header.get("typ").map(|typ| format!(", `typ` {typ}")).unwrap_or_default();
    let stages = [
        (
            "form",
            format!("an ID Token as a compact JWS of at most {} bytes", config.token.max_bytes),
            "well-formed".to_owned(),
        ),
        (
            "algorithm",
            format!("{}, `typ` absent or `JWT`, no `crit`", algorithms.join(", ")),
            format!("{}{typ}", text(&header, "alg")),
        ),
        ("key", "one of the provider's".to_owned(), format!("`kid` {}", text(&header, "kid"))),
        (
            "signature",
            "valid".to_owned(),
            if verdict == Some(true) { "taken for valid, not checked" } else { "valid" }.to_owned(),
        ),
        ("`iss`", format!("`{}`", config.provider.issuer), text(&claims, "iss")),
        ("`aud`", format!("{} and nobody else", audiences.join(" or ")), format!("{}{azp}", text(&claims, "aud"))),
    ];
    let stage = failed.map(|reason| match reason {
        Reason::AlgorithmNotAllowed(_) => 1,
        Reason::KeyUnknown | Reason::KeysUnavailable { .. } => 2,
        Reason::SignatureInvalid => 3,
        Reason::IssuerMismatch => 4,
        Reason::AudienceMismatch => 5,
        _ => 0,
    });
    let checks = stages.into_iter().enumerate().map(|(index, (what, expected, found))| {
        let Some((stage, reason)) = stage.zip(failed) else { return Check::met(what, &expected, &found) };
        match index.cmp(&stage) {
            std::cmp::Ordering::Less => Check::met(what, &expected, &found),
            std::cmp::Ordering::Equal => {
                let found = match reason {
                    Reason::IssuerMismatch | Reason::AudienceMismatch => found,
                    Reason::SignatureInvalid => "not valid".to_owned(),
                    Reason::TokenMalformed(problem) => (*problem).to_owned(),
                    _ => format!("{found}: {reason}"),
                };
                Check::failed(what, &expected, &found, reason)
            }
            std::cmp::Ordering::Greater => Check { met: None, ..Check::met(what, &expected, &found) },
        }
    });
    checks.collect()
}

fn explain_times(token: &VerifiedIdToken, leeway: Duration, now: Timestamp) -> Vec<Check> {
    let failed = token.check_times(now, leeway).err();
    let tolerance = format!("(leeway {})", DisplayDuration(leeway));
    let times = [
        ("`exp`", "in the future", Some(token.expires())),
        ("`nbf`", "in the past, where there is one", token.not_before()),
        ("`iat`", "in the past", Some(token.issued_at())),
        ("`auth_time`", "in the past, where there is one", token.auth_time()),
    ];
    let checks = times.into_iter().map(|(what, expected, time)| {
        let found = time.map_or("absent".to_owned(), |time| relative(time, now));
        let expected = format!("{expected} {tolerance}");
        let is_it = match &failed {
            Some(Reason::TokenExpired { .. }) => what == "`exp`",
            Some(Reason::TokenNotYetValid(claim)) => what.trim_matches('`') == *claim,
            _ => false,
        };
        match &failed {
            Some(reason) if is_it => Check::failed(what, &expected, &found, reason),
            _ => Check::met(what, &expected, &found),
        }
    });
    checks.collect()
}

/// A time, as seconds and as how long ago it is.
fn relative(time: Timestamp, now: Timestamp) -> String {
    let (ago, ahead) = (now.since(time), time.since(now));
    let seconds = time.as_secs();
    match (ago.as_secs(), ahead.as_secs()) {
        (0, 0) => format!("{seconds}, now"),
        (0, _) => format!("{seconds}, in {}", DisplayAge(ahead)),
        _ => format!("{seconds}, {} ago", DisplayAge(ago)),
    }
}

fn explain_requirement(rule: &str, requirement: &Requirement, token: &VerifiedIdToken, now: Timestamp) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut check = |part: Requirement, what: &str, expected: String, found: String| {
        let check = match part.evaluate(token, now) {
            Ok(()) => Check::met(what, &expected, &found),
            Err(reason) => Check::failed(what, &expected, &found, &reason),
        };
        checks.push(Check { rule: Some(rule.to_owned()), ..check });
    };
    let nothing = Requirement::default;
    let claim = |name: &str| token.claim(name).map_or("absent".to_owned(), Value::to_string);
    for condition in &requirement.amr {
        let expected = match condition {
            AmrCondition::AnyOf(values) => format!("has {}", listed(values, " or ")),
            AmrCondition::AllOf(values) => format!("has {}", listed(values, " and ")),
        };
        check(Requirement { amr: vec![condition.clone()], ..nothing() }, "`amr`", expected, claim("amr"));
    }
    for condition in &requirement.acr {
        let AcrCondition { accepted, .. } = condition;
        let expected = format!("is {}", listed(accepted, " or "));
        check(Requirement { acr: vec![condition.clone()], ..nothing() }, "`acr`", expected, claim("acr"));
    }
    if let Some(max_age) = requirement.max_age {
        let expected = format!("`auth_time` at most {} ago", DisplayDuration(max_age));
        let found = token.auth_time().map_or("absent".to_owned(), |time| relative(time, now));
        check(Requirement { max_age: Some(max_age), ..nothing() }, "`max_age`", expected, found);
    }
    for condition in &requirement.claims {
        let expected = match &condition.test {
            ClaimTest::Equals(value) => format!("is `{value}`"),
            ClaimTest::Contains(value) => format!("has `{value}`"),
        };
        let what = format!("`{}`", condition.claim);
        let found = claim(&condition.claim);
        check(Requirement { claims: vec![condition.clone()], ..nothing() }, &what, expected, found);
    }
    checks
}

fn listed(values: &[String], between: &str) -> String {
    values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(between)
}

fn explain_answer(decision: &Decision) -> Answer {
    let own = decision.response.as_ref();
    let own_headers = own.into_iter().flat_map(|response| &response.headers);
    let location = own_headers.clone().find(|(name, _)| *name == "location").map(|(_, url)| Location::of(url));
    let headers = own_headers.chain(&decision.response_headers).map(|(name, value)| {
        let value = match *name {
            "set-cookie" => cookie_shown(value),
            "location" => location.as_ref().map_or_else(String::new, |location| location.endpoint.clone()),
            _ => value.clone(),
        };
        ((*name).to_owned(), value)
    });
    Answer {
        decision: decision.kind.name(),
        reason: decision.reason.code(),
        because: decision.reason.to_string(),
        rules: decision.rules.clone(),
        status: own.map(|response| response.status),
        headers: headers.collect(),
        removed: decision.request.removed.iter().map(|name| shown(name)).collect(),
        added: decision.request.added.iter().map(|(name, value)| (name.clone(), field_shown(name, value))).collect(),
        location,
    }
}

/// A field that the app gets. Cookies and credentials of the app's own are nobody else's business.
fn field_shown(name: &str, value: &[u8]) -> String {
    let value = shown(value);
    match name {
        "cookie" => {
            let names = value.split(';').map(|cookie| cookie.split('=').next().unwrap_or_default().trim().to_owned());
            format!("({})", names.collect::<Vec<_>>().join(", "))
        }
        "authorization" => format!("{} …", value.split(' ').next().unwrap_or_default()),
        _ => value,
    }
}

/// A cookie, without its value.
fn cookie_shown(line: &str) -> String {
    let (name, rest) = line.split_once('=').unwrap_or((line, ""));
    let (value, attributes) = rest.split_once(';').unwrap_or((rest, ""));
    let value = if value.is_empty() { String::new() } else { format!("({} bytes)", value.len()) };
    format!("{name}={value};{attributes}")
}

impl Location {
    fn of(url: &str) -> Self {
        let (endpoint, query) = url.split_once('?').unwrap_or((url, ""));
        let parameters = form_urlencoded::parse(query.as_bytes()).map(|(name, value)| {
            let value = if name == "id_token_hint" { "(the ID Token)".to_owned() } else { value.into_owned() };
            (name.into_owned(), value)
        });
        Self { endpoint: endpoint.to_owned(), parameters: parameters.collect() }
    }
}

impl Check {
    fn met(what: &str, expected: &str, found: &str) -> Self {
        let (what, expected, found) = (what.to_owned(), expected.to_owned(), found.to_owned());
        Self { rule: None, what, expected, found, met: Some(true), code: None }
    }

    fn failed(what: &str, expected: &str, found: &str, reason: &Reason) -> Self {
        Self { met: Some(false), code: Some(reason.code()), ..Self::met(what, expected, found) }
    }
}

/// Bytes as text: what is not printable ASCII is escaped.
fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\\\", "\\")
}
