//! `watershed cql`: the bare language. Check a library, evaluate its defines, write it as ELM.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args as ClapArgs, Subcommand};
use jiff::tz::TimeZone;
use serde_json::{Map, Value as Json};

use super::{Context, Ending, Failure, Format, print, print_json, report};
use crate::cql::value::{DateTime, Value};
use crate::cql::{Environment, Libraries, Models, Program, Session, compile, elm, show};
use crate::diagnostic::{Diagnostic, SourceFile, has_errors};
use crate::fhir::record::{Record, Shape};
use crate::terminology::units::Units;
use crate::terminology::{ValueSets, read};

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
        /// Folders with libraries to include, beside the files' own and mappings/libraries
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
        /// Folders with libraries to include, beside the file's own and mappings/libraries
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
    /// Folders with libraries to include, beside the file's own and mappings/libraries
    #[arg(long, value_name = "DIR")]
    library: Vec<PathBuf>,
    /// A list of one and its item convert into each other, as FHIRPath reads collections
    #[arg(long)]
    fhirpath_lists: bool,
    /// One patient's resources: NDJSON, a Bundle or a resource
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// ValueSet JSON or YAML
    #[arg(long, value_name = "FILE")]
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
            let (_, findings) = compile(&roots, &libraries(&files, &library, fhirpath_lists)?, &Models::default());
            let ending = report(&findings, context);
            if context.format == Format::Human && ending == Ending::Fine {
                let count = files.len();
                print(&format!("{count} {} well formed", if count == 1 { "file is" } else { "files are" }));
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
        Some(file) => record(&program, file)?,
        None => Record::read(&Shape::everything(), std::iter::empty()).0,
    };
    let environment = environment(args)?;
    let mut session = Session::new(&program, &environment, &record);
    let library = program.roots().first().and_then(|id| program.tree().libraries.get(id.index()));
    let library = library.map(|library| library.name.to_string()).unwrap_or_default();
    let defines = program.defines(&library);
    for name in &args.define {
        if !defines.iter().any(|(_, known)| known == name) {
            let near = crate::diagnostic::nearest(name, defines.iter().map(|(_, known)| *known));
            let failure = Failure::usage(format!("`{}` has no define `{name}`", args.file.display()));
            return Err(near.iter().fold(failure, |failure, near| failure.hint(format!("did you mean `{near}`?"))));
        }
    }
    let mut values: Map<String, Json> = Map::new();
    let mut lines = String::new();
    let mut faults: Vec<Diagnostic> = Vec::new();
    for (define, name) in &defines {
        let wanted = args.define.is_empty() || args.define.iter().any(|wanted| wanted == name);
        // The implicit patient is the data, not a result.
        if !wanted || (*name == "Patient" && args.define.is_empty()) {
            continue;
        }
        match session.evaluate(*define) {
            Ok(value) => {
                lines.push_str(&format!("{name}: {}\n", show::text(&value, &record)));
                values.insert((*name).to_owned(), show::json(&value, &record));
            }
            Err(fault) => faults.push(fault.diagnostic()),
        }
    }
    if !faults.is_empty() {
        return Err(Failure::findings(&faults, context));
    }
    match context.format {
        Format::Json => print_json(&Json::Object(values)),
        Format::Human => print(&lines),
    }
    Ok(Ending::Fine)
}

fn write_elm(file: &Path, folders: &[PathBuf], fhirpath_lists: bool, context: &Context) -> Result<Ending, Failure> {
    let libraries = libraries(&[file.to_owned()], folders, fhirpath_lists)?;
    let (program, findings) = compile(&[source(file)?], &libraries, &Models::default());
    let Some(program) = program else { return Err(Failure::findings(&findings, context)) };
    let Some(root) = program.roots().first() else { return Err(Failure::findings(&findings, context)) };
    let (document, findings) = elm::write(program.tree(), *root);
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
    std::fs::read_to_string(path).map_err(unreadable)
}

