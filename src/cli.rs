//! Commands and exit codes.
//!
//! stdout is data, stderr is talk. Each command is a file in `cli/` with `Args` and `run`; this file is their
//! table of contents, and the one place where a [`Failure`] becomes an exit code.

use std::borrow::Cow;
use std::future::Future;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::{Parser, Subcommand, ValueEnum};
use comfy_table::{ContentArrangement, Table, TableComponent, presets};
use rusqlite::ErrorCode;

use crate::config::{self, Loaded};
use crate::diagnostic::{self, Diagnostic, Severity};
use crate::store::{Store, StoreError};

pub mod check;
pub mod cql;
pub mod deliver;
pub mod demo;
pub mod evaluate;
pub mod import;
pub mod key;
pub mod known;
pub mod measure;
pub mod outbox;
pub mod pull;
pub mod quarantine;
pub mod registry;
pub mod run;
pub mod sandbox;
pub mod status;

/// Heading, in every help, of the options that every command has.
const EVERYWHERE: &str = "Options of every command";
/// Shown under the help: what a script relies on.
const EXIT_CODES: &str =
    "Exit codes: 0 fine, 1 findings or mismatches, 2 usage, 3 configuration, 4 unreachable,\n5 rejected by the peer, 70 a bug. stdout is data, stderr is talk.";

/// The command line of `watershed`.
#[derive(Debug, Parser)]
#[command(name = "watershed", version, about = "Carry a hospital's FHIR data, as agreed quality measures, into a Learning Health Network",
    long_about = None, after_help = EXIT_CODES, propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub struct Arguments {
    /// How a command reports on stdout: human or json
    #[arg(long, global = true, value_enum, default_value_t = Format::Human, hide_possible_values = true, help_heading = EVERYWHERE)]
    pub format: Format,
    /// What is logged, for example `info` or `watershed::source=debug`
    #[arg(long, global = true, value_name = "FILTER", default_value = "warn,daemon=info", env = "WATERSHED_LOG", hide_env_values = true, help_heading = EVERYWHERE)]
    pub log: String,
    /// How the log is written on stderr: human or json
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Human, hide_possible_values = true,
        env = "WATERSHED_LOG_FORMAT", hide_env_values = true, help_heading = EVERYWHERE)]
    pub log_format: Format,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text and tables
    Human,
    /// JSON
    Json,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run simulated hospitals, their adapters and a registry for one night, and compare with the truth
    Demo(demo::Args),
    /// Report every problem of configuration, mapping and measures, then ask the EHR and the registry
    Check(check::Args),
    /// Run a night at the scheduled times, or one night now
    Run(run::Args),
    /// Bring the snapshot up to date, without evaluating or delivering
    Pull(pull::Args),
    /// Bring in tables of what the EHR keeps outside FHIR, or see what would change
    Import(import::Args),
    /// Send what waits in the outbox
    Deliver(deliver::Args),
    /// Show the last nights, what waits and what needs a person
    Status(status::Args),
    /// Lines and resources that were refused
    Quarantine(quarantine::Args),
    /// Feeds on their way
    Outbox(outbox::Args),
    /// Make a private key, show or serve the public half of one
    Key(key::Args),
    /// Measures over data on disk
    Evaluate(evaluate::Args),
    /// A site's measures over what was known on a day, from its snapshot
    Known(known::Args),
    /// The steward's bench: check and test measures
    Measure(measure::Args),
    /// The bare language: check a library, evaluate its defines
    Cql(cql::Args),
    /// The network's end: serve a registry, register its sites, verify its audit chain
    Registry(registry::Args),
    /// A simulated hospital EHR with synthetic patients and known truth
    Sandbox(sandbox::Args),
}

/// What every command is told.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// How to report on stdout.
    pub format: Format,
    /// Whether stdout is a terminal that shows colour.
    pub colour: bool,
}

/// How a command that did its work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing to report: exit code 0.
    Fine,
    /// The work was done and found something: exit code 1.
    Findings,
}

/// Whose turn it is after a failure; each has its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line is wrong: 2.
    Usage,
    /// Configuration, measure, mapping or a file they name is wrong: 3.
    Configuration,
    /// A peer cannot be reached, or the disk refuses: 4.
    Unreachable,
    /// A peer answered and refused: 5.
    Rejected,
    /// Something this program promised does not hold: 70.
    Bug,
}

