//! `watershed registry`: serve a network's registry, register its sites.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args as ClapArgs, Subcommand};
use jiff::Timestamp;
use serde_json::json;

use super::{Context, Ending, Failure, Format, print, print_json};
use crate::config::{self, Loaded, load_registry, measures};
use crate::diagnostic::{self, Diagnostic, SourceFile, counted};
use crate::listen::Certificate;
use crate::measure::definition::{self, Definition, Group, Improvement, Interval, PATIENT, Population, StratifierKind};
use crate::measure::logic::Fingerprint;
use crate::measure::population::{Aggregate, PopulationCode, Scoring};
use crate::measure::published;
use crate::pipeline::remarks;
use crate::registry::quota::Quota;
use crate::registry::store::{Keys, NewSite};
use crate::registry::{self, Defined, GroupCard, MeasureCard, Options, RegistryError, Span, Unit};
use crate::smart::assertion::Jwks;

/// Bytes of a measure file or key set that are read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Characters of the readers' token: fewer can be guessed.
const READER_TOKEN_CHARS_MIN: usize = 16;

/// The network's end
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Serve the registry and its pages until asked to stop
    Serve {
        /// The registry's configuration
        #[arg(long, value_name = "FILE", default_value = "registry.toml")]
        config: PathBuf,
        /// Go on with another key for receipts, because the one before is lost
        #[arg(long)]
        new_receipt_key: bool,
    },
    /// Register and list sites
    Site {
        #[command(subcommand)]
        what: SiteCommand,
    },
    /// Verify the audit chain, and every feed, report and shown number against manifests and receipts
    Verify {
        /// The registry's configuration
        #[arg(long, value_name = "FILE", default_value = "registry.toml")]
        config: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum SiteCommand {
    /// Register a site by its public keys
    Add {
        /// Short name, part of addresses: lower-case letters, digits and hyphens
        name: String,
        /// Client id its adapter uses
        #[arg(long)]
        client_id: String,
        /// Its public keys: a JWK Set file, or the https address where it publishes them
        #[arg(long, value_name = "FILE|URL")]
        jwks: String,
        /// The organization as people know it
        #[arg(long)]
        organization: String,
        /// The registry's configuration
        #[arg(long, value_name = "FILE", default_value = "registry.toml")]
        config: PathBuf,
    },
    /// Replace the public keys of a site; a set may hold the old and the new one while the site changes over
    Keys {
        /// Its name
        name: String,
        /// Its public keys from now on: a JWK Set file, or the https address where it publishes them
        #[arg(long, value_name = "FILE|URL")]
        jwks: String,
        /// The registry's configuration
        #[arg(long, value_name = "FILE", default_value = "registry.toml")]
        config: PathBuf,
    },
    /// List the registered sites
    List {
        /// The registry's configuration
        #[arg(long, value_name = "FILE", default_value = "registry.toml")]
        config: PathBuf,
    },
}

/// Runs the command.
pub fn run(args: Args, context: &Context) -> Result<Ending, Failure> {
    match args.what {
        What::Serve { config, new_receipt_key } => serve(&config, new_receipt_key, context),
        What::Site { what: SiteCommand::Add { name, client_id, jwks, organization, config } } => {
            let site = NewSite { name, organization, client_id, keys: keys(&jwks)? };
            let store = registry::open_store(&data(&load(&config)?)).map_err(failure)?;
            let added = store.add_site(&site, Timestamp::now()).map_err(misnamed)?;
            match context.format {
                Format::Json => print_json(&json!({ "site": added.name, "clientId": added.client_id, "scope": registry::auth::SCOPE })),
                Format::Human => print(&format!("site `{}` may now send feeds as client `{}`", added.name, added.client_id)),
            }
            Ok(Ending::Fine)
        }
        What::Site { what: SiteCommand::Keys { name, jwks, config } } => replace_keys(&name, &keys(&jwks)?, &config, context),
        What::Site { what: SiteCommand::List { config } } => list(&config, context),
        What::Verify { config } => verify(&config, context),
    }
}

fn verify(path: &Path, context: &Context) -> Result<Ending, Failure> {
    let loaded = load(path)?;
    // How a report is read depends on its measure, where that is accepted still.
    let known: Vec<MeasureCard> = loaded.value.measures.iter().filter_map(|folder| cards(&loaded.path(folder)).ok()).flatten().collect();
    let found = registry::verify::verify(&data(&loaded), &known).map_err(failure)?;
    let (feeds, reports) = (counted(found.feeds, "feed"), counted(found.reports, "report"));
    match (context.format, &found.audit) {
        (Format::Json, audit) => {
            let (records, broken) = (audit.ok(), audit.err().map(|broken| broken.sequence));
            print_json(&json!({
                "unbroken": audit.is_ok(), "records": records, "breaksAt": broken, "feeds": found.feeds, "reports": found.reports,
                "differences": found.differences, "moreDifferences": found.more,
            }));
        }
        (Format::Human, audit) => {
            match audit {
                Ok(records) => print(&format!("{}, unbroken", counted(*records, "audit record"))),
                Err(broken) => print(&format!("the audit chain breaks at record {}", broken.sequence)),
            }
            match found.differences.len() as u64 + found.more {
                0 => print(&format!("{feeds} and {reports}, as they were received")),
                differences => print(&format!("{feeds} and {reports}, {}:", counted(differences, "difference"))),
            }
            found.differences.iter().for_each(|difference| print(&format!("  {difference}")));
            if found.more > 0 {
                print(&format!("  and {} more", found.more));
            }
        }
    }
    let is_sound = found.audit.is_ok() && found.differences.is_empty();
    Ok(if is_sound { Ending::Fine } else { Ending::Findings })
}

fn replace_keys(name: &str, keys: &Keys, config: &Path, context: &Context) -> Result<Ending, Failure> {
    let store = registry::open_store(&data(&load(config)?)).map_err(failure)?;
    let site = store.replace_keys(name, keys, Timestamp::now()).map_err(misnamed)?;
    let ids: Vec<String> = match keys {
        Keys::Set(set) => serde_json::from_str::<Jwks>(set)
            .map(|set| set.keys.into_iter().filter_map(|key| key.common.key_id).collect())
            .unwrap_or_default(),
        Keys::Url(_) => Vec::new(),
    };
    match (context.format, &site.jwks_url) {
        (Format::Json, url) => print_json(&json!({ "site": site.name, "clientId": site.client_id, "keyIds": ids, "jwksUrl": url })),
        (Format::Human, Some(url)) => print(&format!("site `{}` is known by the keys at {url} from now on", site.name)),
        (Format::Human, None) => print(&format!("site `{}` is known by {} from now on: {}", site.name, counted(ids.len(), "key"), ids.join(", "))),
    }
    Ok(Ending::Fine)
}

/// A site that is there already, or is not there.
fn misnamed(error: RegistryError) -> Failure {
    match error {
        RegistryError::Configuration(text) => Failure::usage(text).hint("`watershed registry site list` shows the registered ones"),
        other => failure(other),
    }
}

/// The readers' token, if there is a file of one.
fn reader_token(loaded: &Loaded<config::Registry>) -> Result<Option<String>, Failure> {
    let written = &loaded.value.reader_token_file;
    if written.is_empty() {
        return Ok(None);
    }
    let token = read(&loaded.path(written)).map_err(Failure::configuration)?.trim().to_owned();
    if token.chars().count() < READER_TOKEN_CHARS_MIN || !token.chars().all(|c| c.is_ascii_graphic()) {
        let message = format!("`reader_token_file`: `{written}` holds no token of at least {READER_TOKEN_CHARS_MIN} characters without spaces");
        return Err(Failure::configuration(message).hint("`openssl rand -hex 32` makes one"));
    }
    Ok(Some(token))
}

fn failure(error: RegistryError) -> Failure {
    match error {
        RegistryError::Configuration(text) => Failure::configuration(text),
        other => Failure::unreachable(other.to_string()),
    }
}

fn load(path: &Path) -> Result<Loaded<config::Registry>, Failure> {
    let (loaded, findings) = load_registry(path);
    loaded.ok_or_else(|| Failure::diagnostics(&findings))
}

fn data(loaded: &Loaded<config::Registry>) -> PathBuf {
    loaded.path(&loaded.value.data)
}

fn serve(path: &Path, new_receipt_key: bool, context: &Context) -> Result<Ending, Failure> {
    let loaded = load(path)?;
    let config = &loaded.value;
    let (mut accepted, mut findings) = (Vec::new(), Vec::new());
    for folder in &config.measures {
        match cards(&loaded.path(folder)) {
            Ok(cards) => cards.into_iter().for_each(|card| merge(&mut accepted, card)),
            Err(found) => findings.extend(found),
        }
    }
    if !findings.is_empty() {
        return Err(Failure::diagnostics(&findings));
    }
    compose(&mut accepted);
    let listener = TcpListener::bind(&config.listen)
        .map_err(|error| Failure::unreachable(format!("cannot listen on `{}`: {error}", config.listen)).hint("is another registry running? change `listen`"))?;
    let address = listener.local_addr().map_err(|error| Failure::unreachable(error.to_string()))?;
    let tls = (!config.tls_certificate_file.is_empty()).then(|| Certificate::new(loaded.path(&config.tls_certificate_file), loaded.path(&config.tls_key_file)));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let public_url = if config.public_url.is_empty() { format!("{scheme}://{address}") } else { config.public_url.clone() };
    let options = Options {
        data: data(&loaded),
        public_url: public_url.clone(),
        network: config.network.clone(),
        measures: accepted,
        tls,
        behind_proxy: config.behind_proxy,
        late_after_hours: config.late_after_hours,
        reader_token: reader_token(&loaded)?,
        quota: Quota { feeds: config.feeds_per_day, bytes: u64::from(config.megabytes_per_day) << 20 },
        new_receipt_key,
        clock: Arc::new(Timestamp::now),
    };
    super::block_on(async {
        let server = registry::Server::open(options, listener).await.map_err(failure)?;
        match context.format {
            Format::Json => print_json(&json!({ "registry": public_url })),
            Format::Human => print(&format!("registry at {public_url}")),
        }
        server.run(super::asked_to_stop()).await.map_err(failure)
    })?;
    Ok(Ending::Fine)
}

/// A version more of a measure known already, or a measure more.
fn merge(cards: &mut Vec<MeasureCard>, card: MeasureCard) {
    match cards.iter_mut().find(|known| known.url == card.url) {
        Some(known) => {
            let (mut versions, mut definitions) = (std::mem::take(&mut known.versions), std::mem::take(&mut known.definitions));
            versions.extend(card.versions.clone());
            definitions.extend(card.definitions.clone());
            *known = MeasureCard { versions, definitions, ..card };
        }
        None => cards.push(card),
    }
}

/// Gives composites the logic of what they are made of, and its look back over months. Where some of that is not here, or of several
/// versions that may be meant, nothing is known to hold the logic of a report against.
fn compose(cards: &mut [MeasureCard]) {
    let known = cards.to_vec();
    for card in cards {
        let is_part = |other: &&MeasureCard| card.definitions.values().flat_map(|defined| &defined.parts).any(|(name, _)| *name == other.id || *name == other.url);
        card.parts = known.iter().filter(|other| other.url != card.url).filter(is_part).cloned().collect();
        for defined in card.definitions.values_mut() {
            let parts: BTreeMap<String, Option<&Defined>> = defined.parts.iter().map(|(name, version)| part(&known, name, version.as_deref())).collect();
            let longest = parts.values().flatten().filter_map(|part| part.lookback_months).max();
            defined.lookback_months = defined.lookback_months.max(longest);
            // Of a group of its own it has the logic.
            let others = parts.iter().filter(|(name, _)| name.split('|').next() != Some(card.url.as_str()));
            let fingerprint = |part: &Defined| (!part.logic.is_empty()).then(|| Fingerprint { logic: part.logic.clone(), value_sets: part.value_sets.clone() });
            let others: Option<Vec<(String, Fingerprint)>> = others.map(|(name, part)| Some((name.clone(), fingerprint((*part)?)?))).collect();
            let Some((others, own)) = others.zip(fingerprint(defined)) else {
                defined.logic.clear();
                continue;
            };
            let Fingerprint { logic, value_sets } = own.with_parts(others.iter().map(|(name, part)| (name.clone(), part)).collect());
            (defined.logic, defined.value_sets) = (logic, value_sets);
        }
    }
}

/// The measure that a composite names: its canonical URL, and what it computes, if it is here and no other may be meant.
fn part<'a>(known: &'a [MeasureCard], name: &str, version: Option<&str>) -> (String, Option<&'a Defined>) {
    let Some(card) = known.iter().find(|card| card.id == name || card.url == name) else { return (name.to_owned(), None) };
    let only = card.versions.first().filter(|_| card.versions.len() == 1).map(String::as_str);
    let version = version.or(only).unwrap_or_default();
    (format!("{}|{version}", card.url), card.definitions.get(version))
}

