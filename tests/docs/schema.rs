//! `schema/stepgate.schema.json` against the reference and the configuration itself. What it accepts and refuses is in
//! `tests/e2e/schema.test.mjs`.

use stepgate::config::{
    MAX_AUDIENCES, MAX_COOKIE_NAME_BYTES, MAX_ERROR_PAGE_BYTES, MAX_IDENTITY_HEADERS, MAX_OWN_PATH_BYTES,
    MAX_SEALING_KEYS, RESERVED_HEADERS,
};
use stepgate::jose::Algorithm;

use super::reference::{Accepted, limits, page, set, tables, the_span, told, written};
use super::*;

fn schema() -> Value {
    let text = std::fs::read_to_string(root("schema/stepgate.schema.json")).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

/// The schema of the objects of a table.
fn object<'a>(schema: &'a Value, heading: &str) -> &'a Value {
    let name = match heading {
        "## The document" => return schema,
        "## `rules[]`" => "rule",
        "## `rules[].require`" => "require",
        "## `callback.cookie`" => "callback_cookie",
        named => named.trim_matches(['#', ' ', '`']),
    };
    &schema["$defs"][name]
}

fn names<'a>(list: impl IntoIterator<Item = &'a Value>) -> BTreeSet<&'a str> {
    list.into_iter().filter_map(Value::as_str).collect()
}

/// Calls `visit` with each object in a value.
fn each_object<'a>(value: &'a Value, visit: &mut dyn FnMut(&'a Map<String, Value>)) {
    match value {
        Value::Object(members) => {
            visit(members);
            members.values().for_each(|member| each_object(member, visit));
        }
        Value::Array(items) => items.iter().for_each(|item| each_object(item, visit)),
        _ => {}
    }
}

#[test]
fn has_the_fields_of_every_object() {
    let schema = schema();
    for (heading, fields, ..) in tables() {
        let object = object(&schema, heading);
        let properties = object["properties"].as_object().unwrap_or_else(|| panic!("{heading}: no properties"));
        let named: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(named, fields.into_iter().collect(), "{heading}");
        assert_eq!(object["additionalProperties"], false, "{heading}");
        for (name, property) in properties {
            let description = property["description"].as_str().unwrap_or_default();
            assert!(description.ends_with('.') && description.len() > 10, "{heading} {name}: {description:?}");
        }
    }
}

#[test]
fn has_the_defaults_of_the_reference() {
    let schema = schema();
    for (heading, ..) in tables() {
        let object = object(&schema, heading);
        let mut required = BTreeSet::new();
        for row in page().table(heading) {
            let field = the_span(&row[0]).expect("a name");
            let default = the_span(&row[2]).map(|default| yaml(&default, &field));
            assert_eq!(object["properties"][&field].get("default"), default.as_ref(), "{heading} {field}");
            if row[2] == "required" {
                required.insert(field);
            }
        }
        let named = object["required"].as_array().into_iter().flatten();
        assert_eq!(names(named), required.iter().map(String::as_str).collect(), "{heading}");
    }
}

#[test]
fn has_the_ranges_and_words_that_the_gate_tells() {
    let schema = schema();
    let mut checked = 0;
    for (heading, _, at, document) in tables() {
        for row in page().table(heading) {
            let field = the_span(&row[0]).expect("a name");
            let mut property = &object(&schema, heading)["properties"][&field];
            let wrong = if field == "algorithms" {
                property = &property["items"];
                json!(["?"])
            } else {
                json!("?")
            };
            match told(&refusal(&set(&document, at, &field, Some(wrong)))) {
                Some(Accepted::Range(from, to)) if property["pattern"].is_string() => {
                    let message = property["patternErrorMessage"].as_str().unwrap_or_default();
                    assert!(message.contains(&format!(" a duration from {from} to {to},")), "{heading} {field}");
                }
                Some(Accepted::Range(from, to)) => {
                    let range = [&property["minimum"], &property["maximum"]].map(Value::to_string);
                    assert_eq!(range, [from, to], "{heading} {field}");
                }
                Some(Accepted::Words(words)) => {
                    let listed = property["enum"].as_array().unwrap_or_else(|| panic!("{heading} {field}: no words"));
                    assert_eq!(names(listed), words.iter().map(String::as_str).collect(), "{heading} {field}");
                }
                None => continue,
            }
            checked += 1;
        }
    }
    assert_eq!(checked, 17, "ranges and lists of words");
    let algorithms = &schema["$defs"]["verifying_key"]["properties"]["alg"]["enum"];
    let known = Algorithm::ALL.map(Algorithm::name);
    assert_eq!(names(algorithms.as_array().into_iter().flatten()), known.into_iter().collect());
}

