//! Which resources a reading brought, without keeping them: how many, which came twice, and whether two readings agree.

use super::place::Sums;
use crate::source::SourceError;
use crate::source::pull::Pull;
use std::collections::HashSet;

/// Resources of one reading that are remembered to notice repeated ones: about 20 MB.
const REMEMBERED_MAX: usize = 1_000_000;

/// The first bytes of a digest.
pub(super) fn short(digest: &str) -> u64 {
    u64::from_str_radix(digest.get(..16).unwrap_or_default(), 16).unwrap_or_default()
}

/// Which resources came, without keeping them.
#[derive(Default)]
pub(super) struct Tally {
    seen: HashSet<u64>,
    /// Different ones.
    pub distinct: u64,
    /// Further copies.
    pub repeated: u64,
    /// Equal for the same resources in any order.
    pub digest: u64,
}

impl Tally {
    /// What it comes to.
    pub fn sums(&self) -> Sums {
        Sums { distinct: self.distinct, repeated: self.repeated, digest: self.digest }
    }

    /// As it was when it came to `sums` and these staged files were written.
    pub fn restored(pull: &Pull<'_>, sums: Sums, files: &[String]) -> Result<Tally, SourceError> {
        let mut seen = HashSet::new();
        pull.snapshot.staged(pull.id, files, |header, _| {
            if seen.len() < REMEMBERED_MAX {
                seen.insert(Tally::key(&header.resource_type, &header.id));
            }
            Ok(())
        })?;
        Ok(Tally { seen, distinct: sums.distinct, repeated: sums.repeated, digest: sums.digest })
    }

    /// Whether one came, as far as that is remembered.
    pub fn has_seen(&self, resource_type: &str, id: &str) -> bool {
        self.seen.contains(&Tally::key(resource_type, id))
    }

    /// Whether all that came is remembered.
    pub fn remembers_all(&self) -> bool {
        self.seen.len() < REMEMBERED_MAX
    }

    fn key(resource_type: &str, id: &str) -> u64 {
        short(&crate::store::sha256_hex(format!("{resource_type}/{id}").as_bytes()))
    }

    /// Notes one that came.
    pub fn note(&mut self, resource_type: &str, id: &str, hash: &[u8; 32]) {
        let key = Tally::key(resource_type, id);
        if self.seen.len() < REMEMBERED_MAX && !self.seen.insert(key) {
            self.repeated += 1;
            return;
        }
        self.distinct += 1;
        let content = hash.iter().take(8).fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        self.digest ^= key.rotate_left(17) ^ content;
    }
}
