//! One ELM JSON document: parsed within bounds, its identity, its includes; and small ways to look into JSON.

use std::sync::Arc;

use super::Key;
use super::json::Json;
use crate::diagnostic::{Diagnostic, Location, SourceFile, Span};

/// A parsed library.
#[derive(Debug)]
pub(super) struct Document {
    pub source: Arc<SourceFile>,
    pub name: Arc<str>,
    pub version: Option<Arc<str>>,
    /// Namespace of the name: `http://ecqi.healthit.gov/ecqms`.
    system: Option<Arc<str>>,
    /// What is under `library`.
    pub library: Json,
}

/// One `include`.
#[derive(Debug)]
pub(super) struct Include {
    /// Where it stands.
    pub at: Span,
    pub local: Arc<str>,
    /// `FHIRHelpers`, or with its namespace `http://ecqi.healthit.gov/ecqms/FHIRHelpers`.
    pub path: Arc<str>,
    pub version: Option<Arc<str>>,
}

impl Document {
    /// Parses a document; the finding says why it is no ELM.
    pub fn read(source: &Arc<SourceFile>) -> Result<Document, Box<Diagnostic>> {
        let refuse = |message: String, at: usize| {
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            Box::new(Diagnostic::error(message).at(Location::new(source, Span::new(at, at))))
        };
        let json = Json::parse(&source.text).map_err(|fault| refuse(fault.message, fault.at))?;
        let at = json.at.start as usize;
        let Some(library) = json.into_field("library") else {
            return Err(refuse("this JSON is not ELM: it has no `library`".into(), at));
        };
        let identifier = library.get("identifier");
        let part = |name: &str| identifier.and_then(|identifier| text_of(identifier, name)).map(Arc::from);
        let Some(name) = part("id") else {
            return Err(refuse("this ELM library has no `identifier.id`".into(), library.at.start as usize));
        };
        Ok(Document { source: source.clone(), name, version: part("version"), system: part("system"), library })
    }

    pub fn key(&self) -> Key {
        (self.name.clone(), self.version.clone())
    }

    /// Whether an include of that path means this library.
    pub fn answers_to(&self, path: &str) -> bool {
        let qualified = |separator: char| self.system.as_ref().is_some_and(|system| path == format!("{system}{separator}{}", self.name));
        path == &*self.name || qualified('/') || qualified('.') || last_segment(path) == &*self.name
    }

    pub fn includes(&self) -> Vec<Include> {
        let include = |json: &Json| {
            let path = text_of(json, "path")?;
            let local = text_of(json, "localIdentifier").unwrap_or_else(|| last_segment(path));
            Some(Include { at: json.at, local: local.into(), path: path.into(), version: text_of(json, "version").map(Arc::from) })
        };
        self.definitions("includes").filter_map(include).collect()
    }

    /// The rows of a section: `includes`, `valueSets`, `statements`, ….
    pub fn definitions<'d>(&'d self, section: &str) -> impl Iterator<Item = &'d Json> {
        self.library.get(section).map(|section| items(section, "def")).unwrap_or_default().iter()
    }
}

/// `FHIRHelpers` of `http://ecqi.healthit.gov/ecqms/FHIRHelpers`.
pub(super) fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The text under a name.
pub(super) fn text_of<'j>(json: &'j Json, name: &str) -> Option<&'j str> {
    json.get(name).and_then(Json::as_str)
}

/// The items of the array under a name; none when there is no array.
pub(super) fn items<'j>(json: &'j Json, name: &str) -> &'j [Json] {
    json.get(name).and_then(Json::as_array).unwrap_or_default()
}
