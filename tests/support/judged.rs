//! What the gate says of each configuration that a test gives it, for another judge: `tests/e2e/schema.test.mjs` holds the JSON Schema
//! to it.

use std::fs::OpenOptions;
use std::io::Write as _;

use serde_json::{Value, json};
use stepgate::Config;
use stepgate::config::ConfigErrors;

/// [`Config::from_value`], which adds a line to the file that `STEPGATE_JUDGED` names, where it names one.
pub fn judge(document: &Value, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
    let judged = Config::from_value(document, env);
    if let Some(file) = std::env::var_os("STEPGATE_JUDGED") {
        let errors = judged.as_ref().err().map_or(&[][..], ConfigErrors::as_slice);
        let problems: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let line = format!("{}\n", json!({ "document": document, "problems": problems }));
        let mut file = OpenOptions::new().create(true).append(true).open(file).expect("a file to add to");
        file.write_all(line.as_bytes()).expect("a line is added");
    }
    judged
}
