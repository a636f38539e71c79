//! Site rules that turn local codes, units and elements into standard ones; the original is kept.
//!
//! A site mapping is one YAML file. [`Mapping::parse`] checks it whole; `apply` adds standard codings beside the
//! local ones in a patient's [`Record`](crate::fhir::record::Record). What came stays in the snapshot; a mapping never
//! reads outside the patient, and what it could not translate comes back as findings that name codes, not values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::Serialize;

use crate::diagnostic::{Diagnostic, Location, SourceFile};

mod apply;
mod asked;
mod element;
mod near;
mod read;
mod table;
#[cfg(test)]
mod tests;
mod watch;

pub use apply::{Finding, Problem};
pub use asked::Asked;
use element::Element;
pub use watch::{Seen, Watch};

/// Codes one mapping may translate.
pub const CODES_MAX: usize = 1_000_000;

/// Characters of what may be a code.
const CODE_CHARS_MAX: usize = 64;
/// Patients who have a code that is told.
const TOLD_OF_PATIENTS: u64 = 2;

/// Where an answer or a measurement of an Observation may stand beside the elements that mean one.
const PLAIN_VALUES: [&str; 2] = ["valueString", "valueInteger"];

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
#[derive(Clone, Debug)]
struct Target {
    system: String,
    code: String,
    display: Option<String>,
    /// Where it is written, and where its system is.
    at: Location,
    system_at: Location,
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
    /// As the hospital writes it, which may be no unit of UCUM.
    from: String,
    to: String,
    /// How much of the one unit the other is, where UCUM cannot know.
    factor: Option<Decimal>,
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
    /// Reads a mapping. `files` are the texts of the CSV files that it names (columns `local`, `standard` and, if wanted, `display`), by
    /// the name it uses, or why one cannot be read. `None` only if there are errors.
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
    pub fn parse(source: &Arc<SourceFile>, files: &BTreeMap<String, Result<String, Diagnostic>>) -> (Option<Mapping>, Vec<Diagnostic>) {
        read::mapping(source, files)
    }

    /// The CSV files a mapping names, so that the caller can read them first; none when it cannot be read.
    pub fn files_named(source: &Arc<SourceFile>) -> Vec<String> {
        read::files_named(source)
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

    /// All that it does, as a text of which a digest can be taken: the order of rules counts, how they are written does not.
    pub fn content(&self) -> String {
        let mut text = format!("{}\n", self.race_ethnicity);
        let mut line = |words: &[&str]| text.push_str(&format!("{}\n", serde_json::json!(words)));
        let targets = |line: &mut dyn FnMut(&[&str]), targets: &BTreeMap<String, Target>| {
            targets.iter().for_each(|(local, to)| line(&[local, &to.system, &to.code, to.display.as_deref().unwrap_or_default()]));
        };
        for rule in &self.codes {
            line(&["codes", &rule.system, if rule.report_others { "report" } else { "ignore" }]);
            rule.elements.iter().for_each(|element| line(&["at", &element.to_string()]));
            targets(&mut line, &rule.targets);
            rule.ignore.iter().for_each(|code| line(&[code]));
        }
        for rule in &self.answers {
            line(&["answers", &rule.observation.0, &rule.observation.1]);
            targets(&mut line, &rule.targets);
        }
        for UnitRule { observation, from, to, factor } in &self.units {
            line(&["units", &observation.0, &observation.1, from, to, &factor.map(|factor| factor.to_string()).unwrap_or_default()]);
        }
        text
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
            for path in ["code", "valueCodeableConcept", "valueQuantity"].into_iter().chain(PLAIN_VALUES) {
                paths.insert(("Observation".to_owned(), vec![path.to_owned()]));
                paths.insert(("Observation".to_owned(), vec!["component".to_owned(), path.to_owned()]));
            }
        }
        paths.into_iter().collect()
    }
}

/// Whether a code of the data's own may be told: one that looks like a code and that several patients have. What else stands in its place
/// may be anything.
pub fn is_told(code: &str, patients: u64) -> bool {
    looks_like_code(code) && patients >= TOLD_OF_PATIENTS
}

/// Blanks at its ends are a mistake of whoever wrote the system; what moves a cursor stands in no code.
fn looks_like_code(code: &str) -> bool {
    let text = code.trim_matches(' ');
    text.chars().count() <= CODE_CHARS_MAX && !text.contains(|sign: char| sign.is_whitespace() || sign.is_control())
}

/// A text answer as it is compared: without regard to case and surrounding space.
fn folded(text: &str) -> String {
    text.trim().to_lowercase()
}

/// The nearest right name, or what else helps.
fn did_you_mean(near: Option<&str>, otherwise: &str) -> String {
    near.map_or_else(|| otherwise.to_owned(), |name| format!("did you mean `{name}`?"))
}
