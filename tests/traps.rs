//! What a steward is told of measures that are well formed and do not mean what they say. What is said of comparisons in
//! CQL is beside `cql/trap.rs`.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use watershed::config::measures::{self, Folder};
use watershed::cql::{self, Libraries, Models};
use watershed::diagnostic::{Diagnostic, SourceFile};
use watershed::measure::{Choices, published};

/// A measure of the network with another text in one of its files.
fn changed(measure: &str, file: fn(&mut Folder) -> &mut Arc<SourceFile>, from: &str, to: &str) -> Folder {
    let mut folder = measures::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures").join(measure)).unwrap();
    let source = file(&mut folder);
    assert_eq!(source.text.matches(from).count(), 1, "{from}");
    *source = SourceFile::new(&source.name, source.text.replace(from, to));
    folder
}

/// Each finding as `severity file:line: message; help`.
fn words(found: &[Diagnostic]) -> Vec<String> {
    let one = |finding: &Diagnostic| {
        let at = finding.at.as_ref().map(|at| format!("{}:{}", at.source.name.rsplit('/').next().unwrap_or_default(), at.line()));
        format!("{} {}: {}; {}", finding.severity.word(), at.unwrap_or_default(), finding.message, finding.help.as_deref().unwrap_or_default())
    };
    found.iter().map(one).collect()
}

fn told(folder: Folder) -> Vec<String> {
    words(&measures::compile(&[folder], &[], &Choices::default()).1)
}

const REMISSION: &str = "ibd/remission";
const COLECTOMY: &str = "valueset \"Total Colectomy\": 'http://watershed.example/fhir/ValueSet/total-colectomy'";

fn cql(folder: &mut Folder) -> &mut Arc<SourceFile> {
    &mut folder.files.cql[0]
}

#[test]
fn of_two_versions_of_a_value_set_the_one_that_is_taken_is_told() {
    let with_another = |mut folder: Folder| {
        let set = folder.value_sets.iter().find(|set| set.name.ends_with("total-colectomy.yaml")).unwrap();
        let newer = SourceFile::new("total-colectomy-2.yaml", set.text.replace("version: 1.0.0", "version: 1.10.0"));
        folder.value_sets.push(newer);
        folder
    };
    let unpinned = measures::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures").join(REMISSION)).unwrap();
    assert_eq!(
        told(with_another(unpinned)),
        ["warning ibd-remission.cql:15: value set `http://watershed.example/fhir/ValueSet/total-colectomy` is here in the versions `1.0.0`, `1.10.0`, \
          and no version is named: `1.10.0` is taken; name one, as `version '1.10.0'` after the URL, or take the others away"]
    );
    let by_oid = "2.16.840.1.113762.1.4.9";
    let mut renamed = changed(REMISSION, cql, COLECTOMY, &format!("valueset \"Total Colectomy\": 'urn:oid:{by_oid}'"));
    let set = renamed.value_sets.iter_mut().find(|set| set.name.ends_with("total-colectomy.yaml")).unwrap();
    *set = SourceFile::new(
        &set.name,
        set.text
            .replace("http://watershed.example/fhir/ValueSet/total-colectomy", &format!("http://cts.nlm.nih.gov/fhir/ValueSet/{by_oid}")),
    );
    assert!(told(renamed)[0].ends_with(&format!("did you mean `http://cts.nlm.nih.gov/fhir/ValueSet/{by_oid}`?")));
    let pinned = changed(REMISSION, cql, COLECTOMY, &format!("{COLECTOMY} version '1.0.0'"));
    assert_eq!(told(with_another(pinned)), [""; 0]);
}

#[test]
fn of_a_version_that_is_not_here_those_that_are_here_are_told() {
    assert_eq!(
        told(changed(REMISSION, cql, COLECTOMY, &format!("{COLECTOMY} version '2.0.0'"))),
        ["error ibd-remission.cql:15: value set `http://watershed.example/fhir/ValueSet/total-colectomy|2.0.0` is missing, empty or not expanded; \
          it is here in version 1.0.0: name that one, or add the one that is meant"]
    );
    assert_eq!(
        told(changed(REMISSION, cql, "FHIRHelpers version '4.0.1'", "FHIRHelpers version '4.0.0'")),
        ["error ibd-remission.cql:7: no library `FHIRHelpers` of version `4.0.0`; it is here in version 4.0.1"]
    );
}

#[test]
fn a_ratio_observes_each_of_its_sides_once() {
    let both = |from: &str, to: &str| told(changed("hac/clabsi", |folder| &mut folder.files.definition, from, to));
    let message = |side: &str, line: u32| {
        [format!("error measure.yaml:{line}: two observations are of `{side}`: a ratio observes each population once; let one be `of: numerator` and the other `of: denominator`")]
    };
    assert_eq!(both("    of: numerator\n", "    of: denominator\n"), message("denominator", 50));
    assert_eq!(both("    of: denominator\n", "    of: numerator\n"), message("numerator", 50));
}

