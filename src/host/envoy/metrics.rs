//! Metrics. The ABI has no labels: they are `key=value` parts of the name, for `stats_config.stats_tags` to extract.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::abi;
use crate::answer::{Decision, DecisionKind};
use crate::jose::Algorithm;
use crate::provider::Endpoint;
use crate::time::Timestamp;

/// So many counts of a tick go to the host at once; further ones are told together at the next, since a call for each request
/// costs more than the rest of the decision.
pub const MAX_COUNTS_AT_ONCE: u32 = 64;

/// So many counters of rules a worker has. Envoy keeps each as long as it runs, and clients choose what is counted.
pub const MAX_RULE_COUNTERS: usize = 4096;

/// The counters of a worker, each defined when it is first needed.
#[derive(Default)]
pub struct Metrics {
    decisions: BTreeMap<(DecisionKind, &'static str), Counter>,
    rules: BTreeMap<(DecisionKind, &'static str, Arc<str>), Counter>,
    signatures: BTreeMap<(&'static str, &'static str), Counter>,
    at_once: u32,
    /// Whether some counts have not been told yet.
    has_untold: bool,
}

#[derive(Default)]
struct Counter {
    id: Option<u32>,
    untold: i64,
}

impl Counter {
    fn define(name: &str) -> Self {
        Self { id: abi::define_counter(name), untold: 0 }
    }

    fn tell(&mut self) {
        if let Some(id) = self.id.filter(|_| self.untold > 0) {
            abi::add_to_counter(id, self.untold);
        }
        self.untold = 0;
    }
}

impl Metrics {
    pub fn count_decision(&mut self, decision: &Decision) {
        let labels @ (kind, code) = (decision.kind, decision.reason.code());
        let define = || Counter::define(&format!("stepgate_decisions.decision={}.reason={code}", kind.name()));
        count(self.decisions.entry(labels).or_insert_with(define), &mut self.at_once, &mut self.has_untold);
        // What passes is most of the traffic, and says nothing of a rule.
        if kind != DecisionKind::Forward {
            self.count_rules(decision);
        }
    }

    /// The decision, for each rule that asked. The rule stands last: its name may have dots.
    fn count_rules(&mut self, decision: &Decision) {
        let (kind, code) = (decision.kind, decision.reason.code());
        for rule in &decision.rules {
            let labels = (kind, code, rule.clone());
            if self.rules.len() >= MAX_RULE_COUNTERS && !self.rules.contains_key(&labels) {
                continue;
            }
            let define =
                || Counter::define(&format!("stepgate_rules.decision={}.reason={code}.rule={rule}", kind.name()));
            count(self.rules.entry(labels).or_insert_with(define), &mut self.at_once, &mut self.has_untold);
        }
    }

    pub fn count_signature(&mut self, by: &'static str, algorithm: Algorithm) {
        let labels = (by, algorithm.name());
        let define = || Counter::define(&format!("stepgate_signatures.by={}.algorithm={}", labels.0, labels.1));
        count(self.signatures.entry(labels).or_insert_with(define), &mut self.at_once, &mut self.has_untold);
    }

    /// Fetches are rare: the host finds the counter by its name.
    pub fn count_fetch(&mut self, endpoint: Endpoint, result: &str, now: Timestamp) {
        if (endpoint, result) == (Endpoint::Keys, "ok") {
            abi::set_gauge("stepgate_keys_timestamp_seconds", now.as_secs());
        }
        let counter = abi::define_counter(&format!("stepgate_fetches.endpoint={}.result={result}", endpoint.name()));
        if let Some(counter) = counter {
            abi::add_to_counter(counter, 1);
        }
    }

    pub const fn has_untold(&self) -> bool {
        self.has_untold
    }

    /// Tells the host what it does not know yet.
    pub fn tell(&mut self) {
        self.at_once = 0;
        if self.has_untold {
            self.has_untold = false;
            let counters =
                self.decisions.values_mut().chain(self.rules.values_mut()).chain(self.signatures.values_mut());
            counters.for_each(Counter::tell);
        }
    }
}

fn count(counter: &mut Counter, at_once: &mut u32, has_untold: &mut bool) {
    counter.untold += 1;
    if *at_once < MAX_COUNTS_AT_ONCE {
        *at_once += 1;
        counter.tell();
    } else {
        *has_untold = true;
    }
}
