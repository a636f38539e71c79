//! `watershed run`: the daemon at a hospital, or one night of it.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rusqlite::Connection;
use serde_json::json;
use tokio::sync::watch;

use super::{Context, Ending, Failure, Format};
use crate::config::{self, Loaded, doubtful, setup};
use crate::destination::registry::Delivered;
use crate::diagnostic::{Diagnostic, Severity, counted};
use crate::http::SystemClock;
use crate::outbox::Remaining;
use crate::pipeline::schedule::Schedule;
use crate::pipeline::{Adapter, Asked, Lineage, Night, NightError, Setup, Stop};
use crate::snapshot::SnapshotError;
use crate::source::{Silent, SourceError, TALK};
use crate::store::StoreError;
use crate::store::runs::{self, ReportFindings, Run, State, Unmapped};
use crate::terminology::units::NO_UNIT;

/// Elements with unreadable values that are named after a night.
const UNREADABLE_SHOWN: usize = 10;
/// Kinds of values that were not used, and rules that met nothing.
const UNUSED_SHOWN: usize = 20;
/// Codes that the mapping does not know, named after a night.
const CODES_SHOWN: usize = 3;
/// Reports that a person should look at, named after a night.
const REMARKS_SHOWN: usize = 10;
/// How often the daemon looks at the clock and at what waits in the outbox: a clock that jumps is noticed within it.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The shortest sleep, so that a night due at this very moment is not asked for in a spin.
const LOOK_LEAST: Duration = Duration::from_millis(10);

/// Run a night at the scheduled times, or one night now
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site's configuration
    #[arg(long, value_name = "FILE", default_value = "site.toml", env = "WATERSHED_CONFIG", hide_env_values = true)]
    pub config: PathBuf,
    /// Run one night now, or finish the one that was interrupted, and exit
    #[arg(long)]
    pub once: bool,
    /// The night's "now", in place of the clock's, to repeat a night of the past: 2026-01-02T01:30:00Z
    #[arg(long, value_name = "INSTANT", requires = "once")]
    pub as_of: Option<Timestamp>,
}

/// Checks everything, then runs.
pub fn run(args: &Args, context: &Context) -> Result<Ending, Failure> {
    if let Some(at) = args.as_of.filter(|at| *at > Timestamp::now()) {
        return Err(Failure::usage(format!("`--as-of {at}` has not come yet: a night then would report months that are not over")));
    }
    let (site, checked, findings) = checked(&args.config)?;
    let warnings = findings.iter().filter(|finding| finding.severity == Severity::Warning).count();
    if warnings > 0 {
        tracing::warn!(target: TALK, "{} of configuration, measures or mapping; `watershed check --offline --config {}` shows them", counted(warnings, "warning"), args.config.display());
    }
    for open in doubtful::open_keys(&site) {
        tracing::warn!(target: TALK, "{}: {}", open.message, open.help.unwrap_or_default());
    }
    let adapter = adapter(&site, checked)?;
    super::block_on(async {
        let (asker, stop) = watch::channel(false);
        tokio::spawn(async move {
            super::asked_to_stop().await;
            let _ = asker.send(true);
            // Kept alive, so that waiting for it never ends by itself.
            std::future::pending::<()>().await;
        });
        if args.once { once(&adapter, args.as_of, &stop, context).await } else { daemon(&site, &adapter, &stop).await }
    })
}

/// Reads, checks and opens; says everything that is wrong at once.
pub fn open(path: &Path) -> Result<(Loaded<config::Site>, Adapter), Failure> {
    let (site, checked) = read(path)?;
    let adapter = adapter(&site, checked)?;
    Ok((site, adapter))
}

/// Reads and checks; what is no error `watershed check` shows.
pub fn read(path: &Path) -> Result<(Loaded<config::Site>, Setup), Failure> {
    checked(path).map(|(site, checked, _)| (site, checked))
}

/// The same with what is no error.
fn checked(path: &Path) -> Result<(Loaded<config::Site>, Setup, Vec<Diagnostic>), Failure> {
    let (site, findings) = config::load_site(path);
    let Some(site) = site else { return Err(Failure::diagnostics(&findings)) };
    let (checked, findings) = setup::read(&site);
    match checked {
        Some(checked) => Ok((site, checked, findings)),
        None => Err(Failure::diagnostics(&findings)),
    }
}

