//! What the registry can say of its sites and measures: the arrival board, series, revisions, strata.
//! Everything reads what `current` names, or revisions before it, so only committed ones are ever seen.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::report::{Doubt, Group, Observed, Reading, Stratum};
use super::store::{self, Site, time};
use super::{MeasureCard, Unit};
use crate::feed::CountedBy;
use crate::validate::{Parts, believable};

/// Points of one series.
const POINTS_MAX: usize = 600;
/// Revisions shown of one report.
const REVISIONS_MAX: usize = 200;

/// One site on the arrival board.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The site.
    pub site: Site,
    /// The feed committed last.
    pub last: Option<LastFeed>,
    /// The refusal or rejection after it, with every reason.
    pub refused: Option<(Timestamp, Vec<String>)>,
    /// A feed begun after the last one and not finished: since when.
    pub begun: Option<Timestamp>,
    /// Measures, by their addresses, of which the last feed has nothing although the registry holds reports of the site.
    pub stopped: Vec<String>,
    /// Nothing heard for longer than agreed.
    pub late: bool,
}

/// The feed a site delivered last.
#[derive(Clone, Debug)]
pub struct LastFeed {
    /// Its identifier.
    pub feed: String,
    /// When it was committed.
    pub committed: Timestamp,
    /// Whether everything that was asked for arrived.
    pub complete: bool,
    /// Patients and types missing.
    pub gaps: u64,
    /// Lines set aside.
    pub quarantined: u64,
    /// Reports it named.
    pub reports: u64,
    /// Of the site's current reports, those that cannot tell of somebody.
    pub doubtful: u64,
}

/// The arrival board, by site name.
pub fn arrivals(connection: &Connection, now: Timestamp, late_after_hours: u32) -> rusqlite::Result<Vec<Arrival>> {
    let limit = now.as_millisecond() - i64::from(late_after_hours) * 3_600_000;
    store::sites(connection)?
        .into_iter()
        .map(|site| {
            let last = connection
                .prepare_cached(
                    "SELECT feed, settled_at, complete, gaps, quarantined, reports, (
                         SELECT COUNT(*) FROM current c WHERE c.site = ?1 AND EXISTS (SELECT 1 FROM reading g WHERE g.revision = c.revision AND g.doubt IS NOT NULL)
                     ) FROM feed WHERE site = ?1 AND state = 'committed' ORDER BY settled_at DESC, rowid DESC LIMIT 1",
                )?
                .query_row([site.id], |row| {
                    Ok(LastFeed {
                        feed: row.get(0)?,
                        committed: time(row.get(1)?),
                        complete: row.get(2)?,
                        gaps: row.get::<_, i64>(3)?.unsigned_abs(),
                        quarantined: row.get::<_, i64>(4)?.unsigned_abs(),
                        reports: row.get::<_, i64>(5)?.unsigned_abs(),
                        doubtful: row.get::<_, i64>(6)?.unsigned_abs(),
                    })
                })
                .optional()?;
            let refused = connection
                .prepare_cached("SELECT at, reasons FROM refusal WHERE site = ?1 ORDER BY id DESC LIMIT 1")?
                .query_row([site.id], |row| Ok((time(row.get(0)?), row.get::<_, String>(1)?)))
                .optional()?
                .map(|(at, reasons)| (at, reasons.lines().map(str::to_owned).collect()));
            let begun = connection
                .prepare_cached("SELECT max(received_at) FROM feed WHERE site = ?1 AND state = 'open' AND received_at >= ?2")?
                .query_row(params![site.id, last.as_ref().map_or(0, |last| last.committed.as_millisecond())], |row| row.get::<_, Option<i64>>(0))?
                .map(time);
            let stopped = match &last {
                Some(last) => stopped(connection, site.id, &last.feed)?,
                None => Vec::new(),
            };
            // A site that has just joined has had no night yet.
            let late = site.heard.unwrap_or(site.added).as_millisecond() < limit;
            Ok(Arrival { site, last, refused, begun, stopped, late })
        })
        .collect()
}

