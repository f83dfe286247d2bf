//! Strict decoding: canonical base64url, JSON without duplicate members and of bounded depth.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deep JSON from outside may nest.
pub const MAX_JSON_DEPTH: usize = 32;

/// Encodes as base64url without padding (RFC 7515 section 2).
pub fn base64url_encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes base64url. Padding, foreign characters and non-zero trailing bits are refused, so that one value has one
/// spelling.
pub fn base64url_decode(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Parses JSON, refusing duplicate members at any depth and nesting beyond [`MAX_JSON_DEPTH`].
///
/// # Errors
/// What is wrong and where, without quoting the input's values.
pub fn parse_json(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = StrictValue { depth: MAX_JSON_DEPTH }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// [`parse_json`], for input that must be an object.
///
/// # Errors
/// As [`parse_json`], and when the input is not an object.
pub fn parse_json_object(bytes: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    match parse_json(bytes)? {
        Value::Object(object) => Ok(object),
        _ => Err(serde_json::Error::custom("not an object")),
    }
}

#[derive(Clone, Copy)]
struct StrictValue {
    depth: usize,
}

impl StrictValue {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth }),
            None => Err(E::custom(format_args!("nested deeper than {MAX_JSON_DEPTH}"))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for StrictValue {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(inner)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_has_one_spelling() {
        assert_eq!(base64url_decode(b"AA"), Some(vec![0]));
        for bad in ["AB", "AA==", "A", "A+", "A/", "A A", "AA\n"] {
            assert_eq!(base64url_decode(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn duplicate_members_are_refused_at_any_depth() {
        assert!(parse_json(br#"{"a":1,"b":[{"c":1}]}"#).is_ok());
        assert!(parse_json(br#"{"a":1,"a":1}"#).is_err());
        assert!(parse_json(br#"{"b":[{"c":1,"c":2}]}"#).is_err());
        assert!(parse_json(br#"{"a":1,"\u0061":2}"#).is_err(), "an escape is no disguise");
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse_json(nested(MAX_JSON_DEPTH).as_bytes()).is_ok());
        assert!(parse_json(nested(MAX_JSON_DEPTH + 1).as_bytes()).is_err());
        assert!(parse_json(nested(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn numbers_keep_their_value() {
        let numbers = parse_json(b"[0, 1, -1, 18446744073709551615, -9223372036854775808, -1.5]").unwrap();
        assert_eq!(numbers, serde_json::json!([0, 1, -1, u64::MAX, i64::MIN, -1.5]));
    }

    #[test]
    fn what_follows_the_value_is_refused() {
        assert!(parse_json(b"{} {}").is_err());
        assert!(parse_json(b"{}\0").is_err());
        assert!(parse_json(b"{\"a\":\"\xff\"}").is_err());
    }
}
