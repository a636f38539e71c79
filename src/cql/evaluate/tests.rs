//! Evaluation of small hand-built trees over small records; the language itself is tested through its text elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cql::evaluate::{DEPTH_MAX, Environment, Session};
use crate::cql::operators::operator;
use crate::cql::plan::{Codes, Program};
use crate::cql::typed::*;
use crate::cql::types::Type;
use crate::cql::value::{DateTime, Value};
use crate::diagnostic::{SourceFile, Span};
use crate::fhir::record::{Keep, Record, Shape};

pub(crate) fn expression(kind: Kind, ty: Type) -> Expression {
    Expression::new(kind, ty, Span::new(0, 0))
}

pub(crate) fn boolean(value: Option<bool>) -> Expression {
    expression(Kind::Literal(value.map_or(Value::Null, Value::Boolean)), Type::Boolean)
}

fn slot(index: u32) -> Expression {
    expression(Kind::Slot(Slot(index)), Type::class("FHIR.Observation"))
}

fn apply(name: &str, operands: Vec<Expression>, ty: Type) -> Expression {
    expression(Kind::Operator { operator: operator(name).unwrap(), operands, precision: None }, ty)
}

fn field(source: Expression, name: &str, alternatives: &[(&str, Type)], list: bool) -> Expression {
    let alternatives: Vec<_> = alternatives.iter().map(|(field, ty)| Alternative { field: Arc::from(*field), ty: ty.clone() }).collect();
    let ty = if list { Type::list(alternatives[0].ty.clone()) } else { alternatives[0].ty.clone() };
    expression(Kind::Property { source: Box::new(source), element: Element { name: name.into(), alternatives, list } }, ty)
}

fn element(name: &str, class: &str) -> Element {
    Element { name: name.into(), alternatives: vec![Alternative { field: name.into(), ty: Type::class(class) }], list: false }
}

/// A library with these defines, a code `A1c`, and classes enough for observations.
pub(crate) fn program(defines: Vec<(&str, Expression)>) -> Program {
    let library = LibraryId(0);
    let at = Span::new(0, 0);
    let class = |name: &str, base: Option<&str>| Class { name: name.into(), base: base.map(Arc::from), primitive: None, instance_of: None };
    let tree = Tree {
        libraries: vec![Library { name: "T".into(), version: None, source: SourceFile::new("T.cql", "library T"), includes: vec![], usings: vec![], form: Form::Cql }],
        code_systems: vec![CodeSystem { library, name: "L".into(), id: "http://loinc.org".into(), version: None, access: Access::Public, at }],
        codes: vec![CodeDefinition { library, name: "A1c".into(), code: "4548-4".into(), system: CodeSystemId(0), display: None, access: Access::Public, at }],
        classes: vec![
            class("FHIR.Resource", None),
            class("FHIR.Observation", Some("FHIR.Resource")),
            class("FHIR.Quantity", None),
            Class { primitive: Some(Type::String), ..class("FHIR.string", None) },
            Class { primitive: Some(Type::Decimal), ..class("FHIR.decimal", None) },
            Class { primitive: Some(Type::String), ..class("FHIR.code", None) },
        ],
        defines: defines
            .into_iter()
            .map(|(name, body)| Define { library, name: name.into(), context: EvaluationContext::Patient, access: Access::Public, body, slots: 4, at })
            .collect(),
        ..Tree::default()
    };
    Program::new(tree, vec![library])
}

fn environment() -> Environment {
    Environment {
        parameters: BTreeMap::new(),
        now: DateTime::parse_fhir("2025-06-30T12:00:00Z").unwrap(),
        zone: jiff::tz::TimeZone::UTC,
        value_sets: Arc::default(),
        units: Arc::default(),
    }
}

fn a1c() -> Expression {
    let retrieve = Retrieve {
        class: "FHIR.Observation".into(),
        resource_type: "Observation".into(),
        fixed: vec![],
        code: Some(CodeFilter {
            path: vec![element("code", "FHIR.CodeableConcept")],
            comparator: Comparator::Equivalent,
            codes: expression(Kind::Code(CodeId(0)), Type::Code),
            through_reference: false,
        }),
        date: None,
    };
    expression(Kind::Retrieve(Box::new(retrieve)), Type::list(Type::class("FHIR.Observation")))
}

