//! Measures as they are published: what `check` finds in them, and what a report and a site make of what they do not say.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use serde_json::{Value, json};
use watershed::validate;

const CQL: &str = "library Own version '1.0.0'
using FHIR version '4.0.1'
parameter \"Measurement Period\" Interval<DateTime>
context Patient
define \"Everyone\": true
define \"Girl\": Patient.gender.value = 'female'
define \"Nothing\": null as String
define \"Sex\": Patient.gender.value
";

fn concept(code: &str) -> Value {
    json!({ "coding": [{ "code": code }] })
}

fn group(id: &str) -> Value {
    let population = |(code, define): (&str, &str)| json!({ "code": concept(code), "criteria": { "language": "text/cql.identifier", "expression": define } });
    let populations = [("initial-population", "Everyone"), ("denominator", "Everyone"), ("numerator", "Girl")].map(population);
    json!({ "id": id, "population": populations, "stratifier": [{ "id": "sex", "criteria": { "expression": "Sex" } }] })
}

fn library(text: &str) -> Value {
    json!({ "resourceType": "Library", "url": "http://x.example/Library/Own", "name": "Own", "version": "1.0.0",
        "content": [{ "contentType": "text/cql", "data": base64::engine::general_purpose::STANDARD.encode(text) }] })
}

fn measure() -> Value {
    json!({ "resourceType": "Measure", "id": "own", "url": "http://x.example/Measure/own", "version": "1.0.0", "status": "active",
        "library": ["http://x.example/Library/Own"], "scoring": concept("proportion"), "improvementNotation": concept("increase"), "group": [group("all")] })
}

/// A folder with a Bundle of them, and two patients.
fn laid(resources: &[Value]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let entries: Vec<Value> = resources.iter().map(|resource| json!({ "resource": resource })).collect();
    let bundle = json!({ "resourceType": "Bundle", "type": "collection", "entry": entries });
    std::fs::write(folder.path().join("bundle.json"), serde_json::to_string_pretty(&bundle).unwrap()).unwrap();
    std::fs::create_dir(folder.path().join("drop")).unwrap();
    let patients = "{\"resourceType\":\"Patient\",\"id\":\"a\",\"gender\":\"female\"}\n{\"resourceType\":\"Patient\",\"id\":\"b\",\"gender\":\"male\"}\n";
    std::fs::write(folder.path().join("drop/Patient.ndjson"), patients).unwrap();
    folder
}

