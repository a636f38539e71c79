//! What a server is spared: more than so many requests a minute, more than so many in all, more than a few repeated ones, and any
//! before the wait is over that it asked for.

use super::{Clock, HttpError, Origin};
use crate::diagnostic::counted;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Of so many requests one may be a repeated one: the reliability reference allows 10 % of extra requests (section 5.6).
const REQUESTS_PER_RETRY: u64 = 10;
/// Repeated requests that are free: a short pull meets a bad minute too.
const RETRIES_FREE: u64 = 100;

/// The bounds, and how near they are; shared by all who speak to one server.
#[derive(Debug, Default)]
pub struct Courtesy {
    /// Requests a minute; 0: as many as come.
    per_minute: u32,
    /// Requests in all; 0: any number.
    in_all: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the next request may be sent.
    next: Option<Timestamp>,
    made: u64,
    retries: u64,
    /// Until when an origin wants to be left alone.
    held: BTreeMap<Origin, Timestamp>,
}

impl Courtesy {
    /// So many requests a minute and in all; 0 stands for any number.
    pub fn new(per_minute: u32, in_all: u64) -> Courtesy {
        Courtesy { per_minute, in_all, state: Mutex::default() }
    }

    /// Waits until a request may be sent. Requests are spread evenly: a minute's worth of them in one second is no kindness.
    pub(super) async fn admit(&self, clock: &dyn Clock) -> Result<(), HttpError> {
        let wait = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if self.in_all > 0 && state.made >= self.in_all {
                return Err(HttpError::NotNow(format!("`source.requests_per_night` allows {}, and no more", counted(self.in_all, "request"))));
            }
            state.made += 1;
            self.take_turn(&mut state, clock.now())
        };
        if !wait.is_zero() {
            clock.sleep(wait).await;
        }
        Ok(())
    }

    fn take_turn(&self, state: &mut State, now: Timestamp) -> Duration {
        if self.per_minute == 0 {
            return Duration::ZERO;
        }
        let turn = state.next.map_or(now, |next| next.max(now));
        let apart = SignedDuration::from_mins(1) / i32::try_from(self.per_minute).unwrap_or(i32::MAX);
        state.next = turn.checked_add(apart).ok();
        Duration::try_from(turn.duration_since(now)).unwrap_or_default()
    }

    /// Sends nothing more to an origin before its wait is over. Whether that is news.
    pub(super) fn hold(&self, origin: Origin, until: Timestamp) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let held = state.held.entry(origin).or_insert(Timestamp::MIN);
        let is_news = until > *held;
        *held = until.max(*held);
        is_news
    }

    /// How long an origin wants to be left alone yet.
    pub(super) fn held(&self, origin: &Origin, now: Timestamp) -> Option<Duration> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let until = state.held.get(origin)?;
        Duration::try_from(until.duration_since(now)).ok().filter(|wait| !wait.is_zero())
    }

    /// Whether a request may be repeated; counts it if so.
    pub(super) fn may_repeat(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let may = state.retries < RETRIES_FREE + state.made / REQUESTS_PER_RETRY;
        state.retries += u64::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::Jumping;

    #[tokio::test]
    async fn requests_are_spread_over_the_minute_and_a_pause_is_not_made_up_for() {
        let clock = Jumping::default();
        let courtesy = Courtesy::new(120, 0);
        let mut sent = Vec::new();
        for _ in 0..4 {
            courtesy.admit(&clock).await.unwrap();
            sent.push(clock.millis());
        }
        assert_eq!(sent, [0, 500, 1000, 1500]);
        clock.set(60_000);
        for expected in [60_000, 60_500] {
            courtesy.admit(&clock).await.unwrap();
            assert_eq!(clock.millis(), expected);
        }
        let free = Courtesy::new(0, 0);
        for _ in 0..1000 {
            free.admit(&clock).await.unwrap();
        }
        assert_eq!(clock.millis(), 60_500, "no bound, no wait");
    }

    #[tokio::test]
    async fn the_last_request_of_a_night_is_the_last() {
        let clock = Jumping::default();
        let courtesy = Courtesy::new(0, 3);
        for _ in 0..3 {
            courtesy.admit(&clock).await.unwrap();
        }
        let error = courtesy.admit(&clock).await.unwrap_err();
        assert_eq!(error.to_string(), "`source.requests_per_night` allows 3 requests, and no more");
    }

    #[tokio::test]
    async fn one_request_in_ten_is_repeated_at_most_beside_the_free_ones() {
        let clock = Jumping::default();
        let courtesy = Courtesy::new(0, 0);
        let mut repeated = 0;
        for _ in 0..2000 {
            courtesy.admit(&clock).await.unwrap();
            repeated += u64::from(courtesy.may_repeat());
        }
        assert_eq!(repeated, RETRIES_FREE + 200);
    }
}
