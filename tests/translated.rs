//! ELM of the published measures: what we write of their CQL, and what the reference translator makes of it. Each gives
//! the populations that the CQL gives, case by case.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use jiff::tz::TimeZone;
use serde_json::Value;
use watershed::config::measures::{self, Folder, Loaded};
use watershed::cql::parser::parse;
use watershed::cql::typed::{LibraryId, Tree};
use watershed::cql::types::Type;
use watershed::cql::{Program, elm};
use watershed::diagnostic::{Diagnostic, SourceFile, render_human};
use watershed::fhir::record::Record;
use watershed::measure::report::Facts;
use watershed::measure::{Choices, Logic, MissingValueSets, Period};
use watershed::source::folder;

use crate::all;

/// When the cases are evaluated: `Now()` is after every measurement period.
const NOW: &str = "2027-01-01T00:00:00Z";
/// The measures whose own ELM every test run reads back; `WATERSHED_ALL=1` takes all.
const SOME: [&str; 6] = ["CMS122", "CMS506", "CMS1017", "CMS816", "CMS347", "CMS871"];
/// So many cases of a measure in a test run that is not of all.
const CASES_MAX: usize = 12;

/// How our ELM differs from the reference translator's: `more|fewer Node: reason`, `type Ours instead of Theirs: reason`.
const DIFFERENCES: &str = include_str!("translated_differences.txt");
/// Nodes whose text counts beside their kind.
const TEXTS: [&str; 7] = ["name", "path", "precision", "dataType", "codeProperty", "codeComparator", "value"];

/// The reports of each case, as text, or the fault.
type Reports = BTreeMap<String, Vec<String>>;

fn open(folder: &Path) -> Folder {
    let (mut folders, _) = measures::open(&folder.join("measure.json.gz")).unwrap_or_else(|fault| panic!("{fault:?}"));
    folders.remove(0)
}

fn load(folder: &Folder, logic: Logic) -> Result<Loaded, String> {
    let choices = Choices { missing_value_sets: MissingValueSets::Warn, logic, ..Choices::default() };
    let (loaded, found) = measures::compile(std::slice::from_ref(folder), &[], &choices);
    let errors: Vec<_> = found.into_iter().filter(Diagnostic::is_error).collect();
    loaded.ok_or_else(|| render_human(&errors, false))
}

/// The folder with this ELM, the measure's own library first, in place of the published.
fn with_elm(mut folder: Folder, documents: Vec<Arc<SourceFile>>) -> Folder {
    folder.files.elm = documents;
    folder
}

/// All libraries of a program as we write them, the root first.
fn written(program: &Program) -> Result<Vec<Arc<SourceFile>>, String> {
    let tree = program.tree();
    let root = program.roots()[0];
    let others = (0..).take(tree.libraries.len()).map(LibraryId).filter(|id| *id != root);
    std::iter::once(root)
        .chain(others)
        .map(|id| {
            let (json, found) = elm::write(tree, id);
            if found.is_empty() { Ok(SourceFile::new(format!("{}.json", tree.libraries[id.index()].name), json.to_string())) } else { Err(render_human(&found, false)) }
        })
        .collect()
}

fn reports(path: &Path, loaded: &Loaded, most: usize) -> Reports {
    let measure = &loaded.measures[0];
    let setting = measures::setting(loaded, &TimeZone::UTC, NOW.parse().unwrap());
    let file = path.join("cases.ndjson.gz");
    let mut reports = Reports::new();
    if !file.is_file() {
        return reports;
    }
    for line in folder::open(&file).unwrap().lines().take(most) {
        let case: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let lines: Vec<Vec<u8>> = case["resources"].as_array().unwrap().iter().map(|resource| resource.to_string().into_bytes()).collect();
        let (record, _) = Record::read(measure.program().shape(), lines.iter().map(Vec::as_slice));
        let of_period = |expected: &Value| {
            let day = |name: &str| expected["period"][name].as_str().unwrap()[..10].to_owned();
            let period = Period::parse(&format!("{}/{}", day("start"), day("end"))).unwrap();
            match &measure.over(&[period], &setting).evaluate(&record)[0] {
                Ok(result) => {
                    let facts = Facts::default();
                    let reporter = measure.reporter(period, &facts);
                    reporter.individual("p", result)["group"].to_string()
                }
                Err(error) => format!("error: {error}"),
            }
        };
        reports.insert(case["case"].as_str().unwrap().to_owned(), case["expected"].as_array().unwrap().iter().map(of_period).collect());
    }
    reports
}

