//! `watershed pull`: brings the snapshot up to date and does nothing else.

use std::path::PathBuf;

use serde_json::json;

use super::{Context, Ending, Failure, Format, run};
use crate::pipeline::NightError;
use crate::source::{PullOutcome, Silent};

/// Bring the snapshot up to date, without evaluating or delivering
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site's configuration
    #[arg(long, value_name = "FILE", default_value = "site.toml", env = "WATERSHED_CONFIG", hide_env_values = true)]
    pub config: PathBuf,
}

/// Pulls, or finishes the pull that was interrupted. Ends with findings when the data are partial.
pub fn run(args: &Args, context: &Context) -> Result<Ending, Failure> {
    let (_, adapter) = run::open(&args.config)?;
    let outcome = super::block_on(async {
        tokio::select! {
            outcome = adapter.pull_to_end(&Silent) => outcome.map_err(|error| run::failure(NightError::Source(error))),
            () = super::asked_to_stop() => Err(Failure::unreachable("stopped; the next pull goes on where this one was")),
        }
    })?;
    match context.format {
        Format::Json => super::print_json(&as_json(&outcome)),
        Format::Human => super::print(&as_text(&outcome)),
    }
    Ok(if outcome.complete { Ending::Fine } else { Ending::Findings })
}

fn as_json(outcome: &PullOutcome) -> serde_json::Value {
    let gaps: Vec<_> = outcome.gaps.iter().map(|gap| json!({"resourceType": gap.resource_type, "reason": gap.reason})).collect();
    json!({
        "pull": outcome.pull_id.0, "full": outcome.full, "complete": outcome.complete, "gaps": gaps,
        "received": outcome.received, "newVersions": outcome.new_versions, "removed": outcome.removed,
        "quarantined": outcome.quarantined,
    })
}

fn as_text(outcome: &PullOutcome) -> String {
    let mut text = format!(
        "pull {} ({}): {} received, {} new or changed, {} gone, {} in quarantine",
        outcome.pull_id.0,
        if outcome.full { "everything" } else { "changes" },
        outcome.received.values().sum::<u64>(),
        outcome.new_versions,
        outcome.removed,
        outcome.quarantined,
    );
    for gap in &outcome.gaps {
        text.push_str(&format!("\nmissing: {} ({})", gap.resource_type, gap.reason));
    }
    text
}
