//! Aggregates over lists; nulls are left out.

use super::{Call, Fault, LIST, Nulls, Operator, Signature, T, Timing};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::{Decimal, MathematicalOps};

use super::Context;
use super::arithmetic::{between_ends, bounded, from_float, product_of, quotient_of, sum_of, to_float};
use super::comparison::{decimal, extremes, known_order, sort_order};
use super::list::{Key, keys, same};
use crate::cql::value::Value;

/// Chapter 21 Aggregate of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "21 Aggregate";
    "AllTrue" Plain Handled all_true { (List(&Boolean)) -> Boolean } ["AllTrue({true, null})", "not AllTrue({true, false})"]
    "AnyTrue" Plain Handled any_true { (List(&Boolean)) -> Boolean } ["AnyTrue({true, false})", "not AnyTrue({null})"]
    "Avg" Plain Propagate avg { (List(&Decimal)) -> Decimal, (List(&Quantity)) -> Quantity } ["Avg({1.0, 2.0, null}) = 1.5"]
    "Count" Plain Handled count { (LIST) -> Integer } ["Count({1, null}) = 1"]
    "GeometricMean" Plain Propagate geometric_mean { (List(&Decimal)) -> Decimal } ["GeometricMean({2.0, 8.0}) = 4.0"]
    "Product" Plain Propagate product { (List(&Integer)) -> Integer, (List(&Long)) -> Long, (List(&Decimal)) -> Decimal, (List(&Quantity)) -> Quantity } ["Product({2, 3}) = 6"]
    "Max" Plain Propagate max { (LIST) -> T } ["Max({1, 3, 2}) = 3"]
    "Median" Plain Propagate median { (List(&Decimal)) -> Decimal, (List(&Quantity)) -> Quantity } ["Median({1.0, 2.0, 4.0}) = 2.0"]
    "Min" Plain Propagate min { (LIST) -> T } ["Min({1, 3, 2}) = 1"]
    "Mode" Plain Propagate mode { (LIST) -> T } ["Mode({1, 2, 2}) = 2"]
    "PopulationStdDev" Plain Propagate population_std_dev { (List(&Decimal)) -> Decimal, (List(&Quantity)) -> Quantity } ["PopulationStdDev({1.0, 3.0}) = 1.0"]
    "PopulationVariance" Plain Propagate population_variance { (List(&Decimal)) -> Decimal, (List(&Quantity)) -> Quantity } ["PopulationVariance({1.0, 3.0}) = 1.0"]
    "StdDev" Plain Propagate std_dev { (List(&Decimal)) -> Decimal, (List(&Quantity)) -> Quantity } ["StdDev({1.0, 2.0, 3.0}) = 1.0"]
    "Sum" Plain Propagate sum { (List(&Integer)) -> Integer, (List(&Long)) -> Long, (List(&Decimal)) -> Decimal, (List(&Quantity)) -> Quantity } ["Sum({1, 2, null}) = 3"]
    "Variance" Plain Propagate variance { (List(&Decimal)) -> Decimal, (List(&Quantity)) -> Quantity } ["Variance({1.0, 2.0, 3.0}) = 1.0"]
    }
};

/// The elements that are known.
fn known<'a>(call: &'a Call<'_>) -> Vec<&'a Value> {
    match call.operand(0) {
        Value::List(items) => items.iter().filter(|item| !item.is_null()).collect(),
        _ => Vec::new(),
    }
}

fn all_true(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(known(call).into_iter().all(|item| item.truth() != Some(false)).into())
}

fn any_true(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(known(call).into_iter().any(|item| item.truth() == Some(true)).into())
}

fn count(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(i32::try_from(known(call).len()).map_or(Value::Null, Value::Integer))
}

fn folded(call: &Call<'_>, operation: fn(&Value, &Value, &Context<'_>) -> Value) -> Value {
    let mut items = known(call).into_iter();
    let Some(first) = items.next() else { return Value::Null };
    items.fold(first.clone(), |total, item| if total.is_null() { total } else { operation(&total, item, call.context) })
}

fn sum(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(folded(call, sum_of))
}

fn product(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(folded(call, product_of))
}

fn avg(call: &Call<'_>) -> Result<Value, Fault> {
    let count = Value::Decimal(Decimal::from(known(call).len() as u64));
    let total = folded(call, sum_of);
    Ok(if total.is_null() { Value::Null } else { quotient_of(&total, &count, call.context) })
}

/// The element that surely no other surpasses; null where that cannot be told (by `<` and `>`), of counts of which only the
/// bounds are known a count between the best of their bounds.
fn chosen(call: &Call<'_>, wanted: Ordering) -> Value {
    let items = known(call);
    if items.iter().any(|item| matches!(item, Value::Interval(_))) {
        let (lows, highs): (Vec<&Value>, Vec<&Value>) = items.iter().map(|item| extremes(item)).unzip();
        let best = |ends: Vec<&Value>| best_of(&ends, wanted, call.context).cloned();
        return best(lows).zip(best(highs)).and_then(|(low, high)| between_ends([low, high])).unwrap_or_default();
    }
    best_of(&items, wanted, call.context).cloned().unwrap_or_default()
}

