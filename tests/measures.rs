//! The network's measures: their own test patients, and generated hospitals whose numbers are known.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;
use watershed::config::measures::{self, Loaded};
use watershed::diagnostic::{Severity, SourceFile, render_human};
use watershed::fhir::record::{Record, Shape};
use watershed::mapping::Mapping;
use watershed::measure::report::Facts;
use watershed::measure::{Choices, MissingValueSets, Partial, Period, population};
use watershed::sandbox::{Hospital, Profile, Truth};
use watershed::source::folder::{self, Dataset};
use watershed::validate;

const MEASURES: [&str; 3] = ["hac/clabsi", "ibd/remission", "perinatal/early-elective-delivery"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings")
}

fn load() -> Loaded {
    let paths = MEASURES.map(|name| root().join("measures").join(name));
    let (loaded, found) = measures::load(&paths, &[], &Choices::default());
    assert_eq!(render_human(&found, false), "");
    loaded.expect("measures that compile")
}

#[test]
fn every_case_of_every_measure_passes_and_every_branch_is_reached() {
    let zone = jiff::tz::TimeZone::get("America/New_York").unwrap();
    for path in measures::find(&root().join("measures")).unwrap() {
        let folder = measures::read(&path).unwrap();
        let (tested, mut found) = measures::test(&folder, &[], &zone);
        // A test patient may well refer to what is not there; it is noted.
        found.retain(|finding| finding.severity != Severity::Note);
        assert_eq!(render_human(&found, false), "");
        let tested = tested.expect("cases that can be read");
        assert!(tested.cases.len() >= 10, "{}: {} cases", path.display(), tested.cases.len());
        for (case, mismatches) in &tested.cases {
            assert_eq!(mismatches, &[], "{}: {}", case.source.name, case.title);
        }
        let (never_true, never_false) = tested.coverage.gaps();
        assert_eq!((never_true, never_false), (vec![], vec![]), "{}", path.display());
    }
}

fn dataset(hospital: &Hospital, shape: &Shape) -> Dataset {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.ndjson");
    let lines: String = hospital.resources().into_iter().map(|(_, _, json)| json + "\n").collect();
    std::fs::write(&file, lines).unwrap();
    let data = folder::read(&[file], shape, 1).unwrap();
    assert_eq!(data.bad, []);
    data
}

/// Sums per measure and month, in the order of `months`.
fn sums(loaded: &Loaded, hospital: &Hospital, mapping: &Mapping, months: &[Period]) -> Vec<Vec<Partial>> {
    let zone = jiff::tz::TimeZone::get(&hospital.truth().time_zone).unwrap();
    let setting = measures::setting(loaded, &zone, "2026-11-24T00:00:00Z".parse().unwrap());
    let mut shape = Shape::default();
    loaded.measures.iter().for_each(|measure| shape.merge(measure.program().shape()));
    let runs: Vec<_> = loaded.measures.iter().map(|measure| measure.over(months, &setting)).collect();
    let mut sums = vec![vec![Partial::default(); months.len()]; runs.len()];
    for patient in dataset(hospital, &shape).patients() {
        let (mut record, bad) = Record::read(&shape, patient.lines());
        assert_eq!(bad, []);
        mapping.apply(&mut record);
        for (run, sums) in runs.iter().zip(&mut sums) {
            for (result, sum) in run.evaluate(&record).into_iter().zip(sums) {
                sum.add(&result.expect("an evaluation without fault"));
            }
        }
    }
    sums
}

fn compare(loaded: &Loaded, truth: &Truth, months: &[Period], sums: &[Vec<Partial>]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (measure, sums) in loaded.measures.iter().zip(sums) {
        let shape = measure.groups[0].shape(measure.definition.scoring);
        for (month, sum) in months.iter().zip(sums) {
            let group = &sum.groups[0];
            let found = population::score(&shape, &group.all);
            let row = truth.row(&measure.definition.id.value, month.start);
            let expected = row.map_or((0, 0), |row| (row.numerator, row.denominator));
            let pair = (Some(Decimal::from(expected.0)), Some(Decimal::from(expected.1)));
            if (found.numerator, found.denominator) != pair {
                wrong.push(format!("{} {month}: {:?}/{:?} instead of {}/{}", measure.definition.id.value, found.numerator, found.denominator, expected.0, expected.1));
            }
            let mut strata = BTreeMap::new();
            for stratum in row.iter().flat_map(|row| &row.strata) {
                strata.insert((stratum.stratifier.as_str(), stratum.stratum.as_str()), (stratum.numerator, stratum.denominator));
            }
            if strata.is_empty() {
                continue;
            }
            for (stratifier, found) in measure.groups[0].stratifiers.iter().zip(&group.strata) {
                for (name, tallies) in found {
                    let score = population::score(&shape, tallies);
                    let known = strata.remove(&(stratifier.id.value.as_str(), name[0].text.as_str())).unwrap_or_default();
                    if (score.numerator, score.denominator) != (Some(known.0.into()), Some(known.1.into())) {
                        wrong.push(format!("{} {month} {name:?}: {:?}/{:?} instead of {known:?}", measure.definition.id.value, score.numerator, score.denominator));
                    }
                }
            }
            wrong.extend(
                strata
                    .iter()
                    .filter(|(_, pair)| **pair != (0, 0))
                    .map(|(name, pair)| format!("{month} {name:?}: nothing instead of {pair:?}")),
            );
        }
    }
    wrong
}

