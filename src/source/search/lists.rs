//! Lists of values (`patient=a,b`): some servers take one literally, heed its first values only, or know a patient by `Patient/a`
//! alone, and answer with too little and no word. One is tried before it is relied upon; what fails is asked for singly.

use super::ask::send_somehow;
use super::census::{kept, once, send};
use super::page::{Bundle, Item, id_of};
use crate::fhir::compartment::{patient_of, search_parameters};
use crate::source::SourceError;
use crate::source::filter::{may_have_code, tokens};
use crate::source::plan::Query;
use crate::source::probe::{AT_ONCE, Fact, Found, impossible};
use crate::source::pull::Pull;
use std::collections::{BTreeMap, BTreeSet};

/// Values that are asked for one by one to find one that something has.
const VALUES_TRIED: usize = 3;
/// The same of codes, where there are no more.
const CODES_TRIED: usize = 12;
/// Stands for the place of a value that is not seen, of something that is there.
const SOME: u64 = 1 << 40;
/// Stands for the place in a list that is refused.
const REFUSED: u64 = 1 << 41;
/// Lists of which nothing could be told, after which the next ones are believed, or go by those of other types.
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
    /// A value that something has.
    one: Option<String>,
    /// The server answers such searches.
    is_answered: bool,
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

/// How values are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Together,
    Singly,
}

/// What a trial found.
enum Told {
    /// The list is heeded: this value, which something has, was found.
    Together(String),
    /// It is not.
    Singly,
    /// Nothing has any of the values.
    Nothing,
    /// There is no answer, or one about something else, or only refusals.
    Unanswered,
}

