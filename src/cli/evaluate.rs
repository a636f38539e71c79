//! `watershed evaluate`: measures over data on disk, no configuration needed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::Value;

use super::{Ending, Failure};
use crate::config::measures::{self, Loaded};
use crate::cql::Program;
use crate::cql::evaluate::doubt::Doubt;
use crate::diagnostic::{self, counted};
use crate::fhir::compartment::is_id;
use crate::fhir::record::glance::Kinds;
use crate::fhir::record::{Keep, Record, Shape};
use crate::fhir::shared::Shared;
use crate::mapping::{Mapping, Seen, Watch};
use crate::measure::report::{Completeness, Facts};
use crate::measure::{self, Choices, Logic, Measure, MissingValueSets, Partial, PatientResult, Period, Run};
use crate::pipeline::waits::Waits;
use crate::pipeline::{evaluation, needs, remarks};
use crate::source::folder::{self, Bad, Dataset, Gap, Patient, Signs};
use crate::store::runs::Unmapped;
use crate::validate::{Finding, Weight};

/// Most threads.
const THREADS_MAX: usize = 256;
/// Memory to stay within when nothing is said, and the least that can be asked for; bytes.
const MEMORY_DEFAULT: u64 = 1 << 30;
const MEMORY_MIN: u64 = 16 << 20;
/// Lines of a kind that are remembered with their place; and lines, or reasons, that are named on stderr.
const TOLD_KEPT_MAX: usize = 10_000;
const TOLD_SHOWN_MAX: usize = 20;

/// Measures over data on disk
///
/// Ends with 1 when a report is partial: its `completeness` and stderr say why.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Measure folder (with `measure.yaml`), or a FHIR Bundle or folder with Measure, Library and ValueSet resources; .gz and .zst
    /// too; a composite together with its components
    #[arg(long = "measure", required = true, num_args = 1.., value_name = "PATH")]
    measures: Vec<PathBuf>,
    /// NDJSON file, Bulk Data folder, Bundle file, or a folder of either; .gz and .zst too
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    data: Vec<PathBuf>,
    /// Reporting period, both days included, as `2026-01-01/2026-01-31`; `2026-01` and `2026` are short forms; may be repeated;
    /// a time with an offset is what it is in --timezone
    #[arg(long = "period", required = true, num_args = 1.., value_name = "START/END")]
    periods: Vec<String>,
    /// What to report
    #[arg(long, value_enum, default_value_t = Kind::Summary)]
    report: Kind,
    /// Value sets: files, folders or Bundles; they take precedence over those beside a measure
    #[arg(long = "valuesets", num_args = 1.., value_name = "PATH")]
    value_sets: Vec<PathBuf>,
    /// Value of a parameter
    #[arg(long = "parameter", num_args = 1.., value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// IANA zone in which days are meant; what is written in UTC is brought to it
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    timezone: String,
    /// What to do about a value set that is missing, empty or not expanded
    #[arg(long = "incomplete-valuesets", value_enum, default_value_t = Incomplete::Error)]
    incomplete: Incomplete,
    /// Which form of the logic to run, where a Library holds both
    #[arg(long, value_enum, default_value_t = Form::Cql)]
    logic: Form,
    /// Threads; 0 takes one per core
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Memory to stay within, as `512MB` or `2GiB`; data that do not fit are read several times, a part of the patients each; 1GiB when left out
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Folder for the reports, one file each; standard output otherwise
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Id of the reporting organization
    #[arg(long, default_value = "local", value_name = "ID")]
    reporter: String,
    /// Date of the reports; the first day after the period when left out, so that equal data give equal bytes
    #[arg(long, value_name = "DATE")]
    date: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// One report of all patients
    Summary,
    /// One report for each patient
    Individual,
    /// One report with the list of the patients of each population
    SubjectList,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// CQL text
    Cql,
    /// ELM JSON
    Elm,
}

