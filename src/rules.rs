//! Which rules apply to a request.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::encoding::base64url_encode;
use crate::oidc::StepUp;
use crate::path::{PathIndex, PathPattern, Readings};
use crate::policy::{Requirement, add_missing};

/// A rule, apart from the hosts and paths that the index holds.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The methods it is limited to, upper case; `None` for every method.
    pub methods: Option<Vec<String>>,
    /// The paths that it leaves out.
    pub except: PathIndex<()>,
    /// What it asks for.
    pub demand: Arc<Demand>,
    /// Whether the configuration names the `acr_values` to ask for, rather than the requirement.
    pub names_acr_values: bool,
    /// Whether it only reports.
    pub report_only: bool,
}

/// What one rule asks for, or several together, and how to answer when it is not met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    /// Who asks.
    pub rules: RuleNames,
    /// What a token must prove.
    pub requirement: Requirement,
    /// How to ask the provider for it.
    pub step_up: StepUp,
    /// Which answer a step-up gets.
    pub answer: AnswerMode,
}

impl Demand {
    /// What all the rules ask for together; none for no rule.
    fn united(rules: &[&Rule]) -> Option<Arc<Self>> {
        let (first, others) = rules.split_first()?;
        if others.is_empty() {
            return Some(first.demand.clone());
        }
        let mut united = Self::clone(&first.demand);
        let names: Vec<Arc<str>> = rules.iter().flat_map(|rule| rule.demand.rules.iter().cloned()).collect();
        united.rules = names.into();
        for Rule { demand: other, .. } in others {
            united.requirement.unite(&other.requirement);
            united.step_up.unite(&other.step_up);
            united.answer = united.answer.max(other.answer);
        }
        united.step_up.acr_values = united_acr_values(rules);
        Some(Arc::new(united))
    }
}

/// The names of rules, for logs and metrics, in the document's order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<Arc<str>>", into = "Vec<Arc<str>>")]
pub struct RuleNames {
    names: Vec<Arc<str>>,
    /// Made when it is first asked for: most requests need none.
    fingerprint: OnceLock<Box<str>>,
}

impl PartialEq for RuleNames {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

impl Eq for RuleNames {}

impl RuleNames {
    /// A short name for this set of rules, to count attempts by.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| {
            let mut hash = Sha256::new();
            for name in &self.names {
                hash.update((name.len() as u64).to_be_bytes());
                hash.update(name.as_bytes());
            }
            base64url_encode(hash.finalize().get(..9).unwrap_or_default()).into()
        })
    }
}

impl From<Vec<Arc<str>>> for RuleNames {
    fn from(names: Vec<Arc<str>>) -> Self {
        Self { names, fingerprint: OnceLock::new() }
    }
}

impl From<RuleNames> for Vec<Arc<str>> {
    fn from(rules: RuleNames) -> Self {
        rules.names
    }
}

impl Deref for RuleNames {
    type Target = [Arc<str>];

    fn deref(&self) -> &[Arc<str>] {
        &self.names
    }
}

/// What the configuration names for some of the rules, and what the others ask for together.
fn united_acr_values(rules: &[&Rule]) -> Vec<String> {
    let (naming, others): (Vec<&Rule>, Vec<&Rule>) = rules.iter().partition(|rule| rule.names_acr_values);
    let mut unnamed = Requirement::default();
    others.iter().for_each(|rule| unnamed.unite(&rule.demand.requirement));
    let mut values: Vec<String> = Vec::new();
    naming.iter().for_each(|rule| add_missing(&mut values, &rule.demand.step_up.acr_values));
    add_missing(&mut values, &unnamed.acr_values());
    values
}

/// How a step-up is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AnswerMode {
    /// 302 to a browser's navigation, 401 to anything else.
    #[default]
    Auto,
    /// Always 302.
    Redirect,
    /// Always 401.
    Unauthorized,
}

/// Which hosts a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This host.
    Exact(Box<[u8]>),
    /// Any host below this domain: `.example.com`, with the dot.
    Below(Box<[u8]>),
}

