//! What a server really does, beside what it declares: found by a few small requests, and kept as a file that people review.
//!
//! Each request asks for a number, for one resource, or for what cannot exist; one asks for a page of the usual size. No patient
//! is named in an address, unless searches by POST are refused, and nothing of a patient is kept. An export is asked for in a format and since a time that nobody has, and not to be
//! made while nobody waits, so that none begins.

mod finding;
mod kept;

use super::capability::Capability;
use super::cohort::{self, Cohort, Parameters, Trial};
use super::plan::{Plan, Query};
use super::search::census::PATIENTS_PER_COUNT;
use super::search::{Bundle, Item, categories, counted, issue_shown, next_address};
use super::{Mode, Options, Source};
use crate::fhir::compartment::{is_id, patient_of, reference_target, search_parameters};
use crate::http::{Request, Response};
use crate::smart::client::below;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

pub use finding::{Finding, findings};
pub use kept::{Kept, KeptError, keep, kept_of, learn, was_granted};

/// Requests of one probe.
pub const REQUESTS_MAX: usize = 300;
/// Types that are looked at.
const TYPES_MAX: usize = 40;
/// Parameters of a type that are looked at.
const PARAMETERS_MAX: usize = 8;
/// Scopes that are shown.
const SCOPES_MAX: usize = 100;
/// Longest scope that is shown.
const SCOPE_BYTES_MAX: usize = 120;

/// Code of the issue that says that a parameter is missing.
const REQUIRED: &str = "required";
/// Before what a search of a patient brings, where one of everybody is refused for lack of a parameter.
const OF_PATIENT_TOO: &str = "of a patient too: ";

/// Characters of a digest that are shown.
const DIGEST_CHARS: usize = 12;

/// File of what was found, in the data directory.
pub const FILE: &str = "capability.json";

/// A parameter, code, id and format that nobody has.
const NOTHING: &str = "watershed-probe";
/// A time of which nothing can be yet.
const NEVER: &str = "ge2999-01-01T00:00:00.000Z";
/// A time since which everything is.
const EVER: &str = "ge1900-01-01";
/// A day of which nothing can be yet.
const NEVER_DAY: &str = "ge2999-01-01";
const FHIR_JSON: &str = "application/fhir+json";

/// What the name of a parameter is followed by, where the fact is about a list of its values.
pub const LIST: &str = " list";
/// Values of a list at least, of which only the last one is anything's: some servers heed the first ten only.
const LIST_VALUES: usize = 25;

/// The server as a whole, among the types that facts are about.
pub const SERVER: &str = "server";
/// What facts about its version are called.
const FHIR_VERSION: &str = "FHIR version";
const SOFTWARE: &str = "digest of the software's name";
/// What a night finds and a check does not look at: that links to further pages are forgotten.
pub const LINKS: &str = "links to further pages";
/// The same: that exports do not heed `_since`.
pub const SINCE: &str = "_since of exports";
/// The same, behind the name of a parameter: how many of its values a question may name, where more are refused, not heeded or take too long.
pub const AT_ONCE: &str = " values at once";
/// What a fact about the granted scopes is called.
const SCOPES_GRANTED: &str = "scopes granted";

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// It does what it should.
    Works,
    /// It does as if nothing had been asked, without a word.
    Ignored,
    /// The same, and it says so.
    IgnoredAndSaid,
    /// It refuses.
    Refused,
    /// There is no such thing.
    Absent,
    /// It does something else.
    Wrong,
    /// Neither good nor bad: the detail says what it is.
    Is,
    /// It could not be told.
    Untold,
}

impl Found {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Found::Works => "works",
            Found::Ignored => "ignored without a word",
            Found::IgnoredAndSaid => "ignored, and said so",
            Found::Refused => "refused",
            Found::Absent => "not there",
            Found::Wrong => "wrong",
            Found::Is => "",
            Found::Untold => "cannot be told",
        }
    }
}

