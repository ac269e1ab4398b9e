//! Holds: what is stored as a small number, and that number: both said once.

/// Something that is stored as a small number.
pub trait Stored: Copy {
    /// From the number that it is stored as.
    fn from_code(code: i16) -> Option<Self>;
}

/// An enum with the number that each variant is stored as and, where it is told, its name in the API. Numbers are for good.
#[macro_export]
macro_rules! stored {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$what:meta])* $variant:ident = $code:literal => $text:literal),+ $(,)? }
    ) => {
        $crate::listed! {
            $(#[$meta])*
            pub enum $name { $($(#[$what])* $variant => $text),+ }
        }
        $crate::stored! { @numbers $name { $($variant = $code),+ } }
    };
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$what:meta])* $variant:ident = $code:literal),+ $(,)? }
    ) => {
        $crate::listed! {
            $(#[$meta])*
            pub enum $name { $($(#[$what])* $variant),+ }
        }
        $crate::stored! { @numbers $name { $($variant = $code),+ } }
    };
    (@numbers $name:ident { $($variant:ident = $code:literal),+ }) => {
        impl $name {
            /// The number it is stored as.
            pub const fn code(self) -> i16 {
                match self { $(Self::$variant => $code),+ }
            }

            /// From the number it is stored as.
            pub const fn from_code(code: i16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }

        impl $crate::stored::Stored for $name {
            fn from_code(code: i16) -> Option<Self> {
                Self::from_code(code)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::Stored;
    use crate::{
        BatchStatus, Chore, Ending, FilePurpose, Priority, PurseKind, TaskStatus, TopupSource, TopupStatus,
        ledger::Movement, webhook,
    };

    fn leads_back<T: Stored + PartialEq + std::fmt::Debug>(all: &[T], code: impl Fn(T) -> i16) {
        for one in all {
            assert_eq!(T::from_code(code(*one)), Some(*one));
        }
        assert_eq!(T::from_code(-1), None);
    }

    #[test]
    fn every_number_leads_back() {
        leads_back(&BatchStatus::ALL, BatchStatus::code);
        leads_back(&TaskStatus::ALL, TaskStatus::code);
        leads_back(&Ending::ALL, Ending::code);
        leads_back(&Chore::ALL, Chore::code);
        leads_back(&FilePurpose::ALL, FilePurpose::code);
        leads_back(&Priority::ALL, Priority::code);
        leads_back(&PurseKind::ALL, PurseKind::code);
        leads_back(&Movement::ALL, Movement::code);
        leads_back(&TopupStatus::ALL, TopupStatus::code);
        leads_back(&TopupSource::ALL, TopupSource::code);
        leads_back(&webhook::EventKind::ALL, webhook::EventKind::code);
        leads_back(&webhook::DeliveryState::ALL, webhook::DeliveryState::code);
        leads_back(&webhook::FailureKind::ALL, webhook::FailureKind::code);
    }

    #[test]
    fn numbers_are_what_databases_have() {
        assert_eq!(Movement::ALL.map(Movement::code), [0, 1, 4, 2, 3, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(Priority::ALL.map(Priority::code), [0, 1, 2]);
        assert_eq!(PurseKind::ALL.map(PurseKind::code), [0, 1, 2, 3]);
        assert_eq!(BatchStatus::Cancelling.code(), 8);
    }
}
