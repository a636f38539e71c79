//! One patient's resources in a compact arena, restricted to the paths that a plan needs.
//!
//! Reading is one pass with a pull parser; what the [`Shape`] does not want is skipped, a resource of an unwanted type
//! after its first bytes. Elements are nodes of one vector: a field of an object points to its next sibling, an array
//! to its first item. Names are interned, texts and numbers lie in one buffer (numbers as written, so that decimals keep
//! their scale), and `_field` siblings hang on the element they extend. The order of resources is by type and id, so
//! that a result cannot depend on the order of the input.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use rust_decimal::Decimal;

pub mod glance;
mod read;
pub mod shape;
pub mod sieve;
#[cfg(test)]
mod tests;

use glance::Kinds;
pub(crate) use read::{State, content, state};
pub use shape::{Keep, Shape};
pub use sieve::{Outlook, Sieve};

/// Longest line that is read; a longer one is reported as bad.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Deepest nesting of one resource.
pub const DEPTH_MAX: usize = 64;
/// Most nodes of one record; the arena's indexes are 32 bits.
pub const NODES_MAX: usize = 50_000_000;
/// Most bytes of text of one record.
pub const TEXT_BYTES_MAX: usize = 1 << 30;

/// So many names are looked through faster than they are hashed.
const FIRST_NAMES: usize = 24;

/// So many names stay for the next patient: FHIR has no more.
const NAMES_KEPT_MAX: usize = 5_000;

/// So many nodes have room before a record grows.
const FIRST_NODES: usize = 128;

/// No node: ends lists of siblings.
const NONE: u32 = u32::MAX;

/// An element of a record, by its place in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// JSON null, or an element that has only extensions.
    Null,
    /// A Boolean.
    Boolean,
    /// A number.
    Number,
    /// A string.
    Text,
    /// An object.
    Object,
    /// An array.
    Array,
}

#[derive(Clone, Copy)]
enum Content {
    Null,
    Boolean(bool),
    Number { start: u32, len: u32 },
    Text { start: u32, len: u32 },
    Object { first: u32 },
    Array { first: u32 },
}

#[derive(Clone, Copy)]
struct Node {
    content: Content,
    /// Interned name within its object; [`NONE`] for items and roots.
    name: u32,
    /// Next field or item.
    next: u32,
    /// The `_field` object of a primitive.
    companion: u32,
}

/// Where something stands among what was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The path of names, as `Encounter.period.start`.
    pub element: String,
    /// Which line, counted from 0 in the order given.
    pub line: usize,
    /// What was probably meant by it, where that is a code of FHIR's.
    pub meant: Option<&'static str>,
}

/// A line that is no usable resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Which line, counted from 0 in the order given.
    pub index: usize,
    /// Why; without any content of the line.
    pub reason: String,
}

/// One patient's resources. `Debug` shows counts, never content.
#[derive(Default)]
pub struct Record {
    nodes: Vec<Node>,
    texts: String,
    names: Vec<Box<str>>,
    /// After each of them, the one that was met next the last time.
    next_names: Vec<u32>,
    last_name: usize,
    /// Of the names after the first few.
    name_index: HashMap<Box<str>, u32>,
    by_type: BTreeMap<String, Vec<NodeId>>,
    /// Each resource that was read, in the order of the arena, with its line.
    lines: Vec<(NodeId, usize)>,
    /// Codes by what was asked for, made at the first question and shared by all measures and periods.
    codes: RefCell<BTreeMap<String, Arc<Vec<CodeRow>>>>,
}

/// One code that resources of a type have, and which resources have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeRow {
    /// The system; none for a `code` element, whose binding names it.
    pub system: Option<String>,
    /// The code.
    pub code: String,
    /// Whether it is a `code` element rather than a Coding.
    pub bare: bool,
    /// Places among [`Record::resources`] of the type, ascending.
    pub places: Vec<u32>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resources: usize = self.by_type.values().map(Vec::len).sum();
        write!(f, "Record({resources} resources, {} nodes)", self.nodes.len())
    }
}

