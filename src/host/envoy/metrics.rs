//! Counters. The ABI has no labels: they are `key=value` parts of the name, for `stats_config.stats_tags` to extract.

use std::collections::BTreeMap;

use super::abi;
use crate::answer::Decision;
use crate::jose::Algorithm;
use crate::provider::Endpoint;

/// The counters of a worker, each defined when it is first needed.
#[derive(Default)]
pub struct Metrics {
    decisions: BTreeMap<(&'static str, &'static str), Option<u32>>,
    signatures: BTreeMap<(&'static str, &'static str), Option<u32>>,
}

impl Metrics {
    pub fn count_decision(&mut self, decision: &Decision) {
        let labels = (decision.kind.name(), decision.reason.code());
        let counter = self.decisions.entry(labels).or_insert_with(|| {
            abi::define_counter(&format!("stepgate_decisions.decision={}.reason={}", labels.0, labels.1))
        });
        if let Some(counter) = *counter {
            abi::increment(counter);
        }
    }

    pub fn count_signature(&mut self, by: &'static str, algorithm: Algorithm) {
        let labels = (by, algorithm.name());
        let counter = self.signatures.entry(labels).or_insert_with(|| {
            abi::define_counter(&format!("stepgate_signatures.by={}.algorithm={}", labels.0, labels.1))
        });
        if let Some(counter) = *counter {
            abi::increment(counter);
        }
    }

    /// Fetches are rare: the host finds the counter by its name.
    pub fn count_fetch(&mut self, endpoint: Endpoint, result: &str) {
        let counter = abi::define_counter(&format!("stepgate_fetches.endpoint={}.result={result}", endpoint.name()));
        if let Some(counter) = counter {
            abi::increment(counter);
        }
    }
}
