//! Whether what came of a query may be all: held against what its pages announce and, where these leave a doubt, against a number that is
//! asked for alone.

use super::super::ask::{Ask, parameters};
use super::super::page;
use super::super::part::Part;
use super::{Reading, Trouble, Walk};
use crate::diagnostic::counted;
use crate::source::SourceError;
use crate::source::duty::{Code, Why};
use std::sync::atomic::Ordering;

/// A result of exactly so many, or a multiple, may have been cut: the server is asked how many there are.
const ROUND: u64 = 50;
/// The same, so likely cut that it is not believed, whatever the server says how many there are, until parts were read.
const VERY_ROUND: u64 = 1_000;

impl Reading<'_> {
    /// Whether what came may be all. A total is a reason for alarm, and so is an end that looks like a cut; the server is
    /// asked for a count only then, in a request of its own: counting with the search breaks the paging of some.
    pub(super) async fn judge(&self, part: &Part, walk: &Walk) -> Result<(), Trouble> {
        if let Some(complaint) = &walk.complaint {
            return Err(Trouble::Gap(complaint.clone()));
        }
        if walk.shifted {
            return Err(Trouble::Shifted(Why::new(Code::Paging, "the server says that its pages have shifted")));
        }
        if walk.tally.repeated > 0 && walk.addresses.len() > 1 {
            return Err(Trouble::Shifted(Why::new(Code::Paging, format!("the server's pages repeat {}", counted(walk.tally.repeated, "entry")))));
        }
        let came = walk.tally.distinct;
        let ends_full = walk.on_page > 0 && (walk.on_page >= u64::from(self.page_size()) || (walk.addresses.len() > 1 && walk.on_page >= walk.most));
        let looks_cut = came > 0 && (ends_full || came.is_multiple_of(ROUND));
        let announced = |total: u64| Why::new(Code::Announced, format!("the server announced {total} and sent {came}"));
        match walk.total {
            Some(total) if came < total && looks_cut => Err(Trouble::Divide(announced(total))),
            Some(total) if came < total => Err(Trouble::Short(announced(total))),
            // Some cut the number as they cut the result.
            Some(total) if came == total && is_very_round(came) => Err(Trouble::Doubt(came)),
            None if looks_cut => match self.count(part).await? {
                Some(total) if came < total => Err(Trouble::Divide(Why::new(Code::Announced, format!("the server has {total} and sent {came}")))),
                Some(total) if came == total && is_very_round(came) => Err(Trouble::Doubt(came)),
                None => Err(Trouble::Doubt(came)),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether as many came as the server counts, though a page announced more, as where that is an estimate.
    pub(super) async fn is_counted(&mut self, whole: &Part) -> Result<bool, SourceError> {
        let counted = match self.count(whole).await {
            Err(Trouble::Fatal(error)) => return Err(error),
            counted => counted.ok().flatten(),
        };
        let is_counted = counted == Some(self.all.distinct);
        if is_counted {
            self.receiving.unit.expected = counted;
        }
        Ok(is_counted)
    }

    /// How many match, by a request that asks for nothing else; `None` if the server does not say.
    pub(super) async fn count(&self, part: &Part) -> Result<Option<u64>, Trouble> {
        let mut parameters = parameters(self.pull, self.task, part);
        parameters.push(("_summary".to_owned(), "count".to_owned()));
        let by_post = self.task.names_patients() && !self.pull.habits.no_post.load(Ordering::Relaxed);
        let ask = Ask::first(self.pull, &parameters, &self.task.query.resource_type, by_post)?;
        match ask.send(self.pull, false, false).await.map_err(Trouble::from) {
            Ok(answer) => Ok(page::counted(&answer)),
            Err(Trouble::Fatal(error)) => Err(Trouble::Fatal(error)),
            Err(_) => Ok(None),
        }
    }
}

/// The reason of a gap where a very round number came that nothing explains.
pub(super) fn cut_at(came: u64) -> Option<Why> {
    let reason = format!("exactly {came} came, as when a server cuts a result; no number of it shows that this is all, and it cannot be asked in parts");
    is_very_round(came).then(|| Why::new(Code::Cut, reason))
}

fn is_very_round(came: u64) -> bool {
    came > 0 && came.is_multiple_of(VERY_ROUND)
}