/// One thing that a server declares or does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// A resource type, or [`SERVER`].
    pub about: String,
    /// A parameter, an operation, a property.
    pub what: String,
    /// Whether the server declares it, where that can be said.
    pub declared: Option<bool>,
    /// What it does.
    pub found: Found,
    /// More of it, without anything of a patient.
    pub detail: String,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = if self.detail.is_empty() || self.found == Found::Is { "" } else { ": " };
        write!(f, "{}{between}{}", self.found.word(), self.detail)
    }
}

/// Looks at what the plan will use: each type's search, its parameters and paging; then what the server does as a whole.
pub async fn probe(source: &Source, plan: &Plan) -> Vec<Fact> {
    let mut probing = Probing { source, plan, requests: 0, facts: Vec::new() };
    probing.about_server();
    let mut seen: Vec<Seen> = Vec::new();
    for resource_type in plan.types.difference(&plan.referenced).take(TYPES_MAX) {
        seen.extend(probing.about_type(resource_type).await);
    }
    probing.about_cohort().await;
    // The fullest type tells most of the server as a whole.
    seen.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.resource_type.cmp(&b.resource_type)));
    if let Some(first) = seen.first() {
        probing.about_searches(first).await;
    }
    if source.options.mode != Mode::Search {
        probing.about_exports().await;
    }
    probing.facts
}

/// A type that can be searched.
struct Seen {
    resource_type: String,
    /// What each search of it must have.
    base: Vec<(String, String)>,
    has_next: bool,
    /// How many there are, as far as that is known.
    count: u64,
}

/// How a search is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Strict,
    Lenient,
    Post,
}

struct Probing<'a> {
    source: &'a Source,
    plan: &'a Plan,
    requests: usize,
    facts: Vec<Fact>,
}

