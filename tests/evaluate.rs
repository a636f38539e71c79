//! CQL text over FHIR lines, end to end: compile, read by shape, evaluate.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use watershed::cql::interval::{Interval, Point};
use watershed::cql::value::{DateTime, Value};
use watershed::cql::{self, Environment, Libraries, Models, Program, Session};
use watershed::diagnostic::{SourceFile, render_human};
use watershed::fhir::record::{Record, Shape};
use watershed::terminology::ValueSets;
use watershed::terminology::read::value_set;

fn root(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn source(path: &Path) -> Arc<SourceFile> {
    SourceFile::new(path.display().to_string(), std::fs::read_to_string(path).unwrap())
}

fn compile(text: Arc<SourceFile>) -> Program {
    let mut libraries = Libraries::default();
    for entry in std::fs::read_dir(root("mappings/libraries")).unwrap() {
        libraries.add(&source(&entry.unwrap().path()));
    }
    let (program, diagnostics) = cql::compile(&[text], &libraries, &Models::default());
    program.unwrap_or_else(|| panic!("{}", render_human(&diagnostics, false)))
}

fn environment(month: (&str, &str)) -> Environment {
    let mut sets = ValueSets::new();
    for entry in std::fs::read_dir(root("mappings/value-sets")).unwrap() {
        let (set, diagnostics) = value_set(&source(&entry.unwrap().path()));
        sets.add(set.unwrap_or_else(|| panic!("{}", render_human(&diagnostics, false))));
    }
    let point = |text| Value::DateTime(DateTime::parse_cql(text).unwrap());
    let period = Interval { low: point(month.0), low_closed: true, high: point(month.1), high_closed: false, point: Some(Point::DateTime) };
    Environment {
        parameters: BTreeMap::from([("Measurement Period".to_owned(), Value::Interval(Arc::new(period)))]),
        now: DateTime::parse_fhir("2025-06-30T12:00:00Z").unwrap(),
        zone: jiff::tz::TimeZone::get("America/New_York").unwrap(),
        value_sets: Arc::new(sets),
        units: Arc::default(),
    }
}

const MAY: (&str, &str) = ("@2025-05-01T00:00:00.000", "@2025-06-01T00:00:00.000");

/// Evaluates all defines; a Boolean as itself, null, a list by its length, anything else by its type.
fn evaluate(program: &Program, library: &str, lines: &[&str], shape: &Shape) -> BTreeMap<String, String> {
    let environment = environment(MAY);
    let (record, bad) = Record::read(shape, lines.iter().map(|line| line.as_bytes()));
    assert_eq!(bad, []);
    let mut session = Session::new(program, &environment, &record);
    let words = |value: Value| match value {
        Value::Boolean(truth) => truth.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::String(text) => format!("'{text}'"),
        Value::List(items) => format!("{{{}}}", items.len()),
        other => other.type_name().to_owned(),
    };
    let defines = program.defines(library).into_iter();
    defines
        .map(|(id, name)| {
            let value = session.evaluate(id).unwrap_or_else(|error| panic!("{name}: {}", render_human(&[error.diagnostic()], false)));
            (name.to_owned(), words(value))
        })
        .collect()
}

/// With the program's own shape, with everything, and with the lines the other way round.
fn same_in_all_ways(program: &Program, library: &str, lines: &[&str]) -> BTreeMap<String, String> {
    let first = evaluate(program, library, lines, program.shape());
    assert_eq!(first, evaluate(program, library, lines, &Shape::everything()), "the shape loses something");
    let backwards: Vec<&str> = lines.iter().rev().copied().collect();
    assert_eq!(first, evaluate(program, library, &backwards, program.shape()), "the order of lines matters");
    first
}

#[track_caller]
fn expect(found: &BTreeMap<String, String>, expected: &[(&str, &str)]) {
    let found: Vec<(&str, &str)> = expected.iter().map(|(name, _)| (*name, found.get(*name).map_or("absent", String::as_str))).collect();
    assert_eq!(found, expected);
}

const IBD: [&str; 5] = [
    r#"{"resourceType":"Patient","id":"p","birthDate":"2010-03-01","gender":"female"}"#,
    r#"{"resourceType":"Condition","id":"c","subject":{"reference":"Patient/p"},"code":{"coding":[{"system":"http://hl7.org/fhir/sid/icd-10-cm","code":"K50.90"}]},"onsetDateTime":"2022-01"}"#,
    r#"{"resourceType":"Encounter","id":"e1","status":"finished","class":{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"AMB"},"serviceType":{"coding":[{"system":"http://snomed.info/sct","code":"394584008"}]},"period":{"start":"2025-02-10T09:00:00-05:00","end":"2025-02-10T10:00:00-05:00"}}"#,
    r#"{"resourceType":"Encounter","id":"e2","status":"finished","class":{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"AMB"},"serviceType":{"coding":[{"system":"http://snomed.info/sct","code":"394584008"}]},"period":{"start":"2025-05-20T09:00:00-04:00","end":"2025-05-20T10:00:00-04:00"}}"#,
    r#"{"resourceType":"Observation","id":"o","status":"final","code":{"coding":[{"system":"http://watershed.example/fhir/CodeSystem/ibd","code":"pga"}]},"encounter":{"reference":"Encounter/e2"},"effectiveDateTime":"2025-05-20T09:30:00-04:00","valueCodeableConcept":{"coding":[{"system":"http://watershed.example/fhir/CodeSystem/ibd","code":"quiescent"}]}}"#,
];

#[test]
fn remission_of_inflammatory_bowel_disease() {
    let program = compile(source(&root("mappings/measures/ibd/remission/ibd-remission.cql")));
    let found = same_in_all_ways(&program, "IBDRemission", &IBD);
    expect(&found, &[("Initial Population", "true"), ("Denominator Exclusion", "false"), ("Visits In Window", "{2}"), ("Numerator", "true")]);
    let without = same_in_all_ways(&program, "IBDRemission", &IBD[..4]);
    expect(&without, &[("Initial Population", "true"), ("Numerator", "false"), ("No Assessed Visit", "true")]);
}

#[test]
fn central_line_infections() {
    let program = compile(source(&root("mappings/measures/hac/clabsi/hac-clabsi.cql")));
    let lines = [
        IBD[0],
        r#"{"resourceType":"Encounter","id":"e1","status":"finished","class":{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"IMP"},"period":{"start":"2025-05-10T09:00:00-04:00","end":"2025-05-20T10:00:00-04:00"},"location":[{"location":{"reference":"Location/picu"},"period":{"start":"2025-05-10T09:00:00-04:00","end":"2025-05-20T10:00:00-04:00"}}]}"#,
        r#"{"resourceType":"Device","id":"d1","type":{"coding":[{"system":"http://snomed.info/sct","code":"52124006"}]}}"#,
        r#"{"resourceType":"DeviceUseStatement","id":"u1","status":"completed","device":{"reference":"Device/d1"},"timingPeriod":{"start":"2025-05-12T23:00:00-04:00","end":"2025-05-15T01:00:00-04:00"}}"#,
        r#"{"resourceType":"Observation","id":"o","status":"final","code":{"coding":[{"system":"http://watershed.example/fhir/CodeSystem/hac","code":"clabsi-determination"}]},"encounter":{"reference":"Encounter/e1"},"effectiveDateTime":"2025-05-14","valueCodeableConcept":{"coding":[{"system":"http://watershed.example/fhir/CodeSystem/hac","code":"clabsi"}]}}"#,
    ];
    let found = same_in_all_ways(&program, "HACCLABSI", &lines);
    expect(&found, &[("Inpatient Encounters", "{1}"), ("Central Lines", "{1}"), ("Initial Population", "{1}"), ("Numerator", "{1}"), ("Race", "'unknown'")]);
    let environment = environment(MAY);
    let (record, _) = Record::read(program.shape(), lines.iter().map(|line| line.as_bytes()));
    let mut session = Session::new(&program, &environment, &record);
    let population = session.evaluate(program.define("HACCLABSI", "Initial Population").unwrap()).unwrap();
    let Value::List(stays) = population else { panic!("a list expected") };
    let function = |wanted| program.functions("HACCLABSI").into_iter().find(|(_, name)| *name == wanted).unwrap().0;
    let mut observe = |name| session.call(function(name), stays[..1].to_vec()).unwrap();
    assert!(matches!(observe("Denominator Observation"), Value::Integer(4)));
    assert!(matches!(observe("Numerator Observation"), Value::Integer(1)));
}

#[test]
fn early_elective_delivery() {
    let program = compile(source(&root("mappings/measures/perinatal/early-elective-delivery/early-elective-delivery.cql")));
    let lines = [
        r#"{"resourceType":"Patient","id":"m","birthDate":"1995-03-01","gender":"female"}"#,
        r#"{"resourceType":"Encounter","id":"e1","status":"finished","class":{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"IMP"},"period":{"start":"2025-05-10T09:00:00-04:00","end":"2025-05-12T10:00:00-04:00"}}"#,
        r#"{"resourceType":"Observation","id":"d","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"93857-1"}]},"encounter":{"reference":"Encounter/e1"},"effectiveDateTime":"2025-05-10T20:00:00-04:00","valueDateTime":"2025-05-10T20:00:00-04:00"}"#,
        r#"{"resourceType":"Observation","id":"g","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"11884-4"}]},"encounter":{"reference":"Encounter/e1"},"effectiveDateTime":"2025-05-10T10:00:00-04:00","valueQuantity":{"value":265,"unit":"d","system":"http://unitsofmeasure.org","code":"d"}}"#,
        r#"{"resourceType":"Procedure","id":"i","status":"completed","code":{"coding":[{"system":"http://snomed.info/sct","code":"236958009"}]},"encounter":{"reference":"Encounter/e1"},"performedDateTime":"2025-05-10T10:30:00-04:00"}"#,
    ];
    let found = same_in_all_ways(&program, "EarlyElectiveDelivery", &lines);
    expect(&found, &[("Initial Population", "{1}"), ("Denominator", "{1}"), ("Denominator Exclusion", "{0}"), ("Numerator", "{1}")]);
}

/// Data larger than the memory asked for are read a part of the patients at a time; nothing of the report may show it.
#[test]
fn a_report_is_the_same_in_any_memory_and_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let watershed = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_watershed"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let path = data.to_str().unwrap();
    watershed(&["sandbox", "generate", "--profile", "lakeside", "--patients", "450", "--as-of", "2026-11-01", "--out", path]);
    let bytes: u64 = std::fs::read_dir(&data).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes > 8 << 20, "{bytes} bytes fit into 16 MiB at once");
    let composite = folder.path().join("composite");
    std::fs::create_dir(&composite).unwrap();
    std::fs::write(composite.join("measure.yaml"), crate::composite::WHOLE.replace("METHOD", "linear")).unwrap();
    let evaluate = |more: &[&str]| {
        let mut arguments = vec!["evaluate", "--data", path, "--period", "2026-01", "--report", "subject-list", "--measure", composite.to_str().unwrap()];
        arguments.extend(crate::composite::COMPONENTS.iter().chain(more));
        watershed(&arguments)
    };
    let whole = evaluate(&["--threads", "1"]);
    assert!(whole.len() > 2_000);
    assert_eq!(evaluate(&["--memory", "16MiB", "--threads", "2"]), whole);
}

