//! Results to FHIR MeasureReports of the DEQM guide (davinci-deqm 5.0.0).
//!
//! The bytes are a function of the arguments: no clock, no random ids, elements in a fixed order, groups and
//! populations in the measure's order, strata sorted by their value.
//!
//! A population's `count` is what its criterion let in before exclusions are taken off; `scored-count` beside it says
//! how many of them the score uses. `cannot-tell` on a population counts those for whom the record cannot tell whether
//! they are in it, by reason; on a group or stratum all of these, each once, `of` so many as the score is or may be of,
//! with `score-bounds` where it is a proportion. The aggregate of a measure observation is a `measurereport-countQuantity`
//! on its population, which then has no `count` (deqm-8), with `cqf-criteriaReference` naming the observed population. A
//! summary has no subject, no evaluated or contained resource and nothing that identifies a patient.
//! The supplemental data that a summary counts are in an individual report Observations that it contains.
//!
//! `status` is always `complete`: in FHIR R4 it says that the report is made and ready for use. Whether the *data* were complete is
//! what `completeness` says, whose `status` is `complete` or `partial`.
//!
//! A composite's group says in `composite` how it is scored and of what; a weighted one has no populations (deqm-5), but the
//! scores of its components. Scoring and improvement stand at the root, or on every group where groups differ (deqm-3).

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::composite::{self, Component, Composite, CompositeScoring};
use super::definition::{Definition, Group, Improvement, Stratifier, StratifierKind, Supplement};
use super::logic::Fingerprint;
use super::period::Period;
use super::population::{self, Aggregate, GroupShape, Observations, PopulationCode, Scoring, Tallies};
use super::result::{GroupPartial, Label, Partial, PatientResult, Stratum};
use crate::cql::evaluate::doubt::Doubt;
use crate::terminology::Shortfall;
use crate::terminology::units::Units;

const DEQM: &str = "http://hl7.org/fhir/us/davinci-deqm/StructureDefinition";
const HL7: &str = "http://hl7.org/fhir/StructureDefinition";
const OWN: &str = "http://watershed.example/fhir/StructureDefinition";
const UCUM: &str = "http://unitsofmeasure.org";
const TERMINOLOGY: &str = "http://terminology.hl7.org/CodeSystem";

/// Longest FHIR id.
const ID_CHARS_MAX: usize = 64;

/// What a report says beside its numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Id of the reporting Organization.
    pub reporter: String,
    /// Its name for people, when known.
    pub reporter_name: Option<String>,
    /// When the report was made, a FHIR dateTime.
    pub date: String,
    /// Software and its version, as (`Watershed`, `0.1.0`).
    pub software: (String, String),
    /// IANA name of the zone in which days are meant.
    pub zone: String,
    /// What the numbers were made from: (kind, name, version or digest), as (`mapping`, `harbor`, `1.0.0`).
    pub lineage: Vec<(String, String, String)>,
    /// Whether all data that the measure asks for had arrived, or what is missing.
    pub completeness: Completeness,
}

/// Whether all data that the measure asks for had arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completeness {
    /// Queries or files that did not answer, or resources that are named and absent, by resource type.
    pub gaps: BTreeMap<String, u64>,
    /// Resources that could not be read and were set aside.
    pub quarantined: u64,
    /// Types that the measure asks for and of which nothing came, where nobody can say whether there should have been any. The data
    /// are complete nevertheless: few hospitals have something of every type.
    pub absent: BTreeSet<String>,
}

impl Completeness {
    /// Nothing is missing.
    pub fn is_complete(&self) -> bool {
        self.gaps.is_empty() && self.quarantined == 0
    }
}

/// Members who are to be observed and of whom nothing was: their observation is null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unobserved<'a> {
    /// The function that observes; empty of a composite, which needs none.
    pub define: &'a str,
    /// Id of the population that is observed.
    pub population: &'a str,
    /// How many gave nothing.
    pub nothing: u64,
    /// Of how many.
    pub all: u64,
}