impl Known {
    /// Takes for one parameter what was found of another.
    fn follow(&mut self, key: &Key, other: &Key) {
        for keys in [&mut self.singly, &mut self.typed] {
            if keys.contains(other) {
                keys.insert(key.clone());
            }
        }
        if let Some(most) = self.at_most.get(other).copied() {
            self.at_most.insert(key.clone(), most);
        }
    }
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

/// Tries a query's parameter with a list of its values, unless it was told before. Where nothing has any of them, what other types tell
/// holds.
pub(super) async fn try_out(pull: &Pull<'_>, query: &Query, values: &[String]) -> Result<(), SourceError> {
    let Some(key) = key_of(query) else { return Ok(()) };
    if tell(pull, query, values).await? != Some(false) {
        return Ok(());
    }
    for (other, values) in alike(pull, &key, values) {
        if tell(pull, &other, &values).await? == Some(true) {
            let of_other = key_of(&other).unwrap_or_default();
            pull.habits.lists.known(|known| known.follow(&key, &of_other));
            return Ok(());
        }
    }
    Ok(())
}

/// Tries a query's list of codes: of patients, where they are named and lists of them were tried, of as many at a time as the server heeds,
/// until some of them have anything of the type. Of those who have nothing there is nothing to be missed, and the next ones are tried.
pub(super) async fn try_codes(pull: &Pull<'_>, query: &Query, codes: &[String], patients: Option<&[String]>) -> Result<(), SourceError> {
    let of_codes = Query { by_patient: Some("code".to_owned()), ..query.clone() };
    let (Some(parameter), Some(patients)) = (&query.by_patient, patients) else { return try_out(pull, &of_codes, codes).await };
    let (lists, usual) = (&pull.habits.lists, pull.source.options.tuning.patients_per_query.clamp(1, 200));
    for some in patients.chunks(lists.at_once(&query.resource_type, Some(parameter), usual)) {
        let named = (parameter.clone(), lists.joined(&query.resource_type, parameter, some));
        let of_some = Query { parameters: query.parameters.iter().cloned().chain([named]).collect(), ..of_codes.clone() };
        if tell(pull, &of_some, codes).await? != Some(false) {
            break;
        }
    }
    Ok(())
}

/// Whether it is codes of named patients that are asked for.
fn is_of_some(query: &Query) -> bool {
    let names_some = |(name, _): &(String, String)| search_parameters(&query.resource_type).contains(&name.as_str());
    query.by_patient.as_deref() == Some("code") && query.parameters.iter().any(names_some)
}

fn key_of(query: &Query) -> Option<Key> {
    Some((query.resource_type.clone(), query.by_patient.clone()?))
}

/// Questions of other types with lists of the same kind, each with its values.
fn alike(pull: &Pull<'_>, key: &Key, values: &[String]) -> Vec<(Query, Vec<String>)> {
    let of_codes = |query: &Query| {
        // Of members nothing is asked for without them.
        query.by_patient.is_none().then_some(())?;
        Some((Query { by_patient: Some("code".to_owned()), ..query.clone() }, query.list_of_codes()?))
    };
    let of_patients = |query: &Query| query.by_patient.is_some().then(|| (query.clone(), values.to_vec()));
    let own = |query: &&Query| query.resource_type != key.0;
    let others = pull
        .plan
        .queries
        .iter()
        .filter(own)
        .filter_map(|query| if key.1 == "code" { of_codes(query) } else { of_patients(query) });
    let mut others: Vec<(Query, Vec<String>)> = others.filter(|(_, values)| values.len() > 1).collect();
    // Ids of patients themselves are another kind of parameter.
    others.sort_by_key(|(query, _)| query.by_patient.as_deref() == Some("_id"));
    others
}

/// The same of this type alone. Whether it is told what becomes of such a list, or not because nothing has any of the values; `None` where
/// such a search is refused, or not answered.
async fn tell(pull: &Pull<'_>, query: &Query, values: &[String]) -> Result<Option<bool>, SourceError> {
    let Some(key) = key_of(query) else { return Ok(None) };
    // What is not to be had tells nothing.
    if pull.habits.types(|types| types.refused.contains_key(&key.0)) {
        return Ok(None);
    }
    let lists = &pull.habits.lists;
    if pull.source.capability.is_list_unreliable(&key.0, &key.1) {
        lists.known(|known| known.singly.insert(key.clone()));
    }
    let mut trials = lists.trials.lock().await;
    let made = trials.entry(key.clone()).or_default();
    let is_known = lists.known(|known| known.singly.contains(&key) || known.at_most.contains_key(&key));
    // Of a single value nothing is learnt.
    if is_known || made.longest >= values.len() || values.len() < 2 {
        return Ok(Some(true));
    }
    if made.vain >= TRIALS_MAX && !is_of_some(query) {
        return Ok(made.is_answered.then_some(false));
    }
    // Codes are tried apart.
    let parameters = query.parameters.iter().filter(|(name, _)| name != "code").cloned().collect();
    let alone = Query { parameters, ..query.clone() };
    let mut spellings = vec![values.to_vec()];
    spellings.extend((!matches!(key.1.as_str(), "_id" | "code")).then(|| typed(values)));
    for (is_typed, spelled) in spellings.iter().enumerate().map(|(number, spelled)| (number == 1, spelled)) {
        if made.one.as_ref().is_some_and(|one| (one.contains('/') && key.1 != "code") != is_typed) {
            continue;
        }
        let (way, one) = match trial(pull, &alone, spelled, is_typed, made).await? {
            Told::Nothing => {
                made.is_answered = true;
                continue;
            }
            Told::Unanswered => break,
            Told::Together(one) => (Way::Together, Some(one)),
            Told::Singly => (Way::Singly, None),
        };
        made.one = made.one.take().or(one);
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
            tracing::warn!(resource_type = %key.0, parameter = %key.1, heeded, values = values.len(), "the server does not heed lists of so many values, or refuses them: shorter ones are asked for, or each by itself");
        }
        return Ok(Some(true));
    }
    made.vain += 1;
    Ok(made.is_answered.then_some(false))
}

/// Tries a query's parameter with as many values as a search names, and with all of these. Gives how many a question may name.
pub(super) async fn heeded(pull: &Pull<'_>, query: &Query, values: &[String]) -> Result<usize, SourceError> {
    for length in [pull.source.options.tuning.patients_per_query, values.len()] {
        try_out(pull, query, values.get(..length).unwrap_or(values)).await?;
    }
    Ok(pull.habits.lists.at_once(&query.resource_type, query.by_patient.as_ref(), values.len()))
}

