//! JUnit XML, as CI systems read it.

use std::collections::BTreeMap;
use std::io;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::Outcome;

/// The outcomes as JUnit XML: a suite for each file, a failure with all its differences for each case that has any.
///
/// # Errors
/// None of which it is known how to come about: text is written into memory.
pub fn junit(outcomes: &[Outcome]) -> io::Result<String> {
    let mut suites: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        suites.entry(&outcome.file).or_default().push(outcome);
    }
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let all: Vec<&Outcome> = outcomes.iter().collect();
    counted(&mut writer, "testsuites", "stepgate", &all, &mut |writer| {
        suites.iter().try_for_each(|(file, outcomes)| {
            counted(writer, "testsuite", file, outcomes, &mut |writer| {
                outcomes.iter().try_for_each(|outcome| case(writer, outcome))
            })
        })
    })?;
    String::from_utf8(writer.into_inner()).map_err(io::Error::other)
}

type Content<'a> = &'a mut dyn FnMut(&mut Writer<Vec<u8>>) -> io::Result<()>;

/// An element that counts the cases in it.
fn counted(
    writer: &mut Writer<Vec<u8>>,
    element: &str,
    name: &str,
    outcomes: &[&Outcome],
    content: Content<'_>,
) -> io::Result<()> {
    let count = |is_one: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|one| is_one(one)).count().to_string();
    let attributes = [
        ("name", legible(name)),
        ("tests", outcomes.len().to_string()),
        ("failures", count(&|one| !one.is_as_expected())),
        ("skipped", count(&|one| one.skipped.is_some())),
    ];
    let attributes = attributes.iter().map(|(name, value)| (*name, value.as_str()));
    writer.create_element(element).with_attributes(attributes).write_inner_content(|writer| content(writer)).map(drop)
}

fn case(writer: &mut Writer<Vec<u8>>, outcome: &Outcome) -> io::Result<()> {
    let (file, name) = (legible(&outcome.file), legible(&outcome.name));
    let attributes = [("classname", file.as_str()), ("name", name.as_str())];
    let element = writer.create_element("testcase").with_attributes(attributes);
    if let Some(reason) = &outcome.skipped {
        let message = legible(reason);
        let skipped = |writer: &mut Writer<_>| {
            writer.create_element("skipped").with_attribute(("message", message.as_str())).write_empty().map(drop)
        };
        return element.write_inner_content(skipped).map(drop);
    }
    if outcome.is_as_expected() {
        return element.write_empty().map(drop);
    }
    let differ: Vec<&str> = outcome.differences.iter().map(|difference| difference.what.as_str()).collect();
    let (message, text) = (legible(&format!("not as expected: {}", differ.join(", "))), legible(&outcome.to_string()));
    let failure = |writer: &mut Writer<_>| {
        let failure = writer.create_element("failure").with_attribute(("message", message.as_str()));
        failure.write_text_content(BytesText::new(&text)).map(drop)
    };
    element.write_inner_content(failure).map(drop)
}

/// Without the characters that XML 1.0 has no place for (section 2.2).
fn legible(text: &str) -> String {
    let is_legible = |character: char| match character {
        '\t' | '\n' | '\r' => true,
        '\u{fffe}' | '\u{ffff}' => false,
        other => other >= ' ',
    };
    text.chars().map(|character| if is_legible(character) { character } else { '\u{fffd}' }).collect()
}
