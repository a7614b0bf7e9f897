//! Rows that were kept aside: shown, and written again or dropped as a person decides, slice by slice.

use super::shell::Shell;
use crate::document::{
    PAGE_DOCUMENTS_MAX, RecoveredChoice, RecoveredOutcome, RecoveredPage, RecoveredRow, RecoveredSelection,
};
use crate::error::Error;
use crate::log::info;
use crate::proto::Client;
use crate::replica::{Choice, Decision, Reply};
use std::boxed::Box;
use std::format;
use std::rc::Rc;
use std::vec::Vec;

impl Shell {
    pub(crate) async fn recovered(&self, after: u64, limit: usize) -> Result<RecoveredPage, Error> {
        let rows = self.store.recovered(after, limit.clamp(1, PAGE_DOCUMENTS_MAX)).await?;
        let rows: Vec<RecoveredRow> = rows.into_iter().map(|(number, row)| RecoveredRow::of(number, row)).collect();
        let next = rows.last().map(|row| row.number);
        Ok(RecoveredPage { rows, next })
    }

    /// A person knows what happened to the database: health says no more of it.
    pub(crate) async fn acknowledge(&self) -> Result<(), Error> {
        self.store.acknowledge().await?;
        if self.incident.take().is_some() {
            info!("the recovery of the database was acknowledged");
        }
        Ok(())
    }

    pub(crate) async fn decide_recovered(
        self: &Rc<Self>,
        choice: RecoveredChoice,
        selection: RecoveredSelection,
    ) -> Result<RecoveredOutcome, Error> {
        if selection.keys.len() > PAGE_DOCUMENTS_MAX {
            return Err(Error::bad_request(format!("at most {PAGE_DOCUMENTS_MAX} keys at once")));
        }
        let RecoveredSelection { collection, keys } = selection;
        let choice = match choice {
            RecoveredChoice::Apply => Choice::Apply,
            RecoveredChoice::Drop => Choice::Drop,
        };
        let (mut outcome, mut after) = (RecoveredOutcome::default(), 0);
        loop {
            let decision = Decision { choice, collection: collection.clone(), keys: keys.clone(), after };
            let Reply::Decided(done) = self.ask(Client::Decide(decision), Vec::new()).await? else {
                return Err(Error::persistence("the store answered something else", None::<Box<_>>));
            };
            outcome.written += done.written.len() as u64;
            outcome.settled += done.settled;
            outcome.damaged += done.damaged;
            match done.next {
                Some(next) => after = next,
                None => break,
            }
        }
        outcome.waiting = self.engine.borrow().knowledge().recovered;
        if outcome.settled > 0 {
            info!(
                "rows that were kept aside have been decided about written={} settled={} waiting={}",
                outcome.written, outcome.settled, outcome.waiting
            );
        }
        Ok(outcome)
    }
}