/// Opens the state of a site that was read and checked.
pub fn adapter(site: &Loaded<config::Site>, checked: Setup) -> Result<Adapter, Failure> {
    setup::open(site, checked, Arc::new(SystemClock)).map_err(unopened)
}

/// Whose turn it is when the state cannot be opened.
pub fn unopened(error: setup::OpenError) -> Failure {
    match error {
        setup::OpenError::State(error) => failure(error),
        setup::OpenError::Settings(_) | setup::OpenError::KeyLost { .. } => Failure::configuration(error.to_string()),
        setup::OpenError::Key { .. } => Failure::configuration(error.to_string())
            .hint("restore it from a copy; if there is none, move it away, and `watershed pull --anew` makes a new one and reads everything again"),
        setup::OpenError::File { .. } => Failure::unreachable(error.to_string()),
    }
}

async fn once(adapter: &Adapter, as_of: Option<Timestamp>, stop: &Stop, context: &Context) -> Result<Ending, Failure> {
    let asked = Asked { now: as_of.unwrap_or_else(Timestamp::now), scheduled: None };
    let night = adapter.night(&asked, stop, &Silent).await.map_err(failure)?;
    let change = adapter.store.with(|connection| mapping_change(connection, &night.run)).map_err(super::state_failure)?;
    match context.format {
        Format::Json => super::print_json(&as_json(&night, change.as_deref())),
        Format::Human => super::print(&as_text(adapter, &night, change.as_deref())),
    }
    super::deliver::verdict(Some(&adapter.store), &night.delivered)?;
    let of_the_data = night.unmapped.iter().any(Unmapped::is_of_the_data);
    Ok(if night.held > 0 || night.run.complete == Some(false) || of_the_data { Ending::Findings } else { Ending::Fine })
}

/// How the mapping of a night differs from that of the one before, if its version does not tell.
pub fn mapping_change(connection: &Connection, run: &Run) -> Result<Option<String>, StoreError> {
    let before = runs::evaluated_before(connection, run.id)?;
    let stored = |run: &Run| run.lineage.as_deref().and_then(Lineage::stored);
    Ok(stored(run).zip(before.as_ref().and_then(stored)).and_then(|(own, earlier)| own.mapping_change(&earlier)))
}

/// The same for people.
pub fn change_as_text(change: Option<&str>) -> String {
    change.map(|change| format!("\n{change}: numbers change by it")).unwrap_or_default()
}

fn as_json(night: &Night, change: Option<&str>) -> serde_json::Value {
    let remaining = night.delivered.remaining;
    json!({
        "id": night.run.id, "startedAt": night.run.started_at.to_string(), "resumed": night.resumed, "state": night.run.state.word(),
        "complete": night.run.is_complete(), "gaps": night.run.all_gaps(), "quarantined": night.run.quarantined(), "patients": night.run.patients,
        "held": night.held, "feed": night.run.feed, "delivered": night.delivered.delivered, "confirmed": night.delivered.confirmed, "restored": night.delivered.restored,
        "waiting": remaining.waiting, "confirming": remaining.confirming, "rejected": remaining.rejected, "contradicted": remaining.contradicted,
        "reason": night.run.reason, "remarks": night.remarks, "mappingChange": change,
        "unreadable": unreadable_as_json(&night.unmapped), "notUsed": unused(&night.unmapped),
        "unmapped": night.unmapped.iter().filter(|found| !found.is_of_the_data() && unused_as_text(found).is_none()).count(),
    })
}

/// What no mapping could mend, for programs.
pub fn unreadable_as_json(found: &[Unmapped]) -> serde_json::Value {
    found
        .iter()
        .filter(|found| found.is_of_the_data())
        .map(|found| json!({ "problem": found.problem, "element": found.element, "patients": found.patients, "meant": found.meant() }))
        .collect()
}

