//! From a mapping's text to its rules; every problem at once, each at its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::element::{Element, Wrong};
use super::table::with_its_system;
use super::{AnswerRule, CODES_MAX, CodeRule, Mapping, RACE_ETHNICITY_POLICIES, Target, UnitRule, did_you_mean, folded};
use crate::diagnostic::yaml::node::{self, Content, Named, Node};
use crate::diagnostic::{self, Diagnostic, Location, SourceFile, Span, nearest, yaml};
use crate::terminology::systems;
use crate::terminology::units::Units;

const TARGET_KEYS: [&str; 3] = ["system", "code", "display"];
/// Signs of patterns, which codes are not.
const PATTERNS: [&str; 5] = [".*", ".+", "\\d", "\\w", "[0-9]"];

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
    map: Named<Node>,
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
#[serde(deny_unknown_fields)]
struct AnswersText {
    observation: CodeText,
    to: Spanned<String>,
    map: Named<Node>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnitText {
    observation: CodeText,
    from: Spanned<String>,
    to: Spanned<String>,
    factor: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeText {
    system: String,
    code: Spanned<String>,
}

/// The CSV files that a mapping names.
pub(super) fn files_named(source: &Arc<SourceFile>) -> Vec<String> {
    let file: Result<File, _> = yaml::read(source);
    file.map_or_else(|_| Vec::new(), |file| file.codes.into_iter().filter_map(|rule| rule.csv).map(|name| name.value).collect())
}

/// Reads a mapping and the tables that it names.
pub(super) fn mapping(source: &Arc<SourceFile>, files: &BTreeMap<String, Result<String, Diagnostic>>) -> (Option<Mapping>, Vec<Diagnostic>) {
    let file: File = match yaml::read(source) {
        Ok(file) => file,
        Err(fault) => return (None, vec![fault]),
    };
    let mut reader = Reader { source, files, units: Units::new(), findings: Vec::new() };
    let mapping = reader.mapping(file);
    let failed = diagnostic::has_errors(&reader.findings);
    ((!failed).then_some(mapping), reader.findings)
}

/// Turns the text into rules; collects every problem.
pub(super) struct Reader<'a> {
    source: &'a Arc<SourceFile>,
    pub files: &'a BTreeMap<String, Result<String, Diagnostic>>,
    units: Units,
    pub findings: Vec<Diagnostic>,
}

impl Reader<'_> {
    pub(super) fn at(&self, written: &Spanned<String>) -> Location {
        yaml::locate(self.source, written)
    }

    pub(super) fn error(&mut self, written: &Spanned<String>, message: String, help: &str) {
        self.error_at(self.at(written), message, help);
    }

