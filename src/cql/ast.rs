//! What was written.
