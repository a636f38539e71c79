//! Rates, intervals, run charts: numbers in, numbers out.

pub mod rate;
pub mod run_chart;
