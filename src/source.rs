//! Data from an EHR: capability, query plan, search, Bulk Data, folders of files.

pub mod bulk;
pub mod folder;
pub mod plan;
pub mod search;
