//! The resource that a row becomes: a template whose texts name columns, checked against FHIR's model.

use super::cell::{Cell, Coding, Column, Kind};
use super::written::{Reader, did_you_mean};
use crate::cql::Models;
use crate::cql::model::Model;
use crate::cql::types::Type;
use crate::diagnostic::yaml::node::{Content, Named, Node};
use crate::diagnostic::{Location, Span, nearest};
use crate::fhir::required;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Objects and lists within each other.
const DEPTH_MAX: usize = 12;
/// What a row is given by the import itself.
const OWN: [&str; 2] = ["id", "meta"];

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// The same in each row, and where it is written.
    Fixed(Value, Location),
    /// A column as a value.
    Column(usize, Form),
    /// A text with columns in it.
    Woven(Vec<Piece>),
    List(Vec<Part>),
    Object(Vec<(String, Part)>),
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Column(usize),
}

/// How a column stands in an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    AsIs,
    /// Of a code only its Coding.
    Coding,
    /// Of a code, or of who is meant, only the bare text.
    Text,
    /// The same, and it is one of these: FHIR binds the element to them.
    One(&'static [&'static str]),
}

impl Part {
    /// The value for a row; nothing where it hangs on a cell that is empty.
    pub fn fill(&self, cells: &[Option<Cell>]) -> Option<Value> {
        let cell = |column: &usize| cells.get(*column).and_then(Option::as_ref);
        match self {
            Part::Fixed(value, _) => Some(value.clone()),
            Part::Column(column, form) => {
                let cell = cell(column)?;
                Some(match form {
                    Form::AsIs => cell.json.clone(),
                    Form::Coding => cell.coding.clone()?,
                    Form::Text | Form::One(_) => Value::from(cell.text.as_str()),
                })
            }
            Part::Woven(pieces) => {
                let piece = |piece: &Piece| match piece {
                    Piece::Text(text) => Some(text.clone()),
                    Piece::Column(column) => Some(cell(column)?.text.clone()),
                };
                pieces.iter().map(piece).collect::<Option<String>>().map(Value::from)
            }
            Part::List(items) => {
                let items: Vec<Value> = items.iter().filter_map(|item| item.fill(cells)).collect();
                (!items.is_empty()).then_some(Value::Array(items))
            }
            Part::Object(members) => {
                let members: Map<String, Value> = members.iter().filter_map(|(name, part)| Some((name.clone(), part.fill(cells)?))).collect();
                (!members.is_empty()).then_some(Value::Object(members))
            }
        }
    }

    /// A column whose cell is none of the codes that FHIR has for its element, and the code that was probably meant.
    pub fn misfit(&self, cells: &[Option<Cell>]) -> Option<(usize, Option<&'static str>)> {
        match self {
            Part::Column(column, Form::One(codes)) => {
                let text = cells.get(*column).and_then(Option::as_ref)?.text.as_str();
                (!codes.contains(&text)).then(|| (*column, required::meant(codes, text)))
            }
            Part::Fixed(..) | Part::Column(..) | Part::Woven(_) => None,
            Part::List(items) => items.iter().find_map(|item| item.misfit(cells)),
            Part::Object(members) => members.iter().find_map(|(_, part)| part.misfit(cells)),
        }
    }

    /// The members of an object.
    pub fn members(&self) -> impl Iterator<Item = &(String, Part)> {
        if let Part::Object(members) = self { members.as_slice() } else { &[] }.iter()
    }