/// The registry's view of what a path holds: a measure folder, or Measures as they are published.
fn cards(path: &Path) -> Result<Vec<MeasureCard>, Vec<Diagnostic>> {
    if path.join("measure.yaml").is_file() || !path.exists() {
        return card(path).map(|card| vec![card]);
    }
    let (folders, mut findings) = measures::open(path).map_err(|fault| vec![fault])?;
    let mut cards = Vec::new();
    let value_sets = measures::value_sets(&folders);
    for folder in folders {
        let (definition, found) = published::definition(&folder.files.definition);
        let card = definition.as_ref().map(card_of).map(|mut card| {
            // A published Measure does not say how long its periods are.
            card.definitions.values_mut().for_each(|defined| defined.period = None);
            computing(card, Fingerprint::of(&folder.files, &value_sets))
        });
        cards.extend(card);
        findings.extend(found);
    }
    if diagnostic::has_errors(&findings) { Err(findings) } else { Ok(cards) }
}

/// The registry's view of a measure folder.
pub fn card(folder: &Path) -> Result<MeasureCard, Vec<Diagnostic>> {
    let path = folder.join("measure.yaml");
    let text = read(&path).map_err(|error| vec![Diagnostic::error(error).help("`measures` names folders that hold a measure.yaml")])?;
    let (definition, findings) = definition::parse(&SourceFile::new(path.display().to_string(), text));
    let card = definition.as_ref().map(card_of).ok_or(findings)?;
    // A network need not hold more of a measure than its definition.
    let held = measures::read(folder).ok();
    Ok(computing(card, held.and_then(|folder| Fingerprint::of(&folder.files, &measures::value_sets(std::slice::from_ref(&folder))))))
}

