//! Intervals and their relations.

use super::{Call, Fault, INTERVAL, INTERVALS, LIST, Nulls, Operator, Signature, T, Timing};
use std::cmp::Ordering;
use std::sync::Arc;

use rust_decimal::prelude::ToPrimitive;
use rust_decimal::{Decimal, RoundingStrategy};

use super::Context;
use super::arithmetic::{difference_of, moved_by, sum_of};
use super::comparison::{decimal, equal, order, sort_order};
use super::date_time::{ends_of, says_nothing};
use super::list;
use crate::cql::interval::{Interval as Range, Scale};
use crate::cql::value::{Precision, Quantity, Value};

/// Chapter 19 Interval of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "19 Interval";
    "After" Precise Propagate after { (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (INTERVAL, INTERVAL) -> Boolean, (T, INTERVAL) -> Boolean, (INTERVAL, T) -> Boolean } ["Interval[5, 6] after Interval[1, 4]", "@2012-02-29 after month of @2012-01-31"]
    "Before" Precise Propagate before { (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (INTERVAL, INTERVAL) -> Boolean, (T, INTERVAL) -> Boolean, (INTERVAL, T) -> Boolean } ["Interval[1, 4] before Interval[5, 6]", "1 before Interval[5, 6]"]
    "Collapse" Plain Handled collapse { (INTERVALS) -> INTERVALS, (INTERVALS, Quantity) -> INTERVALS } ["(collapse {Interval[1, 4], Interval[4, 8]}) = {Interval[1, 8]}"]
    "Contains" Precise Handled contains { (INTERVAL, T) -> Boolean, (LIST, T) -> Boolean } ["Interval[1, 5] contains 3", "{1, null} contains null"]
    "End" Plain Propagate end { (INTERVAL) -> T } ["end of Interval[1, 5) = 4"]
    "Ends" Precise Propagate ends { (INTERVAL, INTERVAL) -> Boolean } ["Interval[3, 5] ends Interval[1, 5]"]
    "Except" Plain Handled except { (INTERVAL, INTERVAL) -> INTERVAL, (LIST, LIST) -> LIST } ["(Interval[1, 5] except Interval[3, 7]) = Interval[1, 2]"]
    "Expand" Plain Handled expand { (INTERVALS) -> INTERVALS, (INTERVALS, Quantity) -> INTERVALS, (INTERVAL) -> LIST, (INTERVAL, Quantity) -> LIST }
        ["(expand Interval[1, 3]) = {1, 2, 3}", "(expand {Interval[1, 2]}) = {Interval[1, 1], Interval[2, 2]}"]
    "In" Precise Handled is_in { (T, INTERVAL) -> Boolean, (T, LIST) -> Boolean } ["3 in Interval[1, 5]", "null in {1, null}", "3 in {3}", "@9999-12-31T23:59:59.999-05:00 in Interval[@2012-01-01T00:00:00.000, null]"]
    "Includes" Precise Handled includes { (INTERVAL, INTERVAL) -> Boolean, (LIST, LIST) -> Boolean } ["Interval[1, 5] includes Interval[2, 3]", "{1, 2, 3} includes {1}"]
    "IncludedIn" Precise Handled included_in { (INTERVAL, INTERVAL) -> Boolean, (LIST, LIST) -> Boolean } ["Interval[2, 3] included in Interval[1, 5]"]
    "Intersect" Plain Handled intersect { (INTERVAL, INTERVAL) -> INTERVAL, (LIST, LIST) -> LIST } ["(Interval[1, 5] intersect Interval[3, 7]) = Interval[3, 5]", "({1, 2} intersect {2, 3}) = {2}"]
    "Meets" Precise Propagate meets { (INTERVAL, INTERVAL) -> Boolean } ["Interval[1, 5] meets Interval[6, 7]"]
    "MeetsBefore" Precise Propagate meets_before { (INTERVAL, INTERVAL) -> Boolean } ["Interval[1, 5] meets before Interval[6, 7]"]
    "MeetsAfter" Precise Propagate meets_after { (INTERVAL, INTERVAL) -> Boolean } ["Interval[6, 7] meets after Interval[1, 5]"]
    "Overlaps" Precise Propagate overlaps { (INTERVAL, INTERVAL) -> Boolean } ["Interval[1, 5] overlaps Interval[5, 7]"]
    "OverlapsBefore" Precise Propagate overlaps_before { (INTERVAL, INTERVAL) -> Boolean } ["Interval[1, 5] overlaps before Interval[3, 7]"]
    "OverlapsAfter" Precise Propagate overlaps_after { (INTERVAL, INTERVAL) -> Boolean } ["Interval[3, 7] overlaps after Interval[1, 5]"]
    "PointFrom" Plain Propagate point_from { (INTERVAL) -> T } ["point from Interval[5, 5] = 5"]
    "ProperContains" Precise Handled proper_contains { (INTERVAL, T) -> Boolean, (LIST, T) -> Boolean } ["Interval[1, 5] properly includes 3"]
    "ProperIn" Precise Handled proper_in { (T, INTERVAL) -> Boolean, (T, LIST) -> Boolean } ["3 properly included in Interval[1, 5]"]
    "ProperIncludes" Precise Handled proper_includes { (INTERVAL, INTERVAL) -> Boolean, (LIST, LIST) -> Boolean } ["Interval[1, 5] properly includes Interval[2, 3]"]
    "ProperIncludedIn" Precise Handled proper_included_in { (INTERVAL, INTERVAL) -> Boolean, (LIST, LIST) -> Boolean } ["Interval[2, 3] properly included in Interval[1, 5]"]
    "Size" Plain Propagate size { (INTERVAL) -> T } ["Size(Interval[3, 7]) = 5"]
    "Start" Plain Propagate start { (INTERVAL) -> T } ["start of Interval(1, 5] = 2", "(start of Interval(1, 2)) is null", "Interval(@T23:59, @T23:59:59.999) is null"]
    "Starts" Precise Propagate starts { (INTERVAL, INTERVAL) -> Boolean } ["Interval[1, 3] starts Interval[1, 5]"]
    "Union" Plain Handled union { (INTERVAL, INTERVAL) -> INTERVAL, (LIST, LIST) -> LIST } ["(Interval[1, 5] union Interval[3, 7]) = Interval[1, 7]", "(Interval[1, null] union Interval[2, null)) = Interval[1, null]", "({1, 2} union {2, 3}) = {1, 2, 3}"]
    "Width" Plain Propagate width { (INTERVAL) -> T } ["width of Interval[3, 7] = 4"]
    }
};

