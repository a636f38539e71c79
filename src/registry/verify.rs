//! Whether everything that the registry keeps is what it received: the audit chain, and against manifests and signed receipts every
//! report, every revision and every number that is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jsonwebtoken::jwk::JwkSet;
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value;

use super::report::{self, Reading};
use super::store::{self, AuditBreak, Site};
use super::{MeasureCard, RegistryError, open_store, receipt, series, sha256_hex, strict_json};
use crate::feed::{Manifest, ReceiptClaims, ReportKey, feed_id};

/// Differences that are told; more are counted.
const TOLD_MAX: usize = 200;
/// Characters of a digest or a feed's identity that people are shown.
const SHOWN_CHARS: usize = 12;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Records of the audit chain, or the first that does not fit.
    pub audit: Result<u64, AuditBreak>,
    /// Committed feeds that were looked at.
    pub feeds: u64,
    /// Reports whose bytes were looked at.
    pub reports: u64,
    /// Everything that is not as it was received, each in a sentence that names feed, report or row.
    pub differences: Vec<String>,
    /// Differences beside these.
    pub more: u64,
}

/// Verifies the registry in a data directory; nothing is changed.
pub fn verify(data: &Path, cards: &[MeasureCard]) -> Result<Verified, RegistryError> {
    let store = open_store(data)?;
    let audit = store.verify_audit()?;
    store.read(|transaction| {
        let keys = receipt::public_keys(data, &store::receipt_keys(transaction)?);
        let found = Verified { audit, feeds: 0, reports: 0, differences: Vec::new(), more: 0 };
        let mut check = Check { connection: transaction, keys, cards, found };
        check.parts()?;
        check.feeds()?;
        check.orphans()?;
        Ok(check.found)
    })
}

struct Check<'a> {
    connection: &'a Connection,
    keys: JwkSet,
    cards: &'a [MeasureCard],
    found: Verified,
}

/// A committed feed as it is stored.
struct Feed {
    site: i64,
    name: String,
    feed: String,
    manifest: Vec<u8>,
    digest: String,
    receipt: String,
}

/// A revision as it is stored, without its number's readings.
struct Row {
    id: i64,
    number: u64,
    key: ReportKey,
    sha256: Option<String>,
    /// What else it was made from: replaces, cause, reason, complete.
    rest: (Option<String>, Option<String>, Option<String>, bool),
}

