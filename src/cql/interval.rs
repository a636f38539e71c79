//! Intervals with open, closed and unknown bounds.
//!
//! A closed null bound is the end of the type's range; an open null bound is unknown. Relations are
//! answered over what the bounds *can* be, so that an unknown bound makes an answer unknown only
//! where it matters.

use std::cmp::Ordering;

use rust_decimal::Decimal;

use super::date_time::{Precision, Time};
use super::operators::Context;
use super::operators::arithmetic::{maximum, minimum, predecessor_of, successor_of};
use super::operators::comparison;
use super::value::Value;

/// The ordered types that an interval can range over; says what the ends of an unbounded interval are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Point {
    Integer,
    Long,
    Decimal,
    Date,
    DateTime,
    Time,
    Quantity,
    Ratio,
    String,
}

impl Point {
    /// The point type of a value, if it has one.
    pub fn of(value: &Value) -> Option<Point> {
        Some(match value {
            Value::Integer(_) => Point::Integer,
            Value::Long(_) => Point::Long,
            Value::Decimal(_) => Point::Decimal,
            Value::Date(_) => Point::Date,
            Value::DateTime(_) => Point::DateTime,
            Value::Time(_) => Point::Time,
            Value::Quantity(_) => Point::Quantity,
            Value::Ratio(_) => Point::Ratio,
            Value::String(_) => Point::String,
            _ => return None,
        })
    }

    /// The point type by its CQL name.
    pub fn named(name: &str) -> Option<Point> {
        Some(match name {
            "Integer" => Point::Integer,
            "Long" => Point::Long,
            "Decimal" => Point::Decimal,
            "Date" => Point::Date,
            "DateTime" => Point::DateTime,
            "Time" => Point::Time,
            "Quantity" => Point::Quantity,
            "Ratio" => Point::Ratio,
            "String" => Point::String,
            _ => return None,
        })
    }
}

/// A range of one ordered type. A closed null bound is the type's minimum or maximum; an open null bound is unknown.
#[derive(Clone)]
pub struct Interval {
    /// Lower bound; may be null.
    pub low: Value,
    /// Whether the lower bound itself belongs to the interval.
    pub low_closed: bool,
    /// Upper bound; may be null.
    pub high: Value,
    /// Whether the upper bound itself belongs to the interval.
    pub high_closed: bool,
    /// The point type when it is known (both bounds may be null).
    pub point: Option<Point>,
}

/// A place on the line of the point type; the first and the last may be known by their values.
#[derive(Clone)]
enum Place {
    Least,
    First(Value),
    At(Value),
    Last(Value),
    Greatest,
}

/// Where a bound can be: between two places, both included.
#[derive(Clone)]
pub struct Extent {
    low: Place,
    high: Place,
}

impl Place {
    fn order(&self, other: &Place, precision: Option<Precision>, context: &Context<'_>) -> Option<Ordering> {
        match (self, other) {
            (Place::Least, Place::Least) | (Place::Greatest, Place::Greatest) => Some(Ordering::Equal),
            (Place::Least, _) | (_, Place::Greatest) => Some(Ordering::Less),
            (_, Place::Least) | (Place::Greatest, _) => Some(Ordering::Greater),
            _ => match (self, other, comparison::order(self.value()?, other.value()?, precision, context)) {
                // The last moment of a clock that is behind that of UTC comes after the last DateTime, which ends all the same.
                (Place::Last(_), _, Some(Ordering::Less)) | (_, Place::First(_), Some(Ordering::Less)) => Some(Ordering::Equal),
                (_, Place::Last(_), Some(Ordering::Greater)) | (Place::First(_), _, Some(Ordering::Greater)) => Some(Ordering::Equal),
                (_, _, order) => order,
            },
        }
    }

    fn value(&self) -> Option<&Value> {
        match self {
            Place::First(value) | Place::At(value) | Place::Last(value) => Some(value),
            Place::Least | Place::Greatest => None,
        }
    }
}

