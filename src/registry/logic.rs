//! Whether two numbers were computed by the same logic, as far as its digests tell.

/// What the digests of two logics say of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// They are the same.
    Same,
    /// They are not.
    Other,
    /// They are of different forms, as CQL text and ELM, and nothing shows that they mean the same.
    Untold,
    /// Of one of them nothing is known, or only what an older program says.
    NotSaid,
}

/// A logic is known by the digest of its text, which stands first and names its form, and by that of what it means.
pub(super) fn compare(one: &[String], other: &[String]) -> Likeness {
    match (form(one), form(other)) {
        (Some(_), Some(_)) if one.iter().any(|digest| other.contains(digest)) => Likeness::Same,
        (Some(own), Some(theirs)) if own == theirs => Likeness::Other,
        (Some(own), Some(theirs)) if [own, theirs].iter().all(|form| form.contains("numbers")) => Likeness::Untold,
        _ => Likeness::NotSaid,
    }
}

/// `cql+numbers`, or of a composite `numbers(cql+numbers, elm+numbers)`.
pub(super) fn form(logic: &[String]) -> Option<&str> {
    logic.first()?.split(':').next()
}

/// Stands for the form of what is counted elsewhere.
pub(super) const WITHOUT_CQL: &str = "a definition without CQL";

/// The form for people: CQL, ELM, or both in a composite.
pub(super) fn form_text(logic: &[String]) -> &'static str {
    let form = form(logic).unwrap_or_default();
    match (form.contains("cql"), form.contains("elm")) {
        (true, true) => "CQL and ELM",
        (false, true) => "ELM",
        (false, false) if form.contains("numbers") => WITHOUT_CQL,
        _ => "CQL",
    }
}
