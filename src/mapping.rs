//! Site rules that turn local codes, units and elements into standard ones; the original is kept.
//!
//! A site mapping is one YAML file. [`Mapping::parse`] checks it whole; `apply` adds standard codings beside the
//! local ones in a patient's [`Record`](crate::fhir::record::Record). A mapping never removes anything, never
//! reads outside the patient, and what it could not translate comes back as findings that name codes, not values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use crate::cql::Models;
use crate::diagnostic::{self, Diagnostic, Location, SourceFile, Span, nearest, yaml};
use crate::terminology::systems;
use crate::terminology::units::Units;

mod apply;
/// The nearest right name, or what else helps.
fn did_you_mean(near: Option<&str>, otherwise: &str) -> String {
    near.map_or_else(|| otherwise.to_owned(), |name| format!("did you mean `{name}`?"))
}

#[cfg(test)]
mod tests;

pub use apply::{Finding, Problem};

/// Codes one mapping may translate.
pub const CODES_MAX: usize = 1_000_000;
/// Segments of an element's path.
const PATH_SEGMENTS_MAX: usize = 8;

/// Policies by which race and ethnicity are read. The names and versions are ours; the categories are those of the
/// US Core extensions (OMB 1997): a missing category is its own group and never merged.
pub const RACE_ETHNICITY_POLICIES: &[&str] = &["us-core-omb-1997"];

/// A checked site mapping.
#[derive(Clone, Debug)]
pub struct Mapping {
    name: String,
    version: String,
    race_ethnicity: String,
    codes: Vec<CodeRule>,
    answers: Vec<AnswerRule>,
    units: Vec<UnitRule>,
}

/// A code and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    system: String,
    code: String,
    display: Option<String>,
}

/// Local codes of one system, at given elements.
#[derive(Clone, Debug)]
struct CodeRule {
    system: String,
    elements: Vec<Element>,
    targets: BTreeMap<String, Target>,
    ignore: BTreeSet<String>,
    report_others: bool,
}

/// A coded element: `Encounter.serviceType`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Element {
    resource_type: String,
    path: Vec<String>,
}

/// Text answers of one observation.
#[derive(Clone, Debug)]
struct AnswerRule {
    observation: (String, String),
    targets: BTreeMap<String, Target>,
}

/// The unit of one observation's quantity.
#[derive(Clone, Debug)]
struct UnitRule {
    observation: (String, String),
    from: String,
    to: String,
}

/// The file, as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct File {
    name: Spanned<String>,
    version: Spanned<String>,
    #[serde(default)]
    #[allow(dead_code)] // for the reader of the file
    title: Option<String>,
    #[serde(default)]
    #[allow(dead_code)] // for the reader of the file
    description: Option<String>,
    race_ethnicity: Option<Spanned<String>>,
    #[serde(default)]
    codes: Vec<CodesText>,
    #[serde(default)]
    answers: Vec<AnswersText>,
    #[serde(default)]
    units: Vec<UnitText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CodesText {
    system: Spanned<String>,
    to: Option<Spanned<String>>,
    elements: Vec<Spanned<String>>,
    #[serde(default)]
    map: BTreeMap<String, TargetText>,
    csv: Option<Spanned<String>>,
    #[serde(default)]
    ignore: BTreeSet<String>,
    #[serde(default)]
    others: Others,
}

/// What happens to a code of the system that the mapping does not name.
#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Others {
    /// It is a finding.
    #[default]
    Report,
    /// It is known to be of no interest.
    Ignore,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a code, or `{system: …, code: …, display: …}`")]
