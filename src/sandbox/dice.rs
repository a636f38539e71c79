//! Choices from a seed: integer arithmetic over ChaCha, so that the same seed gives the same
//! hospital on any machine and with any version of the crates between.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A stream of choices.
pub(super) struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream number `stream` of a hospital's seed. Streams are independent: one patient more
    /// or less does not change the others.
    pub(super) fn new(seed: u64, hospital: &str, stream: u64) -> Dice {
        // FNV-1a of the hospital's name, so that two hospitals differ under one seed.
        let salt = hospital.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut generator = ChaCha8Rng::seed_from_u64(seed ^ salt);
        generator.set_stream(stream);
        Dice(generator)
    }

    /// A whole number from `low` to `high`, both included; `low` if the range is empty.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        let draw = u128::from(self.0.next_u64());
        let span = u128::from(high.saturating_sub(low).max(0).unsigned_abs()) + 1;
        let offset = (draw * span) >> 64;
        low + i64::try_from(offset).unwrap_or(0)
    }

    /// True in `percent` of cases.
    pub(super) fn chance(&mut self, percent: i64) -> bool {
        self.between(1, 100) <= percent
    }

    /// True in `permille` of a thousand cases.
    pub(super) fn chance_permille(&mut self, permille: i64) -> bool {
        self.between(1, 1000) <= permille
    }

    /// One of the choices, by weight.
    ///
    /// `choices` must not be empty; the last one is taken when all weights are zero.
    pub(super) fn weighted<T: Copy>(&mut self, choices: &[(i64, T)]) -> T {
        let total: i64 = choices.iter().map(|(weight, _)| *weight).sum();
        let mut left = self.between(1, total.max(1));
        for (weight, choice) in choices {
            left -= *weight;
            if left <= 0 {
                return *choice;
            }
        }
        choices.last().expect("INVARIANT: tables of choices are constants with entries").1
    }

    /// One of the choices, each as likely.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let last = i64::try_from(choices.len()).unwrap_or(1) - 1;
        let index = usize::try_from(self.between(0, last)).unwrap_or(0);
        *choices.get(index).expect("INVARIANT: lists of choices are constants with entries")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_pinned() {
        let mut dice = Dice::new(7, "lakeside", 3);
        let drawn: Vec<i64> = (0..8).map(|_| dice.between(1, 1000)).collect();
        let mut again = Dice::new(7, "lakeside", 3);
        assert_eq!(drawn, (0..8).map(|_| again.between(1, 1000)).collect::<Vec<_>>());
        let mut other = Dice::new(7, "harbor", 3);
        assert_ne!(drawn, (0..8).map(|_| other.between(1, 1000)).collect::<Vec<_>>());
        assert_eq!(drawn, [75, 145, 534, 189, 45, 225, 255, 376]);
    }

    #[test]
    fn draws_stay_in_range() {
        let mut dice = Dice::new(1, "x", 0);
        for _ in 0..1000 {
            assert!((3..=5).contains(&dice.between(3, 5)));
            assert_eq!(dice.between(4, 4), 4);
            assert_eq!(dice.between(5, 4), 5);
            assert_eq!(dice.weighted(&[(0, 'a'), (1, 'b'), (0, 'c')]), 'b');
            assert!(["p", "q"].contains(&dice.pick(&["p", "q"])));
        }
    }
}
