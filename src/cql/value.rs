//! Runtime values: equality, equivalence, ordering, three-valued logic.
