//! What to ask the EHR for: the measures' data requirements, widened to the codes that the site's mapping translates.

use std::collections::{BTreeMap, BTreeSet};

use crate::cql::typed::CodeSystemId;
use crate::cql::{Asking, Codes, Requirement};
use crate::fhir::record::{Keep, Shape};
use crate::mapping::{Asked, Mapping};
use crate::measure::Measure;
use crate::source::Need;
use crate::terminology::ValueSets;

/// The element whose codes a search by `code` finds.
const CODE: &str = "code";

/// What measures need. If they are asked for progressively, types are later ones that who is in no initial population can do without.
pub fn of<'m>(measures: &'m [Measure], value_sets: &'m ValueSets, mapping: &Mapping, is_progressive: bool) -> Vec<Need> {
    let initial: Option<Vec<BTreeSet<String>>> = measures.iter().map(Measure::types_of_initial_populations).collect();
    let initial = initial.filter(|_| is_progressive);
    let of_measure = |measure: &'m Measure| measure.program().requirements().iter().map(|requirement| (requirement, measure.value_sets(value_sets)));
    let requirements = measures.iter().flat_map(of_measure);
    let later = |need: Need| {
        let is_first = initial.as_ref().is_none_or(|initial| initial.iter().any(|types| types.contains(&need.resource_type)));
        Need { is_later: !is_first, ..need }
    };
    needs(requirements, mapping).into_iter().map(later).collect()
}

/// The measures that read each resource type.
pub fn readers(measures: &[Measure]) -> BTreeMap<String, BTreeSet<String>> {
    let mut readers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for measure in measures {
        for requirement in measure.program().requirements() {
            readers.entry(requirement.resource_type.clone()).or_default().insert(measure.definition.id.value.clone());
        }
    }
    readers
}

/// One need per resource type, sorted: any code as soon as one requirement leaves it open, otherwise every code that
/// would do by the value sets that go with it, as `system|code`, the site's own included.
fn needs<'a>(requirements: impl Iterator<Item = (&'a Requirement, &'a ValueSets)>, mapping: &Mapping) -> Vec<Need> {
    let local = local_codes(mapping);
    // By `code`, and at any element.
    let mut types: BTreeMap<String, [Option<BTreeSet<String>>; 2]> = BTreeMap::new();
    for (requirement, value_sets) in requirements {
        let wanted = tokens(requirement, value_sets, &local);
        let is_by_code = requirement.code_path.as_deref() == Some(CODE);
        let known = types.entry(requirement.resource_type.clone()).or_insert_with(|| [Some(BTreeSet::new()), Some(BTreeSet::new())]);
        for (codes, wanted) in known.iter_mut().zip([wanted.as_ref().filter(|_| is_by_code), wanted.as_ref()]) {
            match (codes.as_mut(), wanted) {
                (Some(codes), Some(wanted)) => codes.extend(wanted.iter().cloned()),
                _ => *codes = None,
            }
        }
    }
    let need = |(resource_type, [codes, anywhere]): (String, [Option<BTreeSet<String>>; 2])| {
        let codes = codes.unwrap_or_default();
        let elsewhere = anywhere.unwrap_or_default().difference(&codes).cloned().collect();
        Need { resource_type, codes, elsewhere, is_later: false }
    };
    types.into_iter().map(need).collect()
}

/// What a measure asks for by each of its filters, with the codes that would do, the site's own included; `None`: any.
pub fn askings(measure: &Measure, value_sets: &ValueSets, mapping: &Mapping) -> Vec<(Asking, Option<Vec<String>>)> {
    let local = local_codes(mapping);
    let askings = measure.program().askings().into_iter();
    askings
        .map(|asking| {
            let wanted = tokens(&asking.requirement, measure.value_sets(value_sets), &local);
            (asking, wanted)
        })
        .collect()
}

