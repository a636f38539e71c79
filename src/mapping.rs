//! Site rules that turn local codes, units and elements into standard ones; the original is kept.
