//! `watershed status`: the last nights, what waits, what was held back and what was not understood.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::json;

use self::older::Older;
use super::{Context, Ending, Failure, Format};
use crate::config::{self, Loaded};
use crate::diagnostic::counted;
use crate::outbox::{self, Listed, Manifest, Remaining};
use crate::pipeline::Lineage;
use crate::source::account::{self, Account, Due, Open, Row};
use crate::source::duty::Who;
use crate::store::quarantine;
use crate::store::runs::{self, ReportFindings, Run, State, Unmapped};
use crate::terminology::units::NO_UNIT;

mod older;

/// Unmapped codes shown to people.
const UNMAPPED_SHOWN: usize = 20;
/// What to do where the registry answers and does not let this site in.
const NOT_LET_IN: &str = "; the registry does not let this site in: send the network what `watershed key public` prints of the registry's key, and compare `registry.client_id`";
/// Rows of the ledger shown to people: gaps first.
const LEDGER_SHOWN: usize = 60;

/// Show the last nights, what waits and what needs a person
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site's configuration
    #[arg(long, value_name = "FILE", default_value = "site.toml", env = "WATERSHED_CONFIG", hide_env_values = true)]
    pub config: PathBuf,
    /// How many nights to show
    #[arg(long, default_value_t = 7)]
    pub nights: u32,
}

/// What there is to show.
struct Status {
    site: String,
    runs: Vec<Run>,
    account: Option<Account>,
    open: Option<Open>,
    held: Vec<ReportFindings>,
    /// Of those that were sent: what a person should look at.
    remarks: Vec<ReportFindings>,
    /// That the last night meant days in another zone than the configuration does.
    zone: Option<String>,
    unmapped: Vec<Unmapped>,
    /// How the mapping of the last night differs from the one before, if its version does not tell.
    change: Option<String>,
    /// Reports of the latest night that are partial, by measure, and of how many.
    partial: BTreeMap<String, (usize, usize)>,
    /// What stands as it was counted before something was corrected, and the command that counts it again.
    older: (Vec<Older>, Option<String>),
    /// Whether only some patients are asked for in full.
    progressive: bool,
    waiting: Vec<Listed>,
    quarantined: usize,
}

/// Reads the state beside a running daemon. Ends with findings when something needs a person.
pub fn run(args: &Args, context: &Context) -> Result<Ending, Failure> {
    let site = super::site(&args.config)?;
    let status = read(&site, args.nights)?;
    match context.format {
        Format::Json => super::print_json(&as_json(&status)),
        Format::Human => super::print(&as_text(&status)),
    }
    Ok(if needs_a_person(&status) { Ending::Findings } else { Ending::Fine })
}

