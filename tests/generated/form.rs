//! The forms of expression: a text with typed gaps. One for each overload of the operator table, made from the table, and
//! those that only syntax has.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use watershed::cql::operators::{Pattern, operators};
use watershed::cql::types::Type;

/// A text with gaps, and the type of what it makes. Type variables are classes of one letter: see [`stands_for`].
pub(super) struct Form {
    pub(super) result: Type,
    pub(super) parts: Vec<Part>,
}

pub(super) enum Part {
    Text(String),
    /// An expression of this type; where it has a name, the same one wherever the name stands.
    Gap(Option<char>, Type),
    /// A precision of the dates or times in the form: `day`, `days`.
    Precision(&'static str),
    /// The name of the type that a variable stands for.
    Name(Type),
}

/// What variables stand for in one use of a form.
pub(super) type Bound = BTreeMap<char, Type>;

/// The types that intervals range over.
pub(super) const POINTS: [Type; 7] = [Type::Integer, Type::Long, Type::Decimal, Type::Date, Type::DateTime, Type::Time, Type::Quantity];

/// What syntax has beside the calls of the operator table. Gaps are written `«Type»`, or `«A:Type»` to be named again as `«A»`;
/// `«p»` and `«ps»` are precisions, `«=T»` is the name of a type.
const WRITTEN: &str = include_str!("forms.txt");

/// Rows that take a type or a precision and so are written in syntax only.
const SYNTAX_ONLY: [&str; 5] = ["MinValue", "MaxValue", "DateTimeComponentFrom", "DifferenceBetween", "DurationBetween"];

/// Every form, those of the operator table first.
pub(super) static FORMS: LazyLock<Vec<Form>> = LazyLock::new(|| {
    let called_rows = operators().filter(|row| !SYNTAX_ONLY.contains(&row.name));
    let overloads = called_rows.flat_map(|row| row.signatures.iter().map(|signature| called(row.name, signature.operands, signature.result)));
    overloads.chain(rows(WRITTEN).map(|(result, text)| Form { result: ty(result), parts: parts(text) })).collect()
});

/// `left: right` a line; blank lines and those that begin with `#` are talk.
pub(super) fn rows(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no form: {line}")))
}

/// The call of an operator by its name: every row can be written so.
fn called(name: &str, operands: &[Pattern], result: Pattern) -> Form {
    // One variable a signature; it ranges over what the patterns and the operator let it.
    let is_point = |pattern: &Pattern| matches!(pattern, Pattern::Interval(_)) || matches!(pattern, Pattern::List(Pattern::Interval(_)));
    let letter = match name {
        "Max" | "Min" => 'O',
        "Size" | "Width" => 'N',
        _ if operands.iter().any(is_point) => 'P',
        _ => 'T',
    };
    let mut parts = vec![Part::Text(format!("{name}("))];
    for (index, operand) in operands.iter().enumerate() {
        parts.push(Part::Text(if index == 0 { "" } else { ", " }.to_owned()));
        parts.push(Part::Gap(None, if *operand == Pattern::Any { variable('T') } else { of_pattern(operand, letter) }));
    }
    parts.push(Part::Text(")".to_owned()));
    Form { result: of_pattern(&result, letter), parts }
}

fn variable(letter: char) -> Type {
    Type::class(&letter.to_string())
}

fn of_pattern(pattern: &Pattern, letter: char) -> Type {
    match pattern {
        Pattern::List(inner) => Type::list(of_pattern(inner, letter)),
        Pattern::Interval(inner) => Type::interval(of_pattern(inner, letter)),
        Pattern::Variable(_) => variable(letter),
        simple => Type::system(&format!("{simple:?}")).unwrap_or_else(|| panic!("{simple:?} is no type")),
    }
}

/// A form's text in parts.
pub(super) fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut names = BTreeMap::new();
    for (index, piece) in text.split(['«', '»']).enumerate() {
        parts.push(match piece {
            text if index % 2 == 0 => Part::Text(text.to_owned()),
            "p" => Part::Precision(""),
            "ps" => Part::Precision("s"),
            name if name.starts_with('=') => Part::Name(ty(&name[1..])),
            gap => match gap.split_once(':') {
                Some((name, gap)) => {
                    let name = name.chars().next().expect("a name");
                    names.insert(name, ty(gap));
                    Part::Gap(Some(name), ty(gap))
                }
                None => match gap.chars().next().filter(|_| gap.chars().count() == 1).and_then(|name| Some((name, names.get(&name)?))) {
                    Some((name, ty)) => Part::Gap(Some(name), ty.clone()),
                    None => Part::Gap(None, ty(gap)),
                },
            },
        });
    }
    parts
}

