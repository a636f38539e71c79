//! Value sets by expansion, code systems' fragments, concept maps.

pub mod units;

/// The value sets of a run, each expanded, by canonical URL and version.
#[derive(Clone, Debug, Default)]
pub struct ValueSets {}
