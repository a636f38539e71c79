//! The worked examples of every row hold, read without types straight from the syntax tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::cql::ast::{self, Expression, Kind};
use crate::cql::interval::{Interval, Point};
use crate::cql::parser::parse_expression;
use crate::cql::value::{Code, Concept, Quantity, Ratio, Tuple};
use crate::cql::value::{Date, Time};
use crate::diagnostic::SourceFile;

/// Evaluates an expression of literals, selectors, operators and calls by name; `Err` for what needs types or a library.
struct Untyped<'a> {
    context: Context<'a>,
    names: BTreeMap<String, Value>,
}

type Outcome = Result<Value, String>;

impl Untyped<'_> {
    fn apply(&self, name: &str, operands: Vec<Value>, precision: Option<Precision>) -> Outcome {
        let row = operator(name).ok_or_else(|| format!("unsupported `{name}`"))?;
        let call = Call { operands: &operands, precision, context: &self.context };
        row.apply(&call).map_err(|fault| format!("fault: {fault}"))
    }

    fn all(&self, expressions: &[Expression]) -> Result<Vec<Value>, String> {
        expressions.iter().map(|expression| self.value(expression)).collect()
    }

    fn quantity(quantity: &ast::Quantity) -> Quantity {
        let unit = quantity.unit.clone().unwrap_or_else(|| Arc::from("1"));
        Quantity { value: quantity.value.parse().unwrap(), unit }
    }

    fn value(&self, expression: &Expression) -> Outcome {
        Ok(match &expression.kind {
            Kind::Null => Value::Null,
            Kind::Boolean(truth) => Value::Boolean(*truth),
            Kind::Integer(text) => match text.parse() {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Decimal(text.parse().map_err(|_| "too large")?),
            },
            Kind::Long(text) => Value::Long(text.parse().map_err(|_| "too large")?),
            Kind::Decimal(text) => Value::Decimal(text.parse().map_err(|_| "too large")?),
            Kind::String(text) => Value::String(text.clone()),
            Kind::Date(text) => Value::Date(Date::parse(&text[1..]).ok_or("no date")?),
            Kind::DateTime(text) => Value::DateTime(DateTime::parse_cql(text).ok_or("no date-time")?),
            Kind::Time(text) => Value::Time(Time::parse(&text[1..]).ok_or("no time")?),
            Kind::Quantity(quantity) => Value::Quantity(Arc::new(Self::quantity(quantity))),
            Kind::Ratio(numerator, denominator) => Value::Ratio(Arc::new(Ratio { numerator: Self::quantity(numerator), denominator: Self::quantity(denominator) })),
            Kind::Name(name) => self.names.get(&**name).cloned().ok_or_else(|| format!("unsupported name `{name}`"))?,
            Kind::Call { target: None, name, operands } => return self.call(&name.text, self.all(operands)?),
            Kind::Indexer(source, index) => {
                return self.apply("Indexer", vec![self.value(source)?, self.value(index)?], None);
            }
            Kind::Unary("" | "Positive", operand) => self.value(operand)?,
            Kind::Unary(name, operand) => return self.apply(name, vec![self.value(operand)?], None),
            Kind::Binary { operator, precision, left, right, .. } => {
                let operands = vec![self.value(left)?, self.value(right)?];
                if *operator == "Add" && operands.iter().any(|operand| matches!(operand, Value::String(_))) {
                    return self.apply("Concatenate", operands, None);
                }
                return self.apply(operator, operands, *precision);
            }
            Kind::IsLiteral(name, negated, operand) => {
                let truth = self.apply(name, vec![self.value(operand)?], None)?;
                if *negated { (truth.truth() == Some(false)).into() } else { truth }
            }
            Kind::Between(operands, proper) => {
                let (low, high) = if *proper { ("Greater", "Less") } else { ("GreaterOrEqual", "LessOrEqual") };
                let value = self.value(&operands[0])?;
                let above = self.apply(low, vec![value.clone(), self.value(&operands[1])?], None)?;
                let below = self.apply(high, vec![value, self.value(&operands[2])?], None)?;
                return self.apply("And", vec![above, below], None);
            }
            Kind::DateSpan(name, precision, operands) => {
                return self.apply(name, self.all(&operands[..])?, Some(*precision));
            }
            Kind::SpanOf(name, precision, operand) => {
                let of = self.value(operand)?;
                let ends = vec![self.apply("Start", vec![of.clone()], None)?, self.apply("End", vec![of], None)?];
                return self.apply(name, ends, Some(*precision));
            }
            Kind::Component(precision, operand) => {
                return self.apply("DateTimeComponentFrom", vec![self.value(operand)?], Some(*precision));
            }
            Kind::Extreme(name, path) => return self.apply(name, vec![Value::string(&path.text())], None),
            Kind::PerUnit(name, operand, per) => {
                let mut operands = vec![self.value(operand)?];
                if let Some(per) = per {
                    operands.push(self.value(per)?);
                }
                return self.apply(name, operands, None);
            }
            Kind::ConvertUnit(operand, unit) => {
                return self.apply("ConvertQuantity", vec![self.value(operand)?, Value::String(unit.clone())], None);
            }
            Kind::As(operand, ty, _) => self.cast(self.value(operand)?, ty),
            Kind::ConvertType(operand, ty) => {
                let ast::TypeKind::Named(path) = &ty.kind else { return Err("unsupported type".into()) };
                return self.apply(&format!("To{}", path.text()), vec![self.value(operand)?], None);
            }
            Kind::List(_, items) => Value::list(self.all(items)?),
            Kind::Tuple(elements) => {
                Value::Tuple(Arc::new(Tuple { elements: elements.iter().map(|(name, value)| Ok((name.text.clone(), self.value(value)?))).collect::<Result<_, String>>()? }))
            }
            Kind::Instance(path, elements) => self.instance(&path.text(), elements)?,
            Kind::Interval { low_closed, low, high, high_closed } => {
                let point = [low, high].iter().find_map(|bound| match &bound.kind {
                    Kind::As(_, ty, _) => match &ty.kind {
                        ast::TypeKind::Named(path) => Point::named(&path.text()),
                        _ => None,
                    },
                    _ => None,
                });
                Interval::value(self.value(low)?, *low_closed, self.value(high)?, *high_closed, point, &self.context)
            }
            Kind::Member(source, name) => match self.value(source)? {
                Value::Tuple(tuple) => tuple.get(&name.text).cloned().unwrap_or_default(),
                _ => return Err("unsupported member".into()),
            },
            other => return Err(format!("unsupported {other:?}").chars().take(40).collect()),
        })
    }

    fn cast(&self, value: Value, ty: &ast::TypeSpecifier) -> Value {
        match (&value, &ty.kind) {
            (Value::Integer(number), ast::TypeKind::Named(path)) if path.text() == "Decimal" => Value::Decimal((*number).into()),
            _ => value,
        }
    }

    fn instance(&self, class: &str, elements: &[(ast::Name, Expression)]) -> Outcome {
        let get = |wanted: &str| -> Outcome {
            let found = elements.iter().find(|(name, _)| &*name.text == wanted);
            found.map_or(Ok(Value::Null), |(_, value)| self.value(value))
        };
        let text = |wanted: &str| -> Result<Option<Arc<str>>, String> {
            Ok(match get(wanted)? {
                Value::String(text) => Some(text),
                _ => None,
            })
        };
        match class {
            "Code" | "System.Code" => {
                Ok(Value::Code(Arc::new(Code { code: text("code")?.unwrap_or_default(), system: text("system")?, version: text("version")?, display: text("display")? })))
            }
            "Concept" | "System.Concept" => {
                let codes = match get("codes")? {
                    Value::List(items) => items.to_vec(),
                    other => vec![other],
                };
                let codes = codes.iter().filter_map(|code| match code {
                    Value::Code(code) => Some((**code).clone()),
                    _ => None,
                });
                Ok(Value::Concept(Arc::new(Concept { codes: codes.collect(), display: text("display")? })))
            }
            other => Err(format!("unsupported instance `{other}`")),
        }
    }

    fn call(&self, name: &str, operands: Vec<Value>) -> Outcome {
        for (function, precision) in [("CalculateAgeInYearsAt", Precision::Year), ("CalculateAgeInMonthsAt", Precision::Month), ("CalculateAgeInDaysAt", Precision::Day)] {
            if name == function {
                return self.apply("CalculateAgeAt", operands, Some(precision));
            }
        }
        self.apply(name, operands, None)
    }
}

