//! Whether each rule, and each entry of its table, meets anything in a site's data, and codes there under a name that is near to one
//! that is asked for. And what FHIR demands of each resource and no measure can do without: its status.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::{all_of, codings, contained, plain_value};
use super::near::{Near, OfPatient, Slips};
use super::{Asked, CodeRule, Finding, Mapping, Problem, Target, folded, is_told};
use crate::cql::Requirement;
use crate::diagnostic::{counted, nearest};
use crate::fhir::record::{NodeId, Record};
use crate::terminology::systems;

/// Where an observation, or a component of one, says what it is.
const OBSERVED: [&[&str]; 2] = [&["code"], &["component", "code"]];

/// The element that says whether a resource is to be counted, and the types that may do without one (FHIR R4: 0..1).
const STATUS: &str = "status";
const STATUS_OPTIONAL: [&str; 6] = ["Device", "HealthcareService", "Location", "Medication", "Specimen", "Substance"];

/// Entries of a table that are named: those that met nothing, and those that met the most.
const ENTRIES_SHOWN: usize = 8;
const MET_SHOWN: usize = 3;
/// Entries, and codes of the data, that are looked at for what is near.
const NEAR_MAX: usize = 500;

/// A resource type and the path of a coded element.
type Spot = (String, Vec<String>);

/// What is looked for in the data: made once for all patients.
pub struct Watch<'m> {
    mapping: &'m Mapping,
    asked: &'m Asked,
    near: Near<'m>,
    spots: Vec<Spot>,
    /// Types whose status is read, and that have one by FHIR.
    with_status: BTreeSet<String>,
    named: BTreeSet<&'m str>,
}

/// What was seen of it, of any number of patients.
#[derive(Default)]
pub struct Seen {
    /// Rules that met something, by their place among all.
    met: BTreeSet<usize>,
    /// By rule: patients with each code of its system, or with each answer that its table has.
    entries: BTreeMap<usize, BTreeMap<String, u64>>,
    /// By spot and system: patients with codes of it.
    systems: BTreeMap<(usize, String), u64>,
    /// Of systems of observations that rules name: the codes there are.
    codes: BTreeMap<String, BTreeSet<String>>,
    /// Codes that are nearly asked for.
    slips: Slips,
    /// By type: patients with resources that are asked for and have no status.
    without_status: BTreeMap<String, u64>,
}

impl Seen {
    /// Adds what was seen of other patients.
    pub fn merge(&mut self, other: Seen) {
        self.met.extend(other.met);
        for (rule, entries) in other.entries {
            let own = self.entries.entry(rule).or_default();
            entries.into_iter().for_each(|(entry, patients)| *own.entry(entry).or_default() += patients);
        }
        for (system, patients) in other.systems {
            *self.systems.entry(system).or_default() += patients;
        }
        for (system, codes) in other.codes {
            self.codes.entry(system).or_default().extend(codes);
        }
        self.slips.merge(other.slips);
        other.without_status.into_iter().for_each(|(name, patients)| *self.without_status.entry(name).or_default() += patients);
    }
}

