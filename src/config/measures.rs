//! Measures from disk, or the packs that this program carries: texts, value sets, cases.
//!
//! A measure is a folder with `measure.yaml`, or FHIR Measure, Library and ValueSet resources as they are published: a
//! Bundle, or a folder of Bundles or resources, `.gz` and `.zst` too.
//!
//! A measure folder holds `measure.yaml`, its `.cql` and `cases/`. It may use the `libraries/` and `value-sets/` folders
//! inside it and inside the folders above it, up to [`LEVELS_MAX`] levels; nearer ones come first.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::foreign::{Expected, foreign};
use crate::cql::Models;
use crate::cql::date_time::DateTime;
use crate::diagnostic::{self, Diagnostic, Location, Severity, SourceFile, Span, counted};
use crate::measure::case::{self, Case, Coverage, Mismatch};
use crate::measure::{self, Choices, Files, Measure, MissingValueSets, Setting, definition, published};
use crate::terminology::units::Units;
use crate::terminology::{self, ValueSet, ValueSets};

/// How many folders above a measure are searched for `libraries/` and `value-sets/`.
pub const LEVELS_MAX: usize = 4;
/// Folders of a measure that are read.
const READ: [&str; 3] = ["cases", LIBRARIES, "value-sets"];
/// Where the libraries are that a measure shares with others.
const LIBRARIES: &str = "libraries";
/// Most files of one folder that are read.
const FILES_MAX: usize = 10_000;
/// Largest text file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The texts of a measure folder.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Definition, CQL and libraries.
    pub files: Files,
    /// Value sets that stand beside it.
    pub value_sets: Vec<Arc<SourceFile>>,
    /// Test patients.
    pub cases: Vec<Arc<SourceFile>>,
}

/// Measures and everything they need.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Compiled measures, in the order given.
    pub measures: Vec<Measure>,
    /// All value sets.
    pub value_sets: Arc<ValueSets>,
}

/// Reads the texts of a measure folder; `path` is the folder or its `measure.yaml`.
pub fn read(path: &Path) -> Result<Folder, Diagnostic> {
    let folder = if path.is_dir() { path.to_owned() } else { path.parent().unwrap_or(Path::new(".")).to_owned() };
    let file = folder.join("measure.yaml");
    if !path.exists() {
        return Err(Diagnostic::error(format!("`{}` does not exist", path.display())).help("name a measure folder"));
    }
    if !file.is_file() {
        let message = format!("`{}` holds no `measure.yaml`", folder.display());
        return Err(Diagnostic::error(message)
            .help("name a measure folder; what is published as a FHIR Bundle has no test patients of this kind: `evaluate` and `measure coverage --data` take it"));
    }
    let definition = text(&file)?;
    let cql = texts(&folder, &["cql"])?;
    let mut libraries = Vec::new();
    let mut value_sets = Vec::new();
    for here in levels(&folder) {
        libraries.extend(texts(&here.join(LIBRARIES), &["cql"])?);
        value_sets.extend(texts(&here.join("value-sets"), &["yaml", "yml", "json"])?);
    }
    let cases = texts(&folder.join("cases"), &["yaml", "yml"])?;
    Ok(Folder { files: Files { definition, cql, libraries, elm: Vec::new() }, value_sets, cases })
}

/// A folder and those above it that may hold what it uses, the nearest first.
fn levels(folder: &Path) -> Vec<PathBuf> {
    let whole = std::path::absolute(folder).unwrap_or(folder.to_owned());
    whole.ancestors().take(LEVELS_MAX + 1).map(Path::to_owned).collect()
}

/// The folders of libraries that what stands in `folder` may include, the nearest first.
pub fn library_folders(folder: &Path) -> Vec<PathBuf> {
    levels(folder).into_iter().map(|level| level.join(LIBRARIES)).filter(|path| path.is_dir()).collect()
}

