//! Every published measure of a folder over many patients: cold NDJSON to summary reports by the program that people run.
//!
//! `cargo bench --bench scale -- FOLDER [PATIENTS]`: FOLDER holds one folder a measure, each with `measure.json.gz` and
//! `cases.ndjson.gz` (lines of `{"resources": […]}`). Its test patients, repeated under new ids, are the data, so that every
//! measure finds its own. Printed are wall time, throughput, the peak of memory as the system counts it, and what one patient
//! and measure take; the bench fails when the peak is above the limit given to the program.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench may stop, and prints")]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use serde_json::Value;
use watershed::config::measures::{self, Loaded};
use watershed::fhir::record::{Record, Shape};
use watershed::fhir::shared::Shared;
use watershed::measure::{Choices, MissingValueSets, Period};
use watershed::source::folder;

const PATIENTS: usize = 100_000;
/// The year that most of the published test patients are about.
const PERIOD: &str = "2025";
/// MiB that the program is told to stay within.
const MEMORY: u64 = 1024;
/// Every so many patients is timed by itself.
const SAMPLE: usize = 50;

/// One test patient's resources.
type Patient = Vec<Value>;

fn test_patients(folders: &[PathBuf]) -> Vec<Patient> {
    let lines = folders.iter().flat_map(|folder| folder::open(&folder.join("cases.ndjson.gz")).unwrap().lines());
    let patient = |line: std::io::Result<String>| serde_json::from_str::<Value>(&line.unwrap()).unwrap()["resources"].as_array().unwrap().clone();
    lines.map(patient).collect()
}

/// Gives ids and references a suffix: another patient, whose resources refer to one another as before.
fn rename(value: &mut Value, suffix: &str) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "reference" && text.contains('/') => text.push_str(suffix),
                    _ => rename(field, suffix),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, suffix)),
        _ => {}
    }
}

/// The patients of a number, and how many bytes they are.
fn write_data(file: &Path, originals: &[Patient], patients: usize) -> u64 {
    let mut output = std::io::BufWriter::new(File::create(file).unwrap());
    for (number, original) in originals.iter().cycle().take(patients).enumerate() {
        let suffix = format!("-{number}");
        for resource in original {
            let mut resource = resource.clone();
            let id = resource["id"].as_str().unwrap_or_default().to_owned();
            resource["id"] = Value::String(id + &suffix);
            rename(&mut resource, &suffix);
            writeln!(output, "{resource}").unwrap();
        }
    }
    output.flush().unwrap();
    std::fs::metadata(file).unwrap().len()
}

/// Seconds and the peak of memory in MiB of the program's run.
fn evaluate(measures: &[PathBuf], data: &Path, out: &Path) -> (f64, Option<u64>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watershed"));
    command
        .arg("evaluate")
        .arg("--data")
        .arg(data)
        .args(["--period", PERIOD, "--incomplete-valuesets", "warn", "--memory", &format!("{MEMORY}MiB")])
        .arg("--out")
        .arg(out);
    command.arg("--measure").args(measures);
    let started = Instant::now();
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let mut peak = None;
    while child.try_wait().unwrap().is_none() {
        peak = peak_of(child.id()).max(peak);
        std::thread::sleep(Duration::from_millis(20));
    }
    (started.elapsed().as_secs_f64(), peak)
}

/// The most memory that a process has held so far, in MiB, where the system tells.
fn peak_of(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? / 1024)
}

/// Microseconds of each measure over a sample of the patients, reading not included.
fn sample(loaded: &Loaded, data: &Path) -> Vec<f64> {
    let mut shape = Shape::default();
    loaded.measures.iter().for_each(|measure| shape.merge(&measure.program().sifted_shape(&loaded.value_sets)));
    let data = folder::read(&[data.to_owned()], &shape, 1).unwrap();
    let setting = measures::setting(loaded, &TimeZone::UTC, "2027-01-01T00:00:00Z".parse().unwrap());
    let periods = [Period::parse(PERIOD).unwrap()];
    let runs: Vec<_> = loaded.measures.iter().map(|measure| measure.over(&periods, &setting)).collect();
    let shared = Shared::new(data.shared());
    let mut times = Vec::new();
    for patient in data.patients().step_by(SAMPLE) {
        let (record, _) = Record::read(&shape, patient.lines().chain(shared.referred_to(patient.lines())));
        for run in &runs {
            let started = Instant::now();
            std::hint::black_box(run.evaluate(&record));
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    times
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let Some(root) = arguments.next().map(PathBuf::from) else {
        println!("skipped: no folder of published measures given; see benches/README.md");
        return;
    };
    let patients = arguments.next().map_or(PATIENTS, |text| text.parse().expect("a number of patients"));
    let mut folders: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.join("measure.json.gz").is_file() && path.join("cases.ndjson.gz").is_file());
    folders.sort();
    let files: Vec<PathBuf> = folders.iter().map(|folder| folder.join("measure.json.gz")).collect();
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("all.ndjson");
    let megabytes = write_data(&data, &test_patients(&folders), patients) as f64 / 1e6;
    let out = scratch.path().join("out");
    let (seconds, peak) = evaluate(&files, &data, &out);
    let reports = std::fs::read_dir(&out).map_or(0, Iterator::count);
    assert_eq!(reports, files.len(), "a report of each measure is expected");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let pairs = (patients * files.len()) as f64;
    println!("{patients} patients, {megabytes:.0} MB of NDJSON, {} measures on {cores} cores ({}): {seconds:.1} s", files.len(), processor());
    println!("{:.0} patients/s, {:.0} patient-measures/s, {:.1} µs each, reading and compiling included", patients as f64 / seconds, pairs / seconds, seconds / pairs * 1e6);
    let choices = Choices { missing_value_sets: MissingValueSets::Warn, ..Choices::default() };
    let loaded = measures::load(&files, &[], &choices).0.unwrap();
    let times = sample(&loaded, &data);
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("one patient and measure on one thread, of {} timed: median {median:.1} µs, mean {mean:.1} µs, worst {:.1} ms", times.len(), worst / 1e3);
    match peak {
        Some(peak) => {
            println!("peak memory {peak} MiB of {MEMORY}");
            assert!(peak <= MEMORY, "more memory than the program was told to stay within");
        }
        None => println!("peak memory is not told by this system"),
    }
}

/// The processor's name, where the system tells.
fn processor() -> String {
    let text = File::open("/proc/cpuinfo").map(|file| {
        BufReader::new(file)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| Some(line.strip_prefix("model name")?.trim_start_matches([' ', '\t', ':']).to_owned()))
    });
    text.ok().flatten().unwrap_or_else(|| "processor unknown".to_owned())
}
