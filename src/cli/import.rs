//! `watershed import`: what imports would change, and bringing them in without asking the EHR.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Context, Ending, Failure, Format, run};
use crate::config::setup;
use crate::diagnostic::counted;
use crate::http::SystemClock;
use crate::pipeline::{NightError, Setup, needs};
use crate::source::import::{self, Difference, Import, Place, Sort};
use crate::source::{PullOutcome, SourceError};

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
    if checked.source.tuning.imports.is_empty() {
        return Err(Failure::configuration("no import is configured").hint("name the files that declare tables in `imports.files`; `mappings/imports/clabsi.yaml` is one"));
    }
    let types = types(&checked);
    if args.dry_run {
        let Some(store) = super::state(&site)? else { return Err(failed(import::nothing_yet())) };
        let Some(snapshot) = setup::snapshot_beside(&site, store).map_err(run::unopened)? else { return Err(failed(import::nothing_yet())) };
        let find = |import: &Import| import::difference(import, &snapshot, &types, args.accept_loss);
        let found: Result<Vec<(&Import, Difference)>, SourceError> = checked.source.tuning.imports.iter().map(|one| Ok((one, find(one)?))).collect();
        let found = found.map_err(failed)?;
        match context.format {
            Format::Json => super::print_json(&Value::Array(found.iter().map(|(one, found)| as_json(one, found, &touched(one, &checked))).collect())),
            Format::Human => super::print(&found.iter().map(|(one, found)| as_text(one, found, &touched(one, &checked))).collect::<Vec<_>>().join("\n")),
        }
        return Ok(if found.iter().all(|(_, found)| is_fine(found)) { Ending::Fine } else { Ending::Findings });
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

fn failed(error: SourceError) -> Failure {
    match error {
        // No EHR is asked.
        SourceError::Options(text) => Failure::configuration(text),
        error => run::failure(NightError::from(error)),
    }
}

/// The types that are stored: what the measures need.
fn types(checked: &Setup) -> BTreeSet<String> {
    let needs = needs::of(&checked.measures, &checked.value_sets, &checked.mapping, false);
    needs.into_iter().map(|need| need.resource_type).chain(["Patient".to_owned()]).collect()
}

/// Who asks for what an import brings.
#[derive(Default)]
pub(super) struct Touched {
    /// The measures that ask for its codes, or do not ask by code.
    pub measures: Vec<String>,
    /// Those that ask for other codes of its type only.
    pub others: Vec<String>,
    /// Its codes, at the elements by which measures ask.
    codes: BTreeSet<String>,
}

impl Touched {
    /// That no measure asks for it, and why.
    pub fn nobody(&self, import: &Import) -> Option<String> {
        let codes: Vec<String> = self.codes.iter().map(|code| format!("`{code}`")).collect();
        let codes = if codes.is_empty() { "no code".to_owned() } else { codes.join(", ") };
        let verb = if self.others.len() == 1 { "asks" } else { "ask" };
        match (self.measures.as_slice(), self.others.as_slice()) {
            ([], []) => Some(format!("no measure asks for {}: it is not read", import.resource_type)),
            ([], others) => Some(format!("no measure asks for {codes}: of {} {} {verb} for other codes", import.resource_type, others.join(" and "))),
            _ => None,
        }
    }
}

/// The measures that ask for what an import brings, by its type and by its codes, those included that the mapping translates.
pub(super) fn touched(import: &Import, checked: &Setup) -> Touched {
    let mut touched = Touched::default();
    for measure in &checked.measures {
        let needs = needs::codes(measure, &checked.value_sets, &checked.mapping);
        let (mut is_met, mut is_asked) = (false, false);
        for (requirement, wanted) in needs.iter().filter(|(requirement, _)| requirement.resource_type == import.resource_type) {
            is_met = true;
            let element = requirement.code_path.as_deref().unwrap_or_default();
            let (Some(wanted), Some(own)) = (wanted, import.codings(element)) else {
                is_asked = true;
                continue;
            };
            is_asked |= wanted.iter().any(|code| own.contains(code));
            touched.codes.extend(own);
        }
        let name = || measure.definition.id.value.clone();
        match (is_met, is_asked) {
            (false, _) => {}
            (true, true) => touched.measures.push(name()),
            (true, false) => touched.others.push(name()),
        }
    }
    touched
}

fn is_fine(found: &Difference) -> bool {
    found.gap.is_none() && found.refused.is_empty() && found.unknown.is_empty()
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
        "new": sort(&found.new), "changed": sort(&found.changed), "gone": found.gone, "refused": reasons(&found.refused),
        "unknown": reasons(&found.unknown), "ignored": found.ignored, "gap": found.gap,
    })
}

fn as_text(import: &Import, found: &Difference, touched: &Touched) -> String {
    let mut text = format!("{} ({}): {}", import.name, import.file, counted(found.rows, "row"));
    text.push_str(&match touched.nobody(import) {
        Some(why) => format!("; {why}"),
        None => format!(" of {}, which {} for", import.resource_type, asking(&touched.measures)),
    });
    if let Some(gap) = &found.gap {
        text.push_str(&format!("\n  not whole: {gap}"));
    }
    for (word, sort) in [("new", &found.new), ("changed", &found.changed)] {
        text.push_str(&format!("\n  {word}: {}", told(sort)));
    }
    let kept = if found.gap.is_some() { " (nothing is let go of a table that is not whole)" } else { "" };
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

/// `a asks`, `a and b ask`.
fn asking(names: &[String]) -> String {
    let verb = if names.len() == 1 { "asks" } else { "ask" };
    format!("{} {verb}", names.join(" and "))
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
