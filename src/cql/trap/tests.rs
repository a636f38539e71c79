//! Each trap with what is said of it, and beside it what is right and of which nothing is said.

use crate::cql::typed::LibraryId;
use crate::cql::{Libraries, Models, Program, compile, elm};
use crate::diagnostic::{Diagnostic, SourceFile};

/// A library with a definition, compiled, and what is said of it.
fn trial(definition: &str) -> (Program, Vec<Diagnostic>) {
    let text = format!(
        "library Trial version '1.0.0'\n\
         using FHIR version '4.0.1'\n\
         include FHIRHelpers version '4.0.1'\n\
         codesystem \"ActCode\": 'http://terminology.hl7.org/CodeSystem/v3-ActCode'\n\
         code \"Ambulatory\": 'AMB' from \"ActCode\"\n\
         parameter \"Measurement Period\" Interval<DateTime>\n\
         context Patient\n\
         define \"Limit\": 30 'min'\n\
         define \"March\": Interval[@2026-03-01, @2026-03-31]\n\
         define \"Open\": {{ 'planned', 'Arrived' }}\n\
         define function \"Minutes\"(visit FHIR.Encounter): duration in minutes of visit.period\n\
         {definition}\n"
    );
    let (program, found) = compile(&[SourceFile::new("trial.cql", text)], &Libraries::default(), &Models::default());
    (program.unwrap_or_else(|| panic!("{found:?}")), found)
}

/// What is said of a definition: the text that each warning points to, its message and help.
fn told(definition: &str) -> Vec<String> {
    let words = |finding: &Diagnostic| {
        let at = finding.at.as_ref().map_or("", |at| at.text());
        format!("{at}: {}; {}", finding.message, finding.help.as_deref().unwrap_or_default())
    };
    trial(definition).1.iter().map(words).collect()
}

fn each(rows: &[(&str, &[&str])]) {
    for (definition, expected) in rows {
        assert_eq!(told(definition), *expected, "{definition}");
    }
}

/// What is said of the same in ELM: message and help, for a node's text is no CQL.
fn told_of_elm(definition: &str) -> Vec<String> {
    let (program, _) = trial(definition);
    let tree = program.tree();
    let document = |library: LibraryId| SourceFile::new("trial.json", elm::write(tree, library).0.to_string());
    let (root, others): (Vec<_>, Vec<_>) = (0u32..).zip(&tree.libraries).map(|(index, _)| LibraryId(index)).partition(|library| program.roots().contains(library));
    let others: Vec<_> = others.into_iter().map(document).collect();
    let (again, found) = elm::compile(&document(root[0]), &others, &Models::default());
    assert!(again.is_some(), "{found:?}");
    found.iter().map(|finding| format!("{}; {}", finding.message, finding.help.as_deref().unwrap_or_default())).collect()
}

#[test]
fn elm_has_the_traps_of_its_cql() {
    for (definition, expected) in [
        (
            "define A: [Encounter] E where \"Minutes\"(E) <= 60 'min'",
            format!("`Minutes(…)` is a number and `60 'min'` is in 'min': {NULL} (library Trial, `A`); write `60` without a unit"),
        ),
        (
            "define A: [Observation] O where (O.value as Quantity) > 140",
            format!(
                "`140` is a number without a unit: beside a quantity that has one, {NULL} (library Trial, `A`); write its unit, as `140 'mm[Hg]'`; of quantities that have none, `140 '1'`"
            ),
        ),
        (
            "define A: [Encounter] E where E.status = 'Finished'",
            "`Finished` is no code of EncounterStatus: nothing has it, so this is never true (library Trial, `A`); did you mean `'finished'`?".to_owned(),
        ),
        (
            "define A: [Encounter] E where start of E.period in \"March\"",
            "`\"March\"` has no time of day: of a time on its first or last day the answer is null, which counts as not met (library Trial, `A`); write `during day of`".to_owned(),
        ),
        (
            "define A: Patient.birthDate + 5",
            "a number without a unit of time is added to a Date: the result is null (library Trial, `A`); write the unit, as `+ 5 days`".to_owned(),
        ),
    ] {
        assert_eq!(told_of_elm(definition), [expected], "{definition}");
    }
    assert_eq!(told_of_elm("define A: [Observation] O where (O.value as Quantity) > 140 'mm[Hg]'"), [""; 0]);
}

const NULL: &str = "the comparison is null, never true or false";