/// Reads what a path holds: a measure folder, or published resources.
pub fn open(path: &Path) -> Result<(Vec<Folder>, Vec<Diagnostic>), Diagnostic> {
    let is_folder = path.join("measure.yaml").is_file() || path.file_name().is_some_and(|name| name == "measure.yaml");
    if is_folder || !path.exists() {
        return Ok((vec![read(path)?], strays(path)));
    }
    let mut files = Vec::new();
    list(path, 0, &[".json"], &mut files)?;
    let mut sources = files.iter().map(|file| text(file)).collect::<Result<Vec<_>, _>>()?;
    sources.retain(|source| published::is_published(source));
    let (published, found) = published::collect(&sources);
    if published.measures.is_empty() && !crate::diagnostic::has_errors(&found) {
        let message = format!("`{}` holds no `measure.yaml` and no FHIR Measure", path.display());
        return Err(Diagnostic::error(message).help("name a measure folder, or a Bundle or folder with Measure, Library and ValueSet resources"));
    }
    let folder = |files| Folder { files, value_sets: published.value_sets.clone(), cases: Vec::new() };
    Ok((published.measures.into_iter().map(folder).collect(), found))
}

/// The file itself, or the files below a folder whose names end so, compressed or not; sorted.
fn list(path: &Path, depth: usize, ends: &[&str], files: &mut Vec<PathBuf>) -> Result<(), Diagnostic> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let fault = |error: std::io::Error| Diagnostic::error(format!("`{}` cannot be read: {error}", path.display()));
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fault)?.take(FILES_MAX) {
        entries.push(entry.map_err(fault)?.path());
    }
    entries.sort();
    for entry in entries {
        let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let plain = name.trim_end_matches(".gz").trim_end_matches(".zst");
        if (entry.is_dir() && depth < LEVELS_MAX) || ends.iter().any(|end| plain.ends_with(end)) {
            list(&entry, depth + 1, ends, files)?;
        }
    }
    Ok(())
}

/// Reads value sets: files one by one, folders with all that is below them, Bundles with all that they hold.
pub fn read_value_sets(paths: &[PathBuf]) -> Result<Vec<Arc<SourceFile>>, Diagnostic> {
    let mut files = Vec::new();
    for path in paths {
        list(path, 0, &[".yaml", ".yml", ".json"], &mut files)?;
    }
    let mut found = Vec::new();
    for file in &files {
        let source = text(file)?;
        let held = if published::is_published(&source) { published::collect(std::slice::from_ref(&source)).0.value_sets } else { Vec::new() };
        // What holds none is told so when it is read as one.
        if held.is_empty() { found.push(source) } else { found.extend(held) }
    }
    Ok(found)
}

/// Compiles measure folders together with further value sets; everything that is wrong is said at once.
pub fn load(paths: &[PathBuf], value_sets: &[PathBuf], choices: &Choices) -> (Option<Loaded>, Vec<Diagnostic>) {
    let (folders, mut found) = open_all(paths);
    let extra = read_value_sets(value_sets).unwrap_or_else(|fault| {
        found.push(fault);
        Vec::new()
    });
    let (loaded, more) = compile(&folders, &extra, choices);
    found.extend(more);
    let failed = crate::diagnostic::has_errors(&found);
    (loaded.filter(|_| !failed), found)
}

/// Reads what all paths hold, in their order; the measures that [`load`] compiles.
pub fn open_all(paths: &[PathBuf]) -> (Vec<Folder>, Vec<Diagnostic>) {
    let (mut folders, mut found) = (Vec::new(), Vec::new());
    for path in paths {
        match open(path) {
            Ok((opened, more)) => {
                folders.extend(opened);
                found.extend(more);
            }
            Err(fault) => found.push(fault),
        }
    }
    (folders, found)
}

