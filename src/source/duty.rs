//! Why data are missing: a code, from which follows who must do what, and the words. Pure.

use crate::http::HttpError;
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Serialize};
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

/// What kind of reason it is; kept in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The server does not answer.
    Unreachable,
    /// It answers that it fails.
    Failing,
    /// It does not let this client read or search.
    Forbidden,
    /// The authorization server granted no right to read it.
    Ungranted,
    /// The configuration asks for no right to read it.
    Unasked,
    /// It does not let this client export.
    ExportForbidden,
    /// It refuses what is asked.
    Refused,
    /// What it sends is not what was asked for: no Bundle, too much, a redirect that leads nowhere.
    Answer,
    /// It reports an error beside the data.
    Reported,
    /// It reports that it leaves out what this client may not see.
    Hidden,
    /// Pages shift, repeat, lead in a circle or nowhere.
    Paging,
    /// Links to further pages that are forgotten, and gone on from.
    Forgotten,
    /// An export of changes that brings everything.
    Unheeded,
    /// Pages at another origin, which may be the server's own behind its proxy.
    InternalOrigin,
    /// Files or states of exports at another origin, which may be the EHR's.
    TokenOrigin,
    /// Searched by category only, and it may have others than those asked for.
    Categories,
    /// Searched of named patients only.
    OfPatients,
    /// So many came as when a result is cut.
    Cut,
    /// Fewer came than the same answer announced.
    Announced,
    /// Fewer came than the server counts.
    Counted,
    /// Members of the Group of whom no Patient came.
    Members,
    /// Patients of the site's list of whom no Patient came.
    Listed,
    /// Members of the Group of whom it is not known who they are.
    Unnamed,
    /// Patients of the site's list whom a search by their identifier does not find.
    Unfound,
    /// A search for the patients whose data are taken that the server does not heed.
    Unsought,
    /// The site's list of patients that is missing, empty, or not as it should be.
    WrongList,
    /// What has changed while a pull lasted several nights, and is still to be read.
    Ongoing,
    /// The pull of several nights that ended before this one of what has changed meanwhile.
    Followed,
    /// Patients whom the Group's export brings, and the Group does not name.
    Strangers,
    /// The life of an export.
    Export,
    /// An export that is over, and that the server does not delete.
    Undeletable,
    /// An export of a copy that is behind the EHR.
    Behind,
    /// A file of one.
    File,
    /// A dropped file that is being written.
    Unfinished,
    /// A dropped file that was cut short, or damaged.
    CutShort,
    /// A dropped file that cannot be read.
    Unreadable,
    /// A link in the folder that leads back to where it lies.
    Loop,
    /// Dropped files of several nights, each of everything.
    Nights,
    /// Both in dropped files and said to be deleted there, and not when.
    Undated,
    /// No dropped file of a type.
    NoFile,
    /// A page, a file of an export or of a series that dropped files speak of and that is not there.
    NotAll,
    /// Several contents of one id, and nothing to tell which is the newest.
    Copies,
    /// The file of an import that is missing, empty, being written or not as it is declared.
    Import,
    /// The file of an import that is much smaller than before.
    ImportLoss,
    /// An import that is declared no more.
    ImportGone,
    /// Both sent and said to be deleted.
    Conflict,
    /// Named as deleted by a search, and still there.
    Undeleted,
    /// Much less than before.
    Loss,
    /// The server's clock says an earlier time than it did.
    Clock,
    /// More is there than is known, by the server's number.
    Missed,
    /// It was deleted, and no change said so.
    Vanished,
    /// The server does not say how many there are.
    Uncounted,
    /// No samples of it can be counted.
    Unsampled,
    /// It changes without a word so often that it is not read again each time.
    Restless,
    /// The Group's list of members cannot be read.
    Unlisted,
    /// No patient at all.
    NoPatients,
    /// There has never been any.
    Empty,
    /// Nothing has a code that the measures ask for.
    Uncoded,
    /// None of what others refer to is there.
    Unseen,
    /// The configuration asks for a part only.
    Narrowed,
    /// Lines or resources that were refused.
    Quarantined,
    /// Kept by an earlier version, which knew words only.
    Untold,
}

impl Code {
    /// Reasons that waiting for a night does not take away.
    pub const LASTING: [Code; 9] = [Code::Announced, Code::Categories, Code::Cut, Code::Forbidden, Code::Hidden, Code::OfPatients, Code::Paging, Code::Refused, Code::Reported];

    /// Of an answer's status, where something was asked that it may refuse.
    pub fn of_status(status: u16) -> Code {
        match status {
            401 | 403 => Code::Forbidden,
            400..=499 => Code::Refused,
            500..=599 => Code::Failing,
            _ => Code::Answer,
        }
    }

    /// Whether it may be as it should, if a person says so.
    pub fn is_acceptable(self) -> bool {
        matches!(self, Code::Hidden | Code::Narrowed | Code::NoPatients | Code::Uncoded | Code::Unseen)
    }

