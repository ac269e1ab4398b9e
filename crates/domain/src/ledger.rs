//! Holds: the rules of double entry.
//!
//! After TigerBeetle's account model: what is pending already counts against the customer, so the second step of a
//! two-phase movement can never break the balance. Accounts on our side are sums over transfers and have no counters.

use crate::{Amount, Balance, listed, stored};

listed! {
    /// The side of a transfer. Customer sides carry counters; the others are sums over transfers.
    pub enum Book {
        /// A customer's prepaid money.
        Customer,
        /// Credits given by the operator.
        Grants,
        /// What customers were charged.
        Revenue,
        /// Usage that could not be charged in time and that we bear.
        LateUsage,
        /// What was paid by card.
        Cards,
        /// What was paid back to cards.
        Refunds,
        /// What card holders had their banks take back.
        Disputes,
        /// What was paid in USDC.
        Usdc,
    }
}

stored! {
    /// Why money moved; fixes both sides of the transfer.
    pub enum Movement {
        /// The operator gives credit.
        Grant = 0,
        /// A request's usage is charged.
        Charge = 1,
        /// What was charged for a request on the way and is more than it cost in the end.
        GiveBack = 4,
        /// Usage that came after its node was fenced: our loss, never the customer's.
        Late = 2,
        /// The operator takes back credit that was given in error.
        Correction = 3,
        /// A payment by card has come.
        Paid = 5,
        /// A payment, or part of one, is paid back.
        Refunded = 6,
        /// A refund did not get through, and its money is ours again.
        RefundFailed = 7,
        /// A bank takes a payment, or part of one, back for its card holder.
        Disputed = 8,
        /// What a bank took back is ours again.
        DisputeWon = 9,
        /// A payment in USDC is final enough.
        Deposited = 10,
        /// A payment in USDC that was credited is not on its chain any more.
        Orphaned = 11,
    }
}

impl Movement {
    /// The (debit, credit) sides.
    pub const fn sides(self) -> (Book, Book) {
        match self {
            Self::Grant => (Book::Grants, Book::Customer),
            Self::Charge => (Book::Customer, Book::Revenue),
            Self::GiveBack => (Book::Revenue, Book::Customer),
            Self::Late => (Book::LateUsage, Book::Revenue),
            Self::Correction => (Book::Customer, Book::Grants),
            Self::Paid => (Book::Cards, Book::Customer),
            Self::Refunded => (Book::Customer, Book::Refunds),
            Self::RefundFailed => (Book::Refunds, Book::Customer),
            Self::Disputed => (Book::Customer, Book::Disputes),
            Self::DisputeWon => (Book::Disputes, Book::Customer),
            Self::Deposited => (Book::Usdc, Book::Customer),
            Self::Orphaned => (Book::Customer, Book::Usdc),
        }
    }

    /// What one nano-dollar of it does to what the customer was credited, in nano-dollars. Charges are counted apart.
    pub const fn credits(self) -> i64 {
        match self {
            Self::Grant | Self::GiveBack | Self::Paid | Self::RefundFailed | Self::DisputeWon | Self::Deposited => 1,
            Self::Correction | Self::Refunded | Self::Disputed | Self::Orphaned => -1,
            Self::Charge | Self::Late => 0,
        }
    }

    /// Whether money comes from or goes to somebody outside, or the operator: what an account's history shows.
    pub const fn is_of_credit(self) -> bool {
        self.credits() != 0 && !matches!(self, Self::GiveBack)
    }
}

/// A customer account's four counters, in nano-dollars, each zero or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Charged.
    pub posted_debit: i64,
    /// Credited.
    pub posted_credit: i64,
    /// Leased to nodes and not yet charged or returned.
    pub pending_debit: i64,
}

/// Why counters would not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The account has less than was asked for.
    #[error("only {available:?} is available")]
    Insufficient {
        /// What could be leased.
        available: Amount,
    },
    /// More would be posted or returned than is pending.
    #[error("more than is pending")]
    OverPending,
    /// The counter would leave its range.
    #[error("the account would overflow")]
    Overflow,
}

impl Counters {
    /// What the customer sees: credited minus charged. Leases are invisible.
    pub const fn balance(self) -> Balance {
        Balance::from_nanos(self.posted_credit.saturating_sub(self.posted_debit))
    }

    /// What can still be leased.
    pub fn available(self) -> Amount {
        Balance::from_nanos(self.balance().nanos().saturating_sub(self.pending_debit)).spendable()
    }