/// The same in a line of its own for each element; nothing where there is none.
pub fn unreadable_as_text(found: &[Unmapped]) -> String {
    let found: Vec<&Unmapped> = found.iter().filter(|found| found.is_of_the_data()).collect();
    let line = |found: &&Unmapped| {
        let meant = meant_as_text(found.meant());
        let of = counted(found.patients, "patient");
        if found.is_absent() && found.element == "Patient" {
            return format!("\ndata name {of} who did not come: they are not counted, and all reports are partial");
        }
        if found.is_absent() {
            return format!(
                "\n{of} name another in their place (`{}`, `replaced-by`) who did not come: they count themselves, and all reports are partial until who took their place comes, of whom a Group need not know: \
                 EHR team: add these to the Group, or let this client read them; whoever fills `source.folder`: write them too",
                found.element
            );
        }
        let whose = if found.system.is_empty() { String::new() } else { format!(" (observations `{}`)", found.code) };
        format!("\n`{}`{whose} of {of} cannot be read{meant}: what it says is not known, and reports that ask for it are partial", found.element)
    };
    let more = found.len().saturating_sub(UNREADABLE_SHOWN);
    let more = if more > 0 { format!("\n{} more elements cannot be read", more) } else { String::new() };
    found.iter().take(UNREADABLE_SHOWN).map(line).collect::<String>() + &more
}

/// What became of a value that is there and was not used as it stands, or of a code by another name; nothing of anything else.
pub fn unused_as_text(found: &Unmapped) -> Option<String> {
    let Unmapped { problem, element, system, code, found, expected, patients } = found;
    let of = counted(*patients, "patient");
    let what = if code.is_empty() { format!("`{element}`") } else { format!("`{element}` of `{code}`") };
    let unit = match found.as_str() {
        "" => "no unit".to_owned(),
        NO_UNIT => NO_UNIT.to_owned(),
        found => format!("the unit `{found}`"),
    };
    Some(match problem.as_str() {
        "comparator" => format!("{what} of {of} has a comparator, as `>` or `<`: how large it is is not known, and its value was not used"),
        "unlike-unit" if expected.is_empty() => format!("{what} of {of} has {unit}, which is none of UCUM: its value was not used"),
        "unlike-unit" if found.is_empty() => format!("{what} of {of} has no unit, and is compared with `{expected}`: its value was not used"),
        "unlike-unit" => format!("{what} of {of} has {unit}, which cannot be compared with `{expected}`: its value was not used"),
        "other-scale" if found.is_empty() => {
            format!("{what} of {of} has no unit, and was compared with `{expected}` as a pure number, as 0.07 is 7 %: have its unit written, if it is another")
        }
        "other-scale" => format!(
            "{what} of {of} has {unit}, which converts to `{expected}` and may be of another scale, as hemoglobin A1c by IFCC and by NGSP: it was compared as converted; have it written in the unit that is asked for"
        ),
        "other-type" => format!("{what} of {of} stands where a quantity is compared with `{expected}`: its value was not used"),
        "unknown-system" => {
            format!(
                "`{element}` of {of} has codes of `{system}`, which no rule of codes and no measure names; `{expected}` is near, and codes under two names are never equal: have them written by that name, or translated by a site's mapping"
            )
        }
        "near-codes" => {
            let what = match system.as_str() {
                "" => format!("has codes without a system, {found}, which measures ask for of `{expected}`"),
                system if system == expected => format!("has codes of `{system}` that are nearly what measures ask for, {found}"),
                system => format!("has codes of `{system}`, {found}, which measures ask for of `{expected}`"),
            };
            format!("`{element}` of {of} {what}: they are counted nowhere; have them written as their system does, or translated by a site's mapping")
        }
        "without-status" => {
            format!("`{element}` of {of} is missing, which FHIR demands: what a measure asks of the status of such a resource is not known, and most count none without it")
        }
        "idle-rule" => {
            let rule = if code.is_empty() { format!("of `{system}`") } else { format!("of `{code}` of `{system}`") };
            let near = if expected.is_empty() { String::new() } else { format!("; `{expected}` is there, and near") };
            format!("the mapping's rule {rule} at `{element}` matched nothing in the data{near}")
        }
        "idle-entry" => {
            format!("the entry `{code}` of the mapping's rule of `{system}` at `{element}` matched nothing in the data; `{expected}` is there, which no entry translates, and near")
        }
        "idle-entries" => {
            let rule = if code.is_empty() { format!("of `{system}`") } else { format!("of `{code}` of `{system}`") };
            format!("of the mapping's rule {rule} at `{element}` {found}")
        }
        _ => return None,
    })
}

