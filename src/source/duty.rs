//! Who must do what about a gap. Pure.

use serde::Serialize;
use std::fmt;

/// Who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// Whoever runs the EHR's FHIR server.
    EhrTeam,
    /// Whoever configures this adapter.
    SiteEngineer,
    /// Whoever chose the measures.
    Network,
    /// Nobody yet: the next pull asks again.
    Nobody,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Who::EhrTeam => "EHR team",
            Who::SiteEngineer => "site engineer",
            Who::Network => "network",
            Who::Nobody => "nobody yet",
        })
    }
}

/// Words of the reasons that pulls give, the most telling first: whose turn it is, and to do what.
const DUTIES: &[(&str, Who, &str)] = &[
    ("being written", Who::SiteEngineer, "the next pull reads it; if it stays, what writes it broke off: have it written again"),
    ("cut short", Who::SiteEngineer, "have the file written again, whole"),
    ("ending is not known", Who::SiteEngineer, "let what fills `source.folder` write NDJSON or Bundles, compressed by gzip or zstd or not"),
    ("it cannot be read", Who::SiteEngineer, "let the adapter's user read the files of `source.folder`"),
    ("no file holds any", Who::SiteEngineer, "let what fills `source.folder` write the type too, if only as an empty file"),
    ("`source.internal_origins`", Who::SiteEngineer, "name the server's inner origin in `source.internal_origins`"),
    ("`source.parameters`", Who::SiteEngineer, "name this hospital's categories in `source.parameters`"),
    ("`source.token_origins`", Who::SiteEngineer, "add the origin to `source.token_origins`, if it is the EHR's"),
    ("`source.scopes", Who::EhrTeam, "let this client export, if need be with a wider scope (`source.scopes`)"),
    ("`watershed pull --accept-loss`", Who::SiteEngineer, "ask the EHR team whether they are gone; if so, `watershed pull --accept-loss`"),
    ("answered 401", Who::EhrTeam, "let this client read and search the type"),
    ("answered 403", Who::EhrTeam, "let this client read and search the type"),
    ("status 401", Who::EhrTeam, "let this client read the type"),
    ("status 403", Who::EhrTeam, "let this client read the type"),
    ("administrator", Who::EhrTeam, "let this client read and search the type"),
    ("said to be deleted", Who::Nobody, "the next pull of everything decides"),
    ("answered 4", Who::EhrTeam, "say why the search is refused; `watershed check` shows which is"),
    ("status 4", Who::EhrTeam, "say why it is refused"),
    ("of the group are not there", Who::EhrTeam, "take patients who are gone off the Group"),
    ("answered 5", Who::Nobody, "the next pull asks again; if it lasts, the EHR team"),
    ("status 5", Who::Nobody, "the next pull asks again; if it lasts, the EHR team"),
    ("attempts)", Who::Nobody, "the next pull asks again; if it lasts, the EHR team and the network's firewall"),
    ("left alone", Who::Nobody, "the next pull asks again; if it lasts, the EHR team"),
    ("paging", Who::EhrTeam, "repair the paging of searches; `watershed check` shows it"),
    ("page", Who::EhrTeam, "repair the paging of searches; `watershed check` shows it"),
    ("announced", Who::EhrTeam, "say why fewer come than are announced"),
    ("came", Who::EhrTeam, "raise the number of results that a search may have"),
    ("file", Who::EhrTeam, "repair the files of exports"),
    ("export", Who::EhrTeam, "repair exports, or let the site set `source.mode = \"search\"`"),
];

/// Whose turn it is, and what to do.
pub fn of(reason: &str) -> (Who, &'static str) {
    let found = DUTIES.iter().find(|(words, _, _)| reason.contains(words));
    found.map_or((Who::EhrTeam, "say what the reason means; `watershed check` shows what the server does"), |(_, who, what)| (*who, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_turn_it_is() {
        let cases = [
            ("the server answered 403 (forbidden)", Who::EhrTeam, "let this client read"),
            ("the server answered 503", Who::Nobody, "the next pull asks again"),
            ("https://ehr.example:443: timed out (after 13 attempts)", Who::Nobody, "firewall"),
            ("the export's status is at https://a:443; if that is the EHR's, add it to `source.token_origins`", Who::SiteEngineer, "`source.token_origins`"),
            ("the server's paging leads in a circle", Who::EhrTeam, "paging"),
            ("exactly 1000 came, as when a server cuts a result", Who::EhrTeam, "raise the number"),
            ("the manifest announced 20 and the file holds 19", Who::EhrTeam, "fewer come"),
            ("12 came where 40 are stored; if they are gone, `watershed pull --accept-loss`", Who::SiteEngineer, "--accept-loss"),
            ("it is cut short: its compression has no end", Who::SiteEngineer, "written again"),
            ("no file holds any; if there is none, an empty file `Device.ndjson` says so", Who::SiteEngineer, "`source.folder`"),
            ("words that nobody foresaw", Who::EhrTeam, "`watershed check`"),
        ];
        for (reason, who, part) in cases {
            let (found, what) = of(reason);
            assert!(found == who && what.contains(part), "{reason}: {found} {what}");
        }
    }
}
