//! What no step of the schema can say in SQL: what was not kept of a report is read again from its bytes, which are.

use rusqlite::{Transaction, params};

use super::report::{self, Reading, Stratum};
use super::{series, strict_json};

/// Adds to every reading of whom it is, what it is made of and by what it was counted, to its strata their scores and systems, and to a cohort
/// its count; its other numbers stay. A report that is gone or cannot be read is told by `registry verify`.
pub(super) fn read_again(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut revisions = transaction.prepare("SELECT r.id, p.body FROM revision r JOIN part p ON p.site = r.site AND p.sha256 = r.sha256 ORDER BY r.id")?;
    let mut add = transaction.prepare(
        "UPDATE reading SET observed = ?3, strata = ?4, made_of = ?5, numerator = coalesce(numerator, ?6), counted_by = ?7, logic = ?8 WHERE revision = ?1 AND place = ?2",
    )?;
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
            let logic = (!found.logic.is_empty()).then(|| serde_json::to_string(&found.logic).unwrap_or_default());
            let counted_by = serde_json::to_string(&found.counted_by).ok();
            let strata = serde_json::to_string(&strata(kept, found)).unwrap_or_default();
            add.execute(params![revision, place as i64, observed, strata, made_of, count, counted_by, logic])?;
        }
    }
    Ok(())
}

/// The strata that are kept, in the order of the report, with what of them was not.
fn strata(kept: Reading, found: &Reading) -> Vec<Stratum> {
    if kept.strata.len() != found.strata.len() {
        return kept.strata;
    }
    let whole = |(stratum, found): (Stratum, &Stratum)| {
        let Stratum { stratum: name, systems, score, observed, numerator, denominator, .. } = found.clone();
        let count = numerator.filter(|_| denominator.is_none());
        Stratum { stratum: name, systems, score, observed, numerator: stratum.numerator.or(count), ..stratum }
    };
    kept.strata.into_iter().zip(&found.strata).map(whole).collect()
}
