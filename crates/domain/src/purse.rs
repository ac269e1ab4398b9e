//! Holds: the four limits that the escrow leases from, as one thing.

use uuid::Uuid;

use crate::{AccountId, BatchId, KeyId, Minute, Month, stored};

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
