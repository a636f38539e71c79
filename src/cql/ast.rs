//! The syntax tree of a CQL library: what the author wrote, with exact places, before any name is resolved.

use std::sync::Arc;

use super::typed::{Access, EvaluationContext};
use super::value::Precision;
use crate::diagnostic::Span;

/// A name without its quotes, where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The name.
    pub text: Arc<str>,
    /// Where it stands.
    pub at: Span,
}

/// A name that may be qualified, as `FHIR.Observation` or `Common."Is Finished"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// At least one name.
    pub parts: Vec<Name>,
    /// From the first to the last.
    pub at: Span,
}

impl Path {
    /// The names joined with points.
    pub fn text(&self) -> String {
        self.parts.iter().map(|part| &*part.text).collect::<Vec<_>>().join(".")
    }

    /// The last name.
    pub fn last(&self) -> Option<&Name> {
        self.parts.last()
    }
}

/// A whole library. Declarations keep their order of kind; statements keep their order in the text.
#[derive(Debug, Clone, Default)]
pub struct Library {
    /// `library Name version '…'`.
    pub name: Option<(Path, Option<Text>)>,
    /// `using`.
    pub usings: Vec<Using>,
    /// `include`.
    pub includes: Vec<Include>,
    /// `codesystem`.
    pub code_systems: Vec<CodeSystem>,
    /// `valueset`.
    pub value_sets: Vec<ValueSet>,
    /// `code`.
    pub codes: Vec<Code>,
    /// `concept`.
    pub concepts: Vec<Concept>,
    /// `parameter`.
    pub parameters: Vec<Parameter>,
    /// `define …`, each with its context.
    pub defines: Vec<Define>,
    /// `define function …`.
    pub functions: Vec<Function>,
    /// `context …` as written, in order.
    pub contexts: Vec<(Name, EvaluationContext)>,
    /// Names of statements that could not be read: their fault is reported, so nobody need hear that they are missing.
    pub broken: Vec<Name>,
    /// Whether the end of the text is missing, because a text or comment is never closed.
    pub is_cut: bool,
}

/// A string literal, where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The string, escapes resolved.
    pub text: Arc<str>,
    /// Where it stands, quotes included.
    pub at: Span,
}

/// `using FHIR version '4.0.1' called F`
#[derive(Debug, Clone)]
pub struct Using {
    /// The model.
    pub name: Name,
    /// Its version.
    pub version: Option<Text>,
    /// Its local name.
    pub alias: Option<Name>,
}

/// `include FHIRHelpers version '4.0.1' called FHIRHelpers`
#[derive(Debug, Clone)]
pub struct Include {
    /// The library.
    pub name: Path,
    /// Its version.
    pub version: Option<Text>,
    /// Its local name.
    pub alias: Option<Name>,
}

/// `codesystem "LOINC": 'http://loinc.org' version '…'`
#[derive(Debug, Clone)]
pub struct CodeSystem {
    /// Visibility.
    pub access: Access,
    /// Local name.
    pub name: Name,
    /// URI.
    pub id: Text,
    /// Pinned version.
    pub version: Option<Text>,
    /// Whole declaration.
    pub at: Span,
}

/// `valueset "IBD": '…' version '…' codesystems { … }`
#[derive(Debug, Clone)]
pub struct ValueSet {
    /// Visibility.
    pub access: Access,
    /// Local name.
    pub name: Name,
    /// Canonical URL.
    pub id: Text,
    /// Pinned version.
    pub version: Option<Text>,
    /// Code systems that restrict it.
    pub code_systems: Vec<Path>,
    /// Whole declaration.
    pub at: Span,
}

/// `code "Quiescent": 'quiescent' from "IBD" display '…'`
#[derive(Debug, Clone)]
pub struct Code {
    /// Visibility.
    pub access: Access,
    /// Local name.
    pub name: Name,
    /// The code.
    pub code: Text,
    /// Its code system.
    pub system: Path,
    /// Display.
    pub display: Option<Text>,
    /// Whole declaration.
    pub at: Span,
}

/// `concept "X": { "A", "B" } display '…'`
#[derive(Debug, Clone)]
pub struct Concept {
    /// Visibility.
    pub access: Access,
    /// Local name.
    pub name: Name,
    /// Its codes.
    pub codes: Vec<Path>,
    /// Display.
    pub display: Option<Text>,
    /// Whole declaration.
    pub at: Span,
}

/// `parameter "Measurement Period" Interval<DateTime> default …`
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Visibility.
    pub access: Access,
    /// Local name.
    pub name: Name,
    /// Declared type.
    pub ty: Option<TypeSpecifier>,
    /// Default.
    pub default: Option<Expression>,
    /// Whole declaration.
    pub at: Span,
}