/// Makes the reports of one measure and period.
#[derive(Clone, Copy, Debug)]
pub struct Reporter<'a> {
    /// The measure.
    pub definition: &'a Definition,
    /// Its groups, as [`Definition::all_groups`] gives them.
    pub groups: &'a [Group],
    /// Effective values of the measure's parameters.
    pub parameters: &'a BTreeMap<String, String>,
    /// The period.
    pub period: Period,
    /// Value sets that are not whole.
    pub incomplete_sets: &'a BTreeSet<Shortfall>,
    /// What it computes.
    pub fingerprint: &'a Fingerprint,
    /// What else the report says.
    pub facts: &'a Facts,
}

impl Reporter<'_> {
    /// The summary over all patients.
    pub fn summary(&self, partial: &Partial) -> Value {
        let id = self.id("");
        let mut report = self.head("summary-measurereport-deqm", "summary", id);
        let group = self.all_group_values(&partial.groups);
        self.extend(&mut report, partial, true);
        report.insert("status".into(), "complete".into());
        report.insert("type".into(), "summary".into());
        self.middle(&mut report, None);
        report.insert("group".into(), Value::Array(group));
        Value::Object(report)
    }

    /// The report of one patient, of id `patient`.
    pub fn individual(&self, patient: &str, result: &PatientResult) -> Value {
        let mut partial = Partial::default();
        partial.add(result);
        let mut report = self.head("indv-measurereport-deqm", "individual", self.id(patient));
        let (contained, references) = self.supplements(patient, result);
        if !contained.is_empty() {
            report.insert("contained".into(), Value::Array(contained));
        }
        self.extend(&mut report, &partial, false);
        if let Some(extensions) = report.get_mut("extension").and_then(Value::as_array_mut) {
            extensions.extend(references);
        }
        report.insert("status".into(), "complete".into());
        report.insert("type".into(), "individual".into());
        self.middle(&mut report, Some(patient));
        let mut groups = self.all_group_values(&partial.groups);
        for (value, found) in groups.iter_mut().zip(&result.groups) {
            name_strata(value, found.strata.len());
        }
        report.insert("group".into(), Value::Array(groups));
        Value::Object(report)
    }

    /// The supplemental data of a patient in a population, each an Observation, and the references to them.
    fn supplements(&self, patient: &str, result: &PatientResult) -> (Vec<Value>, Vec<Value>) {
        let each = self.definition.supplemental_data.iter().zip(&result.supplements).filter(|_| result.is_in_population());
        let one = |(index, (supplement, value)): (usize, (&Supplement, &Option<String>))| {
            let id = format!("supplement-{}", index + 1);
            let (name, shown) = (&supplement.id.value, supplement.text.as_ref().unwrap_or(&supplement.id.value));
            let mut observation = json!({
                "resourceType": "Observation", "id": id, "status": "final", "code": { "text": shown }, "subject": { "reference": format!("Patient/{patient}") },
            });
            match value {
                Some(value) => observation["valueString"] = value.as_str().into(),
                None => observation["dataAbsentReason"] = concept("data-absent-reason", "unknown", None),
            }
            let criterion = json!([{ "url": format!("{HL7}/cqf-criteriaReference"), "valueString": name }]);
            let reference = json!({ "url": format!("{HL7}/measurereport-supplementalData"), "valueReference": { "extension": criterion, "reference": format!("#{id}") } });
            (observation, reference)
        };
        each.enumerate().map(one).unzip()
    }

    /// The numbers, and per population the list of its patients (those in an initial population).
    pub fn subject_list(&self, partial: &Partial, subjects: &BTreeMap<String, PatientResult>) -> Value {
        let mut report = self.head("subjectlist-measurereport-deqm", "subject-list", self.id("subjects"));
        let mut groups = self.all_group_values(&partial.groups);
        let mut contained = Vec::new();
        for (index, group) in groups.iter_mut().enumerate() {
            let Some(populations) = group.get_mut("population").and_then(Value::as_array_mut) else { continue };
            for (slot, population) in populations.iter_mut().enumerate() {
                let id = format!("group-{}-population-{}", index + 1, slot + 1);
                let inside = subjects.iter().filter(|(_, result)| {
                    let membership = result.groups.get(index).and_then(|found| found.memberships.get(slot));
                    membership.is_some_and(|membership| !membership.members.is_empty())
                });
                let entries: Vec<Value> = inside.map(|(patient, _)| json!({ "item": { "reference": format!("Patient/{patient}") } })).collect();
                if let Some(object) = population.as_object_mut() {
                    object.insert("subjectResults".into(), json!({ "reference": format!("#{id}") }));
                }
                let mut list = json!({ "resourceType": "List", "id": id, "status": "current", "mode": "snapshot" });
                if !entries.is_empty() {
                    list["entry"] = Value::Array(entries);
                }
                contained.push(list);
            }
        }
        report.insert("contained".into(), Value::Array(contained));
        self.extend(&mut report, partial, true);
        report.insert("status".into(), "complete".into());
        report.insert("type".into(), "subject-list".into());
        self.middle(&mut report, None);
        report.insert("group".into(), Value::Array(groups));
        Value::Object(report)
    }

    /// An id that is the same for the same measure, reporter, period and subject.
    fn id(&self, subject: &str) -> String {
        let definition = self.definition;
        let start = self.period.start.to_string().replace('-', "");
        let end = self.period.end.to_string().replace('-', "");
        let plain = format!("{}-{}-{start}-{end}", definition.id.value, self.facts.reporter);
        let fits = plain.len() <= ID_CHARS_MAX && plain.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
        if subject.is_empty() && fits {
            return plain;
        }
        let key = format!("{plain}\u{1f}{}\u{1f}{subject}", definition.version.value);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
        digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    fn head(&self, profile: &str, kind: &str, id: String) -> Map<String, Value> {
        let mut report = Map::new();
        report.insert("resourceType".into(), "MeasureReport".into());
        report.insert("id".into(), if kind == "individual" { format!("i-{id}").into() } else { id.into() });
        report.insert("meta".into(), json!({ "profile": [format!("{DEQM}/{profile}")] }));
        report
    }

    /// Scoring and improvement, where all groups have the same.
    fn same_for_all(&self) -> Option<(Scoring, Improvement)> {
        let mut each = self.groups.iter().map(|group| (self.definition.scoring_of(group), self.definition.improvement_of(group)));
        let first = each.next().unwrap_or((self.definition.scoring, self.definition.improvement));
        each.all(|other| other == first).then_some(first)
    }

    /// What is said beside the numbers; of one patient nothing is summed up.
    fn extend(&self, report: &mut Map<String, Value>, partial: &Partial, is_sum: bool) {
        let (name, version) = &self.facts.software;
        let mut extensions: Vec<Value> = self.same_for_all().map(|(scoring, _)| measure_scoring(scoring)).into_iter().collect();
        extensions.extend([
            json!({ "url": "http://hl7.org/fhir/uv/crmi/StructureDefinition/crmi-softwaresystem",
                "valueReference": { "type": "Device", "display": format!("{name} {version}") } }),
            own("zone", vec![part("zone", "valueString", self.facts.zone.as_str().into())]),
        ]);
        for (parameter, value) in self.parameters {
            extensions.push(own("parameter", vec![part("name", "valueString", parameter.as_str().into()), part("value", "valueString", value.as_str().into())]));
        }
        let lineage = self.facts.lineage.iter().map(|(kind, name, version)| (kind.as_str(), name.as_str(), version.as_str()));
        let Fingerprint { logic, value_sets } = self.fingerprint;
        let logic = logic.iter().map(|digest| ("logic", self.definition.id.value.as_str(), digest.as_str()));
        let value_sets = value_sets.iter().map(|(name, codes)| ("value-set", name.as_str(), codes.as_str()));
        for (kind, name, version) in lineage.chain(logic).chain(value_sets) {
            extensions.push(own("lineage", vec![part("kind", "valueCode", kind.into()), part("name", "valueString", name.into()), part("version", "valueString", version.into())]));
        }
        extensions.push(self.completeness(partial));
        if is_sum {
            extensions.push(data_quality(partial));
            for (supplement, values) in self.definition.supplemental_data.iter().zip(&partial.supplements) {
                for (value, count) in values {
                    extensions.push(own(
                        "supplemental-data",
                        vec![
                            part("id", "valueString", supplement.id.value.as_str().into()),
                            part("value", "valueString", value.as_str().into()),
                            part("count", "valueInteger", (*count).into()),
                        ],
                    ));
                }
            }
        }
        report.insert("extension".into(), Value::Array(extensions));
    }

    /// Whether the numbers are of all data: of whom the evaluation failed, they say nothing; who has a code that an incomplete value
    /// set lacks is missing from them as if the data had not come; and so may be of whom a value could not be read.
    pub fn is_complete(&self, partial: &Partial) -> bool {
        let is_said = self.incomplete_sets.is_empty() && partial.faults.is_empty() && partial.unreadable.is_empty();
        self.facts.completeness.is_complete() && is_said && self.strays(partial).next().is_none()
    }

    /// Observations whose unit cannot be converted to that of the others: the name of the definition, and how many.
    pub fn strays<'p>(&'p self, partial: &'p Partial) -> impl Iterator<Item = (&'p str, u64)> {
        let groups = self.groups.iter().zip(&partial.groups);
        let each = groups.flat_map(|(group, found)| group.populations.iter().zip(&found.all.slots));
        each.map(|(population, tally)| (population.define.value.as_str(), tally.observations.strays()))
            .filter(|(_, strays)| *strays > 0)
    }

    /// Members who are to be observed and of whom nothing was, for each observation that has such.
    pub fn unobserved<'p>(&'p self, partial: &'p Partial) -> impl Iterator<Item = Unobserved<'p>> {
        self.groups.iter().zip(&partial.groups).flat_map(|(group, found)| {
            let each = group.populations.iter().zip(&found.all.slots);
            each.filter_map(move |(population, tally)| {
                let of = population.of.as_ref().filter(|_| population.code == PopulationCode::MeasureObservation)?;
                let place = group.populations.iter().position(|other| other.id() == of.value)?;
                let all = found.all.slots.get(place)?.scored;
                let nothing = all.saturating_sub(tally.scored);
                (nothing > 0).then_some(Unobserved { define: &population.define.value, population: &of.value, nothing, all })
            })
        })
    }

    fn completeness(&self, partial: &Partial) -> Value {
        let found = &self.facts.completeness;
        let status = if self.is_complete(partial) { "complete" } else { "partial" };
        let mut parts = vec![part("status", "valueCode", status.into()), part("quarantined", "valueInteger", found.quarantined.into())];
        for (resource_type, count) in &found.gaps {
            parts.push(json!({ "url": "gap", "extension": [
                part("type", "valueCode", resource_type.as_str().into()), part("count", "valueInteger", (*count).into()),
            ]}));
        }
        parts.extend(found.absent.iter().map(|name| part("absent", "valueCode", name.as_str().into())));
        for (element, patients) in &partial.unreadable {
            parts.push(json!({ "url": "unreadable", "extension": [
                part("element", "valueString", element.as_str().into()), part("patients", "valueInteger", (*patients).into()),
            ]}));
        }
        for (define, count) in self.strays(partial) {
            parts.push(json!({ "url": "incommensurable", "extension": [
                part("define", "valueString", define.into()), part("observations", "valueInteger", count.into()),
            ]}));
        }
        for set in self.incomplete_sets {
            let total = set.total.map(|total| part("total", "valueInteger", total.into()));
            let set = [part("canonical", "valueCanonical", set.canonical.as_str().into()), part("held", "valueInteger", set.held.into())];
            parts.push(json!({ "url": "incomplete-value-set", "extension": set.into_iter().chain(total).collect::<Vec<_>>() }));
        }
        own("completeness", parts)
    }

    fn middle(&self, report: &mut Map<String, Value>, patient: Option<&str>) {
        report.insert("measure".into(), self.definition.canonical().into());
        if let Some(patient) = patient {
            report.insert("subject".into(), json!({ "reference": format!("Patient/{patient}") }));
        }
        report.insert("date".into(), self.facts.date.as_str().into());
        let mut reporter = json!({ "reference": format!("Organization/{}", self.facts.reporter) });
        if let Some(name) = &self.facts.reporter_name {
            reporter["display"] = name.as_str().into();
        }
        report.insert("reporter".into(), reporter);
        report.insert("period".into(), json!({ "start": self.period.start.to_string(), "end": self.period.end.to_string() }));
        if let Some((_, improvement)) = self.same_for_all() {
            report.insert("improvementNotation".into(), notation(improvement));
        }
    }

    fn all_group_values(&self, partials: &[GroupPartial]) -> Vec<Value> {
        let empty = GroupPartial::default();
        self.groups.iter().enumerate().map(|(index, group)| self.group(group, partials.get(index).unwrap_or(&empty))).collect()
    }

    fn group(&self, group: &Group, partial: &GroupPartial) -> Value {
        let shape = group.shape(self.definition.scoring);
        let mut value = Map::new();
        value.insert("id".into(), group.id.value.as_str().into());
        let mut extensions = Vec::new();
        if self.same_for_all().is_none() {
            extensions.push(measure_scoring(self.definition.scoring_of(group)));
            let improvement = notation(self.definition.improvement_of(group));
            extensions.push(json!({ "url": format!("{DEQM}/extension-groupImprovementNotation"), "valueCodeableConcept": improvement }));
        }
        extensions.extend(score_parts(&shape, &partial.all));
        extensions.extend(shape.composite.as_ref().map(|composite| made_of(composite, &partial.all)));
        extensions.extend(score_bounds(&shape, &partial.all));
        extensions.extend(cannot_tell(&shape, &partial.all));
        if !extensions.is_empty() {
            value.insert("extension".into(), Value::Array(extensions));
        }
        if let Some(text) = &group.text {
            value.insert("code".into(), json!({ "text": text }));
        }
        insert_populations(&mut value, group, &partial.all);
        if let Some(score) = self.score(&shape, &partial.all) {
            value.insert("measureScore".into(), score);
        }
        let stratifiers: Vec<Value> = group
            .stratifiers
            .iter()
            .enumerate()
            .map(|(index, stratifier)| self.stratifier(group, &shape, stratifier, &partial.all, partial.strata.get(index)))
            .collect();
        if !stratifiers.is_empty() {
            value.insert("stratifier".into(), Value::Array(stratifiers));
        }
        Value::Object(value)
    }

    fn score(&self, shape: &GroupShape, tallies: &Tallies) -> Option<Value> {
        let score = population::score(shape, tallies);
        match &self.definition.rate {
            None => Some(amount(score.value?, population::unit(shape, tallies))),
            Some(rate) => Some(json!({ "value": decimal(score.scaled(rate.multiplier)?), "unit": rate.unit.value })),
        }
    }

    fn stratifier(&self, group: &Group, shape: &GroupShape, stratifier: &Stratifier, whole: &Tallies, strata: Option<&BTreeMap<Stratum, Tallies>>) -> Value {
        let mut value = Map::new();
        value.insert("id".into(), stratifier.id.value.as_str().into());
        if let Some(policy) = &stratifier.policy {
            value.insert("extension".into(), json!([{ "url": format!("{OWN}/stratification-policy"), "valueString": policy }]));
        }
        if stratifier.components.is_empty() {
            value.insert("code".into(), json!([{ "text": stratifier.text.as_ref().unwrap_or(&stratifier.id.value) }]));
        }
        let names: Vec<&Stratum> = strata.into_iter().flat_map(BTreeMap::keys).collect();
        let each = strata.into_iter().flat_map(BTreeMap::values).zip(values(stratifier, &names));
        let strata: Vec<Value> = each.map(|(tallies, values)| self.stratum(group, shape, stratifier, values, &tallies.in_units_of(whole))).collect();
        if !strata.is_empty() {
            value.insert("stratum".into(), Value::Array(strata));
        }
        Value::Object(value)
    }

    fn stratum(&self, group: &Group, shape: &GroupShape, stratifier: &Stratifier, mut values: Vec<Value>, tallies: &Tallies) -> Value {
        let mut value = Map::new();
        let bounds = score_bounds(shape, tallies).filter(|_| tallies.open > 0);
        let extensions: Vec<Value> = score_parts(shape, tallies).into_iter().chain(bounds).chain(cannot_tell(shape, tallies)).collect();
        if !extensions.is_empty() {
            value.insert("extension".into(), Value::Array(extensions));
        }
        if stratifier.components.is_empty() {
            value.extend(values.pop().map(|shown| ("value".to_owned(), shown)));
        } else {
            let each = stratifier.components.iter().zip(values);
            let components = each.map(|(component, shown)| json!({ "code": { "text": component.text.as_ref().unwrap_or(&component.id.value) }, "value": shown }));
            value.insert("component".into(), components.collect());
        }
        insert_populations(&mut value, group, tallies);
        if let Some(score) = self.score(shape, tallies) {
            value.insert("measureScore".into(), score);
        }
        Value::Object(value)
    }
}

