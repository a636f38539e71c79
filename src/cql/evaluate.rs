//! Plan and record to values.
