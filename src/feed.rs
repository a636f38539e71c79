//! The wire form of a feed, which adapter and registry share: the manifest in canonical form, its digest,
//! which is the feed's identity, and the claims of a receipt. No effects.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Name of the protocol, first member of every manifest.
pub const PROTOCOL: &str = "watershed-feed/1";

/// As of when a number is asked for: a day, as it ended in a zone, or an instant. Both ends are asked in the same words.
pub fn instant(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let end = |day: Date| day.tomorrow().ok()?.to_zoned(zone.clone()).ok()?.timestamp().checked_sub(SignedDuration::from_nanos(1)).ok();
    text.parse::<Timestamp>().ok().or_else(|| end(text.parse::<Date>().ok()?))
}

/// What a report is about. The site is not part of it: a registry knows the site from the token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReportKey {
    /// Canonical URL of the measure, without version.
    pub measure: String,
    /// Version of the measure.
    pub version: String,
    /// `period.start` of the report, a FHIR date or dateTime, as in the report.
    pub period_start: String,
    /// `period.end` of the report, inclusive as FHIR has it, as in the report.
    pub period_end: String,
}

/// Why a number changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The hospital's data changed (late, corrected or deleted entries).
    Data,
    /// The site's mapping changed.
    Mapping,
    /// The measure changed.
    Measure,
    /// A value set or other terminology changed.
    Terminology,
    /// Watershed changed.
    Engine,
    /// Several of these, or a correction by hand.
    Correction,
}

/// What the night received.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Completeness {
    /// Whether everything that was asked for arrived.
    pub complete: bool,
    /// Patients and resource types that could not be had.
    pub gaps: u64,
    /// Lines and resources set aside as unreadable.
    pub quarantined: u64,
}

/// One report in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// What it is about.
    pub key: ReportKey,
    /// Digest of the report's bytes, 64 hexadecimal digits.
    pub sha256: String,
    /// Length of the report.
    pub bytes: u64,
    /// Whether the data behind it were complete.
    pub complete: bool,
    /// Digest of the report that this one follows; its own digest when it is unchanged; none for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Why it differs from the one it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

/// A report sent earlier that must no longer count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Withdrawal {
    /// What it was about.
    pub key: ReportKey,
    /// Digest of the report that is withdrawn; empty in a draft, where the outbox fills it in.
    pub replaces: String,
    /// Why, in a sentence without any patient's data.
    pub reason: String,
}

/// The whole manifest. Field order is the canonical order; the digest is over the bytes of [`Manifest::bytes`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// [`PROTOCOL`].
    pub protocol: String,
    /// The site's name; must be the one the token belongs to.
    pub site: String,
    /// Digest of the manifest this one follows; none for the first.
    pub supersedes: Option<String>,
    /// 1, or more when the same content is sent again after a rejection.
    pub attempt: u32,
    /// What the night received.
    pub completeness: Completeness,
    /// Reports, sorted by key, one per key.
    pub reports: Vec<Entry>,
    /// Withdrawals, sorted by key, one per key.
    pub withdrawals: Vec<Withdrawal>,
}

impl Manifest {
    /// Canonical bytes: JSON without white space, in field order.
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What a registry signs once it has committed a feed (claims of a JWS, algorithm ES384).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptClaims {
    /// The registry's public address.
    pub iss: String,
    /// The site's name.
    pub sub: String,
    /// The feed.
    pub feed: String,
    /// Digest of the manifest that was committed.
    pub manifest_sha256: String,
    /// When it was committed, RFC 3339.
    pub received_at: String,
    /// The revision that each report or withdrawal became or already was.
    pub reports: Vec<ReceiptEntry>,
    /// Sequence number of the record in the registry's audit chain.
    pub audit_sequence: i64,
    /// Hash of that record.
    pub audit_hash: String,
}

/// One report in a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptEntry {
    /// What it is about.
    pub key: ReportKey,
    /// Its digest; none for a withdrawal.
    pub sha256: Option<String>,
    /// 1, 2, 3 … for this site, measure and period.
    pub revision: u64,
}

/// What a registry holds of a site, told to the site itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The site's name.
    pub site: String,
    /// Highest epoch seen.
    pub epoch: u64,
    /// When its last feed or confirmation came, RFC 3339.
    pub heard_at: Option<String>,
    /// The feed committed last.
    pub head: Option<Head>,
    /// The current report of every measure and period, sorted by key; what is withdrawn is not among them.
    pub current: Vec<Current>,
    /// The measures that it accepts; none: it is too old to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepts: Option<Vec<Accepted>>,
}

/// A measure that a registry accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// Canonical URL without version.
    pub measure: String,
    /// Its versions; the last one is the newest.
    pub versions: Vec<String>,
}

/// The feed that a registry committed last for a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Its identity.
    pub feed: String,
    /// What it says.
    pub manifest: Manifest,
    /// When it was committed, RFC 3339.
    pub committed_at: String,
    /// Its receipt, a compact JWS.
    pub receipt: String,
}

/// A report that is current at a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Current {
    /// What it is about.
    pub key: ReportKey,
    /// Its digest.
    pub sha256: String,
    /// Whether the data behind it were complete.
    pub complete: bool,
    /// The feed that brought it.
    pub feed: String,
}

/// By what a report says that its numbers were counted: what two reports of one measure may differ for, beside the data. An older adapter
/// says less.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedBy {
    /// The mapping's name and version.
    mapping: Option<String>,
    /// Digest of its rules.
    rules: Option<String>,
    /// Whether the measure is CQL or ELM, which cannot be held against each other, and a digest of it.
    logic: Option<(String, String)>,
    /// Digest of the value sets that it uses.
    value_sets: Option<String>,
}

