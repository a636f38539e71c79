//! Small documents: what is read, and what is refused with its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::compile;
use super::json::NESTING_MAX;
use crate::cql::model::Models;
use crate::cql::typed::Kind;
use crate::cql::value::DateTime;
use crate::cql::{Environment, Session};
use crate::diagnostic::{SourceFile, render_human};
use crate::fhir::record::Record;
use crate::terminology::{ValueSets, read};

/// A library `T` with these defines and includes.
fn library(defines: &[(&str, Json)], includes: Json) -> Arc<SourceFile> {
    let rows: Vec<Json> = defines
        .iter()
        .map(|(name, body)| json!({ "name": name, "context": "Patient", "accessLevel": "Public", "locator": "3:1-4:9", "expression": body }))
        .collect();
    let document = json!({ "library": {
        "identifier": { "id": "T", "version": "1.0.0" },
        "usings": { "def": [{ "localIdentifier": "FHIR", "uri": "http://hl7.org/fhir", "version": "4.0.1" }] },
        "includes": { "def": includes },
        "valueSets": { "def": [{ "name": "Drugs", "id": "http://example.org/vs/drugs" }] },
        "statements": { "def": rows },
    } });
    SourceFile::new("t.json", document.to_string())
}

/// What is told about a define of this body.
fn told(body: Json) -> String {
    let (program, found) = compile(&library(&[("A", body)], json!([])), &[], &Models::default());
    assert_eq!(program.is_none(), crate::diagnostic::has_errors(&found));
    found.iter().map(|finding| finding.message.clone()).collect::<Vec<_>>().join("\n")
}

fn number(value: &str) -> Json {
    json!({ "type": "Literal", "valueType": "{urn:hl7-org:elm-types:r1}Integer", "value": value, "locator": "3:11" })
}

fn encounters() -> Json {
    json!({ "type": "Retrieve", "dataType": "{http://hl7.org/fhir}Encounter" })
}

fn over_encounters(clause: &str, inner: Json) -> Json {
    let mut query = json!({ "type": "Query", "source": [{ "alias": "E", "expression": encounters() }] });
    query[clause] = inner;
    query
}

#[test]
fn what_is_not_known_is_an_error_with_its_place() {
    let place = "library T 1.0.0, define `A`, at 3:1-4:9 of its CQL text";
    let table = [
        (json!({ "type": "Times" }), "node `Times` is not supported"),
        (json!({ "type": "Iteration" }), "`Iteration` of `$this`, which is nothing here"),
        (json!({ "type": "Subsumes", "operand": [] }), "node `Subsumes` is not supported"),
        (json!({ "operand": [] }), "an expression without `type`"),
        (json!({ "type": "Count", "source": encounters(), "path": "period" }), "`Count` with `path` is not supported"),
        (json!({ "type": "Retrieve", "dataType": "{http://hl7.org/fhir}Encounter", "dateSearch": "x" }), "`Retrieve` with `dateSearch` is not supported"),
        (
            json!({ "type": "Retrieve", "dataType": "{http://hl7.org/fhir}Encounter", "context": { "type": "Null" } }),
            "`Retrieve` with `context` asks for the data of somebody else: what is evaluated is one patient's record, which holds nobody else's",
        ),
        (json!({ "type": "Retrieve", "dataType": "{http://hl7.org/fhir}Encouter" }), "no type `{http://hl7.org/fhir}Encouter`; did you mean `Encounter`?"),
        (over_encounters("where", json!({ "type": "Property", "path": "statuss", "scope": "E" })), "`FHIR.Encounter` has no element `statuss`; did you mean `status`?"),
        (over_encounters("where", json!({ "type": "AliasRef", "name": "F" })), "`AliasRef` to `F`, which is nothing here"),
        (over_encounters("where", encounters()), "a condition of type `List<FHIR.Encounter>` instead of Boolean"),
        (
            over_encounters("relationship", json!([{ "type": "Beside", "alias": "F", "expression": encounters(), "suchThat": { "type": "Null" } }])),
            "relationship `Beside` of a query is not supported",
        ),
        (over_encounters("sort", json!({ "by": [{ "type": "ByMagic" }] })), "sort key `ByMagic` is not supported"),
        (json!({ "type": "ExpressionRef", "name": "B" }), "library `T` has no define `B`"),
        (json!({ "type": "ExpressionRef", "name": "A" }), "`A` is defined by way of itself"),
        (json!({ "type": "ExpressionRef", "name": "A", "libraryName": "Other" }), "no included library is called `Other` here"),
        (json!({ "type": "FunctionRef", "name": "F", "operand": [] }), "no function `F`"),
        (json!({ "type": "Exists", "operand": { "type": "Quantity", "value": 1 } }), "`Exists` does not go with (Quantity)"),
        (
            json!({ "type": "Literal", "valueType": "{urn:hl7-org:elm-types:r1}Integer", "value": "9999999999" }),
            "literal `9999999999` is no Integer that can be represented",
        ),
        (json!({ "type": "DurationBetween", "precision": "Fortnight", "operand": [{ "type": "Today" }, { "type": "Today" }] }), "precision `Fortnight` is not known"),
    ];
    let wrong: Vec<_> = table
        .into_iter()
        .map(|(body, expected)| (told(body), format!("{expected} ({place})")))
        .filter(|(told, expected)| told != expected)
        .collect();
    assert_eq!(wrong, []);
}

