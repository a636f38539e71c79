//! Search: which queries are sent for whom, and what is learnt of the server on the way.

pub(super) mod absent;
mod ask;
mod by_patient;
pub(super) mod census;
mod course;
mod cut;
mod deleted;
mod found;
pub(super) mod later;
mod lists;
mod members;
mod page;
mod part;
mod place;
mod reading;
pub(super) mod recount;
pub(super) mod refer;
pub(super) mod roll;
pub(super) mod sample;
mod tally;

use super::capability::Capability;
use super::cohort::Cohort;
use super::duty::{Code, Why};
use super::ledger::{self, Opened, Unit};
use super::plan::Query;
use super::probe::Fact;
use super::pull::Pull;
use super::{Source, SourceError};
use crate::store::Store;
use cut::List;
use futures_util::StreamExt as _;
use part::Span;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

pub(super) use ask::next_address;
pub(super) use members::{IDENTIFIERS_PER_QUERY, count_members, read_members};
pub(super) use page::{Bundle, Item, code_of, counted, forbidden_type, id_and_time, issue_code, issue_shown, worst_issue};
pub(super) use part::instant;
pub(super) use refer::{hydrate, look_again, wanted_references};

/// Categories by which a type is asked for where the server does not search it without one: those of US Core and of
/// FHIR's own code systems.
const CATEGORIES: &[(&str, &[&str])] = &[
    ("CarePlan", &["assess-plan"]),
    ("Condition", &["problem-list-item", "encounter-diagnosis", "health-concern"]),
    ("DiagnosticReport", &["LAB", "RAD", "LP29684-5", "LP29708-2", "LP7839-6"]),
    ("DocumentReference", &["clinical-note"]),
    ("Observation", &["laboratory", "vital-signs", "social-history", "survey", "exam", "imaging", "procedure", "therapy", "activity"]),
];

/// A unit to fetch.
#[derive(Clone)]
struct Task<'a> {
    query: &'a Query,
    name: String,
    patients: Option<Vec<String>>,
    since: bool,
    /// The category asked for, where the server demands one.
    category: Option<&'static str>,
    /// The times of change asked for, beside the changes.
    span: Span,
}

impl Task<'_> {
    fn unit(&self) -> Unit {
        let query = self.category.map_or_else(|| self.query.name.clone(), |category| format!("{} of category {category}", self.query.name));
        Unit { name: self.name.clone(), resource_type: self.query.resource_type.clone(), query, ..Unit::default() }
    }

    /// Whether it asks for resources by their ids.
    fn is_by_id(&self) -> bool {
        self.query.by_patient.as_deref() == Some("_id")
    }

    /// Whether patients' ids are in it, which do not belong into an address.
    fn names_patients(&self) -> bool {
        self.patients.is_some() && (!self.is_by_id() || self.query.resource_type == "Patient")
    }

    fn asks_for_category(&self) -> bool {
        self.category.is_some() || self.query.parameters.iter().any(|(name, _)| name == "category")
    }
}

/// Why the server does not search at all.
#[derive(Clone, Debug)]
struct Refusal {
    status: u16,
    reason: Why,
    /// It says that a parameter is missing.
    needs_category: bool,
}

/// What a pull has learnt of its server.
#[derive(Default)]
pub(super) struct Habits {
    /// Searches by POST do not work.
    no_post: AtomicBool,
    /// Searches by GET do not.
    only_post: AtomicBool,
    /// Whether those by POST do was tried.
    post_tried: tokio::sync::OnceCell<()>,
    /// Files of exports are meant from the base, where the manifest names them relatively.
    files_from_base: AtomicBool,
    /// Strict handling is refused.
    lenient: AtomicBool,
    /// Links to further pages of long lists are forgotten.
    forgets_links: AtomicBool,
    /// Searches are not sorted by times of change.
    unsorted: AtomicBool,
    /// Ways to ask for a number that bring none.
    uncounted: AtomicUsize,
    /// The members of the Group.
    members: OnceLock<BTreeSet<String>>,
    /// Why not all of them are known.
    unnamed: OnceLock<Why>,
    /// That some are not found any more of whom it is known who they were.
    lost: OnceLock<Why>,
    /// Whom the site's list names, where it could be read.
    roll: OnceLock<roll::Roll>,
    /// Those who were members when everything was read of them, and are no more.
    left: BTreeSet<String>,
    /// Units that are not asked for again in this pull.
    lacked: BTreeSet<String>,
    /// What searches name as deleted.
    named: deleted::Named,
    /// Resources on a page, above which the server refuses it; 0: not known.
    page_max: AtomicU32,
    /// Lists of values.
    lists: lists::Lists,
    types: Mutex<TypeHabits>,
}

