//! The typed tree, in which CQL text and ELM JSON meet: every name resolved, every conversion explicit.
//!
//! The checker builds one [`Tree`] for all libraries of a program, in the order of their includes. References are
//! indexes into the tree ([`DefineId`], [`FunctionId`], …); variables of a body (operands, aliases, lets, `$this`,
//! `$index`, `$total`) are [`Slot`]s of that body's frame. Operators of the specification's tables are
//! [`Kind::Operator`]; only forms with their own evaluation order are kinds of their own.

use std::sync::Arc;

use super::date_time::Precision;
use super::model::Model;
use super::operators::Operator;
use super::types::Type;
use super::value::Value;
use crate::diagnostic::{Location, SourceFile, Span};

macro_rules! index {
    ($(#[$doc:meta] $name:ident),+ $(,)?) => {$(
        #[$doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);
        impl $name {
            /// The place in the tree's vector.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    )+};
}

index! {
    /// A library of the tree.
    LibraryId,
    /// An expression definition (`define …`), unique in the whole program.
    DefineId,
    /// A function definition (one overload), unique in the whole program.
    FunctionId,
    /// A parameter declaration, unique in the whole program.
    ParameterId,
    /// A code system declaration.
    CodeSystemId,
    /// A value set declaration.
    ValueSetId,
    /// A code declaration.
    CodeId,
    /// A concept declaration.
    ConceptId,
    /// A variable of one body: operand, alias, let, `$this`, `$index`, `$total`. Counted from 0 in each define and function.
    Slot,
}

/// All libraries of one program, linked.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// In the order of dependency: an included library comes before the library that includes it.
    pub libraries: Vec<Library>,
    /// Parameters of all libraries.
    pub parameters: Vec<Parameter>,
    /// Code systems of all libraries.
    pub code_systems: Vec<CodeSystem>,
    /// Value sets of all libraries.
    pub value_sets: Vec<ValueSet>,
    /// Codes of all libraries.
    pub codes: Vec<CodeDefinition>,
    /// Concepts of all libraries.
    pub concepts: Vec<ConceptDefinition>,
    /// Expression definitions of all libraries.
    pub defines: Vec<Define>,
    /// Functions of all libraries, one row per overload.
    pub functions: Vec<Function>,
    /// Classes of the models in use; `ClassId` is the place in this vector.
    pub classes: Vec<Class>,
    /// The model whose instances data are, where the libraries use one: what elements a value has that is of any class.
    pub model: Option<Arc<Model>>,
}

/// A class of a model, as evaluation needs it: subtype tests, and how a primitive's `value` is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Qualified: `FHIR.Observation`.
    pub name: Arc<str>,
    /// Qualified name of the direct super-class; none at the root.
    pub base: Option<Arc<str>>,
    /// For a FHIR primitive: the System type of its `value` (own or inherited).
    pub primitive: Option<Type>,
    /// For a class of a derived model: the FHIR class that its instances are of.
    pub instance_of: Option<Arc<str>>,
}

/// One library: its identity and its text.
#[derive(Debug, Clone)]
pub struct Library {
    /// The name, qualified if the text qualifies it.
    pub name: Arc<str>,
    /// The declared version.
    pub version: Option<Arc<str>>,
    /// The text that spans of this library point into.
    pub source: Arc<SourceFile>,
    /// What it includes, by local name.
    pub includes: Vec<(Arc<str>, LibraryId)>,
    /// What it uses: model name and version (`FHIR`, `4.0.1`).
    pub usings: Vec<(Arc<str>, Option<Arc<str>>)>,
    /// What its text is.
    pub form: Form,
}

/// What the text of a library is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// CQL: what stands at a place is what the author wrote.
    #[default]
    Cql,
    /// ELM JSON: what stands at a place is a node of the document.
    Elm,
}

/// Whether other libraries may refer to a declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Visible to including libraries (the default of CQL).
    #[default]
    Public,
    /// Visible in its own library only.
    Private,
}

