//! SMART Backend Services: keys, assertions, tokens.

pub mod assertion;
pub mod client;
pub mod key_set;