/// `define "Initial Population": …`
#[derive(Debug, Clone)]
pub struct Define {
    /// Visibility.
    pub access: Access,
    /// The context in force.
    pub context: EvaluationContext,
    /// Its name.
    pub name: Name,
    /// Its body.
    pub body: Expression,
    /// Whole statement.
    pub at: Span,
}

/// `define fluent function "Is Finished"(encounter Encounter): …`
#[derive(Debug, Clone)]
pub struct Function {
    /// Visibility.
    pub access: Access,
    /// May be called as `operand.name(…)`.
    pub fluent: bool,
    /// Its name.
    pub name: Name,
    /// Operands in order.
    pub operands: Vec<(Name, TypeSpecifier)>,
    /// `returns`.
    pub returns: Option<TypeSpecifier>,
    /// `None`: external.
    pub body: Option<Expression>,
    /// Whole statement.
    pub at: Span,
}

/// A type as written.
#[derive(Debug, Clone)]
pub struct TypeSpecifier {
    /// Which.
    pub kind: TypeKind,
    /// Where it stands.
    pub at: Span,
}

/// The forms of a type.
#[derive(Debug, Clone)]
pub enum TypeKind {
    /// `FHIR.Observation`, `Integer`.
    Named(Path),
    /// `List<T>`.
    List(Box<TypeSpecifier>),
    /// `Interval<T>`.
    Interval(Box<TypeSpecifier>),
    /// `Tuple { name T, … }`.
    Tuple(Vec<(Name, TypeSpecifier)>),
    /// `Choice<A, B>`.
    Choice(Vec<TypeSpecifier>),
}

/// One expression.
#[derive(Debug, Clone)]
pub struct Expression {
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub at: Span,
    /// Height of the tree from here, bounded by the parser so that no later stage recurses too deep.
    pub depth: u32,
}

