//! `watershed check`: every problem of configuration, mapping and measures at once, then the live probe.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::{Context, Ending, Failure, Format};
use crate::config::{self, Loaded, setup};
use crate::diagnostic::{self, Diagnostic};
use crate::http::{Clock, HttpError, Request, SystemClock};
use crate::pipeline::{Setup, needs};
use crate::source::{self, Source, SourceError};

/// Report every problem of configuration, mapping and measures, then ask the EHR and the registry
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The site's configuration
    #[arg(long, default_value = "site.toml", env = "WATERSHED_CONFIG")]
    pub config: PathBuf,
    /// Ask nobody; check what is on disk
    #[arg(long)]
    pub offline: bool,
}

/// What one peer said.
struct Answer {
    peer: &'static str,
    lines: Vec<String>,
    failure: Option<Failure>,
}

/// Checks the files; if they are sound, asks the peers.
pub fn run(args: &Args, context: &Context) -> Result<Ending, Failure> {
    let (site, mut findings) = config::load_site(&args.config);
    let read = site.as_ref().map(setup::read);
    let checked = read.and_then(|(checked, more)| {
        findings.extend(more);
        checked
    });
    let (Some(site), Some(checked)) = (site, checked) else {
        match context.format {
            Format::Json => super::print_json(&json!({ "findings": diagnostic::render_json(&findings), "peers": [] })),
            Format::Human => super::print(&diagnostic::render_human(&findings, context.colour)),
        }
        return Err(Failure::configuration(format!("`{}` cannot be used", args.config.display())).hint("nothing starts until every error above is gone"));
    };
    let answers = if args.offline { Vec::new() } else { super::block_on(async { Ok(ask(&site, &checked).await) })? };
    print(&checked, &findings, &answers, context);
    match answers.into_iter().find_map(|answer| answer.failure) {
        Some(failure) => Err(failure),
        None if findings.is_empty() => Ok(Ending::Fine),
        None => Ok(Ending::Findings),
    }
}

async fn ask(site: &Loaded<config::Site>, checked: &Setup) -> Vec<Answer> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    vec![ehr(checked, &clock).await, registry(site, &clock).await]
}

async fn ehr(checked: &Setup, clock: &Arc<dyn Clock>) -> Answer {
    let requirements = checked.measures.iter().flat_map(|measure| measure.program().requirements());
    let needs = needs::needs(requirements, &checked.value_sets, &checked.mapping);
    let types = needs.iter().map(|need| need.resource_type.clone()).collect();
    let peer = "EHR";
    match Source::connect(&checked.source, checked.source_key.as_ref(), &types, Arc::clone(clock)).await {
        Ok(source) => {
            let plan = source::plan(&needs, &source.capability, &checked.source);
            let mut lines = vec![format!("{} speaks FHIR {} ({})", source.name(), source.capability.fhir_version, source.capability.software)];
            lines.push(match &source.tokens {
                Some(tokens) => format!("token granted: {}", tokens.granted().unwrap_or_else(|| "scopes not said".to_owned())),
                None => "no token asked for".to_owned(),
            });
            lines.push(match &plan.export {
                Some(export) => format!("Bulk Data: {} of {}", export.path, export.types.iter().cloned().collect::<Vec<_>>().join(", ")),
                None => format!("search: {} queries over {}", plan.queries.len(), plan.types.iter().cloned().collect::<Vec<_>>().join(", ")),
            });
            lines.extend(plan.notes);
            Answer { peer, lines, failure: None }
        }
        Err(error) => {
            let text = format!("EHR: {error}");
            let failure = match error {
                SourceError::Options(_) => Failure::configuration(text),
                SourceError::Scopes { .. } | SourceError::Http(HttpError::Token(_)) => Failure::rejected(text),
                _ => Failure::unreachable(text),
            };
            Answer { peer, lines: Vec::new(), failure: Some(failure) }
        }
    }
}

async fn registry(site: &Loaded<config::Site>, clock: &Arc<dyn Clock>) -> Answer {
    let peer = "registry";
    let failed = |failure| Answer { peer, lines: Vec::new(), failure: Some(failure) };
    let registry = match setup::registry(site, clock) {
        Ok(registry) => registry,
        Err(error) => return failed(Failure::configuration(error)),
    };
    // A feed that does not exist: answered 404 to a client that the registry knows, 401 to any other.
    let mut address = registry.base.clone();
    if let Ok(mut segments) = address.path_segments_mut() {
        segments.pop_if_empty().extend(["v1", "feeds", "00000000000000000000000000000000"]);
    }
    match registry.client.send(Request::new(reqwest::Method::GET, address)).await {
        Ok(answer) if answer.status == 404 || answer.is_success() => {
            Answer { peer, lines: vec![format!("{} knows client `{}`", registry.base, site.value.registry.client_id)], failure: None }
        }
        Ok(answer) => failed(Failure::rejected(format!("registry: {} answered {}", registry.base, answer.status))),
        Err(HttpError::Token(reason)) => {
            failed(Failure::rejected(format!("registry: no token: {reason}")).hint("is the client id registered there, with the public half of this key?"))
        }
        Err(error) => failed(Failure::unreachable(format!("registry: {error}"))),
    }
}

fn print(checked: &Setup, findings: &[Diagnostic], answers: &[Answer], context: &Context) {
    let measures: Vec<String> = checked.measures.iter().map(|measure| measure.definition.canonical()).collect();
    if context.format == Format::Json {
        let peers: Vec<_> = answers
            .iter()
            .map(|answer| json!({ "peer": answer.peer, "ok": answer.failure.is_none(), "lines": answer.lines, "error": answer.failure.as_ref().map(|failure| &failure.message) }))
            .collect();
        super::print_json(
            &json!({ "site": checked.site, "measures": measures, "mapping": checked.mapping.label(), "findings": diagnostic::render_json(findings), "peers": peers }),
        );
        return;
    }
    if !findings.is_empty() {
        super::print(&diagnostic::render_human(findings, context.colour));
    }
    let mut text = format!("{}: configuration is sound\n  mapping {}\n", checked.site, checked.mapping.label());
    for measure in &measures {
        text.push_str(&format!("  measure {measure}\n"));
    }
    for answer in answers {
        text.push_str(&format!("{}: {}\n", answer.peer, if answer.failure.is_none() { "answers" } else { "cannot be used" }));
        for line in &answer.lines {
            text.push_str(&format!("  {line}\n"));
        }
    }
    super::print(&text);
}
