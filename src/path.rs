//! Paths: every plausible reading of one, and the patterns that rules match against the readings.

mod pattern;
mod readings;

pub use pattern::{PathIndex, PathPattern, PatternError};
pub use readings::{MAX_PATH_READINGS, MAX_READING_BYTES, Readings};
