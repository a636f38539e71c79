//! Sums that another system has made: a number for each population, and what must be true of them together.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use super::PopulationCode::{
    Denominator, DenominatorException, DenominatorExclusion, InitialPopulation, MeasureObservation, MeasurePopulation, MeasurePopulationExclusion, Numerator, NumeratorExclusion,
};
use super::{Amount, GroupShape, Outlook, PopulationCode, Scoring, Tallies};

impl GroupShape {
    /// Populations, by their places, that together are no more than another one.
    pub fn within(&self) -> Vec<(Vec<usize>, usize)> {
        let all: &[(&[PopulationCode], PopulationCode)] = match self.scoring {
            Scoring::Proportion => {
                &[(&[Denominator], InitialPopulation), (&[Numerator, DenominatorExclusion, DenominatorException], Denominator), (&[NumeratorExclusion], Numerator)]
            }
            Scoring::Ratio => &[(&[Denominator], InitialPopulation), (&[DenominatorExclusion], Denominator), (&[NumeratorExclusion], Numerator)],
            Scoring::ContinuousVariable => &[(&[MeasurePopulation], InitialPopulation), (&[MeasurePopulationExclusion], MeasurePopulation)],
            Scoring::Cohort | Scoring::Composite => &[],
        };
        let place = |code: &PopulationCode| self.slots.iter().position(|slot| slot.code == *code);
        let is_one = |code: PopulationCode| self.slots.iter().filter(|slot| slot.code == code).count() == 1;
        // Of two initial populations it is not asked which is whose.
        let known = all.iter().filter(|(_, whole)| is_one(*whole));
        let places = known.filter_map(|(parts, whole)| Some((parts.iter().filter_map(place).collect::<Vec<_>>(), place(whole)?)));
        places.filter(|(parts, _)| !parts.is_empty()).collect()
    }
}

impl Tallies {
    /// Of one number for each population: how many are in it; of an observation what all of them came to.
    pub fn given(shape: &GroupShape, numbers: &[Option<Decimal>]) -> Tallies {
        let place = |code: PopulationCode| shape.slots.iter().position(|slot| slot.code == code);
        let count = |at: usize| numbers.get(at).copied().flatten().and_then(|number| number.to_u64()).unwrap_or(0);
        let of = |codes: &[PopulationCode]| codes.iter().filter_map(|code| place(*code)).map(count).sum::<u64>();
        let scored = |at: usize| {
            let out: &[PopulationCode] = match shape.slots.get(at).map(|slot| slot.code) {
                Some(Denominator) => &[DenominatorExclusion, DenominatorException],
                Some(Numerator) => &[NumeratorExclusion],
                Some(MeasurePopulation) => &[MeasurePopulationExclusion],
                _ => &[],
            };
            count(at).saturating_sub(of(out))
        };
        let mut tallies = Tallies::new(shape.slots.len());
        for (at, (slot, tally)) in shape.slots.iter().zip(&mut tallies.slots).enumerate() {
            (tally.count, tally.scored) = (count(at), scored(at));
            if let (MeasureObservation, Some(observed)) = (slot.code, slot.of) {
                let number = numbers.get(at).copied().flatten();
                let members = number.map_or(0, |_| scored(observed));
                (tally.count, tally.scored) = (members, members);
                number.into_iter().for_each(|number| tally.observations.add_times(&Amount::from(number), members));
            }
            if let (Scoring::Proportion, Denominator) = (shape.scoring, slot.code) {
                let fulfilled = place(Numerator).map_or(0, scored);
                let each = [(Decimal::ONE, fulfilled), (Decimal::ZERO, tally.scored.saturating_sub(fulfilled))];
                tally.outlooks = each.into_iter().filter(|(_, times)| *times > 0).map(|(value, times)| (Outlook::certain(value), times)).collect();
            }
        }
        tallies
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Aggregate, Slot, bounds, score};
    use super::*;

    fn shape(scoring: Scoring, codes: &[PopulationCode]) -> GroupShape {
        let slot = |code: &PopulationCode| {
            let observed = (*code == MeasureObservation).then_some(0);
            Slot { code: *code, of: observed, aggregate: observed.map(|_| Aggregate::Median) }
        };
        GroupShape { scoring, slots: codes.iter().map(slot).collect(), composite: None }
    }

    fn numbers(given: &[i64]) -> Vec<Option<Decimal>> {
        given.iter().map(|number| Some(Decimal::from(*number))).collect()
    }

    #[test]
    fn what_is_given_scores_as_what_is_counted_here() {
        let proportion = shape(Scoring::Proportion, &[Denominator, DenominatorExclusion, Numerator]);
        let found = Tallies::given(&proportion, &numbers(&[12, 2, 7]));
        assert_eq!((score(&proportion, &found).value, bounds(&proportion, &found)), (Some(Decimal::new(7, 1)), Some((Decimal::new(7, 1), Decimal::new(7, 1)))));
        let ratio = shape(Scoring::Ratio, &[Denominator, Numerator]);
        assert_eq!(score(&ratio, &Tallies::given(&ratio, &numbers(&[4000, 6]))).scaled(1000), Some(Decimal::new(15, 1)));
        let median = shape(Scoring::ContinuousVariable, &[MeasurePopulation, MeasureObservation]);
        let found = score(&median, &Tallies::given(&median, &[Some(40.into()), Some(Decimal::new(235, 1))]));
        assert_eq!((found.value, found.denominator), (Some(Decimal::new(235, 1)), Some(40.into())));
        let nobody = Tallies::given(&median, &[Some(0.into()), None]);
        assert_eq!(score(&median, &nobody).value, None);
    }

    #[test]
    fn what_must_be_within_what() {
        let proportion = shape(Scoring::Proportion, &[Denominator, DenominatorExclusion, Numerator]);
        assert_eq!(proportion.within(), [(vec![2, 1], 0)]);
        let ratio = shape(Scoring::Ratio, &[Numerator, Denominator, DenominatorExclusion]);
        assert_eq!(ratio.within(), [(vec![2], 1)], "the numerator of a ratio may be more than its denominator");
    }
}