#[derive(Default)]
struct TypeHabits {
    /// Types that are searched by category only.
    by_category: BTreeSet<String>,
    /// Queries of which parameters are ignored; it is said once.
    ignoring: BTreeSet<String>,
    /// Types that are not searched by code and patient at once: the code is looked for here.
    without_code: BTreeSet<String>,
    /// Types that can perhaps be read, but not searched.
    unsearchable: BTreeSet<String>,
    /// Types that are refused whoever's they are, and how.
    refused: BTreeMap<String, Why>,
}

impl Habits {
    /// What a check has found out, and what no right was granted to; of lists what earlier nights found, but where everything is read.
    pub fn of(source: &Source, store: &Store, opened: &Opened) -> Result<Habits, SourceError> {
        let Capability { no_post, forgets_links, at_once, .. } = &source.capability;
        let types = TypeHabits { refused: source.withheld.clone(), ..TypeHabits::default() };
        let lists = if opened.full { lists::Lists::default() } else { lists::Lists::of(at_once) };
        let [no_post, forgets_links] = [*no_post, *forgets_links].map(AtomicBool::new);
        Ok(Habits { no_post, forgets_links, lists, lacked: ledger::lacked(store, opened.id)?, types: Mutex::new(types), ..Habits::default() })
    }

    /// What was learnt of lists.
    pub fn lists(&self) -> Vec<Fact> {
        self.lists.facts()
    }

    /// Whether relative addresses of files were found to be meant from the base.
    pub fn files_from_base(&self) -> &AtomicBool {
        &self.files_from_base
    }

    /// Why not all members of the Group are known, if they are not.
    pub fn unnamed(&self) -> Option<&Why> {
        self.unnamed.get()
    }

    /// That some are not found any more of whom it is known who they were, if there are such.
    pub fn lost(&self) -> Option<&Why> {
        self.lost.get()
    }

    /// Who is counted with the members, and is none of them any more.
    pub fn left(&self) -> &BTreeSet<String> {
        &self.left
    }