/// The card of a measure of which it is known what it computes, if it is.
fn computing(mut card: MeasureCard, fingerprint: Option<Fingerprint>) -> MeasureCard {
    if let (Some(Fingerprint { logic, value_sets }), Some(defined)) = (fingerprint, card.definitions.values_mut().next()) {
        (defined.logic, defined.value_sets) = (logic, value_sets);
    }
    card
}

/// The registry's view of a measure.
pub fn card_of(definition: &Definition) -> MeasureCard {
    let groups = definition.all_groups();
    let unit_of = |group: &Group| unit_of(definition, group);
    let units: BTreeMap<String, Unit> = groups.iter().map(|group| (group.id.value.clone(), unit_of(group))).collect();
    let is_fraction = |unit: &Unit| matches!(unit, Unit::Percent | Unit::Rate { .. });
    let unit = groups.iter().map(unit_of).find(is_fraction).or(groups.first().map(unit_of)).unwrap_or(Unit::Number);
    let name = |group: &Group| if groups.len() == 1 { String::new() } else { group.id.value.clone() };
    MeasureCard {
        id: definition.id.value.clone(),
        url: definition.url.value.clone(),
        versions: vec![definition.version.value.clone()],
        title: definition.title.clone(),
        plain_language: definition.description.split_whitespace().collect::<Vec<_>>().join(" "),
        higher_is_better: higher_is_better(definition.improvement),
        units: units.into_iter().filter(|(_, own)| *own != unit).collect(),
        unit,
        parts: Vec::new(),
        sums: groups.iter().filter(|group| adds_amounts(definition, group)).map(name).collect(),
        definitions: [(definition.version.value.clone(), defined(definition, &groups))].into(),
    }
}

