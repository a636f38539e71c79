//! Evaluation of a program over one patient's record.
//!
//! A [`Session`] is one patient: each define is evaluated at most once and kept. Logic is three-valued; what cannot be
//! evaluated (an unknown value set, an `external` function, nesting beyond the bound) is an [`EvaluationError`] with its
//! place in the text, never an empty result.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::operators::{Call, Context, Fault, Operator};
use super::plan::Program;
use super::typed::{DefineId, Expression, FunctionId, Kind, LibraryId, ParameterId};
use super::types::Type;
use super::value::{DateTime, Precision, Value};
use crate::diagnostic::{Diagnostic, Location, counted};
use crate::fhir::record::{NodeId, Place, Record};
use crate::terminology::ValueSets;
use crate::terminology::units::Units;

mod cast;
pub mod doubt;
pub mod dropped;
pub mod observe;
mod parts;
mod property;
mod query;
mod reason;
mod retrieve;
mod select;
#[cfg(test)]
mod tests;

pub use reason::{Reason, ReasonKind};

/// Deepest nesting of expressions and calls; deeper is an error. Fits the 2 MiB stack of a thread.
pub const DEPTH_MAX: usize = 300;

/// Most expressions evaluated for one patient and period: published measures need some hundred thousand. A definition that
/// doubles its work with every step ends here, not never.
pub const STEPS_MAX: u64 = 50_000_000;
/// Most items of a list, and bytes of a text, that an operator may return.
const ITEMS_MAX: usize = 5_000_000;
const TEXT_BYTES_MAX: usize = 64 << 20;

/// Everything that a result depends on beside the program and the record.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Values of parameters by name; for a parameter of one library only, `Library.name`. Others have their default, or null.
    pub parameters: BTreeMap<String, Value>,
    /// The run's time stamp: `Now()` and `Today()`.
    pub now: DateTime,
    /// The site's zone.
    pub zone: TimeZone,
    /// Expanded value sets.
    pub value_sets: Arc<ValueSets>,
    /// Units of measure.
    pub units: Arc<Units>,
}

/// Why evaluation could not go on. A box, because every expression returns one or its value.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .0.message)]
pub struct EvaluationError(Box<Failure>);

/// What an [`EvaluationError`] says.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What went wrong; never a patient's value.
    pub message: String,
    /// Where in the text of a library.
    pub at: Option<Location>,
    /// What was being evaluated: the define or function whose text it is, then what it was reached from.
    pub within: Vec<String>,
}

impl Deref for EvaluationError {
    type Target = Failure;

    fn deref(&self) -> &Failure {
        &self.0
    }
}

impl DerefMut for EvaluationError {
    fn deref_mut(&mut self) -> &mut Failure {
        &mut self.0
    }
}

/// So many of the definitions that led to a fault are named, and the last one.
const TRAIL_MAX: usize = 3;

impl EvaluationError {
    /// An error while these were evaluated, with no place in the text.
    pub fn new(message: impl Into<String>, within: Vec<String>) -> EvaluationError {
        EvaluationError(Box::new(Failure { message: message.into(), at: None, within }))
    }

    /// The error as a finding.
    pub fn diagnostic(&self) -> Diagnostic {
        let mut diagnostic = Diagnostic::error(self.message.clone());
        if let Some(at) = &self.at {
            diagnostic = diagnostic.at(at.clone());
        }
        if let Some((own, trail)) = self.within.split_first() {
            diagnostic = diagnostic.help(format!("while evaluating `{own}`{}", reached_from(trail)));
        }
        diagnostic
    }

    /// The message with the definition that was asked for.
    pub fn summary(&self) -> String {
        match self.within.last() {
            Some(asked) => format!("{} (in `{asked}`)", self.message),
            None => self.message.clone(),
        }
    }
}

