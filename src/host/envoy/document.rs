//! The plugin configuration: JSON text, or the protobuf bytes of a `google.protobuf.Struct`, which Envoy hands on
//! as they are.

use prost::Message;
use prost_types::value::Kind;
use serde_json::{Map, Value};

use crate::encoding::MAX_JSON_DEPTH;

/// Reads a `google.protobuf.Struct`; `None` when the bytes are no such message. The inner value is `None` when it nests
/// too deep.
pub fn from_struct(bytes: &[u8]) -> Option<Option<Value>> {
    let message = prost_types::Struct::decode(bytes).ok().filter(|message| !message.fields.is_empty())?;
    Some(object(message, MAX_JSON_DEPTH))
}

fn object(message: prost_types::Struct, depth: usize) -> Option<Value> {
    let members = message.fields.into_iter().map(|(name, member)| Some((name, value(member, depth)?)));
    Some(Value::Object(members.collect::<Option<Map<_, _>>>()?))
}

fn value(message: prost_types::Value, depth: usize) -> Option<Value> {
    let deeper = depth.checked_sub(1)?;
    Some(match message.kind? {
        Kind::NullValue(_) => Value::Null,
        Kind::NumberValue(number) => number_value(number)?,
        Kind::StringValue(text) => Value::String(text),
        Kind::BoolValue(flag) => Value::Bool(flag),
        Kind::StructValue(message) => object(message, deeper)?,
        Kind::ListValue(list) => {
            let items = list.values.into_iter().map(|item| value(item, deeper));
            Value::Array(items.collect::<Option<_>>()?)
        }
    })
}

/// A Struct knows only doubles; whole numbers are written as such, so that both ways of configuring mean the same.
fn number_value(number: f64) -> Option<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        #[allow(clippy::cast_possible_truncation, reason = "whole, and within 53 bits")]
        return Some(Value::from(number as i64));
    }
    serde_json::Number::from_f64(number).map(Value::Number)
}
