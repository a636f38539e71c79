//! A selective cohort question several ways, as ratios on one machine in one run: by CQL through the plan and the scan, by a
//! program that someone wrote by hand for this one question, and by parsing every resource. All read the same file, which the
//! system holds in memory, on one thread, from its first byte to the patients' ids.
//!
//! `cargo bench` prints a table. The answers are compared before anything is timed. With `WATERSHED_DUCKDB` naming a Python that
//! has the package `duckdb`, DuckDB answers too, its start-up not counted.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench may stop, and prints")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::value::RawValue;
use watershed::cql::value::DateTime;
use watershed::cql::{Environment, Libraries, Models, Program, Session, compile};
use watershed::diagnostic::SourceFile;
use watershed::fhir::record::Record;
use watershed::fhir::record::glance::Kinds;
use watershed::sandbox::{Hospital, Profile};
use watershed::source::folder;
use watershed::terminology::ValueSets;
use watershed::terminology::units::Units;

const PATIENTS: u32 = 20_000;
const ROUNDS: usize = 15;
const LOINC: &str = "http://loinc.org";
/// C-reactive protein, which the sandbox's clinic measures at some visits.
const CODE: &str = "1988-5";
/// mg/L above which a patient belongs to the cohort.
const LIMIT: f64 = 10.0;

/// The Observations of a generated hospital, as a Bulk Data export has them; how many bytes.
fn write_observations(file: &Path) -> usize {
    let hospital = Hospital::generate(Profile::named("lakeside").unwrap(), 1, PATIENTS, "2026-11-01".parse().unwrap(), 24);
    let lines: Vec<String> = hospital.resources().into_iter().filter(|(kind, _, _)| kind == "Observation").map(|(_, _, json)| json + "\n").collect();
    let mut output = std::io::BufWriter::new(File::create(file).unwrap());
    lines.iter().for_each(|line| output.write_all(line.as_bytes()).unwrap());
    output.flush().unwrap();
    lines.iter().map(String::len).sum()
}

#[derive(Deserialize)]
struct Reference<'a> {
    reference: &'a str,
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

/// Through the engine, as `watershed evaluate` reads data: only the paths that the plan needs, of lines that may matter.
fn by_cql(program: &Program, environment: &Environment, file: &Path) -> BTreeSet<String> {
    let define = program.define("Cohort", "In Cohort").unwrap();
    let shape = program.sifted_shape(&environment.value_sets);
    let data = folder::read(&[file.to_owned()], &shape, 1).unwrap();
    let (mut record, mut kinds) = (Record::default(), Kinds::sifted(&shape));
    let inside = |patient: &folder::Patient<'_>| {
        record.reread(&mut kinds, patient.lines());
        Session::new(program, environment, &record).evaluate(define).unwrap().truth() == Some(true)
    };
    data.patients().filter(inside).map(|patient| patient.id.to_owned()).collect()
}

#[derive(Deserialize)]
struct Observation<'a> {
    status: &'a str,
    #[serde(borrow)]
    subject: Reference<'a>,
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

/// Each line of a file, without its end.
fn each_line(file: &Path, mut each: impl FnMut(&[u8])) {
    let mut input = BufReader::with_capacity(1 << 18, File::open(file).unwrap());
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).unwrap() > 0 {
        each(&line);
        line.clear();
    }
}

/// What an engineer would write for this question alone: skip by type, search for the code, parse what is left.
fn by_hand(file: &Path) -> BTreeSet<String> {
    let finder = memchr::memmem::Finder::new(CODE.as_bytes());
    let mut found = BTreeSet::new();
    each_line(file, |line| {
        if !line.starts_with(b"{\"resourceType\":\"Observation\"") || finder.find(line).is_none() {
            return;
        }
        let observation: Observation<'_> = serde_json::from_slice(line).unwrap();
        let coded = observation.code.coding.iter().any(|coding| coding.system == Some(LOINC) && coding.code == Some(CODE));
        let high = observation
            .value
            .is_some_and(|value| value.code == Some("mg/L") && value.value.is_some_and(|number| number.get().parse::<f64>().unwrap() > LIMIT));
        if coded && high && observation.status == "final" {
            found.insert(observation.subject.reference.trim_start_matches("Patient/").to_owned());
        }
    });
    found
}

/// Every resource as a `serde_json::Value`, as programs without a plan do.
fn by_values(file: &Path) -> usize {
    let mut found = 0;
    each_line(file, |line| found += usize::from(serde_json::from_slice::<serde_json::Value>(line).unwrap()["code"]["coding"][0]["code"] == CODE));
    found
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

/// Patients in the cohort and processor seconds by DuckDB; `None` (said aloud) without it.
fn by_duckdb(file: &Path) -> Option<(usize, f64)> {
    let Ok(python) = std::env::var("WATERSHED_DUCKDB") else {
        println!("DuckDB is left out: WATERSHED_DUCKDB names no Python that has it");
        return None;
    };
    let rounds = ROUNDS.to_string();
    let output = std::process::Command::new(python)
        .args(["-c", DUCKDB])
        .arg(file)
        .args([CODE, &LIMIT.to_string(), &rounds])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace();
    let mut next = || words.next().unwrap_or_else(|| panic!("DuckDB said: {}", String::from_utf8_lossy(&output.stderr)));
    Some((next().parse().unwrap(), next().parse().unwrap()))
}

/// How long it takes, in seconds.
fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let started = Instant::now();
    std::hint::black_box(work());
    started.elapsed().as_secs_f64()
}

fn main() {
    let file = std::path::PathBuf::from("/tmp/h/cohort/Observation.ndjson");
    if std::env::var("MAKE").is_ok() {
        write_observations(&file);
    }
    let bytes = std::fs::metadata(&file).unwrap().len() as usize;
    let program = program();
    let now = DateTime::from_timestamp("2026-11-01T00:00:00Z".parse().unwrap(), &TimeZone::UTC);
    let (value_sets, units) = (Arc::new(ValueSets::new()), Arc::new(Units::new()));
    let environment = Environment { parameters: BTreeMap::new(), now, zone: TimeZone::UTC, value_sets, units };
    let (ours, theirs) = (by_cql(&program, &environment, &file), by_hand(&file));
    assert_eq!(ours, theirs, "the answers differ, so their times say nothing");
    if std::env::var("ONLY").is_ok_and(|x| x == "cql") {
        for _ in 0..40 {
            std::hint::black_box(by_cql(&program, &environment, &file));
        }
        return;
    }
    if std::env::var("ONLY").is_ok_and(|x| x == "hand") {
        for _ in 0..40 {
            std::hint::black_box(by_hand(&file));
        }
        return;
    }
    let megabytes = bytes as f64 / 1e6;
    println!("{PATIENTS} patients, {megabytes:.1} MB, {} in the cohort, one thread, least of {ROUNDS}", ours.len());
    // In turns, so that a slow spell of the machine meets both.
    let (mut hand, mut cql) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        hand = hand.min(timed(|| by_hand(&file)));
        cql = cql.min(timed(|| by_cql(&program, &environment, &file)));
    }
    let mut rows = vec![("written by hand", hand), ("CQL", cql), ("serde_json::Value", timed(|| by_values(&file)))];
    if let Some((found, seconds)) = by_duckdb(&file) {
        assert_eq!(found, ours.len(), "DuckDB's answer differs");
        rows.push(("DuckDB", seconds));
    }
    for (name, seconds) in rows {
        println!("{name:>20}  {:>8.1} ms  {:>7.0} MB/s  {:>6.2} x", seconds * 1e3, megabytes / seconds, seconds / hand);
    }
}