/// Finds out what becomes of a list. It is trusted when a value that something has is found as its last one: what heeds the first values
/// only, or takes a list literally, answers with less and no word, and its numbers agree.
async fn trial(pull: &Pull<'_>, query: &Query, values: &[String], is_typed: bool, made: &Trials) -> Result<Told, SourceError> {
    let one = match &made.one {
        // Other patients need not have it.
        Some(one) if !is_of_some(query) => one.clone(),
        _ => match sample(pull, query, values, is_typed, made.vain).await? {
            Ok(one) => one,
            Err(told) => return Ok(told),
        },
    };
    let Some(nothing) = impossible(&query.resource_type, query.by_patient.as_deref().unwrap_or_default()) else { return Ok(Told::Nothing) };
    let before = if is_typed { "Patient/" } else { "" };
    let last: Vec<String> = (1..values.len()).map(|number| format!("{before}{nothing}-{number}")).chain([one.clone()]).collect();
    let is_long = is_long(pull, query, values);
    let is_heeded = match place(pull, query, &last, is_long).await? {
        None => return Ok(Told::Unanswered),
        // Or values that nobody has are.
        Some(REFUSED) => place(pull, query, values, is_long).await? != Some(REFUSED) && is_counted_last(pull, query, values, &one).await?,
        // Unless it is gone meanwhile.
        Some(0) if !is_there(place(pull, query, std::slice::from_ref(&one), is_long).await?) => return Ok(Told::Nothing),
        Some(found) => found > 0,
    };
    Ok(if is_heeded { Told::Together(one) } else { Told::Singly })
}

/// One of some values that something has; else what it tells of lists that none is found.
async fn sample(pull: &Pull<'_>, query: &Query, values: &[String], is_typed: bool, vain: u32) -> Result<Result<String, Told>, SourceError> {
    let is_long = is_long(pull, query, values);
    let Some(all) = place(pull, query, values, is_long).await? else { return Ok(Err(Told::Unanswered)) };
    if let Some(one) = usize::try_from(all).ok().and_then(|all| values.get(all.checked_sub(1)?)) {
        return Ok(Ok(one.clone()));
    }
    if all == 0 && is_of_some(query) {
        match any_code(pull, query, values).await? {
            (Some(0), _) => return Ok(Err(Told::Nothing)),
            (_, Some(code)) if is_there(place(pull, query, std::slice::from_ref(&code), is_long).await?) => return Ok(Ok(code)),
            _ => {}
        }
    }
    let is_of_few_codes = query.by_patient.as_deref() == Some("code") && values.len() <= CODES_TRIED;
    let most = match vain {
        TRIALS_MAX.. => 0,
        _ if is_of_few_codes => CODES_TRIED,
        _ => VALUES_TRIED,
    };
    // Some that refuse a list answer for each of its values, but for those that this client may not ask for. That nothing is found by
    // another spelling is no answer.
    let is_answer = |own: Option<u64>| is_there(own) || all == REFUSED && !is_typed && own == Some(0);
    for value in values.iter().rev().take(most) {
        if is_answer(place(pull, query, std::slice::from_ref(value), is_long).await?) {
            return Ok(if all == SOME { Ok(value.clone()) } else { Err(Told::Singly) });
        }
    }
    Ok(Err(if all == REFUSED { Told::Unanswered } else { Told::Nothing }))
}

/// Whether named patients have anything of a type, whatever its code, and a code that it has: as good for a trial as one that is asked for.
/// It is told once in a pull; who goes on with that in another night has the number alone.
async fn any_code(pull: &Pull<'_>, query: &Query, codes: &[String]) -> Result<(Option<u64>, Option<String>), SourceError> {
    let name = &query.resource_type;
    let digest = crate::store::sha256_hex(format!("{name} of any code {:?}", query.parameters).as_bytes());
    let mut code = None;
    let there = async {
        let found = first(pull, name, query.parameters.clone()).await?;
        code = found.as_ref().ok().and_then(|json| token_of(json.as_ref()?, codes));
        Ok(found.map_or_else(|_| None, |json| Some(json.map_or(0, |_| SOME))))
    };
    let there = kept(pull, name, (&format!("count list {digest}"), &format!("list {digest}")), there).await?;
    Ok((there, code))
}

/// A code of a resource that can stand in a list, of a system of these codes where there is one: servers need not know others.
fn token_of(json: &str, codes: &[String]) -> Option<String> {
    let system = |token: &str| token.split_once('|').map(|(system, _)| system.to_owned());
    let systems: BTreeSet<Option<String>> = codes.iter().map(|code| system(code)).collect();
    let is_plain = |token: &String| token.split('|').filter(|part| !part.is_empty()).count() == 2 && !token.contains([',', '$', '\\']);
    tokens(json.as_bytes())?.into_iter().filter(is_plain).min_by_key(|token| !systems.contains(&system(token)))
}

