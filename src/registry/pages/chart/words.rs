//! What a chart says in words: its summary, its signals, and why there is no signal or no median.

use std::collections::BTreeSet;

use super::{Phase, Slot, counts, doubt_text, goal_of, news, score_text, value_text};
use crate::diagnostic::counted;
use crate::registry::MeasureCard;
use crate::registry::pages::chart::Said;
use crate::statistics::run_chart::{MEDIAN_POINTS_MIN, Rule, Side, Signal, USEFUL_POINTS_MIN, Untold};

/// What is to be said of a phase that has no median, or in which no signal was found: that there is none, or what is missing to tell.
pub(super) fn verdict(card: &MeasureCard, phase: &Phase<'_, '_>, has_versions: bool) -> Option<String> {
    let said: Vec<String> = untold(card, phase, has_versions).into_iter().chain(without_median(card, phase)).collect();
    (!said.is_empty()).then(|| said.join(" "))
}

/// Of periods whose number stands as it was counted then. That another version of the measure begins is said where it does.
pub(super) fn counted_otherwise(card: &MeasureCard, slots: &[Slot<'_>]) -> Option<String> {
    let reasons = |slot: &Slot<'_>| slot.point.other.iter().copied().filter(|what| *what != "version").collect::<Vec<_>>();
    let others: Vec<&Slot<'_>> = slots.iter().filter(|slot| !reasons(slot).is_empty()).collect();
    let (first, last) = (others.first()?, others.last()?);
    let what: BTreeSet<&str> = others.iter().flat_map(|slot| reasons(slot)).collect();
    let which = if others.len() == 1 { first.name.clone() } else { format!("{} {}s, {} to {},", others.len(), card.span(), first.name, last.name) };
    let (verb, it) = if others.len() == 1 { ("was", "it") } else { ("were", "them") };
    Some(format!(
        "{which} {verb} counted by other rules than the newest ({}): a difference may be one of counting. The site can count {it} again, as its `watershed status` says.",
        what.into_iter().collect::<Vec<_>>().join(", ")
    ))
}

fn without_median(card: &MeasureCard, phase: &Phase<'_, '_>) -> Option<String> {
    let found = phase.slots.iter().filter(|slot| slot.point.complete && slot.value.is_some()).count();
    phase
        .run
        .median
        .is_none()
        .then(|| format!("No median is drawn: it is one of {MEDIAN_POINTS_MIN} {}s or more with all their data, not of {found}.", card.span()))
}

fn untold(card: &MeasureCard, phase: &Phase<'_, '_>, has_versions: bool) -> Option<String> {
    if !phase.run.signals.is_empty() {
        return None;
    }
    let span = card.span();
    if let Some(months) = phase.lookback {
        return Some(format!(
            "Each value counts patients of {months} months, so neighbours count mostly the same: rules that tell signals from chance do not hold, and none is applied."
        ));
    }
    Some(match phase.run.untold {
        None => "No signal: the variation is what chance gives.".to_owned(),
        Some(Untold::Alike) => {
            let median = phase.run.median.map_or_else(String::new, |median| value_text(card, median));
            format!("Nothing can be told: half of the {span}s or more have the same value, {median}, and the others lie on one side of it. Longer periods may tell more.")
        }
        Some(Untold::TooFew(found)) => {
            let of = phase
                .slots
                .first()
                .filter(|_| has_versions)
                .map_or_else(String::new, |slot| format!(" of version {}", slot.point.version));
            let found = if found == 1 { "1 is".to_owned() } else { format!("{found} are") };
            format!(
                "Too little to tell a signal from chance: {USEFUL_POINTS_MIN} {span}s in a row{of} with all their data and off the median are needed, {found} here{}.",
                lacking(phase.slots)
            )
        }
    })
}

/// `; 2 are partial, 1 is missing`.
fn lacking(slots: &[Slot<'_>]) -> String {
    let is = |count: usize| if count == 1 { "is" } else { "are" };
    let has = |count: usize| if count == 1 { "has" } else { "have" };
    let partial = slots.iter().filter(|slot| !slot.point.complete).count();
    let unknown = slots.iter().filter(|slot| slot.point.complete && slot.point.is_unknown()).count();
    let empty = slots.iter().filter(|slot| slot.point.complete && slot.value.is_none()).count() - unknown;
    let missing: usize = slots.iter().skip(1).map(|slot| slot.missing).sum();
    let unknown_said = format!("{unknown} {} not known", is(unknown));
    let said = [
        (partial, format!("{partial} {} partial", is(partial))),
        (unknown, unknown_said),
        (empty, format!("{empty} {} no value", has(empty))),
        (missing, format!("{missing} {} missing", is(missing))),
    ];
    let said: Vec<String> = said.into_iter().filter(|(count, _)| *count > 0).map(|(_, text)| text).collect();
    if said.is_empty() { String::new() } else { format!("; {}", said.join(", ")) }
}

/// `Jan 2026 to Jun 2026`.
fn stretch_name(points: &std::ops::Range<usize>, slots: &[Slot<'_>]) -> String {
    let name = |place: usize| slots.iter().find(|slot| slot.place == place).map_or("", |slot| &slot.name);
    format!("{} to {}", name(points.start), name(points.end.saturating_sub(1)))
}

pub(super) fn said(card: &MeasureCard, signal: &Signal, slots: &[Slot<'_>]) -> Option<Said> {
    let stretch = stretch_name(&signal.points, slots);
    let news_of = |side: &Side| news(card, *side);
    let (news, text) = match &signal.rule {
        Rule::Shift { side, count } => {
            let verdict = match news_of(side) {
                "good" => ", the better side",
                "bad" => ", the worse side",
                _ => "",
            };
            let place = if *side == Side::Up { "above" } else { "below" };
            (news_of(side), format!("Shift: {count} {}s in a row {place} the median{verdict}, {stretch}.", card.span()))
        }
        Rule::Trend { side, count } => {
            let verdict = match news_of(side) {
                "good" => " for the better",
                "bad" => " for the worse",
                _ => "",
            };
            let way = if *side == Side::Up { "rising" } else { "falling" };
            (news_of(side), format!("Trend: {count} values in a row {way}{verdict}, {stretch}."))
        }
        _ => return None,
    };
    Some(Said { news, text })
}

/// The rules over a whole stretch in one sentence, each with its name.
pub(super) fn said_of_stretch(signals: &[&Signal], slots: &[Slot<'_>]) -> Option<Said> {
    let words: Vec<String> = signals
        .iter()
        .filter_map(|signal| match &signal.rule {
            Rule::TooFewRuns { runs, expected_min } => Some(format!("{} about the median where chance gives {expected_min} or more (exact rule)", counted(*runs, "run"))),
            Rule::TooManyRuns { runs, expected_max } => Some(format!("{runs} runs about the median where chance gives {expected_max} or fewer (exact rule)")),
            Rule::LongestRun { length, expected_max } => Some(format!("a run of {length} where chance gives {expected_max} or fewer (Anhøj)")),
            Rule::FewCrossings { crossings, expected_min } => Some(format!("{} where chance gives {expected_min} or more (Anhøj)", counted(*crossings, "crossing"))),
            Rule::Shift { .. } | Rule::Trend { .. } => None,
        })
        .collect();
    let stretch = stretch_name(&signals.first()?.points, slots);
    (!words.is_empty()).then(|| Said { news: "neutral", text: format!("From {stretch}: {}.", words.join("; ")) })
}

pub(super) fn latest(card: &MeasureCard, slots: &[Slot<'_>]) -> String {
    let Some(slot) = slots.iter().rfind(|slot| slot.value.is_some() || slot.point.is_unknown()) else { return "no value yet".to_owned() };
    let counts = counts(card, slot.point).filter(|_| slot.value.is_some()).map_or_else(String::new, |counts| format!(" ({counts})"));
    let partial = if slot.point.complete { "" } else { "; partial data" };
    let doubt = doubt_text(card, slot.point).map_or_else(String::new, |doubt| format!("; {doubt}"));
    format!("{} in {}{counts}{partial}{doubt}", score_text(card, slot.point), slot.name)
}

pub(super) fn summary(card: &MeasureCard, slots: &[Slot<'_>], phases: &[Phase<'_, '_>]) -> String {
    let with_value = slots.iter().filter(|slot| slot.value.is_some()).count();
    let (Some(first), Some(last), Some(newest)) = (slots.first(), slots.last(), phases.last()) else { return "No reports yet.".to_owned() };
    let median = newest.run.median.map_or_else(String::new, |median| format!(", median {}", value_text(card, median)));
    let found: usize = phases.iter().map(|phase| phase.run.signals.len()).sum();
    let signals = match (found, newest.run.untold) {
        (0, _) if newest.lookback.is_some() => "no rule over runs is applied".to_owned(),
        (0, None) => "no signal of special cause".to_owned(),
        (0, Some(_)) => "too little to tell a signal of special cause".to_owned(),
        (1, _) => "one signal of special cause".to_owned(),
        (count, _) => format!("{count} signals of special cause"),
    };
    let goal = goal_of(card, last).map_or_else(String::new, |goal| format!(", goal {}", value_text(card, goal)));
    format!("Run chart of {}, {} to {}{median}{goal}, {signals}.", counted(with_value, "value"), first.name, last.name)
}
