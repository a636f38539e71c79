//! Tests of interoperability.
