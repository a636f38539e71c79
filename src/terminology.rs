//! Value sets by expansion, code systems' fragments, concept maps.
//!
//! A value set is what its expansion lists, never what its definition might mean: one that is empty or
//! only describes its content (a filter, a reference to another set) is refused by name, because
//! measuring with it would silently find nobody.

pub mod read;
pub mod units;

use std::collections::BTreeMap;
use std::sync::Arc;

/// The most codes one value set may have.
pub const CODES_MAX: usize = 1_000_000;

/// The codes of one system with their display text, when given.
type Codes = BTreeMap<Arc<str>, Option<Arc<str>>>;

/// An expanded value set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueSet {
    /// Canonical URL, without version.
    pub url: Arc<str>,
    /// Business version.
    pub version: Option<Arc<str>>,
    /// Text for people.
    pub title: Option<Arc<str>>,
    systems: BTreeMap<Arc<str>, Codes>,
}

/// One code of a value set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Canonical URL of the code system.
    pub system: &'a Arc<str>,
    /// The code.
    pub code: &'a Arc<str>,
    /// Text for people.
    pub display: Option<&'a Arc<str>>,
}

impl ValueSet {
    /// An empty set, to be filled; `url` may carry `|version`.
    pub fn new(url: &str) -> ValueSet {
        let (url, version) = split_canonical(url);
        ValueSet { url: Arc::from(url), version: version.map(Arc::from), title: None, systems: BTreeMap::new() }
    }

    /// Adds a code; a code already there keeps its display.
    pub fn insert(&mut self, system: &str, code: &str, display: Option<&str>) {
        let codes = self.systems.entry(Arc::from(system)).or_default();
        codes.entry(Arc::from(code)).or_insert_with(|| display.map(Arc::from));
    }

    /// Whether the code of that system is a member.
    pub fn contains(&self, system: &str, code: &str) -> bool {
        self.systems.get(system).is_some_and(|codes| codes.contains_key(code))
    }

    /// How many systems have the code as a member: more than one makes a bare code ambiguous.
    pub fn systems_with(&self, code: &str) -> usize {
        self.systems.values().filter(|codes| codes.contains_key(code)).count()
    }

    /// Every member, by system, then by code.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.systems
            .iter()
            .flat_map(|(system, codes)| codes.iter().map(move |(code, display)| Member { system, code, display: display.as_ref() }))
    }

    /// How many codes it has.
    pub fn len(&self) -> usize {
        self.systems.values().map(BTreeMap::len).sum()
    }

    /// Whether it has no code.
    pub fn is_empty(&self) -> bool {
        self.systems.is_empty()
    }
}

/// Splits `url|version`.
pub fn split_canonical(canonical: &str) -> (&str, Option<&str>) {
    match canonical.split_once('|') {
        Some((url, version)) if !version.is_empty() => (url, Some(version)),
        Some((url, _)) => (url, None),
        None => (canonical, None),
    }
}

/// The value sets of a run, each expanded, by canonical URL and version.
#[derive(Clone, Debug, Default)]
pub struct ValueSets {
    sets: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<ValueSet>>>,
    systems: BTreeMap<Arc<str>, Arc<CodeSystem>>,
}

impl ValueSets {
    /// No value sets.
    pub fn new() -> ValueSets {
        ValueSets::default()
    }

    /// Adds a value set; returns the one it replaces, if there was one of that URL and version.
    pub fn add(&mut self, set: ValueSet) -> Option<Arc<ValueSet>> {
        let version = set.version.clone().unwrap_or_else(|| Arc::from(""));
        self.sets.entry(set.url.clone()).or_default().insert(version, Arc::new(set))
    }

    /// Adds a value set in place of one of that URL and version, or, where it names no version, of all of that URL.
    pub fn put(&mut self, set: ValueSet) {
        if set.version.is_none() {
            self.sets.remove(&set.url);
        }
        self.add(set);
    }

    /// Adds what is known of a code system.
    pub fn add_system(&mut self, system: CodeSystem) {
        self.systems.insert(system.url.clone(), Arc::new(system));
    }

    /// The value set of that canonical URL (`url` or `url|version`); without a version the greatest
    /// one there is.
    pub fn get(&self, canonical: &str) -> Option<&Arc<ValueSet>> {
        let (url, version) = split_canonical(canonical);
        self.find(url, version)
    }

    /// As `get`, with the version apart. A version that is not there finds the only set of that URL
    /// when that one has no version.
    pub fn find(&self, url: &str, version: Option<&str>) -> Option<&Arc<ValueSet>> {
        let versions = self.sets.get(url)?;
        match version {
            None => versions.values().next_back(),
            Some(version) => versions.get(version).or_else(|| versions.get("")),
        }
    }

    /// What is known of a code system.
    pub fn system(&self, url: &str) -> Option<&Arc<CodeSystem>> {
        self.systems.get(url)
    }

    /// Every value set, by URL and version.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ValueSet>> {
        self.sets.values().flat_map(BTreeMap::values)
    }

    /// Every known URL, to suggest the nearest one.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.sets.keys().map(|url| &**url)
    }
}

/// A fragment of a code system: some of its codes with their display text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeSystem {
    /// Canonical URL.
    pub url: Arc<str>,
    /// Codes with their display text.
    pub codes: BTreeMap<Arc<str>, Option<Arc<str>>>,
}

/// A code of a system, owned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Coding {
    /// Canonical URL of the code system.
    pub system: Arc<str>,
    /// The code.
    pub code: Arc<str>,
    /// Text for people.
    pub display: Option<Arc<str>>,
}

/// Codes of one vocabulary and what they are in another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConceptMap {
    targets: BTreeMap<(Arc<str>, Arc<str>), Vec<Coding>>,
}

impl ConceptMap {
    /// Says that the source code is also the target code.
    pub fn insert(&mut self, system: &str, code: &str, target: Coding) {
        let targets = self.targets.entry((Arc::from(system), Arc::from(code))).or_default();
        if !targets.contains(&target) {
            targets.push(target);
        }
    }

    /// What a code is in the other vocabulary; empty when the map does not know it.
    pub fn targets(&self, system: &str, code: &str) -> &[Coding] {
        self.targets.get(&(Arc::from(system), Arc::from(code))).map_or(&[], Vec::as_slice)
    }

    /// Every source code with its targets, by system, then by code.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &[Coding])> {
        self.targets.iter().map(|((system, code), targets)| (&**system, &**code, targets.as_slice()))
    }
}
