//! A `state`, and what is sealed for it: a login under way or the link to one, in JSON. What was sealed opens as the same, and
//! nothing else opens.

use serde_json::{Value, json};
use stepgate::flow::{MAX_COOKIE_VALUE_BYTES, Start, Transaction};
use stepgate::seal::{Purpose, SealingKeys};

use crate::text::lines;

const ENTROPY: [u8; 32] = [9; 32];

pub fn sealed(input: &[u8]) -> bool {
    let [state, content] = lines(input);
    let state = String::from_utf8_lossy(state);
    let (keys, rotated, foreign) =
        (SealingKeys::new(&[1; 32], &[]), SealingKeys::new(&[2; 32], &[[1; 32]]), SealingKeys::new(&[2; 32], &[]));
    let text = String::from_utf8_lossy(input);
    assert!(Transaction::open(&keys, &state, &text).is_none() && Start::open(&keys, &text).is_none());

    if let Ok(transaction) = serde_json::from_slice::<Transaction>(content)
        && let Some(sealed) = transaction.seal(&keys, &state, &ENTROPY)
    {
        let opened = Transaction::open(&rotated, &state, &sealed).expect("it opens with the old key");
        check_same(json!(transaction), json!(opened));
        assert!(Transaction::open(&foreign, &state, &sealed).is_none(), "opens with another key");
        assert!(Transaction::open(&keys, &format!("{state}x"), &sealed).is_none(), "opens for another state");
        assert!(Start::open(&keys, &sealed).is_none(), "opens as a link");
        check_changed(&sealed, &|changed| Transaction::open(&keys, &state, changed).is_some());
    }
    if let Ok(start) = serde_json::from_slice::<Start>(content)
        && let Some(sealed) = start.seal(&keys, &ENTROPY)
    {
        check_same(json!(start), json!(Start::open(&rotated, &sealed).expect("it opens with the old key")));
        assert!(Start::open(&foreign, &sealed).is_none(), "opens with another key");
        assert!(Transaction::open(&keys, "", &sealed).is_none(), "opens as a login");
        check_changed(&sealed, &|changed| Start::open(&keys, changed).is_some());
    }

    let sealed = keys.seal(Purpose::Transaction(&state), content, &ENTROPY);
    assert_eq!(keys.open(Purpose::Transaction(&state), &sealed).as_deref(), Some(content));
    let opened = Transaction::open(&keys, &state, &sealed);
    assert!(opened.is_none() || sealed.len() <= MAX_COOKIE_VALUE_BYTES);
    opened.is_some()
}

/// The same, apart from a way back that was too long.
fn check_same(mut sealed: Value, opened: Value) {
    let (way_back, opened_way_back) = (&sealed["return_to"], &opened["return_to"]);
    let path = way_back.as_str().and_then(|way_back| way_back.split('?').next());
    assert!(way_back == opened_way_back || path == opened_way_back.as_str() || opened_way_back == "/");
    sealed["return_to"] = opened_way_back.clone();
    assert_eq!(sealed, opened);
}

fn check_changed(sealed: &str, opens: &dyn Fn(&str) -> bool) {
    assert!(sealed.len() <= MAX_COOKIE_VALUE_BYTES);
    assert!(sealed.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')));
    assert!(!opens(&sealed[1..]) && !opens(&sealed[..sealed.len() - 1]) && !opens(&format!("{sealed}A")));
    // Here and there: each change takes as long as all else.
    for at in (0..8).map(|part| sealed.len() * part / 8).chain([sealed.len() - 1]) {
        let mut changed = sealed.to_owned();
        let other = if sealed[at..].starts_with('A') { "B" } else { "A" };
        changed.replace_range(at..=at, other);
        assert!(!opens(&changed), "opens after a change at {at}");
    }
}
