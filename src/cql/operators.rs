//! The operator table: names, specification sections, signatures, functions, worked examples.
