//! The one place where the stages meet: a night.
//!
//! ```text
//! pull -> snapshot -> mapping -> measures -> reports -> check -> outbox -> delivery
//! ```
//! A night is a row in the state database that only moves forward ([`State`]). Its "now" and its periods are on disk
//! before it asks the EHR for anything; each stage ends in one transaction. Killed at any point, the next start finds
//! the row, repeats only the stage that was under way, and reaches the same bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::sync::watch;

use crate::destination::registry::{DeliverError, Delivered, Registry, deliver_due};
use crate::http::Clock;
use crate::mapping::Mapping;
use crate::measure::Measure;
use crate::measure::period::Period;
use crate::outbox::{self, OutboxError, Remaining};
use crate::smart::assertion::SigningKey;
use crate::snapshot::{Key, PARTITIONS, PullId, Snapshot, SnapshotError};
use crate::source::duty::Code;
use crate::source::{self, Progress, Source, SourceError, probe};
use crate::store::quarantine;
use crate::store::runs::{self, ANY_TYPE, ReportFindings, Run, State, Unmapped};
use crate::store::{Store, StoreError};
use crate::terminology::ValueSets;

mod elsewhere;
pub mod evaluation;
pub mod needs;
pub mod remarks;
pub mod schedule;
pub mod waits;

/// The name of the one destination, as the outbox knows it.
pub const DESTINATION: &str = "registry";
/// File of the state database in the data directory.
pub const STATE_FILE: &str = "state.sqlite";
/// Folder of the snapshot in the data directory.
pub const SNAPSHOT_FOLDER: &str = "snapshot";
/// Begins the digest of a mapping's rules; earlier ones were of its text.
pub const RULES: &str = "rules:";
/// Before the digest of imports, where a lineage names what translates.
const IMPORTS_OF: &str = " imports:";

/// What a site measures and how it is reached, checked as a whole before anything starts.
pub struct Setup {
    /// The site's name, as registered with the network.
    pub site: String,
    /// Its name for people, if it has one.
    pub title: Option<String>,
    /// The zone in which its days and months are meant.
    pub zone: TimeZone,
    /// IANA name of the zone.
    pub zone_name: String,
    /// Complete months to report.
    pub months: u32,
    /// Threads that evaluate.
    pub threads: usize,
    /// The measures, compiled.
    pub measures: Vec<Measure>,
    /// The value sets they use, and those given beside.
    pub value_sets: Arc<ValueSets>,
    /// The site's mapping.
    pub mapping: Mapping,
    /// How to reach the EHR.
    pub source: source::Options,
    /// The key that proves to it who we are.
    pub source_key: Option<SigningKey>,
    /// What every number depends on beside the data.
    pub lineage: Lineage,
}

/// What every number depends on beside the data: versions and digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lineage {
    /// Watershed's version.
    pub engine: String,
    /// The mapping's name, version and digest.
    pub mapping: String,
    /// Digest of each measure's text, by its canonical URL and version.
    pub measures: BTreeMap<String, String>,
    /// Digest of all value sets.
    pub terminology: String,
    /// The time zone in which days and months are meant; empty where an older program did not keep it.
    #[serde(default)]
    pub zone: String,
}

/// One site's adapter, with its state open.
pub struct Adapter {
    /// What it measures and how.
    pub setup: Setup,
    /// The state database.
    pub store: Arc<Store>,
    /// The site's data.
    pub snapshot: Snapshot,
    /// Where its feeds go.
    pub registry: Registry,
    /// The file of what `watershed check` found out about the EHR's server.
    pub capability_file: PathBuf,
    /// Where the time is read for tokens and retries; what a report says of time is the night's own "now".
    pub clock: Arc<dyn Clock>,
}

/// What is asked of a night.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Its "now", unless an earlier one is resumed.
    pub now: Timestamp,
    /// The scheduled instant that it answers; none when a person asks.
    pub scheduled: Option<Timestamp>,
}

