//! Test patients beside a measure and the populations expected of them.