#[test]
fn numbers_beside_quantities_and_units_of_other_kinds() {
    each(&[
        (
            "define A: [Encounter] E where \"Minutes\"(E) <= 60 'min'",
            &[&format!("60 'min': `\"Minutes\"(E)` is a number and `60 'min'` is in 'min': {NULL}; write `60` without a unit")],
        ),
        ("define A: AgeInYears() >= 18 years", &[&format!("18 years: `AgeInYears()` is a number and `18 years` is in years: {NULL}; write `18` without a unit")]),
        (
            "define A: [Encounter] E where difference in days between start of E.period and end of E.period > 30 days",
            &[&format!("30 days: `difference in days between start of E.period and end of E.pe…` is a number and `30 days` is in days: {NULL}; write `30` without a unit")],
        ),
        (
            "define A: [Encounter] E where \"Minutes\"(E) > \"Limit\"",
            &[&format!("\"Limit\": `\"Minutes\"(E)` is a number and `\"Limit\"` is in 'min': {NULL}; write `30` without a unit")],
        ),
        (
            "define A: [Observation] O where (O.value as Quantity) > 140",
            &[&format!(
                "140: `140` is a number without a unit: beside a quantity that has one, {NULL}; write its unit, as `140 'mm[Hg]'`; of quantities that have none, `140 '1'`"
            )],
        ),
        (
            "define A: [Observation] O where (O.value as Quantity) in Interval[90, 140]",
            &[&format!("90: `90` is a number without a unit: beside a quantity that has one, {NULL}; write its unit, as `90 'mm[Hg]'`; of quantities that have none, `90 '1'`")],
        ),
        (
            "define A: [Observation] O where O.value > 140",
            &[
                "140: `O.value` may be a Quantity, and `140` has no unit: compared with it, a quantity is null, never true or false; write its unit, as `140 'mm[Hg]'`; where only whole numbers are meant, `(O.value as Integer)`",
            ],
        ),
        ("define A: 140 > 3 'kg'", &[&format!("3 'kg': `140` is a number and `3 'kg'` is in 'kg': {NULL}; write `140 'kg'`")]),
        ("define A: 140 'mm[Hg]' > 3 'kg'", &[&format!("3 'kg': `140 'mm[Hg]'` is in 'mm[Hg]' and `3 'kg'` in 'kg': {NULL}; write both in units of one kind")]),
        ("define A: 140 'mm[Hg]' + 3 'kg'", &["3 'kg': `140 'mm[Hg]'` is in 'mm[Hg]' and `3 'kg'` in 'kg': the sum is null; write both in units of one kind"]),
        ("define A: [Encounter] E where \"Minutes\"(E) <= 60", &[]),
        ("define A: [Observation] O where (O.value as Quantity) > 140 'mm[Hg]'", &[]),
        ("define A: [Observation] O where (O.value as Quantity) between 90 '1' and 140 '1'", &[]),
        ("define A: 1 'g' + 3 'kg' > 4000 'mg'", &[]),
        ("define A: 1 year ~ 365 days", &[]),
        ("define A: (8 'mg' / 4 'mg') > 1", &[]),
        ("define A: Today() - 30 days > @2026-01-01", &[]),
    ]);
}

#[test]
fn sums_of_sums_are_not_followed_without_end() {
    let sums: String = (1..60).map(|number| format!("define S{number}: S{0} + S{0}\n", number - 1)).collect();
    assert_eq!(told(&format!("define S0: First([Observation] O return O.value as Quantity)\n{sums}")), [""; 0]);
}

#[test]
fn texts_that_no_code_of_the_element_is() {
    each(&[
        (
            "define A: [Encounter] E where E.status = 'Finished'",
            &["'Finished': `Finished` is no code of EncounterStatus: nothing has it, so this is never true; did you mean `'finished'`?"],
        ),
        (
            "define A: [Encounter] E where E.status.value in { 'finished', 'Arrived' }",
            &["'Arrived': `Arrived` is no code of EncounterStatus: nothing has it; did you mean `'arrived'`?"],
        ),
        ("define A: Patient.gender != 'F'", &["'F': `F` is no code of AdministrativeGender: this is true of every code; the codes are male, female, other, unknown"]),
        (
            "define A: [Encounter] E where case E.status when 'done' then true else false end",
            &[
                "'done': `done` is no code of EncounterStatus: nothing has it, so this is never true; the codes are planned, arrived, triaged, in-progress, onleave, finished, cancelled, entered-in-error, unknown",
            ],
        ),
        ("define A: [Encounter] E where E.status in { 'finished', 'arrived' } or E.status ~ 'FINISHED'", &[]),
        ("define A: [Encounter] E where E.id = 'Finished' or Lower(E.status) = 'Finished'", &[]),
    ]);
}

#[test]
fn codes_compared_with_their_displays() {
    let message = "`=` compares the version and the display of codes too: where one side has none, it is null, never true; write `~`, which compares system and code";
    each(&[
        ("define A: [Encounter] E where E.class = \"Ambulatory\"", &[&format!("E.class = \"Ambulatory\": {message}")]),
        (
            "define A: [Encounter] E where E.class in { \"Ambulatory\" }",
            &[
                "E.class: a list of codes is searched by `=`, which compares the version and the display too: where one side has none, it is null, never true; name a value set, or compare with each by `~`",
            ],
        ),
        ("define A: [Encounter] E where E.class ~ \"Ambulatory\"", &[]),
    ]);
}

#[test]
fn times_beside_dates() {
    let interval = |written: &str, help: &str| {
        format!("{written}: `{written}` has no time of day: of a time on its first or last day the answer is null, which counts as not met; write `{help}`")
    };
    let date = |written: &str, help: &str| format!("{written}: `{written}` has no time of day: of a time on its day the answer is null, which counts as not met; write `{help}`");
    each(&[
        ("define A: [Encounter] E where end of E.period during \"March\"", &[&interval("\"March\"", "during day of")]),
        ("define A: [Encounter] E where E.period during Interval[@2026-03-01, @2026-03-31]", &[&interval("Interval[@2026-03-01, @2026-03-31]", "during day of")]),
        ("define A: [Encounter] E where start of E.period <= @2026-03-31", &[&date("@2026-03-31", "on or before day of")]),
        ("define A: [Encounter] E where start of E.period before @2026-03-31", &[&date("@2026-03-31", "before day of")]),
        ("define A: [Encounter] E where end of E.period during day of \"March\" or E.period starts on or before day of @2026-03-31", &[]),
        ("define A: Patient.birthDate during \"March\" or Patient.birthDate <= @2026-03-31", &[]),
        ("define A: [Encounter] E where E.period during \"Measurement Period\"", &[]),
    ]);
}
