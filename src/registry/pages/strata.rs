//! Tables of strata: what was reported of each, added up where it can be.

use std::collections::{BTreeMap, BTreeSet};

use super::{chart, newest};
use crate::registry::MeasureCard;
use crate::registry::series::Point;

/// A table of strata.
pub struct Strata {
    /// What they are strata of.
    pub name: String,
    /// What the values are.
    pub column: &'static str,
    /// What the score is made of.
    pub sides: [&'static str; 2],
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

/// Sums by stratum, over every site and month given whose version can be compared with the newest of them; and in words what that
/// leaves out.
pub fn tables(card: &MeasureCard, points: &[&Point]) -> (Vec<Strata>, String) {
    let newest = newest(card, points.iter().copied());
    let (pooled, others): (Vec<&Point>, Vec<&Point>) = points.iter().partition(|point| card.is_comparable(&point.version, newest));
    let left_out: BTreeSet<&str> = others.iter().map(|point| point.version.as_str()).collect();
    let left_out = Vec::from_iter(left_out).join(", ");
    let said = if left_out.is_empty() { left_out } else { format!("of version {newest}: what was reported of {left_out} cannot be compared with it") };
    let mut found: BTreeMap<(&str, &str), Vec<Point>> = BTreeMap::new();
    for (point, stratum) in pooled.iter().flat_map(|point| point.strata.iter().map(move |stratum| (point, stratum))) {
        found.entry((&stratum.stratifier, &stratum.stratum)).or_default().push(point.stratum(stratum));
    }
    let mut tables: Vec<Strata> = Vec::new();
    for ((name, stratum), points) in found {
        if tables.last().is_none_or(|table| table.name != name) {
            tables.push(Strata { name: name.to_owned(), column: chart::column(&card.unit), sides: chart::sides(&card.unit), rows: Vec::new(), has_doubt: false });
        }
        if let Some(table) = tables.last_mut() {
            table.has_doubt |= points.iter().any(|point| point.doubt.is_some());
            table.rows.extend(row(card, stratum, &points));
        }
    }
    (tables, said)
}

/// Of what was reported of one stratum; scores that are no fractions have no sum, but lie between two.
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
