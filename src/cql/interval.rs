//! Intervals with open, closed and unknown bounds.
