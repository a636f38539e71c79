//! Lists; set operations shared with intervals are rows of that chapter.

use super::{Call, Fault, LIST, Nulls, Operator, Signature, T, Timing};
use std::cmp::Ordering;
use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use super::Context;
use super::comparison::{equal, order};
use crate::cql::value::{Precision, Value};

/// Chapter 20 List of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "20 List";
    "Distinct" Plain Propagate distinct { (LIST) -> LIST } ["(distinct {1, 1, null, null}) ~ {1, null}"]
    "Exists" Plain Handled exists { (LIST) -> Boolean } ["exists {1}", "not exists {null}"]
    "First" Plain Propagate first { (LIST) -> T } ["First({1, 2}) = 1"]
    "Flatten" Plain Propagate flatten { (List(&LIST)) -> LIST } ["(flatten {{1}, {2, 3}}) = {1, 2, 3}"]
    "IndexOf" Plain Propagate index_of { (LIST, T) -> Integer } ["IndexOf({5, 6}, 6) = 1", "IndexOf({5, 6}, 7) = -1"]
    "Last" Plain Propagate last { (LIST) -> T } ["Last({1, 2}) = 2"]
    "SingletonFrom" Plain Propagate singleton_from { (LIST) -> T } ["singleton from {1} = 1", "(singleton from {}) is null"]
    "Slice" Plain Handled slice { (LIST, Integer, Integer) -> LIST, (LIST, Integer) -> LIST, (LIST) -> LIST } ["Slice({1, 2, 3}, 1, -1) = {2}"]
    "Skip" Plain Handled skip { (LIST, Integer) -> LIST } ["Skip({1, 2, 3}, 1) = {2, 3}", "Skip({1, 2}, null) = {1, 2}", "not exists Skip({1, 2}, -1)"]
    "Tail" Plain Propagate tail { (LIST) -> LIST } ["Tail({1, 2, 3}) = {2, 3}"]
    "Take" Plain Handled take { (LIST, Integer) -> LIST } ["Take({1, 2, 3}, 2) = {1, 2}"]
    }
};

/// `Length` of what is known to be a list: a missing list has no elements, while the length of a missing text is unknown.
pub(super) static LENGTH: Operator = Operator {
    name: "Length",
    section: "20 List",
    signatures: &[Signature { operands: &[LIST], result: super::Pattern::Integer }],
    takes_precision: false,
    nulls: Nulls::Handled,
    call: length,
    examples: &[],
};

/// Equality where two nulls are the same, as lists see their elements.
pub(super) fn same(left: &Value, right: &Value, context: &Context<'_>) -> Option<bool> {
    if left.is_null() || right.is_null() {
        return Some(left.is_null() && right.is_null());
    }
    equal(left, right, context)
}

fn length(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(i32::try_from(items(call.operand(0)).len()).map_or(Value::Null, Value::Integer))
}

fn same_at(left: &Value, right: &Value, precision: Option<Precision>, context: &Context<'_>) -> Option<bool> {
    match precision {
        Some(_) if !left.is_null() && !right.is_null() => order(left, right, precision, context).map(|order| order == Ordering::Equal),
        _ => same(left, right, context),
    }
}

/// Whether an element is in a list: `None` when it is in none for sure but might equal one.
pub fn has(items: &[Value], wanted: &Value, precision: Option<Precision>, context: &Context<'_>) -> Option<bool> {
    let mut unknown = false;
    for item in items {
        match same_at(item, wanted, precision, context) {
            Some(true) => return Some(true),
            Some(false) => {}
            None => unknown = true,
        }
    }
    if unknown { None } else { Some(false) }
}

/// Whether an element is in a list that also has others.
pub(super) fn has_and_more(items: &[Value], wanted: &Value, precision: Option<Precision>, context: &Context<'_>) -> Option<bool> {
    let mut more = Some(false);
    for item in items {
        let differs = match (item.is_null(), wanted.is_null()) {
            (true, true) => Some(false),
            (false, true) => Some(true),
            (true, false) => None,
            (false, false) => same_at(item, wanted, precision, context).map(|same| !same),
        };
        more = crate::cql::interval::either(more, differs);
    }
    crate::cql::interval::both(has(items, wanted, precision, context), more)
}

/// Whether a list has every element of another.
pub(super) fn has_all(outer: &[Value], inner: &[Value], context: &Context<'_>) -> Option<bool> {
    let mut all = Some(true);
    for item in inner {
        all = crate::cql::interval::both(all, has(outer, item, None, context));
    }
    all
}

/// A value that is equal to another of its kind just when their keys are.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'v> {
    Text(&'v str),
    Point(Kind, i64),
    Span(Kind, i64, i64),
}

/// The type of a point, how precise it is, and its offset.
type Kind = (u8, usize, Option<i16>);

fn point(value: &Value) -> Option<(Kind, i64)> {
    Some(match value {
        Value::Integer(number) => ((0, 0, None), i64::from(*number)),
        Value::Long(number) => ((1, 0, None), *number),
        Value::Date(date) => ((2, date.precision().index(), None), date.low().epoch_days()),
        Value::DateTime(at) => ((3, at.precision().index(), at.offset()), at.low().epoch_milliseconds(&TimeZone::UTC)),
        Value::Time(time) => ((4, time.precision().index(), None), time.low().milliseconds()),
        _ => return None,
    })
}

