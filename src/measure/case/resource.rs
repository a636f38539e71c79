//! Resources of a case against FHIR R4: elements, types of values, dates that there are, references that lead somewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cql::date_time::{Date, DateTime, Time};
use crate::cql::model::{Model, Models};
use crate::cql::types::Type;
use crate::diagnostic::yaml::locate;
use crate::diagnostic::yaml::node::{Content, Named, Node, at};
use crate::diagnostic::{Diagnostic, Location, SourceFile, nearest};
use crate::fhir::compartment::{is_id, reference_target};
use crate::fhir::required;

/// Deepest nesting that is looked into.
const DEPTH_MAX: usize = 64;
/// So many elements are named where none is near to what was written.
const FEW: usize = 8;
/// Elements that refer to the patient, in the order in which one is filled in.
const PATIENT_ELEMENTS: [&str; 4] = ["subject", "patient", "beneficiary", "for"];

/// Checks the resources of one case.
pub struct Check<'a> {
    source: &'a Arc<SourceFile>,
    fhir: &'a Model,
    /// Types and ids of all resources.
    known: Vec<(String, String)>,
    /// Ids of what the resource in hand contains.
    contained: Vec<String>,
    /// What was found.
    pub found: Vec<Diagnostic>,
}

/// One element as JSON has it: its name there, its type, whether it is a list.
struct Field {
    ty: Type,
    is_list: bool,
}

/// The element that refers to the patient, and whether it is a list; none where a type has none.
pub fn patient_element(models: &Models, resource_type: &str) -> Option<(&'static str, bool)> {
    let class = format!("FHIR.{resource_type}");
    let is_reference = |ty: &Type| matches!(ty, Type::Class(name) if &**name == "FHIR.Reference");
    PATIENT_ELEMENTS.into_iter().find_map(|name| {
        let ty = &models.fhir().element_of(&class, name)?.ty;
        let is_list = ty.is_list();
        is_reference(ty.element().unwrap_or(ty)).then_some((name, is_list))
    })
}

/// Whether a resource names the patient by an element of its own.
pub fn names_patient(resource: &Content) -> bool {
    PATIENT_ELEMENTS.iter().any(|name| resource.field(name).is_some())
}

