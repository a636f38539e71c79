//! Texts that no code of an element is, and codes compared by more than their system and code.

use super::{Scope, binary};
use crate::cql::typed::{Expression, Function, Kind};
use crate::cql::types::Type;
use crate::cql::value::Value;
use crate::diagnostic::Diagnostic;
use crate::fhir::required;

/// The library whose functions turn elements of FHIR into values.
const HELPERS: &str = "FHIRHelpers";

/// A text that is compared with an element whose codes FHIR fixes, or `=` between codes.
pub(super) fn warning(scope: &Scope<'_>, expression: &Expression) -> Option<Diagnostic> {
    if let Kind::Case { comparand: Some(comparand), items, .. } = &expression.kind {
        let codes = bound(scope, comparand)?;
        return items.iter().find_map(|(when, _)| no_code(scope, &codes, when, "Equal"));
    }
    let (name, left, right) = binary(expression)?;
    match name {
        "Equal" | "NotEqual" if [left, right].iter().all(|side| matches!(side.ty, Type::Code | Type::Concept)) => equality(scope, expression, name, [left, right]),
        "Equal" | "NotEqual" | "Equivalent" | "NotEquivalent" => one_of(scope, left, right, name).or_else(|| one_of(scope, right, left, name)),
        "In" => one_of(scope, left, right, name).or_else(|| among(scope, left, right)),
        "Contains" => one_of(scope, right, left, name).or_else(|| among(scope, right, left)),
        _ => None,
    }
}

/// An element's name for its codes, and the codes.
struct Bound {
    class: String,
    codes: &'static [&'static str],
}

fn one_of(scope: &Scope<'_>, element: &Expression, texts: &Expression, operator: &str) -> Option<Diagnostic> {
    let codes = bound(scope, element)?;
    match &scope.meant(texts).kind {
        Kind::List(items) => items.iter().find_map(|item| no_code(scope, &codes, item, operator)),
        _ => no_code(scope, &codes, texts, operator),
    }
}

/// What is said of a text that is none of the codes.
fn no_code(scope: &Scope<'_>, bound: &Bound, text: &Expression, operator: &str) -> Option<Diagnostic> {
    let Kind::Literal(Value::String(value)) = &scope.meant(text).kind else { return None };
    let is_loose = operator.ends_with("Equivalent");
    let is_code = |code: &&str| if is_loose { code.eq_ignore_ascii_case(value.trim()) } else { **code == **value };
    if bound.codes.iter().any(is_code) {
        return None;
    }
    let consequence = match operator {
        "NotEqual" | "NotEquivalent" => "this is true of every code",
        "In" | "Contains" => "nothing has it",
        _ => "nothing has it, so this is never true",
    };
    let help = match required::meant(bound.codes, value) {
        Some(near) => format!("did you mean `'{near}'`?"),
        None => format!("the codes are {}", bound.codes.join(", ")),
    };
    Some(scope.warning(text, format!("`{value}` is no code of {}: {consequence}", bound.class), help))
}

/// The codes of the element from which a text is made.
fn bound(scope: &Scope<'_>, expression: &Expression) -> Option<Bound> {
    let expression = scope.meant(expression);
    let element = match &expression.kind {
        Kind::Property { source, element } if &*element.name == "value" => source,
        Kind::Call { function, operands } => {
            let Function { library, .. } = scope.tree.functions.get(function.index())?;
            scope.tree.libraries.get(library.index()).filter(|own| own.name.rsplit('.').next() == Some(HELPERS))?;
            operands.first()?
        }
        _ => return None,
    };
    let Type::Class(class) = &element.ty else { return None };
    let codes = required::codes(class)?;
    Some(Bound { class: class.trim_start_matches("FHIR.").to_owned(), codes })
}

/// A list is searched by `=`.
fn among(scope: &Scope<'_>, code: &Expression, codes: &Expression) -> Option<Diagnostic> {
    let is_list = matches!(codes.ty.element(), Some(Type::Code | Type::Concept));
    let message = "a list of codes is searched by `=`, which compares the version and the display too: where one side has none, it is null, never true";
    is_list.then(|| scope.warning(code, message.to_owned(), "name a value set, or compare with each by `~`".to_owned()))
}

/// `=` compares versions and displays too, which one side seldom has.
fn equality(scope: &Scope<'_>, expression: &Expression, operator: &str, sides: [&Expression; 2]) -> Option<Diagnostic> {
    if sides.iter().any(|side| matches!(side.kind, Kind::Literal(Value::Null))) {
        return None;
    }
    let (written, instead) = if operator == "Equal" { ("=", "~") } else { ("!=", "!~") };
    let message = format!("`{written}` compares the version and the display of codes too: where one side has none, it is null, never true");
    Some(scope.warning(expression, message, format!("write `{instead}`, which compares system and code")))
}