/// A type as it is written.
pub(super) fn ty(text: &str) -> Type {
    let within = |kind: &str| text.strip_prefix(kind).and_then(|rest| rest.strip_suffix('>'));
    if let Some(item) = within("List<") {
        return Type::list(ty(item));
    }
    if let Some(point) = within("Interval<") {
        return Type::interval(ty(point));
    }
    if let Some(types) = within("Choice<") {
        return Type::choice(types.split(", ").map(ty));
    }
    Type::system(text).unwrap_or_else(|| Type::class(text))
}

/// A type's name in a library that has another Quantity and Ratio, those of FHIR.
pub(super) fn name(ty: &Type) -> String {
    let all = |parts: Vec<String>| parts.join(", ");
    match ty {
        Type::List(item) => format!("List<{}>", name(item)),
        Type::Interval(point) => format!("Interval<{}>", name(point)),
        Type::Choice(types) => format!("Choice<{}>", all(types.iter().map(name).collect())),
        Type::Tuple(elements) => format!("Tuple {{ {} }}", all(elements.iter().map(|(element, ty)| format!("{element} {}", name(ty))).collect())),
        Type::Class(class) => class.to_string(),
        simple => format!("System.{simple}"),
    }
}

/// The letter of a variable.
pub(super) fn letter(ty: &Type) -> Option<char> {
    match ty {
        Type::Class(name) if name.len() == 1 => name.chars().next(),
        _ => None,
    }
}

/// The types that a variable may stand for; none for `T`, which may stand for any.
pub(super) fn stands_for(letter: char) -> Option<&'static [Type]> {
    const ORDERED: [Type; 8] = [Type::Integer, Type::Long, Type::Decimal, Type::Date, Type::DateTime, Type::Time, Type::Quantity, Type::String];
    match letter {
        'O' => Some(&ORDERED),
        'P' => Some(&POINTS),
        'C' => Some(&[Type::Date, Type::DateTime, Type::Time]),
        'D' => Some(&[Type::Date, Type::DateTime]),
        'N' => Some(&[Type::Integer, Type::Long, Type::Decimal, Type::Quantity]),
        'M' => Some(&[Type::Integer, Type::Long, Type::Decimal]),
        _ => None,
    }
}

/// Whether a form that makes the pattern makes the wanted type, and what its variables then stand for.
pub(super) fn makes(pattern: &Type, wanted: &Type, bound: &mut Bound) -> bool {
    if let Some(letter) = letter(pattern) {
        if let Some(own) = bound.get(&letter) {
            return own == wanted;
        }
        bound.insert(letter, wanted.clone());
        return stands_for(letter).map_or_else(|| is_plain(wanted), |types| types.contains(wanted));
    }
    match (pattern, wanted) {
        (Type::List(pattern), Type::List(wanted)) | (Type::Interval(pattern), Type::Interval(wanted)) => makes(pattern, wanted, bound),
        _ => pattern == wanted,
    }
}

/// Whether a value of the type can stand anywhere.
fn is_plain(ty: &Type) -> bool {
    match ty {
        Type::Any | Type::ValueSet | Type::CodeSystem | Type::Vocabulary => false,
        Type::List(item) => is_plain(item),
        _ => true,
    }
}

/// The pattern with its variables replaced.
pub(super) fn instance(pattern: &Type, bound: &Bound) -> Type {
    match pattern {
        Type::List(item) => Type::list(instance(item, bound)),
        Type::Interval(point) => Type::interval(instance(point, bound)),
        other => letter(other).and_then(|letter| bound.get(&letter)).unwrap_or(other).clone(),
    }
}

/// The variables of a pattern.
pub(super) fn variables(pattern: &Type) -> Vec<char> {
    match pattern {
        Type::List(inner) | Type::Interval(inner) => variables(inner),
        other => letter(other).into_iter().collect(),
    }
}
