//! Which measures ask for what an import brings, and what of it none of them counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::cql::types::Type;
use crate::cql::{Asking, Models};
use crate::diagnostic::Diagnostic;
use crate::pipeline::{Setup, needs};
use crate::source::import::{Given, Import};

/// Codes that are named in one finding.
const CODES_SHOWN: usize = 8;
/// Types of elements that say when something was.
const WHEN: [&str; 5] = ["FHIR.date", "FHIR.dateTime", "FHIR.instant", "FHIR.Period", "FHIR.Timing"];

/// Who asks for what an import brings.
#[derive(Default)]
pub struct Touched {
    /// The measures that ask for its codes, or do not ask by code.
    pub measures: Vec<String>,
    /// Those that ask for other codes of its type only.
    pub others: Vec<String>,
    /// What rows are that no measure counts, or counts twice: a warning; of codes that may be others' a note.
    pub uncounted: Vec<Diagnostic>,
    /// Its codes, at the elements by which measures ask.
    codes: BTreeSet<String>,
}

impl Touched {
    /// That no measure asks for it, and why.
    pub fn nobody(&self, import: &Import) -> Option<String> {
        let codes: Vec<String> = self.codes.iter().map(|code| format!("`{code}`")).collect();
        let codes = if codes.is_empty() { "no code".to_owned() } else { codes.join(", ") };
        match (self.measures.as_slice(), self.others.as_slice()) {
            ([], []) => Some(format!("no measure asks for {}: it is not read", import.resource_type)),
            ([], others) => Some(format!("no measure asks for {codes}: of {} {} for other codes", import.resource_type, asking(others))),
            _ => None,
        }
    }
}

/// `a asks`, `a and b ask`.
pub fn asking(names: &[String]) -> String {
    let verb = if names.len() == 1 { "asks" } else { "ask" };
    format!("{} {verb}", names.join(" and "))
}

/// The measures that ask for what an import brings, by its type and by its codes, those included that the mapping translates.
pub fn touched(import: &Import, checked: &Setup) -> Touched {
    let mut touched = Touched::default();
    if let Some(measure) = &import.series {
        touched.measures.push(measure.id.clone());
        return touched;
    }
    // What is asked of its rows, and the elements by whose codes alone they are asked for.
    let (mut askings, mut by_code, mut is_open) = (Vec::new(), BTreeSet::new(), false);
    for measure in &checked.measures {
        let (mut is_met, mut is_asked) = (false, false);
        let of_type = |(asking, _): &(Asking, _)| asking.requirement.resource_type == import.resource_type;
        for (asking, wanted) in needs::askings(measure, &checked.value_sets, &checked.mapping).into_iter().filter(of_type) {
            is_met = true;
            let element = asking.requirement.code_path.clone().unwrap_or_default();
            let fits = match (&wanted, import.codings(&element)) {
                (Some(wanted), Some(own)) => {
                    let fits = wanted.iter().any(|code| own.contains(code));
                    touched.codes.extend(own);
                    by_code.insert(element);
                    fits
                }
                _ => {
                    is_open = true;
                    true
                }
            };
            is_asked |= fits;
            askings.extend(Some(asking).filter(|_| fits));
        }
        let name = measure.definition.id.value.clone();
        match (is_met, is_asked) {
            (false, _) => {}
            (true, true) => touched.measures.push(name),
            (true, false) => touched.others.push(name),
        }
    }
    let by_code = if is_open { BTreeSet::new() } else { by_code };
    touched.uncounted = codes(import, checked, &askings, &by_code);
    touched.uncounted.extend(repeated(import, &checked.source.tuning.imports));
    touched.uncounted.extend(bare_codes(import, &touched.measures, &askings));
    touched.uncounted.extend(undated(import, &touched.measures, &askings));
    touched
}

/// Codes that no measure asks for: a slip where one is near, or where a column that is read has no other.
fn codes(import: &Import, checked: &Setup, askings: &[Asking], by_code: &BTreeSet<String>) -> Vec<Diagnostic> {
    let asked = needs::asked(&checked.measures, &checked.value_sets);
    let is_wanted = |one: &Given<'_>| asked.knows(one.system, one.code) || checked.mapping.reads(one.system);
    let given = import.given();
    let coded = || given.iter().filter(|one| !one.system.is_empty());
    let mut found: Vec<Diagnostic> = Vec::new();
    let mut strangers = BTreeSet::new();
    let mut others: BTreeMap<(&str, &str), Vec<&Given<'_>>> = BTreeMap::new();
    for one in coded().filter(|one| !is_wanted(one)) {
        let warning = |message: String, near: &str| Diagnostic::warning(message).help(format!("did you mean `{near}`?")).at(one.at.clone());
        if !asked.names(one.system) {
            let near = asked.near_system(one.system).filter(|_| strangers.insert(one.system));
            found.extend(near.map(|near| warning(format!("{}no measure asks for codes of `{}`", of_column(one), one.system), near)));
            continue;
        }
        let is_given = |near: &str| coded().any(|other| (other.system, other.code) == (one.system, near));
        match asked.meant(one.system, one.code, is_given) {
            Some(near) => found.push(warning(format!("{}no measure asks for `{}` of `{}`", of_column(one), one.code, one.system), near)),
            None => others.entry((one.element, one.column.unwrap_or_default())).or_default().push(one),
        }
    }
    for ((element, column), unwanted) in others.iter().filter(|((_, column), _)| !column.is_empty()) {
        let is_all = coded().filter(|one| one.element == *element && one.column == Some(column)).count() == unwanted.len();
        let is_key = by_code.iter().any(|path| element.starts_with(path.as_str()));
        let is_read = askings.iter().any(|asking| reads(asking, element));
        let shown = in_words(unwanted.iter().map(|one| one.code));
        let message = format!("column `{column}`: no measure asks for {shown} at `{element}`");
        let Some(first) = unwanted.first() else { continue };
        match (is_key, is_all && is_read) {
            (true, _) => found.push(
                Diagnostic::note(message)
                    .help("rows with it are counted by none; as where a table holds more than this site's measures ask for")
                    .at(first.at.clone()),
            ),
            (false, true) => found.push(
                Diagnostic::warning(message)
                    .help("it is all that the column leads to, and they read it: look at the codes")
                    .at(first.at.clone()),
            ),
            _ => {}
        }
    }
    found
}

