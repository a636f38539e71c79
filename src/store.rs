//! The one SQLite state database: migrations and transactions.