/// The forms of expression.
#[derive(Debug, Clone)]
pub enum Kind {
    /// `null`.
    Null,
    /// `true`, `false`.
    Boolean(bool),
    /// Digits only.
    Integer(Arc<str>),
    /// Digits before the `L`.
    Long(Arc<str>),
    /// Digits with a point.
    Decimal(Arc<str>),
    /// `'…'`.
    String(Arc<str>),
    /// `@2012-02-29`, with the `@`.
    Date(Arc<str>),
    /// `@2012-02-29T10:00`, with the `@`.
    DateTime(Arc<str>),
    /// `@T10:00`, with the `@`.
    Time(Arc<str>),
    /// `5 'mg'`, `3 months`.
    Quantity(Quantity),
    /// `1:128`.
    Ratio(Quantity, Quantity),
    /// A define, alias, operand, parameter, terminology or element; also `$this`, `$index`, `$total`.
    Name(Arc<str>),
    /// `%name`.
    External(Arc<str>),
    /// `source.name`; the source may also be a library or a model.
    Member(Box<Expression>, Name),
    /// `name(…)`, or with a target `target.name(…)`: a library's function or a fluent call.
    Call {
        /// What stands before the point.
        target: Option<Box<Expression>>,
        /// The function.
        name: Name,
        /// In parentheses.
        operands: Vec<Expression>,
    },
    /// `source[index]`.
    Indexer(Box<Expression>, Box<Expression>),
    /// A unary operator by its ELM name.
    Unary(&'static str, Box<Expression>),
    /// A binary operator by its ELM name, with precision for the timing ones.
    Binary {
        /// ELM name.
        operator: &'static str,
        /// `day of`.
        precision: Option<Precision>,
        /// Left operand.
        left: Box<Expression>,
        /// Right operand.
        right: Box<Expression>,
        /// Where the operator's words stand.
        words: Span,
    },
    /// `left 3 days or less before right`.
    Offset(Box<Offset>),
    /// `left properly within 3 days of right`.
    Within {
        /// `properly`.
        proper: bool,
        /// How far.
        distance: Quantity,
        /// Left operand.
        left: Box<Expression>,
        /// Right operand.
        right: Box<Expression>,
    },
    /// `x is null`, `is true`, `is false` by ELM name, possibly negated.
    IsLiteral(&'static str, bool, Box<Expression>),
    /// `x is T`.
    Is(Box<Expression>, TypeSpecifier),
    /// `x as T`; strict: `cast x as T`.
    As(Box<Expression>, TypeSpecifier, bool),
    /// `convert x to T`.
    ConvertType(Box<Expression>, TypeSpecifier),
    /// `convert x to 'mg'`.
    ConvertUnit(Box<Expression>, Arc<str>),
    /// `x properly between a and b`.
    Between(Box<[Expression; 3]>, bool),
    /// `days between a and b`, `difference in days between a and b` by ELM name.
    DateSpan(&'static str, Precision, Box<[Expression; 2]>),
    /// `duration in days of x`, `difference in days of x` by ELM name.
    SpanOf(&'static str, Precision, Box<Expression>),
    /// `year from x`.
    Component(Precision, Box<Expression>),
    /// `minimum Integer`, `maximum Integer` by ELM name.
    Extreme(&'static str, Path),
    /// `if … then … else …`.
    If(Box<[Expression; 3]>),
    /// `case`.
    Case {
        /// Compared with each item.
        comparand: Option<Box<Expression>>,
        /// (when, then).
        items: Vec<(Expression, Expression)>,
        /// `else`.
        otherwise: Box<Expression>,
    },
    /// `expand`, `collapse` by ELM name, with `per`.
    PerUnit(&'static str, Box<Expression>, Option<Box<Expression>>),
    /// `Tuple { a: 1 }`.
    Tuple(Vec<(Name, Expression)>),
    /// `FHIR.Quantity { value: … }`.
    Instance(Path, Vec<(Name, Expression)>),
    /// `List<T>{ … }`.
    List(Option<TypeSpecifier>, Vec<Expression>),
    /// `Interval[low, high)`.
    Interval {
        /// `[`.
        low_closed: bool,
        /// Low bound.
        low: Box<Expression>,
        /// High bound.
        high: Box<Expression>,
        /// `]`.
        high_closed: bool,
    },
    /// `Code 'x' from "System" display '…'`.
    Code(CodeSelector),
    /// `Concept { Code …, … } display '…'`.
    Concept(Vec<CodeSelector>, Option<Text>),
    /// `[Observation: code in "X"]`.
    Retrieve(Box<Retrieve>),
    /// A query.
    Query(Box<Query>),
}

/// A number with a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantity {
    /// Digits.
    pub value: Arc<str>,
    /// Without quotes; `None` only inside a ratio.
    pub unit: Option<Arc<str>>,
    /// Whether the unit is a calendar word (`days`).
    pub calendar: bool,
    /// Where it stands.
    pub at: Span,
}

/// `left 3 days or less before day of right`.
#[derive(Debug, Clone)]
pub struct Offset {
    /// Before, or else after.
    pub before: bool,
    /// `on or before`: the bound itself counts.
    pub inclusive: bool,
    /// How the distance is meant.
    pub bound: Bound,
    /// The distance.
    pub distance: Quantity,
    /// `day of`.
    pub precision: Option<Precision>,
    /// Left operand.
    pub left: Expression,
    /// Right operand.
    pub right: Expression,
}

/// How the distance of an offset is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// `3 days before`.
    Exactly,
    /// `3 days or more before`.
    OrMore,
    /// `3 days or less before`.
    OrLess,
    /// `more than 3 days before`.
    MoreThan,
    /// `less than 3 days before`.
    LessThan,
}

/// A code in an expression.
#[derive(Debug, Clone)]
pub struct CodeSelector {
    /// The code.
    pub code: Text,
    /// Its code system.
    pub system: Path,
    /// Display.
    pub display: Option<Text>,
}

/// `["Context" -> Observation: code in "X"]`.
#[derive(Debug, Clone)]
pub struct Retrieve {
    /// Before the arrow.
    pub context: Option<Path>,
    /// The class.
    pub class: Path,
    /// Path of the code, when written.
    pub code_path: Option<Path>,
    /// `in`, `=` or `~`, when written.
    pub comparator: Option<&'static str>,
    /// The terminology.
    pub codes: Option<Expression>,
}

/// A query and its clauses.
#[derive(Debug, Clone)]
pub struct Query {
    /// At least one.
    pub sources: Vec<Source>,
    /// `let`.
    pub lets: Vec<(Name, Expression)>,
    /// `with`, `without`.
    pub relationships: Vec<Relationship>,
    /// `where`.
    pub condition: Option<Expression>,
    /// `return`; the flag says distinct (the default).
    pub returning: Option<(bool, Expression)>,
    /// `aggregate`.
    pub aggregate: Option<Aggregate>,
    /// `sort`.
    pub sort: Option<Sort>,
}

/// An aliased source.
#[derive(Debug, Clone)]
pub struct Source {
    /// What it ranges over.
    pub expression: Expression,
    /// The alias.
    pub alias: Name,
}

/// `with S A such that …`.
#[derive(Debug, Clone)]
pub struct Relationship {
    /// `without`.
    pub without: bool,
    /// The related source.
    pub source: Source,
    /// Its condition.
    pub such_that: Expression,
}

/// `aggregate all R starting 0: …`.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// `distinct`.
    pub distinct: bool,
    /// The accumulator.
    pub name: Name,
    /// Its first value.
    pub starting: Option<Expression>,
    /// Its next value.
    pub expression: Expression,
}

/// `sort …`.
#[derive(Debug, Clone)]
pub enum Sort {
    /// `sort desc`.
    Direction(bool),
    /// `sort by a, b desc`: expressions with whether descending.
    By(Vec<(Expression, bool)>),
}
