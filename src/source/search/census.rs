//! What the server counts of each type, beside what came of it: an export or a search that leaves something out says nothing
//! of that. And what came, but not as it should have: no patient, nothing with a code that is asked for.

use super::ask::{Ask, try_post};
use super::page::{self, Bundle, Item, counted};
use super::part::instant;
use super::recount::{IDS_PER_QUERY, kept_name};
use super::refer::wanted_references;
use super::{absent, lists, named};
use crate::fhir::compartment::patient_required;
use crate::http::HttpError;
use crate::snapshot::Prepared;
use crate::source::account::VOLUME_MIN;
use crate::source::capability::Capability;
use crate::source::duty::{Code, Why};
use crate::source::filter::may_have_code;
use crate::source::ledger::{self, Recorded, Unit};
use crate::source::plan::{Narrowing, Plan, Query};
use crate::source::probe::impossible;
use crate::source::pull::{Pull, note};
use crate::source::{Gap, SourceError};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// Patients of a Group of whom one request asks.
pub(in crate::source) const PATIENTS_PER_COUNT: usize = 500;
/// Resources that are asked for by their ids, where a number is too small for what came.
pub(super) const VANISHED_MAX: usize = 500;
/// One resource in so many may come or go while everything is read, where a count cannot be bounded by time.
const DRIFT: u64 = 100;
/// So many of a type are referred to before it says something that none of them is there.
const REFERRED_MIN: usize = 3;
/// How a number is asked for, the better way first.
pub(super) const WAYS: [&[(&str, &str)]; 2] = [&[("_summary", "count")], &[("_total", "accurate"), ("_count", "1")]];
/// Attempts at a number: it is worth some seconds, and not a night.
const ATTEMPTS_MAX: u32 = 3;
/// Refusals of the way, after which the other one is tried.
const NOT_UNDERSTOOD: [u16; 3] = [400, 422, 501];

/// Something that came otherwise than it should have.
pub(in crate::source) struct Doubt {
    pub resource_type: String,
    pub why: Why,
    /// The configuration answers it.
    pub is_settled: bool,
}

impl Doubt {
    fn new(resource_type: &str, code: Code, text: String) -> Doubt {
        Doubt { resource_type: resource_type.to_owned(), why: Why::new(code, text), is_settled: false }
    }
}

/// The questions about what a pull of everything brings, each with the narrowing of what is pulled. Of a Group's patients the
/// list of its members tells more.
pub(in crate::source) fn questions(plan: &Plan, capability: &Capability) -> Vec<Query> {
    let exported = plan.export.iter().flat_map(|export| {
        export.types.iter().map(|name| Query {
            name: name.clone(),
            resource_type: name.clone(),
            parameters: export.parameters(name),
            by_patient: capability.patient_parameter(name).filter(|_| !plan.cohort.is_everybody()).map(str::to_owned),
            incremental: false,
            one_by_one: false,
            later: None,
        })
    });
    let comparable = |query: &Query| plan.cohort.is_everybody() || plan.finds_patients(query) || query.by_patient.as_deref().is_some_and(|parameter| parameter != "_id");
    exported.chain(plan.queries.iter().cloned()).filter(comparable).collect()
}

/// Asks how many there are of what was read in full, each question once.
pub(in crate::source) async fn take(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    let units = ledger::units(pull.snapshot.store(), pull.id)?;
    try_post(pull, pull.members.iter().flatten()).await?;
    let asked = questions(pull.plan, &pull.source.capability).into_iter().filter(|query| pull.reads_whole(&query.resource_type));
    let open: Vec<Query> = asked.filter(|query| is_open(pull, &units, query)).collect();
    for query in &open {
        let until = bound(pull, &units, &query.resource_type);
        if let Some(Some(some)) = batches(pull, query).first() {
            lists::heeded(pull, query, some).await?;
        }
        for patients in batches(pull, query) {
            let name = patients.as_ref().map_or_else(|| format!("count {}", query.name), |ids| named("count", query, ids));
            if pull.done.contains(&name) {
                continue;
            }
            let counted = ask(pull, query, patients.as_deref(), until, &[]).await?;
            pull.record(&ledger::count_unit(&name, &query.resource_type, &query.name, counted))?;
            pull.done.insert(name);
        }
    }
    Ok(())
}