/// A folder alone, or, of a composite, together with those that may hold its components; itself first.
pub fn together(folder: &Folder, all: &[Folder]) -> Vec<Folder> {
    let is_composite = definition::parse(&folder.files.definition).0.is_some_and(|definition| definition.is_composite());
    let others = all.iter().filter(|other| is_composite && other.files.definition.name != folder.files.definition.name);
    std::iter::once(folder).chain(others).cloned().collect()
}

/// Compiles folders whose texts have been read.
pub fn compile(folders: &[Folder], value_sets: &[Arc<SourceFile>], choices: &Choices) -> (Option<Loaded>, Vec<Diagnostic>) {
    let (mut shelf, mut found) = shelf(folders, value_sets, choices);
    let is_one = shelf.has_one_of_each();
    let mut sets = shelf.collected();
    let own_sets = if is_one { Vec::new() } else { own_sets(folders, value_sets, choices, &Arc::new(sets.clone())) };
    let models = Models::default();
    let files: Vec<&Files> = folders.iter().map(|folder| &folder.files).collect();
    let (compiled, more) = measure::compile(&files, &sets, &own_sets, choices, &models);
    // A value set whose file has a fault of its own is not missing as well.
    let follows = |finding: &Diagnostic| {
        let url = finding.at.as_ref().filter(|_| finding.message.starts_with("value set ")).map(|at| at.text());
        url.is_some_and(|url| shelf.broken.iter().any(|source| source.text.contains(url)))
    };
    found.extend(more.into_iter().filter(|finding| !follows(finding)));
    let mut measures: Vec<Measure> = compiled.into_iter().flatten().collect();
    found.extend(same_ids(folders, &measures));
    let is_used = |url: &str| measures.iter().flat_map(Measure::programs).flat_map(|program| &program.tree().value_sets).any(|row| *row.id == *url);
    let mut told = BTreeSet::new();
    let is_new = |finding: &Diagnostic| told.insert(finding.message.clone());
    found.extend(shelf.remarks.into_iter().filter(|(url, _)| is_used(url)).map(|(_, finding)| finding).filter(is_new));
    if choices.missing_value_sets == MissingValueSets::Warn {
        for measure in &mut measures {
            add_missing(&mut sets, measure);
        }
    }
    let complete = measures.len() == folders.len() && !crate::diagnostic::has_errors(&found);
    (complete.then(|| Loaded { measures, value_sets: Arc::new(sets) }), found)
}

/// Of each measure the value sets that stand beside it, and after them those of all: they count for it first, as they do for whoever holds
/// that measure alone.
fn own_sets(folders: &[Folder], value_sets: &[Arc<SourceFile>], choices: &Choices, of_all: &Arc<ValueSets>) -> Vec<Arc<ValueSets>> {
    // Measures of one publication have the same.
    let mut made: BTreeMap<Vec<&str>, Arc<ValueSets>> = BTreeMap::new();
    let own = |folder: &Folder| Arc::new(shelf(std::slice::from_ref(folder), value_sets, choices).0.collected().before(Arc::clone(of_all)));
    let mut all = Vec::new();
    for folder in folders {
        let names = folder.value_sets.iter().map(|source| &*source.name).collect();
        all.push(Arc::clone(made.entry(names).or_insert_with(|| own(folder))));
    }
    all
}

/// The value sets that stand beside measures, where nothing is evaluated and nobody is told what is wrong with them.
pub fn value_sets(folders: &[Folder]) -> ValueSets {
    shelf(folders, &[], &Choices::default()).0.collected()
}

/// The value sets of files, folders and Bundles, and what is wrong with them.
pub fn named_value_sets(paths: &[PathBuf]) -> (ValueSets, Vec<Diagnostic>) {
    match read_value_sets(paths) {
        Ok(sources) => {
            let (mut shelf, found) = shelf(&[], &sources, &Choices::default());
            (shelf.collected(), found)
        }
        Err(fault) => (ValueSets::new(), vec![fault]),
    }
}