fn watershed(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_watershed")).current_dir(folder).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

fn checked(resources: &[Value]) -> (i32, String) {
    let folder = laid(resources);
    watershed(folder.path(), &["measure", "check", "bundle.json"])
}

#[test]
fn a_fault_is_told_with_its_element() {
    let (code, out) = checked(&[measure(), library(CQL)]);
    assert_eq!((code, out.as_str()), (0, "1 measure is well formed\n"));
    let twin = |change: &dyn Fn(&mut Value)| {
        let mut measure = measure();
        change(&mut measure);
        checked(&[measure, library(CQL)])
    };
    type Change<'c> = &'c dyn Fn(&mut Value);
    let cases: [(Change<'_>, i32, &[&str]); 5] = [
        (
            &|measure| measure["group"] = json!([group("all"), group("all")]),
            1,
            &["two groups have the id `all`: their series could not be told apart", "give each `group.id` a text of its own"],
        ),
        (
            &|measure| measure["group"][0]["population"][2]["code"] = concept("numer"),
            1,
            &["`Measure.group[0].population[2]`: a population has the code `numer`", "bundle.json#Measure/own:"],
        ),
        (
            &|measure| measure["group"][0]["population"][1]["criteria"] = json!({}),
            1,
            &["`Measure.group[0].population[1]`: population `denominator` has no `criteria.expression`"],
        ),
        (&|measure| measure["group"][0]["population"][2]["criteria"]["expression"] = "Grl".into(), 1, &["has no definition `Grl`", "did you mean `Girl`?"]),
        (
            &|measure| measure["group"][0]["stratifier"][0]["criteria"]["expression"] = "Nothing".into(),
            0,
            &["warning", "`Nothing` is always null: everybody is `unknown` by it"],
        ),
    ];
    for (change, expected, words) in cases {
        let (code, out) = twin(change);
        assert!(code == expected && words.iter().all(|words| out.contains(words)) && !out.contains("own:1:1\n"), "{words:?}: {code} {out}");
    }
}

const GUIDE: &str = "http://hl7.org/fhir/us/cqfmeasures/StructureDefinition/cqfm-";
const CORE: &str = "http://hl7.org/fhir/StructureDefinition/cqf-";

/// A ratio of visits by visits: what is `of` its two populations is counted.
fn ratio(change: impl Fn(&mut Vec<Value>)) -> (i32, String) {
    let population = |id: &str, code: &str| json!({ "id": id, "code": concept(code), "criteria": { "language": "text/cql.identifier", "expression": "Visits" } });
    let observation = |id: &str, of: &str| {
        json!({ "id": id, "code": concept("measure-observation"), "criteria": { "language": "text/cql.identifier", "expression": "One" },
            "extension": [{ "url": format!("{GUIDE}criteriaReference"), "valueString": of }, { "url": format!("{GUIDE}aggregateMethod"), "valueString": "Sum" }] })
    };
    let mut populations = vec![population("ip", "initial-population"), population("den", "denominator"), population("num", "numerator")];
    populations.extend([observation("of-den", "den"), observation("of-num", "num")]);
    change(&mut populations);
    let group = json!({ "id": "all", "population": populations, "extension": [{ "url": format!("{GUIDE}populationBasis"), "valueCode": "Encounter" }] });
    let mut measure = measure();
    (measure["scoring"], measure["group"]) = (concept("ratio"), json!([group]));
    let visits = "define \"Visits\": [Encounter]\ndefine function \"One\"(visit FHIR.Encounter): 1\n";
    checked(&[measure, library(&format!("{CQL}{visits}"))])
}

#[test]
fn a_published_group_has_what_its_scoring_needs_or_it_is_said_what_it_has_not() {
    let reference = |populations: &mut Vec<Value>, value: Value| populations[3]["extension"][0] = value;
    type Change<'c> = &'c dyn Fn(&mut Vec<Value>);
    let cases: [(Change<'_>, i32, &str); 14] = [
        (&|_| {}, 0, "1 measure is well formed"),
        (&|all| reference(all, json!({ "url": format!("{CORE}criteriaReference"), "valueString": "den" })), 0, "1 measure is well formed"),
        (&|all| reference(all, json!({ "url": format!("{GUIDE}criteriaReference"), "valueCode": "denominator" })), 0, "1 measure is well formed"),
        (&|all| reference(all, json!({ "url": format!("{GUIDE}criteriaReference"), "valueString": "dem" })), 1, "no population has the id `dem`"),
        (
            &|all| reference(all, json!({ "url": format!("{GUIDE}criteriaReference"), "valueString": "num" })),
            1,
            "two observations are of `num`: a ratio observes each population once",
        ),
        (
            &|all| reference(all, json!({ "url": format!("{GUIDE}criteriaReference"), "valueUri": "den" })),
            1,
            "its `cqfm-criteriaReference` names nothing; expected `valueString`",
        ),
        (&|all| reference(all, json!({ "url": "urn:other" })), 1, "an observation needs `cqfm-criteriaReference`: the id of the population"),
        (&|all| all[4]["extension"][1]["url"] = "http://x.example/aggregateMethod".into(), 1, "extension `http://x.example/aggregateMethod` is not read here; expected"),
        (&|all| drop(all[4]["extension"].as_array_mut().unwrap().pop()), 0, "observation `of-num` has no `cqfm-aggregateMethod`: its values are added"),
        (&|all| drop(all.remove(2)), 1, "a ratio needs the population `numerator`"),
        (
            &|all| all[0] = json!({ "id": "ip", "code": concept("measure-population"), "criteria": { "expression": "Visits" } }),
            1,
            "a ratio has no population `measure-population`",
        ),
        (&|all| all[1]["id"] = "num".into(), 1, "two populations have the id `num`"),
        (
            &|all| all.insert(0, json!({ "id": "ip2", "code": concept("initial-population"), "criteria": { "expression": "Visits" } })),
            1,
            "with two initial populations `den` must say which one it is of",
        ),
        (&|all| all[2]["code"] = json!({ "coding": [{ "system": "http://x.example", "code": "NUMER" }, { "code": "numerator" }] }), 0, "1 measure is well formed"),
    ];
    for (index, (change, code, words)) in cases.into_iter().enumerate() {
        let (found, out) = ratio(change);
        assert!(found == code && out.contains(words), "{index} {words}: {found} {out}");
        assert!(code == 0 || out.contains("`Measure.group[0]"), "{out}");
    }
}

#[test]
fn of_versions_of_a_library_the_greatest_counts_by_its_numbers_and_of_a_concept_the_code_that_is_known() {
    let of_version = |version: &str, gender: &str| {
        let mut library = library(&CQL.replace("'female'", gender).replace("version '1.0.0'", &format!("version '{version}'")));
        library["version"] = version.into();
        library
    };
    let mut local = measure();
    local["improvementNotation"]["coding"] = json!([{ "system": "http://x.example", "code": "better" }, { "code": "decrease" }]);
    for libraries in [[("1.9.0", "'other'"), ("1.10.0", "'male'")], [("1.10.0", "'male'"), ("1.9.0", "'other'")]] {
        let folder = laid(&[local.clone(), of_version(libraries[0].0, libraries[0].1), of_version(libraries[1].0, libraries[1].1)]);
        let (code, out) = watershed(folder.path(), &["evaluate", "--measure", "bundle.json", "--data", "drop", "--period", "2026"]);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|fault| panic!("{fault}: {out}"));
        assert_eq!((code, &report["group"][0]["population"][2]["count"]), (0, &json!(1)), "{report}");
        assert_eq!(report["improvementNotation"]["coding"][0]["code"], "decrease");
    }
    let mut unknown = measure();
    unknown["improvementNotation"] = concept("Decrease");
    let (code, out) = checked(&[unknown, library(CQL)]);
    assert!(code == 0 && out.contains("improvement notation `Decrease` is not known, so that no direction is told; expected increase or decrease"), "{out}");
}

#[test]
fn two_libraries_of_one_version_are_no_longer_one() {
    let (code, out) = checked(&[measure(), library(CQL), library(&CQL.replace("'female'", "'male'"))]);
    let message = "Library `http://x.example/Library/Own|1.0.0` is here twice with different logic";
    assert!(code == 1 && out.contains(message) && out.contains("take one of them away, or give them the versions that they are"), "{code} {out}");
    let (code, out) = checked(&[measure(), library(CQL), library(&CQL.replace('\n', "\r\n"))]);
    assert_eq!((code, out.as_str()), (0, "1 measure is well formed\n"), "layout is no logic");
}

#[test]
fn which_direction_is_better_is_not_made_up() {
    let mut silent = measure();
    silent.as_object_mut().unwrap().remove("improvementNotation");
    let absent = json!({ "extension": [{ "url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown" }] });
    for (measure, expected) in [(measure(), None), (silent, Some(absent))] {
        let folder = laid(&[measure, library(CQL)]);
        let (code, out) = watershed(folder.path(), &["evaluate", "--measure", "bundle.json", "--data", "drop", "--period", "2026"]);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|fault| panic!("{fault}: {out}"));
        assert_eq!((code, validate::check(&report)), (0, vec![]));
        let notation = &report["improvementNotation"];
        match expected {
            Some(absent) => assert_eq!(*notation, absent),
            None => assert_eq!(notation["coding"][0]["code"], "increase"),
        }
    }
}

/// A site at a folder, with these resources and these lines of configuration.
fn site_folder(resources: &[Value], more: &str) -> tempfile::TempDir {
    let folder = laid(resources);
    let (code, out) = watershed(folder.path(), &["key", "new", "key.pem"]);
    assert_eq!(code, 0, "{out}");
    let config = format!(
        "[site]\nid = 'north'\ntime_zone = 'America/New_York'\n[source]\nfolder = 'drop'\n[measures]\nfolders = ['bundle.json']\n{more}\n\
         [registry]\nurl = 'http://127.0.0.1:9'\nclient_id = 'north'\nkey_file = 'key.pem'\n"
    );
    std::fs::write(folder.path().join("site.toml"), config).unwrap();
    folder
}

/// The same with the measure, checked.
fn site(effective: Option<Value>, more: &str) -> (i32, String) {
    let mut measure = measure();
    effective.into_iter().for_each(|period| measure["effectivePeriod"] = period);
    let folder = site_folder(&[measure, library(CQL)], more);
    watershed(folder.path(), &["check", "--offline", "--config", "site.toml"])
}

#[test]
fn a_period_is_as_long_as_the_measure_says_or_the_site() {
    let effective = |start: &str, end: &str| Some(json!({ "start": start, "end": end }));
    for (period, more, expected, words) in [
        (effective("2026-01-01", "2026-12-31"), "", 0, "measure `own` is reported by the year, as its `effectivePeriod` says"),
        (effective("2026", "2026"), "", 0, "measure `own` is reported by the year, as its `effectivePeriod` says"),
        (effective("2026-04-01T00:00:00Z", "2026-06-30T23:59:59Z"), "", 0, "measure `own` is reported by the quarter, as its `effectivePeriod` says"),
        (effective("2026-02", "2026-02"), "", 0, "measure `own` is reported by the month, as its `effectivePeriod` says"),
        (None, "", 0, "measure `own` is reported by the month, as it has no `effectivePeriod`"),
        (effective("2026-01-01", "2026-12-31"), "[measures.periods]\nown = 'month'", 0, "measure `own` is reported by the month, as `measures.periods` says"),
        (effective("2026-01-01", "2026-12-31"), "months = 6", 1, "measure `own` is of years, and a night reports what was over within 6 months"),
        (effective("2025-07-01", "2026-06-30"), "", 3, "say it in the site.toml: under `[measures.periods]`"),
        (effective("2025-07-01", "2026-06-30"), "[measures.periods]\nown = 'year'", 0, "measure `own` is reported by the year, as `measures.periods` says"),
        (None, "[measures.periods]\nowm = 'year'", 3, "did you mean `own`?"),
    ] {
        let (code, out) = site(period, more);
        assert!(code == expected && out.contains(words), "{more} {words}: {code} {out}");
    }
}

/// What `measure check` says of a publication with this in its value set, which the logic uses or does not.
fn with_set(content: Value, is_used: bool) -> (i32, String) {
    let mut set = json!({ "resourceType": "ValueSet", "id": "drugs", "url": "http://x.example/ValueSet/drugs", "version": "1" });
    set.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
    let cql = CQL.replace("parameter", "valueset \"Drugs\": 'http://x.example/ValueSet/drugs'\nparameter");
    let cql = if is_used { cql.replace("Patient.gender.value = 'female'", "exists([MedicationRequest: \"Drugs\"])") } else { CQL.to_owned() };
    let (code, out) = checked(&[measure(), library(&cql), set]);
    (code, out.replace("\n│ ", " "))
}

#[test]
fn a_code_that_no_record_has_is_told_of_a_published_value_set_too() {
    let listed = |system: &str, code: &str| json!({ "expansion": { "contains": [{ "system": system, "code": code }] } });
    let rxnorm = "http://www.nlm.nih.gov/research/umls/rxnorm";
    let right = "did you mean `http://www.nlm.nih.gov/research/umls/rxnorm`?";
    for (set, words, help) in [
        (listed(&format!("{rxnorm}/"), "896188"), "`http://www.nlm.nih.gov/research/umls/rxnorm/` is not how FHIR names this code system", right),
        (listed("urn:oid:2.16.840.1.113883.6.88", "896188"), "`urn:oid:2.16.840.1.113883.6.88` is not how FHIR names this code system", right),
        (listed(rxnorm, "896188 "), "the code `896188 ` has blanks around it", "write `896188`"),
        (listed("http://hl7.org/fhir/sid/icd-10-cm", "D5700"), "the code `D5700` of ICD-10 has no point", "write `D57.00`"),
    ] {
        let (code, out) = with_set(set.clone(), true);
        let told = format!("warning: in value set `http://x.example/ValueSet/drugs`: {words}");
        assert!(code == 0 && out.contains(&told) && out.contains(help) && out.contains("bundle.json#ValueSet/drugs:"), "{code} {out}");
        assert_eq!(with_set(set, false), (0, "1 measure is well formed\n".to_owned()), "of one that nothing uses");
    }
    assert_eq!(with_set(listed(rxnorm, "896188"), true), (0, "1 measure is well formed\n".to_owned()));
}

#[test]
fn why_a_published_value_set_has_no_codes_is_told() {
    let included = |part: Value| json!({ "compose": { "include": [part] } });
    let filter = json!([{ "property": "concept", "op": "is-a", "value": "a" }]);
    for (set, words) in [
        (included(json!({ "system": "http://x.example/s", "filter": filter })), "describes its codes by a filter and has no expansion: expand it with"),
        (included(json!({ "valueSet": ["http://x.example/ValueSet/other"] })), "is made of other value sets and has no expansion: expand it with"),
        (included(json!({ "concept": [{ "code": "a" }] })), "has codes without a `system`"),
        (json!({ "expansion": { "contains": [{ "code": "a" }] } }), "has codes without a `system`"),
        (json!({}), "has no codes"),
    ] {
        let (code, out) = with_set(set.clone(), true);
        assert!(code == 1 && out.contains(&format!("error: value set `http://x.example/ValueSet/drugs` {words}")), "{code} {out}");
        assert!(out.contains("put its expansion into a `value-sets` folder") && out.contains("1 error"), "{out}");
        assert_eq!(with_set(set, false), (0, "1 measure is well formed\n".to_owned()), "of one that nothing uses");
    }
}

/// What `evaluate` counts in each population; or its words.
fn counted(resources: &[Value]) -> Result<Vec<u64>, String> {
    let folder = laid(resources);
    let (code, out) = watershed(folder.path(), &["evaluate", "--measure", "bundle.json", "--data", "drop", "--period", "2026"]);
    let report: Value = serde_json::from_str(&out).map_err(|_| format!("{code} {out}"))?;
    Ok(report["group"][0]["population"]
        .as_array()
        .unwrap()
        .iter()
        .map(|population| population["count"].as_u64().unwrap())
        .collect())
}

/// The measure with these criteria of its numerator, and this library.
fn with_criteria(language: &str, expression: &str, library: Value) -> Result<Vec<u64>, String> {
    let mut measure = measure();
    measure["group"][0]["population"][2]["criteria"] = json!({ "language": language, "expression": expression });
    counted(&[measure, library])
}

#[test]
fn criteria_may_be_expressions_of_cql() {
    for (language, expression) in [
        ("text/cql-expression", "Patient.gender.value = 'female'"),
        ("text/cql-expression", "\"Girl\" // those who are girls"),
        ("text/cql.expression", "Girl"),
        ("text/cql-name", "Girl"),
        ("text/cql", "Girl"),
        ("text/cql", "\"Girl\""),
        ("text/cql", "Girl and\nPatient.gender is not null"),
    ] {
        assert_eq!(with_criteria(language, expression, library(CQL)), Ok(vec![2, 2, 1]), "{language} {expression}");
    }
    for (language, expression, words) in [
        ("text/cql", "Grl", "has no definition `Grl`"),
        ("text/cql", "Grl", "did you mean `Girl`?"),
        ("text/cql-identifier", "Girl and Everyone", "has no definition `Girl and Everyone`"),
        ("text/cql-expression", "Patient.gendr.value = 'female'", "did you mean `gender`?"),
        ("text/cql-expression", "Girl) define \"Other\": (true", "[criteria of own:1:5]"),
        ("text/cql-expression", "'female'", "`'female'` gives String, a measure that counts `Patient` expects Boolean"),
        ("text/fhirpath", "gender = 'female'", "`Measure.group[0].population[2]`: criteria in `text/fhirpath` are not evaluated"),
        ("application/x-fhir-query", "Patient?gender=female", "criteria in `application/x-fhir-query` are not evaluated"),
    ] {
        let said = with_criteria(language, expression, library(CQL)).unwrap_err();
        assert!(said.starts_with('3') && said.replace("\n│ ", " ").contains(words), "{language} {expression}: {said}");
    }
}

#[test]
fn an_expression_needs_the_text_of_the_library() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("own.cql"), CQL).unwrap();
    let (code, elm) = watershed(folder.path(), &["cql", "elm", "own.cql"]);
    assert_eq!(code, 0, "{elm}");
    let mut library = library(CQL);
    library["content"] = json!([{ "contentType": "application/elm+json", "data": base64::engine::general_purpose::STANDARD.encode(&elm) }]);
    assert_eq!(with_criteria("text/cql-identifier", "Girl", library.clone()), Ok(vec![2, 2, 1]), "{elm}");
    let said = with_criteria("text/cql-expression", "Girl and Everyone", library).unwrap_err();
    assert!(said.contains("has no definition `Girl and Everyone`") && said.contains("an expression is read with the Library's CQL text"), "{said}");
}