/// Whether a count can tell more than is known: what has a gap is known not to be all, and what came on pages with a total was
/// compared with that. What was asked for of some patients only is not counted.
fn is_open(pull: &Pull<'_>, units: &[Recorded], query: &Query) -> bool {
    let mut own = units.iter().filter(|unit| unit.resource_type == query.resource_type);
    let mut of_query = units.iter().filter(|unit| unit.query == query.name).peekable();
    let is_told = pull.plan.export.is_none() && of_query.peek().is_some() && of_query.all(|unit| unit.expected.is_some());
    let is_of_some = pull.later.contains_key(&query.resource_type);
    let is_taken = |parameter: &String| pull.source.capability.declares(&query.resource_type, parameter) != Some(false);
    query.by_patient.as_ref().is_none_or(is_taken)
        && !is_told
        && !is_of_some
        && !pull.source.options.unstable_ids.contains(&query.resource_type)
        && own.all(|unit| unit.gap.is_none())
}

/// The patients to ask of at a time; one question for all where none are named.
fn batches(pull: &Pull<'_>, query: &Query) -> Vec<Option<Vec<String>>> {
    if query.by_patient.is_none() {
        return vec![None];
    }
    let of_some = pull.later.get(&query.resource_type).map(|asked| &asked.covered);
    let members: Vec<String> = of_some.or(pull.members.as_ref()).into_iter().flatten().cloned().collect();
    let at_once = pull.habits.lists.at_once(&query.resource_type, query.by_patient.as_ref(), PATIENTS_PER_COUNT);
    members.chunks(at_once).map(|some| Some(some.to_vec())).collect()
}

/// When the reading of a type began: what was there by then and has not changed since must have come, whatever was entered
/// meanwhile. `None` where the server cannot be asked so.
fn bound(pull: &Pull<'_>, units: &[Recorded], resource_type: &str) -> Option<Timestamp> {
    let is_known = pull.source.capability.declares(resource_type, "_lastUpdated") == Some(true);
    units.iter().filter(|unit| is_known && unit.resource_type == resource_type).filter_map(|unit| unit.server_time).min()
}

/// How many there are of what a query finds, of some patients, unchanged since an instant; `None` if the server does not say.
pub(super) async fn ask(pull: &Pull<'_>, query: &Query, patients: Option<&[String]>, until: Option<Timestamp>, more: &[(&str, &str)]) -> Result<Option<u64>, SourceError> {
    let lists = &pull.habits.lists;
    if lists.is_singly(&query.resource_type, "code") && query.list_of_codes().is_some() {
        return Ok(None);
    }
    let mut parameters = query.parameters.clone();
    let joined = |parameter: &String| patients.map(|patients| lists.joined(&query.resource_type, parameter, patients));
    parameters.extend(query.by_patient.clone().zip(query.by_patient.as_ref().and_then(joined)));
    parameters.extend(until.map(|until| ("_lastUpdated".to_owned(), format!("lt{}", instant(until)))));
    parameters.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    if let Some(some) = patients.filter(|some| some.len() > 1)
        && pull.habits.no_post.load(Ordering::Relaxed)
        && Ask::first(pull, &parameters, &query.resource_type, false)?.is_long()
    {
        // Each resource is one patient's: what fits into no address is counted in halves.
        let (first, second) = some.split_at(some.len() / 2);
        let Some(counted) = Box::pin(ask(pull, query, Some(first), until, more)).await? else { return Ok(None) };
        return Ok(Box::pin(ask(pull, query, Some(second), until, more)).await?.map(|rest| counted + rest));
    }
    let names_patients = patients.is_some() && (query.by_patient.as_deref() != Some("_id") || query.resource_type == "Patient");
    send(pull, &query.resource_type, &parameters, names_patients).await
}