    /// Adds the codings that it can have, as `system|code`; false where a cell may be any.
    pub fn codings(&self, columns: &[Column], found: &mut BTreeSet<String>) -> bool {
        let mapped = |column: &usize| columns.get(*column).and_then(|column| if let Kind::Code(map) = &column.kind { Some(map) } else { None });
        match self {
            Part::Column(column, Form::AsIs | Form::Coding) => {
                found.extend(mapped(column).into_iter().flat_map(|map| map.values()).map(|coding| format!("{}|{}", coding.system, coding.code)));
                true
            }
            Part::Fixed(..) | Part::Column(..) | Part::Woven(_) => true,
            Part::List(items) => items.iter().filter(|item| !item.codings(columns, found)).count() == 0,
            Part::Object(members) => {
                let member = |name: &str| members.iter().find(|(own, _)| own == name).map(|(_, part)| part);
                let Some(system) = member("system") else { return members.iter().filter(|(_, part)| !part.codings(columns, found)).count() == 0 };
                match (system, member("code")) {
                    (_, None) => true,
                    (Part::Fixed(Value::String(system), _), Some(Part::Fixed(Value::String(code), _))) => {
                        found.insert(format!("{system}|{code}"));
                        true
                    }
                    _ => false,
                }
            }
        }
    }

    /// Calls `each` for the codes that it can have, as an element of a resource: with their column, system and place. An element that
    /// holds a bare code has no system.
    pub fn each_code<'p>(&'p self, columns: &'p [Column], each: &mut dyn FnMut(Option<&'p str>, &'p str, &'p str, &'p Location)) {
        match self {
            Part::Column(column, form) => {
                let Some(Column { name, kind: Kind::Code(map), .. }) = columns.get(*column) else { return };
                let is_bare = matches!(form, Form::Text | Form::One(_));
                map.values().for_each(|Coding { system, code, at, .. }| each(Some(name), if is_bare { "" } else { system }, code, at));
            }
            Part::Fixed(Value::String(code), at) => each(None, "", code, at),
            Part::Fixed(..) | Part::Woven(_) => {}
            Part::List(items) => items.iter().for_each(|item| item.each_code(columns, each)),
            Part::Object(members) => {
                let member = |name: &str| members.iter().find(|(own, _)| own == name).map(|(_, part)| part);
                if let (Some(Part::Fixed(Value::String(system), _)), Some(Part::Fixed(Value::String(code), at))) = (member("system"), member("code")) {
                    each(None, system, code, at);
                }
                // What stands alone below an element, as a text of people, is no code of it.
                let inner = members
                    .iter()
                    .map(|(_, part)| part)
                    .filter(|part| matches!(part, Part::Object(_) | Part::List(_) | Part::Column(_, Form::AsIs | Form::Coding)));
                inner.for_each(|part| part.each_code(columns, each));
            }
        }
    }

    /// The columns that it names.
    pub fn columns(&self, found: &mut Vec<usize>) {
        match self {
            Part::Fixed(..) => {}
            Part::Column(column, _) => found.push(*column),
            Part::Woven(pieces) => found.extend(pieces.iter().filter_map(|piece| if let Piece::Column(column) = piece { Some(*column) } else { None })),
            Part::List(items) => items.iter().for_each(|item| item.columns(found)),
            Part::Object(members) => members.iter().for_each(|(_, part)| part.columns(found)),
        }
    }
}

/// Reads templates.
pub(super) struct Weaver<'r, 'a> {
    pub reader: &'r mut Reader<'a>,
    pub columns: &'r [Column],
    model: Arc<Model>,
}

impl<'r, 'a> Weaver<'r, 'a> {
    pub fn new(reader: &'r mut Reader<'a>, columns: &'r [Column]) -> Weaver<'r, 'a> {
        Weaver { reader, columns, model: Arc::clone(Models::default().fhir()) }
    }

    /// The members of a resource of a class of the model.
    pub fn resource(&mut self, entries: &[(serde_saphyr::Spanned<String>, Node)], class: &str) -> Part {
        let entries = entries.iter().filter(|(key, _)| key.value != "resourceType");
        let (own, others): (Vec<_>, Vec<_>) = entries.partition(|(key, _)| OWN.contains(&key.value.as_str()));
        for (key, _) in own {
            let at = self.reader.place(key);
            self.reader
                .error(at, format!("`{}` is not for the template", key.value), "a row's id comes from its key, and its `meta` tells the import and the file");
        }
        let name = class.strip_prefix("FHIR.").unwrap_or(class);
        if let (true, Some((key, _))) = (required::has_status(name) && others.iter().all(|(key, _)| key.value != "status"), others.first()) {
            let (at, help) = (self.reader.place(key), self.statuses(class));
            self.reader
                .error(at, format!("`{name}` has no `status`, which FHIR demands of it, and by which most measures ask"), &help);
        }
        self.object(&others, class, 0)
    }

