//! Measures as they are published: FHIR Measure, Library and ValueSet resources, alone or in Bundles.
//!
//! The Measure becomes the same [`Definition`] that `measure.yaml` gives. Extensions are those of the Quality Measure
//! guide (cqfmeasures): scoring, population basis and improvement of a group, aggregate method and criteria reference of
//! an observation, component and composite scoring of a composite group, group and weight of a component; on the Measure
//! itself where a group has none. A composite Measure without a composite group is one. Its `effectivePeriod` says how long its reporting
//! periods are. A Library may be one that the Measure contains, and criteria may be expressions of CQL in the place of names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use jiff::civil::Date;
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::compile::Files;
use super::composite::CompositeScoring;
use super::definition::parts::{Form, check_group};
use super::definition::{ComponentMeasure, Definition, Group, Improvement, Interval, Plausibility, Population, Status, Stratifier, StratifierKind, Supplement, Text, unwritten};
use super::population::{Aggregate, PopulationCode, Scoring};
use crate::diagnostic::{Diagnostic, Location, Severity, SourceFile, Span, nearest};
use crate::terminology::by_version;

const MEASURES: &str = "http://hl7.org/fhir/us/cqfmeasures/StructureDefinition/";
/// HL7's own extensions, among which some of the guide's are too, as `cqf-…`.
const CORE: &str = "http://hl7.org/fhir/StructureDefinition/cqf-";
/// What decides of a number: under another address it would be lost without a word.
const DECISIVE: [&str; 6] = ["scoring", "populationBasis", "criteriaReference", "aggregateMethod", "component", "compositeScoring"];
/// Content type of CQL text and of ELM in a Library.
const CQL: &str = "text/cql";
const ELM: &str = "application/elm+json";
/// Code of the scoring of a composite.
const COMPOSITE: &str = "composite";
/// How `language` calls criteria: the name of a definition; CQL itself; and, as FHIR R4 has it, either.
const NAMES: [&str; 4] = ["text/cql-identifier", "text/cql.identifier", "text/cql-name", "text/cql.name"];
const EXPRESSIONS: [&str; 2] = ["text/cql-expression", "text/cql.expression"];
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

/// A Library with its content, as far as it is here.
#[derive(Clone, Debug)]
struct Library {
    url: String,
    name: String,
    version: String,
    cql: Option<Arc<SourceFile>>,
    elm: Option<Arc<SourceFile>>,
}

impl Library {
    fn has_logic(&self) -> bool {
        self.cql.is_some() || self.elm.is_some()
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "resourceType", default)]
    resource_type: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    url: Option<String>,
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
        // A resource in a Bundle needs no `id`, and two may have the same: each has a name of its own nevertheless.
        let mut named = BTreeSet::new();
        for (place, text) in texts.into_iter().enumerate() {
            let Some(inner) = head_of(text) else { continue };
            let names = [inner.id.clone(), inner.url.clone(), Some(format!("entry {}", place + 1))];
            let mut names = names.into_iter().flatten().map(|name| format!("{}#{}/{name}", source.name, inner.resource_type));
            let own = names.find(|name| named.insert(name.clone())).unwrap_or_default();
            let part = || if alone && text.len() == source.text.len() { source.clone() } else { SourceFile::new(&*own, text) };
            match inner.resource_type.as_str() {
                "Measure" => measures.push(part()),
                "ValueSet" => value_sets.push(part()),
                "Library" => libraries.extend(library(&part(), &mut found)),
                _ => {}
            }
        }
    }
    found.extend(contradictions(&libraries));
    let measures = measures.iter().filter_map(|measure| files(measure, &libraries, &mut found)).collect();
    (Published { measures, value_sets }, found)
}

