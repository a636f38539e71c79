//! From a declaration's YAML to an [`Import`]; every problem at once, each at its place.

use super::cell::{Cell, Coding, Column, Kind, Whom, folded};
use super::series::{self, Counted, RESOURCE_TYPE};
use super::template::{Part, Weaver};
use super::when::Format;
use super::written::{Reader, did_you_mean, quoted};
use super::{Import, is_name, row};
use crate::cql::Models;
use crate::diagnostic::yaml::node::{Content, Named, Node};
use crate::diagnostic::{self, Diagnostic, Location, SourceFile, Span, nearest, yaml};
use crate::fhir::compartment::in_compartment;
use crate::store::sha256_hex;
use crate::terminology::units::Units;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Columns that an import may declare.
const COLUMNS_MAX: usize = 500;
const KEYS: [&str; 9] = ["name", "title", "description", "file", "delimiter", "columns", "key", "resource", "series"];
/// Types of columns, with the keys that each may have beside `type` and `optional`.
const TYPES: [(&str, &[&str]); 10] = [
    ("patient", &["system", "others"]),
    ("encounter", &["system", "others"]),
    ("date", &["format"]),
    ("dateTime", &["format"]),
    ("code", &["system", "map"]),
    ("quantity", &["unit"]),
    ("integer", &[]),
    ("decimal", &[]),
    ("boolean", &[]),
    ("text", &[]),
];
const CODING_KEYS: [&str; 3] = ["system", "code", "display"];

/// Reads a declaration that stands in `folder`; days and times are meant in `zone`. Rows may be numbers of measures that are `counted`
/// elsewhere; of which nothing is known where these could not be read. The import is `None` where there are errors, or where it is of one
/// of those.
pub fn parse(source: &Arc<SourceFile>, folder: &Path, zone: &TimeZone, counted: Option<&[Counted]>) -> (Option<Import>, Vec<Diagnostic>) {
    // `no` is a text here, and `n` may be a column.
    let written: Node = match yaml::read_strictly(source) {
        Ok(written) => written,
        Err(fault) => return (None, vec![fault]),
    };
    let mut reader = Reader { source, findings: Vec::new() };
    let import = import(&mut reader, &written, folder, zone, counted);
    let is_sound = !diagnostic::has_errors(&reader.findings);
    (import.filter(|_| is_sound), reader.findings)
}

/// What a row becomes.
struct Rows {
    columns: Vec<Column>,
    key: Vec<usize>,
    resource_type: String,
    template: Part,
    series: Option<Counted>,
    at: Location,
}

fn import(reader: &mut Reader<'_>, written: &Node, folder: &Path, zone: &TimeZone, counted: Option<&[Counted]>) -> Option<Import> {
    let start = Location::new(reader.source, Span::new(0, 0));
    let fields = reader.fields(written, "an import", &KEYS);
    let name = reader.required(&fields, "name", &start, "what this table is called in the ledger: `name: clabsi`").map(str::to_owned);
    if let (Some(name), Some(written)) = (&name, fields.get("name"))
        && !is_name(name)
    {
        let at = reader.at(written);
        reader.error(at, format!("`{name}` is no name of an import"), "1 to 32 lower-case letters, digits and hyphens");
    }
    let file = reader
        .required(&fields, "file", &start, "the CSV, from this file on: `file: ../drop/clabsi.csv`, or `clabsi-*.csv` for several")
        .map(str::to_owned);
    if let (Some(file), Some(written)) = (&file, fields.get("file")) {
        pattern(reader, written, file);
    }
    let delimiter = fields.get("delimiter").map_or(Some(b','), |written| delimiter(reader, written));
    let Rows { columns, key, resource_type, template, series, at } = match fields.get("series") {
        Some(written) => of_series(reader, &fields, written, counted)?,
        None => of_patients(reader, &fields, &start)?,
    };
    Some(Import {
        name: name?,
        path: folder.join(file.as_ref()?),
        file: file?,
        delimiter: delimiter?,
        columns,
        key,
        template,
        series,
        at,
        resource_type,
        digest: sha256_hex(reader.source.text.as_bytes()),
        zone: zone.clone(),
    })
}