/// A feed names every report that stands, also the unchanged: a measure of which it names none is sent no more.
fn stopped(connection: &Connection, site: i64, feed: &str) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(
            "SELECT c.measure FROM current c JOIN revision r ON r.id = c.revision LEFT JOIN feed_part p ON p.site = c.site AND p.feed = ?2 AND p.sha256 = r.sha256
             WHERE c.site = ?1 AND r.sha256 IS NOT NULL GROUP BY c.measure HAVING count(p.sha256) = 0 ORDER BY c.measure",
        )?
        .query_map(params![site, feed], |row| row.get(0))?
        .collect()
}

/// One period of a series.
#[derive(Clone, Debug)]
pub struct Point {
    /// As reported.
    pub period_start: String,
    /// As reported.
    pub period_end: String,
    /// What counts above the line; of a cohort all that is counted.
    pub numerator: Option<Decimal>,
    /// What counts below the line.
    pub denominator: Option<Decimal>,
    /// The score as reported.
    pub score: Option<Decimal>,
    /// Of whom it is, where it is no fraction.
    pub observed: Option<Observed>,
    /// What of it cannot be told.
    pub doubt: Option<Doubt>,
    /// Whether the data behind it were complete.
    pub complete: bool,
    /// Version of the measure.
    pub version: String,
    /// Of a composite what it is made of, by canonical URL with version.
    pub made_of: BTreeSet<String>,
    /// By what it was counted.
    pub counted_by: CountedBy,
    /// What of that is another than of the newest point of its series: `version`, `mapping`, `logic`, `value sets`.
    pub other: Vec<&'static str>,
    /// 1, 2, 3 …
    pub revision: u64,
    /// When this revision was committed.
    pub committed: Timestamp,
    /// Strata, if any.
    pub strata: Vec<Stratum>,
    /// What is beyond what its measure calls plausible, beside the site's earlier periods: what the hospital is told too.
    pub remarks: Vec<String>,
}

impl Point {
    /// The score as it is shown: percent, or per the measure's factor. A score that is no fraction, as that of a continuous
    /// variable or a weighted composite, is shown as it was reported, a cohort as its count. `None` without either, with a denominator of zero, or where
    /// it [is not known](Self::is_unknown).
    pub fn value(&self, unit: &Unit) -> Option<f64> {
        if self.is_unknown() {
            return None;
        }
        let (score, factor) = match (self.numerator, self.denominator, unit) {
            (Some(above), Some(below), Unit::Percent) => (above.checked_div(below)?, Decimal::ONE_HUNDRED),
            (Some(above), Some(below), Unit::Rate { per, .. }) => (above.checked_div(below)?, Decimal::from(*per)),
            (count, _, Unit::Count) => (count?, Decimal::ONE),
            (.., Unit::Percent) => (self.score?, Decimal::ONE_HUNDRED),
            (.., Unit::Rate { .. } | Unit::Number) => (self.score?, Decimal::ONE),
        };
        score.checked_mul(factor)?.to_f64()
    }

    /// `1.0.0`; of a composite with the names and versions of what it is made of.
    pub fn version_text(&self) -> String {
        let name = |canonical: &String| canonical.rsplit('/').next().unwrap_or_default().replacen('|', " ", 1);
        match self.made_of.iter().map(name).collect::<Vec<_>>().join(", ") {
            parts if parts.is_empty() => self.version.clone(),
            parts => format!("{} (of {parts})", self.version),
        }
    }

    /// Whether more than half of those whom the score is of cannot be told: then it says what is written, not how they are.
    pub fn is_unknown(&self) -> bool {
        self.doubt.as_ref().is_some_and(|doubt| doubt.of.is_some_and(|of| doubt.count > of / 2))
    }

    /// Between which values the score lies, if all that cannot be told were known; `None` where nothing is open, or nothing
    /// bounds it.
    pub fn bounds(&self, unit: &Unit) -> Option<(f64, f64)> {
        self.doubt.as_ref()?.bounds(unit)
    }

    /// Of how many it is; none where nobody says.
    fn size(&self) -> Option<Decimal> {
        self.denominator.or(self.observed.and_then(|observed| Some(observed.counted?.into())))
    }

