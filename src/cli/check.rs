//! `watershed check`: every problem of configuration, mapping and measures at once, then the live probe.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::import::{Touched, told, touched, types};
use super::outbox::adopt;
use super::{Context, Ending, Failure, Format, Kind};
use crate::config::{self, Loaded, doubtful, setup};
use crate::diagnostic::{self, Diagnostic, Severity, counted};
use crate::feed::Accepted;
use crate::http::{Clock, Request, SystemClock, one_line};
use crate::pipeline::{Lineage, Setup, needs};
use crate::smart::client::below;
use crate::snapshot::Snapshot;
use crate::source::capability::Capability;
use crate::source::cohort::Cohort;
use crate::source::duty::Code;
use crate::source::probe::{self, Fact, Finding, Found};
use crate::source::{self, Options, Plan, Source, SourceError, Tuning, folder, forecast, import, ledger};
use crate::store::{Store, runs};

/// Attempts at one request to the EHR while a person waits.
pub(super) const ATTEMPTS: u32 = 2;
/// Measures that are shown of those that a registry accepts.
const ACCEPTED_SHOWN: usize = 20;
/// Characters of the scopes that a server says it grants.
const SCOPES_CHARS_MAX: usize = 2_000;
/// What stands in the place of an EHR.
const FOLDER: &str = "folder";
/// What stands beside it.
const IMPORTS: &str = "imports";

/// Report every problem of configuration, mapping and measures, then ask the EHR and the registry
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site's configuration
    #[arg(long, value_name = "FILE", default_value = "site.toml", env = "WATERSHED_CONFIG", hide_env_values = true)]
    pub config: PathBuf,
    /// Ask nobody; check what is on disk
    #[arg(long)]
    pub offline: bool,
}

/// What one peer said.
struct Answer {
    peer: &'static str,
    lines: Vec<String>,
    /// What a person has to see to.
    due: Vec<String>,
    failure: Option<Failure>,
    probed: Option<Probed>,
    /// Something that it said.
    needs_a_person: bool,
}

impl Answer {
    fn new(peer: &'static str, lines: Vec<String>) -> Answer {
        Answer { peer, lines, due: Vec::new(), failure: None, probed: None, needs_a_person: false }
    }

    fn failed(peer: &'static str, failure: Failure) -> Answer {
        Answer { failure: Some(failure), ..Answer::new(peer, Vec::new()) }
    }
}

/// What the EHR's server really does.
struct Probed {
    facts: Vec<Fact>,
    findings: Vec<Finding>,
    /// What changed since an earlier check.
    changes: Vec<String>,
    /// Where it is kept.
    file: PathBuf,
    /// Why it is not.
    trouble: Option<String>,
}

impl Probed {
    fn needs_a_person(&self) -> bool {
        !self.findings.is_empty() || !self.changes.is_empty() || self.trouble.is_some()
    }
}

/// Checks the files; if they are sound, asks the peers.
pub fn run(args: &Args, context: &Context) -> Result<Ending, Failure> {
    let (site, mut findings) = config::inspect_site(&args.config);
    // What the configuration names is checked even if the configuration itself is wrong: everything at once.
    let checked = site.as_ref().and_then(|site| {
        let (checked, more) = setup::check(site);
        findings.extend(more);
        checked
    });
    let (Some(site), Some(checked), false) = (site, checked, diagnostic::has_errors(&findings)) else {
        match context.format {
            Format::Json => super::print_json(&json!({ "findings": diagnostic::render_json(&findings), "peers": [] })),
            Format::Human => super::print(&diagnostic::render_folded(&findings, context.colour)),
        }
        return Err(Failure::configuration(format!("`{}` cannot be used", args.config.display())).hint("nothing starts until every error above is gone"));
    };
    findings.extend(doubtful::keys(&site, &checked.measures));
    findings.extend(silently_changed(&site, &checked));
    let touched: Vec<Touched> = checked.source.tuning.imports.iter().map(|import| touched(import, &checked)).collect();
    findings.extend(touched.iter().flat_map(|touched| touched.uncounted.iter().cloned()));
    let stored = stored(&site);
    findings.extend(stored.iter().flat_map(|stored| forsaken(&site, &checked, stored)));
    if args.offline {
        findings.extend(unasked(&site, &checked, &touched));
    }
    findings.extend(last_found(&site));
    let answers = if args.offline { Vec::new() } else { super::block_on(async { Ok(ask(&site, &checked, (&touched, stored.as_ref())).await) })? };
    print(&checked, &findings, &answers, context);
    let failures: Vec<(&str, Kind)> = answers.iter().filter_map(|answer| Some((answer.peer, answer.failure.as_ref()?.kind))).collect();
    match failures.first() {
        Some((_, kind)) => {
            let peers: Vec<&str> = failures.iter().map(|(peer, _)| *peer).collect();
            Err(Failure::new(*kind, format!("cannot be used: {}", peers.join(", "))))
        }
        None if answers.iter().any(|answer| answer.needs_a_person || answer.probed.as_ref().is_some_and(Probed::needs_a_person)) => Ok(Ending::Findings),
        None if findings.iter().all(|finding| finding.severity == Severity::Note) => Ok(Ending::Fine),
        None => Ok(Ending::Findings),
    }
}

