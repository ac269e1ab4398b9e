//! Holds: OpenAI's protocol, as clients speak it with model servers.
//!
//! Wire shapes, the error body, server-sent events, and edits of a body's bytes in place. Pure: no IO, no clock, no
//! async. It never builds a tree of a body: what is read is borrowed, what is changed is spliced, and everything
//! else stays byte for byte as it came.

mod alike;
mod answer;
mod assemble;
mod blank;
mod calls;
mod choice;
mod chunk;
mod cl100k;
mod closing;
mod code;
mod drawing;
mod embeddings;
mod ending;
mod error;
mod fim;
mod fim_calls;
mod heard;
mod infill;
mod meant;
mod members;
mod native;
mod parts;
mod passing;
mod peek;
mod picture;
mod ranking;
pub mod responses;
mod retold;
mod rewrite;
mod said;
mod scan;
mod speech;
pub mod sse;
mod steering;
mod thought;
mod tier;
mod transcript;
mod usage;
mod wanted;
mod whole;

pub use answer::{AnswerError, WholeAnswer, read_answer, read_wanted, rewrite_answer};
pub use assemble::{AssembleError, Assembler, NoAnswer};
pub use chunk::{ChunkError, ChunkFacts, FramedChunk, Relay};
pub use cl100k::tokens_as_texts;
pub use closing::{ChunkHead, with_tier, with_usage};
pub use code::Code;
pub use drawing::{PictureAsked, picture_asked};
pub use error::{ErrorBody, MAX_ERROR_TEXT_CHARS, UpstreamError, upstream_error_message};
pub use fim::{FAMILIES, Family, Fim, Members, filled, infill};
pub use fim_calls::{FIM_DEFAULT_MAX_TOKENS, fim_as_completion};
pub use heard::{Finish, Heard, HeardCall, HeardChoice, hear};
pub use infill::infill_as_completion;
pub use meant::meant_for;
pub use members::{InvalidJson, MAX_DEPTH, compact, each_member};
pub use native::{AskedNatively, Native, NativeEvents, named_frame, text_bytes};
pub use parts::{Part, Parts, join_vectors, parts_of_input};
pub use peek::{
    COMPLETIONS_DEFAULT_MAX_TOKENS, InputBound, InvalidRequest, MAX_CHOICES, MAX_INPUTS, MAX_PICTURE_PROMPT,
    MAX_PICTURES, MAX_SPEECH_CHARACTERS, Peek, Position, USUAL_EDIT_PIXELS, peek,
};
pub use picture::{GivenPicture, GivenPictures, ToldPicture, read_pictures, tell_pictures};
pub use ranking::{documents_as_texts, with_meta};
pub use retold::{AskedAs, Names, Retelling, Telling};
pub use rewrite::{Limit, LimitName, Rewrite, added_alone, rewrite, stated_limit};
pub use said::answer_bytes;
pub use speech::{SpeechAsked, sound_done_event, sound_event, speech_asked};
pub use steering::{STEERING, Steering};
pub use tier::Tier;
pub use transcript::{TranscriptFormat, transcript_as_chunk, transcript_asked};
pub use usage::{Usage, usage_of};
pub use wanted::{Encoding, PictureFormat, PictureTold, Pictures, Ranking, SoundFormat, Spoken, Vectors, Wanted};
