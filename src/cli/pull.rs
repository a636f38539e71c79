//! `watershed pull`: brings the snapshot up to date and does nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Context, Ending, Failure, Format, run};
use crate::config::setup;
use crate::diagnostic::counted;
use crate::pipeline::{Adapter, NightError};
use crate::source::cohort::Cohort;
use crate::source::folder::{self, Dropped, Listing, State};
use crate::source::forecast::{self, Forecast};
use crate::source::plan::Plan;
use crate::source::since::{next_since, told_behind};
use crate::source::{Gap, PullOutcome, Silent, SourceError, ledger};
use crate::store::runs::Unmapped;

/// Bring the snapshot up to date, without evaluating or delivering
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site's configuration
    #[arg(long, value_name = "FILE", default_value = "site.toml", env = "WATERSHED_CONFIG", hide_env_values = true)]
    pub config: PathBuf,
    /// Print what would be asked, the scopes to ask for, and what it would cost; ask for no data
    #[arg(long)]
    pub dry_run: bool,
    /// Believe what a gap doubts - a sudden loss, no patient at all, no code that is asked for, a type narrowed by `source.parameters`: read everything, and let go what is gone
    #[arg(long, conflicts_with = "dry_run")]
    pub accept_loss: bool,
    /// Begin the snapshot again: read everything, and nothing of what is stored (its key is lost, or its files are); no file is removed
    #[arg(long, conflicts_with = "dry_run")]
    pub anew: bool,
    /// Ask the server how many resources each query finds: one request a query
    #[arg(long, requires = "dry_run")]
    pub count: bool,
}

/// Pulls, or finishes the pull that was interrupted. Ends with findings when the data are partial, or values of them cannot be read.
pub fn run(args: &Args, context: &Context) -> Result<Ending, Failure> {
    let (site, checked) = run::read(&args.config)?;
    if args.anew {
        let begun = setup::begin_anew(&site).map_err(run::unopened)?;
        tracing::warn!(segments = begun, folder = %setup::data_folder(&site).display(), "the snapshot is begun again; what was stored is not read any more, and its files stay where they are");
    }
    let mut adapter = run::adapter(&site, checked)?;
    adapter.setup.source.tuning.accepts_loss = args.accept_loss;
    if args.dry_run {
        return super::block_on(dry_run(&adapter, args.count, context));
    }
    let outcome = super::block_on(async {
        tokio::select! {
            outcome = adapter.pull_to_end(adapter.clock.now(), &Silent) => outcome.map_err(|error| run::failure(NightError::from(error))),
            () = super::asked_to_stop() => Err(Failure::unreachable("stopped; the next pull goes on where this one was")),
        }
    })?;
    let found = adapter.found(outcome.pull_id, adapter.clock.now()).map_err(run::failure)?;
    match context.format {
        Format::Json => super::print_json(&as_json(&outcome, &found)),
        Format::Human => super::print(&as_text(&outcome, &found)),
    }
    Ok(if outcome.complete && !found.iter().any(Unmapped::is_of_the_data) { Ending::Fine } else { Ending::Findings })
}

