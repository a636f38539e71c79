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
    pages: Vec<Placed>,
    /// The addresses that Bundles say they are of.
    addresses: BTreeSet<String>,
}

/// The manifest of a Bulk Data export.
#[derive(Debug)]
struct Manifest {
    file: String,
    named: Vec<Named>,
    /// Names of its files of errors.
    errors: Vec<String>,
    has_more: bool,
}

/// A file that a manifest names.
#[derive(Debug)]
struct Named {
    resource_type: String,
    name: String,
    count: u64,
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Holding {
    /// The types.
    pub types: BTreeSet<Arc<str>>,
    /// How many resources.
    pub resources: u64,
}

/// What a Bundle says of the search that it is a page of.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The address that it says it is of.
    pub own: Option<String>,
    /// That of the next page.
    pub next: Option<String>,
    /// How many the search found.
    pub total: Option<u64>,
    /// How many of these are here.
    pub matches: u64,
}

/// A page at its place, with the type that is asked for among what it holds.
#[derive(Debug)]
struct Placed {
    page: Page,
    place: Place,
    resource_type: Option<String>,
}

impl std::ops::Deref for Placed {
    type Target = Page;
    fn deref(&self) -> &Page {
        &self.page
    }
}

impl Page {
    /// Whether there may be more of what was searched for.
    fn is_a_part(&self) -> bool {
        self.next.is_some() || self.total.map_or(self.own.is_some(), |total| total > self.matches)
    }
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

    /// A Bundle that may be a page of a search for these types. Where it holds none, its address tells the type; where it holds several, the
    /// other pages may hold any. Of types that nobody asks for nothing is missed.
    pub(super) fn page(&mut self, place: Place, types: &[String], page: Page, is_wanted: impl Fn(&str) -> bool) {
        self.addresses.extend(page.own.clone());
        let searched = page.own.as_deref().and_then(searched).filter(|_| types.is_empty());
        let known: Vec<&str> = types.iter().map(String::as_str).chain(searched).collect();
        let types: BTreeSet<&str> = known.iter().copied().filter(|name| is_wanted(name)).collect();
        let wanted = match (types.first(), types.len()) {
            (None, _) => known.is_empty().then_some(ANY_TYPE),
            // Who is missing matters to all.
            (_, 2..) if types.contains("Patient") => Some("Patient"),
            (_, 2..) => Some(ANY_TYPE),
            (only, _) => only.copied(),
        };
        if page.is_a_part() {
            self.pages.push(Placed { place, resource_type: wanted.map(str::to_owned), page });
        }
    }

    /// Takes a document that is the manifest of an export; false when it is none. Of types that nobody asks for nothing is missed.
    pub(super) fn manifest(&mut self, file: &str, json: &[u8], is_wanted: impl Fn(&str) -> bool) -> bool {
        let manifest: Value = serde_json::from_slice(json).unwrap_or_default();
        let list = |name: &str| manifest.get(name).and_then(Value::as_array);
        let (Some(output), Some(_)) = (list("output"), manifest.get("transactionTime")) else { return false };
        let named = output.iter().filter(|item| item.get("count").and_then(Value::as_u64) != Some(0)).filter_map(|item| {
            let resource_type = item.get("type").and_then(Value::as_str).filter(|name| is_wanted(name))?;
            let count = item.get("count").and_then(Value::as_u64).unwrap_or_default();
            Some(Named { resource_type: resource_type.to_owned(), name: last_part(path_of(item)).to_owned(), count })
        });
        let has_more = list("link").into_iter().flatten().any(|link| link.get("relation").and_then(Value::as_str) == Some("next"));
        let errors = list("error").or_else(|| list("outcome")).into_iter().flatten();
        let errors = errors
            .filter(|item| item.get("count").and_then(Value::as_u64) != Some(0))
            .map(|item| last_part(path_of(item)).to_owned());
        self.manifests
            .push(Manifest { file: file.to_owned(), named: named.take(NAMED_MAX).collect(), errors: errors.take(NAMED_MAX).collect(), has_more });
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
        self.addresses.extend(other.addresses);
    }

