//! Which overload of an operator or a function fits the operands best.

use super::conversion::{Conversions, Way};
use crate::cql::operators::{Pattern, Signature};
use crate::cql::types::Type;

/// Types that one variable of a signature may stand for.
const BINDINGS_MAX: usize = 64;

/// An overload that fits: its operand types, the ways to them, its result.
#[derive(Debug, Clone)]
pub(in crate::cql) struct Fit {
    /// Which of the candidates.
    pub index: usize,
    pub ways: Vec<Way>,
    pub result: Type,
    pub cost: u32,
}

/// The best of several concrete overloads, each its operand types and its result; the earlier one of equals.
pub(in crate::cql) fn best<'a>(conversions: &Conversions, operands: &[Type], candidates: impl Iterator<Item = (usize, Vec<&'a Type>, Type)>) -> Option<Fit> {
    let mut best: Option<Fit> = None;
    for (index, wanted, result) in candidates {
        if wanted.len() != operands.len() {
            continue;
        }
        let ways: Option<Vec<Way>> = operands.iter().zip(&wanted).map(|(from, to)| conversions.way(from, to)).collect();
        let Some(ways) = ways else { continue };
        let cost = ways.iter().map(|way| way.cost).sum();
        if best.as_ref().is_none_or(|best| cost < best.cost) {
            best = Some(Fit { index, ways, result, cost });
        }
    }
    best
}

/// The best signature of an operator's row for these operands.
pub(in crate::cql) fn signature(conversions: &Conversions, operands: &[Type], signatures: &[Signature]) -> Option<Fit> {
    let mut best: Option<Fit> = None;
    for (index, signature) in signatures.iter().enumerate() {
        if signature.operands.len() != operands.len() {
            continue;
        }
        for binding in bindings(conversions, operands, signature) {
            let wanted: Vec<Type> = signature.operands.iter().map(|pattern| instantiate(pattern, &binding)).collect();
            let candidate = std::iter::once((index, wanted.iter().collect(), instantiate(&signature.result, &binding)));
            if let Some(fit) = self::best(conversions, operands, candidate)
                && best.as_ref().is_none_or(|best| fit.cost < best.cost)
            {
                best = Some(fit);
            }
        }
    }
    best
}

/// What the signature's variable may stand for. The tables use one variable a signature; without one there is one binding.
fn bindings(conversions: &Conversions, operands: &[Type], signature: &Signature) -> Vec<Type> {
    if !signature.operands.iter().chain([&signature.result]).any(has_variable) {
        return vec![Type::Any];
    }
    let mut found = Vec::new();
    for (pattern, operand) in signature.operands.iter().zip(operands) {
        collect(conversions, pattern, operand, &mut found);
    }
    if found.is_empty() {
        found.push(Type::Any);
    }
    found.truncate(BINDINGS_MAX);
    found
}

fn collect(conversions: &Conversions, pattern: &Pattern, ty: &Type, found: &mut Vec<Type>) {
    match (pattern, ty) {
        (_, Type::Any) => {}
        (Pattern::Variable(_), ty) => {
            push(found, ty.clone());
            for target in targets(conversions, ty) {
                push(found, target);
            }
        }
        (Pattern::List(inner), single) if conversions.singletons && !single.is_list() => collect(conversions, inner, single, found),
        (Pattern::List(inner), Type::List(element)) => collect(conversions, inner, element, found),
        (Pattern::Interval(inner), Type::Interval(point)) => collect(conversions, inner, point, found),
        (Pattern::List(_) | Pattern::Interval(_), ty) => {
            for target in targets(conversions, ty) {
                if matches!(target, Type::List(_) | Type::Interval(_)) {
                    collect(conversions, pattern, &target, found);
                }
            }
        }
        _ => {}
    }
}

/// What a type turns into by one implicit step: a choice's alternatives and their conversions, a class's conversions.
fn targets(conversions: &Conversions, ty: &Type) -> Vec<Type> {
    match ty {
        Type::Choice(types) => types.iter().flat_map(|ty| std::iter::once(ty.clone()).chain(targets(conversions, ty))).collect(),
        Type::Class(class) => conversions.class_conversions(class).map(|(to, _)| to.clone()).collect(),
        Type::ValueSet => vec![Type::list(Type::Code)],
        Type::List(element) => {
            let mut found: Vec<Type> = targets(conversions, element).into_iter().map(Type::list).collect();
            if conversions.singletons {
                found.push((**element).clone());
                found.extend(targets(conversions, element));
            }
            found
        }
        Type::Interval(point) => targets(conversions, point).into_iter().map(Type::interval).collect(),
        _ => Vec::new(),
    }
}

fn push(found: &mut Vec<Type>, ty: Type) {
    if !found.contains(&ty) {
        found.push(ty);
    }
}

fn has_variable(pattern: &Pattern) -> bool {
    match pattern {
        Pattern::Variable(_) => true,
        Pattern::List(inner) | Pattern::Interval(inner) => has_variable(inner),
        _ => false,
    }
}

/// The pattern as a type, the variable replaced.
pub(in crate::cql) fn instantiate(pattern: &Pattern, variable: &Type) -> Type {
    match pattern {
        Pattern::Any => Type::Any,
        Pattern::Boolean => Type::Boolean,
        Pattern::Integer => Type::Integer,
        Pattern::Long => Type::Long,
        Pattern::Decimal => Type::Decimal,
        Pattern::String => Type::String,
        Pattern::Date => Type::Date,
        Pattern::DateTime => Type::DateTime,
        Pattern::Time => Type::Time,
        Pattern::Quantity => Type::Quantity,
        Pattern::Ratio => Type::Ratio,
        Pattern::Code => Type::Code,
        Pattern::Concept => Type::Concept,
        Pattern::Vocabulary => Type::Vocabulary,
        Pattern::ValueSet => Type::ValueSet,
        Pattern::CodeSystem => Type::CodeSystem,
        Pattern::List(inner) => Type::list(instantiate(inner, variable)),
        Pattern::Interval(inner) => Type::interval(instantiate(inner, variable)),
        Pattern::Variable(_) => variable.clone(),
    }
}

/// A signature as an author reads it: `(Date, Date)`.
pub(in crate::cql) fn written(operands: &[Type]) -> String {
    let names: Vec<String> = operands.iter().map(Type::to_string).collect();
    format!("({})", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cql::operators::operator;

    #[test]
    fn the_cheapest_overload_wins() {
        let conversions = Conversions::default();
        let fit = |name: &str, operands: &[Type]| {
            let fit = signature(&conversions, operands, operator(name)?.signatures)?;
            Some(format!("{} {}", fit.result, fit.cost))
        };
        let table: [(&str, &[Type], Option<&str>); 9] = [
            ("Add", &[Type::Integer, Type::Integer], Some("Integer 0")),
            ("Add", &[Type::Integer, Type::Decimal], Some("Decimal 5")),
            ("Add", &[Type::Integer, Type::String], None),
            ("Equal", &[Type::Integer, Type::Decimal], Some("Boolean 5")),
            ("Equal", &[Type::Integer, Type::String], None),
            ("First", &[Type::list(Type::String)], Some("String 0")),
            ("In", &[Type::Integer, Type::interval(Type::Decimal)], Some("Boolean 5")),
            ("In", &[Type::Any, Type::interval(Type::Integer)], Some("Boolean 2")),
            ("Union", &[Type::list(Type::Integer), Type::list(Type::Integer)], Some("List<Integer> 0")),
        ];
        for (name, operands, expected) in table {
            assert_eq!(fit(name, operands).as_deref(), expected, "{name} {}", written(operands));
        }
    }
}