/// The most points that one expansion may have.
const EXPANSION_MAX: usize = 100_000;

fn scale<'a, 'c>(call: &'a Call<'c>) -> Scale<'a, 'c> {
    Scale { precision: call.precision, context: call.context }
}

fn range(value: Range) -> Value {
    Value::Interval(Arc::new(value))
}

/// A relation of two intervals; null for anything that is not one.
fn relate(call: &Call<'_>, relation: fn(&Range, &Range, Scale<'_, '_>) -> Option<bool>) -> Result<Value, Fault> {
    Ok(match (call.operand(0), call.operand(1)) {
        (Value::Interval(left), Value::Interval(right)) if !says_nothing(call) => relation(left, right, scale(call)).into(),
        _ => Value::Null,
    })
}

fn after(call: &Call<'_>) -> Result<Value, Fault> {
    if says_nothing(call) {
        return Ok(Value::Null);
    }
    let ((start, _), (_, end)) = (ends_of(call.operand(0)), ends_of(call.operand(1)));
    Ok(end.before(&start, scale(call)).into())
}

fn before(call: &Call<'_>) -> Result<Value, Fault> {
    if says_nothing(call) {
        return Ok(Value::Null);
    }
    let ((_, end), (start, _)) = (ends_of(call.operand(0)), ends_of(call.operand(1)));
    Ok(end.before(&start, scale(call)).into())
}

fn meets(call: &Call<'_>) -> Result<Value, Fault> {
    relate(call, Range::meets)
}

fn meets_before(call: &Call<'_>) -> Result<Value, Fault> {
    relate(call, Range::meets_before)
}

fn meets_after(call: &Call<'_>) -> Result<Value, Fault> {
    relate(call, |left, right, scale| right.meets_before(left, scale))
}

fn overlaps(call: &Call<'_>) -> Result<Value, Fault> {
    relate(call, Range::overlaps)
}

fn overlaps_before(call: &Call<'_>) -> Result<Value, Fault> {
    relate(call, Range::overlaps_before)
}

fn overlaps_after(call: &Call<'_>) -> Result<Value, Fault> {
    relate(call, Range::overlaps_after)
}