#[test]
fn a_fault_points_to_its_node_in_the_document() {
    let text = r#"{ "library": {
  "identifier": { "id": "T" },
  "usings": { "def": [
    { "localIdentifier": "FHIR", "uri": "http://hl7.org/fhir", "version": "3.0.1" }
  ] },
  "includes": { "def": [
    { "localIdentifier": "S", "path": "Shared" }
  ] },
  "codes": { "def": [
    { "name": "C", "id": "c", "codeSystem": { "name": "L" } }
  ] },
  "parameters": { "def": [
    { "name": "P", "parameterTypeSpecifier": { "type": "ListTypeSpecifier", "elementType": { "type": "NamedTypeSpecifier", "name": "Sting" } } }
  ] },
  "statements": { "def": [
    { "name": "A", "expression": {
      "type": "Add", "operand": [
        { "type": "Literal", "valueType": "Integer", "value": "1é" },
        { "type": "Quantity", "value": "many", "unit": "mg" }
      ] } },
    { "name": "B", "expression": { "type": "Now", "magic": [ 1 ] } }
  ] }
} }"#;
    let told = |text: &str| {
        let (_, found) = compile(&SourceFile::new("t.json", text), &[], &Models::default());
        let line = |finding: &crate::diagnostic::Diagnostic| {
            let at = finding.at.as_ref().expect("a place");
            format!("{at} {} <- {}", at.text(), finding.message.split(" (library").next().unwrap_or_default())
        };
        found.iter().map(line).collect::<Vec<_>>()
    };
    let expected = [
        r#"t.json:7:5 { "localIdentifier": "S", "path": "Shared" } <- no library `Shared`, which library `T` includes"#,
        r#"t.json:4:5 { "localIdentifier": "FHIR", "uri": "http://hl7.org/fhir", "version": "3.0.1" } <- no model `FHIR` of version `3.0.1`; FHIR 4.0.1 is known"#,
        r#"t.json:10:5 { "name": "C", "id": "c", "codeSystem": { "name": "L" } } <- library `T` has no code system `L`"#,
        r#"t.json:10:5 { "name": "C", "id": "c", "codeSystem": { "name": "L" } } <- code `C` has no code system"#,
        r#"t.json:13:92 { "type": "NamedTypeSpecifier", "name": "Sting" } <- no type `Sting`; did you mean `String`?"#,
        r#"t.json:18:9 { "type": "Literal", "valueType": "Integer", "value": "1é" } <- literal `1é` is no Integer that can be represented"#,
        r#"t.json:19:9 { "type": "Quantity", "value": "many", "unit": "mg" } <- a quantity without a decimal `value`"#,
        r#"t.json:21:60 [ 1 ] <- `Now` with `magic` is not supported"#,
    ];
    assert_eq!(told(text), expected);
    // After a byte order mark the places are the same: no character that anybody sees.
    let places = |lines: &[String]| lines.iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>();
    let marked = told(&format!("\u{feff}{text}"));
    assert_eq!(places(&marked)[1..], places(&told(text))[1..]);
}

/// Definitions of several kinds, without a fault.
fn sound() -> Vec<(&'static str, Json)> {
    let sum = json!({ "type": "Add", "operand": [number("1"), number("2")] });
    let status = json!({ "type": "Property", "path": "status.value", "scope": "E" });
    let finished = json!({ "type": "Equal", "operand": [status, { "type": "Literal", "valueType": "{urn:hl7-org:elm-types:r1}String", "value": "finished" }] });
    let sorted = json!({ "by": [{ "type": "ByExpression", "direction": "desc", "expression": { "type": "Property", "path": "start.value", "source": { "type": "IdentifierRef", "name": "period" } } }] });
    let choice = json!({ "type": "As", "operand": { "type": "Null" }, "asTypeSpecifier": { "type": [], "choice": [{ "type": "NamedTypeSpecifier", "name": "{urn:hl7-org:elm-types:r1}Date" }, { "type": "NamedTypeSpecifier", "name": "{http://hl7.org/fhir}Period" }] } });
    vec![
        ("A", sum),
        ("B", over_encounters("where", finished)),
        ("C", over_encounters("sort", sorted)),
        ("D", choice),
        (
            "E",
            json!({ "type": "Filter", "scope": "X", "source": encounters(), "condition": { "type": "Is", "isType": "{http://hl7.org/fhir}Encounter", "operand": { "type": "Current", "scope": "X" } } }),
        ),
    ]
}

