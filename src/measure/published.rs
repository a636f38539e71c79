//! Measures as they are published: FHIR Measure, Library and ValueSet resources, alone or in Bundles.
//!
//! The Measure becomes the same [`Definition`] that `measure.yaml` gives. Extensions are those of the Quality Measure
//! guide (cqfmeasures): scoring, population basis and improvement of a group, aggregate method and criteria reference of
//! an observation; on the Measure itself where a group has none.

use std::sync::Arc;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::compile::Files;
use super::definition::{Definition, Group, Improvement, Interval, Plausibility, Population, Status, Stratifier, StratifierKind, Supplement, unwritten};
use super::population::{Aggregate, PopulationCode, Scoring};
use crate::diagnostic::{Diagnostic, Location, SourceFile, Span, nearest};

const MEASURES: &str = "http://hl7.org/fhir/us/cqfmeasures/StructureDefinition";
/// Content type of CQL text and of ELM in a Library.
const CQL: &str = "text/cql";
const ELM: &str = "application/elm+json";
/// Stands in the name of a text between its file and the resource that it is of.
pub const PART: &str = "#ValueSet/";
/// Most resources of one Bundle.
const ENTRIES_MAX: usize = 100_000;

/// What published resources hold together.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// One per Measure, in the order of the sources.
    pub measures: Vec<Files>,
    /// ValueSet resources.
    pub value_sets: Vec<Arc<SourceFile>>,
}

/// A Library with its content.
#[derive(Clone, Debug)]
struct Library {
    url: String,
    name: String,
    version: String,
    cql: Option<Arc<SourceFile>>,
    elm: Option<Arc<SourceFile>>,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "resourceType", default)]
    resource_type: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow, default)]
    entry: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
}

/// Whether a definition is a FHIR Measure rather than a `measure.yaml`.
pub fn is_published(source: &SourceFile) -> bool {
    source.text.trim_start_matches('\u{feff}').trim_start().starts_with('{')
}

/// Sorts published resources: each Measure with its libraries, all value sets. Resources of other types are left.
pub fn collect(sources: &[Arc<SourceFile>]) -> (Published, Vec<Diagnostic>) {
    let mut found = Vec::new();
    let mut measures = Vec::new();
    let mut libraries = Vec::new();
    let mut value_sets = Vec::new();
    for source in sources {
        let Some(head) = head(source, &source.text, &mut found) else { continue };
        let texts: Vec<&str> = match head.resource_type.as_str() {
            "Bundle" => head.entry.iter().filter_map(|entry| entry.resource).map(RawValue::get).take(ENTRIES_MAX).collect(),
            _ => vec![&source.text],
        };
        let alone = texts.len() == 1;
        for text in texts {
            let Some(inner) = head_of(text) else { continue };
            let own = |id: &Option<String>| format!("{}#{}/{}", source.name, inner.resource_type, id.as_deref().unwrap_or("?"));
            let part = || if alone && text.len() == source.text.len() { source.clone() } else { SourceFile::new(own(&inner.id), text) };
            match inner.resource_type.as_str() {
                "Measure" => measures.push(part()),
                "ValueSet" => value_sets.push(part()),
                "Library" => libraries.extend(library(&part(), &mut found)),
                _ => {}
            }
        }
    }
    let measures = measures.iter().filter_map(|measure| files(measure, &libraries, &mut found)).collect();
    (Published { measures, value_sets }, found)
}

fn head_of(text: &str) -> Option<Head<'_>> {
    serde_json::from_str(text).ok()
}

fn head<'a>(source: &Arc<SourceFile>, text: &'a str, found: &mut Vec<Diagnostic>) -> Option<Head<'a>> {
    match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(head) => Some(head),
        Err(fault) => {
            let at = source.offset(fault.line(), fault.column()) as u32;
            found.push(Diagnostic::error(format!("this is not a FHIR resource in JSON: {fault}")).at(Location::new(source, Span::new(at, at))));
            None
        }
    }
}

fn start(source: &Arc<SourceFile>) -> Location {
    Location::new(source, Span::new(0, 0))
}

fn text<'j>(json: &'j Json, name: &str) -> Option<&'j str> {
    json.get(name).and_then(Json::as_str)
}

