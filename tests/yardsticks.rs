//! What `.ci/run` runs once more, optimised and whole: all published cases, the reference translator, servers of every
//! kind with all seeds, processes killed at all points. A binary of its own, since optimising the other tests as well
//! takes minutes and gains nothing.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failing test may stop; a skipped one says so")]

#[allow(dead_code, reason = "the tests of nights use the rest")]
mod bed;
#[allow(dead_code, reason = "the tests of single obligations use the rest")]
#[path = "obligations/bench.rs"]
mod bench;
mod crash;
mod figures;
mod large;
mod profiles;
mod published;
mod shared;
#[allow(dead_code, reason = "the tests of single obligations use the rest")]
#[path = "obligations/small.rs"]
mod small;
mod translated;

/// Whether all is wanted (`WATERSHED_ALL=1`, meant for an optimised build), not only a part.
fn all() -> bool {
    std::env::var("WATERSHED_ALL").is_ok()
}