impl From<Form> for Logic {
    fn from(form: Form) -> Logic {
        match form {
            Form::Cql => Logic::Cql,
            Form::Elm => Logic::Elm,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Incomplete {
    /// Stop and name it
    Error,
    /// Say it and go on
    Warn,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Ending, Failure> {
    args.date.as_deref().map_or(Ok(()), check_date)?;
    check_reporter(&args.reporter)?;
    let zone = jiff::tz::TimeZone::get(&args.timezone)
        .map_err(|_| Failure::usage(format!("no time zone is named `{}`", args.timezone)).hint("use an IANA name, as `America/New_York`"))?;
    let periods = periods(&args.periods, &zone)?;
    let memory = args.memory.as_deref().map_or(Ok(MEMORY_DEFAULT), memory)?;
    if args.threads > THREADS_MAX {
        return Err(Failure::usage(format!("--threads is {}, at most {THREADS_MAX}", args.threads)));
    }
    let loaded = load(&args)?;
    let shape = shape(&loaded);
    let unreadable = |error: folder::FolderError| Failure::configuration(error.to_string());
    let files = folder::files(&args.data).map_err(unreadable)?;
    let empty: Vec<&PathBuf> = files.iter().filter(|file| std::fs::metadata(file).is_ok_and(|file| file.len() == 0)).collect();
    for file in empty.iter().take(TOLD_SHOWN_MAX) {
        let _ = writeln!(std::io::stderr(), "warning: {}: it is empty", file.display());
    }
    if let count @ 1.. = folder::xml(&args.data) {
        let _ = writeln!(std::io::stderr(), "warning: {} passed over: FHIR XML is not read; have JSON written", counted(count, "XML file"));
    }
    let now = jiff::Timestamp::now();
    let setting = measures::setting(&loaded, &zone, now);
    let runs: Vec<Run<'_>> = loaded.measures.iter().map(|measure| measure.over(&periods, &setting)).collect();
    let (mapping, asked) = (Mapping::none(), needs::asked(&loaded.measures, &loaded.value_sets));
    let watch = evaluation::watch(&mapping, &asked, &loaded.measures);
    let mut found = Found::new(&runs);
    for (pass, data) in folder::passes(&files, &shape, memory, threads(args.threads)).enumerate() {
        let data = data.map_err(unreadable)?;
        if pass == 0 {
            found.bad = Told { lines: data.bad.clone(), count: data.bad_count };
            found.files(&data.signs);
            say_patients_that_differ(&data);
            if !data.signs.types.is_empty() {
                found.absent_types = loaded.measures.iter().map(|measure| absent_types(measure, &data.signs)).collect();
                say_absent_types(&loaded, &found.absent_types, &empty);
            }
        }
        found.merge(evaluate(&runs, &data, &shape, &watch, threads(args.threads), args.report != Kind::Summary));
    }
    folder::unread(&args.data, &shape).map_err(unreadable)?.into_iter().for_each(|gap| found.add_gap(gap));
    found.say(&watch);
    Ok(if write(&args, &runs, &found)? { Ending::Fine } else { Ending::Findings })
}

/// Types that a measure asks for and of which no file has any.
fn absent_types(measure: &Measure, signs: &Signs) -> BTreeSet<String> {
    let asked = measure.programs().flat_map(Program::requirements).map(|need| need.resource_type.as_str());
    asked.filter(|name| *name != "Patient" && !signs.types.contains(*name)).map(str::to_owned).collect()
}

/// Asks after types that no file has: it may be so, and the reports say it and are not partial for it, or a file was forgotten.
fn say_absent_types(loaded: &Loaded, absent: &[BTreeSet<String>], empty: &[&PathBuf]) {
    let mut askers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (measure, absent) in loaded.measures.iter().zip(absent) {
        absent.iter().for_each(|name| askers.entry(name).or_default().push(format!("`{}`", measure.definition.id.value)));
    }
    for (name, measures) in askers {
        let ask = if measures.len() == 1 { "asks" } else { "ask" };
        let is_of = |file: &&PathBuf| file.file_name().and_then(|own| own.to_str()?.split('.').next()) == Some(name);
        let why = if empty.iter().any(is_of) { "its file is empty" } else { "is a file missing?" };
        let _ = writeln!(std::io::stderr(), "note: the data have no {name}, which {} {ask} for: {why}", measures.join(", "));
    }
}

/// Tells of resources that name one patient and then another: a few were put right, many may mean that ids are no ids.
fn say_patients_that_differ(data: &Dataset) {
    let stderr = &mut std::io::stderr().lock();
    for (name, count) in &data.moved {
        let older = counted(*count, &format!("{name} resource"));
        let _ = writeln!(stderr, "note: older versions of {older} name another patient: the newest counts, for the patient it names");
    }
    for (name, count) in &data.unclear {
        let _ = writeln!(
            stderr,
            "warning: under {} several patients have a resource, and neither `meta.versionId` nor `meta.lastUpdated` says which is the newest: each counts for the patient it names",
            counted(*count, &format!("{name} id"))
        );
    }
}

/// A report's date as FHIR has it: a day, or a time with its offset.
fn check_date(date: &str) -> Result<(), Failure> {
    let is_date = crate::cql::date_time::DateTime::parse_fhir(date).is_some();
    let wrong = || Failure::usage(format!("`--date {date}` is no date")).hint("write a day as `2026-02-01`, or a time with its offset as `2026-02-01T06:00:00-05:00`");
    if is_date { Ok(()) } else { Err(wrong()) }
}

/// The id of an organization as FHIR has it.
fn check_reporter(id: &str) -> Result<(), Failure> {
    let wrong = || Failure::usage(format!("`--reporter {id}` is no id")).hint("name the id of an Organization: 1 to 64 letters, digits, `-` or `.`");
    if is_id(id) { Ok(()) } else { Err(wrong()) }
}

/// A size as `512MB`, `1GiB` or bytes.
fn memory(text: &str) -> Result<u64, Failure> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit: Option<u64> = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        "kib" | "k" => Some(1 << 10),
        "mib" | "m" => Some(1 << 20),
        "gib" | "g" => Some(1 << 30),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    let wrong = || Failure::usage(format!("`--memory {text}` is no size of at least 16MiB")).hint("write a number with KB, MB, GB, KiB, MiB or GiB, as `512MB`");
    bytes.filter(|bytes| *bytes >= MEMORY_MIN).ok_or_else(wrong)
}

fn periods(texts: &[String], zone: &jiff::tz::TimeZone) -> Result<Vec<Period>, Failure> {
    texts.iter().map(|text| Period::parse_in(text, zone).map_err(Failure::usage)).collect()
}

fn load(args: &Args) -> Result<Loaded, Failure> {
    let mut parameters = BTreeMap::new();
    for text in &args.parameters {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Failure::usage(format!("`--parameter {text}` has no `=`")).hint("write NAME=VALUE"));
        };
        if parameters.insert(name.trim().to_owned(), value.to_owned()).is_some() {
            return Err(Failure::usage(format!("the parameter `{}` is given twice", name.trim())));
        }
    }
    let missing_value_sets = match args.incomplete {
        Incomplete::Error => MissingValueSets::Error,
        Incomplete::Warn => MissingValueSets::Warn,
    };
    let choices = Choices { parameters, missing_value_sets, logic: args.logic.into() };
    let (loaded, found) = measures::load(&args.measures, &args.value_sets, &choices);
    let Some(loaded) = loaded else { return Err(Failure::diagnostics(&found)) };
    let _ = write!(std::io::stderr(), "{}", diagnostic::render_brief(&found));
    computed(&loaded.measures)?;
    Ok(loaded)
}

/// Of patients' records no measure can be made that another system counts.
pub fn computed<'m>(measures: impl IntoIterator<Item = &'m Measure>) -> Result<(), Failure> {
    let Some(measure) = measures.into_iter().find(|measure| measure.definition.is_counted_elsewhere()) else { return Ok(()) };
    let message = format!("`{}` is counted elsewhere: no patient's record says anything of it", measure.definition.id.value);
    Err(Failure::usage(message).hint("name other measures; its numbers come by an import, and `watershed known` shows them"))
}