/// The definitions that led to a fault, in words.
fn reached_from(trail: &[String]) -> String {
    let quoted = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match trail {
        [] => String::new(),
        [first @ .., last] if first.len() > TRAIL_MAX => format!(", reached from {}, …, `{last}`", quoted(&first[..TRAIL_MAX])),
        all => format!(", reached from {}", quoted(all)),
    }
}

/// The variables of one body.
pub(super) type Frame = Vec<Value>;
pub(super) type Outcome<T = Value> = Result<T, EvaluationError>;

enum Memo {
    Unseen,
    Active,
    /// With whether values that could not be used have a part in it.
    Done(Outcome, bool),
}

/// The evaluation of one patient.
pub struct Session<'a> {
    program: &'a Program,
    environment: &'a Environment,
    context: Context<'a>,
    defines: Vec<Memo>,
    parameters: Vec<Option<Value>>,
    library: LibraryId,
    within: Option<&'a str>,
    depth: usize,
    steps: u64,
    collects: bool,
    observed: Option<Box<observe::Observed>>,
    messages: BTreeSet<String>,
    doubts: RefCell<BTreeSet<doubt::Noted>>,
    /// How often what was evaluated met a value that could not be used.
    doubtful: Cell<u64>,
    /// What that was before the row of the innermost query.
    doubtful_before_row: u64,
    /// With what was probably meant.
    unreadable: RefCell<BTreeMap<NodeId, Option<&'static str>>>,
    texts: RefCell<property::Texts>,
}

impl<'a> Session<'a> {
    /// A session over a patient's record.
    pub fn new(program: &'a Program, environment: &'a Environment, record: &'a Record) -> Self {
        let context = Context { now: &environment.now, zone: &environment.zone, units: &environment.units, value_sets: &environment.value_sets, record };
        Session {
            program,
            environment,
            context,
            defines: program.tree().defines.iter().map(|_| Memo::Unseen).collect(),
            parameters: vec![None; program.tree().parameters.len()],
            library: LibraryId(0),
            within: None,
            depth: 0,
            steps: 0,
            collects: false,
            observed: None,
            messages: BTreeSet::new(),
            doubts: RefCell::default(),
            doubtful: Cell::default(),
            doubtful_before_row: 0,
            unreadable: RefCell::default(),
            texts: RefCell::default(),
        }
    }

    /// `Message` of severity Error no longer ends the evaluation: its code is collected and its source returned, so that
    /// one strange value among a patient's data does not take the patient out of the measure.
    pub fn collecting_messages(self) -> Self {
        Session { collects: true, ..self }
    }

    /// The codes of the errors that the libraries raised and that were collected.
    pub fn messages(&self) -> &BTreeSet<String> {
        &self.messages
    }

