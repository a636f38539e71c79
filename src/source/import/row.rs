//! One row: its cells, its id, and the resource that it becomes.

use super::cell::{Cell, Kind, Whom, whom_is};
use super::known::{Ask, Hit, Known};
use super::template::Part;
use super::{Import, TAG};
use crate::snapshot::Incoming;
use crate::source::intake::{Reason, is_identified, judge};
use crate::store::{hex, sha256_hex};
use aws_lc_rs::digest::{self, SHA256};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Hexadecimal digits of a row's id: 160 bits of a digest, within FHIR's 64 characters.
const ID_CHARS: usize = 40;

/// What became of a row.
pub(super) enum Outcome {
    /// It fits, and is this resource.
    Fits(Box<Incoming>),
    /// It does not; the id, where its key could be read.
    Refused { id: Option<String>, reason: String },
    /// It is of somebody who is not known here.
    Unknown { reason: String },
    /// The same, as an import is declared that counts and ignores such rows.
    Ignored,
}

/// Why a cell does not fit, and in which column.
struct Unfit(String);

impl Import {
    /// Who is meant by a row's cells.
    pub(super) fn asks(&self, cells: &[&str]) -> Vec<Ask> {
        let whom = |(column, cell): (&super::Column, &&str)| match &column.kind {
            Kind::Whom(whom) if !cell.is_empty() => Some(Ask::of(whom, cell)),
            _ => None,
        };
        self.columns.iter().zip(cells).filter_map(whom).collect()
    }

    fn read(&self, cells: &[&str]) -> Vec<Result<Option<Cell>, Unfit>> {
        let read = |(column, cell): (&super::Column, &&str)| match *cell {
            "" if column.is_optional => Ok(None),
            "" => Err(Unfit(format!("column `{}` is empty", column.name))),
            cell => column.kind.read(cell, &self.zone).map(Some).map_err(|reason| Unfit(format!("column `{}`: {reason}", column.name))),
        };
        self.columns.iter().zip(cells).map(read).collect()
    }

    /// The id that a row has or would have, whatever else is wrong with it.
    pub(super) fn id_of(&self, cells: &[&str]) -> Option<String> {
        self.id(&self.read(cells))
    }

    /// A row, of a file with this digest. Its cells are those of the declared columns, without surrounding space.
    pub(super) fn row(&self, cells: &[&str], known: &Known, file_sha256: &str) -> Outcome {
        let read = self.read(cells);
        let id = self.id(&read);
        let mut found = Vec::with_capacity(read.len());
        for cell in read {
            match cell {
                Ok(cell) => found.push(cell),
                Err(Unfit(reason)) => return Outcome::Refused { id, reason },
            }
        }
        let Some(id) = id else { return Outcome::Refused { id: None, reason: "its key is empty".to_owned() } };
        if let Err(outcome) = self.resolve(&mut found, known, &id) {
            return outcome;
        }
        if let Some((column, meant)) = self.template.misfit(&found) {
            let name = self.columns.get(column).map_or("", |column| column.name.as_str());
            let near = meant.map_or_else(String::new, |code| format!(": `{code}` is near"));
            return Outcome::Refused { id: Some(id), reason: format!("column `{name}`: none of FHIR's codes for its element{near}") };
        }
        if let Some(reason) = self.series.as_ref().and_then(|series| series.misfit(&found)) {
            return Outcome::Refused { id: Some(id), reason };
        }
        match judged(&self.resource_type, &id, &self.template, &found) {
            Ok(incoming) => Outcome::Fits(Box::new(self.with_provenance(incoming, file_sha256))),
            Err(reason) => Outcome::Refused { id: Some(id), reason: reason.text().to_owned() },
        }
    }

