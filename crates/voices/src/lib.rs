//! Holds: text into sound: Piper voices, and the program espeak-ng. No HTTP, no engine.
//!
//! A [`Voice`] says a text as sound, a piece at a time: [`Voice::say`] gives an iterator, and whoever drops it stops the
//! work. Everything here blocks. espeak-ng is a program that is found when it is needed and never linked: it says how
//! words are pronounced for Piper's voices, and is a voice of its own in about a hundred languages.

mod child;
mod chunk;
mod ids;
mod piper;
mod program;
mod stretch;
mod text;
mod voice;
mod wav;

pub use child::RunError;
pub use chunk::Chunk;
pub use piper::LoadError;
pub use program::{ESPEAK_NG, Espeak, ProgramError};
pub use text::MAX_CHARS;
pub use voice::{Ask, AskError, MAX_SPEED, MIN_SPEED, Speech, SpeechError, Voice};
pub use wav::{STREAMED_HEADER_BYTES, streamed_header};
