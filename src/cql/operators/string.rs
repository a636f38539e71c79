//! Text by Unicode code points, zero-based positions.

use super::{Call, Fault, LIST, Nulls, Operator, Signature, T, Timing};
use regex::{Regex, RegexBuilder};

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

/// Memory that one compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

fn text<'a>(call: &'a Call<'_>, index: usize) -> Option<&'a str> {
    match call.operand(index) {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn number(call: &Call<'_>, index: usize) -> Option<i32> {
    match call.operand(index) {
        Value::Integer(number) => Some(*number),
        _ => None,
    }
}

fn string_or_null(text: Option<String>) -> Result<Value, Fault> {
    Ok(text.map_or(Value::Null, |text| Value::string(&text)))
}

fn strings<'t>(parts: impl Iterator<Item = &'t str>) -> Value {
    Value::list(parts.map(Value::string).collect())
}

fn pattern(text: &str) -> Result<Regex, Fault> {
    RegexBuilder::new(text)
        .size_limit(PATTERN_BYTES_MAX)
        .build()
        .map_err(|fault| Fault::new(format!("the pattern is no regular expression: {}", reason(&fault))))
}

/// Why a pattern cannot be read, without the pattern: it may be of a patient's data, and may have been put into brackets.
fn reason(fault: &regex::Error) -> String {
    match fault {
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}

/// The position in characters of a byte offset; -1 for none.
fn position(text: &str, at: Option<usize>) -> Value {
    let count = at.and_then(|at| text.get(..at)).map_or(-1, |before| before.chars().count() as i64);
    i32::try_from(count).map_or(Value::Null, Value::Integer)
}

fn combine(call: &Call<'_>) -> Result<Value, Fault> {
    let Value::List(items) = call.operand(0) else { return Ok(Value::Null) };
    let separator = match call.operands.get(1) {
        None => "",
        Some(Value::String(separator)) => separator,
        Some(_) => return Ok(Value::Null),
    };
    let parts: Vec<&str> = items
        .iter()
        .filter_map(|item| match item {
            Value::String(text) => Some(&**text),
            _ => None,
        })
        .collect();
    Ok(if parts.is_empty() { Value::Null } else { Value::string(&parts.join(separator)) })
}

fn concatenate(call: &Call<'_>) -> Result<Value, Fault> {
    string_or_null(text(call, 0).zip(text(call, 1)).map(|(left, right)| format!("{left}{right}")))
}

fn ends_with(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(text(call, 0).zip(text(call, 1)).map(|(text, end)| text.ends_with(end)).into())
}

fn starts_with(call: &Call<'_>) -> Result<Value, Fault> {
    Ok(text(call, 0).zip(text(call, 1)).map(|(text, start)| text.starts_with(start)).into())
}

fn indexer(call: &Call<'_>) -> Result<Value, Fault> {
    let Some(at) = number(call, 1).and_then(|at| usize::try_from(at).ok()) else { return Ok(Value::Null) };
    Ok(match call.operand(0) {
        Value::List(items) => items.get(at).cloned().unwrap_or_default(),
        Value::String(text) => text.chars().nth(at).map_or(Value::Null, |one| Value::string(&one.to_string())),
        _ => Value::Null,
    })
}

fn position_of(call: &Call<'_>) -> Result<Value, Fault> {
    let Some((wanted, text)) = text(call, 0).zip(text(call, 1)) else { return Ok(Value::Null) };
    Ok(position(text, text.find(wanted)))
}

fn last_position_of(call: &Call<'_>) -> Result<Value, Fault> {
    let Some((wanted, text)) = text(call, 0).zip(text(call, 1)) else { return Ok(Value::Null) };
    Ok(position(text, text.rfind(wanted)))
}

fn length(call: &Call<'_>) -> Result<Value, Fault> {
    let count = match call.operand(0) {
        Value::String(text) => text.chars().count(),
        Value::List(items) => items.len(),
        _ => return Ok(Value::Null),
    };
    Ok(i32::try_from(count).map_or(Value::Null, Value::Integer))
}

fn lower(call: &Call<'_>) -> Result<Value, Fault> {
    string_or_null(text(call, 0).map(str::to_lowercase))
}

fn upper(call: &Call<'_>) -> Result<Value, Fault> {
    string_or_null(text(call, 0).map(str::to_uppercase))
}

fn matches_pattern(call: &Call<'_>) -> Result<Value, Fault> {
    let Some((text, wanted)) = text(call, 0).zip(text(call, 1)) else { return Ok(Value::Null) };
    // The whole text must match.
    Ok(pattern(&format!("^(?:{wanted})$")).or_else(|fault| pattern(wanted).and(Err(fault)))?.is_match(text).into())
}

fn replace_matches(call: &Call<'_>) -> Result<Value, Fault> {
    let operands = text(call, 0).zip(text(call, 1)).zip(text(call, 2));
    let Some(((text, wanted), substitution)) = operands else { return Ok(Value::Null) };
    Ok(Value::string(&pattern(wanted)?.replace_all(text, replacement(substitution).as_str())))
}

/// `\$` is a dollar sign, `$1` a group; the library writes them `$$` and `${1}`.
fn replacement(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('$') => out.push_str("$$"),
                Some(other) => out.push(other),
                None => out.push('\\'),
            },
            '$' => {
                let mut digits = String::new();
                while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                    digits.push(digit);
                }
                if digits.is_empty() {
                    out.push_str("$$");
                } else {
                    out.push_str(&format!("${{{digits}}}"));
                }
            }
            other => out.push(other),
        }
    }
    out
}

fn split(call: &Call<'_>) -> Result<Value, Fault> {
    let Some(whole) = text(call, 0) else { return Ok(Value::Null) };
    Ok(match text(call, 1) {
        Some("") | None => strings(std::iter::once(whole)),
        Some(separator) => strings(whole.split(separator)),
    })
}

fn split_on_matches(call: &Call<'_>) -> Result<Value, Fault> {
    let Some(whole) = text(call, 0) else { return Ok(Value::Null) };
    Ok(match text(call, 1) {
        Some(separator) => strings(pattern(separator)?.split(whole)),
        None => strings(std::iter::once(whole)),
    })
}

fn substring(call: &Call<'_>) -> Result<Value, Fault> {
    let start = number(call, 1).and_then(|start| usize::try_from(start).ok());
    let Some((whole, start)) = text(call, 0).zip(start) else { return Ok(Value::Null) };
    let length = match call.operands.get(2) {
        None => usize::MAX,
        Some(_) => match number(call, 2).and_then(|length| usize::try_from(length).ok()) {
            Some(length) => length,
            None => return Ok(Value::Null),
        },
    };
    let count = whole.chars().count();
    if start > count || (start == count && count > 0) {
        return Ok(Value::Null);
    }
    Ok(Value::string(&whole.chars().skip(start).take(length).collect::<String>()))
}
