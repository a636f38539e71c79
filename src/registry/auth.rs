//! Registered clients, the token endpoint, bearer tokens.