/// Three-valued "and".
pub fn both(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// Three-valued "or".
pub fn either(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    both(left.map(|left| !left), right.map(|right| !right)).map(|neither| !neither)
}

/// The precision and the context of one question.
#[derive(Clone, Copy)]
pub struct Scale<'a, 'c> {
    /// `day of`, when given.
    pub precision: Option<Precision>,
    /// Zone and units.
    pub context: &'a Context<'c>,
}

impl Extent {
    /// A point; a count of which only the bounds are known lies between them.
    pub fn of(value: &Value) -> Extent {
        if let Value::Interval(span) = value {
            return Extent { low: Place::At(span.start()), high: Place::At(span.end()) };
        }
        Extent { low: Place::At(value.clone()), high: Place::At(value.clone()) }
    }

    fn exact(place: Place) -> Extent {
        Extent { low: place.clone(), high: place }
    }

    /// Whether this comes before the other.
    pub fn before(&self, other: &Extent, scale: Scale<'_, '_>) -> Option<bool> {
        let surely = self.high.order(&other.low, scale.precision, scale.context);
        if surely == Some(Ordering::Less) {
            return Some(true);
        }
        match self.low.order(&other.high, scale.precision, scale.context) {
            Some(Ordering::Equal | Ordering::Greater) => Some(false),
            _ => None,
        }
    }

    /// Whether this is not after the other.
    pub fn not_after(&self, other: &Extent, scale: Scale<'_, '_>) -> Option<bool> {
        // Told directly, not as "not (other before this)": partial dates that are equal as far as
        // they go may still be known to be in order.
        match self.high.order(&other.low, scale.precision, scale.context) {
            Some(Ordering::Less | Ordering::Equal) => Some(true),
            _ => match self.low.order(&other.high, scale.precision, scale.context) {
                Some(Ordering::Greater) => Some(false),
                _ => None,
            },
        }
    }

    /// Whether this or else the other comes first, or both at once; `None` when either can.
    fn comes_first(&self, other: &Extent, scale: Scale<'_, '_>) -> Option<bool> {
        self.not_after(other, scale).or_else(|| other.not_after(self, scale).filter(|known| *known).map(|_| false))
    }

    /// Whether both are the same place.
    pub fn same(&self, other: &Extent, scale: Scale<'_, '_>) -> Option<bool> {
        let order = |left: &Place, right: &Place| left.order(right, scale.precision, scale.context);
        let apart = order(&self.high, &other.low) == Some(Ordering::Less) || order(&self.low, &other.high) == Some(Ordering::Greater);
        if apart {
            return Some(false);
        }
        let known = |extent: &Extent| order(&extent.low, &extent.high) == Some(Ordering::Equal) || extent.is_point();
        let same = order(&self.low, &other.low)?;
        (known(self) && known(other)).then_some(same == Ordering::Equal)
    }

    /// A value whose own precision is coarse is still one point, not a range of bounds.
    fn is_point(&self) -> bool {
        match (self.low.value(), self.high.value()) {
            (Some(Value::Date(low)), Some(Value::Date(high))) => low == high,
            (Some(Value::DateTime(low)), Some(Value::DateTime(high))) => low == high,
            (Some(Value::Time(low)), Some(Value::Time(high))) => low == high,
            _ => matches!((&self.low, &self.high), (Place::Least, Place::Least) | (Place::Greatest, Place::Greatest)),
        }
    }

    /// The next place at a precision; past the end of the type is past everything.
    fn next(&self, scale: Scale<'_, '_>) -> Extent {
        let step = |place: &Place| match place.value() {
            Some(value) => step_at(value, scale.precision).map_or(Place::Greatest, Place::At),
            None => place.clone(),
        };
        Extent { low: step(&self.low), high: step(&self.high) }
    }
}

/// The successor, a unit of the given precision away for dates and times.
fn step_at(value: &Value, precision: Option<Precision>) -> Option<Value> {
    let one = Decimal::ONE;
    match (value, precision) {
        (Value::Date(date), Some(unit)) => date.truncated(unit).add(one, unit).map(Value::Date),
        (Value::DateTime(point), Some(unit)) => point.truncated(unit).add(one, unit).map(Value::DateTime),
        (Value::Time(time), Some(unit)) if time.compare(&Time::MAX, Some(unit)) == Some(Ordering::Less) => time.truncated(unit).add(one, unit).map(Value::Time),
        (Value::Time(_), Some(_)) => None,
        _ => successor_of(value),
    }
}

impl Interval {
    /// An interval; null when it is empty: data with such a period say nothing.
    pub fn value(low: Value, low_closed: bool, high: Value, high_closed: bool, point: Option<Point>, context: &Context<'_>) -> Value {
        let point = Point::of(&low).or_else(|| Point::of(&high)).or(point);
        let interval = Interval { low, low_closed, high, high_closed, point };
        if interval.is_empty(context) { Value::Null } else { Value::Interval(std::sync::Arc::new(interval)) }
    }

    /// Whether both bounds are known and no point lies between them: `Interval[5, 3]`, `Interval(5, 5]`, `Interval(5, 6)`.
    pub fn is_empty(&self, context: &Context<'_>) -> bool {
        let is_closed = self.low_closed && self.high_closed;
        match comparison::order(&self.low, &self.high, None, context) {
            Some(Ordering::Greater) => true,
            Some(Ordering::Equal) => !is_closed,
            _ => !is_closed && self.ends_at().before(&self.starts_at(), Scale { precision: None, context }) == Some(true),
        }
    }

    /// A closed interval, unchecked.
    pub fn closed(low: Value, high: Value) -> Interval {
        let point = Point::of(&low).or_else(|| Point::of(&high));
        Interval { low, low_closed: true, high, high_closed: true, point }
    }

    /// No bounds and no known type (`Interval[null, null]`): such an interval says nothing.
    pub fn is_void(&self) -> bool {
        self.low.is_null() && self.high.is_null() && self.point.is_none()
    }

    fn least(&self) -> Place {
        self.point.and_then(|point| minimum(point, &self.high)).map_or(Place::Least, Place::First)
    }

    fn greatest(&self) -> Place {
        self.point.and_then(|point| maximum(point, &self.low)).map_or(Place::Greatest, Place::Last)
    }

    /// The first point, or null when it is unknown.
    pub fn start(&self) -> Value {
        match (&self.low, self.low_closed) {
            (Value::Null, true) => self.least().value().cloned().unwrap_or_default(),
            (Value::Null, false) => Value::Null,
            (low, true) => low.clone(),
            (low, false) => successor_of(low).unwrap_or(Value::Null),
        }
    }

    /// The last point, or null when it is unknown.
    pub fn end(&self) -> Value {
        match (&self.high, self.high_closed) {
            (Value::Null, true) => self.greatest().value().cloned().unwrap_or_default(),
            (Value::Null, false) => Value::Null,
            (high, true) => high.clone(),
            (high, false) => predecessor_of(high).unwrap_or(Value::Null),
        }
    }

    /// Where the first point can be.
    pub fn starts_at(&self) -> Extent {
        match (&self.low, self.low_closed) {
            (Value::Null, true) => Extent::exact(self.least()),
            (Value::Null, false) => {
                let high = if self.high.is_null() { self.greatest() } else { Place::At(self.end()) };
                Extent { low: self.least(), high }
            }
            (low, true) => Extent::of(low),
            (low, false) => Extent::exact(successor_of(low).map_or(Place::Greatest, Place::At)),
        }
    }

    /// Where the last point can be.
    pub fn ends_at(&self) -> Extent {
        match (&self.high, self.high_closed) {
            (Value::Null, true) => Extent::exact(self.greatest()),
            (Value::Null, false) => {
                let low = if self.low.is_null() { self.least() } else { Place::At(self.start()) };
                Extent { low, high: self.greatest() }
            }
            (high, true) => Extent::of(high),
            (high, false) => Extent::exact(predecessor_of(high).map_or(Place::Least, Place::At)),
        }
    }

    /// Whether a point lies within: after an open low bound and before an open high one (19 "In"), so that in `day of` the
    /// whole day of an open bound lies outside. A point that equals a closed bound in all that both say lies within, whatever
    /// is known of the other, as in the reference engine (cql-execution's `Interval.contains`).
    pub fn contains(&self, point: &Value, scale: Scale<'_, '_>) -> Option<bool> {
        let is_bound = |bound: &Value, closed| closed && comparison::order(bound, point, None, scale.context) == Some(Ordering::Equal);
        if is_bound(&self.low, self.low_closed) || is_bound(&self.high, self.high_closed) {
            return Some(true);
        }
        let point = Extent::of(point);
        let excludes = |bound: &Value, closed: bool| !closed && !bound.is_null();
        let begun = if excludes(&self.low, self.low_closed) { Extent::of(&self.low).before(&point, scale) } else { self.starts_at().not_after(&point, scale) };
        let lasts = if excludes(&self.high, self.high_closed) { point.before(&Extent::of(&self.high), scale) } else { point.not_after(&self.ends_at(), scale) };
        both(begun, lasts)
    }

    /// Whether a point lies strictly within.
    pub fn properly_contains(&self, point: &Value, scale: Scale<'_, '_>) -> Option<bool> {
        let point = Extent::of(point);
        both(self.starts_at().before(&point, scale), point.before(&self.ends_at(), scale))
    }

    /// Whether every point of the other lies within.
    pub fn includes(&self, other: &Interval, scale: Scale<'_, '_>) -> Option<bool> {
        both(self.starts_at().not_after(&other.starts_at(), scale), other.ends_at().not_after(&self.ends_at(), scale))
    }

    /// Whether it includes the other and more.
    pub fn properly_includes(&self, other: &Interval, scale: Scale<'_, '_>) -> Option<bool> {
        let wider = either(self.starts_at().before(&other.starts_at(), scale), other.ends_at().before(&self.ends_at(), scale));
        both(self.includes(other, scale), wider)
    }

    /// Whether some point lies in both.
    pub fn overlaps(&self, other: &Interval, scale: Scale<'_, '_>) -> Option<bool> {
        both(self.starts_at().not_after(&other.ends_at(), scale), other.starts_at().not_after(&self.ends_at(), scale))
    }

    /// Whether it overlaps the other and starts earlier.
    pub fn overlaps_before(&self, other: &Interval, scale: Scale<'_, '_>) -> Option<bool> {
        both(self.starts_at().before(&other.starts_at(), scale), self.overlaps(other, scale))
    }

    /// Whether it overlaps the other and ends later.
    pub fn overlaps_after(&self, other: &Interval, scale: Scale<'_, '_>) -> Option<bool> {
        both(other.ends_at().before(&self.ends_at(), scale), self.overlaps(other, scale))
    }

    /// Whether it ends directly before the other starts.
    pub fn meets_before(&self, other: &Interval, scale: Scale<'_, '_>) -> Option<bool> {
        self.ends_at().next(scale).same(&other.starts_at(), scale)
    }

    /// Whether it meets the other on either side.
    pub fn meets(&self, other: &Interval, scale: Scale<'_, '_>) -> Option<bool> {
        either(self.meets_before(other, scale), other.meets_before(self, scale))
    }

    /// Whether it starts with the other and ends within it.
    pub fn starts(&self, other: &Interval, scale: Scale<'_, '_>) -> Option<bool> {
        both(self.starts_at().same(&other.starts_at(), scale), self.ends_at().not_after(&other.ends_at(), scale))
    }

    /// Whether it ends with the other and starts within it.
    pub fn ends(&self, other: &Interval, scale: Scale<'_, '_>) -> Option<bool> {
        both(self.ends_at().same(&other.ends_at(), scale), other.starts_at().not_after(&self.starts_at(), scale))
    }

    /// Whether both have the same first and last point.
    pub fn equal(&self, other: &Interval, context: &Context<'_>) -> Option<bool> {
        self.same_as(other, Scale { precision: None, context })
    }

    /// The same at a precision.
    pub fn same_as(&self, other: &Interval, scale: Scale<'_, '_>) -> Option<bool> {
        both(self.starts_at().same(&other.starts_at(), scale), self.ends_at().same(&other.ends_at(), scale))
    }

    /// Whether the bounds are equivalent; unknown bounds are equivalent to unknown bounds only.
    pub fn equivalent(&self, other: &Interval, context: &Context<'_>) -> bool {
        comparison::equivalent(&self.start(), &other.start(), context) && comparison::equivalent(&self.end(), &other.end(), context)
    }

    /// The points of both; `None` when there are none or it cannot be told.
    pub fn intersect(&self, other: &Interval, scale: Scale<'_, '_>) -> Option<Interval> {
        if self.overlaps(other, scale) != Some(true) {
            return None;
        }
        let later = match self.starts_at().comes_first(&other.starts_at(), scale) {
            Some(true) => (other.low.clone(), other.low_closed),
            Some(false) => (self.low.clone(), self.low_closed),
            None => (Value::Null, false),
        };
        let earlier = match self.ends_at().comes_first(&other.ends_at(), scale) {
            Some(true) => (self.high.clone(), self.high_closed),
            Some(false) => (other.high.clone(), other.high_closed),
            None => (Value::Null, false),
        };
        let point = self.point.or(other.point);
        Some(Interval { low: later.0, low_closed: later.1, high: earlier.0, high_closed: earlier.1, point })
    }

    /// The points of either, if they are one range; `None` when they are not or it cannot be told.
    pub fn union(&self, other: &Interval, scale: Scale<'_, '_>) -> Option<Interval> {
        if either(self.overlaps(other, scale), self.meets(other, scale)) != Some(true) {
            return None;
        }
        Some(self.span(other, scale))
    }

    /// From the earlier start to the later end.
    pub fn span(&self, other: &Interval, scale: Scale<'_, '_>) -> Interval {
        let earlier = match self.starts_at().comes_first(&other.starts_at(), scale) {
            Some(true) => (self.low.clone(), self.low_closed),
            Some(false) => (other.low.clone(), other.low_closed),
            None => (Value::Null, false),
        };
        let later = match self.ends_at().comes_first(&other.ends_at(), scale) {
            Some(true) => (other.high.clone(), other.high_closed),
            Some(false) => (self.high.clone(), self.high_closed),
            None => (Value::Null, false),
        };
        let point = self.point.or(other.point);
        Interval { low: earlier.0, low_closed: earlier.1, high: later.0, high_closed: later.1, point }
    }

    /// The points that the other has not; `None` when they are two ranges, none, or it cannot be told.
    pub fn except(&self, other: &Interval, scale: Scale<'_, '_>) -> Option<Interval> {
        if !self.overlaps(other, scale)? {
            return Some(self.clone());
        }
        let starts_first = self.starts_at().before(&other.starts_at(), scale)?;
        let ends_last = other.ends_at().before(&self.ends_at(), scale)?;
        match (starts_first, ends_last) {
            (true, false) => {
                let high = predecessor_of(&other.start())?;
                Some(Interval { high, high_closed: true, ..self.clone() })
            }
            (false, true) => {
                let low = successor_of(&other.end())?;
                Some(Interval { low, low_closed: true, ..self.clone() })
            }
            _ => None,
        }
    }
}
