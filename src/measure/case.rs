//! Test patients beside a measure and the populations expected of them.
//!
//! A case is one YAML file: FHIR resources in short (the patient's reference is filled in), and per period the expected
//! count of every population - one that is not named must be empty - or `cannot tell`; the score too, where it is given.
//! [`Coverage`] says which definitions the cases together have seen both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rust_decimal::{Decimal, RoundingStrategy};
use serde::Deserialize;
use serde_json::Value as Json;
use serde_saphyr::Spanned;

use super::calculate::{Measure, Setting};
use super::compile;
use super::definition::Text;
use super::period::Period;
use super::population::{self, Membership, Observations, Tallies};
use super::result::{GroupResult, PatientResult, name_of};
use crate::cql::evaluate::observe::Observed;
use crate::cql::model::Models;
use crate::cql::typed::Parameter;
use crate::cql::types::Type;
use crate::cql::value::Value;
use crate::cql::{DefineId, Program, given};
use crate::diagnostic::yaml::node::{self, Content, Named, Node};
use crate::diagnostic::yaml::{self, locate};
use crate::diagnostic::{Diagnostic, Location, SourceFile};
use crate::fhir::record::Record;

mod resource;

/// Id of the patient of a case, unless it has a Patient of its own.
pub const PATIENT_ID: &str = "case";

/// One test patient.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CaseText {
    /// What the case shows.
    title: String,
    /// FHIR resources.
    resources: Vec<Node>,
    /// IANA zone; the caller's when left out.
    #[serde(default)]
    zone: Option<Spanned<String>>,
    /// Parameters that differ from the measure's.
    #[serde(default)]
    parameters: Named<Node>,
    /// What is expected, per period.
    expect: Vec<ExpectText>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ExpectText {
    period: Spanned<String>,
    /// The only group when left out.
    #[serde(default)]
    group: Option<Spanned<String>>,
    #[serde(default)]
    populations: Named<Spanned<Expected>>,
    /// The score of this patient alone, without a rate's multiplier.
    #[serde(default)]
    score: Option<f64>,
    /// Stratifier to the strata the patient is in.
    #[serde(default)]
    strata: Named<Vec<String>>,
}

/// What is expected of one population.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected a count that is not negative, `{count: …, cannot-tell: …}` or `cannot tell`")]
pub enum Expected {
    /// So many members, and no doubt about any other; or, of an observation, what the patient's come to by its aggregate.
    Count(u64),
    /// What the observations of the patient come to, where that is no count.
    Amount(f64),
    /// Members, and others for whom the record cannot tell.
    #[serde(rename_all = "kebab-case")]
    Both {
        /// Members.
        count: u64,
        /// Those for whom the record cannot tell.
        cannot_tell: u64,
    },
    /// `cannot tell`: no member, and one for whom the record cannot tell.
    Words(String),
}

/// One test patient, ready to be run.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file.
    pub source: Arc<SourceFile>,
    /// What the case shows.
    pub title: String,
    /// The resources, one JSON object each.
    pub lines: Vec<Vec<u8>>,
    /// IANA zone, if the case names one.
    pub zone: Option<String>,
    /// Parameters that differ from the measure's, as text.
    pub parameters: BTreeMap<String, String>,
    /// What is expected.
    pub expectations: Vec<Expectation>,
}

/// What is expected of one period and group.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The period.
    pub period: Period,
    /// Index of the group.
    pub group: usize,
    /// Per population id: (members or aggregate of the observations, cannot tell).
    pub populations: BTreeMap<String, (Decimal, u64)>,
    /// The score, where the case names one.
    pub score: Option<Decimal>,
    /// Stratifier to strata, where the case names any.
    pub strata: BTreeMap<String, BTreeSet<String>>,
}

/// One thing that was not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The period.
    pub period: Period,
    /// Population or stratifier.
    pub what: String,
    /// What the case expects.
    pub expected: String,
    /// What the measure found.
    pub found: String,
}

