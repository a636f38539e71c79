//! `watershed cql`: the bare language. Check a library, evaluate its defines, write it as ELM.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args as ClapArgs, Subcommand};
use jiff::tz::TimeZone;
use serde_json::{Map, Value as Json};

use super::{Context, Ending, Failure, Format, print, print_json, report};
use crate::config::foreign::{Expected, foreign};
use crate::config::measures;
use crate::cql::typed::{LibraryId, Parameter};
use crate::cql::types::Type;
use crate::cql::value::{DateTime, Value};
use crate::cql::{DefineId, Environment, EvaluationError, Libraries, Models, Program, Session, compile, elm, given, show};
use crate::diagnostic::{Diagnostic, SourceFile, counted, has_errors, nearest, render_human, utf8};
use crate::fhir::record::{Record, Shape};
use crate::terminology::units::Units;

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Where the shared libraries of a project are, seen from where the command runs.
const LIBRARIES_FOLDER: &str = "mappings/libraries";

/// The bare language: check a library, evaluate its defines
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Every fault of the libraries, with its place and what was expected
    Check {
        /// CQL files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Folders with libraries to include, beside the files' own and `libraries` there or above
        #[arg(long, value_name = "DIR")]
        library: Vec<PathBuf>,
        /// A list of one and its item convert into each other, as FHIRPath reads collections
        #[arg(long)]
        fhirpath_lists: bool,
    },
    /// The value of every define
    Run(RunArgs),
    /// The library as ELM JSON, for other engines; each library it includes is written by a command of its own
    Elm {
        /// A CQL file
        file: PathBuf,
        /// Folders with libraries to include, beside the file's own and `libraries` there or above
        #[arg(long, value_name = "DIR")]
        library: Vec<PathBuf>,
        /// A list of one and its item convert into each other, as FHIRPath reads collections
        #[arg(long)]
        fhirpath_lists: bool,
    },
}