/// Libraries of one url and version with other logic each: which of them is meant, nothing says. Layout is no logic.
fn contradictions<'a>(libraries: &'a [Library]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (index, library) in libraries.iter().enumerate().filter(|(_, library)| !library.url.is_empty()) {
        let namesake = |other: &&Library| (&other.url, &other.version) == (&library.url, &library.version);
        let both = |other: &'a Library| library.cql.as_ref().zip(other.cql.as_ref()).or_else(|| library.elm.as_ref().zip(other.elm.as_ref()));
        let differ = |(own, other): &(&Arc<SourceFile>, &Arc<SourceFile>)| !own.text.split_whitespace().eq(other.text.split_whitespace());
        let Some((own, first)) = libraries.iter().take(index).filter(namesake).filter_map(both).find(differ) else { continue };
        let message = format!("Library `{}|{}` is here twice with different logic", library.url, library.version);
        let finding = Diagnostic::error(message).at(start(own)).label(start(first), "the other one");
        found.push(finding.help("take one of them away, or give them the versions that they are"));
    }
    found
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

/// A Library's content, decoded; a Library without any (an asset collection) holds no logic.
fn library(source: &Arc<SourceFile>, found: &mut Vec<Diagnostic>) -> Option<Library> {
    let json: Json = serde_json::from_str(&source.text).ok()?;
    let name = text(&json, "name").or(text(&json, "id")).unwrap_or_default().to_owned();
    let mut content = |kind: &str, end: &str| {
        let attachment = list(&json, "content").find(|content| text(content, "contentType").is_some_and(|found| found.split(';').next() == Some(kind)))?;
        let Some(data) = text(attachment, "data") else {
            found.extend(text(attachment, "url").map(|url| elsewhere(source, kind, &name, url)));
            return None;
        };
        let decoded = base64::engine::general_purpose::STANDARD.decode(data.replace(['\n', '\r', ' '], ""));
        match decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
            Some(text) => Some(SourceFile::new(format!("{}.{end}", source.name), text)),
            None => {
                let message = format!("the {kind} content of Library `{name}` is not Base64 of UTF-8 text");
                found.push(Diagnostic::error(message).at(start(source).first(data)).help("write the text into `content.data` again, as Base64"));
                None
            }
        }
    };
    let (cql, elm) = (content(CQL, "cql"), content(ELM, "elm.json"));
    Some(Library { url: text(&json, "url").unwrap_or_default().to_owned(), version: text(&json, "version").unwrap_or_default().to_owned(), name, cql, elm })
}

/// That the content of a Library is somewhere else: no address is followed from here.
fn elsewhere(source: &Arc<SourceFile>, kind: &str, name: &str, url: &str) -> Diagnostic {
    let message = format!("the {kind} content of Library `{name}` is not here: it has only `content.url`, which is not followed");
    Diagnostic::warning(message)
        .at(start(source).first(url))
        .help("fetch what is there and write it into `content.data`, as Base64")
}

