//! Syntax tree to typed tree: names, overloads, implicit conversions; every error collected.
