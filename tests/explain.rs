//! Explanations agree with the gate: on the decision, on the rules, and on the check that decides.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use stepgate::cases::{self, Case};
use stepgate::explain::{Explanation, explain};
use stepgate::http::Request;
use stepgate::time::Timestamp;
use stepgate::{Config, Env, Gate};

#[allow(dead_code, reason = "each test crate uses a part of it")]
mod support;

const NOW: u64 = 1_800_000_000;

/// Reasons that come from a check of the token.
const CHECKED: [&str; 17] = [
    "token_missing",
    "token_ambiguous",
    "token_malformed",
    "algorithm_not_allowed",
    "key_unknown",
    "signature_invalid",
    "issuer_mismatch",
    "audience_mismatch",
    "token_expired",
    "token_not_yet_valid",
    "amr_missing",
    "amr_insufficient",
    "acr_insufficient",
    "auth_time_missing",
    "auth_too_old",
    "claim_insufficient",
    "path_rejected",
];

static EXPLAINED: LazyLock<Vec<(Case, Explanation)>> = LazyLock::new(explained);

/// The cases that nothing is fetched for, without a body, and whose fields can be told, each with its explanation.
fn explained() -> Vec<(Case, Explanation)> {
    let cases =
        support::all_cases(NOW).into_iter().filter(|case| case.replies.is_empty() && case.request.body.is_empty());
    let explained = cases.filter_map(|case| {
        let bytes = |text: &str| -> Vec<u8> { text.chars().map(|character| character as u8).collect() };
        let headers = case.request.headers.as_ref()?;
        let fields: Vec<(&str, Vec<u8>)> = headers.iter().map(|(name, value)| (name.as_str(), bytes(value))).collect();
        let (authority, path) = (bytes(&case.request.authority), bytes(&case.request.path));
        let request =
            Request { method: case.request.method.as_bytes(), authority: &authority, path: &path, fields: &fields };
        let mut gate = Gate::new(Config::from_value(&case.config, &|_| None).unwrap());
        let env = Env { now: Timestamp::from_secs(NOW), entropy: &|| [7; 32] };
        let explanation = explain(&mut gate, &case.config, &request, None, env);
        Some((case, explanation))
    });
    explained.collect()
}

#[test]
fn the_answer_is_the_gates() {
    for (case, explanation) in &*EXPLAINED {
        let decided = cases::run(case).decided.unwrap();
        let answer = (explanation.answer.decision, explanation.answer.reason);
        assert_eq!(answer, (decided.decision, decided.reason), "{}/{}", case.file, case.name);
    }
    assert!(EXPLAINED.len() > 1_000, "only {}", EXPLAINED.len());
}

#[test]
fn the_rules_that_apply_are_those_that_asked() {
    for (case, explanation) in &*EXPLAINED {
        let Explanation { rules, answer, .. } = explanation;
        // A path that cannot be read is refused by one of them; the gate's own paths ask nobody.
        if answer.rules.is_empty() || answer.reason == "path_rejected" {
            continue;
        }
        let is_reported = answer.decision == "report";
        let applying: BTreeSet<&str> = rules
            .iter()
            .filter(|rule| rule.applies && rule.report_only == is_reported)
            .map(|rule| rule.name.as_str())
            .collect();
        let asked: BTreeSet<&str> = answer.rules.iter().map(AsRef::as_ref).collect();
        let all_report = rules.iter().filter(|rule| rule.applies).all(|rule| rule.report_only);
        if all_report == is_reported {
            assert_eq!(applying, asked, "{}/{}", case.file, case.name);
        }
        assert!(rules.iter().all(|rule| !rule.because.is_empty()));
    }
}

#[test]
fn the_first_check_that_fails_is_the_reason() {
    let mut seen = BTreeSet::new();
    for (case, Explanation { checks, answer, rules, .. }) in &*EXPLAINED {
        let name = format!("{}/{}: {checks:#?}", case.file, case.name);
        let only_enforced = rules.iter().filter(|rule| rule.applies).all(|rule| !rule.report_only);
        let failed = checks.iter().find(|check| check.met == Some(false));
        if (answer.decision, answer.reason) == ("forward", "satisfied") && only_enforced {
            assert!(failed.is_none() && !checks.is_empty(), "{name}");
        } else if CHECKED.contains(&answer.reason) && !answer.rules.is_empty() && only_enforced && !checks.is_empty() {
            let failed = failed.unwrap_or_else(|| panic!("{name}"));
            assert!(!failed.expected.is_empty() && !failed.found.is_empty(), "{name}");
            // Several rules: each has its checks, the gate unites them before it looks.
            let codes: Vec<&str> = checks.iter().filter_map(|check| check.code).collect();
            match rules.iter().filter(|rule| rule.applies).count() {
                1 => assert_eq!(failed.code, Some(answer.reason), "{name}"),
                _ => assert!(codes.contains(&answer.reason), "{name}"),
            }
            seen.insert(answer.reason);
        }
    }
    assert_eq!(seen, CHECKED.into(), "each reason was seen");
}

#[test]
fn nothing_of_a_token_is_shown_but_its_claims() {
    for (case, explanation) in &*EXPLAINED {
        let shown = serde_json::to_string(explanation).unwrap();
        for (_, value) in case.request.headers.iter().flatten() {
            for part in value.split(['.', '=', ';', ' ']).filter(|part| part.len() > 100 && part.starts_with("eyJ")) {
                assert!(!shown.contains(part), "{}/{}", case.file, case.name);
            }
        }
    }
}
