//! Servers that have several quirks at once: what one of them hides another must not make wrong.

use super::bench::{Bench, Pulled};
use super::quirk_search::of_group;
use watershed::sandbox::server::Options as Serving;
use watershed::source::{Mode, SourceError};

/// Quirks, how it is asked, and the Group, if it is asked of one.
const SERVERS: &[(&[&str], Mode, &str)] = &[
    (&["q_80", "q_27", "q_31"], Mode::Search, ""),
    (&["q_80", "q_61"], Mode::Search, ""),
    (&["q_80", "q_59"], Mode::Search, ""),
    (&["q_80", "q_12", "q_16"], Mode::Search, "ibd"),
    (&["q_80", "q_78", "q_79"], Mode::Search, ""),
    (&["q_82", "q_46", "q_65"], Mode::Bulk, "ibd"),
    (&["q_82", "q_47", "q_59"], Mode::Bulk, ""),
    (&["q_82", "q_45", "q_62"], Mode::Bulk, ""),
];

/// Requests of one night: where nothing is forgotten, the first of these takes 263.
const REQUESTS_MAX: usize = 320;

async fn site(quirks: &[&str], group: &str) -> Bench {
    let mut bench = if group.is_empty() { Bench::new(quirks).await } else { of_group(quirks, Serving::default()).await }.swift();
    (bench.options.page_size, bench.options.requests_at_once) = (3, 1);
    bench
}

/// What is wrong with a night.
fn complaints(night: Result<Pulled, SourceError>) -> (usize, Vec<String>) {
    match night {
        Ok(pulled) => (pulled.requests.len(), pulled.unnamed()),
        Err(error) => (0, vec![error.to_string()]),
    }
}

#[tokio::test]
async fn nights_with_servers_of_several_quirks_end_in_the_truth_or_say_what_is_not() {
    let mut found = Vec::new();
    for (quirks, mode, group) in SERVERS {
        let bench = site(quirks, group).await;
        for night in 1..=3 {
            let (requests, wrong) = complaints(bench.try_pull(*mode).await);
            found.extend(wrong.into_iter().map(|wrong| format!("{quirks:?} {mode:?} `{group}`, night {night}: {wrong}")));
            if requests > REQUESTS_MAX {
                found.push(format!("{quirks:?} {mode:?} `{group}`, night {night}: {requests} requests"));
            }
            if night == 1 {
                bench.hospital.amend_at(3, bench.clock.now());
                bench.hospital.vanish("Observation", 2);
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}
