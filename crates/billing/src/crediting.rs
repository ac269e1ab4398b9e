//! Holds: from payments on a chain that are final to their credits.

use std::collections::BTreeMap;

use batchin_domain::{AccountId, Amount, DepositStatus, TransferId};
use batchin_evm::Reached;
use batchin_store::{DepositCredit, DepositError, DepositRow};
use tracing::info;
use uuid::Uuid;

use crate::{
    Billing,
    chains::{Usdc, WatchedChain},
    second::SecondWord,
};

/// Payments that one transaction credits: each holds the accounts of all before it locked.
const TOGETHER: usize = 50;

/// A chain as a look has found it.
pub(crate) struct Found<'a> {
    pub(crate) billing: &'a Billing,
    pub(crate) usdc: &'a Usdc,
    pub(crate) watched: &'a WatchedChain,
    /// The endpoint that was asked.
    pub(crate) endpoint: usize,
    pub(crate) reached: Reached,
    /// The version that was written; nothing is credited at another.
    pub(crate) version: i64,
}

impl Found<'_> {
    /// Credits what is final, and says how many that were. What is too little alone is set aside.
    pub(crate) async fn credit(&self, second: &mut SecondWord) -> Result<usize, DepositError> {
        let chain = &self.watched.options.chain;
        let mut credited = 0;
        if let Some(up_to) = chain.final_to(&self.reached) {
            let mut after = (AccountId::new(Uuid::nil()), Uuid::nil());
            loop {
                let fresh = self.billing.deposits().fresh_deposits((chain.id, up_to), after).await?;
                let Some(last) = fresh.last() else { break };
                after = (last.seen.account, last.id);
                match self.credit_some(fresh, up_to, second).await {
                    Ok(some) => credited += some,
                    // The chain was read anew; what is final there is credited by that.
                    Err(DepositError::Stale) => break,
                    Err(other) => return Err(other),
                }
            }
        }
        second.end_look(&chain.name);
        if credited > 0 {
            info!(chain = &*chain.name, "{credited} payment(s) in USDC were credited");
        }
        Ok(credited)
    }

    async fn credit_some(
        &self,
        fresh: Vec<DepositRow>,
        up_to: u64,
        second: &mut SecondWord,
    ) -> Result<usize, DepositError> {
        let (deposits, chain) = (self.billing.deposits(), &self.watched.options.chain);
        let (mut due, mut held) = (Vec::new(), Vec::new());
        for (account, mut rows) in by_account(fresh.into_iter().filter(|row| self.is_final(row))) {
            // Those that are held count again only now that there is a fresh one: nobody bounds how many there are.
            let earlier = deposits.held_deposits((chain.id, up_to), account).await?;
            rows.extend(earlier.into_iter().filter(|row| self.is_final(row)));
            let sum = rows.iter().fold(Amount::ZERO, |sum, row| sum.saturating_add(row.seen.amount));
            if sum >= self.usdc.options.min {
                due.extend(rows);
            } else {
                held.extend(rows.iter().filter(|row| row.status == DepositStatus::Confirming).map(|row| row.id));
            }
        }
        if !held.is_empty() {
            deposits.credit_deposits((chain.id, self.version), &[], &held, self.billing.now()).await?;
        }
        let agreed = second.agreed((self.watched, self.endpoint), self.usdc.options.agree_from, due).await;
        let mut credited = 0;
        for credits in self.packed(agreed) {
            deposits.credit_deposits((chain.id, self.version), &credits, &[], self.billing.now()).await?;
            batchin_faults::point("deposits.credited");
            credited += credits.iter().map(|credit| credit.deposits.len()).sum::<usize>();
        }
        Ok(credited)
    }

    fn is_final(&self, row: &DepositRow) -> bool {
        let chain = &self.watched.options.chain;
        chain.standing(row.seen.block_number, row.seen.base_units, &self.reached).is_final()
    }

    /// Credits as transactions write them, those of each in the order of their accounts.
    fn packed(&self, rows: Vec<DepositRow>) -> Vec<Vec<DepositCredit>> {
        let (mut packed, mut now, mut room) = (Vec::new(), Vec::new(), TOGETHER);
        for (account, rows) in by_account(rows.into_iter()) {
            for rows in rows.chunks(TOGETHER) {
                if rows.len() > room {
                    packed.push(std::mem::take(&mut now));
                    room = TOGETHER;
                }
                room -= rows.len();
                let named = |row: &DepositRow| (row.clone(), TransferId::new(self.billing.ids().uuid()));
                let deposits = rows.iter().map(named).collect();
                now.push(DepositCredit { topup: self.billing.topup_id(), account, deposits });
            }
        }
        packed.extend((!now.is_empty()).then_some(now));
        packed
    }
}

fn by_account(rows: impl Iterator<Item = DepositRow>) -> BTreeMap<AccountId, Vec<DepositRow>> {
    let mut of: BTreeMap<AccountId, Vec<DepositRow>> = BTreeMap::new();
    for row in rows {
        of.entry(row.seen.account).or_default().push(row);
    }
    of
}
