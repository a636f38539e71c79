//! Applying a mapping to one patient's record: codings are added, quantities converted, nothing is lost.

use std::collections::BTreeSet;

use serde::Serialize;

use super::element::{Element, Holds};
use super::{AnswerRule, CodeRule, Mapping, PLAIN_VALUES, Target, UnitRule, folded};
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
    /// A code and a text that the mapping understands, and that say different things; the code counts.
    DisagreeingAnswer,
    /// A quantity in another unit than the mapping expects.
    UnexpectedUnit,
    /// A text or a whole number where the mapping expects a quantity with its unit.
    UnexpectedValue,
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

    /// Several rules of one observation are one: what any of them knows is known.
    fn observations(&self, record: &mut Record, findings: &mut Vec<Finding>) {
        let units = Units::new();
        for observation in record.resources("Observation").to_vec() {
            let codes = record.get(observation, "code").map(|code| codings(record, code)).unwrap_or_default();
            let answers: Vec<&AnswerRule> = self.answers.iter().filter(|rule| codes.contains(&rule.observation)).collect();
            if let Some(first) = answers.first() {
                let problem = translate_answer(&answers, record, observation);
                findings.extend(problem.map(|(problem, element)| finding(problem, element, &first.observation)));
            }
            let rules: Vec<&UnitRule> = self.units.iter().filter(|rule| codes.contains(&rule.observation)).collect();
            if let Some(first) = rules.first() {
                let problem = convert_unit(&rules, &units, record, observation);
                findings.extend(problem.map(|(problem, element)| finding(problem, element, &first.observation)));
            }
        }
    }
}

fn field_text(record: &Record, node: NodeId, name: &str) -> Option<String> {
    record.get(node, name).and_then(|node| record.text(node)).map(str::to_owned)
}

/// System and code of a Coding.
fn coding(record: &Record, node: NodeId) -> (String, String) {
    (field_text(record, node, "system").unwrap_or_default(), field_text(record, node, "code").unwrap_or_default())
}