/// The context a define is evaluated in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EvaluationContext {
    /// Once per patient, retrieves see that patient's data.
    #[default]
    Patient,
    /// Without a patient: `context Unfiltered` (and the older `Population`).
    Unfiltered,
}

/// `parameter "Measurement Period" Interval<DateTime> default …`
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Declaring library.
    pub library: LibraryId,
    /// Name without quotes.
    pub name: Arc<str>,
    /// Declared type, or the type of the default.
    pub ty: Type,
    /// Default, evaluated without a patient. Absent: null.
    pub default: Option<Expression>,
    /// Visibility.
    pub access: Access,
    /// Of the declaration.
    pub at: Span,
}

/// `codesystem "LOINC": 'http://loinc.org' version '2.76'`
#[derive(Debug, Clone)]
pub struct CodeSystem {
    /// Declaring library.
    pub library: LibraryId,
    /// Local name.
    pub name: Arc<str>,
    /// URI (`urn:oid:…` or a URL).
    pub id: Arc<str>,
    /// Pinned version.
    pub version: Option<Arc<str>>,
    /// Visibility.
    pub access: Access,
    /// Of the declaration.
    pub at: Span,
}

/// `valueset "IBD": 'http://…'`
#[derive(Debug, Clone)]
pub struct ValueSet {
    /// Declaring library.
    pub library: LibraryId,
    /// Local name.
    pub name: Arc<str>,
    /// Canonical URL (without version).
    pub id: Arc<str>,
    /// Pinned version, from the `version` clause or a canonical `url|version`.
    pub version: Option<Arc<str>>,
    /// `codesystems { … }`: restricts the expansion.
    pub code_systems: Vec<CodeSystemId>,
    /// Visibility.
    pub access: Access,
    /// Of the declaration.
    pub at: Span,
}

/// `code "Quiescent": 'quiescent' from "IBD" display '…'`
#[derive(Debug, Clone)]
pub struct CodeDefinition {
    /// Declaring library.
    pub library: LibraryId,
    /// Local name.
    pub name: Arc<str>,
    /// The code.
    pub code: Arc<str>,
    /// Its system.
    pub system: CodeSystemId,
    /// Its display text.
    pub display: Option<Arc<str>>,
    /// Visibility.
    pub access: Access,
    /// Of the declaration.
    pub at: Span,
}

/// `concept "Condition Type": { "A", "B" } display '…'`
#[derive(Debug, Clone)]
pub struct ConceptDefinition {
    /// Declaring library.
    pub library: LibraryId,
    /// Local name.
    pub name: Arc<str>,
    /// Its codes, in order.
    pub codes: Vec<CodeId>,
    /// Its display text.
    pub display: Option<Arc<str>>,
    /// Visibility.
    pub access: Access,
    /// Of the declaration.
    pub at: Span,
}

/// `define "Initial Population": …`. The implicit `Patient` of `context Patient` is a define too:
/// `SingletonFrom` over a retrieve of the model's patient class.
#[derive(Debug, Clone)]
pub struct Define {
    /// Declaring library.
    pub library: LibraryId,
    /// Name without quotes.
    pub name: Arc<str>,
    /// Evaluation context.
    pub context: EvaluationContext,
    /// Visibility.
    pub access: Access,
    /// The body; its type is the define's type.
    pub body: Expression,
    /// How many slots the body uses.
    pub slots: u32,
    /// Of the whole statement.
    pub at: Span,
}

/// `define fluent function …`, one overload.
#[derive(Debug, Clone)]
pub struct Function {
    /// Declaring library.
    pub library: LibraryId,
    /// Name without quotes.
    pub name: Arc<str>,
    /// Called as `operand.name(…)`.
    pub fluent: bool,
    /// Operand names and types, in order; operand *n* is slot *n*.
    pub operands: Vec<(Arc<str>, Type)>,
    /// Declared or inferred result.
    pub result: Type,
    /// `None` for `external`: calling it is an error at run time.
    pub body: Option<Expression>,
    /// How many slots the body uses, operands included.
    pub slots: u32,
    /// Visibility.
    pub access: Access,
    /// Of the whole statement.
    pub at: Span,
}

