//! A selective cohort question three ways, as ratios on one machine in one run: by CQL through the plan and the scan, by a
//! program that someone wrote by hand for this one question, and by the general reading of every resource.
//!
//! `cargo bench` prints a table. The answers are compared before anything is timed. With `WATERSHED_DUCKDB` naming a Python that
//! has the package `duckdb`, DuckDB answers too, over the same resources as a file, on one thread, its start-up not counted.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench may stop, and prints")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::value::RawValue;
use watershed::cql::value::DateTime;
use watershed::cql::{Environment, Libraries, Models, Program, Session, compile};
use watershed::diagnostic::SourceFile;
use watershed::fhir::record::Record;
use watershed::sandbox::{Hospital, Profile};
use watershed::terminology::ValueSets;
use watershed::terminology::units::Units;

const PATIENTS: u32 = 2_000;
const ROUNDS: usize = 5;
const LOINC: &str = "http://loinc.org";
/// C-reactive protein, which the sandbox's clinic measures at some visits.
const CODE: &str = "1988-5";
/// mg/L above which a patient belongs to the cohort.
const LIMIT: f64 = 10.0;

/// Patients by id, each with the lines of their resources.
type Lines = BTreeMap<String, Vec<Vec<u8>>>;

fn lines() -> Lines {
    let hospital = Hospital::generate(Profile::named("lakeside").unwrap(), 1, PATIENTS, "2026-11-01".parse().unwrap(), 24);
    let mut patients = Lines::new();
    for (kind, id, json) in hospital.resources() {
        let head: Subject<'_> = serde_json::from_str(&json).unwrap();
        let patient = if kind == "Patient" { Some(id) } else { head.subject.and_then(|subject| Some(subject.reference?.rsplit('/').next()?.to_owned())) };
        if let Some(patient) = patient {
            patients.entry(patient).or_default().push(json.into_bytes());
        }
    }
    patients
}

#[derive(Deserialize)]
struct Subject<'a> {
    #[serde(borrow)]
    subject: Option<Reference<'a>>,
}

#[derive(Deserialize)]
struct Reference<'a> {
    reference: Option<&'a str>,
}

fn program() -> Program {
    let text = format!(
        "library Cohort version '1.0.0'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1' called FHIRHelpers\n\
         codesystem \"LOINC\": '{LOINC}'\ncode \"CRP\": '{CODE}' from \"LOINC\"\ncontext Patient\n\
         define \"In Cohort\": exists ([Observation: \"CRP\"] O where O.status = 'final' and (O.value as FHIR.Quantity) > {LIMIT:?} 'mg/L')\n"
    );
    let (program, found) = compile(&[SourceFile::new("cohort.cql", text)], &Libraries::default(), &Models::default());
    assert_eq!(watershed::diagnostic::render_human(&found, false), "");
    program.unwrap()
}

/// Through the engine: only the paths that the plan needs are read.
fn by_cql(program: &Program, environment: &Environment, patients: &Lines) -> BTreeSet<String> {
    let define = program.define("Cohort", "In Cohort").unwrap();
    let shape = program.sifted_shape(&environment.value_sets);
    let inside = |lines: &Vec<Vec<u8>>| {
        let (record, _) = Record::read(&shape, lines.iter().map(Vec::as_slice));
        Session::new(program, environment, &record).evaluate(define).unwrap().truth() == Some(true)
    };
    patients.iter().filter(|(_, lines)| inside(lines)).map(|(id, _)| id.clone()).collect()
}

#[derive(Deserialize)]
struct Observation<'a> {
    status: &'a str,
    #[serde(borrow)]
    code: Concept<'a>,
    #[serde(borrow, rename = "valueQuantity")]
    value: Option<Quantity<'a>>,
}

#[derive(Deserialize)]
struct Concept<'a> {
    #[serde(borrow, default)]
    coding: Vec<Coding<'a>>,
}

#[derive(Deserialize)]
struct Coding<'a> {
    system: Option<&'a str>,
    code: Option<&'a str>,
}

#[derive(Deserialize)]
struct Quantity<'a> {
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    code: Option<&'a str>,
}

/// What an engineer would write for this question alone: skip by type, search for the code, parse what is left.
fn by_hand(patients: &Lines) -> BTreeSet<String> {
    let finder = memchr::memmem::Finder::new(CODE.as_bytes());
    let holds = |line: &Vec<u8>| {
        if !line.starts_with(b"{\"resourceType\":\"Observation\"") || finder.find(line).is_none() {
            return false;
        }
        let observation: Observation<'_> = serde_json::from_slice(line).unwrap();
        let coded = observation.code.coding.iter().any(|coding| coding.system == Some(LOINC) && coding.code == Some(CODE));
        let high = observation
            .value
            .is_some_and(|value| value.code == Some("mg/L") && value.value.is_some_and(|number| number.get().parse::<f64>().unwrap() > LIMIT));
        coded && high && observation.status == "final"
    };
    patients.iter().filter(|(_, lines)| lines.iter().any(holds)).map(|(id, _)| id.clone()).collect()
}

