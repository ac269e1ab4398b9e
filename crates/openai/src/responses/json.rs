//! Holds: JSON that is written from parts, some of which lie in a body already.

/// An object that is being written, or members that are to stand in one.
#[derive(Debug)]
pub(super) struct Object {
    out: Vec<u8>,
}

impl Object {
    /// With room for this many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut out = Vec::with_capacity(bytes);
        out.push(b'{');
        Self { out }
    }

    /// Without braces.
    pub(super) fn members() -> Self {
        Self { out: Vec::new() }
    }

    /// Where the member's value is to be written.
    pub(super) fn member(&mut self, name: &str) -> &mut Vec<u8> {
        // No value ends so.
        if !matches!(self.out.last(), None | Some(b'{')) {
            self.out.push(b',');
        }
        push_text(&mut self.out, name);
        self.out.push(b':');
        &mut self.out
    }

    /// A member with this JSON as its value.
    pub(super) fn set(&mut self, name: &str, json: &str) {
        self.member(name).extend_from_slice(json.as_bytes());
    }

    /// The whole object.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.out.push(b'}');
        self.out
    }

    /// What was begun as members.
    pub(super) fn into_members(self) -> Vec<u8> {
        self.out
    }
}

/// Adds a text as JSON, quotes included.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    // A text that is written to memory has no way to fail.
    let _written = serde_json::to_writer(out, text);
}
