//! Equality, equivalence and order.

use super::{Call, Fault, Nulls, Operator, Signature, T, Timing};
use std::cmp::Ordering;
use std::sync::Arc;

use rust_decimal::{Decimal, RoundingStrategy};

use super::Context;
use crate::cql::interval::both;
use crate::cql::value::{Code, DateTime, Precision, Quantity, Ratio, Value};
use crate::fhir::record::{NodeId, NodeKind};

/// Chapter 12 Comparison of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "12 Comparison";
    "Equal" Plain Propagate equal_to { (T, T) -> Boolean }
        ["1 = 1.0", "{1, null} = {1, null}", "(@2012 = @2012-01) is null", "@T10:30:00 = @T10:30:00.0", "(1 'cm' = 1 'g') is null"]
    "NotEqual" Plain Propagate not_equal_to { (T, T) -> Boolean } ["1 != 2"]
    "Equivalent" Plain Handled equivalent_to { (Concept, Code) -> Boolean, (Code, Concept) -> Boolean, (T, T) -> Boolean }
        ["null ~ null", "'ABC' ~ 'abc'", "{1, null} ~ {1, null}", "not (@2012 ~ @2012-01)"]
    "NotEquivalent" Plain Handled not_equivalent_to { (Concept, Code) -> Boolean, (Code, Concept) -> Boolean, (T, T) -> Boolean } ["1 !~ 2"]
    "Less" Plain Propagate less {
        (Integer, Integer) -> Boolean, (Long, Long) -> Boolean, (Decimal, Decimal) -> Boolean, (String, String) -> Boolean,
        (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (Quantity, Quantity) -> Boolean,
    } ["1 < 2", "(@2012 < @2012-01) is null", "@T10:30:00 < @T10:30:00.5", "not (1 'cm' < 1 'cm')", "(1 'cm' < 1 'g') is null"]
    "LessOrEqual" Plain Propagate less_or_equal {
        (Integer, Integer) -> Boolean, (Long, Long) -> Boolean, (Decimal, Decimal) -> Boolean, (String, String) -> Boolean,
        (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (Quantity, Quantity) -> Boolean,
    } ["1 'cm' <= 10 'mm'", "@T10:00 <= @T10:00"]
    "Greater" Plain Propagate greater {
        (Integer, Integer) -> Boolean, (Long, Long) -> Boolean, (Decimal, Decimal) -> Boolean, (String, String) -> Boolean,
        (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (Quantity, Quantity) -> Boolean,
    } ["2.0 > 1", "'b' > 'a'"]
    "GreaterOrEqual" Plain Propagate greater_or_equal {
        (Integer, Integer) -> Boolean, (Long, Long) -> Boolean, (Decimal, Decimal) -> Boolean, (String, String) -> Boolean,
        (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (Quantity, Quantity) -> Boolean,
    } ["1 'm' >= 100 'cm'"]
    }
};

/// Deepest nesting that equality follows; anything deeper cannot be told.
const DEPTH_MAX: usize = 64;

/// The order of two values of one ordered type, at a precision for dates and times. `None` when it
/// cannot be told: a null, partial dates, incommensurable units, types that have no order.
pub fn order(left: &Value, right: &Value, precision: Option<Precision>, context: &Context<'_>) -> Option<Ordering> {
    match (left, right) {
        (Value::Integer(left), Value::Integer(right)) => Some(left.cmp(right)),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Boolean(left), Value::Boolean(right)) => Some(left.cmp(right)),
        (Value::Date(left), Value::Date(right)) => left.compare(right, precision),
        (Value::Time(left), Value::Time(right)) => left.compare(right, precision),
        (Value::DateTime(left), Value::DateTime(right)) => left.compare(right, precision, context.zone),
        (Value::Date(left), Value::DateTime(right)) => DateTime::new(*left, None, None)?.compare(right, precision, context.zone),
        (Value::DateTime(left), Value::Date(right)) => left.compare(&DateTime::new(*right, None, None)?, precision, context.zone),
        (Value::Quantity(left), Value::Quantity(right)) => context.units.compare((left.value, &left.unit), (right.value, &right.unit)),
        (Value::Quantity(_), Value::Integer(_) | Value::Long(_) | Value::Decimal(_)) => order(left, &Value::quantity(decimal(right)?, "1"), precision, context),
        (Value::Integer(_) | Value::Long(_) | Value::Decimal(_), Value::Quantity(_)) => order(&Value::quantity(decimal(left)?, "1"), right, precision, context),
        _ => Some(decimal(left)?.cmp(&decimal(right)?)),
    }
}

/// The number in an Integer, Long or Decimal.
pub fn decimal(value: &Value) -> Option<Decimal> {
    match value {
        Value::Integer(value) => Some(Decimal::from(*value)),
        Value::Long(value) => Some(Decimal::from(*value)),
        Value::Decimal(value) => Some(*value),
        _ => None,
    }
}

/// An order for sorting, total whatever the values are: null first, kinds apart, quantities of other dimensions apart, dates
/// and times by their earliest reading, then by precision. Not the order of `<`, which may be unknown.
pub fn sort_order(left: &Value, right: &Value, context: &Context<'_>) -> Ordering {
    let within = || match (left, right) {
        (Value::Boolean(left), Value::Boolean(right)) => left.cmp(right),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        _ => match (moment(left, context), moment(right, context)) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => amounts(left, right, context),
        },
    };
    kind(left).cmp(&kind(right)).then_with(within)
}

