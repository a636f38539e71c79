//! `watershed measure coverage`: which clauses of a measure its test patients, or real data, have seen both ways.

use std::path::PathBuf;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::super::{Context, Ending, Failure, Format, evaluate, print, print_json};
use crate::config::measures::{self, Loaded};
use crate::cql::evaluate::observe::{self, Observed, Seen};
use crate::diagnostic::{Location, counted};
use crate::fhir::record::Record;
use crate::fhir::shared::Shared;
use crate::measure::{Choices, Measure, MissingValueSets, Period};
use crate::source::folder;

/// Longest piece of text that is shown of a clause, in characters.
const SHOWN_CHARS_MAX: usize = 72;

/// Which clauses have been seen both ways
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Measure folders; with --data also FHIR Bundles or folders with Measure, Library and ValueSet resources
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Over these patients, as `evaluate` takes them, in place of the test patients beside the measure
    #[arg(long, num_args = 1.., value_name = "PATH", requires = "period")]
    data: Vec<PathBuf>,
    /// Reporting period of the data, as `2026-01-01/2026-12-31`, `2026-01` or `2026`
    #[arg(long, value_name = "START/END")]
    period: Option<String>,
    /// Value sets: files or folders
    #[arg(long = "valuesets", num_args = 1.., value_name = "PATH")]
    value_sets: Vec<PathBuf>,
    /// IANA zone in which days are meant; when left out UTC for data, as `evaluate` has it, and America/New_York for test
    /// patients, as `measure test` has it
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// Go on when a value set is missing, empty or not expanded
    #[arg(long)]
    incomplete_valuesets: bool,
}

/// One clause that was not seen both ways.
struct Gap {
    within: String,
    at: Location,
    never: &'static str,
}

/// What was seen of one measure.
struct Found {
    title: String,
    canonical: String,
    /// `11 cases`, `2000 patients`.
    over: String,
    clauses: usize,
    gaps: Vec<Gap>,
}

impl Found {
    fn new(measure: &Measure, over: String, observed: &Observed) -> Found {
        let program = measure.program();
        let mut found = Found { title: measure.definition.title.clone(), canonical: measure.definition.canonical(), over, clauses: 0, gaps: Vec::new() };
        let Some(library) = program.roots().first().copied() else { return found };
        for clause in observe::clauses(program, library) {
            let Some(at) = program.tree().location(library, clause.at) else { continue };
            found.clauses += 1;
            let never = match observed.seen(library, clause.at) {
                Seen { held: true, failed } if failed || clause.is_list => continue,
                Seen { held: true, .. } => "false",
                Seen { failed: true, .. } if clause.is_list => "with an item",
                Seen { failed: true, .. } => "true",
                _ => "reached",
            };
            found.gaps.push(Gap { within: clause.within, at, never });
        }
        found
    }

    fn seen(&self) -> usize {
        self.clauses - self.gaps.len()
    }

    fn human(&self) -> String {
        let Some(share) = (self.seen() * 100).checked_div(self.clauses) else {
            return format!("{}: no clauses of its own, over {}", self.title, self.over);
        };
        let mut text = format!("{}: {} of {} tested ({share} %), over {}", self.title, self.seen(), counted(self.clauses, "clause"), self.over);
        if self.gaps.is_empty() {
            return text;
        }
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["line", "in", "clause", "never"]);
        for gap in &self.gaps {
            table.add_row([&gap.at.line().to_string(), &gap.within, &shortened(gap.at.text()), gap.never]);
        }
        text.push_str(&format!("\n{table}"));
        text
    }

    fn machine(&self) -> Value {
        let gaps = self
            .gaps
            .iter()
            .map(|gap| json!({ "within": gap.within, "file": gap.at.source.name, "line": gap.at.line(), "column": gap.at.column(), "text": gap.at.text(), "never": gap.never }));
        json!({ "measure": self.canonical, "over": self.over, "clauses": self.clauses, "seen": self.seen(), "gaps": gaps.collect::<Vec<_>>() })
    }
}

