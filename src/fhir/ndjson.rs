//! Newline-delimited JSON: splitting, bounds, bad lines.
