//! What a pull will cost the server and the site: requests, bytes, hours; told before a single resource is asked for, from
//! the plan and from what the last pull brought, or the counts that the server gives.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::capability::Capability;
use super::cohort::{self, Cohort, Trial};
use super::plan::{Plan, Query};
use super::search::census::{PATIENTS_PER_COUNT, questions};
use super::search::refer::turn_of;
use super::search::sample;
use super::search::{IDENTIFIERS_PER_QUERY, count_members, counted, instant};
use super::{Options, Source, SourceError};
use crate::diagnostic;
use crate::http::{HttpError, Request};
use crate::smart::client::below;

/// Bytes of a resource, as JSON, where none is known: about what EHRs write for an Observation.
pub const RESOURCE_BYTES: u64 = 2_000;
/// Seconds from a request to the end of its answer, where none is known.
pub const REQUEST_SECONDS: u64 = 1;

/// What is known of a server's data without asking for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Resources of a type.
    pub resources: BTreeMap<String, u64>,
    /// Types of which the server counts all there is.
    pub counted: BTreeSet<String>,
    /// Requests for the files of a type, or for what is referred to of it, in the last pull of everything.
    pub requests: BTreeMap<String, u64>,
    /// Searches of some patients each, of a type, in the last pull of everything.
    pub searches: BTreeMap<String, u64>,
    /// Questions of how many there are that it asked; and those of them that tried whether lists of values are heeded.
    pub questions: Option<u64>,
    /// See [`Known::questions`].
    pub trials: Option<u64>,
    /// When the last pull of everything began and ended.
    pub last: Option<(Timestamp, Timestamp)>,
    /// From when the next pull asks for changes; `None`: it reads everything.
    pub since: Option<Timestamp>,
    /// Resources of a type that have changed since, where the server was asked.
    pub changed: BTreeMap<String, u64>,
    /// An export of changes brings everything.
    pub exports_whole: bool,
}

impl Known {
    /// How many patients are asked for, of all or of those who are named.
    fn patients(&self) -> Option<u64> {
        self.resources.get("Patient").copied()
    }

    /// How many of a type the next pull brings, of which it asks for changes or for everything.
    fn brings(&self, resource_type: &str, is_of_changes: bool) -> Option<u64> {
        if is_of_changes { self.changed.get(resource_type).copied() } else { self.resources.get(resource_type).copied() }
    }
}

/// One query or export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What is asked, without patients.
    pub asked: String,
    /// How many resources it will bring, if that is known.
    pub resources: Option<u64>,
    /// How many requests it takes, if that is known.
    pub requests: Option<u64>,
    /// Both are the most: it is asked of some patients only, and who these are is known when the rest is there.
    pub at_most: bool,
}

/// What something costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Requests.
    pub requests: u64,
    /// Bytes of what comes.
    pub bytes: u64,
    /// Seconds that the requests take.
    pub seconds: u64,
}

impl Cost {
    fn of<'a>(steps: impl Iterator<Item = &'a Step> + Clone, at_once: u32) -> Cost {
        let requests: u64 = steps.clone().filter_map(|step| step.requests).sum();
        Cost {
            requests,
            bytes: steps.filter_map(|step| step.resources).sum::<u64>().saturating_mul(RESOURCE_BYTES),
            seconds: requests.saturating_mul(REQUEST_SECONDS).div_ceil(u64::from(at_once.max(1))),
        }
    }
}

/// What a pull of everything will cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// Its queries.
    pub steps: Vec<Step>,
    /// The least that it takes, of the steps of which that is known.
    pub least: Cost,
    /// The most, if all steps are known.
    pub most: Option<Cost>,
    /// Nights that the least takes, where a night's requests are bounded.
    pub nights: Option<u64>,
    /// How long the last pull of everything took, in seconds.
    pub last_seconds: Option<u64>,
}

