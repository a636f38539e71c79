//! Value sets by expansion, code systems' fragments, concept maps.

pub mod units;
