//! The grammar by examples; the HL7 suite and published measures are parsed in `tests/cql_suite.rs`.

use super::*;
use crate::cql::ast::{Expression, Kind};
use crate::diagnostic::render_human;

fn read(text: &str) -> Expression {
    let (expression, faults) = parse_expression(&SourceFile::new("t.cql", text));
    assert!(faults.is_empty(), "{}", render_human(&faults, false));
    expression.expect("an expression")
}

/// The structure of operators with parentheses, names as they are.
fn shape(expression: &Expression) -> String {
    match &expression.kind {
        Kind::Name(name) => name.to_string(),
        Kind::Integer(digits) => digits.to_string(),
        Kind::Unary(operator, operand) => format!("{operator}({})", shape(operand)),
        Kind::Binary { operator, precision, left, right, .. } => {
            let precision = precision.map(|p| format!("{p:?}")).unwrap_or_default();
            format!("{operator}{precision}({}, {})", shape(left), shape(right))
        }
        Kind::Member(source, name) => format!("{}.{}", shape(source), name.text),
        Kind::IsLiteral(operator, negated, operand) => format!("{operator}{}({})", if *negated { "Not" } else { "" }, shape(operand)),
        Kind::As(operand, ..) => format!("As({})", shape(operand)),
        Kind::Offset(o) => format!("Offset({:?}, {}, {}, {})", o.bound, o.before, shape(&o.left), shape(&o.right)),
        Kind::Within { left, right, .. } => format!("Within({}, {})", shape(left), shape(right)),
        Kind::Between(parts, _) => format!("Between({}, {}, {})", shape(&parts[0]), shape(&parts[1]), shape(&parts[2])),
        Kind::Query(query) => format!("Query({})", query.sources.iter().map(|s| format!("{} {}", shape(&s.expression), s.alias.text)).collect::<Vec<_>>().join(", ")),
        other => format!("{other:?}").split(['(', ' ']).next().unwrap_or("").to_string(),
    }
}

#[test]
fn operators_bind_as_the_grammar_orders_them() {
    let cases = [
        ("a or b and c", "Or(a, And(b, c))"),
        ("a union b and c", "Union(a, And(b, c))"),
        ("not a = b", "Equal(Not(a), b)"),
        ("exists a and b", "And(Exists(a), b)"),
        ("not exists a is null", "Not(Exists(IsNull(a)))"),
        ("a < b = c", "Equal(Less(a, b), c)"),
        ("a implies b or c", "Implies(a, Or(b, c))"),
        ("1 + 2 * 3 ^ 4", "Add(1, Multiply(2, Power(3, 4)))"),
        ("1 - 2 - 3", "Subtract(Subtract(1, 2), 3)"),
        ("-a.b", "Negate(a.b)"),
        ("start of a + b", "Add(Start(a), b)"),
        ("(a or b) and c", "And(Or(a, b), c)"),
        ("a.x between b and c and d", "And(Between(a.x, b, c), d)"),
    ];
    for (text, expected) in cases {
        assert_eq!(shape(&read(text)), expected, "{text}");
    }
}

#[test]
fn every_timing_phrase_is_read() {
    let cases = [
        ("a during b", "IncludedIn(a, b)"),
        ("a during day of b", "IncludedInDay(a, b)"),
        ("a properly included in b", "ProperIncludedIn(a, b)"),
        ("a includes end b", "Includes(a, End(b))"),
        ("a starts before start b", "Before(Start(a), Start(b))"),
        ("a starts before start of b", "Before(Start(a), Start(b))"),
        ("a ends on or before day of b", "SameOrBeforeDay(End(a), b)"),
        ("a before or on b", "SameOrBefore(a, b)"),
        ("a starts same day as end b", "SameAsDay(Start(a), End(b))"),
        ("a same month or after b", "SameOrAfterMonth(a, b)"),
        ("a starts 3 days or less before b", "Offset(OrLess, true, Start(a), b)"),
        ("a 3 days or more after b", "Offset(OrMore, false, a, b)"),
        ("a more than 3 days after end b", "Offset(MoreThan, false, a, End(b))"),
        ("a occurs less than 3 days before b", "Offset(LessThan, true, a, b)"),
        ("a starts within 3 days of start of b", "Within(Start(a), Start(b))"),
        ("a starts b", "Starts(a, b)"),
        ("a ends day of b", "EndsDay(a, b)"),
        ("a meets before b", "MeetsBefore(a, b)"),
        ("a overlaps after day of b", "OverlapsAfterDay(a, b)"),
        ("a in day of b", "InDay(a, b)"),
        ("a during b and c", "And(IncludedIn(a, b), c)"),
    ];
    for (text, expected) in cases {
        assert_eq!(shape(&read(text)), expected, "{text}");
    }
}

