//! What to keep of each resource while reading: the types and paths that a plan uses.

use std::collections::{BTreeMap, BTreeSet};

use super::Sieve;

/// So many fields are looked through faster than they are searched: a name of another length is not compared at all.
const FEW_FIELDS: usize = 16;

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
    #[inline]
    pub fn field(&self, name: &str) -> Option<&Keep> {
        match self {
            Keep::All => Some(self),
            Keep::Fields(fields) if fields.len() <= FEW_FIELDS => fields.iter().find(|(own, _)| *own == name).map(|(_, keep)| keep),
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
    /// Types of which only lines with certain codes matter.
    pub sieves: BTreeMap<String, Sieve>,
}

impl Shape {
    /// Keeps all of everything.
    pub fn everything() -> Shape {
        Shape { everything: true, ..Shape::default() }
    }

    /// What is kept of a resource type; `None` if it is skipped.
    pub fn of(&self, resource_type: &str) -> Option<&Keep> {
        if self.everything { Some(&Keep::All) } else { self.types.get(resource_type) }
    }

    /// Keeps what either keeps: for several programs over one reading.
    pub fn merge(&mut self, other: &Shape) {
        self.everything |= other.everything;
        self.merge_sieves(other);
        for (name, keep) in &other.types {
            self.types.entry(name.clone()).or_default().merge(keep);
        }
    }

    /// A type that both read keeps a sieve only if both have one.
    fn merge_sieves(&mut self, other: &Shape) {
        let mut sieves = std::mem::take(&mut self.sieves);
        sieves.retain(|name, _| !other.types.contains_key(name) || other.sieves.contains_key(name));
        for (name, sieve) in &other.sieves {
            let merged = match sieves.get(name) {
                Some(own) => own.merge(sieve),
                None if self.types.contains_key(name) => None,
                None => Some(sieve.clone()),
            };
            match merged {
                Some(merged) => sieves.insert(name.clone(), merged),
                None => sieves.remove(name),
            };
        }
        if !self.everything {
            self.sieves = sieves;
        }
    }

    /// Reads, of a type, only lines that may hold one of these codes.
    pub fn sift(&mut self, resource_type: &str, codes: BTreeSet<String>) {
        if let Some(sieve) = Sieve::new(codes) {
            self.sieves.insert(resource_type.to_owned(), sieve);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(types: &[(&str, Option<&str>)]) -> Shape {
        let mut shape = Shape::default();
        for (name, code) in types {
            shape.types.insert((*name).to_owned(), Keep::All);
            if let Some(code) = code {
                shape.sift(name, BTreeSet::from([(*code).to_owned()]));
            }
        }
        shape
    }

    #[test]
    fn what_one_of_two_programs_reads_whole_is_not_sifted() {
        let merged = |left: &[(&str, Option<&str>)], right: &[(&str, Option<&str>)]| {
            let mut left = shape(left);
            left.merge(&shape(right));
            left
        };
        let both = merged(&[("Observation", Some("a"))], &[("Observation", Some("b"))]);
        assert!(both.sieves["Observation"].may_hold(br#""a""#) && both.sieves["Observation"].may_hold(br#""b""#));
        assert!(!both.sieves["Observation"].may_hold(br#""c""#));
        assert_eq!(merged(&[("Observation", Some("a"))], &[("Observation", None)]).sieves.len(), 0);
        assert_eq!(merged(&[("Observation", None)], &[("Observation", Some("a"))]).sieves.len(), 0);
        assert_eq!(merged(&[("Condition", None)], &[("Observation", Some("a"))]).sieves.len(), 1);
    }
}