enum TargetText {
    Code(Spanned<String>),
    Full(TargetFields),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetFields {
    system: Option<String>,
    code: Spanned<String>,
    display: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswersText {
    observation: CodeText,
    to: Spanned<String>,
    map: BTreeMap<String, TargetText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnitText {
    observation: CodeText,
    from: Spanned<String>,
    to: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeText {
    system: String,
    code: String,
}

/// A translation a mapping makes, for widening a query or a value set to the local codes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Translation<'a> {
    /// The local system.
    pub system: &'a str,
    /// The local code.
    pub code: &'a str,
    /// The standard system.
    pub to_system: &'a str,
    /// The standard code.
    pub to_code: &'a str,
}

impl Mapping {
    /// Reads a mapping. `files` are the texts of the CSV files it may name (two or three columns: local code,
    /// standard code, display; the first line is a heading), by the name it uses. `None` only if there are errors.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use watershed::diagnostic::SourceFile;
    /// use watershed::mapping::Mapping;
    ///
    /// let text = "name: harbor\nversion: 1.0.0\ncodes:\n  - system: http://harbor.example/lda\n    to: http://snomed.info/sct\n    elements: [Device.type]\n    map: {PICC: \"52124006\"}\n";
    /// let (mapping, findings) = Mapping::parse(&SourceFile::new("harbor.yaml", text), &BTreeMap::new());
    /// assert!(findings.is_empty());
    /// assert_eq!(mapping.unwrap().translations().map(|one| (one.code, one.to_code)).collect::<Vec<_>>(), [("PICC", "52124006")]);
    ///
    /// let (_, findings) = Mapping::parse(&SourceFile::new("harbor.yaml", text.replace("Device", "Devise")), &BTreeMap::new());
    /// assert_eq!(findings[0].help.as_deref(), Some("did you mean `Device`?"));
    /// ```
    pub fn parse(source: &Arc<SourceFile>, files: &BTreeMap<String, String>) -> (Option<Mapping>, Vec<Diagnostic>) {
        let file: File = match yaml::read(source) {
            Ok(file) => file,
            Err(fault) => return (None, vec![fault]),
        };
        let mut reader = Reader { source, files, units: Units::new(), findings: Vec::new() };
        let mapping = reader.mapping(file);
        let failed = diagnostic::has_errors(&reader.findings);
        ((!failed).then_some(mapping), reader.findings)
    }

    /// The CSV files a mapping names, so that the caller can read them first; none when it cannot be read.
    pub fn files_named(text: &str) -> Vec<String> {
        let file: Result<File, _> = serde_saphyr::from_str(text);
        file.map_or_else(|_| Vec::new(), |file| file.codes.into_iter().filter_map(|rule| rule.csv).map(|name| name.value).collect())
    }

    /// A mapping that changes nothing, for a site that speaks the standard.
    pub fn none() -> Mapping {
        Mapping {
            name: "none".to_owned(),
            version: "1.0.0".to_owned(),
            race_ethnicity: RACE_ETHNICITY_POLICIES.first().copied().unwrap_or_default().to_owned(),
            codes: Vec::new(),
            answers: Vec::new(),
            units: Vec::new(),
        }
    }

    /// Name and version, for the lineage of a report: `harbor|1.0.0`.
    pub fn label(&self) -> String {
        format!("{}|{}", self.name, self.version)
    }

    /// Name and version.
    pub fn name_and_version(&self) -> (&str, &str) {
        (&self.name, &self.version)
    }

    /// Name of the policy by which race and ethnicity are read.
    pub fn race_ethnicity_policy(&self) -> &str {
        &self.race_ethnicity
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty() && self.answers.is_empty() && self.units.is_empty()
    }

    /// Every code translation, in order.
    pub fn translations(&self) -> impl Iterator<Item = Translation<'_>> {
        self.codes.iter().flat_map(|rule| {
            rule.targets
                .iter()
                .map(|(code, target)| Translation { system: &rule.system, code, to_system: &target.system, to_code: &target.code })
        })
    }

    /// The elements that applying it reads, as resource type and path, for the shape of reading.
    pub fn paths(&self) -> Vec<(String, Vec<String>)> {
        let mut paths = BTreeSet::new();
        for element in self.codes.iter().flat_map(|rule| &rule.elements) {
            paths.insert((element.resource_type.clone(), element.path.clone()));
        }
        if !self.answers.is_empty() || !self.units.is_empty() {
            for path in ["code", "valueCodeableConcept", "valueQuantity"] {
                paths.insert(("Observation".to_owned(), vec![path.to_owned()]));
            }
        }
        paths.into_iter().collect()
    }
}

/// Turns the text into rules; collects every problem.
struct Reader<'a> {
    source: &'a Arc<SourceFile>,
    files: &'a BTreeMap<String, String>,
    units: Units,
    findings: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn error(&mut self, written: &Spanned<String>, message: String, help: &str) {
        self.findings.push(Diagnostic::error(message).at(yaml::locate(self.source, written)).help(help));
    }

    fn mapping(&mut self, file: File) -> Mapping {
        for (what, text) in [("name", &file.name), ("version", &file.version)] {
            if text.value.trim().is_empty() {
                self.error(text, format!("`{what}` is empty"), "a report names the mapping behind it, so it needs a name and a version");
            }
        }
        let race_ethnicity = match &file.race_ethnicity {
            Some(policy) => {
                self.policy(policy);
                policy.value.clone()
            }
            None => Mapping::none().race_ethnicity,
        };
        let codes = file.codes.into_iter().map(|rule| self.codes(rule)).collect();
        let answers = file.answers.into_iter().map(|rule| self.answers(rule)).collect();
        let units = file.units.into_iter().map(|rule| self.unit(rule)).collect();
        let mapping = Mapping { name: file.name.value, version: file.version.value, race_ethnicity, codes, answers, units };
        if mapping.translations().count() > CODES_MAX {
            self.findings.push(Diagnostic::error(format!("a mapping translates at most {CODES_MAX} codes")));
        }
        mapping
    }

    fn policy(&mut self, policy: &Spanned<String>) {
        if !RACE_ETHNICITY_POLICIES.contains(&policy.value.as_str()) {
            let known = RACE_ETHNICITY_POLICIES.join("`, `");
            let help = did_you_mean(nearest(&policy.value, RACE_ETHNICITY_POLICIES.iter().copied()), &format!("known policies: `{known}`"));
            self.error(policy, format!("no race and ethnicity policy is named `{}`", policy.value), &help);
        }
    }

    /// A system that codes are translated to. What a hospital calls its own is its own matter.
    fn standard_system(&mut self, system: &Spanned<String>) {
        self.findings.extend(systems::misspelled(&system.value).map(|finding| finding.at(yaml::locate(self.source, system))));
    }

    fn codes(&mut self, rule: CodesText) -> CodeRule {
        let mut targets = BTreeMap::new();
        rule.to.iter().for_each(|to| self.standard_system(to));
        for (code, target) in &rule.map {
            if let Some(target) = self.target(target, rule.to.as_ref(), &rule.system) {
                targets.insert(code.clone(), target);
            }
        }
        if let Some(csv) = &rule.csv {
            self.csv(csv, rule.to.as_ref(), &mut targets);
        }
        for code in rule.ignore.iter().filter(|code| targets.contains_key(*code)) {
            self.error(&rule.system, format!("code `{code}` is both mapped and ignored"), "keep it in one of the two");
        }
        if rule.elements.is_empty() {
            self.error(&rule.system, "no element is named".to_owned(), "name where the codes stand, for example `elements: [Encounter.serviceType]`");
        }
        let elements = rule.elements.iter().filter_map(|element| self.element(element)).collect();
        CodeRule { system: rule.system.value, elements, targets, ignore: rule.ignore, report_others: rule.others == Others::Report }
    }

    fn element(&mut self, written: &Spanned<String>) -> Option<Element> {
        let mut parts = written.value.split('.').map(str::to_owned);
        let resource_type = parts.next().unwrap_or_default();
        let path: Vec<String> = parts.collect();
        let typed = resource_type.starts_with(|first: char| first.is_ascii_uppercase());
        let named = (1..=PATH_SEGMENTS_MAX).contains(&path.len()) && path.iter().all(|part| !part.is_empty() && part.chars().all(char::is_alphanumeric));
        if !(typed && named) {
            self.error(written, format!("`{}` is no element", written.value), "write the resource type, a point and the element, for example `Encounter.serviceType`");
            return None;
        }
        self.in_model(written, &resource_type, path.first()?).then_some(Element { resource_type, path })
    }

    /// Whether FHIR has the type, and the type the element; a rule about any other would never apply.
    fn in_model(&mut self, written: &Spanned<String>, resource_type: &str, element: &str) -> bool {
        let models = Models::default();
        let fhir = models.fhir();
        let Some(class) = fhir.retrievable(resource_type) else {
            let near = nearest(resource_type, fhir.retrievable_names());
            self.error(written, format!("FHIR R4 has no resource type `{resource_type}`"), &did_you_mean(near, "resource types are written as in `Encounter`"));
            return false;
        };
        // JSON adds the type to the name of a choice: `valueCodeableConcept`.
        let is_named = |name: &str| {
            element
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(|first: char| first.is_ascii_uppercase()))
        };
        if !fhir.element_names(&class.name).any(is_named) {
            let near = nearest(element, fhir.element_names(&class.name));
            self.error(written, format!("`{resource_type}` has no element `{element}`"), &did_you_mean(near, "the elements of a type are listed in FHIR R4"));
            return false;
        }
        true
    }

