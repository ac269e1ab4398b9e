//! Holds: what the body of an embeddings call says in its own way.

use super::{InvalidRequest, Ways, content};

pub(super) const WAYS: Ways = Ways {
    bound: |found| content::inputs("input", found.input),
    check: |_, stream| {
        let message = "`stream` is not supported for embeddings; leave it out";
        if stream { Err(InvalidRequest::at("stream", message)) } else { Ok(()) }
    },
    least_output: 1,
    max_output: |_| None,
    echoes: false,
};