/// One typed expression.
#[derive(Debug, Clone)]
pub struct Expression {
    /// What it is.
    pub kind: Kind,
    /// The type it evaluates to (null is a value of every type).
    pub ty: Type,
    /// Where it stands in its library's text; conversions the checker inserts take their operand's span.
    pub at: Span,
}

impl Expression {
    /// An expression of these parts.
    pub fn new(kind: Kind, ty: Type, at: Span) -> Self {
        Self { kind, ty, at }
    }

    /// The null literal of a type.
    pub fn null(ty: Type, at: Span) -> Self {
        Self::new(Kind::Literal(Value::Null), ty, at)
    }

    /// The expressions directly below, in the order of their evaluation.
    pub fn children(&self) -> Vec<&Expression> {
        match &self.kind {
            Kind::Operator { operands, .. } | Kind::Call { operands, .. } | Kind::Coalesce(operands) | Kind::List(operands) => operands.iter().collect(),
            Kind::And(pair) | Kind::Or(pair) | Kind::Implies(pair) => pair.iter().collect(),
            Kind::If(parts) => parts.iter().collect(),
            Kind::Case { comparand, items, otherwise } => {
                let items = items.iter().flat_map(|(when, then)| [when, then]);
                comparand.as_deref().into_iter().chain(items).chain([&**otherwise]).collect()
            }
            Kind::As { operand, .. } | Kind::Is { operand, .. } => vec![operand],
            Kind::Tuple(elements) | Kind::Instance { elements, .. } => elements.iter().map(|(_, element)| element).collect(),
            Kind::Interval(parts) => vec![&parts.low, &parts.low_closed, &parts.high, &parts.high_closed],
            Kind::Property { source, .. } => vec![source],
            Kind::Retrieve(retrieve) => {
                let (code, date) = (retrieve.code.iter().map(|filter| &filter.codes), retrieve.date.iter().map(|filter| &filter.range));
                code.chain(date).collect()
            }
            Kind::Query(query) => query.children(),
            Kind::Repeat(repeat) => vec![&repeat.source.expression, &repeat.element],
            Kind::Message(parts) => parts.iter().collect(),
            Kind::Literal(_) | Kind::Parameter(_) | Kind::Slot(_) | Kind::Define(_) | Kind::CodeSystem(_) | Kind::ValueSet(_) | Kind::Code(_) | Kind::Concept(_) => Vec::new(),
        }
    }
}

impl Query {
    fn children(&self) -> Vec<&Expression> {
        let sources = self.sources.iter().map(|source| &source.expression);
        let lets = self.lets.iter().map(|one| &one.expression);
        let related = self.relationships.iter().flat_map(|related| [&related.source.expression, &related.such_that]);
        let returning = self.returning.iter().map(|returning| &returning.expression);
        let aggregate = self.aggregate.iter().flat_map(|aggregate| [&aggregate.starting, &aggregate.expression]);
        let keys = self.sort.iter().flat_map(|sort| &sort.keys).map(|key| &key.expression);
        sources.chain(lets).chain(related).chain(&self.condition).chain(returning).chain(aggregate).chain(keys).collect()
    }
}