fn unit_of(definition: &Definition, group: &Group) -> Unit {
    match (definition.scoring_of(group), &definition.rate) {
        (Scoring::ContinuousVariable, _) => Unit::Number,
        (Scoring::Cohort, _) => Unit::Count,
        (_, Some(rate)) => Unit::Rate { per: rate.multiplier, of: rate.words().1.to_owned() },
        (Scoring::Ratio, None) => Unit::Rate { per: 1, of: String::new() },
        _ => Unit::Percent,
    }
}

fn higher_is_better(improvement: Improvement) -> Option<bool> {
    match improvement {
        Improvement::Increase => Some(true),
        Improvement::Decrease => Some(false),
        Improvement::NotTold => None,
    }
}

fn group_card(definition: &Definition, group: &Group, is_only: bool) -> GroupCard {
    let id = &group.id.value;
    let named = |name: &String| if is_only { String::new() } else { name.clone() };
    let unit = unit_of(definition, group);
    GroupCard {
        key: named(id),
        label: named(group.text.as_ref().unwrap_or(id)),
        higher_is_better: higher_is_better(definition.improvement_of(group)).filter(|_| unit != Unit::Count),
        unit,
        counts_patients: definition.basis_of(group) == PATIENT,
    }
}

/// Whether the numerator of a ratio is made of observed amounts, as days or doses, and not of how many there are.
fn adds_amounts(definition: &Definition, group: &Group) -> bool {
    let is_numerator = |id: &str| group.populations.iter().any(|population| population.code == PopulationCode::Numerator && population.id() == id);
    let adds = |population: &Population| population.code == PopulationCode::MeasureObservation && population.aggregate != Some(Aggregate::Count);
    let of_numerator = |population: &Population| population.of.as_ref().is_some_and(|of| is_numerator(&of.value));
    definition.scoring_of(group) == Scoring::Ratio && group.populations.iter().any(|population| adds(population) && of_numerator(population))
}