/// The values of strata with their systems, by which those of several hospitals are told apart, and with what people call them; the system
/// is in that where several have the same code.
fn values(stratifier: &Stratifier, strata: &[&Stratum]) -> Vec<Vec<Value>> {
    let mut systems: BTreeMap<(usize, &str), BTreeSet<Option<&str>>> = BTreeMap::new();
    for (place, label) in strata.iter().flat_map(|stratum| stratum.iter().enumerate()) {
        systems.entry((place, &label.text)).or_default().insert(label.system.as_deref());
    }
    let value = |(place, label): (usize, &Label)| {
        let names = stratifier.components.get(place).map_or(&stratifier.strata, |component| &component.strata);
        let shown = names.get(&label.text).unwrap_or(&label.text);
        let is_shared = systems.get(&(place, label.text.as_str())).is_some_and(|systems| systems.len() > 1);
        match &label.system {
            _ if stratifier.kind == StratifierKind::Criteria => json!({ "text": shown }),
            Some(system) => {
                let text = if is_shared { format!("{shown} ({system})") } else { shown.clone() };
                json!({ "coding": [{ "system": system, "code": label.text, "display": shown }], "text": text })
            }
            _ => json!({ "coding": [{ "code": label.text, "display": shown }], "text": shown }),
        }
    };
    strata.iter().map(|stratum| stratum.iter().enumerate().map(value).collect()).collect()
}

