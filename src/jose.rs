//! JOSE: algorithms, the provider's keys, and signed tokens. jwt-compact is the token layer; strictness that it
//! lacks stands in front.

mod algorithm;
mod assertion;
mod jwk;
mod jws;
mod rsa;

pub use algorithm::Algorithm;
pub use assertion::AssertionKey;
pub use jwk::{Key, KeySet, KeySetError, MAX_KEYS, MAX_RSA_BITS, MIN_RSA_BITS, MIN_RSA_EXPONENT};
pub use jws::{Jws, MAX_KID_BYTES, SignatureCheck, SignedClaims, VerificationKey};
pub use rsa::Rsa;
