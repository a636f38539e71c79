//! An expression of ELM in words, near to the CQL from which it was made.

use crate::cql::show;
use crate::cql::typed::{Expression, Function, Kind, Tree};
use crate::fhir::record::Record;

/// Deepest nesting that is written.
const DEPTH_MAX: u32 = 8;
/// Stands for what is left out.
const MORE: &str = "…";

pub(super) fn of(tree: &Tree, expression: &Expression) -> String {
    within(tree, expression, DEPTH_MAX).unwrap_or_else(|| MORE.to_owned())
}

fn within(tree: &Tree, expression: &Expression, depth: u32) -> Option<String> {
    let depth = depth.checked_sub(1)?;
    let call = |name: &str, operands: &[Expression]| match operands {
        // A conversion that nobody wrote.
        [only] if name.starts_with("To") => within(tree, only, depth),
        operands => {
            let operands: Vec<String> = operands.iter().map(|operand| within(tree, operand, depth).unwrap_or_else(|| MORE.to_owned())).collect();
            Some(format!("{name}({})", operands.join(", ")))
        }
    };
    match &expression.kind {
        Kind::Literal(value) => Some(show::text(value, &Record::default())),
        Kind::Define(id) => Some(format!("\"{}\"", tree.defines.get(id.index())?.name)),
        Kind::Parameter(id) => Some(format!("\"{}\"", tree.parameters.get(id.index())?.name)),
        Kind::Property { source, element } => Some(match within(tree, source, depth) {
            Some(source) => format!("{source}.{}", element.name),
            None => element.name.to_string(),
        }),
        Kind::As { operand, .. } => within(tree, operand, depth),
        Kind::Operator { operator, operands, .. } => call(operator.name, operands),
        Kind::Call { function, operands } => {
            let Function { name, .. } = tree.functions.get(function.index())?;
            call(name, operands)
        }
        Kind::Interval(parts) => Some(format!("Interval[{}, {}]", of(tree, &parts.low), of(tree, &parts.high))),
        // How an interval of one type becomes one of another.
        Kind::Query(query) if query.singular => within(tree, &query.sources.first()?.expression, depth),
        _ => None,
    }
}
