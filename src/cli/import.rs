//! `watershed import`: what imports would change, and bringing them in without asking the EHR.

mod touched;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Context, Ending, Failure, Format, run};
use crate::config::{self, Loaded, setup};
use crate::diagnostic::{Severity, counted, render_json};
use crate::http::SystemClock;
use crate::pipeline::{NightError, Setup, needs};
use crate::source::import::{self, Difference, Import, Place, Sort};
use crate::source::{PullOutcome, SourceError};

use touched::asking;
pub(super) use touched::{Touched, touched};

/// Spans of lines that are named for each sort of rows.
const SPANS_SHOWN: usize = 12;

/// Bring in what the EHR keeps outside FHIR, from the tables that `imports.files` declares, without asking the EHR
///
/// Every pull reads them too. With `--dry-run` it says what would change of what is stored, and changes nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site's configuration
    #[arg(long, value_name = "FILE", default_value = "site.toml", env = "WATERSHED_CONFIG", hide_env_values = true)]
    pub config: PathBuf,
    /// Say which rows are new, changed, gone or refused, and which measures ask for them; store nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Believe that a table has suddenly much less in it than is stored, and let go what is gone
    #[arg(long)]
    pub accept_loss: bool,
}

/// Ends with findings when rows were refused, a table is not whole, or the data are partial.
pub fn run(args: &Args, context: &Context) -> Result<Ending, Failure> {
    let (site, checked) = run::read(&args.config)?;
    let imports = &checked.source.tuning.imports;
    let types = types(&checked);
    if args.dry_run {
        return foresee(&site, &checked, &types, args.accept_loss, context);
    }
    if imports.is_empty() {
        return Err(none());
    }
    let imports = checked.source.tuning.imports.clone();
    let adapter = run::adapter(&site, checked)?;
    let outcome = import::bring_alone(&imports, &types, &adapter.snapshot, &SystemClock, args.accept_loss).map_err(failed)?;
    match context.format {
        Format::Json => super::print_json(&super::pull::as_json(&outcome, &[])),
        Format::Human => super::print(&brought(&outcome)),
    }
    Ok(if outcome.complete { Ending::Fine } else { Ending::Findings })
}

fn none() -> Failure {
    Failure::configuration("no import is configured")
        .hint("name the files that declare tables in `imports.files`; `mappings/imports/clabsi.yaml` is one of patients' rows, `mappings/imports/nhsn-clabsi.yaml` one of counts")
}

/// Says what bringing the imports in would change.
fn foresee(site: &Loaded<config::Site>, checked: &Setup, types: &BTreeSet<String>, accepts_loss: bool, context: &Context) -> Result<Ending, Failure> {
    let imports = &checked.source.tuning.imports;
    let Some(store) = super::state(site)? else { return Err(failed(import::nothing_yet())) };
    let Some(snapshot) = setup::snapshot_beside(site, store).map_err(run::unopened)? else { return Err(failed(import::nothing_yet())) };
    if snapshot.latest().map_err(|error| failed(error.into()))?.is_none() {
        return Err(failed(import::nothing_yet()));
    }
    let forsaken = import::forsaken(imports, &snapshot).map_err(failed)?;
    if imports.is_empty() && forsaken.is_empty() {
        return Err(none());
    }
    let mut found = Vec::new();
    for one in imports {
        found.push((one, import::difference(one, &snapshot, types, accepts_loss).map_err(failed)?, touched(one, checked)));
    }
    match context.format {
        Format::Json => {
            let of_forsaken = forsaken.iter().map(|(name, rows)| json!({ "import": name, "declared": false, "gone": rows }));
            super::print_json(&found.iter().map(|(one, found, touched)| as_json(one, found, touched)).chain(of_forsaken).collect());
        }
        Format::Human => {
            let of_forsaken = forsaken.iter().map(|(name, rows)| format!("{name}: no file of `imports.files` declares it any more\n  gone: {rows}\n"));
            super::print(&found.iter().map(|(one, found, touched)| as_text(one, found, touched)).chain(of_forsaken).collect::<Vec<_>>().join("\n"));
        }
    }
    let is_fine = forsaken.is_empty() && found.iter().all(|(_, found, touched)| is_fine(found, touched));
    Ok(if is_fine { Ending::Fine } else { Ending::Findings })
}

fn failed(error: SourceError) -> Failure {
    match error {
        // No EHR is asked.
        SourceError::Options(text) => Failure::configuration(text),
        error => run::failure(NightError::from(error)),
    }
}

/// The types that are stored: what the measures need.
pub(super) fn types(checked: &Setup) -> BTreeSet<String> {
    let needs = needs::of(&checked.measures, &checked.value_sets, &checked.mapping, false);
    needs.into_iter().map(|need| need.resource_type).chain(["Patient".to_owned()]).collect()
}

fn is_fine(found: &Difference, touched: &Touched) -> bool {
    touched.uncounted.iter().all(|finding| finding.severity == Severity::Note) && found.gap.is_none() && found.refused.is_empty() && found.unknown.is_empty()
}

