//! Typed tree to plan: indexes, constants, data requirements and the shape of the scan.
