//! `watershed measure`: check measures, run their test patients and see what these reach, explain one patient.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::{Context, Ending, Failure, Format, print, print_json, report};
use crate::config::measures::{self, Folder, Tested};
use crate::diagnostic::{self, Diagnostic, Location, Span, counted};
use crate::measure::{self, Choices};

/// The steward's bench: check and test measures
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Every problem of measures, their CQL, value sets and cases at once
    Check {
        /// Measure folders, folders of them, or FHIR Bundles and folders with Measure, Library and ValueSet resources
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Further value sets: files or folders
        #[arg(long = "valuesets", value_name = "PATH")]
        value_sets: Vec<PathBuf>,
    },
    /// Run the test patients beside measures
    Test {
        /// Measure folders, or folders of them; a composite together with what it is composed of
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// IANA zone of cases that name none
        #[arg(long, default_value = "America/New_York", value_name = "ZONE")]
        timezone: String,
    },
    /// Why one patient is in each population or not: a proof tree down to the values
    Explain(explain::Args),
    /// Which clauses the test patients, or real data, test: what is left may as well say anything
    Coverage(coverage::Args),
}

mod coverage;
mod explain;

/// Runs the command.
pub fn run(args: Args, context: &Context) -> Result<Ending, Failure> {
    match args.what {
        What::Check { paths, value_sets } => check(&paths, &value_sets, context),
        What::Coverage(args) => coverage::run(&args, context),
        What::Explain(args) => explain::run(&args, context),
        What::Test { paths, timezone } => test(&paths, &timezone, context),
    }
}

/// What paths hold.
struct Bench {
    /// Measure folders, which may have test patients.
    folders: Vec<(PathBuf, Folder)>,
    /// These and what is published: all that one may be composed of.
    all: Vec<Folder>,
}

/// Measure folders at or below the paths, with all measures there.
fn bench(paths: &[PathBuf]) -> Result<Bench, Failure> {
    let (mut folders, mut published) = (Vec::new(), None);
    let (paths, faults) = measures_at(paths);
    if !faults.is_empty() {
        return Err(Failure::diagnostics(&faults));
    }
    let (all, _) = measures::open_all(&paths);
    for path in paths {
        match measures::read(&path) {
            Ok(folder) => folders.push((path, folder)),
            Err(fault) => published = Some(fault),
        }
    }
    match published {
        Some(fault) if folders.is_empty() => Err(Failure::diagnostics(&[fault])),
        _ => Ok(Bench { folders, all }),
    }
}

/// Measure folders at or below the paths, the paths that hold published measures, and what is wrong with the others.
fn measures_at(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<Diagnostic>) {
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    for path in paths {
        match measures::find(path) {
            Ok(folders) => found.extend(folders),
            Err(_) if measures::open(path).is_ok() => found.push(path.clone()),
            Err(fault) => faults.push(fault),
        }
    }
    (found, faults)
}

fn check(paths: &[PathBuf], value_sets: &[PathBuf], context: &Context) -> Result<Ending, Failure> {
    let (paths, faults) = measures_at(paths);
    if paths.is_empty() {
        return Err(Failure::diagnostics(&faults));
    }
    let (loaded, mut found) = measures::load(&paths, value_sets, &Choices::default());
    found.extend(faults);
    let (folders, _) = measures::open_all(&paths);
    for (folder, measure) in folders.iter().zip(loaded.iter().flat_map(|loaded| &loaded.measures)) {
        found.extend(measures::cases(folder, measure).1);
        if let Err(message) = measure::published::interval(&folder.files.definition) {
            let at = Location::new(&folder.files.definition, Span::default()).first("\"effectivePeriod\"");
            found.push(Diagnostic::note(message).at(at).help(measure::published::SAY_PERIODS));
        }
        if measure.definition.is_counted_elsewhere() {
            let at = measure::definition::key(&folder.files.definition, "counted");
            found.push(Diagnostic::note(format!("`{}` is {ELSEWHERE}", measure.definition.id.value)).at(at));
        } else if folder.cases.is_empty() && !measure::published::is_published(&folder.files.definition) {
            let at = Location::new(&folder.files.definition, Span::default());
            found.push(Diagnostic::note(format!("`{}` has no test patients", measure.definition.id.value)).at(at).help(NO_CASES));
        }
        for (name, parameter) in measure.definition.parameters.iter().filter(|(_, parameter)| parameter.confirm) {
            let text = format!("`{}`: the network has yet to confirm `{name}` = {}", measure.definition.id.value, parameter.value.value.text());
            found.push(Diagnostic::note(text));
        }
    }
    let ending = report(&found, context);
    if context.format == Format::Human && ending == Ending::Fine {
        let are = if folders.len() == 1 { "is" } else { "are" };
        print(&format!("{} {are} well formed", counted(folders.len(), "measure")));
    }
    Ok(ending)
}

