//! Reads value sets
