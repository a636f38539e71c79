//! `watershed outbox`: what waits, what was delivered, what was rejected and why; and going on from what the registry holds.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Context, Ending, Failure, Format, print, print_json, state_failure};
use crate::outbox::{self, Listed, OutboxError, State};
use crate::store::Store;

pub(super) mod adopt;

/// Feeds on their way
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// The site's configuration
    #[arg(long, global = true, value_name = "FILE", default_value = "site.toml", env = "WATERSHED_CONFIG", hide_env_values = true)]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Every feed, newest first
    List,
    /// One feed: its manifest, its state, its reasons
    Show {
        /// The feed, or the first characters of its identifier
        feed: String,
    },
    /// Send what waits or was contradicted now, or a rejected feed anew
    Retry {
        /// The feed, or the first characters of its identifier
        feed: String,
    },
    /// Show what the registry holds of this site, and go on from there: after a lost or restored data directory
    Adopt {
        /// The registry's feed to go on from, as it is shown without this; `none` where it holds none. Left out, nothing is changed
        feed: Option<String>,
    },
}

/// Runs the command. Ends with findings when a listed feed was rejected.
pub fn run(args: Args, context: &Context) -> Result<Ending, Failure> {
    let site = super::site(&args.config)?;
    let Some(store) = super::state(&site)? else {
        // Before the first night there is no feed.
        return match args.what {
            What::List => Ok(list(&[], context)),
            What::Adopt { feed } => adopt::run(&site, feed.as_deref(), context),
            What::Show { feed } | What::Retry { feed } => Err(absent(&feed)),
        };
    };
    match args.what {
        What::List => Ok(list(&all(&store)?, context)),
        What::Adopt { feed } => adopt::run(&site, feed.as_deref(), context),
        What::Show { feed } => {
            let found = find(&all(&store)?, &feed)?;
            let manifest = store.with(|connection| Ok(outbox::manifest_of(connection, &found.feed))).map_err(state_failure)?.map_err(refused)?;
            let mut shown = row(&found);
            shown["manifest"] = serde_json::to_value(manifest).map_err(|error| Failure::bug(error.to_string()))?;
            match context.format {
                Format::Json => print_json(&shown),
                Format::Human => print(&serde_json::to_string_pretty(&shown).unwrap_or_default()),
            }
            Ok(Ending::Fine)
        }
        What::Retry { feed } => {
            let found = find(&all(&store)?, &feed)?;
            let sent = store
                .with(|connection| Ok(outbox::retry(connection, &found.feed, Timestamp::now())))
                .map_err(state_failure)?
                .map_err(refused)?;
            match context.format {
                Format::Json => print_json(&json!({ "feed": sent })),
                Format::Human => print(&format!("feed `{sent}` is due now; `watershed deliver` sends it")),
            }
            Ok(Ending::Fine)
        }
    }
}

fn refused(error: OutboxError) -> Failure {
    match error {
        OutboxError::Unknown(_) | OutboxError::Draft(_) | OutboxError::AtRest { .. } => Failure::usage(error.to_string()),
        other => Failure::unreachable(other.to_string()),
    }
}

fn all(store: &Store) -> Result<Vec<Listed>, Failure> {
    store.with(|connection| Ok(outbox::list(connection))).map_err(state_failure)?.map_err(refused)
}

/// The one feed that begins like this.
fn find(all: &[Listed], start: &str) -> Result<Listed, Failure> {
    let mut found = all.iter().filter(|row| row.feed.starts_with(start));
    match (found.next(), found.next()) {
        (Some(row), None) => Ok(row.clone()),
        (None, _) => Err(absent(start)),
        (Some(_), Some(_)) => Err(Failure::usage(format!("several feeds begin with `{start}`")).hint("write more characters")),
    }
}

fn absent(start: &str) -> Failure {
    Failure::usage(format!("no feed begins with `{start}`")).hint("`watershed outbox list` shows them")
}

fn row(row: &Listed) -> Value {
    json!({
        "feed": row.feed, "site": row.site, "destination": row.destination, "state": row.state.word(), "attempts": row.attempts, "reports": row.reports,
        "created": row.created.to_string(), "settled": row.settled.map(|at| at.to_string()), "nextAttempt": row.next_attempt.map(|at| at.to_string()),
        "reasons": row.reason.as_ref().map(|reason| reason.lines().map(str::to_owned).collect::<Vec<_>>()), "receipt": row.receipt,
    })
}

/// Prints them; a rejected one is a finding.
fn list(rows: &[Listed], context: &Context) -> Ending {
    match context.format {
        Format::Json => print_json(&json!({ "feeds": rows.iter().map(row).collect::<Vec<_>>() })),
        Format::Human if rows.is_empty() => print("no feed yet; a night makes one"),
        Format::Human => print(&table(rows)),
    }
    if rows.iter().any(|row| row.state.needs_a_person()) { Ending::Findings } else { Ending::Fine }
}

fn table(rows: &[Listed]) -> String {
    let mut table = comfy_table::Table::new();
    table
        .load_preset(comfy_table::presets::NOTHING)
        .set_header(["Feed", "State", "Reports", "Created", "Attempts", "Next attempt", "Reason"]);
    for row in rows {
        let reason = row.reason.as_deref().and_then(|reason| reason.lines().next()).unwrap_or_default();
        let next = row.next_attempt.map_or_else(String::new, |at| at.to_string());
        let (short, created): (String, String) = (row.feed.chars().take(12).collect(), row.created.to_string());
        table.add_row([&short, row.state.word(), &row.reports.to_string(), &created, &row.attempts.to_string(), &next, reason]);
    }
    // What a state means, and what to do about it, stands once below the feeds that are not simply delivered.
    let shown = State::ALL.into_iter().filter(|state| *state != State::Delivered && rows.iter().any(|row| row.state == *state));
    shown.fold(table.to_string(), |text, state| format!("{text}\n{}: {}", state.word(), state.meaning()))
}
