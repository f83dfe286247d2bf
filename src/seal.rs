//! Sealing: what a browser keeps for the gate, and can neither read nor change.
//!
//! XChaCha20-Poly1305, whose nonce is long enough to be drawn at random (draft-irtf-cfrg-xchacha section 3.1).

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};

use crate::encoding::{base64url_decode, base64url_encode};

/// The length of a key, in bytes.
pub const KEY_BYTES: usize = 32;

/// The length of a nonce, in bytes.
const NONCE_BYTES: usize = 24;

/// The length of an authentication tag, in bytes.
const TAG_BYTES: usize = 16;

/// The keys of a gate: the first seals, all of them open, so that keys can be changed without losing what is sealed.
#[derive(Clone)]
pub struct SealingKeys {
    first: XChaCha20Poly1305,
    others: Vec<XChaCha20Poly1305>,
}

impl std::fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKeys(…)")
    }
}

/// What something was sealed for, and for which name: what was sealed for one thing opens as no other.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// A login under way, by its `state`.
    Transaction(&'a str),
    /// A link that starts a login.
    Start,
    /// An ID Token, by the name of its cookie.
    IdToken(&'a str),
}

impl Purpose<'_> {
    fn associated_data(self) -> Vec<u8> {
        let (kind, name) = match self {
            Self::Transaction(state) => (1, state),
            Self::Start => (2, ""),
            Self::IdToken(cookie) => (3, cookie),
        };
        [b"stepgate", [kind].as_slice(), name.as_bytes()].concat()
    }
}

impl SealingKeys {
    /// Keys of [`KEY_BYTES`] bytes each.
    #[must_use]
    pub fn new(first: &[u8; KEY_BYTES], others: &[[u8; KEY_BYTES]]) -> Self {
        let cipher = |key: &[u8; KEY_BYTES]| XChaCha20Poly1305::new(&Key::from(*key));
        Self { first: cipher(first), others: others.iter().map(cipher).collect() }
    }

    /// Seals, with a nonce from 32 fresh random bytes. The result is base64url.
    #[must_use]
    pub fn seal(&self, purpose: Purpose<'_>, content: &[u8], entropy: &[u8; 32]) -> String {
        let mut nonce = [0; NONCE_BYTES];
        nonce.iter_mut().zip(entropy).for_each(|(byte, random)| *byte = *random);
        let payload = Payload { msg: content, aad: &purpose.associated_data() };
        // Fails only for contents of more than 256 GiB.
        let sealed = self.first.encrypt(&XNonce::from(nonce), payload).unwrap_or_default();
        base64url_encode(&[nonce.as_slice(), &sealed].concat())
    }

    /// Opens what one of the keys has sealed for this purpose.
    #[must_use]
    pub fn open(&self, purpose: Purpose<'_>, sealed: &str) -> Option<Vec<u8>> {
        let bytes = base64url_decode(sealed.as_bytes())?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let aad = purpose.associated_data();
        let open =
            |key: &XChaCha20Poly1305| key.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &aad }).ok();
        std::iter::once(&self.first).chain(&self.others).find_map(open)
    }
}

/// The length of a sealed content of this length.
#[must_use]
pub const fn sealed_len(content: usize) -> usize {
    content.saturating_add(NONCE_BYTES + TAG_BYTES).saturating_mul(4).div_ceil(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: [u8; 32] = [1; 32];
    const NEW: [u8; 32] = [2; 32];

    #[test]
    fn the_first_key_seals_and_all_of_them_open() {
        let (before, during, after) =
            (SealingKeys::new(&OLD, &[]), SealingKeys::new(&NEW, &[OLD]), SealingKeys::new(&NEW, &[]));
        let old = before.seal(Purpose::Start, b"content", &[7; 32]);
        assert_eq!(old.len(), sealed_len(7));
        assert_eq!(during.open(Purpose::Start, &old).as_deref(), Some(b"content".as_slice()));
        assert_eq!(after.open(Purpose::Start, &old), None);
        let new = during.seal(Purpose::Start, b"content", &[8; 32]);
        assert_eq!(after.open(Purpose::Start, &new).as_deref(), Some(b"content".as_slice()));
        assert_eq!(before.open(Purpose::Start, &new), None);
    }

    #[test]
    fn what_was_sealed_for_one_thing_opens_as_no_other() {
        let keys = SealingKeys::new(&OLD, &[]);
        let purposes = [
            Purpose::Transaction("a"),
            Purpose::Transaction("b"),
            Purpose::Start,
            Purpose::IdToken("a"),
            Purpose::IdToken(""),
        ];
        for (number, purpose) in purposes.iter().enumerate() {
            let sealed = keys.seal(*purpose, b"x", &[7; 32]);
            for (other_number, other) in purposes.iter().enumerate() {
                assert_eq!(keys.open(*other, &sealed).is_some(), number == other_number);
            }
        }
    }

    #[test]
    fn nothing_that_was_changed_opens() {
        let keys = SealingKeys::new(&OLD, &[]);
        let sealed = keys.seal(Purpose::Start, b"content", &[7; 32]);
        for position in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            assert_eq!(keys.open(Purpose::Start, &String::from_utf8(changed).unwrap()), None, "{position}");
            assert_eq!(keys.open(Purpose::Start, &sealed[..position]), None);
        }
    }

    #[test]
    fn debug_is_redacted() {
        assert_eq!(format!("{:?}", SealingKeys::new(&OLD, &[])), "SealingKeys(…)");
    }
}
