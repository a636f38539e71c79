//! A cohort by a search of the site's own: the patients whom it finds, or of whom what it finds is.

use super::ask::{FHIR_JSON, answered, next_address, send_somehow};
use super::page::{Bundle, Item, id_of};
use super::worst_issue;
use crate::diagnostic::counted;
use crate::fhir::compartment::patient_of;
use crate::source::SourceError;
use crate::source::duty::{Code, Why};
use crate::source::pull::Pull;
use std::collections::BTreeSet;

/// Pages of the search.
const PAGES_MAX: usize = 100_000;

/// What came of the search.
#[derive(Default)]
struct Found {
    patients: BTreeSet<String>,
    /// Ids of what was found.
    resources: BTreeSet<String>,
    /// The largest number that a page gave.
    total: u64,
}

/// The patients, and why these may not be all. A search that cannot be read to its end names nobody.
pub(super) async fn of_search(pull: &Pull<'_>, search: &str) -> Result<(BTreeSet<String>, Option<Why>), SourceError> {
    let mut found = read(pull, search).await?;
    if found.total > found.resources.len() as u64 {
        // Pages may have shifted.
        let again = read(pull, search).await?;
        found.patients.extend(again.patients);
        found.resources.extend(again.resources);
        found.total = again.total;
    }
    let missing = found.total.saturating_sub(found.resources.len() as u64);
    let told = || {
        format!("`source.patients_search` finds {} by the server's own number, and {missing} of them did not come; meanwhile nobody is let go", counted(found.total, "resource"))
    };
    let why = (missing > 0).then(|| Why::new(Code::Unnamed, told()));
    Ok((found.patients, why))
}

/// Reads all pages once.
async fn read(pull: &Pull<'_>, search: &str) -> Result<Found, SourceError> {
    let failed = |reason: String| SourceError::Nothing { reason: format!("`source.patients_search`, which says whose data are taken: {reason}") };
    let (kind, query) = search.split_once('?').unwrap_or((search, ""));
    let own: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let mut parameters = own.clone();
    parameters.push(("_count".to_owned(), pull.source.options.page_size.to_string()));
    let (mut found, mut seen) = (Found::default(), BTreeSet::new());
    let mut answer = send_somehow(pull, &parameters, kind, true).await?;
    for number in 0..PAGES_MAX {
        let page = answer.as_ref().filter(|answer| answer.is_success()).and_then(|answer| Bundle::read(&answer.body));
        let (Some(page), Some(from)) = (page, answer.as_ref().map(|answer| &answer.url)) else {
            let said = answer
                .as_ref()
                .map_or_else(|| "there is no answer".to_owned(), |answer| format!("the server answers {}, and with no page of a search", answer.status));
            return Err(failed(said));
        };
        let ignored = page.ignored(from, own.iter().map(|(name, _)| name.as_str()));
        if number == 0 && !ignored.is_empty() {
            return Err(failed(format!("the server does not heed `{}`, so that others would be taken too", ignored.into_iter().collect::<Vec<_>>().join("`, `"))));
        }
        found.take(kind, &page).map_err(|why| failed(why.text))?;
        let Some(next) = next_address(pull.source, from, &page).map_err(|why| failed(why.text))? else { return Ok(found) };
        if !seen.insert(next.clone()) {
            return Err(failed("its pages lead in a circle".to_owned()));
        }
        answer = answered(pull.source.client.get(next, FHIR_JSON).await)?;
    }
    Err(failed(format!("it has more than {PAGES_MAX} pages")))
}

impl Found {
    fn take(&mut self, kind: &str, page: &Bundle) -> Result<(), Why> {
        self.total = self.total.max(page.total().unwrap_or_default());
        for item in page.items(kind) {
            match item {
                Item::Match(json) => {
                    self.resources.extend(id_of(json));
                    self.patients.extend(patient_of(kind, json.as_bytes()).filter(|patient| !patient.is_empty()));
                }
                Item::Outcome(json) => worst_issue(json).map_or(Ok(()), Err)?,
                Item::Failed(_) => return Err(Why::new(Code::Reported, "an entry of a page is an error")),
                Item::Include(..) | Item::Deleted(..) | Item::Empty => {}
            }
        }
        Ok(())
    }
}