#[test]
fn queries_and_selectors_are_read() {
    let texts = [
        "[Encounter: type in \"Office Visit\"] E with [Condition] C such that C.onset during E.period where E.status = 'finished' return E.id sort desc",
        "from [A] a, \"B\" b let x: a.y, z: b.w where x = z return all Tuple { x: x, y: 1 } sort by x desc, y",
        "({1, 2}) X aggregate R starting 0: R + X",
        "X x aggregate distinct R starting (Interval[1, 2]): R",
        "case when a then 1 else 2 end",
        "case a when 1 then b when 2 then c else null end",
        "if a then b else c",
        "FHIR.Quantity { value: 1 }",
        "{ a: 1, b: 'x' }",
        "{ : }",
        "List<Integer>{ }",
        "Interval(1, 2]",
        "Code 'x' from \"Y\" display 'z'",
        "Concept { Code 'x' from Y, Code 'z' from Y } display 'z'",
        "1:128",
        "5 'mg':1 'mL'",
        "difference in days between a and b",
        "years between a and b",
        "duration in days of a",
        "year from date from a",
        "convert a to 'mg'",
        "convert a to List<Integer>",
        "collapse a per day",
        "expand a per 2 days",
        "minimum DateTime",
        "maximum System.Integer",
        "x is not null",
        "x is List<Choice<Integer, String>>",
        "cast x as FHIR.Quantity",
        "Common.\"F\"(a, b).c.d(e)[0]",
        "$this.x",
        "date",
        "a.start.\"end\"",
        "singleton from (a)",
        "[\"Patient Link\" -> Observation: \"Codes\"]",
        "[Observation: code ~ \"X\"]",
        "[Observation: Common.\"X\"]",
        "flatten (a union b)",
        "exists (a)",
    ];
    for text in texts {
        read(text);
    }
}

#[test]
fn a_library_keeps_its_good_statements_and_reports_each_bad_one() {
    let source = SourceFile::new(
        "bad.cql",
        "library Bad version '1'\nusing FHIR version '4.0.1'\ndefine \"A\": 1 +\ndefine B: if true then 1\ndefine \"C\": 2\ndefin \"D\": 3\ndefine 'E': 4\nvalueset \"V\" 'http://x'\n",
    );
    let (library, faults) = parse(&source);
    assert_eq!(library.defines.iter().map(|d| &*d.name.text).collect::<Vec<_>>(), ["C"]);
    insta::assert_snapshot!(render_human(&faults, false));
}

#[test]
fn too_deep_is_a_fault_and_no_overflow() {
    for text in ["(".repeat(100_000), format!("1{}", " + 1".repeat(100_000)), "not ".repeat(100_000), "a.".repeat(100_000), "List<".repeat(10_000)] {
        let (expression, faults) = parse_expression(&SourceFile::new("t", text));
        assert!(expression.is_none() && !faults.is_empty());
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
        parse(&SourceFile::new("t", text.clone()));
        parse_expression(&SourceFile::new("t", text));
    }

    #[test]
    fn no_sequence_of_words_makes_the_parser_panic(
        words in proptest::collection::vec(proptest::sample::select(
            KEYWORDS.iter().copied().chain(["(", ")", "[", "]", "{", "}", ":", ",", ".", "1", "'x'", "\"y\"", "+", "=", "@2012", "a", "\n"]).collect::<Vec<_>>()), 0..40)
    ) {
        parse(&SourceFile::new("t", format!("define x: {}", words.join(" "))));
    }
}
