//! Reading resources into a record with a pull parser.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use jiter::{Jiter, Peek};

use super::glance::{self, Kinds, reason};
use super::{BadLine, Content, DEPTH_MAX, Keep, LINE_BYTES_MAX, NODES_MAX, NONE, NodeId, Record, Shape, TEXT_BYTES_MAX};

/// What stands before the version in a reference.
const VERSION: &str = "/_history/";

/// A resource just read, with what decides between versions of it.
struct Found<'a> {
    index: usize,
    resource_type: Arc<str>,
    line: &'a [u8],
    root: NodeId,
}

impl Found<'_> {
    fn id<'r>(&self, record: &'r Record) -> &'r str {
        record.resource_id(self.root).unwrap_or_default()
    }
}

/// Which state of a resource it is: the number of its version, where that is one; when it was last changed: an instant, which
/// servers write in zones and to fractions of their own; what is none is compared as text. The newest is the greatest.
pub(crate) type State = (Option<u64>, Option<jiff::Timestamp>, String);

/// Which state of its resource a line is; `None` of a line that cannot be read. Only what has several versions is asked.
pub(crate) fn state(line: &[u8]) -> Option<State> {
    let (resource_type, _) = glance::identity(line)?;
    let versions = ["versionId", "lastUpdated"].map(|name| (name, Keep::All));
    let keep = Keep::Fields([("meta", Keep::Fields(versions.into()))].into());
    let shape = Shape { types: [(resource_type, keep)].into(), ..Shape::default() };
    let mut record = Record::default();
    let Ok(Line::Resource(found)) = read_line(&mut record, &mut Kinds::sifted(&shape), line) else { return None };
    let meta = record.get(found.root, "meta");
    let text = |name| meta.and_then(|meta| record.text(record.get(meta, name)?)).unwrap_or_default();
    let updated = text("lastUpdated");
    Some((text("versionId").parse().ok(), updated.parse().ok(), updated.to_owned()))
}

pub(super) fn read<'a>(record: &mut Record, kinds: &mut Kinds<'_>, lines: impl Iterator<Item = &'a [u8]>) -> Vec<BadLine> {
    let mut bad = Vec::new();
    let mut found = Vec::new();
    let mut passed_over = Vec::new();
    for (index, line) in lines.enumerate() {
        match read_line(record, kinds, line) {
            Ok(Line::Resource(resource)) => found.push(Found { index, ..resource }),
            Ok(Line::PassedOver) => passed_over.push((index, line)),
            Ok(Line::Unwanted) => {}
            Err(reason) => bad.push(BadLine { index, reason }),
        }
    }
    if !found.is_empty() && !passed_over.is_empty() {
        read_versions(record, kinds.shape(), &passed_over, &mut found, &mut bad);
    }
    record.lines.extend(found.iter().map(|found| (found.root, found.index)));
    record.lines.sort_unstable();
    found.sort_by(|a, b| a.resource_type.cmp(&b.resource_type).then_with(|| a.id(record).cmp(b.id(record))));
    for versions in found.chunk_by_mut(|a, b| a.resource_type == b.resource_type && a.id(record) == b.id(record)) {
        if versions.len() > 1 {
            versions.sort_by_cached_key(|version| (state(version.line), version.line, version.root));
        }
    }
    for group in found.chunk_by(|a, b| a.resource_type == b.resource_type) {
        let Some(first) = group.first() else { continue };
        let is_patient = &*first.resource_type == "Patient";
        bad.extend(group.windows(2).filter_map(|pair| mistaken(record, pair, is_patient)));
        let list = newest(record, group);
        record.by_type.insert(first.resource_type.to_string(), list);
    }
    bad
}

/// What is read of a Patient to tell persons apart.
#[derive(serde::Deserialize, PartialEq, Eq)]
struct Person<'a> {
    #[serde(borrow, rename = "birthDate")]
    born: Option<Cow<'a, str>>,
    #[serde(borrow)]
    gender: Option<Cow<'a, str>>,
}