impl Probing<'_> {
    fn note(&mut self, about: &str, what: &str, declared: Option<bool>, found: Found, detail: impl Into<String>) {
        self.facts.push(Fact { about: about.to_owned(), what: what.to_owned(), declared, found, detail: detail.into() });
    }

    fn about_server(&mut self) {
        self.facts.extend(identity(&self.source.capability));
        if let Some(tokens) = &self.source.tokens {
            match tokens.granted() {
                Some(granted) => self.note(SERVER, SCOPES_GRANTED, None, Found::Is, shown_scopes(&granted)),
                None => self.note(SERVER, SCOPES_GRANTED, None, Found::Untold, "the server does not say which"),
            }
        }
    }

    /// Sends a request, if there were not too many already. Nothing of a failed one is kept.
    async fn send(&mut self, request: Request) -> Option<Response> {
        if self.requests >= REQUESTS_MAX {
            return None;
        }
        self.requests += 1;
        self.source.client.send(request).await.ok()
    }

    /// Asks; what may not be got is posted, as nights do.
    async fn ask(&mut self, resource_type: &str, parameters: &[(String, String)], more: &[(&str, &str)], how: How) -> Option<Response> {
        let answer = self.ask_so(resource_type, parameters, more, how).await;
        if how == How::Post || answer.as_ref().is_none_or(|answer| answer.status != 405) {
            return answer;
        }
        let posted = self.ask_so(resource_type, parameters, more, How::Post).await;
        posted.filter(|posted| posted.status != 405).or(answer)
    }

    async fn ask_so(&mut self, resource_type: &str, parameters: &[(String, String)], more: &[(&str, &str)], how: How) -> Option<Response> {
        let everywhere = &self.plan.everywhere;
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(parameters.iter().chain(everywhere)).extend_pairs(more);
        let form = form.finish();
        let handling = if how == How::Lenient { "handling=lenient" } else { "handling=strict" };
        let request = match how {
            How::Post => {
                let address = below(&self.source.base, &format!("{resource_type}/_search")).ok()?;
                Request::new(Method::POST, address).body("application/x-www-form-urlencoded", form.into_bytes()).repeatable()
            }
            _ => {
                let mut address = below(&self.source.base, resource_type).ok()?;
                address.set_query(Some(&form));
                Request::new(Method::GET, address)
            }
        };
        self.send(request.header("accept", FHIR_JSON).header("prefer", handling)).await
    }

    /// Whether and how a type is searched; `None` if it is not.
    async fn about_type(&mut self, name: &str) -> Option<Seen> {
        let base = self.base_of(name);
        let declared = Some(self.source.capability.types.contains_key(name));
        if let Some(why) = self.source.withheld.get(name) {
            self.note(name, "search", declared, Found::Refused, why.text.clone());
            return None;
        }
        let answer = self.ask(name, &base, &[("_count", "1")], How::Strict).await;
        let (answer, page) = match searched(answer) {
            Ok(searched) => searched,
            Err((found, detail)) => {
                let is_of_patients = found == Found::Refused && detail.contains(REQUIRED);
                let (found, detail) = if is_of_patients { self.of_member(name, &base).await.unwrap_or((found, detail)) } else { (found, detail) };
                self.note(name, "search", declared, found, detail);
                return None;
            }
        };
        self.note(name, "search", declared, Found::Works, "");
        let number = self.ask(name, &base, &[("_summary", "count")], How::Strict).await;
        let count = number.as_ref().and_then(counted);
        match (&count, number) {
            (Some(_), _) => self.note(name, "_summary=count", None, Found::Works, ""),
            (None, Some(answer)) if answer.is_success() => self.note(name, "_summary=count", None, Found::Wrong, "it brings no number"),
            (None, answer) => self.note(name, "_summary=count", None, missing(answer.as_ref()), status_of(answer.as_ref())),
        }
        let has_next = self.about_paging(name, &answer, &page, count).await;
        let has_data = !matches(name, &page).is_empty();
        for parameter in self.parameters_of(name) {
            self.about_parameter(name, &base, &parameter, has_data).await;
        }
        if let Some(json) = matches(name, &page).first() {
            self.about_lists(name, &base, json).await;
        }
        has_data.then(|| Seen { resource_type: name.to_owned(), base, has_next, count: count.unwrap_or(if has_next { 2 } else { 1 }) })
    }

    /// Whether a type is searched of one of the Group's patients, as pulls do; `None` where there is none to ask of. The patient stands in
    /// no address.
    async fn of_member(&mut self, name: &str, base: &[(String, String)]) -> Option<(Found, String)> {
        let parameter = self.source.capability.patient_parameter(name)?;
        let member = self.member().await?;
        let by_post = searched(self.ask(name, base, &[(parameter, &member), ("_count", "1")], How::Post).await);
        let Err((found, detail)) = by_post else { return Some((Found::Works, "of a patient".to_owned())) };
        // Nobody has this id.
        if searched(self.ask(name, base, &[(parameter, NOTHING), ("_count", "1")], How::Strict).await).is_ok() {
            return Some((Found::Works, format!("of a patient, who stands in an address: by POST it is not ({detail})")));
        }
        let category = categories(name).and_then(<[_]>::first).filter(|_| detail.contains(REQUIRED));
        if let Some(category) = category {
            let by_category = self.ask(name, base, &[(parameter, &member), ("category", category), ("_count", "1")], How::Post).await;
            if searched(by_category).is_ok() {
                return Some((Found::Works, "of a patient and by category".to_owned()));
            }
        }
        Some((found, format!("{OF_PATIENT_TOO}{detail}")))
    }

    /// A patient of the Group or of the list, or whom the search finds.
    async fn member(&mut self) -> Option<String> {
        if let Some(list) = &self.source.options.tuning.patients {
            return list.read().ok()?.ids.pop_first();
        }
        if let Some(search) = self.plan.cohort.searches().first() {
            let (_, page) = searched(self.ask("Patient", search, &[("_count", "1")], How::Strict).await).ok()?;
            return matches("Patient", &page).first().and_then(|json| patient_of("Patient", json.as_bytes()));
        }
        let group = Some(&self.source.options.group).filter(|group| is_id(group))?;
        let request = Request::new(Method::GET, below(&self.source.base, &format!("Group/{group}")).ok()?).header("accept", FHIR_JSON);
        let group = self.send(request).await?.json::<serde_json::Value>()?;
        let references = group.get("member")?.as_array()?.iter().filter_map(|member| member.pointer("/entity/reference")?.as_str());
        references.filter_map(reference_target).find_map(|(kind, id)| (kind == Some("Patient")).then(|| id.to_owned()))
    }

    /// What the configuration says that each search of a type must have: the first of its variants.
    fn base_of(&self, name: &str) -> Vec<(String, String)> {
        let variant = self.source.options.parameters.get(name).and_then(|variants| variants.first()).map(String::as_str).unwrap_or_default();
        url::form_urlencoded::parse(variant.as_bytes()).into_owned().collect()
    }

    /// The parameters that pulls of this type use, or could.
    fn parameters_of(&self, name: &str) -> BTreeSet<String> {
        let queries = self.plan.queries.iter().filter(|query| query.resource_type == name && !self.plan.finds_patients(query));
        let used = queries.flat_map(|query| query.parameters.iter().map(|(parameter, _)| parameter.clone()).chain(query.by_patient.clone()));
        let patient = search_parameters(name).iter().find(|parameter| self.source.capability.declares(name, parameter) == Some(true));
        let mut parameters: BTreeSet<String> = used.chain(["_lastUpdated".to_owned()]).chain(patient.map(|parameter| (*parameter).to_owned())).collect();
        if self.source.capability.declares(name, "code") == Some(true) {
            parameters.insert("code".to_owned());
        }
        parameters.into_iter().take(PARAMETERS_MAX).collect()
    }

    /// A parameter with a value that nothing has: what comes nevertheless shows that it is ignored.
    async fn about_parameter(&mut self, name: &str, base: &[(String, String)], parameter: &str, has_data: bool) {
        let Some(value) = impossible(name, parameter) else { return };
        let declared = self.source.capability.declares(name, parameter);
        let rest: Vec<(String, String)> = base.iter().filter(|(own, _)| own != parameter).cloned().collect();
        let answer = self.ask(name, &rest, &[(parameter, value), ("_count", "1")], How::Strict).await;
        let (found, detail) = match searched(answer) {
            Err((found, detail)) => (found, detail),
            Ok((answer, page)) => match (matches(name, &page).is_empty(), says_ignored(&answer, &page, parameter)) {
                (false, true) => (Found::IgnoredAndSaid, String::new()),
                (false, false) => (Found::Ignored, String::new()),
                (true, _) if has_data => (Found::Works, String::new()),
                (true, _) => (Found::Untold, "there is nothing of this type".to_owned()),
            },
        };
        let (found, detail) = if parameter == "_lastUpdated" && found == Found::Works { self.about_times(name, &rest).await } else { (found, detail) };
        self.note(name, parameter, declared, found, detail);
    }

    /// Whether the site's own search for patients is heeded, parameter by parameter, as nights find out before they rely on it.
    async fn about_cohort(&mut self) {
        let searches = self.plan.cohort.searches();
        let mut tried: BTreeSet<Trial> = BTreeSet::new();
        for search in &searches {
            for (parameter, trial) in cohort::trials(search) {
                if !tried.insert(trial.clone()) {
                    continue;
                }
                let (found, detail) = self.about_trial(search, parameter, &trial).await;
                // Of one that is tried several times the worst is told.
                let is_other = |fact: &Fact| fact.about != "Patient" || fact.what != parameter;
                if self.facts.iter().all(is_other) || found != Found::Works {
                    self.facts.retain(is_other);
                    self.note("Patient", parameter, self.source.capability.declares("Patient", parameter), found, detail);
                }
            }
        }
    }

    async fn about_trial(&mut self, search: &Parameters, parameter: &str, trial: &Trial) -> (Found, String) {
        let works = (Found::Works, String::new());
        let mut says = false;
        if let Trial::Nobody(asked) = trial {
            match searched(self.ask("Patient", asked, &[("_count", "1")], How::Strict).await) {
                Ok((_, page)) if matches("Patient", &page).is_empty() && page.link("next").is_none() => return works,
                Ok((answer, page)) => says = says_ignored(&answer, &page, parameter),
                // What takes no wrong value may take the one that is meant.
                Err((Found::Refused | Found::Absent | Found::Wrong, _)) => {
                    let alone: Parameters = search.iter().filter(|(name, _)| name == parameter).cloned().collect();
                    return searched(self.ask("Patient", &alone, &[("_count", "1")], How::Strict).await).map_or_else(|refusal| refusal, |_| works);
                }
                Err(trouble) => return trouble,
            }
        }
        let mut numbers = Vec::new();
        for asked in [search, trial.asked()] {
            let answer = self.ask("Patient", asked, &[("_summary", "count")], How::Lenient).await;
            numbers.push(answer.as_ref().and_then(counted));
        }
        match numbers.as_slice() {
            [Some(own), Some(more)] if own < more => works,
            _ if says => (Found::IgnoredAndSaid, String::new()),
            [Some(_), Some(1..)] => (Found::Ignored, String::new()),
            _ => (Found::Untold, "a search that is to find nobody finds somebody, and the server says no numbers".to_owned()),
        }
    }

    /// Whether a search finds anything; `None` if it is not answered.
    async fn finds(&mut self, name: &str, base: &[(String, String)], with: (&str, &str), how: How) -> Option<bool> {
        let answer = searched(self.ask(name, base, &[with, ("_count", "1")], how).await);
        answer.ok().map(|(_, page)| !matches(name, &page).is_empty())
    }

    /// The same by POST, and by GET where that brings no answer.
    async fn finds_somehow(&mut self, name: &str, base: &[(String, String)], with: (&str, &str)) -> bool {
        match self.finds(name, base, with, How::Post).await {
            Some(found) => found,
            None => self.finds(name, base, with, How::Strict).await == Some(true),
        }
    }

    /// A list of as many values as a pull asks for at once, of which the last one is that of a resource which came, must find it, where
    /// this value alone does. The values stand in no address, unless searches by POST are refused, and are not kept.
    async fn about_lists(&mut self, name: &str, base: &[(String, String)], json: &str) {
        let declared = |parameter: &str| self.source.capability.declares(name, parameter) == Some(true);
        let by_patient = search_parameters(name).iter().copied().find(|parameter| declared(parameter));
        let by_code = Some("code").filter(|parameter| declared(parameter));
        for parameter in by_patient.into_iter().chain(by_code) {
            let Some(value) = value_of(name, parameter, json) else { continue };
            let rest: Vec<(String, String)> = base.iter().filter(|(own, _)| own != parameter).cloned().collect();
            let nothing = impossible(name, parameter).unwrap_or(NOTHING);
            let list = |values: usize| (1..values).map(|number| format!("{nothing}-{number}")).chain([value.clone()]).collect::<Vec<_>>().join(",");
            let [usual, most] = self.list_lengths(name, parameter);
            let (found, detail) = if self.finds_somehow(name, &rest, (parameter, &list(most))).await {
                (Found::Works, String::new())
            } else if most > usual && self.finds_somehow(name, &rest, (parameter, &list(usual))).await {
                (Found::Works, format!("with {usual} values, and not with {most}"))
            } else if self.finds_somehow(name, &rest, (parameter, &value)).await {
                (Found::Wrong, "what each of its values finds, a list of them does not".to_owned())
            } else {
                continue;
            };
            self.note(name, &format!("{parameter}{LIST}"), None, found, detail);
        }
    }

    /// How many values of a parameter a search names, and a count at most.
    fn list_lengths(&self, name: &str, parameter: &str) -> [usize; 2] {
        let of_search = self.source.options.tuning.patients_per_query.max(LIST_VALUES);
        match parameter {
            "code" => {
                [self.plan
                    .queries
                    .iter()
                    .filter(|query| query.resource_type == name)
                    .map(codes_of)
                    .max()
                    .unwrap_or_default()
                    .max(LIST_VALUES); 2]
            }
            _ if self.plan.cohort.is_everybody() => [of_search; 2],
            _ => [of_search, of_search.max(PATIENTS_PER_COUNT)],
        }
    }

    /// Whether a time of change finds what has changed since, which is everything.
    async fn about_times(&mut self, name: &str, base: &[(String, String)]) -> (Found, String) {
        match searched(self.ask(name, base, &[("_lastUpdated", EVER), ("_count", "1")], How::Strict).await) {
            Ok((_, page)) if matches(name, &page).is_empty() => (Found::Wrong, "of what has changed since 1900 it finds nothing, and there is something".to_owned()),
            Ok(_) => (Found::Works, String::new()),
            Err(refusal) => refusal,
        }
    }

    /// Whether a second page can be had, where there must be one. Gives whether there is a link to it.
    async fn about_paging(&mut self, name: &str, answer: &Response, page: &Bundle, count: Option<u64>) -> bool {
        let first = matches(name, page);
        let next = next_address(self.source, &answer.url, page);
        let has_next = !matches!(next, Ok(None));
        let (found, detail) = match next {
            Err(reason) => (Found::Wrong, reason.text),
            Ok(Some(next)) => match searched(self.send(Request::new(Method::GET, next).header("accept", FHIR_JSON)).await) {
                Err((Found::Untold, detail)) => (Found::Untold, detail),
                Err((_, detail)) => (Found::Wrong, format!("the next page cannot be had: {detail}")),
                Ok((_, second)) if !first.is_empty() && matches(name, &second) == first => (Found::Wrong, "the next page is the first one again".to_owned()),
                Ok(_) => (Found::Works, String::new()),
            },
            Ok(None) if first.len() > 1 => (Found::Wrong, "a page of one is asked for, and more come".to_owned()),
            Ok(None) => match count {
                Some(2..) => (Found::Wrong, "the first page has no link to the next one, though there are more resources".to_owned()),
                Some(_) => (Found::Untold, "one page holds all".to_owned()),
                None => (Found::Untold, "no link to a next page, and no number of resources".to_owned()),
            },
        };
        self.note(name, "paging", None, found, detail);
        has_next
    }

    /// What holds for every search, seen at one type.
    async fn about_searches(&mut self, seen: &Seen) {
        let Seen { resource_type: name, base, has_next, .. } = seen;
        let (found, detail) = match searched(self.ask(name, base, &[(NOTHING, "x"), ("_count", "1")], How::Strict).await) {
            Ok((answer, page)) if says_ignored(&answer, &page, NOTHING) => (Found::IgnoredAndSaid, String::new()),
            Ok(_) => (Found::Ignored, String::new()),
            Err(refusal) => refusal,
        };
        self.note(SERVER, "a parameter that does not exist", None, found, detail);

        let (found, detail) = match searched(self.ask(name, base, &[("_count", "1")], How::Post).await) {
            Ok((_, page)) if matches(name, &page).is_empty() => (Found::Wrong, "it finds nothing, where the same search by GET does".to_owned()),
            Ok(_) if self.finds(name, base, ("_id", NOTHING), How::Post).await == Some(true) && self.finds(name, base, ("_id", NOTHING), How::Strict).await == Some(false) => {
                (Found::Wrong, "it finds everything, whatever is asked, as where what is posted does not arrive".to_owned())
            }
            Ok(_) => (Found::Works, String::new()),
            Err(refusal) => refusal,
        };
        self.note(SERVER, "search by POST", None, found, detail);

        let (found, detail) = match searched(self.ask(name, base, &[("_total", "accurate"), ("_count", "1")], How::Strict).await) {
            Ok((_, page)) if *has_next && page.link("next").is_none() => (Found::Wrong, "with it, pages have no link to the next one".to_owned()),
            Ok((_, page)) if page.total().is_some() => (Found::Works, String::new()),
            Ok(_) => (Found::Ignored, String::new()),
            Err(refusal) => refusal,
        };
        self.note(SERVER, "_total=accurate", None, found, detail);

        let asked = self.source.options.page_size;
        let size = asked.to_string();
        let (found, detail) = match searched(self.ask(name, base, &[("_count", &size), ("_elements", "id")], How::Lenient).await) {
            Ok((_, page)) => {
                let came = matches(name, &page).len() as u64;
                match page.link("next") {
                    _ if came >= u64::from(asked) => (Found::Is, format!("{asked} or more")),
                    Some(_) => (Found::Is, format!("{came}, where {asked} are asked for")),
                    None => (Found::Untold, "a page holds everything of each type".to_owned()),
                }
            }
            Err(refusal) => refusal,
        };
        self.note(SERVER, "page size", None, found, detail);
    }

    /// The exports that concern this site. What is asked for does not exist; should one begin nevertheless, it is deleted.
    async fn about_exports(&mut self) {
        let capability = &self.source.capability;
        let levels = match &self.plan.cohort {
            Cohort::List | Cohort::Search(_) => Vec::new(),
            Cohort::Everybody => {
                vec![("system export", "$export".to_owned(), capability.export_system), ("patient export", "Patient/$export".to_owned(), capability.export_patient)]
            }
            Cohort::Group(group) => vec![("group export", format!("Group/{group}/$export"), capability.export_group)],
        };
        for (what, path, declared) in levels {
            let (found, detail) = if self.source.capability.export_by_post { (Found::Untold, String::new()) } else { self.about_export(&path, declared).await };
            self.note(SERVER, what, Some(declared), found, detail);
        }
    }

    async fn about_export(&mut self, path: &str, declared: bool) -> (Found, String) {
        let Ok(mut address) = below(&self.source.base, path) else { return (Found::Untold, String::new()) };
        // For several reasons none can begin: one site may have one export a day. A type is not named, since some must have it.
        address.query_pairs_mut().append_pair("_outputFormat", NOTHING).append_pair("_since", NOTHING);
        let request = Request::new(Method::GET, address).header("accept", FHIR_JSON).once();
        let Some(answer) = self.send(request).await else { return (Found::Untold, status_of(None)) };
        let shown = status_of(Some(&answer));
        match answer.status {
            202 => {
                let status = answer.header("content-location").and_then(|location| answer.url.join(location).ok());
                if let Some(status) = status.filter(|status| self.source.is_own(status)) {
                    self.send(Request::new(Method::DELETE, status).once()).await;
                }
                (Found::Works, "it takes a format that does not exist".to_owned())
            }
            // The right answer to a wrong question; of a server that knows no export it may be meant for the operation.
            400 | 406 | 415 | 422 if declared => (Found::Works, String::new()),
            401 | 403 => (Found::Refused, shown),
            404 | 405 | 501 => (Found::Absent, shown),
            _ => (Found::Untold, shown),
        }
    }
}