/// That the mapping says something else than in the last night, and calls itself the same, or is gone; and that days are meant in another
/// zone. What is wrong with the state itself is said where it is used.
fn silently_changed(site: &Loaded<config::Site>, checked: &Setup) -> Vec<Diagnostic> {
    let lineage = |store: Store| store.with(|connection| runs::evaluated_before(connection, i64::MAX)).ok()??.lineage;
    let Some(earlier) = super::state(site).ok().flatten().and_then(lineage).as_deref().and_then(Lineage::stored) else { return Vec::new() };
    let warn = |key: &str, message: String, help: &str| Diagnostic { severity: Severity::Warning, ..site.places.error(key, message).help(help) };
    let mut found = Vec::new();
    if let Some(change) = checked.lineage.mapping_change(&earlier) {
        let help = match checked.lineage.mapping_rules() {
            (_, None) => "name its file in `mapping.file`, if it is to be used",
            _ => "raise its `version` with every change of meaning: the next night sends what it changes with the cause `mapping`",
        };
        found.push(warn("mapping.file", change, help));
    }
    if let Some(change) = checked.lineage.zone_change(&earlier) {
        found.push(warn("site.time_zone", change, "write the hospital's zone: the next night sends what it changes with the cause `zone`"));
    }
    found
}

/// What the last pull brought; what is wrong with it is said where it is used.
fn stored(site: &Loaded<config::Site>) -> Option<Snapshot> {
    let snapshot = setup::snapshot_beside(site, super::state(site).ok()??).ok()??;
    snapshot.latest().ok()?.map(|_| snapshot)
}

/// That rows will go whose import is declared no more.
fn forsaken(site: &Loaded<config::Site>, checked: &Setup, stored: &Snapshot) -> Vec<Diagnostic> {
    let help = "if it was taken out by mistake, name the file again that declares it; under another name its rows are others, and come again";
    let warn = |(name, rows): (String, u64)| {
        let message = format!("no file of `imports.files` declares `{name}` any more: the next pull removes {}", counted(rows, "stored row"));
        Diagnostic { severity: Severity::Warning, ..site.places.error("imports.files", message).help(help) }
    };
    import::forsaken(&checked.source.tuning.imports, stored).unwrap_or_default().into_iter().map(warn).collect()
}

/// Imports that no measure asks for, which is said of their tables where these are looked at.
fn unasked(site: &Loaded<config::Site>, checked: &Setup, touched: &[Touched]) -> Vec<Diagnostic> {
    let nobody = |(import, touched): (&import::Import, &Touched)| touched.nobody(import).map(|why| format!("import `{}`: {why}", import.name));
    let warn = |why| Diagnostic { severity: Severity::Warning, ..site.places.error("imports.files", why) };
    checked.source.tuning.imports.iter().zip(touched).filter_map(nobody).map(warn).collect()
}

/// What the last night found of rules that met nothing, of codes under other names, of values that were not used, of exports that stay at
/// the EHR, and of types of which there has never been any.
fn last_found(site: &Loaded<config::Site>) -> Vec<Diagnostic> {
    let store = super::state(site).ok().flatten();
    let of_night = |store: &Store| {
        let found = store.with(|connection| runs::evaluated_before(connection, i64::MAX)?.map(|night| runs::unmapped(connection, night.id)).transpose());
        found.ok().flatten()
    };
    let found = store.as_ref().and_then(of_night).unwrap_or_default();
    let unmapped = Some(super::run::unmapped_as_text(&found)).filter(|line| !line.is_empty());
    let kept = store.as_ref().and_then(told_by_pull).unwrap_or_default();
    let lines = found.iter().filter_map(super::run::unused_as_text).chain(unmapped).chain(kept);
    lines.map(|line| Diagnostic::note(format!("in the last night: {line}"))).collect()
}

