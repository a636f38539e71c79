//! Hand-made patients through each method; the guide's own examples.

use super::*;
use PopulationCode::*;
use population::{Slot, bounds};

fn slot(code: PopulationCode) -> Slot {
    Slot { code, of: None, aggregate: None }
}

fn proportion(weight: i64) -> Component {
    let slots = [InitialPopulation, Denominator, DenominatorExclusion, DenominatorException, Numerator].map(slot).to_vec();
    let shape = GroupShape { scoring: Scoring::Proportion, slots, composite: None };
    Component { measure: "m|1.0.0".into(), group: "g".into(), shape, weight: weight.into(), multiplier: 1, reversed: false, exists: false }
}

fn composite(method: CompositeScoring, components: Vec<Component>) -> GroupShape {
    let composite = Composite { method, components };
    let populations = composite.populations();
    let place = |code| populations.iter().position(|(own, _)| *own == code);
    let slot = |(code, observed): &(PopulationCode, Option<(PopulationCode, Aggregate)>)| Slot {
        code: *code,
        of: observed.and_then(|(of, _)| place(of)),
        aggregate: observed.map(|(_, aggregate)| aggregate),
    };
    GroupShape { scoring: Scoring::Composite, slots: populations.iter().map(slot).collect(), composite: Some(composite) }
}

/// A patient in one component: in the numerator, only in the denominator, excluded, excepted, in the denominator and perhaps
/// in the numerator, perhaps in the denominator, or not in it.
fn stand(component: &Component, mark: char) -> Vec<Membership> {
    let (holds, unknown) = match mark {
        'T' => ("11001", ""),
        'F' => ("11000", ""),
        'x' => ("11101", ""),
        'e' => ("11010", ""),
        '?' => ("11000", "    ?"),
        'd' => ("10000", " ?"),
        _ => ("00000", ""),
    };
    let mut criteria = Criteria::none(5);
    holds
        .chars()
        .zip(&mut criteria.holds)
        .filter(|(mark, _)| *mark == '1')
        .for_each(|(_, holds)| holds.extend([Member::new()]));
    let doubts = unknown.chars().zip(&mut criteria.unknown).filter(|(mark, _)| *mark == '?');
    doubts.for_each(|(_, unknown)| unknown.extend([(Member::new(), "not-documented".into())]));
    population::memberships(&component.shape, &criteria)
}

/// One patient, a mark per component.
fn patient(shape: &GroupShape, marks: &str) -> Vec<Membership> {
    let components = &shape.composite.as_ref().unwrap().components;
    assert_eq!(marks.chars().count(), components.len());
    let found: Vec<Vec<Membership>> = components.iter().zip(marks.chars()).map(|(component, mark)| stand(component, mark)).collect();
    memberships(shape, &found.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn sum<'a>(shape: &GroupShape, patients: impl IntoIterator<Item = &'a str>) -> Tallies {
    let mut all = Tallies::default();
    for found in patients.into_iter().map(|marks| patient(shape, marks)) {
        let mut one = Tallies::new(found.len());
        one.add(&found, None);
        all.merge(&one);
    }
    all
}

/// `3/6 0.5`, or the score alone where it is no fraction; `-` for none.
fn shown<'a>(shape: &GroupShape, patients: impl IntoIterator<Item = &'a str>) -> String {
    let found = score(shape, &sum(shape, patients));
    let value = found.value.map_or("-".to_owned(), |value| value.to_string());
    match (found.numerator, found.denominator) {
        (Some(numerator), Some(denominator)) => format!("{numerator}/{denominator} {value}"),
        _ => value,
    }
}

