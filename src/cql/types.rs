//! The type lattice: subtypes, conversions with their precedence, choices, generics.
