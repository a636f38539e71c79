//! The measures that CMS published for 2024 and 2025, with their authors' test patients: every population of every case.
//!
//! `WATERSHED_ALL=1` runs all cases, otherwise it is a part of them. `WATERSHED_ONLY=name` runs the measures whose name holds it, `WATERSHED_SHOW=1` prints what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use serde_json::Value;
use watershed::config::measures;
use watershed::fhir::record::Record;
use watershed::measure::report::Facts;
use watershed::measure::result::{GroupResult, PatientResult};
use watershed::measure::{Choices, Logic, MissingValueSets, Period};
use watershed::source::folder;

/// Cases whose expected report is wrong: `form publication/measure case`, each with its proof.
const UPSTREAM: &str = include_str!("published_upstream.txt");
/// A value set that a publication left empty, and where its codes are: a later publication of the same measure. It is given
/// as a steward gives one, by `--valuesets`.
const SUPPLIED: [(&str, &str, &str, &str); 1] = [(
    "CMS1017HHFIFHIR",
    "http://cts.nlm.nih.gov/fhir/ValueSet/2.16.840.1.113762.1.4.1147.174",
    "cms-dqm-2025/CMS1017FHIRHHFI",
    "http://cts.nlm.nih.gov/fhir/ValueSet/2.16.840.1.113762.1.4.1147.120",
)];
/// A run that is not of all takes every so many of the measures, and of their cases.
const MEASURES_STEP: usize = 6;
const CASES_STEP: usize = 4;
/// When the cases are evaluated: `Now()` is after every measurement period.
const NOW: &str = "2027-01-01T00:00:00Z";

/// What one measure did.
#[derive(Default)]
struct Tally {
    cases: BTreeSet<String>,
    /// Case to what differs.
    wrong: BTreeMap<String, String>,
    /// Compile errors.
    refused: Option<String>,
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let only = std::env::var("WATERSHED_ONLY").unwrap_or_default();
    let mut found: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.is_dir() && path.display().to_string().contains(&only));
    found.sort();
    found
}

/// The value sets to supply to a measure, in files below `scratch`.
fn supplied(folder: &Path, scratch: &Path) -> Vec<PathBuf> {
    let of_measure = SUPPLIED.iter().filter(|(measure, ..)| folder.ends_with(measure));
    let write = |(_, empty, source, full): &(&str, &str, &str, &str)| {
        let source = crate::shared::yardstick(source)?.join("measure.json.gz");
        let bundle: Value = serde_json::from_reader(folder::open(&source).unwrap()).unwrap();
        let entries = bundle["entry"].as_array().unwrap().iter();
        let mut set = entries.map(|entry| &entry["resource"]).find(|resource| resource["url"] == *full).unwrap().clone();
        set["url"] = Value::from(*empty);
        set["version"] = Value::Null;
        let file = scratch.join("supplied.json");
        std::fs::write(&file, set.to_string()).unwrap();
        Some(file)
    };
    of_measure.filter_map(write).collect()
}

