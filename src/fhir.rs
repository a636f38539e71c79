//! FHIR R4 data: scanning by shape, one patient's record, references, dates, decimals, NDJSON.

pub mod compartment;
pub mod entries;
pub mod merged;
pub mod modifier;
pub mod ndjson;
pub mod record;
pub mod required;
pub mod resource_type;
pub mod shared;
