//! Holds: how an answer is to be given: its length, form, randomness, reasoning, and what is told beside it.

use std::ops::ControlFlow;

use serde_json::value::RawValue;

use super::{
    body::Body,
    fault::Fault,
    json::Object,
    reading::{flag, is_text, members_of, needed_text, text, try_each},
};
use crate::{members::each_member, peek::whole_number};

/// OpenAI's limit.
const MAX_TOP_LOGPROBS: u32 = 20;

/// Settings that are asked in another form than they are sent.
#[derive(Debug, Default)]
pub(super) struct Settings<'a> {
    pub(super) stream: bool,
    /// Log probabilities are told.
    pub(super) logprobs: bool,
    pub(super) effort: Option<&'a RawValue>,
    pub(super) summary: Option<&'a RawValue>,
    /// Of the text, where it is one that chats have to be told.
    format: Option<Format<'a>>,
    pub(super) text_format: Option<&'a RawValue>,
    pub(super) verbosity: Option<&'a RawValue>,
}

#[derive(Debug)]
enum Format<'a> {
    Object,
    Schema { name: &'a RawValue, schema: &'a RawValue, description: Option<&'a RawValue>, strict: Option<&'a RawValue> },
}

impl<'a> Settings<'a> {
    /// Reads them, and checks the members that only the answer repeats.
    pub(super) fn read(body: &Body<'a>) -> Result<Self, Fault> {
        let mut settings = Self { stream: flag("stream", body.stream)?.unwrap_or(false), ..Self::default() };
        settings.read_text(body)?;
        settings.read_reasoning(body)?;
        settings.read_logprobs(body)?;
        flag("parallel_tool_calls", body.parallel_tool_calls)?;
        let texts = [
            ("user", body.user),
            ("safety_identifier", body.safety_identifier),
            ("prompt_cache_key", body.prompt_cache_key),
            ("service_tier", body.service_tier),
        ];
        for (name, value) in texts {
            text(name, value)?;
        }
        if body.top_p.is_some_and(|number| number.get().parse::<f64>().is_err()) {
            return Err(Fault::at("top_p", "must be a number from 0 to 1"));
        }
        if body.max_tool_calls.is_some_and(|number| whole_number(number.get()).is_none()) {
            return Err(Fault::at("max_tool_calls", "must be a whole number"));
        }
        if !matches!(body.truncation.map(RawValue::get), None | Some(r#""auto""# | r#""disabled""#)) {
            return Err(Fault::at("truncation", "must be \"auto\" or \"disabled\""));
        }
        body.metadata.map_or(Ok(()), check_metadata)?;
        Ok(settings)
    }

    fn read_text(&mut self, body: &Body<'a>) -> Result<(), Fault> {
        let Some(value) = body.text else { return Ok(()) };
        let Some([format, verbosity]) = members_of(value.get(), ["format", "verbosity"]) else {
            return Err(Fault::at("text", "must be an object"));
        };
        self.verbosity = text("text.verbosity", verbosity)?;
        self.text_format = format;
        self.format = match format {
            Some(format) => read_format(format).map_err(|fault| fault.within("text.format"))?,
            None => None,
        };
        Ok(())
    }

    fn read_reasoning(&mut self, body: &Body<'a>) -> Result<(), Fault> {
        let Some(value) = body.reasoning else { return Ok(()) };
        let Some([effort, summary]) = members_of(value.get(), ["effort", "summary"]) else {
            return Err(Fault::at("reasoning", "must be an object"));
        };
        self.effort = text("reasoning.effort", effort)?;
        self.summary = text("reasoning.summary", summary)?;
        Ok(())
    }

    fn read_logprobs(&mut self, body: &Body<'a>) -> Result<(), Fault> {
        if let Some(top) = body.top_logprobs {
            match whole_number(top.get()) {
                Some(count @ 0..=MAX_TOP_LOGPROBS) => self.logprobs = count > 0,
                _ => {
                    let must = format!("must be a whole number from 0 to {MAX_TOP_LOGPROBS}");
                    return Err(Fault::at("top_logprobs", must));
                }
            }
        }
        let Some(include) = body.include else { return Ok(()) };
        try_each(include, "must be an array of strings", |_, name| {
            if !is_text(name) {
                return Err(Fault::at("", "must be a string"));
            }
            self.logprobs |= name.get() == r#""message.output_text.logprobs""#;
            Ok(())
        })
        .map_err(|fault| fault.within("include"))
    }

    /// Adds to a chat what it is told.
    pub(super) fn write(&self, body: &Body<'_>, has_tools: bool, chat: &mut Object) {
        let under_their_names = [
            ("temperature", body.temperature),
            ("top_p", body.top_p),
            ("user", body.user),
            ("safety_identifier", body.safety_identifier),
            ("prompt_cache_key", body.prompt_cache_key),
            ("service_tier", body.service_tier),
            // Servers refuse it where there is nothing to call.
            ("parallel_tool_calls", body.parallel_tool_calls.filter(|_| has_tools)),
            ("top_logprobs", body.top_logprobs.filter(|_| self.logprobs)),
            ("max_completion_tokens", body.max_output_tokens),
            ("reasoning_effort", self.effort),
            ("verbosity", self.verbosity),
        ];
        for (name, value) in under_their_names {
            if let Some(value) = value {
                chat.set(name, value.get());
            }
        }
        if self.logprobs {
            chat.set("logprobs", "true");
        }
        if self.stream {
            chat.set("stream", "true");
            chat.set("stream_options", r#"{"include_usage":true}"#);
        }
        match &self.format {
            None => {}
            Some(Format::Object) => chat.set("response_format", r#"{"type":"json_object"}"#),
            Some(Format::Schema { name, schema, description, strict }) => {
                let mut format = Object::with_capacity(schema.get().len() + 64);
                format.set("name", name.get());
                for (name, value) in [("description", description), ("strict", strict)] {
                    if let Some(value) = value {
                        format.set(name, value.get());
                    }
                }
                format.set("schema", schema.get());
                let mut whole = Object::with_capacity(schema.get().len() + 128);
                whole.set("type", "\"json_schema\"");
                whole.member("json_schema").append(&mut format.finish());
                chat.member("response_format").append(&mut whole.finish());
            }
        }
    }
}

fn read_format(format: &RawValue) -> Result<Option<Format<'_>>, Fault> {
    let names = ["type", "name", "schema", "description", "strict"];
    let Some([kind, name, schema, description, strict]) = members_of(format.get(), names) else {
        return Err(Fault::at("", "must be an object with a `type`"));
    };
    match kind.map(RawValue::get) {
        Some(r#""text""#) => Ok(None),
        Some(r#""json_object""#) => Ok(Some(Format::Object)),
        Some(r#""json_schema""#) => {
            let schema = schema.filter(|schema| schema.get().starts_with('{'));
            let schema = schema.ok_or_else(|| Fault::at(".schema", "is required: give it as a JSON schema"))?;
            let (name, description) = (needed_text(".name", name)?, text(".description", description)?);
            flag(".strict", strict)?;
            Ok(Some(Format::Schema { name, schema, description, strict }))
        }
        _ => Err(Fault::at(".type", "must be \"text\", \"json_schema\" or \"json_object\"")),
    }
}

fn check_metadata(metadata: &RawValue) -> Result<(), Fault> {
    let mut are_texts = true;
    let listed = each_member(metadata.get(), |_, value| {
        are_texts &= is_text(value);
        ControlFlow::Continue(())
    });
    if listed.is_err() || !are_texts {
        return Err(Fault::at("metadata", "must be an object whose values are strings"));
    }
    Ok(())
}
