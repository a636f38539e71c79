//! Quality measures: definition, populations, strata, results.
//!
//! `measure.yaml` is read by [`definition`], joined to its CQL by [`mod@compile`], evaluated over one patient's record by
//! [`calculate`], where the criteria of [`population`] become memberships, and those of several measures the memberships of
//! a [`composite`]; [`result`] sums them over patients in any order, [`report`] makes MeasureReports of the sums. [`case`]
//! holds test patients against all of it.

pub mod calculate;
pub mod case;
pub mod compile;
pub mod composite;
pub mod definition;
pub mod explain;
pub mod logic;
pub mod period;
pub mod population;
pub mod published;
pub mod report;
pub mod result;

pub use calculate::{Measure, Run, Setting, evaluate};
pub use compile::{Choices, Files, Logic, MissingValueSets, compile};
pub use period::Period;
pub use population::Score;
pub use result::{Partial, PatientResult};
