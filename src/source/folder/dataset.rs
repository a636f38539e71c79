//! Lines kept of files: which ones, whose they are, and where they lie in memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::fhir::compartment::{Head, PatientElement, in_compartment, is_id, reference_target};
use crate::fhir::entries::Entries;
use crate::fhir::merged::{Links, Merged};
use crate::fhir::modifier;
use crate::fhir::record::glance::{self, Key, Kinds};
use crate::fhir::record::{Outlook, Shape};
use crate::source::import::known::{Ask, Known};

use super::opening;
use super::whole::{ANY_TYPE, Holding, Link, Page, Refusal, Signs, address, refusal};
use identified::Bearer;
pub(super) use identified::{Asked, known};
use owner::Claim;
pub(super) use owner::Wanted;

mod identified;
mod owner;

/// Most bad lines that are kept with their place; all are counted.
const BAD_KEPT_MAX: usize = 10_000;
/// Room for the lines that are kept of a compressed file, at first.
const FIRST_TEXT_BYTES: usize = 64 << 10;
/// Stands for the patient of a resource of no patient.
const NOBODY: u32 = u32::MAX;

/// Deepest nesting of Bundles.
const BUNDLES_DEPTH_MAX: usize = 4;

const NO_PATIENT: &str = "it names no patient";
const NO_OBJECT: &str = "this is not one JSON object";
const UNFOLLOWED: &str = "it says that another Patient took its place (`link`, `replaced-by`), who is not in the data: it is counted itself";

/// The resources of many patients, in memory.
#[derive(Debug, Default)]
pub struct Dataset {
    parts: Vec<Part>,
    /// By id, with their run of `places`.
    patients: Vec<(String, Range<usize>)>,
    places: Vec<Place>,
    shared: Vec<Place>,
    merged: Arc<Merged>,
    /// What could not be read, in the order of the files; not all of it where there is much.
    pub bad: Vec<Bad>,
    /// How many could not be read.
    pub bad_count: u64,
    /// Resources met, those of no use included.
    pub resources: u64,
    /// What the files tell of their being whole.
    pub signs: Signs,
    /// By type: resources that a newer version gave to another patient, all patients' of the data.
    pub moved: BTreeMap<String, u64>,
    /// By type: ids under which several patients have a resource, none of them told to be the newest; all patients' of the data.
    pub unclear: BTreeMap<String, u64>,
}

/// A line or resource that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The file.
    pub file: String,
    /// The line, or the entry of a Bundle, counted from 1; 0 for the whole file.
    pub line: u64,
    /// Why; nothing of its content.
    pub reason: Cow<'static, str>,
}

/// A line's part and row.
type Place = (u32, u32);

/// One patient's resources.
#[derive(Clone, Copy)]
pub struct Patient<'d> {
    /// The bare id.
    pub id: &'d str,
    data: &'d Dataset,
    places: &'d [Place],
}

impl<'d> Patient<'d> {
    /// One JSON object each, in the order of the files.
    pub fn lines(self) -> impl Iterator<Item = &'d [u8]> {
        self.places.iter().map(move |place| self.data.line(*place))
    }

    /// What is to be said of the patient's line `index`, which turned out to be unreadable.
    pub fn bad(self, index: usize, reason: String) -> Option<Bad> {
        let (part, row) = *self.places.get(index)?;
        let part = self.data.parts.get(part as usize)?;
        Some(Bad { file: part.file.clone(), line: part.rows.get(row as usize)?.number, reason: Cow::Owned(reason) })
    }
}

