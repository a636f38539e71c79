//! Numbers observed, each with its unit; and what they come to in one unit.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;

use super::{Aggregate, divide};
use crate::terminology::units::Units;

/// The unit of a number without one, as UCUM has it.
const NO_UNIT: &str = "1";

/// A number, and its unit if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount {
    /// How much.
    pub value: Decimal,
    /// Of what, as UCUM or CQL writes it.
    pub unit: Option<Arc<str>>,
}

impl Amount {
    /// A number of a unit; `1` is none.
    pub fn of(value: Decimal, unit: &str) -> Amount {
        Amount { value, unit: Some(unit).filter(|unit| !["", NO_UNIT].contains(unit)).map(Arc::from) }
    }

    /// As people write it.
    pub fn shown(&self) -> String {
        let number = self.value.normalize();
        self.unit.as_ref().map_or_else(|| number.to_string(), |unit| format!("{number} {unit}"))
    }
}

impl From<Decimal> for Amount {
    fn from(value: Decimal) -> Amount {
        Amount { value, unit: None }
    }
}

/// Values, and how often each.
type Values = BTreeMap<Decimal, u64>;

/// Numbers observed, as a multiset by their units: merges in any order, keeps what a median needs.
///
/// What is aggregated is in one unit, the one that most of them have - of equals the first by its name - so that the order in which
/// they came changes nothing. What cannot be converted to it is left out, and counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observations {
    by_unit: BTreeMap<Option<Arc<str>>, Values>,
}

impl Observations {
    /// One more observation.
    pub fn add(&mut self, amount: &Amount) {
        self.add_times(amount, 1);
    }

    /// The same of so many.
    pub fn add_times(&mut self, amount: &Amount, times: u64) {
        if times > 0 {
            let values = self.by_unit.entry(amount.unit.clone()).or_default();
            *values.entry(amount.value.normalize()).or_default() += times;
        }
    }

    /// All of `other`'s too.
    pub fn merge(&mut self, other: &Observations) {
        for (unit, values) in &other.by_unit {
            let own = self.by_unit.entry(unit.clone()).or_default();
            values.iter().for_each(|(value, times)| *own.entry(*value).or_default() += times);
        }
    }

    /// How many observations are aggregated.
    pub fn count(&self) -> u64 {
        count(&self.in_one_unit().0)
    }

    /// Whether they are of several units.
    pub fn are_mixed(&self) -> bool {
        self.by_unit.len() > 1
    }

    /// How many are left out, because their unit cannot be converted to that of the others.
    pub fn strays(&self) -> u64 {
        self.in_one_unit().1
    }

    /// The unit in which they are aggregated; `None` for numbers without one.
    pub fn unit(&self) -> Option<&Arc<str>> {
        // Of equals the last is taken by `max_by_key`, and that is to be the first.
        self.by_unit.iter().rev().max_by_key(|(_, values)| count(values))?.0.as_ref()
    }

    /// The same in the unit of the whole that they are a part of, without those that cannot be.
    pub fn in_unit_of(&self, whole: &Observations) -> Observations {
        let values = self.in_unit(whole.unit()).0.into_owned();
        let by_unit = [(whole.unit().cloned(), values)].into_iter().filter(|(_, values)| !values.is_empty()).collect();
        Observations { by_unit }
    }

    fn in_one_unit(&self) -> (Cow<'_, Values>, u64) {
        self.in_unit(self.unit())
    }

    /// The values in a unit, and how many cannot be.
    fn in_unit(&self, unit: Option<&Arc<str>>) -> (Cow<'_, Values>, u64) {
        if let (1, Some(values)) = (self.by_unit.len(), self.by_unit.get(&unit.cloned())) {
            return (Cow::Borrowed(values), 0);
        }
        let (units, target) = (Units::new(), unit.map_or(NO_UNIT, |unit| unit));
        let (mut all, mut strays) = (Values::new(), 0);
        for (unit, values) in &self.by_unit {
            for (value, times) in values {
                match units.convert(*value, unit.as_deref().unwrap_or(NO_UNIT), target) {
                    Some(converted) => *all.entry(converted.normalize()).or_default() += times,
                    None => strays += times,
                }
            }
        }
        (Cow::Owned(all), strays)
    }

    /// The aggregate; `None` for an average, median, minimum or maximum of nothing, or a sum out of
    /// the range of 28 digits.
    pub fn aggregate(&self, method: Aggregate) -> Option<Decimal> {
        let values = &*self.in_one_unit().0;
        let count = count(values);
        match method {
            Aggregate::Count => Some(Decimal::from(count)),
            Aggregate::Sum => sum(values),
            Aggregate::Minimum => values.keys().next().copied(),
            Aggregate::Maximum => values.keys().next_back().copied(),
            Aggregate::Average => divide(sum(values)?, Decimal::from(count)),
            Aggregate::Median if count == 0 => None,
            Aggregate::Median => {
                let (low, high) = (nth(values, (count - 1) / 2)?, nth(values, count / 2)?);
                divide(low.checked_add(high)?, Decimal::TWO)
            }
        }
    }
}

fn count(values: &Values) -> u64 {
    values.values().sum()
}

fn sum(values: &Values) -> Option<Decimal> {
    values.iter().try_fold(Decimal::ZERO, |sum, (value, times)| sum.checked_add(value.checked_mul(Decimal::from(*times))?))
}

fn nth(values: &Values, index: u64) -> Option<Decimal> {
    let mut passed = 0;
    values.iter().find_map(|(value, times)| {
        passed += times;
        (passed > index).then_some(*value)
    })
}