/// All of which [`unused_as_text`] says something; what may cost all that a rule is for comes first.
pub fn unused(found: &[Unmapped]) -> Vec<&Unmapped> {
    let mut unused: Vec<&Unmapped> = found.iter().filter(|found| unused_as_text(found).is_some()).collect();
    unused.sort_by_key(|found| {
        ["idle-rule", "idle-entry", "unknown-system", "near-codes"]
            .iter()
            .position(|first| *first == found.problem)
            .unwrap_or(2)
    });
    unused
}

/// The same of all that was found, a line for each. That some of a table's entries are rare is for `check` and `status`.
pub fn all_unused_as_text(found: &[Unmapped]) -> String {
    let lines: Vec<String> = unused(found).into_iter().filter(|found| found.problem != "idle-entries").filter_map(unused_as_text).collect();
    let more = lines.len().saturating_sub(UNUSED_SHOWN);
    let more = if more > 0 { format!("\n{more} more (`watershed status` lists them)") } else { String::new() };
    lines.iter().take(UNUSED_SHOWN).map(|line| format!("\n{line}")).collect::<String>() + &more
}

/// How much the site's mapping does not know: the data may be complete, and nobody be counted.
pub fn unmapped_as_text(found: &[Unmapped]) -> String {
    let found: Vec<&Unmapped> = found.iter().filter(|found| !found.is_of_the_data() && unused_as_text(found).is_none()).collect();
    let Some(most) = found.iter().map(|found| found.patients).max() else { return String::new() };
    let mut codes: Vec<&&Unmapped> = found.iter().filter(|found| found.is_unmapped_code()).collect();
    codes.sort_by_key(|found| Reverse(found.patients));
    let shown: Vec<String> = codes
        .iter()
        .take(CODES_SHOWN)
        .map(|found| format!("`{}` of {}", found.shown_code(), counted(found.patients, "patient")))
        .collect();
    let codes = if shown.is_empty() { String::new() } else { format!("; most often {}", shown.join(", ")) };
    format!("unknown to the mapping: {} of the site's codes, answers or units, of up to {}{codes} (`watershed status` lists them)", found.len(), counted(most, "patient"))
}

/// What a person should look at, a line for each report.
fn remarks_as_text(found: &[ReportFindings]) -> String {
    let line = |one: &ReportFindings| format!("\n{}", look_at(one));
    let more = found.len().saturating_sub(REMARKS_SHOWN);
    let more = if more > 0 { format!("\n{} more to look at (`watershed status` lists them)", counted(more, "report")) } else { String::new() };
    found.iter().take(REMARKS_SHOWN).map(line).collect::<String>() + &more
}

/// What a person should look at in a report.
pub(super) fn look_at(one: &ReportFindings) -> String {
    let name = one.measure.rsplit('/').next().unwrap_or_default();
    format!("look at {name}, {} to {}: {}", one.period_start, one.period_end, one.findings.replace('\n', ". "))
}

/// The code of FHIR's that was probably meant by what stands there.
pub fn meant_as_text(meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |code| format!(" (it is no code of FHIR's; `{code}` is near)"))
}

/// Whether everything and everybody came, or how much did not.
pub(super) fn data_as_text(run: &Run) -> String {
    match run.is_complete() {
        Some(true) => "complete".to_owned(),
        Some(false) => format!("partial ({}, {} in quarantine)", counted(run.gap_count(), "gap"), run.quarantined()),
        None => String::new(),
    }
}

