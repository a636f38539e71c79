//! Quality measures: definition, populations, strata, results.

pub mod case;
pub mod definition;
pub mod period;
pub mod population;
pub mod report;
pub mod result;
