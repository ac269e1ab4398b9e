//! Holds: what the body of a chat says in its own way.

use super::{Ways, content};

pub(super) const WAYS: Ways = Ways {
    bound: |found| content::messages(found.messages),
    check: |_, _| Ok(()),
    least_output: 1,
    max_output: |stated| stated,
    echoes: false,
};
