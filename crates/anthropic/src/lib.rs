//! Holds: Anthropic's protocol, told in OpenAI's chats, or passed through.
//!
//! A request to its Messages API is asked as a chat, and the chat's answer is told as a message, whole or event by event; of
//! servers that have the protocol it is asked as it is. Beside that stand the protocol's errors and its list of models.
//! Pure: no IO, no clock, no async. A text goes on as it lies in the body, escapes and all: it is joined with others and
//! never decoded.

mod arguments;
mod ask;
mod ending;
mod error;
mod models;
mod native;
mod native_stream;
mod stream;
mod told;
mod whole;
mod wire;

pub use ask::ask_as_chat;
pub use error::error_body;
pub use models::{Lifecycle, ListedModel, ModelsPage, models_page};
pub use native::ask_natively;