/// What the last pull says of exports that the EHR did not delete, and of types of which there has never been any, and who must do what.
fn told_by_pull(store: &Store) -> Option<Vec<String>> {
    let (pull, ..) = ledger::last(store).ok()??;
    let units = ledger::units(store, pull).ok()?;
    let noted = units.into_iter().filter_map(|unit| Some((unit.resource_type, unit.note?)));
    let told = noted.filter(|(_, why)| matches!(why.code, Code::Undeletable | Code::Empty)).map(|(resource_type, why)| {
        let (who, what) = why.code.duty();
        let about = if resource_type == "*" { String::new() } else { format!("{resource_type}: ") };
        format!("{about}{why}; {who}: {what}")
    });
    Some(told.collect())
}

async fn ask(site: &Loaded<config::Site>, checked: &Setup, (touched, stored): (&[Touched], Option<&Snapshot>)) -> Vec<Answer> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let source = match &checked.source.tuning.folder {
        Some(folder) => files(folder, checked),
        None => ehr(site, checked, &clock).await,
    };
    let imports = (!checked.source.tuning.imports.is_empty()).then(|| imports(checked, touched, stored));
    std::iter::once(source).chain(imports).chain([registry(site, checked, &clock).await]).collect()
}

/// What is in the tables of the imports, and what does not fit, or is missing beside what is stored. Who is meant by a row is seen when it
/// is brought in.
fn imports(checked: &Setup, touched: &[Touched], stored: Option<&Snapshot>) -> Answer {
    let (mut lines, mut due) = (Vec::new(), Vec::new());
    for (import, touched) in checked.source.tuning.imports.iter().zip(touched) {
        let name = &import.name;
        let beside = stored.and_then(|stored| import::difference(import, stored, &types(checked), false).ok());
        let found = match beside.map_or_else(|| import::survey(import), Ok) {
            Ok(found) => found,
            Err(error) => return Answer::failed(IMPORTS, Failure::unreachable(error.to_string())),
        };
        let what = import.series.as_ref().map_or(&import.resource_type, |measure| &measure.id);
        lines.push(format!("{name}: {} of {what}", counted(found.rows, "row")));
        due.extend(found.gap.map(|gap| format!("{name}: {gap}")));
        due.extend(found.refused.iter().map(|(reason, sort)| format!("{name}: rows that do not fit, {}: {reason}", told(sort))));
        due.extend(touched.nobody(import).map(|why| format!("{name}: {why}")));
    }
    Answer { needs_a_person: !due.is_empty(), due, ..Answer::new(IMPORTS, lines) }
}

/// What is in the folder that stands in the place of an EHR, and what is missing from it.
fn files(folder: &Path, checked: &Setup) -> Answer {
    let peer = FOLDER;
    let needs = needs::of(&checked.measures, &checked.value_sets, &checked.mapping, false);
    let plan = source::plan(&needs, &Capability::default(), &checked.source);
    let survey = match folder::survey(folder, &plan.types, &plan.referenced) {
        Ok(survey) => survey,
        Err(error) => return Answer::failed(peer, Failure::unreachable(error.to_string())),
    };
    let read = survey.listing.files.iter().filter(|file| file.is_read(&plan.types)).count();
    let others = survey.listing.files.len() as u64 + survey.listing.passed_over - read as u64;
    let mut lines = vec![format!("{}: {} of data for these measures, {} beside them", folder.display(), counted(read, "file"), counted(others, "file"))];
    if let count @ 1.. = folder::xml(&[folder.to_owned()]) {
        lines.push(format!("{} passed over: FHIR XML is not read; have JSON written", counted(count, "XML file")));
    }
    lines.extend(survey.counts.iter().map(|(name, count)| format!("{count:>10} {name}")));
    let due = survey.troubles.iter().map(|(file, reason)| format!("{file}: {reason}"));
    let due: Vec<String> = due.chain(survey.absent.iter().map(|(name, reason)| format!("{name}: {reason}"))).collect();
    Answer { needs_a_person: !due.is_empty(), due, ..Answer::new(peer, lines) }
}