/// Why a command could not do its work, for the person who can act.
#[derive(Debug)]
pub struct Failure {
    /// Whose turn it is.
    pub kind: Kind,
    /// What is wrong, one or more lines.
    pub message: String,
    /// What to do about it.
    pub hints: Vec<String>,
    /// The message is findings in their wanted form already, each with its own severity.
    is_rendered: bool,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), hints: Vec::new(), is_rendered: false }
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Usage, message)
    }

    /// Configuration, measure, mapping or a file is wrong.
    pub fn configuration(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Configuration, message)
    }

    /// A peer cannot be reached, or the disk refuses.
    pub fn unreachable(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Unreachable, message)
    }

    /// A peer answered and refused.
    pub fn rejected(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Rejected, message)
    }

    /// Something this program promised does not hold.
    pub fn bug(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Bug, message)
    }

    /// Findings that stop the work, rendered with their source lines.
    pub fn diagnostics(diagnostics: &[Diagnostic]) -> Failure {
        let colour = std::io::stderr().is_terminal();
        let message = diagnostic::render_human(diagnostics, colour).trim_end().to_owned();
        Failure { is_rendered: true, ..Failure::configuration(message) }
    }

    /// The same in the wanted format, for a command whose stdout is kept for values.
    pub fn findings(diagnostics: &[Diagnostic], context: &Context) -> Failure {
        match context.format {
            Format::Human => Failure::diagnostics(diagnostics),
            Format::Json => Failure { is_rendered: true, ..Failure::configuration(diagnostic::render_json(diagnostics).to_string()) },
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hints.push(hint.into());
        self
    }
}

impl Kind {
    /// The documented exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Configuration => 3,
            Kind::Unreachable => 4,
            Kind::Rejected => 5,
            Kind::Bug => 70,
        }
    }
}

/// Runs the command line given to this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    if let Err(failure) = start_log(&arguments) {
        return end(Err(failure));
    }
    let context = Context { format: arguments.format, colour: std::io::stdout().is_terminal() };
    let ending = dispatch(arguments.command, &context);
    let unwritten = UNWRITTEN.get().map(|reason| Failure::unreachable(format!("stdout: {reason}; what was asked for is not all written")));
    end(ending.and_then(|ending| unwritten.map_or(Ok(ending), Err)))
}

/// Why something could not be written to stdout.
static UNWRITTEN: OnceLock<String> = OnceLock::new();

/// Standard output. That it takes no more, because the disk is full, is what the command ends with; a reader that went away has seen enough.
pub struct Output(std::io::StdoutLock<'static>);

/// Standard output, for as long as it is held.
pub fn output() -> Output {
    Output(std::io::stdout().lock())
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).inspect_err(note_unwritten)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush().inspect_err(note_unwritten)
    }
}

fn note_unwritten(error: &std::io::Error) {
    if !matches!(error.kind(), std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::Interrupted) {
        let _ = UNWRITTEN.set(error.to_string());
    }
}

/// Hands over to the command's file.
fn dispatch(command: Command, context: &Context) -> Result<Ending, Failure> {
    match command {
        Command::Evaluate(args) => evaluate::run(args),
        Command::Known(args) => known::run(&args, context),
        Command::Measure(args) => measure::run(args, context),
        Command::Check(args) => check::run(&args, context),
        Command::Demo(args) => demo::run(&args, context),
        Command::Run(args) => run::run(&args, context),
        Command::Pull(args) => pull::run(&args, context),
        Command::Import(args) => import::run(&args, context),
        Command::Status(args) => status::run(&args, context),
        Command::Quarantine(args) => quarantine::run(&args, context),
        Command::Cql(args) => cql::run(args, context),
        Command::Key(args) => key::run(args, context),
        Command::Deliver(args) => deliver::run(args, context),
        Command::Outbox(args) => outbox::run(args, context),
        Command::Registry(args) => registry::run(args, context),
        Command::Sandbox(args) => sandbox::run(args, context),
    }
}