    /// When all is read: what manifests name and pages announce must be among it. `files` have what they hold; `shows` says whether
    /// the name of a file that is not there may be shown.
    pub(super) fn finish(&mut self, files: &BTreeMap<String, Holding>, shows: &dyn Fn(&str) -> bool) {
        self.finish_pages();
        for manifest in std::mem::take(&mut self.manifests) {
            let place = (manifest.file.clone(), 0);
            if manifest.has_more {
                self.gap(place.clone(), ANY_TYPE, "it is a part of a manifest, and the next part may name further files".to_owned());
            }
            let beside = Beside::new(&manifest.file, files);
            let errors = manifest.errors.iter().filter(|name| !beside.names.contains(plain(name))).count();
            if errors > 0 {
                self.gap(place.clone(), ANY_TYPE, format!("the export has {} of errors that {} not here: what they say is missing", counted(errors, "file"), are(errors)));
            }
            for (resource_type, named) in by_type(&manifest.named) {
                let (count, absent) = beside.absent(resource_type, &named);
                let shown: Vec<String> = absent.into_iter().filter(|name| shows(name)).take(SHOWN_MAX).map(|name| format!("`{name}`")).collect();
                let shown = if shown.is_empty() { String::new() } else { format!(": {}", shown.join(", ")) };
                let reason = format!("the manifest names {} of {resource_type}, of which {count} {} not here{shown}", counted(named.len(), "file"), are(count));
                *self.missing.entry(resource_type.to_owned()).or_default() += (count as u64).saturating_sub(1);
                let (announced, here) = (named.iter().map(|named| named.count).sum::<u64>(), beside.resources(resource_type));
                if count > 0 {
                    self.gap(place.clone(), resource_type, reason);
                } else if here < announced {
                    self.gap(place.clone(), resource_type, format!("the manifest announces {announced} of {resource_type}, and its files hold {here}"));
                }
            }
        }
        self.missing.retain(|_, count| *count > 0);
    }

    /// A search is whole when one page leads to the next until none is announced, and its pages hold what it says it found. Servers
    /// call their pages otherwise in links than in the pages: what adds up, with one last page, is whole too.
    fn finish_pages(&mut self) {
        let pages = std::mem::take(&mut self.pages);
        let mut at: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, page) in pages.iter().enumerate() {
            page.own.as_deref().map(|own| at.entry(own).or_insert(index));
        }
        let led_to: BTreeSet<&str> = pages.iter().filter(|page| page.next != page.own).filter_map(|page| page.next.as_deref()).collect();
        let is_copy = |index: usize, page: &Placed| page.own.as_deref().is_some_and(|own| at.get(own) != Some(&index));
        let is_led_to = |page: &Placed| page.own.as_deref().is_some_and(|own| led_to.contains(own));
        let heads = pages.iter().enumerate().filter(|(index, page)| !is_copy(*index, page) && !is_led_to(page));
        let mut loose: BTreeMap<(&Option<String>, Option<u64>), Vec<&Placed>> = BTreeMap::new();
        let mut gaps = Vec::new();
        for (index, head) in heads {
            let mut seen = BTreeSet::from([index]);
            let mut chain = vec![head];
            while let Some(next) = chain.last().and_then(|page| at.get(page.next.as_deref()?)).filter(|next| seen.insert(**next)) {
                chain.extend(pages.get(*next));
            }
            let is_cut = chain.last().is_some_and(|last| last.next.as_deref().is_some_and(|next| !self.addresses.contains(next)));
            let total = chain.iter().find_map(|page| page.total);
            let here: u64 = chain.iter().map(|page| page.matches).sum();
            if is_cut || (chain.len() == 1 && total.is_some_and(|total| here < total)) {
                loose.entry((&head.resource_type, total)).or_default().extend(chain);
            } else if let Some(total) = total.filter(|total| here < *total) {
                gaps.push((head, fewer(total, here)));
            }
        }
        for ((_, total), pages) in loose {
            let here: u64 = pages.iter().map(|page| page.matches).sum();
            let last = pages.iter().filter(|page| page.next.is_none()).count();
            if total == Some(here) && (last == 1 || last == pages.len()) {
                continue;
            }
            for page in pages {
                let is_cut = page.next.as_deref().is_some_and(|next| !self.addresses.contains(next));
                match page.total.filter(|total| page.matches < *total && page.next.is_none()) {
                    _ if is_cut => gaps.push((page, NEXT_ABSENT.to_owned())),
                    Some(total) => gaps.push((page, fewer(total, page.matches))),
                    None => {}
                }
            }
        }
        for (page, reason) in gaps {
            if let Some(resource_type) = &page.resource_type {
                self.gap(page.place.clone(), resource_type, reason);
            }
        }
    }
}

