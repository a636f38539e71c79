//! Findings for the person who can act: where, what was found, what was expected, what to do.
