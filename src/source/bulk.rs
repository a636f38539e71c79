//! Bulk Data export: kick-off, poll, download, delete.