/// Every code that the measures name, be it by a retrieve or to compare with: those that a mapping may lead to.
pub fn asked(measures: &[Measure], value_sets: &ValueSets) -> Asked {
    let (mut asked, mut open) = (Asked::default(), BTreeSet::new());
    for (tree, value_sets) in measures.iter().map(|measure| (measure.program().tree(), measure.value_sets(value_sets))) {
        let of = |id: &CodeSystemId| tree.code_systems.get(id.0 as usize).map(|system| &*system.id);
        for row in &tree.codes {
            of(&row.system).into_iter().for_each(|system| asked.insert(system, &row.code));
        }
        for set in tree.value_sets.iter().filter_map(|row| value_sets.find(&row.id, row.version.as_deref())) {
            for member in set.members() {
                asked.insert(member.system, member.code);
                // Of one that is not whole anything of its systems may be meant.
                open.extend(set.shortfall().map(|_| member.system.to_string()));
            }
        }
        let named: BTreeSet<&str> = tree.codes.iter().filter_map(|row| of(&row.system)).collect();
        open.extend(tree.code_systems.iter().filter(|system| !named.contains(&*system.id)).map(|system| system.id.to_string()));
    }
    for requirement in measures.iter().flat_map(|measure| measure.program().requirements()) {
        if let Codes::Direct(codes) = &requirement.codes {
            codes.iter().for_each(|(system, code)| asked.insert(system, code));
        }
    }
    open.iter().for_each(|system| asked.open(system));
    asked
}

/// Standard code, as `system|code`, to the local ones that mean it.
fn local_codes(mapping: &Mapping) -> BTreeMap<String, Vec<String>> {
    let mut local: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for translation in mapping.translations() {
        let standard = format!("{}|{}", translation.to_system, translation.to_code);
        local.entry(standard).or_default().push(format!("{}|{}", translation.system, translation.code));
    }
    local
}

/// The codes of a requirement; `None` when any would do.
fn tokens(requirement: &Requirement, value_sets: &ValueSets, local: &BTreeMap<String, Vec<String>>) -> Option<Vec<String>> {
    requirement.code_path.as_ref()?;
    let standard: Vec<String> = match &requirement.codes {
        Codes::Any => return None,
        Codes::Direct(codes) => codes.iter().map(|(system, code)| format!("{system}|{code}")).collect(),
        Codes::ValueSet(url) => value_sets.get(url)?.members().map(|member| format!("{}|{}", member.system, member.code)).collect(),
    };
    Some(with_local(standard, local))
}

/// Codes, and those that a mapping translates to them, be it in several steps: a rule sees what the ones before it added.
fn with_local(standard: Vec<String>, local: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut found: BTreeSet<String> = standard.iter().cloned().collect();
    let mut waiting = standard;
    while let Some(code) = waiting.pop() {
        waiting.extend(local.get(&code).into_iter().flatten().filter(|code| found.insert((*code).clone())).cloned());
    }
    found.into_iter().collect()
}

