//! Numbers that another system has counted: rows of an import, each of one period and of no patient, as sums of their measure.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::Value;

use super::Setup;
use super::waits::Waits;
use crate::diagnostic::counted;
use crate::feed::{ReportKey, Withdrawal};
use crate::measure::definition::{Group, Interval};
use crate::measure::population::Tallies;
use crate::measure::result::{GroupPartial, Partial};
use crate::measure::{Measure, Period};
use crate::source::import::{Import, RESOURCE_TYPE, TAG};
use crate::store::runs::ReportFindings;

/// Spans of periods without numbers that are named.
const SPANS_SHOWN: usize = 12;

/// The row that a report's numbers are of: its import, and the SHA-256 of the file that brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Name of the import.
    pub import: String,
    /// Digest of the file.
    pub file: String,
}

/// The sums of each measure that is counted elsewhere, by its place and that of the period; a period without a row has none.
pub fn sums(setup: &Setup, months: &[Period], shared: &[Vec<u8>]) -> BTreeMap<(usize, usize), (Partial, Origin)> {
    let rows: Vec<(Value, Origin)> = shared.iter().filter_map(|line| row(line)).collect();
    let mut found = BTreeMap::new();
    for (place, measure) in setup.measures.iter().enumerate().filter(|(_, measure)| measure.definition.is_counted_elsewhere()) {
        for (at, period) in measure.definition.period.periods(months).iter().enumerate() {
            let own = [("/measure", measure.definition.url.value.clone()), ("/period/start", period.start.to_string()), ("/period/end", period.end.to_string())];
            let is_own = |row: &Value| own.iter().all(|(pointer, text)| row.pointer(pointer).and_then(Value::as_str) == Some(text));
            let of_period = rows.iter().find(|(row, _)| is_own(row));
            found.extend(of_period.map(|(row, origin)| ((place, at), (partial(measure, row), origin.clone()))));
        }
    }
    found
}

/// The import whose rows they are: nothing else that is missing could change them.
pub fn waits(setup: &Setup, measure: &Measure) -> Waits {
    let own = |import: &&Import| import.series.as_ref().is_some_and(|counted| counted.url == measure.definition.url.value);
    Waits::ForRows(setup.source.tuning.imports.iter().find(own).map(Import::query))
}

/// A stored row of an import that is no patient's.
fn row(line: &[u8]) -> Option<(Value, Origin)> {
    // Of all that is of no patient few are such rows.
    line.starts_with(format!("{{\"resourceType\":\"{RESOURCE_TYPE}\"").as_bytes()).then_some(())?;
    let row: Value = serde_json::from_slice(line).ok()?;
    let text = |pointer: &str| row.pointer(pointer).and_then(Value::as_str);
    let import = text("/meta/tag/0/code").filter(|_| text("/meta/tag/0/system") == Some(TAG))?.to_owned();
    let file = text("/meta/source")?.strip_prefix(TAG)?.rsplit(':').next()?.to_owned();
    Some((row, Origin { import, file }))
}

fn partial(measure: &Measure, row: &Value) -> Partial {
    let populations = row.pointer("/group/0/population").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let number = |id: &str| -> Option<Decimal> {
        let population = populations.iter().find(|population| population.get("id").and_then(Value::as_str) == Some(id))?;
        let number = population.get("count").or_else(|| population.pointer("/extension/0/valueQuantity/value"))?;
        number.to_string().parse().ok()
    };
    let group = |group: &Group| {
        let numbers: Vec<Option<Decimal>> = group.populations.iter().map(|population| number(population.id())).collect();
        GroupPartial { all: Tallies::given(&group.shape(measure.definition.scoring), &numbers), strata: Vec::new() }
    };
    Partial { groups: measure.groups.iter().map(group).collect(), ..Partial::default() }
}

/// What is said once of the periods without numbers, oldest first.
pub fn without_numbers(measure: &Measure, periods: &[Period]) -> Option<ReportFindings> {
    let (first, last) = (periods.first()?, periods.last()?);
    let mut spans: Vec<(&Period, &Period)> = Vec::new();
    for period in periods {
        match spans.last_mut() {
            Some((_, last)) if last.end.tomorrow().is_ok_and(|next| next == period.start) => *last = period,
            _ => spans.push((period, period)),
        }
    }
    let name = |period: &Period| name(period, measure.definition.period);
    let shown = |(first, last): &(&Period, &Period)| if first == last { name(first) } else { format!("{} to {}", name(first), name(last)) };
    let names: Vec<String> = spans.iter().take(SPANS_SHOWN).map(shown).collect();
    let more = if spans.len() > SPANS_SHOWN { ", …" } else { "" };
    let of = counted(periods.len() as u64, measure.definition.period.word());
    let findings = format!("counted elsewhere, and no row of an import gives numbers of {of}, of which there is no report: {}{more}", names.join(", "));
    Some(ReportFindings { period_start: first.start.to_string(), period_end: last.end.to_string(), findings, ..of_measure(measure) })
}

fn of_measure(measure: &Measure) -> ReportFindings {
    let definition = &measure.definition;
    ReportFindings {
        measure: definition.url.value.clone(),
        version: definition.version.value.clone(),
        period_start: String::new(),
        period_end: String::new(),
        findings: String::new(),
    }
}

fn name(period: &Period, length: Interval) -> String {
    let (year, month) = (period.start.year(), period.start.month());
    match length {
        Interval::Month => format!("{year}-{month:02}"),
        Interval::Quarter => format!("{year}-Q{}", (month - 1) / 3 + 1),
        Interval::Year => year.to_string(),
    }
}

/// What was reported of a period is not true any more, if it was: its row is gone.
pub fn withdrawal(measure: &Measure, period: &Period) -> Withdrawal {
    let ReportFindings { measure, version, .. } = of_measure(measure);
    let key = ReportKey { measure, version, period_start: period.start.to_string(), period_end: period.end.to_string() };
    Withdrawal { key, replaces: String::new(), reason: "the system that counts it has no numbers of this period any more".to_owned() }
}