fn run(folder: &Path, logic: Logic) -> Tally {
    let scratch = tempfile::tempdir().unwrap();
    let choices = Choices { missing_value_sets: MissingValueSets::Warn, logic, ..Choices::default() };
    let (loaded, found) = measures::load(&[folder.join("measure.json.gz")], &supplied(folder, scratch.path()), &choices);
    let Some(loaded) = loaded else {
        let errors: Vec<_> = found.into_iter().filter(watershed::diagnostic::Diagnostic::is_error).collect();
        return Tally { refused: Some(watershed::diagnostic::render_human(&errors, false)), ..Tally::default() };
    };
    let measure = &loaded.measures[0];
    let setting = measures::setting(&loaded, &TimeZone::UTC, NOW.parse().unwrap());
    let shape = measure.program().sifted_shape(&loaded.value_sets);
    let mut tally = Tally::default();
    let file = folder.join("cases.ndjson.gz");
    if !file.is_file() {
        return tally;
    }
    let step = if crate::all() { 1 } else { CASES_STEP };
    for line in folder::open(&file).unwrap().lines().step_by(step) {
        let case: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let name = case["case"].as_str().unwrap().to_owned();
        let expected = case["expected"].as_array().unwrap();
        let lines: Vec<Vec<u8>> = case["resources"].as_array().unwrap().iter().map(|resource| resource.to_string().into_bytes()).collect();
        let (record, _) = Record::read(&shape, lines.iter().map(Vec::as_slice));
        tally.cases.insert(name.clone());
        let mut differences = Vec::new();
        if std::env::var("WATERSHED_TRACE").is_ok_and(|wanted| name.starts_with(&wanted)) {
            trace(measure, &setting, &record, expected);
        }
        for expected in expected {
            let day = |name: &str| expected["period"][name].as_str().unwrap()[..10].to_owned();
            let period = Period::parse(&format!("{}/{}", day("start"), day("end"))).unwrap();
            let run = measure.over(&[period], &setting);
            let text = match &run.evaluate(&record)[0] {
                Ok(result) => {
                    let facts = Facts::default();
                    let reporter = measure.reporter(period, &facts);
                    compare(expected, &reporter.individual("p", result), result)
                }
                Err(error) => format!("error: {error} at {:?} in {:?}", error.at.as_ref().map(|at| (at.source.name.clone(), at.line())), error.within),
            };
            differences.push(text);
        }
        if !differences.iter().any(String::is_empty) {
            tally.wrong.insert(name, differences.join(" | "));
        }
    }
    tally
}

/// Prints every definition of a case, to see where it goes another way.
fn trace(measure: &watershed::measure::Measure, setting: &watershed::measure::Setting, record: &Record, expected: &[Value]) {
    let start = expected[0]["period"]["start"].as_str().unwrap()[..4].to_owned();
    let run = measure.over(&[Period::parse(&start).unwrap()], setting);
    let mut session = run.session(record, 0).unwrap();
    let program = measure.program();
    let root = program.tree().libraries[program.roots()[0].index()].name.to_string();
    for (define, name) in program.defines(&root) {
        let text = match session.evaluate(define) {
            Ok(value) => watershed::cql::show::text(&value, record),
            Err(error) => format!("error: {error}"),
        };
        println!("  {name} = {}", text.chars().take(600).collect::<String>());
    }
}

fn code(population: &Value) -> String {
    population["code"]["coding"][0]["code"].as_str().unwrap_or("?").to_owned()
}

/// Differences of the populations, then of strata where the expected report carries them. Of the strata of a criterion only
/// those for whom it holds are compared: as `false` the publications give, for every population, one minus that, which
/// puts patients into exclusions they are not in.
fn compare(expected: &Value, found: &Value, result: &PatientResult) -> String {
    let none = Vec::new();
    let mut text = String::new();
    let groups = |report: &Value| report["group"].as_array().cloned().unwrap_or_default();
    let (wanted, own) = (groups(expected), groups(found));
    for (index, (wanted, own)) in wanted.iter().zip(&own).enumerate() {
        let own = wanted["id"]
            .as_str()
            .and_then(|id| groups(found).into_iter().find(|group| group["id"] == id))
            .unwrap_or_else(|| own.clone());
        populations(&format!("group {}", index + 1), wanted, &own, &mut text);
        let place = groups(found).iter().position(|group| *group == own).unwrap_or(index);
        observations(&format!("group {}", index + 1), wanted, &result.groups[place], &mut text);
        for stratifier in wanted["stratifier"].as_array().unwrap_or(&none) {
            for stratum in stratifier["stratum"].as_array().unwrap_or(&none) {
                let value = &stratum["value"]["text"];
                if value == "false" {
                    continue;
                }
                let of_id = |own: &&Value| own["id"] == stratifier["id"];
                let matching = own["stratifier"].as_array().unwrap_or(&none).iter().find(of_id);
                let found = matching.and_then(|own| own["stratum"].as_array()?.iter().find(|own| own["value"]["text"] == *value).cloned());
                populations(&format!("stratum {} {value}", stratifier["id"]), stratum, &found.unwrap_or_default(), &mut text);
            }
        }
    }
    text
}