#[test]
fn generated_hospitals_have_the_numbers_they_were_made_with() {
    let loaded = load();
    let harbor = std::fs::read_to_string(root().join("sites/harbor.yaml")).unwrap();
    let (harbor, found) = Mapping::parse(&SourceFile::new("harbor.yaml", harbor), &BTreeMap::new());
    assert!(harbor.is_some(), "{}", render_human(&found, false));
    for profile in Profile::all() {
        let as_of = jiff::civil::date(2026, 11, 23);
        let hospital = Hospital::generate(profile, 7, 120, as_of, 12);
        let months = Period::complete_months(as_of, 12);
        let none = Mapping::none();
        let mapping = if profile.name.contains("harbor") { harbor.as_ref().unwrap_or(&none) } else { &none };
        let sums = sums(&loaded, &hospital, mapping, &months);
        let wrong = compare(&loaded, &hospital.truth(), &months, &sums);
        assert_eq!(wrong, Vec::<String>::new(), "{}", profile.name);
        let denominators: u64 = sums.iter().flatten().map(|sum| sum.groups[0].all.slots[1].count).sum();
        assert!(denominators > 100, "{} of {}", denominators, profile.name);
        reports_pass_the_check(&loaded, &months, &sums);
    }
}

fn reports_pass_the_check(loaded: &Loaded, months: &[Period], sums: &[Vec<Partial>]) {
    let facts = Facts { reporter: "north".into(), date: "2026-11-24".into(), software: ("Watershed".into(), "0".into()), zone: "UTC".into(), ..Facts::default() };
    for (measure, sums) in loaded.measures.iter().zip(sums) {
        for (period, sum) in months.iter().zip(sums) {
            let reporter = measure.reporter(*period, &facts);
            let report = reporter.summary(sum);
            assert_eq!(validate::check(&report), [], "{report:#}");
            let parts = validate::parts(&report["group"][0]);
            let score = population::score(&measure.groups[0].shape(measure.definition.scoring), &sum.groups[0].all);
            assert_eq!((parts.numerator, parts.denominator), (score.numerator, score.denominator));
        }
    }
}

/// Every measure and case that is shipped is as its schema says.
#[test]
fn measures_and_cases_are_as_their_schemas_say() {
    let schema = |name: &str| {
        let text = std::fs::read_to_string(root().join("../schemas").join(name)).unwrap();
        jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
    };
    let (of_measure, of_case) = (schema("measure.schema.json"), schema("case.schema.json"));
    for path in ["measures", "series"].iter().flat_map(|name| measures::find(&root().join(name)).unwrap()) {
        let folder = measures::read(&path).unwrap();
        let definition = [(&of_measure, &folder.files.definition)];
        for (schema, source) in folder.cases.iter().map(|case| (&of_case, case)).chain(definition) {
            let value: serde_json::Value = serde_saphyr::from_str(&source.text).unwrap();
            let faults: Vec<String> = schema.iter_errors(&value).map(|fault| fault.to_string()).collect();
            assert_eq!(faults, Vec::<String>::new(), "{}", source.name);
        }
    }
}

