//! Points in time and durations, always as arguments: nothing here reads a clock.

use std::fmt;
use std::time::Duration;

/// A point in time: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From seconds since the Unix epoch (a JWT's NumericDate, RFC 7519 section 2).
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This point moved into the future; the far end of time instead of an overflow.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// The time from `earlier` to this point; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The units of a duration in the configuration, with their length in milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Parses a configured duration: a whole number and a unit, as in `500ms`, `60s`, `15m`, `24h`, `7d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(Duration::from_millis(number.checked_mul(*scale)?))
}

/// Shows a duration as the configuration writes it, in the largest unit that loses nothing.
pub struct DisplayDuration(pub Duration);

impl fmt::Display for DisplayDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = millis(self.0);
        let (name, scale) =
            UNITS.iter().rev().find(|(_, scale)| millis != 0 && millis.is_multiple_of(*scale)).unwrap_or(&("s", 1000));
        write!(f, "{}{name}", millis / scale)
    }
}

/// Shows an age in whole seconds; a long one in the largest unit that leaves at least two of it.
pub struct DisplayAge(pub Duration);

impl fmt::Display for DisplayAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match [("d", 86_400), ("h", 3_600)].into_iter().find(|(_, length)| seconds >= 2 * length) {
            Some((unit, length)) => write!(f, "{}{unit}", seconds / length),
            None => DisplayDuration(Duration::from_secs(seconds)).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_whole_number_and_a_unit() {
        assert_eq!(parse_duration("15m"), Some(Duration::from_secs(900)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("0s"), Some(Duration::ZERO));
        for bad in ["", "15", "m", "-5s", "1.5h", "15 m", "15M", "1h30m", "99999999999999999999s", "9999999999999999d"]
        {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_shown_in_the_largest_unit_that_loses_nothing() {
        for text in ["500ms", "90s", "15m", "25h", "7d", "0s"] {
            assert_eq!(DisplayDuration(parse_duration(text).unwrap()).to_string(), text);
        }
    }

    #[test]
    fn ages_are_whole_and_short() {
        for (millis, shown) in
            [(0, "0s"), (1_999, "1s"), (901_000, "901s"), (900_000, "15m"), (7_200_000, "2h"), (300_000_000, "3d")]
        {
            assert_eq!(DisplayAge(Duration::from_millis(millis)).to_string(), shown);
        }
    }

    #[test]
    fn arithmetic_saturates() {
        let end = Timestamp::from_millis(u64::MAX);
        assert_eq!(end.plus(Duration::MAX), end);
        assert_eq!(Timestamp::from_secs(u64::MAX), end);
        assert_eq!(Timestamp::from_secs(1).since(Timestamp::from_secs(2)), Duration::ZERO);
    }
}