    /// What may stand for the status of a class.
    fn statuses(&self, class: &str) -> String {
        let codes = self.model.element_of(class, "status").and_then(|element| required::codes(&element.ty.to_string()));
        let all = codes.into_iter().flatten().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ");
        if all.is_empty() { "write it, or the column that has it".to_owned() } else { format!("write one of {all}, or the column that has it") }
    }

    fn object(&mut self, entries: &[&(serde_saphyr::Spanned<String>, Node)], class: &str, depth: usize) -> Part {
        let fields = self.model.fields(class);
        let mut members = Vec::new();
        let mut chosen: BTreeMap<&str, &str> = BTreeMap::new();
        for (key, written) in entries {
            if let Some((element, first)) = self.choice(class, &key.value).and_then(|element| Some((element, chosen.insert(element, &key.value)?))) {
                let at = self.reader.place(key);
                self.reader.error(
                    at,
                    format!("`{}` stands beside `{first}`, and `{element}[x]` is one value", key.value),
                    "leave one of them out; of what else a row says, another import makes a resource",
                );
            }
            let Some((_, ty, is_list)) = fields.iter().find(|(name, ..)| **name == *key.value) else {
                let at = self.reader.place(key);
                let short = class.strip_prefix("FHIR.").unwrap_or(class);
                let near = nearest(&key.value, fields.iter().map(|(name, ..)| &**name));
                let help = near.map_or_else(|| "the elements of a type are listed in FHIR R4".to_owned(), |name| format!("did you mean `{name}`?"));
                self.reader.error(at, format!("`{short}` has no element `{}`", key.value), &help);
                continue;
            };
            members.extend(self.element(&key.value, written, ty, *is_list, depth).map(|part| (key.value.clone(), part)));
        }
        Part::Object(members)
    }

