//! Holds: who there is: users, their sessions and their keys.

pub(crate) mod keys;
pub(crate) mod sessions;
pub(crate) mod users;

use batchin_db::Db;

/// Users, their sessions and the keys that they make. Held by the API, which proves who asks.
#[derive(Clone)]
pub struct Accounts {
    pub(crate) db: Db,
}

/// What a key is good for, as requests and tasks ask. Held by who carries them out.
#[derive(Clone)]
pub struct Keys {
    pub(crate) db: Db,
}