/// The keys of a list of only texts, or of points or closed spans of one kind, so that long lists need not be compared each with each:
/// `expand` makes days by the thousand.
pub(super) fn keys<'v>(items: &[&'v Value]) -> Option<Vec<Key<'v>>> {
    let key = |item: &&'v Value| match item {
        Value::String(text) => Some(Key::Text(text)),
        Value::Interval(span) if span.low_closed && span.high_closed => {
            let ((kind, low), (other, high)) = (point(&span.low)?, point(&span.high)?);
            (kind == other).then_some(Key::Span(kind, low, high))
        }
        one => point(one).map(|(kind, at)| Key::Point(kind, at)),
    };
    let is_like = |pair: &[Key<'v>]| match pair {
        [Key::Text(_), Key::Text(_)] => true,
        [Key::Point(kind, _), Key::Point(other, _)] | [Key::Span(kind, ..), Key::Span(other, ..)] => kind == other,
        _ => false,
    };
    let keys: Vec<Key<'v>> = items.iter().map(key).collect::<Option<_>>()?;
    keys.windows(2).all(is_like).then_some(keys)
}

/// The elements of one list, by whether another has them.
fn chosen<'v>(items: &'v [Value], others: &'v [Value], wanted: bool, context: &Context<'_>) -> Vec<&'v Value> {
    let all: Vec<&Value> = items.iter().chain(others).collect();
    if let Some(keys) = keys(&all) {
        let (own, other) = keys.split_at(items.len());
        let other: BTreeSet<&Key<'_>> = other.iter().collect();
        return items.iter().zip(own).filter(|(_, key)| other.contains(key) == wanted).map(|(item, _)| item).collect();
    }
    items.iter().filter(|item| (has(others, item, None, context) == Some(true)) == wanted).collect()
}

/// The elements without repetition, in the order of their first appearance.
pub fn distinct_of<'v>(items: impl Iterator<Item = &'v Value>, context: &Context<'_>) -> Vec<Value> {
    let items: Vec<&Value> = items.collect();
    if let Some(keys) = keys(&items) {
        let mut seen = BTreeSet::new();
        return items.into_iter().zip(keys).filter_map(|(item, key)| seen.insert(key).then(|| item.clone())).collect();
    }
    let mut kept: Vec<Value> = Vec::new();
    for item in items {
        if has(&kept, item, None, context) != Some(true) {
            kept.push(item.clone());
        }
    }
    kept
}

pub(super) fn distinct_count(items: &[Value], context: &Context<'_>) -> usize {
    distinct_of(items.iter(), context).len()
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::List(items) => items,
        _ => &[],
    }
}

pub(super) fn union(left: &Value, right: &Value, context: &Context<'_>) -> Value {
    if left.is_null() && right.is_null() {
        return Value::Null;
    }
    Value::list(distinct_of(items(left).iter().chain(items(right)), context))
}

pub(super) fn intersect(left: &[Value], right: &[Value], context: &Context<'_>) -> Value {
    Value::list(distinct_of(chosen(left, right, true, context).into_iter(), context))
}

pub(super) fn except(left: &[Value], right: &[Value], context: &Context<'_>) -> Value {
    Value::list(distinct_of(chosen(left, right, false, context).into_iter(), context))
}

fn distinct(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(Value::list(distinct_of(items(call.operand(0)).iter(), call.context)))
}

fn exists(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(items(call.operand(0)).iter().any(|item| !item.is_null()).into())
}

fn first(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(items(call.operand(0)).first().cloned().unwrap_or_default())
}

fn last(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(items(call.operand(0)).last().cloned().unwrap_or_default())
}

fn flatten(call: &Call<'_>) -> Result<Value, Fault> {
    let mut flat = Vec::new();
    for item in items(call.operand(0)) {
        match item {
            Value::List(inner) => flat.extend(inner.iter().cloned()),
            Value::Null => {}
            other => flat.push(other.clone()),
        }
    }
    Ok(Value::list(flat))
}

fn index_of(call: &Call<'_>) -> Result<Value, Fault> {
    let wanted = call.operand(1);
    let at = items(call.operand(0)).iter().position(|item| equal(item, wanted, call.context) == Some(true));
    let at = at.map_or(Some(-1), |at| i32::try_from(at).ok());
    Ok(at.map_or(Value::Null, Value::Integer))
}

fn singleton_from(call: &Call<'_>) -> Result<Value, Fault> {
    match items(call.operand(0)) {
        [] => Ok(Value::Null),
        [only] => Ok(only.clone()),
        many => Err(Fault::new(format!("`singleton from` found {} elements, it expects at most one", many.len()))),
    }
}

/// A position from the start, or from the end when it is negative.
fn place(index: &Value, count: usize) -> Option<usize> {
    let Value::Integer(index) = index else { return None };
    let size = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
    Some(if *index < 0 { count.saturating_sub(size) } else { size.min(count) })
}

fn slice(call: &Call<'_>) -> Result<Value, Fault> {
    let Value::List(list) = call.operand(0) else { return Ok(Value::Null) };
    let start = place(call.operand(1), list.len()).unwrap_or(0);
    let end = place(call.operand(2), list.len()).unwrap_or(list.len());
    Ok(Value::list(list.get(start..end).unwrap_or_default().to_vec()))
}

fn skip(call: &Call<'_>) -> Result<Value, Fault> {
    let Value::List(list) = call.operand(0) else { return Ok(Value::Null) };
    let count = match call.operand(1) {
        // Of fewer than none, nothing is left.
        Value::Integer(count) => usize::try_from(*count).unwrap_or(usize::MAX),
        _ => 0,
    };
    Ok(Value::list(list.iter().skip(count).cloned().collect()))
}

fn tail(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(Value::list(items(call.operand(0)).iter().skip(1).cloned().collect()))
}

fn take(call: &Call<'_>) -> Result<Value, Fault> {
    let Value::List(list) = call.operand(0) else { return Ok(Value::Null) };
    let count = match call.operand(1) {
        Value::Integer(count) => usize::try_from(*count).unwrap_or(0),
        _ => 0,
    };
    Ok(Value::list(list.iter().take(count).cloned().collect()))
}