    /// The same without any numbers, to be added to.
    pub fn nothing_of(&self) -> Point {
        Point {
            numerator: Some(Decimal::ZERO),
            denominator: Some(Decimal::ZERO),
            score: None,
            observed: None,
            doubt: None,
            strata: Vec::new(),
            ..self.clone()
        }
    }

    /// One of its strata, as if it were the whole.
    pub fn stratum(&self, stratum: &Stratum) -> Point {
        let Stratum { stratifier: _, stratum: _, numerator, denominator, score, observed, doubt } = stratum.clone();
        Point { numerator, denominator, score, observed, doubt, strata: Vec::new(), ..self.clone() }
    }

    /// Adds the counts of another site, period or stratum; what is no fraction has no sum.
    pub fn add(&mut self, other: &Point) {
        let sum = |a: Option<Decimal>, b: Option<Decimal>| a.zip(b).and_then(|(a, b)| a.checked_add(b));
        let both = [&*self, other];
        if both.iter().any(|point| point.doubt.is_some()) {
            let count = both.iter().filter_map(|point| point.doubt.as_ref()).map(|doubt| doubt.count).sum();
            let of = both.iter().map(|point| point.doubt.as_ref().map_or_else(|| point.size()?.to_u64(), |doubt| doubt.of)).sum();
            let [own, theirs] = both.map(Ends::of);
            self.doubt = Some(own.zip(theirs).map_or(Doubt { count, of, ..Doubt::default() }, |(own, theirs)| own.with(&theirs).doubt(count, of)));
        }
        self.numerator = sum(self.numerator, other.numerator);
        self.denominator = sum(self.denominator, other.denominator);
        self.observed = match (self.observed, other.observed) {
            (Some(own), Some(theirs)) => Some(Observed { members: own.members + theirs.members, counted: own.counted.zip(theirs.counted).map(|(own, theirs)| own + theirs) }),
            (own, theirs) => own.or(theirs),
        };
    }
}

impl Doubt {
    /// The bounds as a score is shown.
    pub(super) fn bounds(&self, unit: &Unit) -> Option<(f64, f64)> {
        let factor = match unit {
            Unit::Percent => Decimal::ONE_HUNDRED,
            Unit::Rate { per, .. } => Decimal::from(*per),
            Unit::Number | Unit::Count => Decimal::ONE,
        };
        let shown = |bound: Option<Decimal>| bound?.checked_mul(factor)?.to_f64();
        Some((shown(self.low)?, shown(self.high)?))
    }
}

/// Numerator and denominator of a proportion at its lowest and at its highest: what can be added.
struct Ends([(Decimal, Decimal); 2]);

impl Ends {
    fn of(point: &Point) -> Option<Ends> {
        let Some(doubt) = &point.doubt else { return Some(Ends([(point.numerator?, point.denominator?); 2])) };
        if let Some(ends) = doubt.ends {
            return Some(Ends(ends.map(|(numerator, denominator)| (numerator.into(), denominator.into()))));
        }
        let of = Decimal::from(doubt.of?);
        if let Some((least, most)) = doubt.numerators {
            return Some(Ends([(least.into(), of), (most.into(), of)]));
        }
        // A mean of shares has no numerator to add, and an older adapter's bounds are fractions of just so many.
        point.numerator?;
        let at = |bound: Option<Decimal>| Some((bound?.checked_mul(of)?.round(), of));
        // Without bounds there is only how many of how many.
        Some(Ends([at(doubt.low)?, at(doubt.high)?]))
    }

    fn with(&self, other: &Ends) -> Ends {
        let [low, high] = [0, 1].map(|end| (self.0[end].0 + other.0[end].0, self.0[end].1 + other.0[end].1));
        Ends([low, high])
    }

