//! Holds: what answers in exactly OpenAI's shapes and has no counterpart below `/v1`.

pub(crate) mod batches;
pub(crate) mod files;
pub(crate) mod videos;
