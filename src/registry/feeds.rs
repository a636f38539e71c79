//! The feed protocol, from the registry's side.