/// A definition that doubles its work, its text or its list again and again is refused, neither run for ever nor given all memory.
#[test]
fn work_that_doubles_ends_with_an_error_that_names_it() {
    let doubling = |first: &str, next: &dyn Fn(usize) -> String| {
        let defines: String = (1..60).map(|step| format!("define D{step}: {}\n", next(step - 1))).collect();
        format!("library Doubling\ncontext Unfiltered\ndefine D0: {first}\n{defines}")
    };
    let texts = doubling("'ab'", &|before| format!("D{before} + D{before}"));
    let lists = doubling("{1}", &|before| format!("flatten {{D{before}, D{before}}}"));
    let functions: String = (1..60).map(|step| format!("define function F{step}(a Integer): F{0}(a) + F{0}(a)\n", step - 1)).collect();
    let functions = format!("library Doubling\ncontext Unfiltered\ndefine function F0(a Integer): a\n{functions}define D59: F59(1)\n");
    for (text, expected) in [(texts, "a text of more than"), (lists, "a list of more than"), (functions, "does the work double")] {
        let (program, found) = cql::compile(&[SourceFile::new("doubling.cql", text)], &Libraries::default(), &Models::default());
        let program = program.unwrap_or_else(|| panic!("{}", render_human(&found, false)));
        let (record, environment) = (Record::default(), environment(("2026-01-01", "2026-01-31")));
        let fault = Session::new(&program, &environment, &record).evaluate(program.define("Doubling", "D59").unwrap()).unwrap_err();
        assert!(fault.message.contains(expected), "{}", fault.message);
    }
}

