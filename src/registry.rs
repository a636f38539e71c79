//! The network's end of the wire: clients, tokens, feeds, revisions, receipts, pages.

pub mod auth;
pub mod feeds;
pub mod pages;
pub mod store;
