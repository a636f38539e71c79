//! Why a patient is in a population or not: a proof tree from the criterion down to the values of the record.
//!
//! Only what decides is shown: of an `and` that failed the operands that failed, of an `or` that holds those that hold.
//! Inside a query the rows are data: the tree shows what it ranged over and what it found.

use std::collections::BTreeSet;

use super::calculate::{Binding, Run};
use super::composite::{self, Component, Composite};
use super::definition::{self, Group};
use super::population::{Member, Membership};
use super::result::PatientResult;
use crate::cql::evaluate::dropped::Failure;
use crate::cql::show;
use crate::cql::typed::{Define, DefineId, Expression, Form, Kind, LibraryId};
use crate::cql::value::Value;
use crate::cql::{EvaluationError, Program, Session};
use crate::diagnostic::counted;
use crate::fhir::record::{NodeId, Record};

/// Deepest nesting of a proof.
const DEPTH_MAX: usize = 40;
/// Most steps of one proof.
const STEPS_MAX: usize = 2_000;
/// Most resources that a step names, and characters of a value or of a piece of source that it shows.
const NAMED_MAX: usize = 5;
const SHOWN_CHARS_MAX: usize = 100;
/// Stands for the populations of a composite that has none.
const COMPOSITE: &str = "composite";

/// Whether the criterion holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In.
    Yes,
    /// Out.
    No,
    /// The record cannot tell.
    Unknown,
}

/// One population of one patient, with its proof.
#[derive(Clone, Debug)]
pub struct Proof {
    /// Id of the group.
    pub group: String,
    /// Id of the population.
    pub population: String,
    /// Its code.
    pub code: &'static str,
    /// Whether the patient, or an event of the patient, is in it after the algebra of the measure.
    pub verdict: Verdict,
    /// How many members it has: 1 for the patient, else events.
    pub members: usize,
    /// Why the record cannot tell, if it cannot.
    pub unknown: Vec<String>,
    /// The criterion.
    pub step: Step,
}

/// One step of a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// A definition's name, or the source text of an expression.
    pub what: String,
    /// Where it stands: library and line.
    pub at: Option<(String, usize)>,
    /// Its value, in short.
    pub value: String,
    /// What it comes to, when it is a truth or a list.
    pub verdict: Option<Verdict>,
    /// What decided it.
    pub because: Vec<Step>,
}

/// Explains the populations of a measure for one patient and period, or only those of a code or id; `None` when there is no
/// such period.
pub fn explain(run: &Run<'_>, record: &Record, period: usize, only: Option<&str>) -> Option<Result<Vec<Proof>, EvaluationError>> {
    // As the evaluation has it: what a library raises by `Message` makes one value unknown, and ends nothing.
    let session = run.session(record, period)?.collecting_messages();
    let result = run.evaluate(record).into_iter().nth(period)?;
    let components = run.of_components(record, period)?;
    Some(result.and_then(|result| {
        let explainer = Explainer { program: run.measure.program(), session, steps: 0, seen: BTreeSet::new(), counts_events: false };
        Ok(explainer.proofs(run, &result, &components?, only))
    }))
}

struct Explainer<'a> {
    program: &'a Program,
    session: Session<'a>,
    steps: usize,
    /// Definitions that have been explained; once is enough.
    seen: BTreeSet<DefineId>,
    /// What the group in hand counts: of events it is told which were left out, and by what.
    counts_events: bool,
}