impl Dataset {
    /// Joins parts in the order of the files; several patients may have the resources that are contested.
    pub(super) fn join(mut parts: Vec<Part>, share: &Share, contested: &FxHashSet<Key>) -> Dataset {
        let (moved, unclear) = owner::settle(&mut parts, contested, &share.merged);
        parts.chunk_by_mut(|one, next| one.file == next.file).for_each(|parts| give_to_the_only_patient(parts, share));
        let mut data = Dataset { parts, merged: share.merged.clone(), moved, unclear, ..Dataset::default() };
        let mut told = BTreeSet::new();
        let mut met = 0;
        let mut file = String::new();
        let mut files: BTreeMap<String, Holding> = BTreeMap::new();
        let mut found = Vec::new();
        for (index, part) in (0..).zip(&mut data.parts) {
            if part.file != file {
                file.clone_from(&part.file);
                met = 0;
            }
            data.resources += part.resources;
            let holding = files.entry(part.file.clone()).or_default();
            holding.types.extend(part.signs.types.iter().cloned());
            holding.resources += part.resources;
            data.signs.merge(std::mem::take(&mut part.signs).after(met));
            for (id, line) in std::mem::take(&mut part.replaced) {
                let place = (part.file.clone(), line + met);
                if data.merged.is_unfollowed(&id) && told.insert(id) {
                    data.signs.gap(place, "Patient", UNFOLLOWED.to_owned());
                }
            }
            data.bad_count += part.bad_count;
            let room = BAD_KEPT_MAX.saturating_sub(data.bad.len());
            data.bad.extend(part.bad.drain(..).take(room).map(|bad| Bad { line: bad.line + met, ..bad }));
            part.rows.iter_mut().for_each(|row| row.number += met);
            met += part.lines;
            let mut rows: Vec<(u32, Place)> = (0..).zip(&part.rows).map(|(row, at)| (at.patient, (index, row))).collect();
            rows.sort_unstable();
            for of_one in rows.chunk_by(|one, next| one.0 == next.0) {
                let places = of_one.iter().map(|(_, place)| *place);
                match of_one.first().and_then(|(patient, _)| part.patients.get_mut(*patient as usize)) {
                    Some(patient) if !share.holds(patient) => {}
                    Some(patient) => {
                        let start = data.places.len();
                        data.places.extend(places);
                        found.push((std::mem::take(patient), start..data.places.len()));
                    }
                    None => data.shared.extend(places),
                }
            }
        }
        data.signs.finish(&files, &|_| true);
        data.join_merged(&mut found);
        data.join_patients(found);
        data
    }

    /// Gives what is written of those who were merged into others to these; their own Patients are nobody's any more.
    fn join_merged(&mut self, found: &mut Vec<(String, Range<usize>)>) {
        let merged = self.merged.clone();
        if merged.moved().next().is_none() {
            return;
        }
        found.retain_mut(|(id, run)| {
            let survivor = merged.survivor(id);
            if survivor == id {
                return true;
            }
            let of_patient = |place: &Place| glance::identity(self.line(*place)).is_some_and(|(name, _)| name == "Patient");
            let others: Vec<Place> = self.places.get(run.clone()).unwrap_or_default().iter().filter(|place| !of_patient(place)).copied().collect();
            *run = self.places.len()..self.places.len() + others.len();
            self.places.extend(&others);
            *id = survivor.to_owned();
            !others.is_empty()
        });
    }

    /// One run of places for each patient, in the order of the files. Most files are in the order of their patients, so that sorting
    /// costs less than a tree.
    fn join_patients(&mut self, mut found: Vec<(String, Range<usize>)>) {
        found.sort_by(|(one, _), (next, _)| one.cmp(next));
        let places = std::mem::take(&mut self.places);
        self.places.reserve_exact(places.len());
        for runs in found.chunk_by_mut(|(one, _), (next, _)| one == next) {
            let from = self.places.len();
            runs.iter().for_each(|(_, run)| self.places.extend_from_slice(places.get(run.clone()).unwrap_or_default()));
            if runs.len() > 1 {
                self.places.get_mut(from..).unwrap_or_default().sort_unstable();
            }
            let id = runs.first_mut().map(|(id, _)| std::mem::take(id));
            self.patients.extend(id.map(|id| (id, from..self.places.len())));
        }
    }

    fn line(&self, (part, row): Place) -> &[u8] {
        let found = self.parts.get(part as usize).and_then(|part| part.line(part.rows.get(row as usize)?));
        found.unwrap_or_default()
    }