/// Kinds of values that have an order among themselves.
fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Boolean(_) => 1,
        Value::Integer(_) | Value::Long(_) | Value::Decimal(_) | Value::Quantity(_) | Value::Interval(_) => 2,
        Value::String(_) => 3,
        Value::Date(_) | Value::DateTime(_) => 4,
        Value::Time(_) => 5,
        _ => 6,
    }
}

/// The earliest that a date or time can be, in milliseconds, and its precision.
fn moment(value: &Value, context: &Context<'_>) -> Option<(i64, usize)> {
    let of = |point: &DateTime| point.low().epoch_milliseconds(context.zone);
    Some(match value {
        Value::Date(date) => (of(&DateTime::new(*date, None, None)?), date.precision().index()),
        Value::DateTime(point) => (of(point), point.precision().index()),
        Value::Time(time) => (time.low().milliseconds(), time.precision().index()),
        _ => return None,
    })
}

/// Numbers, quantities and uncertain counts by the least and then the greatest that they can be.
fn amounts(left: &Value, right: &Value, context: &Context<'_>) -> Ordering {
    fn amount(value: &Value) -> Option<(Decimal, &str)> {
        match value {
            Value::Quantity(own) => Some((own.value, &own.unit)),
            other => Some((decimal(other)?, "1")),
        }
    }
    let ((left_low, left_high), (right_low, right_high)) = (extremes(left), extremes(right));
    let order = |left: &Value, right: &Value| match (amount(left), amount(right)) {
        (Some(left), Some(right)) => context.units.sort_order(left, right),
        (left, right) => left.is_some().cmp(&right.is_some()),
    };
    order(left_low, right_low).then_with(|| order(left_high, right_high))
}

/// Equality (`=`): `None` when it cannot be told.
pub fn equal(left: &Value, right: &Value, context: &Context<'_>) -> Option<bool> {
    equal_within(left, right, context, DEPTH_MAX)
}

fn equal_within(left: &Value, right: &Value, context: &Context<'_>, depth: usize) -> Option<bool> {
    let depth = depth.checked_sub(1)?;
    match (left, right) {
        (Value::Null, _) | (_, Value::Null) => None,
        (Value::String(left), Value::String(right)) => Some(left == right),
        (Value::List(left), Value::List(right)) => {
            if left.len() != right.len() {
                return Some(false);
            }
            pairs_equal(left.iter().zip(right.iter()), context, depth)
        }
        (Value::Tuple(left), Value::Tuple(right)) => elements_equal(&left.elements, &right.elements, context, depth),
        (Value::Instance(left), Value::Instance(right)) => {
            if left.class != right.class {
                return Some(false);
            }
            elements_equal(&left.elements, &right.elements, context, depth)
        }
        (Value::Interval(left), Value::Interval(right)) => left.equal(right, context),
        (Value::Interval(_), number) | (number, Value::Interval(_)) if decimal(number).is_some() => numbers_equal(left, right, context),
        (Value::Code(left), Value::Code(right)) => code_equal(left, right),
        (Value::Concept(left), Value::Concept(right)) => {
            if left.codes.len() != right.codes.len() {
                return Some(false);
            }
            let codes = left.codes.iter().zip(&right.codes).map(|(left, right)| code_equal(left, right));
            let display = optional_equal(left.display.as_ref(), right.display.as_ref());
            all_equal(codes.chain(std::iter::once(display)))
        }
        (Value::Ratio(left), Value::Ratio(right)) => {
            let same = |left: &Quantity, right: &Quantity| {
                let order = context.units.compare((left.value, &left.unit), (right.value, &right.unit));
                order.map(|order| order == Ordering::Equal)
            };
            let parts = [same(&left.numerator, &right.numerator), same(&left.denominator, &right.denominator)];
            all_equal(parts.into_iter())
        }
        (Value::CodeSystem(left), Value::CodeSystem(right)) | (Value::ValueSet(left), Value::ValueSet(right)) => Some(left.id == right.id && left.version == right.version),
        (Value::Node(left, _), Value::Node(right, _)) => node_equal(*left, *right, context, depth),
        _ if comparable(left, right) => order(left, right, None, context).map(|order| order == Ordering::Equal),
        _ => Some(false),
    }
}