    /// As it is stored.
    pub fn word(self) -> String {
        serde_json::to_value(self).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// As it was stored.
    pub fn read(word: Option<&str>) -> Code {
        let read = |word| Code::deserialize(StrDeserializer::<serde::de::value::Error>::new(word)).ok();
        word.and_then(read).unwrap_or(Code::Untold)
    }

    /// Whose turn it is, and to do what.
    pub fn duty(self) -> (Who, &'static str) {
        use Who::{EhrTeam, Nobody, SiteEngineer};
        match self {
            Code::Unreachable => (Nobody, "the next pull asks again; if it lasts, the EHR team and the network's firewall"),
            Code::Failing => (Nobody, "the next pull asks again; if it lasts, the EHR team"),
            Code::Forbidden => (EhrTeam, "let this client read and search the type"),
            Code::Ungranted => (EhrTeam, "grant this client the right to read and search the type, `system/<type>.rs` or `.read`"),
            Code::Unasked => (SiteEngineer, "name `system/<type>.rs` or `.read` in `source.scopes`, as the EHR team grants it"),
            Code::ExportForbidden => (EhrTeam, "let this client export, if need be with a wider scope (`source.scopes`)"),
            Code::Refused => (EhrTeam, "say why it is refused; `watershed check` shows what is"),
            Code::Answer => (EhrTeam, "say why it does not answer with FHIR R4; `watershed check` shows what the server does"),
            Code::Reported => (EhrTeam, "say what the error means that the server reports"),
            Code::Hidden => (EhrTeam, "let this client see it; if the measures need none of it, the site engineer: `watershed pull --accept-loss`"),
            Code::Paging => (EhrTeam, "repair the paging of searches; `watershed check` shows it"),
            Code::Forgotten => (EhrTeam, "nothing is missing; keep the results of searches longer, so that their last pages can be had"),
            Code::Unheeded => (EhrTeam, "nothing is missing; let exports heed `_since`, or every night costs the server as much as the first"),
            Code::InternalOrigin => (SiteEngineer, "name the server's inner origin in `source.internal_origins`"),
            Code::TokenOrigin => (SiteEngineer, "add the origin to `source.token_origins`, if it is the EHR's"),
            Code::Categories => (SiteEngineer, "name this hospital's categories in `source.parameters`"),
            Code::OfPatients => (SiteEngineer, "name in `source` the Group, list or search of whose patients it is asked for"),
            Code::Cut => (EhrTeam, "raise the number of results that a search may have"),
            Code::Announced => (EhrTeam, "say why fewer come than are announced"),
            Code::Counted => (EhrTeam, "say why fewer come than the server counts: what this client may see, or what exports and searches leave out"),
            Code::Members => (EhrTeam, "take patients who are gone off the Group, and let this client read the others"),
            Code::Listed => (SiteEngineer, "take patients who are gone off the list (`source.patients_file`), and let the EHR team have this client read the others"),
            Code::Unfound => (SiteEngineer, "correct these lines of `source.patients_file` or take them off, and see that `source.patients_system` is their system in the EHR"),
            Code::WrongList => (SiteEngineer, "correct the list (`source.patients_file`), or have it written again: the next pull reads it"),
            Code::Ongoing => (Nobody, "the next pull goes on with it; if it lasts, let `source.requests_per_night` or `source.off_hours` allow more"),
            Code::Followed => (Nobody, "nothing is due"),
            Code::Unnamed => (EhrTeam, "name each member of the Group by a reference to a Patient, or by an identifier that exactly one Patient has and searches find"),
            Code::Unsought => (SiteEngineer, "let `source.patients_search` ask by what the server heeds, or name a Group or a list in its place"),
            Code::Strangers => (EhrTeam, "nothing is missing if the Group names all its members; let its export be of these"),
            Code::Export => (EhrTeam, "repair exports, or let the site set `source.mode = \"search\"`"),
            Code::Undeletable => (EhrTeam, "let this client delete its exports (`system/*.d`, or as the server has it), or have the server delete them after some days"),
            Code::Behind => (EhrTeam, "nothing is due where exports are made of a copy, as long as the copy is renewed between nights"),
            Code::File => (EhrTeam, "repair the files of exports"),
            Code::Unfinished => (SiteEngineer, "the next pull reads it; if it stays, what writes it broke off: have it written again"),
            Code::CutShort => (SiteEngineer, "have the file written again, whole"),
            Code::Unreadable => (SiteEngineer, "let what fills `source.folder` write NDJSON or Bundles, compressed by gzip or zstd or not, that the adapter may read"),
            Code::Loop => (SiteEngineer, "nothing is missing; take the link out of `source.folder`"),
            Code::Nights => (SiteEngineer, "keep one folder that is replaced each night, or let `source.folder` name the newest (`folder = \"drop/latest\"`)"),
            Code::Undated => (SiteEngineer, "let what fills `source.folder` date what is deleted (`response.lastModified`, or `meta.lastUpdated` of the Bundle), or leave it out"),
            Code::NoFile => (SiteEngineer, "let what fills `source.folder` write the type too, if only as an empty file"),
            Code::NotAll => (SiteEngineer, "let what fills `source.folder` fetch all of it: every page of a search, every file of an export"),
            Code::Copies => (EhrTeam, "let each resource come once, or with `meta.versionId` or `meta.lastUpdated`, by which the newest is known"),
            Code::Import => (SiteEngineer, "see to the file, or to the import that names it; `watershed import --dry-run` shows what is in it"),
            Code::ImportLoss => (SiteEngineer, "ask who writes the file whether the rows are gone; if so, `watershed import --accept-loss`"),
            Code::ImportGone => (SiteEngineer, "nothing is due if it was taken out on purpose; else name its declaration in `imports.files` again, which brings the rows back"),
            Code::Conflict => (Nobody, "the next pull of everything decides"),
            Code::Undeleted => (EhrTeam, "let searches name as deleted only what the server does not have any more"),
            Code::Loss => (SiteEngineer, "ask the EHR team whether they are gone; if so, `watershed pull --accept-loss`"),
            Code::Missed => (Nobody, "the next pull reads everything; if it lasts, the EHR team: what searches and exports of changes leave out"),
            Code::Vanished => (Nobody, "nothing is due; a server that names its deletions spares the second reading"),
            Code::Uncounted => (EhrTeam, "let searches be counted (`_summary=count`); until then `watershed pull` finds deletions when everything is read"),
            Code::Unsampled => (EhrTeam, "let searches by `_id` and `_lastUpdated` find, and count, what has these"),
            Code::Restless => (EhrTeam, "let what changes have a new `meta.lastUpdated`, and let searches name what was deleted"),
            Code::Unlisted => (EhrTeam, "let this client read the Group, which names its members"),
            Code::Clock => (Nobody, "the next pull reads everything; if it lasts, the EHR team, whose server's clock is wrong"),
            Code::NoPatients => (SiteEngineer, "find what hides them: whom `source` names, its parameters, the rights; if there is none, `watershed pull --accept-loss`"),
            Code::Empty => (EhrTeam, "say whether there is any that this client does not see; nothing is due if there is none"),
            Code::Uncoded => (SiteEngineer, "translate this hospital's codes in the site mapping; if it has none of these, `watershed pull --accept-loss`"),
            Code::Unseen => (EhrTeam, "let this client read it; if there is none, or the measures can do without, the site engineer: `watershed pull --accept-loss`"),
            Code::Narrowed => (SiteEngineer, "take the parameters out of `source.parameters`; if the measures need no more than these bring, `watershed pull --accept-loss`"),
            Code::Quarantined => (SiteEngineer, "decide on them: `watershed quarantine list`"),
            Code::Untold => (EhrTeam, "say what the reason means; `watershed check` shows what the server does"),
        }
    }
}

/// Why something is missing, without patient values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Why {
    /// What kind of reason.
    pub code: Code,
    /// For people.
    pub text: String,
}

