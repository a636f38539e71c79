//! The feed protocol, from the adapter's side.
