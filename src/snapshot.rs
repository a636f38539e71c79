//! Immutable, checksummed, encrypted segments by patient partition, and their catalog.