impl CountedBy {
    /// What a MeasureReport says.
    pub fn of(report: &serde_json::Value) -> CountedBy {
        let extensions = |value: &serde_json::Value| value.get("extension").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
        let url = |one: &serde_json::Value| one.get("url").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let mut found = CountedBy::default();
        let mut sets = Vec::new();
        for lineage in extensions(report).iter().filter(|one| url(one).ends_with("/lineage")) {
            let parts = extensions(lineage);
            let part = |name: &str, kind: &str| parts.iter().find(|one| url(one) == name).and_then(|one| one.get(kind)?.as_str()).unwrap_or_default();
            let (name, version) = (part("name", "valueString"), part("version", "valueString"));
            match part("kind", "valueCode") {
                "mapping" => found.mapping = Some(sha256_hex(format!("{name} {version}").as_bytes())),
                "mapping-rules" => found.rules = Some(sha256_hex(version.as_bytes())),
                "logic" => found.logic = version.split_once(':').map(|(form, digest)| (form.chars().take(8).collect(), sha256_hex(digest.as_bytes()))),
                "value-set" => sets.push(format!("{name} {version}\n")),
                _ => {}
            }
        }
        sets.sort_unstable();
        found.value_sets = (!sets.is_empty()).then(|| sha256_hex(sets.concat().as_bytes()));
        found
    }

    /// What of it is another than in a later report of the same measure; of another version of it the logic and the codes are its own.
    pub fn other_than(&self, later: &CountedBy, is_same_version: bool) -> Vec<&'static str> {
        let differs = |own: &Option<String>, later: &Option<String>| own.is_some() && later.is_some() && own != later;
        let mapping = if self.rules.is_some() && later.rules.is_some() { (&self.rules, &later.rules) } else { (&self.mapping, &later.mapping) };
        let all = [
            ("version", !is_same_version),
            ("mapping", differs(mapping.0, mapping.1)),
            ("logic", is_same_version && self.logic.as_ref().zip(later.logic.as_ref()).is_some_and(|(own, later)| own.0 == later.0 && own.1 != later.1)),
            ("value sets", is_same_version && differs(&self.value_sets, &later.value_sets)),
        ];
        all.into_iter().filter(|(_, is_other)| *is_other).map(|(name, _)| name).collect()
    }
}

/// Whether a name can be a site's: 1 to 63 lower-case letters, digits and hyphens, for it is part of addresses.
pub fn is_site_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(plain)
}

/// The one scope a site's adapter has at a registry: to send reports and to see its own feeds.
pub const SCOPE: &str = "system/MeasureReport.cru";
/// `typ` of a receipt's header.
pub const RECEIPT_TYPE: &str = "watershed-receipt+jwt";
/// Header that carries the epoch of the process that made the feed.
pub const EPOCH_HEADER: &str = "watershed-epoch";

/// Identity of a feed: the first 128 bits of the digest of its manifest, as 32 hexadecimal digits.
///
/// ```
/// use watershed::feed::{Completeness, Manifest, PROTOCOL, feed_id};
///
/// let manifest = Manifest {
///     protocol: PROTOCOL.to_owned(),
///     site: "lakeside".to_owned(),
///     supersedes: None,
///     attempt: 1,
///     completeness: Completeness::default(),
///     reports: Vec::new(),
///     withdrawals: Vec::new(),
/// };
/// let again = Manifest { attempt: 2, ..manifest.clone() };
/// assert_eq!(feed_id(&manifest.bytes()), feed_id(&manifest.clone().bytes()), "the same content is the same feed");
/// assert_ne!(feed_id(&manifest.bytes()), feed_id(&again.bytes()));
/// ```
pub fn feed_id(manifest: &[u8]) -> String {
    sha256_hex(manifest).chars().take(32).collect()
}

/// SHA-256 as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl fmt::Display for ReportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{} {}/{}", self.measure, self.version, self.period_start, self.period_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_describes_what_is_sent() {
        let key = ReportKey { measure: "http://n.example/Measure/m".into(), version: "1".into(), period_start: "2026-01-01".into(), period_end: "2026-01-31".into() };
        let (digest, cause) = ("0".repeat(64), Some(Cause::Data));
        let entry = Entry { key: key.clone(), sha256: digest.clone(), bytes: 7, complete: true, replaces: Some(digest.clone()), cause };
        let first = Entry { replaces: None, cause: None, ..entry.clone() };
        let withdrawal = Withdrawal { key, replaces: digest.clone(), reason: "r".into() };
        let manifest = Manifest {
            protocol: PROTOCOL.into(),
            site: "north".into(),
            supersedes: Some(digest),
            attempt: 1,
            completeness: Completeness::default(),
            reports: vec![first, entry],
            withdrawals: vec![withdrawal],
        };
        let schema = serde_json::from_str(include_str!("../schemas/feed-manifest.schema.json")).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let sent: serde_json::Value = serde_json::from_slice(&manifest.bytes()).unwrap();
        assert_eq!(validator.iter_errors(&sent).map(|error| error.to_string()).collect::<Vec<_>>(), Vec::<String>::new());
        assert!(validator.is_valid(&serde_json::to_value(Manifest { supersedes: None, ..manifest }).unwrap()));
        let text = sent.to_string();
        for (good, bad) in [("watershed-feed/1", "watershed-feed/2"), ("\"attempt\":1", "\"attempt\":0"), ("\"site\":\"north\"", "\"site\":\"No rth\"")] {
            assert!(!validator.is_valid(&serde_json::from_str(&text.replace(good, bad)).unwrap()), "{bad}");
        }
    }
}
