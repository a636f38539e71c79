//! What a measure must find, known from how the patients were made.

use std::collections::BTreeMap;

use jiff::civil::Date;

/// Identifier of the IBD remission measure.
pub const IBD_REMISSION: &str = "ibd-remission";
/// Identifier of the central-line infection measure.
pub const HAC_CLABSI: &str = "hac-clabsi";
/// Identifier of the early elective delivery measure.
pub const EARLY_ELECTIVE_DELIVERY: &str = "perinatal-early-elective-delivery";

/// Stratum of a patient whose category is missing, asked but unknown, or unknown.
pub const STRATUM_UNKNOWN: &str = "unknown";
/// Stratum of a patient with more than one OMB race category.
pub const STRATUM_MULTIRACIAL: &str = "multiracial";

/// The truth about every measure and month of one hospital.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Truth {
    /// Time zone of the hospital, in which months and days are meant (IANA name).
    pub time_zone: String,
    /// One row per measure and month, sorted by measure, then month.
    pub rows: Vec<TruthRow>,
}

/// What one measure must give for one calendar month.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TruthRow {
    /// Identifier of the measure, for example `ibd-remission`.
    pub measure_id: String,
    /// First day of the month, written as `YYYY-MM-DD`.
    #[serde(with = "date_text")]
    pub month: Date,
    /// What the score divides: members of the numerator, or the sum of its observations
    /// (infections).
    pub numerator: u64,
    /// What the score divides by: members of the denominator left after exclusions, or the sum of
    /// its observations (line days).
    pub denominator: u64,
    /// Members (patients or encounters) of each population by its code: `initial-population`,
    /// `denominator`, `denominator-exclusion` as they stand; `numerator` only those that score.
    pub populations: BTreeMap<String, u64>,
    /// The same by stratum, sorted by stratifier, then stratum; only strata that have members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strata: Vec<TruthStratum>,
}

/// The part of a [`TruthRow`] that belongs to one stratum.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct TruthStratum {
    /// `race` or `ethnicity`.
    pub stratifier: String,
    /// OMB category code (`2106-3`), `multiracial`, or `unknown`.
    pub stratum: String,
    /// As in [`TruthRow::numerator`].
    pub numerator: u64,
    /// As in [`TruthRow::denominator`].
    pub denominator: u64,
}

impl Truth {
    /// The row of one measure and month, if there is one.
    pub fn row(&self, measure_id: &str, month: Date) -> Option<&TruthRow> {
        self.rows.iter().find(|row| row.measure_id == measure_id && row.month == month)
    }
}

/// Counts patients and encounters into rows while a population is gone through.
pub(super) struct Tally {
    rows: BTreeMap<(&'static str, Date), Counts>,
}

/// One row being counted.
#[derive(Default)]
struct Counts {
    initial: u64,
    denominator: u64,
    excluded: u64,
    members: u64,
    /// What the score divides.
    score: (u64, u64),
    strata: BTreeMap<(&'static str, &'static str), (u64, u64)>,
}

impl Tally {
    /// Empty rows for every measure and month, so that a month without members has a row too.
    pub(super) fn new(months: &[Date]) -> Tally {
        let measures = [IBD_REMISSION, HAC_CLABSI, EARLY_ELECTIVE_DELIVERY];
        let keys = measures.iter().flat_map(|measure| months.iter().map(|month| (*measure, *month)));
        Tally { rows: keys.map(|key| (key, Counts::default())).collect() }
    }

    /// One more member of the initial population only.
    pub(super) fn initial(&mut self, measure: &'static str, month: Date) {
        self.rows.entry((measure, month)).or_default().initial += 1;
    }

    /// One more member of a proportion's denominator, who may be excluded from it or in the
    /// numerator.
    pub(super) fn counted(&mut self, measure: &'static str, month: Date, excluded: bool, numerator: bool) {
        let row = self.rows.entry((measure, month)).or_default();
        row.denominator += 1;
        if excluded {
            row.excluded += 1;
            return;
        }
        row.score.1 += 1;
        if numerator {
            row.members += 1;
            row.score.0 += 1;
        }
    }

    /// Both, where the denominator is the initial population.
    pub(super) fn member(&mut self, measure: &'static str, month: Date, excluded: bool, numerator: bool) {
        self.initial(measure, month);
        self.counted(measure, month, excluded, numerator);
    }

    /// One more encounter of a ratio, with its observations.
    pub(super) fn observed(&mut self, measure: &'static str, month: Date, denominator: usize, numerator: usize, strata: &[(&'static str, &'static str)]) {
        let (numerator, denominator) = (u64::try_from(numerator).unwrap_or(0), u64::try_from(denominator).unwrap_or(0));
        let row = self.rows.entry((measure, month)).or_default();
        row.initial += 1;
        row.denominator += 1;
        row.members += u64::from(numerator > 0);
        row.score.0 += numerator;
        row.score.1 += denominator;
        for stratum in strata {
            let part = row.strata.entry(*stratum).or_default();
            part.0 += numerator;
            part.1 += denominator;
        }
    }

    /// The rows as the truth.
    pub(super) fn finish(self, time_zone: &str) -> Truth {
        let mut rows: Vec<TruthRow> = self.rows.into_iter().map(|((measure, month), counts)| counts.row(measure, month)).collect();
        rows.sort_by(|a, b| (&a.measure_id, a.month).cmp(&(&b.measure_id, b.month)));
        Truth { time_zone: time_zone.to_owned(), rows }
    }
}

impl Counts {
    fn row(self, measure: &'static str, month: Date) -> TruthRow {
        let populations = [("initial-population", self.initial), ("denominator", self.denominator), ("denominator-exclusion", self.excluded), ("numerator", self.members)];
        let strata = self.strata.into_iter().map(|((stratifier, stratum), (numerator, denominator))| TruthStratum {
            stratifier: stratifier.to_owned(),
            stratum: stratum.to_owned(),
            numerator,
            denominator,
        });
        TruthRow {
            measure_id: measure.to_owned(),
            month,
            numerator: self.score.0,
            denominator: self.score.1,
            populations: populations.into_iter().map(|(code, count)| (code.to_owned(), count)).collect(),
            strata: strata.collect(),
        }
    }
}

/// Dates as `YYYY-MM-DD`.
mod date_text {
    use jiff::civil::Date;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(date: &Date, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(date)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Date, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}