    fn target(&mut self, text: &TargetText, to: Option<&Spanned<String>>, near: &Spanned<String>) -> Option<Target> {
        let (system, code, display) = match text {
            TargetText::Code(code) => (None, code, None),
            TargetText::Full(full) => (full.system.clone(), &full.code, full.display.clone()),
        };
        // Where there are two ways to write an entry, its places are not kept.
        let source = self.source;
        let within = |text: &str| yaml::locate(source, near).first(text);
        let misspelled = system.as_deref().and_then(|system| Some(systems::misspelled(system)?.at(within(system))));
        self.findings.extend(misspelled);
        let Some(system) = system.or_else(|| to.map(|to| to.value.clone())) else {
            self.error(near, format!("code `{}` has no system", code.value), "write `to:` with the standard system for the whole list, or `system:` beside the code");
            return None;
        };
        if code.value.trim().is_empty() {
            self.error(code, "the standard code is empty".to_owned(), "leave the local code out, or name it under `ignore`");
            return None;
        }
        self.findings.extend(systems::padded(&code.value).map(|finding| finding.at(within(&format!("\"{}\"", code.value)))));
        Some(Target { system, code: code.value.clone(), display })
    }

    fn csv(&mut self, name: &Spanned<String>, to: Option<&Spanned<String>>, targets: &mut BTreeMap<String, Target>) {
        let Some(text) = self.files.get(&name.value) else {
            self.error(name, format!("file `{}` cannot be read", name.value), "the name is relative to the mapping file");
            return;
        };
        let Some(to) = to else {
            self.error(name, "codes from a file need `to:`".to_owned(), "write the standard system of the second column");
            return;
        };
        let csv = SourceFile::new(name.value.clone(), text.clone());
        let mut offset = 0usize;
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let columns: Vec<&str> = line.trim().split(',').map(|column| column.trim().trim_matches('"')).collect();
            match columns.as_slice() {
                _ if index == 0 || line.trim().is_empty() => {}
                [local, code, rest @ ..] if !local.is_empty() && !code.is_empty() => {
                    let display = rest.first().filter(|text| !text.is_empty()).map(|text| (*text).to_owned());
                    targets.insert((*local).to_owned(), Target { system: to.value.clone(), code: (*code).to_owned(), display });
                }
                _ => {
                    let span = Span::new(u32::try_from(offset).unwrap_or(0), u32::try_from(offset + line.trim_end().len()).unwrap_or(0));
                    let finding = Diagnostic::error("expected a local code and a standard code, separated by a comma");
                    self.findings.push(finding.at(Location::new(&csv, span)));
                }
            }
            offset = offset.saturating_add(line.len());
        }
    }

    fn answers(&mut self, rule: AnswersText) -> AnswerRule {
        let mut targets = BTreeMap::new();
        self.standard_system(&rule.to);
        for (text, target) in &rule.map {
            if let Some(target) = self.target(target, Some(&rule.to), &rule.to) {
                targets.insert(folded(text), target);
            }
        }
        AnswerRule { observation: (rule.observation.system, rule.observation.code), targets }
    }

    fn unit(&mut self, rule: UnitText) -> UnitRule {
        let mut valid = true;
        for unit in [&rule.from, &rule.to] {
            if !self.units.is_valid(&unit.value) {
                valid = false;
                self.error(unit, format!("`{}` is no UCUM unit", unit.value), "UCUM is case sensitive: `wk`, `d`, `mg/dL`, `[IU]`");
            }
        }
        if valid && !self.units.comparable(&rule.from.value, &rule.to.value) {
            self.error(&rule.to, format!("`{}` cannot be converted to `{}`", rule.from.value, rule.to.value), "both must measure the same thing");
        }
        UnitRule { observation: (rule.observation.system, rule.observation.code), from: rule.from.value, to: rule.to.value }
    }
}

/// A text answer as it is compared: without regard to case and surrounding space.
fn folded(text: &str) -> String {
    text.trim().to_lowercase()
}
