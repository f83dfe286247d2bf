//! RSA signatures in software (RFC 7518 sections 3.3 and 3.5), as algorithms of jwt-compact.

use std::borrow::Cow;
use std::convert::Infallible;

use jwt_compact::AlgorithmSignature;
use rsa::sha2::{Digest, Sha256, Sha384, Sha512};
use rsa::{Pkcs1v15Sign, Pss, PublicKey};

use super::Algorithm;

/// One of the RSA algorithms.
pub struct Rsa(Algorithm);

/// A signature, as long as the key's modulus if it is one.
pub struct RsaSignature(Box<[u8]>);

impl Rsa {
    /// None for an algorithm of another kind.
    #[must_use]
    pub const fn new(algorithm: Algorithm) -> Option<Self> {
        use Algorithm::{EdDsa, Es256, Hs256, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        match algorithm {
            Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512 => Some(Self(algorithm)),
            Es256 | EdDsa | Hs256 => None,
        }
    }
}

impl AlgorithmSignature for RsaSignature {
    fn try_from_slice(slice: &[u8]) -> anyhow::Result<Self> {
        Ok(Self(slice.into()))
    }

    fn as_bytes(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.0)
    }
}

impl jwt_compact::Algorithm for Rsa {
    type SigningKey = Infallible;
    type VerifyingKey = PublicKey;
    type Signature = RsaSignature;

    fn name(&self) -> Cow<'static, str> {
        self.0.name().into()
    }

    fn sign(&self, signing_key: &Infallible, _: &[u8]) -> RsaSignature {
        match *signing_key {}
    }

    /// A salt is as long as the hash (RFC 7518 section 3.5).
    fn verify_signature(&self, RsaSignature(signature): &RsaSignature, key: &PublicKey, message: &[u8]) -> bool {
        let verified = match self.0 {
            Algorithm::Rs256 => key.verify(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(message), signature),
            Algorithm::Rs384 => key.verify(Pkcs1v15Sign::new::<Sha384>(), &Sha384::digest(message), signature),
            Algorithm::Rs512 => key.verify(Pkcs1v15Sign::new::<Sha512>(), &Sha512::digest(message), signature),
            Algorithm::Ps256 => key.verify(Pss::<Sha256>::new(), &Sha256::digest(message), signature),
            Algorithm::Ps384 => key.verify(Pss::<Sha384>::new(), &Sha384::digest(message), signature),
            Algorithm::Ps512 => key.verify(Pss::<Sha512>::new(), &Sha512::digest(message), signature),
            Algorithm::Es256 | Algorithm::EdDsa | Algorithm::Hs256 => return false,
        };
        verified.is_ok()
    }
}