/// Which version of which software a server is.
fn identity(capability: &Capability) -> [Fact; 2] {
    let fact = |what: &str, detail: String| Fact { about: SERVER.to_owned(), what: what.to_owned(), declared: None, found: Found::Is, detail };
    let version = capability.fhir_version.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect();
    // What a server calls itself is free text, which is not kept; that it changed is told by its digest.
    let mut digest = crate::store::sha256_hex(capability.software.as_bytes());
    digest.truncate(DIGEST_CHARS);
    [fact(FHIR_VERSION, version), fact(SOFTWARE, digest)]
}

/// The page that a search brought, or what came in its place.
fn searched(answer: Option<Response>) -> Result<(Response, Bundle), (Found, String)> {
    let Some(answer) = answer else { return Err((Found::Untold, status_of(None))) };
    if !answer.is_success() {
        return Err((missing(Some(&answer)), status_of(Some(&answer))));
    }
    match Bundle::read(&answer.body) {
        Some(page) => Ok((answer, page)),
        None => Err((Found::Wrong, "the answer is no Bundle".to_owned())),
    }
}

/// What it means that nothing useful came.
fn missing(answer: Option<&Response>) -> Found {
    match answer.map(|answer| answer.status) {
        Some(404 | 405 | 501) => Found::Absent,
        Some(400..=499) if answer.is_some_and(|answer| !matches!(answer.status, 408 | 425 | 429)) => Found::Refused,
        _ => Found::Untold,
    }
}

