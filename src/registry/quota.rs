//! How much one site may send in a day: a sender that runs wild fills the disk of nobody else's reports.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Transaction, params};

use super::protocol::{Problem, Refusal};
use super::store::{Site, time};

/// What is counted together.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// What one site may have kept within 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Feeds announced, whatever became of them.
    pub feeds: u32,
    /// Bytes of manifests and of reports that were not here before.
    pub bytes: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Quota { feeds: 100, bytes: 1 << 30 }
    }
}

/// Refuses the feed announced in this transaction if the site has sent, or is about to send, more than its quota.
pub(super) fn keep(transaction: &Transaction<'_>, site: &Site, feed: &str, quota: &Quota, now: Timestamp) -> Result<(), Problem> {
    let name = &site.name;
    let since = now.as_millisecond() - DAY.as_secs() * 1000;
    let (feeds, first): (i64, i64) = transaction
        .prepare_cached("SELECT count(*), min(received_at) FROM feed WHERE site = ?1 AND received_at > ?2")?
        .query_row(params![site.id, since], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if feeds.unsigned_abs() > quota.feeds.into() {
        let next = time(first).saturating_add(DAY).unwrap_or(now).strftime("%Y-%m-%d %H:%M UTC");
        let text = format!(
            "`{name}` has announced {} feeds within 24 hours, as many as it may: the next one is taken after {next}. A night is one feed; find out what sends them, or ask the network to raise `feeds_per_day`",
            quota.feeds
        );
        return Err(Refusal::new(429, "throttled", text).into());
    }
    let awaited = "SELECT coalesce(sum(bytes), 0) FROM (SELECT DISTINCT n.sha256, n.bytes FROM feed_part n JOIN feed f USING (site, feed)
         LEFT JOIN part p ON p.site = n.site AND p.sha256 = n.sha256 WHERE n.site = ?1 AND p.sha256 IS NULL AND f.state = 'open' AND (?2 IS NULL OR f.feed = ?2))";
    let awaited = |feed: Option<&str>| transaction.prepare_cached(awaited)?.query_row(params![site.id, feed], |row| row.get::<_, i64>(0));
    let manifest: i64 = transaction
        .prepare_cached("SELECT length(manifest) FROM feed WHERE site = ?1 AND feed = ?2")?
        .query_row(params![site.id, feed], |row| row.get(0))?;
    let own = (awaited(Some(feed))? + manifest).unsigned_abs();
    let may = quota.bytes;
    if own > may {
        let text = format!("the feed brings {own} bytes that are not here yet; of one site at most {may} are kept within 24 hours. Ask the network to raise `megabytes_per_day`");
        return Err(Refusal::new(413, "too-long", text).into());
    }
    let kept: i64 = transaction
        .prepare_cached(
            "SELECT (SELECT coalesce(sum(length(body)), 0) FROM part WHERE site = ?1 AND received_at > ?2)
                  + (SELECT coalesce(sum(length(manifest)), 0) FROM feed WHERE site = ?1 AND received_at > ?2)",
        )?
        .query_row(params![site.id, since], |row| row.get(0))?;
    let before = (kept + awaited(None)?).unsigned_abs().saturating_sub(own);
    if before + own > may {
        let text = format!(
            "`{name}` has sent {before} bytes within 24 hours, and the feed brings {own} more; at most {may} are kept. Send it again tomorrow, find out what sends so much, or ask the network to raise `megabytes_per_day`"
        );
        return Err(Refusal::new(429, "throttled", text).into());
    }
    Ok(())
}
