//! What only a host has.

use crate::time::Timestamp;

/// What only a host has: the time, and randomness.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// The time now.
    pub now: Timestamp,
    /// Draws 32 bytes from a cryptographic source. Called only where an answer needs it.
    pub entropy: &'a dyn Fn() -> [u8; 32],
}
