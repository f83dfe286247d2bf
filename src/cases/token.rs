//! Minting tokens, and breaking them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::CaseErrors;
use super::keys::{self, TestKey};
use super::text::{merge, place, put_keys, put_time_in_text, put_times};
use crate::config::{ConfigErrors, Node, Object};

/// The fields of a token's specification. `in` is that of the token which the default request carries.
pub const TOKEN_FIELDS: [&str; 8] = ["key", "alg", "header", "claims", "header_text", "claims_text", "mangle", "in"];

/// How a token is broken.
#[derive(Clone, Copy)]
enum Mangling {
    NoSignature,
    TwoParts,
    FourParts,
    FiveParts,
    Padded,
    StandardBase64,
    Whitespace,
    NotBase64,
    /// The same bytes to a lenient decoder: the unused bits of the last character are set.
    TrailingBits,
    TamperedClaims,
    TamperedSignature,
    ZeroSignature,
    ShortSignature,
}

const MANGLINGS: [(&str, Mangling); 13] = [
    ("no_signature", Mangling::NoSignature),
    ("two_parts", Mangling::TwoParts),
    ("four_parts", Mangling::FourParts),
    ("five_parts", Mangling::FiveParts),
    ("padded", Mangling::Padded),
    ("standard_base64", Mangling::StandardBase64),
    ("whitespace", Mangling::Whitespace),
    ("not_base64", Mangling::NotBase64),
    ("trailing_bits", Mangling::TrailingBits),
    ("tampered_claims", Mangling::TamperedClaims),
    ("tampered_signature", Mangling::TamperedSignature),
    ("zero_signature", Mangling::ZeroSignature),
    ("short_signature", Mangling::ShortSignature),
];

/// Where the default request carries the token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    Cookie,
    Header,
}

const CARRIERS: [(&str, Carrier); 2] = [("cookie", Carrier::Cookie), ("header", Carrier::Header)];

/// Mints a token as a case's `token` specifies it, as of `now` (seconds since the Unix epoch), for the client and by the provider of
/// a configuration.
///
/// # Errors
/// Whatever is wrong with the specification.
pub fn mint(specification: &Value, config: &Value, now: u64) -> Result<String, CaseErrors> {
    let mut errors = ConfigErrors::default();
    let node = Node { path: String::new(), value: specification };
    let token = mint_at(&node, config, now, &mut errors);
    let mut problems = CaseErrors::default();
    problems.add("token", None, &errors);
    problems.or(token.map(|(token, _)| token).unwrap_or_default())
}

/// [`mint`], at a place of a case, and where the default request carries the token. `None` where something is wrong with it.
pub fn mint_at(node: &Node<'_>, config: &Value, now: u64, errors: &mut ConfigErrors) -> Option<(String, Carrier)> {
    let token = Object::open(node, &TOKEN_FIELDS, errors)?;
    let carrier = token.get("in").map_or(Some(Carrier::Cookie), |node| node.one_of(&CARRIERS, errors));
    let key = token.get("key").map_or(Some(TestKey::Rsa), |node| node.one_of(&TestKey::ALL, errors));
    let mangling = token.get("mangle").map_or(Some(None), |node| node.one_of(&MANGLINGS, errors).map(Some));
    let algorithm = token.get("alg").map_or(Some(None), |node| node.string("a string", errors).map(Some));
    let (header, claims) = (patch(&token, "header", errors), patch(&token, "claims", errors));
    let (header_text, claims_text) =
        (text(&token, "header_text", now, errors), text(&token, "claims_text", now, errors));
    let (carrier, key, mangling, algorithm) = (carrier?, key?, mangling?, algorithm?);
    let kid = TestKey::ALL.iter().find(|(_, named)| *named == key).map_or("", |(name, _)| *name);
    let algorithm = algorithm.unwrap_or(key.default_algorithm());
    let mut own_header = json!({ "alg": algorithm, "kid": kid, "typ": "JWT" });
    merge(&mut own_header, &put_keys(&place(&node.path, "header"), &header?, errors));
    let mut own_claims = json!({
        "iss": config.pointer("/provider/issuer"),
        "sub": "ada",
        "aud": config.pointer("/client/id"),
        "iat": "now-10",
        "exp": "now+3600",
    });
    merge(&mut own_claims, &claims?);
    own_claims.as_object_mut().into_iter().for_each(|claims| put_times(claims, now));
    let header = header_text?.unwrap_or_else(|| own_header.to_string());
    let claims = claims_text?.unwrap_or_else(|| own_claims.to_string());
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(&claims));
    let signature = keys::sign_with(key, algorithm, message.as_bytes());
    let signature = signature.map_err(|error| errors.push(place(&node.path, "alg"), error.to_string())).ok()?;
    let Some(mangling) = mangling else {
        return Some((format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)), carrier));
    };
    let mangled = mangle(mangling, &message, &claims, signature);
    mangled.map_err(|problem| errors.push(place(&node.path, "mangle"), problem)).ok().zip(Some(carrier))
}

