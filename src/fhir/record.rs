//! One patient's resources in a compact arena, restricted to the paths that a plan needs.

pub mod shape;

pub use shape::{Keep, Shape};

/// An element of a record, by its place in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// One patient's resources.
#[derive(Default)]
pub struct Record {}
