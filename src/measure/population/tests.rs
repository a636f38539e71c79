//! Hand-made patients through the algebra, and merges in any order.

use super::*;
use PopulationCode::*;
use proptest::prelude::*;

fn slot(code: PopulationCode, of: Option<usize>, aggregate: Option<Aggregate>) -> Slot {
    Slot { code, of, aggregate }
}

fn proportion() -> GroupShape {
    let codes = [InitialPopulation, Denominator, DenominatorExclusion, DenominatorException, Numerator, NumeratorExclusion];
    GroupShape { scoring: Scoring::Proportion, slots: codes.map(|code| slot(code, None, None)).to_vec(), composite: None }
}

/// A patient-based criterion list, from `1`, `0`, `?` per slot.
fn patient(criteria: &str) -> Criteria {
    let mut made = Criteria::none(criteria.len());
    for (index, mark) in criteria.chars().enumerate() {
        match mark {
            '1' => drop(made.holds[index].insert(String::new())),
            '?' => drop(made.unknown[index].insert(String::new(), "not-documented".into())),
            _ => {}
        }
    }
    made
}

fn marks(memberships: &[Membership]) -> String {
    let mark = |m: &Membership| {
        if !m.members.is_empty() {
            '1'
        } else if !m.unknown.is_empty() {
            '?'
        } else {
            '0'
        }
    };
    memberships.iter().map(mark).collect()
}

fn scored(memberships: &[Membership]) -> String {
    memberships.iter().map(|m| if m.scored.is_empty() { '0' } else { '1' }).collect()
}

#[test]
fn proportion_follows_the_guide() {
    // criteria IP D DENEX DENEXCEP N NUMEX -> reported, of which scored
    for (criteria, reported, counted) in [
        ("000000", "000000", "000000"),
        ("011111", "000000", "000000"), // nothing outside the initial population
        ("101111", "100000", "100000"), // nothing outside the denominator
        ("110010", "110010", "110010"),
        ("111010", "111000", "101000"), // an exclusion keeps the numerator out and is subtracted
        ("110110", "110010", "110010"), // an exception does not count for a member of the numerator
        ("110100", "110100", "100100"), // and is subtracted otherwise
        ("110011", "110011", "110001"), // a numerator exclusion is subtracted
        ("110111", "110011", "110001"),
        ("1?0010", "1?0000", "100000"), // unknown is false, and said
        ("1100?0", "1100?0", "110000"),
        ("1110?0", "111000", "101000"), // no doubt about someone who is excluded
        ("?00000", "?00000", "000000"),
    ] {
        let result = memberships(&proportion(), &patient(criteria));
        assert_eq!(marks(&result), reported, "{criteria}");
        assert_eq!(scored(&result), counted, "{criteria}");
    }
}

#[test]
fn exclusions_and_exceptions_leave_the_denominator_of_the_score() {
    // two in the denominator, one of them excluded, one in the numerator: 1 of 1, never 1 of 2
    let mut tallies = Tallies::new(6);
    for criteria in ["110010", "111000"] {
        tallies.add(&memberships(&proportion(), &patient(criteria)), None);
    }
    let found = score(&proportion(), &tallies);
    assert_eq!((found.numerator, found.denominator, found.value), (Some(Decimal::ONE), Some(Decimal::ONE), Some(Decimal::ONE)));
    assert_eq!(tallies.slots.iter().map(|tally| tally.count).collect::<Vec<_>>(), [2, 2, 1, 0, 1, 0]);
}

#[test]
fn events_are_sets() {
    let shape = proportion();
    let mut criteria = Criteria::none(6);
    let set = |keys: &str| keys.chars().map(String::from).collect::<BTreeSet<_>>();
    criteria.holds = vec![set("abcd"), set("abcx"), set("b"), set(""), set("abcdx"), set("c")];
    let result = memberships(&shape, &criteria);
    let show = |index: usize| result[index].members.iter().cloned().collect::<String>();
    assert_eq!([show(0), show(1), show(2), show(4), show(5)], ["abcd", "abc", "b", "ac", "c"]);
    let mut tallies = Tallies::new(6);
    tallies.add(&result, None);
    assert_eq!(score(&shape, &tallies).value, divide(Decimal::ONE, Decimal::TWO));
}

fn ratio() -> GroupShape {
    GroupShape {
        scoring: Scoring::Ratio,
        slots: vec![
            slot(InitialPopulation, None, None),
            slot(InitialPopulation, None, None),
            slot(Denominator, Some(0), None),
            slot(Numerator, Some(1), None),
            slot(MeasureObservation, Some(2), Some(Aggregate::Sum)),
            slot(MeasureObservation, Some(3), Some(Aggregate::Sum)),
        ],
        composite: None,
    }
}

#[test]
fn a_ratio_counts_its_sides_independently() {
    let mut criteria = Criteria::none(6);
    let set = |keys: &str| keys.chars().map(String::from).collect::<BTreeSet<_>>();
    criteria.holds = vec![set("ab"), set("bc"), set("abc"), set("abc"), set(""), set("")];
    let days: BTreeMap<_, _> = [("a", 5), ("b", 7), ("c", 100)].map(|(key, n)| (key.to_owned(), Decimal::from(n))).into();
    let events: BTreeMap<_, _> = [("b", 1), ("c", 2)].map(|(key, n)| (key.to_owned(), Decimal::from(n))).into();
    criteria.observed[4] = days;
    criteria.observed[5] = events;
    let mut tallies = Tallies::new(6);
    tallies.add(&memberships(&ratio(), &criteria), None);
    let found = score(&ratio(), &tallies);
    assert_eq!((found.numerator, found.denominator, found.value), (Some(3.into()), Some(12.into()), Some(Decimal::new(25, 2))));
}

