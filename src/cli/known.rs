//! `watershed known`: a site's measures over what was known on a day, from its snapshot; the EHR is not asked.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::watch;

use super::{Context, Ending, Failure, Format, run, status};
use crate::config::setup;
use crate::diagnostic::counted;
use crate::feed;
use crate::measure::period::Period;
use crate::outbox;
use crate::pipeline::evaluation::{Made, Sums};
use crate::pipeline::schedule::Schedule;
use crate::pipeline::{Lineage, Setup, evaluation};
use crate::source::Silent;
use crate::source::plan::is_asked_for;
use crate::store::runs::{self, ANY_TYPE, Beside, ReportFindings, Run};

/// The site's measures over what was known on a day, from its snapshot, without asking the EHR
///
/// With the same measures, mapping and value sets, the reports are those of the night that evaluated these data, byte for byte;
/// with other ones, they show what the change does to numbers of the past. Nothing is stored or sent.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site's configuration
    #[arg(long, value_name = "FILE", default_value = "site.toml", env = "WATERSHED_CONFIG", hide_env_values = true)]
    config: PathBuf,
    /// The day, as it ended in the site's zone, or an instant: 2026-01-02 or 2026-01-02T01:30:00Z; now when left out
    #[arg(long, value_name = "DAY")]
    on: Option<String>,
    /// Reporting period, both days included, as `2026-01-01/2026-01-31`; `2026-01` and `2026` are short forms; may be repeated; the
    /// periods of that night when left out
    #[arg(long = "period", num_args = 1.., value_name = "START/END")]
    periods: Vec<String>,
}

/// Writes the reports to stdout, as a table, or one a line as JSON. Ends with findings when the data were partial or a report failed
/// its check.
pub fn run(args: &Args, context: &Context) -> Result<Ending, Failure> {
    let (site, checked) = run::read(&args.config)?;
    let now = Timestamp::now();
    let at = args.on.as_deref().map_or(Ok(now), |text| instant(text, &checked.zone))?;
    let unknown = |more: String| Failure::configuration(format!("nothing is known of that day{more}")).hint("`watershed status` lists the nights");
    let Some(store) = super::state(&site)? else { return Err(unknown(": there has been no pull yet".to_owned())) };
    let looked = store
        .with(|connection| Ok((runs::known_at(connection, at)?, runs::known_since(connection)?)))
        .map_err(super::state_failure)?;
    let (mut night, since) = match looked {
        (Some(night), since) => (night, since),
        (None, since) => return Err(unknown(since.map_or_else(String::new, |since| format!(": the first pull ended at {since}")))),
    };
    let Some(snapshot) = setup::snapshot_beside(&site, store).map_err(run::unopened)? else { return Err(unknown(since.unwrap_or_default())) };
    if at > now {
        return Err(Failure::usage(format!("`--on {at}` has not come yet")));
    }
    let asked = snapshot
        .store()
        .with(|connection| runs::types_asked_by(connection, night.pull_id.unwrap_or_default()))
        .map_err(super::state_failure)?;
    note_unasked(&mut night, &checked, &asked);
    let beside = snapshot
        .store()
        .with(|connection| runs::beside(connection, night.pull_id.unwrap_or_default()))
        .map_err(super::state_failure)?;
    if let (Some(beside), Ok(schedule)) = (&beside, Schedule::parse(&site.value.schedule.cron, checked.zone.clone())) {
        unknown_since(beside, &schedule, at, now).iter().for_each(|text| drop(writeln!(std::io::stderr(), "warning: {text}")));
    }
    night.periods = periods(&args.periods, std::mem::take(&mut night.periods), at, &checked)?;
    let (_asker, stop) = watch::channel(false);
    let sums = evaluation::evaluate(&checked, &snapshot, &night, &stop, &Silent).map_err(run::failure)?;
    night.absent = sums.missing_people();
    let made = evaluation::reports(&checked, &night, &sums).map_err(run::failure)?;
    match context.format {
        Format::Json => write(&made.reports),
        Format::Human => super::print(&as_text(&made.reports)),
    }
    say(&night, beside.map_or(night.started_at, |beside| beside.ended), &sums, &made);
    let is_whole = night.is_complete() == Some(true) && made.held.is_empty() && made.reports.iter().all(|report| report.complete);
    Ok(if is_whole { Ending::Fine } else { Ending::Findings })
}