/// An individual report keeps only the strata the patient is in; a stratifier without one is left without.
fn name_strata(group: &mut Value, stratifiers: usize) {
    if stratifiers == 0
        && let Some(object) = group.as_object_mut()
    {
        object.remove("stratifier");
    }
}

fn measure_scoring(scoring: Scoring) -> Value {
    json!({ "url": format!("{DEQM}/extension-measureScoring"), "valueCodeableConcept": concept("measure-scoring", scoring.code(), None) })
}

/// Which direction is better. Every report must have it (deqm-2), so one of a Measure that does not say it says that.
fn notation(improvement: Improvement) -> Value {
    match improvement {
        Improvement::NotTold => json!({ "extension": [{ "url": format!("{HL7}/data-absent-reason"), "valueCode": improvement.code() }] }),
        told => concept("measure-improvement-notation", told.code(), None),
    }
}

/// How a composite is scored, and what it is made of.
fn made_of(composite: &Composite, tallies: &Tallies) -> Value {
    let mut scores = match composite.method {
        CompositeScoring::Weighted => composite::component_scores(composite, tallies),
        _ => Vec::new(),
    };
    scores.resize(composite.components.len(), None);
    let component = |(component, score): (&Component, Option<Decimal>)| {
        let mut parts = vec![part("measure", "valueString", component.measure.as_str().into()), part("group", "valueString", component.group.as_str().into())];
        if composite.method == CompositeScoring::Weighted {
            parts.push(part("weight", "valueDecimal", decimal(component.weight)));
        }
        parts.extend(score.map(|score| part("score", "valueDecimal", decimal(score))));
        json!({ "url": "component", "extension": parts })
    };
    let method = part("method", "valueCode", composite.method.code().into());
    own("composite", std::iter::once(method).chain(composite.components.iter().zip(scores).map(component)).collect())
}

