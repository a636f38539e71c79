//! Bulk Data export jobs.