fn starts(call: &Call<'_>) -> Result<Value, Fault> {
    relate(call, Range::starts)
}

fn ends(call: &Call<'_>) -> Result<Value, Fault> {
    relate(call, Range::ends)
}

/// Membership of a point in an interval or list; in nothing there is nothing.
fn member(call: &Call<'_>, among: &Value, point: &Value) -> Value {
    match among {
        Value::List(items) => list::has(items, point, call.precision, call.context).into(),
        Value::Interval(interval) if interval.is_void() => false.into(),
        Value::Interval(_) if point.is_null() => Value::Null,
        Value::Interval(interval) => interval.contains(point, scale(call)).into(),
        _ => false.into(),
    }
}

fn contains(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(member(call, call.operand(0), call.operand(1)))
}

fn is_in(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(member(call, call.operand(1), call.operand(0)))
}

fn proper_member(call: &Call<'_>, among: &Value, point: &Value) -> Value {
    match among {
        Value::List(items) => list::has_and_more(items, point, call.precision, call.context).into(),
        Value::Interval(_) if point.is_null() => Value::Null,
        Value::Interval(interval) => interval.properly_contains(point, scale(call)).into(),
        _ => false.into(),
    }
}

fn proper_contains(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(proper_member(call, call.operand(0), call.operand(1)))
}

fn proper_in(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(proper_member(call, call.operand(1), call.operand(0)))
}

fn inclusion(call: &Call<'_>, outer: &Value, inner: &Value, proper: bool) -> Value {
    match (outer, inner) {
        (Value::Interval(outer), Value::Interval(inner)) if proper => outer.properly_includes(inner, scale(call)).into(),
        (Value::Interval(outer), Value::Interval(inner)) => outer.includes(inner, scale(call)).into(),
        (Value::List(outer), Value::List(inner)) => {
            let all = list::has_all(outer, inner, call.context);
            let more = !proper || list::distinct_count(outer, call.context) > list::distinct_count(inner, call.context);
            if more { all.into() } else { false.into() }
        }
        (Value::List(_), Value::Null) if proper => proper_member(call, outer, inner),
        (Value::Interval(_) | Value::List(_), Value::Null) => Value::Null,
        (Value::Null, Value::List(_) | Value::Interval(_) | Value::Null) => Value::Null,
        // A single point or element on the inner side.
        (outer, point) if proper => proper_member(call, outer, point),
        (outer, point) => member(call, outer, point),
    }
}

fn includes(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(inclusion(call, call.operand(0), call.operand(1), false))
}

fn included_in(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(inclusion(call, call.operand(1), call.operand(0), false))
}

fn proper_includes(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(inclusion(call, call.operand(0), call.operand(1), true))
}

fn proper_included_in(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(inclusion(call, call.operand(1), call.operand(0), true))
}

fn start(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(match call.operand(0) {
        Value::Interval(interval) => interval.start(),
        _ => Value::Null,
    })
}

fn end(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(match call.operand(0) {
        Value::Interval(interval) => interval.end(),
        _ => Value::Null,
    })
}

fn point_from(call: &Call<'_>) -> Result<Value, Fault> {
    let Value::Interval(interval) = call.operand(0) else { return Ok(Value::Null) };
    let (first, last) = (interval.start(), interval.end());
    match equal(&first, &last, call.context) {
        Some(true) => Ok(first),
        Some(false) => Err(Fault::new("`point from` needs an interval of a single point")),
        None => Ok(Value::Null),
    }
}

fn is_number(value: &Value) -> bool {
    matches!(value, Value::Integer(_) | Value::Long(_) | Value::Decimal(_) | Value::Quantity(_))
}

fn is_dated(value: &Value) -> bool {
    matches!(value, Value::Date(_) | Value::DateTime(_) | Value::Time(_))
}

fn width(call: &Call<'_>) -> Result<Value, Fault> {
    let Value::Interval(interval) = call.operand(0) else { return Ok(Value::Null) };
    let (first, last) = (interval.start(), interval.end());
    if is_dated(&first) || is_dated(&last) {
        return Err(Fault::new("`width of` and `Size` are for numbers; ask for the `duration in days of` an interval of dates"));
    }
    Ok(if is_number(&first) && is_number(&last) { difference_of(&last, &first, call.context) } else { Value::Null })
}