#[test]
fn a_supplemental_datum_in_another_language_is_left_out() {
    let mut measure = measure();
    measure["supplementalData"] = json!([{ "id": "sde", "criteria": { "language": "text/fhirpath", "expression": "gender" } }]);
    let (code, out) = checked(&[measure, library(CQL)]);
    assert!(code == 0 && out.contains("warning: `Measure.supplementalData[0]`: criteria in `text/fhirpath` are not evaluated"), "{code} {out}");
}

#[test]
fn a_library_that_the_measure_contains_is_its_own() {
    let mut contained = library(CQL);
    contained.as_object_mut().unwrap().remove("url");
    contained["id"] = "main".into();
    let mut measure = measure();
    measure["contained"] = json!([{ "resourceType": "Library", "id": "effective-data-requirements", "name": "EffectiveDataRequirements" }, contained]);
    measure["library"] = json!(["#main"]);
    // Another one of that name beside the Measure is not meant.
    assert_eq!(counted(&[measure.clone(), library(&CQL.replace("'female'", "'other'"))]), Ok(vec![2, 2, 1]));
    measure["library"] = json!(["#mian"]);
    let said = counted(&[measure]).unwrap_err();
    assert!(said.contains("the Measure names `#mian`, and contains no Library of that id"), "{said}");
}