fn read(site: &Loaded<config::Site>, nights: u32) -> Result<Status, Failure> {
    let (name, progressive) = (site.value.site.id.clone(), site.value.source.progressive);
    let Some(store) = super::state(site)? else {
        return Ok(Status {
            site: name,
            runs: Vec::new(),
            account: None,
            open: None,
            held: Vec::new(),
            remarks: Vec::new(),
            zone: None,
            unmapped: Vec::new(),
            change: None,
            partial: BTreeMap::new(),
            older: (Vec::new(), None),
            progressive,
            waiting: Vec::new(),
            quarantined: 0,
        });
    };
    let read = store.with(|connection| {
        let runs = runs::list(connection, nights.max(1))?;
        let latest = runs.iter().find(|run| run.lineage.is_some());
        let change = latest.map(|run| super::run::mapping_change(connection, run)).transpose()?.flatten();
        let zone = latest.and_then(|run| zone_change(run.lineage.as_deref()?, &site.value.site.time_zone));
        let latest = latest.map(|run| run.id);
        let held = latest.map(|id| runs::held(connection, id)).transpose()?.unwrap_or_default();
        let remarks = latest.map(|id| runs::remarks(connection, id)).transpose()?.unwrap_or_default();
        let unmapped = latest.map(|id| runs::unmapped(connection, id)).transpose()?.unwrap_or_default();
        let feed = runs.iter().find_map(|run| run.feed.as_deref());
        // Of a feed that was given up for what the registry holds there is none.
        let manifest = feed.and_then(|feed| outbox::manifest_of(connection, feed).ok());
        let sent = outbox::list(connection).and_then(|listed| Ok((listed, manifest, outbox::standing(connection)?)));
        Ok((runs, (account::last(connection)?, account::open(connection)?), (held, remarks, zone), (unmapped, change), sent))
    });
    let (mut runs, (account, open), (held, remarks, zone), (unmapped, change), sent) = read.map_err(super::state_failure)?;
    let (mut waiting, manifest, standing) = sent.map_err(|error| Failure::unreachable(error.to_string()))?;
    waiting.retain(|feed| feed.state.is_to_be_sent() || feed.state.needs_a_person());
    // What a night left undone may have been done since.
    for run in runs.iter_mut().filter(|run| run.state == State::Finished) {
        run.reason.take_if(|_| !waiting.iter().any(|feed| Some(&feed.feed) == run.feed.as_ref()));
    }
    let quarantined = store.with(|connection| quarantine::list(connection, Some(quarantine::State::Held)));
    let quarantined = quarantined.map_err(super::state_failure)?.len();
    let measures = manifest.iter().flat_map(|manifest| &manifest.reports).map(|entry| entry.key.measure.clone()).collect();
    let older = older::of(&standing, &measures);
    let command = older::command(&older, site.value.measures.months, Timestamp::now());
    Ok(Status {
        site: name,
        runs,
        account,
        open,
        held,
        remarks,
        zone,
        unmapped,
        change,
        partial: manifest.as_ref().map(partial).unwrap_or_default(),
        older: (older, command),
        progressive,
        waiting,
        quarantined,
    })
}

/// The measures of a feed of which some reports are partial: how many, of how many.
fn partial(manifest: &Manifest) -> BTreeMap<String, (usize, usize)> {
    let mut measures: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for entry in &manifest.reports {
        let (partial, all) = measures.entry(entry.key.measure.clone()).or_default();
        *partial += usize::from(!entry.complete);
        *all += 1;
    }
    measures.retain(|_, (partial, _)| *partial > 0);
    measures
}

/// Said where a night meant its days in another zone than this.
fn zone_change(lineage: &str, zone: &str) -> Option<String> {
    Lineage { zone: zone.to_owned(), ..Lineage::default() }.zone_change(&Lineage::stored(lineage)?)
}

fn needs_a_person(status: &Status) -> bool {
    let failed = status.runs.first().is_some_and(|run| run.state == State::Failed);
    let due = status.account.iter().flat_map(|account| &account.rows).filter_map(|row| row.gap.as_ref());
    let is_due = due.into_iter().any(|gap| gap.who != Who::Nobody);
    let of_the_data = status.unmapped.iter().any(Unmapped::is_of_the_data);
    failed || is_due || of_the_data || !status.held.is_empty() || status.waiting.iter().any(|feed| feed.refused || feed.state.needs_a_person())
}

fn as_json(status: &Status) -> serde_json::Value {
    let night = |run: &Run| {
        json!({
            "id": run.id, "scheduledAt": run.scheduled_at.map(|at| at.to_string()), "startedAt": run.started_at.to_string(),
            "state": run.state.word(), "complete": run.is_complete(), "gaps": run.all_gaps(), "quarantined": run.quarantined(),
            "patients": run.patients, "feed": run.feed, "reason": run.reason, "finishedAt": run.finished_at.map(|at| at.to_string()),
        })
    };
    let feed = |feed: &Listed| json!({ "feed": feed.feed, "state": feed.state.word(), "attempts": feed.attempts, "reports": feed.reports, "reason": feed.reason, "refused": feed.refused });
    json!({
        "site": status.site,
        "nights": status.runs.iter().map(night).collect::<Vec<_>>(),
        "ledger": status.account,
        "openPull": status.open,
        "held": status.held,
        "remarks": status.remarks,
        "countedOtherwise": { "reports": status.older.0, "command": status.older.1 },
        "partial": status.partial.iter().map(|(measure, (partial, of))| json!({ "measure": measure, "reports": partial, "of": of })).collect::<Vec<_>>(),
        "zone": status.zone,
        "unmapped": status.unmapped,
        "mappingChange": status.change,
        "unmappedOf": if status.progressive { "who may be in an initial population" } else { "everybody" },
        "outbox": status.waiting.iter().map(feed).collect::<Vec<_>>(),
        "quarantined": status.quarantined,
    })
}