fn best_of<'v>(items: &[&'v Value], wanted: Ordering, context: &Context<'_>) -> Option<&'v Value> {
    let best = items.iter().copied().reduce(|best, item| if sort_order(item, best, context) == wanted { item } else { best })?;
    let surpasses = |item: &&Value| matches!(known_order(best, item, context), Some(order) if order == wanted || order == Ordering::Equal);
    items.iter().all(surpasses).then_some(best)
}

fn max(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(chosen(call, Ordering::Greater))
}

fn min(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(chosen(call, Ordering::Less))
}

fn median(call: &Call<'_>) -> Result<Value, Fault> {
    let mut items = known(call);
    items.sort_by(|left, right| sort_order(left, right, call.context));
    if items.windows(2).any(|pair| matches!(pair, [left, right] if known_order(left, right, call.context).is_none())) {
        return Ok(Value::Null);
    }
    let middle = items.len() / 2;
    let Some(upper) = items.get(middle) else { return Ok(Value::Null) };
    if items.len() % 2 == 1 {
        return Ok((*upper).clone());
    }
    let lower = middle.checked_sub(1).and_then(|at| items.get(at));
    let Some(lower) = lower else { return Ok(Value::Null) };
    let total = sum_of(lower, upper, call.context);
    Ok(quotient_of(&total, &Value::Decimal(Decimal::TWO), call.context))
}

fn mode(call: &Call<'_>) -> Result<Value, Fault> {
    let items = known(call);
    let mut counts: Vec<(&Value, usize)> = Vec::new();
    let mut places: BTreeMap<&Key<'_>, usize> = BTreeMap::new();
    let keys = keys(&items);
    for (index, item) in items.iter().enumerate() {
        let key = keys.as_ref().and_then(|keys| keys.get(index));
        let seen = match key {
            Some(key) => places.get(key).copied(),
            None => counts.iter().position(|(seen, _)| same(seen, item, call.context) == Some(true)),
        };
        if let Some((_, count)) = seen.and_then(|at| counts.get_mut(at)) {
            *count += 1;
        } else {
            places.extend(key.map(|key| (key, counts.len())));
            counts.push((item, 1));
        }
    }
    // Of equally frequent values the first.
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
    Ok(counts.iter().find(|(_, count)| *count == most).map_or(Value::Null, |(item, _)| (*item).clone()))
}

/// The numbers in the unit of the first; `None` when there are none or one cannot be converted.
fn numbers(call: &Call<'_>) -> Option<(Vec<Decimal>, Option<Arc<str>>)> {
    let items = known(call);
    let unit = match items.first()? {
        Value::Quantity(first) => Some(first.unit.clone()),
        _ => None,
    };
    let number = |item: &&Value| match (item, &unit) {
        (Value::Quantity(own), Some(unit)) => call.context.units.convert(own.value, &own.unit, unit),
        (other, None) => decimal(other),
        _ => None,
    };
    Some((items.iter().map(number).collect::<Option<Vec<_>>>()?, unit))
}

/// The sum of squared distances from the mean over the count less `correction`, and the unit.
fn spread(call: &Call<'_>, correction: u64) -> Option<(Decimal, Option<Arc<str>>)> {
    let (numbers, unit) = numbers(call)?;
    let count = numbers.len() as u64;
    let total = numbers.iter().try_fold(Decimal::ZERO, |total, number| total.checked_add(*number))?;
    let mean = total.checked_div(Decimal::from(count))?;
    let squares = numbers.iter().try_fold(Decimal::ZERO, |squares, number| {
        let distance = number.checked_sub(mean)?;
        squares.checked_add(distance.checked_mul(distance)?)
    })?;
    let divisor = count.checked_sub(correction).filter(|divisor| *divisor > 0)?;
    Some((squares.checked_div(Decimal::from(divisor))?, unit))
}

fn measured(result: Option<(Decimal, Option<Arc<str>>)>) -> Value {
    let Some((number, unit)) = result else { return Value::Null };
    let Some(number) = bounded(number) else { return Value::Null };
    match unit {
        Some(unit) => Value::quantity(number, &unit),
        None => Value::Decimal(number),
    }
}

fn rooted(result: Option<(Decimal, Option<Arc<str>>)>) -> Value {
    measured(result.and_then(|(number, unit)| Some((number.sqrt()?, unit))))
}

fn variance(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(measured(spread(call, 1)))
}

fn population_variance(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(measured(spread(call, 0)))
}

fn std_dev(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(rooted(spread(call, 1)))
}

fn population_std_dev(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(rooted(spread(call, 0)))
}

fn geometric_mean(call: &Call<'_>) -> Result<Value, Fault> {
    let Some((numbers, _)) = numbers(call) else { return Ok(Value::Null) };
    if numbers.iter().any(|number| *number <= Decimal::ZERO) {
        return Ok(Value::Null);
    }
    let logarithms: f64 = numbers.iter().map(|number| to_float(*number).ln()).sum();
    let mean = (logarithms / numbers.len() as f64).exp();
    Ok(from_float(mean).map_or(Value::Null, Value::Decimal))
}