fn as_text(adapter: &Adapter, night: &Night, change: Option<&str>) -> String {
    let data = data_as_text(&night.run);
    // Why a feed was rejected, or is not taken yet, stands below it on stderr.
    let feed = match &night.delivered {
        Delivered { remaining: Remaining { rejected: 1.., .. }, .. } => "the registry rejected the feed",
        Delivered { remaining: Remaining { contradicted: 1.., .. }, .. } => "the registry refused the feed that it had accepted",
        Delivered { delivered: 1.., .. } => "feed delivered",
        Delivered { restored: 1.., .. } => "feed sent again, which the registry had lost",
        Delivered { confirmed: 1.., .. } => "nothing changed, which the registry was told",
        Delivered { remaining: Remaining { waiting: 1.., .. }, .. } => "the feed waits in the outbox",
        Delivered { remaining: Remaining { confirming: 1.., .. }, .. } => "nothing changed, which is not confirmed yet",
        _ => "no feed delivered",
    };
    let held = if night.held > 0 { format!(", {} held for a person (`watershed status`)", counted(night.held, "report")) } else { String::new() };
    let (unreadable, unused) = (unreadable_as_text(&night.unmapped), all_unused_as_text(&night.unmapped));
    let unmapped = Some(unmapped_as_text(&night.unmapped))
        .filter(|line| !line.is_empty())
        .map(|line| format!("\n{line}"))
        .unwrap_or_default();
    let (change, remarks) = (change_as_text(change), remarks_as_text(&night.remarks));
    format!(
        "{}: {}, data {data}, {} over {}, {feed}{held}{change}{unreadable}{unused}{unmapped}{remarks}",
        adapter.setup.site,
        counted(night.run.patients, "patient"),
        counted(adapter.setup.measures.len(), "measure"),
        counted(night.run.periods.len(), "period")
    )
}

/// Whose turn it is when a night did not come to its end.
pub fn failure(error: NightError) -> Failure {
    let text = error.to_string();
    if error.is_disk_full() {
        return Failure::unreachable(text).hint(
            "the disk is full: make room, or move the data directory (`site.data`) to a larger disk; for a time a pull needs as much room again as the data directory takes. Nothing that was stored is lost, and the next start goes on where this one stopped",
        );
    }
    match error {
        NightError::Source(SourceError::Options(_)) | NightError::Snapshot(SnapshotError::WrongKey { .. }) => Failure::configuration(text),
        NightError::Source(SourceError::Scopes { .. }) => Failure::rejected(text),
        NightError::Source(SourceError::Http(error)) if error.is_refusal() => Failure::rejected(text),
        NightError::Source(_) | NightError::Snapshot(_) | NightError::Outbox(_) | NightError::Stopped => Failure::unreachable(text),
        NightError::Store(error) => super::state_failure(error),
        NightError::Broken(_) => Failure::bug(text),
    }
}

