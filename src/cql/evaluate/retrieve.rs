//! Retrieves: the resources of a type, by code and by date, straight from the record.

use std::sync::Arc;

use super::{Frame, Outcome, Session};
use crate::cql::interval::{Interval, Point};
use crate::cql::operators::{self, Fault};
use crate::cql::typed::{CodeFilter, DateFilter, Element, Expression, FixedCodes, FixedRule, Retrieve};
use crate::cql::types::Type;
use crate::cql::value::{Code, Value};
use crate::fhir::record::{NodeId, NodeKind, Record};
use crate::terminology::ValueSet;

/// What a code filter compares with, resolved once per retrieve.
enum Wanted {
    /// Members of a value set.
    Set(Arc<ValueSet>),
    /// Any code of a system.
    System(Arc<str>),
    /// One of these.
    Codes(Vec<Code>),
}

impl<'a> Session<'a> {
    pub(super) fn retrieve(&mut self, expression: &'a Expression, retrieve: &'a Retrieve, frame: &mut Frame) -> Outcome {
        if let Some(context) = &retrieve.context {
            return Err(self.fault_at(context, "retrieves in the context of another patient are not supported"));
        }
        let Some(class) = self.program.class_id(&retrieve.class) else {
            return Err(self.fault_at(expression, format!("the model has no class `{}`", retrieve.class)));
        };
        let record = self.context.record;
        let mut wanted = None;
        if let Some(filter) = &retrieve.code {
            let codes = self.expression(&filter.codes, frame)?;
            wanted = Some((filter, self.wanted(&filter.codes, codes)?));
        }
        let range = match &retrieve.date {
            Some(filter) => Some((filter, self.expression(&filter.range, frame)?)),
            None => None,
        };
        let mut found = Vec::new();
        for resource in record.resources(&retrieve.resource_type) {
            if !retrieve.fixed.iter().all(|fixed| has_fixed(record, *resource, fixed)) {
                continue;
            }
            if let Some((filter, wanted)) = &wanted
                && !self.has_code(*resource, filter, wanted)
            {
                continue;
            }
            if let Some((filter, range)) = &range
                && !self.is_during(*resource, filter, range).map_err(|fault| self.fault_at(expression, fault.message))?
            {
                continue;
            }
            found.push(Value::Node(*resource, class));
        }
        Ok(Value::list(found))
    }

    fn wanted(&self, at: &Expression, codes: Value) -> Outcome<Wanted> {
        let mut list = Vec::new();
        match codes {
            Value::ValueSet(reference) => {
                let set = self.context.value_sets.find(&reference.id, reference.version.as_deref());
                let missing = || self.fault_at(at, format!("value set `{}` is not known to this run", reference.id));
                return Ok(Wanted::Set(set.ok_or_else(missing)?.clone()));
            }
            Value::CodeSystem(system) => return Ok(Wanted::System(system.id.clone())),
            Value::List(items) => {
                for item in items.iter() {
                    add_codes(&mut list, item);
                }
            }
            Value::Null => {}
            Value::Code(_) | Value::Concept(_) | Value::String(_) => add_codes(&mut list, &codes),
            other => {
                let found = other.type_name();
                return Err(self.fault_at(at, format!("expected codes or a value set, found a value of type `{found}`")));
            }
        }
        Ok(Wanted::Codes(list))
    }

    fn has_code(&self, resource: NodeId, filter: &CodeFilter, wanted: &Wanted) -> bool {
        let record = self.context.record;
        let followed = |node| if filter.through_reference { coded(record, resource, node) } else { vec![node] };
        for node in follow(record, resource, &filter.path).into_iter().flat_map(followed) {
            for (system, code) in codings(record, node) {
                let matches = match wanted {
                    Wanted::Codes(codes) => codes
                        .iter()
                        .any(|own| &*own.code == code && (system.is_none() && record.kind(node) == NodeKind::Text || own.system.as_deref() == system)),
                    Wanted::System(own) => system == Some(&**own),
                    Wanted::Set(set) => match system {
                        Some(system) => set.contains(system, code),
                        // A `code` element names no system: its binding does.
                        None => record.kind(node) == NodeKind::Text && set.systems_with(code) > 0,
                    },
                };
                if matches {
                    return true;
                }
            }
        }
        false
    }

