//! Value sets by expansion, code systems' fragments, concept maps.
//!
//! A value set is what its expansion lists, never what its definition might mean: one that is empty or
//! only describes its content (a filter, a reference to another set) is refused by name, because
//! measuring with it would silently find nobody.

pub mod read;
pub mod spelling;
pub mod systems;
pub mod units;

use std::cmp::Ordering;
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
    /// What its expansion says of its size; none of a list that was written whole.
    pub extent: Option<Extent>,
    systems: BTreeMap<Arc<str>, Codes>,
}

/// What an expansion says of its own size. A terminology server answers in pages, so what was kept of it may be a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// How many concepts the whole expansion has, headings and nested ones included (`expansion.total`).
    pub total: Option<u64>,
    /// The concepts that are here, by the place of the first one (`expansion.offset`): one entry for each page.
    pub pages: BTreeMap<u64, u64>,
    /// The page size that was asked for, where the server does not say how many there are.
    pub page_size: Option<u64>,
    /// The server says that the expansion is not all of the set (`valueset-unclosed`, `valueset-toocostly`).
    pub is_open: bool,
}

/// How a value set is known not to be whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shortfall {
    /// Its canonical URL, with the version that is here.
    pub canonical: String,
    /// Codes that are here.
    pub held: u64,
    /// Codes that there should be, where that is known.
    pub total: Option<u64>,
}

impl Shortfall {
    /// What is wrong with it, for people.
    pub fn words(&self) -> String {
        match (self.held, self.total) {
            (0, _) => format!("value set `{}` is missing, empty or not expanded", self.canonical),
            (held, Some(total)) => format!("value set `{}` holds {held} of {total} codes: who has one of the others is not found", self.canonical),
            (held, None) => format!("value set `{}` holds {held} codes and may have more, which would not be found", self.canonical),
        }
    }
}

impl Extent {
    /// Whether the whole is here, as far as can be told.
    fn is_whole(&self) -> bool {
        let held: u64 = self.pages.values().sum();
        let whole = self.total.map_or_else(|| self.page_size.is_none_or(|size| held < size), |total| held >= total);
        whole && !self.is_open && self.pages.contains_key(&0)
    }
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
        ValueSet { url: Arc::from(url), version: version.map(Arc::from), title: None, extent: None, systems: BTreeMap::new() }
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

    /// Its canonical URL, with its version.
    pub fn canonical(&self) -> String {
        self.version.as_ref().map_or_else(|| self.url.to_string(), |version| format!("{}|{version}", self.url))
    }

    /// How it is known not to be whole; `None` where nothing says so.
    pub fn shortfall(&self) -> Option<Shortfall> {
        let extent = self.extent.as_ref().filter(|extent| !extent.is_whole())?;
        let held: u64 = extent.pages.values().sum();
        Some(Shortfall { canonical: self.canonical(), held, total: extent.total.filter(|total| *total > held) })
    }

    /// Takes in another page of the same expansion; gives it back if it is none.
    pub fn join(&mut self, other: ValueSet) -> Option<ValueSet> {
        let (Some(own), Some(theirs)) = (&mut self.extent, &other.extent) else { return Some(other) };
        let is_page = own.total.is_some() && own.total == theirs.total && theirs.pages.keys().all(|offset| !own.pages.contains_key(offset));
        if !is_page || (&self.url, &self.version) != (&other.url, &other.version) {
            return Some(other);
        }
        own.pages.extend(&theirs.pages);
        own.is_open |= theirs.is_open;
        for member in other.members() {
            self.insert(member.system, member.code, member.display.map(|display| &**display));
        }
        None
    }

    /// Whether it has the same codes.
    pub fn has_codes_of(&self, other: &ValueSet) -> bool {
        self.systems.len() == other.systems.len()
            && self
                .systems
                .iter()
                .all(|(system, codes)| other.systems.get(system).is_some_and(|others| codes.keys().eq(others.keys())))
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

/// Versions by their numbers: 1.10 comes after 1.9.
pub fn by_version(a: Option<&str>, b: Option<&str>) -> Ordering {
    let parts = |version: Option<&str>| -> Vec<(u64, String)> {
        let split = version.unwrap_or_default().split(['.', '-']);
        split.map(|part| (part.parse().unwrap_or(0), part.trim_start_matches('0').to_owned())).collect()
    };
    parts(a).cmp(&parts(b))
}

/// The value sets of a run, each expanded, by canonical URL and version.
#[derive(Clone, Debug, Default)]
pub struct ValueSets {
    sets: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<ValueSet>>>,
    systems: BTreeMap<Arc<str>, Arc<CodeSystem>>,
    /// Why there is none of an URL and version that somebody gave.
    refused: BTreeMap<String, BTreeMap<String, String>>,
    /// Where one is looked for that is not among these.
    beyond: Option<Arc<ValueSets>>,
}

impl ValueSets {
    /// No value sets.
    pub fn new() -> ValueSets {
        ValueSets::default()
    }

    /// The same, with others that are found where none of these is meant.
    pub fn before(mut self, beyond: Arc<ValueSets>) -> ValueSets {
        self.beyond = Some(beyond);
        self
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
        let own = self.sets.get(url).and_then(|versions| match version {
            None => versions.iter().max_by(|(a, _), (b, _)| by_version(Some(a), Some(b))).map(|(_, set)| set),
            Some(version) => versions.get(version).or_else(|| versions.get("")),
        });
        own.or_else(|| self.beyond.as_ref()?.find(url, version))
    }

    /// Keeps why a value set of that URL and version could not be taken.
    pub fn refuse(&mut self, url: String, version: Option<String>, reason: String) {
        self.refused.entry(url).or_default().insert(version.unwrap_or_default(), reason);
    }

    /// Why one that was given is not there; found as [`find`](Self::find) finds one that is.
    pub fn refusal(&self, url: &str, version: Option<&str>) -> Option<&str> {
        let own = self.refused.get(url).and_then(|versions| match version {
            None => versions.values().next_back(),
            Some(version) => versions.get(version).or_else(|| versions.get("")),
        });
        own.map(String::as_str).or_else(|| self.beyond.as_ref()?.refusal(url, version))
    }

    /// The versions of the value set of that URL that have codes, oldest first; empty text where one names none.
    pub fn versions(&self, url: &str) -> Vec<&str> {
        let held = self.sets.get(url).into_iter().flatten().filter(|(_, set)| !set.is_empty());
        let mut versions: Vec<&str> = held.map(|(version, _)| &**version).collect();
        versions.sort_by(|a, b| by_version(Some(a), Some(b)));
        match &self.beyond {
            Some(beyond) if versions.is_empty() => beyond.versions(url),
            _ => versions,
        }
    }

    /// What is known of a code system.
    pub fn system(&self, url: &str) -> Option<&Arc<CodeSystem>> {
        self.systems.get(url).or_else(|| self.beyond.as_ref()?.system(url))
    }

    /// Every value set, by URL and version; without those beyond.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ValueSet>> {
        self.sets.values().flat_map(BTreeMap::values)
    }

    /// Every known URL, to suggest the nearest one.
    pub fn urls(&self) -> impl Iterator<Item = &str> {
        self.sets.keys().chain(self.beyond.iter().flat_map(|beyond| beyond.sets.keys())).map(|url| &**url)
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