fn as_text(status: &Status) -> String {
    if status.runs.is_empty() && status.account.is_none() && status.open.is_none() && status.waiting.is_empty() {
        return format!("{}: no night yet; `watershed run --once` runs one", status.site);
    }
    let mut nights = super::table(&["night", "started", "state", "data", "patients", "feed", "remains"]);
    for run in &status.runs {
        let feed = run.feed.as_deref().unwrap_or_default().get(..8).unwrap_or_default();
        nights.add_row([
            run.id.to_string(),
            run.started_at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
            run.state.word().to_owned(),
            super::run::data_as_text(run),
            run.patients.to_string(),
            feed.to_owned(),
            run.reason.clone().unwrap_or_default(),
        ]);
    }
    let mut text = match status.runs.is_empty() {
        true if status.account.is_none() && status.open.is_some() => format!("{}: the first pull is under way\n", status.site),
        true => format!("{}: no night yet\n", status.site),
        false => format!("{}\n{nights}\n", status.site),
    };
    text.push_str(&partial_as_text(&status.partial));
    text.push_str(&older::as_text(&status.older.0, status.older.1.as_deref()));
    // In the words of the night itself: what came may be complete, and the reports partial.
    let unreadable = super::run::change_as_text(status.change.as_deref()) + &super::run::unreadable_as_text(&status.unmapped);
    if !unreadable.is_empty() {
        text.push_str(&format!("{}\n", unreadable.trim_start()));
    }
    text.push_str(&format!("feeds: {}; lines and resources in quarantine: {}\n", Remaining::of(status.waiting.iter().map(|feed| feed.state)).in_words(), status.quarantined));
    if let Some(zone) = &status.zone {
        text.push_str(&format!("{zone}\n"));
    }
    if let Some(open) = &status.open {
        let (begun, what) = (minute(&open.started_at), if open.full { "everything" } else { "changes" });
        text.push_str(&format!(
            "a pull that began {begun} ({what}) is not finished and goes on: {} of its queries and files done, {} received\n",
            open.done,
            counted(open.received, "resource")
        ));
    }
    text.push_str(&status.account.as_ref().map(ledger_as_text).unwrap_or_default());
    if !status.waiting.is_empty() {
        let mut feeds = super::table(&["feed", "state", "attempts", "reason", "what that means"]);
        for feed in &status.waiting {
            feeds.add_row([
                feed.feed.get(..8).unwrap_or_default().to_owned(),
                feed.state.word().to_owned(),
                feed.attempts.to_string(),
                feed.reason.clone().unwrap_or_default(),
                format!("{}{}", feed.state.meaning(), if feed.refused { NOT_LET_IN } else { "" }),
            ]);
        }
        text.push_str(&format!("\noutbox\n{feeds}\n"));
    }
    text.push_str(&reports_as_text(&status.held, ["held report", "period", "why"]));
    text.push_str(&reports_as_text(&status.remarks, ["report to look at, sent", "period", "what was found"]));
    if !status.unmapped.is_empty() {
        text.push_str(&format!("\n{}", not_understood(&status.unmapped)));
        // What is not asked for is not counted.
        let of =
            if status.progressive { ", of patients who may be in an initial population: of others not all is asked for (`source.progressive = false` asks for all)" } else { "" };
        text.push_str(&format!("{of}\n"));
    }
    text
}

fn partial_as_text(partial: &BTreeMap<String, (usize, usize)>) -> String {
    let of = |(measure, (partial, all)): (&String, &(usize, usize))| format!("{} ({partial} of {all})", measure.rsplit('/').next().unwrap_or_default());
    let told: Vec<String> = partial.iter().map(of).collect();
    if told.is_empty() { String::new() } else { format!("partial reports of the latest night: {}\n", told.join(", ")) }
}

