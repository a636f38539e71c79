//! Hospitals: a profile, patients planned from a seed, their records and the truth about them.

use jiff::civil::Date;

use super::dialect::Dialect;
use super::truth::Truth;

/// Patients of a hospital when nothing else is said.
pub const PATIENTS_DEFAULT: u32 = 500;
/// Complete months of truth when nothing else is said.
pub const MONTHS_DEFAULT: u32 = 24;

/// The character of a simulated hospital.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Name on the command line: `lakeside`, `hillcrest`, `harbor`.
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// IANA time zone in which its days and months are meant.
    pub time_zone: &'static str,
    /// Whether it offers Bulk Data `$export`.
    pub bulk: bool,
    /// Which codes it writes.
    pub dialect: Dialect,
}

/// The hospitals there are.
static PROFILES: [Profile; 3] = [
    Profile { name: "lakeside", title: "Lakeside Children's Hospital", time_zone: "America/New_York", bulk: true, dialect: Dialect::Standard },
    Profile { name: "hillcrest", title: "Hillcrest Medical Center", time_zone: "America/Chicago", bulk: false, dialect: Dialect::Standard },
    Profile { name: "harbor", title: "Harbor Women's and Children's", time_zone: "America/Los_Angeles", bulk: false, dialect: Dialect::Harbor },
];

impl Profile {
    /// The profile of that name.
    pub fn named(name: &str) -> Option<&'static Profile> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// Every profile, in the order of the demo.
    pub fn all() -> &'static [Profile] {
        &PROFILES
    }
}

/// A simulated hospital. Cloning it gives another handle on the same data, so that a test can amend
/// what a server is serving.
#[derive(Clone)]
pub struct Hospital {}

impl Hospital {
    /// Makes a hospital: `patients` people in three lines of care (newborns counted), with data up
    /// to the start of `as_of`, and truth for the last `months` complete months before it. The same
    /// arguments give the same bytes on every machine.
    pub fn generate(_profile: &Profile, _seed: u64, _patients: u32, _as_of: Date, _months: u32) -> Hospital {
        todo!()
    }

    /// The truth about the data as they stand.
    pub fn truth(&self) -> Truth {
        todo!()
    }

    /// Late data and corrections, chosen by `seed`: changed assessments and determinations, a visit
    /// documented late, deletions. Returns the new truth.
    pub fn amend(&self, _seed: u64) -> Truth {
        todo!()
    }

    /// Its character.
    pub fn profile(&self) -> &'static Profile {
        todo!()
    }

    /// Every current resource as (type, id, JSON), sorted by type and id.
    pub fn resources(&self) -> Vec<(String, String, String)> {
        todo!()
    }
}
