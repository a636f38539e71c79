//! The commands about measures, without a site: `evaluate`, `measure`, `cql`, over generated data and texts of one's own.

use serde_json::Value;

use super::{project, say, scratch, sound_site, spoil};

#[test]
fn generated_data_are_evaluated_and_what_is_no_data_is_refused() {
    let folder = scratch();
    let generate = ["sandbox", "generate", "--out", "data", "--patients", "30", "--months", "2", "--as-of", "2026-03-01"];
    let made = say(folder.path(), &[&generate[..], &["--format", "json"]].concat());
    assert_eq!((made.code, made.err.as_str(), &made.json()["resources"]["Patient"]), (0, "", &30.into()));
    let again = say(folder.path(), &generate);
    assert_eq!((again.code, again.err.as_str()), (2, "error: `data` is not empty\n  help: name a new folder\n"));

    let measure = project("mappings/measures/ibd/remission").display().to_string();
    let evaluate = |data: &str, more: &[&str]| {
        say(folder.path(), &[&["evaluate", "--measure", &measure, "--data", data, "--period", "2026-02", "--timezone", "America/Chicago"], more].concat())
    };
    let said = evaluate("data", &[]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "a generated folder holds nothing but data");
    let truth: Value = serde_json::from_str(&std::fs::read_to_string(folder.path().join("data.truth.json")).unwrap()).unwrap();
    let row = truth["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["measure_id"] == "ibd-remission" && row["month"] == "2026-02-01")
        .unwrap();
    let parts = said.json()["group"][0]["extension"][0]["extension"].clone();
    assert_eq!((&parts[0]["valueDecimal"], &parts[1]["valueDecimal"]), (&row["numerator"], &row["denominator"]));
    let to_files = evaluate("data", &["--out", "reports"]);
    assert_eq!((to_files.code, to_files.out.as_str(), std::fs::read_dir(folder.path().join("reports")).unwrap().count()), (0, "", 1));
    // The same again replaces its own; what is of another evaluation is not mixed in without a word.
    assert_eq!(evaluate("data", &["--out", "reports"]).err, "");
    let mixed = evaluate("data", &["--out", "reports", "--report", "individual"]);
    let said =
        "warning: `reports` holds 1 other JSON file that this evaluation did not write, beside its 30 reports: they are of another one; name a new folder to keep them apart\n";
    assert_eq!((mixed.code, mixed.err.as_str()), (0, said));
    for name in ["data/a.xml", "data/b.XML.gz"] {
        std::fs::write(folder.path().join(name), "<Bundle xmlns=\"http://hl7.org/fhir\"/>").unwrap();
    }
    let said = evaluate("data", &[]);
    assert_eq!((said.code, said.err.as_str()), (0, "warning: 2 XML files passed over: FHIR XML is not read; have JSON written\n"));

    std::fs::create_dir(folder.path().join("empty")).unwrap();
    std::fs::create_dir(folder.path().join("of-xml")).unwrap();
    std::fs::write(folder.path().join("of-xml/patient.xml"), "<Patient/>").unwrap();
    std::fs::write(folder.path().join("table.csv"), "id,born\np1,2020-01-01\n").unwrap();
    for (data, part) in [
        ("nowhere", "`nowhere` cannot be read: it does not exist"),
        ("empty", "`empty` cannot be read: it holds no .ndjson or .json file, compressed by .gz or .zst or not\n"),
        ("of-xml", "`of-xml` cannot be read: it holds no .ndjson or .json file, compressed by .gz or .zst or not; FHIR XML is not read: have JSON written\n"),
        ("table.csv", "`table.csv` cannot be read: no line of it is a FHIR resource (line 1: this is not one JSON object)"),
    ] {
        let said = evaluate(data, &[]);
        assert!(said.code == 3 && said.err.contains(part) && said.out.is_empty(), "{data}: {} {}", said.code, said.err);
    }
}

/// A `measure.yaml` of that scoring, and the rest of it.
fn plain(scoring: &str, rest: &str) -> String {
    let head = "id: seen\nurl: http://watershed.example/fhir/Measure/seen\nversion: 1.0.0\nstatus: draft\ntitle: Seen\ndescription: Seen at one place\nsteward: A test\n";
    format!("{head}scoring: {scoring}\nimprovement: increase\n{rest}")
}

#[test]
fn a_record_is_what_the_patient_refers_to_and_a_fault_within_is_told_by_line() {
    let folder = scratch();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("seen")).unwrap();
    write("seen/measure.yaml", &plain("cohort", "populations:\n  - code: initial-population\n    define: Initial Population\n"));
    write(
        "seen/seen.cql",
        "library Seen version '1.0.0'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1' called FHIRHelpers\n\
         parameter \"Measurement Period\" Interval<DateTime>\ncontext Patient\ndefine \"Initial Population\": exists [Encounter] and Count([Location]) = 1\n",
    );
    let lines = [
        r#"{"resourceType":"Patient","id":"p1"}"#,
        r#"{"resourceType":"Patient","id":"p2"}"#,
        r#"{"resourceType":"Location","id":"near"}"#,
        r#"{"resourceType":"Location","id":"far"}"#,
        r#"{"resourceType":"Encounter","id":"e1","subject":{"reference":"Patient/p1"},"location":[{"location":{"reference":"Location/near"}}]}"#,
        r#"{"resourceType":"Encounter","id":"e2","subject":{"reference":"Patient/p2"},"location" [{"location":{"reference":"Location/near"}}]}"#,
    ];
    write("all.ndjson", &(lines.join("\n") + "\n"));
    let said = say(folder.path(), &["evaluate", "--measure", "seen", "--data", "all.ndjson", "--period", "2026-02"]);
    assert_eq!(said.json().pointer("/group/0/population/0/count"), Some(&Value::from(1)), "{}", said.shown(folder.path()));
    assert!(said.err.contains("warning: all.ndjson:6: invalid JSON at byte 86") && said.err.contains("set aside"), "{}", said.err);
}

