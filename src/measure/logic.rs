//! Whether two measures compute the same: a digest of the logic, in which neither layout nor words for people count, and of each value set.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::compile::{self, Files};
use super::definition::{self, CannotTell, Component, ComponentMeasure, Definition, Group, Population, Stratifier, StratifierKind, Text};
use super::published;
use crate::cql::lexer::{self, TokenKind};
use crate::cql::typed::{self, Form, Library};
use crate::cql::{Models, Program};
use crate::terminology::ValueSets;

/// By what two versions of a measure are told apart, made alike at both ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Digest of the program with all that it includes, and of what in the definition moves a number: `cql+groups:…`, `elm+groups:…`. Of a
    /// composite also of the logic of its parts, whose forms it names: `groups(cql+groups, elm+groups):…`. The forms of one logic have
    /// nothing in common.
    pub logic: String,
    /// Digest of the codes of each value set, as the logic names it; without those that are missing or known not to be whole.
    pub value_sets: BTreeMap<String, String>,
}

impl Fingerprint {
    /// Of a measure as it is compiled.
    pub fn new(definition: &Definition, program: &Program, known: &ValueSets) -> Fingerprint {
        let tree = program.tree();
        let form = match tree.libraries.as_slice() {
            [] => "groups",
            libraries if libraries.iter().any(|library| library.form == Form::Elm) => "elm+groups",
            _ => "cql+groups",
        };
        let mut texts: Vec<String> = tree.libraries.iter().map(text).collect();
        texts.sort_unstable();
        texts.push(numbers(definition).to_string());
        let digest = compile::digest_of(texts.iter().map(String::as_str));
        let codes = |row: &typed::ValueSet| {
            let set = known.find(&row.id, row.version.as_deref()).filter(|set| !set.is_empty() && set.shortfall().is_none())?;
            let name = row.version.as_ref().map_or_else(|| row.id.to_string(), |version| format!("{}|{version}", row.id));
            Some((name, compile::digest_of(set.members().flat_map(|member| [&**member.system, &**member.code]))))
        };
        Fingerprint { logic: format!("{form}:{digest}"), value_sets: tree.value_sets.iter().filter_map(codes).collect() }
    }

    /// The same of a composite of these measures, by canonical URL with version, each once: what they compute, it computes.
    pub fn with_parts(self, mut parts: Vec<(String, &Fingerprint)>) -> Fingerprint {
        if parts.is_empty() {
            return self;
        }
        parts.sort_by(|a, b| a.0.cmp(&b.0));
        let form = |logic: &str| logic.split(':').next().unwrap_or_default().to_owned();
        let forms: Vec<String> = parts.iter().map(|(_, part)| form(&part.logic)).collect();
        let each = parts.iter().flat_map(|(measure, part)| [measure.as_str(), part.logic.as_str()]);
        let digest = compile::digest_of(std::iter::once(self.logic.as_str()).chain(each));
        let logic = format!("{}({}):{digest}", form(&self.logic), forms.join(", "));
        let value_sets = parts.iter().flat_map(|(_, part)| part.value_sets.clone()).chain(self.value_sets).collect();
        Fingerprint { logic, value_sets }
    }

    /// Of a measure that is only known, not evaluated; `None` where its logic is not here or wrong.
    pub fn of(files: &Files, known: &ValueSets) -> Option<Fingerprint> {
        let read = if published::is_published(&files.definition) { published::definition } else { definition::parse };
        let definition = read(&files.definition).0?;
        let program = compile::program(files, &definition, compile::Logic::default(), &Models::default(), &mut Vec::new())?;
        Some(Fingerprint::new(&definition, &program, known))
    }
}

