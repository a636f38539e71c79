//! `watershed quarantine`: what was refused on its way in, and what to do with it. Content is shown only when asked for.

use std::path::PathBuf;

use clap::Subcommand;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::{Context, Ending, Failure, Format, print, print_json, state_failure};
use crate::config::{self, Loaded, setup};
use crate::snapshot::{Key, open_bytes};
use crate::source::pull::QUARANTINE_SEAL;
use crate::store::Store;
use crate::store::quarantine::{self, Item, State};

/// Lines and resources that were refused
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// The site's configuration
    #[arg(long, global = true, value_name = "FILE", default_value = "site.toml", env = "WATERSHED_CONFIG", hide_env_values = true)]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What is held, with its reasons; never its content
    List {
        /// Also what was released or discarded
        #[arg(long)]
        all: bool,
    },
    /// One refused line
    Show {
        /// Its number in the list
        id: i64,
        /// Print the line itself, which holds a patient's data
        #[arg(long)]
        reveal: bool,
    },
    /// Judge a line again at the next pull
    Retry {
        /// Its number in the list
        id: i64,
    },
    /// Declare a line worthless: it no longer makes reports partial
    Discard {
        /// Its number in the list
        id: i64,
    },
}

/// Runs the command. Ends with findings when something is held.
pub fn run(args: &Args, context: &Context) -> Result<Ending, Failure> {
    let site = super::site(&args.config)?;
    let Some(store) = super::state(&site)? else {
        // Before the first pull nothing was refused.
        return match args.what {
            What::List { .. } => Ok(list(&[], context)),
            What::Show { id, .. } | What::Retry { id } | What::Discard { id } => Err(absent(id)),
        };
    };
    match args.what {
        What::List { all } => {
            let items = store.with(|connection| quarantine::list(connection, None)).map_err(state_failure)?;
            let is_open = |item: &Item| all || matches!(item.state, State::Held | State::Retry);
            Ok(list(&items.into_iter().filter(is_open).collect::<Vec<_>>(), context))
        }
        What::Show { id, reveal } => show(&store, &site, id, reveal, context),
        What::Retry { id } => decide(&store, id, State::Retry, "will be judged again at the next pull", context),
        What::Discard { id } => decide(&store, id, State::Discarded, "is discarded", context),
    }
}

fn list(items: &[Item], context: &Context) -> Ending {
    match context.format {
        Format::Json => items.iter().for_each(|item| print_json(&as_json(item))),
        Format::Human if items.is_empty() => print("nothing is held"),
        Format::Human => print(&table(items)),
    }
    if items.iter().any(|item| item.state == State::Held) { Ending::Findings } else { Ending::Fine }
}

fn table(items: &[Item]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["number", "state", "type", "reason", "query or file", "line", "bytes", "pulls"]);
    for item in items {
        table.add_row([
            item.id.to_string(),
            item.state.name().to_owned(),
            item.resource_type.clone().unwrap_or_else(|| "?".to_owned()),
            item.reason.clone(),
            item.source.clone(),
            item.entry.to_string(),
            item.bytes.to_string(),
            item.seen.to_string(),
        ]);
    }
    table.to_string()
}

fn as_json(item: &Item) -> Value {
    json!({
        "id": item.id, "state": item.state.name(), "resourceType": item.resource_type, "reason": item.reason,
        "source": item.source, "entry": item.entry, "bytes": item.bytes, "sha256": item.sha256,
        "firstPull": item.first_pull, "lastPull": item.last_pull, "pulls": item.seen,
    })
}

fn show(store: &Store, site: &Loaded<config::Site>, id: i64, reveal: bool, context: &Context) -> Result<Ending, Failure> {
    let found = store.with(|connection| quarantine::get(connection, id)).map_err(state_failure)?;
    let (item, sealed) = found.ok_or_else(|| absent(id))?;
    let line = reveal.then(|| line(site, &sealed)).transpose()?;
    match context.format {
        Format::Json => {
            let mut shown = as_json(&item);
            if let Some(line) = line {
                shown["line"] = Value::String(line);
            }
            print_json(&shown);
        }
        Format::Human => {
            print(&table(&[item]));
            line.iter().for_each(|line| print(line));
        }
    }
    Ok(Ending::Fine)
}

/// The line itself, without the control characters that would act on a terminal.
fn line(site: &Loaded<config::Site>, sealed: &[u8]) -> Result<String, Failure> {
    let path = setup::snapshot_key_file(site);
    let key = Key::load(&path).map_err(|error| Failure::unreachable(format!("{}: {error}", path.display())))?;
    let line = open_bytes(&key, QUARANTINE_SEAL, sealed).map_err(|_| Failure::configuration(format!("{} is not the key this line was sealed with", path.display())))?;
    Ok(String::from_utf8_lossy(&line)
        .chars()
        .map(|one| if one.is_control() && one != '\n' { '\u{fffd}' } else { one })
        .collect())
}

fn decide(store: &Store, id: i64, state: State, said: &str, context: &Context) -> Result<Ending, Failure> {
    if !store.with(|connection| quarantine::release(connection, id, state)).map_err(state_failure)? {
        return Err(absent(id));
    }
    match context.format {
        Format::Json => print_json(&json!({ "id": id, "state": state.name() })),
        Format::Human => print(&format!("{id} {said}")),
    }
    Ok(Ending::Fine)
}

fn absent(id: i64) -> Failure {
    Failure::usage(format!("nothing in quarantine has number {id}")).hint("`watershed quarantine list --all` gives the numbers")
}
