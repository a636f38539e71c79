//! Reports of hand-made results.