/// How a night ended.
#[derive(Clone, Debug)]
pub struct Night {
    /// Its row, as it stands.
    pub run: Run,
    /// Whether it had been begun by an earlier process.
    pub resumed: bool,
    /// What delivery did.
    pub delivered: Delivered,
    /// Reports held back for a person.
    pub held: usize,
    /// What a person should look at in those that are sent.
    pub remarks: Vec<ReportFindings>,
    /// What could not be understood, as [`runs::unmapped`] has it.
    pub unmapped: Vec<Unmapped>,
}

/// Turns true when the process is asked to stop.
pub type Stop = watch::Receiver<bool>;

/// Why a night did not come to its end. It is resumed at the next start unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum NightError {
    /// The EHR; the night is given up, the next one starts anew.
    #[error("the EHR: {0}")]
    Source(SourceError),
    /// The site's data.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The state database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The outbox.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The process was asked to stop.
    #[error("stopped on request; the next start resumes the night")]
    Stopped,
    /// A promise of this program does not hold.
    #[error("{0}")]
    Broken(String),
}

impl NightError {
    /// Whether there is no room on the disk of the data directory.
    pub fn is_disk_full(&self) -> bool {
        match self {
            NightError::Snapshot(SnapshotError::File { error, .. }) | NightError::Store(StoreError::File { error, .. }) => is_full(error),
            NightError::Snapshot(SnapshotError::Store(StoreError::Sqlite(error))) | NightError::Store(StoreError::Sqlite(error)) => is_full_database(error),
            NightError::Outbox(OutboxError::Database(error)) => is_full_database(error),
            _ => false,
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// SQLite says it otherwise where it finds no room for the memory that its processes share, which is a file.
fn is_full_database(error: &rusqlite::Error) -> bool {
    let is_of_shared_memory = error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE);
    is_of_shared_memory || error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

impl From<SourceError> for NightError {
    fn from(error: SourceError) -> Self {
        match error {
            // The disk or the state database, and not the EHR.
            SourceError::Snapshot(error) => NightError::Snapshot(error),
            SourceError::Store(error) => NightError::Store(error),
            error => NightError::Source(error),
        }
    }
}

impl From<DeliverError> for NightError {
    fn from(error: DeliverError) -> Self {
        match error {
            DeliverError::Store(error) => NightError::Store(error),
            DeliverError::Outbox(error) => NightError::Outbox(error),
        }
    }
}

impl Adapter {
    /// Opens the state in a data directory, which no other process may work on, and takes over what a killed one left.
    pub fn open(setup: Setup, data: &Path, key: Key, registry: Registry, clock: Arc<dyn Clock>) -> Result<Adapter, NightError> {
        let store = Arc::new(Store::open(&data.join(STATE_FILE))?);
        let snapshot = Snapshot::open(&data.join(SNAPSHOT_FOLDER), Arc::clone(&store), key, PARTITIONS)?;
        store.with(|connection| Ok(outbox::open_epoch(connection).and_then(|_| outbox::release_leases(connection))))??;
        Ok(Adapter { setup, store, snapshot, registry, capability_file: data.join(probe::FILE), clock })
    }

    /// One night, from where it stands to its end.
    pub async fn night(&self, asked: &Asked, stop: &Stop, progress: &dyn Progress) -> Result<Night, NightError> {
        let (mut run, resumed) = self.begin(asked)?;
        tracing::info!(run.id, run.state = run.state.word(), resumed, "night begins");
        if run.state == State::Pulling {
            run = self.pull(&run, stop, progress).await?;
        }
        if run.state == State::Evaluating {
            run = match tokio::task::block_in_place(|| self.evaluate(&run, stop, progress)) {
                Err(NightError::Snapshot(damaged @ SnapshotError::Damaged { .. })) => self.mend(&run, &damaged, stop, progress).await?,
                evaluated => evaluated?,
            };
        }
        progress.stage("delivering", None);
        self.store.with(|connection| Ok(outbox::make_due(connection, self.clock.now())))??;
        let mut asked_to_stop = stop.clone();
        let delivered = tokio::select! {
            delivered = self.deliver() => delivered?,
            _ = asked_to_stop.wait_for(|asked| *asked) => return Err(NightError::Stopped),
        };
        let run = self.finish(&run, &delivered)?;
        let (held, remarks, unmapped) = self
            .store
            .with(|connection| Ok((runs::held(connection, run.id)?.len(), runs::remarks(connection, run.id)?, runs::unmapped(connection, run.id)?)))?;
        for found in unmapped.iter().filter(|found| found.is_of_the_data() && !found.is_absent()) {
            tracing::warn!(run.id, found.element, found.patients, "values cannot be read; reports that ask for them are partial");
        }
        tracing::info!(run.id, run.feed, delivered.delivered, delivered.remaining.waiting, delivered.remaining.rejected, held, "night ends");
        Ok(Night { run, resumed, delivered, held, remarks, unmapped })
    }

    /// The night that is open, or a new one whose "now" and periods are fixed here.
    fn begin(&self, asked: &Asked) -> Result<(Run, bool), NightError> {
        let today = asked.now.to_zoned(self.setup.zone.clone()).date();
        let months = Period::complete_months(today, self.setup.months as usize);
        let periods: Vec<String> = months.iter().map(Period::to_string).collect();
        let begun = self.store.transaction(|transaction| match runs::open(transaction)? {
            Some(run) => Ok((run, true)),
            None => Ok((runs::begin(transaction, asked.scheduled, asked.now, &periods)?, false)),
        })?;
        Ok(begun)
    }

    async fn pull(&self, run: &Run, stop: &Stop, progress: &dyn Progress) -> Result<Run, NightError> {
        let mut stop = stop.clone();
        let pulled = tokio::select! {
            pulled = self.pull_to_end(run.started_at, progress) => pulled,
            _ = stop.wait_for(|asked| *asked) => return Err(NightError::Stopped),
        };
        let outcome = match pulled {
            Ok(outcome) => outcome,
            // Nothing was decided, so the night stays open.
            Err(error @ (SourceError::Snapshot(_) | SourceError::Store(_))) => return Err(error.into()),
            // An export may take weeks: meanwhile the last good data are reported, as what they are.
            Err(SourceError::Unfinished { reason }) if self.snapshot.latest()?.is_some() => return self.go_on_with_the_last_data(run, &reason),
            Err(error) => {
                let reason = error.to_string();
                self.store.transaction(|transaction| runs::fail(transaction, run.id, &reason, self.clock.now()))?;
                return Err(NightError::Source(error));
            }
        };
        for gap in &outcome.gaps {
            tracing::warn!(run.id, gap.resource_type, gap.reason, "data are missing");
        }
        for note in &outcome.notes {
            tracing::warn!(run.id, note.resource_type, note.reason, "the data are complete with this");
        }
        let run = self.store.transaction(|transaction| {
            let mut missing = runs::missing_from(transaction, outcome.pull_id.0)?;
            // What another pull is still to read is no gap of this one, and may be of any type.
            if outcome.gaps.iter().any(|gap| gap.code == Code::Ongoing) {
                *missing.gaps.entry(ANY_TYPE.to_owned()).or_default() += 1;
            }
            runs::pulled(transaction, run.id, outcome.pull_id.0, outcome.complete, &missing)?;
            runs::get(transaction, run.id)
        })?;
        run.ok_or_else(|| NightError::Broken("the night's row is gone".to_owned()))
    }

    /// What the night was to report of is damaged: everything is read again, and reported of.
    async fn mend(&self, run: &Run, damaged: &SnapshotError, stop: &Stop, progress: &dyn Progress) -> Result<Run, NightError> {
        tracing::warn!(run.id, reason = %damaged, "the night reads everything again, now");
        let run = self.pull(run, stop, progress).await?;
        match tokio::task::block_in_place(|| self.evaluate(&run, stop, progress)) {
            Err(NightError::Snapshot(damaged @ SnapshotError::Damaged { .. })) => Err(self.give_up(&run, damaged)?),
            evaluated => evaluated,
        }
    }

    /// It is damaged all the same: the next one reads everything again.
    fn give_up(&self, run: &Run, damaged: SnapshotError) -> Result<NightError, NightError> {
        let reason = damaged.to_string();
        self.store.transaction(|transaction| runs::fail(transaction, run.id, &reason, self.clock.now()))?;
        Ok(NightError::Snapshot(damaged))
    }

    fn go_on_with_the_last_data(&self, run: &Run, reason: &str) -> Result<Run, NightError> {
        tracing::warn!(run.id, reason, "the night goes on with the data of the last pull, as partial");
        let latest = self.snapshot.latest()?.map_or(0, |pull| pull.0);
        let run = self.store.transaction(|transaction| {
            let missing = runs::Missing { gaps: BTreeMap::from([(ANY_TYPE.to_owned(), 1)]), aside: quarantine::waiting(transaction)? };
            runs::pulled(transaction, run.id, latest, false, &missing)?;
            runs::get(transaction, run.id)
        })?;
        run.ok_or_else(|| NightError::Broken("the night's row is gone".to_owned()))
    }

    /// The pull alone: the snapshot is brought up to date, for a night that has this "now".
    pub async fn pull_to_end(&self, now: Timestamp, progress: &dyn Progress) -> Result<source::PullOutcome, SourceError> {
        if let Some(hours) = &self.setup.source.tuning.off_hours {
            hours.left_or_unfinished(self.clock.now())?;
        }
        let (source, plan) = self.connect(self.setup.source.tuning.retry_attempts).await?;
        // Until the next pull the month may end.
        let next_month = now.to_zoned(self.setup.zone.clone()).date().last_of_month().saturating_add(jiff::Span::new().days(1));
        let periods = Period::complete_months(next_month, self.setup.months as usize + 1);
        let choice = evaluation::Choice::new(&self.setup, &periods, now).map_err(|error| SourceError::Options(error.to_string()))?;
        let pull = async || source::pull_for(Some(&choice), &source, &plan, &self.snapshot, &*self.clock, progress).await;
        let outcome = match pull().await {
            // What is met on the way is marked, and everything is read.
            Err(SourceError::Snapshot(damaged @ SnapshotError::Damaged { .. })) => {
                tracing::warn!(reason = %damaged, "the pull is begun again, and reads everything");
                pull().await?
            }
            ended => ended?,
        };
        if let Err(error) = probe::learn(&self.capability_file, &source, &outcome, self.clock.now()) {
            tracing::warn!(%error, "what was found out about the server is not kept");
        }
        Ok(outcome)
    }

    /// What a pull brought of values that the measures ask for and that cannot be read or used, and of what the mapping does not know:
    /// a night would find them too, but who connects an EHR wants to know at once.
    pub fn found(&self, pull: PullId, now: Timestamp) -> Result<Vec<Unmapped>, NightError> {
        let today = now.to_zoned(self.setup.zone.clone()).date();
        let periods = Period::complete_months(today, self.setup.months as usize).iter().map(Period::to_string).collect();
        let (_asker, stop) = watch::channel(false);
        let sums = evaluation::evaluate(&self.setup, &self.snapshot, &Run::over(pull.0, now, periods), &stop, &source::Silent)?;
        Ok(sums.unmapped())
    }

    /// Whether the EHR may be asked at an instant.
    pub fn is_open_hour(&self, now: Timestamp) -> bool {
        self.setup.source.tuning.off_hours.as_ref().is_none_or(|hours| hours.left(now).is_some())
    }

    /// Asks the EHR what it is and for a token, with so many attempts at each request, and plans what to ask of it; no data
    /// are asked for.
    pub async fn connect(&self, retry_attempts: u32) -> Result<(Source, source::plan::Plan), SourceError> {
        let Setup { measures, value_sets, mapping, source: options, source_key, .. } = &self.setup;
        let needs = needs::of(measures, value_sets, mapping, options.progressive);
        let types = needs.iter().map(|need| need.resource_type.clone()).collect();
        let accepted_before = source::ledger::has_pulled(&self.store, &options.url)? || probe::was_granted(&self.capability_file, &options.url);
        let tuning = source::Tuning { accepted_before, retry_attempts, ..options.tuning.clone() };
        let options = &source::Options { tuning, ..options.clone() };
        let mut source = Source::connect(options, source_key.as_ref(), &types, Arc::clone(&self.clock)).await?;
        match probe::kept_of(&self.capability_file, &source) {
            Ok(facts) => source.capability.learn(&facts),
            Err(error) => tracing::warn!(%error, "what the last check found is not used"),
        }
        let plan = source::plan(&needs, &source.capability, options).read_by(&needs::readers(measures));
        Ok((source, plan))
    }

    fn evaluate(&self, run: &Run, stop: &Stop, progress: &dyn Progress) -> Result<Run, NightError> {
        let sums = evaluation::evaluate(&self.setup, &self.snapshot, run, stop, progress)?;
        let made = evaluation::reports(&self.setup, run, &sums)?;
        let before = self.store.with(|connection| runs::evaluated_before(connection, run.id))?.and_then(|run| run.lineage);
        let before = before.as_deref().and_then(Lineage::stored);
        if let Some(change) = before.as_ref().and_then(|earlier| self.setup.lineage.mapping_change(earlier)) {
            tracing::warn!("{change}: numbers change by it");
        }
        if let Some(change) = before.and_then(|earlier| self.setup.lineage.zone_change(&earlier)) {
            tracing::warn!("{change}");
        }
        let sent = self.store.with(|connection| runs::sent_before(connection, run.id))?.and_then(|run| run.lineage);
        let draft = outbox::Draft {
            destination: DESTINATION.to_owned(),
            site: self.setup.site.clone(),
            reports: made.reports,
            withdrawals: made.withdrawals,
            cause: self.setup.lineage.cause_since(sent.as_deref()),
            completeness: evaluation::completeness(run, &sums),
        };
        let lineage = serde_json::to_string(&self.setup.lineage).map_err(|error| NightError::Broken(error.to_string()))?;
        // The outbox keeps real time: it decides when to send. The reports keep the night's.
        let mut evaluated = runs::Evaluated { patients: sums.patients, lineage, feed: None, held: made.held, remarks: made.remarks, unmapped: sums.unmapped() };
        let run = self.store.transaction(|transaction| {
            let appended = match outbox::append(transaction, &draft, self.clock.now()) {
                Ok(appended) => appended,
                Err(error) => return Ok(Err(NightError::Outbox(error))),
            };
            let (outbox::Appended::New { feed } | outbox::Appended::Unchanged { feed }) = appended;
            evaluated.feed = Some(feed);
            runs::evaluated(transaction, run.id, &evaluated)?;
            Ok(Ok(runs::get(transaction, run.id)?))
        })??;
        run.ok_or_else(|| NightError::Broken("the night's row is gone".to_owned()))
    }

    fn finish(&self, run: &Run, delivered: &Delivered) -> Result<Run, NightError> {
        let remains = match delivered.remaining {
            Remaining { rejected: 1.., .. } => Some("the registry rejected the feed; `watershed outbox list` says why"),
            Remaining { contradicted: 1.., .. } => Some("the registry refused the feed that it had accepted; `watershed outbox list` says why"),
            Remaining { waiting: 1.., .. } => Some("the registry has not taken the feed yet; it waits in the outbox and is sent again"),
            Remaining { confirming: 1.., .. } => Some("that nothing has changed is not confirmed yet; the registry is told again"),
            _ => None,
        };
        let run = self.store.transaction(|transaction| {
            runs::finish(transaction, run.id, remains, self.clock.now())?;
            runs::get(transaction, run.id)
        })?;
        run.ok_or_else(|| NightError::Broken("the night's row is gone".to_owned()))
    }

    /// Sends what waits in the outbox; for the time between nights.
    pub async fn deliver(&self) -> Result<Delivered, NightError> {
        Ok(deliver_due(&self.registry, &self.store, &|| self.clock.now()).await?)
    }

    /// The pull whose data a night evaluates.
    fn as_of(run: &Run) -> Option<PullId> {
        run.pull_id.map(PullId)
    }
}

impl Lineage {
    /// Whether another one may ask for other data.
    pub fn asks_otherwise_than(&self, other: &Lineage) -> bool {
        (&self.mapping, &self.measures, &self.terminology) != (&other.mapping, &other.measures, &other.terminology)
    }

    /// A mapping as a lineage names it: its label, a digest of what it says, and one of the imports beside it.
    pub fn of_mapping(label: &str, rules: &str, imports: Option<&str>) -> String {
        format!("{label} {rules}{}", imports.map(|digest| format!("{IMPORTS_OF}{digest}")).unwrap_or_default())
    }

    /// The mapping's label, and the digest of what it says; none where there is no mapping.
    pub fn mapping_rules(&self) -> (&str, Option<&str>) {
        let own = self.mapping.split_once(IMPORTS_OF).map_or(self.mapping.as_str(), |(own, _)| own);
        let (label, rules) = own.rsplit_once(' ').unwrap_or((own, ""));
        (label, Some(rules).filter(|rules| rules.starts_with(RULES)))
    }

    /// One that was stored; `None` for what is none.
    pub fn stored(json: &str) -> Option<Lineage> {
        serde_json::from_str(json).ok()
    }

    /// What a change of the mapping since an earlier night is that its version does not tell: other rules under the same one, or no rules
    /// any more.
    pub fn mapping_change(&self, earlier: &Lineage) -> Option<String> {
        let ((label, rules), (label_then, rules_then)) = (self.mapping_rules(), earlier.mapping_rules());
        match (rules, rules_then) {
            (None, Some(_)) => Some(format!("no mapping is configured, and the last night had `{label_then}`: the site's own codes are not translated any more")),
            (Some(rules), Some(then)) if label == label_then && rules != then => {
                Some(format!("the rules of the mapping `{label}` are not those of the last night, under the same version"))
            }
            _ => None,
        }
    }

    /// That the days of an earlier night were those of another zone.
    pub fn zone_change(&self, earlier: &Lineage) -> Option<String> {
        let (zone, then) = (&self.zone, &earlier.zone);
        (!then.is_empty() && then != zone).then(|| format!("`site.time_zone` is {zone}, in the last night it was {then}: days and months are other ones, and so may numbers be"))
    }

    /// Why numbers that differ from those of an earlier lineage (JSON, as stored) may differ.
    pub fn cause_since(&self, earlier: Option<&str>) -> outbox::Cause {
        let Some(earlier) = earlier.and_then(Lineage::stored) else { return outbox::Cause::Data };
        let changed = [
            (self.engine != earlier.engine, outbox::Cause::Engine),
            (self.mapping != earlier.mapping, outbox::Cause::Mapping),
            (self.measures != earlier.measures, outbox::Cause::Measure),
            (self.terminology != earlier.terminology, outbox::Cause::Terminology),
            (self.zone_change(&earlier).is_some(), outbox::Cause::Zone),
        ];
        let mut causes = changed.iter().filter(|(changed, _)| *changed).map(|(_, cause)| *cause);
        match (causes.next(), causes.next()) {
            (None, _) => outbox::Cause::Data,
            (Some(cause), None) => cause,
            (Some(_), Some(_)) => outbox::Cause::Correction,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_number_names_what_changed_with_it() {
        let base = Lineage { engine: "1".into(), mapping: "m".into(), terminology: "t".into(), measures: BTreeMap::new(), zone: "Europe/Paris".into() };
        let stored = serde_json::to_string(&base).unwrap();
        let since = |lineage: &Lineage| lineage.cause_since(Some(&stored));
        assert_eq!(base.cause_since(None), outbox::Cause::Data);
        assert_eq!(since(&base), outbox::Cause::Data);
        assert_eq!(since(&Lineage { mapping: "n".into(), ..base.clone() }), outbox::Cause::Mapping);
        assert_eq!(since(&Lineage { engine: "2".into(), ..base.clone() }), outbox::Cause::Engine);
        assert_eq!(since(&Lineage { zone: "UTC".into(), ..base.clone() }), outbox::Cause::Zone);
        let older = stored.replace(r#","zone":"Europe/Paris""#, "");
        assert!(older != stored && base.cause_since(Some(&older)) == outbox::Cause::Data, "an older program kept no zone: {older}");
        assert_eq!(since(&Lineage { engine: "2".into(), mapping: "n".into(), ..base.clone() }), outbox::Cause::Correction);
    }
}
