//! Holds: named events, numbered as they are written.

use std::io::Write;

use bytes::Bytes;

use super::{item::Item, json::push_text};

/// What an event takes beside its text.
const EVENT_BYTES: usize = 320;

/// Events that are to be sent, and how many there have been.
#[derive(Debug, Default)]
pub(super) struct Events {
    out: Vec<u8>,
    sequence: u64,
}

/// An event that is being written.
pub(super) struct Event<'a> {
    out: &'a mut Vec<u8>,
}

impl Events {
    /// Makes room for some events that tell as many bytes.
    pub(super) fn expect(&mut self, bytes: usize) {
        self.out.reserve(bytes.saturating_add(EVENT_BYTES));
    }

    /// Begins the next one.
    pub(super) fn event(&mut self, name: &str) -> Event<'_> {
        let sequence = self.sequence;
        self.sequence += 1;
        let event = Event { out: &mut self.out };
        // Writing to memory does not fail.
        let _ = write!(event.out, "event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":{sequence}");
        event
    }

    /// What is to be sent now.
    pub(super) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.out).into()
    }
}

impl Event<'_> {
    /// It is about this item of the output.
    pub(super) fn about(self, item: &Item, at: usize) -> Self {
        self.text("item_id", &item.id).count("output_index", at)
    }

    /// It is about this part of the item's content.
    pub(super) fn part(self, at: usize) -> Self {
        self.count("content_index", at)
    }

    /// A member that is a text.
    pub(super) fn text(self, member: &str, text: &str) -> Self {
        self.with(member, |out| push_text(out, text))
    }

    /// A member that is a number.
    pub(super) fn count(self, member: &str, count: usize) -> Self {
        // Writing to memory does not fail.
        let _ = write!(self.out, ",\"{member}\":{count}");
        self
    }

    /// A member whose value is written by `write`.
    pub(super) fn with(self, member: &str, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        for part in [",\"", member, "\":"] {
            self.out.extend_from_slice(part.as_bytes());
        }
        write(self.out);
        self
    }

    /// A member that is a list of these items.
    pub(super) fn list(self, member: &str, items: &str) -> Self {
        self.with(member, |out| [b"[", items.as_bytes(), b"]"].iter().for_each(|part| out.extend_from_slice(part)))
    }

    /// Nothing more is said in it.
    pub(super) fn end(self) {
        self.out.extend_from_slice(b"}\n\n");
    }
}
