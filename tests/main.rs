//! The one integration binary; each file below is a topic.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failing test may stop; a skipped one says so")]

#[allow(dead_code, reason = "the kills of `yardsticks.rs` use the rest")]
mod bed;
mod browser;
mod command_line;
mod composite;
mod cql_suite;
mod daemon;
mod elm;
mod evaluate;
mod explain;
mod fhirpath;
mod figures;
mod folder;
mod fuzz;
mod generated;
mod imports;
mod interoperability;
mod language;
mod measures;
mod merged;
mod mistakes;
mod obligations;
mod observed;
mod operators;
mod pipeline;
mod publication;
mod recovery;
mod registry;
mod sandbox;
mod shapes;
mod shared;
mod source;
mod tidy;
mod tls;
mod told;
mod traps;
mod ucum;
mod unlike;