/// Evaluate the defines of a library
#[derive(Debug, ClapArgs)]
struct RunArgs {
    /// A CQL file
    file: PathBuf,
    /// Folders with libraries to include, beside the file's own and `libraries` there or above
    #[arg(long, value_name = "DIR")]
    library: Vec<PathBuf>,
    /// A list of one and its item convert into each other, as FHIRPath reads collections
    #[arg(long)]
    fhirpath_lists: bool,
    /// One patient's resources: NDJSON, a Bundle or a resource
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Value sets: a file, a Bundle, or a folder with all that is below it
    #[arg(long, value_name = "PATH")]
    valuesets: Vec<PathBuf>,
    /// A parameter's value, written in CQL
    #[arg(long, value_name = "NAME=VALUE")]
    parameter: Vec<String>,
    /// Only this define
    #[arg(long, value_name = "NAME")]
    define: Vec<String>,
    /// The zone of dates without an offset
    #[arg(long, default_value = "UTC")]
    timezone: String,
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> Result<Ending, Failure> {
    match args.what {
        What::Check { files, library, fhirpath_lists } => {
            let roots = files.iter().map(|file| source(file)).collect::<Result<Vec<_>, _>>()?;
            let (_, mut findings) = compile(&roots, &libraries(&files, &library, fhirpath_lists)?, &Models::default());
            let empty = roots.iter().filter(|root| root.text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}').is_empty());
            findings.extend(empty.map(|root| Diagnostic::warning(format!("`{}` is empty", root.name)).help("begin with `library NAME version '1.0.0'`")));
            let ending = report(&findings, context);
            if context.format == Format::Human && ending == Ending::Fine {
                let are = if files.len() == 1 { "is" } else { "are" };
                print(&format!("{} {are} well formed", counted(files.len(), "file")));
            }
            Ok(ending)
        }
        What::Run(args) => evaluate(&args, context),
        What::Elm { file, library, fhirpath_lists } => write_elm(&file, &library, fhirpath_lists, context),
    }
}

fn evaluate(args: &RunArgs, context: &Context) -> Result<Ending, Failure> {
    let root = source(&args.file)?;
    let libraries = libraries(std::slice::from_ref(&args.file), &args.library, args.fhirpath_lists)?;
    let (program, findings) = compile(&[root], &libraries, &Models::default());
    let Some(program) = program else { return Err(Failure::findings(&findings, context)) };
    let record = match &args.data {
        Some(file) => record(file)?,
        None => Record::read(&Shape::everything(), std::iter::empty()).0,
    };
    let environment = environment(args, &program, context)?;
    let mut session = Session::new(&program, &environment, &record);
    let mut values: Map<String, Json> = Map::new();
    let mut lines = String::new();
    let mut failed: Vec<(&str, EvaluationError)> = Vec::new();
    for (define, name) in wanted(args, &program)? {
        match session.evaluate(define) {
            Ok(value) => {
                lines.push_str(&format!("{name}: {}\n", show::text(&value, &record)));
                values.insert(name.to_owned(), show::json(&value, &record));
            }
            Err(fault) => failed.push((name, fault)),
        }
    }
    match context.format {
        Format::Json => print_json(&Json::Object(values)),
        Format::Human if lines.is_empty() => {}
        Format::Human => print(&lines),
    }
    if failed.is_empty() {
        return Ok(Ending::Fine);
    }
    let _ = writeln!(std::io::stderr(), "{}", Failure::findings(&told(&failed), context).message);
    Ok(Ending::Findings)
}

/// The defines that are asked for: all but the implicit patient, which is the data and no result, or those that are named.
fn wanted<'p>(args: &RunArgs, program: &'p Program) -> Result<Vec<(DefineId, &'p str)>, Failure> {
    let library = root_library(program).and_then(|id| program.tree().libraries.get(id.index()));
    let mut defines = program.defines(library.map_or("", |library| &library.name));
    for name in &args.define {
        if !defines.iter().any(|(_, known)| known == name) {
            let failure = Failure::usage(format!("`{}` has no define `{name}`", args.file.display()));
            return Err(with_nearest(failure, name, defines.iter().map(|(_, known)| *known)));
        }
    }
    let is_wanted = |name: &str| if args.define.is_empty() { name != "Patient" } else { args.define.iter().any(|wanted| wanted == name) };
    defines.retain(|(_, name)| is_wanted(name));
    Ok(defines)
}

/// Each fault once, with the defines that have no value because of it.
fn told(failed: &[(&str, EvaluationError)]) -> Vec<Diagnostic> {
    // The first of the failed defines that the fault came by on its way out.
    let origin = |(name, fault): &(&str, EvaluationError)| failed.iter().map(|(other, _)| *other).find(|other| other != name && fault.within.iter().any(|passed| passed == other));
    let own = failed.iter().filter(|one| origin(one).is_none());
    own.map(|(name, fault)| {
        let followers: Vec<String> = failed.iter().filter(|one| origin(one) == Some(name)).map(|(other, _)| format!("`{other}`")).collect();
        let mut diagnostic = fault.diagnostic();
        if !followers.is_empty() {
            let help = format!("{}; {} without a value because of it", diagnostic.help.unwrap_or_default(), followers.join(", "));
            diagnostic.help = Some(help);
        }
        diagnostic
    })
    .collect()
}

fn root_library(program: &Program) -> Option<LibraryId> {
    program.roots().first().copied()
}

fn with_nearest<'a>(failure: Failure, name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    match nearest(name, known) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure,
    }
}

fn write_elm(file: &Path, folders: &[PathBuf], fhirpath_lists: bool, context: &Context) -> Result<Ending, Failure> {
    let libraries = libraries(&[file.to_owned()], folders, fhirpath_lists)?;
    let (program, findings) = compile(&[source(file)?], &libraries, &Models::default());
    let Some(program) = program else { return Err(Failure::findings(&findings, context)) };
    let Some(root) = root_library(&program) else { return Err(Failure::findings(&findings, context)) };
    let (document, findings) = elm::write(program.tree(), root);
    if has_errors(&findings) {
        return Err(Failure::findings(&findings, context));
    }
    print_json(&document);
    Ok(Ending::Fine)
}