/// Two components; in the weighted composite the first weighs 3, the second 1.
#[test]
fn each_method_scores_by_hand() {
    let shape = |method| composite(method, vec![proportion(3), proportion(1)]);
    let shapes = CompositeScoring::ALL.map(shape);
    let table = [
        // marks  opportunity  all or nothing  linear  weighted
        ("TT", ["2/2 1", "1/1 1", "1", "1"]),
        ("TF", ["1/2 0.5", "0/1 0", "0.5", "0.75"]),
        ("FT", ["1/2 0.5", "0/1 0", "0.5", "0.25"]),
        ("T-", ["1/1 1", "1/1 1", "1", "-"]), // what is not meant for someone is not asked, but has no score to be weighed
        ("-F", ["0/1 0", "0/1 0", "0", "-"]),
        ("--", ["0/0 -", "0/0 -", "-", "-"]),
        ("xT", ["1/1 1", "0/0 -", "1", "-"]), // an exclusion from one excludes from all or nothing
        ("xx", ["0/0 -", "0/0 -", "-", "-"]),
        ("eT", ["1/1 1", "1/1 1", "1", "-"]), // an exception does not count for who fulfils the rest
        ("eF", ["0/1 0", "0/0 -", "0", "-"]), // and excepts otherwise
        ("ee", ["0/0 -", "0/0 -", "-", "-"]),
        ("?T", ["1/2 0.5", "0/1 0", "0.5", "0.25"]), // unknown is false
        ("dT", ["1/1 1", "1/1 1", "1", "-"]),
    ];
    for (marks, expected) in table {
        let found = shapes.each_ref().map(|shape| shown(shape, [marks]));
        assert_eq!(found, expected, "{marks}");
    }
    let all: Vec<&str> = table.iter().map(|(marks, _)| *marks).collect();
    // Opportunity: 9 of 14 cases. All or nothing: TT T- eT dT of TT TF FT T- -F eT ?T dT. Linear: 6.5 over the ten who have a
    // share. Weighted: 3 of 5 in the first, 6 of 9 in the second, (3 * 0.6 + 0.666…) / 4.
    let expected = ["9/14 0.642857142857", "4/8 0.5", "0.65", "0.616666666667"];
    assert_eq!(shapes.each_ref().map(|shape| shown(shape, all.iter().copied())), expected);
    let backwards = shapes.each_ref().map(|shape| sum(shape, all.iter().rev().copied()));
    assert_eq!(backwards, shapes.each_ref().map(|shape| sum(shape, all.iter().copied())));
}

/// "Linear Combination scoring vs. Opportunity scoring": ten patients, ten measures; not in a denominator is `-`.
#[test]
fn the_guides_table_of_ten_patients_and_ten_measures() {
    let rows = ["TTTTFTTFTT", "TTT-FT-TFT", "TTT-TT-FTT", "FTT-TT-T-T", "FTT-T--F-F", "TTF-T--T-F", "---TT-TF-T", "FTTTTFTT-T", "FTFFFFTTTT", "TTTTFTTTTT"];
    let patients: Vec<String> = (0..10).map(|at| rows.iter().map(|row| row.as_bytes()[at] as char).collect()).collect();
    let shape = |method| composite(method, (0..10).map(|_| proportion(1)).collect());
    let found = |method| shown(&shape(method), patients.iter().map(String::as_str));
    assert_eq!(found(CompositeScoring::Opportunity), "59/79 0.746835443038");
    assert_eq!(found(CompositeScoring::Linear), "0.764761904762");
    assert_eq!(found(CompositeScoring::AllOrNothing), "2/10 0.2", "B and G");
    let shares: Vec<String> = patients.iter().map(|marks| shown(&shape(CompositeScoring::Linear), [marks.as_str()])).collect();
    assert_eq!(shares, ["0.555555555556", "1", "0.777777777778", "0.8", "0.6", "0.714285714286", "1", "0.6", "0.8", "0.8"]);
}

/// "Improvement Notation": 80, 80 and 20 of 100, where fewer are better in the third.
#[test]
fn a_component_that_improves_the_other_way_is_turned_round() {
    let patients: Vec<String> = (0..100).map(|at| format!("{0}{0}{1}", if at < 80 { 'T' } else { 'F' }, if at >= 80 { 'T' } else { 'F' })).collect();
    for (method, expected) in CompositeScoring::ALL.into_iter().zip(["240/300 0.8", "80/100 0.8", "0.8", "0.8"]) {
        let shape = composite(method, vec![proportion(1), proportion(1), Component { reversed: true, ..proportion(1) }]);
        assert_eq!(shown(&shape, patients.iter().map(String::as_str)), expected, "{method:?}");
    }
    // In doubt about the third of three, where not to be in the numerator is what counts.
    for method in [CompositeScoring::Opportunity, CompositeScoring::Linear] {
        let shape = composite(method, vec![proportion(1), proportion(1), Component { reversed: true, ..proportion(1) }]);
        let tallies = sum(&shape, ["TF?"]);
        assert_eq!((bounds(&shape, &tallies), tallies.open), (Some((third(1), third(2))), 1), "{method:?}");
    }
}

fn third(of: i64) -> Decimal {
    population::divide(of.into(), 3.into()).unwrap()
}

