//! Intervals and their relations.

use super::{Call, Fault, Nulls, Operator, Signature, Timing, T, LIST, INTERVAL, INTERVALS};
use crate::cql::value::Value;

/// Chapter 19 Interval of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "19 Interval";
    "After" Precise Propagate after { (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (INTERVAL, INTERVAL) -> Boolean, (T, INTERVAL) -> Boolean, (INTERVAL, T) -> Boolean } ["Interval[5, 6] after Interval[1, 4]", "@2012-02-29 after month of @2012-01-31"]
    "Before" Precise Propagate before { (Date, Date) -> Boolean, (DateTime, DateTime) -> Boolean, (Time, Time) -> Boolean, (INTERVAL, INTERVAL) -> Boolean, (T, INTERVAL) -> Boolean, (INTERVAL, T) -> Boolean } ["Interval[1, 4] before Interval[5, 6]", "1 before Interval[5, 6]"]
    "Collapse" Plain Handled collapse { (INTERVALS) -> INTERVALS, (INTERVALS, Quantity) -> INTERVALS } ["collapse {Interval[1, 4], Interval[4, 8]} = {Interval[1, 8]}"]
    "Contains" Precise Handled contains { (INTERVAL, T) -> Boolean, (LIST, T) -> Boolean } ["Interval[1, 5] contains 3", "{1, null} contains null"]
    "End" Plain Propagate end { (INTERVAL) -> T } ["end of Interval[1, 5) = 4"]
    "Ends" Precise Propagate ends { (INTERVAL, INTERVAL) -> Boolean } ["Interval[3, 5] ends Interval[1, 5]"]
    "Except" Plain Handled except { (INTERVAL, INTERVAL) -> INTERVAL, (LIST, LIST) -> LIST } ["Interval[1, 5] except Interval[3, 7] = Interval[1, 2]"]
    "Expand" Plain Handled expand { (INTERVALS) -> INTERVALS, (INTERVALS, Quantity) -> INTERVALS, (INTERVAL) -> LIST, (INTERVAL, Quantity) -> LIST }
        ["expand Interval[1, 3] = {1, 2, 3}", "expand {Interval[1, 2]} = {Interval[1, 1], Interval[2, 2]}"]
    "In" Precise Handled is_in { (T, INTERVAL) -> Boolean, (T, LIST) -> Boolean } ["3 in Interval[1, 5]", "null in {1, null}", "3 in {3}"]
    "Includes" Precise Handled includes { (INTERVAL, INTERVAL) -> Boolean, (LIST, LIST) -> Boolean } ["Interval[1, 5] includes Interval[2, 3]", "{1, 2, 3} includes {1}"]
    "IncludedIn" Precise Handled included_in { (INTERVAL, INTERVAL) -> Boolean, (LIST, LIST) -> Boolean } ["Interval[2, 3] included in Interval[1, 5]"]
    "Intersect" Plain Handled intersect { (INTERVAL, INTERVAL) -> INTERVAL, (LIST, LIST) -> LIST } ["Interval[1, 5] intersect Interval[3, 7] = Interval[3, 5]", "({1, 2} intersect {2, 3}) = {2}"]
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
    "Start" Plain Propagate start { (INTERVAL) -> T } ["start of Interval(1, 5] = 2"]
    "Starts" Precise Propagate starts { (INTERVAL, INTERVAL) -> Boolean } ["Interval[1, 3] starts Interval[1, 5]"]
    "Union" Plain Handled union { (INTERVAL, INTERVAL) -> INTERVAL, (LIST, LIST) -> LIST } ["Interval[1, 5] union Interval[3, 7] = Interval[1, 7]", "({1, 2} union {2, 3}) = {1, 2, 3}"]
    "Width" Plain Propagate width { (INTERVAL) -> T } ["width of Interval[3, 7] = 4"]
    }
};

fn after(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn before(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn collapse(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn contains(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn end(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn ends(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn except(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn expand(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn included_in(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn includes(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn intersect(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn is_in(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn meets(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn meets_after(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn meets_before(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn overlaps(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn overlaps_after(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn overlaps_before(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn point_from(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn proper_contains(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn proper_in(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn proper_included_in(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn proper_includes(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn size(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn start(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn starts(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn union(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn width(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}