impl<'m> Watch<'m> {
    /// Of a mapping, and of what measures ask for.
    pub fn new<'r>(mapping: &'m Mapping, asked: &'m Asked, requirements: impl Iterator<Item = &'r Requirement>) -> Watch<'m> {
        let mut spots: BTreeSet<Spot> = mapping
            .codes
            .iter()
            .flat_map(|rule| &rule.elements)
            .map(|element| (element.resource_type.clone(), element.path.clone()))
            .collect();
        let mut with_status = BTreeSet::new();
        for Requirement { resource_type, code_path, paths, .. } in requirements {
            if !STATUS_OPTIONAL.contains(&resource_type.as_str()) && paths.iter().any(|path| path.split('.').next() == Some(STATUS)) {
                with_status.insert(resource_type.clone());
            }
            let Some(element) = code_path else { continue };
            spots.insert((resource_type.clone(), vec![format!("{element}CodeableConcept")]));
            spots.insert((resource_type.clone(), element.split('.').map(str::to_owned).collect()));
        }
        if mapping.named_observations().next().is_some() {
            spots.extend(OBSERVED.map(|path| ("Observation".to_owned(), path.iter().map(|name| (*name).to_owned()).collect())));
        }
        let targets = mapping.codes.iter().map(|rule| &rule.targets).chain(mapping.answers.iter().map(|rule| &rule.targets));
        let targets = targets.flat_map(BTreeMap::values).map(|target| target.system.as_str());
        // What only rules of answers and units name is not translated.
        let named = mapping.codes.iter().map(|rule| rule.system.as_str()).chain(targets).chain(asked.systems()).collect();
        Watch { mapping, asked, near: Near::new(asked), spots: spots.into_iter().collect(), with_status, named }
    }

    /// Looks at one patient's record as it came.
    pub fn see<'r>(&'r self, record: &'r Record, seen: &mut Seen) {
        let within = contained(record);
        let mut entries: BTreeSet<(usize, &str)> = BTreeSet::new();
        let mut systems: BTreeSet<(usize, &str)> = BTreeSet::new();
        let mut without_status: BTreeSet<&str> = BTreeSet::new();
        let mut slips = OfPatient::new();
        let mut codings: Vec<(&str, &str)> = Vec::new();
        for (place, (resource_type, path)) in self.spots.iter().enumerate() {
            for resource in all_of(record, &within, resource_type) {
                each_concept(record, resource, path, &mut |concept| {
                    codings.clear();
                    each_code(record, concept, &mut |system, code| codings.push((system, code)));
                    systems.extend(codings.iter().map(|(system, _)| (place, *system)));
                    let is_asked = seen.slips.look(&self.near, &mut slips, place, &codings, |system| self.mapping.reads(system));
                    if is_asked && self.with_status.contains(resource_type) && record.get(resource, STATUS).is_none() {
                        without_status.insert(resource_type);
                    }
                    codings.iter().for_each(|(system, code)| self.meet((place, system, code), seen, &mut entries));
                });
            }
        }
        seen.slips.add(&self.near, slips);
        without_status.into_iter().for_each(|name| *seen.without_status.entry(name.to_owned()).or_default() += 1);
        systems.into_iter().for_each(|(place, system)| *seen.systems.entry((place, system.to_owned())).or_default() += 1);
        self.answers(record, &within, &mut entries);
        for (rule, entry) in entries {
            let known = seen.entries.entry(rule).or_default();
            match known.get_mut(entry) {
                Some(patients) => *patients += 1,
                None => drop(known.insert(entry.to_owned(), 1)),
            }
        }
    }

    /// The answers that rules have; another text may be anything, and is not looked at.
    fn answers<'r>(&'r self, record: &Record, within: &[NodeId], entries: &mut BTreeSet<(usize, &'r str)>) {
        if self.mapping.answers.is_empty() {
            return;
        }
        for observation in all_of(record, within, "Observation") {
            let components = record.get(observation, "component").map(|list| record.items(list).collect::<Vec<_>>()).unwrap_or_default();
            for node in std::iter::once(observation).chain(components) {
                let codes = record.get(node, "code").map(|code| codings(record, code)).unwrap_or_default();
                let concept = record
                    .get(node, "valueCodeableConcept")
                    .and_then(|concept| record.get(concept, "text"))
                    .and_then(|text| record.text(text));
                let Some(text) = concept.map(str::to_owned).or_else(|| plain_value(record, node).map(|(_, text)| text)) else { continue };
                let rules = (self.mapping.codes.len()..).zip(&self.mapping.answers).filter(|(_, rule)| codes.contains(&rule.observation));
                entries.extend(rules.filter_map(|(index, rule)| Some((index, rule.targets.get_key_value(&folded(&text))?.0.as_str()))));
            }
        }
    }

    fn meet<'r>(&'r self, (place, system, code): (usize, &'r str, &'r str), seen: &mut Seen, entries: &mut BTreeSet<(usize, &'r str)>) {
        let Some((resource_type, path)) = self.spots.get(place) else { return };
        let is_here = |rule: &CodeRule| rule.system == system && rule.elements.iter().any(|element| element.resource_type == *resource_type && element.path == *path);
        for (index, _) in self.mapping.codes.iter().enumerate().filter(|(_, rule)| is_here(rule)) {
            seen.met.insert(index);
            entries.insert((index, code));
        }
        if resource_type != "Observation" || !OBSERVED.iter().any(|observed| path.iter().eq(observed.iter())) {
            return;
        }
        let own = self.mapping.named_observations().filter(|(_, (own, _))| *own == system);
        let own: Vec<(usize, &str)> = own.map(|(index, (_, code))| (index, code.as_str())).collect();
        seen.met.extend(own.iter().filter(|(_, own)| *own == code).map(|(index, _)| *index));
        if !own.is_empty() {
            seen.codes.entry(system.to_owned()).or_default().insert(code.to_owned());
        }
    }

    /// What is to be told, with the number of patients that have it.
    pub fn findings(&self, seen: &Seen) -> Vec<(Finding, u64)> {
        let idle = self.idle(seen);
        let mut found = Vec::new();
        let mut renamed: BTreeSet<(String, &str)> = BTreeSet::new();
        for ((place, system), patients) in self.strangers(seen) {
            let named = self.named.iter().copied().chain(self.mapping.named_observations().map(|(_, (system, _))| system.as_str()));
            let alike = named.into_iter().find(|name| *name != system && systems::alike(name, system));
            let meant = || systems::meant(system).filter(|meant| self.named.contains(meant.as_str()));
            let near = alike
                .map(str::to_owned)
                .or_else(meant)
                .or_else(|| nearest(system, idle.iter().map(|rule| rule.system)).map(str::to_owned));
            found.extend(near.map(|near| {
                renamed.insert((self.element(place), system));
                let finding = Finding { element: self.element(place), system: system.to_owned(), expected: near, ..Finding::of(Problem::UnknownSystem) };
                (finding, patients)
            }));
        }
        // Of a system by another name it was said already.
        let is_new = |(finding, _): &(Finding, u64)| !renamed.contains(&(finding.element.clone(), finding.system.as_str()));
        found.extend(self.near.findings(&seen.slips, |place| self.element(place)).into_iter().filter(is_new));
        let without_status = |(name, patients): (&String, &u64)| (Finding { element: format!("{name}.{STATUS}"), ..Finding::of(Problem::WithoutStatus) }, *patients);
        found.extend(seen.without_status.iter().map(without_status));
        found.extend(idle.into_iter().map(|rule| (rule.finding(), 0)));
        found.extend(self.idle_entries(seen).into_iter().map(|finding| (finding, 0)));
        found
    }

    /// Entries that lead to what a measure asks for and met nothing, of rules that met something.
    fn idle_entries(&self, seen: &Seen) -> Vec<Finding> {
        let mut found = Vec::new();
        for (index, rule) in self.mapping.codes.iter().enumerate() {
            found.extend(seen.entries.get(&index).into_iter().flat_map(|met| self.idle_codes(rule, met)));
        }
        // An observation need not have an answer: one of the table's must be there.
        for (index, rule) in (self.mapping.codes.len()..).zip(&self.mapping.answers) {
            let Some(met) = seen.entries.get(&index) else { continue };
            let idle: Vec<&str> = self.unmet(&rule.targets, met).collect();
            let (system, code) = rule.observation.clone();
            let finding = |found| Finding { element: "Observation.code".to_owned(), system, code, found, ..Finding::of(Problem::IdleEntries) };
            found.extend(in_words(&idle, &rule.targets, met).map(finding));
        }
        found
    }

    /// The same of a rule of codes, with what is near in the data and translated by no entry.
    fn idle_codes(&self, rule: &CodeRule, met: &BTreeMap<String, u64>) -> Vec<Finding> {
        let element = rule.elements.first().map(ToString::to_string).unwrap_or_default();
        let own = || Finding { element: element.clone(), system: rule.system.clone(), ..Finding::of(Problem::IdleEntry) };
        // What another rule adds is not in the data as they came.
        let all = self.mapping.codes.iter().flat_map(|other| other.targets.values());
        let steps: BTreeSet<&str> = all.filter(|target| target.system == rule.system).map(|target| target.code.as_str()).collect();
        let is_unknown = |(code, patients): &(&String, &u64)| is_told(code, **patients) && !rule.targets.contains_key(*code) && !rule.ignore.contains(*code);
        let unknown: Vec<&str> = met.iter().filter(is_unknown).map(|(code, _)| code.as_str()).take(NEAR_MAX).collect();
        let (mut found, mut idle) = (Vec::new(), Vec::new());
        for (number, code) in self.unmet(&rule.targets, met).filter(|code| !steps.contains(code)).enumerate() {
            match nearest(code, unknown.iter().copied().filter(|_| number < NEAR_MAX)) {
                Some(near) => found.push(Finding { code: code.to_owned(), expected: near.to_owned(), ..own() }),
                None => idle.push(code),
            }
        }
        found.extend(in_words(&idle, &rule.targets, met).map(|found| Finding { problem: Problem::IdleEntries, found, ..own() }));
        found
    }

    /// Entries of a table that met nothing, and lead to what a measure asks for.
    fn unmet<'s>(&'s self, targets: &'s BTreeMap<String, Target>, met: &'s BTreeMap<String, u64>) -> impl Iterator<Item = &'s str> {
        let unmet = targets.iter().filter(|(entry, target)| !met.contains_key(*entry) && self.mapping.is_wanted(target, self.asked));
        unmet.map(|(entry, _)| entry.as_str())
    }

    /// Systems that neither a rule of codes nor a measure names.
    fn strangers<'s>(&'s self, seen: &'s Seen) -> impl Iterator<Item = ((usize, &'s str), u64)> {
        let systems = seen.systems.iter().map(|((place, system), patients)| ((*place, system.as_str()), *patients));
        systems.filter(|((_, system), _)| !system.is_empty() && !self.named.contains(system))
    }

    fn element(&self, place: usize) -> String {
        self.spots.get(place).map(|(resource_type, path)| format!("{resource_type}.{}", path.join("."))).unwrap_or_default()
    }

    /// Rules that lead to what a measure asks for and met nothing.
    fn idle<'s>(&'s self, seen: &'s Seen) -> Vec<Idle<'s>> {
        let strangers = || self.strangers(seen).map(|((_, system), _)| system);
        let all = || seen.systems.keys().map(|(_, system)| system.as_str());
        let near_system = |system: &str| all().find(|other| *other != system && systems::alike(other, system)).or_else(|| nearest(system, strangers()));
        let mut idle = Vec::new();
        for (_, rule) in self.mapping.codes.iter().enumerate().filter(|(index, _)| !seen.met.contains(index)) {
            // What another rule adds is not in the data as they came.
            let is_step = self.mapping.codes.iter().any(|other| other.targets.values().any(|target| target.system == rule.system));
            if !is_step && self.leads_somewhere(&rule.targets) {
                let element = rule.elements.first().map(ToString::to_string).unwrap_or_default();
                idle.push(Idle { element, system: &rule.system, code: "", near: near_system(&rule.system) });
            }
        }
        for (index, (system, code)) in self.mapping.named_observations().filter(|(index, _)| !seen.met.contains(index)) {
            let codes = seen.codes.get(system).into_iter().flatten().map(String::as_str);
            let near = nearest(code, codes).or_else(|| near_system(system).filter(|_| !seen.codes.contains_key(system)));
            let answer = self.mapping.answers.get(index - self.mapping.codes.len());
            let is_wanted = answer.map_or_else(|| near.is_some() || self.is_asked(system, code), |rule| self.leads_somewhere(&rule.targets));
            if is_wanted {
                idle.push(Idle { element: "Observation.code".to_owned(), system, code, near });
            }
        }
        idle
    }

    fn leads_somewhere(&self, targets: &BTreeMap<String, Target>) -> bool {
        targets.values().any(|target| self.mapping.is_wanted(target, self.asked))
    }

    /// Whether a measure asks for an observation, by this code or by what it is translated to.
    fn is_asked(&self, system: &str, code: &str) -> bool {
        let rules = self.mapping.codes.iter().filter(|rule| rule.system == system);
        self.asked.knows(system, code) || rules.filter_map(|rule| rule.targets.get(code)).any(|target| self.mapping.is_wanted(target, self.asked))
    }
}