/// Rows that are numbers of a measure, one for each period.
fn of_series(reader: &mut Reader<'_>, fields: &BTreeMap<&str, &Node>, written: &Node, counted: Option<&[Counted]>) -> Option<Rows> {
    for name in ["columns", "key", "resource"] {
        if let Some(other) = fields.get(name) {
            let at = reader.at(other);
            reader.error(at, format!("`{name}` stands beside `series`"), "rows of a series are no patients': it names its columns itself, and its period is the key");
        }
    }
    let (columns, template, series) = series::declare(reader, written, counted)?;
    Some(Rows { columns, key: vec![0], resource_type: RESOURCE_TYPE.to_owned(), template, series: Some(series), at: reader.at(written) })
}

/// Rows that are patients'.
fn of_patients(reader: &mut Reader<'_>, fields: &BTreeMap<&str, &Node>, start: &Location) -> Option<Rows> {
    let columns = match fields.get("columns") {
        Some(written) => columns(reader, written),
        None => {
            reader.error(start.clone(), "the key `columns` is missing", "name the columns that are used, each with its type: `MRN: patient`");
            Vec::new()
        }
    };
    let key = key(reader, fields.get("key").copied(), &columns, start);
    let (resource_type, template, at) = match fields.get("resource") {
        Some(written) => {
            let (resource_type, template) = resource(reader, written, &columns)?;
            (resource_type, template, reader.at(written))
        }
        None => {
            let help = "write the FHIR resource that a row becomes; its texts name columns: `subject: \"{MRN}\"`; or `series`, where rows are counts of periods and no patients'";
            reader.error(start.clone(), "the key `resource` is missing", help);
            return None;
        }
    };
    if !diagnostic::has_errors(&reader.findings) {
        note_unused(reader, fields.get("columns").copied(), &columns, (&key, &template));
    }
    Some(Rows { columns, key, resource_type, template, series: None, at })
}

/// A path whose last part may have `*` in it.
fn pattern(reader: &mut Reader<'_>, written: &Node, file: &str) {
    let folder = Path::new(file).parent().map(|folder| folder.to_string_lossy().into_owned()).unwrap_or_default();
    if folder.contains('*') || Path::new(file).file_name().is_none() {
        let at = reader.at(written);
        reader.error(at, format!("`{file}` names no file"), "only the file's own name may have `*` in it, for any text: `drop/clabsi-*.csv`");
    }
}

fn delimiter(reader: &mut Reader<'_>, written: &Node) -> Option<u8> {
    let text = match &written.value {
        // A tab is blank, and meant.
        Content::Text(text) => text,
        _ => reader.text(written, "`delimiter`")?,
    };
    match text {
        "," | ";" | "|" | "\t" => text.bytes().next(),
        _ => {
            let at = reader.at(written);
            reader.error(at, format!("`{text}` is no delimiter"), "one of `,`, `;`, `|` and \"\\t\" for a tab; a comma when left out");
            None
        }
    }
}

fn columns(reader: &mut Reader<'_>, written: &Node) -> Vec<Column> {
    let Content::Fields(Named(entries)) = &written.value else {
        let at = reader.at(written);
        reader.error(at, format!("`columns` is {}, expected names with types", written.value.kind()), "write each as in `MRN: {type: patient, system: …}`");
        return Vec::new();
    };
    if entries.len() > COLUMNS_MAX {
        let at = reader.at(written);
        reader.error(at, format!("there are {} columns, at most {COLUMNS_MAX} are read", entries.len()), "name only those that are used");
        return Vec::new();
    }
    let mut columns = Vec::new();
    for (name, declared) in entries {
        let at = reader.place(name);
        if name.value.contains(['{', '}']) {
            reader.error(at.clone(), format!("the column `{}` has a brace in its name", name.value), "a template could not name it: rename it in the table");
        }
        // What is wrong with its type is said; its name is known all the same.
        let (kind, is_optional) = column(reader, &name.value, declared, &at).unwrap_or((None, false));
        columns.push(Column { name: name.value.clone(), kind: kind.unwrap_or(Kind::Untold), is_optional });
    }
    columns
}