impl Why {
    /// A reason.
    pub fn new(code: Code, text: impl Into<String>) -> Why {
        Why { code, text: text.into() }
    }

    /// The same kind of reason in other words.
    pub fn put(self, words: impl FnOnce(&str) -> String) -> Why {
        Why { text: words(&self.text), ..self }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<HttpError> for Why {
    fn from(error: HttpError) -> Why {
        let code = match error {
            HttpError::Unreachable { .. } => Code::Unreachable,
            HttpError::Token(_) | HttpError::Unauthorized { .. } => Code::Forbidden,
            HttpError::NoTokenNow(_) => Code::Failing,
            _ => Code::Answer,
        };
        Why::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_stored_as_a_word_and_an_unknown_one_is_untold() {
        for (code, word) in [(Code::Unreachable, "unreachable"), (Code::InternalOrigin, "internal-origin"), (Code::Untold, "untold")] {
            assert_eq!((code.word().as_str(), Code::read(Some(word))), (word, code));
        }
        assert_eq!([Code::read(None), Code::read(Some("of a later version"))], [Code::Untold; 2]);
    }

    #[test]
    fn whose_turn_it_is() {
        let cases = [
            (Code::of_status(403), Who::EhrTeam, "let this client read"),
            (Code::of_status(503), Who::Nobody, "the next pull asks again"),
            (Code::of_status(422), Who::EhrTeam, "say why it is refused"),
            (Code::Unreachable, Who::Nobody, "firewall"),
            (Code::TokenOrigin, Who::SiteEngineer, "`source.token_origins`"),
            (Code::NoFile, Who::SiteEngineer, "`source.folder`"),
            (Code::Loss, Who::SiteEngineer, "--accept-loss"),
            (Code::Untold, Who::EhrTeam, "`watershed check`"),
        ];
        for (code, who, part) in cases {
            let (found, what) = code.duty();
            assert!(found == who && what.contains(part), "{code:?}: {found} {what}");
        }
    }
}