impl Forecast {
    /// Of a plan, for a server that is asked as these options say.
    pub fn new(plan: &Plan, known: &Known, options: &Options) -> Forecast {
        let export = plan.export.iter().map(|export| {
            let types: Vec<&str> = export.types.iter().map(String::as_str).collect();
            let counts: Option<Vec<u64>> = types.iter().map(|name| known.brings(name, known.since.is_some() && !known.exports_whole)).collect();
            // Of changes there is a small file, or where there is none a search whether the export is only silent.
            let files = |name: &&str| if known.since.is_some() && !known.exports_whole { 1 } else { known.requests.get(*name).copied().unwrap_or_default().max(1) };
            // A kick-off, two polls, its deletion, the files: one of each type, if nothing is known. How many there are now and how
            // often it wants to be polled is the server's own matter.
            let filters: String = export.codes.iter().map(|(name, codes)| format!(" ({name} of {})", diagnostic::counted(codes.len(), "code"))).collect();
            Step {
                asked: format!("{}?_type={}{filters}{}", export.path, types.join(","), changes(known.since)),
                resources: counts.map(|counts| counts.iter().sum()),
                requests: Some(types.iter().map(files).sum::<u64>() + 4),
                at_most: false,
            }
        });
        let queries = plan.queries.iter().map(|query| of_query(plan, query, known, options));
        let referenced = plan.referenced.iter().filter(|_| known.since.is_none() || known.exports_whole).filter_map(|name| {
            let asked = format!("{name} that something refers to");
            Some(Step {
                asked,
                resources: known.resources.get(name).copied(),
                requests: Some(*known.requests.get(name).filter(|requests| **requests > 0)?),
                at_most: false,
            })
        });
        let looked_at = plan.referenced.intersection(&plan.by_id).filter(|_| known.since.is_some()).filter_map(|name| {
            let requests = turn_of(known.resources.get(name).copied().filter(|stored| *stored > 0)?);
            Some(Step { asked: format!("{name} that something refers to, looked at again in turn"), resources: Some(0), requests: Some(requests), at_most: false })
        });
        let steps: Vec<Step> = export
            .chain(queries)
            .chain(referenced)
            .chain(looked_at)
            .chain(of_members(plan, known, options))
            .chain(changed_members(plan, known, options))
            .chain(trials(plan, known, options))
            .chain(counts(plan, known))
            .chain(meanwhile(plan, known))
            .chain(samples(plan, known))
            .collect();
        let least = Cost::of(steps.iter().filter(|step| !step.at_most), options.requests_at_once);
        // What is referred to is known after a pull.
        let is_known = plan.export.is_none() && (plan.referenced.is_empty() || known.last.is_some()) && steps.iter().all(|step| step.resources.is_some());
        // A night finds out first what the server can do, how tokens are had, and whose data are asked for.
        let in_a_night = options.requests_per_night.saturating_sub(3 + u64::from(!plan.cohort.is_everybody())).max(1);
        let last = known.last.map(|(began, ended)| ended.duration_since(began)).filter(|took| *took >= SignedDuration::ZERO);
        Forecast {
            least,
            most: is_known.then(|| Cost::of(steps.iter(), options.requests_at_once)),
            nights: (options.requests_per_night > 0).then(|| least.requests.div_ceil(in_a_night).max(1)),
            last_seconds: last.map(|took| took.as_secs().unsigned_abs()),
            steps,
        }
    }
}

/// Searches of a query by patients: as many as in the last pull of everything, or as all patients take.
fn searches(plan: &Plan, query: &Query, known: &Known, options: &Options) -> Option<u64> {
    query.by_patient.as_ref()?;
    let of_type = plan.queries.iter().filter(|other| other.resource_type == query.resource_type).count().max(1) as u64;
    let before = known.searches.get(&query.resource_type).map(|searches| searches.div_ceil(of_type));
    before
        .or_else(|| known.patients().map(|patients| patients.div_ceil(per_query(options))))
        .map(|searches| searches.max(1))
}

fn per_query(options: &Options) -> u64 {
    options.tuning.patients_per_query.clamp(1, 200) as u64
}