/// Nights by the schedule until asked to stop; between them, what waits in the outbox is sent.
async fn daemon(site: &Loaded<config::Site>, adapter: &Adapter, stop: &Stop) -> Result<Ending, Failure> {
    let options = &site.value.schedule;
    let zone = TimeZone::get(&site.value.site.time_zone).map_err(|error| Failure::configuration(error.to_string()))?;
    let schedule = Schedule::parse(&options.cron, zone).map_err(Failure::configuration)?;
    let mut waiting = stop.clone();
    let started = Timestamp::now();
    let (mut announced, mut may_pull) = (None, true);
    tracing::info!(target: TALK, site = adapter.setup.site, cron = options.cron, zone = site.value.site.time_zone, "begins");
    while !*stop.borrow() {
        let now = Timestamp::now();
        let rest = match due(adapter, &schedule, options.catch_up, started, now) {
            Ok(Some(asked)) => night(adapter, &asked, stop).await,
            Ok(None) => {
                deliver(adapter, stop).await;
                if let (true, false, Some(hours)) = (may_pull, adapter.is_open_hour(now), &adapter.setup.source.tuning.off_hours) {
                    tracing::info!(target: TALK, off_hours = %hours, "nights wait for the off-hours");
                }
                may_pull = adapter.is_open_hour(now);
                let next = schedule.next(now);
                if next != announced {
                    announced = next;
                    tracing::info!(target: TALK, at = next.map(|at| at.to_string()), "waits for the next night");
                }
                until(next, Timestamp::now())
            }
            Err(error) => {
                tracing::error!(%error, "state database");
                LOOK_EVERY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            _ = waiting.wait_for(|asked| *asked) => {}
        }
    }
    tracing::info!(target: TALK, "ends as asked");
    Ok(Ending::Fine)
}

/// How long to sleep: to the next night, but never so long that a clock that jumped goes unnoticed.
fn until(next: Option<Timestamp>, now: Timestamp) -> Duration {
    let wait = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
    wait.map_or(LOOK_EVERY, |wait| wait.clamp(LOOK_LEAST, LOOK_EVERY))
}

/// The night that should run now: one that was interrupted, or the latest scheduled instant that none answered.
fn due(adapter: &Adapter, schedule: &Schedule, catch_up: bool, started: Timestamp, now: Timestamp) -> Result<Option<Asked>, StoreError> {
    let (open, answered) = adapter.store.with(|connection| Ok((runs::open(connection)?, runs::last_scheduled(connection)?)))?;
    // A night that must ask the EHR waits for its off-hours.
    let may_pull = adapter.is_open_hour(now);
    if let Some(run) = open {
        let asked = Asked { now, scheduled: run.scheduled_at };
        return Ok(Some(asked).filter(|_| may_pull || run.state != State::Pulling));
    }
    // A daemon that never ran a night has missed none; one that must not catch up has missed none before its start.
    let since = answered.filter(|answered| catch_up || *answered >= started).unwrap_or(started);
    Ok(schedule.missed(since, now).filter(|_| may_pull).map(|scheduled| Asked { now, scheduled: Some(scheduled) }))
}

/// Runs a night; how long to rest after it. One that failed may be open still, and is not resumed in a spin.
async fn night(adapter: &Adapter, asked: &Asked, stop: &Stop) -> Duration {
    match adapter.night(asked, stop, &Silent).await {
        Ok(night) => {
            tracing::info!(
                target: TALK,
                night = night.run.id,
                complete = night.run.complete,
                held = night.held,
                to_look_at = night.remarks.len(),
                delivered = night.delivered.delivered,
                remaining = night.delivered.remaining.in_words(),
                "night done"
            );
            Duration::ZERO
        }
        Err(NightError::Stopped) => {
            tracing::info!(target: TALK, "night stopped; the next start resumes it");
            Duration::ZERO
        }
        Err(error) => {
            tracing::error!(%error, "night failed");
            LOOK_EVERY
        }
    }
}

async fn deliver(adapter: &Adapter, stop: &Stop) {
    let mut stop = stop.clone();
    tokio::select! {
        delivered = adapter.deliver() => {
            if let Err(error) = delivered {
                tracing::error!(%error, "delivery");
            }
        }
        _ = stop.wait_for(|asked| *asked) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::OutboxError;
    use crate::store::runs::NOT_SHOWN;

    #[test]
    fn what_the_mapping_does_not_know_is_told_with_its_most_frequent_codes() {
        let of = |problem: &str, code: &str, patients| Unmapped {
            problem: problem.to_owned(),
            element: "Observation.code".to_owned(),
            system: "http://ours/lab".to_owned(),
            code: code.to_owned(),
            found: String::new(),
            expected: String::new(),
            patients,
        };
        let rest = format!("(2 texts {NOT_SHOWN})");
        let found = [of("unmapped-code", "HB", 7), of("unmapped-code", "GLUC", 12), of("unmapped-code", &rest, 40), of("idle-entry", "GLU", 0)];
        let expected = "unknown to the mapping: 3 of the site's codes, answers or units, of up to 40 patients; most often `GLUC` of 12 patients, `HB` of 7 patients (`watershed status` lists them)";
        assert_eq!(unmapped_as_text(&found), expected);
        assert_eq!(unmapped_as_text(&found[3..]), "");
    }

    #[test]
    fn a_full_disk_is_told_as_one_wherever_it_is_met() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let full_database = || {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch("CREATE TABLE t (a); PRAGMA max_page_count = 3").unwrap();
            connection.execute("INSERT INTO t VALUES (zeroblob(100000))", []).unwrap_err()
        };
        let file = |error| SnapshotError::File { path: "data/snapshot/1".into(), error };
        for error in [
            NightError::from(SourceError::Snapshot(file(full()))),
            NightError::Snapshot(SnapshotError::Store(StoreError::Sqlite(full_database()))),
            NightError::Store(StoreError::Sqlite(full_database())),
            NightError::Outbox(OutboxError::Database(full_database())),
        ] {
            let told = failure(error);
            assert!(told.kind == super::super::Kind::Unreachable && told.hints.iter().any(|hint| hint.starts_with("the disk is full: make room")), "{told:?}");
        }
        let denied = failure(NightError::Snapshot(file(std::io::ErrorKind::PermissionDenied.into())));
        assert_eq!(denied.hints, Vec::<String>::new());
    }
}
