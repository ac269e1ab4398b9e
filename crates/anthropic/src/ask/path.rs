//! Holds: where something stands in a request, as messages about it say.

use std::fmt;

use batchin_openai::InvalidRequest;
use serde_json::value::RawValue;

use super::members::{Members, inner};

/// A place, as in `messages[2].content[0].type`. It is written out only when something is at fault there.
#[derive(Clone, Copy)]
pub(super) struct Path<'p> {
    above: Option<&'p Path<'p>>,
    step: Step,
}

#[derive(Clone, Copy)]
enum Step {
    Member(&'static str),
    Item(usize),
}

impl<'p> Path<'p> {
    /// A member of the body.
    pub(super) const fn of(name: &'static str) -> Self {
        Self { above: None, step: Step::Member(name) }
    }

    /// A member of the object at this place.
    pub(super) const fn member(&'p self, name: &'static str) -> Self {
        Self { above: Some(self), step: Step::Member(name) }
    }

    /// An item of the list at this place.
    pub(super) const fn item(&'p self, index: usize) -> Self {
        Self { above: Some(self), step: Step::Item(index) }
    }

    /// What is at this place is at fault; `must` goes on after its name.
    pub(super) fn fault(&self, must: &str) -> InvalidRequest {
        InvalidRequest::at(self.to_string(), format!("`{self}` {must}"))
    }

    /// The text that a member of the object at this place must be.
    pub(super) fn text<'a>(&self, object: &Members<'a>, name: &'static str) -> Result<&'a str, InvalidRequest> {
        let text = object.get(name).and_then(inner);
        text.ok_or_else(|| self.member(name).fault("is required and must be a string"))
    }

    /// The text that a member of the object at this place may be.
    pub(super) fn text_if_any<'a>(
        &self,
        object: &Members<'a>,
        name: &'static str,
    ) -> Result<Option<&'a str>, InvalidRequest> {
        let Some(value) = object.get(name) else { return Ok(None) };
        inner(value).map(Some).ok_or_else(|| self.member(name).fault("must be a string"))
    }

    /// Whether a member of the object at this place is true.
    pub(super) fn flag(&self, object: &Members<'_>, name: &'static str) -> Result<bool, InvalidRequest> {
        match object.get(name).map(RawValue::get) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(self.member(name).fault("must be true or false")),
        }
    }

    /// The object at this place.
    pub(super) fn object<'a>(&self, json: &'a RawValue) -> Result<Members<'a>, InvalidRequest> {
        Members::of(json).ok_or_else(|| self.fault("must be an object"))
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.above, self.step) {
            (None, Step::Member(name)) => f.write_str(name),
            (Some(above), Step::Member(name)) => write!(f, "{above}.{name}"),
            (None, Step::Item(index)) => write!(f, "[{index}]"),
            (Some(above), Step::Item(index)) => write!(f, "{above}[{index}]"),
        }
    }
}