    fn error_at(&mut self, at: Location, message: String, help: &str) {
        self.findings.push(Diagnostic::error(message).at(at).help(help));
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
        let mut codes: Vec<CodeRule> = Vec::new();
        for rule in file.codes {
            let rule = self.codes(rule);
            codes.iter().for_each(|earlier| self.contradictions(earlier, &rule));
            codes.push(rule);
        }
        let mut answers: Vec<AnswerRule> = Vec::new();
        for rule in file.answers {
            let rule = self.answers(rule);
            answers
                .iter()
                .filter(|earlier| earlier.observation == rule.observation)
                .for_each(|earlier| self.two_targets(&earlier.targets, &rule.targets));
            answers.push(rule);
        }
        let mut units: Vec<UnitRule> = Vec::new();
        for rule in file.units {
            units.extend(self.unit(rule, &units));
        }
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
    fn standard_system(&mut self, system: &str, at: Location) {
        self.findings.extend(systems::misspelled(system).map(|finding| finding.at(at)));
    }

    fn codes(&mut self, rule: CodesText) -> CodeRule {
        let mut targets = BTreeMap::new();
        rule.to.iter().for_each(|to| self.standard_system(&to.value, self.at(to)));
        let Named(entries) = &rule.map;
        for (code, target) in entries {
            self.key(code);
            if let Some(target) = self.target(code, target, rule.to.as_ref()) {
                targets.insert(code.value.clone(), target);
            }
        }
        if let Some(csv) = &rule.csv {
            self.table(csv, rule.to.as_ref(), &mut targets);
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

    /// Codes are compared as they stand: a key that is a pattern, or that other readers of YAML take for a number, is no code.
    fn key(&mut self, key: &Spanned<String>) {
        let text = key.value.as_str();
        let at = self.at(key);
        let is_pattern = PATTERNS.iter().any(|sign| text.contains(sign)) || text.len() > 1 && (text.starts_with('^') || text.ends_with(['$', '*']));
        if is_pattern {
            let message = format!("`{text}` looks like a pattern, and codes are compared as they stand");
            self.findings
                .push(Diagnostic::warning(message).at(at.clone()).help("write each code, or name a table of them as `csv:`"));
        }
        let is_quoted = matches!(self.source.text.as_bytes().get((at.span.start as usize).wrapping_sub(1)), Some(b'"' | b'\''));
        let is_number = text.parse::<f64>().is_ok() || text.starts_with("0x") || text.starts_with("0o");
        let is_plain = text == "0" || text.starts_with(|first: char| ('1'..='9').contains(&first)) && text.chars().all(|sign| sign.is_ascii_digit());
        if is_number && !is_plain && !is_quoted {
            let message = format!("`{text}` is a number to YAML, of which another may be written alike");
            self.findings.push(Diagnostic::warning(message).at(at).help(format!("quote it: `\"{text}\"`")));
        }
    }

    fn element(&mut self, written: &Spanned<String>) -> Option<Element> {
        let found = Element::parse(&written.value);
        if let Err(Wrong { part: (start, end), message, help }) = &found {
            let at = self.at(written);
            let byte = |offset: usize| at.span.start + offset as u32;
            self.error_at(Location::new(self.source, Span::new(byte(*start), byte(*end))), message.clone(), help);
        }
        found.ok()
    }

    fn target(&mut self, local: &Spanned<String>, written: &Node, to: Option<&Spanned<String>>) -> Option<Target> {
        let (system, code, display) = match &written.value {
            Content::Text(_) => (None, written, None),
            Content::Fields(Named(fields)) => {
                for (key, _) in fields.iter().filter(|(key, _)| !TARGET_KEYS.contains(&key.value.as_str())) {
                    let help = did_you_mean(nearest(&key.value, TARGET_KEYS.into_iter()), "a code is `{system: …, code: …, display: …}`");
                    self.error(key, format!("a code has no `{}`", key.value), &help);
                }
                let field = |name: &str| written.value.field(name);
                let Some(code) = field("code") else {
                    self.error(local, format!("`{}` leads to no code", local.value), "a code is `{system: …, code: …, display: …}`");
                    return None;
                };
                (field("system"), code, field("display"))
            }
            _ => (None, written, None),
        };
        let system_at = system.map(|node| node::at(self.source, node));
        let mut text = |written: &Node| match &written.value {
            Content::Text(text) => Some(text.clone()),
            other => {
                let at = node::at(self.source, written);
                let raw = at.text().to_owned();
                let help = if let Content::Number(_) | Content::Boolean(_) = other {
                    format!("quote it: `\"{raw}\"`")
                } else {
                    "a code is a text, or `{system: …, code: …, display: …}`".to_owned()
                };
                self.error_at(at, format!("expected a code, found {}", other.shown()), &help);
                None
            }
        };
        let (system, display) = (system.and_then(&mut text), display.and_then(&mut text));
        let (code, at) = (text(code)?, node::at(self.source, code));
        if let (Some(system), Some(at)) = (&system, &system_at) {
            self.standard_system(system, at.clone());
        }
        let Some(system) = system.or_else(|| to.map(|to| to.value.clone())) else {
            self.error_at(at, format!("code `{code}` has no system"), "write `to:` with the standard system for the whole list, or `system:` beside the code");
            return None;
        };
        if code.trim().is_empty() {
            self.error_at(at, "the standard code is empty".to_owned(), "leave the local code out, or name it under `ignore`");
            return None;
        }
        self.findings.extend(systems::padded(&code).map(|finding| finding.at(at.clone())));
        if let Some((message, help)) = with_its_system(&code) {
            self.error_at(at, message, &help);
            return None;
        }
        let system_at = system_at.or_else(|| to.map(|to| self.at(to))).unwrap_or_else(|| at.clone());
        Some(Target { system, code, display, at, system_at })
    }

    fn answers(&mut self, rule: AnswersText) -> AnswerRule {
        let mut targets: BTreeMap<String, Target> = BTreeMap::new();
        let Named(entries) = &rule.map;
        self.standard_system(&rule.to.value, self.at(&rule.to));
        for (text, target) in entries {
            let Some(target) = self.target(text, target, Some(&rule.to)) else { continue };
            if let Some(earlier) = targets.insert(folded(&text.value), target.clone()) {
                self.two(&folded(&text.value), &earlier, &target);
            }
        }
        AnswerRule { observation: (rule.observation.system, rule.observation.code.value), targets }
    }

    /// Two rules about the same codes at the same element.
    fn contradictions(&mut self, earlier: &CodeRule, later: &CodeRule) {
        if earlier.system == later.system && earlier.elements.iter().any(|element| later.elements.contains(element)) {
            self.two_targets(&earlier.targets, &later.targets);
        }
    }

    fn two_targets(&mut self, earlier: &BTreeMap<String, Target>, later: &BTreeMap<String, Target>) {
        for (local, target) in later {
            if let Some(earlier) = earlier.get(local) {
                self.two(local, earlier, target);
            }
        }
    }

    /// What leads to two codes of one system leads to neither.
    fn two(&mut self, local: &str, earlier: &Target, later: &Target) {
        if earlier.system == later.system && earlier.code != later.code {
            let message = format!("`{local}` leads to `{}` here, and to `{}` in line {}", later.code, earlier.code, earlier.at.line());
            self.error_at(later.at.clone(), message, "what a hospital writes means one thing of a system: leave one of the two out");
        }
    }

    fn unit(&mut self, rule: UnitText, earlier: &[UnitRule]) -> Option<UnitRule> {
        let (from, to) = (rule.from.value.as_str(), rule.to.value.as_str());
        let [is_unit, is_target] = [from, to].map(|unit| self.units.is_valid(unit));
        if from.trim().is_empty() {
            self.error(&rule.from, "`from` is empty".to_owned(), "write the unit as it stands in the data");
        }
        if !is_target {
            self.error(&rule.to, format!("`{to}` is no UCUM unit"), "UCUM is case sensitive: `wk`, `d`, `mg/dL`, `[IU]`");
        }
        let is_known = is_target && self.units.comparable(from, to);
        let is_of_one_scale = self.units.of_one_scale(from, to);
        let factor = rule.factor.as_ref().and_then(|factor| Decimal::try_from(factor.value).ok().filter(|value| *value > Decimal::ZERO));
        match &rule.factor {
            Some(_) if is_known && is_of_one_scale => self.error(&rule.to, format!("`{from}` is converted to `{to}` exactly, without a factor"), "leave `factor` out"),
            Some(_) if factor.is_none() => self.error(&rule.to, "`factor` is not above 0".to_owned(), "write how many of the unit at `to` one of the unit at `from` is"),
            None if is_target && !is_unit => {
                let help =
                    format!("what the hospital calls `{from}` no table tells: write `factor:`, how many `{to}` one of it is; `factor: 1` where it is another spelling of `{to}`");
                self.error(&rule.from, format!("`{from}` is no UCUM unit, and there is no factor"), &help);
            }
            None if is_known && !is_of_one_scale => {
                let message = format!("`{from}` converts to `{to}` by counting moles as numbers, and may be of another scale, as hemoglobin A1c by IFCC and by NGSP");
                let help = "53 mmol/mol of hemoglobin A1c would become 5.3 %, and is 7.0 %: have it written in the unit that is asked for, or write `factor:`";
                self.findings.push(Diagnostic::warning(message).at(self.at(&rule.from)).help(help));
            }
            None if is_target && !is_known => {
                let help = format!(
                    "both must measure the same thing; where a mass becomes an amount of substance its molar mass is needed, which no unit tells: write `factor:`, how many `{to}` one `{from}` is (of glucose, 1 mg/dL is 0.0555 mmol/L)"
                );
                self.error(&rule.to, format!("`{from}` cannot be converted to `{to}`"), &help);
            }
            _ => {}
        }
        let observation = (rule.observation.system, rule.observation.code.value.clone());
        if let Some(other) = earlier.iter().find(|earlier| earlier.observation == observation && earlier.to != to) {
            let message = format!("the unit of `{}` becomes `{to}` here, and `{}` in an earlier rule", observation.1, other.to);
            self.error(&rule.to, message, "an observation is converted to one unit, from as many as it comes in");
        }
        Some(UnitRule { observation, from: rule.from.value, to: rule.to.value, factor })
    }
}

impl Target {
    /// Whether it is the same code.
    pub(super) fn is_same(&self, other: &Target) -> bool {
        (&self.system, &self.code) == (&other.system, &other.code)
    }
}