#[test]
fn a_composite_that_counts_cases_or_shares_has_bounds() {
    let found = |method, patients: &[&str]| {
        let shape = composite(method, vec![proportion(1), proportion(1)]);
        let tallies = sum(&shape, patients.iter().copied());
        (bounds(&shape, &tallies), tallies.open, population::candidates(&shape, &tallies))
    };
    let half = Decimal::new(5, 1);
    assert_eq!(found(CompositeScoring::Opportunity, &["T?", "TF"]), (Some((half, Decimal::new(75, 2))), 1, Some(4)));
    assert_eq!(found(CompositeScoring::Linear, &["T?", "TF"]), (Some((half, Decimal::new(75, 2))), 1, Some(2)));
    // Perhaps in the second denominator, and not fulfilled there: one share between a half and one.
    assert_eq!(found(CompositeScoring::Linear, &["Td", "TF", "TT"]), (Some((third(2), population::divide(Decimal::new(25, 1), 3.into()).unwrap())), 1, Some(3)));
    // In no denominator for certain: it may lower the average, and may not be there at all.
    assert_eq!(found(CompositeScoring::Linear, &["-d", "TF"]), (Some((Decimal::new(25, 2), half)), 1, Some(2)));
    let (none, all) = (Decimal::ZERO, Decimal::ONE);
    // All or nothing: the first fulfils all or not; the second does not in any case.
    assert_eq!(found(CompositeScoring::AllOrNothing, &["T?", "TF"]), (Some((none, half)), 1, Some(2)));
    // Of who fails one nothing is in doubt; who may be meant by the second too stays in, and may be excluded by it.
    assert_eq!(found(CompositeScoring::AllOrNothing, &["F?", "TT"]), (Some((half, half)), 0, Some(2)));
    assert_eq!(found(CompositeScoring::AllOrNothing, &["Fd", "TT"]).0, Some((half, all)));
    assert_eq!(found(CompositeScoring::AllOrNothing, &["x?", "TT"]).0, Some((all, all)));
    // Weighted: the first component has 2 of 2, the second 0 or 1 of 2.
    assert_eq!(found(CompositeScoring::Weighted, &["T?", "TF"]).0, Some((half, Decimal::new(75, 2))));
    // There is a score only if the patient is meant by the second too; it is 0 there then.
    assert_eq!(found(CompositeScoring::Weighted, &["Td"]).0, Some((half, half)));
}

/// In each way in which blanks can be filled the score lies within the bounds, and the bounds of who is known are the score.
#[test]
fn a_score_lies_within_its_bounds_however_the_blanks_are_filled() {
    const MARKS: [char; 7] = ['T', 'F', 'x', 'e', '?', 'd', '-'];
    let fillings = |mark: char| match mark {
        '?' => vec!['T', 'F'],
        'd' => vec!['F', '-'],
        known => vec![known],
    };
    for method in CompositeScoring::ALL {
        let reversed = Component { reversed: true, ..proportion(1) };
        for shape in [composite(method, vec![proportion(3), proportion(1)]), composite(method, vec![proportion(3), reversed])] {
            let first = MARKS.into_iter().flat_map(|one| MARKS.map(|other| [one, other]));
            for marks in first.flat_map(|[one, other]| ["TF", "?T", "d-", "eF"].map(|second| [one, other].into_iter().chain(second.chars()).collect::<Vec<char>>())) {
                let pairs = |marks: &[char]| marks.chunks(2).map(|pair| pair.iter().collect::<String>()).collect::<Vec<_>>();
                let value = |marks: &[char]| sum(&shape, pairs(marks).iter().map(String::as_str));
                let tallies = value(&marks);
                let found = bounds(&shape, &tallies);
                let ways = marks.iter().fold(vec![vec![]], |ways: Vec<Vec<char>>, mark| {
                    let with = |way: &Vec<char>| fillings(*mark).into_iter().map(|filled| way.iter().copied().chain([filled]).collect()).collect::<Vec<_>>();
                    ways.iter().flat_map(with).collect()
                });
                let scores: Vec<Decimal> = ways.iter().filter_map(|way| score(&shape, &value(way)).value).collect();
                let (low, high) = (scores.iter().min().copied(), scores.iter().max().copied());
                match found {
                    Some((least, most)) => assert!(low.is_none_or(|low| least <= low) && high.is_none_or(|high| most >= high), "{method:?} {marks:?}: {found:?} {low:?} {high:?}"),
                    None => assert_eq!(low, None, "{method:?} {marks:?}"),
                }
                if !marks.iter().any(|mark| "?d".contains(*mark)) {
                    assert_eq!(found, low.zip(high), "{method:?} {marks:?}");
                }
            }
        }
    }
}

#[test]
fn for_whom_the_record_cannot_tell_is_said() {
    let shape = composite(CompositeScoring::AllOrNothing, vec![proportion(1), proportion(1)]);
    let doubts = |marks: &str| {
        let found = patient(&shape, marks);
        let of = |code| shape.slots.iter().zip(&found).find(|(slot, _)| slot.code == code).map_or(0, |(_, found)| found.unknown.len());
        [of(Denominator), of(Numerator)]
    };
    // Denominator, numerator: one failure decides, whatever the blanks say.
    for (marks, expected) in [("T?", [0, 1]), ("??", [0, 1]), ("F?", [0, 0]), ("x?", [0, 0]), ("-d", [1, 0]), ("Td", [0, 0])] {
        assert_eq!(doubts(marks), expected, "{marks}");
    }
}

