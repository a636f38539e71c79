//! Ages, terminology membership.

use super::{Call, Fault, Nulls, Operator, Signature, Timing};
use crate::cql::value::Value;

/// Chapter 23 Clinical of the specification's reference.
pub(super) const OPERATORS: &[Operator] = {
    use super::Pattern::*;
    rows! { "23 Clinical";
    "CalculateAge" Precise Propagate calculate_age { (Date) -> Integer, (DateTime) -> Integer } []
    "CalculateAgeAt" Precise Propagate calculate_age_at { (Date, Date) -> Integer, (DateTime, DateTime) -> Integer }
        ["CalculateAgeInYearsAt(@2000-02-29, @2001-02-28) = 0", "CalculateAgeInMonthsAt(@2000-01-15, @2000-03-14) = 1"]
    "InValueSet" Plain Handled in_value_set { (String, ValueSet) -> Boolean, (Code, ValueSet) -> Boolean, (Concept, ValueSet) -> Boolean } []
    "AnyInValueSet" Plain Handled any_in_value_set { (List(&String), ValueSet) -> Boolean, (List(&Code), ValueSet) -> Boolean, (List(&Concept), ValueSet) -> Boolean } []
    "InCodeSystem" Plain Handled in_code_system { (String, CodeSystem) -> Boolean, (Code, CodeSystem) -> Boolean, (Concept, CodeSystem) -> Boolean } []
    "AnyInCodeSystem" Plain Handled any_in_code_system { (List(&String), CodeSystem) -> Boolean, (List(&Code), CodeSystem) -> Boolean, (List(&Concept), CodeSystem) -> Boolean } []
    "ExpandValueSet" Plain Propagate expand_value_set { (ValueSet) -> List(&Code) } []
    }
};

fn any_in_code_system(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn any_in_value_set(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn calculate_age(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn calculate_age_at(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn expand_value_set(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn in_code_system(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}

fn in_value_set(_call: &Call<'_>) -> Result<Value, Fault> {
    todo!()
}