    /// The patients, by id.
    pub fn patients(&self) -> impl Iterator<Item = Patient<'_>> {
        self.patients.iter().map(|patient| self.with_places(patient))
    }

    /// The patient of that id, or whom it was merged into.
    pub fn patient(&self, id: &str) -> Option<Patient<'_>> {
        let id = self.merged.survivor(id);
        let at = self.patients.binary_search_by(|(own, _)| own.as_str().cmp(id)).ok()?;
        self.patients.get(at).map(|patient| self.with_places(patient))
    }

    fn with_places<'d>(&'d self, (id, run): &'d (String, Range<usize>)) -> Patient<'d> {
        Patient { id, data: self, places: self.places.get(run.clone()).unwrap_or_default() }
    }

    /// Resources of no patient: Location, Medication, ….
    pub fn shared(&self) -> impl Iterator<Item = &[u8]> {
        self.shared.iter().map(|place| self.line(*place))
    }
}

/// A file with one Patient, in which nobody else is named, is the record of that patient: what names nobody in it is the patient's.
/// In other files a resource that cannot do without a patient is set aside.
fn give_to_the_only_patient(parts: &mut [Part], share: &Share) {
    let whole = |of: fn(&Part) -> &Whose| parts.iter().map(|part| of(part).clone()).fold(Whose::Nobody, Whose::and);
    let (only, named) = (whole(|part| &part.whose), whole(|part| &part.named));
    let only = if only == named { only } else { Whose::Many };
    for part in parts {
        let mut own = NOBODY;
        if let Whose::One(patient) = &only
            && share.holds(patient)
        {
            let known = part.patients.iter().position(|other| other == patient);
            let number = known.unwrap_or_else(|| {
                part.patients.push(patient.clone());
                part.patients.len() - 1
            });
            own = u32::try_from(number).unwrap_or(NOBODY);
        }
        let is_record = matches!(only, Whose::One(_));
        for row in std::mem::take(&mut part.rows) {
            if row.patient != NOBODY {
                part.rows.push(row);
                continue;
            }
            if is_record && own != NOBODY {
                part.rows.push(Row { patient: own, ..row });
            }
            match row.orphan {
                Orphan::Required if !is_record => part.set_aside(row.number, NO_PATIENT),
                Orphan::Required | Orphan::Optional if is_record => {}
                _ => part.rows.push(row),
            }
        }
        part.bad.sort_by_key(|bad| bad.line);
    }
}

/// Whose Patient resources a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Whose {
    #[default]
    Nobody,
    One(String),
    Many,
}

impl Whose {
    fn and(self, other: Whose) -> Whose {
        match (self, other) {
            (Whose::Nobody, whose) | (whose, Whose::Nobody) => whose,
            (one, other) if one == other => one,
            _ => Whose::Many,
        }
    }
}

impl Whose {
    /// One more.
    fn meet(&mut self, patient: &str) {
        match self {
            Whose::Nobody => *self = Whose::One(patient.to_owned()),
            Whose::One(one) if one == patient => {}
            _ => *self = Whose::Many,
        }
    }
}

/// Some of the patients: those whose id falls into part `index` of `count` by a hash of it. Data too large for the memory
/// are read once for each share, so that nothing of a patient is written to another disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub index: u64,
    /// How many there are.
    pub count: u64,
    /// Who counts as whom, as far as that is known: a person's data are in one share.
    pub(super) merged: Arc<Merged>,
    /// Who has the identifiers by which resources name their patients, as far as these were met.
    pub(super) known: Arc<Known>,
}

impl Share {
    /// All patients.
    pub fn all() -> Share {
        Share { index: 0, count: 1, merged: Arc::default(), known: Arc::default() }
    }

    fn holds(&self, patient: &str) -> bool {
        self.count <= 1 || hash(self.merged.survivor(patient)) % self.count == self.index
    }
}

/// FNV-1a: the same on every machine.
fn hash(patient: &str) -> u64 {
    patient.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Who counts as whom, by all of the files.
pub(super) fn merged<'p>(parts: impl Iterator<Item = &'p Part> + Clone) -> Merged {
    let mut links = Links::default();
    parts.clone().for_each(|part| links.merge(part.links.clone()));
    let named: FxHashSet<u64> = links.everybody().map(hash).collect();
    let here: FxHashSet<u64> = parts.flat_map(|part| &part.people).filter(|person| named.contains(person)).copied().collect();
    Merged::follow(&links, |id| here.contains(&hash(id)))
}

