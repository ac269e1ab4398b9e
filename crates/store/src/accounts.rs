//! Holds: who there is: users, their sessions and their keys.

pub(crate) mod keys;
pub(crate) mod sessions;
pub(crate) mod users;
