//! Numbers that another system has counted: of which measure a table's rows are the periods, and what must be true of a row.
//!
//! A row becomes a MeasureReport of no patient, which is stored as other rows are, version by version.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::cell::{Cell, Column, Kind};
use super::template::{Form, Part};
use super::when::Span;
use super::written::{Reader, did_you_mean};
use crate::diagnostic::yaml::node::{Content, Named, Node};
use crate::diagnostic::{Location, nearest};

/// What a row is stored as.
pub const RESOURCE_TYPE: &str = "MeasureReport";
/// The system of the tag that names the import of a row, and the beginning of its source.
pub const TAG: &str = "urn:watershed:import";
const POPULATIONS: &str = "http://terminology.hl7.org/CodeSystem/measure-population";
const QUANTITY: &str = "http://hl7.org/fhir/StructureDefinition/measurereport-countQuantity";

/// A measure that another system counts, as far as a table of its numbers must fit it.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// Its id.
    pub id: String,
    /// Its canonical URL, without version: another version changes no row.
    pub url: String,
    /// How many months its periods have: 1, 3 or 12.
    pub months: i8,
    /// Its populations.
    pub members: Vec<Member>,
    /// Populations, by their places, that together are no more than another one.
    pub within: Vec<(Vec<usize>, usize)>,
}

/// A population of such a measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// Its code.
    pub code: &'static str,
    /// Whether its number is what was observed of others, and no count.
    pub is_observed: bool,
}

impl Counted {
    /// Why the numbers of a row cannot be true together; none of them is told. Its first cell is the period.
    pub(super) fn misfit(&self, cells: &[Option<Cell>]) -> Option<String> {
        let number = |place: &usize| cells.get(place + 1).and_then(Option::as_ref).and_then(|cell| cell.text.parse::<Decimal>().ok()).unwrap_or_default();
        let name = |place: &usize| self.members.get(*place).map_or("", |member| member.id.as_str());
        let (parts, whole) = self.within.iter().find(|(parts, whole)| parts.iter().map(number).sum::<Decimal>() > number(whole))?;
        let names: Vec<String> = parts.iter().map(|part| format!("`{}`", name(part))).collect();
        let (names, verb) = if names.len() > 1 { (format!("{} together", names.join(", ")), "are") } else { (names.concat(), "is") };
        Some(format!("{names} {verb} more than `{}`", name(whole)))
    }
}

/// What a declaration says of its rows: columns, and what becomes of them.
pub(super) type Declared = (Vec<Column>, Part, Counted);

/// Reads `series` of a declaration. The measures are those that are counted elsewhere; `None` where they are not known.
pub(super) fn declare(reader: &mut Reader<'_>, written: &Node, known: Option<&[Counted]>) -> Option<Declared> {
    let at = reader.at(written);
    let fields = reader.fields(written, "`series`", &["measure", "period", "populations"]);
    let name = reader.required(&fields, "measure", &at, "the id of a measure that says `counted: elsewhere`");
    if !fields.contains_key("period") {
        reader.error(at.clone(), "the key `period` is missing", "name the column that says of which period a row is: `period: Month`");
    }
    if !fields.contains_key("populations") {
        reader.error(at.clone(), "the key `populations` is missing", "name the column of each population: `populations: {numerator: Infections, denominator: Line days}`");
    }
    let (name, place) = (name?, reader.at(fields.get("measure")?));
    let known = known?;
    let Some(measure) = known.iter().find(|measure| measure.id == name || measure.url == name) else {
        let near = nearest(name, known.iter().map(|measure| measure.id.as_str())).map(|near| format!("did you mean `{near}`? Or "));
        let help = format!("{}name its folder in `measures.folders`; its `measure.yaml` says `counted: elsewhere`", near.unwrap_or_default());
        reader.error(place, format!("no measure of this site that is counted elsewhere is named `{name}`"), &help);
        return None;
    };
    let period = period(reader, fields.get("period")?, measure.months);
    let columns = populations(reader, fields.get("populations")?, measure, period.as_ref().map(|column| column.name.as_str()));
    let columns: Vec<Column> = std::iter::once(period?).chain(columns?).collect();
    let template = template(measure, &at);
    Some((columns, template, measure.clone()))
}

