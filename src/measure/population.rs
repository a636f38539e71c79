//! The population algebra of the Quality Measure guide.
