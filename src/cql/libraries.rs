//! Library texts by name and version, and their linking into one tree in the order of their includes.

use std::sync::{Arc, LazyLock};

use super::ast;
use super::check::check;
use super::context;
use super::model::Models;
use super::parser::parse;
use super::trap;
use super::typed::{LibraryId, Tree};
use crate::diagnostic::{Diagnostic, Location, SourceFile, nearest};
use crate::terminology::by_version;

/// Checking recurses over texts; this is enough for the deepest tree the parser lets through. Bytes.
const STACK_BYTES: usize = 256 << 20;

static FHIR_HELPERS: LazyLock<Text> = LazyLock::new(|| {
    let text = include_str!("../../mappings/libraries/FHIRHelpers-4.0.1.cql");
    Text::read(&SourceFile::new("FHIRHelpers-4.0.1.cql", text))
});

/// The libraries that `include` may name. FHIRHelpers 4.0.1 is always there, unless a text of that name and version is.
#[derive(Debug, Clone, Default)]
pub struct Libraries {
    texts: Vec<Text>,
    singletons: bool,
    /// What to do about a library that is not here.
    remedy: &'static str,
}

/// One library's text, parsed.
#[derive(Debug, Clone)]
struct Text {
    source: Arc<SourceFile>,
    ast: Arc<ast::Library>,
    diagnostics: Vec<Diagnostic>,
}

impl Text {
    fn read(source: &Arc<SourceFile>) -> Text {
        let (ast, diagnostics) = parse(source);
        Text { source: source.clone(), ast: Arc::new(ast), diagnostics }
    }

    fn name(&self) -> Option<String> {
        self.ast.name.as_ref().map(|(path, _)| path.text())
    }

    /// Whether an include of that name may mean this text: one of the two leaves the namespace out.
    fn answers_to(&self, name: &str) -> bool {
        let Some(own) = self.name() else { return false };
        let last = |name: &str| name.rsplit('.').next().map(str::to_owned);
        own == name || (last(&own) == last(name) && (!own.contains('.') || !name.contains('.')))
    }

    fn version(&self) -> Option<&str> {
        self.ast.name.as_ref().and_then(|(_, version)| version.as_ref()).map(|version| &*version.text)
    }
}

impl Libraries {
    /// Adds a library's text. It is read when something includes it.
    pub fn add(&mut self, source: &Arc<SourceFile>) {
        self.texts.push(Text::read(source));
    }

    /// Lets a list of one and its item convert into each other in the roots, as FHIRPath's collections are read: the
    /// list demotion and promotion that CQL has, but leaves to be asked for.
    pub fn with_singletons(mut self) -> Self {
        self.singletons = true;
        self
    }

    /// What whoever misses a library is told to do: where texts are looked for, only the caller knows.
    pub fn with_remedy(mut self, remedy: &'static str) -> Self {
        self.remedy = remedy;
        self
    }

    /// The library of that name; of that version if one is asked for, else the one with the greatest version.
    fn find(&self, name: &str, version: Option<&str>) -> Option<&Text> {
        let fits = |text: &&Text| version.is_none_or(|version| text.version() == Some(version));
        // Of texts of one version the first counts: whoever adds them begins with the nearest.
        let own = self.named(name).filter(fits).min_by(|a, b| by_version(b.version(), a.version()));
        let embedded = Some(&*FHIR_HELPERS).filter(|text| text.answers_to(name));
        own.or_else(|| embedded.filter(fits))
    }

    /// The texts of that name; if none has it whole, those that have it without a namespace: the namespace of a text is
    /// often that of the package that it came with (CQL, "Namespaces").
    fn named<'t>(&'t self, name: &str) -> impl Iterator<Item = &'t Text> {
        let exact = self.texts.iter().any(|text| text.name().as_deref() == Some(name));
        let name = name.to_owned();
        self.texts
            .iter()
            .filter(move |text| if exact { text.name().as_deref() == Some(&*name) } else { text.answers_to(&name) })
    }

    fn names(&self) -> Vec<String> {
        self.texts.iter().chain([&*FHIR_HELPERS]).filter_map(Text::name).collect()
    }
}

/// What is wrong with a library that includes itself; by way of which others, outermost first.
pub(super) fn includes_itself<'a>(name: &str, between: impl Iterator<Item = &'a str>) -> String {
    let way: Vec<String> = between.map(|other| format!("`{other}`")).collect();
    match way.as_slice() {
        [] => format!("library `{name}` includes itself"),
        way => format!("library `{name}` includes itself, by way of {}", way.join(", ")),
    }
}

/// Reads and checks the roots and everything they include: the tree, the roots in it, what was found. The tree is
/// complete if no diagnostic is an error.
pub fn link(roots: &[Arc<SourceFile>], libraries: &Libraries, models: &Models) -> (Tree, Vec<LibraryId>, Vec<Diagnostic>) {
    std::thread::scope(|scope| {
        let work = || {
            let mut linker = Linker { libraries, models, tree: Tree::default(), linked: Vec::new(), open: Vec::new(), diagnostics: Vec::new() };
            let roots: Vec<LibraryId> = roots.iter().map(|root| linker.add(&Text::read(root))).collect();
            linker.diagnostics.extend(context::faults(&linker.tree, &roots));
            linker.diagnostics.extend(trap::warnings(&linker.tree));
            (linker.tree, roots, linker.diagnostics)
        };
        match std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(fault) => {
                let message = format!("no memory to check the libraries ({fault})");
                (Tree::default(), Vec::new(), vec![Diagnostic::error(message)])
            }
        }
    })
}

