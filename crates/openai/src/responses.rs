//! Holds: OpenAI's Responses protocol, answered by servers that have chats alone, and by those that have it themselves.
//!
//! Nothing is stored: each request brings its whole conversation. Tools that a server would have to run are refused, as is
//! whatever cannot be asked as a chat. An answer is told as OpenAI tells it, whole or event by event.

mod body;
mod called;
mod content;
mod echo;
mod events;
mod fault;
mod input;
mod item;
mod json;
mod lived;
mod logprobs;
mod native;
mod native_stream;
mod reading;
mod response;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod told;
mod tools;

use std::sync::Arc;

use body::Body;
use echo::Echo;
use json::Object;
use settings::Settings;
use told::Told;

pub use native::ask_natively;

use crate::{AskedAs, InvalidRequest};

/// What a chat takes beside what its request says.
const CHAT_BYTES: usize = 512;

/// Asks a request (`POST /v1/responses`) as a chat.
///
/// `null` counts as absent. Members that are not known go into the chat as they are; the chat is to be checked like any
/// other, and what is told of it under the names that [`Retelling::member`](crate::Retelling::member) gives.
pub fn ask_as_chat(body: &[u8]) -> Result<AskedAs, InvalidRequest> {
    let read = Body::read(body)?;
    read.check()?;
    let settings = Settings::read(&read)?;
    let offered = tools::offered(read.tools, read.tool_choice)?;
    let mut messages = input::messages(read.instructions, read.input)?;
    let mut chat = Object::with_capacity(body.len() + CHAT_BYTES);
    if let Some(model) = read.model {
        chat.set("model", model.get());
    }
    chat.member("messages").append(&mut messages);
    offered.write(&mut chat);
    settings.write(&read, !offered.is_empty(), &mut chat);
    for (name, value) in &read.others {
        chat.set(name, value.get());
    }
    let echo = Echo::new(&read, &settings, offered.called());
    Ok(AskedAs { body: chat.finish().into(), retelling: Box::new(Told(Arc::new(echo))) })
}