/// The shape of reading: what the programs use and what the mapping reads.
pub fn shape<'a>(shapes: impl Iterator<Item = &'a Shape>, mapping: &Mapping) -> Shape {
    let mut merged = Shape::default();
    for shape in shapes {
        merged.merge(shape);
    }
    for (resource_type, path) in mapping.paths() {
        // A type that no measure reads need not be read to be translated.
        if merged.everything || !merged.types.contains_key(&resource_type) {
            continue;
        }
        let keep = path.iter().rev().fold(Keep::All, |inner, name| Keep::Fields([(name.as_str(), inner)].into()));
        // Without a sieve: a local code that is translated counts as what it is translated to.
        merged.merge(&Shape { types: BTreeMap::from([(resource_type, keep)]), ..Shape::default() });
    }
    if !mapping.is_empty() {
        // So it does in a resource within another one.
        let types = merged
            .types
            .iter()
            .filter(|(_, keep)| keep.field("contained").is_some())
            .map(|(name, _)| (name.clone(), Keep::default()));
        merged.merge(&Shape { types: types.collect(), ..Shape::default() });
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::SourceFile;
    use crate::terminology::ValueSet;

    fn mapping() -> Mapping {
        let text = "name: a\nversion: '1'\ncodes:\n  - {system: http://local, to: http://loinc.org, elements: [Observation.code], map: {X: '11884-4'}}\n";
        Mapping::parse(&SourceFile::new("a.yaml", text), &BTreeMap::new()).0.unwrap()
    }

    fn requirement(resource_type: &str, code_path: &str, codes: Codes) -> Requirement {
        Requirement { resource_type: resource_type.into(), code_path: Some(code_path.into()), codes, date_path: None, paths: BTreeSet::new() }
    }

    #[test]
    fn local_codes_are_asked_for_beside_the_standard_ones() {
        let mut sets = ValueSets::new();
        let mut set = ValueSet::new("http://vs");
        set.insert("http://snomed.info/sct", "1", None);
        sets.add(set);
        let requirements = [
            requirement("Observation", "code", Codes::Direct(vec![("http://loinc.org".into(), "11884-4".into())])),
            requirement("Observation", "code", Codes::ValueSet("http://vs".into())),
            requirement("Condition", "code", Codes::ValueSet("http://unknown".into())),
            requirement("Encounter", "type", Codes::ValueSet("http://vs".into())),
        ];
        let found: Vec<String> = needs(requirements.iter().map(|one| (one, &sets)), &mapping())
            .iter()
            .map(|need| format!("{} {:?} {:?}", need.resource_type, need.codes, need.elsewhere))
            .collect();
        assert_eq!(
            found,
            ["Condition {} {}", "Encounter {} {\"http://snomed.info/sct|1\"}", "Observation {\"http://local|X\", \"http://loinc.org|11884-4\", \"http://snomed.info/sct|1\"} {}"]
        );
    }

    #[test]
    fn what_is_translated_in_two_steps_is_asked_for_and_a_circle_ends() {
        let text = "name: a\nversion: '1'\ncodes:\n  - {system: http://old, to: http://local, elements: [Observation.code], map: {W: X}}\n  \
                    - {system: http://local, to: http://loinc.org, elements: [Observation.code], map: {X: '11884-4'}}\n  \
                    - {system: http://loinc.org, to: http://old, elements: [Observation.code], map: {'11884-4': W}}\n";
        let mapping = Mapping::parse(&SourceFile::new("a.yaml", text), &BTreeMap::new()).0.unwrap();
        let requirements = [requirement("Observation", "code", Codes::Direct(vec![("http://loinc.org".into(), "11884-4".into())]))];
        let none = ValueSets::new();
        let codes = needs(requirements.iter().map(|one| (one, &none)), &mapping).remove(0).codes;
        assert_eq!(codes.into_iter().collect::<Vec<_>>(), ["http://local|X", "http://loinc.org|11884-4", "http://old|W"]);
    }

    /// A request is passed over where no code that is asked for stands in its line; within it may stand a local one.
    #[test]
    fn what_may_hold_others_with_local_codes_is_read_without_a_sieve() {
        let mut request = Shape::default();
        let keep = |name: &str| Keep::Fields([(name, Keep::All)].into());
        request.types = BTreeMap::from([("MedicationRequest".to_owned(), keep("contained")), ("Condition".to_owned(), keep("code"))]);
        for name in ["MedicationRequest", "Condition"] {
            request.sift(name, BTreeSet::from(["1191".to_owned()]));
        }
        let sieved = |mapping: &Mapping| shape(std::iter::once(&request), mapping).sieves.into_keys().collect::<Vec<_>>();
        assert_eq!(sieved(&Mapping::none()), ["Condition", "MedicationRequest"]);
        assert_eq!(sieved(&mapping()), ["Condition"]);
    }

    #[test]
    fn one_open_requirement_opens_the_type() {
        let requirements = [requirement("Observation", "code", Codes::Direct(vec![("a".into(), "b".into())])), requirement("Observation", "code", Codes::Any)];
        let none = ValueSets::new();
        assert_eq!(needs(requirements.iter().map(|one| (one, &none)), &Mapping::none()), [Need::all("Observation")]);
    }
}