fn of_query(plan: &Plan, query: &Query, known: &Known, options: &Options) -> Step {
    let page = u64::from(options.page_size.max(1));
    let pages = |resources: u64| resources.div_ceil(page).max(1);
    // Several patients' share seldom ends with a page; where it takes more requests than all pages, these are read.
    let queries_of = |pages: u64| known.patients().map_or(pages, |patients| patients.div_ceil(per_query(options)).min(pages));
    let since = known.since.filter(|_| !plan.is_untimed(&query.resource_type));
    // Each search of a type has its share.
    let of_type = plan.queries.iter().filter(|other| other.resource_type == query.resource_type).count().max(1) as u64;
    let resources = known.brings(&query.resource_type, since.is_some()).map(|all| all.div_ceil(of_type));
    // What the last pull brought it brought of those patients.
    let at_most = query.later.is_some() && since.is_none() && (resources.is_none() || known.counted.contains(&query.resource_type));
    let more = |pages: u64| if at_most { queries_of(pages) } else { 0 };
    let searches = searches(plan, query, known, options);
    let requests = match (resources, searches) {
        // Half a page more, on an average, than the share of each search has.
        (Some(resources), Some(searches)) => Some((resources.saturating_mul(2) / page).saturating_add(searches).div_ceil(2).max(searches)),
        (Some(resources), None) => Some(pages(resources) + more(pages(resources))),
        // Where it is not known how much there is, or has changed, each question is one request.
        (None, searches) => searches.or(since.map(|_| 1)),
    };
    Step { asked: format!("{}{}", shown(query), changes(since)), resources, requests, at_most }
}

/// Finding out whose data are taken: the list of the Group's members, who has the identifiers of the site's list, or whether its search is heeded.
fn of_members(plan: &Plan, known: &Known, options: &Options) -> Option<Step> {
    let (asked, requests) = match &plan.cohort {
        Cohort::Group(group) => (format!("Group/{group}"), Some(1)),
        Cohort::List if !options.patients_system.is_empty() => {
            ("Patient?identifier=… of the list".to_owned(), known.patients().map(|patients| patients.div_ceil(IDENTIFIERS_PER_QUERY as u64)))
        }
        Cohort::Search(_) => {
            let searches = plan.cohort.searches();
            let trials: BTreeSet<Trial> = searches.iter().flat_map(cohort::trials).map(|(_, trial)| trial).collect();
            // What is to find more is counted, and the search before it and after.
            let requests = trials.iter().map(|trial| if matches!(trial, Trial::More(_)) { 3 } else { 1 });
            ("whether the search for patients is heeded".to_owned(), Some(requests.sum()))
        }
        Cohort::Everybody | Cohort::List => return None,
    };
    Some(Step { asked, resources: Some(0), requests, at_most: false })
}

/// What an export of changes may leave out, asked for by search where it brings nothing of members whose own record did not change: so it
/// is on a quiet night.
fn changed_members(plan: &Plan, known: &Known, options: &Options) -> Option<Step> {
    let export = plan.export.as_ref().filter(|_| !plan.cohort.is_everybody() && known.since.is_some() && !known.exports_whole)?;
    let requests = known
        .patients()
        .map(|patients| (patients.div_ceil(per_query(options)) + trial(patients.min(per_query(options)))) * export.types.len() as u64);
    Some(Step {
        asked: format!("what has changed of members, where the export brings it of nobody{}", changes(known.since)),
        resources: Some(0),
        requests,
        at_most: true,
    })
}

/// Requests of a trial whether a list of so many values is heeded: for a value that something has, and for a list of which that is the last.
fn trial(values: u64) -> u64 {
    if values < 2 { 0 } else { 2 }
}

/// Finding out whether lists of patients and of codes, and searches by POST, are heeded: beside an export of changes where numbers differ
/// only; else as often as in the last pull of everything, or as it takes where each list finds something.
fn trials(plan: &Plan, known: &Known, options: &Options) -> Option<Step> {
    if known.since.is_none() && known.questions.is_some() {
        return None;
    }
    let has_members = !plan.cohort.is_everybody();
    let of_codes = |query: &Query| {
        query
            .parameters
            .iter()
            .filter(|(name, _)| name == "code")
            .map(|(_, codes)| trial(codes.split(',').count() as u64))
            .sum::<u64>()
    };
    let short = known.patients().map(|patients| trial(patients.min(per_query(options))));
    // Of changes that an export brings, what is there of few codes is counted by these.
    let of_export = plan.export.iter().filter(|_| known.since.is_some()).flat_map(|export| &export.codes);
    let of_members = if has_members { short.unwrap_or_default() } else { 0 };
    let counted_by: u64 = of_export
        .filter(|(name, _)| known.resources.get(*name).is_none_or(|count| *count > 0))
        .map(|(_, codes)| trial(codes.len() as u64) + of_members)
        .sum();
    let codes = plan.queries.iter().map(of_codes).sum::<u64>() + counted_by;
    let modelled = || {
        let lists = plan
            .queries
            .iter()
            .filter(|query| query.by_patient.is_some())
            .map(|query| &query.resource_type)
            .collect::<BTreeSet<_>>()
            .len() as u64;
        let counted = if plan.export.is_some() && known.since.is_none() { questions(plan, &Capability::default()).len() as u64 } else { 0 };
        // Of a longer list it is known by then which value something has.
        let longer = u64::from(known.patients() > Some(per_query(options)));
        Some(lists * short? + counted * (short? + longer))
    };
    let of_lists = match known.trials.filter(|_| plan.export.is_none()) {
        Some(before) => Some(before),
        None if has_members => modelled().map(|of_members| of_members + codes),
        None => Some(codes),
    };
    // A body that is posted is tried once.
    let requests = of_lists.map(|of_lists| of_lists + u64::from(has_members));
    let asked = "whether lists of values, and searches by POST, are heeded".to_owned();
    (requests != Some(0)).then_some(Step { asked, resources: Some(0), requests, at_most: false })
}