const NEXT_ABSENT: &str = "a page of a search that has a next one, which is not among the files: fetch it, and all that follow, too";

fn fewer(total: u64, here: u64) -> String {
    format!("a page of a search that found {total}, of which {here} are here: fetch all its pages")
}

/// What the status of an entry says in the place of a resource.
pub(super) struct Refusal {
    /// Something is missing for it. What a server does not have is no gap.
    pub is_gap: bool,
    pub words: String,
}

/// What such a status says; none where it tells of a success.
pub(super) fn refusal(status: &str) -> Option<Refusal> {
    let status = status.get(..3).and_then(|code| code.parse::<u16>().ok()).filter(|code| *code >= 400)?;
    let is_gap = !matches!(status, 404 | 410);
    let words = if is_gap { "what was asked for did not come" } else { "the server does not have what was asked for" };
    Some(Refusal { is_gap, words: format!("an entry says {status}: {words}") })
}

/// The address of a Bundle's link.
pub(super) fn address<'l>(links: &'l [Link<'_>], relation: &str) -> Option<&'l str> {
    links.iter().find(|link| link.relation == relation).map(|link| &*link.url).filter(|url| !url.is_empty())
}

/// The type that an address searches for, if it is the usual form of one. An answer to a count is no page.
fn searched(address: &str) -> Option<&str> {
    let path = address.split(['?', '#']).next().unwrap_or_default();
    Some(last_part(path)).filter(|name| name.starts_with(|first: char| first.is_ascii_uppercase()) && name.bytes().all(|byte| byte.is_ascii_alphabetic()))
}

fn path_of(item: &Value) -> &str {
    let address = item.get("url").and_then(Value::as_str).unwrap_or_default();
    address.split(['?', '#']).next().unwrap_or_default()
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn by_type(named: &[Named]) -> BTreeMap<&str, Vec<&Named>> {
    let mut types: BTreeMap<&str, Vec<&Named>> = BTreeMap::new();
    named.iter().for_each(|named| types.entry(&named.resource_type).or_default().push(named));
    types
}

/// The files in and below the folder of a manifest.
struct Beside<'a> {
    names: BTreeSet<&'a str>,
    holding: Vec<&'a Holding>,
}

impl<'a> Beside<'a> {
    fn new(manifest: &str, files: &'a BTreeMap<String, Holding>) -> Beside<'a> {
        let folder = Path::new(manifest).parent().unwrap_or(Path::new(""));
        let beside = || files.iter().filter(|(file, _)| Path::new(file.as_str()).starts_with(folder));
        Beside {
            names: beside().filter_map(|(file, _)| Path::new(file).file_name()?.to_str()).map(plain).collect(),
            holding: beside().map(|(_, holding)| holding).collect(),
        }
    }

    fn of<'b>(&'b self, resource_type: &'b str) -> impl Iterator<Item = &'b &'a Holding> {
        self.holding.iter().filter(move |holding| holding.types.contains(resource_type))
    }

    fn resources(&self, resource_type: &str) -> u64 {
        self.of(resource_type).map(|holding| holding.resources).sum()
    }

    /// How many of a manifest's files of a type are not here, and names of them. Clients give files names of their own: so many
    /// files of the type as are named will be those.
    fn absent<'n>(&self, resource_type: &str, named: &[&'n Named]) -> (usize, Vec<&'n str>) {
        let absent: Vec<&str> = named.iter().map(|named| named.name.as_str()).filter(|name| !self.names.contains(plain(name))).collect();
        let count = absent.len().min(named.len().saturating_sub(self.of(resource_type).count()));
        let is_told = count == absent.len();
        (count, absent.into_iter().filter(|name| is_told && plain(name).ends_with(".ndjson")).collect())
    }
}

/// A name without the ending of its compression.
fn plain(name: &str) -> &str {
    name.trim_end_matches(".gz").trim_end_matches(".zst")
}