    fn types<T>(&self, of: impl FnOnce(&mut TypeHabits) -> T) -> T {
        of(&mut self.types.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note_refusal(&self, resource_type: &str, refusal: &Refusal) {
        self.types(|types| {
            if matches!(refusal.status, 403 | 404 | 405 | 501) {
                types.refused.insert(resource_type.to_owned(), refusal.reason.clone());
            }
            if refusal.status != 403 {
                types.unsearchable.insert(resource_type.to_owned());
            }
        });
    }
}

/// Runs the plan's queries.
pub(super) async fn run(pull: &mut Pull<'_>) -> Result<(), SourceError> {
    let plan = pull.plan;
    if matches!(plan.cohort, Cohort::Search(_)) {
        found::run(pull).await?;
    }
    let members = standing_members(pull).await?;
    pull.members.clone_from(&members);
    let known: BTreeSet<String> = match (&members, pull.since) {
        (Some(_), Some(_)) => &pull.snapshot.patient_ids()?.into_iter().collect::<BTreeSet<String>>() - &absent::before(pull)?.unwrap_or_default(),
        _ => BTreeSet::new(),
    };
    // What may not be read needs no thought of whom to ask for.
    let is_later = |query: &&Query| query.later.is_some() && pull.chooser.is_some() && !pull.source.withheld.contains_key(&query.resource_type);
    let (later, first): (Vec<&Query>, Vec<&Query>) = plan.queries.iter().filter(|query| !plan.finds_patients(query)).partition(is_later);
    let lists = lists_of_members(pull, members.as_ref(), &known)?;
    let tasks = first.iter().flat_map(|query| tasks_in(query, lists.as_deref())).collect();
    run_tasks(pull, "search", tasks, members.as_ref()).await?;
    if !later.is_empty() {
        later::run(pull, &later, members.as_ref()).await?;
    }
    if members.is_some() {
        cut::close(pull)?;
    }
    by_patient::run(pull).await
}

/// Whose data are taken: those who are named now or, where everything was read of them in an earlier night, who were then. Who left
/// since is still counted with them, and nothing of him is stored.
async fn standing_members(pull: &mut Pull<'_>) -> Result<Option<BTreeSet<String>>, SourceError> {
    let members = read_members(pull).await?;
    let is_known = pull.habits.unnamed.get().is_none();
    let (Some(now), Some(then)) = (&members, cut::closed(pull)?.filter(|_| is_known)) else { return Ok(members) };
    pull.habits.left = then.difference(now).cloned().collect();
    Ok(Some(then))
}

/// Runs what is not done yet of some tasks, several at once, and records each when it is finished.
async fn run_tasks(pull: &mut Pull<'_>, stage: &str, mut tasks: Vec<Task<'_>>, members: Option<&BTreeSet<String>>) -> Result<(), SourceError> {
    tasks.retain(|task| !pull.done.contains(&task.name) && !pull.habits.lacked.contains(&task.name));
    pull.progress.stage(stage, Some(tasks.len() as u64));
    let width = pull.source.options.requests_at_once.clamp(1, 32) as usize;
    let is_over = &AtomicBool::new(false);
    let mut unfinished = None;
    {
        let shared: &Pull<'_> = pull;
        let mut running = futures_util::stream::iter(tasks)
            .map(|task| async move { if is_over.load(Ordering::Relaxed) { Ok(()) } else { fetch(shared, task, members).await } })
            .buffer_unordered(width);
        while let Some(ended) = running.next().await {
            match ended {
                // The others come to the same end at their next request, and keep their places.
                Err(SourceError::Unfinished { reason }) => {
                    is_over.store(true, Ordering::Relaxed);
                    unfinished = Some(SourceError::Unfinished { reason });
                }
                ended => ended?,
            }
        }
    }
    pull.done = ledger::done(pull.snapshot.store(), pull.id)?;
    unfinished.map_or(Ok(()), Err)
}

/// Asks by search for the types that an export did not mention: some servers export only the types they declare, and
/// are silent about the rest. A server that answers no such search is believed.
pub(super) async fn beside_export(pull: &Pull<'_>) -> Result<(), SourceError> {
    let Some(export) = &pull.plan.export else { return Ok(()) };
    let units = ledger::units(pull.snapshot.store(), pull.id)?;
    let silent = |name: &&String| {
        let mut own = units.iter().filter(|unit| unit.resource_type == **name).peekable();
        own.peek().is_some() && own.all(|unit| unit.expected.unwrap_or(0) == 0 && unit.received == 0 && unit.gap.is_none())
    };
    let absent: Vec<&String> = export.types.iter().filter(silent).collect();
    // Who answers with types that nobody asked for may have meant them in place of one that is absent.
    let answers_otherwise = units
        .iter()
        .any(|unit| unit.received > 0 && unit.resource_type != "*" && !pull.plan.types.contains(&unit.resource_type));
    if absent.is_empty() {
        return Ok(());
    }
    let members = match read_members(pull).await {
        Err(SourceError::Nothing { .. }) => return Ok(()),
        members => members?,
    };
    let known = if pull.since.is_some() { members.iter().flatten().cloned().collect() } else { BTreeSet::new() };
    let patient_parameter = |name: &str| pull.source.capability.patient_parameter(name).map(str::to_owned);
    for resource_type in absent {
        let query = Query {
            name: format!("{resource_type} beside the export"),
            resource_type: resource_type.clone(),
            parameters: export.parameters(resource_type),
            by_patient: members.as_ref().and_then(|_| patient_parameter(resource_type)),
            incremental: pull.source.capability.declares(resource_type, "_lastUpdated") == Some(true),
            one_by_one: false,
            later: None,
        };
        let whom = match &members {
            Some(members) => Some(census::who_has_any(pull, &query, members).await?),
            None => None,
        };
        for task in tasks_of(pull, &query, whom.as_ref(), &known) {
            if !pull.done.contains(&task.name) && !ask_beside(pull, &task, members.as_ref(), answers_otherwise).await? {
                break;
            }
        }
    }
    Ok(())
}

/// Searches for something of which an export is silent. Whether the server answers.
async fn ask_beside(pull: &Pull<'_>, task: &Task<'_>, members: Option<&BTreeSet<String>>, answers_otherwise: bool) -> Result<bool, SourceError> {
    let read = Box::pin(reading::read(pull, task, members)).await?;
    let may_not = read.refused.is_some_and(|refusal| refusal.status == 403);
    let (mut unit, resource_type) = (read.unit, &task.query.resource_type);
    match &unit.gap {
        Some(reason) if reason.code == Code::Hidden => pull.record(&unit)?,
        Some(reason) if answers_otherwise || may_not => {
            let reason = format!("the export has none, and a search for it fails: {reason}; ask the EHR's administrator whether this client may read it");
            unit.gap = Some(Why::new(Code::Forbidden, reason));
            pull.record(&unit)?;
        }
        Some(reason) => tracing::info!(pull = pull.id.0, resource_type, %reason, "not in the export, and not to be searched"),
        None if unit.received > 0 => {
            tracing::warn!(pull = pull.id.0, resource_type, received = unit.received, "the export left this type out");
            pull.record(&unit)?;
        }
        None => {}
    }
    Ok(unit.gap.is_none())
}

/// The lists of members to ask for. What was counted when others were named is no answer any more.
fn lists_of_members(pull: &mut Pull<'_>, members: Option<&BTreeSet<String>>, known: &BTreeSet<String>) -> Result<Option<Vec<List>>, SourceError> {
    let Some(members) = members else { return Ok(None) };
    let (lists, change) = cut::kept(pull, cut::MEMBERS, members, known)?;
    if change != cut::Change::None {
        ledger::forget(pull.snapshot.store(), pull.id, "count ")?;
        // What was read of all patients was kept of those who were named then.
        let is_of_all = |query: &&Query| query.by_patient.is_none() && !pull.plan.finds_patients(query);
        let of_all = pull.plan.queries.iter().filter(is_of_all).filter(|_| change == cut::Change::Joined);
        for query in of_all {
            ledger::forget(pull.snapshot.store(), pull.id, &format!("query {}", query.name))?;
        }
        pull.done = ledger::done(pull.snapshot.store(), pull.id)?;
    }
    Ok(Some(lists))
}

fn tasks_of<'a>(pull: &Pull<'_>, query: &'a Query, members: Option<&BTreeSet<String>>, known: &BTreeSet<String>) -> Vec<Task<'a>> {
    let lists = members.filter(|_| query.by_patient.is_some()).map(|members| cut::once(pull, members, known));
    tasks_in(query, lists.as_deref())
}

/// A query list by list, or of all.
fn tasks_in<'a>(query: &'a Query, lists: Option<&[List]>) -> Vec<Task<'a>> {
    let (Some(lists), Some(_)) = (lists, &query.by_patient) else {
        return vec![Task { query, name: format!("query {}", query.name), patients: None, since: true, category: None, span: Span::ALL }];
    };
    let task = |List { name, patients, since }: &List| {
        let name = format!("query {} {name}", query.name);
        Task { query, name, patients: Some(patients.clone()), since: *since, category: None, span: Span::ALL }
    };
    lists.iter().map(task).collect()
}

