//! HL7's CQL test suite and the CQL of published measures, read from the shared yardsticks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use jiff::tz::TimeZone;
use watershed::cql::operators::{Call, operator};
use watershed::cql::parser::parse;
use watershed::cql::value::{DateTime, Value};
use watershed::cql::{Environment, Libraries, Models, Session, compile};
use watershed::diagnostic::SourceFile;
use watershed::fhir::record::{Record, Shape};
use watershed::terminology::ValueSets;
use watershed::terminology::units::Units;

use crate::shared::yardstick;

/// Tests that expect what the specification does not give, each with its reason.
const LISTED: &str = include_str!("cql_suite_listed.txt");

/// So many of the suite's tests may be listed.
const LISTED_SHARE: f64 = 0.03;

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) expression: String,
    pub(crate) invalid: Option<String>,
    output: Option<String>,
}

pub(crate) fn cases(folder: &Path) -> Vec<Case> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a text");
        let xml = roxmltree::Document::parse(&text).expect("XML");
        let title = file.file_stem().expect("a name").to_string_lossy().into_owned();
        for test in xml.descendants().filter(|node| node.has_tag_name((NS, "test"))) {
            let child = |tag: &str| test.children().find(|node| node.has_tag_name((NS, tag)));
            let Some(expression) = child("expression") else { continue };
            cases.push(Case {
                name: format!("{title}/{}", test.attribute("name").unwrap_or("?")),
                expression: expression.text().unwrap_or("").to_owned(),
                invalid: expression.attribute("invalid").filter(|kind| *kind != "false").map(str::to_owned),
                output: child("output").and_then(|node| node.text()).map(str::to_owned),
            });
        }
    }
    cases
}

const NS: &str = "http://hl7.org/fhirpath/tests";

/// The values of `expression` and `output` of one case, or why there are none.
fn values(case: &Case, environment: &Environment, record: &Record, compare: impl FnOnce(&mut Session<'_>, Value, Value) -> Result<(), String>) -> Result<(), String> {
    let output = case.output.as_deref().unwrap_or("null");
    let text = format!("library T version '1'\ndefine \"Expression\":\n{}\ndefine \"Output\":\n{output}\n", case.expression);
    let (program, findings) = compile(&[SourceFile::new("t.cql", text)], &Libraries::default(), &Models::default());
    let Some(program) = program else {
        let first = findings.iter().find(|finding| finding.is_error()).map(|finding| finding.message.clone());
        return Err(format!("compile: {}", first.unwrap_or_default()));
    };
    let mut session = Session::new(&program, environment, record);
    let mut evaluate = |name: &str| {
        let define = program.define("T", name).ok_or("no such define")?;
        session.evaluate(define).map_err(|fault| format!("evaluate: {}", fault.message))
    };
    let (found, expected) = (evaluate("Expression")?, evaluate("Output")?);
    compare(&mut session, found, expected)
}

fn equivalent(session: &mut Session<'_>, found: Value, expected: Value) -> Result<(), String> {
    if found.is_null() && expected.is_null() {
        return Ok(());
    }
    let operands = [found, expected];
    let call = Call { operands: &operands, precision: None, context: session.context() };
    let same = operator("Equivalent").expect("a row").apply(&call).map_err(|fault| fault.to_string())?;
    if same.truth() == Some(true) { Ok(()) } else { Err(format!("found {:?}, expected {:?}", operands[0], operands[1])) }
}

pub(crate) fn environment() -> Environment {
    Environment {
        parameters: BTreeMap::new(),
        now: DateTime::parse_cql("@2026-11-20T10:30:00.000+00:00").expect("a date and time"),
        zone: TimeZone::UTC,
        value_sets: Arc::new(ValueSets::new()),
        units: Arc::new(Units::new()),
    }
}

fn run(case: &Case, environment: &Environment, record: &Record) -> Result<(), String> {
    if case.invalid.is_some() {
        return match values(case, environment, record, |_, found, _| Err(format!("should have failed, found {found:?}"))) {
            Err(reason) if reason.starts_with("should") => Err(reason),
            _ => Ok(()),
        };
    }
    if case.output.is_none() {
        return values(case, environment, record, |_, _, _| Ok(()));
    }
    values(case, environment, record, equivalent)
}

/// The entries of a list of exceptions, `name: reason` a line.
pub(crate) fn entries(list: &str) -> BTreeMap<&str, &str> {
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(": ").unwrap_or_else(|| panic!("`{line}` gives no reason"))).collect()
}

#[test]
fn hl7_suite_passes_but_for_the_listed_tests() {
    let Some(folder) = yardstick("cql-tests") else { return };
    let (record, _) = Record::read(&Shape::everything(), std::iter::empty());
    let environment = environment();
    let all = cases(&folder);
    let listed = entries(LISTED);
    let mut failed = BTreeSet::new();
    let mut surprises = Vec::new();
    for case in &all {
        let Err(reason) = run(case, &environment, &record) else { continue };
        failed.insert(case.name.as_str());
        if !listed.contains_key(case.name.as_str()) {
            surprises.push(format!("{}: {}: {reason}", case.name, case.expression.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
    }
    surprises.extend(listed.keys().filter(|name| !failed.contains(*name)).map(|name| format!("{name}: listed, but passes or is no test")));
    crate::figures::say(&format!("CQL suite: {} of {} pass, {} listed", all.len() - failed.len(), all.len(), listed.len()));
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
    assert!(listed.len() as f64 <= all.len() as f64 * LISTED_SHARE, "{} listed", listed.len());
}

#[test]
fn every_valid_expression_of_the_suite_parses_and_every_syntax_error_does_not() {
    let Some(folder) = yardstick("cql-tests") else { return };
    for case in cases(&folder) {
        let (expression, faults) = watershed::cql::parser::parse_expression(&SourceFile::new("t.cql", case.expression.clone()));
        if case.invalid.is_none() {
            assert!(expression.is_some(), "{}: {}: {faults:?}", case.name, case.expression);
        }
    }
}

/// The CQL texts of a publication's measures, each once.
fn published(folder: &Path) -> BTreeSet<(String, String)> {
    let mut texts = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let file = entry.expect("an entry").path().join("measure.json.gz");
        let Ok(bytes) = std::fs::File::open(&file) else { continue };
        let mut json = String::new();
        flate2::read::GzDecoder::new(bytes).read_to_string(&mut json).expect("gzip");
        for part in json.split("\"text/cql\"").skip(1) {
            let Some(data) = part.split("\"data\"").nth(1).and_then(|rest| rest.split('"').nth(1)) else { continue };
            let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(data) else { continue };
            let text = String::from_utf8(bytes).expect("UTF-8");
            texts.insert((file.display().to_string(), text));
        }
    }
    texts
}

#[test]
fn the_cql_of_published_measures_parses() {
    for publication in ["cms-dqm-2025", "cms-ecqm-2024"] {
        let Some(folder) = yardstick(publication) else { continue };
        let mut seen = BTreeSet::new();
        for (file, text) in published(&folder) {
            if !seen.insert(text.clone()) {
                continue;
            }
            let (_, faults) = parse(&SourceFile::new(file, text));
            assert!(faults.is_empty(), "{}", watershed::diagnostic::render_human(&faults, false));
        }
        crate::figures::say(&format!("{publication}: {} texts", seen.len()));
        assert!(seen.len() > 50, "{publication}");
    }
}
