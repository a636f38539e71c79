//! A pull of the files in a folder: each a unit of the ledger, everything read anew, and nothing where nothing has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::FolderError;
use super::listing::{self, Dropped, Listing, State, look};
use super::nights::Nights;
use super::resources::{Broken, Met, Reading};
use super::series;
use super::walk::Block;
use super::whole::{ANY_TYPE, Gap, Holding, Signs};
use crate::fhir::compartment::Head;
use crate::snapshot::PullId;
use crate::source::duty::{Code, Why};
use crate::source::import::Import;
use crate::source::intake::{Reason, tombstone};
use crate::source::ledger::{self, Unit};
use crate::source::pull::{Pull, Receiving};
use crate::source::{Plan, SourceError, search};
use crate::store::{Store, StoreError, sha256_hex};

const CHANGED: &str = "it is being written: it changed while the folder was read";
const UNFINISHED: &str = "it is being written, by its name";
const UNKNOWN_ENDING: &str = "its ending is not known: .ndjson, .jsonl and .json are read, with .gz or .zst or without";

/// What is in the folder of a pull.
pub(in crate::source) struct Dump<'a> {
    folder: &'a Path,
    listing: Listing,
    /// The files that are read, with a digest of what is in them and of what is asked of it, or why there is none.
    files: Vec<(Dropped, Result<String, Why>)>,
}

impl<'a> Dump<'a> {
    /// Looks, and takes the digest of every file that is to be read. Whether there is enough in files that have not changed is another
    /// question when measures ask for other codes, or other imports stand beside them.
    pub async fn find(folder: &'a Path, plan: &Plan, imports: &[Import]) -> Result<Dump<'a>, SourceError> {
        let listing = look(folder)?;
        let imports: BTreeSet<&str> = imports.iter().map(|import| import.digest.as_str()).collect();
        let asked = sha256_hex(format!("{:?} {imports:?}", plan.codes).as_bytes());
        let mut files = Vec::new();
        for file in listing.files.iter().filter(|file| file.is_read(&plan.types)) {
            let digest = match withheld(file) {
                Some(why) => Err(why),
                None => file
                    .digest()
                    .map(|digest| sha256_hex(format!("{digest} {asked}").as_bytes()))
                    .map_err(|error| Why::new(Code::Unreadable, format!("it cannot be read: {error}"))),
            };
            files.push((file.clone(), digest));
            tokio::task::yield_now().await;
        }
        Ok(Dump { folder, listing, files })
    }

    /// The last pull, if nothing was missing from it, and the files and what is asked of them are what they were.
    pub fn known(&self, store: &Store, source: &str, plan: &str) -> Result<Option<PullId>, StoreError> {
        let Some((last, units)) = ledger::last_complete(store, source, plan)? else { return Ok(None) };
        let names: BTreeSet<String> = self.names().collect();
        let read: BTreeSet<String> = units.into_iter().filter(|name| is_of_file(name)).collect();
        Ok(Some(last).filter(|_| names.len() == self.files.len() && names == read))
    }

    /// The units of the files that can be read.
    fn names(&self) -> impl Iterator<Item = String> {
        self.files.iter().filter_map(|(file, digest)| Some(unit_name(file, digest.as_ref().ok()?)))
    }
}

/// What its name says against reading a file.
fn withheld(file: &Dropped) -> Option<Why> {
    match file.state {
        State::Data | State::Manifest => None,
        State::Unfinished => Some(Why::new(Code::Unfinished, UNFINISHED)),
        State::UnknownEnding => Some(Why::new(Code::Unreadable, UNKNOWN_ENDING)),
        State::Blocked(block) => Some(Why::new(Code::Unreadable, block.text())),
    }
}

fn unit_name(file: &Dropped, digest: &str) -> String {
    format!("file {} {digest}", file.key)
}

/// Whether a unit's name is that of a file, and not of one type in it.
fn is_of_file(name: &str) -> bool {
    name.starts_with("file ") && name.split(' ').count() == 3
}

/// Reads what is not read yet.
pub(in crate::source) async fn run(pull: &Pull<'_>, dump: &Dump<'_>) -> Result<(), SourceError> {
    // What an interrupted run of this pull read of files that are gone or others by now.
    let names: BTreeSet<String> = dump.names().collect();
    for stale in pull.done.iter().filter(|name| is_of_file(name) && !names.contains(*name)) {
        ledger::forget(pull.snapshot.store(), pull.id, stale)?;
    }
    pull.progress.stage("files", Some(dump.files.len() as u64));
    let mut told = Told::default();
    for (file, digest) in &dump.files {
        match digest {
            Ok(digest) if pull.done.contains(&unit_name(file, digest)) => told.look_at(file, &pull.plan.types),
            Ok(digest) => read(pull, file, unit_name(file, digest), &mut told).await?,
            Err(why) => note(pull, file, why.clone())?,
        }
    }
    for link in &dump.listing.loops {
        let note = Some(Why::new(Code::Loop, format!("{}: {}", link.name, Block::Loop.text())));
        pull.record(&Unit { name: format!("loop {}", link.key), resource_type: "*".to_owned(), query: link.name.clone(), note, ..Unit::default() })?;
    }
    told.note(pull, &dump.files)?;
    note_series(pull, dump)?;
    for changed in dump.listing.changes(&look(dump.folder)?).filter(|file| file.is_read(&pull.plan.types)) {
        note(pull, changed, Why::new(Code::Unfinished, CHANGED))?;
    }
    note_absent(pull)
}

/// Records that a file is not there whole.
fn note(pull: &Pull<'_>, file: &Dropped, why: Why) -> Result<(), SourceError> {
    let resource_type = file.resource_type.clone().unwrap_or_else(|| "*".to_owned());
    pull.record(&Unit { name: format!("not whole {}", file.key), resource_type, query: file.name.clone(), gap: Some(why), ..Unit::default() })
}

/// What the files tell of themselves and of each other.
#[derive(Default)]
struct Told {
    signs: Signs,
    holding: BTreeMap<String, Holding>,
    nights: Nights,
}

impl Told {
    /// Looks at a file for what it tells only.
    fn look_at(&mut self, file: &Dropped, types: &BTreeSet<String>) {
        let path = file.path.display().to_string();
        let mut take = |met: Met<'_>| -> Result<(), std::convert::Infallible> {
            match met {
                Met::Resource { json, .. } => {
                    if let Some((name, id)) = named(json) {
                        self.hold(file, &path, &name, &id);
                    }
                }
                met => drop(self.take(&path, met, types)),
            }
            Ok(())
        };
        // Why it cannot be read was said before.
        let Ok(mut reading) = Reading::open(file) else { return };
        while matches!(reading.step(&mut take), Ok(true)) {}
    }

