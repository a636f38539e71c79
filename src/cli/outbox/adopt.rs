//! `watershed outbox adopt`: what the registry holds of this site beside what this outbox knows; and, when a person names that feed,
//! going on from there.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::super::{Context, Ending, Failure, Format, print, print_json, state_failure};
use super::refused;
use crate::config::{Loaded, Site, setup};
use crate::destination::registry::{AskError, Registry, current_reports, standing};
use crate::feed::Standing;
use crate::http::{Clock, SystemClock};
use crate::outbox::{self, Compared};
use crate::pipeline::DESTINATION;
use crate::store::Store;

/// Characters of a feed's identity that are shown.
const SHOWN_CHARS: usize = 12;
/// What stands for the registry's feed where it holds none.
const NONE: &str = "none";

/// Shows, or goes on from the feed that is named. Ends with findings where there is something to adopt.
pub fn run(site: &Loaded<Site>, beside: Option<Store>, named: Option<&str>, context: &Context) -> Result<Ending, Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = setup::registry(site, &clock).map_err(Failure::configuration)?;
    let held = super::super::block_on(async { standing(&registry).await.map_err(unanswered) })?;
    if held.site != site.value.site.id {
        let message = format!("the registry knows client `{}` as site `{}`, the configuration says `{}`", site.value.registry.client_id, held.site, site.value.site.id);
        return Err(Failure::configuration(message).hint("set `site.id` or `registry.client_id` right"));
    }
    let known = match &beside {
        Some(store) => store.with(|connection| Ok(outbox::compare(connection, DESTINATION, &held))).map_err(state_failure)?.map_err(refused)?,
        None => Compared { epoch: 0, delivered: None, waiting: 0, agrees: held.head.is_none() && held.epoch == 0 },
    };
    drop(beside);
    let is_adopted = match named {
        Some(named) if !known.agrees => {
            adopt(site, &registry, &held, named)?;
            true
        }
        _ => false,
    };
    match context.format {
        Format::Json => print_json(&as_json(&held, &known, is_adopted)),
        Format::Human if is_adopted => print(&format!("the next feed of `{}` follows {}; `watershed run --once` makes one now", held.site, shown(&held))),
        Format::Human => print(&as_text(site, &held, &known)),
    }
    Ok(if known.agrees || is_adopted { Ending::Fine } else { Ending::Findings })
}

fn unanswered(error: AskError) -> Failure {
    match error {
        AskError::Unreachable(text) => Failure::unreachable(text),
        AskError::Rejected(text) => Failure::rejected(text),
    }
}

fn adopt(site: &Loaded<Site>, registry: &Registry, held: &Standing, named: &str) -> Result<(), Failure> {
    let head = held.head.as_ref().map_or(NONE, |head| head.feed.as_str());
    let is_it = !named.is_empty() && if held.head.is_some() { head.starts_with(named) } else { named == NONE };
    if !is_it {
        return Err(Failure::usage(format!("the registry holds {}, not `{named}`", shown(held))).hint("`watershed outbox adopt` shows it; name what you have seen there"));
    }
    let state = setup::state_file(site);
    setup::make_data_folder(site).map_err(|error| Failure::unreachable(format!("{}: {error}", setup::data_folder(site).display())))?;
    // Alone: an adapter at work has an epoch and a chain of its own in hand.
    let store = Store::open(&state).map_err(state_failure)?;
    let is_at_hand = |digest: &str| store.with(|connection| Ok(outbox::part(connection, digest))).ok().and_then(Result::ok).flatten().is_some();
    let bodies: BTreeMap<String, Vec<u8>> = super::super::block_on(async { current_reports(registry, &held.current, is_at_hand).await.map_err(unanswered) })?;
    let adopted = store.transaction(|transaction| Ok(outbox::adopt(transaction, DESTINATION, held, &bodies, Timestamp::now())));
    adopted.map_err(state_failure)?.map_err(refused)
}

fn short(feed: &str) -> String {
    feed.chars().take(SHOWN_CHARS).collect()
}

/// The registry's feed in words.
fn shown(held: &Standing) -> String {
    held.head.as_ref().map_or_else(|| "no feed".to_owned(), |head| format!("feed `{}`", short(&head.feed)))
}

fn minute(at: &str) -> String {
    at.parse::<Timestamp>().map_or_else(|_| at.to_owned(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

fn as_json(held: &Standing, known: &Compared, is_adopted: bool) -> serde_json::Value {
    let head = held.head.as_ref();
    json!({
        "site": held.site,
        "registry": {
            "feed": head.map(|head| &head.feed), "committedAt": head.map(|head| &head.committed_at), "reports": head.map(|head| head.manifest.reports.len()),
            "currentReports": held.current.len(), "epoch": held.epoch, "heardAt": held.heard_at,
        },
        "outbox": { "feed": known.delivered.as_ref().map(|(feed, _)| feed), "epoch": known.epoch, "waiting": known.waiting },
        "agree": known.agrees,
        "adopted": is_adopted,
    })
}

fn as_text(site: &Loaded<Site>, held: &Standing, known: &Compared) -> String {
    let head = held.head.as_ref().map_or_else(
        || "no feed".to_owned(),
        |head| {
            let complete = if head.manifest.completeness.complete { "complete" } else { "partial" };
            format!("feed {} of {}, {} reports, data {complete}", short(&head.feed), minute(&head.committed_at), head.manifest.reports.len())
        },
    );
    let heard = held.heard_at.as_deref().map_or_else(|| "never".to_owned(), minute);
    let own = known.delivered.as_ref().map_or_else(
        || "no feed of its own".to_owned(),
        |(feed, at)| format!("feed {} of {}", short(feed), at.map(|at| at.strftime("%Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default()),
    );
    let mut text = format!(
        "registry    {head}\n            {} current reports; last heard of `{}`: {heard}, in epoch {}\nthis outbox {own}, in epoch {}; {} waiting\n            {}\n",
        held.current.len(),
        held.site,
        held.epoch,
        known.epoch,
        known.waiting,
        setup::state_file(site).display(),
    );
    if known.agrees {
        return text + "they agree: there is nothing to adopt\n";
    }
    let name = held.head.as_ref().map_or(NONE.to_owned(), |head| short(&head.feed));
    text.push_str(&format!(
        "\n`watershed outbox adopt {name}` lets this site go on from what the registry holds:\n  \
         the next feed follows {}, in a later epoch than {}\n  \
         feeds that wait here are not sent; the next night sends its own numbers\n  \
         any other adapter of `{}` is refused from then on: make sure that none is at work, and that this is the data directory to keep\n",
        shown(held),
        held.epoch.max(known.epoch),
        held.site,
    ));
    text
}
