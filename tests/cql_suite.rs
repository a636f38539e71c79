//! Tests of cql suite.
