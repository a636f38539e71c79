//! Generated CQL: well-typed libraries over generated records mean the same by the optimised and by the naive road, after
//! a round trip through ELM, and in any order; what the specification says of operators holds of generated operands.
//!
//! Deterministic by seed, as `fuzz`: `WATERSHED_FUZZ_CASES=N` runs N times as many cases, `WATERSHED_FUZZ_SEED=N` others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::tz::TimeZone;
use rand::Rng;
use rand::seq::SliceRandom;
use watershed::cql::operators::operators;
use watershed::cql::typed::{Expression, Kind};
use watershed::cql::types::Type;
use watershed::cql::value::{DateTime, Value};
use watershed::cql::{Environment, EvaluationError, Libraries, Models, Program, Session, compile, show};
use watershed::diagnostic::{SourceFile, render_human};
use watershed::fhir::record::{Record, Shape};
use watershed::terminology::ValueSets;

use crate::elm::round_trip;
use crate::fuzz::{cases, libraries, random};
use author::Author;
use form::FORMS;
use law::{LAWS, RELATIONS};

mod author;
mod form;
mod law;
mod patient;
mod plain;
mod shrink;

/// Libraries of one run, defines of a library, and how deep these are nested.
const LIBRARIES: usize = 64;
const DEFINES: usize = 30;
const DEPTH: usize = 3;
/// Libraries of laws; libraries of questions about partial dates, and questions of one.
const LAWFUL: usize = 25;
const BATCHES: usize = 10;
const BATCH: usize = 100;
/// Operators of which the usual run sees a value at least, and laws that it may not put to the test.
const OPERATORS_MIN: usize = 150;
const UNTRIED_MAX: usize = 1;
/// So many failures are made small and shown.
const SHOWN_MAX: usize = 5;

/// Faults that say that the program itself is wrong, not a value.
const BUGS: [&str; 9] = [
    "is missing",
    "there is no such define",
    "there is no such function",
    "is not resolved",
    "the model has no class",
    "refers to itself",
    "has no element",
    "expected codes or a value set",
    "operands, ",
];

/// What defines came to: a value as it is shown, or a fault.
type Outcome = Result<String, String>;

fn environment(value_sets: &Arc<ValueSets>, zone: &str) -> Environment {
    let given = [
        ("Given Decimal", Value::Decimal("2.5".parse().expect("a decimal"))),
        ("Given String", Value::string("abc")),
        ("Given Boolean", Value::Null),
        ("Generated.Given Integer", Value::Integer(2)),
    ];
    Environment {
        parameters: given.map(|(name, value)| (name.to_owned(), value)).into(),
        now: DateTime::parse_cql("@2012-02-29T10:30:00.000+00:00").expect("a date and time"),
        zone: TimeZone::get(zone).expect("a zone"),
        value_sets: value_sets.clone(),
        units: Arc::default(),
    }
}

/// A value as text; of a resource its type and id only, because a plan reads no more of it than is used.
fn shown(value: &Value, record: &Record) -> String {
    let all = |values: &mut dyn Iterator<Item = String>| values.collect::<Vec<_>>().join(", ");
    match value {
        Value::List(items) => format!("{{{}}}", all(&mut items.iter().map(|item| shown(item, record)))),
        Value::Tuple(tuple) => format!("Tuple {{{}}}", all(&mut tuple.elements.iter().map(|(name, value)| format!("{name}: {}", shown(value, record))))),
        Value::Node(node, _) if record.resource_type(*node).is_some() => {
            format!("{}/{}", record.resource_type(*node).unwrap_or_default(), record.resource_id(*node).unwrap_or_default())
        }
        other => show::text(other, record),
    }
}

fn outcome(value: Result<Value, EvaluationError>, record: &Record) -> Outcome {
    value.map(|value| shown(&value, record)).map_err(|fault| fault.to_string())
}

/// What the defines come to, evaluated in this order.
fn outcomes(program: &Program, environment: &Environment, record: &Record, names: impl Iterator<Item = String>) -> BTreeMap<String, Outcome> {
    let mut session = Session::new(program, environment, record);
    let mut one = |name: &str| outcome(session.evaluate(program.define("Generated", name).expect("a define")), record);
    names.map(|name| (name.clone(), one(&name))).collect()
}

