//! SMART Backend Services: S-01 to S-14.