struct Linker<'a> {
    libraries: &'a Libraries,
    models: &'a Models,
    tree: Tree,
    /// What is in the tree, by name and version.
    linked: Vec<(String, Option<String>, LibraryId)>,
    /// What is being read, outermost first.
    open: Vec<(String, Option<String>)>,
    diagnostics: Vec<Diagnostic>,
}

impl Linker<'_> {
    fn add(&mut self, text: &Text) -> LibraryId {
        let key = (text.name().unwrap_or_default(), text.version().map(str::to_owned));
        if let Some((.., id)) = self.linked.iter().find(|(name, version, _)| !name.is_empty() && *name == key.0 && *version == key.1) {
            return *id;
        }
        self.open.push(key.clone());
        let includes: Vec<Option<LibraryId>> = text.ast.includes.iter().map(|include| self.include(text, include)).collect();
        self.open.pop();
        self.diagnostics.extend(text.diagnostics.iter().cloned());
        let id = LibraryId(u32::try_from(self.tree.libraries.len()).unwrap_or(u32::MAX));
        let singletons = self.libraries.singletons && self.open.is_empty();
        let found = check(&mut self.tree, &text.source, &text.ast, &includes, self.models, singletons);
        self.diagnostics.extend(found);
        self.linked.push((key.0, key.1, id));
        id
    }

    fn include(&mut self, text: &Text, include: &ast::Include) -> Option<LibraryId> {
        let name = include.name.text();
        let version = include.version.as_ref().map(|version| &*version.text);
        let at = Location::new(&text.source, include.name.at);
        let Some(found) = self.libraries.find(&name, version) else {
            self.diagnostics.push(self.not_found(&name, version, at));
            return None;
        };
        let key = (name.clone(), found.version().map(str::to_owned));
        if self.open.contains(&key) {
            let between = self.open.iter().skip_while(|open| **open != key).skip(1).map(|(name, _)| &**name);
            self.diagnostics.push(Diagnostic::error(includes_itself(&name, between)).at(at));
            return None;
        }
        Some(self.add(found))
    }

    fn not_found(&self, name: &str, version: Option<&str>, at: Location) -> Diagnostic {
        let embedded = Some(&*FHIR_HELPERS).filter(|text| text.answers_to(name));
        let mut versions: Vec<&str> = self.libraries.named(name).chain(embedded).filter_map(Text::version).collect();
        versions.dedup();
        let message = match version {
            Some(version) => format!("no library `{name}` of version `{version}`"),
            None => format!("no library `{name}`"),
        };
        let names = self.libraries.names();
        let diagnostic = Diagnostic::error(message).at(at);
        match (versions.as_slice(), nearest(name, names.iter().map(String::as_str))) {
            ([], Some(near)) => diagnostic.help(format!("did you mean `{near}`?")),
            ([], None) if self.libraries.remedy.is_empty() => diagnostic,
            ([], None) => diagnostic.help(self.libraries.remedy),
            (versions, _) => diagnostic.help(format!("it is here in version {}", versions.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::render_human;

    fn errors(text: &str) -> String {
        let (_, _, diagnostics) = link(&[SourceFile::new("test.cql", text)], &Libraries::default(), &Models::default());
        render_human(&diagnostics, false)
    }

    #[test]
    fn a_library_that_includes_itself_names_the_way() {
        let mut libraries = Libraries::default();
        for text in ["library A\ninclude B", "library B\ninclude C", "library C\ninclude B"] {
            libraries.add(&SourceFile::new("a.cql", text));
        }
        let told = |text: &str| {
            link(&[SourceFile::new("t.cql", text)], &libraries, &Models::default())
                .2
                .iter()
                .map(|found| found.message.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(told("library T\ninclude A"), ["library `B` includes itself, by way of `C`"]);
        assert_eq!(told("library C\ninclude C"), ["library `C` includes itself"]);
    }

    #[test]
    fn of_a_missing_library_nothing_else_is_told() {
        let text = "library T\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '9'\ninclude Status\ncontext Patient\n\
            define A: [Encounter].isFinished()\ndefine B: start of First([Encounter]).period > 1\ndefine C: First(A).period and 1\n";
        let (_, _, found) = link(&[SourceFile::new("t.cql", text)], &Libraries::default(), &Models::default());
        let told: Vec<&str> = found.iter().map(|one| one.message.as_str()).collect();
        assert_eq!(told, ["no library `FHIRHelpers` of version `9`", "no library `Status`", "an operand of a logical operator must be of type `Boolean`, but this is `Integer`"]);
    }

    #[test]
    fn the_embedded_helpers_have_no_fault() {
        assert_eq!(errors("library T\nusing FHIR version '4.0.1'\ninclude FHIRHelpers version '4.0.1'\n"), "");
    }

    #[test]
    fn the_network_measures_have_no_fault() {
        let file = |name: &str, text: &str| SourceFile::new(name, text);
        let mut libraries = Libraries::default();
        libraries.add(&file("PatientRecord-1.0.0.cql", include_str!("../../mappings/libraries/PatientRecord-1.0.0.cql")));
        let roots = [
            file("remission.cql", include_str!("../../mappings/measures/ibd/remission/ibd-remission.cql")),
            file("clabsi.cql", include_str!("../../mappings/measures/hac/clabsi/hac-clabsi.cql")),
            file("early-elective-delivery.cql", include_str!("../../mappings/measures/perinatal/early-elective-delivery/early-elective-delivery.cql")),
        ];
        let (tree, _, diagnostics) = link(&roots, &libraries, &Models::default());
        assert_eq!(render_human(&diagnostics, false), "");
        assert_eq!(tree.libraries.len(), 5, "three measures, what they share, FHIRHelpers");
    }
}
