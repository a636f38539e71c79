//! Numbers beside quantities, and quantities of different kinds: null in every run (CQL, "Quantity Operators").

use std::sync::Arc;

use super::{Scope, binary, is_alternative};
use crate::cql::typed::{Expression, Kind};
use crate::cql::types::Type;
use crate::cql::value::Value;
use crate::diagnostic::Diagnostic;
use crate::terminology::units::Units;

/// Deepest nesting of sums and intervals in which a unit is looked for: each sum has two sides, which may be names of others.
const DEPTH_MAX: u32 = 8;

/// What comes of an operator of two quantities that are not of one kind.
fn consequence(operator: &str) -> Option<&'static str> {
    Some(match operator {
        "Equal" | "NotEqual" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "In" | "ProperIn" | "Contains" | "ProperContains" => {
            "the comparison is null, never true or false"
        }
        "Equivalent" => "they are never equivalent",
        "NotEquivalent" => "they are never equivalent, so this is always true",
        "Add" => "the sum is null",
        "Subtract" => "the difference is null",
        _ => return None,
    })
}

/// The unit of a quantity, as far as the text tells it.
#[derive(Clone)]
struct Unit {
    name: Arc<str>,
    /// It is that of a number, which converts to a quantity of unit `1`.
    is_bare: bool,
}

/// What is wrong with the units of two operands, or of the two bounds of an interval.
pub(super) fn warning(scope: &Scope<'_>, expression: &Expression) -> Option<Diagnostic> {
    if let Kind::Interval(parts) = &expression.kind {
        let is_known = parts.low.ty == Type::Quantity && parts.high.ty == Type::Quantity;
        return pair(scope, &parts.low, &parts.high, "they make no interval").filter(|_| is_known);
    }
    let (name, left, right) = binary(expression)?;
    let consequence = consequence(name)?;
    if matches!(left.ty, Type::Date | Type::DateTime | Type::Time) {
        return no_time(scope, expression, name, left, right);
    }
    let is_quantity = |ty: &Type| ty.point().unwrap_or(ty) == &Type::Quantity;
    if !is_quantity(&left.ty) || !is_quantity(&right.ty) {
        return of_choice(scope, left, right).or_else(|| of_choice(scope, right, left));
    }
    let equivalent = name.ends_with("Equivalent");
    pair(scope, left, right, consequence).filter(|_| !equivalent || !alike_loosely(scope, left, right))
}

/// A bare number converts to a Quantity of no unit of time: added to a date it gives null in every run.
fn no_time(scope: &Scope<'_>, expression: &Expression, name: &str, time: &Expression, number: &Expression) -> Option<Diagnostic> {
    let (sign, what) = match name {
        "Add" => ("+", "added to"),
        "Subtract" => ("-", "subtracted from"),
        _ => return None,
    };
    unit(scope, number).filter(|unit| unit.is_bare)?;
    let message = format!("a number without a unit of time is {what} a {}: the result is null", time.ty);
    Some(scope.warning(expression, message, format!("write the unit, as `{sign} 5 days`")))
}

fn pair(scope: &Scope<'_>, left: &Expression, right: &Expression, consequence: &str) -> Option<Diagnostic> {
    match (unit(scope, left), unit(scope, right)) {
        (Some(one), Some(other)) if Units::new().comparable(&one.name, &other.name) => None,
        (Some(one), Some(other)) if one.is_bare => Some(number(scope, left, right, &other.name, consequence)),
        (Some(one), Some(other)) if other.is_bare => Some(number(scope, right, left, &one.name, consequence)),
        (Some(one), Some(other)) => {
            let [first, second] = [scope.written(left), scope.written(right)];
            let message = format!("`{first}` is in {} and `{second}` in {}: {consequence}", shown(&one.name), shown(&other.name));
            Some(scope.warning(right, message, "write both in units of one kind".to_owned()))
        }
        (Some(one), None) if one.is_bare => of_data(scope, left, right, consequence),
        (None, Some(other)) if other.is_bare => of_data(scope, right, left, consequence),
        _ => None,
    }
}

/// A number beside a quantity of a known unit.
fn number(scope: &Scope<'_>, number: &Expression, quantity: &Expression, unit: &str, consequence: &str) -> Diagnostic {
    let (bare, measured) = (scope.written(number), scope.written(quantity));
    let help = match (literal(number), &scope.meant(quantity).kind) {
        (Some(literal), _) => format!("write `{} {}`", scope.written(literal), shown(unit)),
        (None, Kind::Literal(Value::Quantity(value))) => format!("write `{}` without a unit", value.value),
        _ => "compare numbers with numbers, and quantities with quantities of their kind".to_owned(),
    };
    scope.warning(quantity, format!("`{bare}` is a number and `{measured}` is in {}: {consequence}", shown(unit)), help)
}

