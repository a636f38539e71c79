//! Quality measures: definition, populations, strata, results.

pub mod case;
pub mod definition;
pub mod population;
pub mod report;
