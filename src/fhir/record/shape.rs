//! What to keep of each resource while reading: the types and paths that a plan uses.

use std::collections::{BTreeMap, BTreeSet};

use super::{Sieve, is_same};

/// Which parts of an element are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The element with everything below it.
    All,
    /// Only these fields (JSON names); a scalar is kept in any case.
    Fields(Fields),
}

/// The fields of an element that are kept, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// In the order of their names.
    kept: Vec<(String, Keep)>,
    /// A bit for each length of a name: most fields of a resource are not kept, and many are longer or shorter than any that is.
    lengths: u64,
}

impl Fields {
    /// What is kept of a field; `None` if the field is skipped. They are few, so that looking through them is faster than searching.
    #[inline]
    fn get(&self, name: &str) -> Option<&Keep> {
        if self.lengths & length_bit(name) == 0 {
            return None;
        }
        self.kept.iter().find(|(own, _)| is_same(own, name)).map(|(_, keep)| keep)
    }

    /// What is kept of a field, which is kept from now on.
    pub fn get_or_insert(&mut self, name: &str) -> &mut Keep {
        self.lengths |= length_bit(name);
        let at = self.kept.partition_point(|(own, _)| &**own < name);
        if self.kept.get(at).is_none_or(|(own, _)| own != name) {
            self.kept.insert(at, (name.to_owned(), Keep::default()));
        }
        &mut self.kept[at].1
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Keep)> {
        self.kept.iter().map(|(name, keep)| (&**name, keep))
    }

    /// Whether no field is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

fn length_bit(name: &str) -> u64 {
    1 << name.len().min(63)
}

impl<const N: usize> From<[(&str, Keep); N]> for Fields {
    fn from(kept: [(&str, Keep); N]) -> Fields {
        let mut fields = Fields::default();
        kept.into_iter().for_each(|(name, keep)| *fields.get_or_insert(name) = keep);
        fields
    }
}

impl Default for Keep {
    fn default() -> Self {
        Keep::Fields(Fields::default())
    }
}

impl Keep {
    /// What is kept of a field; `None` if the field is skipped.
    #[inline]
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
            (Keep::Fields(own), Keep::Fields(others)) => others.iter().for_each(|(name, keep)| own.get_or_insert(name).merge(keep)),
        }
    }
}

/// Resource types to read, and what to keep of each. `resourceType` and `id` are kept always.
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