#[test]
fn has_the_lengths_of_the_reference() {
    let schema = schema();
    let mut checked = 0;
    for (heading, ..) in tables() {
        for row in page().table(heading) {
            let field = the_span(&row[0]).expect("a name");
            let property = &object(&schema, heading)["properties"][&field];
            let limits = ["minItems", "maxItems", "maxProperties"].map(|limit| property[limit].as_u64());
            let number = |text: &str| Some(written(text.split(' ').next().expect("a number")));
            let (least, most) = match (row[3].strip_prefix("1 to "), row[3].strip_prefix("at most ")) {
                (Some(most), _) => (Some(1), number(most)),
                (_, Some(most)) => (None, number(most)),
                _ => continue,
            };
            let expected = if property["maxProperties"].is_null() { [least, most, None] } else { [None, None, most] };
            assert_eq!(limits, expected, "{heading} {field}");
            checked += 1;
        }
    }
    assert_eq!(checked, 9);
}

#[test]
fn has_the_limits_of_the_source() {
    let schema = schema();
    let at = |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer}")).as_u64();
    let limit = |name: &str| limits().into_iter().find(|(known, _)| known == name).expect("a limit").1;
    for (pointer, limit) in [
        ("/properties/rules/maxItems", limit("MAX_RULES")),
        ("/$defs/client/properties/audiences/maxItems", MAX_AUDIENCES as u64),
        ("/$defs/callback/properties/keys/maxItems", MAX_SEALING_KEYS as u64),
        ("/$defs/callback/properties/error_page/maxLength", MAX_ERROR_PAGE_BYTES as u64),
        ("/$defs/forward/properties/headers/maxProperties", MAX_IDENTITY_HEADERS as u64),
        ("/$defs/key_set/properties/keys/maxItems", limit("MAX_KEYS")),
    ] {
        assert_eq!(at(pointer), Some(limit), "{pointer}");
    }
    let (mut values, mut cookies, mut own_paths, mut secrets) = (0, 0, 0, 0);
    each_object(&schema, &mut |object| {
        for test in ["any_of", "all_of"] {
            let list = object.get(test).filter(|list| list["items"].is_object());
            values += usize::from(list.is_some_and(|list| list["maxItems"] == limit("MAX_VALUES")));
        }
        cookies += usize::from(object.get("maxLength") == Some(&json!(MAX_COOKIE_NAME_BYTES)));
        let pattern = object.get("pattern").and_then(Value::as_str).unwrap_or_default();
        // Beside the slash and what must not be another one.
        own_paths += usize::from(pattern.contains(&format!("{{0,{}}}", MAX_OWN_PATH_BYTES - 2)));
        secrets += usize::from(pattern.contains(&format!("{{{},}}", limit("MIN_HS256_SECRET"))));
    });
    assert_eq!((values, cookies, own_paths, secrets), (3, 1, 3, 1));
}

#[test]
fn has_the_names_that_are_refused() {
    let schema = schema();
    let pattern = |object: &str, field: &str| {
        let names = &schema["$defs"][object]["properties"][field]["propertyNames"];
        names["pattern"].as_str().expect("a pattern").to_owned()
    };
    assert_eq!(pattern("step_up", "params"), format!("^(?!(?:{})$)", RESERVED_PARAMETERS.join("|")));
    // In any case, and with anything in place of punctuation.
    let spelled = RESERVED_HEADERS.map(|name| {
        let character = |character: char| match character {
            '-' => "[^0-9A-Za-z]".to_owned(),
            letter => format!("[{}{letter}]", letter.to_ascii_uppercase()),
        };
        name.chars().map(character).collect::<String>()
    });
    let headers = pattern("forward", "headers");
    assert!(headers.starts_with(&format!("^(?!(?:{})$)[", spelled.join("|"))), "{headers}");
}