/// What a report of this version is held against.
fn defined(definition: &Definition, groups: &[Group]) -> Defined {
    let mut stratifiers = BTreeMap::new();
    for stratifier in groups.iter().flat_map(|group| &group.stratifiers) {
        let is_disjoint = stratifier.kind == StratifierKind::Value && stratifier.policy.is_none();
        let is_disjoint = is_disjoint && stratifiers.get(&stratifier.id.value).copied().unwrap_or(true);
        stratifiers.insert(stratifier.id.value.clone(), is_disjoint);
        stratifiers.extend(stratifier.text.clone().map(|text| (text, is_disjoint)));
    }
    let period = match definition.period {
        Interval::Month => Span::Month,
        Interval::Quarter => Span::Quarter,
        Interval::Year => Span::Year,
    };
    let parameters = definition.parameters.iter().map(|(name, parameter)| (name.clone(), parameter.value.value.text())).collect();
    let chart = definition.chart.as_ref();
    let goal = chart.and_then(|chart| chart.goal?.try_into().ok());
    let lookback_months = chart.and_then(|chart| chart.lookback_months);
    let comparable = definition.comparable_with.iter().cloned().collect();
    let parts = groups
        .iter()
        .flat_map(|group| &group.components)
        .map(|part| (part.measure.value.clone(), part.version.as_ref().map(|version| version.value.clone())))
        .collect();
    let guards = remarks::guards(&definition.plausibility);
    let groups = groups.iter().map(|group| group_card(definition, group, groups.len() == 1)).collect();
    Defined { period: Some(period), groups, parameters, stratifiers, comparable, goal, lookback_months, guards, parts, ..Defined::default() }
}

fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let size = std::fs::metadata(path).map_err(|error| format!("cannot read `{shown}`: {error}"))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("`{shown}` has {size} bytes, at most {FILE_BYTES_MAX} are read"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("cannot read `{shown}`: {error}"))
}