    /// The element of which a key chooses the type: `value` of `valueQuantity`.
    fn choice<'k>(&self, class: &str, key: &'k str) -> Option<&'k str> {
        let bases = key.match_indices(|letter: char| letter.is_ascii_uppercase()).filter_map(|(at, _)| key.get(..at));
        let is_choice = |name: &&str| self.model.element_of(class, name).is_some_and(|element| matches!(element.ty, Type::Choice(_)));
        bases.into_iter().find(is_choice)
    }

    fn element(&mut self, name: &str, written: &Node, ty: &Type, is_list: bool, depth: usize) -> Option<Part> {
        let at = self.reader.at(written);
        match (&written.value, is_list) {
            _ if depth > DEPTH_MAX => {
                self.reader.error(at, format!("`{name}` is more than {DEPTH_MAX} levels deep"), "no resource that a row becomes is");
                None
            }
            (Content::List(items), true) => Some(Part::List(items.iter().filter_map(|item| self.value(name, item, ty, depth)).collect())),
            (Content::List(_), false) => {
                self.reader.error(at, format!("`{name}` is a list, expected one value"), "leave the brackets out");
                None
            }
            (_, true) => {
                self.reader
                    .error(at, format!("`{name}` is one value, expected a list"), "FHIR lets it have several: write it in brackets, `[…]`");
                None
            }
            (_, false) => self.value(name, written, ty, depth),
        }
    }

    fn value(&mut self, name: &str, written: &Node, ty: &Type, depth: usize) -> Option<Part> {
        let class = if let Type::Class(class) = ty { class.to_string() } else { ty.to_string() };
        let short = class.strip_prefix("FHIR.").unwrap_or(&class).to_owned();
        let at = self.reader.at(written);
        let primitive = self.primitive(ty);
        let wrong = |weaver: &mut Self, help: &str| {
            weaver.reader.error(at.clone(), format!("`{name}` is {}, expected {short}", written.value.kind()), help);
            None
        };
        match (&written.value, primitive) {
            (Content::Text(text), primitive) if text.contains('{') => self.woven(name, text, &at, (&class, primitive)),
            (Content::Fields(Named(entries)), None) => Some(self.object(&entries.iter().collect::<Vec<_>>(), &class, depth + 1)),
            (Content::Text(text), Some(Type::String)) if required::codes(&class).is_some_and(|codes| !codes.contains(&text.as_str())) => {
                let codes = required::codes(&class).unwrap_or_default();
                self.reader.error(at, format!("`{name}`: `{text}` is none of FHIR's codes for it"), &near(codes, text));
                None
            }
            (Content::Text(text), Some(Type::String | Type::Date | Type::DateTime | Type::Time)) => Some(Part::Fixed(Value::from(text.as_str()), at)),
            (Content::Boolean(is), Some(Type::Boolean)) => Some(Part::Fixed(Value::from(*is), at)),
            (Content::Number(number), Some(Type::Decimal)) => Some(Part::Fixed(Value::Number(number.clone()), at)),
            (Content::Number(number), Some(Type::Integer)) if number.is_i64() => Some(Part::Fixed(Value::Number(number.clone()), at)),
            (Content::Number(_) | Content::Boolean(_), Some(Type::String)) => wrong(self, "write it in quotes"),
            (_, None) => wrong(self, &format!("write its elements as keys, or name a column: `{name}: \"{{column}}\"`")),
            (_, Some(_)) => wrong(self, &format!("write a value, or name a column: `{name}: \"{{column}}\"`")),
        }
    }

    /// The System type of a primitive of FHIR.
    fn primitive(&self, ty: &Type) -> Option<Type> {
        match ty {
            Type::Class(class) if self.model.is_primitive(class) => self.model.element_of(class, "value").map(|value| value.ty.clone()),
            Type::Class(_) => None,
            system => Some(system.clone()),
        }
    }

    /// A text that names columns.
    fn woven(&mut self, name: &str, text: &str, at: &Location, (class, primitive): (&str, Option<Type>)) -> Option<Part> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((column, after)) = after.split_once('}') else {
                self.reader.error(at.clone(), "a `{` without its `}`", "columns are named as in `{column}`");
                return None;
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Column(self.column(column, at)?));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        let (part, column) = match pieces.as_slice() {
            [Piece::Column(column)] => {
                let kind = &self.columns.get(*column)?.kind;
                let fits = form(kind, class, primitive.as_ref()).map(|form| match required::codes(class) {
                    Some(codes) if *kind != Kind::Untold => Form::One(codes),
                    _ => form,
                });
                (fits.map(|form| Part::Column(*column, form)), *column)
            }
            _ => {
                let unfit = pieces.iter().find_map(|piece| match piece {
                    Piece::Column(column) if !self.columns.get(*column).is_some_and(|column| is_textual(&column.kind)) => Some(*column),
                    _ => None,
                });
                let fits = unfit.is_none() && primitive == Some(Type::String);
                let first = pieces.iter().find_map(|piece| if let Piece::Column(column) = piece { Some(*column) } else { None });
                (fits.then(|| Part::Woven(pieces.clone())), unfit.or(first)?)
            }
        };
        if let Some(Part::Column(column, Form::One(codes))) = &part {
            self.mapped(name, *column, codes, at);
        }
        if part.is_none() {
            let column = self.columns.get(column)?;
            let short = class.strip_prefix("FHIR.").unwrap_or(class);
            let message = format!("`{name}` is {short}, and `{{{}}}` is {}", column.name, column.kind.word());
            self.reader.error(at.clone(), message, &format!("columns that fit here are {}", fitting(class, primitive.as_ref())));
        }
        part
    }

    /// Whether what a column's texts mean are codes that FHIR has for the element.
    fn mapped(&mut self, name: &str, column: usize, codes: &'static [&'static str], at: &Location) {
        let Some(Column { name: column, kind: Kind::Code(map), .. }) = self.columns.get(column) else { return };
        let unfit = map.values().map(|coding| coding.code.as_str()).filter(|code| !codes.contains(code));
        for code in unfit.collect::<BTreeSet<_>>() {
            self.reader
                .error(at.clone(), format!("`{name}`: `{code}`, to which the column `{column}` leads, is none of FHIR's codes for it"), &near(codes, code));
        }
    }

    fn column(&mut self, name: &str, at: &Location) -> Option<usize> {
        let found = self.columns.iter().position(|column| column.name == name);
        if found.is_none() {
            let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
            let within = at.text().find(&format!("{{{name}}}")).map_or(at.clone(), |offset| {
                let start = at.span.start as usize + offset + 1;
                Location::new(&at.source, Span::new(start as u32, (start + name.len()) as u32))
            });
            self.reader.error(within, format!("there is no column `{name}`"), &did_you_mean(name, &names));
        }
        found
    }
}

