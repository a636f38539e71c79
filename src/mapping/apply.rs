//! Applying a mapping to one patient's record: codings are added, quantities converted, nothing is lost.

use serde::Serialize;

use super::{AnswerRule, CodeRule, Element, Mapping, Target, UnitRule, folded};
use crate::fhir::record::{NodeId, NodeKind, Record};
use crate::terminology::units::Units;

/// Where the quantity as the hospital wrote it stays when its unit was converted.
pub const ORIGINAL_QUANTITY: &str = "http://watershed.example/fhir/StructureDefinition/original-quantity";

/// What could not be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// A code of a mapped system that the mapping does not name.
    UnmappedCode,
    /// A text answer that the mapping does not name; the text is not told, it might say anything.
    UnmappedAnswer,
    /// A quantity in another unit than the mapping expects.
    UnexpectedUnit,
    /// A value that is none of its type: `n/a` for a number, a date that does not exist. The value is not told.
    UnreadableValue,
    /// A Patient that says another took its place, who is not among the data.
    AbsentReplacement,
    /// Somebody of whom there are data, but no Patient.
    AbsentPatient,
}

/// One thing that could not be understood in a patient's record. Names codes and units, never values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What it is.
    pub problem: Problem,
    /// The element, `Encounter.serviceType`.
    pub element: String,
    /// The local system, or that of the observation.
    pub system: String,
    /// The local code, or that of the observation.
    pub code: String,
}

impl Mapping {
    /// Translates one record in place; the findings are sorted, each once.
    pub fn apply(&self, record: &mut Record) -> Vec<Finding> {
        let mut findings = Vec::new();
        for rule in &self.codes {
            for element in &rule.elements {
                translate_element(rule, element, record, &mut findings);
            }
        }
        if !self.answers.is_empty() || !self.units.is_empty() {
            self.observations(record, &mut findings);
        }
        findings.sort();
        findings.dedup();
        findings
    }

    fn observations(&self, record: &mut Record, findings: &mut Vec<Finding>) {
        let units = Units::new();
        for observation in record.resources("Observation").to_vec() {
            let codes = record.get(observation, "code").map(|code| codings(record, code)).unwrap_or_default();
            for rule in self.answers.iter().filter(|rule| codes.contains(&rule.observation)) {
                translate_answer(rule, record, observation, findings);
            }
            for rule in self.units.iter().filter(|rule| codes.contains(&rule.observation)) {
                convert_unit(rule, &units, record, observation, findings);
            }
        }
    }
}

/// System and code of every coding of a CodeableConcept.
fn codings(record: &Record, concept: NodeId) -> Vec<(String, String)> {
    let Some(codings) = record.get(concept, "coding") else { return Vec::new() };
    let text = |coding, name| record.get(coding, name).and_then(|node| record.text(node)).unwrap_or_default().to_owned();
    record.items(codings).map(|coding| (text(coding, "system"), text(coding, "code"))).collect()
}

/// The elements at a path below a resource, through every repetition.
fn at_path(record: &Record, resource: NodeId, path: &[String]) -> Vec<NodeId> {
    path.iter().fold(vec![resource], |nodes, name| {
        let fields = nodes.into_iter().filter_map(|node| record.get(node, name));
        fields.flat_map(|field| record.items(field).collect::<Vec<_>>()).collect()
    })
}

fn add(record: &mut Record, concept: NodeId, target: &Target) {
    let there = codings(record, concept);
    if !there.iter().any(|(system, code)| *system == target.system && *code == target.code) {
        record.append_coding(concept, &target.system, &target.code, target.display.as_deref());
    }
}

fn translate_element(rule: &CodeRule, element: &Element, record: &mut Record, findings: &mut Vec<Finding>) {
    for resource in record.resources(&element.resource_type).to_vec() {
        for concept in at_path(record, resource, &element.path) {
            for (system, code) in codings(record, concept) {
                if system != rule.system {
                    continue;
                }
                match rule.targets.get(&code) {
                    Some(target) => add(record, concept, target),
                    None if rule.report_others && !rule.ignore.contains(&code) => {
                        findings.push(Finding { problem: Problem::UnmappedCode, element: format!("{}.{}", element.resource_type, element.path.join(".")), system, code })
                    }
                    None => {}
                }
            }
        }
    }
}

fn finding(problem: Problem, element: &str, observation: &(String, String)) -> Finding {
    Finding { problem, element: element.to_owned(), system: observation.0.clone(), code: observation.1.clone() }
}

fn translate_answer(rule: &AnswerRule, record: &mut Record, observation: NodeId, findings: &mut Vec<Finding>) {
    let Some(value) = record.get(observation, "valueCodeableConcept") else { return };
    let Some(text) = record.get(value, "text").and_then(|node| record.text(node)) else { return };
    match rule.targets.get(&folded(text)) {
        Some(target) => add(record, value, target),
        None => findings.push(finding(Problem::UnmappedAnswer, "Observation.valueCodeableConcept.text", &rule.observation)),
    }
}

fn convert_unit(rule: &UnitRule, units: &Units, record: &mut Record, observation: NodeId, findings: &mut Vec<Finding>) {
    let Some(quantity) = record.get(observation, "valueQuantity") else { return };
    let text = |name| record.get(quantity, name).and_then(|node| record.text(node)).map(str::to_owned);
    let unit = text("code").or_else(|| text("unit")).unwrap_or_default();
    if unit == rule.to {
        return;
    }
    let written = record.get(quantity, "value");
    // Some servers write numbers as texts: there is but one way to read them.
    let value = written.and_then(|node| Some((node, record.number(node).or_else(|| record.text(node)?.parse().ok())?)));
    if written.is_some() && value.is_none() {
        findings.push(finding(Problem::UnreadableValue, "Observation.valueQuantity.value", &rule.observation));
        return;
    }
    let converted = value
        .filter(|_| unit == rule.from)
        .and_then(|(node, value)| Some((node, value, units.convert(value, &rule.from, &rule.to)?)));
    let Some((node, original, converted)) = converted else {
        findings.push(finding(Problem::UnexpectedUnit, "Observation.valueQuantity", &rule.observation));
        return;
    };
    // The snapshot keeps the resource as it came; this keeps the original beside the converted value as well.
    if record.get(quantity, "extension").is_none() {
        let extension = record.object_or_new(quantity, "extension");
        record.set_field_text(extension, "url", ORIGINAL_QUANTITY);
        let kept = record.object_or_new(extension, "valueQuantity");
        let number = record.field_or_new(kept, "value");
        record.set_number(number, original);
        record.set_field_text(kept, "code", &unit);
    }
    record.set_number(node, converted);
    for name in ["unit", "code"] {
        record.set_field_text(quantity, name, &rule.to);
    }
    record.set_field_text(quantity, "system", "http://unitsofmeasure.org");
    debug_assert_eq!(record.kind(node), NodeKind::Number, "INVARIANT: a converted value is a number");
}
