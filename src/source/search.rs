//! FHIR search with opaque paging.
