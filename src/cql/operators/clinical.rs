//! Ages, terminology membership.

use super::{Call, Fault, Nulls, Operator, Signature, Timing};
use std::sync::Arc;

use super::date_time::between;
use crate::cql::date_time::Counting;
use crate::cql::value::{Code, Precision, Value, Vocabulary};
use crate::terminology::ValueSet;

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

fn calculate_age(call: &Call<'_>) -> Result<Value, Fault> {
    let unit = call.precision.unwrap_or(Precision::Year);
    let now = match call.operand(0) {
        Value::Date(_) => Value::Date(call.context.now.date()),
        _ => Value::DateTime(*call.context.now),
    };
    Ok(between(Counting::Duration, call.operand(0), &now, unit, call.context))
}

fn calculate_age_at(call: &Call<'_>) -> Result<Value, Fault> {
    let unit = call.precision.unwrap_or(Precision::Year);
    Ok(between(Counting::Duration, call.operand(0), call.operand(1), unit, call.context))
}

fn value_set<'a>(call: &'a Call<'_>, reference: &Vocabulary) -> Result<&'a Arc<ValueSet>, Fault> {
    call.context.value_sets.find(&reference.id, reference.version.as_deref()).ok_or_else(|| {
        let name = reference.name.as_deref().unwrap_or("");
        Fault::new(format!("value set `{}` ({name}) is not among the value sets of this run", reference.id))
    })
}

fn code_in(set: &ValueSet, code: &Code) -> bool {
    code.system.as_ref().is_some_and(|system| set.contains(system, &code.code))
}

/// Whether a string, code, concept, or any of a list of them is in the set.
fn is_member(set: &ValueSet, value: &Value) -> Result<bool, Fault> {
    Ok(match value {
        Value::Code(code) => code_in(set, code),
        Value::Concept(concept) => concept.codes.iter().any(|code| code_in(set, code)),
        Value::String(code) => match set.systems_with(code) {
            0 => false,
            1 => true,
            many => {
                let url = &set.url;
                return Err(Fault::new(format!("a code without system is in {many} code systems of value set `{url}`")));
            }
        },
        Value::List(items) => {
            for item in items.iter() {
                if is_member(set, item)? {
                    return Ok(true);
                }
            }
            false
        }
        _ => false,
    })
}

fn in_value_set(call: &Call<'_>) -> Result<Value, Fault> {
    let Value::ValueSet(reference) = call.operand(1) else { return Ok(false.into()) };
    let set = value_set(call, reference)?;
    Ok(is_member(set, call.operand(0))?.into())
}

fn any_in_value_set(call: &Call<'_>) -> Result<Value, Fault> {
    in_value_set(call)
}

fn is_of_system(call: &Call<'_>, system: &Vocabulary, value: &Value) -> Result<bool, Fault> {
    let known = call.context.value_sets.system(&system.id);
    Ok(match value {
        Value::Code(code) => {
            let same = code.system.as_deref() == Some(&*system.id);
            same && known.is_none_or(|known| known.codes.contains_key(&code.code))
        }
        Value::Concept(concept) => {
            let codes = concept.codes.iter().map(|code| Value::Code(Arc::new(code.clone())));
            let mut found = false;
            for code in codes {
                found = found || is_of_system(call, system, &code)?;
            }
            found
        }
        Value::String(code) => {
            let missing = || Fault::new(format!("the codes of code system `{}` are not known to this run", system.id));
            known.ok_or_else(missing)?.codes.contains_key(code)
        }
        Value::List(items) => {
            let mut found = false;
            for item in items.iter() {
                found = found || is_of_system(call, system, item)?;
            }
            found
        }
        _ => false,
    })
}

fn in_code_system(call: &Call<'_>) -> Result<Value, Fault> {
    let Value::CodeSystem(system) = call.operand(1) else { return Ok(false.into()) };
    Ok(is_of_system(call, system, call.operand(0))?.into())
}

fn any_in_code_system(call: &Call<'_>) -> Result<Value, Fault> {
    in_code_system(call)
}

fn expand_value_set(call: &Call<'_>) -> Result<Value, Fault> {
    let Value::ValueSet(reference) = call.operand(0) else { return Ok(Value::Null) };
    let codes = value_set(call, reference)?
        .members()
        .map(|member| Value::Code(Arc::new(Code { code: member.code.clone(), system: Some(member.system.clone()), version: None, display: member.display.cloned() })));
    Ok(Value::list(codes.collect()))
}