fn list<'j>(json: &'j Json, name: &str) -> impl Iterator<Item = &'j Json> {
    json.get(name).and_then(Json::as_array).into_iter().flatten()
}

/// A Library's content, decoded; a Library without any (an asset collection) holds no logic and is left.
fn library(source: &Arc<SourceFile>, found: &mut Vec<Diagnostic>) -> Option<Library> {
    let json: Json = serde_json::from_str(&source.text).ok()?;
    let name = text(&json, "name").or(text(&json, "id")).unwrap_or_default().to_owned();
    let mut content = |kind: &str, end: &str| {
        let attachment = list(&json, "content").find(|content| text(content, "contentType").is_some_and(|found| found.split(';').next() == Some(kind)))?;
        let decoded = base64::engine::general_purpose::STANDARD.decode(text(attachment, "data")?.replace(['\n', '\r', ' '], ""));
        match decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(text) => Some(SourceFile::new(format!("{}.{end}", source.name), text)),
            None => {
                let message = format!("the {kind} content of Library `{name}` is not Base64 of UTF-8 text");
                found.push(Diagnostic::error(message).at(start(source)));
                None
            }
        }
    };
    let (cql, elm) = (content(CQL, "cql"), content(ELM, "elm.json"));
    let is_logic = cql.is_some() || elm.is_some();
    is_logic.then(|| Library { url: text(&json, "url").unwrap_or_default().to_owned(), version: text(&json, "version").unwrap_or_default().to_owned(), name, cql, elm })
}

/// A Measure with the library it names first, then the rest.
fn files(measure: &Arc<SourceFile>, libraries: &[Library], found: &mut Vec<Diagnostic>) -> Option<Files> {
    let json: Json = serde_json::from_str(&measure.text).ok()?;
    let Some(canonical) = list(&json, "library").find_map(Json::as_str) else {
        found.push(Diagnostic::error("the Measure names no `library`").at(start(measure)));
        return None;
    };
    let (url, version) = canonical.split_once('|').unwrap_or((canonical, ""));
    let named = |library: &&Library| library.url == url || (!library.name.is_empty() && url.rsplit('/').next() == Some(&library.name));
    let root = libraries
        .iter()
        .filter(named)
        .filter(|library| version.is_empty() || library.version == version)
        .max_by_key(|library| (library.url == url, &library.version));
    let Some(root) = root.or_else(|| libraries.iter().find(named)) else {
        let near = nearest(url, libraries.iter().map(|library| library.url.as_str())).map(|near| format!("did you mean `{near}`?"));
        let help = near.unwrap_or_else(|| "give the Library resources too, in the Bundle or beside the Measure".to_owned());
        found.push(Diagnostic::error(format!("there is no Library `{canonical}`, which the Measure names")).at(start(measure)).help(help));
        return None;
    };
    let others = || libraries.iter().filter(|library| !std::ptr::eq(*library, root));
    Some(Files {
        definition: measure.clone(),
        cql: root.cql.iter().cloned().collect(),
        libraries: others().filter_map(|library| library.cql.clone()).collect(),
        elm: std::iter::once(root).chain(others()).filter_map(|library| library.elm.clone()).collect(),
    })
}

/// Reads a FHIR Measure; `None` when it cannot be used.
pub fn definition(source: &Arc<SourceFile>) -> (Option<Definition>, Vec<Diagnostic>) {
    let json: Json = match serde_json::from_str(source.text.trim_start_matches('\u{feff}')) {
        Ok(json) => json,
        Err(fault) => return (None, vec![Diagnostic::error(format!("this is not JSON: {fault}")).at(start(source))]),
    };
    let mut reader = Reader { source, found: Vec::new() };
    let definition = reader.measure(&json);
    let usable = !crate::diagnostic::has_errors(&reader.found);
    (definition.filter(|_| usable), reader.found)
}

