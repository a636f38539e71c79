//! `watershed deliver`: send what waits in the outbox, now.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args as ClapArgs;
use jiff::Timestamp;
use serde_json::json;

use super::{Context, Ending, Failure, Format, print, print_json};
use crate::config::load_site;
use crate::destination::registry::{Registry, deliver_due};
use crate::http::{Settings, SystemClock};
use crate::outbox;
use crate::smart::assertion::SigningKey;
use crate::store::Store;

/// Send what waits in the outbox
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The site's configuration
    #[arg(long, default_value = "site.toml")]
    config: PathBuf,
}

/// Runs the command. Exit code 5 when the registry rejected a feed, 4 when it could not be reached.
pub fn run(args: Args, context: &Context) -> Result<Ending, Failure> {
    let (loaded, findings) = load_site(&args.config);
    let loaded = loaded.ok_or_else(|| Failure::diagnostics(&findings))?;
    let registry = registry(&loaded)?;
    let store = Store::open(&super::outbox::state_path(&args.config)?).map_err(|error| Failure::unreachable(error.to_string()))?;
    let released = store
        .with(|connection| Ok(outbox::release_leases(connection)))
        .map_err(|error| Failure::unreachable(error.to_string()))?;
    released.map_err(|error| Failure::unreachable(error.to_string()))?;
    let done = super::block_on(async { deliver_due(&registry, &store, &Timestamp::now).await.map_err(|error| Failure::unreachable(error.to_string())) })?;
    match context.format {
        Format::Json => print_json(&json!({ "delivered": done.delivered, "confirmed": done.confirmed, "waiting": done.waiting, "rejected": done.dead })),
        Format::Human => print(&format!("{} delivered, {} confirmed unchanged, {} waiting, {} rejected", done.delivered, done.confirmed, done.waiting, done.dead)),
    }
    match (done.dead, done.waiting) {
        (0, 0) => Ok(Ending::Fine),
        (0, _) => Err(Failure::unreachable("the registry did not take every feed").hint("`watershed outbox list` says why, and when the next attempt is due")),
        (_, _) => Err(Failure::rejected("the registry rejected a feed").hint("`watershed outbox list` shows its reasons")),
    }
}

/// The registry that the configuration names.
pub fn registry(loaded: &crate::config::Loaded<crate::config::Site>) -> Result<Registry, Failure> {
    let config = &loaded.value.registry;
    let base = url::Url::parse(&config.url).map_err(|error| Failure::configuration(format!("`registry.url` is no address: {error}")))?;
    let path = loaded.path(&config.key_file);
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::configuration(format!("cannot read `registry.key_file` at `{}`: {error}", path.display())))?;
    let key = SigningKey::from_text(&text).map_err(|error| Failure::configuration(format!("`registry.key_file`: {error}")))?;
    let settings = Settings { plain_http: config.allow_plain_http, ..Settings::default() };
    Registry::connect(base, config.client_id.clone(), key, &settings, Arc::new(SystemClock)).map_err(|error| Failure::configuration(error.to_string()))
}