/// The name of a query for some ids.
fn named(kind: &str, query: &Query, ids: &[String]) -> String {
    format!("{kind} {} {}", query.name, cut::digest(&ids.join(",")))
}

/// Asks by search for these types of some patients: all there is, or what has changed. For what an export left out.
pub(super) async fn of_patients(pull: &mut Pull<'_>, what: &str, types: &BTreeSet<String>, patients: &BTreeSet<String>, since: bool) -> Result<(), SourceError> {
    let patient_parameter = |name: &str| pull.source.capability.patient_parameter(name).map(str::to_owned);
    let query = |resource_type: &String| Query {
        name: format!("{resource_type} {what}"),
        resource_type: resource_type.clone(),
        parameters: Vec::new(),
        by_patient: patient_parameter(resource_type),
        incremental: since && pull.source.capability.declares(resource_type, "_lastUpdated") == Some(true),
        one_by_one: false,
        later: None,
    };
    let queries: Vec<Query> = types.iter().map(query).collect();
    let known = if since { patients.clone() } else { BTreeSet::new() };
    for query in &queries {
        for task in tasks_of(pull, query, Some(patients), &known) {
            if task.patients.as_ref().is_some_and(|patients| !patients.is_empty()) && !pull.done.contains(&task.name) {
                fetch(pull, task, Some(patients)).await?;
            }
        }
    }
    pull.done = ledger::done(pull.snapshot.store(), pull.id)?;
    Ok(())
}

