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
    /// Members (patients or encounters) of each population before exclusions are taken off, by
    /// population code: `initial-population`, `denominator`, `denominator-exclusion`, `numerator`.
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
