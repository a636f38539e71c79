//! Tests of evaluate.