async fn dry_run(adapter: &Adapter, count: bool, context: &Context) -> Result<Ending, Failure> {
    let failed = |error: SourceError| run::failure(NightError::from(error));
    if let Some(folder) = &adapter.setup.source.tuning.folder {
        let listing = folder::look(folder).map_err(|error| failed(error.into()))?;
        let (_, plan) = adapter.connect(super::check::ATTEMPTS).await.map_err(failed)?;
        match context.format {
            Format::Json => super::print_json(&files_as_json(folder, &listing, &plan, &imports(adapter))),
            Format::Human => super::print(&(files_told(folder, &listing, &plan) + &beside(adapter))),
        }
        return Ok(Ending::Fine);
    }
    // A person waits: what is down now is said now.
    let (source, mut plan) = adapter.connect(super::check::ATTEMPTS).await.map_err(failed)?;
    let mut known = ledger::last_brought(&adapter.store, &source.name()).map_err(|error| failed(error.into()))?;
    known.since = next_since(&source, &plan, &adapter.snapshot, adapter.clock.as_ref()).map_err(failed)?;
    if known.since.is_some() {
        let behind = told_behind(&source, &plan, &adapter.snapshot, adapter.clock.as_ref()).map_err(failed)?;
        plan.notes.extend(behind);
        known.exports_whole = plan.export.is_some() && source.capability.exports_whole;
        plan.notes.extend(
            known
                .exports_whole
                .then(|| "exports do not heed `_since`, as an earlier night found: changes are asked for, and everything comes".to_owned()),
        );
    }
    // A list is at hand.
    if count || plan.cohort == Cohort::List {
        known.resources.extend(forecast::members(&source, &plan).await.map(|members| ("Patient".to_owned(), members)));
    }
    if count {
        let counts = forecast::count(&source, &plan, known.since).await;
        let (whole, changed): (BTreeMap<_, _>, _) = counts.into_iter().partition(|(name, _)| known.since.is_none() || plan.is_untimed(name));
        known.changed = changed;
        known.counted = whole.keys().cloned().collect();
        known.resources.extend(whole);
    }
    plan.notes.extend(source.withheld.iter().map(|(name, why)| {
        let (who, what) = why.code.duty();
        format!("{name}: {why}; {who}: {what}")
    }));
    let options = &source.options;
    let forecast = Forecast::new(&plan, &known, options);
    let scopes = source.scopes(&plan.types);
    match context.format {
        Format::Json => super::print_json(&json!({
            "source": source.name(), "scopes": scopes, "patients": plan.cohort.to_string(), "forecast": forecast, "referenced": plan.referenced, "notes": plan.notes,
            "imports": imports(adapter),
        })),
        Format::Human => super::print(&(told(&source.name(), &plan, &scopes, &forecast, known.since.is_some()) + &beside(adapter))),
    }
    Ok(Ending::Fine)
}

/// Names of the imports that are read after the source.
fn imports(adapter: &Adapter) -> Vec<&str> {
    adapter.setup.source.tuning.imports.iter().map(|import| import.name.as_str()).collect()
}

fn beside(adapter: &Adapter) -> String {
    match imports(adapter).as_slice() {
        [] => String::new(),
        names => format!("\nimports are read after it: {} (`watershed import --dry-run` says what they would change)", names.join(", ")),
    }
}

/// What keeps a file from being read now.
fn withheld(file: &Dropped) -> Option<&'static str> {
    match file.state {
        State::Data | State::Manifest => None,
        State::Unfinished => Some("is being written"),
        State::UnknownEnding => Some("its ending is not known"),
        State::Blocked(block) => Some(block.text()),
    }
}

fn files_as_json(folder: &Path, listing: &Listing, plan: &Plan, imports: &[&str]) -> serde_json::Value {
    let read = listing.files.iter().filter(|file| file.is_read(&plan.types));
    let files: Vec<_> = read
        .map(|file| json!({ "file": file.name, "resourceType": file.resource_type, "bytes": file.bytes, "withheld": withheld(file) }))
        .collect();
    json!({ "folder": folder, "types": plan.types, "files": files, "passedOver": listing.passed_over + (listing.files.len() - files.len()) as u64, "imports": imports })
}

fn files_told(folder: &Path, listing: &Listing, plan: &Plan) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(["Bytes", "Type", "File"]);
    let files: Vec<&Dropped> = listing.files.iter().filter(|file| file.is_read(&plan.types)).collect();
    for file in &files {
        let name = withheld(file).map_or_else(|| file.name.clone(), |why| format!("{} ({why})", file.name));
        table.add_row([file.bytes.to_string(), file.resource_type.clone().unwrap_or_else(|| "told by its content".to_owned()), name]);
    }
    let others = listing.passed_over + (listing.files.len() - files.len()) as u64;
    let types: Vec<&str> = plan.types.iter().map(String::as_str).collect();
    format!(
        "{}, all patients; nothing was read\n{table}\n{} would be read for {}; {} beside them\n`watershed check` counts what is in them",
        folder.display(),
        counted(files.len(), "file"),
        types.join(", "),
        counted(others, "file")
    )
}