/// Whether two scalars are of types that have a common order.
fn comparable(left: &Value, right: &Value) -> bool {
    let numeric = |value: &Value| decimal(value).is_some() || matches!(value, Value::Quantity(_));
    let dated = |value: &Value| matches!(value, Value::Date(_) | Value::DateTime(_));
    std::mem::discriminant(left) == std::mem::discriminant(right) || (numeric(left) && numeric(right)) || (dated(left) && dated(right))
}

/// The conjunction of comparisons: what differs surely anywhere is unequal, whatever is unknown elsewhere.
fn all_equal(mut answers: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut all = Some(true);
    while all != Some(false)
        && let Some(answer) = answers.next()
    {
        all = both(all, answer);
    }
    all
}

fn pairs_equal<'v>(pairs: impl Iterator<Item = (&'v Value, &'v Value)>, context: &Context<'_>, depth: usize) -> Option<bool> {
    all_equal(pairs.map(|(left, right)| {
        if left.is_null() && right.is_null() {
            return Some(true);
        }
        equal_within(left, right, context, depth)
    }))
}

type Elements = [(Arc<str>, Value)];

fn elements_equal(left: &Elements, right: &Elements, context: &Context<'_>, depth: usize) -> Option<bool> {
    static NULL: Value = Value::Null;
    let find = |among: &'_ Elements, name: &str| among.iter().any(|(own, _)| &**own == name);
    if right.iter().any(|(name, _)| !find(left, name)) && left.len() == right.len() {
        return Some(false);
    }
    if left.len() != right.len() {
        return Some(false);
    }
    let pairs = left.iter().map(|(name, value)| {
        let other = right.iter().find(|(own, _)| own == name).map_or(&NULL, |(_, value)| value);
        (value, other)
    });
    pairs_equal(pairs, context, depth)
}

fn optional_equal(left: Option<&Arc<str>>, right: Option<&Arc<str>>) -> Option<bool> {
    match (left, right) {
        (None, None) => Some(true),
        (Some(left), Some(right)) => Some(left == right),
        _ => None,
    }
}

fn code_equal(left: &Code, right: &Code) -> Option<bool> {
    all_equal(
        [
            Some(left.code == right.code),
            optional_equal(left.system.as_ref(), right.system.as_ref()),
            optional_equal(left.version.as_ref(), right.version.as_ref()),
            optional_equal(left.display.as_ref(), right.display.as_ref()),
        ]
        .into_iter(),
    )
}

/// Equivalence (`~`): always true or false; two nulls are equivalent.
pub fn equivalent(left: &Value, right: &Value, context: &Context<'_>) -> bool {
    equivalent_within(left, right, context, DEPTH_MAX)
}

fn equivalent_within(left: &Value, right: &Value, context: &Context<'_>, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::String(left), Value::String(right)) => folded(left) == folded(right),
        (Value::Code(left), Value::Code(right)) => code_equivalent(left, right),
        (Value::Concept(concept), Value::Code(code)) | (Value::Code(code), Value::Concept(concept)) => concept.codes.iter().any(|own| code_equivalent(own, code)),
        (Value::Concept(left), Value::Concept(right)) => left.codes.iter().any(|own| right.codes.iter().any(|other| code_equivalent(own, other))),
        (Value::List(left), Value::List(right)) => left.len() == right.len() && left.iter().zip(right.iter()).all(|(left, right)| equivalent_within(left, right, context, depth)),
        (Value::Tuple(left), Value::Tuple(right)) => elements_equivalent(&left.elements, &right.elements, context, depth),
        (Value::Instance(left), Value::Instance(right)) => left.class == right.class && elements_equivalent(&left.elements, &right.elements, context, depth),
        (Value::Interval(left), Value::Interval(right)) => left.equivalent(right, context),
        (Value::Quantity(left), Value::Quantity(right)) => quantity_equivalent(left, right, context),
        (Value::Ratio(left), Value::Ratio(right)) => ratio_equivalent(left, right, context),
        (Value::Node(left, _), Value::Node(right, _)) => node_equal(*left, *right, context, depth) == Some(true),
        _ => match (decimal(left), decimal(right)) {
            (Some(left), Some(right)) => decimal_equivalent(left, right),
            _ => equal_within(left, right, context, depth) == Some(true),
        },
    }
}

