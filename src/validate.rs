//! JSON Schemas and DEQM invariants over reports, before anything is sent.