/// The populations; a weighted composite has none.
fn insert_populations(value: &mut Map<String, Value>, group: &Group, tallies: &Tallies) {
    if !group.populations.is_empty() {
        value.insert("population".into(), populations(group, tallies));
    }
}

fn populations(group: &Group, tallies: &Tallies) -> Value {
    let none = population::Tally::default();
    let one = |(index, population): (usize, &super::definition::Population)| {
        let tally = tallies.slots.get(index).unwrap_or(&none);
        let mut value = Map::new();
        value.insert("id".into(), population.id().into());
        let mut extensions = Vec::new();
        let observation = population.code == PopulationCode::MeasureObservation;
        if let (true, Some(method), Some(of)) = (observation, population.aggregate, &population.of) {
            extensions.push(json!({ "url": "http://hl7.org/fhir/us/cqfmeasures/StructureDefinition/cqfm-aggregateMethod", "valueCode": method.code() }));
            extensions.push(json!({ "url": format!("{HL7}/cqf-criteriaReference"), "valueString": of.value }));
            extensions.push(json!({ "url": format!("{HL7}/measurereport-countQuantity"), "valueQuantity": quantity(&tally.observations, method) }));
        } else if tally.scored != tally.count {
            extensions.push(json!({ "url": format!("{OWN}/scored-count"), "valueInteger": tally.scored }));
        }
        if !tally.unknown.is_empty() {
            let reasons = tally.unknown.iter().map(|(reason, count)| {
                json!({ "url": "reason", "extension": [
                    part("code", "valueCode", reason.as_str().into()), part("count", "valueInteger", (*count).into()),
                ]})
            });
            let mut parts = vec![part("count", "valueInteger", tally.cannot_tell().into())];
            parts.extend(reasons);
            extensions.push(own("cannot-tell", parts));
        }
        if !extensions.is_empty() {
            value.insert("extension".into(), Value::Array(extensions));
        }
        value.insert("code".into(), concept("measure-population", population.code.code(), Some(population.code.display())));
        if !observation {
            value.insert("count".into(), tally.count.into());
        }
        Value::Object(value)
    };
    Value::Array(group.populations.iter().enumerate().map(one).collect())
}

