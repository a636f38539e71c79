//! What `watershed evaluate` says of files that are not all that there is, and of a command line that means something else.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const PATIENT: &str = r#"{"resourceType":"Patient","id":"p1","birthDate":"2011-01-01"}"#;
const VISIT: &str = r#"{"resourceType":"Encounter","id":"e1","subject":{"reference":"Patient/p1"}}"#;
const FAILED: &str =
    r#"{"resourceType":"OperationOutcome","issue":[{"severity":"information","code":"informational"},{"severity":"error","code":"not-found","diagnostics":"Smith"}]}"#;
const WARNED: &str = r#"{"resourceType":"OperationOutcome","issue":[{"severity":"warning","code":"processing","details":{"text":"of Smith"}}]}"#;

fn measure(folder: &Path, initial: &str) {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    std::fs::create_dir(folder.join("seen")).unwrap();
    write(
        "seen/measure.yaml",
        "id: seen\nurl: http://watershed.example/fhir/Measure/seen\nversion: 1.0.0\nstatus: draft\ntitle: Seen\ndescription: Seen\nsteward: A test\n\
         scoring: cohort\nimprovement: increase\npopulations:\n  - code: initial-population\n    define: Initial Population\n",
    );
    write(
        "seen/seen.cql",
        &format!(
            "library Seen version '1.0.0'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1' called FHIRHelpers\n\
             codesystem \"Act\": 'urn:act'\ncode \"Ambulatory\": 'AMB' from \"Act\"\ncode \"Confirmed\": 'confirmed' from \"Act\"\n\
             parameter \"Measurement Period\" Interval<DateTime>\ncontext Patient\ndefine \"Initial Population\": {initial}\n"
        ),
    );
}

fn evaluate(folder: &Path, more: &[&str]) -> (i32, String, String) {
    let arguments = [&["evaluate", "--measure", "seen", "--data", "data", "--period", "2026-02"], more].concat();
    let output = Command::new(env!("CARGO_BIN_EXE_watershed")).current_dir(folder).args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// Exit code, stderr, and `status gap…` of the report about these files in one folder.
fn told(files: &[(&str, String)]) -> (i32, Vec<String>, String) {
    told_of("exists [Encounter]", files)
}

/// The same of a measure with this initial population.
fn told_of(initial: &str, files: &[(&str, String)]) -> (i32, Vec<String>, String) {
    let scratch = tempfile::tempdir().unwrap();
    measure(scratch.path(), initial);
    std::fs::create_dir(scratch.path().join("data")).unwrap();
    files.iter().for_each(|(name, text)| std::fs::write(scratch.path().join("data").join(name), text).unwrap());
    let (code, out, err) = evaluate(scratch.path(), &[]);
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|fault| panic!("{fault}: {out}{err}"));
    let completeness = report["extension"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["url"].as_str().unwrap().ends_with("/completeness"))
        .unwrap();
    let gap = |gap: &Value| format!("{} {}", gap["extension"][0]["valueCode"].as_str().unwrap(), gap["extension"][1]["valueInteger"]);
    let parts = completeness["extension"].as_array().unwrap().iter().filter_map(|part| match part["url"].as_str().unwrap() {
        "status" => part["valueCode"].as_str().map(str::to_owned),
        "gap" => Some(gap(part)),
        "absent" => part["valueCode"].as_str().map(|name| format!("absent {name}")),
        _ => None,
    });
    (code, err.lines().map(str::to_owned).collect(), parts.collect::<Vec<_>>().join(", "))
}