/// The value sets beside measures and those that are named.
fn shelf<'a>(folders: &'a [Folder], value_sets: &'a [Arc<SourceFile>], choices: &Choices) -> (Shelf<'a>, Vec<Diagnostic>) {
    let mut found = Vec::new();
    // A value set seen twice is the same file seen from two measures. Those of nearer folders take the place of those farther
    // away, and those that are named that of all.
    let mut seen = BTreeSet::new();
    let beside: Vec<&Arc<SourceFile>> = folders.iter().flat_map(|folder| &folder.value_sets).filter(|source| seen.insert(&*source.name)).collect();
    let by_folder = beside.chunk_by(|one, other| Path::new(&one.name).parent() == Path::new(&other.name).parent());
    let beside = by_folder.collect::<Vec<_>>().into_iter().rev().flatten();
    let mut shelf = Shelf::default();
    let named = value_sets.iter().map(|source| (source, true));
    for (source, is_named) in beside.map(|source| (*source, false)).chain(named) {
        let (set, more) = terminology::read::value_set(source);
        // What a publication carries but does not use is no error; what is used is told of below, and is not the reader's to correct.
        let carried = source.name.contains(published::PART);
        let warning = |finding| Diagnostic { severity: Severity::Warning, ..finding };
        match &set {
            _ if !carried => found.extend(more.into_iter().map(|finding| forgiven(finding, choices))),
            Some(set) => shelf.remarks.extend(more.into_iter().map(|finding| (set.url.to_string(), warning(finding)))),
            None => {
                let reasons = more.into_iter().map(|finding| finding.message);
                shelf.refused.extend(terminology::read::identity(source).zip(reasons.last()));
            }
        }
        match set {
            Some(set) => shelf.take(set, source, is_named, folders),
            None if !carried => shelf.broken.push(source),
            None => {}
        }
    }
    (shelf, found)
}

/// What is said of a value set without codes is no error where the caller goes on without them.
fn forgiven(finding: Diagnostic, choices: &Choices) -> Diagnostic {
    let is_forgiven = choices.missing_value_sets == MissingValueSets::Warn && finding.message.starts_with("value set ");
    Diagnostic { severity: if is_forgiven { Severity::Warning } else { finding.severity }, ..finding }
}

/// Measures of one id and version: their reports could not be told apart.
fn same_ids(folders: &[Folder], measures: &[Measure]) -> Vec<Diagnostic> {
    let mut seen: BTreeMap<(&str, &str), Location> = BTreeMap::new();
    let mut found = Vec::new();
    for (folder, measure) in folders
        .iter()
        .zip(measures)
        .filter(|(folder, _)| folders.len() == measures.len() && !published::is_published(&folder.files.definition))
    {
        let id = &measure.definition.id;
        let at = diagnostic::yaml::locate(&folder.files.definition, id);
        let first = seen.insert((&id.value, &measure.definition.version.value), at.clone());
        if let Some(first) = first.filter(|first| first.source.name != at.source.name) {
            let message = format!("two measures have the id `{}` and one version", id.value);
            found.push(
                Diagnostic::error(message)
                    .at(at)
                    .label(first, "the other one")
                    .help("give one of them another `id`, or another `version`"),
            );
        }
    }
    found
}

/// What stands in a measure folder under a name that is nearly one that is read.
pub fn strays(path: &Path) -> Vec<Diagnostic> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().take(FILES_MAX).filter_map(Result::ok).map(|entry| entry.path());
        let mut paths: Vec<PathBuf> = entries.collect();
        paths.sort();
        paths
    };
    let warn = |path: &Path, help: String| Diagnostic::warning(format!("`{}` is not read", shown(path))).help(help);
    let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let folders = names(folder).into_iter().filter(|path| path.is_dir()).filter_map(|path| {
        let name = name(&path).filter(|name| !READ.contains(&name.as_str()))?;
        crate::diagnostic::nearest(&name, READ.into_iter()).map(|near| warn(&path, format!("did you mean `{near}`?")))
    });
    let is_case = |path: &Path| path.extension().is_some_and(|end| end == "yaml" || end == "yml");
    let cases = names(&folder.join("cases"))
        .into_iter()
        .filter(|path| path.is_file() && !is_case(path) && name(path).is_some_and(|name| !name.starts_with('.')));
    folders.chain(cases.map(|path| warn(&path, "a test patient is a `.yaml` file".to_owned()))).collect()
}