/// What is said of a Bundle whose Measure names a Library with this content.
fn library(content: &str) -> Vec<String> {
    let measure = r#"{"resourceType":"Measure","id":"m","library":["http://example.org/Library/L"]}"#;
    let library = format!(r#"{{"resourceType":"Library","id":"l","url":"http://example.org/Library/L","name":"L","content":[{content}]}}"#);
    let bundle = format!(r#"{{"resourceType":"Bundle","entry":[{{"resource":{measure}}},{{"resource":{library}}}]}}"#);
    words(&published::collect(&[SourceFile::new("b.json", bundle)]).1)
}

#[test]
fn what_is_wrong_with_the_content_of_a_library_is_told() {
    let unread = "error m:1: Library `http://example.org/Library/L`, which the Measure names, holds neither CQL nor ELM that can be read; \
                  its `content` needs `contentType` text/cql or application/elm+json, and `data`: the text as Base64";
    assert_eq!(
        library(r#"{"contentType":"text/cql","url":"http://example.org/l.cql"}"#),
        [
            "warning l:1: the text/cql content of Library `L` is not here: it has only `content.url`, which is not followed; \
             fetch what is there and write it into `content.data`, as Base64",
            unread
        ]
    );
    assert_eq!(
        library(r#"{"contentType":"text/cql","data":"%%%"}"#),
        ["error l:1: the text/cql content of Library `L` is not Base64 of UTF-8 text; write the text into `content.data` again, as Base64", unread]
    );
    assert_eq!(library(""), [unread]);
    assert_eq!(library(r#"{"contentType":"text/cql","data":"bGlicmFyeSBM"}"#), [""; 0]);
}

/// What is said of CQL that includes FHIRHelpers as `FH`.
fn cql_told(context: &str, body: &str) -> Vec<String> {
    let text = format!("library T\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1' called FH\ncontext {context}\ndefine A: {body}\n");
    words(&cql::compile(&[SourceFile::new("t.cql", text)], &Libraries::default(), &Models::default()).1)
}

#[test]
fn hints_name_what_is_here() {
    for body in ["FHIRHelpers.\"Done\"", "FHIRHelpers.ToString(Patient.gender)"] {
        assert_eq!(cql_told("Patient", body), ["error t.cql:5: nothing here is named `FHIRHelpers`; the library `FHIRHelpers` is called `FH` here: write `FH` in its place"]);
    }
    assert_eq!(
        cql_told("Patient", "Patient.gender = \"female\""),
        ["error t.cql:5: nothing here is named `female`; names stand in double quotes, text in single ones: `'female'`"]
    );
    assert_eq!(
        cql_told("Patient", "[Encounter] E where not E.class ~ E.class"),
        ["error t.cql:5: `not` does not go with (FHIR.Coding); `not` takes what stands next to it alone: put what it denies into parentheses, as `not (A ~ B)`"]
    );
    let of_all = |context: &str| {
        format!(
            "error t.cql:5: `A` is in the context {context}, where a retrieve finds the data of all patients; what is evaluated is one patient's data; write `context Patient` above it"
        )
    };
    assert_eq!(cql_told("Population", "[Encounter]"), [of_all("Population")]);
    assert_eq!(cql_told("Unfiltered", "[Encounter]"), [of_all("Unfiltered")]);
}

const STRATIFIED: &str = "id: seen\nurl: http://watershed.example/fhir/Measure/seen\nversion: 1.0.0\nstatus: draft\ntitle: Seen\ndescription: Seen\nsteward: A test\n\
     scoring: cohort\nimprovement: increase\npopulations:\n  - code: initial-population\n    define: Initial Population\n\
     stratifiers:\n  - id: age\n    define: Age Group\n    strata:\n      0-17: Children\n      18-65: Adults\n";
const AGES: &str = "library Seen version '1.0.0'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1'\nparameter \"Measurement Period\" Interval<DateTime>\n\
     context Patient\ndefine \"Initial Population\": exists [Patient]\ndefine \"Age Group\": if AgeInYearsAt(@2026-01-01) < 18 then '0-17' else '18-64'\n";
const ADULT: &str =
    "title: an adult\nresources:\n  - {resourceType: Patient, id: p, birthDate: \"1990-01-01\"}\nexpect:\n  - period: \"2026-01\"\n    populations: {initial-population: 1}\n";

#[test]
fn strata_under_other_names_than_the_measure_has_are_told() {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = scratch.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("seen/measure.yaml", STRATIFIED);
    write("seen/seen.cql", AGES);
    write("seen/cases/01-adult.yaml", ADULT);
    write("data/Patient.ndjson", "{\"resourceType\":\"Patient\",\"id\":\"p\",\"birthDate\":\"1990-01-01\"}\n");
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_watershed")).current_dir(scratch.path()).args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, said) = run(&["measure", "test", "seen"]);
    assert!(code == 0 && said.contains("warning: stratifier `age` gives `18-64`, which its `strata` do not name, and never"), "{said}");
    let evaluate = ["evaluate", "--measure", "seen", "--data", "data", "--period", "2026-01"];
    let (code, said) = run(&evaluate);
    let told = "warning: `seen`, 2026-01-01 to 2026-01-31: stratifier `age` gives 1 value that its `strata` do not name, and nobody is in `18-65`, which they name; let `strata` and the CQL say the same";
    assert!(code == 0 && said.contains(told), "{said}");
    write("seen/measure.yaml", &STRATIFIED.replace("18-65", "18-64"));
    for arguments in [&["measure", "test", "seen"][..], &evaluate] {
        assert!(!run(arguments).1.contains("do not name"));
    }
}