async fn ehr(site: &Loaded<config::Site>, checked: &Setup, clock: &Arc<dyn Clock>) -> Answer {
    let needs = needs::of(&checked.measures, &checked.value_sets, &checked.mapping, checked.source.progressive);
    let types = needs.iter().map(|need| need.resource_type.clone()).collect();
    let peer = "EHR";
    // A person waits: what is down now is said now.
    let tuning = Tuning { retry_attempts: ATTEMPTS, ..checked.source.tuning.clone() };
    let options = Options { tuning, ..checked.source.clone() };
    match Source::connect(&options, checked.source_key.as_ref(), &types, Arc::clone(clock)).await {
        Ok(source) => {
            let plan = source::plan(&needs, &source.capability, &checked.source);
            let mut lines = vec![format!("{} speaks FHIR {} ({})", source.name(), source.capability.fhir_version, source.capability.software)];
            lines.push(match &source.tokens {
                Some(tokens) => format!("token granted: {}", tokens.granted().map_or_else(|| "scopes not said".to_owned(), |granted| one_line(&granted, SCOPES_CHARS_MAX))),
                None if source.capability.smart.is_some() => "no token asked for, though the server issues them: without `source.client_id` it may refuse every query".to_owned(),
                None => "no token asked for".to_owned(),
            });
            lines.push(match &plan.export {
                Some(export) => format!("Bulk Data: {} of {}", export.path, export.types.iter().cloned().collect::<Vec<_>>().join(", ")),
                None => format!("search: {} over {}", counted(plan.queries.len(), "query"), plan.types.iter().cloned().collect::<Vec<_>>().join(", ")),
            });
            lines.extend(plan.notes.iter().cloned());
            lines.extend(source.clocks_apart.as_ref().map(|apart| format!("{apart}: set it right, or tokens may be refused")));
            let failure = cohort(&source, &plan, &mut lines).await.err();
            let facts = probe::probe(&source, &plan).await;
            Answer { probed: Some(probed(site, &source, facts, &**clock)), failure, ..Answer::new(peer, lines) }
        }
        Err(error) => {
            let text = error.to_string();
            let failure = match error {
                SourceError::Options(_) => Failure::configuration(text),
                SourceError::Scopes { .. } => Failure::rejected(text),
                SourceError::Http(error) if error.is_refusal() => Failure::rejected(text),
                _ => Failure::unreachable(text),
            };
            Answer::failed(peer, failure)
        }
    }
}

/// Asks once who the patients are that are to be taken. A server that does not say that it has Groups may have the one all the same.
async fn cohort(source: &Source, plan: &Plan, lines: &mut Vec<String>) -> Result<(), Failure> {
    let id = &source.options.group;
    if let Cohort::Search(search) = &plan.cohort {
        let found = forecast::count(source, plan, None).await.get("Patient").copied();
        lines.push(found.map_or_else(
            || format!("{search}: the server does not say how many it finds"),
            |found| format!("{search} finds {}{}", if plan.cohort.searches().len() > 1 { "at most " } else { "" }, counted(found, "patient")),
        ));
    }
    if let Some(list) = &source.options.tuning.patients {
        let listed = list.read().map_err(Failure::configuration)?;
        lines.push(format!("the list names {}", counted(listed.len(), "patient")));
    }
    if id.is_empty() {
        return Ok(());
    }
    let address = below(&source.base, &format!("Group/{id}")).map_err(|error| Failure::configuration(error.to_string()))?;
    let asked = Request::new(reqwest::Method::GET, address).header("accept", "application/fhir+json");
    let status = source.client.send(asked).await.map_err(|error| Failure::unreachable(error.to_string()))?.status;
    let has_groups = source.capability.types.contains_key("Group");
    match status {
        200..=299 => lines.push(format!("Group/{id} is there")),
        404 | 410 if has_groups => {
            let failure = Failure::configuration(format!("there is no Group/{id} (status {status})"));
            return Err(failure.hint("`source.group` is the id of a Group there, as the EHR team gave it; empty: every patient"));
        }
        _ => lines.push(format!(
            "Group/{id} may not be read (status {status}): whether it is there is seen when it is exported, and whom an export leaves out is not seen; EHR team: let this client read it, scope `system/Group.rs` or `.read`"
        )),
    }
    Ok(())
}