fn elements_equivalent(left: &Elements, right: &Elements, context: &Context<'_>, depth: usize) -> bool {
    left.len() == right.len()
        && left.iter().all(|(name, value)| {
            let other = right.iter().find(|(own, _)| own == name);
            other.is_some_and(|(_, other)| equivalent_within(value, other, context, depth))
        })
}

/// Text without regard to case, runs of white space as one space.
fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut blank = false;
    for character in text.chars() {
        if character.is_whitespace() {
            if !blank {
                folded.push(' ');
            }
            blank = true;
        } else {
            blank = false;
            folded.extend(character.to_lowercase());
        }
    }
    folded
}

/// Equal at the precision of the less precise one, trailing zeros not counted.
fn decimal_equivalent(left: Decimal, right: Decimal) -> bool {
    let (left, right) = (left.normalize(), right.normalize());
    let places = left.scale().min(right.scale());
    let rounded = |value: Decimal| value.round_dp_with_strategy(places, RoundingStrategy::MidpointAwayFromZero);
    rounded(left) == rounded(right)
}

/// Codes are equivalent by code and system, whatever version and display say.
pub fn code_equivalent(left: &Code, right: &Code) -> bool {
    left.code == right.code && left.system == right.system
}

fn quantity_equivalent(left: &Quantity, right: &Quantity, context: &Context<'_>) -> bool {
    if context.units.compare((left.value, &left.unit), (right.value, &right.unit)) == Some(Ordering::Equal) {
        return true;
    }
    let converted = context.units.convert_loosely(right.value, &right.unit, &left.unit);
    converted.is_some_and(|right| decimal_equivalent(left.value, right))
}

fn ratio_equivalent(left: &Ratio, right: &Ratio, context: &Context<'_>) -> bool {
    let number = |from: &Quantity, to: &Quantity| context.units.convert_loosely(from.value, &from.unit, &to.unit);
    let cross = || {
        let numerator = number(&right.numerator, &left.numerator)?;
        let denominator = number(&right.denominator, &left.denominator)?;
        let one = left.numerator.value.checked_mul(denominator)?;
        let other = numerator.checked_mul(left.denominator.value)?;
        Some(one == other)
    };
    cross() == Some(true)
}

/// Equality of numbers of which only the bounds may be known: of two such counts nobody can say that they are equal.
fn numbers_equal(left: &Value, right: &Value, context: &Context<'_>) -> Option<bool> {
    if !matches!((left, right), (Value::Interval(_), _) | (_, Value::Interval(_))) {
        return order(left, right, None, context).map(|order| order == Ordering::Equal);
    }
    let ((left_low, left_high), (right_low, right_high)) = (extremes(left), extremes(right));
    let apart = order(left_high, right_low, None, context)? == Ordering::Less || order(left_low, right_high, None, context)? == Ordering::Greater;
    if apart { Some(false) } else { None }
}

/// The least and the greatest a value can be: itself, or the ends of an uncertain count.
pub(super) fn extremes(value: &Value) -> (&Value, &Value) {
    match value {
        Value::Interval(span) => (&span.low, &span.high),
        other => (other, other),
    }
}

/// `left < right`, with uncertain counts.
fn is_less(left: &Value, right: &Value, context: &Context<'_>) -> Option<bool> {
    let ((left_low, left_high), (right_low, right_high)) = (extremes(left), extremes(right));
    let surely = order(left_high, right_low, None, context)?;
    let never = order(left_low, right_high, None, context)?;
    match (surely, never) {
        (Ordering::Less, _) => Some(true),
        (_, Ordering::Equal | Ordering::Greater) => Some(false),
        _ => None,
    }
}

/// The operands of a comparison. Here seconds and milliseconds are one number, so `10:30:00` is `10:30:00.000` (CQL,
/// "Comparing Dates and Times"); a relation that names a precision, an interval and a list keep them apart.
fn compared<R>(call: &Call<'_>, test: impl FnOnce(&Value, &Value) -> R) -> R {
    on_one_clock(call.operand(0), call.operand(1), test)
}