/// The reports, one a line.
fn write(reports: &[outbox::Report]) {
    let mut output = super::output();
    let mut lines = reports.iter().map(|report| output.write_all(&report.body).and_then(|()| output.write_all(b"\n")));
    // Whoever reads may have seen enough.
    let _ = lines.try_for_each(|written| written);
}

/// The same for people: a row for each group.
fn as_text(reports: &[outbox::Report]) -> String {
    let mut table = super::table(&["measure", "period", "populations", "score", "cannot be told", "data"]);
    for report in reports {
        let body: Value = serde_json::from_slice(&report.body).unwrap_or_default();
        let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let number = |value: Option<&Value>| value.filter(|value| value.is_number()).map(Value::to_string);
        for group in list(&body, "group") {
            let count = |population: &Value| Some(format!("{} {}", population.pointer("/code/coding/0/code")?.as_str()?, number(population.get("count"))?));
            let populations: Vec<String> = list(&group, "population").iter().filter_map(count).collect();
            let unit = group.pointer("/measureScore/unit").and_then(Value::as_str).unwrap_or_default();
            let score = number(group.pointer("/measureScore/value")).map_or_else(|| "none".to_owned(), |score| format!("{score} {unit}").trim_end().to_owned());
            let open = list(&group, "extension")
                .into_iter()
                .find(|one| one.get("url").and_then(Value::as_str).is_some_and(|url| url.ends_with("/cannot-tell")));
            let open: Vec<String> = open.iter().flat_map(|open| list(open, "extension")).filter_map(|part| number(part.get("valueInteger"))).collect();
            table.add_row([
                format!("{}|{}", report.key.measure, report.key.version),
                format!("{} to {}", report.key.period_start, report.key.period_end),
                populations.join(", "),
                score,
                open.join(" of "),
                if report.complete { "complete" } else { "partial" }.to_owned(),
            ]);
        }
    }
    table.to_string()
}

/// What the measures of today need and nobody asked for then is missing, whatever that night said of its own. Of a pull that no
/// night evaluated only the types are known that it and earlier ones asked for.
fn note_unasked(night: &mut Run, checked: &Setup, asked: &BTreeSet<String>) {
    let then = night.lineage.as_deref().and_then(|text| serde_json::from_str::<Lineage>(text).ok());
    let say = |text: String| drop(writeln!(std::io::stderr(), "warning: {text}"));
    let mut missing: Vec<String> = Vec::new();
    if let Some(then) = &then {
        let new = checked.lineage.measures.keys().filter(|name| !then.measures.contains_key(*name));
        new.for_each(|name| {
            say(format!("`{name}` was not among the measures of that night: what only it needs was not asked for"));
            missing.push(ANY_TYPE.to_owned());
        });
        if missing.is_empty() && then.asks_otherwise_than(&checked.lineage) {
            say("the measures, the mapping or the value sets are not those of that night: codes that they newly name were not asked for then".to_owned());
        }
    } else {
        let requirements = checked.measures.iter().flat_map(|measure| measure.program().requirements());
        let types: BTreeSet<&String> = requirements.map(|requirement| &requirement.resource_type).filter(|name| is_asked_for(name)).collect();
        types.into_iter().filter(|name| !asked.contains(*name) && !asked.contains(ANY_TYPE)).for_each(|name| {
            say(format!("no pull had asked for {name} by then"));
            missing.push(name.clone());
        });
    }
    for name in missing {
        *night.gaps.entry(name).or_default() += 1;
        night.complete = Some(false);
    }
}

/// That nothing is known of the time after the pull: a night was due, or the registry has a feed that none here made. Of a night that is
/// under way, or about to be, nothing is to be said.
fn unknown_since(beside: &Beside, schedule: &Schedule, at: Timestamp, now: Timestamp) -> Option<String> {
    let Beside { ended, next, lost } = beside;
    let answered = next.and_then(|next| schedule.missed(*ended, next)?.checked_sub(SignedDuration::from_secs(1)).ok());
    let is_missed = schedule.missed(*ended, answered.map_or(at, |before| before.min(at))).is_some();
    let until = next.unwrap_or(now);
    let why = match lost {
        Some(lost) => format!("nights were lost with a data directory, for the registry took a feed at {lost} that none here made"),
        None if is_missed => "nights did not run, or were lost with a data directory that was restored from a copy".to_owned(),
        None => return None,
    };
    Some(format!("nothing is known here of what changed between {ended} and {until}: {why}; these are the data of {ended}"))
}

