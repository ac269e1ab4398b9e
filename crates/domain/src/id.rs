//! Holds: the registry of typed ids, one line each.

/// Declares a UUID newtype; with a prefix, the wire form is `prefix` + 32 hex digits and nothing else parses.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                after_prefix(text, $prefix).map(Self)
            }
        }
    };
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

/// Text that names nothing of the asked kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this kind")]
pub struct NotAnId;

/// The UUID of a prefixed id: 32 lower-case hex digits after the prefix, so that each thing has one name.
fn after_prefix(text: &str, prefix: &str) -> Result<uuid::Uuid, NotAnId> {
    let digits = text.strip_prefix(prefix).ok_or(NotAnId)?;
    let is_plain = digits.len() == 32 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if is_plain { uuid::Uuid::try_parse(digits).map_err(|_| NotAnId) } else { Err(NotAnId) }
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
    /// A payment of a customer, from when it is asked for.
    TopupId
);
id!(
    /// An entry of the audit log.
    AuditId
);
id!(
    /// A server process's lasting identity; it survives restarts.
    NodeId
);
id!(
    /// A file that a client uploaded, or that a batch wrote.
    FileId, "file-"
);
id!(
    /// A job that makes a film.
    VideoId, "video_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefixed_id_has_one_name() {
        let id = FileId::new(uuid::Uuid::from_u128(0x0197_f3a0_0000_7000_8000_0000_0000_00ab));
        assert_eq!(id.to_string(), "file-0197f3a00000700080000000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in [
            "0197f3a00000700080000000000000ab",
            "file-0197F3A00000700080000000000000AB",
            "file-0197f3a0-0000-7000-8000-0000000000ab",
            "file-0197f3a00000700080000000000000a",
            "file-",
            "",
        ] {
            assert_eq!(wrong.parse::<FileId>(), Err(NotAnId), "{wrong}");
        }
    }
}