/// Runs the built program and gives its exit code, standard output and standard error.
fn watershed(arguments: &[&str]) -> (i32, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_watershed"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[test]
fn evaluate_gives_the_same_bytes_whatever_the_threads_and_the_order_of_files() {
    let hospital = Hospital::generate(&Profile::all()[0], 3, 40, jiff::civil::date(2026, 11, 23), 2);
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut lines: Vec<String> = hospital.resources().into_iter().map(|(_, _, json)| json).collect();
    std::fs::write(one.path().join("all.ndjson"), lines.join("\n")).unwrap();
    lines.reverse();
    let (early, late) = lines.split_at(lines.len() / 3);
    std::fs::write(two.path().join("b.ndjson"), early.join("\n")).unwrap();
    std::fs::write(two.path().join("a.ndjson"), late.join("\n")).unwrap();
    let run = |folder: &Path, threads: &str, report: &str| {
        let folder = folder.display().to_string();
        let (code, out, err) = watershed(&[
            "evaluate",
            "--measure",
            "mappings/measures/ibd/remission",
            "mappings/measures/hac/clabsi",
            "--data",
            &folder,
            "--period",
            "2026-09",
            "2026-10",
            "--timezone",
            "America/New_York",
            "--threads",
            threads,
            "--report",
            report,
        ]);
        assert_eq!((code, err.as_str()), (0, ""));
        out
    };
    let first = run(one.path(), "1", "summary");
    assert_eq!(first.lines().count(), 4);
    assert_eq!(first, run(two.path(), "3", "summary"));
    for line in first.lines() {
        assert_eq!(validate::check(&serde_json::from_str(line).unwrap()), []);
    }
    let individual = run(one.path(), "2", "individual");
    assert_eq!(individual, run(two.path(), "1", "individual"));
    assert!(individual.lines().count() > 4 && individual.lines().all(|line| line.contains(r#""subject":{"reference":"Patient/"#)));
    assert_eq!(run(one.path(), "2", "subject-list").lines().count(), 4);
}

#[test]
fn commands_say_what_is_wrong_and_exit_by_its_kind() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("x.ndjson"), "{\"resourceType\":\"Patient\",\"id\":\"p\"}\nnot json\n").unwrap();
    let data = data.path().display().to_string();
    let evaluate = ["evaluate", "--measure", "mappings/measures/ibd/remission", "--data", &data, "--period"];
    let with = |more: &[&str]| watershed(&[&evaluate[..], more].concat());
    let (code, out, err) = with(&["2026-01"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("x.ndjson:2: this is not one JSON object; set aside"), "{err}");
    assert!(out.contains(r#""valueCode":"partial""#), "{out}");
    for (more, code, part) in [
        (&["yesterday"][..], 2, "`yesterday` is not a period"),
        (&["2026-01", "--timezone", "Mars/Base"], 2, "no time zone is named `Mars/Base`"),
        (&["2026-01", "--parameter", "Age"], 2, "has no `=`"),
        (&["2026-01", "--parameter", "Age Limit Year=20"], 3, "did you mean `Age Limit Years`?"),
        (&["2026-01", "--parameter", "Age Limit Years=young"], 3, "`young` is no Integer"),
        (&["2026-01", "--memory", "much"], 2, "`--memory much` is no size of at least 16MiB"),
    ] {
        let (found, _, err) = with(more);
        assert!(found == code && err.contains(part), "{more:?}: {found} {err}");
    }
    let (code, _, err) = watershed(&["evaluate", "--measure", "src", "--data", &data, "--period", "2026"]);
    assert!(code == 3 && err.contains("holds no `measure.yaml`"), "{code} {err}");
}

#[test]
fn a_case_that_fails_exits_with_one_and_says_expected_and_found() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("measures/remission");
    std::fs::create_dir_all(pack.join("cases")).unwrap();
    for name in ["libraries", "value-sets"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        for entry in std::fs::read_dir(root().join(name)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, folder.path().join(name).join(path.file_name().unwrap())).unwrap();
        }
    }
    let original = root().join("measures/ibd/remission");
    for name in ["measure.yaml", "ibd-remission.cql"] {
        std::fs::copy(original.join(name), pack.join(name)).unwrap();
    }
    let case = std::fs::read_to_string(original.join("cases/02-active-disease.yaml")).unwrap();
    std::fs::write(pack.join("cases/a.yaml"), case.replace("numerator: 0", "numerator: 1")).unwrap();
    let path = pack.display().to_string();
    let (code, out, _) = watershed(&["measure", "test", &path, "--format", "json"]);
    assert_eq!(code, 1);
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    let expected = serde_json::json!([{ "period": "2025-06-01/2025-06-30", "population": "numerator", "expected": "1", "found": "0" }]);
    assert_eq!(found[0]["cases"][0]["mismatches"], expected);
    let broken = std::fs::read_to_string(original.join("measure.yaml")).unwrap().replace("define: Numerator", "define: Numertor");
    std::fs::write(pack.join("measure.yaml"), broken).unwrap();
    let (code, out, err) = watershed(&["measure", "check", &path]);
    let said = format!("{out}{err}");
    assert!(code != 0 && said.contains("has no definition `Numertor`") && said.contains("did you mean `Numerator`?"), "{said}");
}

/// A Bundle with a cohort of who has a condition of either value set; what is here of each is given.
fn published(sets: &[&str]) -> (tempfile::TempDir, PathBuf) {
    use base64::Engine as _;
    let text = "library Own version '1.0.0'\nusing FHIR version '4.0.1'\nvalueset \"A\": 'http://x.example/ValueSet/a'\nvalueset \"B\": 'http://x.example/ValueSet/b'\n\
                parameter \"Measurement Period\" Interval<DateTime>\ncontext Patient\ndefine \"Ill\": exists [Condition: \"A\"] or exists [Condition: \"B\"]\n";
    let library = serde_json::json!({ "resourceType": "Library", "url": "http://x.example/Library/Own", "name": "Own", "version": "1.0.0",
        "content": [{ "contentType": "text/cql", "data": base64::engine::general_purpose::STANDARD.encode(text) }] });
    let population = serde_json::json!({ "code": { "coding": [{ "code": "initial-population" }] }, "criteria": { "language": "text/cql.identifier", "expression": "Ill" } });
    let measure = serde_json::json!({ "resourceType": "Measure", "id": "own", "url": "http://x.example/Measure/own", "version": "1.0.0", "status": "active",
        "library": ["http://x.example/Library/Own"], "scoring": { "coding": [{ "code": "cohort" }] }, "group": [{ "population": [population] }] });
    let sets = sets.iter().map(|set| serde_json::from_str(set).unwrap());
    let entries: Vec<serde_json::Value> = [measure, library].into_iter().chain(sets).map(|resource| serde_json::json!({ "resource": resource })).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.json");
    std::fs::write(&path, serde_json::json!({ "resourceType": "Bundle", "type": "collection", "entry": entries }).to_string()).unwrap();
    (folder, path)
}

fn expanded(more: &str, name: &str) -> String {
    let code = r#"{"system":"http://x.example","code":"1"}"#;
    format!(r#"{{"resourceType":"ValueSet",{more}"url":"http://x.example/ValueSet/{name}","expansion":{{"contains":[{code}]}}}}"#)
}

#[test]
fn value_sets_of_a_bundle_are_told_apart_by_their_urls() {
    for more in ["", r#""id":"same","#] {
        let (_folder, path) = published(&[&expanded(more, "a"), &expanded(more, "b")]);
        let (loaded, found) = measures::load(&[path], &[], &Choices::default());
        assert_eq!((render_human(&found, false).as_str(), loaded.map(|loaded| loaded.value_sets.iter().count())), ("", Some(2)));
    }
}

#[test]
fn a_value_set_that_is_there_without_codes_is_named_with_the_reason_and_else_as_missing() {
    let empty = r#"{"resourceType":"ValueSet","id":"b","url":"http://x.example/ValueSet/b","compose":{"include":[{"system":"s","filter":[]}]}}"#;
    let warn = Choices { missing_value_sets: MissingValueSets::Warn, ..Choices::default() };
    let reason = "describes its codes by a filter and has no expansion: expand it with a terminology server and keep the result";
    let other = || expanded(r#""id":"a","#, "a");
    for (here, words) in [(vec![other(), empty.to_owned()], reason), (vec![other()], "is missing, empty or not expanded")] {
        let (_folder, path) = published(&here.iter().map(String::as_str).collect::<Vec<_>>());
        for (choices, severity, is_loaded) in [(&Choices::default(), Severity::Error, false), (&warn, Severity::Warning, true)] {
            let (loaded, found) = measures::load(std::slice::from_ref(&path), &[], choices);
            let said: Vec<(Severity, &str)> = found.iter().map(|finding| (finding.severity, finding.message.as_str())).collect();
            assert_eq!(said, [(severity, &*format!("value set `http://x.example/ValueSet/b` {words}"))]);
            assert_eq!(loaded.is_some(), is_loaded);
        }
    }
}

#[test]
fn a_value_set_without_codes_beside_a_measure_is_gone_on_without_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("remission");
    std::fs::create_dir_all(own.join("value-sets")).unwrap();
    let from = root().join("measures/ibd/remission");
    for name in ["measure.yaml", "ibd-remission.cql"] {
        std::fs::copy(from.join(name), own.join(name)).unwrap();
    }
    for (name, end) in [("libraries", "cql"), ("value-sets", "yaml")] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
        for file in std::fs::read_dir(root().join(name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|file| file.extension().is_some_and(|own| own == end))
        {
            std::fs::copy(&file, folder.path().join(name).join(file.file_name().unwrap())).unwrap();
        }
    }
    let set = "value-sets/total-colectomy.yaml";
    std::fs::remove_file(folder.path().join(set)).unwrap();
    let empty = r#"{"resourceType":"ValueSet","url":"http://watershed.example/fhir/ValueSet/total-colectomy","expansion":{"contains":[]}}"#;
    std::fs::write(own.join("value-sets/colectomy.json"), empty).unwrap();
    let warn = Choices { missing_value_sets: MissingValueSets::Warn, ..Choices::default() };
    for (choices, severity, is_loaded) in [(&Choices::default(), Severity::Error, false), (&warn, Severity::Warning, true)] {
        let (loaded, found) = measures::load(std::slice::from_ref(&own), &[], choices);
        assert_eq!(found.iter().map(|finding| finding.severity).collect::<Vec<_>>(), [severity], "{}", render_human(&found, false));
        assert_eq!(loaded.map(|loaded| loaded.measures[0].incomplete_sets.len()), is_loaded.then_some(1));
    }
}
