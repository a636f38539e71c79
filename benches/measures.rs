//! Published measures over patients: patients a second, without start-up.
//!
//! `cargo bench --bench measures -- FOLDER [DATA]`: FOLDER holds one folder a measure, each with `measure.json.gz` and, unless
//! DATA is given, `cases.ndjson.gz`, whose lines are `{"resources": […]}`. With `WATERSHED_FQM` naming a folder that has npm's
//! fqm-execution (1.8.6), it is timed on a sample of the measures.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench may stop, and prints")]

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::tz::TimeZone;
use serde_json::Value;
use watershed::config::measures;
use watershed::fhir::record::{Record, Shape};
use watershed::measure::{Choices, MissingValueSets, Period};
use watershed::source::folder;

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
    let data = folder::read(&files, &Shape::everything(), 1).unwrap();
    data.patients().map(|patient| patient.lines().map(<[u8]>::to_vec).collect()).collect()
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

/// So many measures lie between two that fqm-execution is asked about: all would take it many minutes.
const FQM_STEP: usize = 6;

/// Patients a CPU second of fqm-execution, by measure; none (said aloud) without it.
fn by_fqm(root: &Path, folders: &[PathBuf]) -> BTreeMap<String, f64> {
    let Ok(fqm) = std::env::var("WATERSHED_FQM") else {
        println!("fqm-execution is left out: WATERSHED_FQM names no folder with npm's fqm-execution");
        return BTreeMap::new();
    };
    let names = folders.iter().step_by(FQM_STEP).map(|path| path.file_name().unwrap());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/fqm.mjs");
    let output = std::process::Command::new("node").arg(script).arg(root).args(names).env("WATERSHED_FQM", fqm).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let row = |line: &str| {
        let [name, patients, seconds] = line.strip_prefix("RESULT ")?.split(' ').collect::<Vec<_>>()[..] else { return None };
        let (patients, seconds): (f64, f64) = (patients.parse().ok()?, seconds.parse().ok()?);
        (patients > 0.0).then(|| (name.to_owned(), patients / seconds))
    };
    let rates: BTreeMap<String, f64> = text.lines().filter_map(row).collect();
    assert!(!rates.is_empty(), "fqm-execution said: {}", String::from_utf8_lossy(&output.stderr));
    rates
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(root) = arguments.next().map(PathBuf::from) else {
        println!("skipped: no folder of published measures given; see benches/README.md");
        return;
    };
    let fqm_root = root.clone();
    let shared = arguments.next().map(|path| data(Path::new(&path)));
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.join("measure.json.gz").is_file() && (shared.is_some() || path.join("cases.ndjson.gz").is_file()));
    folders.sort();
    let theirs = if shared.is_none() { by_fqm(&fqm_root, &folders) } else { BTreeMap::new() };
    let mut ratios = Vec::new();
    let mut all = Vec::new();
    for path in &folders {
        let own = shared.is_none().then(|| cases(&path.join("cases.ndjson.gz")));
        let (patients, seconds) = run(&path.join("measure.json.gz"), own.as_ref().or(shared.as_ref()).unwrap());
        let rate = patients as f64 / seconds;
        let name = path.file_name().unwrap().to_string_lossy();
        let ratio = theirs.get(&*name).map(|theirs| rate / theirs);
        let beside = ratio.map_or_else(String::new, |ratio| format!("  {ratio:.0} x fqm-execution"));
        println!("{rate:>10.0} patients/s  {:>8.1} µs each  {name}{beside}", 1e6 / rate);
        ratios.extend(ratio);
        all.push((rate, patients, seconds));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (patients, seconds) = all.iter().fold((0, 0.0), |(patients, seconds), one| (patients + one.1, seconds + one.2));
    println!("{patients} patients in {seconds:.2} s on one thread: {:.0} patients/s; median {:.0}, slowest {:.0}", patients as f64 / seconds, all[all.len() / 2].0, all[0].0);
    ratios.sort_by(f64::total_cmp);
    if let (Some(least), Some(median)) = (ratios.first(), ratios.get(ratios.len() / 2)) {
        println!("{} measures by fqm-execution too: {median:.0} times as fast in the median, {least:.0} at least, both on one thread after their start-up", ratios.len());
    }
}