/// Items of an array, or fields of an object.
pub struct Siblings<'a> {
    record: &'a Record,
    next: u32,
    single: bool,
}

impl Iterator for Siblings<'_> {
    type Item = NodeId;
    #[inline]
    fn next(&mut self) -> Option<NodeId> {
        let current = self.next;
        let node = self.record.nodes.get(current as usize)?;
        self.next = if self.single { NONE } else { node.next };
        Some(NodeId(current))
    }
}

impl Record {
    /// Reads the resources of one patient, one JSON object per line. Lines that are no resource come back with their
    /// reason. Of several lines with one type and id the newest (`meta.versionId`, `meta.lastUpdated`, then by bytes) counts.
    pub fn read<'a>(shape: &Shape, lines: impl Iterator<Item = &'a [u8]>) -> (Record, Vec<BadLine>) {
        let mut record = Record::default();
        let bad = record.reread(&mut Kinds::new(shape), lines);
        (record, bad)
    }

    /// The same for the next patient, in the room of one that is done with.
    pub fn reread<'a>(&mut self, kinds: &mut Kinds<'_>, lines: impl Iterator<Item = &'a [u8]>) -> Vec<BadLine> {
        self.nodes.clear();
        self.texts.clear();
        self.by_type.clear();
        self.lines.clear();
        self.codes.get_mut().clear();
        if self.names.len() > NAMES_KEPT_MAX {
            self.names.clear();
            self.next_names.clear();
            self.name_index.clear();
        }
        read::read(self, kinds, lines)
    }

    /// The id of the record's Patient; the first by id if there are several.
    pub fn patient_id(&self) -> Option<&str> {
        let patient = *self.resources("Patient").first()?;
        self.resource_id(patient)
    }

    /// Where a node stands; `None` for one that was not read from a line.
    pub fn place(&self, node: NodeId) -> Option<Place> {
        let (root, line) = self.line_of(node)?;
        let mut names = vec![self.resource_type(root)?];
        self.trail(root, node, &mut names).then(|| Place { line, element: names.join("."), meant: None })
    }

    /// The resource that a node is part of.
    pub fn resource_of(&self, node: NodeId) -> Option<NodeId> {
        self.line_of(node).map(|(root, _)| root)
    }

    fn line_of(&self, node: NodeId) -> Option<(NodeId, usize)> {
        let next = self.lines.partition_point(|(root, _)| *root <= node);
        self.lines.get(next.checked_sub(1)?).copied()
    }

    /// The names on the way from a node to one below it. No resource is deeper than [`DEPTH_MAX`].
    fn trail<'r>(&'r self, from: NodeId, to: NodeId, names: &mut Vec<&'r str>) -> bool {
        let below = match self.kind(from) {
            NodeKind::Object => self.fields(from),
            NodeKind::Array => self.items(from),
            _ => return from == to,
        };
        from == to
            || below.into_iter().any(|child| {
                let length = names.len();
                names.extend(self.name(child));
                let found = self.trail(child, to, names);
                if !found {
                    names.truncate(length);
                }
                found
            })
    }

    /// Resources of a type, by id.
    pub fn resources(&self, resource_type: &str) -> &[NodeId] {
        self.by_type.get(resource_type).map_or(&[], Vec::as_slice)
    }

    /// The resource types that are present.
    pub fn resource_types(&self) -> impl Iterator<Item = &str> {
        self.by_type.keys().map(String::as_str)
    }

    #[inline]
    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0 as usize)
    }

    #[inline]
    fn slice(&self, start: u32, len: u32) -> &str {
        self.texts.get(start as usize..start as usize + len as usize).unwrap_or("")
    }

    /// What a node is.
    #[inline]
    pub fn kind(&self, id: NodeId) -> NodeKind {
        match self.node(id).map(|node| node.content) {
            None | Some(Content::Null) => NodeKind::Null,
            Some(Content::Boolean(_)) => NodeKind::Boolean,
            Some(Content::Number { .. }) => NodeKind::Number,
            Some(Content::Text { .. }) => NodeKind::Text,
            Some(Content::Object { .. }) => NodeKind::Object,
            Some(Content::Array { .. }) => NodeKind::Array,
        }
    }

    /// A field of an object, by its JSON name. The `id` and `extension` of a primitive are found too.
    #[inline]
    pub fn get(&self, id: NodeId, name: &str) -> Option<NodeId> {
        let mut node = self.node(id)?;
        if !matches!(node.content, Content::Object { .. }) {
            node = self.nodes.get(node.companion as usize)?;
        }
        let Content::Object { first } = node.content else { return None };
        let siblings = Siblings { record: self, next: first, single: false };
        let mut found = siblings.filter(|field| self.name(*field).is_some_and(|own| is_same(own, name)));
        found.next()
    }

    /// The name under which a node stands in its object.
    #[inline]
    pub fn name(&self, id: NodeId) -> Option<&str> {
        let name = self.node(id)?.name;
        self.names.get(name as usize).map(|name| &**name)
    }

    /// Items of an array; for anything else the node itself, once.
    #[inline]
    pub fn items(&self, id: NodeId) -> Siblings<'_> {
        match self.node(id).map(|node| node.content) {
            Some(Content::Array { first }) => Siblings { record: self, next: first, single: false },
            _ => Siblings { record: self, next: id.0, single: true },
        }
    }

    /// Fields of an object in their order; none for anything else.
    pub fn fields(&self, id: NodeId) -> Siblings<'_> {
        match self.node(id).map(|node| node.content) {
            Some(Content::Object { first }) => Siblings { record: self, next: first, single: false },
            _ => Siblings { record: self, next: NONE, single: true },
        }
    }

    /// The text of a string.
    #[inline]
    pub fn text(&self, id: NodeId) -> Option<&str> {
        match self.node(id)?.content {
            Content::Text { start, len } => Some(self.slice(start, len)),
            _ => None,
        }
    }

    /// The text of a string, number or Boolean as JSON writes it (without quotes).
    #[inline]
    pub fn literal(&self, id: NodeId) -> Option<&str> {
        match self.node(id)?.content {
            Content::Text { start, len } | Content::Number { start, len } => Some(self.slice(start, len)),
            Content::Boolean(true) => Some("true"),
            Content::Boolean(false) => Some("false"),
            _ => None,
        }
    }

    /// The exact number, its scale kept; `None` for what is no number or beyond 28 digits.
    pub fn number(&self, id: NodeId) -> Option<Decimal> {
        let Content::Number { start, len } = self.node(id)?.content else { return None };
        let text = self.slice(start, len);
        if text.contains(['e', 'E']) { Decimal::from_scientific(text).ok() } else { text.parse().ok() }
    }

    /// The truth of a Boolean.
    pub fn boolean(&self, id: NodeId) -> Option<bool> {
        match self.node(id)?.content {
            Content::Boolean(truth) => Some(truth),
            _ => None,
        }
    }

    /// The `resourceType` of a resource (contained ones too).
    pub fn resource_type(&self, id: NodeId) -> Option<&str> {
        self.get(id, "resourceType").and_then(|node| self.text(node))
    }

    /// The `id` of a resource.
    pub fn resource_id(&self, id: NodeId) -> Option<&str> {
        self.get(id, "id").and_then(|node| self.text(node))
    }

    /// The resource of that type and id.
    pub fn resource(&self, resource_type: &str, id: &str) -> Option<NodeId> {
        let list = self.resources(resource_type);
        let at = list.partition_point(|node| self.resource_id(*node).unwrap_or_default() < id);
        list.get(at).copied().filter(|node| self.resource_id(*node) == Some(id))
    }

    /// The resource that a reference names: `Type/id`, absolute, or with a version. A `#id` is looked for among the
    /// resources contained in `container`.
    pub fn resolve(&self, container: NodeId, reference: &str) -> Option<NodeId> {
        if let Some(local) = reference.strip_prefix('#') {
            let contained = self.get(container, "contained")?;
            return self.items(contained).find(|node| self.resource_id(*node) == Some(local));
        }
        let (resource_type, id) = reference_parts(reference)?;
        self.resource(resource_type, id)
    }

    /// The codes under `key`, made by `make` at the first question.
    pub fn codes(&self, key: String, make: impl FnOnce() -> Vec<CodeRow>) -> Arc<Vec<CodeRow>> {
        if let Some(rows) = self.codes.borrow().get(&key) {
            return rows.clone();
        }
        let rows = Arc::new(make());
        self.codes.borrow_mut().insert(key, rows.clone());
        rows
    }

    /// Where the next node will stand: what a mapping adds stands there or after it.
    pub fn end(&self) -> NodeId {
        NodeId(u32::try_from(self.nodes.len()).unwrap_or(NONE))
    }

    // Building and mapping. What changes a record forgets its codes.

    /// Adds a resource from its JSON, whole. It replaces one of the same type and id.
    pub fn add_resource(&mut self, json: &[u8]) -> Result<NodeId, String> {
        read::add(self, json)
    }

    /// Appends a Coding to a CodeableConcept (or any element with `coding`); the codings that are there stay.
    pub fn append_coding(&mut self, codeable_concept: NodeId, system: &str, code: &str, display: Option<&str>) {
        let codings = match self.get(codeable_concept, "coding") {
            Some(codings) if self.kind(codings) == NodeKind::Array => codings,
            _ => {
                let array = self.push(Content::Array { first: NONE });
                self.attach_field(codeable_concept, "coding", array);
                array
            }
        };
        self.append_item_coding(codings, system, code, display);
    }

    /// Appends a Coding to an array of them.
    pub fn append_item_coding(&mut self, codings: NodeId, system: &str, code: &str, display: Option<&str>) {
        let coding = self.push(Content::Object { first: NONE });
        for (name, text) in [("system", Some(system)), ("code", Some(code)), ("display", display)] {
            if let Some(text) = text {
                self.set_field_text(coding, name, text);
            }
        }
        self.attach(codings, coding);
    }

    /// Makes a node a string with this text. Its extensions stay.
    pub fn set_text(&mut self, id: NodeId, text: &str) {
        self.codes.get_mut().clear();
        let Some(content) = self.store_text(text) else { return };
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.content = content;
        }
    }

    /// Makes a node a number with this value.
    pub fn set_number(&mut self, id: NodeId, number: Decimal) {
        let Some(Content::Text { start, len }) = self.store_text(&number.to_string()) else { return };
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.content = Content::Number { start, len };
        }
    }

    /// Sets a field of an object to a string, adding the field if it is missing.
    pub fn set_field_text(&mut self, object: NodeId, name: &str, text: &str) {
        let field = self.field_or_new(object, name);
        self.set_text(field, text);
    }

    /// The field of that name; added as null if it is missing.
    pub fn field_or_new(&mut self, object: NodeId, name: &str) -> NodeId {
        if let Some(field) = self.get(object, name) {
            return field;
        }
        let field = self.push(Content::Null);
        self.attach_field(object, name, field);
        field
    }

    /// The field of that name as an object; added, or turned into an empty object, if it is not one.
    pub fn object_or_new(&mut self, object: NodeId, name: &str) -> NodeId {
        let field = self.field_or_new(object, name);
        if self.kind(field) != NodeKind::Object
            && let Some(node) = self.nodes.get_mut(field.0 as usize)
        {
            node.content = Content::Object { first: NONE };
        }
        field
    }

    fn attach_field(&mut self, object: NodeId, name: &str, field: NodeId) {
        let name = self.intern(name);
        if let Some(node) = self.nodes.get_mut(field.0 as usize) {
            node.name = name;
        }
        self.attach(object, field);
    }

    /// Appends a child to an object or array.
    fn attach(&mut self, parent: NodeId, child: NodeId) {
        let first = match self.node(parent).map(|node| node.content) {
            Some(Content::Object { first } | Content::Array { first }) => first,
            _ => return,
        };
        if first == NONE {
            if let Some(Content::Object { first } | Content::Array { first }) = self.nodes.get_mut(parent.0 as usize).map(|node| &mut node.content) {
                *first = child.0;
            }
            return;
        }
        let last = Siblings { record: self, next: first, single: false }.last();
        if let Some(node) = last.and_then(|last| self.nodes.get_mut(last.0 as usize)) {
            node.next = child.0;
        }
    }

    #[inline]
    fn push(&mut self, content: Content) -> NodeId {
        if !self.codes.get_mut().is_empty() {
            self.codes.get_mut().clear();
        }
        let id = u32::try_from(self.nodes.len()).unwrap_or(NONE);
        self.nodes.push(Node { content, name: NONE, next: NONE, companion: NONE });
        NodeId(id)
    }

    /// Puts a text into the buffer; `None` when the buffer is full.
    #[inline]
    fn store_text(&mut self, text: &str) -> Option<Content> {
        if self.texts.len().saturating_add(text.len()) > TEXT_BYTES_MAX {
            return None;
        }
        let start = u32::try_from(self.texts.len()).ok()?;
        let len = u32::try_from(text.len()).ok()?;
        self.texts.push_str(text);
        Some(Content::Text { start, len })
    }

    /// Room for a first resource or two at once, rather than in many small steps.
    fn make_room(&mut self) {
        if self.nodes.capacity() == 0 {
            self.nodes.reserve(FIRST_NODES);
            self.texts.reserve(FIRST_NODES * 8);
            self.names.reserve(FIRST_NAMES);
        }
    }

    #[inline]
    fn intern(&mut self, name: &str) -> u32 {
        // Resources of a kind have their fields in one order.
        let next = self.next_names.get(self.last_name).copied().unwrap_or(NONE);
        let found = if self.names.get(next as usize).is_some_and(|known| is_same(known, name)) { next } else { self.search_name(name) };
        self.last_name = found as usize;
        found
    }

    fn search_name(&mut self, name: &str) -> u32 {
        let number = |at: usize| u32::try_from(at).unwrap_or(NONE);
        let known = self.names.iter().take(FIRST_NAMES).position(|known| **known == *name).map(number);
        let found = known.or_else(|| self.name_index.get(name).copied()).unwrap_or_else(|| {
            let index = number(self.names.len());
            self.names.push(name.into());
            self.next_names.push(NONE);
            if self.names.len() > FIRST_NAMES {
                self.name_index.insert(name.into(), index);
            }
            index
        });
        if let Some(next) = self.next_names.get_mut(self.last_name) {
            *next = found;
        }
        found
    }

    /// Lists a resource under its type and id, in order.
    fn index(&mut self, root: NodeId) {
        let resource_type = self.resource_type(root).unwrap_or_default().to_owned();
        let older = self.resource_id(root).and_then(|id| self.resource(&resource_type, id));
        if let (Some(older), Some(list)) = (older, self.by_type.get_mut(&resource_type)) {
            list.retain(|node| *node != older);
        }
        let mut list = self.by_type.remove(&resource_type).unwrap_or_default();
        let id = self.resource_id(root).unwrap_or_default();
        let at = list.partition_point(|node| self.resource_id(*node).unwrap_or_default() <= id);
        list.insert(at, root);
        self.by_type.insert(resource_type, list);
    }
}

/// Whether two names are the same: FHIR's are so short that two comparisons of a few bytes each tell, without a loop.
#[inline]
fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    one.len() == other.len()
        && match one.len() {
            0..4 => one == other,
            4..=8 => one.first_chunk::<4>() == other.first_chunk() && one.last_chunk::<4>() == other.last_chunk(),
            9..=16 => one.first_chunk::<8>() == other.first_chunk() && one.last_chunk::<8>() == other.last_chunk(),
            _ => one == other,
        }
}

/// Resource type and id of a literal reference: `Type/id`, `http://…/Type/id`, either with `/_history/v`. `None` for
/// `#id`, `urn:` and anything else.
pub fn reference_parts(reference: &str) -> Option<(&str, &str)> {
    let reference = reference.split_once("/_history/").map_or(reference, |(before, _)| before);
    let mut parts = reference.rsplit('/');
    let id = parts.next().filter(|id| !id.is_empty())?;
    let resource_type = parts.next()?;
    resource_type.starts_with(|first: char| first.is_ascii_uppercase()).then_some((resource_type, id))
}
