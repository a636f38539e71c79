//! Applying a mapping to one patient's record: codings are added, quantities converted, nothing is lost.

use std::collections::BTreeSet;

use serde::Serialize;

use super::element::{Element, Holds};
use super::{AnswerRule, CodeRule, Mapping, PLAIN_VALUES, Target, UnitRule, folded};
use crate::cql::evaluate::doubt::{Doubt, DoubtKind};
use crate::fhir::record::{NodeId, NodeKind, Record};
use crate::terminology::units::{Units, shown_unit};

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
    /// A code and a text that the mapping understands, and that say different things; the code counts. Or two local codes that do; both
    /// count.
    DisagreeingAnswer,
    /// A local code beside a standard one that says something else than the mapping; the standard one counts, and no rule is applied.
    DisagreeingCode,
    /// A quantity in another unit than the mapping expects.
    UnexpectedUnit,
    /// A text or a whole number where the mapping expects a quantity with its unit.
    UnexpectedValue,
    /// A value that is none of its type: `n/a` for a number, a date that does not exist. The value is not told.
    UnreadableValue,
    /// A quantity with a comparator, as `> 600 mg/dL`, that a measure asks for: how large it is is not known.
    Comparator,
    /// A quantity in a unit that cannot be compared with the one that a measure compares it with.
    UnlikeUnit,
    /// A quantity whose unit converts to the one that a measure compares it with, and may be of another scale; or has no unit at all.
    OtherScale,
    /// A value of another type where a measure compares a quantity.
    OtherType,
    /// Codes of a system that neither a rule nor a measure names, and whose name is near to one that is named.
    UnknownSystem,
    /// Codes that are nearly what measures ask for: written otherwise, without their system, or under another one.
    NearCodes,
    /// Resources with a code that a measure asks for, without the status that FHIR demands.
    WithoutStatus,
    /// A rule that leads to what a measure asks for, and that met nothing in the data.
    IdleRule,
    /// An entry of a rule that leads to what a measure asks for, and that met nothing, while a code near to it is there.
    IdleEntry,
    /// Entries of a rule that lead to what a measure asks for, and that met nothing.
    IdleEntries,
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
    /// The unit, code or name that stands there, where it is not the code that is told.
    pub found: String,
    /// What should stand there.
    pub expected: String,
}

impl Finding {
    /// One of which nothing is told yet.
    pub fn of(problem: Problem) -> Finding {
        Finding { problem, element: String::new(), system: String::new(), code: String::new(), found: String::new(), expected: String::new() }
    }
}

impl From<Doubt> for Finding {
    fn from(doubt: Doubt) -> Finding {
        let Doubt { kind, element, system, code, found, expected } = doubt;
        let problem = match kind {
            DoubtKind::Comparator => Problem::Comparator,
            DoubtKind::UnlikeUnit => Problem::UnlikeUnit,
            DoubtKind::OtherScale => Problem::OtherScale,
            DoubtKind::OtherType => Problem::OtherType,
        };
        Finding { problem, element, system, code, found, expected }
    }
}

impl Mapping {
    /// Translates one record in place; the findings are sorted, each once.
    pub fn apply(&self, record: &mut Record) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.is_empty() {
            return findings;
        }
        let contained = contained(record);
        let came = record.end();
        for rule in &self.codes {
            for element in &rule.elements {
                translate_element(rule, element, (record, &contained, came), &mut findings);
            }
        }
        if !self.answers.is_empty() || !self.units.is_empty() {
            self.observations(record, &contained, &mut findings);
        }
        findings.sort();
        findings.dedup();
        findings
    }

    /// An observation, and each of its components, is one thing with a code and a value.
    fn observations(&self, record: &mut Record, contained: &[NodeId], findings: &mut Vec<Finding>) {
        for observation in all_of(record, contained, "Observation") {
            self.observed(record, (observation, "Observation"), findings);
            let components: Vec<NodeId> = record.get(observation, "component").map(|list| record.items(list).collect()).unwrap_or_default();
            for component in components {
                self.observed(record, (component, "Observation.component"), findings);
            }
        }
    }

    /// Several rules of one observation are one: what any of them knows is known.
    fn observed(&self, record: &mut Record, (node, at): (NodeId, &str), findings: &mut Vec<Finding>) {
        let mut codes = record.get(node, "code").map(|code| codings(record, code)).unwrap_or_default();
        let all = codes.clone();
        codes.retain(|code| !self.is_disputed(code, &all));
        let mut tell = |observation: &(String, String), trouble: Option<Trouble>| {
            findings.extend(trouble.map(|Trouble { problem, element, found, expected }| Finding {
                problem,
                element: format!("{at}.{element}"),
                system: observation.0.clone(),
                code: observation.1.clone(),
                found,
                expected,
            }));
        };
        let answers: Vec<&AnswerRule> = self.answers.iter().filter(|rule| codes.contains(&rule.observation)).collect();
        if let Some(first) = answers.first() {
            tell(&first.observation, translate_answer(&answers, record, node));
        }
        let rules: Vec<&UnitRule> = self.units.iter().filter(|rule| codes.contains(&rule.observation)).collect();
        if let Some(first) = rules.first() {
            tell(&first.observation, convert_unit(&rules, record, node));
        }
    }

    /// Whether a standard code beside this one says that it is something else than the mapping says: then nobody knows what was measured.
    fn is_disputed(&self, (system, code): &(String, String), beside: &[(String, String)]) -> bool {
        let targets = self.codes.iter().filter(|rule| rule.system == *system).filter_map(|rule| rule.targets.get(code));
        targets.into_iter().any(|target| contradicting(system, target, beside).is_some())
    }
}

