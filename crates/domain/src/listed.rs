//! Holds: an enum and the list of its variants: said once.

/// An enum with the list of its variants and, where it is told, the name of each in the API.
#[macro_export]
macro_rules! listed {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$what:meta])* $variant:ident => $text:literal),+ $(,)? }
    ) => {
        $crate::listed! {
            $(#[$meta])*
            pub enum $name { $($(#[$what])* $variant),+ }
        }

        impl $name {
            /// Its name in the API, in headers and in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// From its name: the first that has it.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|one| one.name() == name)
            }
        }
    };
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$what:meta])* $variant:ident),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$what])* $variant),+ }

        impl $name {
            /// All of them, in their order.
            pub const ALL: [Self; [$(stringify!($variant)),+].len()] = [$(Self::$variant),+];
        }
    };
}
