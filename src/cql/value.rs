//! Runtime values of CQL: the System types, tuples, class instances and nodes of the patient's record.
//!
//! A `Value` is cheap to clone (everything large is shared) and may cross threads. What equality,
//! equivalence and ordering mean is in `operators::comparison`; here is only what a value *is*.

use std::sync::Arc;

use rust_decimal::Decimal;

use crate::fhir::record::NodeId;

pub use super::date_time::{Date, DateTime, Precision, Time};
pub use super::interval::Interval;

/// A class of the data model, by its index in the program's table of classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClassId(pub u32);

/// One value while CQL is evaluated.
#[derive(Clone, Default)]
pub enum Value {
    /// No information. Never a member, never equal.
    #[default]
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// 32 bits.
    Integer(i32),
    /// 64 bits.
    Long(i64),
    /// At most 28 digits, at most 8 after the point.
    Decimal(Decimal),
    /// Text.
    String(Arc<str>),
    /// A calendar date of precision year, month or day.
    Date(Date),
    /// A point in time of precision year to millisecond, with or without an offset.
    DateTime(DateTime),
    /// A time of day of precision hour to millisecond.
    Time(Time),
    /// A decimal with a unit.
    Quantity(Arc<Quantity>),
    /// Two quantities, as in a titre.
    Ratio(Arc<Ratio>),
    /// One code of a code system.
    Code(Arc<Code>),
    /// Codes that mean the same.
    Concept(Arc<Concept>),
    /// A reference to a code system.
    CodeSystem(Arc<Vocabulary>),
    /// A reference to a value set; its members are in `terminology::ValueSets`.
    ValueSet(Arc<Vocabulary>),
    /// A range of one ordered type.
    Interval(Arc<Interval>),
    /// A list; elements may be null.
    List(Arc<Vec<Value>>),
    /// Named elements.
    Tuple(Arc<Tuple>),
    /// An instance of a model class that CQL itself has built.
    Instance(Arc<Instance>),
    /// An element of the patient's record, seen as a class of the model.
    Node(NodeId, ClassId),
}

/// A decimal and its unit; `unit` is a UCUM code, a CQL calendar word (`year`, `days`), or `1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity {
    /// The number, exact.
    pub value: Decimal,
    /// The unit as written; `1` when there was none.
    pub unit: Arc<str>,
}

/// A ratio of two quantities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ratio {
    /// Above the line.
    pub numerator: Quantity,
    /// Below the line.
    pub denominator: Quantity,
}

/// A code of a code system.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Code {
    /// The code itself.
    pub code: Arc<str>,
    /// Canonical URL of the code system.
    pub system: Option<Arc<str>>,
    /// Version of the code system.
    pub version: Option<Arc<str>>,
    /// Text for people; never compared by equivalence.
    pub display: Option<Arc<str>>,
}

/// Codes that say the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Concept {
    /// The codes.
    pub codes: Vec<Code>,
    /// Text for people.
    pub display: Option<Arc<str>>,
}

/// A reference to a value set or a code system.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Vocabulary {
    /// Canonical URL, without version.
    pub id: Arc<str>,
    /// Version, when one was pinned.
    pub version: Option<Arc<str>>,
    /// The name under which a library declares it.
    pub name: Option<Arc<str>>,
}

/// Named elements in the order of their declaration.
#[derive(Clone, Default)]
pub struct Tuple {
    /// (name, value), each name once.
    pub elements: Vec<(Arc<str>, Value)>,
}

/// A class instance built by a CQL instance selector.
#[derive(Clone)]
pub struct Instance {
    /// The qualified class, as `FHIR.Quantity`.
    pub class: Arc<str>,
    /// (name, value), each name once; an element that is absent is null.
    pub elements: Vec<(Arc<str>, Value)>,
}

impl Tuple {
    /// The element of that name; `None` when the tuple has none.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.elements.iter().find(|(own, _)| &**own == name).map(|(_, value)| value)
    }
}

impl Instance {
    /// The element of that name; `None` when it was not given.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.elements.iter().find(|(own, _)| &**own == name).map(|(_, value)| value)
    }
}

impl Value {
    /// A string value.
    pub fn string(text: &str) -> Value {
        Value::String(Arc::from(text))
    }

    /// A list value.
    pub fn list(items: Vec<Value>) -> Value {
        Value::List(Arc::new(items))
    }

    /// A quantity value.
    pub fn quantity(value: Decimal, unit: &str) -> Value {
        Value::Quantity(Arc::new(Quantity { value, unit: Arc::from(unit) }))
    }

    /// A tuple value.
    pub fn tuple(elements: Vec<(Arc<str>, Value)>) -> Value {
        Value::Tuple(Arc::new(Tuple { elements }))
    }

    /// Null is the only value for which this holds.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Three-valued logic: null is `None`; so is any value that is not Boolean.
    pub fn truth(&self) -> Option<bool> {
        match self {
            Value::Boolean(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The name of the value's type, for messages; never its content.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Boolean(_) => "Boolean",
            Value::Integer(_) => "Integer",
            Value::Long(_) => "Long",
            Value::Decimal(_) => "Decimal",
            Value::String(_) => "String",
            Value::Date(_) => "Date",
            Value::DateTime(_) => "DateTime",
            Value::Time(_) => "Time",
            Value::Quantity(_) => "Quantity",
            Value::Ratio(_) => "Ratio",
            Value::Code(_) => "Code",
            Value::Concept(_) => "Concept",
            Value::CodeSystem(_) => "CodeSystem",
            Value::ValueSet(_) => "ValueSet",
            Value::Interval(_) => "Interval",
            Value::List(_) => "List",
            Value::Tuple(_) => "Tuple",
            Value::Instance(_) => "class instance",
            Value::Node(..) => "element of the record",
        }
    }
}

impl std::fmt::Debug for Value {
    /// The type only: a value may be a patient's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.type_name())
    }
}

impl From<Option<bool>> for Value {
    fn from(truth: Option<bool>) -> Value {
        truth.map_or(Value::Null, Value::Boolean)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Value {
        Value::Boolean(truth)
    }
}
