//! Holds: the four limits that the escrow leases from, as one thing, and how much of one.

use uuid::Uuid;

use crate::{AccountId, Amount, BatchId, KeyId, Minute, Month, stored};

/// Something that is spent and must not be overspent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purse {
    /// An account's prepaid balance, in nano-dollars.
    Balance(AccountId),
    /// What a key may spend in a month, in nano-dollars.
    Budget(KeyId, Month),
    /// How many requests a key may make in a minute.
    Requests(KeyId, Minute),
    /// What a batch may cost in all, in nano-dollars.
    Cap(BatchId),
}

/// So much of a purse, in its unit: nano-dollars or requests. Zero or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i64);

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One request, or the smallest sum of money.
    pub const ONE: Self = Self(1);
    /// The most that can be expressed.
    pub const MAX: Self = Self(i64::MAX);

    /// So many of the purse's unit; `None` below zero.
    pub const fn from_units(units: i64) -> Option<Self> {
        if units < 0 { None } else { Some(Self(units)) }
    }

    /// How many of the purse's unit, zero or more.
    pub const fn units(self) -> i64 {
        self.0
    }

    /// As money, where the purse holds money.
    pub fn money(self) -> Amount {
        Amount::from_nanos(self.0).unwrap_or(Amount::ZERO)
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, at most [`Quantity::MAX`].
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, at least nothing.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0).max(0))
    }

    /// So many times as much, at most [`Quantity::MAX`].
    #[must_use]
    pub fn saturating_mul(self, times: u32) -> Self {
        Self(self.0.saturating_mul(times.into()))
    }

    /// One of so many equal parts, rounded down.
    #[must_use]
    pub fn part(self, parts: u32) -> Self {
        Self(self.0.checked_div(parts.into()).unwrap_or(self.0))
    }
}

impl From<Amount> for Quantity {
    fn from(money: Amount) -> Self {
        Self(money.nanos())
    }
}

stored! {
    /// Which of the four.
    #[derive(PartialOrd, Ord)]
    pub enum PurseKind {
        /// [`Purse::Balance`].
        Balance = 0,
        /// [`Purse::Budget`].
        Budget = 1,
        /// [`Purse::Requests`].
        Requests = 2,
        /// [`Purse::Cap`].
        Cap = 3,
    }
}

impl Purse {
    /// Which of the four.
    pub const fn kind(self) -> PurseKind {
        match self {
            Self::Balance(_) => PurseKind::Balance,
            Self::Budget(..) => PurseKind::Budget,
            Self::Requests(..) => PurseKind::Requests,
            Self::Cap(_) => PurseKind::Cap,
        }
    }

    /// Whose it is: an account, a key or a batch.
    pub const fn owner(self) -> Uuid {
        match self {
            Self::Balance(account) => account.uuid(),
            Self::Budget(key, _) | Self::Requests(key, _) => key.uuid(),
            Self::Cap(batch) => batch.uuid(),
        }
    }

    /// The index of its window; zero for a balance and a batch, which have none.
    pub const fn window(self) -> i64 {
        match self {
            Self::Balance(_) | Self::Cap(_) => 0,
            Self::Budget(_, month) => month.index(),
            Self::Requests(_, minute) => minute.index(),
        }
    }

    /// From how it is stored.
    pub const fn from_parts(kind: PurseKind, owner: Uuid, window: i64) -> Self {
        match kind {
            PurseKind::Balance => Self::Balance(AccountId::new(owner)),
            PurseKind::Budget => Self::Budget(KeyId::new(owner), Month::from_index(window)),
            PurseKind::Requests => Self::Requests(KeyId::new(owner), Minute::from_index(window)),
            PurseKind::Cap => Self::Cap(BatchId::new(owner)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_quantity_is_never_below_zero_and_money_stays_what_it_is(units in 0..=i64::MAX, other in 0..=i64::MAX, parts in any::<u32>()) {
            prop_assert_eq!(Quantity::from_units(-1 - units), None);
            let quantity = Quantity::from_units(units).unwrap();
            let other = Quantity::from_units(other).unwrap();
            prop_assert_eq!(Quantity::from(quantity.money()), quantity);
            prop_assert!(quantity.saturating_add(other) >= quantity.max(other));
            prop_assert_eq!(quantity.saturating_sub(other).is_zero(), quantity <= other);
            prop_assert!(quantity.part(parts) <= quantity && quantity.part(parts) >= Quantity::ZERO);
            prop_assert!(quantity.saturating_mul(parts.max(1)) >= quantity);
        }
    }
}
