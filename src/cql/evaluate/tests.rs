//! Evaluation of small programs.