struct Reader<'a> {
    source: &'a Arc<SourceFile>,
    found: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn error(&mut self, message: impl Into<String>) {
        self.found.push(Diagnostic::error(message).at(start(self.source)));
    }

    fn measure(&mut self, json: &Json) -> Option<Definition> {
        let id = text(json, "id").or(text(json, "name")).unwrap_or("measure");
        let own = scoring_code(json);
        let groups: Vec<Group> = list(json, "group").enumerate().filter_map(|(index, group)| self.group(json, group, index)).collect();
        if groups.is_empty() {
            self.error("the Measure has no `group`: nothing would be counted");
        }
        let scoring = match own.or_else(|| list(json, "group").find_map(scoring_code)) {
            Some(code) => self.scoring(code)?,
            None => {
                self.error("neither the Measure nor a group of it has a `scoring`");
                return None;
            }
        };
        let improvement = improvement(json).or_else(|| list(json, "group").find_map(improvement)).unwrap_or(Improvement::Increase);
        Some(Definition {
            id: unwritten(id),
            url: unwritten(text(json, "url").unwrap_or(id)),
            version: unwritten(text(json, "version").unwrap_or("0.0.0")),
            status: match text(json, "status") {
                Some("active") => Status::Active,
                Some("retired") => Status::Retired,
                _ => Status::Draft,
            },
            title: text(json, "title").or(text(json, "name")).unwrap_or(id).to_owned(),
            description: text(json, "description").unwrap_or_default().to_owned(),
            steward: text(json, "publisher").unwrap_or_default().to_owned(),
            sources: Vec::new(),
            scoring,
            basis: unwritten(&basis(json).unwrap_or_else(|| super::definition::PATIENT.to_owned())),
            improvement,
            period: Interval::Year,
            library: None,
            rate: None,
            parameters: Default::default(),
            populations: Vec::new(),
            stratifiers: Vec::new(),
            groups,
            supplemental_data: list(json, "supplementalData").enumerate().filter_map(supplement).collect(),
            plausibility: Plausibility::default(),
            chart: None,
        })
    }

    fn scoring(&mut self, code: &str) -> Option<Scoring> {
        match code {
            "proportion" => Some(Scoring::Proportion),
            "ratio" => Some(Scoring::Ratio),
            "continuous-variable" => Some(Scoring::ContinuousVariable),
            "cohort" => Some(Scoring::Cohort),
            other => {
                self.error(format!("scoring `{other}` is not known; expected proportion, ratio, continuous-variable or cohort"));
                None
            }
        }
    }

    fn group(&mut self, measure: &Json, json: &Json, index: usize) -> Option<Group> {
        let scoring = scoring_code(json).or_else(|| scoring_code(measure)).and_then(|code| self.scoring(code));
        let id = text(json, "id").map_or_else(|| format!("group-{}", index + 1), str::to_owned);
        let mut populations: Vec<Population> = list(json, "population").filter_map(|population| self.population(population)).collect();
        link(&mut populations);
        let stratifiers = list(json, "stratifier").enumerate().filter_map(|(index, json)| self.stratifier(&id, index, json)).collect();
        Some(Group {
            text: json.get("code").and_then(|code| text(code, "text")).or(text(json, "description")).map(str::to_owned),
            id: unwritten(&id),
            scoring,
            basis: basis(json).or_else(|| basis(measure)).map(|basis| unwritten(&basis)),
            populations,
            stratifiers,
        })
    }

    fn population(&mut self, json: &Json) -> Option<Population> {
        let code = json.get("code").and_then(coding).unwrap_or_default();
        let Some(code) = PopulationCode::of(code) else {
            self.error(format!("a population has the code `{code}`, which the Quality Measure guide does not know"));
            return None;
        };
        let Some(define) = json.get("criteria").and_then(|criteria| text(criteria, "expression")) else {
            self.error(format!("population `{}` has no `criteria.expression`", code.code()));
            return None;
        };
        let aggregate = extension(json, "cqfm-aggregateMethod").and_then(|extension| text(extension, "valueCode").or(text(extension, "valueString")));
        let aggregate = match aggregate.map(|method| (method, Aggregate::of(method))) {
            Some((method, None)) => {
                self.error(format!("aggregate method `{method}` is not known; expected sum, count, average, median, minimum or maximum"));
                None
            }
            other => other.and_then(|(_, method)| method),
        };
        let observation = code == PopulationCode::MeasureObservation;
        Some(Population {
            code,
            id: text(json, "id").map(unwritten),
            define: unwritten(define),
            text: text(json, "description").map(str::to_owned),
            of: extension(json, "cqfm-criteriaReference").and_then(|extension| text(extension, "valueString")).map(unwritten),
            aggregate: aggregate.or(observation.then_some(Aggregate::Sum)),
            cannot_tell: Vec::new(),
        })
    }

    /// A stratifier without an expression divides nothing: said, and left out.
    fn stratifier(&mut self, group: &str, index: usize, json: &Json) -> Option<Stratifier> {
        let expression = |json: &Json| json.get("criteria").and_then(|criteria| text(criteria, "expression")).map(unwritten);
        let define = expression(json);
        let components: Vec<_> = list(json, "component")
            .enumerate()
            .filter_map(|(index, json)| {
                let id = text(json, "id").map_or_else(|| format!("component-{}", index + 1), str::to_owned);
                Some(super::definition::Component { id: unwritten(&id), define: expression(json)? })
            })
            .collect();
        let id = text(json, "id").map_or_else(|| format!("stratifier-{}", index + 1), str::to_owned);
        if define.is_none() && components.is_empty() {
            let message = format!("stratifier `{id}` of group `{group}` has no `criteria.expression`; it is left out");
            self.found.push(Diagnostic::warning(message).at(start(self.source)));
            return None;
        }
        Some(Stratifier {
            id: unwritten(&id),
            text: text(json, "description").map(str::to_owned),
            define,
            kind: StratifierKind::ByType,
            components,
            policy: None,
            strata: Default::default(),
        })
    }
}

