//! Holds: what the body of a transcription says in its own way: its members; the sound comes beside them.

use serde_json::value::RawValue;

use super::{InputBound, InvalidRequest, Ways};

/// No tokens: what the sound lasts is counted by whoever reads it.
pub(super) const WAYS: Ways = Ways {
    bound: |_| Ok(InputBound { items: 1, ..InputBound::default() }),
    check: |found, _| match found.n.map(RawValue::get) {
        None | Some("1") => Ok(()),
        Some(_) => Err(InvalidRequest::at("n", "`n` must be 1: a sound is written down once")),
    },
    least_output: 1,
    max_output: |_| None,
    echoes: false,
};
