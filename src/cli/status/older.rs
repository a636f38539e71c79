//! Periods that are older than a night's months and stand as they were counted before the mapping or the measure was corrected.

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::{Span, Timestamp};
use serde::Serialize;

use crate::diagnostic::counted;
use crate::outbox::{CountedBy, ReportKey};

/// Periods of one measure.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Older {
    measure: String,
    /// First day of the first.
    from: String,
    /// Last day of the last.
    to: String,
    reports: usize,
    /// What they were counted by that is another than of the newest report.
    other: Vec<&'static str>,
}

/// Of reports by measure and period those that are not counted as the newest of their measure, if it is one of these.
pub fn of(standing: &[(ReportKey, CountedBy)], measures: &BTreeSet<String>) -> Vec<Older> {
    let older = |reports: &[(ReportKey, CountedBy)]| {
        let (newest, by) = reports.iter().max_by_key(|(key, _)| &key.period_end)?;
        let other = |(key, own): &(ReportKey, CountedBy)| own.other_than(by, key.version == newest.version);
        let others: Vec<&(ReportKey, CountedBy)> = reports.iter().filter(|one| !other(one).is_empty()).collect();
        Some(Older {
            measure: newest.measure.clone(),
            from: others.iter().map(|(key, _)| key.period_start.clone()).min()?,
            to: others.iter().map(|(key, _)| key.period_end.clone()).max()?,
            reports: others.len(),
            other: others.iter().flat_map(|one| other(one)).collect::<BTreeSet<_>>().into_iter().collect(),
        })
    };
    let by_measure = standing.chunk_by(|(a, _), (b, _)| a.measure == b.measure);
    by_measure.filter_map(older).filter(|older| measures.contains(&older.measure)).collect()
}

/// The night that counts them again: one of so many months, from the oldest on, so that no month before it is reported.
pub fn command(older: &[Older], months: u32, now: Timestamp) -> Option<String> {
    let oldest: Date = older.iter().map(|older| &older.from).min()?.get(..10)?.parse().ok()?;
    let after = oldest.first_of_month().checked_add(Span::new().months(months)).ok()?;
    let as_of = format!("{after}T12:00:00Z");
    let is_over = as_of.parse::<Timestamp>().is_ok_and(|at| at <= now);
    Some(if is_over { format!("watershed run --once --as-of {as_of}") } else { "watershed run --once".to_owned() })
}

/// Both for people; nothing where there are none.
pub fn as_text(older: &[Older], command: Option<&str>) -> String {
    let Some(command) = command else { return String::new() };
    let line = |older: &Older| {
        let name = older.measure.rsplit('/').next().unwrap_or_default();
        format!("  {name}, {} to {}: {} (other {})\n", older.from, older.to, counted(older.reports, "report"), older.other.join(", "))
    };
    let lines: String = older.iter().map(line).collect();
    format!(
        "counted otherwise than the newest report, and older than the months of a night:\n{lines}  `{command}` counts them again, by today's rules and of what the EHR says now\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_night_that_counts_again_begins_with_the_oldest() {
        let report = |measure: &str, month: u32, version: &str, rules: &str| {
            let part = |url: &str, kind: &str, value: &str| json!({ "url": url, kind: value });
            let parts = [part("kind", "valueCode", "mapping-rules"), part("name", "valueString", "ours"), part("version", "valueString", rules)];
            let by = CountedBy::of(&json!({ "extension": [{ "url": "http://x.example/lineage", "extension": parts }] }));
            let key = ReportKey {
                measure: format!("http://x.example/{measure}"),
                version: version.into(),
                period_start: format!("2025-{month:02}-01"),
                period_end: format!("2025-{month:02}-28"),
            };
            (key, by)
        };
        let standing = [
            report("a", 1, "1", "r1"),
            report("a", 2, "1", "r1"),
            report("a", 3, "1", "r2"),
            report("b", 2, "1", "r2"),
            report("b", 3, "2", "r2"),
            report("gone", 1, "1", "r1"),
            report("gone", 2, "1", "r2"),
        ];
        let found = of(&standing, &["a", "b"].map(|name| format!("http://x.example/{name}")).into());
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let asked = command(&found, 4, now);
        assert_eq!(
            as_text(&found, asked.as_deref()),
            "counted otherwise than the newest report, and older than the months of a night:\n  \
             a, 2025-01-01 to 2025-02-28: 2 reports (other mapping)\n  b, 2025-02-01 to 2025-02-28: 1 report (other version)\n  \
             `watershed run --once --as-of 2025-05-01T12:00:00Z` counts them again, by today's rules and of what the EHR says now\n"
        );
        assert_eq!(command(&found, 24, now).as_deref(), Some("watershed run --once"));
        assert_eq!((command(&[], 4, now), as_text(&[], None)), (None, String::new()));
    }
}
