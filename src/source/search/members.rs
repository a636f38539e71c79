//! Whose data are taken: who the members of the Group are, or the patients of the list, however they are named.

use super::ask::{FHIR_JSON, send_somehow, try_post};
use super::page::{Bundle, Item, id_of};
use crate::diagnostic::counted;
use crate::fhir::compartment::{is_id, reference_target};
use crate::smart::client::below;
use crate::source::cohort::Cohort;
use crate::source::duty::{Code, Why};
use crate::source::filter::days;
use crate::source::import::known::{Ask, Hit, Known, answered};
use crate::source::patients::{List, lines};
use crate::source::pull::Pull;
use crate::source::{Source, SourceError};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Groups within each other.
const GROUPS_MAX: usize = 1000;
/// Members taken from a Group.
const MEMBERS_MAX: usize = 5_000_000;
/// Identifiers that one search names.
pub(in crate::source) const IDENTIFIERS_PER_QUERY: usize = 25;

/// System and value.
type Identifier = (String, String);

/// What Groups say of their members.
#[derive(Default)]
struct Named {
    patients: BTreeSet<String>,
    identifiers: BTreeSet<Identifier>,
    /// Those that are named by neither.
    lost: u64,
    /// Those beyond [`MEMBERS_MAX`].
    beyond: u64,
}

/// Whose data are taken, where that is not everybody's; found out once in each run of a pull.
pub(in crate::source) async fn read_members(pull: &Pull<'_>) -> Result<Option<BTreeSet<String>>, SourceError> {
    if let (Some(members), false) = (pull.habits.members.get(), pull.plan.cohort.is_everybody()) {
        return Ok(Some(members.clone()));
    }
    let (found, why) = match &pull.plan.cohort {
        Cohort::Everybody => return Ok(None),
        Cohort::Group(group) => of_group(pull, group).await?,
        Cohort::List => of_list(pull).await?,
        // They are read before anything is asked of them.
        Cohort::Search(_) => return Err(SourceError::Nothing { reason: "it is not known yet whom `source.patients_search` finds".to_owned() }),
    };
    if let Some(why) = why {
        pull.habits.unnamed.get_or_init(|| why);
    }
    Ok(Some(pull.habits.members.get_or_init(|| found).clone()))
}

/// The members of a group, and of the groups that are its members; and why these are not all.
async fn of_group(pull: &Pull<'_>, group: &str) -> Result<(BTreeSet<String>, Option<Why>), SourceError> {
    if !is_id(group) {
        return Err(SourceError::Options("`source.group` is not an id by FHIR's rules".to_owned()));
    }
    let (mut named, unread) = named(pull.source, group, Some(pull.begun)).await?;
    let found = find(pull, &named).await?;
    let why = unnamed(named.lost + named.identifiers.len() as u64 - found.len() as u64, named.beyond, unread);
    named.patients.extend(found.into_values());
    Ok((named.patients, why))
}

/// The patients of the site's list, as it is now; and why these are not all.
async fn of_list(pull: &Pull<'_>) -> Result<(BTreeSet<String>, Option<Why>), SourceError> {
    let list = pull.source.options.tuning.patients.as_ref();
    let listed = list.ok_or_else(|| "`source.patients_file` is not set".to_owned()).and_then(List::read).map_err(SourceError::Options)?;
    let mut named = Named { patients: listed.ids, identifiers: listed.identifiers.keys().cloned().collect(), ..Named::default() };
    let found = find(pull, &named).await?;
    let mut unfound: Vec<usize> = listed.identifiers.iter().filter(|(one, _)| !found.contains_key(one)).map(|(_, line)| *line).collect();
    unfound.sort_unstable();
    let told = || format!("by the identifiers of {} of the list a search does not find exactly one patient; meanwhile nobody is let go", lines(&unfound));
    let why = (!unfound.is_empty()).then(|| Why::new(Code::Unfound, told()));
    named.patients.extend(found.into_values());
    Ok((named.patients, why))
}

/// How many patients are named, by a Group or by the site's list; `None` where nobody is, or it cannot be read.
pub(in crate::source) async fn count_members(source: &Source, cohort: &Cohort) -> Option<u64> {
    match cohort {
        Cohort::Everybody | Cohort::Search(_) => None,
        Cohort::Group(group) => named(source, group, source.capability.answered_at)
            .await
            .ok()
            .map(|(named, _)| (named.patients.len() + named.identifiers.len()) as u64),
        Cohort::List => source.options.tuning.patients.as_ref()?.read().ok().map(|listed| listed.len() as u64),
    }
}

