//! Takes from several buckets: from leases, else from the store, else as each limit says that holds
//! without it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use smallvec::SmallVec;
use tokio::time::timeout_at;
use waypoint_policy::limit::{Exceeded, Left, StoreFailure};

use super::account::Account;
use super::hold::Stage;
use super::ledger::Statement;
use super::measure::Measure;
use super::{Hold, Inner, NotTaken, Want, Why};

impl Inner {
    /// Takes what a call wants of all buckets, or of none.
    ///
    /// # Errors
    /// The first want that cannot be met.
    pub(super) async fn take(
        self: &Arc<Self>,
        wants: &[Want<'_>],
    ) -> Result<SmallVec<[Hold; 2]>, NotTaken> {
        let mut holds: SmallVec<[Hold; 2]> = SmallVec::new();
        for (index, want) in wants.iter().enumerate() {
            let measure = Measure::from(want.amount);
            let hash = digest(&SHA256, want.key);
            let not = |why, left| NotTaken { index, why, left };
            let nothing = Left {
                limit: measure.capacity(),
                remaining: 0,
                reset: Duration::ZERO,
            };
            let key = hash.as_ref().first_chunk::<16>();
            let account = key.and_then(|&key| self.account(key, want.number, measure));
            let account = account.ok_or(not(Why::Unavailable, nothing))?;
            let mut hold = Hold::new(self, account, measure, want);
            if hold.cost > measure.room() || measure.room() == 0 {
                return Err(not(Why::Exceeded(Exceeded::Forever), hold.left()));
            }
            hold.take();
            holds.push(hold);
        }
        if holds.iter().any(|hold| hold.stage == Stage::Nothing) {
            self.ask(&mut holds).await?;
        }
        for hold in &mut holds {
            hold.keep();
        }
        Ok(holds)
    }

    /// Asks the store for what leases did not cover.
    pub(super) async fn ask(&self, holds: &mut [Hold]) -> Result<(), NotTaken> {
        if !self.link.is_ready().await {
            return self.fall_back(holds);
        }
        let short = holds.iter().filter(|hold| hold.stage == Stage::Nothing);
        let mut accounts: SmallVec<[(Arc<Account>, u64); 2]> = short
            .map(|hold| (Arc::clone(&hold.account), hold.cost))
            .collect();
        // In one order, so that no two calls wait for each other.
        accounts.sort_by_key(|(account, _)| account.id);
        let waiting: SmallVec<[_; 2]> = accounts.iter().map(|(a, cost)| a.wait(*cost)).collect();
        let deadline = tokio::time::Instant::now() + self.link.timeout();
        let mut flights: SmallVec<[_; 2]> = SmallVec::new();
        let mut last = None;
        for (account, _) in &accounts {
            if last.replace(account.id) == Some(account.id) {
                continue;
            }
            match timeout_at(deadline, account.flight.lock()).await {
                Ok(flight) => flights.push((account, flight)),
                Err(_) => return self.fall_back(holds),
            }
        }
        drop(waiting);
        // Whoever was here before may have found it down, or empty.
        if !self.link.is_up() || self.is_restating() {
            return self.fall_back(holds);
        }
        let now = self.now_ns();
        let mut said: SmallVec<[(&Account, Statement); 2]> = SmallVec::new();
        for (account, _) in &flights {
            let mut ledger = account.ledger();
            let mut is_short = false;
            let of_account = |hold: &&mut Hold| Arc::ptr_eq(&hold.account, account);
            for hold in holds.iter_mut().filter(of_account) {
                if hold.stage == Stage::Nothing {
                    hold.stage = match ledger.take(hold.cost) {
                        true => Stage::Taken,
                        false => Stage::Begun,
                    };
                }
                if hold.stage == Stage::Begun {
                    ledger.measure = hold.measure;
                    ledger.begin(hold.cost);
                    is_short = true;
                }
            }
            if is_short {
                let waiting = account.waiting.load(Ordering::Relaxed);
                said.push((account, ledger.ask(waiting, now)));
            }
        }
        if said.is_empty() {
            return Ok(());
        }
        let answer = self.state(&said).await;
        match answer {
            Ok((true, _)) => {
                for hold in holds.iter_mut().filter(|hold| hold.stage == Stage::Begun) {
                    hold.account.ledger().confirm(hold.cost);
                    hold.stage = Stage::Taken;
                }
                Ok(())
            }
            Ok((false, missing)) => {
                let missing: SmallVec<[_; 2]> = said
                    .iter()
                    .zip(missing)
                    .filter_map(|((account, _), missing)| Some((account.id, missing?)))
                    .collect();
                let mut stands = holds.iter().enumerate().filter_map(|(index, hold)| {
                    let mut missing = missing.iter().filter(|(id, _)| *id == hold.account.id);
                    let &(_, missing) = missing.next()?;
                    let why = Why::Exceeded(hold.exceeded(missing));
                    let left = hold.left();
                    (hold.stage == Stage::Begun).then_some(NotTaken { index, why, left })
                });
                if let Some(not) = stands.next() {
                    return Err(not);
                }
                // It knows nothing any more.
                give_up(holds);
                drop(flights);
                self.fall_back(holds)
            }
            Err(_) => {
                give_up(holds);
                drop(flights);
                self.fall_back(holds)
            }
        }
    }

    /// What holds without the store.
    fn fall_back(&self, holds: &mut [Hold]) -> Result<(), NotTaken> {
        let (now, shares) = (self.now_ns(), self.shares());
        for (index, hold) in holds.iter_mut().enumerate() {
            if hold.stage != Stage::Nothing {
                continue;
            }
            let why = match hold.failure {
                StoreFailure::Closed => Err(Why::Unavailable),
                StoreFailure::Open => {
                    hold.charge_all(1, now);
                    Ok(())
                }
                StoreFailure::LocalShare => {
                    let missing = hold.take_share(shares, now);
                    missing.map_err(|missing| Why::Exceeded(hold.exceeded(missing)))
                }
            };
            why.map_err(|why| NotTaken {
                index,
                why,
                left: hold.left(),
            })?;
        }
        Ok(())
    }
}

/// Takes back what the store was asked for and has not given.
fn give_up(holds: &mut [Hold]) {
    let begun = holds.iter_mut().filter(|hold| hold.stage == Stage::Begun);
    begun.for_each(Hold::give_up);
}
