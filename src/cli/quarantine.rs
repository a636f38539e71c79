//! `watershed quarantine`: what was refused on its way in, and what to do with it. Content is shown only when asked for.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Subcommand;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::{Context, Ending, Failure, Format, print, print_json, state_failure};
use crate::config::{self, Loaded, setup};
use crate::diagnostic::counted;
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
    /// Judge lines again at the next pull
    Retry(Which),
    /// Declare lines worthless: what they say is left out wherever it stands, and reports are no longer partial for it
    Discard(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Numbers in the list, and spans of them, as 1 2 5-900
    #[arg(value_name = "NUMBERS", required_unless_present = "all", conflicts_with = "all")]
    numbers: Vec<Span>,
    /// All that are held for one reason
    #[arg(long, requires = "reason")]
    all: bool,
    /// Which reason, in the words of the list
    #[arg(long, requires = "all")]
    reason: Option<String>,
}

/// Numbers from one to another, both included.
#[derive(Clone, Copy, Debug)]
struct Span(i64, i64);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let span = first.parse().ok().zip(last.parse().ok()).map(|(first, last)| Span(first, last));
        span.filter(|Span(first, last)| first <= last)
            .ok_or_else(|| "expected a number of the list, or a span as 5-900".to_owned())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span(first, last) = self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl Which {
    /// The numbers that are meant, of those that there are.
    fn chosen(&self, items: &[Item]) -> Result<Vec<i64>, Failure> {
        let mut chosen = Vec::new();
        for span in &self.numbers {
            let before = chosen.len();
            chosen.extend(items.iter().map(|item| item.id).filter(|id| (span.0..=span.1).contains(id)));
            if chosen.len() == before {
                return Err(absent(span));
            }
        }
        if let Some(reason) = &self.reason {
            let held: Vec<&Item> = items.iter().filter(|item| is_open(item)).collect();
            chosen.extend(held.iter().filter(|item| item.reason == *reason).map(|item| item.id));
            if chosen.is_empty() {
                let reasons: BTreeSet<String> = held.iter().map(|item| format!("`{}`", item.reason)).collect();
                let there = if reasons.is_empty() { "nothing is held".to_owned() } else { format!("these are: {}", Vec::from_iter(reasons).join(", ")) };
                return Err(Failure::usage(format!("nothing is held for the reason `{reason}`")).hint(there));
            }
        }
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }
}

/// Whether a person is to decide about it, or has asked to have it judged again.
fn is_open(item: &Item) -> bool {
    matches!(item.state, State::Held | State::Retry)
}

/// Runs the command. Ends with findings when something is held.
pub fn run(args: &Args, context: &Context) -> Result<Ending, Failure> {
    let site = super::site(&args.config)?;
    let Some(store) = super::state(&site)? else {
        // Before the first pull nothing was refused.
        return match &args.what {
            What::List { .. } => Ok(list(&[], context)),
            What::Show { id, .. } => Err(absent(id)),
            What::Retry(which) | What::Discard(which) => which.chosen(&[]).map(|_| Ending::Fine),
        };
    };
    match &args.what {
        What::List { all } => {
            let items = items(&store)?.into_iter().filter(|item| *all || is_open(item));
            Ok(list(&items.collect::<Vec<_>>(), context))
        }
        What::Show { id, reveal } => show(&store, &site, *id, *reveal, context),
        What::Retry(which) => decide(&store, which, State::Retry, context),
        What::Discard(which) => decide(&store, which, State::Discarded, context),
    }
}

fn items(store: &Store) -> Result<Vec<Item>, Failure> {
    store.with(|connection| quarantine::list(connection, None)).map_err(state_failure)
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

fn decide(store: &Store, which: &Which, state: State, context: &Context) -> Result<Ending, Failure> {
    let before = items(store)?;
    let chosen = which.chosen(&before)?;
    let decided = store.transaction(|transaction| chosen.iter().try_for_each(|id| quarantine::decide(transaction, *id, state)));
    decided.map_err(state_failure)?;
    let is_chosen = |item: &Item| chosen.binary_search(&item.id).is_ok();
    let (mut done, mut alike, mut already, mut released) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (old, new) in before.iter().zip(items(store)?) {
        let to = match (is_chosen(old), old.state != new.state) {
            (true, true) => &mut done,
            (false, true) => &mut alike,
            (true, false) if new.state == State::Released => &mut released,
            (true, false) => &mut already,
            (false, false) => continue,
        };
        to.push(new.id);
        if context.format == Format::Json {
            print_json(&json!({ "id": new.id, "state": new.state.name() }));
        }
    }
    if context.format == Format::Human {
        let (word, then) = match state {
            State::Discarded => ("discarded", "the next pull leaves them out, and what is stored of them goes"),
            _ => ("to be judged again", "the next pull does so"),
        };
        let lines = |ids: &[i64]| format!("{} ({})", counted(ids.len() as u64, "line"), spans(ids));
        let told = [
            (&done, format!("{word}: {}; {then}", lines(&done))),
            (&alike, format!("{word}, for they say the same: {}", lines(&alike))),
            (&already, format!("{word} already: {}", lines(&already))),
            (&released, format!("nothing is to be decided of {}: a later pull took what stands in their place, or they came no more", lines(&released))),
        ];
        told.iter().filter(|(ids, _)| !ids.is_empty()).for_each(|(_, text)| print(text));
    }
    Ok(Ending::Fine)
}

/// Numbers in order, those that follow each other as a span.
fn spans(ids: &[i64]) -> String {
    let mut spans: Vec<Span> = Vec::new();
    for id in ids {
        match spans.last_mut() {
            Some(Span(_, last)) if *last + 1 == *id => *last = *id,
            _ => spans.push(Span(*id, *id)),
        }
    }
    spans.iter().map(Span::to_string).collect::<Vec<_>>().join(" ")
}

fn absent(id: impl fmt::Display) -> Failure {
    Failure::usage(format!("nothing in quarantine has number {id}")).hint("`watershed quarantine list --all` gives the numbers")
}
