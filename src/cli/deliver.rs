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
use crate::outbox::{self, State};
use crate::store::Store;

/// Send what waits in the outbox
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The site's configuration
    #[arg(long, value_name = "FILE", default_value = "site.toml", env = "WATERSHED_CONFIG", hide_env_values = true)]
    config: PathBuf,
}

/// Runs the command. Exit code 5 when a rejected or refused feed is left, 4 when something is left to be sent.
pub fn run(args: Args, context: &Context) -> Result<Ending, Failure> {
    let site = super::site(&args.config)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = setup::registry(&site, &clock).map_err(Failure::configuration)?;
    let path = setup::state_file(&site);
    // Before the first night nothing waits.
    let store = path.exists().then(|| Store::open(&path)).transpose().map_err(state_failure)?;
    let done = store.as_ref().map_or_else(|| Ok(Delivered::default()), |store| deliver(&registry, store))?;
    let left = done.remaining;
    match context.format {
        Format::Json => print_json(&json!({
            "delivered": done.delivered, "confirmed": done.confirmed, "restored": done.restored,
            "waiting": left.waiting, "confirming": left.confirming, "rejected": left.rejected, "contradicted": left.contradicted,
        })),
        Format::Human => {
            let restored = if done.restored > 0 { format!("{} sent again, which the registry had lost, ", done.restored) } else { String::new() };
            print(&format!("{} delivered, {} confirmed unchanged, {restored}{}", done.delivered, done.confirmed, left.in_words()));
        }
    }
    verdict(store.as_ref(), &done)?;
    Ok(Ending::Fine)
}

/// What a person must know of a delivery that did not end with everything delivered: what needs a person before what happens by itself.
pub fn verdict(store: Option<&Store>, done: &Delivered) -> Result<(), Failure> {
    let left = [
        (done.remaining.rejected, State::Rejected, "the registry rejected the feed"),
        (done.remaining.contradicted, State::Contradicted, "the registry refused a feed that it had accepted"),
        (done.remaining.waiting, State::Waiting, "the feed is not delivered yet"),
        (done.remaining.confirming, State::Confirming, "the feed was delivered before, and that nothing has changed is not confirmed yet"),
    ];
    let Some((_, state, what)) = left.into_iter().find(|(count, ..)| *count > 0) else { return Ok(()) };
    let kind = if state.needs_a_person() || done.refused > 0 { Kind::Rejected } else { Kind::Unreachable };
    let reason = store.and_then(|store| last_reason(store, state));
    let reason = reason.and_then(|reason| Some(format!(": {}", reason.lines().next()?))).unwrap_or_default();
    let failure = Failure::new(kind, format!("{what}{reason}")).hint(format!("{}: {}", state.word(), state.meaning()));
    Err(if state.needs_a_person() { failure.hint("`watershed outbox list` gives every feed, `watershed outbox show` every reason") } else { failure })
}

/// Why the newest feed that stands so was not taken.
fn last_reason(store: &Store, state: State) -> Option<String> {
    let listed = store.with(|connection| Ok(outbox::list(connection))).ok()?.ok()?;
    listed.into_iter().filter(|feed| feed.state == state).find_map(|feed| feed.reason)
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