/// Reads a case against its measure; `None` when it cannot be run.
pub fn parse(source: &Arc<SourceFile>, measure: &Measure) -> (Option<Case>, Vec<Diagnostic>) {
    let text: CaseText = match yaml::read(source) {
        Ok(text) => text,
        Err(fault) => return (None, vec![fault]),
    };
    let mut found = Vec::new();
    if let Some(zone) = &text.zone
        && jiff::tz::TimeZone::get(&zone.value).is_err()
    {
        found.push(
            Diagnostic::error(format!("no time zone is named `{}`", zone.value))
                .at(locate(source, zone))
                .help("use an IANA name, as `America/New_York`"),
        );
    }
    let expectations: Vec<Option<Expectation>> = text.expect.iter().map(|one| expectation(source, measure, one, &mut found)).collect();
    let lines = lines(source, &text.resources, &mut found);
    if expectations.is_empty() {
        found.push(
            Diagnostic::error("the case expects nothing")
                .at(place(source, "expect"))
                .help("name at least one period under `expect`"),
        );
    }
    let case = Case {
        source: source.clone(),
        title: text.title,
        lines,
        zone: text.zone.map(|zone| zone.value),
        parameters: parameters(source, measure, &text.parameters, &mut found),
        expectations: expectations.into_iter().flatten().collect(),
    };
    (found.iter().all(|finding| !finding.is_error()).then_some(case), found)
}

/// A key of the case's own level.
fn place(source: &Arc<SourceFile>, key: &str) -> Location {
    super::definition::key(source, key)
}

/// The parameters as text, each of which the measure has and of its type.
fn parameters(source: &Arc<SourceFile>, measure: &Measure, written: &Named<Node>, found: &mut Vec<Diagnostic>) -> BTreeMap<String, String> {
    let known: Vec<&Parameter> = measure.programs().flat_map(Program::parameters).collect();
    let mut parameters = BTreeMap::new();
    for (name, node) in &written.0 {
        let text = match &node.value {
            Content::Text(text) => text.clone(),
            Content::Boolean(_) | Content::Number(_) => node.value.json().to_string(),
            other => {
                let message = format!("the parameter `{}` expects `true`, `false`, a number or a text, found {}", name.value, other.shown());
                found.push(Diagnostic::error(message).at(node::at(source, node)));
                continue;
            }
        };
        match known.iter().find(|parameter| *parameter.name == name.value) {
            None => found.push(compile::unknown_parameter(&name.value, known.iter().map(|parameter| &*parameter.name)).at(locate(source, name))),
            Some(parameter) if given::value(&text, &parameter.ty).is_none() => found.push(compile::no_value(&name.value, &text, &parameter.ty).at(node::at(source, node))),
            Some(_) => drop(parameters.insert(name.value.clone(), text)),
        }
    }
    parameters
}

/// What is said of a name that a measure does not have.
fn unknown<'n>(what: &str, name: &Text, source: &Arc<SourceFile>, known: impl Iterator<Item = &'n str>) -> Diagnostic {
    let known: Vec<&str> = known.collect();
    let finding = Diagnostic::error(format!("the measure has no {what} `{}`", name.value)).at(locate(source, name));
    match crate::diagnostic::nearest(&name.value, known.iter().copied()) {
        Some(near) => finding.help(format!("did you mean `{near}`?")),
        None if known.is_empty() => finding.help("it has none"),
        None => finding.help(format!("it has {}", known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))),
    }
}