/// Of more patients than a search names one is told apart: a night of changes makes none.
fn is_long(pull: &Pull<'_>, query: &Query, values: &[String]) -> bool {
    query.by_patient.as_deref() != Some("code") && values.len() > pull.source.options.tuning.patients_per_query
}

fn is_there(place: Option<u64>) -> bool {
    place.is_some_and(|place| (1..REFUSED).contains(&place))
}

/// Whether the server counts what a value has where it is the last one of a list; a list of which no number is said is believed.
async fn is_counted_last(pull: &Pull<'_>, query: &Query, values: &[String], one: &String) -> Result<bool, SourceError> {
    let others: Vec<String> = values.iter().filter(|value| *value != one).cloned().collect();
    let all: Vec<String> = others.iter().chain([one]).cloned().collect();
    let [without, with] = [others, all].map(|values| parameters(query, &values));
    let number = async |parameters: Vec<(String, String)>| once(pull, &query.resource_type, &format!("{parameters:?}"), send(pull, &query.resource_type, &parameters, true)).await;
    Ok(number(without).await?.zip(number(with).await?).is_none_or(|(without, with)| without < with))
}

fn parameters(query: &Query, values: &[String]) -> Vec<(String, String)> {
    query
        .parameters
        .iter()
        .cloned()
        .chain(query.by_patient.clone().map(|parameter| (parameter, values.join(","))))
        .collect()
}

/// The place, from one on, of a value that the first resource has of which a list finds any, asked once in a pull, however many nights that
/// takes; 0 if there is none, [`SOME`] if it is not seen which value it has, [`REFUSED`] where it may not be asked so, and `None` where the
/// search is not answered.
async fn place(pull: &Pull<'_>, query: &Query, values: &[String], is_long: bool) -> Result<Option<u64>, SourceError> {
    let parameters = parameters(query, values);
    let digest = crate::store::sha256_hex(format!("{} {parameters:?}", query.resource_type).as_bytes());
    let about = format!("{} {digest}", if is_long { "long list" } else { "list" });
    kept(pull, &query.resource_type, (&format!("count list {digest}"), &about), ask(pull, query, parameters, values)).await
}

async fn ask(pull: &Pull<'_>, query: &Query, parameters: Vec<(String, String)>, values: &[String]) -> Result<Option<u64>, SourceError> {
    let which = |json: String| values.iter().position(|value| has(query, &json, value)).map_or(SOME, |place| place as u64 + 1);
    Ok(match first(pull, &query.resource_type, parameters).await? {
        Ok(first) => Some(first.map_or(0, which)),
        Err(refused) => refused,
    })
}

/// The first resource that a search finds; else [`REFUSED`], or `None` where it is not answered.
async fn first(pull: &Pull<'_>, name: &str, mut parameters: Vec<(String, String)>) -> Result<Result<Option<String>, Option<u64>>, SourceError> {
    parameters.push(("_count".to_owned(), "1".to_owned()));
    let Some(answer) = send_somehow(pull, &parameters, name, false).await? else { return Ok(Err(None)) };
    if matches!(answer.status, 400 | 413 | 414 | 422) {
        return Ok(Err(Some(REFUSED)));
    }
    let Some(page) = Bundle::read(&answer.body).filter(|_| answer.is_success()) else { return Ok(Err(None)) };
    if !page.ignored(&answer.url, parameters.iter().map(|(name, _)| name.as_str())).is_empty() {
        return Ok(Err(None));
    }
    let first = page.items(name).find_map(|item| if let Item::Match(json) = item { Some(json.to_owned()) } else { None });
    Ok(Ok(first))
}

/// Whether a resource is seen to have a value of the query's parameter.
fn has(query: &Query, json: &str, value: &str) -> bool {
    let may_have = |code: &str| may_have_code(json.as_bytes(), &BTreeSet::from([code.to_owned()]));
    match query.by_patient.as_deref() {
        Some("_id") => id_of(json).as_deref() == Some(value),
        // What may have any code shows nothing.
        Some("code") => may_have(value) && impossible(&query.resource_type, "code").is_some_and(|nothing| !may_have(nothing)),
        _ => patient_of(&query.resource_type, json.as_bytes()).as_deref() == Some(value.strip_prefix("Patient/").unwrap_or(value)),
    }
}
