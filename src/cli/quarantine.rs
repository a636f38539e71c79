//! `watershed quarantine`: what was refused on its way in, and what to do with it. Content is shown only when asked for.

use std::path::PathBuf;

use clap::Subcommand;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::{Context, Ending, Failure, Format, print, print_json};
use crate::config::{self, Loaded, setup};
use crate::snapshot::{Key, open_bytes};
use crate::source::pull::QUARANTINE_SEAL;
use crate::store::quarantine::{self, Item, State};
use crate::store::{Store, StoreError};

/// Lines and resources that were refused
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// The site's configuration
    #[arg(long, global = true, default_value = "site.toml", env = "WATERSHED_CONFIG")]
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
    let (site, findings) = config::load_site(&args.config);
    let site = site.ok_or_else(|| Failure::diagnostics(&findings))?;
    let path = setup::state_file(&site);
    if !path.exists() {
        return Err(Failure::configuration(format!("no state at {}", path.display())).hint("`watershed run --once` or `watershed pull` makes it"));
    }
    let store = Store::open_beside(&path).map_err(unreachable)?;
    match args.what {
        What::List { all } => list(&store, all, context),
        What::Show { id, reveal } => show(&store, &site, id, reveal, context),
        What::Retry { id } => decide(&store, id, State::Retry, "will be judged again at the next pull"),
        What::Discard { id } => decide(&store, id, State::Discarded, "is discarded"),
    }
}

fn unreachable(error: StoreError) -> Failure {
    Failure::unreachable(error.to_string())
}

fn list(store: &Store, all: bool, context: &Context) -> Result<Ending, Failure> {
    let items = store.with(|connection| quarantine::list(connection, None)).map_err(unreachable)?;
    let open = |item: &&Item| all || matches!(item.state, State::Held | State::Retry);
    let shown: Vec<&Item> = items.iter().filter(open).collect();
    match context.format {
        Format::Json => shown.iter().for_each(|item| print_json(&as_json(item))),
        Format::Human if shown.is_empty() => print("nothing is held"),
        Format::Human => print(&table(&shown)),
    }
    let held = items.iter().any(|item| item.state == State::Held);
    Ok(if held { Ending::Findings } else { Ending::Fine })
}

fn table(items: &[&Item]) -> String {
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
    let found = store.with(|connection| quarantine::get(connection, id)).map_err(unreachable)?;
    let (item, sealed) = found.ok_or_else(|| absent(id))?;
    match context.format {
        Format::Json => print_json(&as_json(&item)),
        Format::Human => print(&table(&[&item])),
    }
    if reveal {
        let path = setup::snapshot_key_file(site);
        let key = Key::load(&path).map_err(|error| Failure::unreachable(format!("{}: {error}", path.display())))?;
        let line = open_bytes(&key, QUARANTINE_SEAL, &sealed).map_err(|_| Failure::configuration(format!("{} is not the key this line was sealed with", path.display())))?;
        // Control characters would act on the terminal.
        let text: String = String::from_utf8_lossy(&line)
            .chars()
            .map(|one| if one.is_control() && one != '\n' { '\u{fffd}' } else { one })
            .collect();
        print(&text);
    }
    Ok(Ending::Fine)
}

fn decide(store: &Store, id: i64, state: State, said: &str) -> Result<Ending, Failure> {
    if !store.with(|connection| quarantine::release(connection, id, state)).map_err(unreachable)? {
        return Err(absent(id));
    }
    print(&format!("{id} {said}"));
    Ok(Ending::Fine)
}

fn absent(id: i64) -> Failure {
    Failure::usage(format!("nothing in quarantine has number {id}")).hint("`watershed quarantine list --all` gives the numbers")
}
