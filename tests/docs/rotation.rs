//! `docs/rotation.md` against the times in the source.

use stepgate::flow::{ASSERTION_LIFETIME, START_LIFETIME, TRANSACTION_LIFETIME};

use super::*;

#[test]
fn keys_are_kept_for_as_long_as_what_they_have_sealed_lives() {
    let page = Page::read("docs/rotation.md");
    let lives: Vec<String> = page.table("## Callback keys").into_iter().map(|row| row[1].clone()).collect();
    let minutes = TRANSACTION_LIFETIME.as_secs() / 60;
    let hours = START_LIFETIME.as_secs() / 3600;
    assert_eq!(lives[0], format!("{minutes} minutes (`TRANSACTION_LIFETIME`)"));
    assert_eq!(lives[1], format!("{hours} hour (`START_LIFETIME`)"));
    assert!(page.text.contains(&format!("An assertion lives for {} seconds", ASSERTION_LIFETIME.as_secs())));
}