/// What is kept of one run of lines, in one buffer.
#[derive(Debug, Default)]
pub(super) struct Part {
    file: String,
    text: Vec<u8>,
    /// Bytes that it may come to: memory that is not written to costs nothing, and moving it each time it doubles does.
    room: usize,
    rows: Vec<Row>,
    patients: Vec<String>,
    /// Whose Patients it holds, and whom its resources name, those of no use included.
    whose: Whose,
    named: Whose,
    /// Hashes of the ids of its Patients; those that were replaced by others, with their line, and by whom.
    people: Vec<u64>,
    replaced: Vec<(String, u64)>,
    links: Links,
    /// By which identifiers patients are named of whom is not known who they are; Patients who may have those that are asked for.
    pub(super) asked: BTreeSet<Ask>,
    bearers: Vec<Bearer>,
    bad: Vec<Bad>,
    bad_count: u64,
    resources: u64,
    /// What it tells of being whole.
    signs: Signs,
    /// Lines met, blank ones included.
    pub(super) lines: u64,
    /// Whom what was kept names, of all shares; and, of the types of which lines are passed over, what was not kept.
    claims: Vec<Claim>,
    pub(super) passed_over: Vec<Key>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    /// Among the part's patients, or [`NOBODY`].
    patient: u32,
    length: u32,
    orphan: Orphan,
    start: usize,
    /// Of the line, or of the entry of a Bundle.
    number: u64,
}

/// What to think of a resource that names no patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Orphan {
    /// It belongs to none, or names somebody else.
    No,
    /// Its type usually belongs to one.
    Optional,
    /// Its type cannot do without.
    Required,
}

impl Part {
    fn line(&self, row: &Row) -> Option<&[u8]> {
        self.text.get(row.start..row.start + row.length as usize)
    }

    /// Bytes that it occupies, about.
    pub(super) fn size(&self) -> u64 {
        let of_patients: usize = self.patients.iter().map(|patient| patient.len() + size_of::<String>()).sum();
        (self.text.capacity() + self.rows.capacity() * size_of::<Row>() + self.people.capacity() * size_of::<u64>() + of_patients) as u64
    }

    /// Forgets patients who are not of the share.
    pub(super) fn prune(&mut self, share: &Share) {
        let mut numbers = HashMap::new();
        let mut patients = Vec::new();
        for (number, patient) in (0..).zip(std::mem::take(&mut self.patients)) {
            if share.holds(&patient) {
                numbers.insert(number, patients.len() as u32);
                patients.push(patient);
            }
        }
        let (text, rows) = (std::mem::take(&mut self.text), std::mem::take(&mut self.rows));
        for row in rows {
            let patient = if row.patient == NOBODY { NOBODY } else { numbers.get(&row.patient).copied().unwrap_or(NOBODY) };
            if row.patient == NOBODY || patient != NOBODY {
                let line = text.get(row.start..row.start + row.length as usize);
                self.push(patient, row.orphan, line.unwrap_or_default(), row.number);
            }
        }
        self.patients = patients;
        self.shrink();
    }

    fn push(&mut self, patient: u32, orphan: Orphan, line: &[u8], number: u64) {
        // Lines are far shorter than 4 GiB: what reads them has limits.
        let row = Row { patient, orphan, length: line.len() as u32, start: self.text.len(), number };
        if self.rows.is_empty() {
            self.text.reserve(self.room);
        }
        self.text.extend_from_slice(line);
        self.rows.push(row);
    }

    fn set_aside(&mut self, line: u64, reason: &'static str) {
        self.bad_count += 1;
        if self.bad.len() < BAD_KEPT_MAX {
            self.bad.push(Bad { file: self.file.clone(), line, reason: Cow::Borrowed(reason) });
        }
    }

    fn shrink(&mut self) {
        self.claims.shrink_to_fit();
        self.text.shrink_to_fit();
        self.rows.shrink_to_fit();
    }
}

/// A line that matters, and whose lines are kept at that.
#[derive(Clone, Copy)]
struct Found<'l> {
    line: &'l [u8],
    number: u64,
    /// None of a Patient, who is nobody else's, and of what has no id.
    key: Option<Key>,
    whom: Whom,
}