    /// Puts references to who is known in the place of what the table calls them.
    fn resolve(&self, cells: &mut [Option<Cell>], known: &Known, id: &str) -> Result<(), Outcome> {
        let mut patients: BTreeSet<String> = BTreeSet::new();
        for (column, cell) in self.columns.iter().zip(cells) {
            let (Kind::Whom(whom), Some(cell)) = (&column.kind, cell.as_mut()) else { continue };
            match known.hit(&Ask::of(whom, &cell.text)) {
                Hit::One { id, patient } => {
                    *cell = whom_is(whom.resource_type, id);
                    patients.extend(patient.map(str::to_owned));
                }
                Hit::None if whom.ignores_others => return Err(Outcome::Ignored),
                Hit::None => return Err(Outcome::Unknown { reason: format!("column `{}`: {}", column.name, unknown(whom)) }),
                Hit::Several => {
                    let reason = format!("column `{}`: several have this identifier", column.name);
                    return Err(Outcome::Unknown { reason });
                }
            }
        }
        if patients.len() > 1 {
            return Err(Outcome::Refused { id: Some(id.to_owned()), reason: "its encounter is another patient's".to_owned() });
        }
        Ok(())
    }

    /// A row's id: a digest of its key, of which nothing can be read. `None` where the key cannot be read, or is empty.
    fn id(&self, cells: &[Result<Option<Cell>, Unfit>]) -> Option<String> {
        let mut text = format!("watershed import {}\n", self.name);
        let mut is_empty = true;
        for column in &self.key {
            let cell = cells.get(*column)?.as_ref().ok()?;
            let part = cell.as_ref().map(|cell| cell.text.as_str()).unwrap_or_default();
            is_empty = is_empty && part.is_empty();
            text.push_str(&format!("{} {part}\n", part.len()));
        }
        let mut id = sha256_hex(text.as_bytes());
        id.truncate(ID_CHARS);
        (!is_empty).then_some(id)
    }

    /// Where a resource comes from stands in its `meta`; a row that is as it was stays as it was stored, with the file that first
    /// brought it so.
    fn with_provenance(&self, incoming: Incoming, file_sha256: &str) -> Incoming {
        let mut header = incoming.header;
        let Ok(Value::Object(members)) = serde_json::from_slice(&incoming.json) else { return Incoming { header, json: incoming.json } };
        header.import.clone_from(&self.name);
        let mut whole = Map::new();
        for (name, value) in members {
            let is_id = name == "id";
            whole.insert(name, value);
            if is_id {
                let meta = json!({ "source": format!("{TAG}:{}:{file_sha256}", self.name), "tag": [{ "system": TAG, "code": self.name }] });
                whole.insert("meta".to_owned(), meta);
            }
        }
        Incoming { header, json: Value::Object(whole).to_string().into_bytes() }
    }
}

fn unknown(whom: &Whom) -> String {
    let who = if whom.resource_type == "Patient" { "patient" } else { "encounter" };
    let by = if whom.system.is_some() { "identifier" } else { "id" };
    format!("no {who} with this {by} is known here")
}

/// The resource of a row, judged as one that a source sends.
pub(super) fn judged(resource_type: &str, id: &str, template: &Part, cells: &[Option<Cell>]) -> Result<Incoming, Reason> {
    let mut whole = Map::new();
    whole.insert("resourceType".to_owned(), Value::from(resource_type));
    whole.insert("id".to_owned(), Value::from(id));
    if let Some(Value::Object(members)) = template.fill(cells) {
        whole.extend(members);
    }
    let text = Value::Object(whole).to_string();
    let incoming = judge(text.as_bytes(), &[resource_type.to_owned()].into()).map_err(|(reason, _)| reason)?;
    if is_identified(&incoming) { Err(Reason::NoPatient) } else { Ok(incoming) }
}

/// A digest of what was read, as it is made.
pub(super) fn finish(context: digest::Context) -> String {
    hex(context.finish().as_ref())
}

/// The beginning of one.
pub(super) fn begin() -> digest::Context {
    digest::Context::new(&SHA256)
}