fn size(call: &Call<'_>) -> Result<Value, Fault> {
    let width = width(call)?;
    let step = match &width {
        Value::Integer(_) => Value::Integer(1),
        Value::Long(_) => Value::Long(1),
        Value::Decimal(_) => Value::Decimal(Decimal::new(1, 8)),
        Value::Quantity(width) => Value::quantity(Decimal::new(1, 8), &width.unit),
        _ => return Ok(Value::Null),
    };
    Ok(sum_of(&width, &step, call.context))
}

fn union(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(match (call.operand(0), call.operand(1)) {
        (Value::Interval(left), Value::Interval(right)) if !says_nothing(call) => left.union(right, scale(call)).map_or(Value::Null, range),
        (Value::Interval(_), _) | (_, Value::Interval(_)) => Value::Null,
        (left, right) => list::union(left, right, call.context),
    })
}

fn intersect(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(match (call.operand(0), call.operand(1)) {
        (Value::Interval(left), Value::Interval(right)) if !says_nothing(call) => left.intersect(right, scale(call)).map_or(Value::Null, range),
        (Value::List(left), Value::List(right)) => list::intersect(left, right, call.context),
        _ => Value::Null,
    })
}

fn except(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(match (call.operand(0), call.operand(1)) {
        (Value::Interval(left), Value::Interval(right)) if !says_nothing(call) => left.except(right, scale(call)).map_or(Value::Null, range),
        (Value::List(left), Value::List(right)) => list::except(left, right, call.context),
        (Value::List(left), Value::Null) => list::except(left, &[], call.context),
        _ => Value::Null,
    })
}

/// Intervals in order.
type Sorted = Vec<Arc<Range>>;

/// The intervals of a list (or one interval): those whose ends are known, and those with an end that is not.
fn sorted_intervals(value: &Value, context: &Context<'_>) -> Option<(Sorted, Sorted)> {
    let mut all: Vec<Arc<Range>> = match value {
        Value::List(items) => items
            .iter()
            .filter_map(|item| match item {
                Value::Interval(interval) if !interval.is_void() => Some(interval.clone()),
                _ => None,
            })
            .collect(),
        Value::Interval(interval) => vec![interval.clone()],
        _ => return None,
    };
    in_order(&mut all, context);
    Some(all.into_iter().partition(|interval| !interval.start().is_null() && !interval.end().is_null()))
}

fn in_order(intervals: &mut [Arc<Range>], context: &Context<'_>) {
    intervals.sort_by(|left, right| sort_order(&left.start(), &right.start(), context).then_with(|| sort_order(&left.end(), &right.end(), context)));
}

/// Whether the second interval starts within or directly after the first, or no further away than `per`; without `per` at
/// the precision.
fn joins(first: &Range, second: &Range, per: Option<&Quantity>, scale: Scale<'_, '_>) -> bool {
    let context = scale.context;
    let adjacent = crate::cql::interval::either(first.overlaps(second, scale), first.meets_before(second, scale));
    if adjacent == Some(true) {
        return true;
    }
    let Some(per) = per else { return false };
    let (last, next) = (first.end(), second.start());
    let (reach, precision) = match &last {
        Value::Date(_) | Value::DateTime(_) | Value::Time(_) => (moved_by(&last, per), Precision::of_unit(&per.unit)),
        other => (Some(sum_of(other, &amount(per, other), context)), None),
    };
    let precision = precision.map(|unit| if unit == Precision::Week { Precision::Day } else { unit });
    let order = reach.and_then(|reach| order(&next, &reach, precision, context));
    matches!(order, Some(Ordering::Less | Ordering::Equal))
}

/// A step as a number or as a quantity, whichever the points are.
fn amount(per: &Quantity, like: &Value) -> Value {
    match like {
        Value::Quantity(point) if &*per.unit == "1" => Value::quantity(per.value, &point.unit),
        Value::Quantity(_) => Value::quantity(per.value, &per.unit),
        _ => Value::Decimal(per.value),
    }
}

fn step_of(call: &Call<'_>) -> Option<Arc<Quantity>> {
    match call.operand(1) {
        Value::Quantity(per) => Some(per.clone()),
        other => decimal(other).map(|value| Arc::new(Quantity { value, unit: Arc::from("1") })),
    }
}

