//! Intervals with open, closed and unknown bounds.

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