/// Value sets as they are read, file by file.
#[derive(Default)]
struct Shelf<'a> {
    sets: Vec<(ValueSet, &'a Arc<SourceFile>, bool)>,
    broken: Vec<&'a Arc<SourceFile>>,
    /// Told where the value set of that URL is used.
    remarks: Vec<(String, Diagnostic)>,
    /// What a publication carries and cannot be taken, by URL and version, and why.
    refused: Vec<((String, Option<String>), String)>,
}

impl<'a> Shelf<'a> {
    /// Whether what stands beside measures is the same beside all of them that have it.
    fn has_one_of_each(&self) -> bool {
        let mut seen: BTreeMap<&str, &ValueSet> = BTreeMap::new();
        let is_same = |set: &ValueSet, other: &ValueSet| set.version == other.version && set.has_codes_of(other);
        self.sets.iter().filter(|(.., is_named)| !is_named).all(|(set, ..)| is_same(set, seen.entry(&set.url).or_insert(set)))
    }

    fn take(&mut self, mut set: ValueSet, source: &'a Arc<SourceFile>, is_named: bool, folders: &[Folder]) {
        // What is named takes the place of what stands beside a measure: that is no contradiction.
        let same = |(other, _, named): &&mut (ValueSet, _, bool)| *named == is_named && (&other.url, &other.version) == (&set.url, &set.version);
        if let Some((earlier, first, _)) = self.sets.iter_mut().rev().find(same) {
            let Some(other) = earlier.join(set) else { return };
            set = other;
            if !set.has_codes_of(earlier) {
                let [own, others] = [&set, &*earlier].map(|set| counted(set.len(), "code"));
                let is_beside_one = folders
                    .iter()
                    .any(|folder| [*first, source].iter().all(|one| folder.value_sets.iter().any(|other| other.name == one.name)));
                let counts = if is_named || is_beside_one { "which counts" } else { "each of which counts for the measures that it stands beside" };
                let message = format!("value set `{}` is here twice with different codes: {others} in {}, {own} in {}, {counts}", set.canonical(), first.name, source.name);
                let finding = Diagnostic::warning(message).help("take one of them away, or give them the versions that they are");
                self.remarks.push((set.url.to_string(), finding));
            }
        }
        self.sets.push((set, source, is_named));
    }

    /// All sets, in one place.
    fn collected(&mut self) -> ValueSets {
        let mut sets = ValueSets::new();
        for (set, _, is_named) in self.sets.drain(..) {
            if is_named { sets.put(set) } else { drop(sets.add(set)) }
        }
        for ((url, version), reason) in self.refused.drain(..) {
            sets.refuse(url, version, reason);
        }
        sets
    }
}

/// A value set that is missing stands for no code, when the caller wants it so.
fn add_missing(sets: &mut ValueSets, measure: &mut Measure) {
    let rows: Vec<(String, Option<String>)> = measure
        .program()
        .tree()
        .value_sets
        .iter()
        .map(|row| (row.id.to_string(), row.version.as_ref().map(|version| version.to_string())))
        .collect();
    let sets = measure.own_sets_mut().unwrap_or(sets);
    for (id, version) in rows {
        if sets.find(&id, version.as_deref()).is_none() {
            let mut empty = ValueSet::new(&id);
            empty.version = version.map(Arc::from);
            sets.add(empty);
        }
    }
}