    /// Takes what tells something of other files; false for anything else.
    fn take(&mut self, path: &str, met: Met<'_>, types: &BTreeSet<String>) -> bool {
        let is_wanted = |name: &str| types.contains(name);
        match met {
            Met::Page { page, types, number } => self.signs.page((path.to_owned(), number), &types, page, is_wanted),
            Met::Untyped { json } => return self.signs.manifest(path, json, is_wanted),
            _ => return false,
        }
        true
    }

    fn hold(&mut self, file: &Dropped, path: &str, resource_type: &str, id: &str) {
        if let Some(night) = &file.night {
            self.nights.meet(night, resource_type, id);
        }
        let holding = match self.holding.get_mut(path) {
            Some(holding) => holding,
            None => self.holding.entry(path.to_owned()).or_default(),
        };
        holding.resources += 1;
        if !holding.types.contains(resource_type) {
            holding.types.insert(resource_type.into());
        }
    }

    /// The type of which each night seems to bring everything, `*` for several, and what that means.
    fn of_nights(&self, types: &BTreeSet<String>) -> Option<(String, String)> {
        let (names, nights): (Vec<&str>, Vec<usize>) = self.nights.repeated().filter(|(name, _)| types.contains(*name)).unzip();
        let of = match names.as_slice() {
            [] => return None,
            [only] => (*only).to_owned(),
            _ => "*".to_owned(),
        };
        let (nights, names) = (nights.into_iter().max().unwrap_or_default(), names.join(", "));
        let reason = format!(
            "there are files of {nights} nights, and of {names} one night brings nearly all again that the one before has: each seems to be everything, and what is missing from the newest still counts"
        );
        Some((of, reason))
    }