/// Whether a value is of a type, as far as values know: a count of unknown size may stand for an Integer, and a Decimal for a
/// whole number that was raised to a negative power.
fn is_of(program: &Program, value: &Value, ty: &Type) -> bool {
    match (ty, value) {
        (_, Value::Null) | (Type::Any, _) => true,
        (Type::Choice(types), value) => types.iter().any(|ty| is_of(program, value, ty)),
        (Type::List(item), Value::List(items)) => items.iter().all(|value| is_of(program, value, item)),
        (Type::Interval(point), Value::Interval(interval)) => is_of(program, &interval.low, point) && is_of(program, &interval.high, point),
        (Type::Integer | Type::Long, Value::Decimal(_)) => true,
        (Type::Integer, Value::Interval(span)) => [&span.low, &span.high].into_iter().all(|bound| matches!(bound, Value::Integer(_))),
        (Type::Tuple(elements), Value::Tuple(tuple)) => {
            elements.len() == tuple.elements.len() && elements.iter().all(|(name, ty)| tuple.get(name).is_some_and(|value| is_of(program, value, ty)))
        }
        (Type::Class(class), Value::Node(_, own)) => program.is_subclass(*own, class),
        (Type::Class(class), Value::Instance(instance)) => program.class_id(&instance.class).is_some_and(|own| program.is_subclass(own, class)),
        (simple, value) => simple.to_string() == value.type_name(),
    }
}

/// The row of the operator table that an expression is an application of.
fn row(expression: &Expression) -> Option<&str> {
    match &expression.kind {
        Kind::Operator { operator, .. } => Some(operator.name),
        Kind::And(_) => Some("And"),
        Kind::Or(_) => Some("Or"),
        Kind::Implies(_) => Some("Implies"),
        Kind::Coalesce(_) => Some("Coalesce"),
        Kind::As { operand, .. } => row(operand),
        _ => None,
    }
}

fn compiled(text: &str, libraries: &Libraries) -> Result<Program, String> {
    let (program, found) = compile(&[SourceFile::new("generated.cql", text)], libraries, &Models::default());
    program.ok_or_else(|| render_human(&found, false))
}

fn read(shape: &Shape, lines: &[Vec<u8>]) -> Record {
    Record::read(shape, lines.iter().map(Vec::as_slice)).0
}

/// The defines that CQL's text names, without the implicit `Patient`.
fn written(program: &Program) -> Vec<String> {
    program.defines("Generated").into_iter().map(|(_, name)| name.to_owned()).filter(|name| name != "Patient").collect()
}

/// What is wrong with a program over a record: a road that leads elsewhere, a fault that is a bug, a value of another type.
fn wrong(program: &Program, lines: &[Vec<u8>], environment: &Environment) -> Option<String> {
    let names = written(program);
    let all = || names.iter().cloned();
    let sifted = program.sifted_shape(&environment.value_sets);
    let (by_plan, whole) = (read(&sifted, lines), read(&Shape::everything(), lines));
    let planned = outcomes(program, environment, &by_plan, all());
    let is_bug = |outcome: &Outcome| outcome.as_ref().is_err_and(|fault| BUGS.iter().any(|bug| fault.contains(bug)));
    if let Some((name, outcome)) = planned.iter().find(|(_, outcome)| is_bug(outcome)) {
        return Some(format!("{name}: {outcome:?}"));
    }
    let differs = |road: &str, other: &BTreeMap<String, Outcome>, same: fn(&Outcome, &Outcome) -> bool| {
        let name = names.iter().find(|name| !same(&planned[*name], &other[*name]))?;
        Some(format!("{name} by plan {:?}, {road} {:?}", planned[name], other[name]))
    };
    let equal: fn(&Outcome, &Outcome) -> bool = |planned, other| planned == other;
    let again = match round_trip(program) {
        Ok(again) => again,
        Err(found) => return Some(found),
    };
    let (plain, constants) = plain::plain(program);
    let mut bare = environment.clone();
    bare.parameters.extend(constants);
    let backwards: Vec<Vec<u8>> = lines.iter().rev().cloned().collect();
    differs("of the whole record", &outcomes(program, environment, &whole, all()), equal)
        // `expand` of a missing interval is written so that its step is not asked for.
        .or_else(|| differs("from ELM", &outcomes(&again, environment, &whole, all()), |planned, other| planned == other || (planned.is_err() && *other == Ok("null".into()))))
        .or_else(|| differs("in another order", &outcomes(program, environment, &read(&sifted, &backwards), all().rev()), equal))
        // What needs less also fails less.
        .or_else(|| differs("naively", &outcomes(&plain, &bare, &whole, all()), |planned, naive| naive.is_err() || planned == naive))
        .or_else(|| mistyped(program, environment, &whole))
}

fn mistyped(program: &Program, environment: &Environment, record: &Record) -> Option<String> {
    let mut session = Session::new(program, environment, record);
    for name in written(program) {
        let define = program.define("Generated", &name).expect("a define");
        let (value, ty) = (session.evaluate(define).unwrap_or_default(), program.define_type(define));
        if !is_of(program, &value, ty) {
            return Some(format!("{name} of type {ty} is {}", shown(&value, record)));
        }
    }
    None
}

