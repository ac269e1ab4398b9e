//! Holds: who asks. The extractors here are proofs: a handler that has one may act for that account.

mod caller;
mod internal;
mod keys;

pub(crate) use caller::{
    AccountCaller, AdminCaller, InferenceCaller, ManagingCaller, Proof, is_key_sent, session_hash,
};
pub(crate) use internal::{InternalCaller, Lookup, Open};
pub(crate) use keys::KeyBook;