fn told(source: &str, plan: &Plan, scopes: &str, forecast: &Forecast, is_of_changes: bool) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(["Requests", "Resources", "What is asked"]);
    let number = |number: Option<u64>| number.map_or_else(|| "not known".to_owned(), |number| number.to_string());
    for step in &forecast.steps {
        let bounded = |number: String, is_known: bool| if step.at_most && is_known { format!("at most {number}") } else { number };
        table.add_row([bounded(number(step.requests), step.requests.is_some()), bounded(number(step.resources), step.resources.is_some()), step.asked.clone()]);
    }
    let patients = &plan.cohort;
    let mut text = format!("{source}, {patients}; no data were asked for\nscopes to ask for: {scopes}\n{table}\n{forecast}");
    if forecast.steps.iter().any(|step| step.resources.is_none()) {
        text.push_str(match (is_of_changes, plan.cohort.is_everybody()) {
            (false, false) if matches!(plan.cohort, Cohort::Search(_)) => {
                "\nwhat is not known is known after the first pull; how many patients the search finds is asked for by --count"
            }
            (true, _) => "\nhow much has changed is asked for by --count where all patients are pulled",
            (false, true) => "\nwhat is not known is known after the first pull, or asked for by --count",
            (false, false) => "\nwhat is not known is known after the first pull; how many members the Group has is asked for by --count",
        });
    }
    if plan.export.is_some() {
        text.push_str("\nan export is polled as often as the server wants, and a type may come in many files");
    }
    if !plan.referenced.is_empty() {
        let types: Vec<&str> = plan.referenced.iter().map(String::as_str).collect();
        text.push_str(&format!("\nread when something refers to it: {}", types.join(", ")));
    }
    plan.notes.iter().for_each(|note| text.push_str(&format!("\nnote: {note}")));
    text
}

pub(super) fn as_json(outcome: &PullOutcome, found: &[Unmapped]) -> serde_json::Value {
    let shown = |gaps: &[Gap]| {
        gaps.iter()
            .map(|gap| json!({"resourceType": gap.resource_type, "reason": gap.reason, "code": gap.code}))
            .collect::<Vec<_>>()
    };
    json!({
        "pull": outcome.pull_id.0, "full": outcome.full, "complete": outcome.complete, "gaps": shown(&outcome.gaps), "notes": shown(&outcome.notes),
        "received": outcome.received, "newVersions": outcome.new_versions, "removed": outcome.removed,
        "quarantined": outcome.quarantined, "replaced": outcome.replaced, "unreadable": run::unreadable_as_json(found),
        "notUsed": run::unused(found),
    })
}

fn as_text(outcome: &PullOutcome, found: &[Unmapped]) -> String {
    let mut text = format!(
        "pull {} ({}): {} received, {} new or changed, {} gone, {} in quarantine",
        outcome.pull_id.0,
        if outcome.full { "everything" } else { "changes" },
        outcome.received.values().sum::<u64>(),
        outcome.new_versions,
        outcome.removed,
        outcome.quarantined,
    );
    if outcome.replaced > 0 {
        text.push_str(&format!("\ndamaged or given up, and replaced by what was read: {} of the snapshot", counted(outcome.replaced, "segment")));
    }
    for gap in &outcome.gaps {
        text.push_str(&format!("\nmissing: {} ({})", gap.resource_type, gap.reason));
    }
    for note in &outcome.notes {
        let word = if note.code.is_acceptable() { "accepted" } else { "note" };
        text.push_str(&format!("\n{word}: {} ({})", note.resource_type, note.reason));
    }
    text + &run::unreadable_as_text(found) + &run::all_unused_as_text(found)
}