/// An aggregate; that of nothing, other than a sum or a count, is no number.
fn quantity(observations: &Observations, method: Aggregate) -> Value {
    match observations.aggregate(method) {
        Some(aggregate) => amount(aggregate, observations.unit().filter(|_| method != Aggregate::Count).map(|unit| &**unit)),
        None => json!({ "extension": [{ "url": format!("{HL7}/data-absent-reason"), "valueCode": "not-applicable" }] }),
    }
}

/// A number with its unit, which is a code too where UCUM knows it.
fn amount(number: Decimal, unit: Option<&str>) -> Value {
    let mut value = json!({ "value": decimal(number) });
    if let Some(unit) = unit {
        value["unit"] = unit.into();
        if Units::new().is_ucum(unit) {
            value["system"] = UCUM.into();
            value["code"] = unit.into();
        }
    }
    value
}

/// Numerator and denominator as the score uses them, where there are any.
fn score_parts(shape: &GroupShape, tallies: &Tallies) -> Option<Value> {
    let score = population::score(shape, tallies);
    let side = |name, value: Option<Decimal>| Some(part(name, "valueDecimal", decimal(value?)));
    let parts: Vec<Value> = side("numerator", score.numerator).into_iter().chain(side("denominator", score.denominator)).collect();
    (!parts.is_empty()).then(|| own("score-parts", parts))
}