/// A number in the text beside a quantity whose unit only the data know; a quotient may well have none.
fn of_data(scope: &Scope<'_>, number: &Expression, quantity: &Expression, consequence: &str) -> Option<Diagnostic> {
    let is_quotient = matches!(binary(scope.meant(quantity)), Some(("Divide", ..)));
    let number = literal(number).filter(|_| !is_quotient)?;
    let bare = scope.written(number);
    let message = format!("`{bare}` is a number without a unit: beside a quantity that has one, {consequence}");
    Some(scope.warning(number, message, format!("write its unit, as `{bare} 'mm[Hg]'`; of quantities that have none, `{bare} '1'`")))
}

/// A number in the text beside what may be a quantity or a number: only the numbers are compared.
fn of_choice(scope: &Scope<'_>, choice: &Expression, number: &Expression) -> Option<Diagnostic> {
    let whole = implicit_cast(choice)?;
    let Type::Choice(types) = &whole.ty else { return None };
    let is_quantity = |ty: &Type| *ty == Type::Quantity || *ty == Type::class("FHIR.Quantity");
    let number = literal(number).filter(|_| types.iter().any(is_quantity))?;
    let [may, bare] = [scope.written(whole), scope.written(number)];
    let message = format!("`{may}` may be a Quantity, and `{bare}` has no unit: compared with it, a quantity is null, never true or false");
    Some(scope.warning(number, message, format!("write its unit, as `{bare} 'mm[Hg]'`; where only whole numbers are meant, `({may} as {})`", choice.ty)))
}

/// The choice that is cast without a word to be compared.
fn implicit_cast(expression: &Expression) -> Option<&Expression> {
    match &expression.kind {
        Kind::As { operand, .. } if operand.at == expression.at => Some(operand),
        Kind::Call { operands, .. } | Kind::Operator { operands, .. } => match operands.as_slice() {
            [one] if one.at == expression.at => implicit_cast(one),
            _ => None,
        },
        _ => None,
    }
}

fn unit(scope: &Scope<'_>, expression: &Expression) -> Option<Unit> {
    unit_within(scope, expression, DEPTH_MAX)
}

fn unit_within(scope: &Scope<'_>, expression: &Expression, depth: u32) -> Option<Unit> {
    let depth = depth.checked_sub(1)?;
    let unit = |part| unit_within(scope, part, depth);
    let expression = scope.meant(expression);
    match &expression.kind {
        Kind::Literal(Value::Quantity(value)) => Some(Unit { name: value.unit.clone(), is_bare: false }),
        Kind::Interval(parts) => unit(&parts.low).or_else(|| unit(&parts.high)),
        // How an interval of numbers becomes one of quantities.
        Kind::Query(query) if query.singular => unit(&query.returning.as_ref()?.expression),
        Kind::Operator { operator, operands, .. } => match (operator.name, operands.as_slice()) {
            ("ToQuantity", [number]) if is_number(&number.ty) && !is_alternative(number) => Some(Unit { name: "1".into(), is_bare: true }),
            ("Negate" | "Abs" | "Start" | "End", [one]) => unit(one),
            ("Add" | "Subtract", [left, right]) => unit(left).or_else(|| unit(right)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether `~` brings calendar years and months to fixed lengths.
fn alike_loosely(scope: &Scope<'_>, left: &Expression, right: &Expression) -> bool {
    let units = unit(scope, left).zip(unit(scope, right));
    units.is_some_and(|(left, right)| Units::new().convert_loosely(rust_decimal::Decimal::ONE, &left.name, &right.name).is_some())
}

fn is_number(ty: &Type) -> bool {
    matches!(ty, Type::Integer | Type::Long | Type::Decimal)
}

/// The number that is written there, of an interval its lower bound.
fn literal(expression: &Expression) -> Option<&Expression> {
    match &expression.kind {
        Kind::Literal(Value::Integer(_) | Value::Long(_) | Value::Decimal(_)) => Some(expression),
        Kind::Operator { operator, operands, .. } => match (operator.name, operands.as_slice()) {
            ("ToQuantity" | "ToDecimal" | "ToLong", [one]) => literal(one),
            ("Negate", [one]) => literal(one).map(|_| expression),
            _ => None,
        },
        Kind::Interval(parts) => literal(&parts.low),
        Kind::Query(query) if query.singular => query.sources.iter().find_map(|source| literal(&source.expression)),
        _ => None,
    }
}

/// The unit for people: words of the calendar as they are, units of UCUM in quotes.
fn shown(unit: &str) -> String {
    if unit.chars().all(|letter| letter.is_ascii_lowercase()) && unit.len() > 3 { unit.to_owned() } else { format!("'{unit}'") }
}