#[test]
fn what_is_known_is_read() {
    let (program, found) = compile(&library(&sound(), json!([])), &[], &Models::default());
    assert_eq!(render_human(&found, false), "");
    let program = program.expect("a program");
    let types: Vec<String> = program.defines("T").iter().map(|(define, name)| format!("{name} {}", program.define_type(*define))).collect();
    assert_eq!(types, ["A Integer", "B List<FHIR.Encounter>", "C List<FHIR.Encounter>", "D Choice<Date, FHIR.Period>", "E List<FHIR.Encounter>"]);
}

#[test]
fn a_date_of_written_components_is_a_constant() {
    let point = |year: Json| json!({ "type": "DateTime", "year": year, "month": number("2"), "timezoneOffset": { "type": "Null" } });
    let unknown = json!({ "type": "Null" });
    let defines = [("A", point(number("2012"))), ("B", point(unknown)), ("C", json!({ "type": "Date", "year": number("2012"), "month": number("13") }))];
    let (program, found) = compile(&library(&defines, json!([])), &[], &Models::default());
    assert_eq!(render_human(&found, false), "");
    let program = program.expect("a program");
    let bodies = program.tree().defines.iter().filter(|define| define.name.len() == 1).map(|define| match &define.body.kind {
        Kind::Literal(value) => crate::cql::show::text(value, &Record::default()),
        Kind::Operator { operator, .. } => operator.name.to_owned(),
        _ => String::new(),
    });
    assert_eq!(bodies.collect::<Vec<_>>(), ["@2012-02T", "DateTime", "Date"]);
}

/// Definition `A` over these resources.
fn shown(body: Json, resources: &[Json]) -> String {
    let (program, found) = compile(&library(&[("A", body)], json!([])), &[], &Models::default());
    let program = program.unwrap_or_else(|| panic!("{}", render_human(&found, false)));
    let lines: Vec<String> = resources.iter().map(Json::to_string).collect();
    let (record, _) = Record::read(program.shape(), lines.iter().map(String::as_bytes));
    let set = r#"{"resourceType":"ValueSet","url":"http://example.org/vs/drugs","status":"active","expansion":{"timestamp":"2024-01-01","contains":[{"system":"s","code":"c"}]}}"#;
    let mut value_sets = ValueSets::new();
    value_sets.add(read::value_set(&SourceFile::new("drugs.json", set)).0.expect("a value set"));
    let zone = jiff::tz::TimeZone::UTC;
    let now = DateTime::from_timestamp("2026-03-01T06:30:00Z".parse().expect("an instant"), &zone);
    let environment = Environment { parameters: BTreeMap::new(), now, zone, value_sets: Arc::new(value_sets), units: Arc::default() };
    let value = Session::new(&program, &environment, &record).evaluate(program.define("T", "A").expect("a define"));
    crate::cql::show::text(&value.unwrap_or_else(|fault| panic!("{}", fault.message)), &record)
}

