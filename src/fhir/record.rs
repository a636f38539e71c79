//! One patient's resources in a compact arena, restricted to the paths that a plan needs.