/// The questions of how many the server counts, with which what came is compared.
fn counts(plan: &Plan, known: &Known) -> Option<Step> {
    if let Some(before) = known.questions.filter(|_| known.since.is_none()) {
        let asked = "how many there are, and what changed meanwhile, as in the last pull of everything".to_owned();
        return Some(Step { asked, resources: Some(0), requests: Some(before), at_most: false });
    }
    // By which parameter patients are named makes no difference.
    let mut questions = questions(plan, &Capability::default());
    let is_whole = |name: &str| known.since.is_none() || plan.is_untimed(name);
    // Of changes only what there is any of.
    questions.retain(|query| is_whole(&query.resource_type) || known.resources.get(&query.resource_type).is_none_or(|count| *count > 0));
    let types: Vec<&str> = questions.iter().map(|query| query.name.as_str()).collect();
    let narrowed = plan.narrowed.keys().filter(|name| is_whole(name)).count();
    let batches = match plan.cohort {
        Cohort::Everybody => Some(1),
        _ => known.resources.get("Patient").map(|patients| patients.div_ceil(PATIENTS_PER_COUNT as u64).max(1)),
    };
    // Who is found by a search is counted at once.
    let of_all = questions.iter().filter(|query| plan.finds_patients(query)).count();
    let requests = batches.map(|batches| batches * (types.len() - of_all + narrowed) as u64 + of_all as u64);
    (!types.is_empty()).then(|| Step { asked: format!("_summary=count of {}", types.join(", ")), resources: Some(0), requests, at_most: false })
}

/// What changed while everything was read, asked for at its end: of each type at once, or how many are there unchanged.
fn meanwhile(plan: &Plan, known: &Known) -> Option<Step> {
    let is_settled = |query: &&Query| !plan.is_untimed(&query.resource_type) && query.by_patient.is_none() && query.later.is_none();
    let types: BTreeSet<&str> = plan.queries.iter().filter(is_settled).map(|query| query.resource_type.as_str()).collect();
    let asked = || format!("what changed meanwhile of {}", types.iter().copied().collect::<Vec<_>>().join(", "));
    let is_asked = known.since.is_none() && known.questions.is_none() && plan.export.is_none() && !types.is_empty();
    is_asked.then(|| Step { asked: asked(), resources: Some(0), requests: Some(types.len() as u64), at_most: false })
}