/// What any of the measures needs, and of which resources.
pub fn shape(loaded: &Loaded) -> Shape {
    // Whose record it is must be known, also where a measure asks for nothing of the Patient.
    let mut shape = Shape { types: [("Patient".to_owned(), Keep::default())].into(), ..Shape::default() };
    for measure in &loaded.measures {
        shape.merge(&measure.program().sifted_shape(measure.value_sets(&loaded.value_sets)));
    }
    shape
}

fn threads(wanted: usize) -> usize {
    if wanted > 0 { wanted } else { std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX) }
}

/// Lines of which something is to be said; not all of them where there are many.
#[derive(Default)]
struct Told {
    lines: Vec<Bad>,
    count: u64,
}

impl Told {
    fn add(&mut self, line: Option<Bad>) {
        self.count += 1;
        self.lines.extend(line.filter(|_| self.lines.len() < TOLD_KEPT_MAX));
    }

    fn merge(&mut self, other: Told) {
        self.count += other.count;
        let room = TOLD_KEPT_MAX.saturating_sub(self.lines.len());
        self.lines.extend(other.lines.into_iter().take(room));
    }

    fn say(&mut self, consequence: &str, more: &str) {
        self.lines.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        let stderr = &mut std::io::stderr().lock();
        for line in self.lines.iter().take(TOLD_SHOWN_MAX) {
            let place = if line.line == 0 { line.file.clone() } else { format!("{}:{}", line.file, line.line) };
            let _ = writeln!(stderr, "warning: {place}: {}; {consequence}", line.reason);
        }
        let rest = self.count.saturating_sub(TOLD_SHOWN_MAX as u64);
        if rest > 0 {
            let _ = writeln!(stderr, "warning: {rest} more {more}");
        }
    }
}