/// Which entries of a table met nothing, and which the most.
fn in_words(idle: &[&str], targets: &BTreeMap<String, Target>, met: &BTreeMap<String, u64>) -> Option<String> {
    let more = |all: usize, shown: usize| if all > shown { " …" } else { "" };
    let named: Vec<String> = idle.iter().take(ENTRIES_SHOWN).map(|entry| format!("`{entry}`")).collect();
    let mut own: Vec<(&String, u64)> = met.iter().filter(|(entry, _)| targets.contains_key(*entry)).map(|(entry, patients)| (entry, *patients)).collect();
    own.sort_by_key(|(_, patients)| std::cmp::Reverse(*patients));
    let most: Vec<String> = own.iter().take(MET_SHOWN).map(|(entry, patients)| format!("`{entry}` of {}", counted(*patients, "patient"))).collect();
    let most = if most.is_empty() { String::new() } else { format!("; others met {}{}", most.join(", "), more(own.len(), MET_SHOWN)) };
    let told = || format!("{} of {} met nothing in the data: {}{}{most}", idle.len(), counted(targets.len(), "entry"), named.join(", "), more(idle.len(), ENTRIES_SHOWN));
    (!idle.is_empty()).then(told)
}

/// A rule that met nothing.
struct Idle<'s> {
    element: String,
    system: &'s str,
    code: &'s str,
    /// What is there, and probably meant.
    near: Option<&'s str>,
}