/// The questions of how many the server counts of samples, after a night of changes.
fn samples(plan: &Plan, known: &Known) -> Option<Step> {
    let of = |name: &str| known.resources.get(name).copied().unwrap_or_default();
    let is_one_question = plan.cohort.is_everybody() || of("Patient") <= PATIENTS_PER_COUNT as u64;
    let questions = questions(plan, &Capability::default())
        .into_iter()
        .filter(|query| known.since.is_some() && !plan.is_untimed(&query.resource_type));
    let drawn = questions.map(|query| {
        let [by_id, by_time] = sample::of_type(plan, &query.resource_type, of(&query.resource_type));
        (u64::from(by_id) + u64::from(by_time && is_one_question), query.name)
    });
    let (requests, names): (Vec<u64>, Vec<String>) = drawn.filter(|(requests, _)| *requests > 0).unzip();
    (!names.is_empty()).then(|| Step {
        asked: format!("_summary=count of samples of {}", names.join(", ")),
        resources: Some(0),
        requests: Some(requests.iter().sum()),
        at_most: false,
    })
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.least, self.most.unwrap_or(self.least));
        let megabytes = |cost: Cost| format!("{:.1} MB", cost.bytes as f64 / 1e6);
        let requests = |cost: Cost| diagnostic::counted(cost.requests, "request");
        let span = |least: String, most: String| if least == most { most } else { format!("{least} to {most}") };
        write!(f, "{}", if self.most.is_none() { "at least " } else { "" })?;
        write!(f, "{}", if least.requests == most.requests { requests(most) } else { format!("{} to {}", least.requests, requests(most)) })?;
        let more: u64 = self.steps.iter().filter(|step| step.at_most && self.most.is_none()).filter_map(|step| step.requests).sum();
        write!(f, "{}, ", if more == 0 { String::new() } else { format!(", and at most {more} more that may not be needed") })?;
        write!(f, "{} at {RESOURCE_BYTES} bytes a resource, ", span(megabytes(least), megabytes(most)))?;
        write!(f, "{} at {REQUEST_SECONDS} s a request", span(lasting(least.seconds), lasting(most.seconds)))?;
        if let Some(nights @ 2..) = self.nights {
            write!(f, "; {nights} nights or more by `source.requests_per_night`")?;
        }
        self.last_seconds.map_or(Ok(()), |seconds| write!(f, "; the last pull of everything took {}", lasting(seconds)))
    }
}

/// From when changes are asked for, if only these are.
fn changes(since: Option<Timestamp>) -> String {
    since.map_or_else(String::new, |since| format!(", changed since {}", since.strftime("%Y-%m-%dT%H:%M:%SZ")))
}

/// A time as people say it.
fn lasting(seconds: u64) -> String {
    match seconds {
        0..=90 => format!("{seconds} s"),
        91..=5_400 => format!("{} minutes", seconds.div_ceil(60)),
        _ => format!("{:.1} hours", seconds as f64 / 3_600.0),
    }
}

/// A query as it is sent, without its patients.
fn shown(query: &Query) -> String {
    let mut asked = query.resource_type.clone();
    for (number, (name, value)) in query.parameters.iter().enumerate() {
        asked.push_str(&format!("{}{name}={value}", if number == 0 { "?" } else { "&" }));
    }
    if query.later.is_some() {
        return format!("{asked}, of patients who may be in an initial population only, where that takes fewer requests");
    }
    match &query.by_patient {
        Some(_) if query.one_by_one => format!("{asked}/[id] for each patient"),
        Some(parameter) => format!("{asked} for each {parameter}"),
        None => asked,
    }
}

/// How many resources the server says that each query, or each type of an export, of all patients finds: one request each,
/// for a number only; of what has changed, if `since` says since when and the type is searched so. A server that gives no number leaves it unknown, and so does a
/// group: its patients are not told apart.
pub async fn count(source: &Source, plan: &Plan, since: Option<Timestamp>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    let is_everybody = plan.cohort.is_everybody();
    let exported = plan
        .export
        .iter()
        .filter(|_| is_everybody)
        .flat_map(|export| export.types.iter().map(|name| (name, export.parameters(name))));
    let searched = plan.queries.iter().filter(|query| is_everybody || plan.finds_patients(query));
    let asked = searched.map(|query| (&query.resource_type, query.parameters.clone())).chain(exported);
    for (resource_type, mut parameters) in asked {
        let since = since.filter(|_| !plan.is_untimed(resource_type));
        parameters.extend(since.map(|since| ("_lastUpdated".to_owned(), format!("ge{}", instant(since)))));
        if let Ok(Some(count)) = count_one(source, resource_type, &parameters, &plan.everywhere).await {
            *counts.entry(resource_type.clone()).or_default() += count;
        }
    }
    counts
}

/// How many members the Group of a plan names; `None` if there is none, or it cannot be read.
pub async fn members(source: &Source, plan: &Plan) -> Option<u64> {
    count_members(source, &plan.cohort).await
}

