//! Patients that were merged into others count once, whoever is asked: `evaluate` in any memory, `explain`, `coverage`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::bed::{Bed, Wanted, output};

const MEASURE: &str = "id: seen\nurl: http://watershed.example/fhir/Measure/seen\nversion: 1.0.0\nstatus: draft\ntitle: Seen\ndescription: Seen\nsteward: A test\n\
     scoring: proportion\nimprovement: increase\npopulations:\n  - code: initial-population\n    define: Initial Population\n  - code: denominator\n    \
     define: Initial Population\n  - code: numerator\n    define: Twice\n";
const LOGIC: &str = "library Seen version '1.0.0'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1' called FHIRHelpers\n\
     parameter \"Measurement Period\" Interval<DateTime>\ncontext Patient\ndefine \"Initial Population\": exists [Encounter] and Count([Patient]) = 1\n\
     define \"Twice\": Count([Encounter]) >= 2\n";

fn person(id: &str, replaced_by: &[&str]) -> String {
    let links: Vec<String> = replaced_by
        .iter()
        .map(|other| format!(r#"{{"other":{{"reference":"Patient/{other}"}},"type":"replaced-by"}}"#))
        .collect();
    let link = if links.is_empty() { String::new() } else { format!(r#","link":[{}]"#, links.join(",")) };
    format!(r#"{{"resourceType":"Patient","id":"{id}"{link}}}"#)
}

fn visit(id: &str, patient: &str) -> String {
    format!(r#"{{"resourceType":"Encounter","id":"{id}","subject":{{"reference":"Patient/{patient}"}}}}"#)
}

fn watershed(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_watershed")).current_dir(folder).args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A folder with a measure and the lines, each in a file of its own.
fn laid(lines: &[String]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["seen", "data"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("seen/measure.yaml"), MEASURE).unwrap();
    std::fs::write(folder.path().join("seen/seen.cql"), LOGIC).unwrap();
    lines
        .iter()
        .enumerate()
        .for_each(|(at, line)| std::fs::write(folder.path().join(format!("data/{at}.ndjson")), format!("{line}\n")).unwrap());
    folder
}

/// Exit code, `initial population/numerator status`, and stderr.
fn evaluated(lines: &[String]) -> (i32, String, String) {
    let folder = laid(lines);
    let (code, out, err) = watershed(folder.path(), &["evaluate", "--measure", "seen", "--data", "data", "--period", "2026-02"]);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|fault| panic!("{fault}: {err}"));
    let count = |at: usize| report["group"][0]["population"][at]["count"].clone();
    let completeness = report["extension"].as_array().unwrap().iter().find(|one| one["url"].as_str().unwrap().ends_with("/completeness"));
    let status = completeness.unwrap()["extension"][0]["valueCode"].as_str().unwrap().to_owned();
    (code, format!("{}/{} {status}", count(0), count(2)), err)
}

#[test]
fn a_merged_patient_counts_as_whom_it_was_merged_into() {
    let (a, b) = (visit("e1", "a"), visit("e2", "b"));
    let absent = "it says that another Patient took its place (`link`, `replaced-by`), who is not in the data: it is counted itself; the reports are partial";
    type Row<'r> = (Vec<String>, (i32, &'r str), Option<usize>);
    let cases: [Row<'_>; 7] = [
        (vec![person("a", &[]), person("b", &[]), a.clone(), b.clone()], (0, "2/0 complete"), None),
        (vec![person("a", &["b"]), person("b", &[]), a.clone(), b.clone()], (0, "1/1 complete"), None),
        // Whom it was merged into is not here: it counts itself, with what is written of that one.
        (vec![person("a", &["b"]), a.clone()], (1, "1/0 partial"), Some(0)),
        (vec![a.clone(), b.clone(), person("a", &["b"])], (1, "1/1 partial"), Some(2)),
        // By way of another, round in a circle, and to oneself.
        (vec![person("a", &["c"]), person("c", &["b"]), person("b", &[]), a.clone(), b.clone()], (0, "1/1 complete"), None),
        (vec![person("a", &["b"]), person("b", &["a"]), a.clone(), b.clone()], (0, "1/1 complete"), None),
        (vec![person("a", &["a"]), a.clone()], (1, "1/0 partial"), Some(0)),
    ];
    for (lines, (code, counts), told) in cases {
        let (found_code, found, err) = evaluated(&lines);
        let expected = told.map_or_else(String::new, |at| format!("warning: data/{at}.ndjson:1: {absent}\n"));
        assert_eq!((found_code, found.as_str(), err.as_str()), (code, counts, expected.as_str()), "{lines:?}");
        let backwards: Vec<String> = lines.iter().rev().cloned().collect();
        let (found_code, found, _) = evaluated(&backwards);
        assert_eq!((found_code, found.as_str()), (code, counts), "{backwards:?}");
    }
}

#[test]
fn explain_and_coverage_see_whom_evaluate_counts() {
    let folder = laid(&[person("a", &["b"]), person("b", &[]), visit("e1", "a"), visit("e2", "b"), visit("e3", "ghost")]);
    for id in ["a", "b"] {
        let (code, out, err) = watershed(folder.path(), &["measure", "explain", "seen", "--data", "data", "--patient", id, "--period", "2026-02", "--population", "numerator"]);
        assert_eq!((code, out.contains("numerator (main): in\n") || out.contains("): in\n")), (0, true), "{out}{err}");
        let note = "note: `a` is the same person as `b` (`Patient.link`, `replaced-by`), in whose record it counts\n";
        assert_eq!(err, if id == "a" { note } else { "" });
    }
    let (code, _, err) = watershed(folder.path(), &["measure", "explain", "seen", "--data", "data", "--patient", "ghost", "--period", "2026-02"]);
    assert!(code == 2 && err.contains("hold no Patient resource of that id: it is in no report"), "{err}");
    let (_, out, _) = watershed(folder.path(), &["measure", "coverage", "seen", "--data", "data", "--period", "2026-02"]);
    assert!(out.contains("over 1 patient\n"), "{out}");
}

/// Data that are read a part of the patients at a time: whoever belongs together is in one part.
#[test]
fn memory_does_not_part_who_is_one_person() {
    let name = |at: usize| format!("p{at:05}");
    let pad = "x".repeat(600);
    let many = 16_000;
    let mut text = String::new();
    for at in 0..many {
        let other = [name(at + 1)];
        let other: Vec<&str> = if at % 8 == 0 { other.iter().map(String::as_str).collect() } else { Vec::new() };
        let long = visit(&format!("e{at}"), &name(at)).replace("\"id\"", &format!("\"language\":\"{pad}\",\"id\""));
        text.push_str(&format!("{}\n{long}\n", person(&name(at), &other)));
    }
    let folder = laid(&[]);
    std::fs::write(folder.path().join("data/all.ndjson"), text).unwrap();
    let evaluate = |more: &[&str]| {
        let arguments = [&["evaluate", "--measure", "seen", "--data", "data", "--period", "2026-02"], more].concat();
        watershed(folder.path(), &arguments)
    };
    let whole = evaluate(&[]);
    let report: Value = serde_json::from_str(&whole.1).unwrap_or_else(|fault| panic!("{fault}: {}", whole.2));
    assert_eq!((whole.0, &report["group"][0]["population"][0]["count"]), (0, &(many - many / 8).into()), "{}", whole.2);
    assert_eq!(report["group"][0]["population"][2]["count"], many / 8);
    assert_eq!(evaluate(&["--memory", "16MiB", "--threads", "2"]), whole);
}

/// Two mothers are found to be one, another's record was merged into one that is not here, and of somebody there is no Patient: a night of
/// the files and `evaluate` over them count alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_night_counts_as_evaluate_does() {
    let bed = Bed::make(Wanted { limit: u64::MAX, patients: 10, of_files: true, ..Wanted::default() }).await;
    let file = bed.folder.path().join("drop/Patient.ndjson");
    let mut lines: Vec<String> = std::fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    let ids: Vec<String> = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned()).collect();
    for (line, other) in [(0, ids[1].as_str()), (2, "elsewhere")] {
        let link = format!(r#","link":[{{"other":{{"reference":"Patient/{other}"}},"type":"replaced-by"}}]}}"#);
        lines[line] = lines[line].strip_suffix('}').unwrap().to_owned() + &link;
    }
    lines.remove(3);
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    let say = async |arguments: &[&str]| {
        let output = output(bed.command(arguments)).await;
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, out, err) = say(&["run", "--once", "--as-of", crate::bed::AS_OF]).await;
    assert!(code == 1 && out.contains("\ndata name 1 patient who did not come: they are not counted, and all reports are partial"), "{code} {out} {err}");
    assert!(
        code == 1 && out.contains("8 patients") && out.contains("1 patient name another in their place (`Patient.link`, `replaced-by`) who did not come"),
        "{code} {out} {err}"
    );
    assert!(out.contains("EHR team: add these to the Group, or let this client read them"), "{out}");
    assert!(err.contains("merged into others who did not come"), "{err}");
    // The status says the same, and that somebody is to act.
    let (code, status, err) = say(&["status"]).await;
    assert!(code == 1 && status.contains("\ndata name 1 patient who did not come: they are not counted, and all reports are partial"), "{code} {status} {err}");
    let (code, night, err) = say(&["known", "--format", "json", "--period", "2026-01"]).await;
    assert_eq!((code, night.lines().count() > 0), (1, true), "{err}");
    let folders: Vec<String> = crate::bed::MEASURES
        .iter()
        .map(|(folder, ..)| format!("{}/mappings/measures/{folder}", env!("CARGO_MANIFEST_DIR")))
        .collect();
    let drop = bed.folder.path().join("drop").display().to_string();
    let mut arguments = vec!["evaluate", "--data", &drop, "--period", "2026-01", "--timezone", "America/New_York", "--measure"];
    arguments.extend(folders.iter().map(String::as_str));
    let (code, files, err) = watershed(bed.folder.path(), &arguments);
    assert_eq!(code, 1, "{err}");
    let counts = |text: &str| {
        let count = |line: &str| {
            let report: Value = serde_json::from_str(line).unwrap();
            let status = named(&report["extension"], "/completeness")["extension"][0]["valueCode"].clone();
            let populations = report["group"][0]["population"].as_array().unwrap().clone();
            (report["measure"].to_string(), status.to_string(), populations.iter().map(|one| one["count"].to_string()).collect::<Vec<_>>())
        };
        text.lines().map(count).collect::<Vec<_>>()
    };
    assert_eq!(counts(&night), counts(&files));
    assert!(counts(&night).iter().all(|(_, status, _)| status == "\"partial\""));
}

fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    list.as_array().unwrap().iter().find(|one| one["url"].as_str().unwrap().ends_with(name)).unwrap()
}