impl<'a> Check<'a> {
    /// Of resources with these types and ids.
    pub fn new(source: &'a Arc<SourceFile>, models: &'a Models, known: Vec<(String, String)>) -> Check<'a> {
        Check { source, fhir: models.fhir(), known, contained: Vec::new(), found: Vec::new() }
    }

    fn error(&mut self, at: Location, message: String, help: Option<String>) {
        let mut finding = Diagnostic::error(message).at(at);
        finding.help = help;
        self.found.push(finding);
    }

    /// One resource; its type, when it is one.
    pub fn resource(&mut self, node: &Node) -> Option<String> {
        let contained = node.value.field("contained").map(|list| &list.value);
        self.contained = match contained {
            Some(Content::List(items)) => items.iter().filter_map(|item| item.value.text_of("id").map(str::to_owned)).collect(),
            _ => Vec::new(),
        };
        self.inner(node, DEPTH_MAX)
    }

    fn inner(&mut self, node: &Node, depth: usize) -> Option<String> {
        let place = at(self.source, node);
        let Content::Fields(fields) = &node.value else {
            self.error(place, format!("expected a resource, found {}", node.value.shown()), Some("write its fields: `resourceType` first".to_owned()));
            return None;
        };
        let Some(named) = node.value.field("resourceType") else {
            self.error(place, "the resource has no `resourceType`".to_owned(), Some("name its type, as `resourceType: Observation`".to_owned()));
            return None;
        };
        let resource_type = named.value.text().unwrap_or_default().to_owned();
        if self.fhir.retrievable(&resource_type).is_none() {
            let near = nearest(&resource_type, self.fhir.retrievable_names()).map(|near| format!("did you mean `{near}`?"));
            self.error(at(self.source, named), format!("FHIR has no resource type {}", named.value.shown()), near);
            return None;
        }
        self.fields(&format!("FHIR.{resource_type}"), fields, depth);
        Some(resource_type)
    }

    fn fields(&mut self, class: &str, Named(fields): &Named<Node>, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        let known = self.known_fields(class);
        let shown = class.trim_start_matches("FHIR.");
        for (name, node) in fields {
            let plain = name.value.strip_prefix('_').filter(|plain| known.get(*plain).is_some_and(|field| self.is_scalar(&field.ty)));
            match known.get(&name.value) {
                _ if name.value == "resourceType" || plain.is_some() => {}
                Some(field) => self.element(&name.value, field, node, depth),
                None => {
                    let choices = known
                        .keys()
                        .filter(|field| field.strip_prefix(&*name.value).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase())));
                    let choices: Vec<String> = choices.map(|field| format!("`{field}`")).collect();
                    let own = known.keys().filter(|field| !matches!(field.as_str(), "id" | "extension" | "modifierExtension"));
                    let own: Vec<String> = own.take(FEW + 1).map(|field| format!("`{field}`")).collect();
                    let near = nearest(&name.value, known.keys().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
                    let near = near.or_else(|| (own.len() <= FEW).then(|| format!("it has {}", own.join(", "))));
                    let is_choice = self.fhir.element_of(class, &name.value).is_some();
                    let help = if is_choice { Some(format!("its name says of which type it is: {}", choices.join(", "))) } else { near };
                    self.error(locate(self.source, name), format!("{shown} has no element `{}`", name.value), help);
                }
            }
        }
        if class == "FHIR.Reference" {
            self.reference(fields);
        }
    }

    /// The elements of a class by their names in JSON.
    fn known_fields(&self, class: &str) -> BTreeMap<String, Field> {
        let mut known = BTreeMap::new();
        for name in self.fhir.element_names(class) {
            if let Some((element, _)) = self.fhir.resolve(class, name) {
                let fields = element.alternatives.iter().map(|one| (one.field.to_string(), Field { ty: one.ty.clone(), is_list: element.list }));
                known.extend(fields);
            }
        }
        known
    }

    fn is_scalar(&self, ty: &Type) -> bool {
        match ty {
            Type::Class(class) => self.fhir.is_primitive(class),
            _ => true,
        }
    }

    fn element(&mut self, name: &str, field: &Field, node: &Node, depth: usize) {
        match (&node.value, field.is_list) {
            (Content::Null, _) => {
                self.error(at(self.source, node), format!("`{name}` is left empty"), Some("write its value after the colon, or leave the element out".to_owned()));
            }
            (Content::List(items), true) => items.iter().for_each(|item| self.value(name, &field.ty, item, depth)),
            (_, true) => {
                let help = Some(format!("write `{name}: […]`, or each item behind a `-`"));
                self.error(at(self.source, node), format!("`{name}` is a list in FHIR, found {}", node.value.shown()), help);
            }
            (Content::List(_), false) => self.error(at(self.source, node), format!("`{name}` is a single value in FHIR, found a list"), None),
            (_, false) => self.value(name, &field.ty, node, depth),
        }
    }

    fn value(&mut self, name: &str, ty: &Type, node: &Node, depth: usize) {
        let scalar = match ty {
            Type::Class(class) if matches!(&**class, "FHIR.Resource" | "FHIR.DomainResource") => {
                self.inner(node, depth);
                return;
            }
            Type::Class(class) if self.fhir.is_primitive(class) => self.fhir.element_of(class, "value").map(|value| value.ty.clone()),
            Type::Class(class) => {
                match &node.value {
                    Content::Fields(fields) => self.fields(class, fields, depth),
                    other => {
                        let help = format!("write the fields of a {}, as `{name}: {{…}}`", class.trim_start_matches("FHIR."));
                        self.error(at(self.source, node), format!("`{name}` expects fields, found {}", other.shown()), Some(help));
                    }
                }
                return;
            }
            other => Some(other.clone()),
        };
        let Some(scalar) = scalar else { return };
        if let Err((message, help)) = fits(name, &scalar, &node.value) {
            self.error(at(self.source, node), message, help);
        } else if let Some(codes) = class_of(ty).and_then(required::codes)
            && let Some(text) = node.value.text().filter(|text| !codes.contains(text))
        {
            let near = required::meant(codes, text).map(|code| format!("did you mean `{code}`?"));
            let help = near.unwrap_or_else(|| format!("FHIR has {}", codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ")));
            self.error(at(self.source, node), format!("`{name}`: `{text}` is none of FHIR's codes for it"), Some(help));
        } else if *ty == Type::class("FHIR.id") && !node.value.text().is_some_and(is_id) {
            let help = "use 1 to 64 letters, digits, `-` or `.`".to_owned();
            self.error(at(self.source, node), format!("{} is no id", node.value.shown()), Some(help));
        }
    }

    /// A reference into the case leads to one of its resources. Whoever is outside of it may be: it is said, and no error.
    fn reference(&mut self, fields: &[(crate::measure::definition::Text, Node)]) {
        let Some((_, node)) = fields.iter().find(|(name, _)| name.value == "reference") else { return };
        let Some(text) = node.value.text() else { return };
        // Whoever is outside of the case may be meant; what is a slip away from one that is inside is not.
        let told = |message: String, near: Option<String>| {
            let finding = if near.is_some() { Diagnostic::warning(message) } else { Diagnostic::note(message) };
            let finding = finding.at(at(self.source, node));
            match near {
                Some(near) => finding.help(format!("did you mean `{near}`?")),
                None => finding,
            }
        };
        let found = match (text.strip_prefix('#'), reference_target(text)) {
            (Some(id), _) if !self.contained.iter().any(|own| own == id) => {
                let near = nearest(id, self.contained.iter().map(String::as_str)).map(|near| format!("#{near}"));
                told(format!("`{text}` leads nowhere: the resource contains no such one"), near)
            }
            (None, Some((Some(resource_type), id))) if !text.contains("://") && !text.starts_with("urn:") => {
                // Of a resource that is misnamed itself that has been said.
                let is_named = |own_type: &str, own: &str| self.fhir.retrievable(own_type).is_some() && is_id(own);
                if self.known.iter().any(|(own_type, own)| (own_type == resource_type || !is_named(own_type, own)) && own == id) {
                    return;
                }
                let all = self.known.iter().filter(|(own_type, own)| is_named(own_type, own));
                let all: Vec<String> = all.map(|(own_type, own)| format!("{own_type}/{own}")).collect();
                let near = nearest(text, all.iter().map(String::as_str)).map(str::to_owned);
                told(format!("`{text}` leads nowhere: the case has no such resource"), near)
            }
            (None, None) if !text.contains(':') => told(format!("`{text}` is no reference: expected TYPE/ID, as `Encounter/v1`"), None),
            _ => return,
        };
        self.found.push(found);
    }
}

fn class_of(ty: &Type) -> Option<&str> {
    if let Type::Class(class) = ty { Some(class) } else { None }
}

type Wrong = (String, Option<String>);

/// Whether a scalar is of its type.
fn fits(name: &str, ty: &Type, value: &Content) -> Result<(), Wrong> {
    let expected = |expected: &str, help: Option<&str>| Err((format!("`{name}` expects {expected}, found {}", value.shown()), help.map(str::to_owned)));
    match (ty, value) {
        (_, Content::Null) => Err((format!("`{name}` is left empty"), Some("write its value after the colon, or leave the element out".to_owned()))),
        (Type::Boolean, Content::Boolean(_)) => Ok(()),
        (Type::Boolean, _) => expected("`true` or `false`", None),
        (Type::Integer, Content::Number(number)) if number.is_i64() || number.is_u64() => Ok(()),
        (Type::Integer, _) => expected("a whole number", Some("write it without quotes and without a point")),
        (Type::Decimal, Content::Number(_)) => Ok(()),
        (Type::Decimal, _) => expected("a number", Some("write it without quotes")),
        (Type::Date | Type::DateTime | Type::Time, Content::Text(text)) => day(name, ty, text),
        (Type::Date | Type::DateTime | Type::Time, Content::Number(_)) => expected("a date in quotes", Some("a year alone is a number to YAML: put it in quotes")),
        (_, Content::Text(_)) => Ok(()),
        (_, Content::Number(_) | Content::Boolean(_)) => expected("a text", Some("put it in quotes")),
        _ => expected("a single value", None),
    }
}

fn day(name: &str, ty: &Type, text: &str) -> Result<(), Wrong> {
    let (is_there, example) = match ty {
        Type::Date => (Date::parse(text).is_some(), "`2025-06-15`, `2025-06` or `2025`"),
        Type::Time => (Time::parse(text).is_some(), "`10:30:00`"),
        _ => (DateTime::parse_fhir(text).is_some(), "`2025-06-15T10:00:00-04:00`, `2025-06-15`, `2025-06` or `2025`"),
    };
    if is_there {
        return Ok(());
    }
    let digits = text.get(..10).unwrap_or(text);
    let is_of_form = digits.len() == 10
        && digits
            .bytes()
            .enumerate()
            .all(|(place, byte)| if matches!(place, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() });
    let what = if is_of_form && Date::parse(digits).is_none() { "a day that does not exist".to_owned() } else { "no date of FHIR's".to_owned() };
    Err((format!("`{name}`: `{text}` is {what}"), Some(format!("write it as {example}"))))
}