/// The end of a day, or an instant.
fn instant(text: &str, zone: &TimeZone) -> Result<Timestamp, Failure> {
    feed::instant(text, zone).ok_or_else(|| Failure::usage(format!("`--on {text}` is no day and no instant")).hint("write it as 2026-01-02 or 2026-01-02T01:30:00Z"))
}

/// The periods asked for; else those of the night, or the complete months before the instant.
fn periods(asked: &[String], own: Vec<String>, at: Timestamp, checked: &Setup) -> Result<Vec<String>, Failure> {
    let day = at.to_zoned(checked.zone.clone()).date();
    if !asked.is_empty() {
        let over = |text: &String| {
            let period = Period::parse_in(text, &checked.zone).map_err(Failure::usage)?;
            if period.end >= day { Err(Failure::usage(format!("`--period {text}` was not over on {day}"))) } else { Ok(period.to_string()) }
        };
        return asked.iter().map(over).collect();
    }
    if !own.is_empty() {
        return Ok(own);
    }
    Ok(Period::complete_months(day, checked.months as usize).iter().map(Period::to_string).collect())
}

fn say(night: &Run, ended: Timestamp, sums: &Sums, made: &Made) {
    let data = run::data_as_text(night);
    let pull = night.pull_id.unwrap_or_default();
    for report in &made.held {
        let ReportFindings { measure, version, period_start, period_end, findings } = report;
        let _ = writeln!(std::io::stderr(), "held back: {measure}|{version}, {period_start} to {period_end}: {}", findings.replace('\n', "; "));
    }
    for report in &made.remarks {
        let _ = writeln!(std::io::stderr(), "{}", run::look_at(report));
    }
    let held = made.held.len();
    let _ = writeln!(std::io::stderr(), "as known after pull {pull}, which ended at {ended}: {}, data {data}, {held} failed their check", counted(sums.patients, "patient"));
    let found = sums.unmapped();
    let lines = run::unreadable_as_text(&found) + &run::all_unused_as_text(&found);
    lines.lines().filter(|line| !line.is_empty()).for_each(|line| drop(writeln!(std::io::stderr(), "{line}")));
    if !found.is_empty() {
        let _ = writeln!(std::io::stderr(), "{}", status::not_understood(&found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nights_that_are_not_here_are_told_and_one_under_way_is_not() {
        let schedule = Schedule::parse("30 1 * * *", TimeZone::UTC).unwrap();
        let at = |text: &str| format!("2026-01-{text}:00Z").parse::<Timestamp>().unwrap();
        let (ended, now) = (at("02T01:40"), at("09T12:00"));
        for (asked, next, lost, expected) in [
            ("02T23:59", Some("03T01:31"), None, None),
            ("03T01:35", Some("03T01:31"), None, None),
            ("02T23:59", Some("06T01:31"), None, None),
            ("03T23:59", Some("06T01:31"), None, Some("nights did not run, or were lost")),
            ("05T23:59", Some("06T01:31"), None, Some("between 2026-01-02T01:40:00Z and 2026-01-06T01:31:00Z")),
            ("02T12:00", None, None, None),
            ("09T11:00", None, None, Some("between 2026-01-02T01:40:00Z and 2026-01-09T12:00:00Z")),
            ("02T23:59", Some("03T01:31"), Some("02T20:00"), Some("the registry took a feed at 2026-01-02T20:00:00Z that none here made")),
        ] {
            let beside = Beside { ended, next: next.map(at), lost: lost.map(at) };
            let told = unknown_since(&beside, &schedule, at(asked), now);
            let is_right = match expected {
                None => told.is_none(),
                Some(words) => told.as_ref().is_some_and(|told| told.contains(words) && told.contains("these are the data of 2026-01-02T01:40:00Z")),
            };
            assert!(is_right, "{asked} {next:?}: {told:?}");
        }
    }
}
