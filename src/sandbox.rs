//! Simulated hospitals: populations with known truth behind a strict FHIR server.
//!
//! [`Hospital::generate`] makes a hospital's patients from a seed, writes their records as FHIR R4
//! (US Core) resources, and keeps the plan they were made from. The [`Truth`] about every measure is
//! counted from that plan, never by evaluating a measure, so that a pipeline can be judged against it.
//! [`serve`] puts the hospital behind a FHIR server that is as strict as a good real one.
//!
//! - `population` and one file per clinic (`ibd`, `inpatient`, `delivery`): plans, records, truth;
//! - `chart`: the current version of every resource, indexed by type and patient;
//! - `server`, `access`, `search`, `export`: the FHIR server;
//! - `quirk`, `fault`: what real servers do wrong, and what goes wrong by chance;
//! - `amend`: late data and corrections, after which the truth is another.

mod access;
mod amend;
mod capability;
mod chart;
mod delivery;
mod demographics;
pub mod dialect;
mod dice;
mod draft;
mod entry;
mod export;
pub mod fault;
mod ibd;
mod inpatient;
mod moment;
mod paging;
pub mod population;
pub mod quirk;
mod reply;
pub mod request;
mod search;
pub mod server;
pub mod truth;
mod upheaval;

pub use dialect::Dialect;
pub use fault::Fault;
pub use population::{Hospital, Profile};
pub use quirk::Scenario;
pub use server::{Client, Options, Running, ServeError, serve, start};
pub use truth::{Truth, TruthRow, TruthStratum};