fn column(reader: &mut Reader<'_>, name: &str, declared: &Node, at: &Location) -> Option<(Option<Kind>, bool)> {
    let names: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
    let is_short = matches!(declared.value, Content::Text(_));
    let what = format!("the column `{name}`");
    let all: Vec<&str> = ["type", "optional"].into_iter().chain(TYPES.iter().flat_map(|(_, keys)| keys.iter().copied())).collect();
    let (word, at_type) = if is_short {
        (reader.text(declared, &what)?, reader.at(declared))
    } else {
        let Content::Fields(Named(entries)) = &declared.value else {
            reader.error(at.clone(), format!("{what} is {}, expected its type", declared.value.kind()), &format!("types are {}", quoted(&names)));
            return None;
        };
        let Some((_, written)) = entries.iter().find(|(key, _)| key.value == "type") else {
            // A misspelt `type` is said too.
            reader.fields(declared, &what, &all);
            reader.error(at.clone(), format!("{what} has no type"), &format!("write `type:` with one of {}", quoted(&names)));
            return None;
        };
        (reader.text(written, "`type`")?, reader.at(written))
    };
    let is_named = names.contains(&word);
    if !is_named {
        reader.error(at_type, format!("no type of columns is named `{word}`"), &did_you_mean(word, &names));
    }
    // What else is wrong is said of the type that was probably meant.
    let Some((word, keys)) = TYPES
        .iter()
        .copied()
        .find(|(name, _)| *name == if is_named { word } else { nearest(word, names.iter().copied()).unwrap_or_default() })
    else {
        reader.fields(declared, &what, &all);
        return None;
    };
    let known: Vec<&str> = ["type", "optional"].into_iter().chain(keys.iter().copied()).collect();
    let fields = if is_short { BTreeMap::new() } else { reader.fields(declared, &format!("a column of type `{word}`"), &known) };
    let is_optional = fields.get("optional").is_some_and(|written| truth(reader, written));
    let kind = kind(reader, word, &fields, at).filter(|_| is_named);
    if let (Some(Kind::Whom(Whom { resource_type: "Patient", .. })), true) = (&kind, is_optional) {
        reader.error(at.clone(), format!("{what} is a patient, and optional"), "each row is some patient's: leave `optional` out");
    }
    Some((kind, is_optional))
}

fn truth(reader: &mut Reader<'_>, written: &Node) -> bool {
    match written.value {
        Content::Boolean(is) => is,
        _ => {
            let at = reader.at(written);
            reader.error(at, format!("`optional` is {}, expected true or false", written.value.kind()), "`optional: true` lets its cells be empty");
            false
        }
    }
}

fn kind(reader: &mut Reader<'_>, word: &str, fields: &BTreeMap<&str, &Node>, at: &Location) -> Option<Kind> {
    match word {
        "patient" => whom(reader, "Patient", fields),
        "encounter" => whom(reader, "Encounter", fields),
        "date" => Some(Kind::Date(format(reader, fields))),
        "dateTime" => Some(Kind::DateTime(format(reader, fields))),
        "code" => code(reader, fields, at),
        "quantity" => quantity(reader, fields, at),
        "integer" => Some(Kind::Integer),
        "decimal" => Some(Kind::Decimal),
        "boolean" => Some(Kind::Boolean),
        _ => Some(Kind::Text),
    }
}

fn whom(reader: &mut Reader<'_>, resource_type: &'static str, fields: &BTreeMap<&str, &Node>) -> Option<Kind> {
    let system = match fields.get("system") {
        Some(written) => Some(reader.text(written, "`system`")?.to_owned()),
        None => None,
    };
    let ignores_others = match fields.get("others") {
        None => false,
        Some(written) => match reader.text(written, "`others`")? {
            "hold" => false,
            "ignore" => true,
            other => {
                let at = reader.at(written);
                reader.error(at, format!("`others` is `{other}`"), "`hold` (rows of those who are not known wait, and reports are partial) or `ignore` (they are counted)");
                return None;
            }
        },
    };
    Some(Kind::Whom(Whom { resource_type, system, ignores_others }))
}

