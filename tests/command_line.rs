//! Tests of command line.
