//! Simulated hospitals: populations with known truth behind a strict FHIR server.

pub mod export;
pub mod population;
pub mod server;