/// The forms of expression. Closed on purpose: an ELM node that is neither one of these nor an operator of the tables
/// is an error where it is read, never an empty result.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A constant: literals, quantities, ratios, null, `minimum Integer`, `maximum Date`.
    Literal(Value),
    /// A parameter's value.
    Parameter(ParameterId),
    /// An operand, alias, let, `$this`, `$index` or `$total`.
    Slot(Slot),
    /// Another define.
    Define(DefineId),
    /// A code system as a value.
    CodeSystem(CodeSystemId),
    /// A value set as a value (of type `ValueSet`).
    ValueSet(ValueSetId),
    /// A declared code.
    Code(CodeId),
    /// A declared concept.
    Concept(ConceptId),

    /// An operator of the tables, all operands evaluated first.
    Operator {
        /// The row.
        operator: &'static Operator,
        /// Operands, already converted to one of the row's signatures.
        operands: Vec<Expression>,
        /// `… same day as …`, `difference in months between …`.
        precision: Option<Precision>,
    },
    /// A user's function, the overload already chosen.
    Call {
        /// The function.
        function: FunctionId,
        /// Operands, converted to its operand types; a fluent call's receiver is the first.
        operands: Vec<Expression>,
    },

    /// Three-valued, the second operand only if needed.
    And(Box<[Expression; 2]>),
    /// Three-valued, the second operand only if needed.
    Or(Box<[Expression; 2]>),
    /// Three-valued, the second operand only if needed.
    Implies(Box<[Expression; 2]>),
    /// `if … then … else …`; a null condition is false.
    If(Box<[Expression; 3]>),
    /// `case … when … then … else … end`.
    Case {
        /// With a comparand the items' conditions are compared with it by `=`; without, they are Booleans.
        comparand: Option<Box<Expression>>,
        /// (when, then) in order.
        items: Vec<(Expression, Expression)>,
        /// `else`.
        otherwise: Box<Expression>,
    },
    /// The first operand that is not null; a single operand of a list type: its first element that is not null.
    Coalesce(Vec<Expression>),

    /// `x as T` (null when it is not one) and `cast x as T` (an error when it is not one).
    As {
        /// What is cast.
        operand: Box<Expression>,
        /// To this type.
        target: Type,
        /// `cast`: a value of another type is an error.
        strict: bool,
    },
    /// `x is T`; false for null.
    Is {
        /// What is tested.
        operand: Box<Expression>,
        /// Against this type, subtypes included.
        target: Type,
    },

    /// `Tuple { name: … }`.
    Tuple(Vec<(Arc<str>, Expression)>),
    /// `FHIR.Quantity { value: … }`, an instance of a model class.
    Instance {
        /// Qualified class name, `FHIR.Quantity`.
        class: Arc<str>,
        /// Elements set, in order of the text.
        elements: Vec<(Arc<str>, Expression)>,
    },
    /// `{ … }`.
    List(Vec<Expression>),
    /// `Interval[low, high)`. Whether a bound is closed is an expression because conversions between interval types copy it.
    Interval(Box<IntervalSelector>),

    /// `source.path`.
    Property {
        /// A class, tuple, or structured System type (Quantity, Code, Interval, …).
        source: Box<Expression>,
        /// One element.
        element: Element,
    },
    /// `[Observation: code in "LOINC 4548-4"]`.
    Retrieve(Box<Retrieve>),
    /// A query with all its clauses.
    Query(Box<Query>),
    /// `source.repeat(element)`: each result once, by `=`, in the order in which they are found; not the first items.
    Repeat(Box<Repeat>),
    /// `Message(source, condition, code, severity, message)`: returns the source; severity `Error` with a true condition ends evaluation.
    Message(Box<[Expression; 5]>),
}

/// The parts of an interval selector.
#[derive(Debug, Clone)]
pub struct IntervalSelector {
    /// Low bound.
    pub low: Expression,
    /// Boolean: `[` is true.
    pub low_closed: Expression,
    /// High bound.
    pub high: Expression,
    /// Boolean: `]` is true.
    pub high_closed: Expression,
}

/// One element of a class, tuple or System type, as the model resolves it.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// The name in CQL: `value`, `code`, `low`.
    pub name: Arc<str>,
    /// For model classes: where JSON keeps it and with which type. One row for a plain element (`code`); one per type
    /// for a choice (`valueQuantity`, `valueString`, …). The `value` of a FHIR primitive has one row whose type is the
    /// System type and whose field is empty. Empty for tuples and System types.
    pub alternatives: Vec<Alternative>,
    /// Declared as a list.
    pub list: bool,
}