/// Between which values the score lies. Of a proportion in doubt also numerator and denominator at either end: what a network adds up.
fn score_bounds(shape: &GroupShape, tallies: &Tallies) -> Option<Value> {
    let (low, high) = population::bounds(shape, tallies)?;
    let mut parts = vec![part("low", "valueDecimal", decimal(low)), part("high", "valueDecimal", decimal(high))];
    let ends = population::summable_bounds(shape, tallies).filter(|_| tallies.open > 0);
    parts.extend(["low-parts", "high-parts"].into_iter().zip(ends.into_iter().flatten()).map(|(end, (numerator, denominator))| {
        let sides = [part("numerator", "valueInteger", numerator.into()), part("denominator", "valueInteger", denominator.into())];
        json!({ "url": end, "extension": sides })
    }));
    Some(own("score-bounds", parts))
}

/// Of how many members the record cannot tell, each once, and of how many the score is or may be.
fn cannot_tell(shape: &GroupShape, tallies: &Tallies) -> Option<Value> {
    let of = population::candidates(shape, tallies).map(|of| part("of", "valueInteger", of.into()));
    (tallies.open > 0).then(|| own("cannot-tell", [part("count", "valueInteger", tallies.open.into())].into_iter().chain(of).collect()))
}

fn data_quality(partial: &Partial) -> Value {
    let failed: u64 = partial.faults.values().sum();
    let mut parts = vec![part("patients", "valueInteger", partial.patients.into()), part("failed", "valueInteger", failed.into())];
    for (reason, count) in &partial.faults {
        parts.push(json!({ "url": "failure", "extension": [
            part("reason", "valueString", reason.as_str().into()), part("count", "valueInteger", (*count).into()),
        ]}));
    }
    for (code, count) in &partial.messages {
        parts.push(json!({ "url": "message", "extension": [
            part("code", "valueString", code.as_str().into()), part("patients", "valueInteger", (*count).into()),
        ]}));
    }
    for (doubt, patients) in &partial.doubts {
        let Doubt { kind, element, system, code, found, expected } = doubt;
        let texts = [("element", element), ("system", system), ("code", code), ("found", found), ("expected", expected)];
        let texts = texts
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| part(name, "valueString", text.as_str().into()));
        let all = std::iter::once(part("kind", "valueCode", kind.word().into())).chain(texts);
        parts.push(json!({ "url": "doubt", "extension": all.chain([part("patients", "valueInteger", (*patients).into())]).collect::<Vec<_>>() }));
    }
    own("data-quality", parts)
}

fn own(name: &str, parts: Vec<Value>) -> Value {
    json!({ "url": format!("{OWN}/{name}"), "extension": parts })
}

fn part(url: &str, kind: &str, value: Value) -> Value {
    let mut object = Map::new();
    object.insert("url".into(), url.into());
    object.insert(kind.into(), value);
    Value::Object(object)
}

fn concept(system: &str, code: &str, display: Option<&str>) -> Value {
    let mut coding = json!({ "system": format!("{TERMINOLOGY}/{system}"), "code": code });
    if let Some(display) = display {
        coding["display"] = display.into();
    }
    json!({ "coding": [coding] })
}

/// A decimal as a JSON number, digit for digit.
fn decimal(value: Decimal) -> Value {
    let text = value.normalize().to_string();
    text.parse::<serde_json::Number>().map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests;