/// That an earlier import reads the same rows into the same.
fn repeated(import: &Import, all: &[Import]) -> Option<Diagnostic> {
    let first = all.iter().take_while(|other| other.name != import.name).find(|other| import.repeats(other))?;
    let (own, name, resource_type) = (&import.name, &first.name, &import.resource_type);
    let message = format!("import `{own}` reads a file that `{name}` ({}) reads, into the same `{resource_type}`: its rows are stored and counted twice", first.at);
    Some(Diagnostic::warning(message).help("leave one of the two out of `imports.files`").at(import.at.clone()))
}

fn of_column(one: &Given<'_>) -> String {
    one.column.map(|column| format!("column `{column}`: ")).unwrap_or_default()
}

/// Whether a measure reads an element of the rows.
fn reads(asking: &Asking, element: &str) -> bool {
    asking.requirement.paths.iter().any(|path| path.split('.').next() == Some(element))
}

/// Bare codes, as `status`, that are none of those that every measure wants that asks for the rows.
fn bare_codes(import: &Import, measures: &[String], askings: &[Asking]) -> Vec<Diagnostic> {
    let mut by_element: BTreeMap<(&str, Option<&str>), Vec<Given<'_>>> = BTreeMap::new();
    for one in import.given().into_iter().filter(|one| one.system.is_empty()) {
        by_element.entry((one.element, one.column)).or_default().push(one);
    }
    let finding = |((element, column), given): ((&str, Option<&str>), Vec<Given<'_>>)| {
        let texts = askings.iter().map(|asking| asking.texts.get(element)).collect::<Option<Vec<_>>>()?;
        let wanted: BTreeSet<&str> = texts.into_iter().flatten().map(String::as_str).collect();
        let first = given.first().filter(|_| !wanted.is_empty() && given.iter().all(|one| !wanted.contains(one.code)))?;
        let of_column = column.map(|column| format!("column `{column}`: ")).unwrap_or_default();
        let message = format!(
            "{of_column}`{element}` is {}, and wherever it is looked at {} for {}",
            in_words(given.iter().map(|one| one.code)),
            asking(measures),
            in_words(wanted.into_iter())
        );
        Some(
            Diagnostic::warning(message)
                .help("no row is counted: write what they ask for, if it is true of the rows")
                .at(first.at.clone()),
        )
    };
    by_element.into_iter().filter_map(finding).collect()
}

/// That rows do not say when they were, as every measure asks that reads them.
fn undated(import: &Import, measures: &[String], askings: &[Asking]) -> Option<Diagnostic> {
    let models = Models::default();
    let fields = models.fhir().fields(&format!("FHIR.{}", import.resource_type));
    // What was observed may be a time too, and says nothing of when.
    let is_when = |(name, ty, _): &&(Arc<str>, Type, bool)| WHEN.contains(&ty.to_string().as_str()) && !name.starts_with("value");
    let dates: BTreeSet<&str> = fields.iter().filter(is_when).map(|(name, ..)| &**name).collect();
    let mut wanted = BTreeSet::new();
    for asking in askings {
        let own: BTreeSet<&str> = dates.iter().copied().filter(|element| reads(asking, element)).collect();
        if own.is_empty() || import.elements().any(|element| own.contains(element)) {
            return None;
        }
        wanted.extend(own);
    }
    let element = wanted.iter().find(|name| name.ends_with("DateTime")).or(wanted.first())?;
    let column = import.dates().next().unwrap_or("column");
    let message = format!("rows do not say when they were: {} by {}", asking(measures), in_words(wanted.iter().copied()));
    Some(
        Diagnostic::warning(message)
            .help(format!("no row is counted by its time: write `{element}: \"{{{column}}}\"`, if that is when it was"))
            .at(import.at.clone()),
    )
}

/// Some codes, and how many more there are.
fn in_words<'c>(codes: impl Iterator<Item = &'c str>) -> String {
    let all: BTreeSet<&str> = codes.collect();
    let shown: Vec<String> = all.iter().take(CODES_SHOWN).map(|code| format!("`{code}`")).collect();
    let more = all.len().saturating_sub(CODES_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}