/// The values of a program's defines over a record, those without fault.
fn values(program: &Program, environment: &Environment, record: &Record) -> BTreeMap<String, Value> {
    let mut session = Session::new(program, environment, record);
    let mut value = |name: String| Some((name.clone(), session.evaluate(program.define("Generated", &name)?).ok()?));
    written(program).into_iter().filter_map(&mut value).collect()
}

/// The types of a law's operands, which its statement defines by their letters.
fn operand_types(program: &Program) -> Vec<(String, Type)> {
    let types = program.defines("Generated").into_iter().filter(|(_, name)| name.len() == 1);
    types.map(|(define, name)| (name.to_owned(), program.define_type(define).clone())).collect()
}

/// Failures, each as small as it can be made.
struct Failures(Vec<String>);

impl Failures {
    fn add(&mut self, text: &str, lines: &[Vec<u8>], wrong: impl Fn(&str, &[Vec<u8>]) -> Option<String>) {
        let Some(found) = wrong(text, lines) else {
            self.0.push(format!("fails only where it stands:{}", text.rfind("\ndefine").map_or("", |at| &text[at..])));
            return;
        };
        // The same kind of fault, whatever its values.
        let kind = |found: &str| {
            found
                .split_whitespace()
                .filter(|word| word.chars().all(|c| c.is_ascii_lowercase()))
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let (text, lines) = shrink::shrink(text, lines, |text, lines| wrong(text, lines).is_some_and(|other| kind(&other) == kind(&found)));
        let last = wrong(&text, &lines).unwrap_or(found);
        let body = text.find("\ndefine ").map_or("", |at| &text[at..]);
        self.0
            .push(format!("{last}\n{}{body}", lines.iter().map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>().join("\n")));
    }

    fn is_enough(&self) -> bool {
        self.0.len() >= SHOWN_MAX
    }

    fn none(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n----\n"));
    }
}

#[test]
fn generated_libraries_mean_the_same_by_every_road() {
    let mut random = random(6);
    let libraries = libraries();
    let value_sets = Arc::new(patient::value_sets());
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut failures = Failures(Vec::new());
    let (mut made, mut known, mut turn, first) = (0, 0, 0, random.random_range(0..FORMS.len()));
    for number in 0..cases(LIBRARIES) {
        let mut author = Author::new(&mut random);
        (0..4).for_each(|_| author.function());
        for _ in 0..DEFINES {
            // Each form in its turn, in the first of three rounds deep: what is shallow is seldom null.
            let is_deep = (turn / FORMS.len()).is_multiple_of(3);
            author.define(&FORMS[(first + turn) % FORMS.len()], if is_deep { DEPTH } else { 1 });
            turn += 1;
        }
        let (text, defines) = author.finished();
        let program = compiled(&text, &libraries).unwrap_or_else(|found| panic!("{found}\n{text}"));
        for (name, ty) in &defines {
            let found = program.define_type(program.define("Generated", name).expect("a define"));
            // Of what is made of the parts of a value, which may be anything, more can be known.
            let is_narrower = *ty == Type::list(Type::Any) && matches!(found, Type::List(_));
            assert!(found == ty || is_narrower, "the type of {name} is {found:?}, not {ty:?}:\n{text}");
        }
        let environment = environment(&value_sets, if number % 2 == 0 { "UTC" } else { "America/New_York" });
        let mut lines = patient::lines(&mut random);
        lines.shuffle(&mut random);
        let failing = |text: &str, lines: &[Vec<u8>]| wrong(&compiled(text, &libraries).ok()?, lines, &environment);
        if failing(&text, &lines).is_some() {
            failures.add(&text, &lines, failing);
        }
        if failures.is_enough() {
            break;
        }
        let values = values(&program, &environment, &read(&Shape::everything(), &lines));
        let is_known = |name: &str| values.get(name).is_some_and(|value| !value.is_null());
        made += defines.len();
        known += defines.iter().filter(|(name, _)| is_known(name)).count();
        let known = program.tree().defines.iter().filter(|define| is_known(&define.name));
        reached.extend(known.filter_map(|define| row(&define.body)).map(str::to_owned));
    }
    failures.none();
    crate::figures::say(&format!("{made} defines, {known} known; {} of {} operators with a value", reached.len(), operators().count()));
    assert!(reached.len() >= OPERATORS_MIN, "a value was seen of {} operators only: {reached:?}", reached.len());
}

#[test]
fn the_laws_of_the_specification_hold_of_generated_operands() {
    let mut random = random(7);
    let libraries = libraries();
    let value_sets = Arc::new(patient::value_sets());
    let mut failures = Failures(Vec::new());
    let mut broken = BTreeSet::new();
    let (mut held, mut next) = (vec![0; LAWS.len()], random.random_range(0..LAWS.len()));
    for number in 0..cases(LAWFUL) {
        let mut author = Author::new(&mut random);
        let laws: Vec<(usize, String)> = (0..DEFINES)
            .map(|_| {
                next = (next + 1) % LAWS.len();
                (next, author.law(&LAWS[next].1, DEPTH - 1))
            })
            .collect();
        let (text, _) = author.finished();
        let program = compiled(&text, &libraries).unwrap_or_else(|found| panic!("{found}\n{text}"));
        let environment = environment(&value_sets, if number % 2 == 0 { "UTC" } else { "America/New_York" });
        let lines = patient::lines(&mut random);
        let values = values(&program, &environment, &read(&Shape::everything(), &lines));
        for (index, (law, statement)) in laws.iter().enumerate() {
            match values.get(&format!("D{index}")) {
                Some(Value::Boolean(true)) => held[*law] += 1,
                Some(_) if broken.insert(*law) => {
                    let text = format!("{text}{statement}");
                    let types = compiled(&text, &libraries).map(|program| operand_types(&program));
                    let broken = |text: &str, lines: &[Vec<u8>]| {
                        let record = read(&Shape::everything(), lines);
                        let program = compiled(text, &libraries).ok().filter(|program| types.as_ref().is_ok_and(|types| *types == operand_types(program)))?;
                        let values = self::values(&program, &environment, &record);
                        let value = values.get("Law").filter(|value| value.truth() != Some(true))?;
                        let operands: Vec<String> = values
                            .iter()
                            .filter(|(name, _)| name.len() == 1)
                            .map(|(name, value)| format!("{name} = {}", shown(value, &record)))
                            .collect();
                        Some(format!("{} is {}: {}", LAWS[*law].0, shown(value, &record), operands.join("; ")))
                    };
                    failures.add(&text, &lines, broken);
                }
                // Shown already, or an operand without a value.
                _ => {}
            }
        }
        if failures.is_enough() {
            break;
        }
    }
    failures.none();
    crate::figures::say(&format!("{} laws held {} times", LAWS.len(), held.iter().sum::<usize>()));
    let never: Vec<&str> = LAWS.iter().zip(&held).filter(|(_, held)| **held == 0).map(|((text, _), _)| *text).collect();
    assert!(never.len() <= UNTRIED_MAX, "never put to the test: {never:?}");
}

#[test]
fn what_is_said_of_a_partial_date_holds_however_it_is_completed() {
    let mut random = random(8);
    let environment = environment(&Arc::default(), "America/New_York");
    let record = Record::default();
    let (mut told, mut wrong) = (0, Vec::new());
    for batch in 0..cases(BATCHES) {
        let forms = (0..BATCH).map(|number| RELATIONS[(batch * BATCH + number) % RELATIONS.len()]);
        let questions: Vec<law::Question> = forms.map(|form| law::question(&mut random, form)).collect();
        let name = |question: usize, way: usize| format!("D{question} {way}");
        let texts = |question: &law::Question| [question.partial.clone()].into_iter().chain(question.complete.clone());
        let defines = questions
            .iter()
            .enumerate()
            .flat_map(|(at, question)| texts(question).enumerate().map(move |(way, text)| format!("define \"{}\": {text}\n", name(at, way))));
        let program = compiled(&format!("library Generated\n{}", defines.collect::<String>()), &Libraries::default()).unwrap_or_else(|found| panic!("{found}"));
        let values = values(&program, &environment, &record);
        for (at, question) in questions.iter().enumerate() {
            let value = |way: usize| values.get(&name(at, way)).cloned().unwrap_or_default();
            for (way, complete) in (1..).zip(&question.complete).filter(|_| !value(0).is_null()) {
                told += 1;
                if !holds(&value(0), &value(way)) {
                    wrong.push(format!("{} is {}, but {complete} is {}", question.partial, shown(&value(0), &record), shown(&value(way), &record)));
                }
            }
        }
    }
    crate::figures::say(&format!("{} forms, {told} completions of partial dates agree", RELATIONS.len()));
    assert!(wrong.is_empty(), "{} of {told}:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    assert!(told > BATCHES * BATCH / 2, "only {told} answers were known");
}

/// Whether what is known of a partial date agrees with what is known of the whole.
fn holds(partial: &Value, complete: &Value) -> bool {
    match (partial, complete) {
        (Value::Interval(span), Value::Integer(count)) => match (&span.low, &span.high) {
            (Value::Integer(low), Value::Integer(high)) => (low..=high).contains(&count),
            _ => false,
        },
        (Value::Integer(one), Value::Integer(other)) => one == other,
        (Value::Boolean(one), Value::Boolean(other)) => one == other,
        _ => false,
    }
}