impl HostPattern {
    /// Parses `app.example.com` or `*.example.com`.
    #[must_use]
    pub fn parse(pattern: &str) -> Option<Self> {
        let is_host = |host: &str| {
            readable_host(host.as_bytes()).is_some_and(|read| read == host.to_ascii_lowercase().as_bytes())
        };
        match pattern.strip_prefix('*') {
            Some(suffix) => suffix
                .strip_prefix('.')
                .filter(|domain| is_host(domain))
                .map(|_| Self::Below(suffix.to_ascii_lowercase().into_bytes().into())),
            None => is_host(pattern).then(|| Self::Exact(pattern.to_ascii_lowercase().into_bytes().into())),
        }
    }
}

/// All rules, indexed by host and path: a request that matches none costs a few look-ups, whatever the number of
/// rules.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    every_host: PathIndex<usize>,
    exact: BTreeMap<Box<[u8]>, PathIndex<usize>>,
    below: BTreeMap<Box<[u8]>, PathIndex<usize>>,
    case_insensitive: bool,
}

/// What the rules that apply to a request ask for.
#[derive(Clone, Debug)]
pub struct Demands {
    /// Those that are enforced.
    pub enforced: Option<Arc<Demand>>,
    /// Those that only report.
    pub reported: Option<Arc<Demand>>,
}

impl Rules {
    /// No rules yet.
    #[must_use]
    pub fn new(case_insensitive: bool) -> Self {
        Self {
            rules: Vec::new(),
            every_host: PathIndex::new(case_insensitive),
            exact: BTreeMap::new(),
            below: BTreeMap::new(),
            case_insensitive,
        }
    }

    /// Adds a rule for these hosts (none: every host) and paths.
    pub fn insert(&mut self, rule: Rule, hosts: &[HostPattern], paths: &[PathPattern]) {
        let id = self.rules.len();
        self.rules.push(rule);
        let new_index = || PathIndex::new(self.case_insensitive);
        for path in paths {
            if hosts.is_empty() {
                self.every_host.insert(path, id);
            }
            for host in hosts {
                let index = match host {
                    HostPattern::Exact(host) => self.exact.entry(host.clone()).or_insert_with(new_index),
                    HostPattern::Below(domain) => self.below.entry(domain.clone()).or_insert_with(new_index),
                };
                index.insert(path, id);
            }
        }
    }

    /// Every rule, in the document's order.
    #[cfg(not(target_family = "wasm"))]
    pub fn all(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// Whether paths are compared without regard to case.
    #[cfg(not(target_family = "wasm"))]
    #[must_use]
    pub const fn is_case_insensitive(&self) -> bool {
        self.case_insensitive
    }

    /// The readings of a request target under the option for origins that ignore case.
    #[must_use]
    pub fn readings(&self, target: &[u8]) -> Readings {
        Readings::of(target, self.case_insensitive)
    }

    /// What applies: the rules of the host and method that *any* reading of the path falls under, except where
    /// *every* reading is left out. A path that cannot be read for certain is never left out.
    #[must_use]
    pub fn matching(&self, authority: &[u8], method: &[u8], readings: &Readings) -> Demands {
        let mut ids: Vec<usize> = Vec::new();
        self.each_index(authority, &mut |index| {
            if readings.is_unbounded() {
                ids.extend(index.values());
            }
            for path in &readings.paths {
                index.matching(path, |id| ids.push(id));
            }
        });
        ids.sort_unstable();
        ids.dedup();
        let applies = |rule: &&Rule| {
            let left_out = readings.is_certain() && readings.paths.iter().all(|path| rule.except.matches_exactly(path));
            method_matches(rule.methods.as_deref(), method) && !left_out
        };
        let applying = ids.into_iter().filter_map(|id| self.rules.get(id)).filter(applies);
        let (mut reported, mut enforced): (Vec<&Rule>, Vec<&Rule>) = applying.partition(|rule| rule.report_only);
        // Such a path is refused whatever the rules ask for: one of them is enough to say so.
        if readings.defect.is_some() {
            reported.truncate(1);
            enforced.truncate(1);
        }
        Demands { enforced: Demand::united(&enforced), reported: Demand::united(&reported) }
    }

    /// The path indexes for a host. A host that cannot be read could be any.
    fn each_index(&self, authority: &[u8], visit: &mut dyn FnMut(&PathIndex<usize>)) {
        visit(&self.every_host);
        if self.exact.is_empty() && self.below.is_empty() {
            return;
        }
        match readable_host(authority) {
            Some(host) => {
                self.exact.get(host.as_slice()).into_iter().for_each(&mut *visit);
                let dots = host.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(position, _)| position);
                dots.filter_map(|dot| self.below.get(host.get(dot..)?)).for_each(visit);
            }
            None => self.exact.values().chain(self.below.values()).for_each(visit),
        }
    }
}

