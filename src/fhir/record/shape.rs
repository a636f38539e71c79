//! What to keep of each resource while reading: the types and paths that a plan uses.

use std::collections::BTreeMap;

/// Which parts of an element are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The element with everything below it.
    All,
    /// Only these fields (JSON names); a scalar is kept in any case.
    Fields(BTreeMap<String, Keep>),
}

impl Default for Keep {
    fn default() -> Self {
        Keep::Fields(BTreeMap::new())
    }
}

impl Keep {
    /// What is kept of a field; `None` if the field is skipped.
    pub fn field(&self, name: &str) -> Option<&Keep> {
        match self {
            Keep::All => Some(self),
            Keep::Fields(fields) => fields.get(name),
        }
    }

    /// Keeps what either keeps.
    pub fn merge(&mut self, other: &Keep) {
        match (&mut *self, other) {
            (Keep::All, _) => {}
            (_, Keep::All) => *self = Keep::All,
            (Keep::Fields(own), Keep::Fields(others)) => {
                for (name, keep) in others {
                    own.entry(name.clone()).or_default().merge(keep);
                }
            }
        }
    }
}

/// Resource types to read, and what to keep of each. `resourceType`, `id` and `meta` are kept always.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Shape {
    /// By resource type; other types are skipped unread.
    pub types: BTreeMap<String, Keep>,
    /// Every type, whole.
    pub everything: bool,
}

impl Shape {
    /// Keeps all of everything.
    pub fn everything() -> Shape {
        Shape { types: BTreeMap::new(), everything: true }
    }

    /// What is kept of a resource type; `None` if it is skipped.
    pub fn of(&self, resource_type: &str) -> Option<&Keep> {
        if self.everything { Some(&Keep::All) } else { self.types.get(resource_type) }
    }

    /// Keeps what either keeps: for several programs over one reading.
    pub fn merge(&mut self, other: &Shape) {
        self.everything |= other.everything;
        for (name, keep) in &other.types {
            self.types.entry(name.clone()).or_default().merge(keep);
        }
    }
}