fn format(reader: &mut Reader<'_>, fields: &BTreeMap<&str, &Node>) -> Option<Format> {
    let written = fields.get("format")?;
    let format = reader.text(written, "`format`")?;
    match Format::new(format) {
        Ok(format) => Some(format),
        Err(error) => {
            let at = reader.at(written);
            reader.error(at, format!("`{format}` is no form of a date: {error}"), "write it as strftime does, with year, month and day: `%m/%d/%Y`, `%d.%m.%Y %H:%M`");
            None
        }
    }
}

fn quantity(reader: &mut Reader<'_>, fields: &BTreeMap<&str, &Node>, at: &Location) -> Option<Kind> {
    let unit = reader.required(fields, "unit", at, "a quantity has a UCUM unit: `unit: mg/dL`")?;
    if !Units::new().is_valid(unit) {
        let at = fields.get("unit").map_or(at.clone(), |written| reader.at(written));
        reader.error(at, format!("`{unit}` is no UCUM unit"), "UCUM is case sensitive: `wk`, `d`, `mg/dL`, `[IU]`");
    }
    Some(Kind::Quantity(unit.to_owned()))
}

fn code(reader: &mut Reader<'_>, fields: &BTreeMap<&str, &Node>, at: &Location) -> Option<Kind> {
    let system = match fields.get("system") {
        Some(written) => Some(reader.text(written, "`system`")?.to_owned()),
        None => None,
    };
    let Some(written) = fields.get("map") else {
        reader.error(at.clone(), "a column of codes has no `map`", "name each text that its cells have, with the code that it means: `map: {Yes: clabsi}`");
        return None;
    };
    let Content::Fields(Named(entries)) = &written.value else {
        let at = reader.at(written);
        reader.error(at, format!("`map` is {}, expected texts with codes", written.value.kind()), "write `map: {Yes: clabsi, No: not-clabsi}`");
        return None;
    };
    let mut map = BTreeMap::new();
    for (text, target) in entries {
        let at = reader.place(text);
        if let Some(coding) = coding(reader, target, system.as_deref(), &at)
            && map.insert(folded(&text.value), coding).is_some()
        {
            reader.error(at, format!("the text `{}` is given twice", text.value), "case and surrounding space do not matter");
        }
    }
    Some(Kind::Code(map))
}

fn coding(reader: &mut Reader<'_>, target: &Node, system: Option<&str>, at: &Location) -> Option<Coding> {
    let (own, code, display) = match &target.value {
        Content::Fields(_) => {
            let fields = reader.fields(target, "a code", &CODING_KEYS);
            let code = reader.required(&fields, "code", at, "write `{system: …, code: …, display: …}`")?;
            let mut read = |key: &str| fields.get(key).and_then(|written| reader.text(written, &format!("`{key}`"))).map(str::to_owned);
            (read("system"), code.to_owned(), read("display"))
        }
        _ => (None, reader.text(target, "a code")?.to_owned(), None),
    };
    let written = reader.at(target);
    let Some(system) = own.or(system.map(str::to_owned)) else {
        reader.error(at.clone(), format!("code `{code}` has no system"), "write `system:` for the whole column, or beside the code");
        return None;
    };
    Some(Coding { system, code, display, at: written })
}

fn key(reader: &mut Reader<'_>, written: Option<&Node>, columns: &[Column], start: &Location) -> Vec<usize> {
    let help = "name the columns that tell one row from every other: `key: [MRN, Event date]`";
    let Some(written) = written else {
        reader.error(start.clone(), "the key `key` is missing", help);
        return Vec::new();
    };
    let single = std::slice::from_ref(written);
    let items = match &written.value {
        Content::List(items) => items.as_slice(),
        _ => single,
    };
    if items.is_empty() {
        let at = reader.at(written);
        reader.error(at, "`key` names no column", help);
    }
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let mut key = Vec::new();
    for item in items {
        let Some(name) = reader.text(item, "`key`") else { continue };
        let at = reader.at(item);
        match columns.iter().position(|column| column.name == name) {
            None => reader.error(at, format!("there is no column `{name}`"), &did_you_mean(name, &names)),
            Some(column) if key.contains(&column) => reader.error(at, format!("`{name}` is named twice"), "once is enough"),
            Some(column) => key.push(column),
        }
    }
    key
}