/// A rule for GET is a rule for HEAD: the app answers both alike. Case does not matter, as it does not to lenient
/// apps.
fn method_matches(methods: Option<&[String]>, method: &[u8]) -> bool {
    methods.is_none_or(|methods| {
        methods.iter().any(|name| {
            name.as_bytes().eq_ignore_ascii_case(method) || name == "GET" && method.eq_ignore_ascii_case(b"HEAD")
        })
    })
}

/// The host of an authority, lower case, without port and trailing dot. `None` for anything that is not plainly a
/// host name or an IP literal.
#[must_use]
pub fn readable_host(authority: &[u8]) -> Option<Vec<u8>> {
    let host = if authority.first() == Some(&b'[') {
        let end = authority.iter().position(|&byte| byte == b']')?;
        let (host, port) = authority.split_at_checked(end + 1)?;
        let address = std::str::from_utf8(host.get(1..end)?).ok()?.parse::<Ipv6Addr>().ok()?;
        return is_port(port).then(|| format!("[{address}]").into_bytes());
    } else {
        let colon = authority.iter().position(|&byte| byte == b':').unwrap_or(authority.len());
        let (host, port) = authority.split_at_checked(colon)?;
        let host = host.strip_suffix(b".").unwrap_or(host);
        let plain = host.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        (plain && !host.is_empty() && !host.ends_with(b".") && is_port(port)).then_some(host)?
    };
    Some(host.to_ascii_lowercase())
}

