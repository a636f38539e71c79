//! Lists; set operations shared with intervals are rows of that chapter.

use super::{Call, Fault, Nulls, Operator, Signature, Timing, T, LIST};
use crate::cql::value::Value;

/// Chapter 20 List of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "20 List";
    "Distinct" Plain Propagate distinct { (LIST) -> LIST } ["distinct {1, 1, null, null} ~ {1, null}"]
    "Exists" Plain Handled exists { (LIST) -> Boolean } ["exists {1}", "not exists {null}"]
    "First" Plain Propagate first { (LIST) -> T } ["First({1, 2}) = 1"]
    "Flatten" Plain Propagate flatten { (List(&LIST)) -> LIST } ["flatten {{1}, {2, 3}} = {1, 2, 3}"]
    "IndexOf" Plain Propagate index_of { (LIST, T) -> Integer } ["IndexOf({5, 6}, 6) = 1", "IndexOf({5, 6}, 7) = -1"]
    "Last" Plain Propagate last { (LIST) -> T } ["Last({1, 2}) = 2"]
    "SingletonFrom" Plain Propagate singleton_from { (LIST) -> T } ["singleton from {1} = 1", "(singleton from {}) is null"]
    "Slice" Plain Handled slice { (LIST, Integer, Integer) -> LIST } []
    "Skip" Plain Handled skip { (LIST, Integer) -> LIST } ["Skip({1, 2, 3}, 1) = {2, 3}"]
    "Tail" Plain Propagate tail { (LIST) -> LIST } ["Tail({1, 2, 3}) = {2, 3}"]
    "Take" Plain Handled take { (LIST, Integer) -> LIST } ["Take({1, 2, 3}, 2) = {1, 2}"]
    }
};

fn distinct(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn exists(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn first(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn flatten(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn index_of(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn last(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn singleton_from(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn skip(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn slice(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn tail(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn take(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}