/// Runs a job for each measure of both publications, on as many threads as there are cores; what the jobs found wrong.
fn each(wanted: impl Fn(&str) -> bool, job: impl Fn(&str, &Path) -> Vec<String> + Sync) -> Option<(usize, Vec<String>)> {
    let mut queue: Vec<(&str, PathBuf)> = Vec::new();
    for publication in ["cms-ecqm-2024", "cms-dqm-2025"] {
        let root = crate::shared::yardstick(publication)?;
        let paths = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
        queue.extend(paths.filter(|path| path.is_dir() && wanted(&path.display().to_string())).map(|path| (publication, path)));
    }
    queue.sort();
    let count = queue.len();
    let (queue, faults) = (Mutex::new(queue), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().pop();
                    let Some((publication, path)) = next else { break };
                    let found = job(publication, &path);
                    faults.lock().unwrap().extend(found);
                }
            });
        }
    });
    let mut faults = faults.into_inner().unwrap();
    faults.sort();
    Some((count, faults))
}

/// What differs between two forms of a measure.
fn differences(name: &str, wanted: &Reports, found: &Reports) -> Vec<String> {
    wanted
        .iter()
        .filter(|(case, reports)| found.get(*case) != Some(*reports))
        .map(|(case, reports)| format!("{name} {case}: {reports:?}, from ELM {:?}", found.get(case)))
        .collect()
}

#[test]
fn our_elm_of_the_published_measures_gives_the_same_populations() {
    let only = std::env::var("WATERSHED_ONLY").ok();
    let wanted = |name: &str| match &only {
        Some(only) => name.contains(only),
        None => all() || SOME.iter().any(|some| name.contains(some)),
    };
    let compared = Mutex::new(0);
    let job = |publication: &str, path: &Path| {
        let name = format!("{publication} {}", path.file_name().unwrap().to_string_lossy());
        let run = || -> Result<Vec<String>, String> {
            let loaded = load(&open(path), Logic::Cql)?;
            let folder = with_elm(open(path), written(loaded.measures[0].program())?);
            let read = load(&folder, Logic::Elm)?;
            let most = if all() { usize::MAX } else { CASES_MAX };
            let (own, again) = (reports(path, &loaded, most), reports(path, &read, most));
            *compared.lock().unwrap() += own.len();
            Ok(differences(&name, &own, &again))
        };
        run().unwrap_or_else(|fault| vec![format!("{name}: {fault}")])
    };
    let Some((measures, faults)) = each(wanted, job) else { return };
    let compared = compared.into_inner().unwrap();
    crate::figures::say(&format!("our ELM of {measures} published measures: {compared} cases, {} differences from CQL text (0 as expected)", faults.len()));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(measures > 0 && compared > 0);
}

/// A library by the last part of its name, and its version.
type Key = (String, String);

fn key(name: &str, version: Option<&str>) -> Key {
    (name.rsplit('.').next().unwrap_or(name).to_owned(), version.unwrap_or_default().to_owned())
}