fn keys(written: &str) -> Result<Keys, Failure> {
    if let Ok(url) = url::Url::parse(written)
        && url.has_host()
    {
        let is_safe = url.scheme() == "https" || crate::http::is_loopback(&url);
        return if is_safe {
            Ok(Keys::Url(written.to_owned()))
        } else {
            Err(Failure::usage(format!("`{written}` must be an https address")).hint("keys that anyone could replace on the way prove nothing"))
        };
    }
    let text = read(Path::new(written)).map_err(Failure::configuration)?;
    if text.contains("PRIVATE KEY") {
        return Err(Failure::configuration(format!("`{written}` is a private key; register its public half")).hint(format!("`watershed key public {written}` prints it")));
    }
    let set: Jwks = serde_json::from_str(&text)
        .map_err(|error| Failure::configuration(format!("`{written}` is not a JWK Set: {error}")).hint("expected {\"keys\": [{\"kty\": …, \"kid\": …}]}"))?;
    if set.keys.is_empty() || set.keys.iter().any(|key| key.common.key_id.is_none()) {
        return Err(Failure::configuration(format!("`{written}` must hold at least one key, each with its `kid`")));
    }
    if serde_json::from_str::<serde_json::Value>(&text).ok().is_some_and(|set| {
        set.pointer("/keys")
            .and_then(|keys| keys.as_array())
            .into_iter()
            .flatten()
            .any(|key| key.get("d").is_some() || key.get("k").is_some())
    }) {
        return Err(Failure::configuration(format!("`{written}` holds a private key; register the public half only")).hint("make a new key: this one was shown to the registry"));
    }
    serde_json::to_string(&set).map(Keys::Set).map_err(|error| Failure::bug(error.to_string()))
}