#[test]
fn warnings_of_measures_are_shown_by_who_is_asked_for_them_and_told_alike_once() {
    let mut measure = measure();
    let always_null = |id: &str| json!({ "id": id, "criteria": { "expression": "Nothing" } });
    measure["group"][0]["stratifier"] = json!([always_null("one"), { "id": "three", "criteria": { "expression": "Void" } }]);
    measure["group"].as_array_mut().unwrap().push(group("more"));
    measure["group"][1]["stratifier"] = json!([{ "id": "two", "criteria": { "expression": "None" } }]);
    let folder = site_folder(&[measure, library(&format!("{CQL}define \"None\": null as Integer\ndefine \"Void\": null as Code\n"))], "");
    let say = |arguments: &[&str]| watershed(folder.path(), arguments).1;
    let told = "is always null: everybody is `unknown` by it";
    for (asked, more) in [
        (&["check", "--offline"][..], "\n2 more like it: bundle.json#Measure/own:"),
        (&["evaluate", "--measure", "bundle.json", "--data", "drop", "--period", "2026"], "by it (3 times, first at bundle.json#Measure/own:"),
    ] {
        let said = say(asked);
        assert!(said.matches(told).count() == 1 && said.contains(more), "{said}");
    }
    let night = say(&["run", "--once"]);
    let line = "3 warnings of configuration, measures or mapping; `watershed check --offline --config site.toml` shows them";
    assert!(night.matches(line).count() == 1 && !night.contains("is always null"), "{night}");
    for other in [&["known"][..], &["status"], &["pull"], &["measure", "explain", "--config", "site.toml", "--patient", "a", "--period", "2026-01"]] {
        let said = say(other);
        assert!(!said.contains("is always null") && !said.contains("is reported by the"), "{other:?}: {said}");
    }
}

