//! Codes from a file beside the mapping: a table (CSV) of local codes and what they mean.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use csv::StringRecord;
use serde_saphyr::Spanned;

use super::Target;
use super::read::Reader;
use crate::diagnostic::{Diagnostic, Location, SourceFile, Span};

const HEADING: &str = "the first line names the columns: `local,standard,display`, the last one if there are names for people";
const NAMES: [&str; 3] = ["local", "standard", "display"];
/// Faults of one table that are told; more are of one cause.
const FAULTS_MAX: usize = 20;

/// Where the columns stand.
struct Columns {
    local: usize,
    standard: usize,
    display: Option<usize>,
    count: usize,
}

impl Reader<'_> {
    /// Adds what a table says to the targets of a rule.
    pub(super) fn table(&mut self, name: &Spanned<String>, to: Option<&Spanned<String>>, targets: &mut BTreeMap<String, Target>) {
        let text = match self.files.get(&name.value) {
            Some(Ok(text)) => text,
            Some(Err(why)) => return self.findings.push(why.clone()),
            None => return self.error(name, format!("file `{}` cannot be read", name.value), "the name is relative to the mapping file"),
        };
        let Some(to) = to else {
            return self.error(name, "codes from a file need `to:`".to_owned(), "write the standard system of the column `standard`");
        };
        let to = (to.value.clone(), self.at(to));
        let source = SourceFile::new(name.value.clone(), text.clone());
        let mut table = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text.as_bytes());
        let mut record = StringRecord::new();
        let mut columns = None;
        let mut faults = Vec::new();
        while faults.len() < FAULTS_MAX && table.read_record(&mut record).unwrap_or(false) {
            let at = place(&source, &record);
            let read = match &columns {
                None => Columns::read(&record).map(|found| columns = Some(found)),
                Some(_) if record.iter().all(|cell| cell.trim().is_empty()) => Ok(()),
                Some(columns) => columns.row(&record, &to, &at).and_then(|(local, target)| keep(local, target, targets)),
            };
            let Err((message, help)) = read else { continue };
            faults.push(Diagnostic::error(message).at(at).help(help));
            if columns.is_none() {
                break;
            }
        }
        if faults.is_empty() && targets.is_empty() {
            faults.push(Diagnostic::error(format!("`{}` holds no codes", name.value)).at(Location::new(&source, Span::default())).help(HEADING));
        }
        self.findings.append(&mut faults);
    }
}

/// A fault in words, and what to do.
type Fault = (String, String);

impl Columns {
    fn read(heading: &StringRecord) -> Result<Columns, Fault> {
        // `Local code` is the column `local`.
        let word = |cell: &str| cell.trim_start_matches('\u{feff}').trim().to_lowercase().split([' ', '_', '-']).next().unwrap_or_default().to_owned();
        let names: Vec<String> = heading.iter().map(word).collect();
        let place = |name: &str| names.iter().position(|own| own == name);
        let parted = |sign: char| names.len() == 1 && heading.get(0).is_some_and(|cell| cell.contains(sign));
        match (place("local"), place("standard")) {
            _ if parted(';') || parted('\t') => Err(("the cells of the table are not parted by commas".to_owned(), "save it as CSV with commas".to_owned())),
            (Some(local), Some(standard)) if NAMES.iter().all(|name| names.iter().filter(|own| own == name).count() < 2) => {
                Ok(Columns { local, standard, display: place("display"), count: names.len() })
            }
            _ => Err(("the table has no heading with the columns `local` and `standard`".to_owned(), HEADING.to_owned())),
        }
    }

    fn row(&self, record: &StringRecord, to: &(String, Location), at: &Location) -> Result<(String, Target), Fault> {
        if record.iter().any(|cell| cell.contains(['\n', '\r'])) {
            let help = "close it; a quotation mark within a cell is written twice".to_owned();
            return Err(("a cell goes on over the end of its line: a quotation mark is not closed".to_owned(), help));
        }
        // Without its last cells a row has no name for people.
        if record.len() > self.count || record.len() <= self.local.max(self.standard) {
            let help = "a cell with a comma in it goes in quotation marks".to_owned();
            return Err((format!("{} cells where the heading has {}", record.len(), self.count), help));
        }
        let cell = |at: usize| record.get(at).unwrap_or_default().trim().to_owned();
        let (local, code) = (cell(self.local), cell(self.standard));
        if local.is_empty() || code.is_empty() {
            return Err(("expected a local code and a standard code".to_owned(), "leave the row out, or name the local code under `ignore`".to_owned()));
        }
        if let Some((message, help)) = with_its_system(&code) {
            return Err((message, help));
        }
        let display = self.display.map(cell).filter(|text| !text.is_empty());
        Ok((local, Target { system: to.0.clone(), code, display, at: at.clone(), system_at: to.1.clone() }))
    }
}

fn keep(local: String, target: Target, targets: &mut BTreeMap<String, Target>) -> Result<(), Fault> {
    match targets.entry(local) {
        Entry::Vacant(entry) => drop(entry.insert(target)),
        Entry::Occupied(entry) if entry.get().is_same(&target) => {}
        Entry::Occupied(entry) => {
            let (earlier, local) = (entry.get(), entry.key());
            let message = format!("`{local}` leads to `{}` here, and to `{}` at {}:{}", target.code, earlier.code, earlier.at.source.name, earlier.at.line());
            return Err((message, "a local code means one thing: leave one of them out".to_owned()));
        }
    }
    Ok(())
}

/// What is wrong with a code that has its system in it, and what to write.
pub(super) fn with_its_system(code: &str) -> Option<Fault> {
    let (system, own) = code
        .rsplit_once('|')
        .filter(|(system, _)| system.contains(':'))
        .or_else(|| code.contains("://").then_some((code, "")))?;
    let help = match own {
        "" => "write the code alone, and its system as `to:` or `system:`".to_owned(),
        own => format!("write `{own}`, and `{system}` as `to:` or `system:`"),
    };
    Some((format!("`{code}` is no code alone: its system stands in it"), help))
}

fn place(source: &Arc<SourceFile>, record: &StringRecord) -> Location {
    let start = record.position().map_or(0, |at| at.byte() as usize);
    let rest = source.text.get(start..).unwrap_or_default();
    // A reader of CSV passes over empty lines.
    let start = start + rest.len() - rest.trim_start_matches(['\n', '\r', '\u{feff}']).len();
    let line = source.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default().trim_end();
    Location::new(source, Span::new(start as u32, (start + line.len()) as u32))
}