/// A Measure with the library it names first, then the rest.
fn files(measure: &Arc<SourceFile>, libraries: &[Library], found: &mut Vec<Diagnostic>) -> Option<Files> {
    let json: Json = serde_json::from_str(&measure.text).ok()?;
    let canonical = list(&json, "library").find_map(Json::as_str);
    if canonical.is_none() && is_bare_composite(&json) {
        return Some(Files { definition: measure.clone(), cql: Vec::new(), libraries: Vec::new(), elm: Vec::new() });
    }
    let Some(canonical) = canonical else {
        found.push(Diagnostic::error("the Measure names no `library`").at(start(measure)));
        return None;
    };
    if let Some(id) = canonical.strip_prefix('#') {
        let contained = contained(measure, &json, found);
        let Some((_, root)) = contained.iter().find(|(own, _)| own == id) else {
            let finding = Diagnostic::error(format!("the Measure names `{canonical}`, and contains no Library of that id")).at(start(measure).first(canonical));
            found.push(finding.help("`contained` needs a Library with this `id`, or `library` the canonical URL of one"));
            return None;
        };
        return together(measure, root, canonical, contained.iter().map(|(_, library)| library).chain(libraries), found);
    }
    let (url, version) = canonical.split_once('|').unwrap_or((canonical, ""));
    let named = |library: &&Library| library.url == url || (!library.name.is_empty() && url.rsplit('/').next() == Some(&library.name));
    let root = libraries.iter().filter(named).filter(|library| version.is_empty() || library.version == version).max_by(|one, next| {
        let rank = |library: &Library| (library.url == url, library.has_logic());
        rank(one).cmp(&rank(next)).then_with(|| by_version(Some(&one.version), Some(&next.version)))
    });
    let Some(root) = root else {
        // A canonical with a version means that version and no other (R4, "Canonical URLs"), as an include of CQL does; other
        // engines refuse it too. What is published leaves the version out where any will do.
        let versions: Vec<&str> = libraries.iter().filter(named).map(|library| library.version.as_str()).collect();
        if !versions.is_empty() {
            let message = format!("there is no Library `{url}` of version `{version}`, which the Measure names");
            let help = format!("it is here in version {}: give the one that is named, or let the Measure name this one", versions.join(", "));
            found.push(Diagnostic::error(message).at(start(measure).first(canonical)).help(help));
            return None;
        }
        let near = nearest(url, libraries.iter().filter(|library| library.has_logic()).map(|library| library.url.as_str())).map(|near| format!("did you mean `{near}`?"));
        let help = near.unwrap_or_else(|| "give the Library resources too, in the Bundle or beside the Measure".to_owned());
        found.push(Diagnostic::error(format!("there is no Library `{canonical}`, which the Measure names")).at(start(measure)).help(help));
        return None;
    };
    together(measure, root, canonical, libraries.iter(), found)
}

/// The Libraries that a Measure contains, by their ids.
fn contained(measure: &SourceFile, json: &Json, found: &mut Vec<Diagnostic>) -> Vec<(String, Library)> {
    let libraries = list(json, "contained").filter(|inner| text(inner, "resourceType") == Some("Library"));
    libraries
        .filter_map(|inner| {
            let id = text(inner, "id")?;
            let source = SourceFile::new(format!("{}#{id}", measure.name), inner.to_string());
            Some((id.to_owned(), library(&source, found)?))
        })
        .collect()
}

/// A Measure, the library that it names, and all that this one may include.
fn together<'l>(measure: &Arc<SourceFile>, root: &'l Library, canonical: &str, all: impl Iterator<Item = &'l Library> + Clone, found: &mut Vec<Diagnostic>) -> Option<Files> {
    if !root.has_logic() {
        let message = format!("Library `{canonical}`, which the Measure names, holds neither CQL nor ELM that can be read");
        let help = format!("its `content` needs `contentType` {CQL} or {ELM}, and `data`: the text as Base64");
        found.push(Diagnostic::error(message).at(start(measure).first(canonical)).help(help));
        return None;
    }
    let others = || all.clone().filter(|library| !std::ptr::eq(*library, root));
    Some(Files {
        definition: measure.clone(),
        cql: root.cql.iter().cloned().collect(),
        libraries: others().filter_map(|library| library.cql.clone()).collect(),
        elm: std::iter::once(root).chain(others()).filter_map(|library| library.elm.clone()).collect(),
    })
}

/// A composite that names no expression, and so needs no library.
fn is_bare_composite(json: &Json) -> bool {
    let of_group = |name| list(json, "group").flat_map(move |group| list(group, name)).next().is_none();
    let composite = scoring_code(json).into_iter().chain(list(json, "group").filter_map(scoring_code)).any(|code| code == COMPOSITE);
    composite && of_group("population") && of_group("stratifier") && list(json, "supplementalData").next().is_none()
}

/// Reads a FHIR Measure; `None` when it cannot be used.
pub fn definition(source: &Arc<SourceFile>) -> (Option<Definition>, Vec<Diagnostic>) {
    let json: Json = match serde_json::from_str(source.text.trim_start_matches('\u{feff}')) {
        Ok(json) => json,
        Err(fault) => return (None, vec![crate::diagnostic::from_json(source, &fault)]),
    };
    let mut reader = Reader { source, place: String::new(), expressions: BTreeMap::new(), found: Vec::new() };
    let definition = reader.measure(&json);
    let usable = !crate::diagnostic::has_errors(&reader.found);
    (definition.filter(|_| usable), reader.found)
}

