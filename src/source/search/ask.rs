//! How a search is sent: by GET, or by POST where an address would hold patients or be too long; and where its next page is.

use super::Task;
use super::census::once;
use super::page::{Bundle, Item, counted};
use super::part::{Part, instant};
use crate::http::{HttpError, Origin, Request, Response};
use crate::smart::client::below;
use crate::source::duty::{Code, Why};
use crate::source::probe::impossible;
use crate::source::pull::Pull;
use crate::source::{Source, SourceError};
use reqwest::Method;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use url::Url;

/// Longest address that every server and proxy on the way takes.
pub(super) const ADDRESS_BYTES_MAX: usize = 1_900;

pub(super) const FHIR_JSON: &str = "application/fhir+json";
const FORM: &str = "application/x-www-form-urlencoded";

/// One request of a search.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// Where it goes.
    pub url: Url,
    /// The form that is posted there; `None`: a GET.
    pub form: Option<String>,
}

impl Ask {
    /// The first page of a part of a task.
    pub fn first(pull: &Pull<'_>, parameters: &[(String, String)], resource_type: &str, by_post: bool) -> Result<Ask, HttpError> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        parameters.iter().chain(&pull.plan.everywhere).for_each(|(name, value)| {
            form.append_pair(name, value);
        });
        let form = form.finish();
        if by_post || pull.habits.only_post.load(Ordering::Relaxed) {
            return Ok(Ask { url: below(&pull.source.base, &format!("{resource_type}/_search"))?, form: Some(form) });
        }
        let mut url = below(&pull.source.base, resource_type)?;
        url.set_query(Some(&form));
        Ok(Ask { url, form: None })
    }

    /// The same further page, whose address is too long to get, as a search by POST.
    pub fn posted(&self) -> Ask {
        let mut url = self.url.clone();
        let form = url.query().unwrap_or_default().to_owned();
        url.set_query(None);
        let path = url.path().trim_end_matches('/').to_owned();
        if path.rsplit('/').next().is_some_and(|last| last.starts_with(|first: char| first.is_ascii_uppercase())) {
            url.set_path(&format!("{path}/_search"));
        }
        Ask { url, form: Some(form) }
    }

    /// Whether the address may be too long for somebody on the way.
    pub fn is_long(&self) -> bool {
        self.url.as_str().len() > ADDRESS_BYTES_MAX
    }

    /// Tells this request from every other.
    pub fn digest(&self) -> String {
        crate::store::sha256_hex(format!("{}\n{}", self.url, self.form.as_deref().unwrap_or_default()).as_bytes())
    }

    /// Sends it. Unknown parameters are to be refused if it is `strict`; failures are sat out if it is `patient`.
    pub async fn send(&self, pull: &Pull<'_>, strict: bool, patient: bool) -> Result<Response, HttpError> {
        self.send_at_most(pull, strict, if patient { u32::MAX } else { 1 }).await
    }

    /// Sends it, so often at most where attempts fail. What may not be got is posted: some servers search by POST only.
    pub async fn send_at_most(&self, pull: &Pull<'_>, strict: bool, attempts: u32) -> Result<Response, HttpError> {
        let (habits, by_get) = (&pull.habits, self.form.is_none());
        let answer = self.send_once(pull, strict, attempts).await?;
        if !by_get || answer.status != 405 || habits.no_post.load(Ordering::Relaxed) {
            return Ok(answer);
        }
        let posted = self.posted().send_once(pull, strict, attempts).await?;
        habits.only_post.fetch_or(posted.is_success(), Ordering::Relaxed);
        Ok(if posted.status == 405 { answer } else { posted })
    }

    async fn send_once(&self, pull: &Pull<'_>, strict: bool, attempts: u32) -> Result<Response, HttpError> {
        let method = if self.form.is_some() { Method::POST } else { Method::GET };
        let handling = if strict { "handling=strict" } else { "handling=lenient" };
        let request = Request::new(method, self.url.clone()).header("accept", FHIR_JSON).header("prefer", handling).repeatable();
        let request = match &self.form {
            Some(form) => request.body(FORM, form.clone().into_bytes()),
            None => request,
        };
        pull.source.client.send(request.at_most(attempts)).await
    }
}