    fn doubt(&self, count: u64, of: Option<u64>) -> Doubt {
        let [low, high] = self.0;
        // Where nobody counts at an end, all who may are fulfilled at the lower, and none of them at the upper: one of them is the farthest.
        let at = |(numerator, denominator): (Decimal, Decimal), alone: Decimal| numerator.checked_div(denominator).or((of > Some(0)).then_some(alone));
        let whole = |(numerator, denominator): (Decimal, Decimal)| numerator.to_u64().zip(denominator.to_u64());
        Doubt {
            count,
            of,
            low: at(low, Decimal::ONE),
            high: at(high, Decimal::ZERO),
            ends: whole(low).zip(whole(high)).map(|(low, high)| [low, high]),
            numerators: None,
        }
    }
}

fn decimal(text: Option<String>) -> Option<Decimal> {
    text.and_then(|text| Decimal::from_str(&text).ok())
}

/// What is kept as JSON.
fn kept<T: serde::de::DeserializeOwned>(text: Option<String>) -> Option<T> {
    text.and_then(|text| serde_json::from_str(&text).ok())
}

/// What one site reported of one group of a measure.
#[derive(Clone, Debug)]
pub struct Series {
    /// The site's name.
    pub site: String,
    /// The group, as it was named last.
    pub group: Group,
    /// In time order.
    pub points: Vec<Point>,
}

/// A group in three columns of a row.
fn group(row: &Row<'_>, first: usize) -> rusqlite::Result<Group> {
    let improvement: Option<String> = row.get(first + 2)?;
    Ok(Group { key: row.get(first)?, label: row.get(first + 1)?, higher_is_better: improvement.map(|code| code == "increase") })
}

/// When the first report of a measure came, if one did.
pub fn known_since(connection: &Connection, card: &MeasureCard) -> rusqlite::Result<Option<Timestamp>> {
    let first = "SELECT min(r.committed_at) FROM current c JOIN revision r ON r.site = c.site AND r.measure = c.measure
        AND r.period_start = c.period_start AND r.period_end = c.period_end AND r.number = 1 WHERE c.measure = ?1";
    Ok(connection.query_row(first, [&card.url], |row| row.get::<_, Option<i64>>(0))?.map(time))
}

/// Points of a measure, current or as they were known at an instant, by site name and in the order of the groups that was reported last;
/// withdrawn ones are not shown.
pub fn series(connection: &Connection, card: &MeasureCard, site: Option<&str>, on: Option<Timestamp>) -> rusqlite::Result<Vec<Series>> {
    let mut statement = connection.prepare_cached(
        "SELECT s.name, r.period_start, r.period_end, g.numerator, g.denominator, r.complete, r.version, r.number, r.committed_at, g.strata, g.score, g.doubt,
             g.key, g.label, g.improvement, g.place, g.observed, g.made_of, g.counted_by
         FROM current c JOIN revision r ON r.id = CASE WHEN ?3 IS NULL THEN c.revision ELSE (
             SELECT e.id FROM revision e WHERE e.site = c.site AND e.measure = c.measure AND e.period_start = c.period_start AND e.period_end = c.period_end
                 AND e.committed_at <= ?3 ORDER BY e.number DESC LIMIT 1) END
             JOIN site s ON s.id = c.site JOIN reading g ON g.revision = r.id
         WHERE c.measure = ?1 AND r.sha256 IS NOT NULL AND (?2 IS NULL OR s.name = ?2) ORDER BY s.name, r.period_start, r.period_end, g.place",
    )?;
    let rows = statement.query_map(params![card.url, site, on.map(Timestamp::as_millisecond)], |row| {
        let point = Point {
            period_start: row.get(1)?,
            period_end: row.get(2)?,
            numerator: decimal(row.get(3)?),
            denominator: decimal(row.get(4)?),
            complete: row.get(5)?,
            version: row.get(6)?,
            revision: row.get::<_, i64>(7)?.unsigned_abs(),
            committed: time(row.get(8)?),
            strata: serde_json::from_str(&row.get::<_, String>(9)?).unwrap_or_default(),
            score: decimal(row.get(10)?),
            doubt: kept(row.get(11)?),
            observed: kept(row.get(16)?),
            made_of: kept(row.get(17)?).unwrap_or_default(),
            counted_by: kept(row.get(18)?).unwrap_or_default(),
            other: Vec::new(),
            remarks: Vec::new(),
        };
        Ok((row.get::<_, String>(0)?, group(row, 12)?, row.get::<_, i64>(15)?, point))
    })?;
    let mut found: BTreeMap<(String, String), (i64, Series)> = BTreeMap::new();
    for row in rows {
        let (site, group, place, point) = row?;
        let entry = found.entry((site.clone(), group.key.clone()));
        let (last, series) = entry.or_insert_with(|| (place, Series { site, group: group.clone(), points: Vec::new() }));
        (*last, series.group) = (place, group);
        series.points.push(point);
    }
    let mut all: Vec<(i64, Series)> = found.into_values().collect();
    all.sort_by(|(place, a), (other, b)| (&a.site, place, &a.group.key).cmp(&(&b.site, other, &b.group.key)));
    for (_, series) in &mut all {
        let surplus = series.points.len().saturating_sub(POINTS_MAX);
        series.points.drain(..surplus);
        remark(card, &mut series.points);
        compare(&mut series.points);
    }
    Ok(all.into_iter().map(|(_, series)| series).collect())
}