    fn is_during(&self, resource: NodeId, filter: &DateFilter, range: &Value) -> Result<bool, Fault> {
        let record = self.context.record;
        let Some((last, before)) = filter.path.split_last() else { return Ok(false) };
        for parent in follow(record, resource, before) {
            for alternative in &last.alternatives {
                let Some(node) = record.get(parent, &alternative.field) else { continue };
                let (value, name) = match record.kind(node) {
                    NodeKind::Object => (period(record, node), "IncludedIn"),
                    _ => (super::property::primitive(record, node, &Type::DateTime), "In"),
                };
                let operator = operators::operator(name).ok_or_else(|| Fault::new(format!("operator `{name}` is missing")))?;
                if self.apply(operator, &[value, range.clone()], None)?.truth() == Some(true) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

fn add_codes(list: &mut Vec<Code>, value: &Value) {
    match value {
        Value::Code(code) => list.push((**code).clone()),
        Value::Concept(concept) => list.extend(concept.codes.iter().cloned()),
        Value::String(code) => list.push(Code { code: code.clone(), ..Code::default() }),
        _ => {}
    }
}

/// A Period as an interval of DateTime.
fn period(record: &Record, node: NodeId) -> Value {
    let bound = |name| record.get(node, name).map_or(Value::Null, |node| super::property::primitive(record, node, &Type::DateTime));
    let interval = Interval { low: bound("start"), low_closed: true, high: bound("end"), high_closed: true, point: Some(Point::DateTime) };
    Value::Interval(Arc::new(interval))
}

/// The nodes at a path, lists flattened.
fn follow(record: &Record, from: NodeId, path: &[Element]) -> Vec<NodeId> {
    let mut nodes = vec![from];
    for element in path {
        let fields = nodes.iter().flat_map(|node| element.alternatives.iter().filter_map(|row| record.get(*node, &row.field)));
        nodes = fields.flat_map(|field| record.items(field)).collect();
    }
    nodes
}

/// The element itself, or the `code` of the Medication that it refers to: `medication[x]` says it either way, and a
/// retrieve by code means both.
fn coded(record: &Record, resource: NodeId, node: NodeId) -> Vec<NodeId> {
    let reference = record.get(node, "reference").and_then(|reference| record.text(reference));
    let Some(target) = reference.and_then(|reference| record.resolve(resource, reference)) else { return vec![node] };
    let code = record.get(target, "code").filter(|_| record.resource_type(target) == Some("Medication"));
    code.into_iter().collect()
}

/// (system, code) of a CodeableConcept, a Coding, a `code`, or the truth of a Boolean, which a profile may fix.
fn codings(record: &Record, node: NodeId) -> Vec<(Option<&str>, &str)> {
    let text = |node: NodeId, name: &str| record.get(node, name).and_then(|field| record.text(field));
    let coding = |node: NodeId| text(node, "code").map(|code| (text(node, "system"), code));
    match record.kind(node) {
        NodeKind::Text | NodeKind::Boolean => record.literal(node).map(|code| (None, code)).into_iter().collect(),
        NodeKind::Object => match record.get(node, "coding") {
            Some(list) => record.items(list).filter_map(coding).collect(),
            None => coding(node).into_iter().collect(),
        },
        _ => Vec::new(),
    }
}

/// Whether a resource is of a profile: as it claims, if it claims the profile or one that says the opposite; else by its codes.
fn has_fixed(record: &Record, resource: NodeId, fixed: &FixedCodes) -> bool {
    if !fixed.rivals.is_empty() {
        let claims = record.get(resource, "meta").and_then(|meta| record.get(meta, "profile"));
        let claims = claims.into_iter().flat_map(|list| record.items(list)).filter_map(|claim| record.text(claim));
        let claims: Vec<&str> = claims.map(|claim| claim.split('|').next().unwrap_or(claim)).collect();
        if claims.contains(&&*fixed.profile) {
            return true;
        }
        if fixed.rivals.iter().any(|rival| claims.contains(&&**rival)) {
            return false;
        }
    }
    let nodes = follow(record, resource, &fixed.path);
    let found = nodes.iter().any(|node| {
        codings(record, *node).into_iter().any(|(system, code)| {
            fixed
                .any_of
                .iter()
                .any(|(own_system, own_code)| &**own_code == code && (own_system.is_empty() || system.is_none() || system == Some(&**own_system)))
        })
    });
    match fixed.rule {
        FixedRule::One => found,
        FixedRule::OneIfPresent => found || nodes.is_empty(),
        FixedRule::None => !found,
    }
}
