//! The decision cases of `tests/cases/*.json`, and what tests take from their runner.

use std::fs;
use std::path::Path;

use serde_json::Value;
use stepgate::cases::{self, Case, CaseFile};

/// All cases of all files, as of `now` (seconds since the Unix epoch).
pub fn all_cases(now: u64) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("tests/cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files.iter().flat_map(|path| file(path, now)).collect()
}

fn file(path: &Path, now: u64) -> Vec<Case> {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a file name");
    let text = fs::read_to_string(path).expect("a case file");
    let document: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{stem}: {error}"));
    let cases = CaseFile::from_value(stem, &document).and_then(|file| file.expand(None, now));
    cases.unwrap_or_else(|errors| panic!("{errors}"))
}

/// Mints a token: see the format's description.
pub fn mint(specification: &Value, config: &Value, now: u64) -> String {
    cases::mint(specification, config, now).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The runner's keys.
pub mod keys {
    use serde_json::Value;
    use stepgate::cases::keys;

    pub const SECRET: &str = keys::SECRET;

    pub fn client_key() -> String {
        keys::client_key()
    }

    pub fn public_jwk(name: &str) -> Value {
        keys::public_jwk(name).expect("a test key")
    }

    pub fn sign(key: &str, algorithm: &str, message: &[u8]) -> Vec<u8> {
        keys::sign(key, algorithm, message).expect("a test key")
    }
}