fn on_one_clock<R>(left: &Value, right: &Value, test: impl FnOnce(&Value, &Value) -> R) -> R {
    let (seconds, milliseconds) = (Some(Precision::Second), Some(Precision::Millisecond));
    match (clock_precision(left), clock_precision(right)) {
        (own, other) if own == seconds && other == milliseconds => test(&with_milliseconds(left), right),
        (own, other) if own == milliseconds && other == seconds => test(left, &with_milliseconds(right)),
        _ => test(left, right),
    }
}

fn clock_precision(value: &Value) -> Option<Precision> {
    match value {
        Value::DateTime(point) => Some(point.precision()),
        Value::Time(time) => Some(time.precision()),
        _ => None,
    }
}

fn with_milliseconds(value: &Value) -> Value {
    match value {
        Value::DateTime(point) => Value::DateTime(point.low()),
        Value::Time(time) => Value::Time(time.low()),
        other => other.clone(),
    }
}

/// The order of two values as `<` sees them; `None` when it cannot be told.
pub(super) fn known_order(left: &Value, right: &Value, context: &Context<'_>) -> Option<Ordering> {
    on_one_clock(left, right, |left, right| order(left, right, None, context))
}

/// `=` and `!=` of what are known to be numbers.
pub(super) static EQUAL_NUMBERS: Operator = Operator { name: "Equal", call: |call| Ok(numbers_equal(call.operand(0), call.operand(1), call.context).into()), ..NUMBERS };
pub(super) static UNEQUAL_NUMBERS: Operator =
    Operator { name: "NotEqual", call: |call| Ok(numbers_equal(call.operand(0), call.operand(1), call.context).map(|equal| !equal).into()), ..NUMBERS };

const NUMBERS: Operator = Operator {
    name: "Equal",
    section: "12 Comparison",
    signatures: &[Signature { operands: &[T, T], result: super::Pattern::Boolean }],
    takes_precision: false,
    nulls: Nulls::Propagate,
    call: equal_to,
    examples: &[],
};

fn equal_to(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(compared(call, |left, right| equal(left, right, call.context)).into())
}

fn not_equal_to(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(compared(call, |left, right| equal(left, right, call.context)).map(|equal| !equal).into())
}

fn equivalent_to(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(compared(call, |left, right| equivalent(left, right, call.context)).into())
}

fn not_equivalent_to(call: &Call<'_>) -> Result<Value, Fault> {
    Ok((!compared(call, |left, right| equivalent(left, right, call.context))).into())
}

fn less(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(compared(call, |left, right| is_less(left, right, call.context)).into())
}

fn less_or_equal(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(compared(call, |left, right| is_less(right, left, call.context)).map(|less| !less).into())
}

fn greater(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(compared(call, |left, right| is_less(right, left, call.context)).into())
}

fn greater_or_equal(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(compared(call, |left, right| is_less(left, right, call.context)).map(|less| !less).into())
}

/// Elements of the record are equal when they are the same element or have the same content.
fn node_equal(left: NodeId, right: NodeId, context: &Context<'_>, depth: usize) -> Option<bool> {
    if left == right {
        return Some(true);
    }
    let depth = depth.checked_sub(1)?;
    let record = context.record;
    let kind = record.kind(left);
    if kind != record.kind(right) {
        return Some(false);
    }
    match kind {
        NodeKind::Null => Some(true),
        NodeKind::Number => match (record.number(left), record.number(right)) {
            (Some(left), Some(right)) => Some(left == right),
            _ => Some(record.literal(left) == record.literal(right)),
        },
        NodeKind::Boolean | NodeKind::Text => Some(record.literal(left) == record.literal(right)),
        NodeKind::Array => {
            let (mut own, mut others) = (record.items(left), record.items(right));
            loop {
                match (own.next(), others.next()) {
                    (None, None) => return Some(true),
                    (Some(own), Some(other)) if node_equal(own, other, context, depth)? => {}
                    _ => return Some(false),
                }
            }
        }
        NodeKind::Object => {
            // Two resources differ by their ids long before their content is walked.
            let id = |node: NodeId| record.get(node, "id").and_then(|id| record.text(id));
            if id(left) != id(right) {
                return Some(false);
            }
            if record.fields(left).count() != record.fields(right).count() {
                return Some(false);
            }
            for field in record.fields(left) {
                let other = record.name(field).and_then(|name| record.get(right, name));
                let Some(other) = other else { return Some(false) };
                if !node_equal(field, other, context, depth)? {
                    return Some(false);
                }
            }
            Some(true)
        }
    }
}
