//! Rates and their exact or score intervals.
