//! A declaration's YAML with the place of every key and value, so that all that is wrong with it is found at once.

use crate::diagnostic::{Diagnostic, Location, SourceFile, Span, nearest};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A value with its place.
pub(super) type Written = Spanned<Node>;

/// A value of YAML.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Written>),
    Map(Vec<(Spanned<String>, Written)>),
}

impl Node {
    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Node::Null => "nothing",
            Node::Bool(_) => "true or false",
            Node::Number(_) => "a number",
            Node::Text(_) => "text",
            Node::List(_) => "a list",
            Node::Map(_) => "keys with values",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of YAML")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Number::from_f64(value).map_or(Node::Null, Node::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

/// Reads what was written; collects every problem.
pub(super) struct Reader<'a> {
    pub source: &'a Arc<SourceFile>,
    pub findings: Vec<Diagnostic>,
}

impl Reader<'_> {
    /// The place of a text of so many bytes.
    pub fn place<T>(&self, written: &Spanned<T>, length: usize) -> Location {
        let at = &written.referenced;
        let number = |value: u64| usize::try_from(value).unwrap_or(1);
        let start = self.source.offset(number(at.line()), number(at.column()));
        let quote = usize::from(matches!(self.source.text.as_bytes().get(start), Some(b'"' | b'\'')));
        let byte = |at: usize| u32::try_from(at.min(self.source.text.len())).unwrap_or(u32::MAX);
        Location::new(self.source, Span::new(byte(start + quote), byte(start + quote + length)))
    }

    /// The place of a value: all of a text, the beginning of anything else.
    pub fn at(&self, written: &Written) -> Location {
        self.place(written, if let Node::Text(text) = &written.value { text.len() } else { 1 })
    }

    pub fn error(&mut self, at: Location, message: impl Into<String>, help: &str) {
        self.findings.push(Diagnostic::error(message).at(at).help(help));
    }

    /// The values of keys, each of which must be one of those that are known here.
    pub fn fields<'w>(&mut self, written: &'w Written, what: &str, known: &[&str]) -> BTreeMap<&'w str, &'w Written> {
        let Node::Map(entries) = &written.value else {
            let at = self.at(written);
            self.error(at, format!("{what} is {}, expected keys with values", written.value.kind()), &format!("keys here are {}", quoted(known)));
            return BTreeMap::new();
        };
        let mut fields = BTreeMap::new();
        for (key, value) in entries {
            let at = self.place(key, key.value.len());
            match known.contains(&key.value.as_str()) {
                true => drop(fields.insert(key.value.as_str(), value)),
                false => self.error(at, format!("{what} has no key `{}`", key.value), &did_you_mean(&key.value, known)),
            }
        }
        fields
    }

    /// A text; what is no text is an error.
    pub fn text<'w>(&mut self, written: &'w Written, what: &str) -> Option<&'w str> {
        match &written.value {
            Node::Text(text) if !text.trim().is_empty() => Some(text),
            other => {
                let found = if let Node::Text(_) = other { "empty" } else { other.kind() };
                let at = self.at(written);
                self.error(at, format!("{what} is {found}, expected text"), "what looks like a number is text in quotes");
                None
            }
        }
    }

    /// A text that must be there.
    pub fn required<'w>(&mut self, fields: &BTreeMap<&'w str, &'w Written>, key: &str, owner: &Location, help: &str) -> Option<&'w str> {
        match fields.get(key) {
            Some(written) => self.text(written, &format!("`{key}`")),
            None => {
                self.error(owner.clone(), format!("the key `{key}` is missing"), help);
                None
            }
        }
    }
}

/// The nearest right name, or all of them.
pub(super) fn did_you_mean(written: &str, known: &[&str]) -> String {
    match nearest(written, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known here: {}", quoted(known)),
    }
}

pub(super) fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