/// The resources of these ids among what a query finds, all on one page; `None` if they cannot be had so.
pub(super) async fn page_of(pull: &Pull<'_>, query: &Query, ids: &[String]) -> Result<Option<Bundle>, SourceError> {
    let (habits, name) = (&pull.habits, &query.resource_type);
    let mut parameters = query.parameters.clone();
    parameters.extend([("_id".to_owned(), ids.join(",")), ("_count".to_owned(), ids.len().to_string())]);
    let by_post = name == "Patient" || Ask::first(pull, &parameters, name, false)?.is_long();
    if by_post && habits.no_post.load(Ordering::Relaxed) || habits.lists.is_singly(name, "_id") {
        return Ok(None);
    }
    match Ask::first(pull, &parameters, name, by_post)?
        .send_at_most(pull, !habits.lenient.load(Ordering::Relaxed), ATTEMPTS_MAX)
        .await
    {
        Ok(answer) => Ok(Bundle::read(&answer.body).filter(|page| answer.is_success() && page.link("next").is_none())),
        Err(error @ (HttpError::Token(_) | HttpError::Unauthorized { .. } | HttpError::NotNow(_))) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Those of some patients, many at a time, of whom the server does not say that they have nothing of what a query asks for.
pub(super) async fn who_has_any(pull: &Pull<'_>, query: &Query, patients: &BTreeSet<String>) -> Result<BTreeSet<String>, SourceError> {
    let since = pull.since.filter(|_| query.incremental).map(|since| format!("ge{}", instant(since)));
    let more: Vec<(&str, &str)> = since.iter().map(|since| ("_lastUpdated", since.as_str())).collect();
    let all: Vec<String> = patients.iter().cloned().collect();
    let mut found = BTreeSet::new();
    for some in all.chunks(pull.habits.lists.at_once(&query.resource_type, query.by_patient.as_ref(), PATIENTS_PER_COUNT)) {
        if ask(pull, query, Some(some), None, &more).await? != Some(0) {
            found.extend(some.iter().cloned());
        }
    }
    Ok(found)
}

/// The same of everybody who was asked for.
async fn ask_all(pull: &Pull<'_>, query: &Query, until: Option<Timestamp>, more: &[(&str, &str)]) -> Result<Option<u64>, SourceError> {
    let mut sum = 0;
    for patients in batches(pull, query) {
        let asked = format!("{query:?} {patients:?} {until:?} {more:?}");
        let Some(counted) = once(pull, &query.resource_type, &asked, ask(pull, query, patients.as_deref(), until, more)).await? else { return Ok(None) };
        sum += counted;
    }
    Ok(Some(sum))
}

/// The answer to a question that is asked once in a pull, however many nights that takes.
pub(super) async fn once(pull: &Pull<'_>, resource_type: &str, asked: &str, question: impl Future<Output = Result<Option<u64>, SourceError>>) -> Result<Option<u64>, SourceError> {
    let about = format!("question {}", crate::store::sha256_hex(asked.as_bytes()));
    kept(pull, resource_type, (&format!("count {about}"), &about), question).await
}

/// The same, kept under a name, with words what it is about.
pub(super) async fn kept(
    pull: &Pull<'_>,
    resource_type: &str,
    (name, about): (&str, &str),
    question: impl Future<Output = Result<Option<u64>, SourceError>>,
) -> Result<Option<u64>, SourceError> {
    if let Some(answer) = ledger::answer(pull.snapshot.store(), pull.id, name)? {
        return Ok(answer);
    }
    let answer = question.await?;
    pull.record(&ledger::count_unit(name, resource_type, about, answer))?;
    Ok(answer)
}

/// Asks for a number in the ways that this server may know. An answer that leaves out a parameter is about something else.
pub(super) async fn send(pull: &Pull<'_>, resource_type: &str, parameters: &[(String, String)], names_patients: bool) -> Result<Option<u64>, SourceError> {
    let habits = &pull.habits;
    let may_post = !habits.no_post.load(Ordering::Relaxed);
    let known = habits.uncounted.load(Ordering::Relaxed);
    for (number, way) in WAYS.iter().enumerate().skip(known) {
        let asked: Vec<(String, String)> = parameters.iter().cloned().chain(way.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))).collect();
        let ask = |by_post| Ask::first(pull, &asked, resource_type, by_post);
        let is_long = ask(false)?.is_long();
        if is_long && !may_post {
            return Ok(None);
        }
        let by_post = may_post && (names_patients || is_long);
        let answer = match ask(by_post)?.send_at_most(pull, !habits.lenient.load(Ordering::Relaxed), ATTEMPTS_MAX).await {
            Ok(answer) => answer,
            Err(error) if error.ends_all() => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        if NOT_UNDERSTOOD.contains(&answer.status) {
            continue;
        }
        let Some(bundle) = Bundle::read(&answer.body).filter(|_| answer.is_success()) else { return Ok(None) };
        if !bundle.ignored(&answer.url, parameters.iter().map(|(name, _)| name.as_str())).is_empty() {
            return Ok(None);
        }
        let total = if number == 0 { counted(&answer) } else { bundle.total() };
        if total.is_some() {
            return Ok(total);
        }
        habits.uncounted.fetch_max(number + 1, Ordering::Relaxed);
    }
    Ok(None)
}

/// In a night of changes, how many of those who are named neither came nor are stored: nobody else knows of them.
fn unknown(pull: &Pull<'_>, units: &[Recorded], broken: &BTreeSet<&str>) -> Result<u64, SourceError> {
    let is_asked = pull.members.is_some() && !pull.reads_whole("Patient") && !broken.contains("Patient");
    Ok(if is_asked { absent::now(pull, units)?.len() as u64 } else { 0 })
}

/// What came otherwise than it should have of what was read whole, and who is named and not there.
pub(in crate::source) async fn doubts(pull: &Pull<'_>, units: &[Recorded], imported: &[Recorded], prepared: &Prepared) -> Result<Vec<Doubt>, SourceError> {
    let broken: BTreeSet<&str> = units.iter().filter(|unit| unit.gap.is_some()).map(|unit| unit.resource_type.as_str()).collect();
    let mut doubts = short(pull, units, &broken, prepared).await?;
    let is_whole = |doubts: &[Doubt], name: &str| pull.reads_whole(name) && !broken.contains(name) && !doubts.iter().any(|doubt| doubt.resource_type == name);
    if !prepared.present.contains_key("Patient") && is_whole(&doubts, "Patient") {
        doubts.push(Doubt::new("Patient", Code::NoPatients, "no patient came at all, nor an error: a right, a Group or a filter that hides them".to_owned()));
    }
    let absent = if is_whole(&doubts, "Patient") { prepared.absent } else { unknown(pull, units, &broken)? };
    if absent > 0 {
        let (members, (code, whom)) = (pull.members.as_ref().map_or(0, BTreeSet::len), pull.plan.absent());
        doubts.push(Doubt::new("Patient", code, format!("{absent} of the {members} {whom} did not come")));
    }
    for (name, narrowing) in pull.plan.narrowed.iter().filter(|(name, _)| is_whole(&doubts, name)).collect::<Vec<_>>() {
        doubts.extend(narrowed(pull, units, name, narrowing, came(units, prepared, name)).await?);
    }
    for name in pull
        .plan
        .referenced
        .iter()
        .filter(|name| !prepared.present.contains_key(*name) && is_whole(&doubts, name))
        .collect::<Vec<_>>()
    {
        let referred_to = wanted_references(pull, &BTreeSet::from([name.clone()]))?.len();
        if referred_to >= REFERRED_MIN {
            let text = format!("none of the {referred_to} that others refer to is there: some servers say so of what this client may not see");
            doubts.push(Doubt::new(name, Code::Unseen, text));
        }
    }
    for (name, codes) in pull.plan.codes.iter().filter(|(name, _)| is_whole(&doubts, name)).collect::<Vec<_>>() {
        let there = uncoded(pull, units, name, codes, prepared.present.get(name).copied().unwrap_or_default()).await?;
        // A hospital that keeps these outside the EHR has them in an import; of one that is not whole nobody knows.
        let is_untold = imported.iter().any(|unit| unit.resource_type == *name && unit.gap.is_some());
        if there >= VOLUME_MIN && !is_untold && !is_coded(pull, imported, name, codes)? {
            doubts.push(Doubt::new(name, Code::Uncoded, format!("none of the {there} has a code that the measures ask for")));
        }
    }
    Ok(doubts)
}

/// How many came of a type; what was refused did, and is told of.
fn came(units: &[Recorded], prepared: &Prepared, name: &str) -> u64 {
    let refused: u64 = units
        .iter()
        .filter(|unit| unit.resource_type == name || unit.resource_type == "*")
        .map(|unit| unit.quarantined + unit.discarded)
        .sum();
    prepared.present.get(name).copied().unwrap_or_default() + refused
}

/// Whether there is more of a type than the configuration lets the search ask for.
async fn narrowed(pull: &Pull<'_>, units: &[Recorded], name: &str, narrowing: &Narrowing, came: u64) -> Result<Option<Doubt>, SourceError> {
    let of_query = pull.plan.queries.iter().find(|query| query.resource_type == name);
    let by_patient = |query: &Query| if pull.later.contains_key(name) { query.later.clone() } else { query.by_patient.clone() };
    let Some(query) = of_query.map(|query| Query { parameters: narrowing.whole.clone(), by_patient: by_patient(query), ..query.clone() }) else { return Ok(None) };
    let (shown, until) = (&narrowing.shown, bound(pull, units, name));
    let all = match ask_all(pull, &query, until, &[]).await? {
        None if until.is_some() => ask_all(pull, &query, None, &[]).await?,
        all => all,
    };
    let doubt = |text: String| Doubt::new(name, Code::Narrowed, text);
    Ok(match all {
        Some(all) if all > came && (until.is_some() || (all - came).saturating_mul(DRIFT) > all) => {
            Some(doubt(format!("{came} of the {all} that the server counts: `source.parameters` asks for {shown} only")))
        }
        Some(_) => None,
        None if is_refused(pull, &query).await? => {
            let text = format!("the server searches it with parameters only, and by the configuration {shown} are all that this hospital uses");
            Some(Doubt { is_settled: true, ..doubt(text) })
        }
        None => Some(doubt(format!("`source.parameters` asks for {shown} only, and the server does not say how many there are beside these"))),
    })
}

/// Whether the server refuses a search because it lacks a parameter.
async fn is_refused(pull: &Pull<'_>, query: &Query) -> Result<bool, SourceError> {
    let patients = batches(pull, query).into_iter().next().flatten();
    let mut parameters = query.parameters.clone();
    parameters.extend(query.by_patient.clone().zip(patients.as_ref().map(|patients| patients.join(","))));
    parameters.push(("_count".to_owned(), "1".to_owned()));
    let by_post = patients.is_some() && !pull.habits.no_post.load(Ordering::Relaxed);
    match Ask::first(pull, &parameters, &query.resource_type, by_post)?.send(pull, false, false).await {
        Ok(answer) => Ok(page::issue_code(&answer.body).as_deref() == Some("required")),
        Err(error) if error.ends_all() => Err(error.into()),
        Err(_) => Ok(false),
    }
}

/// Types of which fewer came than the server counts.
async fn short(pull: &Pull<'_>, units: &[Recorded], broken: &BTreeSet<&str>, prepared: &Prepared) -> Result<Vec<Doubt>, SourceError> {
    let counts = ledger::counted(pull.snapshot.store(), pull.id)?;
    let mut doubts: Vec<Doubt> = Vec::new();
    let questions = questions(pull.plan, &pull.source.capability);
    for query in questions.iter().filter(|query| pull.reads_whole(&query.resource_type)) {
        let name = query.resource_type.as_str();
        let Some(counted) = counts.get(&query.name).copied().filter(|_| !broken.contains(name) && !pull.later.contains_key(name)) else { continue };
        let came = came(units, prepared, name);
        // Later numbers are held against one that is wrong.
        let keep = |counted| pull.record(&Unit { received: came, ..ledger::count_unit(&kept_name(name), name, "what is kept", Some(counted)) });
        if came < counted && !doubts.iter().any(|doubt| doubt.resource_type == name) {
            match confirm(pull, query, bound(pull, units, name), came, counted).await? {
                Some(counted) => doubts.push(Doubt::new(name, Code::Counted, format!("{came} came where the server itself counts {counted}"))),
                None => keep(counted)?,
            }
        } else if is_far_below(counted, came) && questions.iter().filter(|other| other.resource_type == name).count() == 1 {
            // What was entered meanwhile is in no number of what was there before.
            let all = ask_all(pull, query, None, &[]).await?;
            if let Some(all) = all.filter(|all| is_far_below(*all, came)) {
                // What was deleted while the rest was read is missed the next night, and looked for.
                if !has_vanished(pull, units, query).await? {
                    keep(all)?;
                }
            }
        }
    }
    Ok(doubts)
}

/// Whether some of what came of a type is not there any more, as far as so many can be asked for by their ids.
async fn has_vanished(pull: &Pull<'_>, units: &[Recorded], query: &Query) -> Result<bool, SourceError> {
    let name = &query.resource_type;
    let files: Vec<String> = units.iter().filter_map(|unit| unit.file.clone()).collect();
    let mut ids: BTreeSet<String> = BTreeSet::new();
    pull.snapshot.staged(pull.id, &files, |header, _| {
        if !header.removed && header.resource_type == *name {
            ids.insert(header.id.clone());
        }
        Ok(())
    })?;
    if !pull.plan.by_id.contains(name) || ids.len() > VANISHED_MAX {
        return Ok(false);
    }
    let (ids, by_id) = (ids.into_iter().collect::<Vec<_>>(), Query { by_patient: Some("_id".to_owned()), incremental: false, ..query.clone() });
    for some in ids.chunks(IDS_PER_QUERY) {
        let Some(page) = page_of(pull, &by_id, some).await? else { return Ok(false) };
        let came = page
            .items(name)
            .filter_map(|item| if let Item::Match(json) = item { page::id_of(json) } else { None })
            .collect::<BTreeSet<_>>();
        if some.iter().any(|id| !came.contains(id)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a number is too small for what came, whatever was entered meanwhile.
fn is_far_below(counted: u64, came: u64) -> bool {
    came.saturating_sub(counted).saturating_mul(DRIFT) > came
}

/// Asks again, and whether the server means what it says. The number, if more than came is believed to be there.
pub(super) async fn confirm(pull: &Pull<'_>, query: &Query, until: Option<Timestamp>, came: u64, counted: u64) -> Result<Option<u64>, SourceError> {
    let counted = ask_all(pull, query, until, &[]).await?.unwrap_or(counted);
    if came >= counted {
        return Ok(None);
    }
    let parameter = pull.source.capability.patient_parameter(&query.resource_type).filter(|parameter| *parameter != "_id");
    if let Some(parameter) = parameter.filter(|_| pull.plan.export.is_some() && query.by_patient.is_none()) {
        // What is of no patient is in no export of patients.
        let of_patients = ask_all(pull, query, until, &[(&format!("{parameter}:missing"), "false")]).await?;
        if of_patients.map_or(!patient_required(&query.resource_type), |of_patients| came >= of_patients) {
            return Ok(None);
        }
    }
    let narrowing = query.parameters.iter().map(|(name, _)| name.as_str()).chain(query.by_patient.as_deref());
    for name in narrowing.collect::<BTreeSet<&str>>() {
        if ignores(pull, query, name).await? {
            tracing::warn!(pull = pull.id.0, query = %query.name, came, counted, ignored = name, "the server counts more than came, but not what was asked for");
            return Ok(None);
        }
    }
    let is_bounded = until.is_some() && !ignores(pull, query, "_lastUpdated").await?;
    let is_drift = !is_bounded && (counted - came).saturating_mul(DRIFT) <= counted;
    Ok((!is_drift).then_some(counted))
}

/// Whether a count heeds a parameter: of what cannot be there is nothing.
pub(super) async fn ignores(pull: &Pull<'_>, query: &Query, parameter: &str) -> Result<bool, SourceError> {
    let Some(value) = impossible(&query.resource_type, parameter) else { return Ok(false) };
    let rest = query.parameters.iter().filter(|(name, _)| name != parameter).cloned();
    let parameters: Vec<(String, String)> = rest.chain([(parameter.to_owned(), value.to_owned())]).collect();
    let asked = format!("{} {parameters:?}", query.resource_type);
    let counted = once(pull, &query.resource_type, &asked, send(pull, &query.resource_type, &parameters, false)).await?;
    Ok(counted.is_some_and(|counted| counted > 0))
}

/// Says of what was asked for that there has never been any of it: a right that hides a type may say nothing else.
pub(in crate::source) fn tell_empty(pull: &Pull<'_>, imported: &[Recorded], prepared: &Prepared, sound: &BTreeSet<String>, notes: &mut Vec<Gap>) -> Result<(), SourceError> {
    let stored = pull.snapshot.counts()?;
    let is_there = |name: &str| stored.get(name).is_some_and(|stored| *stored > 0) || prepared.present.contains_key(name);
    let is_of_nobody = |name: &str| pull.later.get(name).is_some_and(|asked| asked.covered.is_empty());
    let is_imported = |name: &str| imported.iter().any(|unit| unit.resource_type == name);
    let told: BTreeSet<String> = notes.iter().map(|note| note.resource_type.clone()).collect();
    // Where nobody is there is nothing of anybody.
    if !is_there("Patient") {
        return Ok(());
    }
    let asked = sound.iter().filter(|name| !pull.plan.referenced.contains(*name) && !told.contains(*name));
    for name in asked.filter(|name| !is_there(name) && !is_of_nobody(name) && !is_imported(name)) {
        let of_code = if pull.plan.is_narrowed(name) { " with a code that is asked for" } else { "" };
        let readers = pull.plan.readers.get(name).map(|readers| readers.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", "));
        let read_by = readers.map_or_else(String::new, |readers| format!("; read by {readers}"));
        let never = if pull.plan.cohort.is_everybody() { "there has never been any" } else { "the patients who are named have never had any" };
        note(pull, notes, name, "never any", Why::new(Code::Empty, format!("{never}{of_code}{read_by}")))?;
    }
    Ok(())
}

/// How many there are of a type of which `came` came, if none of them has a code that is asked for; else none.
async fn uncoded(pull: &Pull<'_>, units: &[Recorded], name: &str, codes: &BTreeSet<String>, came: u64) -> Result<u64, SourceError> {
    if !pull.plan.is_narrowed(name) {
        return Ok(if came >= VOLUME_MIN && !is_coded(pull, units, name, codes)? { came } else { 0 });
    }
    let mut most = 0;
    for query in questions(pull.plan, &pull.source.capability).into_iter().filter(|query| came == 0 && query.resource_type == name) {
        // Those who were asked for may have none; somebody has.
        if pull.later.contains_key(name) && ask_all(pull, &query, None, &[]).await? != Some(0) {
            return Ok(0);
        }
        let parameters = query.parameters.iter().filter(|(name, _)| name != "code").cloned().collect();
        let whole = Query { parameters, ..query };
        most = most.max(ask_all(pull, &whole, None, &[]).await?.unwrap_or(0));
    }
    Ok(most)
}

/// Whether anything that came of a type has one of these codes. In most files the first has.
fn is_coded(pull: &Pull<'_>, units: &[Recorded], name: &str, codes: &BTreeSet<String>) -> Result<bool, SourceError> {
    let mut is_coded = false;
    let of_type = units.iter().filter(|unit| unit.resource_type == name || unit.resource_type == "*");
    for file in of_type.filter_map(|unit| unit.file.clone()) {
        pull.snapshot.staged(pull.id, &[file], |header, json| {
            is_coded = is_coded || (!header.removed && header.resource_type == name && may_have_code(json, codes));
            Ok(())
        })?;
        if is_coded {
            break;
        }
    }
    Ok(is_coded)
}
