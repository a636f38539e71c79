//! Site and registry configuration: defaults, file, environment.