/// A Bundle with a measure of who has a condition of a value set, which it ships in this version with these codes.
fn shipped(id: &str, (version, codes): (&str, &[&str])) -> Value {
    let cql = "library Own version '1.0.0'
using FHIR version '4.0.1'
valueset \"Asthma\": 'http://x.example/ValueSet/asthma'
parameter \"Measurement Period\" Interval<DateTime>
context Patient
define \"Everyone\": true
define \"Girl\": exists [Condition: \"Asthma\"]
define \"Sex\": Patient.gender.value
";
    let mut measure = measure();
    (measure["id"], measure["url"]) = (id.into(), format!("http://x.example/Measure/{id}").into());
    let contains: Vec<Value> = codes.iter().map(|code| json!({ "system": "urn:x", "code": code })).collect();
    let set = json!({ "resourceType": "ValueSet", "id": "asthma", "url": "http://x.example/ValueSet/asthma", "version": version, "expansion": { "contains": contains } });
    let entries: Vec<Value> = [measure, library(cql), set].iter().map(|resource| json!({ "resource": resource })).collect();
    json!({ "resourceType": "Bundle", "type": "collection", "entry": entries })
}

/// As a registry holds each of them alone, what a site computes with both must be the same.
#[test]
fn measures_whose_publications_ship_other_codes_for_one_value_set_use_their_own() {
    // Of one version, and of two where none is named.
    for (first, second) in [(("1", &["mild", "worse"][..]), ("1", &["worse"][..])), (("2024", &["mild", "worse"]), ("2025", &["worse"]))] {
        let folder = laid(&[]);
        for (id, set) in [("first", first), ("second", second)] {
            std::fs::write(folder.path().join(format!("{id}.json")), shipped(id, set).to_string()).unwrap();
        }
        let condition = |id: &str, code: &str| {
            format!(
                "{}\n",
                json!({ "resourceType": "Condition", "id": id, "subject": { "reference": format!("Patient/{id}") }, "code": { "coding": [{ "system": "urn:x", "code": code }] } })
            )
        };
        std::fs::write(folder.path().join("drop/Condition.ndjson"), condition("a", "mild") + &condition("b", "worse")).unwrap();
        let reports = |measures: &[&str]| {
            let mut arguments = vec!["evaluate", "--data", "drop", "--timezone", "UTC", "--period", "2026"];
            measures.iter().for_each(|measure| arguments.extend(["--measure", measure]));
            let (code, out) = watershed(folder.path(), &arguments);
            assert_eq!(code, 0, "{out}");
            let lines = out.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str::<Value>(line).unwrap());
            let report = |report: Value| {
                let extensions = report["extension"].as_array().cloned().unwrap_or_default();
                let of_sets = extensions.into_iter().filter(|one| one.to_string().contains("value-set")).collect::<Vec<Value>>();
                (report["measure"].clone(), report["group"].clone(), of_sets)
            };
            lines.map(report).collect::<Vec<_>>()
        };
        let alone = [reports(&["first.json"]), reports(&["second.json"])].concat();
        let numerators: Vec<&Value> = alone.iter().map(|(_, groups, _)| &groups[0]["population"][2]["count"]).collect();
        assert_eq!(numerators, [2, 1]);
        assert!(alone.iter().all(|(.., sets)| !sets.is_empty()) && alone[0].2 != alone[1].2);
        assert_eq!(reports(&["first.json", "second.json"]), alone);
        let (_, said) = watershed(folder.path(), &["measure", "check", "first.json", "second.json"]);
        let words = "is here twice with different codes: 1 code in second.json#ValueSet/asthma, 2 codes in first.json#ValueSet/asthma, each of which counts for the measures that it stands beside";
        assert_eq!(said.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ").contains(words), first.0 == second.0, "{said}");
    }
}
