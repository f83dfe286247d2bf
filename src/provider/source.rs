//! A document that is fetched again and again: the last good one serves while newer attempts fail.

use std::time::Duration;

use crate::time::Timestamp;

/// After a failed attempt the next one waits this long, twice as long after the next …
pub const MIN_RETRY: Duration = Duration::from_secs(1);

/// … and at most this long.
pub const MAX_RETRY: Duration = Duration::from_secs(60);

pub struct Source<T> {
    good: Option<(T, Timestamp)>,
    attempted_at: Option<Timestamp>,
    failures: u32,
}

impl<T> Default for Source<T> {
    fn default() -> Self {
        Self { good: None, attempted_at: None, failures: 0 }
    }
}

impl<T> Source<T> {
    /// The last good document, unless it is too old.
    pub fn value(&self, now: Timestamp, max_stale: Duration) -> Option<&T> {
        self.good.as_ref().filter(|(_, fetched_at)| now.since(*fetched_at) <= max_stale).map(|(value, _)| value)
    }

    /// When the last attempt ended; the beginning of time before the first.
    pub fn attempted_at(&self) -> Timestamp {
        self.attempted_at.unwrap_or_default()
    }

    /// Whether the last attempt failed.
    pub const fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// When the next attempt is due.
    pub fn next_attempt(&self, refresh: Duration) -> Timestamp {
        let Some(attempted_at) = self.attempted_at else { return Timestamp::default() };
        let wait = match self.failures.checked_sub(1) {
            None => refresh,
            Some(doublings) => MIN_RETRY.saturating_mul(1 << doublings.min(16)).min(MAX_RETRY).min(refresh),
        };
        attempted_at.plus(wait)
    }

    /// Takes the outcome of an attempt, unless it is not newer than the last.
    pub fn take<E>(&mut self, at: Timestamp, parse: impl FnOnce() -> Result<T, E>) -> Result<(), E> {
        if self.attempted_at.is_some_and(|attempted_at| at <= attempted_at) {
            return Ok(());
        }
        self.attempted_at = Some(at);
        match parse() {
            Ok(value) => {
                self.good = Some((value, at));
                self.failures = 0;
                Ok(())
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                Err(error)
            }
        }
    }

    /// After the clock was set back, moments that now lie in the future are taken for just past.
    pub fn follow_clock(&mut self, now: Timestamp) {
        let just_past = Timestamp::from_millis(now.as_millis().saturating_sub(1));
        if self.attempted_at > Some(now) {
            self.attempted_at = Some(just_past);
        }
        if let Some((_, fetched_at)) = &mut self.good
            && *fetched_at > now
        {
            *fetched_at = just_past;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(600);
    const MAX_STALE: Duration = Duration::from_secs(3600);

    fn secs(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn the_last_good_document_serves_through_failures_until_it_is_too_old() {
        let mut source = Source::default();
        source.take(secs(10), || Ok::<_, ()>("good")).unwrap();
        source.take(secs(20), || Err(())).unwrap_err();
        assert_eq!(source.value(secs(20), MAX_STALE), Some(&"good"));
        assert_eq!(source.value(secs(3610), MAX_STALE), Some(&"good"));
        assert_eq!(source.value(secs(3611), MAX_STALE), None);
    }

    #[test]
    fn failures_back_off_and_success_resets() {
        let mut source = Source::<()>::default();
        assert_eq!(source.next_attempt(REFRESH), secs(0), "the first attempt is due at once");
        let mut waits = Vec::new();
        for attempt in 1..=9 {
            source.take(secs(attempt * 100), || Err(())).unwrap_err();
            waits.push(source.next_attempt(REFRESH).since(secs(attempt * 100)).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        source.take(secs(1000), || Ok::<_, ()>(())).unwrap();
        assert_eq!(source.next_attempt(REFRESH), secs(1600));
    }

    #[test]
    fn an_old_outcome_changes_nothing() {
        let mut source = Source::default();
        source.take(secs(10), || Ok::<_, ()>("new")).unwrap();
        source.take(secs(10), || Ok::<_, ()>("again")).unwrap();
        source.take(secs(9), || Ok::<_, ()>("old")).unwrap();
        assert_eq!(source.value(secs(10), MAX_STALE), Some(&"new"));
    }

    #[test]
    fn a_clock_set_back_neither_freezes_refreshes_nor_outdates_keys() {
        let mut source = Source::default();
        source.take(secs(1_000_000), || Ok::<_, ()>("good")).unwrap();
        source.follow_clock(secs(10));
        assert_eq!(source.value(secs(10), MAX_STALE), Some(&"good"));
        assert!(source.next_attempt(REFRESH) <= secs(610));
        assert_eq!(source.value(secs(3610), MAX_STALE), None, "nor do they serve for ever");
        source.take(secs(10), || Ok::<_, ()>("newer")).unwrap();
        assert_eq!(source.value(secs(10), MAX_STALE), Some(&"newer"));
        source.follow_clock(secs(10));
        assert_eq!(source.value(secs(3610), MAX_STALE), Some(&"newer"), "what is of this moment is not of the future");
    }

    #[test]
    fn it_is_failing_when_the_last_attempt_has_failed() {
        let mut source = Source::<()>::default();
        assert!(!source.is_failing());
        source.take(secs(10), || Err(())).unwrap_err();
        assert!(source.is_failing());
        source.take(secs(20), || Ok::<_, ()>(())).unwrap();
        assert!(!source.is_failing());
    }
}
