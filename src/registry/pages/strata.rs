//! Tables of strata: what was reported of each, added up where nobody is counted twice.

use std::collections::{BTreeMap, BTreeSet};

use super::chart;
use crate::registry::report::with_systems;
use crate::registry::series::{Point, Series};
use crate::registry::{GroupCard, MeasureCard, Unit};

/// A table of strata.
pub struct Strata {
    /// What they are strata of.
    pub name: String,
    /// Of which periods.
    pub periods: String,
    /// What the values are.
    pub column: &'static str,
    /// What the score is made of.
    pub sides: Vec<&'static str>,
    /// Whether the scores have an interval.
    pub has_interval: bool,
    /// One for each stratum.
    pub rows: Vec<Row>,
    /// Whether any row cannot tell of somebody.
    pub has_doubt: bool,
}

/// One stratum.
pub struct Row {
    /// Its name.
    pub stratum: String,
    /// What its score is made of.
    pub sides: [String; 2],
    /// Its score.
    pub value: String,
    /// The score's interval.
    pub interval: String,
    /// What cannot be told.
    pub doubt: chart::Told,
}

/// The strata of these series, and in a sentence or two what they are of: every period whose patients no other one counts too, else the
/// latest; of versions that can be compared with the newest, and complete where any is.
pub fn tables(card: &MeasureCard, shown: &[&Series]) -> (Vec<Strata>, String) {
    let all: Vec<(&str, &Point)> = shown.iter().flat_map(|series| series.points.iter().map(|point| (series.site.as_str(), point))).collect();
    let newest = card.newest(all.iter().map(|(_, point)| *point));
    let (mut kept, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, point)| newest.is_some_and(|newest| card.is_comparable(point, newest)));
    kept.retain(|(_, point)| !point.strata.is_empty());
    let lookback = newest.and_then(|newest| card.definitions.get(&newest.version)?.lookback_months);
    let adds_up = kept.iter().flat_map(|(_, point)| &point.strata).all(|stratum| stratum.numerator.is_some());
    let has_whole = kept.iter().any(|(_, point)| point.complete);
    let is_count = card.unit == Unit::Count;
    let of_patients = group_of(card, shown).is_some_and(|group| group.counts_patients);
    let of_one = lookback.is_some() || is_count || of_patients || !adds_up;
    if of_one {
        let latest = kept
            .iter()
            .filter(|(_, point)| point.complete || !has_whole)
            .map(|(_, point)| (&point.period_end, &point.period_start))
            .max();
        let latest = latest.map(|(end, start)| (start.clone(), end.clone()));
        kept.retain(|(_, point)| latest.as_ref().is_some_and(|(start, end)| (start, end) == (&point.period_start, &point.period_end)));
    }
    let partial = kept.iter().filter(|(_, point)| !point.complete).count();
    kept.retain(|(_, point)| point.complete || !has_whole);
    let periods = periods(&kept);
    let mut said = vec![format!("{periods}{}", sites(&kept, shown.len()))];
    match (partial, has_whole) {
        (0, _) => {}
        (_, false) => said.push("of partial data".to_owned()),
        (left, true) => said.push(format!("without {left} of partial data")),
    }
    let left_out: BTreeSet<String> = others.iter().filter_map(|(_, point)| Some(point.version_beside(newest?, false))).collect();
    if let Some(newest) = newest.filter(|_| !left_out.is_empty()) {
        let (newest, left_out) = (newest.version_text(), Vec::from_iter(left_out).join(", "));
        said.push(format!("of version {newest}: what was reported of {left_out} cannot be compared with it"));
    }
    let why = match (lookback, card.span()) {
        _ if !of_one => String::new(),
        (Some(months), span) => format!(" Each value counts patients of {months} months, and neighbours share most of them: so only the latest {span} is shown."),
        (None, span) if !adds_up => format!(" Scores that are no fractions have no sum: so only the latest {span} is shown."),
        (None, span) if is_count => format!(" Counts of two {span}s may be of the same, and have no sum: so only the latest {span} is shown."),
        (None, span) => format!(" Patients of one {span} may be those of another, so two have no sum: only the latest {span} is shown."),
    };
    (rows(card, &kept, &periods), format!("{}.{why}", said.join(", ")))
}