fn status_of(answer: Option<&Response>) -> String {
    answer.map_or_else(|| "no answer".to_owned(), |answer| format!("status {}{}", answer.status, issue_shown(&answer.body)))
}

/// The resources that a page says were searched for, as they came.
fn matches<'a>(name: &'a str, page: &'a Bundle) -> Vec<&'a str> {
    page.items(name).filter_map(|item| if let Item::Match(json) = item { Some(json) } else { None }).collect()
}

/// The value of a parameter that finds a resource.
fn value_of(name: &str, parameter: &str, json: &str) -> Option<String> {
    if parameter != "code" {
        return patient_of(name, json.as_bytes());
    }
    let resource: serde_json::Value = serde_json::from_str(json).ok()?;
    let coding = resource.pointer("/code/coding/0")?;
    let text = |element: &str| coding.get(element)?.as_str();
    Some(format!("{}|{}", text("system")?, text("code")?))
}

/// How many codes a query asks for.
fn codes_of(query: &Query) -> usize {
    query.parameters.iter().filter(|(name, _)| name == "code").map(|(_, codes)| codes.split(',').count()).sum()
}

/// Whether a server says that it did not use a parameter: its own link leaves it out, or an outcome stands among the entries.
fn says_ignored(answer: &Response, page: &Bundle, parameter: &str) -> bool {
    let is_outcome = |item: Item<'_>| matches!(item, Item::Outcome(json) if json.contains(parameter));
    page.ignored(&answer.url, [parameter].into_iter()).contains(parameter) || page.items("").any(is_outcome)
}

