//! Published measures over patients: patients a second, without start-up.
//!
//! `cargo bench --bench measures -- FOLDER [DATA]`: FOLDER holds one folder a measure, each with `measure.json.gz` and, unless
//! DATA is given, `cases.ndjson.gz`, whose lines are `{"resources": […]}`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench may stop, and prints")]

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::tz::TimeZone;
use serde_json::Value;
use watershed::config::measures;
use watershed::fhir::record::Record;
use watershed::measure::{Choices, MissingValueSets, Period};
use watershed::source::folder::{self, Share};

/// The lines of each patient.
type Patients = Vec<Vec<Vec<u8>>>;

fn cases(file: &Path) -> Patients {
    let lines = folder::open(file).unwrap().lines();
    let one = |line: std::io::Result<String>| {
        let case: Value = serde_json::from_str(&line.unwrap()).unwrap();
        case["resources"].as_array().unwrap().iter().map(|resource| resource.to_string().into_bytes()).collect()
    };
    lines.map(one).collect()
}

fn data(path: &Path) -> Patients {
    let files = folder::files(&[path.to_owned()]).unwrap();
    folder::read(&files, &|_| true, Share::ALL, 1).unwrap().patients.into_values().collect()
}

/// Patients and seconds of one measure; reading included, compiling not.
fn run(measure: &Path, patients: &Patients) -> (usize, f64) {
    let choices = Choices { missing_value_sets: MissingValueSets::Warn, ..Choices::default() };
    let (loaded, found) = measures::load(&[measure.to_owned()], &[], &choices);
    let loaded = loaded.unwrap_or_else(|| panic!("{}", watershed::diagnostic::render_human(&found, false)));
    let setting = measures::setting(&loaded, &TimeZone::UTC, "2027-01-01T00:00:00Z".parse().unwrap());
    let periods = [Period::parse("2025").unwrap()];
    let run = loaded.measures[0].over(&periods, &setting);
    let shape = loaded.measures[0].program().sifted_shape(&loaded.value_sets);
    let started = Instant::now();
    for lines in patients {
        let (record, _) = Record::read(&shape, lines.iter().map(Vec::as_slice));
        std::hint::black_box(run.evaluate(&record));
    }
    (patients.len(), started.elapsed().as_secs_f64())
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(root) = arguments.next().map(PathBuf::from) else {
        println!("skipped: no folder of published measures given; see benches/README.md");
        return;
    };
    let shared = arguments.next().map(|path| data(Path::new(&path)));
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.join("measure.json.gz").is_file() && (shared.is_some() || path.join("cases.ndjson.gz").is_file()));
    folders.sort();
    let mut all = Vec::new();
    for path in &folders {
        let own = shared.is_none().then(|| cases(&path.join("cases.ndjson.gz")));
        let (patients, seconds) = run(&path.join("measure.json.gz"), own.as_ref().or(shared.as_ref()).unwrap());
        let rate = patients as f64 / seconds;
        println!("{rate:>10.0} patients/s  {:>8.1} µs each  {}", 1e6 / rate, path.file_name().unwrap().to_string_lossy());
        all.push((rate, patients, seconds));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (patients, seconds) = all.iter().fold((0, 0.0), |(patients, seconds), one| (patients + one.1, seconds + one.2));
    println!("{patients} patients in {seconds:.2} s on one thread: {:.0} patients/s; median {:.0}, slowest {:.0}", patients as f64 / seconds, all[all.len() / 2].0, all[0].0);
}
