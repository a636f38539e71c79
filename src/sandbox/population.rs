//! Patients from a seed, with the truth about every measure.