/// Resources within others.
pub(super) fn contained(record: &Record) -> Vec<NodeId> {
    let resources = record.resource_types().flat_map(|name| record.resources(name));
    let lists = resources.filter_map(|resource| record.get(*resource, "contained"));
    lists.flat_map(|list| record.items(list)).collect()
}

/// The resources of a type, those within others included.
pub(super) fn all_of(record: &Record, contained: &[NodeId], resource_type: &str) -> Vec<NodeId> {
    let within = contained.iter().filter(|node| record.resource_type(**node) == Some(resource_type));
    record.resources(resource_type).iter().chain(within).copied().collect()
}

/// The code beside a local one that is of the system of its target, where none is the target itself.
fn contradicting<'c>(own_system: &str, target: &Target, beside: &'c [(String, String)]) -> Option<&'c str> {
    if own_system == target.system {
        return None;
    }
    let mut of_system = beside.iter().filter(|(system, _)| *system == target.system).map(|(_, code)| code.as_str());
    let first = of_system.next()?;
    (first != target.code && of_system.all(|code| code != target.code)).then_some(first)
}

fn field_text(record: &Record, node: NodeId, name: &str) -> Option<String> {
    record.get(node, name).and_then(|node| record.text(node)).map(str::to_owned)
}

/// System and code of a Coding.
pub(super) fn coding(record: &Record, node: NodeId) -> (String, String) {
    (field_text(record, node, "system").unwrap_or_default(), field_text(record, node, "code").unwrap_or_default())
}

/// System and code of every coding of a CodeableConcept.
pub(super) fn codings(record: &Record, concept: NodeId) -> Vec<(String, String)> {
    let Some(codings) = record.get(concept, "coding") else { return Vec::new() };
    record.items(codings).map(|node| coding(record, node)).collect()
}

/// The elements at a path below a resource, through every repetition.
pub(super) fn at_path(record: &Record, resource: NodeId, path: &[String]) -> Vec<NodeId> {
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
            findings.push(Finding { element: element.to_string(), system, code, ..Finding::of(Problem::UnmappedCode) });
        }
        target
    }
}