/// Says why, and turns the ending into the exit code.
fn end(ending: Result<Ending, Failure>) -> ExitCode {
    match ending {
        Ok(Ending::Fine) => ExitCode::SUCCESS,
        Ok(Ending::Findings) => ExitCode::from(1),
        Err(failure) => {
            let stderr = &mut std::io::stderr().lock();
            let severity = if failure.is_rendered { "" } else { "error: " };
            let _ = writeln!(stderr, "{severity}{}", harmless(&failure.message));
            for hint in &failure.hints {
                let _ = writeln!(stderr, "  help: {}", harmless(hint));
            }
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

/// Sends the log to stderr, for people or as one JSON object a line.
fn start_log(arguments: &Arguments) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(&arguments.log)
        .map_err(|error| Failure::usage(format!("`--log {}` is not a filter: {error}", arguments.log)).hint("write a level such as `info`, or `watershed::source=debug,info`"))?;
    // What is wrong with a certificate is told with the address; this says it again, with neither.
    let filter = "rustls_platform_verifier=off".parse().map_or(filter.clone(), |directive| filter.add_directive(directive));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log_format {
        Format::Human => log.with_ansi(std::io::stderr().is_terminal()).init(),
        Format::Json => log.json().init(),
    }
    Ok(())
}

/// Writes to stdout for people; a reader that went away is no failure. Whoever's words are in it, it moves no cursor.
pub fn print(text: &str) {
    write(&harmless(text));
}

/// A text without control characters but ends of lines, tabs and colours.
fn harmless(text: &str) -> Cow<'_, str> {
    let is_free = |letter: char| !letter.is_control() || matches!(letter, '\n' | '\t');
    if text.chars().all(is_free) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for (place, part) in text.split('\u{1b}').enumerate() {
        let is_colour = part
            .strip_prefix('[')
            .and_then(|rest| rest.split_once('m'))
            .is_some_and(|(codes, _)| codes.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b';')));
        shown.extend((place > 0).then_some(if is_colour { '\u{1b}' } else { '\u{fffd}' }));
        shown.extend(part.chars().map(|letter| if is_free(letter) { letter } else { '\u{fffd}' }));
    }
    Cow::Owned(shown)
}

fn write(text: &str) {
    let stdout = &mut output();
    let _ = stdout.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = stdout.write_all(b"\n");
    }
    let _ = stdout.flush();
}

/// Writes one JSON value and a line end to stdout.
pub fn print_json(value: &serde_json::Value) {
    write(&value.to_string());
}

/// An empty table for people.
fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    // A line below the heading is enough.
    for line in [TableComponent::HorizontalLines, TableComponent::MiddleIntersections, TableComponent::LeftBorderIntersections, TableComponent::RightBorderIntersections] {
        table.remove_style(line);
    }
    table.set_header(headings.to_vec());
    table
}

/// Reports findings in the wanted format: to stdout, because they are what the command was asked for.
pub fn report(diagnostics: &[Diagnostic], context: &Context) -> Ending {
    match context.format {
        Format::Json => print_json(&diagnostic::render_json(diagnostics)),
        Format::Human if diagnostics.is_empty() => {}
        Format::Human => print(&diagnostic::render_human(diagnostics, context.colour)),
    }
    if diagnostics.iter().any(|found| found.severity == Severity::Error) { Ending::Findings } else { Ending::Fine }
}

/// A site's configuration, sound as far as it alone can tell.
pub fn site(path: &Path) -> Result<Loaded<config::Site>, Failure> {
    let (site, findings) = config::load_site(path);
    site.ok_or_else(|| Failure::diagnostics(&findings))
}

/// The site's state, beside a daemon that may be at work; `None` before its first night.
pub fn state(site: &Loaded<config::Site>) -> Result<Option<Store>, Failure> {
    Store::open_beside(&config::setup::state_file(site)).map_err(state_failure)
}

/// Whose turn it is when the state database cannot be used.
pub fn state_failure(error: StoreError) -> Failure {
    match error {
        StoreError::Newer { .. } | StoreError::Older { .. } | StoreError::Checksum { .. } => Failure::configuration(error.to_string()),
        StoreError::Sqlite(ref cause) if matches!(cause.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) => Failure::unreachable(error.to_string())
            .hint(
                "restore the data directory from a copy, or move it away: the next night reads everything again, and `watershed outbox adopt` goes on from what the registry holds",
            ),
        StoreError::Locked { .. } => Failure::unreachable(error.to_string()).hint("`watershed status` and `watershed outbox` look beside a running adapter"),
        _ => Failure::unreachable(error.to_string()),
    }
}

/// Runs an asynchronous command to its end.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::unreachable(format!("cannot start the runtime: {error}")))?
        .block_on(work)
}

/// Resolves when a person or a supervisor asks the process to stop (Ctrl-C or SIGTERM).
pub async fn asked_to_stop() {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
            return;
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_moves_a_cursor() {
        for (text, expected) in [
            ("plain, caf\u{e9}\n\tand \u{2713}\n", "plain, caf\u{e9}\n\tand \u{2713}\n"),
            ("\u{1b}[1;31merror\u{1b}[0m", "\u{1b}[1;31merror\u{1b}[0m"),
            ("\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}1A\r", "\u{fffd}[2J\u{fffd}]0;x\u{fffd}\u{fffd}1A\u{fffd}"),
            ("\u{1b}", "\u{fffd}"),
        ] {
            assert_eq!(harmless(text), expected, "{text:?}");
        }
    }
}
