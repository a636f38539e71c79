//! Where a feed stands: one machine, told in the same words by `outbox list`, `status`, `deliver`, `outbox retry` and the night itself.

/// Where a feed stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not accepted yet: waits for its first or next attempt.
    Waiting,
    /// Accepted, with its receipt.
    Delivered,
    /// Accepted earlier; that a night has changed nothing is still to be said, or was said and not heard to be taken.
    Confirming,
    /// Accepted earlier, and refused when it was repeated: the destination holds something that is not known here.
    Contradicted,
    /// Rejected for good; no later feed or night says more.
    Rejected,
    /// Rejected, and passed since by a later feed, or by a night that found the numbers delivered before. Of another site's name, as one that
    /// was mistyped, by one that was delivered.
    Superseded,
    /// Never sent: rebuilt upon another predecessor after the one it named was rejected.
    Rebuilt,
}

/// The state of a row of `outbox_feed f`, as a word of [`State::word`].
pub(super) const STATE: &str = "CASE f.state
     WHEN 'pending' THEN 'waiting'
     WHEN 'delivered' THEN CASE WHEN f.confirm_due = 1 THEN 'confirming' WHEN f.reason IS NOT NULL THEN 'contradicted' ELSE 'delivered' END
     WHEN 'dead' THEN CASE WHEN f.is_history = 1 OR EXISTS (SELECT 1 FROM outbox_feed l WHERE l.destination = f.destination AND l.sequence > f.sequence
         AND (l.site = f.site OR l.state = 'delivered'))
         THEN 'superseded' ELSE 'rejected' END
     ELSE 'rebuilt' END";

impl State {
    /// Every state.
    pub const ALL: [State; 7] = [State::Waiting, State::Delivered, State::Confirming, State::Contradicted, State::Rejected, State::Superseded, State::Rebuilt];

    /// The word for it, for people and programs.
    pub fn word(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Delivered => "delivered",
            State::Confirming => "confirming",
            State::Contradicted => "contradicted",
            State::Rejected => "rejected",
            State::Superseded => "superseded",
            State::Rebuilt => "rebuilt",
        }
    }

    /// The state of a word that the database holds.
    pub(super) fn of(word: &str) -> State {
        State::ALL.into_iter().find(|state| state.word() == word).unwrap_or(State::Rebuilt)
    }

    /// Whether something of it is still to be sent, which happens by itself.
    pub fn is_to_be_sent(self) -> bool {
        matches!(self, State::Waiting | State::Confirming)
    }

    /// Whether a person must look at it.
    pub fn needs_a_person(self) -> bool {
        matches!(self, State::Rejected | State::Contradicted)
    }

    /// What it means for the numbers at the destination, and what happens next or must be done.
    pub fn meaning(self) -> &'static str {
        match self {
            State::Waiting => "not accepted yet; `watershed deliver` or the next night sends it",
            State::Delivered => "accepted, with its receipt",
            State::Confirming => "accepted; that nothing has changed since is not confirmed yet: `watershed deliver` or the next night says it again",
            State::Contradicted => "accepted once, and refused when it was repeated; `watershed outbox adopt` shows what the registry holds",
            State::Rejected => "not accepted; when the reason is gone, the next night or `watershed outbox retry` sends it anew",
            State::Superseded => "not accepted; what came later stands in its place",
            State::Rebuilt => "never sent; what came later stands in its place",
        }
    }
}

/// How many feeds stand so that something is still to happen, or to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// As in [`State::Waiting`].
    pub waiting: u64,
    /// As in [`State::Confirming`].
    pub confirming: u64,
    /// As in [`State::Contradicted`].
    pub contradicted: u64,
    /// As in [`State::Rejected`].
    pub rejected: u64,
}

impl Remaining {
    /// Counts them.
    pub fn of(states: impl IntoIterator<Item = State>) -> Remaining {
        let mut all = Remaining::default();
        for state in states {
            match state {
                State::Waiting => all.waiting += 1,
                State::Confirming => all.confirming += 1,
                State::Contradicted => all.contradicted += 1,
                State::Rejected => all.rejected += 1,
                State::Delivered | State::Superseded | State::Rebuilt => {}
            }
        }
        all
    }

    /// In words: what waits and what was rejected in any case, the rest where there is any.
    pub fn in_words(&self) -> String {
        let said = |count: u64, state: State| format!("{count} {}", state.word());
        let some = |count: u64, state: State| (count > 0).then(|| said(count, state));
        let always = [Some(said(self.waiting, State::Waiting)), some(self.confirming, State::Confirming)];
        let rest = [Some(said(self.rejected, State::Rejected)), some(self.contradicted, State::Contradicted)];
        always.into_iter().chain(rest).flatten().collect::<Vec<_>>().join(", ")
    }
}