/// Holds what every point was counted by against the newest: a month that a site counts no more keeps its number, whatever was corrected since.
fn compare(points: &mut [Point]) {
    let Some(newest) = points.last().cloned() else { return };
    points
        .iter_mut()
        .for_each(|point| point.other = point.counted_by.other_than(&newest.counted_by, point.version == newest.version));
}

/// Holds every point against what its version of the measure calls plausible, as the hospital does, beside those before it that can be
/// compared.
fn remark(card: &MeasureCard, points: &mut [Point]) {
    for place in 0..points.len() {
        let (before, rest) = points.split_at_mut(place);
        let Some(point) = rest.first_mut() else { continue };
        let Some(defined) = card.definitions.get(&point.version) else { continue };
        let earlier = before.iter().filter(|other| card.is_comparable(other, point)).filter_map(Point::size).collect();
        let cannot_tell = point.doubt.as_ref().map_or(0, |doubt| doubt.count);
        let own = Parts { numerator: point.numerator, denominator: point.size(), score: point.score, cannot_tell };
        point.remarks = believable(&own, &defined.guards, earlier).into_iter().map(|finding| finding.message).collect();
    }
}

/// One revision of a report.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Of the period that ends on this day, as reported.
    pub period_end: String,
    /// 1, 2, 3 …
    pub number: u64,
    /// Version of the measure.
    pub version: String,
    /// Digest of the report; none: withdrawn.
    pub sha256: Option<String>,
    /// Digest of the revision before.
    pub replaces: Option<String>,
    /// Why it changed.
    pub cause: Option<String>,
    /// Why it was withdrawn.
    pub reason: Option<String>,
    /// Whether the data behind it were complete.
    pub complete: bool,
    /// The feed that brought it.
    pub feed: String,
    /// When.
    pub committed: Timestamp,
    /// What it says, group by group; nothing where it is a withdrawal.
    pub readings: Vec<Reading>,
}

/// What a revision says, group by group.
pub(super) fn readings(connection: &Connection, revision: i64) -> rusqlite::Result<Vec<Reading>> {
    connection
        .prepare_cached(
            "SELECT key, label, improvement, numerator, denominator, score, doubt, strata, observed, made_of, counted_by FROM reading WHERE revision = ?1 ORDER BY place",
        )?
        .query_map([revision], |row| {
            let (numerator, denominator, score) = (decimal(row.get(3)?), decimal(row.get(4)?), decimal(row.get(5)?));
            let strata = serde_json::from_str(&row.get::<_, String>(7)?).unwrap_or_default();
            let made_of = kept(row.get(9)?).unwrap_or_default();
            let counted_by = kept(row.get(10)?).unwrap_or_default();
            Ok(Reading { counted_by, group: group(row, 0)?, numerator, denominator, score, observed: kept(row.get(8)?), doubt: kept(row.get(6)?), strata, made_of })
        })?
        .collect()
}