fn resource(reader: &mut Reader<'_>, written: &Node, columns: &[Column]) -> Option<(String, Part)> {
    let at = reader.at(written);
    let Content::Fields(Named(entries)) = &written.value else {
        reader.error(at, format!("`resource` is {}, expected a FHIR resource", written.value.kind()), "begin with `resourceType: Observation`");
        return None;
    };
    let Some((_, written)) = entries.iter().find(|(key, _)| key.value == "resourceType") else {
        reader.error(at, "the resource has no `resourceType`", "write it first: `resourceType: Observation`");
        return None;
    };
    let name = reader.text(written, "`resourceType`")?;
    let at_type = reader.at(written);
    let models = Models::default();
    let class_of = |name| models.fhir().retrievable(name).map(|class| class.name.to_string());
    let Some(class) = class_of(name) else {
        let near = nearest(name, models.fhir().retrievable_names());
        let help = near.map_or_else(|| "resource types are written as in `Observation`".to_owned(), |name| format!("did you mean `{name}`?"));
        reader.error(at_type, format!("FHIR R4 has no resource type `{name}`"), &help);
        // What else is wrong is said of the type that was probably meant.
        near.and_then(class_of).map(|class| Weaver::new(reader, columns).resource(entries, &class));
        return None;
    };
    if name == "Patient" || !in_compartment(name) {
        reader.error(at_type, format!("a row cannot become a `{name}`"), "rows add to what is known of patients: an Observation, a Condition, a Procedure …");
        return None;
    }
    let template = Weaver::new(reader, columns).resource(entries, &class);
    if !diagnostic::has_errors(&reader.findings) {
        try_out(reader, name, &template, (columns, &at));
    }
    Some((name.to_owned(), template))
}

/// Whether a row is some patient's.
fn try_out(reader: &mut Reader<'_>, resource_type: &str, template: &Part, (columns, at): (&[Column], &Location)) {
    let cells: Vec<Option<Cell>> = columns.iter().map(|column| Some(column.kind.example())).collect();
    let patient = row::judged(resource_type, "example", template, &cells).map(|incoming| incoming.header.patient);
    if patient.as_deref().ok() == Some("example") {
        return;
    }
    let column = columns.iter().find(|column| matches!(column.kind, Kind::Whom(Whom { resource_type: "Patient", .. })));
    let (message, help) = match column {
        None => ("no column is a patient".to_owned(), "declare one, by id or by an identifier: `MRN: {type: patient, system: …}`".to_owned()),
        Some(column) => (
            format!("the `{resource_type}` does not say whose it is"),
            format!("name the patient's column in the element for it, in most types `subject: \"{{{}}}\"`", column.name),
        ),
    };
    reader.error(at.clone(), message, &help);
}

/// Columns that are declared and used nowhere: a slip, more often than not.
fn note_unused(reader: &mut Reader<'_>, written: Option<&Node>, columns: &[Column], (key, template): (&[usize], &Part)) {
    let mut used = key.to_vec();
    template.columns(&mut used);
    let Some(Content::Fields(Named(entries))) = written.map(|written| &written.value) else { return };
    let unused = columns.iter().enumerate().filter(|(number, _)| !used.contains(number));
    for (column, (name, _)) in unused.filter_map(|(number, column)| Some((column, entries.get(number)?))) {
        let at = reader.place(name);
        let finding = Diagnostic::warning(format!("the column `{}` is used neither in the key nor in the resource", column.name)).at(at);
        reader.findings.push(finding.help("leave it out: a cell of it that does not fit would keep its row out"));
    }
}