fn supplement((index, json): (usize, &Json)) -> Option<Supplement> {
    let define = json.get("criteria").and_then(|criteria| text(criteria, "expression"))?;
    let id = text(json, "id").map_or_else(|| format!("supplement-{}", index + 1), str::to_owned);
    Some(Supplement { id: unwritten(&id), define: unwritten(define), text: text(json, "description").map(str::to_owned) })
}

/// Populations refer to each other by id; where there is only one possible target, a missing reference means it.
fn link(populations: &mut [Population]) {
    let ids: Vec<(PopulationCode, String)> = populations.iter().map(|population| (population.code, population.id().to_owned())).collect();
    let of = |code: PopulationCode| ids.iter().find(|(own, _)| *own == code).map(|(_, id)| id.clone());
    for population in populations.iter_mut() {
        let known = population.of.as_ref().is_some_and(|of| ids.iter().any(|(_, id)| *id == of.value));
        if known {
            continue;
        }
        population.of = match population.code {
            PopulationCode::MeasureObservation => of(PopulationCode::MeasurePopulation).or_else(|| of(PopulationCode::Numerator)),
            _ => None,
        }
        .map(|id| unwritten(&id));
    }
}

fn extension<'j>(json: &'j Json, name: &str) -> Option<&'j Json> {
    list(json, "extension").find(|extension| text(extension, "url").is_some_and(|url| url.strip_prefix(MEASURES).and_then(|rest| rest.strip_prefix('/')) == Some(name)))
}

fn coding(concept: &Json) -> Option<&str> {
    list(concept, "coding").find_map(|coding| text(coding, "code"))
}

fn scoring_code(json: &Json) -> Option<&str> {
    let own = json.get("scoring").and_then(coding);
    own.or_else(|| extension(json, "cqfm-scoring").and_then(|extension| extension.get("valueCodeableConcept")).and_then(coding))
}

fn basis(json: &Json) -> Option<String> {
    let code = text(extension(json, "cqfm-populationBasis")?, "valueCode")?;
    Some(if code == "boolean" { super::definition::PATIENT } else { code }.to_owned())
}

fn improvement(json: &Json) -> Option<Improvement> {
    let own = json.get("improvementNotation").and_then(coding);
    let code = own.or_else(|| extension(json, "cqfm-improvementNotation").and_then(|extension| extension.get("valueCodeableConcept")).and_then(coding))?;
    Some(if code == "decrease" { Improvement::Decrease } else { Improvement::Increase })
}