/// Fetches a task as this server lets it be fetched: as it stands, by category, or resource by resource. Records what came.
async fn fetch(pull: &Pull<'_>, task: Task<'_>, members: Option<&BTreeSet<String>>) -> Result<(), SourceError> {
    let resource_type = &task.query.resource_type;
    let (by_category, unsearchable, refused) = pull
        .habits
        .types(|types| (types.by_category.contains(resource_type), types.unsearchable.contains(resource_type), types.refused.get(resource_type).cloned()));
    if by_category {
        return fetch_by_category(pull, &task, members).await;
    }
    if (unsearchable || task.query.one_by_one) && task.is_by_id() {
        return pull.record(&refer::read_each(pull, &task, members).await?);
    }
    if let Some(reason) = refused {
        return pull.record(&pull.receive(task.unit(), None)?.finish(Some(reason))?);
    }
    let named = task.patients.as_deref().filter(|_| task.names_patients());
    if let Some(patients) = named {
        ask::try_post(pull, patients).await?;
        lists::try_out(pull, task.query, patients).await?;
    }
    if let Some(codes) = codes_to_ask_singly(pull, task.query, named).await? {
        return fetch_by_code(pull, &task, &codes, members).await;
    }
    let read = Box::pin(reading::read(pull, &task, members)).await?;
    let Some(refusal) = read.refused else { return record_with_missing(pull, &task, read, members).await };
    if refusal.needs_category && !task.asks_for_category() && categories(resource_type).is_some() {
        pull.habits.types(|types| types.by_category.insert(resource_type.clone()));
        return fetch_by_category(pull, &task, members).await;
    }
    let is_of_changes = task.since && task.query.incremental && task.span == Span::ALL && pull.since_of(resource_type).is_some();
    if is_of_changes && matches!(refusal.status, 400 | 422) {
        // Some take no time of change beside other parameters: all of it is asked for in the place of what has changed.
        return Box::pin(fetch(pull, Task { since: false, ..task }, members)).await;
    }
    // What may not be read of one patient, who is left over from lists, may be of others.
    let is_left_over = pull.source.options.tuning.patients_per_query > 1 && task.patients.as_ref().is_some_and(|some| some.len() == 1);
    if refusal.status != 403 || !is_left_over {
        pull.habits.note_refusal(resource_type, &refusal);
    }
    if task.is_by_id() && refusal.status != 403 {
        return pull.record(&refer::read_each(pull, &task, members).await?);
    }
    pull.record(&read.unit)
}

/// Records what came, and before it what a list of ids did not bring, read one by one.
async fn record_with_missing(pull: &Pull<'_>, task: &Task<'_>, read: reading::Read, members: Option<&BTreeSet<String>>) -> Result<(), SourceError> {
    let (lists, resource_type) = (&pull.habits.lists, &task.query.resource_type);
    let missing = Task { name: format!("{} one by one", task.name), patients: Some(read.missing), ..task.clone() };
    let number = missing.patients.as_ref().map_or(0, Vec::len) as u64;
    // Of patients a trial tells, and their ids stand in no address.
    let is_told = task.names_patients() && !lists.is_silent();
    let is_list = task.patients.as_ref().is_some_and(|ids| ids.len() > 1);
    // As where a list is refused that is not divided first.
    if task.is_by_id() && read.unit.gap.as_ref().is_some_and(|why| why.code == Code::Refused) {
        pull.habits.types(|types| types.unsearchable.insert(resource_type.clone()));
        return pull.record(&refer::read_each(pull, task, members).await?);
    }
    if number > 0 && is_list && !is_told && lists.is_doubted(resource_type) && !pull.done.contains(&missing.name) {
        let unit = refer::read_each(pull, &missing, members).await?;
        // Those of whom nothing at all was found may have been asked for in a body that nobody reads.
        if unit.received > 0 && task.names_patients() {
            pull.habits.no_post.store(true, Ordering::Relaxed);
        } else {
            lists.note_read(resource_type, number, unit.received);
        }
        pull.record(&unit)?;
    }
    pull.record(&read.unit)
}