/// What to write in the place of a code that FHIR does not have.
fn near(codes: &'static [&'static str], text: &str) -> String {
    let all = || codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ");
    required::meant(codes, text).map_or_else(|| format!("FHIR has {}", all()), |code| format!("did you mean `{code}`?"))
}

/// Whether cells of a kind may stand within a text.
fn is_textual(kind: &Kind) -> bool {
    matches!(kind, Kind::Whom(_) | Kind::Date(_) | Kind::DateTime(_) | Kind::Integer | Kind::Text | Kind::Untold)
}

/// How a column stands in an element of a class, if it can.
fn form(kind: &Kind, class: &str, primitive: Option<&Type>) -> Option<Form> {
    match (kind, primitive) {
        (Kind::Untold, _) => Some(Form::AsIs),
        (Kind::Whom(_), None) if class == "FHIR.Reference" => Some(Form::AsIs),
        (Kind::Whom(_), Some(Type::String)) => Some(Form::Text),
        (Kind::Date(_), Some(Type::Date | Type::DateTime)) => Some(Form::AsIs),
        (Kind::DateTime(_), Some(Type::DateTime)) => Some(Form::AsIs),
        (Kind::Code(_), None) if class == "FHIR.CodeableConcept" => Some(Form::AsIs),
        (Kind::Code(_), None) if class == "FHIR.Coding" => Some(Form::Coding),
        (Kind::Code(_), Some(Type::String)) => Some(Form::Text),
        (Kind::Quantity(_), None) if Models::default().fhir().is_a(class, "FHIR.Quantity") => Some(Form::AsIs),
        (Kind::Integer, Some(Type::Integer | Type::Decimal)) => Some(Form::AsIs),
        (Kind::Decimal, Some(Type::Decimal)) => Some(Form::AsIs),
        (Kind::Boolean, Some(Type::Boolean)) => Some(Form::AsIs),
        (Kind::Text, Some(Type::String)) => Some(Form::AsIs),
        (Kind::Date(_) | Kind::DateTime(_) | Kind::Integer, Some(Type::String)) => Some(Form::Text),
        _ => None,
    }
}

/// The kinds of columns that an element takes, for people.
fn fitting(class: &str, primitive: Option<&Type>) -> &'static str {
    match (class, primitive) {
        ("FHIR.Reference", _) => "`patient` and `encounter`",
        ("FHIR.CodeableConcept" | "FHIR.Coding", _) => "`code`",
        (_, Some(Type::Date)) => "`date`",
        (_, Some(Type::DateTime)) => "`date` and `dateTime`",
        (_, Some(Type::Integer)) => "`integer`",
        (_, Some(Type::Decimal)) => "`decimal` and `integer`",
        (_, Some(Type::Boolean)) => "`boolean`",
        (_, Some(_)) => "`text`, `code`, `integer`, `date` and `dateTime`",
        (_, None) if Models::default().fhir().is_a(class, "FHIR.Quantity") => "`quantity`",
        (_, None) => "none: write its elements as keys",
    }
}
