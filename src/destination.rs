//! Where feeds go.

pub mod registry;
