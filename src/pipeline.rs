//! The one place where the stages meet: a night.

pub mod schedule;
