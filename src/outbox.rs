//! Finished feeds on their way: appended, claimed, settled, retried, dead-lettered.