/// The column of the period: its name, or its name and the form in which it is written.
fn period(reader: &mut Reader<'_>, written: &Node, months: i8) -> Option<Column> {
    let (name, format) = match &written.value {
        Content::Fields(_) => {
            let at = reader.at(written);
            let fields = reader.fields(written, "`period`", &["column", "format"]);
            let name = reader.required(&fields, "column", &at, "write `{column: Month, format: \"%b %Y\"}`");
            let format = fields.get("format").and_then(|written| Some((reader.text(written, "`format`")?, reader.at(written))));
            (name?, format)
        }
        _ => (reader.text(written, "`period`")?, None),
    };
    match Span::new(months, format.as_ref().map(|(format, _)| *format)) {
        Ok(span) => Some(Column { name: name.to_owned(), kind: Kind::Period(span), is_optional: false }),
        Err(fault) => {
            let (format, at) = format?;
            reader.error(at, format!("`{format}` is no form of a period: {fault}"), "write it as strftime does: `%m/%Y`, `%b %Y`, `%Y`, or with the first day `%m/%d/%Y`");
            None
        }
    }
}

/// The columns of the populations, in the measure's order: each has one, which is not that of the period.
fn populations(reader: &mut Reader<'_>, written: &Node, measure: &Counted, period: Option<&str>) -> Option<Vec<Column>> {
    let at = reader.at(written);
    let Content::Fields(Named(entries)) = &written.value else {
        reader.error(at, format!("`populations` is {}, expected populations with columns", written.value.kind()), "write `{numerator: Infections, denominator: Line days}`");
        return None;
    };
    let ids: Vec<&str> = measure.members.iter().map(|member| member.id.as_str()).collect();
    let mut named = BTreeMap::new();
    for (id, column) in entries {
        let (column, at) = (reader.text(column, &format!("`{}`", id.value)), reader.at(column));
        match ids.contains(&id.value.as_str()) {
            true => drop(named.insert(id.value.as_str(), (column, at))),
            false => reader.error(reader.place(id), format!("`{}` has no population `{}`", measure.id, id.value), &did_you_mean(&id.value, &ids)),
        }
    }
    let mut columns = Vec::new();
    let mut taken: BTreeMap<&str, (&str, &str)> = period.map(|name| (name, ("period", ""))).into_iter().collect();
    for member in &measure.members {
        match named.get(member.id.as_str()) {
            None => {
                reader.error(at.clone(), format!("the population `{}` has no column", member.id), &format!("name it: `{}: …`; each population of the measure has one", member.id))
            }
            Some((None, _)) => {}
            // Where nobody was observed there is nothing to write.
            Some((Some(name), at)) => {
                if let Some((other, _)) = taken.insert(name, (&member.id, member.code)).filter(|(_, code)| !may_share([code, member.code])) {
                    let help = "name another one: each number has a column of its own, but for an initial population that is what is counted of it";
                    reader.error(at.clone(), format!("the column `{name}` is that of `{other}` too"), help);
                }
                let kind = if member.is_observed { Kind::Decimal } else { Kind::Count };
                columns.push(Column { name: (*name).to_owned(), kind, is_optional: member.is_observed });
            }
        }
    }
    (columns.len() == measure.members.len()).then_some(columns)
}

/// Whether two populations may be of one number: of many tables everybody who is looked at is counted.
fn may_share(codes: [&str; 2]) -> bool {
    codes.contains(&"initial-population") && codes.iter().all(|code| ["initial-population", "denominator", "measure-population"].contains(code))
}

/// The MeasureReport that a row becomes.
fn template(measure: &Counted, at: &Location) -> Part {
    let fixed = |value: Value| Part::Fixed(value, at.clone());
    let named = |parts: Vec<(&str, Part)>| Part::Object(parts.into_iter().map(|(name, part)| (name.to_owned(), part)).collect());
    let population = |(place, member): (usize, &Member)| {
        let number = Part::Column(place + 1, Form::AsIs);
        let code = fixed(json!({ "coding": [{ "system": POPULATIONS, "code": member.code }] }));
        let head = vec![("id", fixed(Value::from(member.id.as_str())))];
        let tail = match member.is_observed {
            true => vec![("extension", Part::List(vec![named(vec![("url", fixed(Value::from(QUANTITY))), ("valueQuantity", named(vec![("value", number)]))])])), ("code", code)],
            false => vec![("code", code), ("count", number)],
        };
        named(head.into_iter().chain(tail).collect())
    };
    let populations = measure.members.iter().enumerate().map(population).collect();
    named(vec![
        ("status", fixed(Value::from("complete"))),
        ("type", fixed(Value::from("summary"))),
        ("measure", fixed(Value::from(measure.url.as_str()))),
        ("period", Part::Column(0, Form::AsIs)),
        ("group", Part::List(vec![named(vec![("population", Part::List(populations))])])),
    ])
}
