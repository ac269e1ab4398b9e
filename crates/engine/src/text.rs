//! Holds: turning messages into prompts and token bytes into text that may be shown. Pure.

pub(crate) mod chat_template;
pub(crate) mod stop;
pub(crate) mod tool_calls;
pub(crate) mod utf8;
