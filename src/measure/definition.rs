//! `measure.yaml`: the FHIR Measure in a form that a person writes.
