//! Holds: what is wrong with a part of a request, told by whoever reads that part and placed by whoever read what lies
//! around it.

use std::borrow::Cow;

use crate::InvalidRequest;

/// A field that cannot be asked for.
#[derive(Debug)]
pub(super) struct Fault {
    path: String,
    must: Cow<'static, str>,
}

impl Fault {
    /// Of the field with this path; below the top level it begins with a dot or a bracket. The sentence goes on after the
    /// field's name.
    pub(super) fn at(path: impl Into<String>, must: impl Into<Cow<'static, str>>) -> Self {
        Self { path: path.into(), must: must.into() }
    }

    /// The same, lying in `outer`.
    pub(super) fn within(mut self, outer: &str) -> Self {
        self.path.insert_str(0, outer);
        self
    }

    /// The same, lying in this item of a list.
    pub(super) fn within_item(self, at: usize) -> Self {
        self.within(&format!("[{at}]"))
    }
}

impl From<Fault> for InvalidRequest {
    fn from(Fault { path, must }: Fault) -> Self {
        let message = format!("`{path}` {must}");
        Self::at(path, message)
    }
}