/// FHIRPath's functions mean in CQL what they mean in FHIRPath, over fields that the plan must have kept.
#[test]
fn fhirpath_methods_are_part_of_cql() {
    let text = "library T\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1'\ncontext Patient\n\
        define Usual: Patient.name.where(use = 'usual').select(given.first().value).first()\n\
        define Nested: Patient.name.exists($this.given.exists(substring(0, 1) = 'J'))\n\
        define All: Patient.name.all(family.value.length() > 3)\n\
        define None: Patient.name.where(use = 'old').empty()\n\
        define Sum: ({1, 2, 3}).aggregate($this + $total, 10)\n\
        define Typed: Patient.telecom.ofType(FHIR.ContactPoint).count()\n\
        define Joined: Patient.name.select(given).select($this.value).join(' ')\n\
        define Chosen: iif(Patient.active.value.not(), 'no', 'yes')\n";
    let program = compile(SourceFile::new("t.cql", text));
    let patient = r#"{"resourceType":"Patient","id":"p","active":true,"telecom":[{"value":"1"}],"name":[
        {"use":"official","family":"Chalmers","given":["Peter","James"]},{"use":"usual","family":"Lee","given":["Jim"]}]}"#;
    let found = evaluate(&program, "T", &[&patient.replace('\n', "")], program.shape());
    let wanted = [("Usual", "'Jim'"), ("Nested", "true"), ("All", "false"), ("None", "true"), ("Sum", "16"), ("Typed", "1"), ("Joined", "'Peter James Jim'"), ("Chosen", "'yes'")];
    for (name, value) in wanted {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
    }
    let lists = "library T\ndefine A: 1 in (1 | 2)\n";
    let asked = |libraries: Libraries| cql::compile(&[SourceFile::new("t.cql", lists)], &libraries, &Models::default()).0.is_some();
    assert!(asked(Libraries::default().with_singletons()) && !asked(Libraries::default()), "list promotion has to be asked for");
}