impl Element {
    /// Of a choice the name without a type, under which JSON has nothing in R4: `value`.
    pub fn choice(&self) -> Option<&str> {
        let is_typed = |one: &Alternative| one.field.strip_prefix(&*self.name).is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()));
        (!self.alternatives.is_empty() && self.alternatives.iter().all(is_typed)).then_some(&self.name)
    }
}

/// One place of a choice element in JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    /// Field name in JSON: `valueQuantity`.
    pub field: Arc<str>,
    /// Its type (of one item, if the element is a list): `FHIR.Quantity`.
    pub ty: Type,
}

/// A retrieve of resources of one type.
#[derive(Debug, Clone)]
pub struct Retrieve {
    /// Qualified class name of the results: `FHIR.Observation`.
    pub class: Arc<str>,
    /// FHIR resource type: `Observation`. A profile retrieve selects by its base type and `fixed`.
    pub resource_type: Arc<str>,
    /// What a profile fixes: element paths and the codes one of which must be there. Empty for base types.
    pub fixed: Vec<FixedCodes>,
    /// `code in …`.
    pub code: Option<CodeFilter>,
    /// `onset during …`.
    pub date: Option<DateFilter>,
}

impl Retrieve {
    /// Of a retrieve by a value set the one that asks for the value set itself, named by its URL: what was not done may be said
    /// of all of it (QI-Core, "Negation in QI-Core").
    pub fn of_whole_value_set(&self) -> Option<Retrieve> {
        let filter = self.code.as_ref().filter(|filter| filter.codes.ty == Type::ValueSet && filter.comparator == Comparator::In)?;
        Some(Retrieve { code: Some(CodeFilter { comparator: Comparator::Equivalent, ..filter.clone() }), ..self.clone() })
    }
}

/// A code comparison that a profile implies.
#[derive(Debug, Clone)]
pub struct FixedCodes {
    /// From the resource.
    pub path: Vec<Element>,
    /// Comparison with these (system, code); an empty system means a `code` element without system.
    pub any_of: Vec<(Arc<str>, Arc<str>)>,
    /// How they decide.
    pub rule: FixedRule,
    /// The profile, whose claim in `meta.profile` decides before any code does.
    pub profile: Arc<str>,
    /// Profiles of the same type that say the opposite: a claim of one of them decides too.
    pub rivals: Vec<Arc<str>>,
}

/// How the codes that a profile fixes decide whether a resource is of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FixedRule {
    /// One of them must be there.
    One,
    /// One of them must be there, if the element is there at all: senders leave categories out.
    OneIfPresent,
    /// None of them may be there.
    None,
}

/// How a retrieve compares codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparator {
    /// `in`: membership of a value set or of a list of codes.
    In,
    /// `~`: equivalence.
    Equivalent,
    /// `=`: equality of codes.
    Equal,
}

/// The code part of a retrieve.
#[derive(Debug, Clone)]
pub struct CodeFilter {
    /// From the resource, outermost first; usually one element (`code`, `medication`).
    pub path: Vec<Element>,
    /// How to compare.
    pub comparator: Comparator,
    /// A `ValueSet`, `CodeSystem`, `Code`, `Concept`, or a list of `Code`.
    pub codes: Expression,
    /// Where the element is a reference to a Medication, that one's code counts: `[MedicationRequest: "Statins"]` means
    /// both, `[MedicationRequest: medication in "Statins"]` the element only, as the reference translator has it.
    pub through_reference: bool,
}

/// The date part of a retrieve.
#[derive(Debug, Clone)]
pub struct DateFilter {
    /// From the resource.
    pub path: Vec<Element>,
    /// `Interval<DateTime>` or `Interval<Date>`; the element must be during it.
    pub range: Expression,
}

/// A query. Clauses are evaluated in the order of the fields.
#[derive(Debug, Clone)]
pub struct Query {
    /// One row per alias. A source whose type is not a list stands for one row (none, if it is null).
    pub sources: Vec<Source>,
    /// `let`, in order.
    pub lets: Vec<Let>,
    /// `with … such that`, `without … such that`.
    pub relationships: Vec<Relationship>,
    /// `where`.
    pub condition: Option<Expression>,
    /// `return`; the checker supplies the tuple of aliases that several sources without `return` mean.
    pub returning: Option<Return>,
    /// `aggregate` (then there is no `return`).
    pub aggregate: Option<Aggregate>,
    /// `sort`.
    pub sort: Option<Sort>,
    /// No source is a list: the result is one value, not a list.
    pub singular: bool,
}

