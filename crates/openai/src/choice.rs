//! Holds: a choice as it lies in a chunk, for whoever passes it on and for whoever puts it together.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{blank::is_reason, members::Key, usage::count};

/// What is kept of a choice's members beside those that have a name here.
pub(crate) trait Beside<'a>: Default {
    /// Takes in a member, in order.
    fn take(&mut self, key: Cow<'a, str>, value: &'a RawValue);
}

/// Nothing.
impl<'a> Beside<'a> for () {
    fn take(&mut self, _: Cow<'a, str>, _: &'a RawValue) {}
}

/// All of them.
impl<'a> Beside<'a> for Vec<(Cow<'a, str>, &'a RawValue)> {
    fn take(&mut self, key: Cow<'a, str>, value: &'a RawValue) {
        self.push((key, value));
    }
}

/// A choice of a chunk or of a whole answer. Of a member that stands in it twice, the last one.
#[derive(Default)]
pub(crate) struct RawChoice<'a, B> {
    pub(crate) index: u64,
    pub(crate) delta: Option<&'a RawValue>,
    /// In place of a delta: some servers send a whole answer as their only event.
    pub(crate) message: Option<&'a RawValue>,
    pub(crate) text: Option<&'a RawValue>,
    pub(crate) finish_reason: Option<&'a RawValue>,
    /// The value of its last member.
    pub(crate) last: Option<&'a RawValue>,
    pub(crate) beside: B,
}

impl<'a, B> RawChoice<'a, B> {
    /// Whether the choice ends with this chunk.
    pub(crate) fn ends(&self) -> bool {
        self.finish_reason.is_some_and(|reason| is_reason(reason.get()))
    }

    /// What it says: its delta, or else its message.
    pub(crate) fn said(&self) -> Option<&'a RawValue> {
        self.delta.or(self.message).filter(|said| said.get() != "null")
    }
}

impl<'a, B: Beside<'a>> Deserialize<'a> for RawChoice<'a, B> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<B>(PhantomData<B>);
        impl<'a, B: Beside<'a>> Visitor<'a> for Members<B> {
            type Value = RawChoice<'a, B>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a choice")
            }

            fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<RawChoice<'a, B>, M::Error> {
                let mut choice = RawChoice::<B>::default();
                while let Some(Key(key)) = map.next_key()? {
                    let value: &'a RawValue = map.next_value()?;
                    choice.last = Some(value);
                    match key.as_ref() {
                        "index" => choice.index = count(value.get()).unwrap_or(0),
                        "delta" => choice.delta = Some(value),
                        "message" => choice.message = Some(value),
                        "text" => choice.text = Some(value),
                        "finish_reason" => choice.finish_reason = Some(value),
                        _ => choice.beside.take(key, value),
                    }
                }
                Ok(choice)
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}
