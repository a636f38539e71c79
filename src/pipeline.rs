//! The one place where the stages meet: a night.
