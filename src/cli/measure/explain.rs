//! `watershed measure explain`: why one patient is in each population or not, down to the source values.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::{Context, Ending, Failure, Format, evaluate, print, print_json, run as night};
use crate::config::{measures, setup};
use crate::diagnostic::{self, counted};
use crate::fhir::record::{Place, Record};
use crate::fhir::shared::Shared;
use crate::measure::explain::{self, Proof, Step, Verdict};
use crate::measure::{Choices, Measure, MissingValueSets, Period, Setting};
use crate::pipeline::evaluation;
use crate::source::folder;

/// Why one patient is in each population or not
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Measure folder, or a FHIR Bundle or folder with Measure, Library and ValueSet resources; several where one is composed of
    /// others
    #[arg(required_unless_present = "config")]
    measures: Vec<PathBuf>,
    /// Where the patient is: as `evaluate` takes it
    #[arg(long, required_unless_present = "config", num_args = 1.., value_name = "PATH")]
    data: Vec<PathBuf>,
    /// A site's configuration: its measures, mapping, value sets and zone, and the patient as the last pull left it; nobody is asked
    #[arg(long, value_name = "FILE", conflicts_with_all = ["measures", "data", "value_sets", "timezone", "incomplete_valuesets"])]
    config: Option<PathBuf>,
    /// Id of the Patient resource
    #[arg(long, value_name = "ID")]
    patient: String,
    /// Reporting period, as `2026-01-01/2026-12-31`, `2026-01` or `2026`
    #[arg(long, value_name = "START/END")]
    period: String,
    /// Only this measure, by its id
    #[arg(long, value_name = "ID")]
    measure: Option<String>,
    /// Only this population, by its code or id
    #[arg(long, value_name = "NAME")]
    population: Option<String>,
    /// Value sets: files or folders
    #[arg(long = "valuesets", num_args = 1.., value_name = "PATH")]
    value_sets: Vec<PathBuf>,
    /// IANA zone in which days are meant
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    timezone: String,
    /// Go on when a value set is missing, empty or not expanded
    #[arg(long)]
    incomplete_valuesets: bool,
}

/// Whom is asked about, by which measures.
struct Subject {
    measures: Vec<Measure>,
    setting: Setting,
    record: Record,
    /// Where each line of the record stands, if that can be told.
    places: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Result<Ending, Failure> {
    let Subject { measures, setting, record, places } = match &args.config {
        Some(config) => of_site(config, args)?,
        None => of_files(args)?,
    };
    let period = Period::parse_in(&args.period, &setting.zone).map_err(Failure::usage)?;
    let Some(own) = record.patient_id() else {
        return Err(Failure::usage("the data name that patient, but hold no Patient resource of that id: it is in no report").hint("add the file with the Patient"));
    };
    if own != args.patient {
        let _ = writeln!(std::io::stderr(), "note: `{}` is the same person as `{own}` (`Patient.link`, `replaced-by`), in whose record it counts", args.patient);
    }
    let mut shown = Vec::new();
    let mut texts = Vec::new();
    for measure in chosen(&measures, args)?.into_iter().filter(|measure| !measure.definition.is_counted_elsewhere()) {
        let run = measure.over(&[period], &setting);
        let proofs = explain::explain(&run, &record, 0, args.population.as_deref())
            .unwrap_or(Ok(Vec::new()))
            .map_err(|error| Failure::diagnostics(&[error.diagnostic()]))?;
        if proofs.is_empty() {
            continue;
        }
        let unreadable: BTreeSet<Place> = run.evaluate(&record).into_iter().flatten().flat_map(|result| result.unreadable).collect();
        for place in unreadable {
            let at = places.get(place.line).map_or("", String::as_str);
            let _ = writeln!(std::io::stderr(), "warning: `{}`{at} cannot be read{}; what it says is not known", place.element, crate::cli::run::meant_as_text(place.meant));
        }
        texts.push(human(&measure.definition.title, &args.period, &proofs));
        shown.push(json!({ "measure": measure.definition.canonical(), "period": period.to_string(), "populations": proofs.iter().map(machine).collect::<Vec<_>>() }));
    }
    if shown.is_empty() {
        return Err(no_population(&measures, args.population.as_deref().unwrap_or_default()));
    }
    match context.format {
        Format::Human => print(&texts.join("\n\n")),
        Format::Json => print_json(&Value::Array(shown)),
    }
    Ok(Ending::Fine)
}

/// All measures, or the one that is asked for.
fn chosen<'m>(measures: &'m [Measure], args: &Args) -> Result<Vec<&'m Measure>, Failure> {
    let Some(wanted) = &args.measure else { return Ok(measures.iter().collect()) };
    let id = |measure: &'m Measure| measure.definition.id.value.as_str();
    let found: Vec<&Measure> = measures.iter().filter(|measure| id(measure) == wanted).collect();
    evaluate::computed(found.iter().copied())?;
    if found.is_empty() {
        let all: Vec<String> = measures.iter().map(|measure| format!("`{}`", id(measure))).collect();
        return Err(Failure::usage(format!("there is no measure of the id `{wanted}`")).hint(format!("there are {}", all.join(", "))));
    }
    Ok(found)
}

fn no_population(measures: &[Measure], wanted: &str) -> Failure {
    let populations = || measures.iter().flat_map(|measure| &measure.groups).flat_map(|group| &group.populations);
    let names = populations().flat_map(|population| [population.id(), population.code.code()]);
    let near = diagnostic::nearest(wanted, names).map(|near| format!("did you mean `{near}`? Or "));
    Failure::usage("the measure has no such population").hint(format!("{}leave out --population to see them all", near.unwrap_or_default()))
}

