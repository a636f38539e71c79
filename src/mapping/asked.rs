//! Whether a measure asks for what a mapping leads to.

use std::collections::{BTreeMap, BTreeSet};

use super::{CodeRule, Mapping, Target};
use crate::diagnostic::{Diagnostic, nearest};
use crate::terminology;

/// The codes that measures ask for, by system; no codes where all of a system may be meant.
#[derive(Clone, Debug, Default)]
pub struct Asked(BTreeMap<String, BTreeSet<String>>);

impl Asked {
    /// Adds a code.
    pub fn insert(&mut self, system: &str, code: &str) {
        self.0.entry(system.to_owned()).or_default().insert(code.to_owned());
    }

    /// All of a system may be meant.
    pub fn open(&mut self, system: &str) {
        self.0.insert(system.to_owned(), BTreeSet::new());
    }

    /// The systems that are asked for.
    pub(super) fn systems(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Every code that is asked for, with its system.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(system, codes)| codes.iter().map(|code| (system.as_str(), code.as_str())))
    }

    /// Whether a measure asks for a code.
    pub fn knows(&self, system: &str, code: &str) -> bool {
        self.0.get(system).is_some_and(|codes| codes.is_empty() || codes.contains(code))
    }

    /// Whether codes of a system are asked for.
    pub fn names(&self, system: &str) -> bool {
        self.0.contains_key(system)
    }

    /// The system that was probably meant by one that no measure asks for.
    pub fn near_system(&self, written: &str) -> Option<&str> {
        let systems = || self.0.keys().map(String::as_str);
        let name = written.to_lowercase();
        let within = |system: &&str| name.len() >= 3 && !name.contains(':') && system.to_lowercase().contains(&name);
        nearest(written, systems()).or_else(|| systems().find(within))
    }

    /// The code that was probably meant by one that no measure asks for. One with a number in it to which others lead is its own: of words
    /// that are alike one is a slip, whatever else leads to the other.
    pub fn meant(&self, system: &str, code: &str, is_led_to: impl Fn(&str) -> bool) -> Option<&str> {
        let is_word = !code.chars().any(|sign| sign.is_ascii_digit());
        self.near_code(system, code).filter(|near| is_word || !is_led_to(near))
    }

    /// The code of a system that was probably meant by another one. Numbers that are alike are codes of their own, but for one digit,
    /// or two that changed places: what such codes are checked by.
    fn near_code(&self, system: &str, written: &str) -> Option<&str> {
        let codes = self.0.get(system)?;
        let near = nearest(written, codes.iter().map(String::as_str))?;
        let is_named = written.chars().any(char::is_alphabetic);
        let differing: Vec<(usize, (u8, u8))> = near.bytes().zip(written.bytes()).enumerate().filter(|(_, (own, other))| own != other).collect();
        let is_slip = match differing.as_slice() {
            [_] => true,
            [(at, (own, other)), (next, swapped)] => at + 1 == *next && (*other, *own) == *swapped,
            _ => false,
        };
        (is_named || near.len() == written.len() && is_slip).then_some(near)
    }
}

impl Mapping {
    /// What it leads to and no measure asks for: a slip, as far as anything near is asked for, else a note for each rule of which
    /// nothing is. What a Patient is, is told of whoever is counted, without being asked for.
    pub fn unasked(&self, asked: &Asked) -> Vec<Diagnostic> {
        let mut findings = Vec::new();
        for rule in self.codes.iter().filter(|rule| rule.elements.iter().any(|element| element.resource_type != "Patient")) {
            let slips = self.slips(&rule.targets, asked, Some(rule));
            let is_idle = slips.is_empty() && !rule.targets.is_empty() && rule.targets.values().all(|target| !self.is_wanted(target, asked));
            let unspoken = |target: &&Target| is_idle && terminology::systems::misspelled(&target.system).is_none();
            if let Some(first) = rule.targets.values().next().filter(unspoken) {
                let message = format!("no measure of this site asks for what `{}` leads to, as `{}` of `{}`", rule.system, first.code, first.system);
                findings.push(
                    Diagnostic::note(message)
                        .at(first.system_at.clone())
                        .help("as where a mapping is shared by sites with other measures; else look at the system"),
                );
            }
            findings.extend(slips);
        }
        for rule in &self.answers {
            findings.extend(self.slips(&rule.targets, asked, None));
        }
        findings
    }

    /// Whether a measure asks for it, or another rule goes on from it.
    pub(super) fn is_wanted(&self, target: &Target, asked: &Asked) -> bool {
        asked.knows(&target.system, &target.code) || self.reads(&target.system)
    }

    /// Whether a rule goes on from codes of a system.
    pub fn reads(&self, system: &str) -> bool {
        self.codes.iter().any(|rule| rule.system == system)
    }

    fn slips(&self, targets: &BTreeMap<String, Target>, asked: &Asked, rule: Option<&CodeRule>) -> Vec<Diagnostic> {
        let mut systems = BTreeSet::new();
        let mut findings = Vec::new();
        for (local, target) in targets.iter().filter(|(_, target)| !self.is_wanted(target, asked)) {
            let Target { system, code, .. } = target;
            if !asked.names(system) {
                // What is said of a misspelt name already is not said twice.
                let is_new = terminology::systems::misspelled(system).is_none() && systems.insert(system.clone());
                let near = asked.near_system(system).filter(|_| is_new);
                findings.extend(near.map(|near| {
                    Diagnostic::warning(format!("no measure asks for codes of `{system}`"))
                        .help(format!("did you mean `{near}`?"))
                        .at(target.system_at.clone())
                }));
                continue;
            }
            let is_swapped = rule.is_some() && asked.0.get(system).is_some_and(|codes| codes.contains(local));
            let near = asked.meant(system, code, |near| targets.values().any(|other| other.code == near));
            let help = match near {
                _ if is_swapped => format!("it is `{local}` that they ask for: do local and standard code stand in each other's place?"),
                Some(near) => format!("did you mean `{near}`?"),
                None => continue,
            };
            findings.push(Diagnostic::warning(format!("no measure asks for `{code}` of `{system}`")).help(help).at(target.at.clone()));
        }
        findings
    }
}
