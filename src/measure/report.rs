//! Partial results, merged in any order, to FHIR MeasureReports.