/// Finds out, once in a pull, whether the body of a search by POST arrives: one that asks for a patient by id finds that one alone. What
/// drops it on the way answers with everybody, or with nobody.
pub(super) async fn try_post(pull: &Pull<'_>, patients: impl IntoIterator<Item = &String>) -> Result<(), SourceError> {
    let habits = &pull.habits;
    let tried = habits.post_tried.get_or_try_init(|| async {
        // Who does not heed ids finds everybody in any way.
        if habits.no_post.load(Ordering::Relaxed) || pull.source.capability.found("Patient", "_id").is_some() {
            return Ok(());
        }
        // Of one who is stored it is known that there is something to be found.
        let stored: BTreeSet<String> = if pull.since.is_some() { pull.snapshot.patient_ids()?.into_iter().collect() } else { BTreeSet::new() };
        let mut patients = patients.into_iter().peekable();
        let first = patients.peek().copied();
        let known = patients.find(|id| stored.contains(*id));
        let Some(patient) = known.or(first) else { return Ok(()) };
        let is_lost = once(pull, "Patient", "whether what is posted arrives", is_lost(pull, patient, known.is_some())).await? == Some(1);
        if is_lost {
            tracing::warn!(pull = pull.id.0, "what is posted does not arrive: patients' ids stand in addresses");
        }
        habits.no_post.fetch_or(is_lost, Ordering::Relaxed);
        Ok(())
    });
    tried.await.copied()
}

/// 1 if it is lost.
async fn is_lost(pull: &Pull<'_>, patient: &str, is_known: bool) -> Result<Option<u64>, SourceError> {
    let is_lost = match found(pull, Some(patient), true).await? {
        None | Some(1) => false,
        Some(0) if is_known => {
            let own = below(&pull.source.base, &format!("Patient/{patient}"))?;
            answered(pull.source.client.get(own, FHIR_JSON).await)?.is_some_and(|answer| answer.is_success())
        }
        // Nobody is found, whoever is asked for.
        Some(0) => found(pull, None, true).await? == Some(0) && found(pull, None, false).await?.is_some_and(|found| found > 0),
        // Or the server does not heed ids.
        Some(_) => found(pull, impossible("Patient", "_id"), false).await? == Some(0),
    };
    Ok(Some(u64::from(is_lost)))
}

/// How many patients a search finds, by an id or of all, of more than one at least two; `None` where it is not answered.
async fn found(pull: &Pull<'_>, id: Option<&str>, by_post: bool) -> Result<Option<u64>, SourceError> {
    for way in [("_summary", "count"), ("_count", "2")] {
        let asked = id.map(|id| ("_id", id)).into_iter().chain([way]);
        let parameters: Vec<(String, String)> = asked.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let answer = answered(Ask::first(pull, &parameters, "Patient", by_post)?.send(pull, false, false).await)?;
        let Some(answer) = answer.filter(Response::is_success) else { continue };
        let page = Bundle::read(&answer.body);
        let number = if way.0 == "_count" { page.map(|page| page.items("Patient").filter(|item| matches!(item, Item::Match(_))).count() as u64) } else { counted(&answer) };
        if number.is_some() {
            return Ok(number);
        }
    }
    Ok(None)
}