/// Methods and aggregates in one another take work in proportion to the text, not twice as much for each level.
#[test]
fn nested_methods_do_not_double_the_work() {
    let libraries = || Libraries::default().with_singletons();
    let chain = format!("library T\ndefine A: ({{1, 2}}){}\n", ".isDistinct()".repeat(60));
    let (program, found) = cql::compile(&[SourceFile::new("t.cql", chain)], &libraries(), &Models::default());
    let program = program.unwrap_or_else(|| panic!("{}", render_human(&found, false)));
    let (record, environment) = (Record::default(), environment(MAY));
    let value = Session::new(&program, &environment, &record).evaluate(program.define("T", "A").unwrap()).unwrap();
    assert_eq!(value.truth(), Some(true));
    let nested = (0..40).fold("1.5".to_owned(), |inner, level| format!("(({{1}}) X{level} aggregate R{level} starting 0: R{level} + {inner})"));
    let (program, found) = cql::compile(&[SourceFile::new("t.cql", format!("library T\ndefine A: {nested}\n"))], &libraries(), &Models::default());
    assert!(program.is_none() && render_human(&found, false).contains("among so many"), "{}", render_human(&found, false));
}

/// What `watershed evaluate` says of data: exit code, stderr, status of completeness, its gaps and what was set aside.
fn told(lines: &[&str]) -> (i32, String, serde_json::Value) {
    let folder = tempfile::tempdir().unwrap();
    let logic = "define \"Initial Population\": Patient.birthDate before @2020-01-01 and (singleton from [Encounter]) is not null\n";
    lay(folder.path(), "", logic, lines);
    let (code, err, report) = evaluated(folder.path(), &[]);
    (code, err, completeness(&report))
}

/// A measure that counts the patients of whom this holds, and data.
fn lay(folder: &Path, declared: &str, logic: &str, lines: &[&str]) {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    std::fs::create_dir(folder.join("one")).unwrap();
    write(
        "one/measure.yaml",
        "id: one\nurl: http://watershed.example/fhir/Measure/one\nversion: 1.0.0\nstatus: draft\ntitle: One\ndescription: One stay\nsteward: A test\n\
         scoring: cohort\nimprovement: increase\npopulations:\n  - code: initial-population\n    define: Initial Population\n",
    );
    write(
        "one/one.cql",
        &format!(
            "library One version '1.0.0'\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1' called FHIRHelpers\n\
         {declared}parameter \"Measurement Period\" Interval<DateTime>\ncontext Patient\n{logic}"
        ),
    );
    write("all.ndjson", &lines.iter().map(|line| format!("{line}\n")).collect::<String>());
}

/// Exit code, stderr and the first report.
fn evaluated(folder: &Path, more: &[&str]) -> (i32, String, serde_json::Value) {
    let arguments = [&["evaluate", "--measure", "one", "--data", "all.ndjson", "--period", "2026-02", "--incomplete-valuesets", "warn"], more].concat();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_watershed")).current_dir(folder).args(arguments).output().unwrap();
    let first = output.stdout.split(|byte| *byte == b'\n').next().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), err.clone(), serde_json::from_slice(first).unwrap_or_else(|_| panic!("{err}")))
}

