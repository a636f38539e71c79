//! Which patient a resource belongs to.