pub(super) async fn count_one(source: &Source, resource_type: &str, parameters: &[(String, String)], everywhere: &[(String, String)]) -> Result<Option<u64>, SourceError> {
    let mut address = below(&source.base, resource_type)?;
    address.query_pairs_mut().extend_pairs(parameters.iter().chain(everywhere)).append_pair("_summary", "count");
    match source.client.send(Request::new(reqwest::Method::GET, address).header("accept", "application/fhir+json")).await {
        Ok(answer) => Ok(counted(&answer)),
        // The night is over; nothing is known of the server.
        Err(HttpError::NotNow(reason)) => Err(SourceError::Unfinished { reason }),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::source::plan::Export;

    fn query(resource_type: &str, parameters: &[(&str, &str)], by_patient: Option<&str>) -> Query {
        Query {
            name: resource_type.to_owned(),
            resource_type: resource_type.to_owned(),
            parameters: parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            by_patient: by_patient.map(str::to_owned),
            incremental: true,
            one_by_one: false,
            later: None,
        }
    }

    fn told(plan: &Plan, known: &Known) -> String {
        let forecast = Forecast::new(plan, known, &Options::default());
        let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        let steps = forecast
            .steps
            .iter()
            .map(|step| format!("{}: {}{} resources, {} requests\n", step.asked, if step.at_most { "at most " } else { "" }, number(step.resources), number(step.requests)));
        steps.collect::<String>() + &forecast.to_string()
    }

    #[test]
    fn what_is_asked_of_some_patients_only_is_bounded() {
        let later = Query { later: Some("patient".to_owned()), ..query("Observation", &[], None) };
        let plan = Plan { queries: vec![query("Patient", &[], None), later], ..Plan::default() };
        let mut known = Known { resources: [("Patient".to_owned(), 1_000), ("Observation".to_owned(), 40_000)].into(), ..Known::default() };
        assert_eq!(Forecast::new(&plan, &known, &Options::default()).least.requests, 208, "as it was of these patients last time");
        known.counted = ["Observation".to_owned()].into();
        assert_snapshot!(told(&plan, &known), @r"
        Patient: 1000 resources, 5 requests
        Observation, of patients who may be in an initial population only, where that takes fewer requests: at most 40000 resources, 240 requests
        _summary=count of Patient, Observation: 0 resources, 2 requests
        what changed meanwhile of Patient: 0 resources, 1 requests
        8 to 248 requests, 2.0 MB to 82.0 MB at 2000 bytes a resource, 2 s to 62 s at 1 s a request
        ");
        let options = Options { requests_per_night: 5, ..Options::default() };
        assert!(Forecast::new(&plan, &known, &options).to_string().contains("; 4 nights or more by `source.requests_per_night`"));
        let unknown = Forecast::new(&plan, &Known::default(), &options);
        assert_eq!((unknown.most, unknown.least.requests), (None, 3));
    }

    #[test]
    fn what_is_known_is_counted_and_what_is_not_is_said() {
        let queries = vec![query("Patient", &[], None), query("Observation", &[("code", "http://loinc.org|1988-5")], None), query("Encounter", &[], Some("patient"))];
        let mut plan = Plan { queries, ..Plan::default() };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut known = Known { resources: [("Patient".to_owned(), 1_000), ("Observation".to_owned(), 40_001)].into(), ..Known::default() };
        assert_snapshot!(told(&plan, &known), @r"
        Patient: 1000 resources, 5 requests
        Observation?code=http://loinc.org|1988-5: 40001 resources, 201 requests
        Encounter for each patient: ? resources, 40 requests
        _summary=count of Patient, Observation, Encounter: 0 resources, 3 requests
        what changed meanwhile of Observation, Patient: 0 resources, 2 requests
        at least 251 requests, 82.0 MB at 2000 bytes a resource, 63 s at 1 s a request
        ");
        plan = Plan {
            referenced: ["Device".to_owned(), "Location".to_owned()].into(),
            export: Some(Export { path: "Patient/$export".to_owned(), types: ["Observation".to_owned(), "Patient".to_owned()].into(), codes: BTreeMap::new() }),
            ..Plan::default()
        };
        known.requests = [("Observation".to_owned(), 3), ("Location".to_owned(), 2)].into();
        known.resources.insert("Location".to_owned(), 40);
        known.last = Some((at("2026-01-02T01:00:00Z"), at("2026-01-02T03:30:00Z")));
        assert_snapshot!(told(&plan, &known), @r"
        Patient/$export?_type=Observation,Patient: 41001 resources, 8 requests
        Location that something refers to: 40 resources, 2 requests
        _summary=count of Observation, Patient: 0 resources, 2 requests
        at least 12 requests, 82.1 MB at 2000 bytes a resource, 3 s at 1 s a request; the last pull of everything took 2.5 hours
        ");
    }
}
