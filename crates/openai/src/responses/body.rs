//! Holds: the members of a request as they lie in its body.
//!
//! What is read here may stand there only once, and in small letters, as in a chat. What is not read goes on as it is.

use std::{borrow::Cow, ops::ControlFlow};

use serde_json::value::RawValue;

use super::fault::Fault;
use crate::{
    InvalidRequest,
    members::{InvalidJson, each_member, too_deep},
    steering::folds_to,
};

macro_rules! members {
    ($($name:ident)+) => {
        /// The names that are read.
        const READ: &[&str] = &[$(stringify!($name)),+];

        /// A request's members; `null` counts as absent.
        #[derive(Default)]
        pub(super) struct Body<'a> {
            $(pub(super) $name: Option<&'a RawValue>,)+
            /// Those that are not read.
            pub(super) others: Vec<(Cow<'a, str>, &'a RawValue)>,
        }

        impl<'a> Body<'a> {
            fn place(&mut self, key: &str) -> Option<&mut Option<&'a RawValue>> {
                match key {
                    $(stringify!($name) => Some(&mut self.$name),)+
                    _ => None,
                }
            }

            fn without_nulls(mut self) -> Self {
                $(self.$name = self.$name.filter(|value| value.get() != "null");)+
                self
            }
        }
    };
}

members! {
    model input instructions tools tool_choice parallel_tool_calls text reasoning max_output_tokens temperature top_p
    top_logprobs include stream stream_options truncation max_tool_calls metadata prompt_cache_retention
    prompt_cache_options client_metadata user safety_identifier prompt_cache_key service_tier previous_response_id
    conversation store background prompt moderation context_management messages max_tokens max_completion_tokens
    response_format reasoning_effort verbosity logprobs functions function_call n
}

impl<'a> Body<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Self, InvalidRequest> {
        let text = std::str::from_utf8(body).map_err(|error| InvalidJson::Utf8 { at: error.valid_up_to() })?;
        let mut read = Self::default();
        let mut fault = None;
        each_member(text, |key, value| match read.take(key, value) {
            Ok(()) => ControlFlow::Continue(()),
            Err(found) => {
                fault = Some(found);
                ControlFlow::Break(())
            }
        })?;
        if let Some(fault) = fault {
            return Err(fault.into());
        }
        if too_deep(text) {
            return Err(InvalidJson::TooDeep.into());
        }
        Ok(read.without_nulls())
    }

    fn take(&mut self, key: Cow<'a, str>, value: &'a RawValue) -> Result<(), Fault> {
        if let Some(place) = self.place(&key) {
            if place.replace(value).is_some() {
                return Err(Fault::at(key, "stands in the body more than once; send it once"));
            }
            return Ok(());
        }
        if let Some(known) = folds_to(&key, READ) {
            let must = format!("differs from `{known}` by case alone; send that");
            return Err(Fault::at(key, must));
        }
        self.others.push((key, value));
        Ok(())
    }

    /// Refuses what a server that stores nothing cannot do, and members of chats that are called otherwise here.
    pub(super) fn check(&self) -> Result<(), Fault> {
        const STORED: &str = "is not supported: nothing is stored here; send the whole conversation as `input`";
        let stored = [("previous_response_id", self.previous_response_id), ("conversation", self.conversation)];
        if let Some((name, _)) = stored.into_iter().find(|(_, value)| value.is_some()) {
            return Err(Fault::at(name, STORED));
        }
        let refused = [
            ("prompt", self.prompt, "is not supported: no templates are stored here; send the text as `input`"),
            ("moderation", self.moderation, "is not supported: nothing is moderated here; leave it out"),
            (
                "context_management",
                self.context_management,
                "is not supported: nothing is compacted here; leave it out",
            ),
        ];
        if let Some((name, _, must)) = refused.into_iter().find(|(_, value, _)| value.is_some()) {
            return Err(Fault::at(name, must));
        }
        let switches = [
            (
                "store",
                self.store,
                "must be false or left out: nothing is stored here; send the whole conversation as `input`",
            ),
            ("background", self.background, "must be false or left out: answers are given at once"),
        ];
        let is_on = |value: Option<&RawValue>| value.is_some_and(|value| value.get() != "false");
        if let Some((name, _, must)) = switches.into_iter().find(|(_, value, _)| is_on(*value)) {
            return Err(Fault::at(name, must));
        }
        self.check_chat_members()
    }

    fn check_chat_members(&self) -> Result<(), Fault> {
        let renamed = [
            ("messages", self.messages, "input"),
            ("max_tokens", self.max_tokens, "max_output_tokens"),
            ("max_completion_tokens", self.max_completion_tokens, "max_output_tokens"),
            ("response_format", self.response_format, "text.format"),
            ("reasoning_effort", self.reasoning_effort, "reasoning.effort"),
            ("verbosity", self.verbosity, "text.verbosity"),
            ("logprobs", self.logprobs, "top_logprobs"),
            ("functions", self.functions, "tools"),
            ("function_call", self.function_call, "tool_choice"),
        ];
        if let Some((name, _, here)) = renamed.into_iter().find(|(_, value, _)| value.is_some()) {
            return Err(Fault::at(name, format!("is a member of chats; send it as `{here}`")));
        }
        if self.n.is_some_and(|n| n.get() != "1") {
            return Err(Fault::at("n", "must be left out: a response has one answer"));
        }
        Ok(())
    }
}
