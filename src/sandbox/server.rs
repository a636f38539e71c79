//! FHIR REST, search and SMART Backend Services.