/// Compares with the file in the data directory, and keeps what was found there.
fn probed(site: &Loaded<config::Site>, source: &Source, facts: Vec<Fact>, clock: &dyn Clock) -> Probed {
    let file = setup::data_folder(site).join(probe::FILE);
    let kept = setup::make_data_folder(site)
        .map_err(|error| error.to_string())
        .and_then(|()| probe::keep(&file, &source.name(), facts.clone(), clock.now()).map_err(|error| error.to_string()));
    let (facts, changes, trouble) = match kept {
        Ok((kept, changes)) => (kept.facts, changes, None),
        Err(error) => (facts, Vec::new(), Some(error)),
    };
    Probed { findings: probe::findings(&facts, &source.options), facts, changes, file, trouble }
}

async fn registry(site: &Loaded<config::Site>, checked: &Setup, clock: &Arc<dyn Clock>) -> Answer {
    let peer = "registry";
    let failed = |failure| Answer::failed(peer, failure);
    let registry = match setup::registry(site, clock) {
        Ok(registry) => registry,
        Err(error) => return failed(Failure::configuration(error)),
    };
    let known = format!("{} knows client `{}`", registry.base, site.value.registry.client_id);
    match adopt::ask(site, &registry).await {
        Ok((held, compared)) => {
            let mut lines = vec![format!("{known} as site `{}`", held.site)];
            if !compared.agrees {
                let shown = adopt::shown(&held);
                lines.push(format!("it holds {shown} of this site, and this outbox knows another standing: `watershed outbox adopt` shows both, before the next feed is refused"));
            }
            let measures = checked
                .measures
                .iter()
                .map(|measure| (measure.definition.url.value.as_str(), measure.definition.version.value.as_str()));
            let due = match &held.accepts {
                Some(accepts) => not_accepted(measures, accepts),
                None => {
                    lines.push("it does not say which measures it accepts: it is older than this program".to_owned());
                    Vec::new()
                }
            };
            Answer { needs_a_person: !compared.agrees || !due.is_empty(), due, ..Answer::new(peer, lines) }
        }
        Err(failure) if failure.kind == Kind::Rejected => failed(failure.hint("is the client id registered there, with the public half of this key?")),
        Err(failure) => failed(failure),
    }
}

/// Of the measures (URL and version) those that the registry does not accept, with what to do: it refuses a feed that names one.
fn not_accepted<'a>(measures: impl Iterator<Item = (&'a str, &'a str)>, accepts: &[Accepted]) -> Vec<String> {
    let consequence = "so that every feed would be rejected, with all its reports";
    let known: Vec<String> = accepts
        .iter()
        .take(ACCEPTED_SHOWN)
        .map(|known| format!("`{}|{}`", known.measure, known.versions.join("`, `")))
        .collect();
    let more = accepts.len().saturating_sub(ACCEPTED_SHOWN);
    let known = match (accepts.len(), more) {
        (0, _) => "it accepts none".to_owned(),
        (_, 0) => format!("it accepts {}", known.join(", ")),
        _ => format!("it accepts {} and {more} more", known.join(", ")),
    };
    let fault = |(url, version): (&str, &str)| match accepts.iter().find(|known| known.measure == url) {
        Some(known) if known.versions.iter().any(|accepted| accepted == version) => None,
        Some(Accepted { versions, .. }) => Some(format!(
            "measure `{url}` is configured in version `{version}`, and the registry accepts `{}`, {consequence}: use a version that it accepts, or ask the network to accept yours",
            versions.join("`, `")
        )),
        None => {
            let nearest = diagnostic::nearest(url, accepts.iter().map(|known| known.measure.as_str()));
            let nearest = nearest.map_or_else(String::new, |nearest| format!(", nearest `{nearest}`"));
            Some(format!(
                "measure `{url}|{version}` is not accepted by the registry, {consequence}; {known}{nearest}: take it out of `measures.folders`, or ask the network to accept it"
            ))
        }
    };
    measures.filter_map(fault).collect()
}