/// Patients whose lines are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// Those of the share.
    Share,
    /// All but those.
    Others,
    All,
}

impl Found<'_> {
    fn claim(&self, patient: Option<&str>) -> Option<Claim> {
        self.key.map(|key| Claim::new(key, patient))
    }
}

/// Looks at lines and keeps those that matter.
pub(super) struct Scan<'s> {
    kinds: Kinds<'s>,
    outlook: Outlook<'s>,
    share: Share,
    /// Only what a first reading left out of these.
    wanted: Option<&'s Wanted>,
    numbers: FxHashMap<String, u32>,
    element: LastElement,
    /// The type of the last line.
    met: Option<Arc<str>>,
    /// Bundles that what is being read lies in.
    depth: usize,
    part: Part,
}

#[derive(Deserialize)]
struct BundleText<'a> {
    #[serde(borrow, default)]
    entry: Vec<EntryText<'a>>,
    #[serde(borrow, default)]
    link: Option<&'a RawValue>,
    #[serde(borrow, default)]
    total: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct EntryText<'a> {
    #[serde(borrow, default, rename = "fullUrl")]
    full_url: Option<&'a RawValue>,
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    search: Option<&'a RawValue>,
}

/// What an entry says was done to a resource.
#[derive(Default, Deserialize)]
struct Change<'a> {
    #[serde(borrow, default)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    url: Cow<'a, str>,
}

/// What an entry says came of it.
#[derive(Default, Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    status: Cow<'a, str>,
}

/// What an entry is to the search.
#[derive(Default, Deserialize)]
struct Mode<'a> {
    #[serde(borrow, default)]
    mode: Cow<'a, str>,
}

/// A part of a Bundle; nothing where it is not of its form.
fn text_of<'a, T: Deserialize<'a> + Default>(json: Option<&'a RawValue>) -> T {
    json.and_then(|json| serde_json::from_str(json.get()).ok()).unwrap_or_default()
}

/// Where the type of the last line names its patient.
type LastElement = Option<(Arc<str>, Option<PatientElement>)>;

fn element_of<'e>(last: &'e mut LastElement, name: &Arc<str>) -> Option<&'e PatientElement> {
    if last.as_ref().is_none_or(|(of, _)| of != name) {
        *last = Some((name.clone(), PatientElement::of(name)));
    }
    last.as_ref().and_then(|(_, element)| element.as_ref())
}

/// The patient whom a resource names.
fn named(last: &mut LastElement, name: &Arc<str>, line: &[u8]) -> Option<String> {
    let quick = element_of(last, name).and_then(|element| element.patient(line)).map(Cow::into_owned);
    quick.or_else(|| if in_compartment(name) { Head::read(line)?.patient(name) } else { None })
}