/// Whom a group names at an instant, and the groups that are its members then; and how many of these were not read.
async fn named(source: &Source, group: &str, now: Option<Timestamp>) -> Result<(Named, u64), SourceError> {
    let (mut waiting, mut seen, mut unread) = (vec![group.to_owned()], BTreeSet::new(), BTreeSet::new());
    let mut named = Named::default();
    while let Some(group) = waiting.pop() {
        if seen.len() == GROUPS_MAX {
            unread.insert(group);
        } else if seen.insert(group.clone()) {
            waiting.extend(named.take(&read_one(source, &group).await?, now));
        }
    }
    Ok((named, unread.difference(&seen).count() as u64))
}

/// A Group as the server has it.
async fn read_one(source: &Source, group: &str) -> Result<Value, SourceError> {
    let answer = source.client.get(below(&source.base, &format!("Group/{group}"))?, FHIR_JSON).await?;
    let body = answer.json::<Value>().filter(|_| answer.is_success());
    let body = body.filter(|body| body.get("resourceType").and_then(Value::as_str) == Some("Group"));
    body.ok_or_else(|| SourceError::Nothing { reason: format!("the configured Group cannot be read (status {})", answer.status) })
}

impl Named {
    /// Takes those who are members of a Group at an instant. Gives the Groups among them.
    fn take(&mut self, group: &Value, now: Option<Timestamp>) -> Vec<String> {
        let members = group.get("member").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        self.beyond += members.len().saturating_sub(MEMBERS_MAX) as u64;
        let is_active = |member: &Value| member.get("inactive").and_then(Value::as_bool) != Some(true) && now.is_none_or(|now| holds(member.get("period"), now));
        let active = members.iter().take(MEMBERS_MAX).filter(|member| is_active(member));
        let mut groups = Vec::new();
        for entity in active.map(|member| member.get("entity").unwrap_or(&Value::Null)) {
            let text = |pointer: &str| entity.pointer(pointer).and_then(Value::as_str);
            match text("/reference").and_then(reference_target) {
                Some((Some("Patient"), id)) => drop(self.patients.insert(id.to_owned())),
                Some((Some("Group"), id)) => groups.push(id.to_owned()),
                // Staff and devices are no patients.
                Some((Some(_), _)) => {}
                _ => match text("/identifier/system").zip(text("/identifier/value")) {
                    _ if text("/type").is_some_and(|name| !matches!(name, "Patient" | "Group")) => {}
                    Some((system, value)) if text("/type") != Some("Group") => drop(self.identifiers.insert((system.to_owned(), value.trim().to_owned()))),
                    _ => self.lost += 1,
                },
            }
        }
        groups
    }
}

/// Whether a Period holds at an instant. A date is all of its days, those of UTC where it names no zone; a bound that is not there, or that
/// is no date, is open.
fn holds(period: Option<&Value>, now: Timestamp) -> bool {
    let bound = |name: &str| period?.get(name)?.as_str();
    let (today, instant) = (now.to_zoned(TimeZone::UTC).date(), |text: &str| text.parse::<Timestamp>().ok());
    let is_ahead = |text: &str| instant(text).map_or_else(|| days(text).is_some_and(|(first, _)| first > today), |at| at > now);
    let is_past = |text: &str| instant(text).map_or_else(|| days(text).is_some_and(|(_, last)| last < today), |at| at < now);
    !bound("start").is_some_and(is_ahead) && !bound("end").is_some_and(is_past)
}

/// Why not all members are known, if they are not.
fn unnamed(lost: u64, beyond: u64, unread: u64) -> Option<Why> {
    let are = |count, one: &'static str, many: &'static str| if count == 1 { one } else { many };
    let told = [
        (
            lost,
            format!(
                "{} of the Group {} named in a way that cannot be followed: by nothing but a text, or by an identifier by which a search does not find exactly one patient",
                counted(lost, "member"),
                are(lost, "is", "are")
            ),
        ),
        (beyond, format!("{} of the Group beyond the first {MEMBERS_MAX} {} not read", counted(beyond, "member"), are(beyond, "was", "were"))),
        (unread, format!("{} within the Group {} not read, beyond {GROUPS_MAX}", counted(unread, "Group"), are(unread, "was", "were"))),
    ];
    let told: Vec<String> = told.into_iter().filter(|(count, _)| *count > 0).map(|(_, text)| text).collect();
    (!told.is_empty()).then(|| Why::new(Code::Unnamed, format!("{}; meanwhile nobody is let go", told.join("; "))))
}

