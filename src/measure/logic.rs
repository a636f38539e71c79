//! Whether two measures compute the same: a digest of the logic, in which neither layout nor words for people count, and of each value set.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::compile::{self, Files};
use super::definition::{self, CannotTell, Component, ComponentMeasure, Definition, Group, Population, Stratifier, StratifierKind, Text};
use super::published;
use crate::cql::lexer::{self, TokenKind};
use crate::cql::typed::{self, Form, Library, LibraryId, Tree};
use crate::cql::{Models, Program, elm};
use crate::terminology::ValueSets;

/// Begins the digest of what is evaluated.
const MEANING: &str = "meaning";

/// By what two versions of a measure are told apart, made alike at both ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Digests by which the logic is known, of the program with all that it includes and of what in the definition moves a number. First of
    /// its text, `cql+numbers:…` or `elm+numbers:…`; of a composite also of the logic of its parts, whose forms it names,
    /// `numbers(cql+numbers, elm+numbers):…`: the forms of one logic have nothing in common. Then of what is evaluated, `meaning:…`, whatever
    /// the form: two that share it are the same, two that do not need not differ.
    pub logic: Vec<String>,
    /// Digest of the codes of each value set, as the logic names it; without those that are missing or known not to be whole.
    pub value_sets: BTreeMap<String, String>,
}

impl Fingerprint {
    /// Of a measure as it is compiled.
    pub fn new(definition: &Definition, program: &Program, known: &ValueSets) -> Fingerprint {
        let tree = program.tree();
        let form = match tree.libraries.as_slice() {
            [] => "numbers",
            libraries if libraries.iter().any(|library| library.form == Form::Elm) => "elm+numbers",
            _ => "cql+numbers",
        };
        let numbers = numbers(definition, program).to_string();
        let digest = |mut texts: Vec<String>| {
            texts.sort_unstable();
            texts.push(numbers.clone());
            compile::digest_of(texts.iter().map(String::as_str))
        };
        let mut logic = vec![format!("{form}:{}", digest(tree.libraries.iter().map(text).collect()))];
        logic.extend(meaning(tree).map(|texts| format!("{MEANING}:{}", digest(texts))));
        let codes = |row: &typed::ValueSet| {
            let set = known.find(&row.id, row.version.as_deref()).filter(|set| !set.is_empty() && set.shortfall().is_none())?;
            let name = row.version.as_ref().map_or_else(|| row.id.to_string(), |version| format!("{}|{version}", row.id));
            Some((name, compile::digest_of(set.members().flat_map(|member| [&**member.system, &**member.code]))))
        };
        Fingerprint { logic, value_sets: tree.value_sets.iter().filter_map(codes).collect() }
    }

    /// The same of a composite of these measures, by canonical URL with version, each once: what they compute, it computes.
    pub fn with_parts(self, mut parts: Vec<(String, &Fingerprint)>) -> Fingerprint {
        if parts.is_empty() {
            return self;
        }
        parts.sort_by(|a, b| a.0.cmp(&b.0));
        let form = |logic: &Fingerprint| logic.digest(is_text).and_then(|digest| digest.split(':').next()).unwrap_or_default().to_owned();
        let digest = |is_wanted: fn(&str) -> bool| {
            let mut texts = vec![self.digest(is_wanted)?];
            for (measure, part) in &parts {
                texts.extend([measure.as_str(), part.digest(is_wanted)?]);
            }
            Some(compile::digest_of(texts.into_iter()))
        };
        let forms: Vec<String> = parts.iter().map(|(_, part)| form(part)).collect();
        let text = digest(is_text).map(|digest| format!("{}({}):{digest}", form(&self), forms.join(", ")));
        let meaning = digest(is_meaning).map(|digest| format!("{MEANING}:{digest}"));
        let logic = text.into_iter().chain(meaning).collect();
        let value_sets = parts.iter().flat_map(|(_, part)| part.value_sets.clone()).chain(self.value_sets).collect();
        Fingerprint { logic, value_sets }
    }

    fn digest(&self, is_wanted: fn(&str) -> bool) -> Option<&str> {
        self.logic.iter().map(String::as_str).find(|digest| is_wanted(digest))
    }