fn is_port(suffix: &[u8]) -> bool {
    suffix.strip_prefix(b":").map_or(suffix.is_empty(), |digits| digits.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(list: &[(&[&str], &[&str], &[&str])]) -> Rules {
        let mut rules = Rules::new(false);
        for (number, (hosts, paths, except)) in list.iter().enumerate() {
            let mut left_out = PathIndex::new(false);
            for pattern in *except {
                left_out.insert(&PathPattern::parse(pattern).unwrap(), ());
            }
            let rule = Rule {
                methods: None,
                except: left_out,
                demand: Arc::new(Demand {
                    rules: vec![number.to_string().into()].into(),
                    requirement: Requirement::default(),
                    step_up: StepUp::default(),
                    answer: AnswerMode::Auto,
                }),
                names_acr_values: false,
                report_only: false,
            };
            let hosts: Vec<_> = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
            let paths: Vec<_> = paths.iter().map(|path| PathPattern::parse(path).unwrap()).collect();
            rules.insert(rule, &hosts, &paths);
        }
        rules
    }

    fn names(rules: &Rules, authority: &str, target: &str) -> Vec<String> {
        let readings = rules.readings(target.as_bytes());
        let demands = rules.matching(authority.as_bytes(), b"GET", &readings);
        demands.enforced.map_or_else(Vec::new, |demand| demand.rules.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn hosts_are_compared_without_case_port_and_trailing_dot() {
        let rules = rules(&[(&["app.example.com"], &["/**"], &[]), (&["*.corp.example.com"], &["/**"], &[])]);
        for host in ["app.example.com", "APP.example.com:8443", "app.example.com.", "app.example.com.:443"] {
            assert_eq!(names(&rules, host, "/"), ["0"], "{host}");
        }
        assert_eq!(names(&rules, "a.b.corp.example.com", "/"), ["1"]);
        assert_eq!(names(&rules, "corp.example.com", "/"), [""; 0]);
        assert_eq!(names(&rules, "example.com", "/"), [""; 0]);
    }

    #[test]
    fn an_unreadable_host_could_be_any() {
        let rules = rules(&[(&["app.example.com"], &["/**"], &[]), (&["*.corp.example.com"], &["/**"], &[])]);
        for host in [
            "",
            "user@app.example.com",
            "app.example.com%2e",
            "app.example.com..",
            "a b",
            "app.example.com:x",
            "[::1",
            "[app.example.com]",
            "app.example.com/x",
        ] {
            assert_eq!(names(&rules, host, "/"), ["0", "1"], "{host}");
        }
        assert_eq!(names(&rules, "[::1]:80", "/"), [""; 0]);
        let v6 = self::rules(&[(&["[::1]"], &["/**"], &[])]);
        assert_eq!(names(&v6, "[0:0:0::1]:80", "/"), ["0"], "one address has many spellings");
    }

    #[test]
    fn any_reading_brings_a_rule_in_and_only_all_readings_leave_it_out() {
        let rules = rules(&[(&[], &["/salary/**"], &["/salary/help"])]);
        assert_eq!(names(&rules, "h", "/salary/help"), [""; 0]);
        assert_eq!(names(&rules, "h", "/salary/help/../x"), ["0"]);
        assert_eq!(names(&rules, "h", "/salary/help%2f..%2fx"), ["0"]);
        assert_eq!(names(&rules, "h", "/x/..%2fsalary/help"), ["0"], "one reading is not left out");
        assert_eq!(names(&rules, "h", ""), ["0"], "an absent path leaves nothing out");
        assert_eq!(names(&rules, "h", "*"), [""; 0]);
        assert_eq!(names(&rules, "h", "*salary/x"), ["0"], "some routers take an asterisk for a slash");
        assert_eq!(names(&rules, "h", "*/salary/x"), ["0"]);
    }

    #[test]
    fn what_cannot_be_read_for_certain_is_never_left_out() {
        let rules = rules(&[(&[], &["/**"], &["/public/**"])]);
        assert_eq!(names(&rules, "h", "/public/a%20b"), [""; 0]);
        for target in [
            "/public/a%00",
            "/public/%zz",
            "/public/%u002e%u002e/x",
            "/public/%c0%ae",
            "/public/%25252e%25252e/x",
            "/public/%2525u002e%2525u002e/x",
        ] {
            assert_eq!(names(&rules, "h", target), ["0"], "{target}");
        }
    }

    #[test]
    fn an_encoded_slash_is_part_of_a_segment_or_a_separator() {
        let rules = rules(&[(&[], &["/users/*/salary"], &[])]);
        for target in [
            "/users/a%2fb/salary",
            "/users/a%2fb/sal%61ry",
            "/users/a%2Fb/x/%2e%2e/salary",
            "/x/%2e%2e;/users/a%2fb/salary",
            "/users/a%2fb/salary%20",
            "/users//salary",
            "/users/;x/salary;y",
            "/users/.../sal%61ry.",
        ] {
            assert_eq!(names(&rules, "h", target), ["0"], "{target}");
        }
    }

    #[test]
    fn an_unreadable_path_names_one_rule_whatever_their_number() {
        let list: Vec<(&[&str], &[&str], &[&str])> = vec![(&[], &["/**"], &[]); 100];
        assert_eq!(names(&rules(&list), "h", "/a%00"), ["0"]);
        assert_eq!(names(&rules(&list), "h", "/a").len(), 100);
    }

    #[test]
    fn a_rule_for_get_holds_for_head() {
        let methods = ["GET".to_owned(), "DELETE".to_owned()];
        for (method, expected) in
            [("GET", true), ("get", true), ("HEAD", true), ("DELETE", true), ("POST", false), ("OPTIONS", false)]
        {
            assert_eq!(method_matches(Some(&methods), method.as_bytes()), expected, "{method}");
        }
        assert!(method_matches(None, b"BREW"));
    }
}
