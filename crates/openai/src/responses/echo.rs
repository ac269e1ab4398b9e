//! Holds: what a response repeats of its request.

use serde_json::value::RawValue;

use super::{body::Body, called::CalledNames, json::Object, settings::Settings};
use crate::members::compact;

/// What is kept of a request while it is answered.
#[derive(Debug)]
pub(super) struct Echo {
    /// Members of the response, without braces.
    pub(super) members: Vec<u8>,
    /// What the request calls its tools.
    pub(super) called: CalledNames,
    /// Log probabilities are told.
    pub(super) logprobs: bool,
}

impl Echo {
    pub(super) fn new(body: &Body<'_>, settings: &Settings<'_>, called: CalledNames) -> Self {
        let mut echo = Object::members();
        let repeated = [
            ("instructions", body.instructions, "null"),
            ("max_output_tokens", body.max_output_tokens, "null"),
            ("max_tool_calls", body.max_tool_calls, "null"),
            ("metadata", body.metadata, "{}"),
            ("parallel_tool_calls", body.parallel_tool_calls, "true"),
            ("temperature", body.temperature, "null"),
            ("tool_choice", body.tool_choice, "\"auto\""),
            ("tools", body.tools, "[]"),
            ("top_logprobs", body.top_logprobs, "0"),
            ("top_p", body.top_p, "null"),
            ("truncation", body.truncation, "\"disabled\""),
            ("user", body.user, "null"),
            ("safety_identifier", body.safety_identifier, "null"),
            ("prompt_cache_key", body.prompt_cache_key, "null"),
        ];
        for (name, value, absent) in repeated {
            echo.set(name, &compact(value.map_or(absent, RawValue::get)));
        }
        echo.set("background", "false");
        echo.set("previous_response_id", "null");
        echo.set("store", "false");
        let mut reasoning = Object::with_capacity(48);
        for (name, value) in [("effort", settings.effort), ("summary", settings.summary)] {
            reasoning.set(name, &compact(value.map_or("null", RawValue::get)));
        }
        echo.member("reasoning").append(&mut reasoning.finish());
        let mut text = Object::with_capacity(48);
        text.set("format", &compact(settings.text_format.map_or(r#"{"type":"text"}"#, RawValue::get)));
        if let Some(verbosity) = settings.verbosity {
            text.set("verbosity", &compact(verbosity.get()));
        }
        echo.member("text").append(&mut text.finish());
        Self { members: echo.into_members(), called, logprobs: settings.logprobs }
    }
}
