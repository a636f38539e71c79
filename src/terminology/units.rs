//! UCUM units: validity, conversion, comparability.

/// Units of measure: UCUM and the calendar words of CQL.
#[derive(Clone, Debug, Default)]
pub struct Units {}