#[test]
fn a_ratio_of_nothing_has_no_score() {
    let found = score(&ratio(), &Tallies::new(6));
    assert_eq!((found.numerator, found.denominator, found.value), (Some(Decimal::ZERO), Some(Decimal::ZERO), None));
}

#[test]
fn aggregates() {
    let mut observations = Observations::default();
    for value in [30, 10, 10, 25] {
        observations.add(Decimal::from(value));
    }
    for (method, expected) in
        [(Aggregate::Sum, "75"), (Aggregate::Count, "4"), (Aggregate::Average, "18.75"), (Aggregate::Median, "17.5"), (Aggregate::Minimum, "10"), (Aggregate::Maximum, "30")]
    {
        assert_eq!(observations.aggregate(method).map(|d| d.to_string()).as_deref(), Some(expected), "{method:?}");
    }
    assert_eq!(Observations::default().aggregate(Aggregate::Median), None);
    assert_eq!(Observations::default().aggregate(Aggregate::Average), None);
}

#[test]
fn a_continuous_variable_aggregates_what_is_not_excluded() {
    let shape = GroupShape {
        scoring: Scoring::ContinuousVariable,
        slots: vec![
            slot(InitialPopulation, None, None),
            slot(MeasurePopulation, None, None),
            slot(MeasurePopulationExclusion, None, None),
            slot(MeasureObservation, Some(1), Some(Aggregate::Median)),
        ],
        composite: None,
    };
    let mut criteria = Criteria::none(4);
    let set = |keys: &str| keys.chars().map(String::from).collect::<BTreeSet<_>>();
    criteria.holds = vec![set("abcd"), set("abcd"), set("d"), set("")];
    criteria.observed[3] = [("a", 3), ("b", 5), ("c", 9), ("d", 99)].map(|(key, n)| (key.to_owned(), Decimal::from(n))).into();
    let mut tallies = Tallies::new(4);
    tallies.add(&memberships(&shape, &criteria), None);
    assert_eq!(score(&shape, &tallies).value, Some(Decimal::from(5)));
}

#[test]
fn bounds_say_what_the_blanks_could_do() {
    let mut tallies = Tallies::new(6);
    for criteria in ["110010", "110000", "1100?0", "1?0000"] {
        tallies.add(&memberships(&proportion(), &patient(criteria)), None);
    }
    let found = bounds(&proportion(), &tallies);
    assert_eq!(found, Some((Decimal::new(25, 2), Decimal::new(75, 2))));
    assert_eq!((tallies.open, candidates(&proportion(), &tallies)), (2, Some(4)));
    // Of whom it cannot be told whether they are meant, or excluded, is in doubt too, and each once.
    for (criteria, range) in [("?00000", (0, 1)), ("11?010", (0, 1)), ("11?0?0", (0, 1)), ("1100??", (0, 1)), ("110010", (1, 1))] {
        let mut tallies = Tallies::new(6);
        tallies.add(&memberships(&proportion(), &patient(criteria)), None);
        let expected = (u64::from(range.0 != range.1), Some(1), Some((range.0.into(), range.1.into())));
        assert_eq!((tallies.open, candidates(&proportion(), &tallies), bounds(&proportion(), &tallies)), expected, "{criteria}");
    }
}

/// Whatever the unknown turns out to be, the score lies between the bounds.
#[test]
fn no_truth_lies_outside_the_bounds() {
    let blanks = ["110010", "110000", "11?010", "11000?", "1100?0", "1?0010", "?10000", "110?00"];
    let score_of = |criteria: &[String]| {
        let mut tallies = Tallies::new(6);
        criteria.iter().for_each(|one| tallies.add(&memberships(&proportion(), &patient(one)), None));
        (score(&proportion(), &tallies).value, bounds(&proportion(), &tallies).unwrap())
    };
    let (_, (low, high)) = score_of(&blanks.map(str::to_owned));
    for truth in 0..64u32 {
        let mut bit = 0;
        let mut known = |mark: char| match mark {
            '?' => {
                bit += 1;
                if truth >> (bit - 1) & 1 == 1 { '1' } else { '0' }
            }
            mark => mark,
        };
        let filled = blanks.map(|criteria| criteria.chars().map(&mut known).collect::<String>());
        let (value, _) = score_of(&filled);
        assert!(value.is_some_and(|value| low <= value && value <= high), "{filled:?}: {value:?} is not in {low} to {high}");
    }
}

proptest! {
    #[test]
    fn merging_is_associative_and_commutative(patients in prop::collection::vec("[01?]{6}", 0..24), cut in 0usize..24, other in 0usize..24) {
        let shape = proportion();
        let sum = |range: &[String]| {
            let mut tallies = Tallies::new(6);
            for criteria in range { tallies.add(&memberships(&shape, &patient(criteria)), None); }
            tallies
        };
        let (low, high) = (cut.min(other).min(patients.len()), cut.max(other).min(patients.len()));
        let (a, b, c) = (sum(&patients[..low]), sum(&patients[low..high]), sum(&patients[high..]));
        let mut left = a.clone(); left.merge(&b); left.merge(&c);
        let mut right = c.clone(); right.merge(&a); right.merge(&b);
        prop_assert_eq!(&left, &right);
        prop_assert_eq!(&left, &sum(&patients));
        let found = score(&shape, &left);
        prop_assert!(found.numerator <= found.denominator);
        if let (Some((low, high)), Some(value)) = (bounds(&shape, &left), found.value) {
            prop_assert!(low <= value && value <= high);
        }
    }
}
