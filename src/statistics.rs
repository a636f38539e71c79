//! Rates, intervals, run charts: numbers in, numbers out.