    /// What is missing, by type, in words that name no patient: how often, where first, and why.
    fn missing<'f>(mut self, files: impl Iterator<Item = &'f Dropped>) -> Vec<(String, String, String)> {
        let types = listing::types();
        let names: BTreeMap<String, &str> = files.map(|file| (file.path.display().to_string(), file.name.as_str())).collect();
        // What a manifest names is here though it cannot be read.
        for path in names.keys() {
            self.holding.entry(path.clone()).or_default();
        }
        self.signs.finish(&self.holding, &|name| listing::is_plain(name, &types));
        let mut first: BTreeMap<&str, (&Gap, usize)> = BTreeMap::new();
        self.signs.gaps.iter().for_each(|gap| first.entry(&gap.resource_type).or_insert((gap, 0)).1 += 1);
        let told = first.into_iter().map(|(name, (gap, count))| {
            let name = if name == ANY_TYPE { "*" } else { name };
            let more = if count > 1 { format!("; so in {count} places") } else { String::new() };
            let at = names.get(&gap.told.file).copied().unwrap_or("folder");
            (name.to_owned(), at.to_owned(), format!("{}{more}", gap.told.reason))
        });
        told.collect()
    }

    /// Records what is missing of what files announce, and what their being of several nights means.
    fn note(self, pull: &Pull<'_>, files: &[(Dropped, Result<String, Why>)]) -> Result<(), SourceError> {
        if let Some((resource_type, reason)) = self.of_nights(&pull.plan.types) {
            let (gap, query) = (Some(Why::new(Code::Nights, reason)), "folder".to_owned());
            pull.record(&Unit { name: "nights".to_owned(), resource_type, query, gap, ..Unit::default() })?;
        }
        for (resource_type, query, reason) in self.missing(files.iter().map(|(file, _)| file)) {
            let gap = Some(Why::new(Code::NotAll, reason));
            pull.record(&Unit { name: format!("announced {resource_type}"), resource_type, query, gap, ..Unit::default() })?;
        }
        Ok(())
    }
}

/// Type and id of a resource.
fn named(json: &[u8]) -> Option<(String, String)> {
    let head = Head::read(json)?;
    Some((Head::text(head.resource_type)?, Head::text(head.id).unwrap_or_default()))
}

/// Records files that are missing from a series, and those that the last pull read and that are not there any more though others
/// of their type are.
fn note_series(pull: &Pull<'_>, dump: &Dump<'_>) -> Result<(), SourceError> {
    let (store, here) = (pull.snapshot.store(), || dump.files.iter().map(|(file, _)| file));
    for (resource_type, query, reason) in series::holes(here()) {
        let gap = Some(Why::new(Code::NotAll, reason));
        pull.record(&Unit { name: format!("series {query}"), resource_type, query, gap, ..Unit::default() })?;
    }
    if pull.source.options.tuning.accepts_loss {
        return Ok(());
    }
    let before = ledger::files_before(store, &pull.source.name(), &pull.plan.digest())?;
    let now = ledger::files_of(store, pull.id)?;
    let keys: BTreeSet<&str> = here().map(|file| file.key.as_str()).collect();
    let (stored, mut received): (_, BTreeMap<&str, u64>) = (pull.snapshot.counts()?, BTreeMap::new());
    now.iter().for_each(|file| *received.entry(&file.resource_type).or_default() += file.received);
    let known: BTreeSet<(&str, &str)> = before.iter().map(|file| (file.resource_type.as_str(), file.key.as_str())).collect();
    let is_renewed = |name: &str| now.iter().any(|file| file.resource_type == name && !known.contains(&(name, file.key.as_str())));
    for gone in before.iter().filter(|file| !keys.contains(file.key.as_str()) && !is_renewed(&file.resource_type)) {
        let name = gone.resource_type.as_str();
        let (came, were) = (received.get(name).copied().unwrap_or_default(), stored.get(name).copied().unwrap_or_default());
        if came == 0 || came >= were {
            continue;
        }
        let reason = format!("an earlier pull read it, and it is gone: {came} of {name} came where {were} are stored; what is stored is kept until a steward has looked");
        let (unit, query) = (format!("gone {} {name}", gone.key), gone.query.clone());
        pull.record(&Unit { name: unit, resource_type: name.to_owned(), query, gap: Some(Why::new(Code::Loss, reason)), ..Unit::default() })?;
    }
    Ok(())
}