fn expectation(source: &Arc<SourceFile>, measure: &Measure, text: &ExpectText, found: &mut Vec<Diagnostic>) -> Option<Expectation> {
    let period = Period::parse(&text.period.value)
        .map_err(|reason| found.push(Diagnostic::error(reason).at(locate(source, &text.period))))
        .ok();
    let ids = || measure.groups.iter().map(|group| group.id.value.as_str());
    let group = match &text.group {
        Some(wanted) => ids().position(|id| id == wanted.value).or_else(|| {
            found.push(unknown("group", wanted, source, ids()));
            None
        })?,
        None if measure.groups.len() > 1 => {
            let names: Vec<String> = ids().map(|id| format!("`{id}`")).collect();
            found.push(
                Diagnostic::error("the measure has several groups, and `group` does not say which")
                    .at(locate(source, &text.period))
                    .help(format!("add `group`: one of {}", names.join(", "))),
            );
            return None;
        }
        None => 0,
    };
    let known = measure.groups.get(group)?;
    let mut populations = BTreeMap::new();
    for (id, expected) in &text.populations.0 {
        let ids = || known.populations.iter().map(|population| population.id());
        if !ids().any(|known| known == id.value) {
            let by_code = known.populations.iter().find(|population| population.code.code() == id.value);
            let finding = unknown("population", id, source, ids());
            found.push(match by_code {
                Some(population) => finding.help(format!("did you mean `{}`? that is the `id` of `{}`", population.id(), id.value)),
                None => finding,
            });
        }
        let is_observed = known.populations.iter().any(|population| population.id() == id.value && population.aggregate.is_some());
        let pair = match &expected.value {
            Expected::Count(count) => (Decimal::from(*count), 0),
            Expected::Amount(amount) if is_observed => (amount.to_string().parse().unwrap_or_default(), 0),
            Expected::Amount(amount) => {
                let message = format!("expected a count that is not negative, `{{count: …, cannot-tell: …}}` or `cannot tell`, found `{amount}`");
                found.push(Diagnostic::error(message).at(yaml::place(source, expected, amount.to_string().len())));
                continue;
            }
            Expected::Both { count, cannot_tell } => (Decimal::from(*count), *cannot_tell),
            Expected::Words(words) if words == "cannot tell" => (Decimal::ZERO, 1),
            Expected::Words(words) => {
                let place = yaml::place(source, expected, words.len());
                found.push(Diagnostic::error(format!("`{words}` is no expectation: expected a count or `cannot tell`")).at(place));
                continue;
            }
        };
        populations.insert(id.value.clone(), pair);
    }
    for (id, _) in &text.strata.0 {
        let ids = || known.stratifiers.iter().map(|stratifier| stratifier.id.value.as_str());
        if !ids().any(|known| known == id.value) {
            found.push(unknown("stratifier", id, source, ids()));
        }
    }
    let strata = text.strata.0.iter().map(|(id, strata)| (id.value.clone(), strata.iter().cloned().collect())).collect();
    let score = text.score.and_then(|score| score.to_string().parse().ok());
    Some(Expectation { period: period?, group, populations, score, strata })
}

/// The resources as JSON lines, ids and the patient's reference filled in.
fn lines(source: &Arc<SourceFile>, resources: &[Node], found: &mut Vec<Diagnostic>) -> Vec<Vec<u8>> {
    let models = Models::default();
    let patient = resources
        .iter()
        .find(|node| node.value.text_of("resourceType") == Some("Patient"))
        .and_then(|node| node.value.text_of("id"));
    let patient = patient.unwrap_or(PATIENT_ID);
    let id = |number: usize, node: &Node| match (node.value.text_of("id"), node.value.text_of("resourceType")) {
        (Some(id), _) => id.to_owned(),
        (None, Some("Patient")) => patient.to_owned(),
        (None, _) => format!("r{number}"),
    };
    let named = (1..)
        .zip(resources)
        .map(|(number, node)| (node.value.text_of("resourceType").unwrap_or_default().to_owned(), id(number, node)));
    let mut known: Vec<(String, String)> = named.collect();
    known.push(("Patient".to_owned(), patient.to_owned()));
    let mut check = resource::Check::new(source, &models, known);
    let mut seen: BTreeMap<(String, String), Location> = BTreeMap::new();
    let mut lines = Vec::new();
    for (number, node) in (1..).zip(resources) {
        let Some(resource_type) = check.resource(node) else { continue };
        let place = node.value.field("id").map_or_else(|| node::at(source, node), |id| node::at(source, id));
        if let Some(first) = seen.insert((resource_type.clone(), id(number, node)), place.clone()) {
            let message = format!("two resources are `{resource_type}/{}`", id(number, node));
            check
                .found
                .push(Diagnostic::error(message).at(place).label(first, "the first one").help("give each an `id` of its own"));
        }
        let mut json = node.value.json();
        if let Some(object) = json.as_object_mut() {
            object.entry("id").or_insert_with(|| id(number, node).into());
            if let (false, Some((name, is_list))) = (resource::names_patient(&node.value), resource::patient_element(&models, &resource_type)) {
                let reference = serde_json::json!({ "reference": format!("Patient/{patient}") });
                object.insert(name.into(), if is_list { Json::Array(vec![reference]) } else { reference });
            }
        }
        lines.push(json.to_string().into_bytes());
    }
    found.append(&mut check.found);
    lines
}