/// Whether the site's own search for patients asks by a parameter.
fn is_sought(options: &Options, parameter: &str) -> bool {
    Cohort::of(options).searches().iter().flatten().any(|(name, _)| name == parameter)
}

/// A value of a parameter that nothing has; `None` for parameters whose values are not known here.
pub(super) fn impossible(resource_type: &str, parameter: &str) -> Option<&'static str> {
    match parameter {
        "_lastUpdated" => Some(NEVER),
        "_id" => Some(NOTHING),
        "category" | "class" | "clinical-status" | "code" | "intent" | "status" | "type" | "verification-status" => Some("urn:watershed:probe|watershed-probe"),
        "date" | "authoredon" | "onset-date" | "recorded-date" => Some(NEVER_DAY),
        _ if search_parameters(resource_type).contains(&parameter) => Some(NOTHING),
        _ => None,
    }
}

/// The scopes of a token, sorted, without the queries that narrow them; a server's words that are no scopes are left out.
pub(super) fn shown_scopes(granted: &str) -> String {
    let scopes: BTreeSet<&str> = granted.split_ascii_whitespace().filter_map(scope).take(SCOPES_MAX).collect();
    scopes.into_iter().collect::<Vec<_>>().join(" ")
}

fn scope(word: &str) -> Option<&str> {
    let scope = word.split('?').next()?;
    let (name, rights) = scope.strip_prefix("system/")?.split_once('.')?;
    let is_right = matches!(rights, "read" | "write" | "*") || (!rights.is_empty() && rights.bytes().all(|letter| b"cruds".contains(&letter)));
    (is_right && scope.len() <= SCOPE_BYTES_MAX && (name == "*" || name.bytes().all(|letter| letter.is_ascii_alphabetic()))).then_some(scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_words_are_no_scopes() {
        let granted = "system/Patient.rs system/*.read Jane/Doe system/Observation.rs?category=Jane system/Patient.Jane openid system/Jane-Doe.rs";
        assert_eq!(shown_scopes(granted), "system/*.read system/Observation.rs system/Patient.rs");
    }
}
