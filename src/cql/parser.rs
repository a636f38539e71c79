//! Tokens to a syntax tree; recovers and reports every error.
