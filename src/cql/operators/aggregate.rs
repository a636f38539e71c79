//! Aggregates over lists; nulls are left out.

use super::{Call, Fault, Nulls, Operator, Signature, Timing, T, LIST};
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

fn all_true(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn any_true(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn avg(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn count(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn geometric_mean(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn max(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn median(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn min(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn mode(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn population_std_dev(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn population_variance(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn product(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn std_dev(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn sum(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn variance(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}
