//! Holds: the log's tree against RFC 6962 word for word, its forms, and records of which every byte is changed.

#![expect(clippy::unwrap_used, reason = "they are the assertions of a test")]

mod forms;
mod records;
mod trees;