fn translate_element(rule: &CodeRule, element: &Element, (record, contained, came): (&mut Record, &[NodeId], NodeId), findings: &mut Vec<Finding>) {
    for resource in all_of(record, contained, &element.resource_type) {
        match element.holds {
            Holds::Concept => {
                for concept in at_path(record, resource, &element.path) {
                    translate_concept(rule, element, (record, concept, came), findings);
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

/// The codings of a concept mean one thing. A standard code that came with a local one, and that is not what the mapping leads to, is
/// what somebody said of this very datum, so it counts.
fn translate_concept(rule: &CodeRule, element: &Element, (record, concept, came): (&mut Record, NodeId, NodeId), findings: &mut Vec<Finding>) {
    let list = record.get(concept, "coding").map(|list| record.items(list).collect()).unwrap_or_else(Vec::new);
    // What another rule added is the mapping's own word.
    let original: Vec<(String, String)> = list.iter().filter(|node| **node < came).map(|node| coding(record, *node)).collect();
    let mut answer: Option<&Target> = None;
    for code in codings(record, concept) {
        let Some(target) = rule.target(element, code.clone(), findings) else { continue };
        // An answer is one; what somebody has may well have two codes.
        let is_answer = element.path.last().is_some_and(|name| name == "valueCodeableConcept");
        if let Some(other) = answer.filter(|other| is_answer && other.system == target.system && other.code != target.code) {
            let (found, expected) = (other.code.clone(), target.code.clone());
            findings.push(Finding { problem: Problem::DisagreeingAnswer, element: element.to_string(), system: code.0.clone(), code: code.1.clone(), found, expected });
        }
        answer = answer.or(Some(target));
        match contradicting(&rule.system, target, &original) {
            None => add(record, concept, target),
            Some(other) => findings.push(Finding {
                problem: Problem::DisagreeingCode,
                element: element.to_string(),
                system: code.0,
                code: code.1,
                found: other.to_owned(),
                expected: target.code.clone(),
            }),
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

/// What could not be done: at which element of the observation, what stands there, and what should.
struct Trouble {
    problem: Problem,
    element: &'static str,
    found: String,
    expected: String,
}

impl Trouble {
    /// Nothing of what stands there can be told.
    fn of(problem: Problem, element: &'static str) -> Trouble {
        Trouble { problem, element, found: String::new(), expected: String::new() }
    }
}

/// The element of an answer or a measurement that stands there as a text or a whole number.
pub(super) fn plain_value(record: &Record, observation: NodeId) -> Option<(&'static str, String)> {
    PLAIN_VALUES.iter().find_map(|name| Some((*name, record.literal(record.get(observation, name)?)?.to_owned())))
}

fn translate_answer(rules: &[&AnswerRule], record: &mut Record, observation: NodeId) -> Option<Trouble> {
    let concept = record.get(observation, "valueCodeableConcept");
    let (element, text) = match concept {
        Some(concept) => ("valueCodeableConcept.text", field_text(record, concept, "text")?),
        None => plain_value(record, observation)?,
    };
    let meant: Vec<&Target> = rules.iter().filter_map(|rule| rule.targets.get(&folded(&text))).collect();
    let own = concept.map(|concept| codings(record, concept)).unwrap_or_default();
    if meant.is_empty() {
        let systems: BTreeSet<&str> = rules.iter().flat_map(|rule| rule.targets.values()).map(|target| target.system.as_str()).collect();
        let is_understood = own.iter().any(|(system, _)| systems.contains(system.as_str()));
        return (!is_understood).then_some(Trouble::of(Problem::UnmappedAnswer, element));
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
            _ => trouble = Some(Trouble::of(Problem::DisagreeingAnswer, element)),
        }
    }
    trouble
}

/// What a hospital writes of a unit is its own matter: the code as it stands, else the text.
fn unit_rule<'r>(rules: &[&'r UnitRule], written: [Option<&str>; 2]) -> Option<&'r UnitRule> {
    written.into_iter().flatten().find_map(|unit| rules.iter().find(|rule| rule.from == unit).copied())
}

/// Converts the quantity of an observation.
fn convert_unit(rules: &[&UnitRule], record: &mut Record, observation: NodeId) -> Option<Trouble> {
    let Some(quantity) = record.get(observation, "valueQuantity") else {
        return plain_value(record, observation).map(|(element, _)| Trouble::of(Problem::UnexpectedValue, element));
    };
    let [code, text] = ["code", "unit"].map(|name| field_text(record, quantity, name));
    let unit = code.as_ref().or(text.as_ref()).cloned().unwrap_or_default();
    if rules.iter().any(|rule| rule.to == unit) {
        return None;
    }
    let written = record.get(quantity, "value");
    let value = written.and_then(|node| Some((node, record.number(node)?)));
    if written.is_some() && value.is_none() {
        return Some(Trouble::of(Problem::UnreadableValue, "valueQuantity.value"));
    }
    let converted = value.zip(unit_rule(rules, [code.as_deref(), text.as_deref()])).and_then(|((node, value), rule)| {
        let converted = match rule.factor {
            Some(factor) => value.checked_mul(factor),
            None => Units::new().convert(value, &rule.from, &rule.to),
        };
        Some((node, value, converted?, rule))
    });
    let Some((node, original, converted, rule)) = converted else {
        let expected = rules.iter().map(|rule| rule.to.clone()).next().unwrap_or_default();
        return Some(Trouble { problem: Problem::UnexpectedUnit, element: "valueQuantity", found: shown_unit(&unit), expected });
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
    None
}
