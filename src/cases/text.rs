//! What stands for something else in a case: `${…}` in texts, `$jwk` and its like for keys, `now-10` for times.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::keys;
use crate::config::ConfigErrors;

/// What `${…}` stands for.
pub type Names = BTreeMap<String, String>;

/// The longest text that `${x*1000}` makes, in bytes.
const REPEATED_BYTES: usize = 16 * 1024 * 1024;

/// RFC 7396.
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        if !patch.is_null() {
            *target = patch.clone();
        }
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let Value::Object(members) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Replaces `${…}` in every string and every member's name.
pub fn substitute_all(path: &str, value: &Value, names: &Names, errors: &mut ConfigErrors) -> Value {
    match value {
        Value::String(text) => Value::String(substituted(path, text, names, errors)),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.map(|(index, item)| substitute_all(&format!("{path}[{index}]"), item, names, errors)).collect()
        }
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| {
                let place = place(path, name);
                (substituted(&place, name, names, errors), substitute_all(&place, value, names, errors))
            });
            members.collect()
        }
        other => other.clone(),
    }
}

/// [`substitute`], or the text as it is where that cannot be.
pub fn substituted(path: &str, text: &str, names: &Names, errors: &mut ConfigErrors) -> String {
    substitute(text, names).unwrap_or_else(|problem| {
        errors.push(path, problem);
        text.to_owned()
    })
}

pub fn place(path: &str, member: &str) -> String {
    if path.is_empty() { member.to_owned() } else { format!("{path}.{member}") }
}

/// Replaces `${token}` by what has that name, `${token:10-20}` by some of its characters, `${x*1000}` by that many `x`,
/// and `${now+60}` by that time.
fn substitute(text: &str, names: &Names) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (expression, after) = after.split_once('}').ok_or("`${` without a closing brace")?;
        result.push_str(before);
        result.push_str(&evaluate(expression, names)?);
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

fn evaluate(expression: &str, names: &Names) -> Result<String, String> {
    if let Some((text, count)) = expression.split_once('*') {
        let count = count.parse().ok().filter(|count| text.len().saturating_mul(*count) <= REPEATED_BYTES);
        let count = count.ok_or_else(|| {
            format!("`${{{expression}}}`: behind `*` must be a number, for at most {REPEATED_BYTES} bytes")
        })?;
        return Ok(text.repeat(count));
    }
    let now = names.get("now").and_then(|now| now.parse().ok());
    if let Some(time) = now.and_then(|now| time(expression, now)) {
        return Ok(time.to_string());
    }
    if let Some(value) = names.get(expression) {
        return Ok(value.clone());
    }
    let part = expression.rsplit_once(':').and_then(|(name, range)| Some((names.get(name)?, range)));
    let Some((value, range)) = part else {
        let known: Vec<String> = names.keys().map(|name| format!("`{name}`")).collect();
        let known = if known.is_empty() { "nothing has a name here".to_owned() } else { known.join(", ") };
        return Err(format!("nothing is named `{expression}`, there is: {known}"));
    };
    let (start, end) = range.split_once('-').unwrap_or((range, "?"));
    let end = if end.is_empty() { Some(value.len()) } else { end.parse().ok() };
    let slice = start.parse().ok().zip(end).and_then(|(start, end): (usize, usize)| value.get(start..end));
    let accepted = || format!("`${{{expression}}}`: must be a range such as `0-10` or `10-`, up to {}", value.len());
    slice.map(str::to_owned).ok_or_else(accepted)
}

/// Replaces `{ "$jwk": NAME, … }` by that key's public JWK, with the other members merged in, the string `$secret` by the
/// secret, and `$client_key` by the client's private key.
pub fn put_keys(path: &str, value: &Value, errors: &mut ConfigErrors) -> Value {
    match value {
        Value::Object(members) if members.contains_key("$jwk") => {
            let mut patch = members.clone();
            let name = patch.remove("$jwk").unwrap_or_default();
            match keys::public_jwk(name.as_str().unwrap_or("no text")) {
                Ok(mut jwk) => {
                    merge(&mut jwk, &Value::Object(patch));
                    jwk
                }
                Err(error) => {
                    errors.push(place(path, "$jwk"), error.to_string());
                    Value::Null
                }
            }
        }
        Value::Object(members) => {
            let put = |(name, value): (&String, &Value)| (name.clone(), put_keys(&place(path, name), value, errors));
            Value::Object(members.iter().map(put).collect())
        }
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.map(|(index, item)| put_keys(&format!("{path}[{index}]"), item, errors)).collect()
        }
        Value::String(text) if text == "$secret" => json!(keys::SECRET),
        Value::String(text) if text == "$client_key" => json!(keys::client_key()),
        other => other.clone(),
    }
}

/// Replaces claims such as `now`, `now-10` and `now+3600` by numbers.
pub fn put_times(claims: &mut Map<String, Value>, now: u64) {
    for value in claims.values_mut() {
        if let Some(time) = value.as_str().and_then(|text| time(text, now)) {
            *value = json!(time);
        }
    }
}

fn time(text: &str, now: u64) -> Option<u64> {
    match text.strip_prefix("now")? {
        "" => Some(now),
        offset => now.checked_add_signed(offset.parse().ok()?),
    }
}

/// Replaces `<now+3600>` in a text.
pub fn put_time_in_text(text: &str, now: u64) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<now") {
        let (offset, after) = after.split_once('>').ok_or("`<now` without a closing bracket")?;
        let time = time(&format!("now{offset}"), now)
            .ok_or_else(|| format!("`<now{offset}>` is no time: `<now>`, `<now-10>` and `<now+3600>` are"))?;
        result.push_str(before);
        result.push_str(&time.to_string());
        rest = after;
    }
    Ok(result + rest)
}