/// What stands in a site's snapshot, as its mapping has it.
fn of_site(config: &Path, args: &Args) -> Result<Subject, Failure> {
    let (site, checked) = night::read(config)?;
    let missing = |what: &str| {
        Failure::usage(format!("{what} of that patient"))
            .hint("`watershed pull` brings data, `watershed status` says what came; name the `id` of a Patient resource, without `Patient/`")
    };
    let nothing = || missing("there is no pull yet, so nothing is known");
    let store = crate::cli::state(&site)?.ok_or_else(nothing)?;
    let snapshot = setup::snapshot_beside(&site, store).map_err(night::unopened)?.ok_or_else(nothing)?;
    let record = evaluation::record_of(&checked, &snapshot, &args.patient).map_err(night::failure)?;
    let record = record.ok_or_else(|| missing("the snapshot holds nothing"))?;
    let setting = evaluation::setting(&checked, jiff::Timestamp::now()).map_err(night::failure)?;
    Ok(Subject { measures: checked.measures, setting, record, places: Vec::new() })
}

/// What stands in files.
fn of_files(args: &Args) -> Result<Subject, Failure> {
    let zone = jiff::tz::TimeZone::get(&args.timezone)
        .map_err(|_| Failure::usage(format!("no time zone is named `{}`", args.timezone)).hint("use an IANA name, as `America/New_York`"))?;
    // What is wrong with it is said before anything is read.
    Period::parse_in(&args.period, &zone).map_err(Failure::usage)?;
    let missing_value_sets = if args.incomplete_valuesets { MissingValueSets::Warn } else { MissingValueSets::Error };
    let choices = Choices { missing_value_sets, ..Choices::default() };
    let (loaded, found) = measures::load(&args.measures, &args.value_sets, &choices);
    let Some(loaded) = loaded else { return Err(Failure::diagnostics(&found)) };
    let _ = write!(std::io::stderr(), "{}", crate::diagnostic::render_brief(&found));
    evaluate::computed(&loaded.measures)?;
    let unreadable = |error: folder::FolderError| Failure::configuration(error.to_string());
    let shape = evaluate::shape(&loaded);
    let files = folder::files(&args.data).map_err(unreadable)?;
    let data = folder::read(&files, &shape, 1).map_err(unreadable)?;
    let Some(patient) = data.patient(&args.patient) else {
        let message = format!("the data have no patient of that id, but {}", counted(data.patients().count(), "other"));
        return Err(Failure::usage(message).hint("name the `id` of a Patient resource, without `Patient/`"));
    };
    let (record, _) = Record::read(&shape, patient.lines().chain(Shared::new(data.shared()).referred_to(patient.lines())));
    let place = |line: usize| patient.bad(line, String::new()).map_or_else(String::new, |at| format!(" at {}:{}", at.file, at.line));
    let places = (0..patient.lines().count()).map(place).collect();
    let setting = measures::setting(&loaded, &zone, jiff::Timestamp::now());
    Ok(Subject { measures: loaded.measures, setting, record, places })
}

fn human(title: &str, period: &str, proofs: &[Proof]) -> String {
    let mut text = format!("{title}, {period}\n");
    for proof in proofs {
        let members = if proof.members > 1 { format!(", {} times", proof.members) } else { String::new() };
        let why = if proof.unknown.is_empty() { String::new() } else { format!(": {}", proof.unknown.join(", ")) };
        let verdict = match proof.verdict {
            Verdict::Yes => "in",
            Verdict::No => "not in",
            Verdict::Unknown => "cannot tell",
        };
        let is_one = proofs.iter().filter(|other| (&other.group, other.code) == (&proof.group, proof.code)).count() == 1;
        let id = if is_one { String::new() } else { format!(" `{}`", proof.population) };
        text.push_str(&format!("\n{}{id} ({}): {verdict}{members}{why}\n", proof.code, proof.group));
        lines(&proof.step, 1, &mut text);
    }
    text.trim_end().to_owned()
}

fn lines(step: &Step, depth: usize, text: &mut String) {
    let mark = match step.verdict {
        Some(Verdict::Yes) => '✓',
        Some(Verdict::No) => '✗',
        Some(Verdict::Unknown) => '?',
        None => '·',
    };
    let place = step.at.as_ref().map(|(library, line)| format!("   {library}:{line}")).unwrap_or_default();
    text.push_str(&format!("{:indent$}{mark} {} = {}{place}\n", "", step.what, step.value, indent = depth * 2));
    step.because.iter().for_each(|inner| lines(inner, depth + 1, text));
}

fn machine(proof: &Proof) -> Value {
    json!({
        "group": proof.group, "population": proof.population, "code": proof.code, "verdict": word(Some(proof.verdict)),
        "members": proof.members, "unknown": proof.unknown, "proof": step(&proof.step),
    })
}

fn step(one: &Step) -> Value {
    let at = one.at.as_ref().map(|(library, line)| json!({ "library": library, "line": line }));
    json!({ "what": one.what, "at": at, "value": one.value, "verdict": word(one.verdict), "because": one.because.iter().map(step).collect::<Vec<_>>() })
}

fn word(verdict: Option<Verdict>) -> Option<&'static str> {
    verdict.map(|verdict| match verdict {
        Verdict::Yes => "true",
        Verdict::No => "false",
        Verdict::Unknown => "unknown",
    })
}