/// `O.value as Quantity > 9`, as conversions would leave it.
fn above_nine(of: Expression) -> Expression {
    let quantity = Type::class("FHIR.Quantity");
    let value = field(of, "value", &[("valueQuantity", quantity.clone()), ("valueString", Type::class("FHIR.string"))], false);
    let cast = expression(Kind::As { operand: Box::new(value), target: quantity.clone(), strict: false }, quantity);
    let decimal = field(cast, "value", &[("value", Type::class("FHIR.decimal"))], false);
    let number = field(decimal, "value", &[("", Type::Decimal)], false);
    let nine = expression(Kind::Literal(Value::Decimal(9.into())), Type::Decimal);
    apply("Greater", vec![number, nine], Type::Boolean)
}

fn query(condition: Option<Expression>) -> Expression {
    let query = Query {
        sources: vec![Source::new(Slot(0), "O".into(), a1c())],
        lets: vec![],
        relationships: vec![],
        condition,
        returning: None,
        aggregate: None,
        sort: None,
        singular: false,
    };
    expression(Kind::Query(Box::new(query)), Type::list(Type::class("FHIR.Observation")))
}

const LINES: [&str; 4] = [
    r#"{"resourceType":"Observation","id":"a","code":{"coding":[{"system":"http://loinc.org","code":"4548-4"}]},"valueQuantity":{"value":9.5,"unit":"%"}}"#,
    r#"{"resourceType":"Observation","id":"b","code":{"coding":[{"system":"http://loinc.org","code":"4548-4"}]},"valueString":"high"}"#,
    r#"{"resourceType":"Observation","id":"c","code":{"coding":[{"system":"http://else","code":"4548-4"}]},"valueQuantity":{"value":12}}"#,
    r#"{"resourceType":"Observation","id":"d","code":{"coding":[{"system":"http://loinc.org","code":"4548-4"}]},"valueQuantity":{"value":7,"unit":"%"}}"#,
];

fn run(program: &Program, lines: &[&str], name: &str) -> Value {
    let (record, bad) = Record::read(program.shape(), lines.iter().map(|line| line.as_bytes()));
    assert_eq!(bad, []);
    let environment = environment();
    let mut session = Session::new(program, &environment, &record);
    session.evaluate(program.define("T", name).unwrap()).unwrap()
}

#[test]
fn retrieves_filters_and_counts() {
    let program = program(vec![
        ("all", apply("Count", vec![query(None)], Type::Integer)),
        ("high", apply("Count", vec![query(Some(above_nine(slot(0))))], Type::Integer)),
        ("any", apply("Exists", vec![query(Some(above_nine(slot(0))))], Type::Boolean)),
    ]);
    for lines in [LINES, [LINES[3], LINES[2], LINES[1], LINES[0]]] {
        assert!(matches!(run(&program, &lines, "all"), Value::Integer(3)));
        assert!(matches!(run(&program, &lines, "high"), Value::Integer(1)));
        assert!(matches!(run(&program, &lines, "any"), Value::Boolean(true)));
    }
}

#[test]
fn the_shape_holds_what_is_used_and_no_more() {
    let program = program(vec![("any", apply("Exists", vec![query(Some(above_nine(slot(0))))], Type::Boolean))]);
    let keep = program.shape().of("Observation").unwrap();
    assert_eq!(keep.field("code"), Some(&Keep::All));
    assert_eq!(keep.field("valueQuantity").and_then(|keep| keep.field("value")), Some(&Keep::All));
    assert!(keep.field("valueQuantity").unwrap().field("unit").is_none());
    assert!(keep.field("valueString").is_some() && keep.field("subject").is_none());
    assert_eq!(program.shape().of("Patient"), None);
    let [requirement] = program.requirements() else { panic!("one requirement expected") };
    assert_eq!(requirement.code_path.as_deref(), Some("code"));
    assert_eq!(requirement.codes, Codes::Direct(vec![("http://loinc.org".into(), "4548-4".into())]));
    assert_eq!(requirement.paths.iter().map(String::as_str).collect::<Vec<_>>(), ["code", "valueQuantity.value", "valueString.value"]);
    let everything = Record::read(&Shape::everything(), LINES.iter().map(|line| line.as_bytes())).0;
    let environment = environment();
    let whole = Session::new(&program, &environment, &everything).evaluate(DefineId(0)).unwrap();
    assert!(matches!(whole, Value::Boolean(true)));
}

