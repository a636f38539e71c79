//! Site and registry configuration: defaults, file, environment.

pub mod layers;