/// Every revision of one report, newest first.
pub fn revisions(connection: &Connection, site: &str, measure: &str, period_start: &str) -> rusqlite::Result<Vec<Revision>> {
    connection
        .prepare_cached(
            "SELECT r.number, r.version, r.sha256, r.replaces, r.cause, r.reason, r.complete, r.feed, r.committed_at, r.id, r.period_end
             FROM revision r JOIN site s ON s.id = r.site WHERE s.name = ?1 AND r.measure = ?2 AND r.period_start = ?3
             ORDER BY r.period_end, r.number DESC LIMIT ?4",
        )?
        .query_map(params![site, measure, period_start, REVISIONS_MAX as i64], |row| {
            Ok(Revision {
                period_end: row.get(10)?,
                number: row.get::<_, i64>(0)?.unsigned_abs(),
                version: row.get(1)?,
                sha256: row.get(2)?,
                replaces: row.get(3)?,
                cause: row.get(4)?,
                reason: row.get(5)?,
                complete: row.get(6)?,
                feed: row.get(7)?,
                committed: time(row.get(8)?),
                readings: readings(connection, row.get(9)?)?,
            })
        })?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Point {
        Point {
            period_start: String::new(),
            period_end: String::new(),
            numerator: None,
            denominator: None,
            score: None,
            observed: None,
            doubt: None,
            complete: true,
            version: String::new(),
            made_of: BTreeSet::new(),
            counted_by: CountedBy::default(),
            other: Vec::new(),
            revision: 1,
            committed: Timestamp::UNIX_EPOCH,
            strata: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// One site knows of one who is fulfilled, and of nine who may be in the denominator and are not: its own score is 1 of 1 to 1 of 10.
    /// The other has 10 of 10. Together it is 11 of 20 to 11 of 11, and never as narrow as the bounds of each, added by their width.
    #[test]
    fn what_sites_cannot_tell_is_added_up_without_loss() {
        let doubt = Doubt { count: 9, of: Some(10), low: Some(Decimal::new(1, 1)), high: Some(Decimal::ONE), numerators: Some((1, 10)), ends: None };
        let mut sum = empty().nothing_of();
        let counts = |numerator: Option<u32>, denominator: u32, doubt: Option<&Doubt>| Point {
            numerator: numerator.map(Decimal::from),
            denominator: Some(denominator.into()),
            doubt: doubt.cloned(),
            ..empty()
        };
        sum.add(&counts(Some(1), 1, Some(&doubt)));
        sum.add(&counts(Some(10), 10, None));
        let (low, high) = sum.bounds(&Unit::Percent).unwrap();
        assert_eq!((format!("{low:.1}"), format!("{high:.1}")), ("55.0".to_owned(), "100.0".to_owned()));
        // Shares of a linear composite have no numerators to add.
        let shares = Doubt { numerators: None, ..doubt };
        let mut sum = empty().nothing_of();
        sum.add(&counts(None, 10, Some(&shares)));
        assert_eq!(sum.bounds(&Unit::Percent), None);
        assert_eq!(sum.doubt.map(|doubt| doubt.count), Some(9));
    }

    #[test]
    fn a_fraction_is_shown_by_its_sides_any_other_score_as_reported() {
        let rate = Unit::Rate { per: 1000, of: "days".into() };
        for (numerator, denominator, score, percent, per_thousand) in [
            (Some(3), Some(4), Some("0.75"), Some(75.0), Some(750.0)),
            (Some(3), Some(4), None, Some(75.0), Some(750.0)),
            (Some(28), Some(100), None, Some(28.0), Some(280.0)),
            (Some(0), Some(0), None, None, None),
            (None, None, Some("0.5"), Some(50.0), Some(0.5)),       // a weighted composite
            (None, Some(12), Some("0.25"), Some(25.0), Some(0.25)), // a continuous variable, a linear composite
            (None, Some(12), None, None, None),
        ] {
            let point = Point { numerator: numerator.map(Decimal::from), denominator: denominator.map(Decimal::from), score: decimal(score.map(str::to_owned)), ..empty() };
            assert_eq!((point.value(&Unit::Percent), point.value(&rate)), (percent, per_thousand), "{numerator:?} {denominator:?} {score:?}");
        }
    }
}
