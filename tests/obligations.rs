//! What the specifications and real servers ask of the client, row by row: a test named after each row
//! (`s_05_…`, `b_04_…`, `r_02_…`, `q_17_…`), and the table of them in `docs/obligations.md`.

mod answers;
#[allow(dead_code, reason = "whole pulls, in `profiles.rs`, use the rest")]
pub mod bench;
mod between;
mod bulk;
mod census;
mod flawed;
mod found;
mod handles;
mod kindness;
mod listed;
mod lists;
mod meanwhile;
mod members;
mod nights;
mod probe;
mod progressive;
mod quirk_access;
mod quirk_change;
mod quirk_content;
mod quirk_export;
mod quirk_search;
mod search;
pub(crate) mod small;
mod smart;
mod together;
mod untimed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use watershed::sandbox::Scenario;

/// What each row demands: `S-01 | words`.
const ROWS: &str = include_str!("obligations/rows.txt");
/// Set, the table is written anew.
const WRITE: &str = "WATERSHED_WRITE_DOCS";
const SECTIONS: [(char, &str, u32); 4] = [('S', "SMART Backend Services", 14), ('B', "Bulk Data", 22), ('R', "FHIR search and HTTP", 19), ('Q', "What real servers do", 88)];

/// Every test named after a row, as `row -> (file, name)`, from the sources of the tests and of the program.
fn tests_by_row() -> BTreeMap<String, Vec<(String, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    ["tests", "src"].iter().for_each(|folder| files_below(&root.join(folder), &mut files));
    files.sort();
    let mut found: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
        for (before, line) in lines.iter().zip(lines.iter().skip(1)) {
            let name = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            let Some(name) = name.filter(|_| before.starts_with("#[test]") || before.starts_with("#[tokio::test")) else { continue };
            let row: Option<String> = name.get(..4).filter(|start| is_row(start)).map(|start| start.to_uppercase().replace('_', "-"));
            if let Some(row) = row.filter(|_| name[4..].starts_with('_')) {
                found.entry(row).or_default().push((path.strip_prefix(root).unwrap().display().to_string(), name.to_owned()));
            }
        }
    }
    found
}

fn is_row(start: &str) -> bool {
    matches!(start.as_bytes(), [b's' | b'b' | b'r' | b'q', b'_', tens, ones] if tens.is_ascii_digit() && ones.is_ascii_digit())
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.path() {
            path if path.is_dir() => files_below(&path, found),
            path if path.extension().is_some_and(|ending| ending == "rs") => found.push(path),
            _ => {}
        }
    }
}

fn rows() -> Vec<(&'static str, &'static str)> {
    ROWS.lines().map(|line| line.split_once(" | ").unwrap()).collect()
}

fn table() -> String {
    let tests = tests_by_row();
    let open = rows().iter().filter(|(row, _)| !tests.contains_key(*row)).count();
    let mut text = format!(
        "# Obligations\n\nWhat the specifications (S, B, R) and real servers (Q) ask of the adapter, and the test that holds each. This page is\n\
         written by `{WRITE}=1 cargo test --test all obligations::`; `watershed sandbox quirks` lists the scenarios of the Q rows.\n\n\
         {} rows, {open} open.\n",
        rows().len()
    );
    for (letter, title, _) in SECTIONS {
        text.push_str(&format!("\n## {title}\n\n| row | what is demanded | test | verdict |\n|---|---|---|---|\n"));
        for (row, words) in rows().iter().filter(|(row, _)| row.starts_with(letter)) {
            let held = tests.get(*row).map(Vec::as_slice).unwrap_or_default();
            let names: Vec<String> = held.iter().map(|(file, name)| format!("[`{name}`](../{file})")).collect();
            text.push_str(&format!("| {row} | {words} | {} | {} |\n", names.join("<br>"), if held.is_empty() { "open" } else { "held" }));
        }
    }
    text
}

#[test]
fn the_table_says_what_the_tests_hold() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/obligations.md");
    let table = table();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &table).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = table.lines().zip(committed.lines().chain(std::iter::repeat(""))).find(|(now, then)| now != then);
    assert!(committed == table, "docs/obligations.md is out of date; write it with {WRITE}=1. First difference: {differing:?}");
}

#[test]
fn every_row_is_worded_once_and_every_test_and_scenario_has_its_row() {
    let expected: Vec<String> = SECTIONS.iter().flat_map(|(letter, _, last)| (1..=*last).map(move |number| format!("{letter}-{number:02}"))).collect();
    let worded: Vec<&str> = rows().iter().map(|(row, _)| *row).collect();
    assert_eq!(worded, expected);
    let tests = tests_by_row();
    let stray: Vec<&String> = tests.keys().filter(|row| !expected.contains(row)).collect();
    assert_eq!(stray, Vec::<&String>::new(), "tests named after rows that do not exist");
    let untested: Vec<&str> = Scenario::all()
        .map(|scenario| scenario.name)
        .filter(|name| !tests.contains_key(&name.to_uppercase().replace('_', "-")))
        .collect();
    assert_eq!(untested, Vec::<&str>::new(), "scenarios of the sandbox without a test");
}
