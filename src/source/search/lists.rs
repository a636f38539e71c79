//! Lists of values (`patient=a,b`): some servers take one literally, heed its first values only, or know a patient by `Patient/a`
//! alone, and answer with too little and no word. One is tried before it is relied upon; what fails is asked for singly.

use super::ask::send_somehow;
use super::census::kept;
use super::page::{Bundle, Item, counted};
use crate::source::SourceError;
use crate::source::plan::Query;
use crate::source::probe::{AT_ONCE, Fact, Found};
use crate::source::pull::Pull;
use std::collections::{BTreeMap, BTreeSet};

/// Values that are asked for one by one to find one that something has.
const VALUES_TRIED: usize = 3;
/// Stands for a number that is not said, of something that is there.
const SOME: u64 = 1 << 40;
/// Stands for a number that is refused.
const REFUSED: u64 = 1 << 41;
/// Lists of which nothing could be told, after which the next ones are believed.
const TRIALS_MAX: u32 = 3;
/// Ids that a list did not bring and that are not there either, after which lists of a type are believed.
const ABSENT_MAX: u64 = 20;

/// A parameter of a type.
type Key = (String, String);

/// What is known of lists.
#[derive(Default)]
pub(super) struct Lists {
    /// Trials of each parameter; held while one is made.
    trials: tokio::sync::Mutex<BTreeMap<Key, Trials>>,
    known: std::sync::Mutex<Known>,
}

/// How a parameter was tried.
#[derive(Default)]
struct Trials {
    /// Those that told nothing.
    vain: u32,
    /// The longest list that was tried.
    longest: usize,
}

#[derive(Default)]
struct Known {
    /// Parameters whose values are asked for singly.
    singly: BTreeSet<Key>,
    /// The longest lists that are heeded, and answered in time, where longer ones are not.
    at_most: BTreeMap<Key, usize>,
    /// Parameters that want the type in front of an id.
    typed: BTreeSet<Key>,
    /// A trial has found something.
    is_answered: bool,
    /// Ids of each type that a list did not bring and that are not there.
    absent: BTreeMap<String, u64>,
}

/// What a trial found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Together,
    Singly,
}

impl Lists {
    /// Those of which an earlier night found how many values may be named at once.
    pub fn of(at_once: &BTreeMap<Key, usize>) -> Lists {
        let (singly, at_most): (BTreeMap<Key, usize>, _) = at_once.clone().into_iter().partition(|(_, most)| *most <= 1);
        let known = Known { is_answered: !at_once.is_empty(), singly: singly.into_keys().collect(), at_most, ..Known::default() };
        Lists { known: std::sync::Mutex::new(known), ..Lists::default() }
    }

    /// What later nights need not find out. How ids must be spelled is found with how many of them may be named.
    pub fn facts(&self) -> Vec<Fact> {
        self.known(|known| {
            let longer = known.at_most.iter().filter(|(key, _)| !known.singly.contains(*key)).map(|(key, most)| (key, *most));
            let all = known.singly.iter().map(|key| (key, 1)).chain(longer).filter(|(key, _)| !known.typed.contains(*key));
            let fact = |((about, parameter), most): (&Key, usize)| Fact {
                about: about.clone(),
                what: format!("{parameter}{AT_ONCE}"),
                declared: None,
                found: Found::Is,
                detail: most.to_string(),
            };
            all.map(fact).collect()
        })
    }

