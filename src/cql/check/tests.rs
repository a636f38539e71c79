//! The mistakes that people make, with what they are told.

use crate::cql::{Libraries, Models, compile};
use crate::diagnostic::{SourceFile, render_human};

/// What a steward is told about the body of a define.
fn told(body: &str) -> String {
    let text = format!(
        "library Trial version '1.0.0'\n\
         using FHIR version '4.0.1'\n\
         include FHIRHelpers version '4.0.1' called FHIRHelpers\n\
         codesystem \"LOINC\": 'http://loinc.org'\n\
         valueset \"IBD\": 'http://example.org/ibd'\n\
         code \"Weight\": '29463-7' from \"LOINC\"\n\
         parameter \"Measurement Period\" Interval<DateTime>\n\
         context Patient\n\
         define \"Visits\": [Encounter]\n\
         define function \"Is Done\"(visit FHIR.Encounter): visit.status = 'finished'\n\
         {body}\n"
    );
    let (program, findings) = compile(&[SourceFile::new("trial.cql", text)], &Libraries::default(), &Models::default());
    assert_eq!(program.is_none(), crate::diagnostic::has_errors(&findings), "{body}");
    render_human(&findings, false)
}

/// The mistakes, one a row; each must be found, once, on the line where it is.
const MISTAKES: [&str; 26] = [
    "define A: exists \"Visit\"",
    "define A: [Encouter]",
    "define A: [Encounter: \"IDB\"]",
    "define A: \"Visits\" V where V.statuss = 'finished'",
    "define A: \"Visits\" V where V.period",
    "define A: \"Visits\" V where V.status = 3",
    "define A: 1 + 'a'",
    "define A: if 1 then 2 else 3",
    "define A: \"Is Done\"(3)",
    "define A: \"Is Donne\"(First(\"Visits\"))",
    "define A: Cuont(\"Visits\")",
    "define A: FHIRHelpers.ToConsept(\"Weight\")",
    "define A: 5 as String",
    "define A: First(\"Visits\").period during \"Measurment Period\"",
    "define A: B\ndefine B: A",
    "define A: 3000000000",
    "define A: @2012-02-30",
    "define A: Interval[1, 'b']",
    "define A: true and 3",
    "define A: not \"Visits\"",
    "define A: 1\ndefine A: 2",
    "define A: \"Visits\" V sort by perod",
    "define A: convert 'x' to Encountr",
    "define A: minimum Boolean",
    "parameter P Integr",
    "define A: case when true then 1 end",
];

#[test]
fn every_mistake_is_told_with_its_place_and_what_to_do() {
    let all: Vec<String> = MISTAKES.iter().map(|mistake| format!("### {mistake}\n{}", told(mistake))).collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn every_mistake_is_told_once() {
    for mistake in MISTAKES {
        let told = told(mistake);
        assert!(told.ends_with("1 error\n"), "{mistake}\n{told}");
    }
}

#[test]
fn all_mistakes_of_a_library_are_told_at_once() {
    let told = told("define A: \"Visit\"\ndefine B: 1 + 'a'\ndefine C: [Encouter]\ndefine D: A");
    assert!(told.ends_with("3 errors\n"), "{told}");
}

#[test]
fn a_type_that_doubles_with_every_definition_is_an_error_that_names_one() {
    let mut body = "define D0: 1\n".to_owned();
    for number in 1..60 {
        body.push_str(&format!("define D{number}: Tuple {{ a: D{}, b: D{} }}\n", number - 1, number - 1));
    }
    let told = told(&body);
    assert!(told.contains("the type of `D13` has more than 10000 parts"), "{told}");
    // What is built on the refused definition is no error of its own, until it has doubled as often.
    assert_eq!(told.matches("error:").count(), 4, "{told}");
}

#[test]
fn thousands_of_unknown_names_are_all_told() {
    let body: String = (0..3_000).map(|number| format!("define D{number}: \"Unknown name number {number}\"\n")).collect();
    let told = told(&body);
    assert!(told.contains("3000 errors"), "{}", told.lines().last().unwrap_or_default());
}