/// Which definitions of the measure's library the cases have seen both ways.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    seen: BTreeMap<String, (bool, bool)>,
    /// By group and stratifier: the strata in which anybody was.
    strata: BTreeMap<(usize, usize), BTreeSet<String>>,
    /// What every clause came to.
    pub clauses: Observed,
}

impl Coverage {
    /// Definitions that were never true (or never had a member), and those that were never false (or empty).
    pub fn gaps(&self) -> (Vec<&str>, Vec<&str>) {
        let never = |pick: fn(&(bool, bool)) -> bool| self.seen.iter().filter(|(_, seen)| !pick(seen)).map(|(name, _)| name.as_str()).collect();
        (never(|seen| seen.0), never(|seen| seen.1))
    }

    /// The strata of the cases that `strata` of a stratifier names otherwise, each where the stratifier stands.
    pub fn misnamed(&self, measure: &Measure, definition: &Arc<SourceFile>) -> Vec<Diagnostic> {
        let finding = |(place, given): (&(usize, usize), &BTreeSet<String>)| {
            let stratifier = measure.groups.get(place.0)?.stratifiers.get(place.1)?;
            let (strangers, absent) = stratifier.misnamed(given)?;
            let message = format!("stratifier `{}` gives `{}`, which its `strata` do not name, and never `{absent}`, which they name", stratifier.id.value, strangers.join("`, `"));
            Some(Diagnostic::warning(message).at(locate(definition, &stratifier.id)).help("let `strata` and the CQL say the same"))
        };
        self.strata.iter().filter_map(finding).collect()
    }

    /// How many of the two ways of each definition were seen, and of how many.
    pub fn reached(&self) -> (usize, usize) {
        let reached = self.seen.values().map(|seen| usize::from(seen.0) + usize::from(seen.1)).sum();
        (reached, self.seen.len() * 2)
    }
}

/// Runs a case. An error of evaluation is a mismatch of the whole period.
pub fn run(case: &Case, measure: &Measure, setting: &Setting, coverage: &mut Coverage) -> Vec<Mismatch> {
    let mut setting = setting.clone();
    if let Some(zone) = case.zone.as_deref().and_then(|zone| jiff::tz::TimeZone::get(zone).ok()) {
        setting.zone = zone;
    }
    let (record, bad) = Record::read(&measure.shape(), case.lines.iter().map(Vec::as_slice));
    let periods: Vec<Period> = case.expectations.iter().map(|one| one.period).collect();
    let run = measure.over(&periods, &setting);
    let mut mismatches = Vec::new();
    if let (Some(first), Some(period)) = (bad.first(), periods.first()) {
        let found = format!("resource {}: {}", first.index + 1, first.reason);
        mismatches.push(Mismatch { period: *period, what: "resources".into(), expected: "readable".into(), found });
    }
    for (index, (expectation, result)) in case.expectations.iter().zip(run.evaluate(&record)).enumerate() {
        match result {
            Ok(result) => {
                compare(expectation, &result, measure, &mut mismatches);
                for (group, found) in result.groups.iter().enumerate() {
                    let each = (0..found.strata.len()).map(|place| ((group, place), strata_of(found, place)));
                    each.for_each(|(key, strata)| coverage.strata.entry(key).or_default().extend(strata));
                }
            }
            Err(error) => mismatches.push(Mismatch {
                period: expectation.period,
                what: error.within.last().cloned().unwrap_or_else(|| "evaluation".into()),
                expected: "a result".into(),
                found: error.to_string(),
            }),
        }
        if let Some(observed) = run.observe(&record, index) {
            coverage.clauses.merge(&observed);
        }
        if let Some(mut session) = run.session(&record, index) {
            for (define, name) in branching(measure) {
                let seen = coverage.seen.entry(name).or_default();
                match session.evaluate(define) {
                    Ok(Value::Boolean(true)) => seen.0 = true,
                    Ok(Value::List(items)) if !items.is_empty() => seen.0 = true,
                    Ok(Value::Boolean(false) | Value::List(_)) => seen.1 = true,
                    _ => {}
                }
            }
        }
    }
    mismatches
}

