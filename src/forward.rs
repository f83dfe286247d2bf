//! What the app gets to see of who asks: identity fields that only the gate can have set, and the token or not.

use serde_json::Value;

use crate::claims::VerifiedIdToken;
use crate::config::{ForwardConfig, TokenConfig, field_key};
use crate::cookie::{is_token_cookie, without_bearer, without_cookies};
use crate::http::{Fields, Request, RequestEdits};
use crate::reason::Reason;

/// What has to go from a request before the app sees it, whoever asks: the client's own copies of identity fields, in
/// every spelling, and the token where the app is not to have it.
///
/// # Errors
/// [`Reason::HeadersRejected`] when the host cannot tell what fields there are.
pub fn scrub(
    request: &Request<'_>,
    forward: &ForwardConfig,
    token: &TokenConfig,
    is_own_cookie: &dyn Fn(&str) -> bool,
) -> Result<RequestEdits, Reason> {
    let mut edits = RequestEdits::default();
    if forward.changes_nothing() {
        return Ok(edits);
    }
    edits.removed = copies(request.fields, forward).ok_or(Reason::HeadersRejected)?;
    if forward.strip_token {
        let is_out =
            |name: &[u8]| is_token_cookie(name, &token.cookie) || std::str::from_utf8(name).is_ok_and(is_own_cookie);
        if let Some(kept) = without_cookies(request, &is_out) {
            edits.removed.push(b"cookie".to_vec());
            edits.added.extend((!kept.is_empty()).then(|| ("cookie".to_owned(), kept)));
        }
        strip_header(request, token, &mut edits);
    }
    Ok(edits)
}

/// The names of fields that an app may read as identity fields; `None` when the host cannot tell what fields there are. For
/// trailers too, which some servers merge into the header.
pub fn copies(fields: &dyn Fields, forward: &ForwardConfig) -> Option<Vec<Vec<u8>>> {
    let keys: Vec<Vec<u8>> = forward.headers.iter().map(|(name, _)| field_key(name.as_bytes())).collect();
    let mut copies: Vec<Vec<u8>> = Vec::new();
    let readable = fields.each(&mut |name, _| {
        if keys.contains(&field_key(name)) && copies.iter().all(|known| known != name) {
            copies.push(name.to_vec());
        }
    });
    readable.then_some(copies)
}

fn strip_header(request: &Request<'_>, token: &TokenConfig, edits: &mut RequestEdits) {
    match token.header.as_deref() {
        // Another scheme, such as Basic, is the app's own.
        Some("authorization") => {
            if let Some(kept) = without_bearer(request) {
                edits.removed.push(b"authorization".to_vec());
                edits.added.extend(kept.into_iter().map(|value| ("authorization".to_owned(), value)));
            }
        }
        Some(name) => edits.removed.push(name.as_bytes().to_vec()),
        None => {}
    }
}

/// Tells the app who asks. A claim that is absent, `null`, empty, or unfit for a field is not told.
pub fn identify(edits: &mut RequestEdits, forward: &ForwardConfig, token: &VerifiedIdToken) {
    let told =
        forward.headers.iter().filter_map(|(name, claim)| Some((name.clone(), field_value(token.claim(claim)?)?)));
    edits.added.extend(told);
}

/// A string as it is, anything else as JSON.
fn field_value(claim: &Value) -> Option<Vec<u8>> {
    let text = match claim {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    // RFC 9110 section 5.5: no controls, and no space at either end, which would not arrive.
    let fits = !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control);
    fits.then(|| text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_that_do_not_fit_a_field_are_not_told() {
        let told = |claim: Value| field_value(&claim).map(|value| String::from_utf8(value).unwrap());
        assert_eq!(told(json!("ada")).as_deref(), Some("ada"));
        assert_eq!(told(json!(["a", 1])).as_deref(), Some("[\"a\",1]"));
        assert_eq!(told(json!(true)).as_deref(), Some("true"));
        for unfit in [json!(null), json!(""), json!("a\r\nx: y"), json!("a\0"), json!(" a"), json!("a\u{85}")] {
            assert_eq!(told(unfit.clone()), None, "{unfit}");
        }
    }
}
