//! `watershed deliver`: send what waits in the outbox, now.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args as ClapArgs;
use jiff::Timestamp;
use serde_json::json;

use super::{Context, Ending, Failure, Format, Kind, print, print_json, state_failure};
use crate::config::setup;
use crate::destination::registry::{DeliverError, Delivered, Registry, deliver_due};
use crate::http::{Clock, SystemClock};
use crate::outbox;
use crate::store::Store;

/// Send what waits in the outbox
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The site's configuration
    #[arg(long, value_name = "FILE", default_value = "site.toml", env = "WATERSHED_CONFIG", hide_env_values = true)]
    config: PathBuf,
}

/// Runs the command. Exit code 5 when the registry rejected a feed, 4 when it could not be reached.
pub fn run(args: Args, context: &Context) -> Result<Ending, Failure> {
    let site = super::site(&args.config)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = setup::registry(&site, &clock).map_err(Failure::configuration)?;
    let path = setup::state_file(&site);
    // Before the first night nothing waits.
    let store = path.exists().then(|| Store::open(&path)).transpose().map_err(state_failure)?;
    let done = store.as_ref().map_or_else(|| Ok(Delivered::default()), |store| deliver(&registry, store))?;
    match context.format {
        Format::Json => print_json(&json!({ "delivered": done.delivered, "confirmed": done.confirmed, "restored": done.restored, "waiting": done.waiting, "rejected": done.dead })),
        Format::Human => {
            let restored = if done.restored > 0 { format!("{} sent again, which the registry had lost, ", done.restored) } else { String::new() };
            print(&format!("{} delivered, {} confirmed unchanged, {restored}{} waiting, {} rejected", done.delivered, done.confirmed, done.waiting, done.dead));
        }
    }
    verdict(store.as_ref(), &done)?;
    Ok(Ending::Fine)
}

/// What a person must know of a delivery that did not end with everything delivered.
pub fn verdict(store: Option<&Store>, done: &Delivered) -> Result<(), Failure> {
    let hint = "it waits in the outbox; `watershed deliver` or the next night sends it";
    match (done.dead, done.waiting) {
        (0, 0) => Ok(()),
        (0, _) => {
            let kind = if done.refused > 0 { Kind::Rejected } else { Kind::Unreachable };
            let reason = store
                .and_then(|store| last_reason(store, |feed| feed.state != outbox::State::Dead))
                .map_or_else(String::new, |reason| format!(": {reason}"));
            Err(Failure::new(kind, format!("the feed is not delivered yet{reason}")).hint(hint))
        }
        (_, _) => {
            let reason = store.and_then(|store| last_reason(store, outbox::Listed::needs_a_person));
            let reason = reason.and_then(|reason| Some(format!(": {}", reason.lines().next()?))).unwrap_or_default();
            Err(Failure::rejected(format!("the registry rejected the feed{reason}")).hint("`watershed outbox list` gives every reason"))
        }
    }
}

/// Why the newest of such feeds was not taken.
fn last_reason(store: &Store, is_such: impl Fn(&outbox::Listed) -> bool) -> Option<String> {
    let listed = store.with(|connection| Ok(outbox::list(connection))).ok()?.ok()?;
    listed.into_iter().filter(is_such).find_map(|feed| feed.reason)
}

/// Sends everything that waits; the store is this process's alone, so a lease found in it is a killed one's.
fn deliver(registry: &Registry, store: &Store) -> Result<Delivered, Failure> {
    let released = store
        .with(|connection| Ok(outbox::release_leases(connection).and_then(|()| outbox::make_due(connection, Timestamp::now()))))
        .map_err(state_failure)?;
    released.map_err(|error| Failure::unreachable(error.to_string()))?;
    let done = super::block_on(async { Ok(deliver_due(registry, store, &Timestamp::now).await) })?;
    done.map_err(|error| match error {
        DeliverError::Store(error) => state_failure(error),
        DeliverError::Outbox(error) => Failure::unreachable(error.to_string()),
    })
}
