//! Holds: the users of a test.

use batchin_api::{Secret, password};
use batchin_domain::{AccountId, Amount, Clock, IdSource, KeyId};
use batchin_store::{NewKey, NewUser, Role, Store};

use crate::{TestClock, world::RealIds};

/// What everybody's password is.
const PASSWORD: &str = "correct horse battery";

/// A user with one key.
#[derive(Clone, Debug)]
pub struct Account {
    /// Also the user's id.
    pub id: AccountId,
    /// Their email.
    pub email: String,
    /// Their password.
    pub password: &'static str,
    /// Their key's id.
    pub key_id: KeyId,
    /// Their key.
    pub key: String,
}

/// A user with this email and role, and a key of theirs.
pub(crate) async fn new_account(
    (store, clock): (&Store, &TestClock),
    (email, role): (&str, Role),
    rpm: u32,
    budget: Option<Amount>,
) -> Account {
    let (id, key_id) = (AccountId::new(RealIds.uuid()), KeyId::new(RealIds.uuid()));
    let user = NewUser {
        id,
        email: email.to_owned(),
        name: "Ada".to_owned(),
        password_hash: password::hash(PASSWORD, RealIds.secret()).unwrap(),
        role,
        now: clock.now(),
    };
    store.accounts().create_user(user).await.unwrap();
    let secret = Secret::api_key(RealIds.secret());
    let key = NewKey {
        id: key_id,
        account: id,
        hash: secret.hash,
        last4: secret.last4(),
        name: None,
        rate_limit_rpm: rpm,
        monthly_budget: budget,
        now: clock.now(),
    };
    store.accounts().create_key(key).await.unwrap();
    Account { id, email: email.to_owned(), password: PASSWORD, key_id, key: secret.text }
}