#[test]
fn logic_is_three_valued_and_lazy() {
    let pair = |left, right| Box::new([boolean(left), boolean(right)]);
    let (t, f, n) = (Some(true), Some(false), None);
    let table = [
        (Kind::And(pair(t, n)), n),
        (Kind::And(pair(n, f)), f),
        (Kind::And(pair(t, t)), t),
        (Kind::Or(pair(f, n)), n),
        (Kind::Or(pair(n, t)), t),
        (Kind::Or(pair(f, f)), f),
        (Kind::Implies(pair(f, n)), t),
        (Kind::Implies(pair(n, t)), t),
        (Kind::Implies(pair(t, n)), n),
        (Kind::Implies(pair(n, f)), n),
    ];
    for (index, (kind, expected)) in table.into_iter().enumerate() {
        let program = program(vec![("x", expression(kind, Type::Boolean))]);
        assert_eq!(run(&program, &[], "x").truth(), expected, "row {index}");
    }
    let fails = expression(Kind::Define(DefineId(1)), Type::Boolean);
    let program = program(vec![("x", expression(Kind::Or(Box::new([boolean(t), fails.clone()])), Type::Boolean)), ("loop", fails)]);
    assert!(matches!(run(&program, &[], "x"), Value::Boolean(true)));
    let (record, environment) = (Record::default(), environment());
    let error = Session::new(&program, &environment, &record).evaluate(DefineId(1)).unwrap_err();
    assert_eq!(error.message, "the define refers to itself");
}

#[test]
fn deep_nesting_is_an_error_not_an_overflow() {
    let mut deep = boolean(Some(true));
    for _ in 0..5_000 {
        deep = expression(Kind::And(Box::new([deep, boolean(Some(true))])), Type::Boolean);
    }
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    let program = thread.spawn(move || program(vec![("deep", deep)])).unwrap().join().unwrap();
    let error = {
        let (record, environment) = (Record::default(), environment());
        Session::new(&program, &environment, &record).evaluate(DefineId(0)).unwrap_err()
    };
    assert!(error.message.starts_with("nested deeper than"), "{}", error.message);
    assert!(error.at.is_some());
    // The tree itself is dropped recursively too.
    std::thread::Builder::new().stack_size(64 << 20).spawn(move || drop(program)).unwrap().join().unwrap();
}

/// The costliest nesting there is fits the stack of an ordinary thread.
#[test]
fn the_deepest_queries_fit_the_stack() {
    let mut inner = query(Some(boolean(Some(true))));
    for _ in 0..DEPTH_MAX {
        inner = query(Some(apply("Exists", vec![inner], Type::Boolean)));
    }
    let deep = apply("Exists", vec![inner], Type::Boolean);
    let stack = |bytes| std::thread::Builder::new().stack_size(bytes);
    let program = stack(64 << 20).spawn(move || program(vec![("deep", deep)])).unwrap().join().unwrap();
    let evaluate = || {
        let (record, _) = Record::read(&Shape::everything(), LINES.iter().map(|line| line.as_bytes()));
        let environment = environment();
        Session::new(&program, &environment, &record).evaluate(DefineId(0)).unwrap_err()
    };
    let error = std::thread::scope(|scope| stack(2 << 20).spawn_scoped(scope, evaluate).unwrap().join().unwrap());
    assert!(error.message.starts_with("nested deeper than"), "{}", error.message);
    stack(64 << 20).spawn(move || drop(program)).unwrap().join().unwrap();
}

#[test]
fn an_unknown_says_why() {
    let first = apply("First", vec![query(None)], Type::class("FHIR.Observation"));
    let program = program(vec![("x", above_nine(first))]);
    let truth = |lines: &[&str]| {
        let (record, _) = Record::read(program.shape(), lines.iter().map(|line| line.as_bytes()));
        let environment = environment();
        let mut session = Session::new(&program, &environment, &record);
        let (truth, reasons) = session.truth_of(DefineId(0)).unwrap();
        (truth, reasons.into_iter().map(|reason| reason.text).collect::<Vec<_>>())
    };
    assert_eq!(truth(&LINES), (Some(true), vec![]));
    assert_eq!(truth(&[]), (None, vec!["no Observation at all".to_owned()]));
    assert_eq!(truth(&[LINES[2]]), (None, vec!["no Observation with code `A1c`".to_owned()]));
    assert_eq!(truth(&[LINES[1]]), (None, vec!["`Observation.valueString` is no `FHIR.Quantity`".to_owned()]));
}