fn print(checked: &Setup, findings: &[Diagnostic], answers: &[Answer], context: &Context) {
    let measures: Vec<String> = checked.measures.iter().map(|measure| measure.definition.canonical()).collect();
    if context.format == Format::Json {
        let peers: Vec<_> = answers
            .iter()
            .map(|answer| {
                let (error, capability) = (answer.failure.as_ref().map(|failure| &failure.message), answer.probed.as_ref().map(probed_as_json));
                json!({ "peer": answer.peer, "ok": answer.failure.is_none(), "lines": answer.lines, "due": answer.due, "error": error, "capability": capability })
            })
            .collect();
        super::print_json(
            &json!({ "site": checked.site, "measures": measures, "mapping": checked.mapping.label(), "findings": diagnostic::render_json(findings), "peers": peers }),
        );
        return;
    }
    if !findings.is_empty() {
        super::print(&diagnostic::render_folded(findings, context.colour));
    }
    let mut text = format!("{}: configuration is sound\n  mapping {}\n", checked.site, checked.mapping.label());
    for measure in &measures {
        text.push_str(&format!("  measure {measure}\n"));
    }
    for answer in answers {
        let is_well = if [FOLDER, IMPORTS].contains(&answer.peer) { "is there" } else { "answers" };
        text.push_str(&format!("{}: {}\n", answer.peer, if answer.failure.is_none() { is_well } else { "cannot be used" }));
        answer.lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        answer.due.iter().for_each(|due| text.push_str(&format!("  site engineer: {due}\n")));
        if let Some(probed) = &answer.probed {
            text.push_str(&probed_as_text(probed));
        }
        if let Some(failure) = &answer.failure {
            text.push_str(&format!("  {}\n", failure.message));
            failure.hints.iter().for_each(|hint| text.push_str(&format!("  help: {hint}\n")));
        }
    }
    super::print(&text);
}

fn probed_as_json(probed: &Probed) -> serde_json::Value {
    json!({
        "facts": probed.facts, "findings": probed.findings, "changes": probed.changes,
        "file": probed.file.display().to_string(), "error": probed.trouble,
    })
}

fn probed_as_text(probed: &Probed) -> String {
    let mut table = super::table(&["what the server does", "", "declared", "found"]);
    let mut last = "";
    for fact in &probed.facts {
        let about = if fact.about == last { "" } else { &fact.about };
        let declared = fact.declared.map_or("", |declared| if declared { "yes" } else { "no" });
        let found = if fact.found == Found::Is && fact.detail.is_empty() { "not said".to_owned() } else { fact.to_string() };
        table.add_row([about, &fact.what, declared, &found]);
        last = &fact.about;
    }
    let mut text = format!("{table}\n");
    for change in &probed.changes {
        text.push_str(&format!("  changed since the last check: {change}\n"));
    }
    for Finding { who, about, says } in &probed.findings {
        text.push_str(&format!("  {who}: {about}: {says}\n"));
    }
    text.push_str(&match &probed.trouble {
        None => format!("  kept for review in {}\n", probed.file.display()),
        Some(trouble) => format!("  not kept: {trouble}\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_registry_does_not_accept_is_named_with_what_it_does() {
        let accepts = [("http://n.example/Measure/remission", &["1.0.0", "1.1.0"][..]), ("http://n.example/Measure/growth", &["2.0.0"])];
        let accepts = accepts.map(|(measure, versions)| Accepted { measure: measure.to_owned(), versions: versions.iter().map(|version| (*version).to_owned()).collect() });
        let known = "it accepts `http://n.example/Measure/remission|1.0.0`, `1.1.0`, `http://n.example/Measure/growth|2.0.0`";
        for (url, version, expected) in [
            ("http://n.example/Measure/remission", "1.0.0", None),
            ("http://n.example/Measure/remission", "1.1.0", None),
            (
                "http://n.example/Measure/growth",
                "1.0.0",
                Some("measure `http://n.example/Measure/growth` is configured in version `1.0.0`, and the registry accepts `2.0.0`, so that every feed would be rejected, with all its reports: use a version that it accepts, or ask the network to accept yours".to_owned()),
            ),
            (
                "http://n.example/Measure/remision",
                "1.0.0",
                Some(format!("measure `http://n.example/Measure/remision|1.0.0` is not accepted by the registry, so that every feed would be rejected, with all its reports; {known}, nearest `http://n.example/Measure/remission`: take it out of `measures.folders`, or ask the network to accept it")),
            ),
        ] {
            assert_eq!(not_accepted([(url, version)].into_iter(), &accepts), Vec::from_iter(expected), "{url}|{version}");
        }
        assert!(not_accepted([("u", "1")].into_iter(), &[])[0].contains("; it accepts none: take it out"));
    }
}
