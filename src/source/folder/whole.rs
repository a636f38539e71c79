//! Whether files are all that there is: manifests of exports, pages of searches, and what a server says beside the data.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::dataset::Bad;
use crate::diagnostic::counted;
use crate::source::search::code_of;

/// Most gaps, and sayings, that are kept with their place; all are counted.
const KEPT_MAX: usize = 10_000;
/// Most files of a manifest that are looked for.
const NAMED_MAX: usize = 1_000_000;
/// So many absent files are named.
const SHOWN_MAX: usize = 3;
/// What is missing is of no known type.
pub(super) const ANY_TYPE: &str = "Resource";
/// Severities of an OperationOutcome, worst first; the first two say that something is missing.
const SEVERITIES: [&str; 4] = ["fatal", "error", "warning", "information"];

/// Something that is not there though it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where that is told, and why.
    pub told: Bad,
    /// Its type.
    pub resource_type: String,
}

/// What files tell of themselves and of others.
#[derive(Debug, Default)]
pub struct Signs {
    /// Types of which there is a resource.
    pub types: BTreeSet<Arc<str>>,
    /// What is missing; not all of it where there is much.
    pub gaps: Vec<Gap>,
    /// How often something of a type is missing.
    pub missing: BTreeMap<String, u64>,
    /// What else a server says; not all of it where there is much.
    pub said: Vec<Bad>,
    /// How much it says.
    pub said_count: u64,
    manifests: Vec<Manifest>,
    pages: Vec<Page>,
}

/// The manifest of a Bulk Data export.
#[derive(Debug)]
struct Manifest {
    file: String,
    named: Vec<Named>,
    has_more: bool,
}

/// A file that a manifest names.
#[derive(Debug)]
struct Named {
    resource_type: String,
    name: String,
}

/// A Bundle that has a next page.
#[derive(Debug)]
struct Page {
    place: Place,
    resource_type: String,
    next: String,
}

/// A file, and the line or the entry in it; 0 for the whole.
type Place = (String, u64);

/// Links of a Bundle.
#[derive(Deserialize)]
pub(super) struct Link<'a> {
    #[serde(borrow, default)]
    relation: Cow<'a, str>,
    #[serde(borrow, default)]
    url: Cow<'a, str>,
}

fn bad((file, line): Place, reason: String) -> Bad {
    Bad { file, line, reason: Cow::Owned(reason) }
}

impl Signs {
    pub(super) fn gap(&mut self, place: Place, resource_type: &str, reason: String) {
        *self.missing.entry(resource_type.to_owned()).or_default() += 1;
        if self.gaps.len() < KEPT_MAX {
            self.gaps.push(Gap { told: bad(place, reason), resource_type: resource_type.to_owned() });
        }
    }

    /// Something that the reader should know and that leaves the data whole.
    pub(super) fn say(&mut self, place: Place, reason: String) {
        self.said_count += 1;
        if self.said.len() < KEPT_MAX {
            self.said.push(bad(place, reason));
        }
    }

    /// An OperationOutcome: its worst severity and that issue's code. Its text may hold anything and is left out.
    pub(super) fn outcome(&mut self, place: Place, json: &[u8]) {
        let outcome: Value = serde_json::from_slice(json).unwrap_or_default();
        let issues = outcome.get("issue").and_then(Value::as_array).into_iter().flatten();
        let rank = |issue: &&Value| {
            issue
                .get("severity")
                .and_then(Value::as_str)
                .and_then(|severity| SEVERITIES.iter().position(|known| *known == severity))
                .unwrap_or(SEVERITIES.len() - 1)
        };
        let worst = issues.min_by_key(rank).unwrap_or(&Value::Null);
        let rank = rank(&worst);
        let code = code_of(worst).map(|code| format!(" ({code})")).unwrap_or_default();
        let reason = format!("an OperationOutcome: the server says `{}`{code}", SEVERITIES.get(rank).unwrap_or(&""));
        if rank < 2 { self.gap(place, ANY_TYPE, reason) } else { self.say(place, reason) }
    }