async fn read(pull: &Pull<'_>, file: &Dropped, name: String, told: &mut Told) -> Result<(), SourceError> {
    let receiving = pull.receive(Unit { name, query: file.name.clone(), ..Unit::default() }, None)?;
    let mut taking = Taking { receiving, types: BTreeMap::new(), complaint: None, told, path: file.path.display().to_string(), file };
    let cut = match Reading::open(file) {
        Err(why) => Some(why),
        Ok(mut reading) => loop {
            match reading.step(|met| taking.take(met)) {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => break None,
                Err(Broken::Cut(why)) => break Some(why),
                Err(Broken::Taker(error)) => return Err(error),
            }
        },
    };
    // A file that is written meanwhile may look cut or damaged, and is neither.
    let changed = file.has_changed().then(|| Why::new(Code::Unfinished, CHANGED));
    let Taking { receiving, types, complaint, .. } = taking;
    let unit = receiving.finish(changed.or(cut).or(complaint))?;
    pull.record_together(&by_type(unit, &types, file.resource_type.as_deref()))
}

/// A file of one type is one unit; of several, each type has a unit with its number beside that of the file.
fn by_type(mut unit: Unit, types: &BTreeMap<String, u64>, named: Option<&str>) -> Vec<Unit> {
    let is_whole = unit.gap.is_none() && unit.refused.is_empty() && unit.refused_uncounted == 0;
    let only = types.keys().next().filter(|_| types.len() == 1).map(String::as_str);
    let is_only = |name: &str| types.keys().all(|other| other == name);
    if let Some(name) = named.filter(|name| is_only(name)).or(only.filter(|_| named.is_none() && is_whole)) {
        unit.resource_type = name.to_owned();
        return vec![unit];
    }
    // What is missing of it may be of any type.
    unit.resource_type = "*".to_owned();
    unit.received = unit.received.saturating_sub(types.values().sum());
    let part = |(resource_type, received): (&String, &u64)| Unit {
        name: format!("{} {resource_type}", unit.name),
        resource_type: resource_type.clone(),
        query: unit.query.clone(),
        received: *received,
        ..Unit::default()
    };
    let mut units: Vec<Unit> = types.iter().map(part).collect();
    units.push(unit);
    units
}

/// Types of which no file holds any, though a measure needs them; those of no patient only where something refers to them.
fn note_absent(pull: &Pull<'_>) -> Result<(), SourceError> {
    let there: BTreeSet<String> = ledger::units(pull.snapshot.store(), pull.id)?.into_iter().map(|unit| unit.resource_type).collect();
    let absent: BTreeSet<String> = pull.plan.types.difference(&there).cloned().collect();
    let referenced: BTreeSet<String> = absent.intersection(&pull.plan.referenced).cloned().collect();
    let mut missing: BTreeSet<String> = absent.difference(&referenced).cloned().collect();
    if !referenced.is_empty() {
        missing.extend(search::wanted_references(pull, &referenced)?.into_iter().map(|(resource_type, _)| resource_type));
    }
    for name in missing {
        let gap = Some(Why::new(Code::NoFile, no_file(&name)));
        pull.record(&Unit { name: format!("none {name}"), resource_type: name, query: "folder".to_owned(), gap, ..Unit::default() })?;
    }
    Ok(())
}

fn no_file(resource_type: &str) -> String {
    format!("no file holds any; if there is none, an empty file `{resource_type}.ndjson` says so")
}

/// A file on its way into the snapshot.
struct Taking<'a> {
    receiving: Receiving<'a>,
    /// What was taken, by type.
    types: BTreeMap<String, u64>,
    complaint: Option<Why>,
    told: &'a mut Told,
    path: String,
    file: &'a Dropped,
}