fn events(sets: [&str; 5]) -> Vec<Membership> {
    let mut criteria = Criteria::none(5);
    sets.iter().zip(&mut criteria.holds).for_each(|(keys, holds)| holds.extend(keys.chars().map(String::from)));
    population::memberships(&proportion(1).shape, &criteria)
}

/// Initial population, denominator, exclusion, exception, numerator: of a, b and c.
#[test]
fn of_events_a_patient_has_one_or_none_and_a_composite_of_events_counts_them() {
    let (first, second) = (events(["abc", "abc", "c", "", "a"]), events(["ab", "ab", "", "", "ab"]));
    for (method, patients, of_events) in [
        (CompositeScoring::Opportunity, "1/1 1", "3/4 0.75"), // the first component excludes the patient, but only the event c
        (CompositeScoring::AllOrNothing, "0/0 -", "1/2 0.5"),
        (CompositeScoring::Linear, "1", "0.75"),
    ] {
        for (exists, expected) in [(true, patients), (false, of_events)] {
            let shape = composite(method, vec![Component { exists, ..proportion(1) }, Component { exists, ..proportion(1) }]);
            let found = memberships(&shape, &[&first, &second]);
            let mut tallies = Tallies::new(found.len());
            tallies.add(&found, None);
            let value = score(&shape, &tallies);
            let text = match (value.numerator, value.denominator, value.value) {
                (Some(n), Some(d), value) => format!("{n}/{d} {}", value.map_or("-".to_owned(), |value| value.to_string())),
                (.., value) => value.unwrap_or_default().to_string(),
            };
            assert_eq!(text, expected, "{method:?}, exists: {exists}");
        }
    }
}

/// A ratio's numerator has an initial population of its own: in it alone, nothing was asked and nothing is fulfilled.
#[test]
fn of_a_ratio_only_who_is_in_the_denominator_counts() {
    let slots = vec![slot(InitialPopulation), slot(InitialPopulation), Slot { of: Some(0), ..slot(Denominator) }, Slot { of: Some(1), ..slot(Numerator) }];
    let shape = GroupShape { scoring: Scoring::Ratio, slots, composite: None };
    let ratio = Component { shape: shape.clone(), ..proportion(1) };
    let composite = composite(CompositeScoring::Opportunity, vec![ratio, proportion(1)]);
    let one = |holds: &str| {
        let mut criteria = Criteria::none(4);
        holds
            .chars()
            .zip(&mut criteria.holds)
            .filter(|(mark, _)| *mark == '1')
            .for_each(|(_, holds)| holds.extend([Member::new()]));
        let found = memberships(&composite, &[&population::memberships(&shape, &criteria), &stand(&proportion(1), '-')]);
        found.iter().map(|one| one.scored.len().to_string()).collect::<String>()
    };
    // Initial population, denominator, exclusion, exception, numerator.
    assert_eq!([one("0101"), one("1010"), one("1111")], ["10000", "11000", "11001"]);
}

/// Nobody is meant by the third component: an average of the two others is not this composite's. Of no weight, it takes no part.
#[test]
fn a_weighted_composite_has_a_score_where_all_its_components_have_one() {
    for (weight, expected) in [(5, None), (0, population::divide(Decimal::ONE, Decimal::from(3)))] {
        let shape = composite(CompositeScoring::Weighted, vec![proportion(2), proportion(1), proportion(weight)]);
        let tallies = sum(&shape, ["TF-", "FF-"]);
        assert_eq!(component_scores(shape.composite.as_ref().unwrap(), &tallies), [Some(Decimal::new(5, 1)), Some(Decimal::ZERO), None]);
        assert_eq!((score(&shape, &tallies).value, bounds(&shape, &tallies).map(|(low, _)| low)), (expected, expected), "{weight}");
        assert_eq!(score(&shape, &Tallies::default()).value, None);
    }
}

#[test]
fn a_rate_counts_in_a_weighted_score_as_it_is_reported() {
    let slots = [InitialPopulation, Denominator, DenominatorExclusion, DenominatorException, Numerator].map(slot).to_vec();
    let shape = GroupShape { scoring: Scoring::Ratio, slots, composite: None };
    let shape = composite(CompositeScoring::Weighted, vec![Component { shape, multiplier: 1000, ..proportion(1) }, proportion(1)]);
    assert_eq!(shown(&shape, ["TT", "F-"]), "250.5");
}