    /// The links of a Bundle that holds a type that is asked for, or nothing.
    pub(super) fn page(&mut self, place: Place, resource_type: Option<&str>, links: &[Link<'_>]) {
        let next = links.iter().find(|link| link.relation == "next" && !link.url.is_empty());
        if let Some(next) = next {
            self.pages
                .push(Page { place, resource_type: resource_type.unwrap_or(ANY_TYPE).to_owned(), next: next.url.clone().into_owned() });
        }
    }

    /// Takes a document that is the manifest of an export; false when it is none. Of types that nobody asks for nothing is missed.
    pub(super) fn manifest(&mut self, file: &str, json: &[u8], is_wanted: impl Fn(&str) -> bool) -> bool {
        let manifest: Value = serde_json::from_slice(json).unwrap_or_default();
        let list = |name: &str| manifest.get(name).and_then(Value::as_array);
        let (Some(output), Some(_)) = (list("output"), manifest.get("transactionTime")) else { return false };
        let named = output.iter().filter(|item| item.get("count").and_then(Value::as_u64) != Some(0)).filter_map(|item| {
            let resource_type = item.get("type").and_then(Value::as_str).filter(|name| is_wanted(name))?;
            let address = item.get("url").and_then(Value::as_str).unwrap_or_default();
            let path = address.split(['?', '#']).next().unwrap_or_default();
            Some(Named { resource_type: resource_type.to_owned(), name: path.rsplit('/').next().unwrap_or_default().to_owned() })
        });
        let has_more = list("link").into_iter().flatten().any(|link| link.get("relation").and_then(Value::as_str) == Some("next"));
        self.manifests.push(Manifest { file: file.to_owned(), named: named.take(NAMED_MAX).collect(), has_more });
        let errors = list("error").or_else(|| list("outcome")).map_or(0, Vec::len);
        if errors > 0 {
            self.say((file.to_owned(), 0), format!("the export has {} of errors", counted(errors, "file")));
        }
        true
    }

    /// The same of a part of a file that so many lines come before.
    pub(super) fn after(mut self, lines: u64) -> Signs {
        let places = self.gaps.iter_mut().map(|gap| &mut gap.told.line).chain(self.said.iter_mut().map(|said| &mut said.line));
        let places = places.chain(self.pages.iter_mut().map(|page| &mut page.place.1));
        places.filter(|line| **line > 0).for_each(|line| *line += lines);
        self
    }

    /// Adds what another part tells.
    pub(super) fn merge(&mut self, other: Signs) {
        self.types.extend(other.types);
        let room = |kept: usize| KEPT_MAX.saturating_sub(kept);
        self.gaps.extend(other.gaps.into_iter().take(room(self.gaps.len())));
        self.said.extend(other.said.into_iter().take(room(self.said.len())));
        self.said_count += other.said_count;
        for (name, count) in other.missing {
            *self.missing.entry(name).or_default() += count;
        }
        self.manifests.extend(other.manifests);
        self.pages.extend(other.pages);
    }

    /// When all is read: what manifests name and pages announce must be among it. `files` have the types they hold, `pages` are
    /// the addresses that Bundles say they are of.
    pub(super) fn finish(&mut self, files: &BTreeMap<String, BTreeSet<Arc<str>>>, pages: &BTreeSet<String>) {
        for page in std::mem::take(&mut self.pages) {
            if !pages.contains(&page.next) {
                let reason = "a page of a search that has a next one, which is not among the files: fetch it, and all that follow, too".to_owned();
                self.gap(page.place, &page.resource_type, reason);
            }
        }
        for manifest in std::mem::take(&mut self.manifests) {
            if manifest.has_more {
                self.gap((manifest.file.clone(), 0), ANY_TYPE, "it is a part of a manifest, and the next part may name further files".to_owned());
            }
            for (resource_type, named) in by_type(&manifest.named) {
                let (count, absent) = absent(&manifest.file, resource_type, &named, files);
                let are = if count == 1 { "is" } else { "are" };
                let shown = if absent.is_empty() { String::new() } else { format!(": {}", absent.join(", ")) };
                let reason = format!("the manifest names {} of {resource_type}, of which {count} {are} not here{shown}", counted(named.len(), "file"));
                (0..count).for_each(|_| *self.missing.entry(resource_type.to_owned()).or_default() += 1);
                if count > 0 {
                    self.gaps.push(Gap { told: bad((manifest.file.clone(), 0), reason), resource_type: resource_type.to_owned() });
                }
            }
        }
    }
}

/// The address that a Bundle says it is of.
pub(super) fn own_address(links: &[Link<'_>]) -> Option<String> {
    links.iter().find(|link| link.relation == "self").map(|link| link.url.clone().into_owned())
}

fn by_type(named: &[Named]) -> BTreeMap<&str, Vec<&str>> {
    let mut types: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    named.iter().for_each(|named| types.entry(&named.resource_type).or_default().push(&named.name));
    types
}

/// How many of a manifest's files of a type are not here, and some of their names. Clients give files names of their own: so many
/// files of the type as are named will be those.
fn absent(manifest: &str, resource_type: &str, named: &[&str], files: &BTreeMap<String, BTreeSet<Arc<str>>>) -> (usize, Vec<String>) {
    let folder = Path::new(manifest).parent().unwrap_or(Path::new(""));
    let beside = || files.iter().filter(|(file, _)| Path::new(file.as_str()).starts_with(folder));
    let here: BTreeSet<&str> = beside().filter_map(|(file, _)| Path::new(file).file_name()?.to_str()).map(plain).collect();
    let absent: Vec<&str> = named.iter().copied().filter(|name| !here.contains(plain(name))).collect();
    let holding = beside().filter(|(_, types)| types.contains(resource_type)).count();
    let count = absent.len().min(named.len().saturating_sub(holding));
    let shown = absent.iter().filter(|name| plain(name).ends_with(".ndjson")).take(if count == absent.len() { SHOWN_MAX } else { 0 });
    (count, shown.map(|name| format!("`{name}`")).collect())
}

/// A name without the ending of its compression.
fn plain(name: &str) -> &str {
    name.trim_end_matches(".gz").trim_end_matches(".zst")
}