fn as_json(import: &Import, found: &Difference, touched: &Touched) -> Value {
    let places = |sort: &Sort| sort.places.iter().map(|place| json!({ "file": place.file, "line": place.line })).collect::<Vec<_>>();
    let sort = |sort: &Sort| json!({ "count": sort.count, "places": places(sort) });
    let reasons = |sorts: &BTreeMap<String, Sort>| {
        sorts
            .iter()
            .map(|(reason, of)| json!({ "reason": reason, "count": of.count, "places": places(of) }))
            .collect::<Vec<_>>()
    };
    json!({
        "import": import.name, "file": import.file, "resourceType": import.resource_type, "measures": touched.measures, "rows": found.rows,
        "new": sort(&found.new), "changed": sort(&found.changed), "gone": found.gone, "kept": found.kept, "refused": reasons(&found.refused),
        "unknown": reasons(&found.unknown), "ignored": found.ignored, "gap": found.gap, "taken": !found.is_left, "uncounted": render_json(&touched.uncounted),
    })
}

fn as_text(import: &Import, found: &Difference, touched: &Touched) -> String {
    let mut text = format!("{} ({}): {}", import.name, import.file, counted(found.rows, "row"));
    text.push_str(&match touched.nobody(import) {
        Some(why) => format!("; {why}"),
        None if import.series.is_some() => format!(", each of one period of {}", touched.measures.join(", ")),
        None => format!(" of {}, which {} for", import.resource_type, asking(&touched.measures)),
    });
    if let Some(gap) = &found.gap {
        text.push_str(&format!("\n  not whole: {gap}"));
    }
    for finding in &touched.uncounted {
        text.push_str(&format!("\n  {finding}; {}", finding.help.as_deref().unwrap_or_default()));
    }
    if found.is_left {
        text.push_str("\n  nothing of it is taken");
    }
    for (word, sort) in [("new", &found.new), ("changed", &found.changed)] {
        text.push_str(&format!("\n  {word}: {}", told(sort)));
    }
    let kept = match found.kept {
        0 if found.gap.is_some() => " (nothing is let go of a table that is not whole)".to_owned(),
        0 => String::new(),
        kept => format!(" ({} stay: nothing is let go of a table that is not whole)", counted(kept, "stored row")),
    };
    text.push_str(&format!("\n  gone: {}{kept}", found.gone));
    for (reason, sort) in &found.refused {
        text.push_str(&format!("\n  refused: {}: {reason}", told(sort)));
    }
    for (reason, sort) in &found.unknown {
        text.push_str(&format!("\n  held: {}: {reason}", told(sort)));
    }
    if found.ignored > 0 {
        text.push_str(&format!("\n  ignored: {} of those who are not known here", found.ignored));
    }
    text.push('\n');
    text
}

/// How many, and in which lines.
pub(super) fn told(sort: &Sort) -> String {
    let is_one = sort.places.iter().all(|place| place.file == 1);
    let name = |place: &Place| if is_one { place.line.to_string() } else { format!("{}:{}", place.file, place.line) };
    let mut spans: Vec<(Place, Place)> = Vec::new();
    for place in &sort.places {
        match spans.last_mut() {
            Some((_, last)) if last.file == place.file && last.line + 1 == place.line => *last = *place,
            _ => spans.push((*place, *place)),
        }
    }
    let shown: Vec<String> = spans
        .iter()
        .take(SPANS_SHOWN)
        .map(|(first, last)| if first == last { name(first) } else { format!("{}-{}", name(first), last.line) })
        .collect();
    let more = if spans.len() > SPANS_SHOWN || (sort.places.len() as u64) < sort.count { " …" } else { "" };
    match (sort.count, is_one) {
        (0, _) => "0".to_owned(),
        (1, true) => format!("1 (line {})", shown.join(", ")),
        (count, true) => format!("{count} (lines {}{more})", shown.join(", ")),
        (count, false) => format!("{count} (file and line {}{more})", shown.join(", ")),
    }
}

fn brought(outcome: &PullOutcome) -> String {
    let mut text = format!(
        "pull {} (imports): {} read, {} new or changed, {} gone, {} in quarantine",
        outcome.pull_id.0,
        counted(outcome.received.values().sum::<u64>(), "row"),
        outcome.new_versions,
        outcome.removed,
        outcome.quarantined
    );
    for gap in &outcome.gaps {
        text.push_str(&format!("\nmissing: {} ({})", gap.resource_type, gap.reason));
    }
    for note in &outcome.notes {
        text.push_str(&format!("\nnote: {} ({})", note.resource_type, note.reason));
    }
    if !outcome.complete && outcome.gaps.is_empty() && outcome.quarantined == 0 {
        text.push_str("\nwhat the last pull lacked is lacking still: `watershed status`");
    }
    if outcome.quarantined > 0 {
        text.push_str("\n`watershed quarantine list` shows what does not fit and why");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_in_spans() {
        let sort = |places: &[(usize, u64)]| Sort { count: places.len() as u64, places: places.iter().map(|(file, line)| Place { file: *file, line: *line }).collect() };
        for (places, expected) in
            [(&[][..], "0"), (&[(1, 7)], "1 (line 7)"), (&[(1, 2), (1, 3), (1, 4), (1, 9)], "4 (lines 2-4, 9)"), (&[(1, 2), (2, 3), (2, 4)], "3 (file and line 1:2, 2:3-4)")]
        {
            assert_eq!(told(&sort(places)), expected);
        }
        let many: Vec<(usize, u64)> = (1..=20).map(|line| (1, line * 2)).collect();
        assert!(told(&sort(&many)).ends_with("24 …)"), "{}", told(&sort(&many)));
    }
}
