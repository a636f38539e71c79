//! The typed tree in which CQL text and ELM meet.