/// Sends a search that names patients, who stand in an address only where searches by POST do not work. Gives the answer, if there is one;
/// failures are sat out if it is `patient`.
pub(super) async fn send_somehow(pull: &Pull<'_>, parameters: &[(String, String)], resource_type: &str, patient: bool) -> Result<Option<Response>, SourceError> {
    let send = async |by_post| answered(Ask::first(pull, parameters, resource_type, by_post)?.send(pull, false, patient).await);
    let no_post = &pull.habits.no_post;
    if !no_post.load(Ordering::Relaxed) {
        let answer = send(true).await?;
        if !answer.as_ref().is_some_and(|answer| matches!(answer.status, 403 | 404 | 405 | 415 | 501)) {
            return Ok(answer);
        }
    }
    let answer = send(false).await?;
    no_post.fetch_or(answer.as_ref().is_some_and(Response::is_success), Ordering::Relaxed);
    Ok(answer)
}

/// An answer, if there is one.
pub(super) fn answered(answer: Result<Response, HttpError>) -> Result<Option<Response>, SourceError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.ends_all() => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Whether the server refuses the code beside the patients: it is looked for here.
pub(super) fn is_without_code(pull: &Pull<'_>, task: &Task<'_>) -> bool {
    task.patients.is_some() && pull.habits.types(|types| types.without_code.contains(&task.query.resource_type))
}

/// The parameters of a part of a task, without the size of its pages.
pub(super) fn parameters(pull: &Pull<'_>, task: &Task<'_>, part: &Part) -> Vec<(String, String)> {
    let mut parameters = task.query.parameters.clone();
    parameters.retain(|(name, _)| name != "code" || !is_without_code(pull, task));
    parameters.extend(task.category.map(|category| ("category".to_owned(), category.to_owned())));
    if let (Some(parameter), Some(patients)) = (&task.query.by_patient, &part.patients) {
        parameters.push((parameter.clone(), pull.habits.lists.joined(&task.query.resource_type, parameter, patients)));
    }
    let bounds = [("ge", part.from), ("lt", part.until)];
    parameters.extend(bounds.into_iter().filter_map(|(prefix, at)| Some(("_lastUpdated".to_owned(), format!("{prefix}{}", instant(at?))))));
    parameters
}

/// The address of the next page. It is the server's to make; ours is only to see whose it is.
pub(in crate::source) fn next_address(source: &Source, from: &Url, bundle: &Bundle) -> Result<Option<Url>, Why> {
    let Some(address) = bundle.link("next") else { return Ok(None) };
    let Ok(mut url) = from.join(address) else {
        return Err(Why::new(Code::Paging, "the server's link to the next page is not an address"));
    };
    let (home, away) = (Origin::of(&source.base), Origin::of(&url));
    if home != away {
        let inner = source.options.internal_origins.iter().filter_map(|written| Url::parse(written).ok());
        // The one that says the most of where the server's base is.
        let inner = inner
            .filter(|inner| Origin::of(inner) == away && path_below(&url, inner).is_some())
            .max_by_key(|inner| inner.path().len());
        let shown = away.as_ref().map_or_else(|| "an address that is not http".to_owned(), ToString::to_string);
        if !inner.is_some_and(|inner| move_to(&mut url, &inner, &source.base)) {
            let reason = format!(
                "the server's next page is at another origin, {shown}, where our token must not go; if that is the same server behind its proxy, name it in `source.internal_origins`"
            );
            return Err(Why::new(Code::InternalOrigin, reason));
        }
    }
    Ok(Some(url))
}

/// The rest of an address's path below the base of a server.
fn path_below(url: &Url, base: &Url) -> Option<String> {
    let rest = url.path().strip_prefix(base.path().trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
}

/// Gives an address the scheme, host and port of another, and its base, where that has a path at the inner server; the rest of the
/// path and the query stay as they are.
fn move_to(url: &mut Url, inner: &Url, home: &Url) -> bool {
    if let Some(rest) = path_below(url, inner).filter(|_| inner.path() != "/") {
        url.set_path(&format!("{}{rest}", home.path().trim_end_matches('/')));
    }
    url.set_scheme(home.scheme()).is_ok() && url.set_host(home.host_str()).is_ok() && url.set_port(home.port()).is_ok()
}