fn merged(intervals: &[Arc<Range>], per: Option<&Quantity>, scale: Scale<'_, '_>) -> Vec<Arc<Range>> {
    let mut merged: Vec<Arc<Range>> = Vec::new();
    for interval in intervals {
        match merged.last_mut() {
            Some(last) if joins(last, interval, per, scale) => *last = Arc::new(last.span(interval, scale)),
            _ => merged.push(interval.clone()),
        }
    }
    merged
}

/// Intervals with an unknown end among those without, which are merged already: what surely joins, directly or by way of
/// others, becomes one; what may join stays apart.
fn with_unknown(known: Vec<Arc<Range>>, unknown: Vec<Arc<Range>>, scale: Scale<'_, '_>) -> Vec<Arc<Range>> {
    let adjacent = |one: &Range, other: &Range| crate::cql::interval::either(one.overlaps(other, scale), one.meets(other, scale)) == Some(true);
    let mut clusters: Vec<Vec<Arc<Range>>> = known.into_iter().map(|interval| vec![interval]).collect();
    for interval in unknown {
        let (joined, apart): (Vec<_>, Vec<_>) = clusters.into_iter().partition(|cluster| cluster.iter().any(|own| adjacent(own, &interval)));
        clusters = apart;
        clusters.push(joined.into_iter().flatten().chain([interval]).collect());
    }
    let whole = |cluster: Vec<Arc<Range>>| cluster.into_iter().reduce(|all, own| Arc::new(all.span(&own, scale)));
    let mut merged: Vec<Arc<Range>> = clusters.into_iter().filter_map(whole).collect();
    in_order(&mut merged, scale.context);
    merged
}

/// The coarsest precision of the bounds, if they are of several: at it they are compared where no `per` says another
/// (CQL, "Collapse"). Seconds and milliseconds are one.
fn common_precision(intervals: &[Arc<Range>]) -> Option<Precision> {
    let units = intervals.iter().flat_map(|interval| [calendar_unit(&interval.low), calendar_unit(&interval.high)]).flatten();
    let (coarsest, finest) = units.fold((None, None), |(least, most): (Option<Precision>, Option<Precision>), unit| {
        (Some(least.map_or(unit, |least| least.min(unit))), Some(most.map_or(unit, |most| most.max(unit))))
    });
    coarsest.filter(|unit| coarsest != finest && *unit < Precision::Second)
}

fn collapse(call: &Call<'_>) -> Result<Value, Fault> {
    let Some((known, unknown)) = sorted_intervals(call.operand(0), call.context) else { return Ok(Value::Null) };
    let per = step_of(call);
    let precision = if per.is_none() { common_precision(&known) } else { None };
    let scale = Scale { precision, context: call.context };
    let merged = with_unknown(merged(&known, per.as_deref(), scale), unknown, scale);
    Ok(Value::list(merged.into_iter().map(Value::Interval).collect()))
}

/// The steps of one expansion: first point, last point, distance, and the width of a step less one unit.
struct Steps {
    first: Value,
    last: Value,
    per: Quantity,
    width: Quantity,
}

fn calendar_unit(value: &Value) -> Option<Precision> {
    Some(match value {
        Value::Date(date) => date.precision(),
        Value::DateTime(point) => point.precision(),
        Value::Time(time) => time.precision(),
        _ => return None,
    })
}

fn cut(value: &Value, unit: Precision) -> Value {
    match value {
        Value::Date(date) => Value::Date(date.truncated(unit)),
        Value::DateTime(point) => Value::DateTime(point.truncated(unit)),
        Value::Time(time) => Value::Time(time.truncated(unit)),
        other => other.clone(),
    }
}

/// Steps over dates and times; `None` when they are not known as precisely as the step.
fn calendar_steps(first: &Value, last: &Value, per: Option<&Quantity>) -> Option<Steps> {
    let coarsest = calendar_unit(first)?.min(calendar_unit(last)?);
    let per = per.cloned().unwrap_or_else(|| Quantity { value: Decimal::ONE, unit: Arc::from(coarsest.word()) });
    let unit = Precision::of_unit(&per.unit)?;
    let (unit, days) = if unit == Precision::Week { (Precision::Day, Decimal::from(7)) } else { (unit, Decimal::ONE) };
    if coarsest < unit {
        return None;
    }
    let value = per.value.checked_mul(days)?;
    let width = Quantity { value: value - Decimal::ONE, unit: Arc::from(unit.word()) };
    let per = Quantity { value, unit: width.unit.clone() };
    Some(Steps { first: cut(first, unit), last: cut(last, unit), per, width })
}