/// What is merged into the defaults.
fn patch(token: &Object<'_>, name: &str, errors: &mut ConfigErrors) -> Option<Value> {
    let Some(node) = token.get(name) else { return Some(json!({})) };
    if !node.value.is_object() {
        errors.invalid(&node, "an object");
        return None;
    }
    Some(node.value.clone())
}

fn text(token: &Object<'_>, name: &str, now: u64, errors: &mut ConfigErrors) -> Option<Option<String>> {
    let Some(node) = token.get(name) else { return Some(None) };
    let Value::String(text) = node.value else {
        errors.invalid(&node, "a string");
        return None;
    };
    put_time_in_text(text, now).map_err(|problem| errors.push(&node.path, problem)).ok().map(Some)
}

fn mangle(how: Mangling, message: &str, claims: &str, mut signature: Vec<u8>) -> Result<String, &'static str> {
    let (header, payload) = message.split_once('.').unwrap_or((message, ""));
    let text = URL_SAFE_NO_PAD.encode(&signature);
    Ok(match how {
        Mangling::NoSignature => format!("{message}."),
        Mangling::TwoParts => message.to_owned(),
        Mangling::FourParts => format!("{message}.{text}.{text}"),
        Mangling::FiveParts => format!("{message}.{text}.{text}.{text}"),
        Mangling::Padded => format!("{message}.{text}=="),
        Mangling::StandardBase64 => format!("{header}.+/{payload}.{text}"),
        Mangling::Whitespace => format!("{header}.{payload} .{text}"),
        Mangling::NotBase64 => format!("{header}.{payload}!.{text}"),
        Mangling::TrailingBits => {
            let set = with_trailing_bits(&text).ok_or("`trailing_bits`: this signature has no unused bits")?;
            format!("{message}.{set}")
        }
        Mangling::TamperedClaims => {
            let claims = serde_json::from_str(claims).ok().filter(Value::is_object);
            let mut claims: Value = claims.ok_or("`tampered_claims`: these claims are no JSON object")?;
            merge(&mut claims, &json!({ "amr": ["pwd", "mfa"], "sub": "mallory" }));
            format!("{header}.{}.{text}", URL_SAFE_NO_PAD.encode(claims.to_string()))
        }
        Mangling::TamperedSignature => {
            *signature.first_mut().ok_or("`tampered_signature`: there is none")? ^= 1;
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
        Mangling::ZeroSignature => format!("{message}.{}", URL_SAFE_NO_PAD.encode(vec![0; signature.len()])),
        Mangling::ShortSignature => {
            signature.pop().ok_or("`short_signature`: there is none")?;
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    })
}

fn with_trailing_bits(text: &str) -> Option<String> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (last, others) = text.as_bytes().split_last().filter(|_| !text.len().is_multiple_of(4))?;
    let position = ALPHABET.iter().position(|letter| letter == last)?;
    let bytes = others.iter().chain(ALPHABET.get(position | 1)).copied();
    String::from_utf8(bytes.collect()).ok()
}
