//! ELM JSON: every library that CMS published for 2024 and 2025 is read without an error; what is written says the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use serde_json::Value;
use watershed::cql::{Libraries, Models, Program, Session, compile, elm, show};
use watershed::diagnostic::{SourceFile, has_errors, render_human};
use watershed::fhir::record::{Record, Shape};
use watershed::source::folder;

use crate::cql_suite;

/// The published measures: what holds them, and how many there are.
const PUBLICATIONS: [(&str, usize); 2] = [("cms-ecqm-2024", 71), ("cms-dqm-2025", 72)];

/// The folders of a publication's measures.
fn measures(name: &str) -> Option<Vec<PathBuf>> {
    let shared = std::env::var("WATERSHED_SHARED").unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../shared").to_owned());
    let root = Path::new(&shared).join("conformance").join(name);
    if !root.is_dir() {
        eprintln!("skipped: {} absent", root.display());
        return None;
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    found.sort();
    Some(found)
}

/// The ELM documents of a measure, its own library first.
fn documents(folder: &Path) -> Vec<Arc<SourceFile>> {
    let bundle: Value = serde_json::from_reader(folder::open(&folder.join("measure.json.gz")).unwrap()).unwrap();
    let resources: Vec<&Value> = bundle["entry"].as_array().unwrap().iter().map(|entry| &entry["resource"]).collect();
    let measure = resources.iter().find(|resource| resource["resourceType"] == "Measure").unwrap();
    let own = measure["library"][0].as_str().unwrap().split('|').next().unwrap();
    let mut found: Vec<(bool, Arc<SourceFile>)> = Vec::new();
    for library in resources.iter().filter(|resource| resource["resourceType"] == "Library") {
        let contents = library["content"].as_array().into_iter().flatten();
        for content in contents.filter(|content| content["contentType"] == "application/elm+json") {
            let bytes = base64::engine::general_purpose::STANDARD.decode(content["data"].as_str().unwrap()).unwrap();
            let file = SourceFile::new(format!("{}.json", library["name"].as_str().unwrap()), String::from_utf8(bytes).unwrap());
            found.push((library["url"] != own, file));
        }
    }
    found.sort_by_key(|(shared, _)| *shared);
    found.into_iter().map(|(_, file)| file).collect()
}

#[test]
fn every_published_library_is_read() {
    for (publication, count) in PUBLICATIONS {
        let Some(folders) = measures(publication) else { continue };
        assert_eq!(folders.len(), count, "{publication}");
        let mut faults: BTreeMap<String, String> = BTreeMap::new();
        for folder in &folders {
            let documents = documents(folder);
            let (program, found) = elm::compile(&documents[0], &documents[1..], &Models::default());
            assert_eq!(program.is_none(), has_errors(&found));
            if program.is_none() {
                faults.insert(folder.file_name().unwrap().to_string_lossy().into_owned(), render_human(&found, false));
            }
        }
        println!("{publication}: {} of {count} measures read from ELM", count - faults.len());
        assert!(faults.is_empty(), "{} measures are not read:\n{}", faults.len(), faults.values().cloned().collect::<Vec<_>>().join("\n"));
    }
}

/// So many expressions of HL7's suite are compared; fewer means that the comparison has stopped.
const COMPARED_MIN: usize = 1_700;

/// What a program's define is, or why it is nothing.
fn outcome(program: &Program, record: &Record) -> Result<String, String> {
    let environment = cql_suite::environment();
    let mut session = Session::new(program, &environment, record);
    let define = program.define("T", "Expression").ok_or("no such define")?;
    session.evaluate(define).map(|value| show::json(&value, record).to_string()).map_err(|fault| fault.message)
}

/// The first library of a program as an ELM document.
fn written(program: &Program) -> Arc<SourceFile> {
    let (json, found) = elm::write(program.tree(), program.roots()[0]);
    assert!(found.is_empty(), "{}", render_human(&found, false));
    SourceFile::new("written.json", json.to_string())
}

/// Every expression of HL7's suite means the same after CQL was written as ELM and read again.
#[test]
fn what_is_written_is_read_as_the_same() {
    let Some(folder) = cql_suite::yardstick("cql-tests") else { return };
    let (record, _) = Record::read(&Shape::everything(), std::iter::empty());
    let mut faults = Vec::new();
    let mut compared = 0;
    for case in cql_suite::cases(&folder) {
        let text = format!("library T version '1'\ndefine \"Expression\":\n{}\n", case.expression);
        let (program, _) = compile(&[SourceFile::new("t.cql", text)], &Libraries::default(), &Models::default());
        let Some(program) = program else { continue };
        compared += 1;
        let document = written(&program);
        let (again, found) = elm::compile(&document, &[], &Models::default());
        let (wanted, read) = match &again {
            Some(again) => (outcome(&program, &record), outcome(again, &record)),
            None => (Ok(String::new()), Err(render_human(&found, false))),
        };
        if wanted != read {
            faults.push(format!("{}: {} is {wanted:?}, read from ELM {read:?}\n{}", case.name, case.expression, document.text));
        }
    }
    println!("{} of {compared} expressions mean the same after a round trip", compared - faults.len());
    assert!(faults.is_empty(), "{} differ:\n{}", faults.len(), faults.join("\n"));
    assert!(compared >= COMPARED_MIN, "{compared} expressions compared");
}