/// The translator writes two retrieves where a profile allows it and no element is named: one by `in`, one by `~`. Each means what it says.
#[test]
fn what_was_not_done_is_said_of_a_whole_value_set_where_the_retrieve_asks_for_it() {
    let not_done = json!([{ "url": "http://hl7.org/fhir/us/qicore/StructureDefinition/qicore-notDoneValueSet", "valueCanonical": "http://example.org/vs/drugs" }]);
    let drugs = [json!({ "extension": not_done }), json!({ "coding": [{ "system": "s", "code": "c" }] }), json!({ "text": "another" })];
    let request = |(id, drug): (usize, &Json)| json!({ "resourceType": "MedicationRequest", "id": id.to_string(), "doNotPerform": true, "medicationCodeableConcept": drug });
    let requests: Vec<Json> = drugs.iter().enumerate().map(request).collect();
    let found = |comparator: &str| {
        let codes = json!({ "type": "ValueSetRef", "name": "Drugs", "preserve": true });
        let retrieve = json!({
            "type": "Retrieve", "dataType": "{http://hl7.org/fhir}MedicationRequest", "codeProperty": "medication", "codeComparator": comparator, "codes": codes,
            "templateId": "http://hl7.org/fhir/us/qicore/StructureDefinition/qicore-medicationnotrequested",
        });
        shown(retrieve, &requests)
    };
    let ids = ["in", "~"]
        .map(found)
        .map(|text| requests.iter().filter(|one| text.contains(&one.to_string())).map(|one| one["id"].to_string()).collect::<String>());
    assert_eq!(ids, [r#""1""#, r#""0""#]);
}

/// What the reference translator makes of an interval where another point type is needed: an interval of its parts.
#[test]
fn the_parts_of_a_null_interval_make_a_null_interval() {
    let specifier = json!({ "type": "IntervalTypeSpecifier", "pointType": { "type": "NamedTypeSpecifier", "name": "{urn:hl7-org:elm-types:r1}Date" } });
    let part = |path: &str| json!({ "type": "Property", "path": path, "source": { "type": "As", "operand": { "type": "Null" }, "asTypeSpecifier": specifier } });
    let bound = |path: &str| json!({ "type": "ToDateTime", "operand": part(path) });
    let converted = json!({ "type": "Interval", "low": bound("low"), "lowClosedExpression": part("lowClosed"), "high": bound("high"), "highClosedExpression": part("highClosed") });
    assert_eq!(shown(converted, &[]), "null");
}

/// Every place of a document, as a JSON pointer.
fn places(json: &Json, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    match json {
        Json::Object(fields) => fields.iter().for_each(|(name, inner)| places(inner, &format!("{here}/{name}"), found)),
        Json::Array(items) => items.iter().enumerate().for_each(|(index, inner)| places(inner, &format!("{here}/{index}"), found)),
        _ => {}
    }
}

#[test]
fn no_damage_makes_it_panic() {
    let whole: Json = serde_json::from_str(&library(&sound(), json!([])).text).expect("JSON");
    let mut all = Vec::new();
    places(&whole, "", &mut all);
    let mut refused = 0;
    for place in &all {
        for damage in [Json::Null, json!("x"), json!([]), json!({})] {
            let mut broken = whole.clone();
            if let Some(spot) = broken.pointer_mut(place) {
                *spot = damage;
            }
            let (program, found) = compile(&SourceFile::new("broken.json", broken.to_string()), &[], &Models::default());
            assert_eq!(program.is_none(), crate::diagnostic::has_errors(&found), "{place}");
            refused += usize::from(program.is_none());
        }
    }
    assert!(refused > all.len(), "{refused} of {} damaged documents were refused", all.len() * 4);
}

#[test]
fn includes_are_found_by_name_namespace_and_version() {
    let shared = |version: &str| {
        let identifier = json!({ "id": "Shared", "system": "http://example.org/logic", "version": version });
        SourceFile::new("shared.json", json!({ "library": { "identifier": identifier } }).to_string())
    };
    let shared = [shared("1.0.0"), shared("2.0.0")];
    let told = |path: &str, version: &str| {
        let include = json!([{ "localIdentifier": "S", "path": path, "version": version }]);
        let (_, found) = compile(&library(&[], include), &shared, &Models::default());
        found
            .iter()
            .map(|finding| format!("{} / {}", finding.message, finding.help.clone().unwrap_or_default()))
            .collect::<String>()
    };
    assert_eq!(told("Shared", "1.0.0"), "");
    assert_eq!(told("http://example.org/logic/Shared", "2.0.0"), "");
    assert_eq!(told("Shared", "3.0.0"), "no library `Shared` of version `3.0.0`, which library `T` includes / it is here in version 1.0.0, 2.0.0");
    assert_eq!(told("Sharde", "1.0.0"), "no library `Sharde` of version `1.0.0`, which library `T` includes / did you mean `Shared`?");
}

#[test]
fn deep_documents_are_read_or_refused() {
    let nested = |depth: usize| {
        let (open, close) = (r#"{"type":"Not","operand":"#.repeat(depth), "}".repeat(depth));
        let head = r#"{"library":{"identifier":{"id":"T"},"statements":{"def":[{"name":"A","expression":"#;
        SourceFile::new("deep.json", format!(r#"{head}{open}{{"type":"Null"}}{close}}}]}}}}}}"#))
    };
    let (program, found) = compile(&nested(NESTING_MAX - 10), &[], &Models::default());
    assert!(program.is_some(), "{}", render_human(&found, false));
    drop(program);
    let (program, found) = compile(&nested(NESTING_MAX), &[], &Models::default());
    assert!(program.is_none() && found[0].message.starts_with("this ELM is nested deeper than"), "{}", render_human(&found, false));
}

#[test]
fn what_is_no_elm_says_so() {
    let told = |text: &str| compile(&SourceFile::new("x.json", text), &[], &Models::default()).1[0].message.clone();
    assert_eq!(told("{}"), "this JSON is not ELM: it has no `library`");
    assert_eq!(told(r#"{"library":{}}"#), "this ELM library has no `identifier.id`");
    assert!(told(r#"{"library":"#).starts_with("this is not JSON: "), "{}", told("{"));
}