fn read_text(path: &Path) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| Failure::configuration(format!("cannot read `{}`: {error}", path.display()));
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        return Err(Failure::configuration(format!("`{}` has {size} bytes; at most {FILE_BYTES_MAX} are read", path.display())));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    if let Some(finding) = foreign(&path.display().to_string(), &bytes, Expected::Definition) {
        return Err(Failure::diagnostics(&[finding]));
    }
    utf8(&path.display().to_string(), bytes).map_err(|finding| Failure::diagnostics(&[finding]))
}

fn source(path: &Path) -> Result<Arc<SourceFile>, Failure> {
    Ok(SourceFile::new(path.display().to_string(), read_text(path)?))
}

/// The libraries beside the files, in the given folders, in folders `libraries` there or above as for a measure, and in the project's.
fn libraries(files: &[PathBuf], folders: &[PathBuf], fhirpath_lists: bool) -> Result<Libraries, Failure> {
    let own = |parent: &Path| if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() };
    let beside: Vec<PathBuf> = files.iter().filter_map(|file| file.parent()).map(own).collect();
    let shared = beside.iter().flat_map(|folder| measures::library_folders(folder));
    let project = std::path::absolute(LIBRARIES_FOLDER).into_iter().filter(|folder| folder.is_dir());
    let mut seen = BTreeSet::new();
    let all = beside.iter().chain(folders).cloned().chain(shared).chain(project).filter(|folder| seen.insert(folder.clone()));
    let remedy = "put its `.cql` file beside this one or into a folder `libraries` there or above it, or name its folder with --library";
    let libraries = Libraries::default().with_remedy(remedy);
    let mut libraries = if fhirpath_lists { libraries.with_singletons() } else { libraries };
    for folder in all.collect::<Vec<_>>() {
        let entries = std::fs::read_dir(&folder).map_err(|error| Failure::configuration(format!("cannot read `{}`: {error}", folder.display())))?;
        let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "cql")) {
            match source(&path) {
                Ok(text) => libraries.add(&text),
                // A neighbour that nobody may ever include is no reason to refuse this file.
                Err(fault) => {
                    let _ = writeln!(std::io::stderr(), "warning: `{}` is left out: {}", path.display(), fault.message.lines().next().unwrap_or_default());
                }
            }
        }
    }
    Ok(libraries)
}

fn record(path: &Path) -> Result<Record, Failure> {
    let text = read_text(path)?;
    let lines: Vec<String> = match serde_json::from_str::<Json>(&text) {
        Ok(Json::Object(bundle)) if bundle.get("resourceType").and_then(Json::as_str) == Some("Bundle") => {
            let entries = bundle.get("entry").and_then(Json::as_array).cloned().unwrap_or_default();
            entries.iter().filter_map(|entry| entry.get("resource")).map(Json::to_string).collect()
        }
        Ok(one) => vec![one.to_string()],
        Err(_) => text.lines().map(str::to_owned).collect(),
    };
    // Everything is kept: a define may return a whole resource, which is then shown.
    let (record, bad) = Record::read(&Shape::everything(), lines.iter().map(String::as_bytes).filter(|line| !line.trim_ascii().is_empty()));
    match bad.first() {
        None => Ok(record),
        Some(line) => Err(Failure::configuration(format!("`{}`: line {} is no resource: {}", path.display(), line.index + 1, line.reason))),
    }
}

