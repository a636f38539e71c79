//! Mutated libraries, ELM, FHIR data, values and YAML: nothing panics, nothing hangs, what is refused says why, and what is
//! still accepted means the same by every road.
//!
//! Deterministic by seed. `WATERSHED_FUZZ_CASES=N` runs N times as many cases, `WATERSHED_FUZZ_SEED=N` others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use watershed::config::measures;
use watershed::cql::value::{Date, DateTime, Time};
use watershed::cql::{Libraries, Models, Program, Session, compile, elm, show};
use watershed::diagnostic::{Diagnostic, SourceFile, render_human};
use watershed::fhir::ndjson::Lines;
use watershed::fhir::record::{Record, Shape};
use watershed::mapping::Mapping;
use watershed::measure::{self, Choices, Files, Measure, definition, published};
use watershed::source::import;
use watershed::terminology::ValueSets;
use watershed::terminology::read::value_set;

use crate::{composite, cql_suite};

/// What breaks readers: deep, huge, empty, odd.
const NASTY: [&str; 34] = [
    "(",
    ")",
    "[",
    "{",
    "}",
    "\"",
    "'",
    "`",
    "/*",
    "//",
    "\\",
    "\\u0000",
    "\u{0}",
    "\u{feff}",
    "𝛿",
    "\u{202e}",
    "-",
    "99999999999999999999999999999999999",
    "1e999999",
    "0.00000000000000000001",
    "@2012-02-30",
    "@T25:61",
    "@0000",
    "null",
    "Interval[null, null]",
    "List<",
    "not not not",
    "5 'mg",
    "'[arb'U]'",
    "define \"A\": \"A\"",
    "true",
    "\n",
    ": :",
    "%",
];
/// Most bytes of a mutated text.
const TEXT_BYTES_MAX: usize = 200_000;
/// Most repetitions of a piece.
const REPEATS_MAX: usize = 400;