    fn known<T>(&self, of: impl FnOnce(&mut Known) -> T) -> T {
        of(&mut self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Whether the values of a parameter are asked for singly.
    pub fn is_singly(&self, resource_type: &str, parameter: &str) -> bool {
        self.known(|known| known.singly.contains(&(resource_type.to_owned(), parameter.to_owned())))
    }

    /// Values as one, spelled as the server knows them.
    pub fn joined(&self, resource_type: &str, parameter: &str, values: &[String]) -> String {
        let is_typed = self.known(|known| known.typed.contains(&(resource_type.to_owned(), parameter.to_owned())));
        if is_typed { typed(values).join(",") } else { values.join(",") }
    }

    /// Whether ids that a list did not bring are read: of a list that was never found to leave something out they are not there.
    pub fn is_doubted(&self, resource_type: &str) -> bool {
        self.known(|known| known.absent.get(resource_type).copied().unwrap_or_default() < ABSENT_MAX)
    }

    /// Whether no trial has found anything.
    pub fn is_silent(&self) -> bool {
        self.known(|known| !known.is_answered)
    }

    /// How many values a question may name.
    pub fn at_once(&self, resource_type: &str, parameter: Option<&String>, usual: usize) -> usize {
        let Some(parameter) = parameter else { return usual };
        let key = (resource_type.to_owned(), parameter.clone());
        self.known(|known| if known.singly.contains(&key) { 1 } else { known.at_most.get(&key).map_or(usual, |most| usual.min(*most)) })
    }

    /// Notes how many values were answered at once, where more took too long.
    pub fn note_longest(&self, resource_type: &str, parameter: &str, values: usize) {
        self.known(|known| known.at_most.insert((resource_type.to_owned(), parameter.to_owned()), values));
    }

    /// Notes what became of ids that a list did not bring.
    pub fn note_read(&self, resource_type: &str, asked: u64, came: u64) {
        self.known(|known| match came {
            0 => *known.absent.entry(resource_type.to_owned()).or_default() += asked,
            _ => drop(known.singly.insert((resource_type.to_owned(), "_id".to_owned()))),
        });
    }
}

fn typed(values: &[String]) -> Vec<String> {
    values.iter().map(|value| if value.contains('/') { value.clone() } else { format!("Patient/{value}") }).collect()
}

/// Tries a query's parameter with a list of its values, unless it was told before.
pub(super) async fn try_out(pull: &Pull<'_>, query: &Query, values: &[String]) -> Result<(), SourceError> {
    let Some(parameter) = &query.by_patient else { return Ok(()) };
    let key: Key = (query.resource_type.clone(), parameter.clone());
    let lists = &pull.habits.lists;
    if pull.source.capability.is_list_unreliable(&key.0, &key.1) {
        lists.known(|known| known.singly.insert(key.clone()));
    }
    let mut trials = lists.trials.lock().await;
    let made = trials.entry(key.clone()).or_default();
    let is_known = lists.known(|known| known.singly.contains(&key) || known.at_most.contains_key(&key));
    // Of a single value nothing is learnt.
    if is_known || made.longest >= values.len() || made.vain >= TRIALS_MAX || values.len() < 2 {
        return Ok(());
    }
    // Codes are tried apart.
    let parameters = query.parameters.iter().filter(|(name, _)| name != "code").cloned().collect();
    let alone = Query { parameters, ..query.clone() };
    let mut spellings = vec![values.to_vec()];
    spellings.extend((!matches!(parameter.as_str(), "_id" | "code")).then(|| typed(values)));
    for (is_typed, spelled) in spellings.iter().enumerate().map(|(number, spelled)| (number == 1, spelled)) {
        let Some(way) = trial(pull, &alone, spelled, is_typed).await? else { continue };
        let heeded = std::mem::replace(&mut made.longest, values.len());
        lists.known(|known| {
            known.is_answered = true;
            known.typed.extend(is_typed.then(|| key.clone()));
            match way {
                Way::Together => {}
                Way::Singly if heeded > 1 => drop(known.at_most.insert(key.clone(), heeded)),
                Way::Singly => drop(known.singly.insert(key.clone())),
            }
        });
        if way == Way::Singly {
            tracing::warn!(resource_type = %key.0, parameter, heeded, values = values.len(), "the server does not heed lists of so many values, or refuses them: shorter ones are asked for, or each by itself");
        }
        return Ok(());
    }
    made.vain += 1;
    Ok(())
}

/// Tries a query's parameter with as many values as a search names, and with all of these. Gives how many a question may name.
pub(super) async fn heeded(pull: &Pull<'_>, query: &Query, values: &[String]) -> Result<usize, SourceError> {
    for length in [pull.source.options.tuning.patients_per_query, values.len()] {
        try_out(pull, query, values.get(..length).unwrap_or(values)).await?;
    }
    Ok(pull.habits.lists.at_once(&query.resource_type, query.by_patient.as_ref(), values.len()))
}

/// What becomes of a list; `None` if nothing shows it, because nothing has any of its values or no number is said.
async fn trial(pull: &Pull<'_>, query: &Query, values: &[String], is_typed: bool) -> Result<Option<Way>, SourceError> {
    // Of more patients than a search names one is told apart: a night of changes makes none.
    let is_long = query.by_patient.as_deref() != Some("code") && values.len() > pull.source.options.tuning.patients_per_query;
    let Some(all) = number(pull, query, values, is_long).await? else { return Ok(None) };
    // Some that refuse a list answer for each of its values, but for those that this client may not ask for. That nothing is found by
    // another spelling is no answer.
    let least = u64::from(all == 0 || is_typed);
    if all == 0 || all == REFUSED {
        for value in values.iter().rev().take(VALUES_TRIED) {
            if number(pull, query, std::slice::from_ref(value), is_long).await?.is_some_and(|own| (least..REFUSED).contains(&own)) {
                return Ok(Some(Way::Singly));
            }
        }
        return Ok(None);
    }
    let (first, second) = values.split_at(values.len() / 2);
    let (Some(first), Some(second)) = (number(pull, query, first, is_long).await?, number(pull, query, second, is_long).await?) else { return Ok(Some(Way::Together)) };
    // What is entered meanwhile, or has several of the values, is no sign of a list that is not heeded.
    let is_cut = all < SOME && second > 0 && all < first.saturating_add(second) && (all <= first || all <= second);
    Ok(Some(if is_cut { Way::Singly } else { Way::Together }))
}

/// How many have one of these values, asked once in a pull, however many nights that takes; [`SOME`] where no number is said,
/// [`REFUSED`] where it may not be asked so, and `None` where the search is not answered.
async fn number(pull: &Pull<'_>, query: &Query, values: &[String], is_long: bool) -> Result<Option<u64>, SourceError> {
    let Some(parameter) = &query.by_patient else { return Ok(None) };
    let mut parameters = query.parameters.clone();
    parameters.push((parameter.clone(), values.join(",")));
    let digest = crate::store::sha256_hex(format!("{} {parameters:?}", query.resource_type).as_bytes());
    let about = format!("{} {digest}", if is_long { "long list" } else { "list" });
    kept(pull, &query.resource_type, (&format!("count list {digest}"), &about), ask(pull, &query.resource_type, &parameters)).await
}

async fn ask(pull: &Pull<'_>, resource_type: &str, parameters: &[(String, String)]) -> Result<Option<u64>, SourceError> {
    let mut refused = None;
    for way in [("_summary", "count"), ("_count", "1")] {
        let asked: Vec<(String, String)> = parameters.iter().cloned().chain([(way.0.to_owned(), way.1.to_owned())]).collect();
        let Some(answer) = send_somehow(pull, &asked, resource_type, false).await? else { return Ok(None) };
        refused = matches!(answer.status, 400 | 413 | 414 | 422).then_some(REFUSED);
        let Some(page) = Bundle::read(&answer.body).filter(|_| answer.is_success()) else { continue };
        if !page.ignored(&answer.url, parameters.iter().map(|(name, _)| name.as_str())).is_empty() {
            return Ok(None);
        }
        if way.0 == "_count" {
            return Ok(Some(if page.items(resource_type).any(|item| matches!(item, Item::Match(_))) { SOME } else { 0 }));
        }
        if let Some(number) = counted(&answer) {
            return Ok(Some(number));
        }
    }
    Ok(refused)
}