fn short(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

impl Check<'_> {
    fn differs(&mut self, text: String) {
        if self.found.differences.len() < TOLD_MAX { self.found.differences.push(text) } else { self.found.more += 1 }
    }

    /// Every report has the digest by which it is known.
    fn parts(&mut self) -> rusqlite::Result<()> {
        let connection = self.connection;
        let mut statement = connection.prepare("SELECT s.name, p.sha256, p.body FROM part p JOIN site s ON s.id = p.site ORDER BY s.name, p.sha256")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (site, sha256, body): (String, String, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            self.found.reports += 1;
            let found = sha256_hex(&body);
            if found != sha256 {
                self.differs(format!("report `{}` of `{site}`: its bytes have the digest `{}`", short(&sha256), short(&found)));
            }
        }
        Ok(())
    }

    /// Every committed feed: its manifest, its receipt, and what it made of the series.
    fn feeds(&mut self) -> rusqlite::Result<()> {
        let connection = self.connection;
        let mut statement = connection.prepare(
            "SELECT f.site, s.name, f.feed, f.manifest, f.manifest_sha256, coalesce(f.receipt, '') FROM feed f JOIN site s ON s.id = f.site
             WHERE f.state = 'committed' ORDER BY s.name, f.settled_at, f.feed",
        )?;
        let feed = |row: &rusqlite::Row<'_>| Ok(Feed { site: row.get(0)?, name: row.get(1)?, feed: row.get(2)?, manifest: row.get(3)?, digest: row.get(4)?, receipt: row.get(5)? });
        let feeds = statement.query_map([], feed)?;
        for feed in feeds {
            let feed = feed?;
            self.found.feeds += 1;
            for text in self.feed(&feed)? {
                self.differs(format!("feed `{}` of `{}`: {text}", short(&feed.feed), feed.name));
            }
        }
        Ok(())
    }

    fn feed(&self, feed: &Feed) -> rusqlite::Result<Vec<String>> {
        let mut wrong = Vec::new();
        let digest = sha256_hex(&feed.manifest);
        if digest != feed.digest || feed_id(&feed.manifest) != feed.feed {
            wrong.push(format!("its manifest has the digest `{}`", short(&digest)));
        }
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&feed.manifest) else {
            wrong.push("its manifest cannot be read".to_owned());
            return Ok(wrong);
        };
        match receipt::verify(&feed.receipt, &self.keys) {
            Err(reason) => wrong.push(format!("its receipt {reason}")),
            Ok(claims) => wrong.extend(self.receipt(feed, &digest, &claims)?),
        }
        let parts = self.rows_of("SELECT sha256 FROM feed_part WHERE site = ?1 AND feed = ?2 ORDER BY sha256", feed)?;
        let named: BTreeSet<&str> = manifest.reports.iter().map(|entry| entry.sha256.as_str()).collect();
        if !parts.iter().map(String::as_str).eq(named.iter().copied()) {
            wrong.push("the list of its reports is not the manifest's".to_owned());
        }
        let held = self.rows_of("SELECT n.sha256 FROM feed_part n JOIN part p USING (site, sha256) WHERE n.site = ?1 AND n.feed = ?2", feed)?;
        let is_gone = |sha256: &&&str| !held.iter().any(|held| held == **sha256);
        wrong.extend(named.iter().filter(is_gone).map(|sha256| format!("its report `{}` is gone", short(sha256))));
        wrong.extend(self.revisions(feed, &manifest)?);
        Ok(wrong)
    }

    fn rows_of(&self, query: &str, feed: &Feed) -> rusqlite::Result<Vec<String>> {
        self.connection.prepare_cached(query)?.query_map(params![feed.site, feed.feed], |row| row.get(0))?.collect()
    }

    /// The receipt speaks of this feed, of a record of the chain, and of revisions that are there.
    fn receipt(&self, feed: &Feed, digest: &str, claims: &ReceiptClaims) -> rusqlite::Result<Vec<String>> {
        let mut wrong = Vec::new();
        if claims.sub != feed.name || claims.feed != feed.feed || claims.manifest_sha256 != digest {
            wrong.push(format!("its receipt is of feed `{}` of `{}` with the manifest `{}`", short(&claims.feed), claims.sub, short(&claims.manifest_sha256)));
        }
        let hash: Option<String> = self
            .connection
            .prepare_cached("SELECT hash FROM audit WHERE sequence = ?1")?
            .query_row([claims.audit_sequence], |row| row.get(0))
            .optional()?;
        if hash.as_deref() != Some(&claims.audit_hash) {
            wrong.push(format!("its receipt names audit record {}, which is another one now", claims.audit_sequence));
        }
        let mut revision = self
            .connection
            .prepare_cached("SELECT sha256 FROM revision WHERE site = ?1 AND measure = ?2 AND period_start = ?3 AND period_end = ?4 AND number = ?5")?;
        for entry in &claims.reports {
            let (key, number) = (&entry.key, i64::try_from(entry.revision).unwrap_or(i64::MAX));
            let found: Option<Option<String>> = revision
                .query_row(params![feed.site, key.measure, key.period_start, key.period_end, number], |row| row.get(0))
                .optional()?;
            if found.as_ref() != Some(&entry.sha256) {
                wrong.push(format!("its receipt promised revision {} of `{key}`, which is gone or another one", entry.revision));
            }
        }
        Ok(wrong)
    }

    /// The revisions that a feed made are those that its manifest says, with the numbers that its reports say.
    fn revisions(&self, feed: &Feed, manifest: &Manifest) -> rusqlite::Result<Vec<String>> {
        let mut wrong = Vec::new();
        let mut said: BTreeMap<ReportKey, _> = BTreeMap::new();
        for entry in manifest.reports.iter().filter(|entry| entry.replaces.as_deref() != Some(&entry.sha256)) {
            let cause = entry.cause.and_then(|cause| Some(serde_json::to_value(cause).ok()?.as_str()?.to_owned()));
            said.insert(entry.key.clone(), (Some(entry.sha256.clone()), (entry.replaces.clone(), cause, None, entry.complete)));
        }
        for gone in &manifest.withdrawals {
            said.insert(gone.key.clone(), (None, (Some(gone.replaces.clone()), Some("withdrawal".to_owned()), Some(gone.reason.clone()), true)));
        }
        for row in self.rows(feed)? {
            let label = format!("revision {} of `{}`", row.number, row.key);
            match said.remove(&row.key) {
                None => wrong.push(format!("{label} is not in its manifest")),
                Some((sha256, rest)) if sha256 != row.sha256 || rest != row.rest => wrong.push(format!("{label} is not what its manifest says")),
                Some((None, _)) => {}
                Some((Some(sha256), _)) => wrong.extend(self.numbers(feed, &row, &sha256)?.map(|why| format!("{label} {why}"))),
            }
        }
        wrong.extend(said.keys().map(|key| format!("its revision of `{key}` is gone")));
        Ok(wrong)
    }

    fn rows(&self, feed: &Feed) -> rusqlite::Result<Vec<Row>> {
        self.connection
            .prepare_cached(
                "SELECT id, number, measure, version, period_start, period_end, sha256, replaces, cause, reason, complete FROM revision
                 WHERE site = ?1 AND feed = ?2 ORDER BY measure, period_start, period_end, number",
            )?
            .query_map(params![feed.site, feed.feed], |row| {
                Ok(Row {
                    id: row.get(0)?,
                    number: row.get::<_, i64>(1)?.unsigned_abs(),
                    key: ReportKey { measure: row.get(2)?, version: row.get(3)?, period_start: row.get(4)?, period_end: row.get(5)? },
                    sha256: row.get(6)?,
                    rest: (row.get(7)?, row.get(8)?, row.get(9)?, row.get(10)?),
                })
            })?
            .collect()
    }

    /// Why the numbers of a revision are not those of its report; nothing where they are, or the report is gone, which is said elsewhere.
    fn numbers(&self, feed: &Feed, row: &Row, sha256: &str) -> rusqlite::Result<Option<String>> {
        let body: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT body FROM part WHERE site = ?1 AND sha256 = ?2")?
            .query_row(params![feed.site, sha256], |row| row.get(0))
            .optional()?;
        let Some(report) = body.and_then(|body| strict_json::read(&body).ok()) else { return Ok(None) };
        let card = self.cards.iter().find(|card| card.url == row.key.measure);
        let read = report::readings(&report, &mut Vec::new(), card);
        let shown = series::readings(self.connection, row.id)?;
        // Of several groups the first was kept alone, without its name, before there was a place for all.
        let is_old = shown.len() == 1 && read.len() > 1 && shown.first().is_some_and(|reading| reading.group.key.is_empty());
        let read = if is_old { read.get(..1).unwrap_or_default() } else { &read };
        let same = |(shown, read): (&Reading, &Reading)| {
            let numbers = |reading: &Reading| (reading.numerator, reading.denominator, reading.score, reading.observed, reading.doubt.clone(), reading.made_of.clone());
            numbers(shown) == numbers(read) && shown.counted_by == read.counted_by && shown.strata == read.strata && (is_old || shown.group.key == read.group.key)
        };
        let is_same = shown.len() == read.len() && shown.iter().zip(read).all(same);
        Ok((!is_same).then(|| "shows other numbers than its report".to_owned()))
    }

    /// What no committed feed accounts for: rows that somebody put there, feeds that somebody took away.
    fn orphans(&mut self) -> rusqlite::Result<()> {
        for (query, what) in [
            (
                "SELECT s.name, 'revision ' || r.number || ' of `' || r.measure || '|' || r.version || ' ' || r.period_start || '/' || r.period_end || '`'
                 FROM revision r JOIN site s ON s.id = r.site LEFT JOIN feed f ON f.site = r.site AND f.feed = r.feed AND f.state = 'committed' WHERE f.feed IS NULL ORDER BY 1, 2",
                "is of no committed feed",
            ),
            (
                "SELECT s.name, 'what is shown of `' || r.measure || '` ' || r.period_start || '/' || r.period_end FROM current c JOIN site s ON s.id = c.site
                 JOIN revision r ON r.id = c.revision WHERE (c.site, c.measure, c.period_start, c.period_end) <> (r.site, r.measure, r.period_start, r.period_end)
                    OR r.number <> (SELECT max(o.number) FROM revision o WHERE o.site = c.site AND o.measure = c.measure AND o.period_start = c.period_start AND o.period_end = c.period_end)
                 ORDER BY 1, 2",
                "is not the newest revision",
            ),
            (
                "SELECT s.name, 'the newest revision of `' || r.measure || '` ' || r.period_start || '/' || r.period_end FROM revision r JOIN site s ON s.id = r.site
                 LEFT JOIN current c USING (site, measure, period_start, period_end) WHERE c.revision IS NULL GROUP BY 1, 2 ORDER BY 1, 2",
                "is not shown",
            ),
            (
                "SELECT name, 'the last feed' FROM site s WHERE head IS NOT NULL
                    AND NOT EXISTS (SELECT 1 FROM feed f WHERE f.site = s.id AND f.state = 'committed' AND f.manifest_sha256 = s.head) ORDER BY 1",
                "is not here",
            ),
        ] {
            let connection = self.connection;
            let rows: Vec<(String, String)> = connection.prepare(query)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
            rows.into_iter().for_each(|(site, row)| self.differs(format!("{row} of `{site}` {what}")));
        }
        self.recorded()
    }

    /// What the audit chain tells of is here, as it tells of it: every commit and every site.
    fn recorded(&mut self) -> rusqlite::Result<()> {
        let connection = self.connection;
        let sites = store::sites(connection)?;
        let mut told = BTreeSet::new();
        let mut statement = connection.prepare("SELECT body FROM audit ORDER BY sequence")?;
        let mut feed = connection
            .prepare("SELECT count(*) FROM feed f JOIN site s ON s.id = f.site WHERE s.name = ?1 AND f.feed = ?2 AND f.manifest_sha256 = ?3 AND f.state = 'committed'")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let record: Value = serde_json::from_str(&row.get::<_, String>(0)?).unwrap_or_default();
            let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let (site, id) = (text("/who"), text("/detail/feed"));
            if text("/what") == "feed.commit" && feed.query_row(params![site, id, text("/detail/manifest")], |row| row.get::<_, i64>(0))? == 0 {
                self.differs(format!("feed `{}` of `{site}`: the audit chain tells of its commit, and it is not here", short(id)));
            }
            if ["site.add", "site.keys"].contains(&text("/what")) {
                let name = text("/detail/site");
                told.insert(name.to_owned());
                match sites.iter().find(|site| site.name == name) {
                    None => self.differs(format!("site `{name}`: the audit chain tells of it, and it is not here")),
                    Some(site) => self.registered(site, &record),
                }
            }
        }
        let untold = sites.iter().filter(|site| !told.contains(&site.name));
        untold.for_each(|site| self.differs(format!("site `{}`: the audit chain does not tell of it", site.name)));
        Ok(())
    }

    /// A site is called as a record of it says; older records do not name the organization.
    fn registered(&mut self, site: &Site, record: &Value) {
        for (member, what, is) in [("client", "client identifier", &site.client_id), ("organization", "organization", &site.organization)] {
            let was = record.pointer(&format!("/detail/{member}")).and_then(Value::as_str);
            if let Some(was) = was.filter(|was| was != is) {
                self.differs(format!("site `{}`: its {what} is `{is}`, and the audit chain tells of `{was}`", site.name));
            }
        }
    }
}