fn populations(what: &str, wanted: &Value, own: &Value, text: &mut String) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for population in wanted["population"].as_array().unwrap() {
        let code = code(population);
        if code.ends_with("observation") {
            continue;
        }
        let place = seen.entry(code.clone()).or_default();
        let found = own["population"].as_array().and_then(|all| all.iter().filter(|own| self::code(own) == code).nth(*place));
        *place += 1;
        let (expected, found) = (population["count"].as_u64().unwrap_or(0), found.and_then(|found| found["count"].as_u64()).unwrap_or(0));
        if expected != found {
            let _ = write!(text, "{what} {code}: expected {expected}, found {found}; ");
        }
    }
}

/// Each observation of each member, where the expected report names any.
fn observations(what: &str, wanted: &Value, own: &GroupResult, text: &mut String) {
    let of_report = wanted["population"].as_array().unwrap().iter().filter(|population| code(population) == "measure-observation");
    let mut expected: Vec<Decimal> = of_report.filter_map(|population| population["count"].to_string().parse().ok()).collect();
    let mut found: Vec<Decimal> = own
        .memberships
        .iter()
        .flat_map(|membership| membership.observed.values().map(|amount| amount.value.normalize()))
        .collect();
    expected.sort();
    found.sort();
    if !expected.is_empty() && expected != found {
        let _ = write!(text, "{what} observations: expected {expected:?}, found {found:?}; ");
    }
}

/// Every measure of a publication, on as many threads as there are cores.
fn publication(name: &str, logic: Logic) -> Option<BTreeMap<String, Tally>> {
    let root = crate::shared::yardstick(name)?;
    let step = if crate::all() { 1 } else { MEASURES_STEP };
    let queue = Mutex::new(folders(&root).into_iter().step_by(step).collect::<Vec<_>>());
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().pop();
                    let Some(folder) = next else { break };
                    let tally = run(&folder, logic);
                    done.lock().unwrap().insert(folder.file_name().unwrap().to_string_lossy().into_owned(), tally);
                }
            });
        }
    });
    Some(done.into_inner().unwrap())
}

/// Prints the figures; what is wrong and not listed, and what is listed and right.
fn judge(name: &str, form: &str, tallies: &BTreeMap<String, Tally>) -> Vec<String> {
    let show = std::env::var("WATERSHED_SHOW").is_ok();
    let listed: Vec<(&str, &str)> = UPSTREAM
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(": ").map(|(key, _)| key))
        .filter_map(|key| key.split_once('/').filter(|(publication, _)| *publication == name).map(|(_, case)| case))
        .filter_map(|case| case.split_once(' '))
        .collect();
    let (mut cases, mut right, mut perfect) = (0, 0, 0);
    let mut faults = Vec::new();
    for (measure, tally) in tallies {
        if let Some(refused) = &tally.refused {
            faults.push(format!("{measure} does not compile: {}", if show { refused } else { refused.lines().next().unwrap_or("") }));
            continue;
        }
        cases += tally.cases.len();
        right += tally.cases.len() - tally.wrong.len();
        perfect += usize::from(tally.wrong.is_empty());
        for (case, difference) in &tally.wrong {
            if !listed.contains(&(measure.as_str(), case.as_str())) {
                faults.push(format!("{measure} {case}: {difference}"));
            } else if show {
                println!("listed: {measure} {case}: {difference}");
            }
        }
        for (_, case) in listed.iter().filter(|(own, case)| own == measure && tally.cases.contains(*case) && !tally.wrong.contains_key(*case)) {
            faults.push(format!("{measure} {case} is listed as an error of the publication, and passes"));
        }
    }
    crate::figures::say(&format!(
        "{name} from {form}: {right} of {cases} cases as expected, {perfect} of {} measures perfect, {} cases listed as upstream errors",
        tallies.len(),
        listed.len()
    ));
    faults
}

fn hold(name: &str, form: &str, logic: Logic) {
    let Some(tallies) = publication(name, logic) else { return };
    let faults = judge(name, form, &tallies);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn the_measures_of_2024_from_cql() {
    hold("cms-ecqm-2024", "CQL", Logic::Cql);
}

#[test]
fn the_measures_of_2025_from_cql() {
    hold("cms-dqm-2025", "CQL", Logic::Cql);
}

#[test]
fn the_measures_of_2024_from_elm() {
    hold("cms-ecqm-2024", "ELM", Logic::Elm);
}

#[test]
fn the_measures_of_2025_from_elm() {
    hold("cms-dqm-2025", "ELM", Logic::Elm);
}