/// Every resource as a `serde_json::Value`, as programs without a plan do.
fn by_values(patients: &Lines) -> usize {
    patients
        .values()
        .flatten()
        .filter(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap()["code"]["coding"][0]["code"] == CODE)
        .count()
}

/// What DuckDB runs: the file's name and the limits come as arguments, the number of patients and the seconds go out.
const DUCKDB: &str = r#"
import sys, time, duckdb
file, code, limit, rounds = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
db = duckdb.connect()
db.execute("set threads = 1")
coding = "struct(system varchar, code varchar)[]"
columns = "{status: 'varchar', subject: 'struct(reference varchar)', code: 'struct(coding %s)', valueQuantity: 'struct(value double, code varchar)'}" % coding
query = f"""select count(distinct subject.reference) from read_json('{file}', format = 'newline_delimited', columns = {columns})
  where status = 'final' and valueQuantity.value > {limit} and valueQuantity.code = 'mg/L'
  and len(list_filter(code.coding, lambda c: c.system = 'http://loinc.org' and c.code = '{code}')) > 0"""
best = 1e9
for _ in range(rounds):
    started = time.process_time()
    answer = db.execute(query).fetchone()[0]
    best = min(best, time.process_time() - started)
print(answer, best)
"#;

/// Patients in the cohort and seconds by DuckDB, over a file with the Observations; `None` (said aloud) without it.
fn by_duckdb(patients: &Lines) -> Option<(usize, f64)> {
    let Ok(python) = std::env::var("WATERSHED_DUCKDB") else {
        println!("DuckDB is left out: WATERSHED_DUCKDB names no Python that has it");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Observation.ndjson");
    let observations = patients.values().flatten().filter(|line| line.starts_with(b"{\"resourceType\":\"Observation\""));
    std::fs::write(&file, observations.map(|line| [line.as_slice(), b"\n"].concat()).collect::<Vec<_>>().concat()).unwrap();
    let rounds = ROUNDS.to_string();
    let output = std::process::Command::new(python)
        .args(["-c", DUCKDB])
        .arg(&file)
        .args([CODE, &LIMIT.to_string(), &rounds])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace();
    let mut next = || words.next().unwrap_or_else(|| panic!("DuckDB said: {}", String::from_utf8_lossy(&output.stderr)));
    Some((next().parse().unwrap(), next().parse().unwrap()))
}

/// The least of several runs, in seconds.
fn timed<T>(mut work: impl FnMut() -> T) -> f64 {
    let one = |work: &mut dyn FnMut() -> T| {
        let started = Instant::now();
        std::hint::black_box(work());
        started.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(|_| one(&mut work)).fold(f64::INFINITY, f64::min)
}

fn main() {
    let patients = lines();
    let bytes: usize = patients.values().flatten().map(Vec::len).sum();
    let program = program();
    let now = DateTime::from_timestamp("2026-11-01T00:00:00Z".parse().unwrap(), &TimeZone::UTC);
    let (value_sets, units) = (Arc::new(ValueSets::new()), Arc::new(Units::new()));
    let environment = Environment { parameters: BTreeMap::new(), now, zone: TimeZone::UTC, value_sets, units };
    let (ours, theirs) = (by_cql(&program, &environment, &patients), by_hand(&patients));
    assert_eq!(ours, theirs, "the answers differ, so their times say nothing");
    let megabytes = bytes as f64 / 1e6;
    println!("{} patients, {megabytes:.1} MB, {} in the cohort, one thread, least of {ROUNDS}", patients.len(), ours.len());
    let hand = timed(|| by_hand(&patients));
    let mut rows = vec![("written by hand", hand), ("CQL", timed(|| by_cql(&program, &environment, &patients))), ("serde_json::Value", timed(|| by_values(&patients)))];
    if let Some((found, seconds)) = by_duckdb(&patients) {
        assert_eq!(found, ours.len(), "DuckDB's answer differs");
        rows.push(("DuckDB", seconds));
    }
    for (name, seconds) in rows {
        println!("{name:>20}  {:>8.1} ms  {:>7.0} MB/s  {:>6.2} x", seconds * 1e3, megabytes / seconds, seconds / hand);
    }
}
