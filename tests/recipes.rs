//! The recipes in `providers/`: each configuration is accepted as it stands, and decides its cases as they say.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;
use stepgate::Config;
use stepgate::cases::{self, Case, CaseFile, without_environment};

#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "docs/markdown.rs"]
mod markdown;

use markdown::Page;

/// Any time will do; a fixed one makes failures repeatable.
const NOW: u64 = 1_800_000_000;

/// Of each recipe, at least.
const AT_LEAST: usize = 8;

/// What no recipe may leave out.
const REASONS: [&str; 5] = ["token_missing", "satisfied", "audience_mismatch", "login_completed", "step_up_failed"];

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn names() -> Vec<String> {
    let folders = std::fs::read_dir(root("providers")).expect("providers/");
    let mut names: Vec<String> =
        folders.map(|entry| entry.expect("an entry").file_name().display().to_string()).collect();
    names.sort();
    names
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn configuration(name: &str) -> Value {
    let path = format!("providers/{name}/stepgate.yaml");
    serde_saphyr::from_str(&text(&path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn cases(name: &str) -> Value {
    let path = format!("providers/{name}/cases.json");
    serde_json::from_str(&text(&path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn expanded(name: &str) -> Vec<Case> {
    let cases = CaseFile::from_value(name, &cases(name)).and_then(|file| file.expand(Some(&configuration(name)), NOW));
    cases.unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn every_configuration_is_accepted_as_it_stands() {
    for name in names() {
        let config = configuration(&name);
        let accepted = Config::from_value(&without_environment(&config), &|_| None);
        assert!(accepted.is_ok(), "{name}: {}", accepted.err().map(|errors| errors.to_string()).unwrap_or_default());
        assert!(config["rules"].as_array().is_some_and(|rules| rules.len() >= 2), "{name}: too few rules");
    }
}

#[test]
fn every_case_is_decided_as_expected() {
    let outcomes = names().into_iter().flat_map(|name| expanded(&name)).map(|case| cases::run(&case));
    let failures: Vec<String> =
        outcomes.filter(|outcome| !outcome.is_as_expected()).map(|outcome| outcome.to_string()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn no_recipe_leaves_out_what_matters() {
    for name in names() {
        let cases = expanded(&name);
        assert!(cases.len() >= AT_LEAST, "{name}: only {} cases", cases.len());
        assert_eq!(cases.iter().map(|case| &case.name).collect::<BTreeSet<_>>().len(), cases.len(), "{name}: names");
        let reasons: BTreeSet<&str> = cases.iter().filter_map(|case| case.expect["reason"].as_str()).collect();
        assert!(REASONS.iter().all(|reason| reasons.contains(reason)), "{name}: {reasons:?}");
        assert!(cases.iter().any(|case| !case.expect["authorize"].is_null()), "{name}: what it asks for");
    }
}

#[test]
fn a_case_file_leaves_the_configuration_to_the_recipe() {
    for name in names() {
        assert!(cases(&name)["config"].is_null(), "{name}");
        assert!(cases(&name)["about"].is_string(), "{name}");
    }
}

#[test]
fn every_page_leads_somewhere_and_shows_json() {
    for name in names() {
        let page = Page::read(&format!("providers/{name}/README.md"));
        for link in page.links().into_iter().filter(|link| !link.starts_with("https://")) {
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let target = root(&format!("providers/{name}")).join(file);
            assert!(target.exists(), "{}: `{link}` leads nowhere", page.path);
            if let Some(anchor) = anchor {
                let target = Page { path: file.to_owned(), text: std::fs::read_to_string(target).expect("a page") };
                assert!(target.anchors().contains(anchor), "{}: `{link}`: no such heading", page.path);
            }
        }
        for block in page.blocks() {
            if block.info == "json" {
                let shown: Result<Value, _> = serde_json::from_str(&block.text);
                assert!(shown.is_ok(), "{}: {:?}", block.place, shown.err());
            }
            for path in block.text.split_whitespace().filter(|word| word.starts_with("providers/")) {
                assert!(root(path).exists(), "{}: there is no `{path}`", block.place);
            }
        }
    }
}