fn test(paths: &[PathBuf], timezone: &str, context: &Context) -> Result<Ending, Failure> {
    let zone = jiff::tz::TimeZone::get(timezone).map_err(|_| Failure::usage(format!("no time zone is named `{timezone}`")).hint("use an IANA name, as `America/New_York`"))?;
    let mut failed = false;
    let mut shown = Vec::new();
    let bench = bench(paths)?;
    for (path, folder) in &bench.folders {
        let (tested, mut found) = measures::test(folder, &bench.all, &zone);
        found.extend(measures::strays(path));
        let Some(tested) = tested else { return Err(Failure::diagnostics(&found)) };
        failed |= tested.cases.is_empty() && !tested.is_counted_elsewhere || tested.cases.iter().any(|(_, mismatches)| !mismatches.is_empty());
        match context.format {
            Format::Human => print(&human(path, &tested)),
            Format::Json => shown.push(machine(path, &tested)),
        }
        if !found.is_empty() && context.format == Format::Human {
            print(&diagnostic::render_human(&found, context.colour));
        }
    }
    if context.format == Format::Json {
        print_json(&Value::Array(shown));
    }
    Ok(if failed { Ending::Findings } else { Ending::Fine })
}

/// What does not apply to a measure that another system counts.
const ELSEWHERE: &str = "counted elsewhere: it has no logic and no test patients; `watershed check` looks at the table that has its numbers";

/// What to do where a measure has no test patients.
const NO_CASES: &str = "write the first one as `cases/01-NAME.yaml`: its `title`, its `resources`, and what to `expect` of which period";

fn human(path: &Path, tested: &Tested) -> String {
    if tested.is_counted_elsewhere {
        return format!("{}\n{ELSEWHERE}\n", path.display());
    }
    if tested.cases.is_empty() {
        return format!("{}\nno test patients, so nothing is known of it: {NO_CASES}\n", path.display());
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["", "case", "period", "population", "expected", "found"]);
    for (case, mismatches) in &tested.cases {
        if mismatches.is_empty() {
            table.add_row(["ok", &case.title, "", "", "", ""]);
        }
        for mismatch in mismatches {
            let period = mismatch.period.to_string();
            table.add_row(["FAILED", &case.title, &period, &mismatch.what, &mismatch.expected, &mismatch.found]);
        }
    }
    let passed = tested.cases.iter().filter(|(_, mismatches)| mismatches.is_empty()).count();
    let (reached, all) = tested.coverage.reached();
    let pass = if tested.cases.len() == 1 { "passes" } else { "pass" };
    let mut text = format!("{}\n{table}\n{passed} of {} {pass}; {reached} of {} reached\n", path.display(), counted(tested.cases.len(), "case"), counted(all, "branch"));
    let (never_true, never_false) = tested.coverage.gaps();
    for (names, what) in [(never_true, "never true or never with a member"), (never_false, "never false or never empty")] {
        if !names.is_empty() {
            text.push_str(&format!("  {what}: {}\n", names.join(", ")));
        }
    }
    text
}

fn machine(path: &Path, tested: &Tested) -> Value {
    let cases = tested.cases.iter().map(|(case, mismatches)| {
        let mismatches = mismatches
            .iter()
            .map(|one| json!({ "period": one.period.to_string(), "population": one.what, "expected": one.expected, "found": one.found }));
        json!({ "file": case.source.name, "title": case.title, "mismatches": mismatches.collect::<Vec<_>>() })
    });
    let (reached, all) = tested.coverage.reached();
    let (never_true, never_false) = tested.coverage.gaps();
    json!({ "measure": path.display().to_string(), "cases": cases.collect::<Vec<_>>(),
        "coverage": { "reached": reached, "branches": all, "neverTrue": never_true, "neverFalse": never_false } })
}
