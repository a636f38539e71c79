//! UCUM units: validity, conversion, comparability.
