//! Holds: which tool call of a choice each part in a stream belongs to.
//!
//! One rule for streams that pass through and for answers that are put together: calls are numbered from 0 in the order
//! in which they begin, whatever their server numbers them.

use std::ops::ControlFlow;

use serde_json::value::RawValue;

use crate::{
    members::each_member,
    said::{argument_bytes, string_bytes},
    usage::count,
};

/// Most calls of one choice. OpenAI takes 128 tools; looking up a part's call takes time in proportion.
const MAX_CALLS: usize = 1_024;

/// The calls of one choice so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Vec<Known>);

#[derive(Clone, Debug)]
struct Known {
    index: Option<u64>,
    id: Option<Box<str>>,
    name: Option<Box<str>>,
    has_arguments: bool,
}

/// A part of a call as it lies in a chunk.
#[derive(Default)]
pub(crate) struct Part<'a> {
    /// Where its server's number stands.
    pub(crate) index_at: Option<&'a RawValue>,
    pub(crate) index: Option<u64>,
    /// A string that is not empty, in quotes; so is the name.
    pub(crate) id: Option<&'a RawValue>,
    pub(crate) name: Option<&'a RawValue>,
    argument_bytes: u64,
    /// It has a member of any name.
    pub(crate) is_filled: bool,
}

/// Where a part belongs.
pub(crate) struct Place {
    /// The number of its call.
    pub(crate) at: usize,
    /// The call begins with it.
    pub(crate) begins: bool,
    /// Its id was said before, and so was its name. Clients that join texts would double them.
    pub(crate) repeats_id: bool,
    pub(crate) repeats_name: bool,
    /// Bytes of text that it adds.
    pub(crate) text_bytes: u64,
}

impl<'a> Part<'a> {
    /// `None` when it is no object.
    pub(crate) fn read(json: &'a str) -> Option<Self> {
        let mut part = Self::default();
        each_member(json, |key, value| {
            part.is_filled = true;
            match key.as_ref() {
                "index" => (part.index_at, part.index) = (Some(value), count(value.get())),
                "id" => part.id = Some(value).filter(|id| is_said(id)),
                "function" | "custom" => part.read_body(value.get()),
                _ => {}
            }
            ControlFlow::Continue(())
        })
        .ok()?;
        Some(part)
    }

    fn read_body(&mut self, json: &'a str) {
        // What is no object has neither name nor arguments.
        let _listed = each_member(json, |key, value| {
            match key.as_ref() {
                "name" => self.name = Some(value).filter(|name| is_said(name)),
                "arguments" | "input" => self.argument_bytes = argument_bytes(value.get()),
                _ => {}
            }
            ControlFlow::Continue(())
        });
    }
}

fn is_said(value: &RawValue) -> bool {
    value.get().len() > 2 && value.get().starts_with('"')
}

impl Calls {
    /// Finds the call of the next part. `None` when there are more than [`MAX_CALLS`].
    pub(crate) fn place(&mut self, part: &Part<'_>) -> Option<Place> {
        let (id, name) = (part.id.map(RawValue::get), part.name.map(RawValue::get));
        let known = self.0.iter().rposition(|call| call.goes_on_with(part.index, id, name));
        let at = known.unwrap_or(self.0.len());
        if known.is_none() {
            if at == MAX_CALLS {
                return None;
            }
            self.0.push(Known { index: part.index, id: None, name: None, has_arguments: false });
        }
        let call = self.0.get_mut(at)?;
        let repeats_id = id.is_some() && call.id.is_some();
        let repeats_name = name.is_some() && call.name.as_deref() == name;
        if call.id.is_none() {
            call.id = id.map(Into::into);
        }
        if call.name.is_none() {
            call.name = name.map(Into::into);
        }
        call.has_arguments |= part.argument_bytes > 0;
        let name_bytes = if repeats_name { 0 } else { name.map_or(0, string_bytes) };
        let text_bytes = part.argument_bytes.saturating_add(name_bytes);
        Some(Place { at, begins: known.is_none(), repeats_id, repeats_name, text_bytes })
    }

    /// Bytes that are kept of a call that begins with this part.
    pub(crate) fn kept_bytes(part: &Part<'_>) -> usize {
        let text = |value: Option<&RawValue>| value.map_or(0, |value| value.get().len());
        size_of::<Known>() + text(part.id) + text(part.name)
    }
}

impl Known {
    /// Some servers number every call 0, or none, or repeat id and name in each part. A name comes whole, so another one
    /// after arguments is another call's.
    fn goes_on_with(&self, index: Option<u64>, id: Option<&str>, name: Option<&str>) -> bool {
        let known = self.id.as_deref();
        let same_id = id.is_none() || known.is_none() || known == id;
        let other_name = self.has_arguments && name.is_some() && self.name.as_deref() != name;
        same_id && (index.is_none() || index == self.index) && (!other_name || (id.is_some() && known == id))
    }
}