/// One source of a query.
#[derive(Debug, Clone)]
pub struct Source {
    /// The alias.
    pub slot: Slot,
    /// Its name, for tuples and explanations.
    pub name: Arc<str>,
    /// What it ranges over.
    pub expression: Expression,
    /// Where the number of the row is kept, from 0, if anything asks for it (`$index`).
    pub index: Option<Slot>,
}

impl Source {
    /// A source whose rows nobody counts.
    pub fn new(slot: Slot, name: Arc<str>, expression: Expression) -> Source {
        Source { slot, name, expression, index: None }
    }
}

/// What an expression makes of items, and of what it has made of them, until nothing new comes: FHIRPath's `repeat`.
#[derive(Debug, Clone)]
pub struct Repeat {
    /// The first items.
    pub source: Source,
    /// What is made of one item: one value or a list.
    pub element: Expression,
}

/// `let x: …`
#[derive(Debug, Clone)]
pub struct Let {
    /// The variable.
    pub slot: Slot,
    /// Its name.
    pub name: Arc<str>,
    /// Evaluated when first used in a row.
    pub expression: Expression,
}

/// `with` or `without`.
#[derive(Debug, Clone)]
pub struct Relationship {
    /// `without`: no such row may exist.
    pub without: bool,
    /// The related alias.
    pub source: Source,
    /// `such that`.
    pub such_that: Expression,
}

/// `return [all|distinct] …`
#[derive(Debug, Clone)]
pub struct Return {
    /// One result per row.
    pub expression: Expression,
    /// Duplicates removed: CQL's default for a written `return`.
    pub distinct: bool,
}

/// `aggregate [distinct] R starting 0: …`
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// The accumulator.
    pub slot: Slot,
    /// Its first value.
    pub starting: Expression,
    /// Its next value.
    pub expression: Expression,
    /// Over distinct rows.
    pub distinct: bool,
}

/// `sort by …`
#[derive(Debug, Clone)]
pub struct Sort {
    /// The slot that holds the row's result while a key is evaluated.
    pub slot: Slot,
    /// Keys, most significant first. `sort asc` is one key that is the slot itself; `sort by name` is a property of it.
    pub keys: Vec<SortKey>,
}

/// One key of a sort.
#[derive(Debug, Clone)]
pub struct SortKey {
    /// Evaluated per row.
    pub expression: Expression,
    /// `desc`. Nulls come first when ascending, last when descending.
    pub descending: bool,
}

impl Tree {
    /// The library of that name; of several versions the last one added.
    pub fn library(&self, name: &str) -> Option<LibraryId> {
        let index = self.libraries.iter().rposition(|library| &*library.name == name)?;
        Some(LibraryId(u32::try_from(index).ok()?))
    }

    /// The define of that name in a library.
    pub fn define(&self, library: LibraryId, name: &str) -> Option<DefineId> {
        let index = self.defines.iter().position(|define| define.library == library && &*define.name == name)?;
        Some(DefineId(u32::try_from(index).ok()?))
    }

    /// The functions of that name in a library: all overloads.
    pub fn functions<'a>(&'a self, library: LibraryId, name: &'a str) -> impl Iterator<Item = FunctionId> + 'a {
        (0u32..)
            .zip(&self.functions)
            .filter(move |(_, function)| function.library == library && &*function.name == name)
            .map(|(index, _)| FunctionId(index))
    }

    /// A place in a library's text, for diagnostics and errors.
    pub fn location(&self, library: LibraryId, at: Span) -> Option<Location> {
        let library = self.libraries.get(library.index())?;
        Some(Location { source: library.source.clone(), span: at })
    }
}