impl<'a> Explainer<'a> {
    fn proofs(mut self, run: &Run<'_>, result: &PatientResult, components: &[PatientResult], only: Option<&str>) -> Vec<Proof> {
        let mut proofs = Vec::new();
        let asked = |code: &str, id: &str| only.is_none_or(|only| only == code || only == id);
        for (group, (binding, found)) in run.measure.groups.iter().zip(run.measure.bindings.iter().zip(&result.groups)) {
            if let Some(composite) = &binding.shape.composite {
                let made_of = standings(composite, &binding.of_parts(result, &components.iter().collect::<Vec<_>>()));
                // A weighted composite has no populations of its own.
                let whole = Membership { members: found.memberships.iter().flat_map(|one| one.members.clone()).collect(), ..Membership::default() };
                let own = group.populations.iter().zip(&found.memberships).map(|(population, membership)| (population.code.code(), membership));
                let shown = if group.populations.is_empty() { vec![(COMPOSITE, &whole)] } else { own.collect() };
                let above = Step { what: format!("{} (above)", made_of.what), because: Vec::new(), ..made_of.clone() };
                let steps = std::iter::once(made_of).chain(std::iter::repeat(above));
                let asked = shown.into_iter().filter(|(code, _)| asked(code, code));
                proofs.extend(asked.zip(steps).map(|((code, membership), step)| proof(group, code, code, membership, step)));
                continue;
            }
            self.counts_events = !binding.counts_patients;
            let slots = binding.shape.slots.iter().zip(&found.memberships);
            for ((population, binding), (slot, membership)) in group.populations.iter().zip(&binding.populations).zip(slots) {
                if asked(population.code.code(), population.id()) {
                    let of = slot.of.and_then(|at| found.memberships.get(at)).map(|of| &of.scored);
                    let step = match binding {
                        Binding::Define(define) => self.define(*define, 0),
                        Binding::Function(_) => observed(&population.define.value, membership, of),
                    };
                    proofs.push(proof(group, population.id(), population.code.code(), membership, step));
                }
            }
        }
        proofs
    }

    fn define(&mut self, define: DefineId, depth: usize) -> Step {
        let Some(Define { name, library, body, .. }) = self.program.tree().defines.get(define.index()) else {
            return failed(String::new(), None, "there is no such define");
        };
        let name = format!("\"{name}\"");
        let value = match self.session.evaluate(define) {
            Ok(value) => value,
            Err(error) => return failed(name, self.place(*library, body), &error.summary()),
        };
        if !self.seen.insert(define) {
            return self.step(format!("{name} (above)"), None, &value, Vec::new());
        }
        // Once more, for what the body itself raises: what it refers to has been evaluated.
        let raised = self.part(define, body).map(|(_, raised)| raised).unwrap_or_default();
        let because = self.parts(define, body, &value, depth + 1);
        self.step(name, self.place(*library, body), &value, because).raising(&raised)
    }

    /// A part of a define's body, with what decided it.
    fn expression(&mut self, define: DefineId, expression: &'a Expression, depth: usize) -> Step {
        if let Kind::Define(id) = &expression.kind {
            return self.define(*id, depth);
        }
        let library = self.program.tree().defines.get(define.index()).map(|row| row.library);
        let (what, at) = library.map_or((String::new(), None), |library| (self.source(library, expression), self.place(library, expression)));
        match self.part(define, expression) {
            Ok((value, raised)) => {
                let because = self.parts(define, expression, &value, depth + 1);
                self.step(what, at, &value, because).raising(&raised)
            }
            // The evaluation did without it: another operand had decided.
            Err(error) => failed(what, at, &error.summary()),
        }
    }

    /// The value of a part of a define's body, and the codes of what was raised meanwhile.
    fn part(&mut self, define: DefineId, part: &'a Expression) -> Result<(Value, BTreeSet<String>), EvaluationError> {
        self.session.take_messages();
        let value = self.session.part(define, part)?;
        Ok((value, self.session.take_messages()))
    }

