//! Imports: tables (CSV) of what the EHR keeps outside FHIR - adjudicated infections, SmartData elements, series of other systems -
//! each declared by a YAML file that says what the columns are and which FHIR resource a row becomes; or of which measure that
//! another system counts a row is a period.
//!
//! The file is the whole truth of its import: what is in it no more is gone. A file that is missing, empty, being written or
//! suddenly much smaller is a gap, and nothing is let go. Rows are stored beside the source's resources and apart from them.

mod bring;
mod cell;
mod declare;
pub(in crate::source) mod known;
mod reading;
mod row;
mod series;
mod table;
mod template;
mod when;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::tz::TimeZone;

use crate::diagnostic::Location;

pub(in crate::source) use bring::bring;
pub use bring::{bring_alone, nothing_yet};
use cell::Column;
pub use declare::parse;
pub use reading::{Difference, Place, Sort, difference, forsaken, survey};
pub use series::{Counted, Member, RESOURCE_TYPE, TAG};
use template::Part;

/// Begins the names of the units of imports, and of their counts.
const UNITS: &str = "import ";
/// Characters of a name.
const NAME_CHARS_MAX: usize = 32;

/// An import, as declared and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    /// Its name in the ledger, and in `meta` of what comes of it.
    pub name: String,
    /// The CSV, as written: a path from the declaration on, whose last part may have `*` in it.
    pub file: String,
    /// The type of resource that a row becomes.
    pub resource_type: String,
    /// SHA-256 of the declaration.
    pub digest: String,
    /// The CSV, from where its path starts.
    path: PathBuf,
    delimiter: u8,
    columns: Vec<Column>,
    /// The columns that tell one row from every other.
    key: Vec<usize>,
    template: Part,
    /// Of a measure whose numbers its rows are, one for each period; they are no patient's then.
    pub series: Option<Counted>,
    /// Where the resource is declared.
    pub at: Location,
    /// In which days and times are meant.
    zone: TimeZone,
}

impl Import {
    /// What it is called in the ledger, and its unit.
    pub fn query(&self) -> String {
        format!("{UNITS}{}", self.name)
    }

    /// As what it is told that something of it is missing: as its type, for which measures wait; numbers of one measure by its own name.
    pub fn missing_as(&self) -> String {
        if self.series.is_some() { self.query() } else { self.resource_type.clone() }
    }

    /// Whether anybody asks for its rows, where these types are stored.
    pub fn is_needed(&self, types: &BTreeSet<String>) -> bool {
        self.series.is_some() || types.contains(&self.resource_type)
    }

    /// The columns that name patients or encounters.
    fn whoms(&self) -> impl Iterator<Item = &cell::Whom> {
        self.columns.iter().filter_map(|column| if let cell::Kind::Whom(whom) = &column.kind { Some(whom) } else { None })
    }

    /// The codings that its rows can have at an element of the resource, as `system|code`; `None` where a cell says of which code
    /// it is.
    pub fn codings(&self, element: &str) -> Option<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let parts = self.template.members().filter(|(name, _)| name.starts_with(element)).map(|(_, part)| part);
        (parts.filter(|part| !part.codings(&self.columns, &mut found)).count() == 0).then_some(found)
    }

    /// The codes that its rows can have, as far as the declaration tells.
    pub fn given(&self) -> Vec<Given<'_>> {
        let mut found = Vec::new();
        for (element, part) in self.template.members() {
            part.each_code(&self.columns, &mut |column, system, code, at| found.push(Given { element, column, system, code, at }));
        }
        found
    }

    /// Whether another one reads a file of it into the same: resources of one type, of a code that both have, and not with values of
    /// other columns.
    pub fn repeats(&self, other: &Import) -> bool {
        if self.resource_type != other.resource_type || !table::share_a_file(self, other) {
            return false;
        }
        let (own, others) = (self.codes(), other.codes());
        let common: Vec<bool> = own.iter().filter_map(|(element, codes)| Some(!codes.is_disjoint(others.get(element)?))).collect();
        let (values, other_values) = (self.values(), other.values());
        let is_of_others = !values.is_empty() && !other_values.is_empty() && values.is_disjoint(&other_values);
        !common.is_empty() && common.into_iter().all(|is_met| is_met) && !is_of_others
    }

    /// Its codes and their systems, by element.
    fn codes(&self) -> BTreeMap<&str, BTreeSet<(&str, &str)>> {
        let mut codes: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
        for one in self.given().into_iter().filter(|one| !one.system.is_empty()) {
            codes.entry(one.element).or_default().insert((one.system, one.code));
        }
        codes
    }

    /// The columns of which its values are.
    fn values(&self) -> BTreeSet<&str> {
        let mut used = Vec::new();
        self.template.members().filter(|(name, _)| name.starts_with("value")).for_each(|(_, part)| part.columns(&mut used));
        used.into_iter().filter_map(|column| Some(self.columns.get(column)?.name.as_str())).collect()
    }

    /// The elements that its rows can have, as JSON names them.
    pub fn elements(&self) -> impl Iterator<Item = &str> {
        self.template.members().map(|(name, _)| name.as_str())
    }

    /// The columns of days and times.
    pub fn dates(&self) -> impl Iterator<Item = &str> {
        self.columns
            .iter()
            .filter(|column| matches!(column.kind, cell::Kind::Date(_) | cell::Kind::DateTime(_)))
            .map(|column| column.name.as_str())
    }
}

/// A code that rows can have.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// At this element of the resource, as JSON names it.
    pub element: &'a str,
    /// The column that leads to it.
    pub column: Option<&'a str>,
    /// Its system; empty where the element holds a bare code.
    pub system: &'a str,
    /// The code.
    pub code: &'a str,
    /// Where it is written.
    pub at: &'a Location,
}

/// Whether what is missing is told as an import's own, which is no type.
pub fn is_own(name: &str) -> bool {
    name.starts_with(UNITS)
}

fn is_name(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_CHARS_MAX).contains(&text.len()) && text.bytes().all(is_fine)
}
