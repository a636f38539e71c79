//! The retry table, addresses, tokens and limits, against servers made on the spot.

use super::*;