/// One line of a clause.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or(&line)),
        None => line,
    }
}

/// Runs the command; a gap is a finding.
pub fn run(args: &Args, context: &Context) -> Result<Ending, Failure> {
    let name = args.timezone.as_deref().unwrap_or(if args.data.is_empty() { "America/New_York" } else { "UTC" });
    let zone = jiff::tz::TimeZone::get(name).map_err(|_| Failure::usage(format!("no time zone is named `{name}`")).hint("use an IANA name, as `America/New_York`"))?;
    let found = match &args.period {
        Some(period) if !args.data.is_empty() => over_data(args, &Period::parse_in(period, &zone).map_err(Failure::usage)?, &zone)?,
        _ => over_cases(args, &zone)?,
    };
    match context.format {
        Format::Human => print(&found.iter().map(Found::human).collect::<Vec<_>>().join("\n\n")),
        Format::Json => print_json(&Value::Array(found.iter().map(Found::machine).collect())),
    }
    Ok(if found.iter().all(|one| one.gaps.is_empty()) { Ending::Fine } else { Ending::Findings })
}

fn over_cases(args: &Args, zone: &jiff::tz::TimeZone) -> Result<Vec<Found>, Failure> {
    let value_sets = measures::read_value_sets(&args.value_sets).map_err(|fault| Failure::diagnostics(&[fault]))?;
    let mut found = Vec::new();
    let bench = super::bench(&args.paths)?;
    for (_, folder) in &bench.folders {
        let (tested, more) = measures::test(folder, &bench.all, zone);
        let (loaded, _) = measures::compile(&measures::together(folder, &bench.all), &value_sets, &Choices::default());
        let (Some(tested), Some(loaded)) = (tested, loaded) else { return Err(Failure::diagnostics(&more)) };
        if tested.is_counted_elsewhere {
            continue;
        }
        let over = counted(tested.cases.len(), "test patient");
        found.extend(loaded.measures.first().map(|measure| Found::new(measure, over, &tested.coverage.clauses)));
    }
    Ok(found)
}

fn over_data(args: &Args, period: &Period, zone: &jiff::tz::TimeZone) -> Result<Vec<Found>, Failure> {
    let missing_value_sets = if args.incomplete_valuesets { MissingValueSets::Warn } else { MissingValueSets::Error };
    let choices = Choices { missing_value_sets, ..Choices::default() };
    let (loaded, found) = measures::load(&args.paths, &args.value_sets, &choices);
    let Some(loaded) = loaded else { return Err(Failure::diagnostics(&found)) };
    evaluate::computed(&loaded.measures)?;
    let shape = evaluate::shape(&loaded);
    let unreadable = |error: folder::FolderError| Failure::configuration(error.to_string());
    let files = folder::files(&args.data).map_err(unreadable)?;
    let data = folder::read(&files, &shape, 1).map_err(unreadable)?;
    let mut observed = vec![Observed::default(); loaded.measures.len()];
    let shared = Shared::new(data.shared());
    let mut people = 0;
    for patient in data.patients() {
        let (record, _) = Record::read(&shape, patient.lines().chain(shared.referred_to(patient.lines())));
        // Who is named and not there is in no report.
        if record.patient_id().is_some() {
            people += 1;
            observe_patient(&loaded, &record, period, zone, &mut observed);
        }
    }
    let over = counted(people, "patient");
    Ok(loaded.measures.iter().zip(&observed).map(|(measure, observed)| Found::new(measure, over.clone(), observed)).collect())
}

fn observe_patient(loaded: &Loaded, record: &Record, period: &Period, zone: &jiff::tz::TimeZone, observed: &mut [Observed]) {
    let setting = measures::setting(loaded, zone, jiff::Timestamp::now());
    for (measure, observed) in loaded.measures.iter().zip(observed) {
        let run = measure.over(&[*period], &setting);
        observed.merge(&run.observe(record, 0).unwrap_or_default());
    }
}
