//! Run charts: the median, and the rules that tell a signal from chance.