impl Taking<'_> {
    fn take(&mut self, met: Met<'_>) -> Result<(), SourceError> {
        let receiving = &mut self.receiving;
        match met {
            Met::Resource { json, number } => {
                if let Some(taken) = receiving.take(json, number)? {
                    self.told.hold(self.file, &self.path, &taken.resource_type, &taken.id);
                    *self.types.entry(taken.resource_type).or_default() += 1;
                }
                Ok(())
            }
            Met::Untyped { json } => {
                let is_taken = self.told.take(&self.path, met, receiving.types());
                if is_taken || self.file.state == State::Manifest { Ok(()) } else { receiving.take(json, 1).map(drop) }
            }
            Met::Page { .. } => {
                self.told.take(&self.path, met, receiving.types());
                Ok(())
            }
            Met::TooLong { number, length, start } => {
                receiving.unit.received += 1;
                receiving.refuse(Reason::TooLong, None, start, length, number)
            }
            Met::Unreadable { json, number } => {
                receiving.unit.received += 1;
                receiving.refuse(Reason::NotJson, None, json, json.len() as u64, number)
            }
            Met::Empty { number } => {
                receiving.unit.received += 1;
                receiving.refuse(Reason::NoResource, None, b"", 0, number)
            }
            Met::Gone { resource_type, id, at } => {
                let mut gone = tombstone(resource_type, id);
                gone.header.updated = at;
                receiving.take_removal(&gone)
            }
            Met::Complaint(complaint) => {
                self.complaint.get_or_insert(complaint);
                Ok(())
            }
        }
    }
}

/// What a person finds in a folder.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Everything that is there.
    pub listing: Listing,
    /// How many resources of each type, of those that are asked for.
    pub counts: BTreeMap<String, u64>,
    /// Files that are not whole, and why.
    pub troubles: Vec<(String, String)>,
    /// Types of which nothing is there, each with what to do.
    pub absent: BTreeMap<String, String>,
}

/// Counts what a folder holds of these types, of which some (`referenced`) may be absent. Nothing is kept.
pub fn survey(folder: &Path, types: &BTreeSet<String>, referenced: &BTreeSet<String>) -> Result<Survey, FolderError> {
    let listing = look(folder)?;
    let (mut counts, mut troubles): (BTreeMap<String, u64>, Vec<(String, String)>) = (BTreeMap::new(), Vec::new());
    let mut told = Told::default();
    for file in listing.files.iter().filter(|file| file.is_read(types)) {
        // An empty file says that there is none.
        if let Some(name) = &file.resource_type {
            counts.entry(name.clone()).or_default();
        }
        let trouble = withheld(file).or_else(|| count(file, types, &mut counts, &mut told));
        troubles.extend(trouble.map(|trouble| (file.name.clone(), trouble.text)));
    }
    let read = || listing.files.iter().filter(|file| file.is_read(types));
    troubles.extend(told.of_nights(types).map(|(_, reason)| ("folder".to_owned(), format!("{reason}; {}", Code::Nights.duty().1))));
    let announced = told.missing(read()).into_iter().chain(series::holes(read()));
    troubles.extend(announced.map(|(_, file, reason)| (file, reason)));
    counts.retain(|name, _| types.contains(name));
    let absent = types.iter().filter(|name| !counts.contains_key(*name) && !referenced.contains(*name));
    let absent = absent.map(|name| (name.clone(), no_file(name))).collect();
    Ok(Survey { listing, counts, troubles, absent })
}

/// Adds what a file holds; why it is not whole, if it is not.
fn count(file: &Dropped, types: &BTreeSet<String>, counts: &mut BTreeMap<String, u64>, told: &mut Told) -> Option<Why> {
    let mut complaint = None;
    let path = file.path.display().to_string();
    let mut take = |met: Met<'_>| -> Result<(), std::convert::Infallible> {
        match met {
            Met::Resource { json, .. } => {
                if let Some((name, id)) = named(json).filter(|(name, _)| types.contains(name)) {
                    told.hold(file, &path, &name, &id);
                    *counts.entry(name).or_default() += 1;
                }
            }
            Met::Complaint(why) => complaint = complaint.take().or(Some(why)),
            met => drop(told.take(&path, met, types)),
        }
        Ok(())
    };
    let mut reading = match Reading::open(file) {
        Ok(reading) => reading,
        Err(why) => return Some(why),
    };
    loop {
        match reading.step(&mut take) {
            Ok(true) => {}
            Ok(false) => return complaint,
            Err(Broken::Cut(why)) => return Some(why),
        }
    }
}
