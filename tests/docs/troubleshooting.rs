//! `docs/troubleshooting.md` against the gate.

use super::*;

fn page() -> Page {
    Page::read("docs/troubleshooting.md")
}

/// The sections whose heading is a code span and nothing else, with their text.
fn sections() -> Vec<(String, String)> {
    let page = page();
    let mut sections: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in page.prose() {
        if let Some(heading) = line.strip_prefix('#') {
            let heading = heading.trim_start_matches('#').trim();
            let code = heading.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
            inside = code.is_some();
            sections.extend(code.map(|code| (code.to_owned(), String::new())));
        } else if let Some((_, text)) = sections.last_mut().filter(|_| inside) {
            text.push_str(line);
            text.push('\n');
        }
    }
    sections
}

#[test]
fn every_code_has_one_section_and_no_other_code_has_one() {
    let mut codes: Vec<String> = sections().into_iter().map(|(code, _)| code).collect();
    codes.sort();
    let mut known = Reason::CODES;
    known.sort_unstable();
    assert_eq!(codes, known);
}

#[test]
fn every_section_says_what_helps() {
    for (code, text) in sections() {
        let starts: Vec<usize> = ["**Means.**", "**Seen.**", "**Causes", "**Find out.**", "**Do.**"]
            .iter()
            .map(|label| text.find(label).unwrap_or_else(|| panic!("{code}: no {label}")))
            .collect();
        assert!(starts.is_sorted(), "{code}: {starts:?}");
    }
}

/// The text of every source file, as one line.
fn source() -> String {
    fn collect(directory: PathBuf, text: &mut String) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.extension() {
                _ if path.is_dir() => collect(path, text),
                Some(extension) if extension == "rs" => {
                    text.push_str(&std::fs::read_to_string(&path).expect("a file"));
                }
                _ => {}
            }
        }
    }
    let mut text = String::new();
    collect(root("src"), &mut text);
    let continued: Vec<&str> = text.split("\\\n").map(str::trim_start).collect();
    continued.concat()
}

#[test]
fn what_is_quoted_is_what_the_gate_says() {
    let source = source();
    let prose = page().prose().join(" ");
    let quoted: Vec<&str> =
        prose.split('“').skip(1).map(|rest| rest.split_once('”').expect("a quotation ends").0).collect();
    assert!(quoted.len() > 60, "only {}", quoted.len());
    for text in quoted {
        assert!(
            source.contains(text.split_whitespace().collect::<Vec<_>>().join(" ").as_str()),
            "nobody says “{text}”"
        );
    }
}

/// What people see has the status that `docs/decisions.md` gives the code.
#[test]
fn statuses_are_those_of_the_decisions() {
    let decisions = Page::read("docs/decisions.md").table("## Reason codes");
    for (code, text) in sections() {
        let row = decisions.iter().find(|row| spans(&row[0]) == [code.as_str()]).expect("a row");
        let possible: &[(&str, &[&str])] = &[
            ("step-up", &["302", "401", "403"]),
            ("`redirect`", &["302"]),
            ("`bad_request`", &["400"]),
            ("`forbidden`", &["403"]),
            ("`unavailable`", &["503"]),
        ];
        let possible: BTreeSet<&str> = possible
            .iter()
            .filter(|(kind, _)| row[1].contains(kind))
            .flat_map(|(_, statuses)| *statuses)
            .copied()
            .collect();
        let (_, seen) = text.split_once("**Seen.**").expect("checked above");
        let (seen, _) = seen.split_once("**Causes").expect("checked above");
        let words = seen.split(|character: char| !character.is_ascii_alphanumeric());
        let statuses: BTreeSet<&str> =
            words.filter(|word| word.len() == 3 && word.bytes().all(|byte| byte.is_ascii_digit())).collect();
        assert!(statuses.is_subset(&possible), "{code}: {statuses:?}, and not {possible:?}");
        let answers = !possible.is_empty() && !row[1].contains("step-up");
        assert!(!answers || !statuses.is_empty(), "{code}: no status");
    }
}