/// The definitions of the measure's own library that decide something: Boolean, or a list.
fn branching(measure: &Measure) -> Vec<(DefineId, String)> {
    let program = measure.program();
    let root = program.roots().first().and_then(|id| program.tree().libraries.get(id.index()));
    let Some(root) = root else { return Vec::new() };
    let defines = program.defines(&root.name).into_iter();
    let decides = |define: &DefineId| matches!(program.define_type(*define), Type::Boolean | Type::List(_));
    defines
        .filter(|(define, name)| decides(define) && *name != "Days Of Period")
        .map(|(define, name)| (define, name.to_owned()))
        .collect()
}

fn compare(expectation: &Expectation, result: &PatientResult, measure: &Measure, mismatches: &mut Vec<Mismatch>) {
    let (Some(group), Some(found)) = (measure.groups.get(expectation.group), result.groups.get(expectation.group)) else { return };
    let mut push = |what: &str, expected: String, found: String| {
        if expected != found {
            mismatches.push(Mismatch { period: expectation.period, what: what.to_owned(), expected, found });
        }
    };
    for (index, population) in group.populations.iter().enumerate() {
        let expected = expectation.populations.get(population.id()).copied();
        // What a linear composite observes of a patient is the patient's score.
        if expected.is_none() && population.aggregate.is_some() && group.composite.is_some() {
            continue;
        }
        let (count, unknown) = expected.unwrap_or_default();
        let none = Membership::default();
        let membership = found.memberships.get(index).unwrap_or(&none);
        let count_found = match population.aggregate {
            Some(method) => {
                let mut observations = Observations::default();
                membership.observed.values().for_each(|amount| observations.add(amount));
                let found = observations.aggregate(method).unwrap_or_default();
                if count.fract().is_zero() { found.normalize().to_string() } else { rounded(found, count) }
            }
            None => membership.members.len().to_string(),
        };
        push(population.id(), words(&count.normalize().to_string(), unknown), words(&count_found, membership.unknown.len() as u64));
    }
    if let Some(expected) = expectation.score {
        let mut tallies = Tallies::new(found.memberships.len());
        tallies.add(&found.memberships, None);
        let score = population::score(&group.shape(measure.definition.scoring), &tallies).value;
        let found = score.map_or_else(|| "none".to_owned(), |score| rounded(score, expected));
        push("score", expected.normalize().to_string(), found);
    }
    for (id, expected) in &expectation.strata {
        let place = group.stratifiers.iter().position(|stratifier| stratifier.id.value == *id);
        let strata = place.map(|place| strata_of(found, place)).unwrap_or_default();
        let join = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
        push(id, join(expected), join(&strata));
    }
}

/// What was found, to as many digits as the case has.
fn rounded(found: Decimal, expected: Decimal) -> String {
    found.round_dp_with_strategy(expected.scale(), RoundingStrategy::MidpointAwayFromZero).normalize().to_string()
}

fn strata_of(found: &GroupResult, place: usize) -> BTreeSet<String> {
    found.strata().nth(place).into_iter().flatten().map(|(name, _)| name_of(name)).collect()
}

/// `2`, `cannot tell`, or `2 and 1 cannot tell`.
fn words(count: &str, unknown: u64) -> String {
    match (count, unknown) {
        (count, 0) => count.to_owned(),
        ("0", 1) => "cannot tell".to_owned(),
        (count, unknown) => format!("{count} and {unknown} cannot tell"),
    }
}
