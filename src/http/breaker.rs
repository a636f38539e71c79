//! A server that does nothing but fail is left alone: one request is tried now and then, the others wait for what becomes of it.

use super::Clock;
use jiff::{SignedDuration, Timestamp};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// Failures in a row after which it opens (reliability reference, section 5.6), if they lasted long enough.
const FAILURES: u32 = 20;
/// A server is given a quarter of an hour to come back: many requests at once fail often within a minute.
const LASTING: SignedDuration = SignedDuration::from_mins(15);
/// Between two probes while it is open.
const PROBE_EVERY: SignedDuration = SignedDuration::from_secs(30);
/// Probes in a row that fail before nobody waits any more for the next one.
const PROBES_MAX: u32 = 20;
/// Between two probes from then on; all else fails at once.
const REST: SignedDuration = SignedDuration::from_mins(10);

/// Closed, or open with a probe now and then.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: Mutex<State>,
    /// Held by the one request that is a probe.
    probe: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// Failures since the last success, and the times of the first and the last of them.
    failures: u32,
    times: Option<(Timestamp, Timestamp)>,
    probes: u32,
}

impl State {
    fn is_open(&self) -> bool {
        self.failures >= FAILURES && self.times.is_some_and(|(first, last)| last.duration_since(first) >= LASTING)
    }
}

/// That nothing is sent before the next probe is due, after so many failures.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftAlone(pub u32);

impl Breaker {
    /// Waits for its turn where it is open; the guard is to be held until the answer has been noted.
    pub(super) async fn enter(&self, clock: &dyn Clock) -> Result<Option<OwnedMutexGuard<()>>, LeftAlone> {
        if !self.is_open() {
            return Ok(None);
        }
        let guard = Arc::clone(&self.probe).lock_owned().await;
        let wait = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if !state.is_open() {
                return Ok(None);
            }
            let since = state.times.map(|(_, last)| clock.now().duration_since(last)).unwrap_or_default();
            if state.probes >= PROBES_MAX && since < REST {
                return Err(LeftAlone(state.failures));
            }
            state.probes = state.probes.saturating_add(1);
            PROBE_EVERY - since
        };
        if let Some(wait) = Duration::try_from(wait).ok().filter(|wait| !wait.is_zero()) {
            clock.sleep(wait).await;
        }
        Ok(Some(guard))
    }

    /// Takes an answer into account; `None`: it says nothing of the server's health.
    pub(super) fn note(&self, failed: Option<bool>, now: Timestamp) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match failed {
            Some(true) => {
                state.failures = state.failures.saturating_add(1);
                state.times = Some((state.times.map_or(now, |(first, _)| first), now));
            }
            Some(false) => *state = State::default(),
            None => {}
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::Jumping;

    fn opened() -> (Breaker, Jumping) {
        let (breaker, clock) = (Breaker::default(), Jumping::default());
        for second in 0..20 {
            assert!(!breaker.is_open());
            clock.set(second * 48_000);
            breaker.note(Some(true), clock.now());
        }
        assert!(breaker.is_open(), "twenty failures within 912 seconds");
        (breaker, clock)
    }

    #[tokio::test]
    async fn it_opens_after_twenty_failures_that_lasted_and_closes_with_a_good_answer() {
        let fast = Breaker::default();
        (0..100).for_each(|_| fast.note(Some(true), Timestamp::UNIX_EPOCH));
        assert!(!fast.is_open(), "a hundred at once are one failure");

        let (breaker, clock) = opened();
        let probe = breaker.enter(&clock).await.unwrap();
        assert!(probe.is_some() && clock.millis() == (912 + 30) * 1000, "a probe half a minute later");
        breaker.note(None, clock.now());
        assert!(breaker.is_open(), "being told to slow down says nothing");
        let other = breaker.enter(&clock);
        breaker.note(Some(false), clock.now());
        drop(probe);
        assert!(other.await.unwrap().is_none() && !breaker.is_open(), "who waited goes on as usual");
    }

    #[tokio::test]
    async fn a_server_that_stays_down_is_left_alone() {
        let (breaker, clock) = opened();
        for _ in 0..PROBES_MAX {
            let probe = breaker.enter(&clock).await.unwrap();
            breaker.note(Some(true), clock.now());
            drop(probe);
        }
        assert_eq!(clock.millis(), (912 + 20 * 30) * 1000);
        assert_eq!(breaker.enter(&clock).await.unwrap_err(), LeftAlone(40));
        clock.set(clock.millis() + 600_000);
        let probe = breaker.enter(&clock).await.unwrap();
        assert!(probe.is_some(), "but not for ever");
        breaker.note(Some(true), clock.now());
        drop(probe);
        assert_eq!(breaker.enter(&clock).await.unwrap_err(), LeftAlone(41));
    }
}