/// What of a definition moves a number. A field that is left out here is named, so that a new one is thought of.
fn numbers(definition: &Definition) -> Value {
    let groups = definition.all_groups();
    let group = |group: &Group| {
        let Group { id, text: _, scoring: _, basis: _, improvement: _, populations, stratifiers, composite_scoring, components, composite: _ } = group;
        let (scoring, improvement) = (definition.scoring_of(group).code(), definition.improvement_of(group).code());
        let (populations, stratifiers, components) = (sorted(populations, population), sorted(stratifiers, stratifier), sorted(components, component));
        // A component that is better the other way is turned round in its composite.
        json!([id.value, scoring, definition.basis_of(group), improvement, populations, stratifiers, composite_scoring.map(|how| how.code()), components])
    };
    json!([definition.rate.as_ref().map_or(1, |rate| rate.multiplier), sorted(&groups, group)])
}

fn population(population: &Population) -> Value {
    let Population { code, id: _, define, text: _, of, aggregate, cannot_tell } = population;
    let doubt = |CannotTell { define, reason, text: _ }: &CannotTell| json!([define.value, reason.code()]);
    json!([code.code(), population.id(), define.value, written(of), aggregate.map(|how| how.code()), sorted(cannot_tell, doubt)])
}

fn stratifier(stratifier: &Stratifier) -> Value {
    let Stratifier { id, text: _, define, kind, components, policy, strata: _ } = stratifier;
    let kind = match kind {
        StratifierKind::Value => "value",
        StratifierKind::Criteria => "criteria",
        StratifierKind::ByType => "by-type",
    };
    // The components name a stratum in their order.
    let components: Vec<Value> = components.iter().map(|Component { id, define, text: _, strata: _ }| json!([id.value, define.value])).collect();
    json!([id.value, written(define), kind, components, policy])
}

fn component(component: &ComponentMeasure) -> Value {
    let ComponentMeasure { measure, version, group, weight } = component;
    json!([measure.value, written(version), written(group), weight.unwrap_or(1.0)])
}

fn written(text: &Option<Text>) -> Option<&str> {
    text.as_ref().map(|text| text.value.as_str())
}

/// In an order that does not depend on where each stands.
fn sorted<T>(items: &[T], part: impl Fn(&T) -> Value) -> Vec<String> {
    let mut parts: Vec<String> = items.iter().map(|item| part(item).to_string()).collect();
    parts.sort_unstable();
    parts
}

/// The words of a library, without what is between them.
fn text(library: &Library) -> String {
    if library.form == Form::Elm {
        return library.source.text.to_string();
    }
    let mut text = String::new();
    for token in lexer::lex(&library.source).tokens {
        let mark = match token.kind {
            TokenKind::String => "'",
            TokenKind::Quoted => "\"",
            TokenKind::Date | TokenKind::DateTime | TokenKind::Time => "@",
            _ => "",
        };
        [mark, &token.text, "\u{1f}"].iter().for_each(|part| text.push_str(part));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cql::{self, Libraries};
    use crate::diagnostic::SourceFile;

    const DEFINITION: &str = include_str!("../../mappings/measures/ibd/remission/measure.yaml");

    fn logic(definition: &str, cql: &str) -> String {
        let (program, found) = cql::compile(&[SourceFile::new("a.cql", cql)], &Libraries::default(), &Models::default());
        let program = program.unwrap_or_else(|| panic!("{found:?}"));
        let (definition, found) = definition::parse(&SourceFile::new("measure.yaml", definition));
        Fingerprint::new(&definition.unwrap_or_else(|| panic!("{found:?}")), &program, &ValueSets::new()).logic
    }

    #[test]
    fn comments_and_layout_are_no_logic_and_every_word_is() {
        let of = |text: &str| logic(DEFINITION, text);
        let first = of("library A version '1'\ndefine X: 1 + 2\n");
        assert!(first.starts_with("cql+groups:") && first.len() == 75, "{first}");
        assert_eq!(first, of("// What is counted.\r\nlibrary A version '1'\r\n\r\ndefine X:\r\n  1 + 2 /* three */"));
        for other in ["library A version '1' define X: 1 + 3", "library A version '1' define X: '1' + '2'", "library A version '2' define X: 1 + 2"] {
            assert_ne!(first, of(other), "{other}");
        }
    }
}