/// What the accepted definition says of the group that is shown; of one that it does not know, of its first.
fn group_of<'a>(card: &'a MeasureCard, shown: &[&Series]) -> Option<&'a GroupCard> {
    let key = &shown.first()?.group.key;
    card.groups().iter().find(|group| group.key == *key).or(card.groups().first())
}

/// `Jan 2026`, or `Jan 2026 to Sep 2026 together`.
fn periods(kept: &[(&str, &Point)]) -> String {
    let key = |(_, point): &&(&str, &Point)| (point.period_start.clone(), point.period_end.clone());
    let [first, last] = [kept.iter().min_by_key(key), kept.iter().max_by_key(key)].map(|found| found.map(|(_, point)| chart::period_name(point)).unwrap_or_default());
    if first == last { first } else { format!("{first} to {last} together") }
}

/// `, 2 of 3 sites`; of one alone nothing.
fn sites(kept: &[(&str, &Point)], all: usize) -> String {
    let found = kept.iter().map(|(site, _)| *site).collect::<BTreeSet<_>>().len();
    match all {
        1 => String::new(),
        all if all == found => format!(", {all} sites"),
        all => format!(", {found} of {all} sites"),
    }
}

fn rows(card: &MeasureCard, kept: &[(&str, &Point)], periods: &str) -> Vec<Strata> {
    let mut found: BTreeMap<(&str, &str, &[String]), Vec<Point>> = BTreeMap::new();
    for (point, stratum) in kept.iter().flat_map(|(_, point)| point.strata.iter().map(move |stratum| (point, stratum))) {
        found.entry((&stratum.stratifier, &stratum.stratum, &stratum.systems)).or_default().push(point.stratum(stratum));
    }
    let mut namesakes: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    found.keys().for_each(|(name, stratum, _)| *namesakes.entry((name, stratum)).or_default() += 1);
    let mut tables: Vec<Strata> = Vec::new();
    for ((name, stratum, systems), points) in found {
        let stratum = match namesakes.get(&(name, stratum)) {
            Some(1) | None => stratum.to_owned(),
            _ if systems.is_empty() => format!("{stratum} (system not told)"),
            _ => with_systems(stratum, systems),
        };
        if tables.last().is_none_or(|table| table.name != name) {
            let (name, periods) = (name.to_owned(), periods.to_owned());
            tables.push(Strata {
                name,
                periods,
                column: chart::column(&card.unit),
                sides: chart::sides(&card.unit),
                has_interval: chart::has_interval(card),
                rows: Vec::new(),
                has_doubt: false,
            });
        }
        if let Some(table) = tables.last_mut() {
            table.has_doubt |= points.iter().any(|point| point.doubt.is_some());
            table.rows.extend(row(card, &stratum, &points));
        }
    }
    tables
}

/// Of what was reported of one stratum; scores that are no fractions have no sum, but lie between two. Where more than half cannot be
/// told of all of it, it is not known, whatever is known of a part.
fn row(card: &MeasureCard, stratum: &str, points: &[Point]) -> Option<Row> {
    let sum = match points {
        [] => return None,
        [only] => only.clone(),
        [first, ..] => points.iter().fold(first.nothing_of(), |mut sum, point| {
            sum.add(point);
            sum
        }),
    };
    let mut values: Vec<f64> = points.iter().filter_map(|point| point.value(&card.unit)).collect();
    values.sort_by(f64::total_cmp);
    let value = match (sum.value(&card.unit), values.first(), values.last()) {
        _ if sum.is_unknown() => chart::score_text(card, &sum),
        (None, Some(low), Some(high)) if low < high => chart::range_text(card, (*low, *high)),
        (None, Some(value), _) => chart::value_text(card, *value),
        _ => chart::score_text(card, &sum),
    };
    Some(Row {
        stratum: stratum.to_owned(),
        sides: chart::sides_of(&sum),
        value,
        interval: chart::interval_text(card, &sum),
        doubt: chart::Told::of(card, &sum),
    })
}
