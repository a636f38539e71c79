//! What a person should look at in a report that is sent all the same: numbers beyond what its measure calls plausible,
//! members of whom nothing was observed, and strata under other names than the measure has for them.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use serde_json::Value;

use crate::diagnostic::counted;
use crate::measure::Measure;
use crate::measure::definition::{Plausibility, Stratifier};
use crate::measure::population::Tallies;
use crate::measure::report::{Reporter, Unobserved};
use crate::measure::result::{Partial, Stratum, name_of};
use crate::validate::{self, Finding, Guards, Owner, Weight};

/// Of the report of a period, made of these sums, beside those of other periods: what came earlier tells what is usual.
pub fn of(measure: &Measure, reporter: &Reporter<'_>, sums: &Partial, report: &Value, others: &[Value]) -> Vec<Finding> {
    let start = |report: &Value| report.pointer("/period/start").and_then(Value::as_str).map(str::to_owned);
    let earlier: Vec<&Value> = others.iter().filter(|other| start(other) < start(report)).collect();
    let mut found = validate::plausible(report, &guards(&measure.definition.plausibility), &earlier);
    found.extend(reporter.unobserved(sums).map(unobserved));
    found.extend(misnamed(reporter, sums));
    found
}

/// For people, on one line, without where in the report it is.
pub fn line(finding: &Finding) -> String {
    format!("{}; {}", finding.message, finding.action)
}

/// What a measure calls plausible, as reports are held against it.
pub fn guards(plausibility: &Plausibility) -> Guards {
    let decimal = |number: f64| Decimal::try_from(number).ok();
    Guards {
        denominator_min: plausibility.denominator_min,
        denominator_change_percent: plausibility.denominator_change_percent,
        score_min: plausibility.score_min.and_then(decimal),
        score_max: plausibility.score_max.and_then(decimal),
        cannot_tell_percent: plausibility.cannot_tell_percent,
    }
}

/// Strata under other names than the definition has for them.
fn misnamed(reporter: &Reporter<'_>, sums: &Partial) -> Vec<Finding> {
    let of_groups = reporter.groups.iter().zip(&sums.groups).flat_map(|(group, found)| group.stratifiers.iter().zip(&found.strata));
    let finding = |(stratifier, strata): (&Stratifier, &BTreeMap<Stratum, Tallies>)| {
        let given: BTreeSet<String> = strata.keys().map(|name| name_of(name)).collect();
        // The values stand in the report alone.
        let (strangers, absent) = stratifier.misnamed(&given)?;
        let id = &stratifier.id.value;
        Some(Finding {
            weight: Weight::Warn,
            rule: "stratum-without-name",
            at: String::new(),
            message: format!("stratifier `{id}` gives {} that its `strata` do not name, and nobody is in `{absent}`, which they name", counted(strangers.len() as u64, "value")),
            owner: Owner::Steward,
            action: "let `strata` and the CQL say the same",
        })
    };
    of_groups.filter_map(finding).collect()
}

fn unobserved(found: Unobserved<'_>) -> Finding {
    let Unobserved { define, population, nothing, all } = found;
    let (why, action) = match define {
        // A composite observes in how many of its components one is fulfilled.
        "" => ("are in no component's denominator, or excluded from all in which they are,".to_owned(), "nothing, if the components are not meant for them"),
        define => (format!("gave no observation (`{define}` is null)"), "`watershed measure explain` shows which they are"),
    };
    Finding {
        weight: Weight::Info,
        rule: "without-observation",
        at: String::new(),
        message: format!("{nothing} of {all} in `{population}` {why} and are not in the score"),
        owner: Owner::Steward,
        action,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_score_is_told_in_the_words_of_the_measure() {
        let said = |define: &str| unobserved(Unobserved { define, population: "measure-population", nothing: 9, all: 138 }).message;
        assert_eq!(said("Days"), "9 of 138 in `measure-population` gave no observation (`Days` is null) and are not in the score");
        let composite = "9 of 138 in `measure-population` are in no component's denominator, or excluded from all in which they are, and are not in the score";
        assert_eq!(said(""), composite);
    }
}
