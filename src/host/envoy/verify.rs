//! Signatures by Envoy's own crypto: the foreign function `verify_signature`
//! (`envoy.source.extensions.common.wasm.VerifySignatureArguments`).

use prost::Message;

use super::abi;
use crate::gate::Outcome;
use crate::jose::{Algorithm, SignatureCheck};

#[derive(Message)]
struct VerifySignatureArguments {
    #[prost(string, tag = "1")]
    hash_function: String,
    /// DER SubjectPublicKeyInfo.
    #[prost(bytes = "vec", tag = "2")]
    public_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    signature: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    text: Vec<u8>,
}

#[derive(Message)]
struct VerifySignatureResult {
    #[prost(bool, tag = "1")]
    result: bool,
}

/// Lets the host check a signature: RSA with PKCS#1 v1.5 padding, and ECDSA in DER. Whatever it cannot is left to
/// the gate.
pub fn verify_signature(check: &SignatureCheck) -> Outcome {
    let Some(public_key) = check.spki() else { return Outcome::Unsupported };
    let hash_function = match check.algorithm() {
        Algorithm::Rs256 | Algorithm::Es256 => "sha256",
        Algorithm::Rs384 => "sha384",
        Algorithm::Rs512 => "sha512",
        _ => return Outcome::Unsupported,
    };
    let signature = match check.algorithm() {
        Algorithm::Es256 => match check.ecdsa_signature_der() {
            Some(der) => der,
            None => return Outcome::Verified(false),
        },
        _ => check.signature().to_vec(),
    };
    let arguments = VerifySignatureArguments {
        hash_function: hash_function.to_owned(),
        public_key: public_key.to_vec(),
        signature,
        text: check.message().to_vec(),
    };
    let answer = abi::call_foreign_function("verify_signature", &arguments.encode_to_vec());
    match answer.map(|bytes| VerifySignatureResult::decode(bytes.as_slice())) {
        Ok(Ok(answer)) => Outcome::Verified(answer.result),
        _ => Outcome::Unsupported,
    }
}