/// System and code of every coding of a CodeableConcept.
fn codings(record: &Record, concept: NodeId) -> Vec<(String, String)> {
    let Some(codings) = record.get(concept, "coding") else { return Vec::new() };
    record.items(codings).map(|node| coding(record, node)).collect()
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

impl CodeRule {
    /// What a code means; one of the system that is not known is a finding.
    fn target(&self, element: &Element, (system, code): (String, String), findings: &mut Vec<Finding>) -> Option<&Target> {
        if system != self.system {
            return None;
        }
        let target = self.targets.get(&code);
        if target.is_none() && self.report_others && !self.ignore.contains(&code) {
            findings.push(Finding { problem: Problem::UnmappedCode, element: element.to_string(), system, code });
        }
        target
    }
}

fn translate_element(rule: &CodeRule, element: &Element, record: &mut Record, findings: &mut Vec<Finding>) {
    for resource in record.resources(&element.resource_type).to_vec() {
        match element.holds {
            Holds::Concept => {
                for concept in at_path(record, resource, &element.path) {
                    for code in codings(record, concept) {
                        if let Some(target) = rule.target(element, code, findings) {
                            add(record, concept, target);
                        }
                    }
                }
            }
            Holds::Coding => {
                let Some((last, above)) = element.path.split_last() else { continue };
                for field in at_path(record, resource, above).into_iter().filter_map(|node| record.get(node, last)).collect::<Vec<_>>() {
                    translate_codings(rule, element, (record, field), findings);
                }
            }
        }
    }
}

/// A Coding holds one code: the standard one takes its place in what is evaluated, while the snapshot keeps the other. Of several
/// Codings the standard one is one more.
fn translate_codings(rule: &CodeRule, element: &Element, (record, field): (&mut Record, NodeId), findings: &mut Vec<Finding>) {
    let there: Vec<(NodeId, (String, String))> = record.items(field).map(|node| (node, coding(record, node))).collect();
    let is_list = record.kind(field) == NodeKind::Array;
    for (node, code) in &there {
        let Some(target) = rule.target(element, code.clone(), findings) else { continue };
        match is_list {
            true if there.iter().any(|(_, (system, code))| *system == target.system && *code == target.code) => {}
            true => record.append_item_coding(field, &target.system, &target.code, target.display.as_deref()),
            false => {
                let display = target.display.as_deref().or_else(|| record.get(*node, "display").map(|_| target.code.as_str()));
                for (name, text) in [("system", Some(target.system.as_str())), ("code", Some(&target.code)), ("display", display)] {
                    text.into_iter().for_each(|text| record.set_field_text(*node, name, text));
                }
            }
        }
    }
}

fn finding(problem: Problem, element: &str, observation: &(String, String)) -> Finding {
    Finding { problem, element: element.to_owned(), system: observation.0.clone(), code: observation.1.clone() }
}

/// What could not be done, and at which element.
type Trouble = (Problem, &'static str);

/// The element of an answer or a measurement that stands there as a text or a whole number.
fn plain_value(record: &Record, observation: NodeId) -> Option<(&'static str, String)> {
    let found = PLAIN_VALUES.iter().find_map(|name| Some((*name, record.literal(record.get(observation, name)?)?.to_owned())));
    found.map(|(name, text)| (if name == "valueString" { "Observation.valueString" } else { "Observation.valueInteger" }, text))
}

fn translate_answer(rules: &[&AnswerRule], record: &mut Record, observation: NodeId) -> Option<Trouble> {
    let concept = record.get(observation, "valueCodeableConcept");
    let (element, text) = match concept {
        Some(concept) => ("Observation.valueCodeableConcept.text", field_text(record, concept, "text")?),
        None => plain_value(record, observation)?,
    };
    let meant: Vec<&Target> = rules.iter().filter_map(|rule| rule.targets.get(&folded(&text))).collect();
    let own = concept.map(|concept| codings(record, concept)).unwrap_or_default();
    if meant.is_empty() {
        let systems: BTreeSet<&str> = rules.iter().flat_map(|rule| rule.targets.values()).map(|target| target.system.as_str()).collect();
        let is_understood = own.iter().any(|(system, _)| systems.contains(system.as_str()));
        return (!is_understood).then_some((Problem::UnmappedAnswer, element));
    }
    let concept = concept.unwrap_or_else(|| {
        let made = record.object_or_new(observation, "valueCodeableConcept");
        record.set_field_text(made, "text", &text);
        made
    });
    let mut trouble = None;
    for target in meant {
        let of_system: Vec<&str> = own.iter().filter(|(system, _)| *system == target.system).map(|(_, code)| code.as_str()).collect();
        match of_system.as_slice() {
            [] => add(record, concept, target),
            codes if codes.contains(&target.code.as_str()) => {}
            _ => trouble = Some((Problem::DisagreeingAnswer, element)),
        }
    }
    trouble
}

fn convert_unit(rules: &[&UnitRule], units: &Units, record: &mut Record, observation: NodeId) -> Option<Trouble> {
    let Some(quantity) = record.get(observation, "valueQuantity") else {
        return plain_value(record, observation).map(|(element, _)| (Problem::UnexpectedValue, element));
    };
    let unit = field_text(record, quantity, "code").or_else(|| field_text(record, quantity, "unit")).unwrap_or_default();
    if rules.iter().any(|rule| rule.to == unit) {
        return None;
    }
    let written = record.get(quantity, "value");
    let value = written.and_then(|node| Some((node, record.number(node)?)));
    if written.is_some() && value.is_none() {
        return Some((Problem::UnreadableValue, "Observation.valueQuantity.value"));
    }
    let converted = value.zip(rules.iter().find(|rule| rule.from == unit)).and_then(|((node, value), rule)| {
        let converted = match rule.factor {
            Some(factor) => value.checked_mul(factor),
            None => units.convert(value, &rule.from, &rule.to),
        };
        Some((node, value, converted?, rule))
    });
    let Some((node, original, converted, rule)) = converted else { return Some((Problem::UnexpectedUnit, "Observation.valueQuantity")) };
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
    None
}