fn environment(args: &RunArgs, program: &Program, context: &Context) -> Result<Environment, Failure> {
    let zone =
        TimeZone::get(&args.timezone).map_err(|error| Failure::usage(format!("`--timezone {}`: {error}", args.timezone)).hint("write an IANA name such as `America/New_York`"))?;
    let now = DateTime::from_timestamp(jiff::Timestamp::now(), &zone);
    let (value_sets, findings) = measures::named_value_sets(&args.valuesets);
    if has_errors(&findings) {
        return Err(Failure::diagnostics(&findings));
    }
    let _ = write!(std::io::stderr(), "{}", render_human(&findings, context.colour));
    let mut environment = Environment { parameters: BTreeMap::new(), now, zone, value_sets: Arc::new(value_sets), units: Arc::new(Units::new()) };
    for given in &args.parameter {
        let (name, value) = parameter(given, program, &environment)?;
        if environment.parameters.insert(name.clone(), value).is_some() {
            return Err(Failure::usage(format!("the parameter `{name}` is given twice")));
        }
    }
    Ok(environment)
}

/// `NAME=VALUE`, the value being a CQL expression without data, of the type that the parameter is declared with.
fn parameter(given: &str, program: &Program, environment: &Environment) -> Result<(String, Value), Failure> {
    let Some((name, text)) = given.split_once('=') else {
        return Err(Failure::usage(format!("`--parameter {given}` has no `=`")).hint("write `--parameter 'Age Limit Years=21'`"));
    };
    let name = name.trim();
    let expected = declared(name, program)?;
    let value_of = |declaration: &str| {
        let source = SourceFile::new(format!("--parameter {name}"), format!("library P\n{declaration}:\n{text}\n"));
        compile(&[source], &Libraries::default(), &Models::default())
    };
    let (plain, findings) = value_of("define \"Value\"");
    let Some(plain) = plain else { return Err(Failure::diagnostics(&findings)) };
    let Some(define) = plain.define("P", "Value").filter(|_| plain.defines("P").len() == 1 && plain.parameters().is_empty()) else {
        return Err(Failure::usage(format!("`--parameter {given}` is not one CQL expression")));
    };
    // A function that returns the declared type converts to it, as a declared default would be. That a number alone becomes a
    // quantity of unit `1` is seldom meant, and every comparison with it null.
    let found = plain.define_type(define);
    let is_bare = *expected == Type::Quantity && *found != Type::Quantity;
    let (typed, _) = value_of(&format!("define function \"Value\"() returns {expected}"));
    let Some((typed, function)) = typed.as_ref().filter(|_| !is_bare).and_then(|typed| Some((typed, typed.functions("P").first()?.0))) else {
        let message = format!("`--parameter {given}`: this is `{found}`, but the parameter `{name}` is declared as `{expected}`");
        return Err(Failure::usage(message).hint(given::help(expected)));
    };
    let (record, _) = Record::read(&Shape::everything(), std::iter::empty());
    let value = Session::new(typed, environment, &record).call(function, Vec::new());
    let value = value.map_err(|fault| Failure::diagnostics(&[fault.diagnostic()]))?;
    Ok((name.to_owned(), value))
}

/// The type of the parameter of that name, or of that name in a library: `Common.Lookback`.
fn declared<'p>(name: &str, program: &'p Program) -> Result<&'p Type, Failure> {
    let library = |parameter: &Parameter| program.tree().libraries.get(parameter.library.index()).map_or("", |library| &library.name);
    let qualified = |parameter: &Parameter| format!("{}.{}", library(parameter), parameter.name);
    let named: Vec<&Parameter> = program.parameters().iter().filter(|parameter| *parameter.name == *name || qualified(parameter) == name).collect();
    match named.as_slice() {
        [first, others @ ..] => match others.iter().find(|other| other.ty != first.ty) {
            None => Ok(&first.ty),
            Some(other) => {
                let message = format!("the parameter `{name}` is declared as `{}` in one library and as `{}` in another", first.ty, other.ty);
                Err(Failure::usage(message).hint(format!("say which: `{}` or `{}`", qualified(first), qualified(other))))
            }
        },
        [] => {
            let names: Vec<&str> = program.parameters().iter().map(|parameter| &*parameter.name).collect();
            let failure = Failure::usage(format!("nothing here has a parameter `{name}`"));
            let failure = if names.is_empty() { failure.hint("no library here declares a parameter") } else { failure };
            Err(with_nearest(failure, name, names.into_iter()))
        }
    }
}