fn bundle(links: &[(&str, &str)], resources: &[&str]) -> String {
    let links: Vec<String> = links.iter().map(|(relation, url)| format!(r#"{{"relation":"{relation}","url":"{url}"}}"#)).collect();
    let entries: Vec<String> = resources.iter().map(|resource| format!(r#"{{"resource":{resource}}}"#)).collect();
    format!(r#"{{"resourceType":"Bundle","type":"searchset","link":[{}],"entry":[{}]}}"#, links.join(","), entries.join(","))
}

fn manifest(outputs: &[(&str, &str)], more: &str) -> String {
    let outputs: Vec<String> = outputs.iter().map(|(name, url)| format!(r#"{{"type":"{name}","url":"{url}"}}"#)).collect();
    format!(r#"{{"transactionTime":"2026-03-01T00:00:00Z","request":"http://e.example/$export","requiresAccessToken":true,"output":[{}]{more}}}"#, outputs.join(","))
}

#[test]
fn files_that_are_not_all_that_there_is_make_reports_partial_and_are_named() {
    let (both, visit) = (format!("{PATIENT}\n{VISIT}\n"), format!("{VISIT}\n"));
    let visit_2 = VISIT.replace("e1", "e2");
    let page = "a page of a search that has a next one, which is not among the files: fetch it, and all that follow, too; the reports are partial";
    let whole = |files: &[(&str, String)]| assert_eq!(told(files), (0, vec![], "complete".to_owned()), "{files:?}");
    let partial = |files: &[(&str, String)], err: &[&str], gaps: &str| {
        assert_eq!(told(files), (1, err.iter().map(|line| (*line).to_owned()).collect(), format!("partial, {gaps}")), "{files:?}");
    };

    // A search and its pages.
    let (first, second) = (bundle(&[("self", "u?1"), ("next", "u?2")], &[PATIENT, VISIT]), bundle(&[("self", "u?2")], &[&visit_2]));
    whole(&[("1.json", first.clone()), ("2.json", second.clone())]);
    whole(&[("all.ndjson", format!("{first}\n{second}\n"))]);
    partial(&[("1.json", first.clone())], &[&format!("warning: data/1.json: {page}")], "Patient 1");
    partial(&[("all.ndjson", format!("{visit_2}\n{first}\n"))], &[&format!("warning: data/all.ndjson:2: {page}")], "Patient 1");
    whole(&[("a.ndjson", both.clone()), ("claims.json", bundle(&[("next", "u?2")], &[r#"{"resourceType":"Claim","id":"c"}"#]))]);

    // The files of an export, by their names, or by their number where a client named them.
    let outputs =
        [("Patient", "http://e.example/f/1.Patient.ndjson"), ("Encounter", "http://e.example/f/1.Encounter.ndjson?x=y"), ("Encounter", "http://e.example/f/2.Encounter.ndjson")];
    let named = manifest(&outputs, "");
    let (people, visits) = (("1.Patient.ndjson", format!("{PATIENT}\n")), ("1.Encounter.ndjson", visit.clone()));
    whole(&[("manifest.json", named.clone()), people.clone(), visits.clone(), ("2.Encounter.ndjson", format!("{visit_2}\n"))]);
    whole(&[
        ("manifest.json", named.clone()),
        ("log.ndjson", "{\"eventId\":\"kickoff\"}\n".into()),
        people.clone(),
        ("Encounter.000.ndjson", visit.clone()),
        ("Encounter.001.ndjson", format!("{visit_2}\n")),
    ]);
    partial(
        &[("manifest.json", named.clone()), people.clone(), visits.clone()],
        &["warning: data/manifest.json: the manifest names 2 files of Encounter, of which 1 is not here: `2.Encounter.ndjson`; the reports are partial"],
        "Encounter 1",
    );
    partial(
        &[("manifest.json", named), people.clone()],
        &[
            "note: the data have no Encounter, which `seen` asks for: is a file missing?",
            "warning: data/manifest.json: the manifest names 2 files of Encounter, of which 2 are not here: `1.Encounter.ndjson`, `2.Encounter.ndjson`; the reports are partial",
        ],
        "Encounter 2, absent Encounter",
    );
    whole(&[("manifest.json", manifest(&[("Claim", "http://e.example/f/9.Claim.ndjson")], "")), people.clone(), visits.clone()]);
    let next = r#","link":[{"relation":"next","url":"http://e.example/status?2"}]"#;
    partial(
        &[("manifest.json", manifest(&[], next)), people, visits],
        &["warning: data/manifest.json: it is a part of a manifest, and the next part may name further files; the reports are partial"],
        "Resource 1",
    );

    // What the server said beside the data; its words may name a patient.
    let error = "an OperationOutcome: the server says `error` (not-found); the reports are partial";
    partial(&[("all.ndjson", format!("{both}{FAILED}\n"))], &[&format!("warning: data/all.ndjson:3: {error}")], "Resource 1");
    partial(&[("all.json", bundle(&[], &[PATIENT, VISIT, FAILED]))], &[&format!("warning: data/all.json:3: {error}")], "Resource 1");
    let (code, err, parts) = told(&[("all.ndjson", format!("{WARNED}\n{both}"))]);
    assert_eq!((code, parts.as_str()), (0, "complete"));
    assert_eq!(err, ["warning: data/all.ndjson:1: an OperationOutcome: the server says `warning` (processing); the reports are not partial for it"]);
}

/// What a Bundle says of resources that are not in it, and files that nobody can read.
#[test]
fn what_was_deleted_refused_or_left_unfinished_is_told() {
    let both = format!("{PATIENT}\n{VISIT}\n");
    let entry = |entry: &str| format!(r#"{{"resourceType":"Bundle","type":"batch-response","entry":[{{"resource":{PATIENT}}},{{"resource":{VISIT}}},{entry}]}}"#);
    let deleted = |url: &str| entry(&format!(r#"{{"request":{{"method":"DELETE","url":"{url}"}}}}"#));
    let answer = |status: &str| entry(&format!(r#"{{"response":{{"status":"{status}"}}}}"#));
    let gone = "an entry says that a resource was deleted, of type Encounter, which may be among the data: it is not looked for here; the reports are partial";
    let (unfinished, packed) = (
        "it is being written, or was left unfinished: bring it to its end, or remove it",
        "it is packed as nothing here can unpack it: unpack it, or pack it as .gz or .zst",
    );
    let lone = |text: String| vec![("a.json", text)];
    let beside = |name: &'static str| vec![("a.ndjson", both.clone()), (name, VISIT.to_owned())];
    type Row<'r> = (Vec<(&'r str, String)>, i32, String, &'r str);
    let cases: [Row<'_>; 11] = [
        (lone(deleted("Encounter/e1")), 1, format!("warning: data/a.json:3: {gone}"), "partial, Encounter 1"),
        (lone(deleted("http://e.example/fhir/Encounter/e1")), 1, format!("warning: data/a.json:3: {gone}"), "partial, Encounter 1"),
        (lone(deleted("Claim/c1")), 0, String::new(), "complete"),
        (lone(answer("200 OK")), 0, String::new(), "complete"),
        (
            lone(answer("404")),
            0,
            "warning: data/a.json:3: an entry says 404: the server does not have what was asked for; the reports are not partial for it".into(),
            "complete",
        ),
        (lone(answer("500 Oh")), 1, "warning: data/a.json:3: an entry says 500: what was asked for did not come; the reports are partial".into(), "partial, Resource 1"),
        (beside("Encounter.2.ndjson.part"), 1, format!("warning: data/Encounter.2.ndjson.part: {unfinished}; the reports are partial"), "partial, Encounter 1"),
        (beside("x.tmp"), 1, format!("warning: data/x.tmp: {unfinished}; the reports are partial"), "partial, Resource 1"),
        (beside("Claim.ndjson.part"), 0, String::new(), "complete"),
        (beside("more.zip"), 1, format!("warning: data/more.zip: {packed}; the reports are partial"), "partial, Resource 1"),
        (beside("README.txt"), 0, String::new(), "complete"),
    ];
    for (files, code, err, parts) in cases {
        let err: Vec<String> = Some(err).filter(|err| !err.is_empty()).into_iter().collect();
        assert_eq!(told(&files), (code, err, parts.to_owned()), "{files:?}");
    }
}

/// What names nobody is a patient's only where a file is one patient's record, and nobody else is named in it at all.
#[test]
fn what_names_nobody_is_counted_to_nobody_but_in_one_patients_record() {
    let orphan = r#"{"resourceType":"Encounter","id":"e2"}"#;
    let nobodys = |line: usize| vec![format!("warning: data/a.ndjson:{line}: it names no patient; set aside")];
    let claim = |patient: &str| format!(r#"{{"resourceType":"Claim","id":"c","patient":{{"reference":"Patient/{patient}"}}}}"#);
    let of = |lines: &[&str]| told(&[("a.ndjson", lines.join("\n") + "\n"), ("b.ndjson", format!("{}\n", PATIENT.replace("p1", "p2")))]);
    assert_eq!(of(&[PATIENT, orphan]), (0, vec![], "complete".into()));
    assert_eq!(of(&[PATIENT, orphan, &claim("p1")]), (0, vec![], "complete".into()));
    // An export's file, of which one resource lost its subject: also where the other's resources are of no use here.
    assert_eq!(of(&[PATIENT, orphan, &claim("p2")]), (1, nobodys(2), "partial".into()));
    assert_eq!(of(&[PATIENT, &VISIT.replace("p1", "p2"), orphan]), (1, nobodys(3), "partial".into()));
    assert_eq!(of(&[VISIT, orphan]).2, "partial, Patient 1", "no Patient is in the file");
}

#[test]
fn a_type_that_no_file_has_is_asked_after() {
    let (code, err, parts) = told(&[("a.ndjson", format!("{PATIENT}\n"))]);
    assert_eq!((code, parts.as_str()), (0, "complete, absent Encounter"), "nobody may have been there");
    assert_eq!(err, ["note: the data have no Encounter, which `seen` asks for: is a file missing?"]);
    let (_, err, _) = told(&[("a.ndjson", format!("{PATIENT}\n")), ("Encounter.ndjson", String::new())]);
    assert!(err[0].ends_with("Encounter.ndjson: it is empty"), "{err:?}");
    assert_eq!(err[1..], ["note: the data have no Encounter, which `seen` asks for: its file is empty"]);
}

#[test]
fn options_that_mean_something_else_are_refused_with_what_is_accepted() {
    let scratch = tempfile::tempdir().unwrap();
    measure(scratch.path(), "exists [Encounter]");
    std::fs::create_dir(scratch.path().join("data")).unwrap();
    std::fs::write(scratch.path().join("data/a.ndjson"), format!("{PATIENT}\n{VISIT}\n")).unwrap();
    let date = "help: write a day as `2026-02-01`, or a time with its offset as `2026-02-01T06:00:00-05:00`";
    for (more, told) in [
        (&["--date", "yesterday"][..], format!("error: `--date yesterday` is no date\n  {date}\n")),
        (&["--date", "2026-02-30"], format!("error: `--date 2026-02-30` is no date\n  {date}\n")),
        (&["--date", "01/02/2026"], format!("error: `--date 01/02/2026` is no date\n  {date}\n")),
        (
            &["--reporter", "My Hospital"],
            "error: `--reporter My Hospital` is no id\n  help: name the id of an Organization: 1 to 64 letters, digits, `-` or `.`\n".to_owned(),
        ),
        (&["--parameter", "A=1", "A=2"], "error: the parameter `A` is given twice\n".to_owned()),
        (&["--period", "2026-13"], "error: `2026-13` is not a period: a year has the months 01 to 12, not 13; did you mean `2026-12`?\n".to_owned()),
        (&["--period", "2026-Q5"], "error: `2026-Q5` is not a period: a year has the quarters 1 to 4, not 5; did you mean `2026-10-01/2026-12-31`?\n".to_owned()),
        (
            &["--period", "2026-03-31/2026-01-01"],
            "error: `2026-03-31/2026-01-01` is not a period: it ends before it starts; did you mean `2026-01-01/2026-03-31`?\n".to_owned(),
        ),
    ] {
        assert_eq!(evaluate(scratch.path(), more), (2, String::new(), told), "{more:?}");
    }
    for date in ["2026-03-01", "2026-03-01T06:00:00-05:00"] {
        let (code, out, err) = evaluate(scratch.path(), &["--date", date]);
        assert!(code == 0 && out.contains(&format!(r#""date":"{date}""#)), "{date}: {err}");
    }
}

/// Elements that are no Quantity, no Coding, no code of FHIR's, or several where there is one: each is counted, and not guessed.
#[test]
fn elements_of_the_wrong_shape_make_reports_partial_and_are_named() {
    let one = |resource: &str, rest: &str| format!("{PATIENT}\n{{\"resourceType\":\"{resource}\",\"id\":\"x\",\"subject\":{{\"reference\":\"Patient/p1\"}},{rest}}}\n");
    let told_by = |initial: &str, resource: &str, rest: &str| told_of(initial, &[("a.ndjson", one(resource, rest))]);
    let by_class = "exists ([Encounter: class in {\"Ambulatory\"}])";
    let by_status = "exists ([Encounter] E where E.status = 'finished')";
    let by_value = "exists ([Observation] O where O.value as FHIR.Quantity > 10 'g/dL')";
    let by_verification = "exists ([Condition] C where C.verificationStatus ~ \"Confirmed\")";
    let by_coding = "exists ([Encounter] E where E.class ~ \"Ambulatory\")";
    let right = [
        (by_class, "Encounter", r#""class":{"system":"urn:act","code":"AMB"}"#),
        (by_status, "Encounter", r#""status":"finished""#),
        (by_status, "Encounter", r#""_status":{"extension":[{"url":"u","valueString":"x"}]}"#),
        // One is one, in brackets or not.
        (by_coding, "Encounter", r#""class":[{"system":"urn:act","code":"AMB"}]"#),
        (by_value, "Observation", r#""valueQuantity":{"value":12,"unit":"g/dL","system":"http://unitsofmeasure.org","code":"g/dL"}"#),
        (by_verification, "Condition", r#""verificationStatus":{"coding":[{"system":"urn:act","code":"confirmed"}]}"#),
        (by_verification, "Condition", r#""verificationStatus":{"coding":{"system":"urn:act","code":"confirmed"}}"#),
        // What the measure does not read.
        (by_verification, "Condition", r#""code":"string""#),
    ];
    for (initial, resource, rest) in right {
        assert_eq!(told_by(initial, resource, rest), (0, vec![], "complete".to_owned()), "{rest}");
    }
    let meant = " (it is no code of FHIR's; `finished` is near)";
    let wrong = [
        (by_class, "Encounter", r#""class":"AMB""#, "Encounter.class", ""),
        (by_coding, "Encounter", r#""class":"AMB""#, "Encounter.class", ""),
        (by_coding, "Encounter", r#""class":[{"system":"urn:act","code":"AMB"},{"system":"urn:act","code":"IMP"}]"#, "Encounter.class", ""),
        (by_status, "Encounter", r#""status":"Finished""#, "Encounter.status", meant),
        (by_status, "Encounter", r#""status":"x""#, "Encounter.status", ""),
        (by_status, "Encounter", r#""status":{"code":"finished"}"#, "Encounter.status", ""),
        (by_value, "Observation", r#""valueQuantity":"12 g/dL""#, "Observation.valueQuantity", ""),
        (by_verification, "Condition", r#""verificationStatus":"confirmed""#, "Condition.verificationStatus", ""),
        // As R5 has it.
        (by_coding, "Encounter", r#""class":[{"coding":[{"system":"urn:act","code":"AMB"}]}]"#, "Encounter.class", ""),
        (by_value, "Observation", r#""value":{"value":12,"code":"g/dL"}"#, "Observation.value", ""),
    ];
    for (initial, resource, rest, element, meant) in wrong {
        let (code, err, parts) = told_by(initial, resource, rest);
        let warning =
            format!("warning: `{element}` of 1 patient cannot be read, first at data/a.ndjson:2{meant}; what it says is not known, and reports that ask for it are partial");
        assert_eq!((code, err, parts.as_str()), (1, vec![warning], "partial"), "{rest}");
    }
    // Many, of which the codes are looked at together.
    let many: String = (0..9)
        .map(|n| format!("{{\"resourceType\":\"Encounter\",\"id\":\"e{n}\",\"subject\":{{\"reference\":\"Patient/p1\"}},\"class\":\"AMB\"}}\n"))
        .collect();
    let (code, err, _) = told_of(by_class, &[("a.ndjson", format!("{PATIENT}\n{many}"))]);
    assert!(code == 1 && err.len() == 1 && err[0].contains("`Encounter.class` of 1 patient cannot be read"), "{err:?}");
}

/// A resource is one patient's, whatever an older version of it says; the ids of test patients, each numbered anew, are told of.
#[test]
fn a_resource_counts_for_the_patient_whom_its_newest_version_names_and_that_is_told() {
    let person = |id: &str| PATIENT.replace("p1", id) + "\n";
    let visit = |patient: &str, meta: &str| VISIT.replace("p1", patient).replace("\"e1\"", &format!("\"e1\"{meta}")) + "\n";
    let at = |time: &str| format!(",\"meta\":{{\"lastUpdated\":\"{time}\"}}");
    let (older, newer) = (visit("p1", &at("2026-01-02T01:00:00+02:00")), visit("p2", &at("2026-01-02T00:00:00Z")));
    let counts = |lines: &[&String], more: &str| {
        let scratch = tempfile::tempdir().unwrap();
        measure(scratch.path(), "exists [Encounter]");
        let data = scratch.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("people.ndjson"), person("p1") + &person("p2")).unwrap();
        lines.iter().enumerate().for_each(|(at, line)| std::fs::write(data.join(format!("{at}.ndjson")), line).unwrap());
        std::fs::write(data.join("deleted.json"), format!(r#"{{"resourceType":"Bundle","entry":[{more}]}}"#)).unwrap();
        let (code, out, err) = evaluate(scratch.path(), &[]);
        let report: Value = serde_json::from_str(&out).unwrap();
        (code, report["group"][0]["population"][0]["count"].as_u64().unwrap(), err)
    };
    let moved = "note: older versions of 1 Encounter resource name another patient: the newest counts, for the patient it names\n";
    assert_eq!(counts(&[&newer, &older], ""), (0, 1, moved.to_owned()));
    assert_eq!(counts(&[&older, &newer], ""), (0, 1, moved.to_owned()));
    let unclear = "warning: under 1 Encounter id several patients have a resource, and neither `meta.versionId` nor `meta.lastUpdated` says which is the newest: \
         each counts for the patient it names\n";
    assert_eq!(counts(&[&visit("p1", ""), &visit("p2", "")], ""), (0, 2, unclear.to_owned()));
    // What is said to be deleted is looked for as little as ever, and the reports are partial.
    let deleted = r#"{"request":{"method":"DELETE","url":"Encounter/e1"}}"#;
    let (code, count, err) = counts(&[&older, &newer], deleted);
    assert!((code, count) == (1, 1) && err.starts_with(moved) && err.contains("resource was deleted, of type Encounter"), "{err}");
    assert_eq!(counts(&[&newer], deleted).1, 1);
}

/// Of two contents of one id it is said that nobody knows which one counts, unless a version or a time tells.
#[test]
fn two_contents_of_one_id_are_told_and_a_number_of_a_version_decides() {
    let visit = |status: &str, meta: &str| format!("{{\"resourceType\":\"Encounter\",\"id\":\"e1\"{meta},\"subject\":{{\"reference\":\"Patient/p1\"}},\"status\":\"{status}\"}}\n");
    let version = |number: &str| format!(",\"meta\":{{\"versionId\":\"{number}\"}}");
    let both = |one: String, other: String| {
        let told = |files: &[(&str, String)]| told_of("exists ([Encounter] E where E.status = 'finished')", files);
        let person = ("0.ndjson", format!("{PATIENT}\n"));
        let (first, second) = (told(&[person.clone(), ("a.ndjson", one.clone()), ("b.ndjson", other.clone())]), told(&[person, ("a.ndjson", other), ("b.ndjson", one)]));
        assert_eq!((first.0, &first.2), (second.0, &second.2));
        first
    };
    assert_eq!(both(visit("finished", &version("9")), visit("planned", &version("10"))), (0, vec![], "complete".to_owned()));
    assert_eq!(both(visit("finished", ""), visit("finished", ",\"meta\":{\"source\":\"x\"}")), (0, vec![], "complete".to_owned()));
    let (code, err, parts) = both(visit("finished", ""), visit("planned", ""));
    assert!(code == 1 && parts == "partial" && err.len() == 1 && err[0].contains("another resource has the same id and other content"), "{err:?}");
}
