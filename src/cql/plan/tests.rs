//! Requirements and shapes of small programs.