fn with_context<R>(test: impl FnOnce(&Untyped<'_>) -> R) -> R {
    let now = DateTime::parse_cql("2026-01-15T12:30:00.000Z").unwrap();
    let (zone, units, value_sets, record) = (TimeZone::UTC, Units::new(), ValueSets::new(), Record::default());
    let context = Context { now: &now, zone: &zone, units: &units, value_sets: &value_sets, record: &record };
    test(&Untyped { context, names: BTreeMap::new() })
}

fn evaluate(untyped: &Untyped<'_>, text: &str) -> Outcome {
    let (expression, findings) = parse_expression(&SourceFile::new("example.cql", text));
    match expression {
        Some(expression) if findings.is_empty() => untyped.value(&expression),
        _ => Err(format!("syntax: {:?}", findings.first().map(|finding| &finding.message))),
    }
}

#[test]
fn worked_examples_hold() {
    let failures = with_context(|untyped| {
        let mut failures = Vec::new();
        for row in operators() {
            for example in row.examples {
                match evaluate(untyped, example) {
                    Ok(Value::Boolean(true)) => {}
                    Ok(other) => failures.push(format!("{}: {example} is {:?}", row.name, types::text_of(&other))),
                    Err(reason) => failures.push(format!("{}: {example}: {reason}", row.name)),
                }
            }
        }
        failures
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn names_are_unique_and_signatures_present() {
    let mut seen = std::collections::BTreeSet::new();
    for row in operators() {
        assert!(seen.insert(row.name), "`{}` stands twice", row.name);
        assert!(!row.signatures.is_empty(), "`{}` has no signature", row.name);
        assert!(operator(row.name).is_some());
    }
}

/// Rust's sort panics over an order that is none.
#[test]
fn values_of_every_kind_have_one_order_for_sorting() {
    let texts = [
        "null",
        "true",
        "1",
        "2L",
        "1.5",
        "'a'",
        "@2012",
        "@2012-01",
        "@2012-01-01T",
        "@2012-01-01T10+05:30",
        "@2012-01-01T04:15:00.000Z",
        "@2012-01-01T04+00:00",
        "@T10",
        "@T10:30",
        "1 'g'",
        "900 'mg'",
        "1 'cm'",
        "2 'cm'",
        "11 months",
        "1 year",
        "360 days",
        "7 'd'",
        "1 week",
        "3 '[pH]'",
        "5 'furlong'",
        "4 'furlong'",
        "2 '[iU]'",
        "1:128",
        "{1}",
        "Tuple { a: 1 }",
    ];
    with_context(|untyped| {
        let mut values: Vec<Value> = texts.map(|text| evaluate(untyped, text).unwrap()).into();
        values.push(Value::Interval(Arc::new(Interval::closed(Value::Integer(0), Value::Integer(9)))));
        let order = |left: &Value, right: &Value| comparison::sort_order(left, right, &untyped.context);
        for a in &values {
            for b in &values {
                assert_eq!(order(a, b), order(b, a).reverse());
                let between = values.iter().filter(|c| order(a, c).is_le() && order(c, b).is_le());
                assert!(order(a, b).is_le() || between.count() == 0);
            }
        }
        let mut many: Vec<&Value> = values.iter().cycle().take(values.len() * 37).collect();
        many.sort_by(|left, right| order(left, right));
        let grams = ["900 'mg'", "1 'g'"].map(|text| evaluate(untyped, text).unwrap());
        assert_eq!(order(&grams[0], &grams[1]), std::cmp::Ordering::Less);
    });
}

#[test]
fn set_operations_over_long_lists_compare_by_key() {
    let numbers = |range: std::ops::Range<i32>| Value::list(range.map(Value::Integer).collect());
    let texts = |range: std::ops::Range<i32>| Value::list(range.map(|number| Value::string(&format!("code {number}"))).collect());
    let count = |name: &str, operands: &[Value]| {
        with_context(|untyped| match untyped.apply(name, operands.to_vec(), None).unwrap() {
            Value::List(items) => items.len(),
            other => panic!("{other:?}"),
        })
    };
    let first = Date::parse("1900-01-01").unwrap();
    let day = |number: i32| Value::Date(first.add(number.into(), Precision::Day).unwrap());
    let days = |range: std::ops::Range<i32>| Value::list(range.map(day).collect());
    let spans = |range: std::ops::Range<i32>| Value::list(range.map(|number| Value::Interval(Arc::new(Interval::closed(day(number), day(number + 1))))).collect());
    let month = |number: i32| Value::Date(Date::new(1 + number / 12, Some(1 + number % 12), None).unwrap());
    let months = |range: std::ops::Range<i32>| Value::list(range.map(|number| Value::Interval(Arc::new(Interval::closed(month(number), month(number))))).collect());
    assert_eq!(count("Union", &[months(0..60_000), months(30_000..90_000)]), 90_000);
    for list in [&numbers as &dyn Fn(_) -> _, &texts, &days, &spans] {
        let twice = |name: &str| {
            let Value::List(items) = list(0..100_000) else { panic!("a list") };
            let with_one_more = Value::list(items.iter().chain(items.last()).cloned().collect());
            with_context(|untyped| untyped.apply(name, vec![with_one_more], None).unwrap())
        };
        with_context(|untyped| assert_eq!(comparison::equal(&twice("Mode"), &twice("Last"), &untyped.context), Some(true)));
        assert_eq!(count("Union", &[list(0..100_000), list(50_000..150_000)]), 150_000);
        assert_eq!(count("Intersect", &[list(0..100_000), list(50_000..150_000)]), 50_000);
        assert_eq!(count("Except", &[list(0..100_000), list(50_000..150_000)]), 50_000);
    }
}
