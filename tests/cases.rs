//! The decision cases through the library.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::sync::LazyLock;

use stepgate::Reason;
use stepgate::cases::{self, Case};

#[allow(dead_code, reason = "each test crate uses a part of it")]
mod support;

/// Any time will do; a fixed one makes failures repeatable.
const NOW: u64 = 1_800_000_000;

static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| support::all_cases(NOW));

/// As many cases as the product promises to agree on across hosts, at least.
const AT_LEAST: usize = 120;

#[test]
fn every_case_is_decided_as_expected() {
    let cases = &*CASES;
    let outcomes = cases.iter().map(cases::run);
    let failures: Vec<String> =
        outcomes.filter(|outcome| !outcome.is_as_expected()).map(|outcome| outcome.to_string()).collect();
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(cases.len() >= AT_LEAST, "only {} cases", cases.len());
    assert!(cases.iter().all(|case| !case.skip.contains_key("library")), "a case is not run");
    // Past the test harness, which keeps the output of a test that passes.
    writeln!(io::stdout(), "library: cases: {0} = {0} agree + 0 that it cannot have", cases.len())
        .expect("standard output");
}

#[test]
fn every_reason_and_every_answer_has_a_case() {
    let expected = |field: &str| -> BTreeSet<String> {
        CASES.iter().filter_map(|case| case.expect[field].as_str().map(str::to_owned)).collect()
    };
    let reasons = expected("reason");
    let missing: Vec<&str> = Reason::CODES.into_iter().filter(|code| !reasons.contains(*code)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
    let decisions = ["forward", "report", "redirect", "challenge", "bad_request", "forbidden", "unavailable"];
    let answers = expected("decision");
    assert!(decisions.iter().all(|decision| answers.contains(*decision)), "{answers:?}");
}
