//! Dates and times with precision, offsets and uncertainty.
