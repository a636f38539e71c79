//! The types of CQL: the system's own, the model's classes, and what is built from them.

use std::fmt;
use std::sync::Arc;

/// A CQL type, cheap to clone. Tuples keep their elements sorted by name; choices hold no choice, no duplicate, and at least two types.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    /// The super-type of all types; also the type of a bare `null`.
    Any,
    /// true or false.
    Boolean,
    /// 32 bits, signed.
    Integer,
    /// 64 bits, signed.
    Long,
    /// 28 digits, at most 8 after the point.
    Decimal,
    /// Text.
    String,
    /// A calendar date with precision.
    Date,
    /// A point in time with precision and offset.
    DateTime,
    /// A time of day with precision.
    Time,
    /// A number with a UCUM unit.
    Quantity,
    /// Two quantities, numerator and denominator.
    Ratio,
    /// A code of a code system.
    Code,
    /// Several codes for one idea.
    Concept,
    /// A reference to a code system.
    CodeSystem,
    /// A reference to a value set.
    ValueSet,
    /// The super-type of code system and value set.
    Vocabulary,
    /// A class of the model by its qualified name, such as `FHIR.Observation`.
    Class(Arc<str>),
    /// A list of one type.
    List(Arc<Type>),
    /// An interval over an ordered type.
    Interval(Arc<Type>),
    /// Named elements, sorted by name.
    Tuple(Arc<[(Arc<str>, Type)]>),
    /// One of several types.
    Choice(Arc<[Type]>),
}

/// Most parts of one type: a tuple of tuples that doubles with every definition has more after twenty.
pub const PARTS_MAX: usize = 10_000;

impl Type {
    /// Whether the type has more parts than [`PARTS_MAX`]; looks at no more of them than that.
    pub fn is_too_large(&self) -> bool {
        fn spend(ty: &Type, left: &mut usize) -> bool {
            *left = left.saturating_sub(1);
            *left > 0
                && match ty {
                    Type::List(inner) | Type::Interval(inner) => spend(inner, left),
                    Type::Choice(types) => types.iter().all(|ty| spend(ty, left)),
                    Type::Tuple(elements) => elements.iter().all(|(_, ty)| spend(ty, left)),
                    _ => true,
                }
        }
        !spend(self, &mut PARTS_MAX.clone())
    }

    /// A list of `element`.
    pub fn list(element: Type) -> Type {
        Type::List(Arc::new(element))
    }

    /// An interval over `point`.
    pub fn interval(point: Type) -> Type {
        Type::Interval(Arc::new(point))
    }

    /// A class of the model by its qualified name.
    pub fn class(name: &str) -> Type {
        Type::Class(Arc::from(name))
    }

    /// A tuple of these elements, in any order.
    pub fn tuple(mut elements: Vec<(Arc<str>, Type)>) -> Type {
        elements.sort_by(|a, b| a.0.cmp(&b.0));
        Type::Tuple(elements.into())
    }

    /// The choice of these types: nested choices are flattened, duplicates dropped; one type alone is itself, none is `Any`.
    pub fn choice(types: impl IntoIterator<Item = Type>) -> Type {
        let mut flat: Vec<Type> = Vec::new();
        for ty in types {
            match ty {
                Type::Choice(inner) => inner.iter().for_each(|t| push_new(&mut flat, t.clone())),
                other => push_new(&mut flat, other),
            }
        }
        match flat.len() {
            0 => Type::Any,
            1 => flat.remove(0),
            _ => Type::Choice(flat.into()),
        }
    }

    /// The system type of this name (`Integer`, not `System.Integer`), if there is one.
    pub fn system(name: &str) -> Option<Type> {
        SYSTEM_TYPES.iter().find(|(n, _)| *n == name).map(|(_, ty)| ty.clone())
    }

    /// Whether this is a list.
    pub fn is_list(&self) -> bool {
        matches!(self, Type::List(_))
    }

    /// The element type of a list.
    pub fn element(&self) -> Option<&Type> {
        match self {
            Type::List(element) => Some(element),
            _ => None,
        }
    }

    /// The point type of an interval.
    pub fn point(&self) -> Option<&Type> {
        match self {
            Type::Interval(point) => Some(point),
            _ => None,
        }
    }
}

fn push_new(types: &mut Vec<Type>, ty: Type) {
    if !types.contains(&ty) {
        types.push(ty);
    }
}

/// The system types by their unqualified names.
pub const SYSTEM_TYPES: [(&str, Type); 16] = [
    ("Any", Type::Any),
    ("Boolean", Type::Boolean),
    ("Integer", Type::Integer),
    ("Long", Type::Long),
    ("Decimal", Type::Decimal),
    ("String", Type::String),
    ("Date", Type::Date),
    ("DateTime", Type::DateTime),
    ("Time", Type::Time),
    ("Quantity", Type::Quantity),
    ("Ratio", Type::Ratio),
    ("Code", Type::Code),
    ("Concept", Type::Concept),
    ("CodeSystem", Type::CodeSystem),
    ("ValueSet", Type::ValueSet),
    ("Vocabulary", Type::Vocabulary),
];

impl fmt::Display for Type {
    /// As an author writes it: `List<FHIR.Observation>`, `Choice<Integer, String>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Class(name) => f.write_str(name),
            Type::List(element) => write!(f, "List<{element}>"),
            Type::Interval(point) => write!(f, "Interval<{point}>"),
            Type::Tuple(elements) => {
                f.write_str("Tuple { ")?;
                for (i, (name, ty)) in elements.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{name} {ty}")?;
                }
                f.write_str(" }")
            }
            Type::Choice(types) => {
                f.write_str("Choice<")?;
                for (i, ty) in types.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    write!(f, "{ty}")?;
                }
                f.write_str(">")
            }
            simple => {
                let name = SYSTEM_TYPES.iter().find(|(_, ty)| ty == simple).map_or("Any", |(n, _)| n);
                f.write_str(name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_as_an_author_writes_them() {
        let ty = Type::list(Type::choice([Type::Integer, Type::interval(Type::DateTime), Type::Integer]));
        assert_eq!(ty.to_string(), "List<Choice<Integer, Interval<DateTime>>>");
        assert_eq!(Type::tuple(vec![("b".into(), Type::Date), ("a".into(), Type::Any)]).to_string(), "Tuple { a Any, b Date }");
        assert_eq!(Type::class("FHIR.Patient").to_string(), "FHIR.Patient");
    }

    #[test]
    fn a_choice_is_flat_and_without_duplicates() {
        let inner = Type::choice([Type::Integer, Type::String]);
        assert_eq!(Type::choice([inner.clone(), Type::String]), inner);
        assert_eq!(Type::choice([Type::String]), Type::String);
    }
}
