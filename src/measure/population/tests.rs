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

/// A patient-based criterion list, from `1`, `0`, `?` per slot; `!` where it holds by a value that could not be used.
fn patient(criteria: &str) -> Criteria {
    let mut made = Criteria::none(criteria.len());
    for (index, mark) in criteria.chars().enumerate() {
        match mark {
            '1' => drop(made.holds[index].insert(String::new())),
            '!' => {
                made.holds[index].insert(String::new());
                made.doubtful[index].insert(String::new());
            }
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
    let days: BTreeMap<_, _> = [("a", 5), ("b", 7), ("c", 100)].map(|(key, n)| (key.to_owned(), Decimal::from(n).into())).into();
    let events: BTreeMap<_, _> = [("b", 1), ("c", 2)].map(|(key, n)| (key.to_owned(), Decimal::from(n).into())).into();
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
        observations.add(&Decimal::from(value).into());
    }
    for (method, expected) in
        [(Aggregate::Sum, "75"), (Aggregate::Count, "4"), (Aggregate::Average, "18.75"), (Aggregate::Median, "17.5"), (Aggregate::Minimum, "10"), (Aggregate::Maximum, "30")]
    {
        assert_eq!(observations.aggregate(method).map(|d| d.to_string()).as_deref(), Some(expected), "{method:?}");
    }
    assert_eq!(Observations::default().aggregate(Aggregate::Median), None);
    assert_eq!(Observations::default().aggregate(Aggregate::Average), None);
}

/// In the unit of most, whatever came first; what has another dimension is no number among the others.
#[test]
fn quantities_are_aggregated_in_one_unit() {
    let of = |amounts: &[(i64, &str)]| {
        let mut parts: Vec<Observations> = vec![Observations::default(); 2];
        for (at, (value, unit)) in amounts.iter().enumerate() {
            parts[at % 2].add(&Amount::of((*value).into(), unit));
        }
        let [mut first, second] = <[Observations; 2]>::try_from(parts).unwrap();
        first.merge(&second);
        let average = first.aggregate(Aggregate::Average).map(|average| average.to_string());
        (average.unwrap_or_default(), first.unit().map_or("", |unit| unit).to_owned(), first.count(), first.strays())
    };
    let told = |average: &str, unit: &str, count, strays| (average.to_owned(), unit.to_owned(), count, strays);
    assert_eq!(of(&[(12, "g/dL"), (120, "g/L"), (14, "g/dL")]), told("12.666666666667", "g/dL", 3, 0));
    assert_eq!(of(&[(120, "g/L"), (12, "g/dL")]), told("120", "g/L", 2, 0));
    assert_eq!(of(&[(12, "g/dL"), (120, "g/L")]), told("120", "g/L", 2, 0));
    assert_eq!(of(&[(12, "g/dL"), (7, "mmol/L"), (14, "g/dL"), (5, "1")]), told("13", "g/dL", 2, 2));
    assert_eq!(of(&[(12, "1"), (14, "")]), told("13", "", 2, 0));
    assert_eq!(of(&[(12, "stones"), (14, "stones")]), told("13", "stones", 2, 0));
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
    criteria.observed[3] = [("a", 3), ("b", 5), ("c", 9), ("d", 99)].map(|(key, n)| (key.to_owned(), Decimal::from(n).into())).into();
    let mut tallies = Tallies::new(4);
    tallies.add(&memberships(&shape, &criteria), None);
    let found = score(&shape, &tallies);
    assert_eq!((found.denominator, found.value), (Some(3.into()), Some(5.into())));
    // Of b nothing was observed: as CQL's aggregates leave nulls out, the number is one of two.
    criteria.observed[3].remove("b");
    let mut tallies = Tallies::new(4);
    tallies.add(&memberships(&shape, &criteria), None);
    let found = score(&shape, &tallies);
    assert_eq!((tallies.slots[1].scored, found.denominator, found.value), (3, Some(2.into()), Some(6.into())));
}

/// The average of nothing is no zero, neither above the line nor below.
#[test]
fn a_ratio_of_averages_of_nothing_has_no_score() {
    let mut shape = ratio();
    shape.slots[4].aggregate = Some(Aggregate::Average);
    shape.slots[5].aggregate = Some(Aggregate::Average);
    let mut criteria = Criteria::none(6);
    for holds in &mut criteria.holds[..4] {
        holds.insert("a".to_owned());
    }
    criteria.observed[4].insert("a".to_owned(), Decimal::from(5).into());
    let mut tallies = Tallies::new(6);
    tallies.add(&memberships(&shape, &criteria), None);
    let found = score(&shape, &tallies);
    assert_eq!((found.numerator, found.denominator, found.value), (None, Some(5.into()), None));
}

#[test]
fn bounds_say_what_the_blanks_could_do() {
    let mut tallies = Tallies::new(6);
    for criteria in ["110010", "110000", "1100?0", "1?0000"] {
        tallies.add(&memberships(&proportion(), &patient(criteria)), None);
    }
    // Who may be in the denominator, and not in the numerator, can lower the score and not raise it.
    let found = bounds(&proportion(), &tallies);
    assert_eq!(found, Some((Decimal::new(25, 2), divide(Decimal::TWO, 3.into()).unwrap())));
    assert_eq!((tallies.open, candidates(&proportion(), &tallies), summable_bounds(&proportion(), &tallies)), (2, Some(4), Some([(1, 4), (2, 3)])));
    // Three of whom nobody knows whether they are meant, and who are not in the numerator in any case: not one fulfils.
    let mut nobody = Tallies::new(6);
    (0..3).for_each(|_| nobody.add(&memberships(&proportion(), &patient("1?0000")), None));
    assert_eq!((bounds(&proportion(), &nobody), summable_bounds(&proportion(), &nobody)), (Some((Decimal::ZERO, Decimal::ZERO)), Some([(0, 3), (0, 0)])));
    // Of whom it cannot be told whether they are meant, or excluded, is in doubt too, and each once.
    for (criteria, range) in [
        ("?00000", None),         // whatever is true: not in the denominator
        ("?10010", Some((1, 1))), // in it, and in the numerator, or nowhere
        ("11?010", Some((1, 1))),
        ("11?0?0", Some((0, 1))),
        ("1100??", Some((0, 1))),
        ("1101?0", Some((1, 1))), // excepted unless in the numerator
        ("110?00", Some((0, 0))),
        ("110010", Some((1, 1))),
        ("1100!0", Some((0, 1))), // in the numerator by what could not be used
        ("11!010", Some((1, 1))),
        ("1!0000", Some((0, 0))),
    ] {
        let mut tallies = Tallies::new(6);
        tallies.add(&memberships(&proportion(), &patient(criteria)), None);
        let expected = (u64::from(criteria.contains(['?', '!'])), Some(1), range.map(|(low, high): (u64, u64)| (low.into(), high.into())));
        assert_eq!((tallies.open, candidates(&proportion(), &tallies), bounds(&proportion(), &tallies)), expected, "{criteria}");
    }
}

/// The example of an exception: 1 of 2 is fulfilled, and a third may be excepted. 0 of 3 is not possible.
#[test]
fn an_exception_in_doubt_lowers_no_bound_below_what_can_be() {
    let mut tallies = Tallies::new(6);
    for criteria in ["110010", "110000", "110?00"] {
        tallies.add(&memberships(&proportion(), &patient(criteria)), None);
    }
    assert_eq!(bounds(&proportion(), &tallies), Some((divide(Decimal::ONE, 3.into()).unwrap(), Decimal::new(5, 1))));
}

fn tallied(criteria: &[String]) -> Tallies {
    let mut tallies = Tallies::new(6);
    criteria.iter().for_each(|one| tallies.add(&memberships(&proportion(), &patient(one)), None));
    tallies
}

/// The lowest and the highest score over every way in which the blanks may be filled in.
fn tried(criteria: &[String]) -> Option<(Decimal, Decimal)> {
    let blanks = criteria.iter().flat_map(|one| one.chars()).filter(|mark| ['?', '!'].contains(mark)).count();
    let score_of = |truth: u32| {
        let mut bit = 0;
        let mut known = |mark: char| match mark {
            '?' | '!' => {
                bit += 1;
                if truth >> (bit - 1) & 1 == 1 { '1' } else { '0' }
            }
            mark => mark,
        };
        let filled: Vec<String> = criteria.iter().map(|one| one.chars().map(&mut known).collect()).collect();
        score(&proportion(), &tallied(&filled)).value
    };
    let values: BTreeSet<Decimal> = (0..1 << blanks).filter_map(score_of).collect();
    values.first().copied().zip(values.last().copied())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// No truth lies outside the bounds, and each bound is a truth.
    #[test]
    fn bounds_are_what_the_blanks_can_make_of_the_score(
        known in prop::collection::vec("1[01]{5}", 0..4),
        open in prop::collection::vec(prop::sample::select(vec!["1?0010", "?10000", "110?00", "11?010", "11?0?0", "1101?0", "1100??", "111?00", "1?0?10", "??0000", "1100!0", "11!0!0", "!10!?0"]), 0..5),
    ) {
        let all: Vec<String> = known.into_iter().chain(open.into_iter().map(str::to_owned)).collect();
        prop_assert_eq!(bounds(&proportion(), &tallied(&all)), tried(&all), "{:?}", all);
    }

    /// What a network adds up is what it would find in all patients at once: not a hair wider.
    #[test]
    fn sums_of_sites_are_the_bounds_of_all(sites in prop::collection::vec(prop::collection::vec("1[01?!]{5}", 1..3), 1..3)) {
        let all: Vec<String> = sites.concat();
        let ends = |patients: &Vec<String>| summable_bounds(&proportion(), &tallied(patients));
        if let (Some(ends), Some(bounds)) = (sites.iter().map(ends).collect::<Option<Vec<_>>>(), bounds(&proportion(), &tallied(&all))) {
            let sum = |end: usize| ends.iter().fold((0, 0), |sum, site| (sum.0 + site[end].0, sum.1 + site[end].1));
            let at = |end: usize, alone: Decimal| { let (numerator, denominator) = sum(end); divide(numerator.into(), denominator.into()).unwrap_or(alone) };
            prop_assert_eq!((at(0, Decimal::ONE), at(1, Decimal::ZERO)), bounds);
        }
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