pub(crate) fn random(target: u64) -> ChaCha8Rng {
    let seed = std::env::var("WATERSHED_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_124);
    ChaCha8Rng::seed_from_u64(seed ^ (target << 40))
}

pub(crate) fn cases(base: usize) -> usize {
    base * std::env::var("WATERSHED_FUZZ_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Words, runs of white space, single signs.
fn tokens(text: &str) -> Vec<&str> {
    let kind = |c: char| {
        if c.is_alphanumeric() || c == '_' {
            0
        } else if c.is_whitespace() {
            1
        } else {
            2
        }
    };
    let mut tokens = Vec::new();
    let mut start = 0;
    let mut last = None;
    for (at, c) in text.char_indices() {
        if last.is_some_and(|last| last != kind(c) || last == 2) {
            tokens.push(&text[start..at]);
            start = at;
        }
        last = Some(kind(c));
    }
    tokens.push(&text[start..]);
    tokens
}

/// One to so many changes of a text: pieces left out, doubled, swapped, taken from another text, repeated many times, cut off.
pub(crate) fn mutated(random: &mut ChaCha8Rng, seeds: &[String], changes_max: usize) -> String {
    let text = seeds.choose(random).expect("seeds");
    let mut pieces: Vec<String> = tokens(text).into_iter().map(str::to_owned).collect();
    for _ in 0..random.random_range(1..=changes_max) {
        let at = random.random_range(0..pieces.len());
        match random.random_range(0..9) {
            0 => drop(pieces.remove(at)),
            1 => pieces.insert(at, pieces[at].clone()),
            2 => {
                let other = random.random_range(0..pieces.len());
                pieces.swap(at, other);
            }
            3 => pieces[at] = (*NASTY.choose(random).expect("one")).to_owned(),
            4 => pieces.insert(at, (*NASTY.choose(random).expect("one")).to_owned()),
            5 => {
                let other = tokens(seeds.choose(random).expect("seeds")).choose(random).map_or("", |token| *token).to_owned();
                pieces[at] = other;
            }
            6 => {
                let end = (at + random.random_range(1..6)).min(pieces.len());
                let run = pieces[at..end].concat().repeat(random.random_range(2..REPEATS_MAX));
                pieces.insert(at, run);
            }
            7 if random.random_bool(0.2) => pieces.truncate(at.max(1)),
            _ => {
                let digits = random.random_range(0..40_u32).to_string();
                pieces[at] = digits.repeat(random.random_range(1..12));
            }
        }
        if pieces.is_empty() {
            pieces.push(String::new());
        }
    }
    let mut text = pieces.concat();
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}

/// What is refused says why, and the report of it can be drawn.
fn told(accepted: bool, found: &[Diagnostic], text: &str) {
    let errors = found.iter().filter(|finding| finding.is_error());
    assert!(accepted || errors.clone().count() > 0, "refused without a word:\n{text}");
    assert!(errors.clone().all(|finding| !finding.message.is_empty()), "an error without words:\n{text}");
    render_human(&found[..found.len().min(20)], false);
}

fn files(folder: &str, ending: &str) -> Vec<Arc<SourceFile>> {
    let mut found = Vec::new();
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(SourceFile::new(path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn texts(folder: &str, ending: &str) -> Vec<String> {
    files(folder, ending).iter().map(|source| source.text.clone()).collect()
}

pub(crate) fn libraries() -> Libraries {
    let mut libraries = Libraries::default();
    files("mappings/libraries", "cql").iter().for_each(|source| libraries.add(source));
    libraries
}

/// The measures of the repository and, one a case, the resources of their test patients.
fn measures_and_patients() -> (Vec<Measure>, Arc<ValueSets>, Vec<Vec<Vec<u8>>>) {
    let folders = measures::find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures")).unwrap();
    let (loaded, found) = measures::load(&folders, &[], &Choices::default());
    let loaded = loaded.unwrap_or_else(|| panic!("{}", render_human(&found, false)));
    let mut patients = Vec::new();
    for (folder, measure) in folders.iter().zip(&loaded.measures) {
        let cases = measures::read(folder).unwrap().cases;
        patients.extend(cases.iter().map(|source| measure::case::parse(source, measure).0.expect("a case").lines));
    }
    (loaded.measures, loaded.value_sets, patients)
}

/// What every define of the program's roots comes to over a record.
fn outcomes(program: &Program, record: &Record, value_sets: &Arc<ValueSets>) -> BTreeMap<String, Result<String, String>> {
    let environment = watershed::cql::Environment { value_sets: value_sets.clone(), ..cql_suite::environment() };
    let mut session = Session::new(program, &environment, record);
    let root = program.tree().libraries[program.roots()[0].index()].name.to_string();
    let outcome = |(define, name): (_, &str)| (name.to_owned(), session.evaluate(define).map(|value| show::json(&value, record).to_string()).map_err(|fault| fault.to_string()));
    program.defines(&root).into_iter().map(outcome).collect()
}

#[test]
fn mutated_libraries_are_refused_with_reasons_or_mean_the_same_by_every_road() {
    let mut random = random(1);
    let mut seeds = texts("mappings/measures", "cql");
    seeds.extend(
        watershed::cql::operators::operators()
            .flat_map(|row| row.examples)
            .map(|example| format!("library T version '1'\ncontext Patient\ndefine A: {example}\ndefine B: not A\n")),
    );
    let (libraries, models) = (libraries(), Models::default());
    let (_, value_sets, patients) = measures_and_patients();
    let mut alive = 0;
    for _ in 0..cases(400) {
        let text = mutated(&mut random, &seeds, 2);
        let (program, found) = compile(&[SourceFile::new("t.cql", text.clone())], &libraries, &models);
        told(program.is_some(), &found, &text);
        let Some(program) = program else { continue };
        alive += 1;
        let lines = patients.choose(&mut random).expect("a patient");
        let read = |shape: &Shape| Record::read(shape, lines.iter().map(Vec::as_slice)).0;
        let by_plan = read(&program.sifted_shape(&value_sets));
        let whole = read(&Shape::everything());
        let live: Vec<String> = program.live_defines().map(|(_, name)| name.to_owned()).collect();
        let (planned, naive) = (outcomes(&program, &by_plan, &value_sets), outcomes(&program, &whole, &value_sets));
        for name in live {
            // What shows a whole resource shows what was read of it.
            let shows_resource = naive.get(&name).is_some_and(|value| value.as_ref().is_ok_and(|text| text.contains("resourceType")));
            assert!(shows_resource || planned.get(&name) == naive.get(&name), "`{name}` by plan {:?}, naively {:?}:\n{text}", planned.get(&name), naive.get(&name));
        }
    }
    assert!(alive > 20, "only {alive} mutants compile");
}

#[test]
fn mutated_elm_is_refused_with_reasons() {
    let mut random = random(2);
    let (measures, ..) = measures_and_patients();
    let mut seeds = Vec::new();
    for measure in &measures {
        let tree = measure.program().tree();
        let root = measure.program().roots()[0];
        seeds.push(elm::write(tree, root).0.to_string());
    }
    let small = "library T version '1'\ndefine A: from ({1, 2}) X, ({3}) Y where X < Y return Tuple { a: X, b: Interval[X, Y] } sort by a\n";
    let program = compile(&[SourceFile::new("t.cql", small)], &Libraries::default(), &Models::default()).0.unwrap();
    let small = elm::write(program.tree(), program.roots()[0]).0.to_string();
    seeds.extend(std::iter::repeat_n(small, 6));
    let (record, _) = Record::read(&Shape::everything(), std::iter::empty());
    for _ in 0..cases(150) {
        let text = mutated(&mut random, &seeds, 4);
        let (program, found) = elm::compile(&SourceFile::new("t.json", text.clone()), &[], &Models::default());
        told(program.is_some(), &found, &text);
        if let Some(program) = program {
            outcomes(&program, &record, &Arc::default());
        }
    }
}

#[test]
fn mutated_fhir_is_read_or_set_aside() {
    let mut random = random(3);
    let (_, _, patients) = measures_and_patients();
    let seeds: Vec<String> = patients.iter().flatten().map(|line| String::from_utf8(line.clone()).unwrap()).collect();
    for _ in 0..cases(3_000) {
        let text = mutated(&mut random, &seeds, 4);
        let (record, bad) = Record::read(&Shape::everything(), std::iter::once(text.as_bytes()));
        assert!(bad.iter().all(|line| !line.reason.is_empty()), "{text}");
        let _ = format!("{record:?}");
        let mut lines = Lines::with_limit(text.as_bytes(), 1_000);
        while let Ok(Some(_)) = lines.next_line() {}
        let bundle = SourceFile::new("b.json", format!("{{\"resourceType\":\"Bundle\",\"type\":\"collection\",\"entry\":[{{\"resource\":{text}}}]}}"));
        let (_, found) = published::collect(&[bundle]);
        told(true, &found, &text);
    }
}

#[test]
fn mutated_values_are_values_or_nothing() {
    let mut random = random(4);
    let seeds = ["2012-02-29T10:30:00.125+01:00", "2012-02", "T23:59:59.999", "0001", "9999-12-31", "-12.500", "1e10", "12 'mg/dL'", "5 years", "1:128", "3.5 '[degF]'", "{score}"];
    let seeds: Vec<String> = seeds.map(str::to_owned).into();
    let environment = cql_suite::environment();
    let (record, _) = Record::read(&Shape::everything(), std::iter::empty());
    for _ in 0..cases(4_000) {
        let text = mutated(&mut random, &seeds, 4);
        let (date, point, time) = (Date::parse(&text), DateTime::parse_cql(&text), Time::parse(&text));
        // What was read is written so that it is read again as the same.
        assert!(date.is_none_or(|date| Date::parse(&date.to_string()) == Some(date)), "{text}");
        assert!(time.is_none_or(|time| Time::parse(&time.to_string()) == Some(time)), "{text}");
        let _ = point;
        let session =
            watershed::cql::operators::Context { now: &environment.now, zone: &environment.zone, units: &environment.units, value_sets: &environment.value_sets, record: &record };
        let operands = [watershed::cql::value::Value::string(&text)];
        for name in ["ToDecimal", "ToInteger", "ToLong", "ToQuantity", "ToRatio", "ToDate", "ToDateTime", "ToTime", "ToBoolean"] {
            let call = watershed::cql::operators::Call { operands: &operands, precision: None, context: &session };
            let _ = watershed::cql::operators::operator(name).expect("a row").apply(&call);
        }
    }
}

#[test]
fn mutated_files_of_users_are_refused_with_reasons() {
    let mut random = random(5);
    let (value_sets, definitions, sites) = (texts("mappings/value-sets", "yaml"), texts("mappings/measures", "yaml"), texts("mappings/sites", "yaml"));
    let imports = texts("mappings/imports", "yaml");
    let (measures, ..) = measures_and_patients();
    for _ in 0..cases(150) {
        let file = |text: &str| SourceFile::new("t.yaml", text);
        let text = mutated(&mut random, &value_sets, 4);
        let (set, found) = value_set(&file(&text));
        told(set.is_some(), &found, &text);
        let text = mutated(&mut random, &definitions, 4);
        let (read, found) = definition::parse(&file(&text));
        told(read.is_some(), &found, &text);
        let (read, found) = measure::case::parse(&file(&text), &measures[0]);
        told(read.is_some(), &found, &text);
        let text = mutated(&mut random, &sites, 4);
        let (read, found) = Mapping::parse(&file(&text), &BTreeMap::new());
        told(read.is_some(), &found, &text);
        let text = mutated(&mut random, &imports, 4);
        let (read, found) = import::parse(&file(&text), Path::new("."), &jiff::tz::TimeZone::UTC, Some(&[crate::imports::series::infections()]));
        told(read.is_some(), &found, &text);
    }
}

/// A composite of small measures, written in YAML or published: what is accepted has all that it is made of.
#[test]
fn mutated_composites_are_refused_with_reasons() {
    let mut random = random(6);
    let published = published::collect(&[SourceFile::new("b.json", composite::bundle(&[]).to_string())]).0;
    let yaml = |method: &str| {
        composite::WHOLE
            .replace("METHOD", method)
            .replace("ibd-remission", "single")
            .replace("perinatal-early-elective-delivery,", "double, group: b,")
    };
    let seeds: Vec<String> = composite::METHODS.iter().flat_map(|method| [yaml(method), composite::composite(method).to_string()]).collect();
    let models = Models::default();
    let mut alive = 0;
    for _ in 0..cases(40) {
        let text = mutated(&mut random, &seeds, 1);
        let whole = Files { definition: SourceFile::new("t", text.clone()), cql: Vec::new(), libraries: Vec::new(), elm: Vec::new() };
        let all: Vec<&Files> = published.measures.iter().chain([&whole]).collect();
        let (compiled, found) = measure::compile(&all, &ValueSets::new(), &[], &Choices::default(), &models);
        let accepted = compiled.iter().all(Option::is_some);
        told(accepted, &found, &text);
        alive += usize::from(accepted);
    }
    assert!(alive > 3, "only {alive} mutants compile");
}