/// An element, and the code that was probably meant there.
type Meant = (String, Option<&'static str>);

/// Sums and, when asked for, results of single patients; indexes are measure, then period.
#[derive(Default)]
struct Found {
    sums: Vec<Vec<Partial>>,
    patients: Vec<Vec<BTreeMap<String, PatientResult>>>,
    errors: BTreeMap<String, u64>,
    /// Patients who were there to be evaluated.
    people: u64,
    /// Lines and resources that were set aside.
    bad: Told,
    /// Patients who are named and not there.
    absent: Told,
    /// By element, and what was probably meant: patients of whom a value is none of its type, and the first place of one.
    unreadable: BTreeMap<Meant, (u64, Option<Bad>)>,
    /// Patients of whom a value could not be used as it stands.
    doubts: BTreeMap<Doubt, u64>,
    /// By which names of systems codes stand there.
    seen: Seen,
    /// What should be among the files and is not, and how much of each type.
    gaps: Told,
    missing: BTreeMap<String, u64>,
    /// By measure: the types of which no file has any.
    absent_types: Vec<BTreeSet<String>>,
    /// What else a server said.
    said: Told,
}

impl Found {
    fn new(runs: &[Run<'_>]) -> Found {
        let sums = runs.iter().map(|run| vec![Partial::default(); run.periods().count()]).collect();
        let patients = runs.iter().map(|run| vec![BTreeMap::new(); run.periods().count()]).collect();
        Found { sums, patients, ..Found::default() }
    }

    fn merge(&mut self, other: Found) {
        for (own, theirs) in self.sums.iter_mut().flatten().zip(other.sums.into_iter().flatten()) {
            own.merge(&theirs);
        }
        for (own, theirs) in self.patients.iter_mut().flatten().zip(other.patients.into_iter().flatten()) {
            own.extend(theirs);
        }
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        self.people += other.people;
        self.bad.merge(other.bad);
        self.absent.merge(other.absent);
        self.seen.merge(other.seen);
        for (doubt, patients) in other.doubts {
            *self.doubts.entry(doubt).or_default() += patients;
        }
        for (element, (patients, place)) in other.unreadable {
            self.add_unreadable(element, patients, place);
        }
    }

    fn add_unreadable(&mut self, element: (String, Option<&'static str>), patients: u64, place: Option<Bad>) {
        let (count, first) = self.unreadable.entry(element).or_default();
        *count += patients;
        let order = |place: &Bad| (place.file.clone(), place.line);
        *first = first.take().into_iter().chain(place).min_by_key(order);
    }

    /// What the files tell of their being whole.
    fn files(&mut self, signs: &Signs) {
        self.missing.clone_from(&signs.missing);
        self.gaps = Told { lines: signs.gaps.iter().map(|gap| gap.told.clone()).collect(), count: signs.gaps.len() as u64 };
        self.said = Told { lines: signs.said.clone(), count: signs.said_count };
    }

    fn add_gap(&mut self, gap: Gap) {
        *self.missing.entry(gap.resource_type).or_default() += 1;
        self.gaps.add(Some(gap.told));
    }

    /// What is missing of the data. Data without a patient are no data.
    fn completeness(&self, index: usize, measure: &Measure) -> Completeness {
        let missing = if self.people == 0 { self.absent.count.max(1) } else { self.absent.count };
        let mut gaps = self.missing.clone();
        if missing > 0 {
            *gaps.entry("Patient".to_owned()).or_default() += missing;
        }
        let gaps = Waits::of(measure.programs()).among(&gaps);
        Completeness { gaps, quarantined: self.bad.count, absent: self.absent_types.get(index).cloned().unwrap_or_default() }
    }

    fn say(&mut self, watch: &Watch<'_>) {
        self.gaps.say("the reports are partial", "things are missing");
        self.said.say("the reports are not partial for it", "sayings of servers");
        self.bad.say("set aside", "lines or resources were set aside");
        self.absent.say("the reports are partial", "patients are named and not there");
        let stderr = &mut std::io::stderr().lock();
        for ((element, meant), (patients, place)) in self.unreadable.iter().take(TOLD_SHOWN_MAX) {
            let first = place.as_ref().map_or_else(String::new, |place| format!(", first at {}:{}", place.file, place.line));
            let _ = writeln!(
                stderr,
                "warning: `{element}` of {} cannot be read{first}{}; what it says is not known, and reports that ask for it are partial",
                counted(*patients, "patient"),
                super::run::meant_as_text(*meant)
            );
        }
        let rest = self.unreadable.len().saturating_sub(TOLD_SHOWN_MAX);
        if rest > 0 {
            let _ = writeln!(stderr, "warning: {rest} more elements have values that cannot be read");
        }
        let doubts = self.doubts.iter().map(|(doubt, patients)| (doubt.clone().into(), *patients));
        let unused: Vec<Unmapped> = watch
            .findings(&self.seen)
            .into_iter()
            .chain(doubts)
            .map(|(finding, patients)| evaluation::row(&finding, patients))
            .collect();
        for line in super::run::unused(&unused).into_iter().filter_map(super::run::unused_as_text).take(TOLD_SHOWN_MAX) {
            let _ = writeln!(stderr, "warning: {line}");
        }
        let rest = unused.len().saturating_sub(TOLD_SHOWN_MAX);
        if rest > 0 {
            let _ = writeln!(stderr, "warning: {rest} more kinds of values or codes are documented and were not used");
        }
        if self.people == 0 {
            let _ = writeln!(stderr, "warning: there is no Patient in the data; the reports are partial, and their numbers say nothing");
        }
        for (error, count) in self.errors.iter().take(TOLD_SHOWN_MAX) {
            let _ = writeln!(stderr, "error: {} failed: {error}", counted(*count, "evaluation"));
        }
        let rest: u64 = self.errors.values().skip(TOLD_SHOWN_MAX).sum();
        if rest > 0 {
            let _ = writeln!(stderr, "error: {rest} more evaluations failed");
        }
    }
}

fn evaluate(runs: &[Run<'_>], data: &Dataset, shape: &Shape, watch: &Watch<'_>, threads: usize, keep: bool) -> Found {
    let patients: Vec<Patient<'_>> = data.patients().collect();
    let shared = &Shared::new(data.shared());
    let share = patients.len().div_ceil(threads.max(1)).max(1);
    let mut found = Found::new(runs);
    std::thread::scope(|scope| {
        let workers: Vec<_> = patients.chunks(share).map(|chunk| scope.spawn(move || part(runs, chunk, shared, shape, watch, keep))).collect();
        for worker in workers {
            match worker.join() {
                Ok(part) => found.merge(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    found
}

fn part(runs: &[Run<'_>], patients: &[Patient<'_>], shared: &Shared<'_>, shape: &Shape, watch: &Watch<'_>, keep: bool) -> Found {
    let mut found = Found::new(runs);
    let mut record = Record::default();
    let mut kinds = Kinds::sifted(shape);
    for patient in patients {
        let bad = record.reread(&mut kinds, patient.lines().chain(shared.referred_to(patient.lines())));
        bad.into_iter().filter_map(|bad| patient.bad(bad.index, bad.reason)).for_each(|bad| found.bad.add(Some(bad)));
        if record.patient_id().is_none() {
            found.absent.add(patient.bad(0, "it names a Patient who is not in the data".to_owned()));
            continue;
        }
        found.people += 1;
        watch.see(&record, &mut found.seen);
        let all = measure::evaluate(runs, &record);
        let unreadable: BTreeMap<(&str, Option<&'static str>), usize> = all
            .iter()
            .flatten()
            .flatten()
            .flat_map(|result| &result.unreadable)
            .rev()
            .map(|place| ((place.element.as_str(), place.meant), place.line))
            .collect();
        unreadable
            .into_iter()
            .for_each(|((element, meant), line)| found.add_unreadable((element.to_owned(), meant), 1, patient.bad(line, String::new())));
        let doubts: BTreeSet<Doubt> = all.iter().flatten().flatten().flat_map(|result| result.doubts.iter().cloned()).collect();
        doubts.into_iter().for_each(|doubt| *found.doubts.entry(doubt).or_default() += 1);
        for (index, results) in all.into_iter().enumerate() {
            for (period, result) in results.into_iter().enumerate() {
                let Some(sum) = found.sums.get_mut(index).and_then(|sums| sums.get_mut(period)) else { continue };
                match result {
                    Ok(result) => {
                        sum.add(&result);
                        let kept = found.patients.get_mut(index).and_then(|all| all.get_mut(period));
                        if let (true, Some(kept)) = (keep, kept) {
                            kept.insert(patient.id.to_owned(), result);
                        }
                    }
                    Err(error) => {
                        let place = error.at.as_ref().map(|at| format!("{}:{}:{}: ", at.source.name, at.line(), at.column()));
                        let text = format!("{}{}", place.unwrap_or_default(), error.summary());
                        sum.add_fault(&text);
                        *found.errors.entry(text).or_default() += 1;
                    }
                }
            }
        }
    }
    found
}

/// Writes the reports; false where the data of one were not complete.
fn write(args: &Args, runs: &[Run<'_>], found: &Found) -> Result<bool, Failure> {
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|error| Failure::unreachable(format!("`{}` cannot be made: {error}", folder.display())))?;
    }
    let mut written = BTreeSet::new();
    let mut stdout = std::io::BufWriter::new(super::output());
    let mut complete = true;
    for (index, run) in runs.iter().enumerate() {
        let mut earlier = Vec::new();
        for (place, period) in run.periods().enumerate() {
            let facts = facts(args, run.measure, period, found.completeness(index, run.measure));
            let reporter = run.measure.reporter(period, &facts);
            let none = Partial::default();
            let sum = found.sums.get(index).and_then(|sums| sums.get(place)).unwrap_or(&none);
            complete &= reporter.is_complete(sum);
            for (define, count) in reporter.strays(sum) {
                let _ = writeln!(
                    std::io::stderr(),
                    "warning: {} of `{define}` left out: the unit cannot be converted to that of the others; the report is partial",
                    counted(count, "observation")
                );
            }
            let summary = reporter.summary(sum);
            say_remarks(run.measure, period, &remarks::of(run.measure, &reporter, sum, &summary, &earlier));
            earlier.push(summary.clone());
            let nobody = BTreeMap::new();
            let patients = found.patients.get(index).and_then(|all| all.get(place)).unwrap_or(&nobody);
            let reports: Vec<Value> = match args.report {
                Kind::Summary => vec![summary],
                Kind::SubjectList => vec![reporter.subject_list(sum, patients)],
                Kind::Individual => patients.iter().map(|(patient, result)| reporter.individual(patient, result)).collect(),
            };
            for report in &reports {
                written.extend(put(report, args.out.as_deref(), &mut stdout)?);
            }
        }
    }
    let _ = stdout.flush();
    args.out.iter().for_each(|folder| say_others(folder, &written));
    Ok(complete)
}

/// What a person should look at in the reports of a period; they are complete all the same.
fn say_remarks(measure: &Measure, period: Period, found: &[Finding]) {
    for finding in found {
        let word = if finding.weight == Weight::Info { "note" } else { "warning" };
        let name = &measure.definition.id.value;
        let _ = writeln!(std::io::stderr(), "{word}: `{name}`, {} to {}: {}", period.start, period.end, remarks::line(finding));
    }
}

/// Reports in the folder that are not of this evaluation: left by another, they would be read as if they were.
fn say_others(folder: &Path, written: &BTreeSet<PathBuf>) {
    let is_other = |path: &PathBuf| path.extension().is_some_and(|end| end == "json") && !written.contains(path);
    let others = std::fs::read_dir(folder).map_or(0, |entries| entries.flatten().filter(|entry| is_other(&entry.path())).count());
    if others > 0 {
        let _ = writeln!(
            std::io::stderr(),
            "warning: `{}` holds {} that this evaluation did not write, beside its {}: they are of another one; name a new folder to keep them apart",
            folder.display(),
            counted(others, "other JSON file"),
            counted(written.len(), "report")
        );
    }
}

fn facts(args: &Args, measure: &Measure, period: Period, completeness: Completeness) -> Facts {
    let after = period.end.tomorrow().unwrap_or(period.end).to_string();
    Facts {
        reporter: args.reporter.clone(),
        reporter_name: None,
        date: args.date.clone().unwrap_or(after),
        software: ("Watershed".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        zone: args.timezone.clone(),
        lineage: vec![("measure".to_owned(), measure.definition.id.value.clone(), measure.digest.clone())],
        completeness,
    }
}

/// A report to its file, which is given, or as a line to standard output; a reader that went away is no failure.
fn put(report: &Value, folder: Option<&Path>, stdout: &mut impl Write) -> Result<Option<PathBuf>, Failure> {
    let Some(folder) = folder else {
        let _ = writeln!(stdout, "{report}");
        return Ok(None);
    };
    let id = report.get("id").and_then(Value::as_str).unwrap_or("report");
    let path = folder.join(format!("{id}.json"));
    std::fs::write(&path, format!("{report:#}\n")).map_err(|error| Failure::unreachable(format!("`{}` cannot be written: {error}", path.display())))?;
    Ok(Some(path))
}