    /// What decided an expression's value.
    fn parts(&mut self, define: DefineId, expression: &'a Expression, value: &Value, depth: usize) -> Vec<Step> {
        self.steps += 1;
        if depth > DEPTH_MAX || self.steps > STEPS_MAX {
            return Vec::new();
        }
        let operands: Vec<&'a Expression> = match &expression.kind {
            Kind::And(_) | Kind::Or(_) => flattened(expression),
            Kind::Operator { operator, .. } if operator.name == "Union" => flattened(expression),
            Kind::Implies(pair) => pair.iter().collect(),
            Kind::Define(_) => vec![expression],
            Kind::Operator { operands, .. } | Kind::Call { operands, .. } | Kind::Coalesce(operands) => operands.iter().collect(),
            Kind::Query(query) => query.sources.iter().map(|source| &source.expression).collect(),
            Kind::If(parts) => parts.iter().take(1).collect(),
            Kind::As { operand, .. } | Kind::Is { operand, .. } => vec![operand],
            Kind::Property { source, .. } => vec![source],
            _ => Vec::new(),
        };
        let own = self.source_of(define, expression);
        let mut steps = Vec::new();
        let varying: Vec<&'a Expression> = operands.into_iter().filter(|operand| !self.is_constant(operand)).collect();
        for operand in varying {
            let step = self.expression(define, operand, depth);
            // A conversion that the author did not write stands at the text of its operand.
            if step.what == own { steps.extend(step.because) } else { steps.push(step) }
        }
        let decided = verdict(value);
        let any_decides = match &expression.kind {
            Kind::And(_) => decided != Some(Verdict::Yes),
            Kind::Or(_) => decided != Some(Verdict::No),
            Kind::Operator { operator, .. } => operator.name == "Union" && decided == Some(Verdict::Yes),
            _ => false,
        };
        if matches!(expression.kind, Kind::Query(_) | Kind::Call { .. }) {
            steps.extend(self.dropped(define, expression));
        }
        if any_decides && steps.iter().any(|step| step.verdict == decided) {
            steps.retain(|step| step.verdict == decided);
        }
        steps
    }

    /// The rows that a query dropped because a condition was null, each with what is not known of it.
    fn dropped(&mut self, define: DefineId, query: &'a Expression) -> Vec<Step> {
        let found = self.session.dropped(define, query, NAMED_MAX);
        self.session.take_messages();
        let record = self.session.record();
        let step = |what: String, at, value: String| Step { what, at, value, verdict: Some(Verdict::Unknown), because: Vec::new() };
        let mut steps = Vec::new();
        for row in &found.rows {
            let mut why: Vec<String> = Vec::new();
            for reason in row.reasons.iter().take(NAMED_MAX) {
                let is_own = |of: &NodeId| row.values.iter().any(|value| matches!(value, Value::Node(node, _) if record.resource_of(*node) == Some(*of)));
                let named = reason.of.filter(|of| !is_own(of)).and_then(|of| named(record, of));
                why.push(reason.text.clone() + &named.map_or_else(String::new, |named| format!(" in {named}")));
            }
            let what = row.values.iter().map(|value| self.brief(value)).collect::<Vec<_>>().join(", ");
            let at = row.reasons.first().and_then(|reason| reason.at.clone());
            steps.push(step(what, at, format!("dropped: {}", why.join(", "))));
        }
        let more = found.count - found.rows.len();
        if more > 0 {
            steps.push(step(format!("{more} more"), None, "dropped alike".to_owned()));
        }
        if self.counts_events {
            let more = found.failed_count - found.failed.len();
            let left_out = |what: String, because| Step { what, at: None, value: "left out".to_owned(), verdict: Some(Verdict::No), because };
            for (values, failures) in &found.failed {
                let because = failures.iter().map(|failure| self.failure(failure)).collect();
                steps.push(left_out(values.iter().map(|value| self.brief(value)).collect::<Vec<_>>().join(", "), because));
            }
            steps.extend((more > 0).then(|| left_out(format!("{more} more"), Vec::new())));
        }
        steps
    }

    /// A condition that an event did not meet, with what it was made of.
    fn failure(&self, failure: &Failure<'_>) -> Step {
        let Failure { library, expression, value, of, parts } = failure;
        let own = self.source(*library, expression);
        let what = match of {
            Some(relationship) => {
                let word = if relationship.without { "without" } else { "with" };
                clip(&format!("{word} {} {} such that {own}", self.source(*library, &relationship.source.expression), relationship.source.name))
            }
            None => own.clone(),
        };
        let parts = parts.iter().filter(|part| self.varies(part.expression)).map(|part| self.failure(part));
        // A conversion that the author did not write stands at the text of its operand.
        let because = parts.filter(|part| part.what != own).collect();
        let value = if of.is_some() { if value.truth() == Some(true) { "there is one".to_owned() } else { "none".to_owned() } } else { self.brief(value) };
        Step {
            what,
            at: self.place(*library, expression),
            value,
            verdict: Some(Verdict::No).filter(|_| verdict(&failure.value) == Some(Verdict::No)),
            because,
        }
    }

    /// What is the same for every patient, and the patient itself, explain nothing.
    fn is_constant(&self, expression: &Expression) -> bool {
        match &expression.kind {
            Kind::Literal(_) | Kind::ValueSet(_) | Kind::CodeSystem(_) | Kind::Code(_) | Kind::Concept(_) | Kind::Slot(_) | Kind::Parameter(_) => true,
            Kind::Define(id) => self.program.define_name(*id) == "Patient",
            Kind::Interval(parts) => self.is_constant(&parts.low) && self.is_constant(&parts.high),
            Kind::List(items) => items.iter().all(|item| self.is_constant(item)),
            Kind::Property { source, .. } => self.is_constant(source) && !matches!(source.kind, Kind::Define(_)),
            Kind::Call { operands, .. } | Kind::Operator { operands, .. } => operands.iter().all(|operand| self.is_constant(operand)),
            _ => false,
        }
    }

    /// Whether a part of a condition may be another thing for each event, and is not the event itself.
    fn varies(&self, part: &Expression) -> bool {
        let is_named = |kind: &Kind| matches!(kind, Kind::Slot(_) | Kind::Retrieve(_) | Kind::Query(_) | Kind::Define(_));
        let inner = part.children().into_iter().any(|inner| is_named(&inner.kind) || self.varies(inner));
        inner || matches!(&part.kind, Kind::Define(id) if self.program.define_name(*id) != "Patient")
    }

    fn step(&self, what: String, at: Option<(String, usize)>, value: &Value, because: Vec<Step>) -> Step {
        Step { what, at, value: self.brief(value), verdict: verdict(value), because }
    }

    fn source_of(&self, define: DefineId, expression: &Expression) -> String {
        self.program.tree().defines.get(define.index()).map_or_else(String::new, |row| self.source(row.library, expression))
    }

    /// The expression as its author wrote it, on one line; of ELM there is no such text.
    fn source(&self, library: LibraryId, expression: &Expression) -> String {
        let tree = self.program.tree();
        let is_elm = tree.libraries.get(library.index()).is_some_and(|library| library.form == Form::Elm);
        let location = tree.location(library, expression.at).filter(|_| !is_elm);
        let text = location.as_ref().map_or("", |location| location.text());
        clip(&text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn place(&self, library: LibraryId, expression: &Expression) -> Option<(String, usize)> {
        let location = self.program.tree().location(library, expression.at)?;
        let name = &self.program.tree().libraries.get(library.index())?.name;
        Some((name.to_string(), location.line()))
    }

    /// A value in short: resources by type and id, lists by their length.
    fn brief(&self, value: &Value) -> String {
        let record = self.session.record();
        match value {
            Value::Node(node, _) => named(record, *node).unwrap_or_else(|| clip(&show::text(value, record))),
            Value::List(items) => {
                let named: Vec<String> = items.iter().take(NAMED_MAX).map(|item| self.brief(item)).collect();
                let more = if items.len() > NAMED_MAX { ", …" } else { "" };
                match items.len() {
                    0 => "none".to_owned(),
                    // Each is bounded: what was counted is not to be cut off by long ids.
                    count => format!("{count}: {}{more}", named.join(", ")),
                }
            }
            other => clip(&show::text(other, record)),
        }
    }
}

/// A resource by type and id.
fn named(record: &Record, node: NodeId) -> Option<String> {
    Some(format!("{}/{}", record.resource_type(node)?, record.resource_id(node)?))
}

fn proof(group: &Group, population: &str, code: &'static str, membership: &Membership, step: Step) -> Proof {
    let mut unknown: Vec<String> = membership
        .unknown
        .values()
        .filter(|reason| ![definition::UNDETERMINED, definition::NOT_COUNTED].contains(&reason.as_str()))
        .cloned()
        .collect();
    unknown.dedup();
    let (population, verdict) = (population.to_owned(), standing(membership));
    Proof { group: group.id.value.clone(), population, code, verdict, members: membership.members.len(), unknown, step }
}

/// A step whose value could not be had.
fn failed(what: String, at: Option<(String, usize)>, reason: &str) -> Step {
    Step { what, at, value: format!("cannot tell: {reason}"), verdict: Some(Verdict::Unknown), because: Vec::new() }
}

impl Step {
    /// With the codes of what the libraries raised by `Message` here, and not in a part that is shown.
    fn raising(mut self, codes: &BTreeSet<String>) -> Step {
        let own = codes.iter().filter(|code| !self.because.iter().any(|part| part.raised(code)));
        let own: Vec<String> = own.map(|code| format!("`{code}`")).collect();
        if !own.is_empty() {
            self.value = format!("{} ({} was raised)", self.value, own.join(", "));
        }
        self
    }

    fn raised(&self, code: &str) -> bool {
        self.value.contains(&format!("`{code}`")) || self.because.iter().any(|part| part.raised(code))
    }
}

fn standing(membership: &Membership) -> Verdict {
    match (membership.members.is_empty(), membership.unknown.is_empty()) {
        (false, _) => Verdict::Yes,
        (true, true) => Verdict::No,
        (true, false) => Verdict::Unknown,
    }
}

/// What a function of events observed: a number of each that is known, and of which events nothing is.
fn observed(name: &str, membership: &Membership, of: Option<&BTreeSet<Member>>) -> Step {
    let known = membership.observed.iter().map(|(member, amount)| match member.is_empty() {
        true => amount.shown(),
        false => format!("{} gave {}", clip(member), amount.shown()),
    });
    let nothing = of.into_iter().flatten().filter(|member| !membership.observed.contains_key(*member));
    let nothing = nothing.map(|member| format!("{} gave nothing", clip(member)).trim_start().to_owned());
    let (shown, count) = (known.clone().take(NAMED_MAX).chain(nothing.clone().take(NAMED_MAX)), known.count() + nothing.count());
    let shown: Vec<String> = shown.collect();
    let more = if count > shown.len() { ", …" } else { "" };
    let value = if shown.is_empty() { "none".to_owned() } else { format!("{}{more}", shown.join(", ")) };
    Step { what: format!("\"{name}\""), at: None, value, verdict: None, because: Vec::new() }
}

/// Where the patient stands in each component; why, the explanation of its own measure says.
fn standings(composite: &Composite, found: &[&[Membership]]) -> Step {
    let of_component = |(component, memberships): (&Component, &&[Membership])| {
        let populations = component.shape.slots.iter().zip(memberships.iter()).map(|(slot, membership)| Step {
            what: slot.code.code().to_owned(),
            at: None,
            value: membership.members.len().to_string(),
            verdict: Some(standing(membership)),
            because: Vec::new(),
        });
        let (fulfilled, eligible) = composite::fulfilled(component, memberships);
        let turned = if component.reversed { ", which improves the other way" } else { "" };
        Step {
            what: format!("{} {}{turned}", component.measure, component.group),
            at: None,
            value: format!("{fulfilled} of {eligible}"),
            verdict: (eligible > 0).then_some(if fulfilled == eligible { Verdict::Yes } else { Verdict::No }),
            because: populations.collect(),
        }
    };
    let because: Vec<Step> = composite.components.iter().zip(found).map(of_component).collect();
    Step { what: composite.method.code().to_owned(), at: None, value: counted(because.len(), "component"), verdict: None, because }
}

fn verdict(value: &Value) -> Option<Verdict> {
    match value {
        Value::Boolean(true) => Some(Verdict::Yes),
        Value::Boolean(false) => Some(Verdict::No),
        Value::Null => Some(Verdict::Unknown),
        Value::List(items) => Some(if items.is_empty() { Verdict::No } else { Verdict::Yes }),
        _ => None,
    }
}

/// The operands of `a and b and c`, or of a chain of unions, as one list rather than a tower.
fn flattened(expression: &Expression) -> Vec<&Expression> {
    let same = |inner: &Expression| match (&inner.kind, &expression.kind) {
        (Kind::And(_), Kind::And(_)) | (Kind::Or(_), Kind::Or(_)) => true,
        (Kind::Operator { operator: a, .. }, Kind::Operator { operator: b, .. }) => a.name == b.name,
        _ => false,
    };
    let pair: &[Expression] = match &expression.kind {
        Kind::And(pair) | Kind::Or(pair) => &**pair,
        Kind::Operator { operands, .. } => operands,
        _ => return vec![expression],
    };
    pair.iter().flat_map(|inner| if same(inner) { flattened(inner) } else { vec![inner] }).collect()
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
