//! Whether each rule meets anything in a site's data, and codes there under a name that is near to one that is asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::{all_of, contained};
use super::{Asked, Finding, Mapping, Problem, Target};
use crate::diagnostic::nearest;
use crate::fhir::record::{NodeId, Record};
use crate::terminology::systems;

/// Where an observation, or a component of one, says what it is.
const OBSERVED: [&[&str]; 2] = [&["code"], &["component", "code"]];

/// A resource type and the path of a coded element.
type Spot = (String, Vec<String>);

/// What is looked for in the data: made once for all patients.
pub struct Watch<'m> {
    mapping: &'m Mapping,
    asked: &'m Asked,
    spots: Vec<Spot>,
    named: BTreeSet<&'m str>,
}

/// What was seen of it, of any number of patients.
#[derive(Default)]
pub struct Seen {
    /// Rules that met something, by their place among all.
    met: BTreeSet<usize>,
    /// By spot and system: patients with codes of it.
    systems: BTreeMap<(usize, String), u64>,
    /// Of systems of observations that rules name: the codes there are.
    codes: BTreeMap<String, BTreeSet<String>>,
}

impl Seen {
    /// Adds what was seen of other patients.
    pub fn merge(&mut self, other: Seen) {
        self.met.extend(other.met);
        for (system, patients) in other.systems {
            *self.systems.entry(system).or_default() += patients;
        }
        for (system, codes) in other.codes {
            self.codes.entry(system).or_default().extend(codes);
        }
    }
}

impl<'m> Watch<'m> {
    /// Of a mapping, and of the elements by whose codes measures ask: type and element.
    pub fn new(mapping: &'m Mapping, asked: &'m Asked, elements: impl Iterator<Item = (String, String)>) -> Watch<'m> {
        let mut spots: BTreeSet<Spot> = mapping
            .codes
            .iter()
            .flat_map(|rule| &rule.elements)
            .map(|element| (element.resource_type.clone(), element.path.clone()))
            .collect();
        for (resource_type, element) in elements {
            spots.insert((resource_type.clone(), vec![format!("{element}CodeableConcept")]));
            spots.insert((resource_type, element.split('.').map(str::to_owned).collect()));
        }
        if mapping.named_observations().next().is_some() {
            spots.extend(OBSERVED.map(|path| ("Observation".to_owned(), path.iter().map(|name| (*name).to_owned()).collect())));
        }
        let targets = mapping.codes.iter().map(|rule| &rule.targets).chain(mapping.answers.iter().map(|rule| &rule.targets));
        let targets = targets.flat_map(BTreeMap::values).map(|target| target.system.as_str());
        // What only rules of answers and units name is not translated.
        let named = mapping.codes.iter().map(|rule| rule.system.as_str()).chain(targets).chain(asked.systems()).collect();
        Watch { mapping, asked, spots: spots.into_iter().collect(), named }
    }

    /// Looks at one patient's record as it came.
    pub fn see(&self, record: &Record, seen: &mut Seen) {
        let within = contained(record);
        let mut systems: BTreeSet<(usize, &str)> = BTreeSet::new();
        for (place, (resource_type, path)) in self.spots.iter().enumerate() {
            for resource in all_of(record, &within, resource_type) {
                each_code(record, resource, path, &mut |system, code| {
                    self.meet(place, system, code, seen);
                    systems.insert((place, system));
                });
            }
        }
        systems.into_iter().for_each(|(place, system)| *seen.systems.entry((place, system.to_owned())).or_default() += 1);
    }

    fn meet(&self, place: usize, system: &str, code: &str, seen: &mut Seen) {
        let Some((resource_type, path)) = self.spots.get(place) else { return };
        let is_here = |rule: &super::CodeRule| rule.system == system && rule.elements.iter().any(|element| element.resource_type == *resource_type && element.path == *path);
        let rules = self.mapping.codes.iter().enumerate().filter(|(_, rule)| is_here(rule));
        seen.met.extend(rules.map(|(index, _)| index));
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
        for ((place, system), patients) in self.strangers(seen) {
            let named = self.named.iter().copied().chain(self.mapping.named_observations().map(|(_, (system, _))| system.as_str()));
            let alike = named.into_iter().find(|name| *name != system && systems::alike(name, system));
            let meant = || systems::meant(system).filter(|meant| self.named.contains(meant.as_str()));
            let near = alike
                .map(str::to_owned)
                .or_else(meant)
                .or_else(|| nearest(system, idle.iter().map(|rule| rule.system)).map(str::to_owned));
            found.extend(near.map(|near| {
                let finding = Finding { element: self.element(place), system: system.to_owned(), expected: near, ..Finding::of(Problem::UnknownSystem) };
                (finding, patients)
            }));
        }
        found.extend(idle.into_iter().map(|rule| (rule.finding(), 0)));
        found
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

/// System and code of each coding at a path below a node, through every repetition and however an element holds them.
fn each_code<'r>(record: &'r Record, node: NodeId, path: &[String], each: &mut dyn FnMut(&'r str, &'r str)) {
    let text = |node, name| record.get(node, name).and_then(|field| record.text(field)).unwrap_or_default();
    let mut code = |node| each(text(node, "system"), text(node, "code"));
    match path.split_first() {
        Some((name, rest)) => record
            .get(node, name)
            .into_iter()
            .flat_map(|field| record.items(field))
            .for_each(|item| each_code(record, item, rest, each)),
        None => match record.get(node, "coding") {
            Some(codings) => record.items(codings).for_each(code),
            None => code(node),
        },
    }
}
