//! Signed client assertions: made, and checked as strictly as a good server does.