/// Every measure folder at or below a path, sorted.
pub fn find(path: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let mut found = Vec::new();
    let mut open = vec![(path.to_owned(), 0)];
    let mut misnamed = None;
    while let Some((folder, depth)) = open.pop() {
        misnamed = misnamed.or_else(|| Some(folder.join("measure.yml")).filter(|file| file.is_file()));
        if folder.join("measure.yaml").is_file() || folder.file_name().is_some_and(|name| name == "measure.yaml") {
            found.push(folder);
        } else if folder.is_dir() && depth <= LEVELS_MAX {
            let fault = |error: std::io::Error| Diagnostic::error(format!("`{}` cannot be read: {error}", folder.display()));
            for entry in std::fs::read_dir(&folder).map_err(fault)?.take(FILES_MAX) {
                let entry = entry.map_err(fault)?.path();
                if entry.is_dir() {
                    open.push((entry, depth + 1));
                }
            }
        }
    }
    if found.is_empty() {
        let help = misnamed.map_or_else(|| "name a measure folder".to_owned(), |file| format!("there is `{}`: name it `measure.yaml`", shown(&file)));
        return Err(Diagnostic::error(format!("there is no `measure.yaml` at or below `{}`", path.display())).help(help));
    }
    found.sort();
    Ok(found)
}

/// The cases of one measure, run.
#[derive(Debug, Default)]
pub struct Tested {
    /// Each case with its mismatches; none when it passed.
    pub cases: Vec<(Case, Vec<Mismatch>)>,
    /// What the cases have seen.
    pub coverage: Coverage,
    /// Another system counts it: there is nothing to test.
    pub is_counted_elsewhere: bool,
}

/// The test patients beside a measure, and what is wrong with them.
pub fn cases(folder: &Folder, measure: &Measure) -> (Vec<Case>, Vec<Diagnostic>) {
    if let (true, Some(first)) = (measure.definition.is_counted_elsewhere(), folder.cases.first()) {
        let message = format!("a test patient of `{}`, which is counted elsewhere: there is no logic to test", measure.definition.id.value);
        let finding = Diagnostic::error(message).at(Location::new(first, Span::default()));
        return (Vec::new(), vec![finding.help("remove the folder `cases`; or remove `counted: elsewhere`, if the measure is computed here")]);
    }
    let (cases, found): (Vec<_>, Vec<_>) = folder.cases.iter().map(|source| case::parse(source, measure)).unzip();
    (cases.into_iter().flatten().collect(), found.into_iter().flatten().collect())
}

/// Runs the cases of a folder, whose components are among `all`; `None` when measure or cases are wrong.
pub fn test(folder: &Folder, all: &[Folder], zone: &jiff::tz::TimeZone) -> (Option<Tested>, Vec<Diagnostic>) {
    let folders = &together(folder, all);
    let (loaded, mut found) = compile(folders, &[], &Choices::default());
    let Some(loaded) = loaded else { return (None, found) };
    let Some(measure) = loaded.measures.first() else { return (None, found) };
    let setting = setting(&loaded, zone, CASES_NOW);
    let mut tested = Tested { is_counted_elsewhere: measure.definition.is_counted_elsewhere(), ..Tested::default() };
    let (cases, more) = cases(folder, measure);
    found.extend(more);
    for case in cases {
        let mismatches = if case.parameters.is_empty() {
            case::run(&case, measure, &setting, &mut tested.coverage)
        } else {
            let choices = Choices { parameters: case.parameters.clone(), ..Choices::default() };
            let (other, more) = compile(folders, &[], &choices);
            let Some(other) = other.as_ref().and_then(|other| other.measures.first()) else {
                found.extend(more);
                continue;
            };
            case::run(&case, other, &setting, &mut tested.coverage)
        };
        tested.cases.push((case, mismatches));
    }
    found.extend(tested.coverage.misnamed(measure, &folder.files.definition));
    let failed = crate::diagnostic::has_errors(&found);
    ((!failed).then_some(tested), found)
}

