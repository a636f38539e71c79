//! ELM JSON, the form in which measures are published: read into the typed tree that plan and evaluator run.
//!
//! ELM is what a translator has made of CQL: names resolved, conversions written out. What it leaves out are types, so
//! the reader infers them from the leaves up. A node, field or combination that it does not know is an error that names
//! library, definition and place, never an empty result.

mod definition;
mod document;
mod expression;
mod json;
mod operator;
mod property;
mod query;
mod reference;
mod type_specifier;
mod write;

pub use write::write;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::document::Document;
use super::context;
use super::libraries::includes_itself;
use super::model::Models;
use super::plan::Program;
use super::trap;
use super::typed::{LibraryId, Tree};
use crate::diagnostic::{Diagnostic, Location, SourceFile, has_errors, nearest};
use crate::terminology::by_version;

/// Reading recurses over documents; this is enough for the deepest that is let through. Bytes.
const STACK_BYTES: usize = 256 << 20;
/// Libraries that may include one another in a chain.
const INCLUDES_MAX: usize = 64;

/// Compiles the ELM library of `root` and what it includes of `libraries` into one program; each text is one ELM JSON
/// document. `None` exactly if a diagnostic is an error.
pub fn compile(root: &Arc<SourceFile>, libraries: &[Arc<SourceFile>], models: &Models) -> (Option<Program>, Vec<Diagnostic>) {
    let (tree, root, diagnostics) = on_deep_stack(root, libraries, models);
    let program = root.filter(|_| !has_errors(&diagnostics)).map(|root| Program::new(tree, vec![root]));
    (program, diagnostics)
}

fn on_deep_stack(root: &Arc<SourceFile>, libraries: &[Arc<SourceFile>], models: &Models) -> (Tree, Option<LibraryId>, Vec<Diagnostic>) {
    std::thread::scope(|scope| {
        let work = || {
            let mut linker = Linker { documents: BTreeMap::new(), models, tree: Tree::default(), linked: BTreeMap::new(), open: Vec::new(), diagnostics: Vec::new() };
            let root = linker.document(root).map(|root| {
                libraries.iter().for_each(|source| linker.offer(source));
                linker.add(&root)
            });
            linker.diagnostics.extend(context::faults(&linker.tree, root.as_slice()));
            linker.diagnostics.extend(trap::warnings(&linker.tree));
            (linker.tree, root, linker.diagnostics)
        };
        match std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(fault) => (Tree::default(), None, vec![Diagnostic::error(format!("no memory to read the libraries ({fault})"))]),
        }
    })
}

/// A library by name and version.
type Key = (Arc<str>, Option<Arc<str>>);

/// Documents, and those of them that are in the tree.
struct Linker<'m> {
    documents: BTreeMap<Key, Arc<Document>>,
    models: &'m Models,
    tree: Tree,
    linked: BTreeMap<Key, LibraryId>,
    /// What is being read, outermost first.
    open: Vec<Key>,
    diagnostics: Vec<Diagnostic>,
}

impl Linker<'_> {
    fn document(&mut self, source: &Arc<SourceFile>) -> Option<Arc<Document>> {
        match Document::read(source) {
            Ok(document) => Some(Arc::new(document)),
            Err(finding) => {
                self.diagnostics.push(*finding);
                None
            }
        }
    }

    /// Makes a library available to includes; the first of a name and version counts.
    fn offer(&mut self, source: &Arc<SourceFile>) {
        if let Some(document) = self.document(source) {
            self.documents.entry(document.key()).or_insert(document);
        }
    }

    fn add(&mut self, document: &Arc<Document>) -> LibraryId {
        let key = document.key();
        if let Some(id) = self.linked.get(&key) {
            return *id;
        }
        self.open.push(key.clone());
        let includes: Vec<(Arc<str>, Option<LibraryId>)> = document.includes().into_iter().map(|include| (include.local.clone(), self.include(document, &include))).collect();
        self.open.pop();
        let (id, found) = definition::read(&mut self.tree, document, includes, self.models);
        self.diagnostics.extend(found);
        self.linked.insert(key, id);
        id
    }

    fn include(&mut self, document: &Document, include: &document::Include) -> Option<LibraryId> {
        let at = Location::new(&document.source, include.at);
        let version = include.version.as_deref();
        let fits = |found: &&Arc<Document>| found.answers_to(&include.path) && version.is_none_or(|version| found.version.as_deref() == Some(version));
        let found = self.documents.values().filter(fits).max_by(|a, b| by_version(a.version.as_deref(), b.version.as_deref()));
        let Some(found) = found.cloned() else {
            self.diagnostics.push(self.not_found(document, include, at));
            return None;
        };
        if self.open.contains(&found.key()) {
            let between = self.open.iter().skip_while(|open| **open != found.key()).skip(1).map(|(name, _)| &**name);
            self.diagnostics.push(Diagnostic::error(includes_itself(&found.name, between)).at(at));
            return None;
        }
        if self.open.len() >= INCLUDES_MAX {
            self.diagnostics
                .push(Diagnostic::error(format!("more than {INCLUDES_MAX} libraries include one another in a chain")).at(at));
            return None;
        }
        Some(self.add(&found))
    }

    fn not_found(&self, document: &Document, include: &document::Include, at: Location) -> Diagnostic {
        let version = include.version.as_ref().map(|version| format!(" of version `{version}`")).unwrap_or_default();
        let message = format!("no library `{}`{version}, which library `{}` includes", include.path, document.name);
        let versions: Vec<&str> = self.documents.values().filter(|own| own.answers_to(&include.path)).filter_map(|own| own.version.as_deref()).collect();
        let near = nearest(document::last_segment(&include.path), self.documents.values().map(|own| &*own.name));
        let diagnostic = Diagnostic::error(message).at(at);
        match (versions.as_slice(), near) {
            ([], Some(near)) => diagnostic.help(format!("did you mean `{near}`?")),
            ([], None) => diagnostic.help("give the Library resource that holds its ELM, too"),
            (versions, _) => diagnostic.help(format!("it is here in version {}", versions.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests;
