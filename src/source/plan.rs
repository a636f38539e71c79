//! Data requirements and server capability to queries.