/// A table of what neither the mapping nor the measures understood, and of how many findings it is.
pub(super) fn not_understood(found: &[Unmapped]) -> String {
    let mut table = super::table(&["not understood", "element", "system", "code", "what stands there", "patients"]);
    for found in found.iter().take(UNMAPPED_SHOWN) {
        table.add_row([found.problem.clone(), found.element.clone(), found.system.clone(), found.shown_code(), what_stands_there(found), found.patients.to_string()]);
    }
    format!("{table}\n{} of {}", found.len().min(UNMAPPED_SHOWN), counted(found.len(), "finding"))
}

/// The unit or code that stands there and the one that should, or what is near to a name.
fn what_stands_there(found: &Unmapped) -> String {
    let quoted = |text: &str| if text == NO_UNIT { text.to_owned() } else { format!("`{text}`") };
    let expected = &found.expected;
    match (found.problem.as_str(), found.found.as_str()) {
        (_, "") if expected.is_empty() => String::new(),
        ("idle-entries", text) => text.to_owned(),
        ("near-codes", text) if found.system == *expected => text.to_owned(),
        ("near-codes", text) => format!("{text}, expected of `{expected}`"),
        ("other-type", _) => format!("expected a quantity in `{expected}`"),
        ("unknown-system" | "idle-rule" | "idle-entry", _) => format!("did you mean `{expected}`?"),
        (_, "") => format!("no unit, expected `{expected}`"),
        (_, text) if expected.is_empty() => quoted(text),
        (_, text) => format!("{}, expected `{expected}`", quoted(text)),
    }
}

/// A table of what was found of reports; nothing where there are none.
fn reports_as_text(reports: &[ReportFindings], heads: [&str; 3]) -> String {
    let mut table = super::table(&heads);
    for report in reports {
        table.add_row([format!("{}|{}", report.measure, report.version), format!("{} to {}", report.period_start, report.period_end), report.findings.clone()]);
    }
    if reports.is_empty() { String::new() } else { format!("\n{table}\n") }
}

/// The completeness ledger of the last pull: gaps first, then what came whole.
fn ledger_as_text(account: &Account) -> String {
    let mut table = super::table(&["type", "query", "expected", "received", "usually", "why not all, and who must do what"]);
    let mut rows: Vec<&Row> = account.rows.iter().collect();
    rows.sort_by_key(|row| (row.gap.is_none(), row.note.is_none()));
    let mut told = std::collections::BTreeSet::new();
    for row in rows.iter().take(LEDGER_SHOWN) {
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        // A type's volume is told once, beside its first query.
        let volume = account.volumes.iter().find(|volume| volume.resource_type == row.resource_type && told.insert(&row.resource_type));
        let usually = match volume.and_then(|volume| Some((volume.median?, volume.received, volume.pulls))) {
            Some((median, received, pulls)) if median > 0 => format!("{median} ({:+.0} %, {})", (received as f64 / median as f64 - 1.0) * 100.0, counted(pulls, "pull")),
            _ => String::new(),
        };
        let told = |due: &Due| format!("{}; {}: {}", due.reason, due.who, due.what);
        let noted = |due: &Due| if due.code.is_acceptable() { format!("{}; accepted", due.reason) } else { told(due) };
        let why = row.gap.as_ref().map(told).or(row.note.as_ref().map(noted)).unwrap_or_default();
        table.add_row([row.resource_type.clone(), row.query.clone(), number(row.expected), row.received.to_string(), usually, why]);
    }
    let more = rows.len().saturating_sub(LEDGER_SHOWN);
    let more = if more == 0 { String::new() } else { format!("and {more} more that came whole or not (`--format json`)\n") };
    let what = if account.full { "everything" } else { "changes" };
    let begun = minute(&account.started_at);
    let notes = account.rows.iter().filter(|row| row.note.is_some()).count();
    let verdict = match (account.complete, notes) {
        (false, _) => "partial",
        (true, 0) => "complete",
        (true, _) => "complete, with notes",
    };
    let until = account
        .next_full
        .as_deref()
        .map_or_else(String::new, |day| format!("what changes at the server without a new `meta.lastUpdated` may go unnoticed until everything is read again, on {day}\n"));
    format!("\nledger of the last pull ({what}, begun {begun}): {verdict}\n{table}\n{more}{until}")
}

/// An instant as stored, to the minute.
fn minute(instant: &str) -> String {
    format!("{} UTC", instant.get(..16).unwrap_or(instant).replace('T', " "))
}