/// The codes of a query that asks for several, where the server does not heed a list of them. Where it is of patients, lists of whom were
/// tried, they are tried of some of these.
async fn codes_to_ask_singly(pull: &Pull<'_>, query: &Query, patients: Option<&[String]>) -> Result<Option<Vec<String>>, SourceError> {
    let Some(codes) = query.list_of_codes() else { return Ok(None) };
    if patients.is_some() && pull.habits.types(|types| types.without_code.contains(&query.resource_type)) {
        return Ok(None);
    }
    lists::try_codes(pull, query, &codes, patients).await?;
    Ok(pull.habits.lists.is_singly(&query.resource_type, "code").then_some(codes))
}

/// A query of one of its codes only.
fn of_code(query: &Query, number: usize, code: &str) -> Query {
    let one = |(name, value): &(String, String)| (name.clone(), if name == "code" { code.to_owned() } else { value.clone() });
    Query { name: format!("{} code {number}", query.name), parameters: query.parameters.iter().map(one).collect(), ..query.clone() }
}

/// Fetches a task code by code.
async fn fetch_by_code(pull: &Pull<'_>, task: &Task<'_>, codes: &[String], members: Option<&BTreeSet<String>>) -> Result<(), SourceError> {
    for (number, code) in codes.iter().enumerate() {
        let query = Query { name: task.query.name.clone(), ..of_code(task.query, number, code) };
        let part = Task { query: &query, name: format!("{} code {number}", task.name), ..task.clone() };
        if !pull.done.contains(&part.name) {
            pull.record(&Box::pin(reading::read(pull, &part, members)).await?.unit)?;
        }
    }
    // It was asked for from when the first of them was.
    let server_time = recount::began(&ledger::units(pull.snapshot.store(), pull.id)?, &task.query.resource_type);
    pull.record(&pull.receive(Unit { server_time, ..task.unit() }, members)?.finish(None)?)
}

/// The categories by which a type is asked for where it is not without one, if they are known.
pub(super) fn categories(resource_type: &str) -> Option<&'static [&'static str]> {
    CATEGORIES.iter().find(|(name, _)| *name == resource_type).map(|(_, categories)| *categories)
}

/// Fetches a task category by category. What has none of them cannot be asked for: that is a gap until a person has said
/// which categories this hospital uses.
async fn fetch_by_category(pull: &Pull<'_>, task: &Task<'_>, members: Option<&BTreeSet<String>>) -> Result<(), SourceError> {
    for category in categories(&task.query.resource_type).unwrap_or_default() {
        let part = Task { category: Some(category), name: format!("{} category {category}", task.name), ..task.clone() };
        if !pull.done.contains(&part.name) {
            let read = Box::pin(reading::read(pull, &part, members)).await?;
            if read.refused.is_some_and(|refusal| refusal.needs_category) && task.patients.is_none() {
                let reason = "the server searches it neither without a parameter nor by category; if it wants a patient, name a Group in `source.group`";
                return pull.record(&pull.receive(task.unit(), None)?.finish(Some(Why::new(Code::OfPatients, reason)))?);
            }
            pull.record(&read.unit)?;
        }
    }
    let rest = Task { name: format!("{} other categories", task.name), ..task.clone() };
    let reason = format!(
        "the server searches it by category only, so what has another category, or none, did not come; name this hospital's categories in `source.parameters`: {} = [\"category=…\"]",
        task.query.resource_type
    );
    pull.record(&pull.receive(rest.unit(), None)?.finish(Some(Why::new(Code::Categories, reason)))?)
}