/// What to do where a Measure does not say how long its reporting periods are.
pub const SAY_PERIODS: &str = "say it in the site.toml: under `[measures.periods]` the measure's id and `\"year\"`, `\"quarter\"` or `\"month\"`";

/// The length of a published Measure's reporting periods: that of its `effectivePeriod`, if it has one; or why that is none.
pub fn interval(source: &SourceFile) -> Result<Option<Interval>, String> {
    serde_json::from_str(source.text.trim_start_matches('\u{feff}')).map_or(Ok(None), |json: Json| interval_of(&json))
}

fn interval_of(json: &Json) -> Result<Option<Interval>, String> {
    let Some(effective) = json.get("effectivePeriod") else { return Ok(None) };
    let [first, last] = ["start", "end"].map(|name| text(effective, name).unwrap_or_default());
    let day = |text: &str, month: &str| format!("{text}{month}").parse::<Date>().ok();
    let (start, end) = match (first.len(), last.len()) {
        (4, 4) => (day(first, "-01-01"), day(last, "-12-31")),
        (7, 7) => (day(first, "-01"), day(last, "-01").map(Date::last_of_month)),
        _ => (day(first.get(..10).unwrap_or_default(), ""), day(last.get(..10).unwrap_or_default(), "")),
    };
    let found = start.zip(end).and_then(|(start, end)| Interval::of(start, end));
    let id = text(json, "id").unwrap_or_default();
    let why = || format!("the `effectivePeriod` of measure `{id}` is {first} to {last}, no year, quarter or month of the calendar: how long its reporting periods are is not said");
    found.map(Some).ok_or_else(why)
}