/// `Now()` of test patients: after every period that a case expects something of.
const CASES_NOW: jiff::Timestamp = jiff::Timestamp::MAX;

/// What an evaluation depends on beside measure, record and period.
pub fn setting(loaded: &Loaded, zone: &jiff::tz::TimeZone, now: jiff::Timestamp) -> Setting {
    Setting { now: DateTime::from_timestamp(now, zone), zone: zone.clone(), value_sets: Arc::clone(&loaded.value_sets), units: Arc::new(Units::new()) }
}

/// Files of a folder by extension, sorted by name; none when there is no such folder.
fn texts(folder: &Path, extensions: &[&str]) -> Result<Vec<Arc<SourceFile>>, Diagnostic> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let fault = |error: std::io::Error| Diagnostic::error(format!("`{}` cannot be read: {error}", folder.display()));
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fault)?.take(FILES_MAX) {
        let path = entry.map_err(fault)?.path();
        let known = path.extension().and_then(|end| end.to_str()).is_some_and(|end| extensions.contains(&end));
        if known && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| text(path)).collect()
}

fn text(path: &Path) -> Result<Arc<SourceFile>, Diagnostic> {
    let fault = |error: String| Diagnostic::error(format!("`{}` cannot be read: {error}", path.display()));
    let file = crate::source::folder::open(path).map_err(|error| fault(error.reason))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| fault(error.to_string()))?;
    let name = shown(path);
    match foreign(&name, &bytes, Expected::Definition) {
        Some(finding) => Err(finding),
        None => Ok(SourceFile::new(name.clone(), crate::diagnostic::utf8(&name, bytes)?)),
    }
}

/// The path as a person would type it from here.
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let near = here.as_deref().and_then(|here| path.strip_prefix(here).ok());
    near.unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_measures_compile() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures");
        let paths = ["ibd/remission", "hac/clabsi", "perinatal/early-elective-delivery"].map(|name| root.join(name));
        let (loaded, found) = load(&paths, &[], &Choices::default());
        assert_eq!(crate::diagnostic::render_human(&found, false), "");
        assert_eq!(loaded.unwrap().measures.len(), 3);
    }

    #[test]
    fn value_sets_that_are_named_come_alone_in_folders_and_in_bundles_and_take_precedence() {
        let scratch = tempfile::tempdir().unwrap();
        let set = |url: &str, code: &str| format!(r#"{{"resourceType":"ValueSet","url":"{url}","expansion":{{"contains":[{{"system":"http://example.org","code":"{code}"}}]}}}}"#);
        let colectomy = "http://watershed.example/fhir/ValueSet/total-colectomy";
        let bundle = format!(r#"{{"resourceType":"Bundle","entry":[{{"resource":{}}},{{"resource":{{"resourceType":"Basic"}}}}]}}"#, set(colectomy, "mine"));
        std::fs::create_dir_all(scratch.path().join("below/it")).unwrap();
        std::fs::write(scratch.path().join("below/it/bundle.json"), bundle).unwrap();
        std::fs::write(scratch.path().join("below/alone.json"), set("http://example.org/alone", "own")).unwrap();
        let measure = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures/ibd/remission");
        let (loaded, found) = load(&[measure], &[scratch.path().join("below")], &Choices::default());
        assert_eq!(crate::diagnostic::render_human(&found, false), "");
        let sets = loaded.unwrap().value_sets;
        let holds = |url: &str, code: &str| sets.find(url, None).unwrap().contains("http://example.org", code);
        assert!(holds(colectomy, "mine") && holds("http://example.org/alone", "own"));
        std::fs::write(scratch.path().join("none.json"), r#"{"resourceType":"Bundle","entry":[]}"#).unwrap();
        let (_, found) = load(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures/ibd/remission")], &[scratch.path().join("none.json")], &Choices::default());
        assert!(crate::diagnostic::has_errors(&found), "a Bundle without value sets");
    }
}
