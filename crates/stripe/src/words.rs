//! Holds: enums of Stripe's words, each with a place for those that come later.

/// An enum whose variants are words on the wire; any other word is `Other` and no error.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$each])* $variant,)+
            /// A word that this version does not know; empty where there was none.
            Other(String),
        }

        impl $name {
            /// What this word means.
            pub fn parse(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)+
                    other => Self::Other(other.to_owned()),
                }
            }

            /// The word on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(other) => other,
                }
            }
        }
    };
}

pub(crate) use words;
