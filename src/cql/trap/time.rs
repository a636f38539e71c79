//! Times beside dates: a date becomes a time of which the hour is not known, so nothing can be told of that day.

use super::{Scope, binary, is_alternative};
use crate::cql::typed::{Expression, Kind};
use crate::cql::types::Type;
use crate::diagnostic::Diagnostic;

/// Relations of times, as they are written by the day.
const BY_DAY: [(&str, &str); 20] = [
    ("Equal", "same day as"),
    ("SameAs", "same day as"),
    ("Less", "before day of"),
    ("Before", "before day of"),
    ("Greater", "after day of"),
    ("After", "after day of"),
    ("LessOrEqual", "on or before day of"),
    ("SameOrBefore", "on or before day of"),
    ("GreaterOrEqual", "on or after day of"),
    ("SameOrAfter", "on or after day of"),
    ("In", "during day of"),
    ("IncludedIn", "during day of"),
    ("ProperIn", "properly during day of"),
    ("ProperIncludedIn", "properly during day of"),
    ("Contains", "includes day of"),
    ("Includes", "includes day of"),
    ("ProperContains", "properly includes day of"),
    ("ProperIncludes", "properly includes day of"),
    ("Overlaps", "overlaps day of"),
    ("NotEqual", "not same day as"),
];

/// A relation between a time and a date, or an interval of dates, without a precision.
pub(super) fn warning(scope: &Scope<'_>, expression: &Expression) -> Option<Diagnostic> {
    let (name, left, right) = binary(expression)?;
    let (_, by_day) = BY_DAY.iter().find(|(known, _)| *known == name)?;
    let has_precision = matches!(&expression.kind, Kind::Operator { precision: Some(_), .. });
    let is_time = |ty: &Type| *ty.point().unwrap_or(ty) == Type::DateTime;
    if has_precision || !is_time(&left.ty) || !is_time(&right.ty) {
        return None;
    }
    let dates = match (is_of_dates(scope, left), is_of_dates(scope, right)) {
        (true, false) => left,
        (false, true) => right,
        _ => return None,
    };
    let day = if dates.ty.point().is_some() { "its first or last day" } else { "its day" };
    let message = format!("`{}` has no time of day: of a time on {day} the answer is null, which counts as not met", scope.written(dates));
    Some(scope.warning(dates, message, format!("write `{by_day}`")))
}

/// Whether it is of dates that have become times.
fn is_of_dates(scope: &Scope<'_>, expression: &Expression) -> bool {
    match &scope.meant(expression).kind {
        Kind::Operator { operator, operands, .. } => match (operator.name, operands.as_slice()) {
            ("ToDateTime", [date]) => date.ty == Type::Date && !is_alternative(date),
            ("Start" | "End", [interval]) => is_of_dates(scope, interval),
            _ => false,
        },
        Kind::Interval(parts) => is_of_dates(scope, &parts.low) || is_of_dates(scope, &parts.high),
        // How an interval of dates becomes one of times.
        Kind::Query(query) if query.singular => query.returning.as_ref().is_some_and(|returning| is_of_dates(scope, &returning.expression)),
        _ => false,
    }
}