fn source(path: &Path) -> Result<Arc<SourceFile>, Failure> {
    Ok(SourceFile::new(path.display().to_string(), read_text(path)?))
}

/// The libraries beside the files, in the given folders and in the project's.
fn libraries(files: &[PathBuf], folders: &[PathBuf], fhirpath_lists: bool) -> Result<Libraries, Failure> {
    let beside = files
        .iter()
        .filter_map(|file| file.parent())
        .map(|parent| if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() });
    let project = Some(PathBuf::from(LIBRARIES_FOLDER)).filter(|folder| folder.is_dir());
    let mut all: Vec<PathBuf> = beside.chain(folders.iter().cloned()).chain(project).collect();
    all.sort();
    all.dedup();
    let mut libraries = if fhirpath_lists { Libraries::default().with_singletons() } else { Libraries::default() };
    for folder in all {
        let entries = std::fs::read_dir(&folder).map_err(|error| Failure::configuration(format!("cannot read `{}`: {error}", folder.display())))?;
        let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "cql")) {
            match source(&path) {
                Ok(text) => libraries.add(&text),
                // A neighbour that nobody may ever include is no reason to refuse this file.
                Err(fault) => {
                    let _ = writeln!(std::io::stderr(), "warning: {}; left out", fault.message);
                }
            }
        }
    }
    Ok(libraries)
}

fn record(program: &Program, path: &Path) -> Result<Record, Failure> {
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
    let _ = program;
    let (record, bad) = Record::read(&Shape::everything(), lines.iter().map(String::as_bytes).filter(|line| !line.trim_ascii().is_empty()));
    match bad.first() {
        None => Ok(record),
        Some(line) => Err(Failure::configuration(format!("`{}`: line {} is no resource: {}", path.display(), line.index + 1, line.reason))),
    }
}

fn environment(args: &RunArgs) -> Result<Environment, Failure> {
    let zone =
        TimeZone::get(&args.timezone).map_err(|error| Failure::usage(format!("`--timezone {}`: {error}", args.timezone)).hint("write an IANA name such as `America/New_York`"))?;
    let now = DateTime::from_timestamp(jiff::Timestamp::now(), &zone);
    let mut value_sets = ValueSets::new();
    for path in &args.valuesets {
        let (set, findings) = read::value_set(&source(path)?);
        match set {
            Some(set) if !has_errors(&findings) => drop(value_sets.add(set)),
            _ => return Err(Failure::diagnostics(&findings)),
        }
    }
    let mut environment = Environment { parameters: BTreeMap::new(), now, zone, value_sets: Arc::new(value_sets), units: Arc::new(Units::new()) };
    for given in &args.parameter {
        let (name, value) = parameter(given, &environment)?;
        environment.parameters.insert(name, value);
    }
    Ok(environment)
}

/// `NAME=VALUE`, the value being a CQL expression without data.
fn parameter(given: &str, environment: &Environment) -> Result<(String, Value), Failure> {
    let Some((name, text)) = given.split_once('=') else {
        return Err(Failure::usage(format!("`--parameter {given}` has no `=`")).hint("write `--parameter 'Age Limit Years=21'`"));
    };
    let source = SourceFile::new(format!("--parameter {name}"), format!("library P\ndefine \"Value\":\n{text}\n"));
    let (program, findings) = compile(&[source], &Libraries::default(), &Models::default());
    let Some(program) = program else { return Err(Failure::diagnostics(&findings)) };
    let (record, _) = Record::read(&Shape::everything(), std::iter::empty());
    let Some(define) = program.define("P", "Value") else {
        return Err(Failure::usage(format!("`--parameter {given}` is not one CQL expression")));
    };
    let value = Session::new(&program, environment, &record).evaluate(define);
    let value = value.map_err(|fault| Failure::diagnostics(&[fault.diagnostic()]))?;
    Ok((name.trim().to_owned(), value))
}
