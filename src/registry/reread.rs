//! What no step of the schema can say in SQL: what was not kept of a report is read again from its bytes, which are.

use rusqlite::{Transaction, params};

use super::report::{self, Reading, Stratum};
use super::{series, strict_json};

/// Adds to every reading of whom it is, what it is made of and by what it was counted, to its strata their scores, and to a cohort its count; its other numbers stay. A report that is gone or cannot be
/// read is told by `registry verify`.
pub(super) fn read_again(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut revisions = transaction.prepare("SELECT r.id, p.body FROM revision r JOIN part p ON p.site = r.site AND p.sha256 = r.sha256 ORDER BY r.id")?;
    let mut add = transaction
        .prepare("UPDATE reading SET observed = ?3, strata = ?4, made_of = ?5, numerator = coalesce(numerator, ?6), counted_by = ?7 WHERE revision = ?1 AND place = ?2")?;
    let mut rows = revisions.query([])?;
    while let Some(row) = rows.next()? {
        let (revision, body): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let Ok(report) = strict_json::read(&body) else { continue };
        let read = report::readings(&report, &mut Vec::new(), None);
        for (place, kept) in series::readings(transaction, revision)?.into_iter().enumerate() {
            // Of several groups the first was kept alone, without its name, before there was a place for all.
            let Some(found) = read.iter().find(|found| found.group.key == kept.group.key).or(read.first()) else { continue };
            let observed = found.observed.and_then(|observed| serde_json::to_string(&observed).ok());
            let made_of = (!found.made_of.is_empty()).then(|| serde_json::to_string(&found.made_of).unwrap_or_default());
            let count = found.numerator.filter(|_| found.denominator.is_none()).map(|count| count.to_string());
            add.execute(params![
                revision,
                place as i64,
                observed,
                serde_json::to_string(&strata(kept, found)).unwrap_or_default(),
                made_of,
                count,
                serde_json::to_string(&found.counted_by).ok()
            ])?;
        }
    }
    Ok(())
}

/// The strata that are kept, with what of them was not.
fn strata(kept: Reading, found: &Reading) -> Vec<Stratum> {
    let named = |stratum: &Stratum| found.strata.iter().find(|found| (&found.stratifier, &found.stratum) == (&stratum.stratifier, &stratum.stratum));
    let whole = |stratum: Stratum| match named(&stratum) {
        Some(Stratum { score, observed, numerator, denominator, .. }) => {
            let count = numerator.filter(|_| denominator.is_none());
            Stratum { score: *score, observed: *observed, numerator: stratum.numerator.or(count), ..stratum }
        }
        None => stratum,
    };
    kept.strata.into_iter().map(whole).collect()
}