    /// The same; those that are raised from here on are collected anew.
    pub fn take_messages(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.messages)
    }

    /// Where values stand that were asked for and are none of their type: each counted as absent.
    pub fn unreadable(&self) -> Vec<Place> {
        let place = |(node, meant): (&NodeId, &Option<&'static str>)| Some(Place { meant: *meant, ..self.context.record.place(*node)? });
        self.unreadable.borrow().iter().filter_map(place).collect()
    }

    /// The record of this session.
    pub fn record(&self) -> &'a Record {
        self.context.record
    }

    /// What operators may know; to compare results with CQL's equality.
    pub fn context(&self) -> &Context<'a> {
        &self.context
    }

    /// The value of a define, evaluated on the first call only.
    pub fn evaluate(&mut self, define: DefineId) -> Result<Value, EvaluationError> {
        match self.defines.get(define.index()) {
            Some(Memo::Done(outcome, is_doubtful)) => {
                self.count_doubt(*is_doubtful);
                return outcome.clone();
            }
            Some(Memo::Unseen) => {}
            Some(Memo::Active) => return Err(self.fault_here("the define refers to itself")),
            None => return Err(self.fault_here("there is no such define in this program")),
        }
        let tree = self.program.tree();
        let Some(row) = tree.defines.get(define.index()) else {
            return Err(self.fault_here("there is no such define in this program"));
        };
        self.remember(define, Memo::Active);
        let mut frame = vec![Value::Null; row.slots as usize];
        let before = self.doubtful();
        let outcome = self.body(row.library, &row.name, &row.body, &mut frame);
        self.remember(define, Memo::Done(outcome.clone(), self.doubtful() != before));
        outcome
    }

    /// The value of a part of a define's body that stands outside its queries, to explain how the whole came about.
    pub fn part(&mut self, define: DefineId, part: &'a Expression) -> Result<Value, EvaluationError> {
        let Some(row) = self.program.tree().defines.get(define.index()) else {
            return Err(self.fault_here("there is no such define in this program"));
        };
        self.body(row.library, &row.name, part, &mut vec![Value::Null; row.slots as usize])
    }

    fn remember(&mut self, define: DefineId, memo: Memo) {
        if let Some(place) = self.defines.get_mut(define.index()) {
            *place = memo;
        }
    }

    /// Calls a function with values of its operand types.
    pub fn call(&mut self, function: FunctionId, operands: Vec<Value>) -> Result<Value, EvaluationError> {
        let tree = self.program.tree();
        let Some(row) = tree.functions.get(function.index()) else {
            return Err(self.fault_here("there is no such function in this program"));
        };
        let Some(body) = &row.body else {
            return Err(self.fault_here(format!("function `{}` is external and has no definition here", row.name)));
        };
        if operands.len() != row.operands.len() {
            let expected = row.operands.len();
            return Err(self.fault_here(format!("function `{}` takes {}, {} given", row.name, counted(expected, "operand"), operands.len())));
        }
        let mut frame = operands;
        frame.resize((row.slots as usize).max(frame.len()), Value::Null);
        self.body(row.library, &row.name, body, &mut frame)
    }

    /// Evaluates a body in its own library and frame.
    fn body(&mut self, library: LibraryId, name: &'a str, body: &'a Expression, frame: &mut Frame) -> Outcome {
        let outer = (self.library, self.within);
        self.library = library;
        self.within = Some(name);
        let outcome = self.expression(body, frame);
        (self.library, self.within) = outer;
        outcome.map_err(|mut fault| {
            if fault.within.last().is_none_or(|last| last != name) {
                fault.within.push(name.to_owned());
            }
            fault
        })
    }

    /// The parameter's value: given, or its default, or null.
    fn parameter(&mut self, id: ParameterId) -> Outcome {
        if let Some(Some(value)) = self.parameters.get(id.index()) {
            return Ok(value.clone());
        }
        let tree = self.program.tree();
        let Some(row) = tree.parameters.get(id.index()) else { return Ok(Value::Null) };
        let library = tree.libraries.get(row.library.index()).map_or("", |library| &library.name);
        let given = self.environment.parameters.get(&format!("{library}.{}", row.name));
        let value = match (given.or_else(|| self.environment.parameters.get(&*row.name)), &row.default) {
            (Some(value), _) => value.clone(),
            (None, Some(default)) => self.body(row.library, &row.name, default, &mut Vec::new())?,
            (None, None) => Value::Null,
        };
        if let Some(place) = self.parameters.get_mut(id.index()) {
            *place = Some(value.clone());
        }
        Ok(value)
    }

    fn fault_here(&self, message: impl Into<String>) -> EvaluationError {
        EvaluationError::new(message, Vec::new())
    }

    fn fault_at(&self, expression: &Expression, message: impl Into<String>) -> EvaluationError {
        let mut error = self.fault_here(message);
        error.at = self.program.tree().location(self.library, expression.at);
        error
    }

    fn expression(&mut self, expression: &'a Expression, frame: &mut Frame) -> Outcome {
        if self.observed.is_none() {
            // Every other expression is one of these.
            match &expression.kind {
                Kind::Slot(slot) => return Ok(frame.get(slot.index()).cloned().unwrap_or_default()),
                Kind::Literal(value) => return Ok(value.clone()),
                _ => {}
            }
        }
        if self.depth >= DEPTH_MAX {
            return Err(self.fault_at(expression, format!("nested deeper than {DEPTH_MAX} levels; is a function calling itself?")));
        }
        self.count_step(expression)?;
        self.depth += 1;
        let outcome = self.dispatch(expression, frame);
        self.depth -= 1;
        if self.observed.is_some()
            && let Ok(value) = &outcome
        {
            self.note_clause(expression, value);
        }
        outcome
    }

    fn count_step(&mut self, expression: &Expression) -> Outcome<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX { Err(self.too_many_steps(expression)) } else { Ok(()) }
    }

    fn dispatch(&mut self, expression: &'a Expression, frame: &mut Frame) -> Outcome {
        match &expression.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Parameter(id) => self.parameter(*id),
            Kind::Slot(slot) => Ok(frame.get(slot.index()).cloned().unwrap_or_default()),
            Kind::Define(id) => self.evaluate(*id),
            Kind::CodeSystem(id) => Ok(self.program.code_system(*id)),
            Kind::ValueSet(id) => Ok(self.program.value_set(*id)),
            Kind::Code(id) => Ok(self.program.code(*id)),
            Kind::Concept(id) => Ok(self.program.concept(*id)),
            Kind::Operator { operator, operands, precision } => self.operator(expression, operator, operands, *precision, frame),
            Kind::Call { function, operands } => self.function_call(expression, *function, operands, frame),
            Kind::And(pair) => self.and(pair, frame),
            Kind::Or(pair) => self.or(pair, frame),
            Kind::Implies(pair) => self.implies(pair, frame),
            Kind::If(parts) => self.conditional(parts, frame),
            Kind::Case { comparand, items, otherwise } => self.case(comparand.as_deref(), items, otherwise, frame),
            Kind::Coalesce(operands) => self.coalesce(operands, frame),
            Kind::As { operand, target, strict } => self.cast(expression, operand, target, *strict, frame),
            Kind::Is { operand, target } => {
                let value = self.expression(operand, frame)?;
                Ok(Value::Boolean(!value.is_null() && self.is_of(&value, target)))
            }
            Kind::Tuple(elements) => Ok(Value::tuple(self.elements(elements, frame)?)),
            Kind::Instance { class, elements } => self.instance(expression, class, elements, frame),
            Kind::List(items) => self.list(items, frame),
            Kind::Interval(parts) => self.interval(expression, parts, frame),
            Kind::Property { source, element } => {
                // Nearly all are of a variable that holds part of the record: nothing to copy.
                if let Kind::Slot(slot) = source.kind
                    && self.observed.is_none()
                    && let Some(Value::Node(node, _)) = frame.get(slot.index())
                {
                    return self.node_property(expression, *node, element);
                }
                let source = self.expression(source, frame)?;
                self.property(expression, &source, element)
            }
            Kind::Retrieve(retrieve) => self.retrieve(expression, retrieve, frame),
            Kind::Query(query) => self.query(expression, query, frame),
            Kind::Repeat(repeat) => self.repeat(expression, repeat, frame),
            Kind::Message(parts) => self.message(expression, parts, frame),
        }
    }

    fn values(&mut self, operands: &'a [Expression], frame: &mut Frame) -> Outcome<Vec<Value>> {
        operands.iter().map(|operand| self.expression(operand, frame)).collect()
    }

    fn function_call(&mut self, expression: &'a Expression, function: FunctionId, operands: &'a [Expression], frame: &mut Frame) -> Outcome {
        let row = self.program.tree().functions.get(function.index());
        if let (Some(row), [operand]) = (row, operands)
            && let Some(Expression { kind: Kind::Property { source, element }, .. }) = &row.body
            && matches!(source.kind, Kind::Slot(slot) if slot.index() == 0)
            && self.observed.is_none()
        {
            // As FHIRHelpers' conversions of primitive types: one look at the operand, which needs no frame.
            let operand = self.expression(operand, frame)?;
            return self.property(expression, &operand, element);
        }
        let mut values = Vec::with_capacity(row.map_or(0, |row| row.slots as usize).max(operands.len()));
        for operand in operands {
            values.push(self.expression(operand, frame)?);
        }
        self.call(function, values).map_err(|mut fault| {
            fault.at = fault.at.take().or_else(|| self.program.tree().location(self.library, expression.at));
            fault
        })
    }

    fn operator(&mut self, expression: &'a Expression, operator: &'static Operator, operands: &'a [Expression], precision: Option<Precision>, frame: &mut Frame) -> Outcome {
        if let [Expression { kind: Kind::Query(query), .. }] = operands
            && let Some(outcome) = self.without_list(operator.name, query, frame)
        {
            return outcome;
        }
        // Nearly all have one or two, which need no room of their own.
        let outcome = match operands {
            [whole] if matches!(operator.name, "Children" | "Descendents") => {
                let whole = self.expression(whole, frame)?;
                return self.parts(expression, whole, operator.name == "Descendents");
            }
            [only] => {
                let operand = self.expression(only, frame)?;
                self.apply(operator, &[operand], precision)
            }
            [left, right] => {
                let values = [self.expression(left, frame)?, self.expression(right, frame)?];
                let outcome = self.apply(operator, &values, precision);
                if let (Ok(found), [Value::Quantity(_), _] | [_, Value::Quantity(_)]) = (&outcome, &values)
                    && (matches!(found, Value::Null) || doubt::may_differ(&values))
                {
                    self.note_units(operator, [left, right], (&values, matches!(found, Value::Null)), frame);
                }
                outcome
            }
            operands => {
                let operands = self.values(operands, frame)?;
                self.apply(operator, &operands, precision)
            }
        };
        // Only these can be too large, and nothing else is worth a copy.
        match outcome {
            Err(_) | Ok(Value::List(_) | Value::String(_)) => self.bounded(expression, outcome),
            Ok(value) => Ok(value),
        }
    }

    /// What an operator returned, if it is not too large. Apart, so that the frames of nested expressions stay small.
    #[inline(never)]
    fn bounded(&self, expression: &Expression, outcome: Result<Value, Fault>) -> Outcome {
        let value = outcome.map_err(|fault| self.fault_at(expression, fault.message))?;
        match &value {
            Value::List(items) if items.len() > ITEMS_MAX => Err(self.fault_at(expression, format!("a list of more than {ITEMS_MAX} items"))),
            Value::String(text) if text.len() > TEXT_BYTES_MAX => Err(self.fault_at(expression, format!("a text of more than {TEXT_BYTES_MAX} bytes"))),
            _ => Ok(value),
        }
    }

    #[inline(never)]
    fn too_many_steps(&self, expression: &Expression) -> EvaluationError {
        self.fault_at(expression, format!("more than {STEPS_MAX} steps for one patient: does the work double with every definition or row?"))
    }

    fn apply(&self, operator: &Operator, operands: &[Value], precision: Option<Precision>) -> Result<Value, Fault> {
        operator.apply(&Call { operands, precision, context: &self.context })
    }

    fn truth(&mut self, expression: &'a Expression, frame: &mut Frame) -> Outcome<Option<bool>> {
        Ok(self.expression(expression, frame)?.truth())
    }

    fn and(&mut self, [left, right]: &'a [Expression; 2], frame: &mut Frame) -> Outcome {
        let before = self.doubtful();
        let left = self.truth(left, frame)?;
        if left == Some(false) {
            return Ok(Value::Boolean(false));
        }
        Ok(match (left, self.decisive(right, Some(false), before, frame)?) {
            (_, Some(false)) => Value::Boolean(false),
            (Some(true), Some(true)) => Value::Boolean(true),
            _ => Value::Null,
        })
    }

    fn or(&mut self, [left, right]: &'a [Expression; 2], frame: &mut Frame) -> Outcome {
        let before = self.doubtful();
        let left = self.truth(left, frame)?;
        if left == Some(true) {
            return Ok(Value::Boolean(true));
        }
        Ok(match (left, self.decisive(right, Some(true), before, frame)?) {
            (_, Some(true)) => Value::Boolean(true),
            (Some(false), Some(false)) => Value::Boolean(false),
            _ => Value::Null,
        })
    }

    /// The truth of a second operand, which decides alone where it is `decides`: doubts about the first, counted since `before`, are none
    /// then.
    fn decisive(&mut self, expression: &'a Expression, decides: Option<bool>, before: u64, frame: &mut Frame) -> Outcome<Option<bool>> {
        let between = self.doubtful();
        let truth = self.truth(expression, frame)?;
        if truth == decides && self.doubtful() == between {
            self.doubtful.set(before);
        }
        Ok(truth)
    }

    fn implies(&mut self, [left, right]: &'a [Expression; 2], frame: &mut Frame) -> Outcome {
        let left = self.truth(left, frame)?;
        if left == Some(false) {
            return Ok(Value::Boolean(true));
        }
        Ok(match (left, self.truth(right, frame)?) {
            (_, Some(true)) => Value::Boolean(true),
            (Some(true), Some(false)) => Value::Boolean(false),
            _ => Value::Null,
        })
    }

    fn conditional(&mut self, [condition, then, otherwise]: &'a [Expression; 3], frame: &mut Frame) -> Outcome {
        let chosen = if self.truth(condition, frame)? == Some(true) { then } else { otherwise };
        self.expression(chosen, frame)
    }

    fn case(&mut self, comparand: Option<&'a Expression>, items: &'a [(Expression, Expression)], otherwise: &'a Expression, frame: &mut Frame) -> Outcome {
        let comparand = comparand.map(|comparand| self.expression(comparand, frame)).transpose()?;
        for (when, then) in items {
            let holds = match (&comparand, &when.kind) {
                // As in the long tables of FHIRHelpers: nothing to evaluate, nothing to copy.
                (Some(comparand), Kind::Literal(value)) if self.observed.is_none() => super::operators::comparison::equal(comparand, value, &self.context),
                (Some(comparand), _) => super::operators::comparison::equal(comparand, &self.expression(when, frame)?, &self.context),
                (None, _) => self.expression(when, frame)?.truth(),
            };
            if holds == Some(true) {
                return self.expression(then, frame);
            }
        }
        self.expression(otherwise, frame)
    }

    fn coalesce(&mut self, operands: &'a [Expression], frame: &mut Frame) -> Outcome {
        if let [only] = operands {
            let value = self.expression(only, frame)?;
            return Ok(match (&only.ty, value) {
                (Type::List(_), Value::List(items)) => items.iter().find(|item| !item.is_null()).cloned().unwrap_or_default(),
                (_, value) => value,
            });
        }
        for operand in operands {
            let value = self.expression(operand, frame)?;
            if !value.is_null() {
                return Ok(value);
            }
        }
        Ok(Value::Null)
    }

    /// The message itself may quote a patient's data, so an error names only its code.
    fn message(&mut self, expression: &Expression, parts: &'a [Expression; 5], frame: &mut Frame) -> Outcome {
        let [source, condition, code, severity, _] = parts;
        let source = self.expression(source, frame)?;
        if self.truth(condition, frame)? == Some(true)
            && let Value::String(severity) = self.expression(severity, frame)?
            && &*severity == "Error"
        {
            let code = match &code.kind {
                Kind::Literal(Value::String(code)) => code.to_string(),
                _ => "without code".to_owned(),
            };
            if self.collects {
                self.note_raised(frame);
                self.count_doubt(true);
                self.messages.insert(code);
            } else {
                return Err(self.fault_at(expression, format!("the library raised an error by `Message` with code `{code}`")));
            }
        }
        Ok(source)
    }
}