struct Reader<'a> {
    source: &'a Arc<SourceFile>,
    /// The element in hand, as FHIRPath.
    place: String,
    /// As [`Definition::expressions`].
    expressions: BTreeMap<String, bool>,
    found: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn error(&mut self, message: impl Into<String>) {
        self.say(Diagnostic::error(message));
    }

    /// Where something is: a text that is quoted, if it is one of the Measure's, and the path of its element.
    fn say(&mut self, mut finding: Diagnostic) {
        let quoted = finding.message.split('`').nth(1).map(|text| format!("\"{text}\"")).unwrap_or_default();
        if !self.place.is_empty() {
            finding.message = format!("`{}`: {}", self.place, finding.message);
        }
        self.found.push(finding.at(start(self.source).first(&quoted)));
    }

    fn measure(&mut self, json: &Json) -> Option<Definition> {
        let id = text(json, "id").or(text(json, "name")).unwrap_or("measure");
        let own = scoring_code(json);
        let mut groups: Vec<Group> = list(json, "group").enumerate().filter_map(|(index, group)| self.group(json, group, index)).collect();
        if own == Some(COMPOSITE) && !groups.iter().any(|group| group.scoring == Some(Scoring::Composite)) {
            groups.extend(self.group(json, &Json::Null, groups.len()));
        }
        self.place.clear();
        let mut ids = BTreeSet::new();
        for twin in groups.iter().filter(|group| !ids.insert(group.id.value.as_str())) {
            self.found.push(
                Diagnostic::error(format!("two groups have the id `{}`: their series could not be told apart", twin.id.value))
                    .at(start(self.source).first(&format!("\"{}\"", twin.id.value)))
                    .help("give each `group.id` a text of its own"),
            );
        }
        if groups.is_empty() {
            self.error("the Measure has no `group`: nothing would be counted");
        }
        if let (None, Some(group)) = (own, groups.iter().find(|group| group.scoring.is_none()))
            && groups.iter().any(|group| group.scoring.is_some())
        {
            self.error(format!("group `{}` has no `scoring`, and the Measure has none for all", group.id.value));
        }
        let scoring = match own.or_else(|| list(json, "group").find_map(scoring_code)) {
            Some(code) => self.scoring(code)?,
            None => {
                self.error("neither the Measure nor a group of it has a `scoring`");
                return None;
            }
        };
        let improvement = improvement(json).or_else(|| list(json, "group").find_map(improvement)).unwrap_or(Improvement::NotTold);
        self.ignored(json);
        let supplemental_data = list(json, "supplementalData").enumerate().filter_map(|(index, json)| self.supplement(index, json)).collect();
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
            counted: Default::default(),
            basis: unwritten(&basis(json).unwrap_or_else(|| super::definition::PATIENT.to_owned())),
            improvement,
            period: interval_of(json).ok().flatten().unwrap_or_default(),
            library: None,
            rate: None,
            parameters: Default::default(),
            populations: Vec::new(),
            stratifiers: Vec::new(),
            composite_scoring: None,
            components: Vec::new(),
            groups,
            supplemental_data,
            plausibility: Plausibility::default(),
            chart: None,
            comparable_with: Vec::new(),
            expressions: std::mem::take(&mut self.expressions),
        })
    }

    /// What would change how a score is shown, and is not read.
    fn ignored(&mut self, json: &Json) {
        let is_there = |name: &&str| std::iter::once(json).chain(list(json, "group")).any(|of| extension(of, name).is_some());
        for name in ["cqfm-scoringUnit", "cqfm-scoringPrecision"].into_iter().filter(is_there) {
            let message = format!("`{name}` is not read: the score of a ratio is given as its numerator by its denominator");
            self.found.push(Diagnostic::warning(message).at(start(self.source).first(name)));
        }
        let notations = std::iter::once(json).chain(list(json, "group")).filter_map(notation);
        for code in notations.filter(|code| direction(code).is_none()).collect::<BTreeSet<_>>() {
            let message = format!("improvement notation `{code}` is not known, so that no direction is told; expected increase or decrease");
            self.found.push(Diagnostic::warning(message).at(start(self.source).first(&format!("\"{code}\""))));
        }
    }

    /// Says of an extension that is meant, by its name, for what is read here under another address.
    fn strangers(&mut self, json: &Json) {
        for url in list(json, "extension").filter_map(|extension| text(extension, "url")) {
            let name = DECISIVE.into_iter().find(|name| url.rsplit(['/', '-', '.']).next() == Some(name));
            if let Some(name) = name.filter(|name| !is_named(url, &format!("cqfm-{name}"))) {
                self.say(Diagnostic::error(format!("extension `{url}` is not read here; expected `{MEASURES}cqfm-{name}`")));
            }
        }
    }

    fn scoring(&mut self, code: &str) -> Option<Scoring> {
        let scoring = scoring_of(code);
        if scoring.is_none() {
            self.error(format!("scoring `{code}` is not known; expected proportion, ratio, continuous-variable, cohort or composite"));
        }
        scoring
    }

    /// How a composite group is scored, and what it is made of: as the group says, else as the Measure says.
    fn composite(&mut self, measure: &Json, json: &Json) -> (Option<CompositeScoring>, Vec<ComponentMeasure>) {
        let of_group = extension(json, "cqfm-compositeScoring").and_then(|extension| extension.get("valueCodeableConcept"));
        let code = of_group
            .or(measure.get("compositeScoring"))
            .and_then(|concept| coding(concept, |code| CompositeScoring::of(code).is_some()));
        let method = code.and_then(CompositeScoring::of);
        if let (Some(code), None) = (code, method) {
            self.error(format!("composite scoring `{code}` is not known; expected {}", CompositeScoring::ALL.map(CompositeScoring::code).join(", ")));
        }
        let mut artifacts: Vec<(&Json, &Json)> = extensions(json, "cqfm-component").filter_map(|outer| Some((outer.get("valueRelatedArtifact")?, outer))).collect();
        if artifacts.is_empty() {
            artifacts.extend(
                list(measure, "relatedArtifact")
                    .filter(|artifact| text(artifact, "type") == Some("composed-of"))
                    .map(|artifact| (artifact, &Json::Null)),
            );
        }
        let components = artifacts.into_iter().filter_map(|(artifact, outer)| self.component(artifact, outer)).collect();
        if list(json, "population").next().is_some() {
            self.error("a composite group has no populations of its own; where the Measure is a composite and the group is not, it needs a cqfm-scoring");
        }
        (method, components)
    }

    /// Group and weight stand on the RelatedArtifact, or on the extension that holds it.
    fn component(&mut self, artifact: &Json, outer: &Json) -> Option<ComponentMeasure> {
        let Some(canonical) = text(artifact, "resource") else {
            self.error("a component has no `resource`: the canonical URL of its Measure");
            return None;
        };
        let (url, version) = canonical.split_once('|').map_or((canonical, None), |(url, version)| (url, Some(version)));
        let either = |name| extension(artifact, name).or_else(|| extension(outer, name));
        let group = either("cqfm-groupId").and_then(|extension| text(extension, "valueString").or(text(extension, "valueId")));
        let weight = either("cqfm-weight").and_then(|extension| {
            let number = ["valueDecimal", "valueInteger", "valuePositiveInt", "valueUnsignedInt"]
                .iter()
                .find_map(|name| extension.get(name)?.as_f64());
            if number.is_none() {
                self.error(format!("the `cqfm-weight` of the component `{canonical}` is no number; expected `valueDecimal`"));
            }
            number
        });
        Some(ComponentMeasure { measure: unwritten(url), version: version.map(unwritten), group: group.map(unwritten), weight })
    }

    fn group(&mut self, measure: &Json, json: &Json, index: usize) -> Option<Group> {
        // A composite Measure may be without a group.
        let place = if json.is_null() { String::new() } else { format!("Measure.group[{index}]") };
        let own = scoring_code(json);
        self.place = if own.is_some() { place.clone() } else { String::new() };
        let scoring = own.or_else(|| scoring_code(measure)).and_then(|code| self.scoring(code));
        let id = text(json, "id").map_or_else(|| format!("group-{}", index + 1), str::to_owned);
        let mut populations = Vec::new();
        for (index, population) in list(json, "population").enumerate() {
            self.place = format!("{place}.population[{index}]");
            populations.extend(self.population(population));
        }
        let is_whole = populations.len() == list(json, "population").count();
        self.place = place;
        self.strangers(json);
        link(&mut populations);
        if scoring == Some(Scoring::Ratio) {
            self.sums(&mut populations);
        }
        let stratifiers = list(json, "stratifier").enumerate().filter_map(|(index, json)| self.stratifier(&id, index, json)).collect();
        let is_composite = scoring == Some(Scoring::Composite);
        let (composite_scoring, components) = if is_composite { self.composite(measure, json) } else { (None, Vec::new()) };
        let group = Group {
            text: json.get("code").and_then(|code| text(code, "text")).or(text(json, "description")).map(str::to_owned),
            id: unwritten(&id),
            scoring,
            basis: basis(json).or_else(|| basis(measure)).map(|basis| unwritten(&basis)),
            improvement: Some(improvement(json).or_else(|| improvement(measure)).unwrap_or(Improvement::NotTold)),
            populations,
            stratifiers,
            composite_scoring,
            components,
            composite: None,
        };
        if let Some(scoring) = scoring.filter(|_| is_whole && !is_composite) {
            let mut found = Vec::new();
            check_group(self.source, Form::Fhir, start(self.source), scoring, &group, &mut found);
            found.into_iter().for_each(|finding| self.say(Diagnostic { labels: Vec::new(), ..finding }));
        }
        Some(group)
    }

    /// The observations of a ratio that do not say how they become one number are added.
    fn sums(&mut self, populations: &mut [Population]) {
        for population in populations
            .iter_mut()
            .filter(|population| population.code == PopulationCode::MeasureObservation && population.aggregate.is_none())
        {
            population.aggregate = Some(Aggregate::Sum);
            let message = format!("observation `{}` has no `cqfm-aggregateMethod`: its values are added", population.id());
            self.say(Diagnostic::warning(message));
        }
    }

    /// The id of the population that another one names.
    fn reference(&mut self, json: &Json) -> Option<String> {
        let extension = extension(json, "cqfm-criteriaReference")?;
        let named = ["valueString", "valueCode", "valueId"].into_iter().find_map(|name| text(extension, name));
        if named.is_none() {
            self.error("its `cqfm-criteriaReference` names nothing; expected `valueString` with the id of a population");
        }
        named.map(str::to_owned)
    }

    fn population(&mut self, json: &Json) -> Option<Population> {
        self.strangers(json);
        let code = json.get("code").and_then(|concept| coding(concept, |code| PopulationCode::of(code).is_some())).unwrap_or_default();
        let Some(code) = PopulationCode::of(code) else {
            self.error(format!("a population has the code `{code}`, which the Quality Measure guide does not know"));
            return None;
        };
        let Some(define) = self.criteria(json, Severity::Error) else {
            self.error(format!("population `{}` has no `criteria.expression`", code.code()));
            return None;
        };
        let aggregate = extension(json, "cqfm-aggregateMethod").and_then(|extension| text(extension, "valueCode").or(text(extension, "valueString")));
        let aggregate = match aggregate.map(|method| (method, Aggregate::of(method))) {
            Some((method, None)) => {
                self.error(format!("aggregate method `{method}` is not known; expected sum, count, average, median, minimum or maximum"));
                return None;
            }
            other => other.and_then(|(_, method)| method),
        };
        let of = self.reference(json);
        Some(Population {
            code,
            id: text(json, "id").map(unwritten),
            define,
            text: text(json, "description").map(str::to_owned),
            of: of.as_deref().map(unwritten),
            aggregate,
            cannot_tell: Vec::new(),
        })
    }

    /// The name of a definition, or an expression that will have one: the text itself. What is in another language than CQL is said.
    fn criteria(&mut self, json: &Json, severity: Severity) -> Option<Text> {
        let criteria = json.get("criteria")?;
        let expression = text(criteria, "expression")?;
        match text(criteria, "language") {
            None => {}
            Some(language) if NAMES.contains(&language) => {}
            Some(CQL) => drop(self.expressions.entry(expression.to_owned()).or_insert(false)),
            Some(language) if EXPRESSIONS.contains(&language) => drop(self.expressions.insert(expression.to_owned(), true)),
            Some(language) => {
                let finding = Diagnostic::error(format!("criteria in `{language}` are not evaluated"));
                let help = format!("write them in CQL: the name of a definition as `{}`, or an expression as `{}`", NAMES[0], EXPRESSIONS[0]);
                self.say(Diagnostic { severity, ..finding.help(help) });
            }
        }
        Some(unwritten(expression))
    }

    /// A supplemental datum cannot change a population: one that cannot be read is left out.
    fn supplement(&mut self, index: usize, json: &Json) -> Option<Supplement> {
        self.place = format!("Measure.supplementalData[{index}]");
        let before = self.found.len();
        let define = self.criteria(json, Severity::Warning)?;
        let id = unwritten(text(json, "id").unwrap_or(&define.value));
        (self.found.len() == before).then(|| Supplement { id, define, text: text(json, "description").map(str::to_owned) })
    }

    /// A stratifier without an expression divides nothing: said, and left out.
    fn stratifier(&mut self, group: &str, index: usize, json: &Json) -> Option<Stratifier> {
        let define = self.criteria(json, Severity::Error);
        let components: Vec<_> = list(json, "component")
            .enumerate()
            .filter_map(|(index, json)| {
                let id = text(json, "id").map_or_else(|| format!("component-{}", index + 1), str::to_owned);
                let named = json.pointer("/code/text").and_then(Json::as_str).or_else(|| text(json, "description")).map(str::to_owned);
                Some(super::definition::Component { id: unwritten(&id), define: self.criteria(json, Severity::Error)?, text: named, strata: Default::default() })
            })
            .collect();
        let id = text(json, "id").map_or_else(|| format!("stratifier-{}", index + 1), str::to_owned);
        if define.is_none() && components.is_empty() {
            let message = format!("stratifier `{id}` of group `{group}` has no `criteria.expression`; it is left out");
            self.say(Diagnostic::warning(message));
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

/// Populations refer to each other by id. Where none has that id, a code says as much of which there is one population; the
/// observations of a continuous variable are of its measure population, whether they say so or not.
fn link(populations: &mut [Population]) {
    let ids: Vec<(PopulationCode, String)> = populations.iter().map(|population| (population.code, population.id().to_owned())).collect();
    let only = |code: PopulationCode| {
        let mut of_code = ids.iter().filter(|(own, _)| *own == code);
        of_code.next().filter(|_| of_code.next().is_none()).map(|(_, id)| unwritten(id))
    };
    for population in populations.iter_mut() {
        match &population.of {
            Some(of) if ids.iter().any(|(_, id)| *id == of.value) => {}
            Some(of) => population.of = PopulationCode::of(&of.value).and_then(only).or(population.of.take()),
            None if population.code == PopulationCode::MeasureObservation => population.of = only(PopulationCode::MeasurePopulation),
            None => {}
        }
    }
}

fn extension<'j>(json: &'j Json, name: &str) -> Option<&'j Json> {
    extensions(json, name).next()
}