/// The CQL of a publication's libraries translated by npm's `@cqframework/cql`, which `packages` holds.
fn translate(publication: &str, packages: &Path, work: &Path) -> Result<BTreeMap<Key, Arc<SourceFile>>, String> {
    let (cql, out) = (work.join(publication).join("cql"), work.join(publication).join("elm"));
    std::fs::create_dir_all(&cql).unwrap();
    let mut names = BTreeMap::new();
    let root = crate::shared::yardstick(publication).ok_or("no publication")?;
    for path in std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let files = open(&path).files;
        for text in files.cql.iter().chain(&files.libraries) {
            let Some((name, version)) = parse(text).0.name else { continue };
            let key = key(&name.text(), version.as_ref().map(|version| &*version.text));
            std::fs::write(cql.join(format!("{}-{}.cql", key.0, key.1)), &text.text).unwrap();
            names.insert(format!("{}-{}.json", key.0, key.1), key);
        }
    }
    let shared = root.join("../..");
    let script = packages.join("translate_cql.mjs");
    std::fs::copy(shared.join("tools/translate_cql.mjs"), &script).map_err(|fault| format!("tools/translate_cql.mjs: {fault}"))?;
    let mut node = Command::new("node");
    node.arg(&script).arg(&cql).arg(&out).args(["EnableResultTypes", "DisableListDemotion", "DisableListPromotion"]);
    let run = node
        .env("MODELDIRS", shared.join("conformance/modelinfo"))
        .stderr(Stdio::piped())
        .output()
        .map_err(|fault| fault.to_string())?;
    let text = |(name, key): (String, Key)| match std::fs::read_to_string(out.join(&name)) {
        Ok(text) => Ok((key, SourceFile::new(name, text))),
        Err(fault) => Err(format!("{name}: {fault}; {}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr))),
    };
    names.into_iter().map(text).collect()
}

/// A type by its name in FHIR, as the translator names those of derived models.
fn of_ours(tree: &Tree, ty: &Type) -> String {
    let inner = |ty: &Type| of_ours(tree, ty);
    match ty {
        Type::Class(name) => {
            let row = tree.classes.iter().find(|class| class.name == *name);
            row.and_then(|class| class.instance_of.as_deref()).unwrap_or(name).to_owned()
        }
        Type::List(element) => format!("List<{}>", inner(element)),
        Type::Interval(point) => format!("Interval<{}>", inner(point)),
        Type::Tuple(elements) => in_order("Tuple", elements.iter().map(|(name, ty)| format!("{name} {}", inner(ty)))),
        Type::Choice(types) => in_order("Choice", types.iter().map(inner)),
        simple => simple.to_string(),
    }
}

fn in_order(what: &str, parts: impl Iterator<Item = String>) -> String {
    let parts: BTreeSet<String> = parts.collect();
    format!("{what}<{}>", parts.into_iter().collect::<Vec<_>>().join(", "))
}

fn named(name: &str) -> String {
    name.replace("{http://hl7.org/fhir}", "FHIR.").replace("{urn:hl7-org:elm-types:r1}", "")
}

fn of_theirs(specifier: &Value) -> String {
    let part = |name: &str| of_theirs(&specifier[name]);
    match specifier["type"].as_str().unwrap_or_default() {
        "ListTypeSpecifier" => format!("List<{}>", part("elementType")),
        "IntervalTypeSpecifier" => format!("Interval<{}>", part("pointType")),
        "TupleTypeSpecifier" => {
            in_order("Tuple", items(&specifier["element"]).map(|element| format!("{} {}", element["name"].as_str().unwrap_or("?"), of_theirs(&element["elementType"]))))
        }
        "ChoiceTypeSpecifier" => in_order("Choice", items(&specifier["choice"]).map(of_theirs)),
        _ => named(specifier["name"].as_str().unwrap_or("?")),
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The nodes of an expression: kind and texts, and how often.
fn nodes(node: &Value, found: &mut BTreeMap<(String, String), i64>) {
    match node {
        Value::Object(fields) => {
            if let Some(kind) = fields.get("type").and_then(Value::as_str) {
                if kind.ends_with("TypeSpecifier") {
                    return;
                }
                let texts = TEXTS.iter().filter_map(|name| Some(format!("{name}={}", fields.get(*name)?.as_str()?))).collect::<Vec<_>>().join(" ");
                *found.entry((kind.to_owned(), texts)).or_default() += 1;
            }
            fields
                .iter()
                .filter(|(name, _)| !["annotation", "signature"].contains(&name.as_str()))
                .for_each(|(_, value)| nodes(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| nodes(value, found)),
        _ => {}
    }
}

/// A definition's name; of a function with the types of its operands.
fn title(statement: &Value) -> String {
    let operand = |operand: &Value| match operand.get("operandTypeSpecifier") {
        Some(specifier) => of_theirs(specifier),
        None => named(operand["operandType"].as_str().unwrap_or("?")),
    };
    let name = statement["name"].as_str().unwrap_or("?");
    if statement["type"] == "FunctionDef" { format!("{name}({})", items(&statement["operand"]).map(operand).collect::<Vec<_>>().join(", ")) } else { name.to_owned() }
}

/// The names of the elements of a type's tuples, each as often as it stands there.
fn elements(ty: &str) -> Vec<&str> {
    ty.split(['<', ',']).filter_map(|part| part.trim().split_once(' ')).map(|(name, _)| name).collect()
}

/// The category of two types that differ.
fn type_difference(own: &str, theirs: &str) -> String {
    let by_class = |ty: &str| ty.contains("FHIR.NotDoneRecorded") || ty.contains("FHIR.DoNotPerformReason");
    let category = match theirs {
        _ if theirs.replace("Any", "") == "List<List<>>" && own.starts_with("List<List<Choice<") => "of every element instead of Any",
        _ if by_class(theirs) && !by_class(own) => "without NotDoneRecorded, DoNotPerformReason",
        _ if theirs.starts_with("List<Choice<Tuple<") && own.starts_with("List<Tuple<") => "of one alternative instead of several",
        _ if theirs.replace("FHIR.ObservationStatus", "String") == own => "of a profile's element as data have it",
        _ if elements(theirs).len() > elements(own).len() => "of a tuple that names an element twice",
        _ => return format!("type {own} instead of {theirs}"),
    };
    format!("type {category}")
}

/// What was compared, and the categories of the differences, each with how many definitions have it and one of them.
#[derive(Default)]
struct Comparison {
    seen: BTreeSet<(String, Key)>,
    definitions: usize,
    same: usize,
    categories: BTreeMap<String, (usize, String)>,
    faults: Vec<String>,
}

impl Comparison {
    fn differs(&mut self, category: String, example: &str) {
        self.categories.entry(category).or_insert_with(|| (0, example.to_owned())).0 += 1;
    }

    /// Our ELM of a library against the translator's, definition by definition.
    fn library(&mut self, name: &str, tree: &Tree, id: LibraryId, reference: &Value) {
        let (own, _) = elm::write(tree, id);
        let statements = |document: &Value| -> BTreeMap<String, Value> { items(&document["library"]["statements"]["def"]).map(|row| (title(row), row.clone())).collect() };
        let (own, theirs) = (statements(&own), statements(reference));
        let types: BTreeMap<&str, &Type> = tree.defines.iter().filter(|define| define.library == id).map(|define| (&*define.name, &define.body.ty)).collect();
        for title in own.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let example = format!("{name}, {title}");
            let (Some(own), Some(theirs)) = (own.get(title), theirs.get(title)) else {
                self.faults.push(format!("{example}: only one of the two has it"));
                continue;
            };
            self.definitions += 1;
            let mut counts = BTreeMap::new();
            nodes(&own["expression"], &mut counts);
            let mut others = BTreeMap::new();
            nodes(&theirs["expression"], &mut others);
            for (node, count) in others {
                *counts.entry(node).or_default() -= count;
            }
            let mut kinds: BTreeMap<String, i64> = BTreeMap::new();
            for ((kind, _), count) in counts {
                let word = if count > 0 { "more" } else { "fewer" };
                *kinds.entry(format!("{word} {kind}")).or_default() += count;
            }
            kinds.retain(|_, count| *count != 0);
            self.same += usize::from(kinds.is_empty());
            kinds.into_keys().for_each(|category| self.differs(category, &example));
            let Some(own) = types.get(title.as_str()).map(|ty| of_ours(tree, ty)) else { continue };
            let theirs = theirs
                .get("resultTypeSpecifier")
                .map(of_theirs)
                .or_else(|| theirs["resultTypeName"].as_str().map(named))
                .unwrap_or_default();
            if own != theirs {
                self.differs(type_difference(&own, &theirs), &example);
            }
        }
    }
}

/// The reference translator's ELM of every published library gives the populations that the CQL gives (as ours does, by the test
/// above), and differs from ours only as is listed. `.ci/run` installs the translator and sets `WATERSHED_INTEROP_TRANSLATOR` to its folder.
#[test]
fn the_reference_translator_says_the_same() {
    let Some(packages) = std::env::var("WATERSHED_INTEROP_TRANSLATOR").ok().map(PathBuf::from) else {
        crate::figures::say("skipped: WATERSHED_INTEROP_TRANSLATOR is not set (a folder with npm's @cqframework/cql 5.3.0 and @lhncbc/ucum-lhc)");
        return;
    };
    if crate::shared::yardstick("cms-dqm-2025").is_none() {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let translated: BTreeMap<&str, BTreeMap<Key, Arc<SourceFile>>> = std::thread::scope(|scope| {
        let jobs = ["cms-ecqm-2024", "cms-dqm-2025"].map(|publication| (publication, scope.spawn(|| translate(publication, &packages, work.path()).unwrap())));
        jobs.into_iter().map(|(publication, job)| (publication, job.join().unwrap())).collect()
    });
    let libraries: usize = translated.values().map(BTreeMap::len).sum();
    let comparison = Mutex::new(Comparison::default());
    let compared = Mutex::new(0);
    let job = |publication: &str, path: &Path| {
        let name = format!("{publication} {}", path.file_name().unwrap().to_string_lossy());
        let run = || -> Result<Vec<String>, String> {
            let loaded = load(&open(path), Logic::Cql)?;
            let program = loaded.measures[0].program();
            let tree = program.tree();
            let root = program.roots()[0];
            let others = (0..).take(tree.libraries.len()).map(LibraryId).filter(|id| *id != root);
            let mut documents = Vec::new();
            for id in std::iter::once(root).chain(others) {
                let row = &tree.libraries[id.index()];
                let key = key(&row.name, row.version.as_deref());
                let text = translated[publication].get(&key).ok_or_else(|| format!("no translation of {key:?}"))?;
                documents.push(text.clone());
                let mut comparison = comparison.lock().unwrap();
                if comparison.seen.insert((publication.to_owned(), key.clone())) {
                    let reference = serde_json::from_str(&text.text).map_err(|fault| fault.to_string())?;
                    comparison.library(&format!("{publication} {}", key.0), tree, id, &reference);
                }
            }
            let read = load(&with_elm(open(path), documents), Logic::Elm)?;
            let own = reports(path, &loaded, usize::MAX);
            *compared.lock().unwrap() += own.len();
            Ok(differences(&name, &own, &reports(path, &read, usize::MAX)))
        };
        run().unwrap_or_else(|fault| vec![format!("{name}: {fault}")])
    };
    let only = std::env::var("WATERSHED_ONLY").unwrap_or_default();
    let (measures, mut faults) = each(|name| name.contains(&only), job).unwrap();
    let compared = compared.into_inner().unwrap();
    crate::figures::say(&format!(
        "{measures} published measures from the reference translator's ELM: {compared} cases, {} differences from CQL text (0 as expected)",
        faults.len()
    ));
    let comparison = comparison.into_inner().unwrap();
    crate::figures::say(&format!(
        "{} of {} definitions in {libraries} libraries as expected, node for node as the reference translator writes them",
        comparison.same, comparison.definitions
    ));
    faults.extend(comparison.faults);
    let listed: BTreeMap<&str, &str> = DIFFERENCES.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": ")).collect();
    for (category, (count, example)) in &comparison.categories {
        println!("  {count} {category}: {}", listed.get(category.as_str()).copied().unwrap_or("NOT LISTED"));
        if !listed.contains_key(category.as_str()) {
            faults.push(format!("`{category}` is a new difference: {count} definitions, such as {example}"));
        }
    }
    let gone = listed.keys().filter(|category| only.is_empty() && !comparison.categories.contains_key(**category));
    faults.extend(gone.map(|category| format!("`{category}` is listed, and nothing differs so")));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