impl<'s> Scan<'s> {
    /// Of a file, of which `bytes` are read, as far as that is known.
    pub(super) fn new(file: String, bytes: Option<u64>, shape: &'s Shape, share: Share, wanted: Option<&'s Wanted>) -> Scan<'s> {
        let room = bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(FIRST_TEXT_BYTES);
        Scan {
            kinds: Kinds::new(shape),
            outlook: Outlook::default(),
            share,
            wanted,
            numbers: FxHashMap::default(),
            element: None,
            met: None,
            depth: 0,
            part: Part { file, room, ..Part::default() },
        }
    }

    pub(super) fn finish(mut self, lines: u64) -> Part {
        if self.wanted.is_some() {
            let Part { claims, file, text, rows, patients, asked, bearers, .. } = self.part;
            self.part = Part { claims, file, text, rows, patients, asked, bearers, ..Part::default() };
        }
        self.part.lines = lines;
        self.part.shrink();
        self.part
    }

    /// A Bundle's resources, or a single resource.
    pub(super) fn take_document(&mut self, bytes: &[u8]) {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii();
        let Some(head) = Head::read(bytes) else { return self.set_aside(1, opening(bytes).unwrap_or(NO_OBJECT)) };
        let kinds = &self.kinds;
        match Head::text(head.resource_type).as_deref() {
            Some("Bundle") => self.take_bundle(bytes, None),
            None if self.part.signs.manifest(&self.part.file, bytes, |name| kinds.wants(name)) => {}
            _ => self.take(bytes, 1, None, false),
        }
    }

    /// The resources of a Bundle, each by its place in it or, of a Bundle that is a line, by that. Bundles lie in Bundles where
    /// several questions were asked at once.
    fn take_bundle(&mut self, bytes: &[u8], line: Option<u64>) {
        let bundle = std::str::from_utf8(bytes).ok().and_then(|text| serde_json::from_str::<BundleText<'_>>(text).ok());
        let (Some(bundle), true) = (bundle, self.depth < BUNDLES_DEPTH_MAX) else {
            return self.set_aside(line.unwrap_or(1), "the Bundle cannot be read");
        };
        self.depth += 1;
        let named = bundle.entry.iter().filter_map(|entry| Some((text_of(Some(entry.full_url?)), entry.resource?.get())));
        let entries = Entries::of(named);
        let (mut types, mut matches): (Vec<String>, u64) = (Vec::new(), 0);
        for (entry, number) in bundle.entry.iter().zip(1..) {
            let number = line.unwrap_or(number);
            match entry.resource {
                Some(resource) => {
                    self.take(&entries.resolve(resource.get().as_bytes()), number, None, true);
                    types.extend(self.met.as_deref().filter(|met| types.iter().all(|name| name != met)).map(str::to_owned));
                    matches += u64::from(self.met.is_some() && text_of::<Mode<'_>>(entry.search).mode != "include");
                }
                None => matches += u64::from(self.without_resource(entry, number)),
            }
        }
        self.depth -= 1;
        let links: Vec<Link<'_>> = text_of(bundle.link);
        let link = |relation| address(&links, relation).map(str::to_owned);
        let total = text_of::<Option<serde_json::Value>>(bundle.total).and_then(|total| total.as_u64());
        let page = Page { own: link("self"), next: link("next"), total, matches };
        let kinds = &self.kinds;
        self.part.signs.page((self.part.file.clone(), line.unwrap_or(0)), &types, page, |name| kinds.wants(name));
    }

    /// An entry with nothing in it; whether it speaks of a resource that was deleted. What was deleted may be among the data, where it is not looked for; what a server does not have
    /// is no gap, as it is none of a pull, and what it did not give is one.
    fn without_resource(&mut self, entry: &EntryText<'_>, number: u64) -> bool {
        let (change, answer): (Change<'_>, Answer<'_>) = (text_of(entry.request), text_of(entry.response));
        let place = (self.part.file.clone(), number);
        if change.method == "DELETE" {
            let of_one = reference_target(&change.url).and_then(|(named, _)| named);
            let named = of_one.or(change.url.split(['/', '?']).next()).unwrap_or_default();
            if self.kinds.wants(named) {
                let reason = format!("an entry says that a resource was deleted, of type {named}, which may be among the data: it is not looked for here");
                self.part.signs.gap(place, named, reason);
            }
            return true;
        }
        match refusal(&answer.status) {
            None => {}
            Some(Refusal { is_gap: false, words }) => self.part.signs.say(place, words),
            Some(Refusal { is_gap: true, words }) => self.part.signs.gap(place, ANY_TYPE, words),
        }
        false
    }

    /// One resource. What cannot matter is not parsed, so a fault inside it is not seen; a line without its end might be
    /// cut short before what matters, and is parsed in any case. What matters is parsed when its patient's record is made.
    /// Of a line in a file, `stream` says where it begins there, and what is known from there on.
    pub(super) fn take(&mut self, line: &[u8], number: u64, stream: Option<(u64, &[u8])>, terminated: bool) {
        if line.first() != Some(&b'{') || line.last() != Some(&b'}') || (!terminated && Head::read(line).is_none()) {
            return self.set_aside(number, opening(line).filter(|_| number == 1).unwrap_or(NO_OBJECT));
        }
        let Ok(kind) = self.kinds.of(line) else {
            return self.set_aside(number, if Head::read(line).is_some() { "no resourceType" } else { NO_OBJECT });
        };
        if let Some(fault) = kind.fault {
            return self.set_aside(number, fault);
        }
        self.part.resources += 1;
        if self.met.as_ref().is_none_or(|met| !Arc::ptr_eq(met, &kind.name)) {
            self.met = Some(kind.name.clone());
            match &*kind.name {
                "Bundle" | "OperationOutcome" => self.met = None,
                _ => drop(self.part.signs.types.insert(kind.name.clone())),
            }
            match &*kind.name {
                "Bundle" => return self.take_bundle(line, Some(number)),
                "OperationOutcome" => return self.part.signs.outcome((self.part.file.clone(), number), line),
                _ => {}
            }
        }
        let is_patient = &*kind.name == "Patient";
        if self.part.named != Whose::Many
            && let Some(patient) = named(&mut self.element, &kind.name, line)
        {
            self.part.named.meet(&patient);
        }
        if kind.keep.is_none() && !is_patient {
            return;
        }
        let matters = is_patient
            || match stream {
                Some((at, ahead)) => kind.may_matter_in(&mut self.outlook, line, at, ahead),
                None => kind.may_matter(line),
            };
        let known = if kind.is_sieved() && !matters { kind.key(line) } else { None };
        let key = |id: Option<&str>| id.filter(|_| !is_patient).map(|id| kind.key_of(id.as_bytes()));
        let whom = match (self.wanted, known) {
            (None, None) => Whom::Share,
            (None, Some(key)) => return self.part.passed_over.push(key),
            (Some(wanted), None) if is_patient => return self.ask_who(line, &wanted.asked),
            (Some(wanted), Some(key)) if wanted.versions.contains(&key) => Whom::All,
            (Some(wanted), None) if !wanted.contested.is_empty() && key(kind.id(line).as_deref()).is_some_and(|key| wanted.contested.contains(&key)) => Whom::Others,
            (Some(_), _) => return,
        };
        if modifier::turns_round(line) {
            return self.set_aside(number, modifier::REASON);
        }
        let id = kind.id(line);
        let found = Found { line, number, key: key(id.as_deref()), whom };
        if let (true, Some(id)) = (is_patient, &id) {
            self.part.whose.meet(id);
            self.part.people.push(hash(id));
            if self.part.links.take(line) {
                self.part.replaced.push((id.clone().into_owned(), number));
            }
        }
        let has_id = id.is_some_and(|id| is_id(&id));
        let name = kind.name.clone();
        let element = element_of(&mut self.element, &name);
        match element.filter(|_| has_id).and_then(|element| element.patient(line)) {
            Some(patient) => self.keep_for(&patient, found),
            None => self.keep(&name, found),
        }
    }

    /// What the quick look did not tell is asked of the whole head.
    fn keep(&mut self, resource_type: &str, found: Found<'_>) {
        let Found { line, number, .. } = found;
        let Some(head) = Head::read(line) else { return self.set_aside(number, NO_OBJECT) };
        if Head::text(head.id).is_none_or(|id| !is_id(&id)) {
            return self.set_aside(number, "no id, or one that FHIR does not allow");
        }
        match head.patient(resource_type) {
            Some(patient) => self.keep_for(&patient, found),
            None => self.keep_unnamed(resource_type, &head, found),
        }
    }

    fn keep_for(&mut self, patient: &str, found: Found<'_>) {
        self.part.claims.extend(found.claim(Some(patient)));
        if found.whom == Whom::All || self.share.holds(patient) == (found.whom == Whom::Share) {
            let patient = self.number_of(patient);
            self.part.push(patient, Orphan::No, found.line, found.number);
        }
    }

    fn number_of(&mut self, patient: &str) -> u32 {
        // Most lines are of the patient of the line before.
        if let Some(number) = self.part.rows.last().map(|row| row.patient)
            && self.part.patients.get(number as usize).is_some_and(|last| last == patient)
        {
            return number;
        }
        if let Some(number) = self.numbers.get(patient) {
            return *number;
        }
        let number = u32::try_from(self.part.patients.len()).unwrap_or(NOBODY);
        self.part.patients.push(patient.to_owned());
        self.numbers.insert(patient.to_owned(), number);
        number
    }

    pub(super) fn set_aside(&mut self, line: u64, reason: &'static str) {
        self.part.set_aside(line, reason);
    }
}
