//! What a pull will cost the server and the site: requests, bytes, hours; told before a single resource is asked for, from
//! the plan and from what the last pull brought, or the counts that the server gives.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Source;
use super::plan::{Plan, Query};
use super::search::census::{PATIENTS_PER_COUNT, questions};
use super::search::counted;
use crate::diagnostic;
use crate::http::Request;
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
    /// Requests for the files of a type, or for what is referred to of it, in the last pull of everything.
    pub requests: BTreeMap<String, u64>,
    /// When the last pull of everything began and ended.
    pub last: Option<(Timestamp, Timestamp)>,
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
}

/// What a pull of everything will cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// Its queries.
    pub steps: Vec<Step>,
    /// Requests of the steps of which they are known.
    pub requests: u64,
    /// Bytes of what is known to come.
    pub bytes: u64,
    /// Seconds that the requests take.
    pub seconds: u64,
    /// Whether some step is not known in full, so that the sums are the least.
    pub is_partial: bool,
    /// How long the last pull of everything took, in seconds.
    pub last_seconds: Option<u64>,
}

impl Forecast {
    /// Of a plan, for a server that sends pages of so many resources and gets so many requests at once.
    pub fn new(plan: &Plan, known: &Known, page_size: u32, at_once: u32) -> Forecast {
        let pages = |resources: u64| resources.div_ceil(u64::from(page_size.max(1))).max(1);
        let export = plan.export.iter().map(|export| {
            let types: Vec<&str> = export.types.iter().map(String::as_str).collect();
            let counts: Option<Vec<u64>> = types.iter().map(|name| known.resources.get(*name).copied()).collect();
            let files = |name: &&str| known.requests.get(*name).copied().unwrap_or_default().max(1);
            // A kick-off, two polls, its deletion, the files: one of each type, if nothing is known. How many there are now and how
            // often it wants to be polled is the server's own matter.
            let filters: String = export.codes.iter().map(|(name, codes)| format!(" ({name} of {})", diagnostic::counted(codes.len(), "code"))).collect();
            Step {
                asked: format!("{}?_type={}{filters}", export.path, types.join(",")),
                resources: counts.map(|counts| counts.iter().sum()),
                requests: Some(types.iter().map(files).sum::<u64>() + 4),
            }
        });
        let queries = plan.queries.iter().map(|query| {
            let resources = known.resources.get(&query.resource_type).copied();
            Step { asked: shown(query), resources, requests: resources.map(pages) }
        });
        let referenced = plan.referenced.iter().filter_map(|name| {
            let asked = format!("{name} that something refers to");
            Some(Step { asked, resources: known.resources.get(name).copied(), requests: Some(*known.requests.get(name).filter(|requests| **requests > 0)?) })
        });
        let steps: Vec<Step> = export.chain(queries).chain(referenced).chain(counts(plan, known)).collect();
        let requests = steps.iter().filter_map(|step| step.requests).sum();
        let last = known.last.map(|(began, ended)| ended.duration_since(began)).filter(|took| *took >= SignedDuration::ZERO);
        Forecast {
            requests,
            bytes: steps.iter().filter_map(|step| step.resources).sum::<u64>().saturating_mul(RESOURCE_BYTES),
            seconds: requests.saturating_mul(REQUEST_SECONDS).div_ceil(u64::from(at_once.max(1))),
            is_partial: plan.export.is_some() || steps.iter().any(|step| step.resources.is_none()),
            last_seconds: last.map(|took| took.as_secs().unsigned_abs()),
            steps,
        }
    }
}

/// The questions of how many the server counts, with which what came is compared.
fn counts(plan: &Plan, known: &Known) -> Option<Step> {
    let questions = questions(plan);
    let types: Vec<&str> = questions.iter().map(|query| query.name.as_str()).collect();
    let batches = match plan.group.as_str() {
        "" => Some(1),
        _ => known.resources.get("Patient").map(|patients| patients.div_ceil(PATIENTS_PER_COUNT as u64).max(1)),
    };
    let requests = batches.map(|batches| batches * types.len() as u64);
    (!types.is_empty()).then(|| Step { asked: format!("_summary=count of {}", types.join(", ")), resources: Some(0), requests })
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = if self.is_partial { "at least " } else { "" };
        let megabytes = self.bytes as f64 / 1e6;
        write!(f, "{least}{}, {megabytes:.1} MB at {RESOURCE_BYTES} bytes a resource, ", diagnostic::counted(self.requests, "request"))?;
        write!(f, "{} at {REQUEST_SECONDS} s a request", lasting(self.seconds))?;
        self.last_seconds.map_or(Ok(()), |seconds| write!(f, "; the last pull of everything took {}", lasting(seconds)))
    }
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
        Some(_) if query.one_by_one => format!("{asked}/[id] for each patient of the group"),
        Some(parameter) => format!("{asked} for each {parameter} of the group"),
        None => asked,
    }
}

/// How many resources the server says that each query, or each type of an export, of all patients finds: one request each,
/// for a number only. A server that gives no number leaves it unknown, and so does a group: its patients are not told apart.
pub async fn count(source: &Source, plan: &Plan) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    if !plan.group.is_empty() {
        return counts;
    }
    let exported = plan.export.iter().flat_map(|export| export.types.iter().map(|name| (name, export.parameters(name))));
    let asked = plan.queries.iter().map(|query| (&query.resource_type, query.parameters.clone())).chain(exported);
    for (resource_type, parameters) in asked {
        if let Some(count) = count_one(source, resource_type, &parameters, &plan.everywhere).await {
            *counts.entry(resource_type.clone()).or_default() += count;
        }
    }
    counts
}

pub(super) async fn count_one(source: &Source, resource_type: &str, parameters: &[(String, String)], everywhere: &[(String, String)]) -> Option<u64> {
    let mut address = below(&source.base, resource_type).ok()?;
    address.query_pairs_mut().extend_pairs(parameters.iter().chain(everywhere)).append_pair("_summary", "count");
    let answer = source.client.send(Request::new(reqwest::Method::GET, address).header("accept", "application/fhir+json")).await.ok()?;
    counted(&answer)
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
        let forecast = Forecast::new(plan, known, 200, 4);
        let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
        let steps = forecast
            .steps
            .iter()
            .map(|step| format!("{}: {} resources, {} requests\n", step.asked, number(step.resources), number(step.requests)));
        steps.collect::<String>() + &forecast.to_string()
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
        Encounter for each patient of the group: ? resources, ? requests
        _summary=count of Patient, Observation, Encounter: 0 resources, 3 requests
        at least 209 requests, 82.0 MB at 2000 bytes a resource, 53 s at 1 s a request
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