/// The patients who are named by identifiers, each of which exactly one has. A list of which the server does not find all is asked for
/// singly.
async fn find(pull: &Pull<'_>, named: &Named) -> Result<BTreeMap<Identifier, String>, SourceError> {
    let identifiers: Vec<Identifier> = named.identifiers.iter().cloned().collect();
    let ask = |(system, value): &Identifier| Ask::patient(system.clone(), value.clone());
    let asked: BTreeSet<Ask> = identifiers.iter().map(ask).collect();
    if !identifiers.is_empty() && !named.patients.is_empty() {
        try_post(pull, &named.patients).await?;
    }
    let mut people: BTreeMap<String, Vec<Ask>> = BTreeMap::new();
    let mut waiting: Vec<Vec<Identifier>> = identifiers.chunks(IDENTIFIERS_PER_QUERY).map(<[Identifier]>::to_vec).collect();
    while let Some(some) = waiting.pop() {
        let came = having(pull, &some, &asked).await?;
        let missing = some.iter().filter(|one| !came.values().flatten().any(|answer| *answer == ask(one)));
        waiting.extend(missing.filter(|_| some.len() > 1).map(|one| vec![one.clone()]));
        people.extend(came);
    }
    let known = Known::patients(asked, people, Arc::default());
    let only = |one: &Identifier| if let Hit::One { id, .. } = known.hit(&ask(one)) { Some(id.to_owned()) } else { None };
    Ok(identifiers.iter().filter_map(|one| Some((one.clone(), only(one)?))).collect())
}

/// Patients who have one of these identifiers, with the questions that they answer; nobody where these are not all of them.
async fn having(pull: &Pull<'_>, some: &[Identifier], asked: &BTreeSet<Ask>) -> Result<BTreeMap<String, Vec<Ask>>, SourceError> {
    let tokens: Vec<String> = some.iter().map(|(system, value)| format!("{}|{}", escaped(system), escaped(value))).collect();
    let parameters = [("identifier".to_owned(), tokens.join(",")), ("_count".to_owned(), (some.len() + 1).to_string())];
    let answer = send_somehow(pull, &parameters, "Patient", true).await?;
    let page = answer.filter(|answer| answer.is_success()).and_then(|answer| Some((Bundle::read(&answer.body)?, answer.url)));
    let mut came = BTreeMap::new();
    // Who does not heed identifiers names anybody.
    let is_all = |page: &Bundle, url: &url::Url| page.link("next").is_none() && page.ignored(url, ["identifier"].into_iter()).is_empty();
    let Some((page, _)) = page.filter(|(page, url)| is_all(page, url)) else { return Ok(came) };
    for item in page.items("Patient") {
        if let Item::Match(json) = item
            && let Some(id) = id_of(json)
        {
            let answers = answered(asked, ("Patient", &id), json.as_bytes());
            came.insert(id, answers);
        }
    }
    Ok(came)
}

/// A part of a token, as searches write it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for one in text.chars() {
        escaped.extend(matches!(one, '\\' | ',' | '|' | '$').then_some('\\'));
        escaped.push(one);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_one_while_the_period_lasts() {
        let now = "2026-03-15T12:00:00Z".parse().unwrap();
        let cases = [
            ("{}", true),
            (r#"{"end":"2026-03-14"}"#, false),
            (r#"{"end":"2026-03-15"}"#, true),
            (r#"{"end":"2026-03"}"#, true),
            (r#"{"end":"2026-02"}"#, false),
            (r#"{"end":"2026"}"#, true),
            (r#"{"end":"2025"}"#, false),
            (r#"{"end":"2026-03-15T11:59:59Z"}"#, false),
            (r#"{"end":"2026-03-15T11:59:59-05:00"}"#, true),
            (r#"{"start":"2026-03-15"}"#, true),
            (r#"{"start":"2026-03-16"}"#, false),
            (r#"{"start":"2026-03-15T12:30:00.000Z"}"#, false),
            (r#"{"start":"2026"}"#, true),
            (r#"{"start":"2020-01-01","end":"2026-03-01"}"#, false),
            (r#"{"start":"2020-01-01","end":"2027"}"#, true),
            (r#"{"end":"soon"}"#, true),
            (r#"{"end":7}"#, true),
        ];
        for (period, expected) in cases {
            assert_eq!(holds(Some(&serde_json::from_str(period).unwrap()), now), expected, "{period}");
        }
        assert!(holds(None, now));
    }

    #[test]
    fn what_separates_in_searches_is_escaped() {
        assert_eq!(escaped(r"urn:a|b,c$\d"), r"urn:a\|b\,c\$\\d");
    }
}