/// Steps over numbers: points are cut to the digits of the step; a whole number reaches to the next one.
fn number_steps(first: &Value, last: &Value, per: Option<&Quantity>, context: &Context<'_>) -> Option<Steps> {
    let unit = match first {
        Value::Quantity(first) => first.unit.clone(),
        _ => Arc::from("1"),
    };
    let number = |value: &Value| match value {
        Value::Quantity(value) => context.units.convert(value.value, &value.unit, &unit),
        other => decimal(other),
    };
    let (low, high) = (number(first)?, number(last)?);
    let per = match per {
        Some(per) if &*per.unit == "1" => per.value,
        Some(per) => context.units.convert(per.value, &per.unit, &unit)?,
        None => Decimal::new(1, low.scale().max(high.scale())),
    };
    let digits = per.normalize().scale();
    let whole = matches!(first, Value::Integer(_) | Value::Long(_));
    let high = if whole && digits > 0 { high.checked_add(Decimal::ONE - Decimal::new(1, 8))? } else { high };
    let cut = |value: Decimal| {
        let mut value = value.round_dp_with_strategy(digits, RoundingStrategy::ToNegativeInfinity);
        value.rescale(digits);
        value
    };
    let one = Decimal::new(1, digits);
    let make = |value: Decimal| match first {
        Value::Quantity(_) => Value::quantity(value, &unit),
        Value::Integer(_) if digits == 0 => value.to_i32().map_or(Value::Null, Value::Integer),
        Value::Long(_) if digits == 0 => value.to_i64().map_or(Value::Null, Value::Long),
        _ => Value::Decimal(value),
    };
    let step = |value: Decimal| Quantity { value, unit: unit.clone() };
    Some(Steps { first: make(cut(low)), last: make(cut(high)), per: step(per), width: step(per - one) })
}

impl Steps {
    fn add(&self, value: &Value, by: &Quantity, context: &Context<'_>) -> Option<Value> {
        Some(match value {
            Value::Date(_) | Value::DateTime(_) | Value::Time(_) => moved_by(value, by)?,
            Value::Integer(value) => Value::Integer(value.checked_add(by.value.to_i32()?)?),
            Value::Long(value) => Value::Long(value.checked_add(by.value.to_i64()?)?),
            other => sum_of(other, &amount(by, other), context),
        })
    }

    /// (start, end) of every whole step.
    fn pairs(&self, context: &Context<'_>) -> Result<Vec<(Value, Value)>, Fault> {
        let mut pairs = Vec::new();
        if self.per.value <= Decimal::ZERO {
            return Err(Fault::new("`expand` needs a step greater than zero"));
        }
        let mut start = self.first.clone();
        while let Some(end) = self.add(&start, &self.width, context) {
            let within = matches!(order(&end, &self.last, None, context), Some(Ordering::Less | Ordering::Equal));
            // A time of day that wraps at midnight has passed its end.
            let forward = !matches!(order(&end, &start, None, context), Some(Ordering::Less) | None);
            if !within || !forward {
                break;
            }
            if pairs.len() >= EXPANSION_MAX {
                return Err(Fault::new(format!("`expand` would make more than {EXPANSION_MAX} points")));
            }
            let next = self.add(&start, &self.per, context);
            let passed = next.as_ref().map(|next| order(next, &start, None, context));
            pairs.push((start, end));
            match (next, passed) {
                (Some(next), Some(Some(Ordering::Greater))) => start = next,
                _ => break,
            }
        }
        Ok(pairs)
    }
}

fn expand(call: &Call<'_>) -> Result<Value, Fault> {
    let single = matches!(call.operand(0), Value::Interval(_));
    let Some((known, _)) = sorted_intervals(call.operand(0), call.context) else { return Ok(Value::Null) };
    let per = step_of(call);
    let mut expanded = Vec::new();
    for interval in merged(&known, None, Scale { precision: None, context: call.context }) {
        let (first, last) = (interval.start(), interval.end());
        let steps = if calendar_unit(&first).is_some() { calendar_steps(&first, &last, per.as_deref()) } else { number_steps(&first, &last, per.as_deref(), call.context) };
        let Some(steps) = steps else { continue };
        for (start, end) in steps.pairs(call.context)? {
            expanded.push(if single { start } else { range(Range::closed(start, end)) });
        }
    }
    Ok(Value::list(expanded))
}