fn list(config: &Path, context: &Context) -> Result<Ending, Failure> {
    let sites = registry::open_store(&data(&load(config)?)).map_err(failure)?.sites().map_err(failure)?;
    match context.format {
        Format::Json => {
            let site = |site: &registry::store::Site| json!({ "name": site.name, "organization": site.organization, "clientId": site.client_id, "heardAt": site.heard.map(|at| at.to_string()) });
            print_json(&json!({ "sites": sites.iter().map(site).collect::<Vec<_>>() }));
        }
        Format::Human => {
            let mut table = comfy_table::Table::new();
            table.load_preset(comfy_table::presets::NOTHING).set_header(["Site", "Organization", "Client", "Last heard of"]);
            for site in &sites {
                let heard = site.heard.map_or_else(|| "never".to_owned(), |at| at.to_string());
                table.add_row([&site.name, &site.organization, &site.client_id, &heard]);
            }
            print(&table.to_string());
        }
    }
    Ok(Ending::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::report::Facts;
    use crate::measure::{Choices, Period};

    /// What a site computes with the IBD measure, one text of its folder changed, and what the registry accepts of it unchanged.
    fn site_and_network(file: &str, from: &str, to: &str) -> (Fingerprint, Defined) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures/ibd/remission");
        let mut folder = measures::read(&path).unwrap();
        let mut texts = std::iter::once(&mut folder.files.definition).chain(&mut folder.files.cql).chain(&mut folder.value_sets);
        let source = texts.find(|source| source.name.ends_with(file)).unwrap();
        assert!(source.text.contains(from), "{file} holds no `{from}`");
        *source = SourceFile::new(source.name.clone(), source.text.replacen(from, to, 1));
        let (loaded, found) = measures::compile(&[folder], &[], &Choices::default());
        let loaded = loaded.unwrap_or_else(|| panic!("{}", diagnostic::render_human(&found, false)));
        let facts = Facts::default();
        let fingerprint = loaded.measures[0].reporter(Period::parse("2026-01").unwrap(), &facts).fingerprint.clone();
        let card = card(&path).map_err(|found| diagnostic::render_human(&found, false)).unwrap();
        (fingerprint, card.definitions.into_values().next().unwrap())
    }

    #[test]
    fn what_a_network_accepts_is_what_a_site_reports_and_what_moves_a_number_makes_it_another() {
        for (file, from, to, [is_same, has_same_codes]) in [
            ("measure.yaml", "title: IBD in remission", "title:   Quiet IBD # for people", [true, true]),
            ("measure.yaml", "    text: Total colectomy", "    text: Colectomy", [true, true]),
            ("measure.yaml", "cannot-tell-percent: 50", "cannot-tell-percent: 60", [true, true]),
            ("measure.yaml", "define: Numerator", "define: Denominator", [false, true]),
            ("measure.yaml", "reason: unmapped-code", "reason: not-documented", [false, true]),
            ("measure.yaml", "  - code: denominator-exclusion\n    define: Denominator Exclusion\n    text: Total colectomy before the latest visit\n", "", [false, true]),
            ("ibd-remission.cql", "define \"Numerator\"", "/* so */ define \"Numerator\"", [true, true]),
            ("total-colectomy.yaml", "      \"26390003\":", "      \"43075005\": \"Partial colectomy\"\n      \"26390003\":", [true, false]),
            ("total-colectomy.yaml", "\"Total colectomy\"", "\"All of the colon\"", [true, true]),
        ] {
            let (site, network) = site_and_network(file, from, to);
            assert!(!site.value_sets.is_empty());
            assert_eq!([site.logic == network.logic, site.value_sets == network.value_sets], [is_same, has_same_codes], "{from} to {to}");
        }
    }

    const COMPOSITE: &str = "id: whole\nurl: http://n.example/Measure/whole\nversion: 1.0.0\nstatus: draft\ntitle: Whole\ndescription: Whole.\nsteward: X\nscoring: composite\n\
        composite-scoring: opportunity\nimprovement: increase\ncomponents:\n  - measure: ibd-remission\n  - { measure: perinatal-early-elective-delivery, version: 1.0.0 }\n";

    #[test]
    fn a_composite_is_another_where_what_it_is_made_of_is() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("measure.yaml"), COMPOSITE).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings/measures");
        let paths = [scratch.path().to_owned(), root.join("ibd/remission"), root.join("perinatal/early-elective-delivery")];
        let site = |from: &str, to: &str| {
            let mut folders: Vec<measures::Folder> = paths.iter().map(|path| measures::read(path).unwrap()).collect();
            for source in folders.iter_mut().flat_map(|folder| folder.files.cql.iter_mut().chain(&mut folder.value_sets)) {
                *source = SourceFile::new(source.name.clone(), source.text.replacen(from, to, 1));
            }
            let (loaded, found) = measures::compile(&folders, &[], &Choices::default());
            let loaded = loaded.unwrap_or_else(|| panic!("{}", diagnostic::render_human(&found, false)));
            let facts = Facts::default();
            loaded.measures[0].reporter(Period::parse("2026-01").unwrap(), &facts).fingerprint.clone()
        };
        let network = |paths: &[PathBuf]| {
            let mut known = Vec::new();
            paths
                .iter()
                .for_each(|path| merge(&mut known, card(path).map_err(|found| diagnostic::render_human(&found, false)).unwrap()));
            compose(&mut known);
            let defined = known.swap_remove(0).definitions.into_values().next().unwrap();
            assert_eq!(defined.lookback_months, Some(13), "remission counts patients of 13 months, so the whole does");
            Fingerprint { logic: defined.logic, value_sets: defined.value_sets }
        };
        let same = site("define \"Numerator\"", "/* so */ define \"Numerator\"");
        assert!(same.logic[0].starts_with("numbers(cql+numbers, cql+numbers):") && same.logic[1].starts_with("meaning:") && !same.value_sets.is_empty(), "{same:?}");
        assert_eq!(network(&paths), same);
        assert_ne!(network(&paths).logic, site(".answer ~ \"Quiescent\"\n", ".answer !~ \"Quiescent\"\n").logic);
        let other_codes = site("      \"26390003\":", "      \"43075005\": \"Partial colectomy\"\n      \"26390003\":");
        assert!(other_codes.logic == same.logic && other_codes.value_sets != same.value_sets);
        // Without one of its parts nothing can be said, and nothing is refused for it.
        assert!(network(&paths[..2]).logic.is_empty());
    }

    #[test]
    fn a_ratio_of_amounts_is_none_of_counts() {
        let card = |of: &str, aggregate: &str, rate: &str| {
            let text = format!(
                "id: x\nurl: http://n.example/Measure/x\nversion: 1.0.0\nstatus: draft\ntitle: X\ndescription: X.\nsteward: X\nscoring: ratio\nbasis: Encounter\nimprovement: decrease\n\
                 {rate}populations:\n  - {{ code: initial-population, define: I }}\n  - {{ code: denominator, define: D }}\n  \
                 - {{ code: numerator, define: N }}\n  - {{ code: measure-observation, define: Days, of: {of}, aggregate: {aggregate} }}\n"
            );
            let (definition, found) = definition::parse(&SourceFile::new("measure.yaml", text));
            card_of(&definition.unwrap_or_else(|| panic!("{}", diagnostic::render_human(&found, false))))
        };
        let amounts = |of: &str, aggregate: &str| card(of, aggregate, "rate: { multiplier: 1000, unit: \"per 1,000 days\" }\n").sums;
        assert_eq!(amounts("numerator", "sum"), [String::new()].into());
        assert_eq!(amounts("numerator", "count"), [].into());
        assert_eq!(amounts("denominator", "sum"), [].into(), "infections in line days");
        assert_eq!(card("numerator", "sum", "").unit, Unit::Rate { per: 1, of: String::new() }, "observed by expected is no percentage");
    }

    #[test]
    fn a_cohort_is_counted_whatever_stands_beside_it() {
        let cohort = "  - id: all\n    scoring: cohort\n    populations: [{ code: initial-population, define: I }]\n";
        let share = "  - id: share\n    populations: [{ code: initial-population, define: I }, { code: denominator, define: D }, { code: numerator, define: N }]\n";
        let units = |groups: &str| {
            let head = "id: x\nurl: http://n.example/Measure/x\nversion: 1.0.0\nstatus: draft\ntitle: X\ndescription: X.\nsteward: X\nscoring: proportion\nimprovement: increase\n";
            let (definition, found) = definition::parse(&SourceFile::new("measure.yaml", format!("{head}groups:\n{groups}")));
            let card = card_of(&definition.unwrap_or_else(|| panic!("{}", diagnostic::render_human(&found, false))));
            [card.unit.clone(), card.unit_of("all")]
        };
        assert_eq!(units(cohort), [Unit::Count, Unit::Count]);
        assert_eq!(units(&format!("{cohort}{share}")), [Unit::Percent, Unit::Count]);
    }

    #[test]
    fn a_network_accepts_measures_as_they_are_published() {
        let folder = tempfile::tempdir().unwrap();
        let population = |code: &str| json!({ "code": { "coding": [{ "code": code }] }, "criteria": { "language": "text/cql-identifier", "expression": "All" } });
        let populations = ["initial-population", "denominator", "numerator"].map(population);
        let group = |id: &str| json!({ "id": id, "population": populations });
        let resources = [
            json!({ "resourceType": "Library", "id": "l", "url": "http://n.example/Library/l", "version": "1", "name": "L", "status": "active",
                "content": [{ "contentType": "text/cql", "data": "bGlicmFyeSBMIHZlcnNpb24gJzEn" }] }),
            json!({ "resourceType": "Measure", "id": "rates", "url": "http://n.example/Measure/rates", "version": "2.1.0", "status": "active", "title": "Two rates",
                "library": ["http://n.example/Library/l|1"], "scoring": { "coding": [{ "code": "proportion" }] },
                "improvementNotation": { "coding": [{ "code": "decrease" }] }, "group": [group("first"), group("second")] }),
        ];
        let entries = resources.map(|resource| json!({ "resource": resource }));
        let bundle = json!({ "resourceType": "Bundle", "type": "collection", "entry": entries });
        let path = folder.path().join("bundle.json");
        std::fs::write(&path, bundle.to_string()).unwrap();
        for named in [path.as_path(), folder.path()] {
            let cards = cards(named).map_err(|found| diagnostic::render_human(&found, false)).unwrap();
            let card = &cards[0];
            assert_eq!((cards.len(), card.id.as_str(), card.url.as_str()), (1, "rates", "http://n.example/Measure/rates"));
            assert_eq!((card.versions.as_slice(), card.title.as_str(), card.higher_is_better), (&["2.1.0".to_owned()][..], "Two rates", Some(false)));
        }
        std::fs::write(&path, "{}").unwrap();
        assert!(cards(folder.path()).unwrap_err()[0].message.contains("holds no `measure.yaml` and no FHIR Measure"));
    }
}
