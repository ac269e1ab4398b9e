//! Holds: the registry of typed ids, one line each.

/// Declares a UUID newtype; with a prefix, the wire form is `prefix` + 32 hex digits and nothing else parses.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// Wraps a UUID that is known to name this kind of thing.
            pub const fn new(uuid: uuid::Uuid) -> Self {
                Self(uuid)
            }

            /// The bare UUID, for storage.
            pub const fn uuid(self) -> uuid::Uuid {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                uuid::Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id!(
    /// A customer: the user who logs in and the account that pays.
    AccountId
);
id!(
    /// An API key.
    KeyId
);
id!(
    /// A batch of tasks.
    BatchId
);
id!(
    /// One task of a batch.
    TaskId
);
id!(
    /// One request through the pipeline; names its usage row and its charges.
    RequestId
);
id!(
    /// One immutable movement of money.
    TransferId
);
id!(
    /// A server process's lasting identity; it survives restarts.
    NodeId
);