impl Idle<'_> {
    fn finding(self) -> Finding {
        let Idle { element, system, code, near } = self;
        Finding { element, system: system.to_owned(), code: code.to_owned(), expected: near.unwrap_or_default().to_owned(), ..Finding::of(Problem::IdleRule) }
    }
}

impl Mapping {
    /// The observations that rules of answers and of units are about, by the rule's place among all.
    fn named_observations(&self) -> impl Iterator<Item = (usize, &(String, String))> {
        let answers = self.answers.iter().map(|rule| &rule.observation);
        let all = answers.chain(self.units.iter().map(|rule| &rule.observation));
        all.enumerate().map(|(place, observation)| (self.codes.len() + place, observation))
    }
}

/// Each concept at a path below a node, through every repetition.
fn each_concept(record: &Record, node: NodeId, path: &[String], each: &mut dyn FnMut(NodeId)) {
    match path.split_first() {
        Some((name, rest)) => {
            let items = record.get(node, name).into_iter().flat_map(|field| record.items(field));
            items.for_each(|item| each_concept(record, item, rest, each));
        }
        None => each(node),
    }
}

/// System and code of each coding of a concept, however an element holds them.
fn each_code<'r>(record: &'r Record, concept: NodeId, each: &mut dyn FnMut(&'r str, &'r str)) {
    let text = |node, name| record.get(node, name).and_then(|field| record.text(field)).unwrap_or_default();
    let mut code = |node| each(text(node, "system"), text(node, "code"));
    match record.get(concept, "coding") {
        Some(codings) => record.items(codings).for_each(code),
        None => code(concept),
    }
}