/// Of two resources of one id the first, unless it is told that it is the older one; of two Patients, unless it is the same person
/// at an earlier time.
fn mistaken(record: &Record, pair: &[Found<'_>], is_patient: bool) -> Option<BadLine> {
    let [one, next] = pair else { return None };
    if one.line == next.line || one.id(record).is_empty() || one.id(record) != next.id(record) {
        return None;
    }
    let is_older = state(one.line) != state(next.line);
    if (is_older && !is_patient) || content(one.line) == content(next.line) {
        return None;
    }
    let [person, other] = [one, next].map(|found| serde_json::from_slice::<Person<'_>>(found.line).ok());
    let reason = match is_patient {
        true if is_older && person == other => return None,
        true => "another Patient has the same id, and it cannot be told that this is the same person at an earlier time",
        false => "another resource has the same id and other content, and neither `meta.versionId` nor `meta.lastUpdated` says which is the newer: that one was taken",
    };
    Some(BadLine { index: one.index, reason: reason.to_owned() })
}

/// What a resource says, whatever tool wrote it: nothing of who sent it and when, nor how it is shown.
pub(crate) fn content(json: &[u8]) -> Option<serde_json::Value> {
    let mut content: serde_json::Value = serde_json::from_slice(json).ok()?;
    content.as_object_mut()?.retain(|name, _| name != "meta" && name != "text");
    Some(content)
}

/// Of sorted resources of one type the newest version of each, and each line without an id once.
fn newest(record: &Record, sorted: &[Found<'_>]) -> Vec<NodeId> {
    let is_older = |one: &Found<'_>, next: &Found<'_>| one.line == next.line || (!one.id(record).is_empty() && one.id(record) == next.id(record));
    let followed = sorted.iter().zip(sorted.iter().skip(1).map(Some).chain([None]));
    followed.filter(|(one, next)| !next.is_some_and(|next| is_older(one, next))).map(|(one, _)| one.root).collect()
}

/// Of what was passed over, other versions of resources that were not: the newest counts, whatever codes it has.
fn read_versions<'a>(record: &mut Record, shape: &Shape, lines: &[(usize, &'a [u8])], found: &mut Vec<Found<'a>>, bad: &mut Vec<BadLine>) {
    let sieved = found.iter().filter(|resource| shape.sieves.contains_key(&*resource.resource_type));
    let ids: BTreeSet<String> = sieved.map(|resource| resource.id(record).to_owned()).collect();
    if ids.is_empty() {
        return;
    }
    for (index, line) in lines {
        if !glance::id(line.trim_ascii_start()).is_none_or(|id| ids.contains(&*id)) {
            continue;
        }
        match read_line(record, &mut Kinds::sifted(shape), line) {
            Ok(Line::Resource(resource)) if ids.contains(resource.id(record)) => found.push(Found { index: *index, ..resource }),
            Ok(_) => {}
            Err(reason) => bad.push(BadLine { index: *index, reason }),
        }
    }
}

pub(super) fn add(record: &mut Record, json: &[u8]) -> Result<NodeId, String> {
    let shape = Shape::everything();
    let Line::Resource(found) = read_line(record, &mut Kinds::sifted(&shape), json)? else { return Err("an empty line is no resource".to_owned()) };
    record.index(found.root);
    Ok(found.root)
}

/// What a line is.
enum Line<'a> {
    /// A resource of a type that is wanted.
    Resource(Found<'a>),
    /// One of a type that is wanted, without any of the codes that are.
    PassedOver,
    /// Nothing, or a resource of another type.
    Unwanted,
}

fn read_line<'a>(record: &mut Record, kinds: &mut Kinds<'_>, line: &'a [u8]) -> Result<Line<'a>, String> {
    // The end is not looked at before the line is wanted: it lies in memory that nobody has touched yet.
    let line = line.trim_ascii_start();
    if line.is_empty() {
        return Ok(Line::Unwanted);
    }
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("the line is longer than {LINE_BYTES_MAX} bytes"));
    }
    let sifts = kinds.sifts();
    let kind = kinds.of(line)?;
    let Some(keep) = kind.keep else { return Ok(Line::Unwanted) };
    if sifts && !kind.may_matter(line) {
        return Ok(Line::PassedOver);
    }
    let resource_type = kind.name.clone();
    let line = line.trim_ascii_end();
    record.make_room();
    let (nodes, texts) = (record.nodes.len(), record.texts.len());
    let mut reader = Reader { json: Jiter::new(line), record };
    let result = reader.root(keep);
    if let Err(reason) = result {
        // Nothing of a bad line stays behind.
        record.nodes.truncate(nodes);
        record.texts.truncate(texts);
        return Err(reason);
    }
    let root = NodeId(u32::try_from(nodes).map_err(|_| "the record is full")?);
    Ok(Line::Resource(Found { index: 0, resource_type, line, root }))
}

struct Reader<'a, 'j> {
    json: Jiter<'j>,
    record: &'a mut Record,
}

impl Reader<'_, '_> {
    fn root(&mut self, keep: &Keep) -> Result<(), String> {
        let peek = self.json.peek().map_err(|fault| reason(&fault))?;
        if peek != Peek::Object {
            return Err("the line is no JSON object".to_owned());
        }
        self.object(keep, 0)?;
        self.json.finish().map_err(|fault| reason(&fault))
    }