    /// Of a measure that is only known, not evaluated; `None` where its logic is not here or wrong.
    pub fn of(files: &Files, known: &ValueSets) -> Option<Fingerprint> {
        let read = if published::is_published(&files.definition) { published::definition } else { definition::parse };
        let definition = read(&files.definition).0?;
        let program = compile::program(files, &definition, compile::Logic::default(), &Models::default(), &mut Vec::new())?;
        Some(Fingerprint::new(&definition, &program, known))
    }
}

fn is_meaning(digest: &str) -> bool {
    digest.split(':').next() == Some(MEANING)
}

fn is_text(digest: &str) -> bool {
    !is_meaning(digest)
}

/// What is evaluated, library by library, as our own ELM; `None` where that cannot express it.
fn meaning(tree: &Tree) -> Option<Vec<String>> {
    let ids = (0..tree.libraries.len()).map(|index| LibraryId(index as u32));
    ids.map(|id| {
        let (mut written, found) = elm::write(tree, id);
        plain(&mut written);
        found.is_empty().then(|| written.to_string())
    })
    .collect()
}

/// Takes away what ELM means anyhow: a cast is not strict unless it says so, as that of a null.
fn plain(json: &mut Value) {
    match json {
        Value::Object(parts) => {
            parts.retain(|name, value| name != "strict" || *value != Value::Bool(false));
            parts.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

/// What of a definition moves a number. A field that is left out here is named, so that a new one is thought of.
fn numbers(definition: &Definition, program: &Program) -> Value {
    let groups = definition.all_groups();
    let group = |group: &Group| {
        let Group { id, text: _, scoring: _, basis: _, improvement: _, populations, stratifiers, composite_scoring, components, composite: _ } = group;
        let (scoring, improvement) = (definition.scoring_of(group).code(), definition.improvement_of(group).code());
        let populations = sorted(populations, |own| population(own, populations));
        let (stratifiers, components) = (sorted(stratifiers, |own| stratifier(own, program)), sorted(components, component));
        // The only group needs no name.
        let id = (groups.len() > 1).then_some(&id.value);
        // A component that is better the other way is turned round in its composite.
        json!([id, scoring, definition.basis_of(group), improvement, populations, stratifiers, composite_scoring.map(|how| how.code()), components])
    };
    json!([definition.rate.as_ref().map_or(1, |rate| rate.multiplier), sorted(&groups, group)])
}

/// A population by what it is, not by its id; so is the one that it is of.
fn population(population: &Population, all: &[Population]) -> Value {
    let Population { code, id: _, define, text: _, of, aggregate, cannot_tell } = population;
    let doubt = |CannotTell { define, reason, text: _ }: &CannotTell| json!([define.value, reason.code()]);
    let of = of.as_ref().map(|of| match all.iter().find(|other| other.id() == of.value) {
        Some(other) => json!([other.code.code(), other.define.value]),
        None => json!(of.value),
    });
    json!([code.code(), define.value, of, aggregate.map(|how| how.code()), sorted(cannot_tell, doubt)])
}

fn stratifier(stratifier: &Stratifier, program: &Program) -> Value {
    let Stratifier { id, text: _, define, kind, components, policy, strata: _ } = stratifier;
    let root = program.roots().first().and_then(|id| program.tree().libraries.get(id.index()));
    let defined = root.zip(define.as_ref()).and_then(|(root, define)| program.define(&root.name, &define.value));
    let kind = match kind {
        StratifierKind::Criteria => "criteria",
        // As compiling decides it.
        StratifierKind::ByType if defined.is_some_and(|define| program.define_type(define).is_list()) => "criteria",
        StratifierKind::Value | StratifierKind::ByType => "value",
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

    fn program(cql: &str) -> Program {
        let (program, found) = cql::compile(&[SourceFile::new("a.cql", cql)], &Libraries::default(), &Models::default());
        program.unwrap_or_else(|| panic!("{found:?}"))
    }

    fn logic(definition: &Definition, program: &Program) -> Vec<String> {
        Fingerprint::new(definition, program, &ValueSets::new()).logic
    }

    fn written(yaml: &str) -> Definition {
        let (definition, found) = definition::parse(&SourceFile::new("measure.yaml", yaml));
        definition.unwrap_or_else(|| panic!("{found:?}"))
    }

    #[test]
    fn comments_and_layout_are_no_logic_and_every_word_is() {
        let of = |text: &str| logic(&written(DEFINITION), &program(text)).swap_remove(0);
        let first = of("library A version '1'\ndefine X: 1 + 2\n");
        assert!(first.starts_with("cql+numbers:") && first.len() == 76, "{first}");
        assert_eq!(first, of("// What is counted.\r\nlibrary A version '1'\r\n\r\ndefine X:\r\n  1 + 2 /* three */"));
        for other in ["library A version '1' define X: 1 + 3", "library A version '1' define X: '1' + '2'", "library A version '2' define X: 1 + 2"] {
            assert_ne!(first, of(other), "{other}");
        }
    }

    /// The ELM of a logic is known to be the same, that of another is not; nor is their text.
    #[test]
    fn a_logic_and_its_elm_share_what_they_mean() {
        let text = |limit: u8| {
            format!(
                "library A version '1' using FHIR version '4.0.1' context Patient\n\
                 define X: exists ([Encounter: type ~ Code {{ code: 'a', system: 'http://s' }}] E where E.length.value.value < {limit}.5 sort by period.start.value)"
            )
        };
        let of_elm = |limit: u8| {
            let (document, found) = elm::write(program(&text(limit)).tree(), LibraryId(0));
            assert!(found.is_empty(), "{found:?}");
            let (program, found) = elm::compile(&SourceFile::new("a.json", document.to_string()), &[], &Models::default());
            logic(&written(DEFINITION), &program.unwrap_or_else(|| panic!("{found:?}")))
        };
        let (own, same, other) = (logic(&written(DEFINITION), &program(&text(4))), of_elm(4), of_elm(5));
        assert_eq!([own.len(), same.len(), other.len()], [2; 3]);
        assert!(own[0].starts_with("cql+numbers:") && same[0].starts_with("elm+numbers:") && own[1].starts_with("meaning:"), "{own:?} {same:?}");
        assert!(own[1] == same[1] && own[1] != other[1], "{own:?} {same:?} {other:?}");
    }

    /// What a published Measure calls its only group and its populations is no logic.
    #[test]
    fn a_published_measure_is_known_by_what_its_populations_are() {
        let yaml = "id: x\nurl: http://n.example/Measure/x\nversion: 1.0.0\nstatus: draft\ntitle: X\ndescription: X.\nsteward: X\nscoring: continuous-variable\n\
            improvement: increase\nstratifiers:\n  - {id: sex, define: Sex}\npopulations:\n  - {code: initial-population, define: I}\n  - {code: measure-population, define: I}\n  \
            - {code: measure-observation, define: Days, of: measure-population, aggregate: median}\n";
        let population =
            |code: &str, id: &str, define: &str| json!({ "id": id, "code": { "coding": [{ "code": code }] }, "criteria": { "language": "text/cql", "expression": define } });
        let mut observed = population("measure-observation", "o", "Days");
        observed["extension"] = json!([
            { "url": "http://hl7.org/fhir/us/cqfmeasures/StructureDefinition/cqfm-criteriaReference", "valueString": "m" },
            { "url": "http://hl7.org/fhir/us/cqfmeasures/StructureDefinition/cqfm-aggregateMethod", "valueString": "median" }
        ]);
        let measure = |define: &str| {
            let measure = json!({
                "resourceType": "Measure", "id": "x", "url": "http://n.example/Measure/x", "version": "1.0.0", "status": "draft", "title": "X",
                "scoring": { "coding": [{ "code": "continuous-variable" }] }, "improvementNotation": { "coding": [{ "code": "increase" }] },
                "group": [{ "id": "main", "stratifier": [{ "id": "sex", "criteria": { "language": "text/cql", "expression": "Sex" } }],
                    "population": [population("initial-population", "i", define), population("measure-population", "m", "I"), observed] }]
            });
            let (definition, found) = published::definition(&SourceFile::new("m.json", measure.to_string()));
            definition.unwrap_or_else(|| panic!("{found:?}"))
        };
        let program = program("library A version '1' using FHIR version '4.0.1' context Patient define I: true define Sex: Patient.gender define Days: 1");
        let own = logic(&written(yaml), &program);
        assert_eq!((own.clone(), own != logic(&measure("Sex"), &program)), (logic(&measure("I"), &program), true));
    }
}
