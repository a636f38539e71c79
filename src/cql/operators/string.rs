//! Text by Unicode code points, zero-based positions.

use super::{Call, Fault, Nulls, Operator, Signature, Timing, T, LIST};
use crate::cql::value::Value;

/// Chapter 17 String of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "17 String";
    "Combine" Plain Handled combine { (List(&String)) -> String, (List(&String), String) -> String } ["Combine({'a', null, 'b'}, '-') = 'a-b'"]
    "Concatenate" Plain Propagate concatenate { (String, String) -> String } ["'a' + 'b' = 'ab'", "('a' + null) is null"]
    "EndsWith" Plain Propagate ends_with { (String, String) -> Boolean } ["EndsWith('Chestnut', 'nut')"]
    "Indexer" Plain Propagate indexer { (String, Integer) -> String, (LIST, Integer) -> T } ["'ABC'[1] = 'B'", "'ABC'[3] is null", "{1, 2}[0] = 1"]
    "LastPositionOf" Plain Propagate last_position_of { (String, String) -> Integer } ["LastPositionOf('a', 'banana') = 5"]
    "Length" Plain Handled length { (String) -> Integer, (LIST) -> Integer } ["Length('abc') = 3", "Length({1, null}) = 2"]
    "Lower" Plain Propagate lower { (String) -> String } ["Lower('ABC') = 'abc'"]
    "Matches" Plain Propagate matches_pattern { (String, String) -> Boolean } ["Matches('1,2', '[0-9],[0-9]')", "not Matches('abc', 'b')"]
    "PositionOf" Plain Propagate position_of { (String, String) -> Integer } ["PositionOf('a', 'banana') = 1", "PositionOf('x', 'abc') = -1"]
    "ReplaceMatches" Plain Propagate replace_matches { (String, String, String) -> String } ["ReplaceMatches('abcb', 'b', 'x') = 'axcx'"]
    "Split" Plain Handled split { (String, String) -> List(&String) } ["Split('a,b', ',') = {'a', 'b'}"]
    "SplitOnMatches" Plain Handled split_on_matches { (String, String) -> List(&String) } ["SplitOnMatches('a1b', '[0-9]') = {'a', 'b'}"]
    "StartsWith" Plain Propagate starts_with { (String, String) -> Boolean } ["StartsWith('Chestnut', 'Chest')"]
    "Substring" Plain Propagate substring { (String, Integer) -> String, (String, Integer, Integer) -> String } ["Substring('abcd', 1, 2) = 'bc'", "Substring('ab', 2) is null"]
    "Upper" Plain Propagate upper { (String) -> String } ["Upper('abc') = 'ABC'"]
    }
};

fn combine(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn concatenate(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn ends_with(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn indexer(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn last_position_of(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn length(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn lower(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn matches_pattern(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn position_of(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn replace_matches(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn split(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn split_on_matches(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn starts_with(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn substring(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn upper(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}
