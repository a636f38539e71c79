//! How many requests are under way at a peer: half as many when it is overloaded, one more after a while of good answers.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Good answers in a row, for each request that may be under way, after which there may be one more.
const CALM: usize = 8;

/// The width of the way to a peer.
pub(super) struct Width {
    permits: Arc<Semaphore>,
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, PartialEq, Eq)]
struct State {
    /// Requests that may be under way.
    now: usize,
    /// Permits that are to be taken back when they are free.
    owed: usize,
    /// Good answers in a row.
    calm: usize,
}

impl Width {
    pub(super) fn new(most: usize) -> Width {
        Width { permits: Arc::new(Semaphore::new(most)), most, state: Mutex::new(State { now: most, owed: 0, calm: 0 }) }
    }

    /// Waits for a place.
    pub(super) async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.owed == 0 {
                return Some(permit);
            }
            state.owed -= 1;
            permit.forget();
        }
    }

    /// Takes an answer into account.
    pub(super) fn note(&self, is_overloaded: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if is_overloaded {
            let narrower = (state.now / 2).max(1);
            state.owed += state.now - narrower;
            (state.now, state.calm) = (narrower, 0);
            return;
        }
        state.calm += 1;
        if state.now == self.most || state.calm < state.now * CALM {
            return;
        }
        (state.now, state.calm) = (state.now + 1, 0);
        if state.owed > 0 {
            state.owed -= 1;
        } else {
            self.permits.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn overload_halves_it_and_calm_widens_it_again() {
        let width = Width::new(5);
        let now = || width.state.lock().unwrap().now;
        width.note(true);
        assert_eq!(now(), 2);
        width.note(true);
        width.note(true);
        assert_eq!(now(), 1, "one is always under way");
        let one = width.enter().await.unwrap();
        assert_eq!(width.permits.available_permits(), 0, "what was given away is taken back before the next one enters");
        drop(one);
        for _ in 0..CALM {
            width.note(false);
        }
        assert_eq!((now(), width.permits.available_permits()), (2, 2));
        for _ in 0..1000 {
            width.note(false);
        }
        assert_eq!((now(), width.permits.available_permits()), (5, 5), "no wider than configured");
    }
}