    /// Money comes in.
    pub fn credit(self, amount: Amount) -> Result<Self, LedgerError> {
        let posted_credit = self.posted_credit.checked_add(amount.nanos()).ok_or(LedgerError::Overflow)?;
        Ok(Self { posted_credit, ..self })
    }

    /// Credit is taken back: what is neither spent nor set aside.
    pub fn take_back(self, amount: Amount) -> Result<Self, LedgerError> {
        if self.available() < amount {
            return Err(LedgerError::Insufficient { available: self.available() });
        }
        Ok(Self { posted_credit: self.posted_credit.saturating_sub(amount.nanos()), ..self })
    }

    /// Money goes back to who paid it, whether or not it is spent. What then breaks the customer's rule freezes the account.
    pub fn reverse(self, amount: Amount) -> Result<Self, LedgerError> {
        let posted_credit = self.posted_credit.checked_sub(amount.nanos()).ok_or(LedgerError::Overflow)?;
        Ok(Self { posted_credit, ..self })
    }

    /// What a movement of credit makes of them.
    pub fn moved(self, movement: Movement, amount: Amount) -> Result<Self, LedgerError> {
        match movement.credits() {
            0 => Ok(self),
            1 => self.credit(amount),
            _ => self.reverse(amount),
        }
    }

    /// Sets an amount aside.
    pub fn pend(self, amount: Amount) -> Result<Self, LedgerError> {
        if self.available() < amount {
            return Err(LedgerError::Insufficient { available: self.available() });
        }
        let pending_debit = self.pending_debit.checked_add(amount.nanos()).ok_or(LedgerError::Overflow)?;
        Ok(Self { pending_debit, ..self })
    }

    /// Charges part of what was set aside.
    pub fn post(self, amount: Amount) -> Result<Self, LedgerError> {
        let unpended = self.void(amount)?;
        let posted_debit = unpended.posted_debit.checked_add(amount.nanos()).ok_or(LedgerError::Overflow)?;
        Ok(Self { posted_debit, ..unpended })
    }

    /// Gives back part of what was set aside.
    pub fn void(self, amount: Amount) -> Result<Self, LedgerError> {
        let pending_debit = self.pending_debit.saturating_sub(amount.nanos());
        if pending_debit < 0 {
            return Err(LedgerError::OverPending);
        }
        Ok(Self { pending_debit, ..self })
    }

    /// Whether the customer's rule holds: charged and set aside together never exceed what was credited.
    pub const fn is_sound(self) -> bool {
        self.pending_debit >= 0
            && self.posted_debit >= 0
            && self.posted_debit.saturating_add(self.pending_debit) <= self.posted_credit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Credit(i64),
        TakeBack(i64),
        Pend(i64),
        Post(i64),
        Void(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let amount = 0i64..1_000;
        prop::collection::vec(
            prop_oneof![
                amount.clone().prop_map(Step::Credit),
                amount.clone().prop_map(Step::TakeBack),
                amount.clone().prop_map(Step::Pend),
                amount.clone().prop_map(Step::Post),
                amount.prop_map(Step::Void),
            ],
            0..200,
        )
    }

    proptest! {
        /// Against a reference that keeps three plain numbers: free, set aside, spent.
        #[test]
        fn no_sequence_breaks_the_customers_rule(steps in steps()) {
            let (mut counters, mut free, mut aside, mut spent) = (Counters::default(), 0i64, 0i64, 0i64);
            for step in steps {
                let amount = |n: i64| Amount::from_nanos(n).unwrap();
                let (next, legal) = match step {
                    Step::Credit(n) => { free += n; (counters.credit(amount(n)), true) }
                    Step::TakeBack(n) => { let ok = n <= free; if ok { free -= n } (counters.take_back(amount(n)), ok) }
                    Step::Pend(n) => { let ok = n <= free; if ok { free -= n; aside += n } (counters.pend(amount(n)), ok) }
                    Step::Post(n) => { let ok = n <= aside; if ok { aside -= n; spent += n } (counters.post(amount(n)), ok) }
                    Step::Void(n) => { let ok = n <= aside; if ok { aside -= n; free += n } (counters.void(amount(n)), ok) }
                };
                prop_assert_eq!(next.is_ok(), legal);
                counters = next.unwrap_or(counters);
                prop_assert!(counters.is_sound());
                prop_assert_eq!(counters.available().nanos(), free);
                prop_assert_eq!(counters.pending_debit, aside);
                prop_assert_eq!(counters.posted_debit, spent);
            }
        }
    }
}
