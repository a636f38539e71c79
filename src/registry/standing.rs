//! What the registry holds of one site, told to that site alone: for an adapter that lost its state and must go on from here.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::MeasureCard;
use super::store::{Site, time};
use crate::diagnostic::counted;
use crate::feed::{Accepted, Current, Head, ReportKey, Standing};

/// Characters of a feed's identity that people are shown.
const SHOWN_CHARS: usize = 12;

/// Everything that the site's next feed must follow, and the measures that it may report.
pub(super) fn standing(connection: &Connection, site: &Site, cards: &[MeasureCard]) -> rusqlite::Result<Standing> {
    let head = connection
        .prepare_cached("SELECT feed, manifest, settled_at, receipt FROM feed WHERE site = ?1 AND manifest_sha256 = ?2 AND state = 'committed'")?
        .query_row(params![site.id, site.head], |row| {
            let manifest: Vec<u8> = row.get(1)?;
            let manifest = serde_json::from_slice(&manifest).map_err(|_| rusqlite::Error::InvalidQuery)?;
            Ok(Head { feed: row.get(0)?, manifest, committed_at: time(row.get(2)?).to_string(), receipt: row.get(3)? })
        })
        .optional()?;
    let current = connection
        .prepare_cached(
            "SELECT r.measure, r.version, r.period_start, r.period_end, r.sha256, r.complete, r.feed FROM current c JOIN revision r ON r.id = c.revision
             WHERE c.site = ?1 AND r.sha256 IS NOT NULL ORDER BY 1, 2, 3, 4",
        )?
        .query_map([site.id], |row| {
            let key = ReportKey { measure: row.get(0)?, version: row.get(1)?, period_start: row.get(2)?, period_end: row.get(3)? };
            Ok(Current { key, sha256: row.get(4)?, complete: row.get(5)?, feed: row.get(6)? })
        })?
        .collect::<Result<_, _>>()?;
    let accepts = cards.iter().map(|card| Accepted { measure: card.url.clone(), versions: card.versions.clone() }).collect();
    Ok(Standing { site: site.name.clone(), epoch: site.epoch, heard_at: site.heard.map(|at| at.to_string()), head, current, accepts: Some(accepts) })
}

/// A report of a committed feed of the site.
pub(super) fn part(connection: &Connection, site: i64, feed: &str, sha256: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached(
            "SELECT p.body FROM feed_part n JOIN feed f USING (site, feed) JOIN part p ON p.site = n.site AND p.sha256 = n.sha256
             WHERE n.site = ?1 AND n.feed = ?2 AND n.sha256 = ?3 AND f.state = 'committed'",
        )?
        .query_row(params![site, feed, sha256], |row| row.get(0))
        .optional()
}

/// The same in a few words, for a refusal.
pub(super) fn in_words(connection: &Connection, site: &Site) -> rusqlite::Result<String> {
    let head: Option<(String, i64, i64)> = connection
        .prepare_cached("SELECT feed, settled_at, reports FROM feed WHERE site = ?1 AND manifest_sha256 = ?2 AND state = 'committed'")?
        .query_row(params![site.id, site.head], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(match head {
        None => format!("the registry holds no feed of `{}`", site.name),
        Some((feed, at, reports)) => {
            let (feed, at) = (feed.chars().take(SHOWN_CHARS).collect::<String>(), time(at).strftime("%Y-%m-%d %H:%M UTC"));
            let reports = counted(reports.unsigned_abs(), "report");
            format!("the registry holds feed `{feed}` of `{}`, received {at}, with {reports}", site.name)
        }
    })
}