fn extensions<'j>(json: &'j Json, name: &str) -> impl Iterator<Item = &'j Json> {
    list(json, "extension").filter(move |extension| text(extension, "url").is_some_and(|url| is_named(url, name)))
}

/// Whether an address is that of an extension `cqfm-…`.
fn is_named(url: &str, name: &str) -> bool {
    url.strip_prefix(MEASURES) == Some(name) || url.strip_prefix(CORE).is_some_and(|own| name.strip_prefix("cqfm-") == Some(own))
}

/// The code of a concept that is known, whatever else stands beside it; else its first.
fn coding(concept: &Json, is_known: impl Fn(&str) -> bool) -> Option<&str> {
    let codes = || list(concept, "coding").filter_map(|coding| text(coding, "code"));
    codes().find(|code| is_known(code)).or_else(|| codes().next())
}

/// The code of a concept that stands at an element of FHIR's, or in an extension.
fn concept_code<'j>(json: &'j Json, element: &str, name: &str, is_known: fn(&str) -> bool) -> Option<&'j str> {
    let own = json.get(element).and_then(|concept| coding(concept, is_known));
    own.or_else(|| extension(json, name).and_then(|extension| coding(extension.get("valueCodeableConcept")?, is_known)))
}

fn scoring_code(json: &Json) -> Option<&str> {
    concept_code(json, "scoring", "cqfm-scoring", |code| scoring_of(code).is_some())
}

fn scoring_of(code: &str) -> Option<Scoring> {
    [Scoring::Proportion, Scoring::Ratio, Scoring::ContinuousVariable, Scoring::Cohort, Scoring::Composite]
        .into_iter()
        .find(|scoring| scoring.code() == code)
}

fn basis(json: &Json) -> Option<String> {
    let code = text(extension(json, "cqfm-populationBasis")?, "valueCode")?;
    Some(if code == "boolean" { super::definition::PATIENT } else { code }.to_owned())
}

fn notation(json: &Json) -> Option<&str> {
    concept_code(json, "improvementNotation", "cqfm-improvementNotation", |code| direction(code).is_some())
}

fn direction(code: &str) -> Option<Improvement> {
    match code {
        "increase" => Some(Improvement::Increase),
        "decrease" => Some(Improvement::Decrease),
        _ => None,
    }
}

fn improvement(json: &Json) -> Option<Improvement> {
    notation(json).and_then(direction)
}