fn completeness(report: &serde_json::Value) -> serde_json::Value {
    let extensions = report["extension"].as_array().unwrap();
    extensions.iter().find(|extension| extension["url"].as_str().unwrap().ends_with("/completeness")).unwrap()["extension"].clone()
}

#[test]
fn reports_of_data_that_are_not_whole_are_partial_and_stderr_says_why_and_where() {
    const BORN: &str = r#"{"resourceType":"Patient","id":"p2","birthDate":"2011-01-01"}"#;
    let visit = |id: &str, patient: &str| format!(r#"{{"resourceType":"Encounter","id":"{id}","subject":{{"reference":"Patient/{patient}"}}}}"#);
    let (first, second) = (visit("e1", "p2"), visit("e2", "p2"));
    let status = |completeness: &serde_json::Value| completeness[0]["valueCode"].as_str().unwrap().to_owned();
    let (code, err, completeness) = told(&[BORN, &first]);
    assert_eq!((code, err.as_str(), status(&completeness).as_str()), (0, "", "complete"));

    let (code, err, completeness) = told(&[BORN, &first, &second]);
    assert_eq!((code, status(&completeness).as_str()), (1, "partial"), "{err}");
    assert!(err.contains("error: 1 evaluation failed: one/one.cql:6:72: `singleton from` found 2 elements"), "{err}");

    let odd = [
        r#"{"resourceType":"Patient","id":"p1","birthDate":"2010-02-31"}"#,
        &visit("e3", "ghost"),
        r#"{"resourceType":"Patient","id":"p3","birthDate":"2012-01-01","gender":"male"}"#,
        r#"{"resourceType":"Patient","id":"p3","birthDate":"2013-01-01","gender":"female"}"#,
        r#"{"resourceType":"Patient","id":"p4","meta":{"lastUpdated":"2026-01-01T00:00:00Z"},"birthDate":"2013-01-01","active":false}"#,
        r#"{"resourceType":"Patient","id":"p4","meta":{"lastUpdated":"2026-01-02T00:00:00Z"},"birthDate":"2013-01-01","active":true}"#,
    ];
    let (code, err, completeness) = told(&odd);
    assert_eq!(code, 1, "partial reports are a finding, whatever the cause: {err}");
    let expected = [
        "warning: all.ndjson:3: another Patient has the same id, and it cannot be told that this is the same person at an earlier time; set aside",
        "warning: all.ndjson:2: it names a Patient who is not in the data; the reports are partial",
        "warning: `Patient.birthDate` of 1 patient cannot be read, first at all.ndjson:1; what it says is not known, and reports that ask for it are partial",
    ];
    assert_eq!(err.lines().collect::<Vec<_>>(), expected);
    let counted = serde_json::json!([
        {"url": "status", "valueCode": "partial"}, {"url": "quarantined", "valueInteger": 1},
        {"url": "gap", "extension": [{"url": "type", "valueCode": "Patient"}, {"url": "count", "valueInteger": 1}]},
        {"url": "unreadable", "extension": [{"url": "element", "valueString": "Patient.birthDate"}, {"url": "patients", "valueInteger": 1}]},
    ]);
    assert_eq!(completeness, counted);

    let (code, err, completeness) = told(&[BORN, &first.replace("\"Encounter\"", "\"Encouter\"")]);
    assert_eq!((code, status(&completeness).as_str()), (1, "partial"));
    assert!(err.contains("all.ndjson:2: FHIR has no such resourceType, and it is nearly one that the measures need; set aside"), "{err}");
    let (code, err, completeness) = told(&[BORN, &first.replace("\"Encounter\"", "\"Visit\"")]);
    assert_eq!((code, status(&completeness).as_str()), (1, "partial"));
    assert!(err.contains("all.ndjson:2: FHIR has no such resourceType; set aside"), "{err}");

    let (code, err, completeness) = told(&[]);
    assert_eq!((code, status(&completeness).as_str()), (1, "partial"));
    assert!(err.starts_with("warning: all.ndjson: it is empty\nwarning: there is no Patient in the data"), "{err}");
    let many: Vec<String> = (0..30).map(|number| visit(&format!("e{number}"), &format!("ghost{number}"))).collect();
    let (_, err, _) = told(&many.iter().map(String::as_str).chain([BORN]).collect::<Vec<_>>());
    assert!(err.lines().count() == 21 && err.ends_with("warning: 10 more patients are named and not there\n"), "{err}");
}

/// As a night has it (R4, section 2.3.0.2), wherever the Patients stand.
#[test]
fn who_is_named_by_an_identifier_is_found_where_exactly_one_has_it() {
    let patient = |id: &str, mrn: &str| format!(r#"{{"resourceType":"Patient","id":"{id}","birthDate":"2011-01-01","identifier":[{{"system":"http://h/mrn","value":"{mrn}"}}]}}"#);
    let visit = |id: &str, subject: &str| format!(r#"{{"resourceType":"Encounter","id":"{id}","subject":{subject}}}"#);
    let by = |system: &str, value: &str| format!(r#"{{"identifier":{{"system":"{system}","value":"{value}"}}}}"#);
    let lines = [
        visit("e1", &by("http://h/mrn", "001")),
        visit("e2", &by("http://h/mrn", "002")),
        visit("e3", &by("http://h/mrn", "003")),
        visit("e4", r#"{"identifier":{"value":"001"}}"#),
        visit("e5", r##"{"reference":"#p"}"##),
        visit("e6", r#"{"display":"somebody"}"#),
        patient("p1", "001"),
        patient("p2", "002"),
        patient("p3", "002"),
    ];
    let reasons = [
        "its patient is named by an identifier that several patients here have: let the source write `Patient/id`",
        "its patient is named by an identifier that no patient here has: let the source write `Patient/id`, or send the patient with it",
        "its patient is named by an identifier without a system or a value: let the source write `Patient/id`",
        "its patient is named by a contained resource, which bears no id: let the source write `Patient/id`",
        "it names no patient",
    ];
    for is_backwards in [false, true] {
        let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut expected: Vec<(usize, &str)> = (2..).zip(reasons).collect();
        if is_backwards {
            lines.reverse();
            expected = expected.into_iter().map(|(line, reason)| (10 - line, reason)).rev().collect();
        }
        let folder = tempfile::tempdir().unwrap();
        lay(folder.path(), "", "define \"Initial Population\": exists ([Encounter] E where E.subject.reference = 'Patient/p1')\n", &lines);
        let (code, err, report) = evaluated(folder.path(), &[]);
        let expected: Vec<String> = expected.into_iter().map(|(line, reason)| format!("warning: all.ndjson:{line}: {reason}; set aside")).collect();
        assert_eq!((code, err.lines().collect::<Vec<_>>()), (1, expected.iter().map(String::as_str).collect()));
        assert_eq!(report["group"][0]["population"][0]["count"], 1, "{report}");
        let explain = ["measure", "explain", "one", "--data", "all.ndjson", "--patient", "p1", "--period", "2026-02"];
        let explained = std::process::Command::new(env!("CARGO_BIN_EXE_watershed")).current_dir(folder.path()).args(explain).output().unwrap();
        let explained = String::from_utf8(explained.stdout).unwrap();
        assert!(explained.contains("initial-population (group-1): in"), "{explained}");
    }
}

/// Published libraries take as an id what follows the last slash.
#[test]
fn a_reference_to_a_version_is_one_to_its_resource() {
    let logic = "define \"Initial Population\": exists ([Encounter] E with [Condition] C such that Last(Split(C.encounter.reference, '/')) = E.id)\n";
    for version in ["", "/_history/3"] {
        let folder = tempfile::tempdir().unwrap();
        let condition =
            format!(r#"{{"resourceType":"Condition","id":"c","subject":{{"reference":"Patient/p{version}"}},"encounter":{{"reference":"http://h/fhir/Encounter/7{version}"}}}}"#);
        let lines = [r#"{"resourceType":"Patient","id":"p"}"#, r#"{"resourceType":"Encounter","id":"7","subject":{"reference":"Patient/p"}}"#, &condition];
        lay(folder.path(), "", logic, &lines);
        let (code, err, report) = evaluated(folder.path(), &[]);
        assert_eq!((code, report["group"][0]["population"][0]["count"].as_u64()), (0, Some(1)), "`{version}` {err}");
    }
}

/// A night quarantines the same: whoever does not understand a modifier must not use what it stands in.
#[test]
fn what_a_modifier_may_turn_round_is_left_out_and_counted() {
    const BORN: &str = r#"{"resourceType":"Patient","id":"p2","birthDate":"2011-01-01"}"#;
    let visit = |modifier: &str| format!(r#"{{"resourceType":"Encounter","id":"e","subject":{{"reference":"Patient/p2"}}{modifier}}}"#);
    let not_to_be_done = "http://hl7.org/fhir/us/qicore/StructureDefinition/qicore-doNotPerform";
    for (modifier, is_left_out) in [
        (r#","modifierExtension" : [{"url":"https://vendor.example/refuted","valueBoolean":true}]"#.to_owned(), true),
        (r#","hospitalization":{"modifierExtension":[{"url":"https://vendor.example/refuted"}]}"#.to_owned(), true),
        (format!(r#","hospitalization":{{"modifierExtension":[{{"url":"{not_to_be_done}","valueBoolean":true}}]}}"#), true),
        // The models of measures tell what was not done.
        (format!(r#","modifierExtension":[{{"url":"{not_to_be_done}","valueBoolean":true}}]"#), false),
        (format!(r#","modifierExtension":[{{"url":"{not_to_be_done}","valueBoolean":false}}]"#), false),
        (r#","text":{"div":"\"modifierExtension\":[{}]"}"#.to_owned(), false),
    ] {
        let (code, err, completeness) = told(&[BORN, &visit(&modifier)]);
        let expected = ["", "warning: all.ndjson:2: a modifier that is not known here; set aside\n"][usize::from(is_left_out)];
        assert_eq!((code, err.as_str()), (i32::from(is_left_out), expected), "{modifier}");
        let quarantined = completeness.as_array().unwrap().iter().find(|extension| extension["url"] == "quarantined");
        assert_eq!(quarantined.is_some_and(|extension| extension["valueInteger"] == 1), is_left_out, "{completeness}");
    }
}

/// An end that nobody can read, or that is before the start, is not "until today", a start not "since ever", and text neither a number
/// nor a Boolean; the report says so.
#[test]
fn values_that_are_none_of_their_type_count_as_absent_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let visit = |id: &str, period: &str| format!(r#"{{"resourceType":"Encounter","id":"{id}","subject":{{"reference":"Patient/{id}"}},"period":{{{period}}}}}"#);
    let person = |id: &str, active: &str| format!(r#"{{"resourceType":"Patient","id":"{id}","active":{active}}}"#);
    let weight =
        |value: &str| format!(r#"{{"resourceType":"Observation","id":"w{}","subject":{{"reference":"Patient/a"}},"valueQuantity":{{"value":{value},"unit":"kg"}}}}"#, value.len());
    let lines = [
        person("a", "true"),
        visit("a", r#""start":"2026-02-10T08:00:00Z""#),
        weight("\"12.5\""),
        weight("\"xyz\""),
        person("b", "\"true\""),
        visit("b", r#""start":"2025-01-28 18:12","end":"2025-02-01""#),
        person("c", "\"yes\""),
        visit("c", r#""start":"2025-01-28","end":"01/02/2025""#),
        person("d", "true"),
        visit("d", r#""start":"2025-01-28 18:12""#),
        person("e", "true"),
        visit("e", r#""start":"2026-02-10T08:00:00Z","end":"2026-02-09""#),
    ];
    let logic = "define \"Initial Population\": Patient.active and exists ([Encounter] Stay where Stay.period overlaps \"Measurement Period\")\n\
                 and not exists ([Observation] Weight where (Weight.value as FHIR.Quantity) > 50 'kg')\n";
    lay(folder.path(), "", logic, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let (code, err, report) = evaluated(folder.path(), &[]);
    let expected =
        [("Encounter.period", 1, 12), ("Encounter.period.end", 1, 8), ("Encounter.period.start", 2, 6), ("Observation.valueQuantity.value", 1, 3), ("Patient.active", 2, 5)];
    let said = expected.map(|(element, patients, line)| {
        let patients = if patients == 1 { "1 patient".to_owned() } else { format!("{patients} patients") };
        format!("warning: `{element}` of {patients} cannot be read, first at all.ndjson:{line}; what it says is not known, and reports that ask for it are partial")
    });
    assert_eq!((code, err.lines().collect::<Vec<_>>()), (1, said.iter().map(String::as_str).collect()));
    assert_eq!(report["group"][0]["population"][0]["count"], 1, "only who is there: {report}");
    let told = expected.map(
        |(element, patients, _)| serde_json::json!({"url": "unreadable", "extension": [{"url": "element", "valueString": element}, {"url": "patients", "valueInteger": patients}]}),
    );
    let completeness_of = |report: &serde_json::Value| completeness(report).as_array().unwrap().clone();
    assert_eq!((&completeness_of(&report)[0]["valueCode"], &completeness_of(&report)[2..]), (&serde_json::json!("partial"), &told[..]));
    for value in ["18:12", "01/02", "xyz", "yes"] {
        assert!(!err.contains(value) && !report.to_string().contains(value), "no value is told");
    }
    let (_, _, own) = evaluated(folder.path(), &["--report", "individual"]);
    assert_eq!(own["subject"]["reference"], "Patient/a");
    assert_eq!((&completeness_of(&own)[0]["valueCode"], &completeness_of(&own)[2..]), (&serde_json::json!("partial"), &told[3..4]), "of this patient");
}

/// Codes that an expansion does not hold find nobody: said before and in the report. Its pages are one set.
#[test]
fn an_expansion_that_is_a_part_is_named_with_its_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let condition = |id: &str, code: &str| {
        format!(r#"{{"resourceType":"Condition","id":"{id}","subject":{{"reference":"Patient/{id}"}},"code":{{"coding":[{{"system":"http://example.org","code":"{code}"}}]}}}}"#)
    };
    let lines = [r#"{"resourceType":"Patient","id":"a"}"#, &condition("a", "a"), r#"{"resourceType":"Patient","id":"c"}"#, &condition("c", "c")];
    let declared = "valueset \"Wanted\": 'http://example.org/ValueSet/wanted'\n";
    lay(folder.path(), declared, "define \"Initial Population\": exists [Condition: \"Wanted\"]\n", &lines);
    let sets = folder.path().join("one/value-sets");
    std::fs::create_dir(&sets).unwrap();
    let page = |name: &str, head: &str, codes: &[&str]| {
        let codes: Vec<String> = codes.iter().map(|code| format!(r#"{{"system":"http://example.org","code":"{code}"}}"#)).collect();
        let text = format!(r#"{{"resourceType":"ValueSet","url":"http://example.org/ValueSet/wanted","version":"7","expansion":{{{head}"contains":[{}]}}}}"#, codes.join(","));
        std::fs::write(sets.join(name), text).unwrap();
    };
    // As it is said, not as it is broken into lines.
    let flat = |text: &str| text.split_whitespace().filter(|word| *word != "│").collect::<String>();
    let counted = |report: &serde_json::Value| report["group"][0]["population"][0]["count"].clone();
    let check = || {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_watershed"))
            .current_dir(folder.path())
            .args(["measure", "check", "one"])
            .output()
            .unwrap();
        flat(&String::from_utf8(output.stdout).unwrap())
    };
    page("1.json", r#""total":3,"#, &["a", "b"]);
    let (code, err, report) = evaluated(folder.path(), &[]);
    let words = "warning: value set `http://example.org/ValueSet/wanted|7` holds 2 of 3 codes: who has one of the others is not found";
    let err = flat(&err);
    assert!(err.contains(&flat(words)) && err.contains("one/one.cql:4:") && err.contains(&flat("keep every page beside this one")), "{err}");
    assert!(check().contains(&flat(words)), "{}", check());
    let short = serde_json::json!({"url": "incomplete-value-set", "extension": [
        {"url": "canonical", "valueCanonical": "http://example.org/ValueSet/wanted|7"}, {"url": "held", "valueInteger": 2}, {"url": "total", "valueInteger": 3},
    ]});
    let told = completeness(&report);
    assert_eq!((code, counted(&report), &told[0]["valueCode"], &told[2]), (1, 1.into(), &"partial".into(), &short));

    page("2.json", r#""offset":2,"total":3,"#, &["c"]);
    let (_, err, report) = evaluated(folder.path(), &[]);
    assert_eq!((err.as_str(), counted(&report), completeness(&report)[0]["valueCode"].clone()), ("", 2.into(), "complete".into()));

    page("3.json", "", &["a"]);
    let (_, err, _) = evaluated(folder.path(), &[]);
    let words = "warning: value set `http://example.org/ValueSet/wanted|7` is here twice with different codes: 3 codes in one/value-sets/1.json, 1 code in one/value-sets/3.json, which counts";
    assert!(flat(&err).contains(&flat(words)), "{err}");
    page("3.json", "", &["c", "b", "a"]);
    assert_eq!(evaluated(folder.path(), &[]).1, "", "the same codes are no contradiction");
    std::fs::remove_dir_all(&sets).unwrap();
    let (_, err, report) = evaluated(folder.path(), &[]);
    assert!(flat(&err).contains(&flat("is missing, empty or not expanded")) && completeness(&report)[0]["valueCode"] == "partial", "{err}");
}
