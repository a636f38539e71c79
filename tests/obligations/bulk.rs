//! Bulk Data export: B-01 to B-22.
