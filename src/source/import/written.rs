//! A declaration's YAML with the place of every key and value, so that all that is wrong with it is found at once.

use crate::diagnostic::yaml::node::{self, Content, Named, Node};
use crate::diagnostic::{Diagnostic, Location, SourceFile, nearest, yaml};
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reads what was written; collects every problem.
pub(super) struct Reader<'a> {
    pub source: &'a Arc<SourceFile>,
    pub findings: Vec<Diagnostic>,
}

impl Reader<'_> {
    /// The place of a value.
    pub fn at(&self, written: &Node) -> Location {
        node::at(self.source, written)
    }

    /// The place of a key.
    pub fn place(&self, key: &Spanned<String>) -> Location {
        yaml::locate(self.source, key)
    }

    pub fn error(&mut self, at: Location, message: impl Into<String>, help: &str) {
        self.findings.push(Diagnostic::error(message).at(at).help(help));
    }

    /// The values of keys, each of which must be one of those that are known here.
    pub fn fields<'w>(&mut self, written: &'w Node, what: &str, known: &[&str]) -> BTreeMap<&'w str, &'w Node> {
        let Content::Fields(Named(entries)) = &written.value else {
            let at = self.at(written);
            self.error(at, format!("{what} is {}, expected keys with values", written.value.kind()), &format!("keys here are {}", quoted(known)));
            return BTreeMap::new();
        };
        let mut fields = BTreeMap::new();
        for (key, value) in entries {
            let at = self.place(key);
            match known.contains(&key.value.as_str()) {
                true => drop(fields.insert(key.value.as_str(), value)),
                false => self.error(at, format!("{what} has no key `{}`", key.value), &did_you_mean(&key.value, known)),
            }
        }
        fields
    }

    /// A text; what is no text is an error.
    pub fn text<'w>(&mut self, written: &'w Node, what: &str) -> Option<&'w str> {
        match &written.value {
            Content::Text(text) if !text.trim().is_empty() => Some(text),
            other => {
                let found = if let Content::Text(_) = other { "empty" } else { other.kind() };
                let at = self.at(written);
                self.error(at, format!("{what} is {found}, expected text"), "what looks like a number is text in quotes");
                None
            }
        }
    }

    /// A text that must be there.
    pub fn required<'w>(&mut self, fields: &BTreeMap<&'w str, &'w Node>, key: &str, owner: &Location, help: &str) -> Option<&'w str> {
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