#[test]
fn measures_are_checked_and_tested() {
    let folder = sound_site();
    let said = say(folder.path(), &["measure", "check", "mappings/measures"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.contains("3 measures are well formed") && said.out.contains("the network has yet to confirm"), "{}", said.out);
    let said = say(folder.path(), &["measure", "test", "mappings/measures/ibd/remission"]);
    assert!(said.code == 0 && said.out.contains("cases pass"), "{}{}", said.out, said.err);
    spoil(&folder.path().join("mappings/measures/ibd/remission/ibd-remission.cql"), "exists", "exist");
    for words in [&["measure", "check", "mappings/measures/ibd/remission"][..], &["measure", "test", "mappings/measures/ibd/remission"]] {
        let said = say(folder.path(), words);
        assert!(matches!(said.code, 1 | 3), "{words:?}: {}", said.code);
        assert!(format!("{}{}", said.out, said.err).contains("ibd-remission.cql:"), "{words:?}: {}{}", said.out, said.err);
    }
    std::fs::remove_dir_all(folder.path().join("mappings/measures/hac/clabsi/cases")).unwrap();
    let none = "no test patients, so nothing is known of it: write the first one as `cases/01-NAME.yaml`";
    let said = say(folder.path(), &["measure", "test", "mappings/measures/hac/clabsi"]);
    assert!(said.code == 1 && said.out.contains(none) && !said.out.contains("pass"), "{}{}", said.out, said.err);
    let said = say(folder.path(), &["measure", "test", "mappings/measures/hac/clabsi", "--format", "json"]);
    assert_eq!((said.code, said.json()[0]["cases"].as_array().map(Vec::len)), (1, Some(0)));
    let said = say(folder.path(), &["measure", "check", "mappings/measures/hac/clabsi"]);
    assert!(said.code == 0 && said.out.contains("note: `hac-clabsi` has no test patients"), "{}{}", said.out, said.err);
    let said = say(folder.path(), &["measure", "check", "nowhere", "mappings/measures/ibd/remission", "elsewhere"]);
    for part in ["at or below `nowhere`", "ibd-remission.cql:", "at or below `elsewhere`"] {
        assert!(said.code == 1 && said.out.contains(part), "{part}: {} {}{}", said.code, said.out, said.err);
    }
    let said = say(folder.path(), &["measure", "check", "nowhere"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (3, "", "error: there is no `measure.yaml` at or below `nowhere`\nhelp: name a measure folder\n\n1 error\n"));
}

#[test]
fn what_another_system_counts_has_nothing_to_test_and_nothing_to_evaluate() {
    let folder = sound_site();
    let own = project("mappings/series/nhsn-clabsi");
    let at = |name: &str| folder.path().join("nhsn").join(name);
    std::fs::create_dir_all(at("cases")).unwrap();
    std::fs::copy(own.join("measure.yaml"), at("measure.yaml")).unwrap();
    let says = |words: &[&str], code: i32, expected: &str| {
        let said = say(folder.path(), words);
        assert!(said.code == code && format!("{}{}", said.out, said.err).contains(expected), "{words:?} {}: {}{}", said.code, said.out, said.err);
    };
    let nothing = "counted elsewhere: it has no logic and no test patients";
    says(&["measure", "check", "nhsn"], 0, nothing);
    says(&["measure", "test", "nhsn"], 0, nothing);
    says(&["measure", "coverage", "nhsn"], 0, "");
    let nobody = "`nhsn-clabsi` is counted elsewhere: no patient's record says anything of it";
    std::fs::write(folder.path().join("data.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"p1\"}\n").unwrap();
    says(&["evaluate", "--measure", "nhsn", "--data", "data.ndjson", "--period", "2026-01"], 2, nobody);
    says(&["measure", "explain", "nhsn", "--data", "data.ndjson", "--patient", "p1", "--period", "2026-01"], 2, nobody);
    let whole = crate::composite::WHOLE.replace("METHOD", "opportunity").replace("perinatal-early-elective-delivery", "nhsn-clabsi");
    std::fs::create_dir_all(folder.path().join("whole")).unwrap();
    std::fs::write(folder.path().join("whole/measure.yaml"), whole).unwrap();
    says(&["measure", "check", "whole", "nhsn", "mappings/measures/ibd/remission"], 1, "`nhsn-clabsi` is counted elsewhere: who is in its populations is not known here");
    std::fs::write(at("nhsn.cql"), "library NHSN\n").unwrap();
    says(&["measure", "check", "nhsn"], 0, "nhsn.cql` is not read: the measure is counted elsewhere");
    std::fs::write(at("cases/01-first.yaml"), "title: First\n").unwrap();
    says(&["measure", "check", "nhsn"], 1, "a test patient of `nhsn-clabsi`, which is counted elsewhere");
    says(&["measure", "test", "nhsn"], 3, "a test patient of `nhsn-clabsi`, which is counted elsewhere");
}

#[test]
fn cql_takes_value_sets_from_files_folders_and_bundles() {
    let folder = scratch();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let header = "library Sets version '1.0.0'\nvalueset \"A\": 'http://x/a'\nvalueset \"B\": 'http://x/b'\ncodesystem \"S\": 'http://x/s'\n";
    write("sets.cql", &format!("{header}define \"Is In\": Code 'one' from \"S\" in \"A\" and Code 'two' from \"S\" in \"B\"\n"));
    std::fs::create_dir_all(folder.path().join("sets/more")).unwrap();
    write("sets/a.yaml", "url: http://x/a\ncodes:\n  - {system: http://x/s, code: one}\n");
    let b = r#"{"resourceType":"ValueSet","url":"http://x/b","expansion":{"contains":[{"system":"http://x/s","code":"two"}]}}"#;
    write("sets/more/b.json", b);
    write("bundle.json", &format!(r#"{{"resourceType":"Bundle","type":"collection","entry":[{{"resource":{b}}}]}}"#));
    for sets in [&["sets"][..], &["sets/a.yaml", "sets/more"], &["sets/a.yaml", "bundle.json"]] {
        let given: Vec<&str> = sets.iter().flat_map(|path| ["--valuesets", path]).collect();
        let said = say(folder.path(), &[&["cql", "run", "sets.cql"], &given[..]].concat());
        assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "Is In: true\n", ""), "{sets:?}");
    }
    let said = say(folder.path(), &["cql", "run", "sets.cql", "--valuesets", "nowhere"]);
    assert!(said.code == 3 && said.err.contains("nowhere"), "{}", said.err);
}

/// What a parameter's value is, its declared type says; what is none is told with an example of that type.
#[test]
fn parameters_are_given_by_their_declared_types() {
    let folder = scratch();
    let types = "parameter Dose System.Quantity\nparameter Ages Interval<Integer>\nparameter At System.Time\nparameter Span Interval<System.DateTime>\nparameter Lab Quantity\n";
    let defines = "parameter \"Measurement Period\" Interval<DateTime>\ncontext Patient\ndefine \"Given\": Dose > 3 'mg' and 20 in Ages and hour from At = 8\n";
    let text = format!("library Given\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1'\n{types}{defines}");
    std::fs::write(folder.path().join("given.cql"), text).unwrap();
    std::fs::write(folder.path().join("measure.yaml"), plain("cohort", "populations:\n  - code: initial-population\n    define: Given\n")).unwrap();
    std::fs::write(folder.path().join("data.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"p1\"}\n").unwrap();
    let evaluate = |given: &[&str]| {
        let arguments = ["evaluate", "--measure", ".", "--data", "data.ndjson", "--period", "2026-02"];
        say(folder.path(), &[&arguments[..], &given.iter().flat_map(|one| ["--parameter", one]).collect::<Vec<_>>()].concat())
    };
    let run = |given: &[&str]| say(folder.path(), &[&["cql", "run", "given.cql"][..], &given.iter().flat_map(|one| ["--parameter", one]).collect::<Vec<_>>()].concat());
    let sound = ["Dose=5 'mg'", "Ages=Interval[18, 64]", "At=@T08:30"];
    assert_eq!(run(&sound).out, "Given: true\n");
    assert_eq!(evaluate(&sound).json().pointer("/group/0/population/0/count"), Some(&Value::from(1)), "{}", evaluate(&sound).err);
    for (given, named, help) in [
        ("Dose=5", "Quantity", "write it as in CQL: `13 'mo'`, or `13 '1'` for what has no unit"),
        ("Ages=18", "Interval<Integer>", "write it as in CQL: `Interval[18, 64]`"),
        ("Span=2026", "Interval<DateTime>", "write it as in CQL: `Interval[@2025-01-01T00:00:00.000, @2025-12-31T23:59:59.999]`"),
        ("At=8", "Time", "write it as in CQL: `@T08:30`"),
        ("Lab=5 'mg'", "FHIR.Quantity", "no value of `FHIR.Quantity` can be given: declare the parameter with a type of CQL's own, as `System.Quantity`"),
    ] {
        for said in [run(&[given]), evaluate(&[given])] {
            let told = said.err.replace('\n', " ").split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(matches!(said.code, 2 | 3) && told.contains(&format!("`{named}`")) | told.contains(&format!("is no {named},")) && told.contains(help), "{given}: {}", said.err);
        }
    }
}

/// `cql` finds what a library includes where `measure check` does: in folders `libraries` beside it and above.
#[test]
fn cql_includes_what_a_measure_includes() {
    let folder = scratch();
    let deep = folder.path().join("measures/one/two");
    std::fs::create_dir_all(&deep).unwrap();
    for (place, number) in [("libraries", 1), ("measures/libraries", 2)] {
        std::fs::create_dir_all(folder.path().join(place)).unwrap();
        let text = format!("library Common version '1.0.0'\ndefine \"Number\": {number}\n");
        std::fs::write(folder.path().join(place).join("Common-1.0.0.cql"), text).unwrap();
    }
    std::fs::write(deep.join("own.cql"), "library Own version '1.0.0'\ninclude Common version '1.0.0'\ndefine \"Twice\": Common.\"Number\" * 2\n").unwrap();
    let say = |words: &[&str]| say(folder.path(), words);
    assert_eq!(say(&["cql", "check", "measures/one/two/own.cql"]).out, "1 file is well formed\n");
    assert_eq!(say(&["cql", "run", "measures/one/two/own.cql"]).out, "Twice: 4\n", "the nearest counts");
    assert!(say(&["cql", "elm", "measures/one/two/own.cql"]).out.contains("\"Common\""));
    std::fs::write(deep.join("own.cql"), "library Own\ninclude Nowhere\n").unwrap();
    let help = "put its `.cql` file beside this one or into a folder `libraries` there or above it, or name its folder with --library";
    assert!(say(&["cql", "check", "measures/one/two/own.cql"]).out.split_whitespace().collect::<Vec<_>>().join(" ").contains(help));
}

#[test]
fn cql_is_checked_and_run() {
    let folder = scratch();
    std::fs::write(folder.path().join("good.cql"), "library Good\nparameter Limit Integer\ndefine \"The Sum\": 1 + 1.50\ndefine Twice: Limit * 2\n").unwrap();
    std::fs::write(folder.path().join("bad.cql"), "library Bad\ndefine X: Foo\ndefine Y: 1 + 'a'\n").unwrap();
    let said = say(folder.path(), &["cql", "check", "good.cql"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "1 file is well formed\n", ""));
    let said = say(folder.path(), &["cql", "run", "good.cql", "--parameter", "Limit=21"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "The Sum: 2.50\nTwice: 42\n", ""));
    let said = say(folder.path(), &["cql", "run", "good.cql", "--parameter", "Limit=21", "--define", "Twice", "--format", "json"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "{\"Twice\":42}\n", ""));
    for (given, told) in [
        ("Limt=21", "nothing here has a parameter `Limt`\n  help: did you mean `Limit`?\n"),
        ("Limit='21'", "`--parameter Limit='21'`: this is `String`, but the parameter `Limit` is declared as `Integer`\n  help: write it as in CQL: `21`\n"),
        ("Good.Limit=1.5", "`--parameter Good.Limit=1.5`: this is `Decimal`, but the parameter `Good.Limit` is declared as `Integer`\n  help: write it as in CQL: `21`\n"),
        ("Limit=1 define More: 2", "`--parameter Limit=1 define More: 2` is not one CQL expression\n"),
        ("Limit", "`--parameter Limit` has no `=`\n  help: write `--parameter 'Age Limit Years=21'`\n"),
    ] {
        let said = say(folder.path(), &["cql", "run", "good.cql", "--parameter", given]);
        assert_eq!((said.code, said.out.as_str(), said.err), (2, "", format!("error: {told}")), "{given}");
    }
    let said = say(folder.path(), &["cql", "run", "good.cql", "--define", "Twise"]);
    assert_eq!((said.code, said.err.as_str()), (2, "error: `good.cql` has no define `Twise`\n  help: did you mean `Twice`?\n"));

    let said = say(folder.path(), &["cql", "check", "bad.cql", "--format", "json"]);
    assert_eq!((said.code, said.err.as_str()), (1, ""));
    let places: Vec<String> = said
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|found| format!("{}:{}:{}", found["at"]["file"].as_str().unwrap(), found["at"]["line"], found["at"]["column"]))
        .collect();
    assert_eq!(places, ["bad.cql:2:11", "bad.cql:3:11"]);
    for format in ["human", "json"] {
        let said = say(folder.path(), &["cql", "run", "bad.cql", "--format", format]);
        assert_eq!((said.code, said.out.as_str()), (3, ""), "stdout is kept for values");
        assert!(said.err.contains("nothing here is named `Foo`"), "{}", said.err);
        assert!(format == "human" || serde_json::from_str::<Value>(&said.err).is_ok(), "{}", said.err);
    }
}

#[test]
fn what_fails_takes_no_value_from_the_rest() {
    let folder = scratch();
    let text = "library Some\ndefine function Only(list List<Integer>): singleton from list\ndefine One: 1\ndefine Two: Only({1, 2})\ndefine Three: Two + 1\ndefine Bad: Matches('abc', '[a-')\n";
    std::fs::write(folder.path().join("some.cql"), text).unwrap();
    let said = say(folder.path(), &["cql", "run", "some.cql"]);
    assert_eq!((said.code, said.out.as_str()), (1, "One: 1\n"));
    for part in [
        "some.cql:2:43",
        "while evaluating `Only`, reached from `Two`; `Three` without a value because of it",
        "some.cql:6:13",
        "no regular expression: unclosed character class",
        "2 errors",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    let said = say(folder.path(), &["cql", "run", "some.cql", "--format", "json"]);
    assert_eq!((said.code, said.json()), (1, serde_json::json!({ "One": 1 })));
    let found: Value = serde_json::from_str(&said.err).unwrap();
    let places: Vec<String> = found.as_array().unwrap().iter().map(|one| format!("{}:{}", one["at"]["line"], one["at"]["column"])).collect();
    assert_eq!(places, ["2:43", "6:13"]);
    let said = say(folder.path(), &["cql", "run", "some.cql", "--define", "Three"]);
    assert!(said.code == 1 && said.out.is_empty() && said.err.contains("while evaluating `Only`, reached from `Two`, `Three`\n"), "{}{}", said.out, said.err);
}