    fn value(&mut self, peek: Peek, keep: &Keep, depth: usize) -> Result<NodeId, String> {
        if depth > DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX} levels"));
        }
        if self.record.nodes.len() >= NODES_MAX {
            return Err(format!("the record has more than {NODES_MAX} elements"));
        }
        match peek {
            Peek::Object => self.object(keep, depth),
            Peek::Array => self.array(keep, depth),
            _ => self.scalar(peek),
        }
    }

    fn scalar(&mut self, peek: Peek) -> Result<NodeId, String> {
        let content = match peek {
            Peek::Null => {
                self.json.known_null().map_err(|fault| reason(&fault))?;
                Content::Null
            }
            Peek::True | Peek::False => Content::Boolean(self.json.known_bool(peek).map_err(|fault| reason(&fault))?),
            Peek::String => {
                let text = self.json.known_str().map_err(|fault| reason(&fault))?;
                self.record.store_text(text).ok_or_else(full)?
            }
            _ => {
                let bytes = self.json.known_number_bytes(peek).map_err(|fault| reason(&fault))?;
                let text = std::str::from_utf8(bytes).map_err(|_| "a number with bytes that are no text")?;
                match self.record.store_text(text).ok_or_else(full)? {
                    Content::Text { start, len } => Content::Number { start, len },
                    other => other,
                }
            }
        };
        Ok(self.record.push(content))
    }

    fn array(&mut self, keep: &Keep, depth: usize) -> Result<NodeId, String> {
        let array = self.record.push(Content::Array { first: NONE });
        let mut last = NONE;
        let mut peek = self.json.known_array().map_err(|fault| reason(&fault))?;
        while let Some(next) = peek {
            let item = self.value(next, keep, depth + 1)?;
            self.link(array, last, item);
            last = item.0;
            peek = self.json.array_step().map_err(|fault| reason(&fault))?;
        }
        Ok(array)
    }

    fn object(&mut self, keep: &Keep, depth: usize) -> Result<NodeId, String> {
        let object = self.record.push(Content::Object { first: NONE });
        let mut last = NONE;
        let mut companions = Vec::new();
        let mut key = self.json.known_object().map_err(|fault| reason(&fault))?;
        while let Some(name) = key {
            let plain = name.strip_prefix('_');
            let wanted = plain.unwrap_or(name);
            let kept = match keep.field(wanted) {
                None if name == "resourceType" || name == "id" => Some(&Keep::All),
                kept => kept,
            };
            let Some(kept) = kept else {
                self.json.next_skip().map_err(|fault| reason(&fault))?;
                key = self.json.next_key().map_err(|fault| reason(&fault))?;
                continue;
            };
            let (is_companion, is_reference) = (plain.is_some(), wanted == "reference");
            let name = self.record.intern(wanted);
            let peek = self.json.peek().map_err(|fault| reason(&fault))?;
            let field = self.value(peek, kept, depth + 1)?;
            if is_reference {
                self.drop_version(field);
            }
            if let Some(node) = self.record.nodes.get_mut(field.0 as usize) {
                node.name = name;
            }
            if is_companion {
                companions.push(field);
            } else {
                self.link(object, last, field);
                last = field.0;
            }
            key = self.json.next_key().map_err(|fault| reason(&fault))?;
        }
        for companion in companions {
            last = self.marry(object, last, companion);
        }
        Ok(object)
    }

    /// Leaves the version out of a reference: whose it is does not depend on it, and libraries take what follows the last slash as the id.
    fn drop_version(&mut self, field: NodeId) {
        let version = self.record.text(field).and_then(|text| text.find(VERSION));
        if let (Some(version), Some(Content::Text { len, .. })) = (version, self.record.nodes.get_mut(field.0 as usize).map(|node| &mut node.content)) {
            *len = version as u32;
        }
    }

    /// Hangs `_field` on the field, item by item if both are arrays; a missing field becomes null. Returns the last field.
    fn marry(&mut self, object: NodeId, last: u32, companion: NodeId) -> u32 {
        let name = self.record.name(companion).unwrap_or_default().to_owned();
        let (field, last) = match self.record.get(object, &name) {
            Some(field) => (field, last),
            None => {
                let is_array = matches!(self.record.node(companion).map(|node| node.content), Some(Content::Array { .. }));
                let field = self.record.push(if is_array { Content::Array { first: NONE } } else { Content::Null });
                let name = self.record.intern(&name);
                if let Some(node) = self.record.nodes.get_mut(field.0 as usize) {
                    node.name = name;
                }
                self.link(object, last, field);
                (field, field.0)
            }
        };
        let is_array = |record: &Record, id| matches!(record.node(id).map(|node| node.content), Some(Content::Array { .. }));
        if is_array(self.record, field) && is_array(self.record, companion) {
            let halves: Vec<NodeId> = self.record.items(companion).collect();
            let mut wholes: Vec<NodeId> = self.record.items(field).collect();
            while wholes.len() < halves.len() {
                let item = self.record.push(Content::Null);
                self.record.attach(field, item);
                wholes.push(item);
            }
            for (whole, half) in wholes.into_iter().zip(halves) {
                self.set_companion(whole, half);
            }
        } else {
            self.set_companion(field, companion);
        }
        last
    }

    fn set_companion(&mut self, field: NodeId, companion: NodeId) {
        let is_object = matches!(self.record.node(companion).map(|node| node.content), Some(Content::Object { .. }));
        if is_object && let Some(node) = self.record.nodes.get_mut(field.0 as usize) {
            node.companion = companion.0;
        }
    }

    fn link(&mut self, parent: NodeId, last: u32, child: NodeId) {
        let nodes = &mut self.record.nodes;
        if let Some(node) = nodes.get_mut(last as usize) {
            node.next = child.0;
        } else if let Some(Content::Object { first } | Content::Array { first }) = nodes.get_mut(parent.0 as usize).map(|node| &mut node.content) {
            *first = child.0;
        }
    }
}

fn full() -> String {
    format!("the record has more than {TEXT_BYTES_MAX} bytes of text")
}
