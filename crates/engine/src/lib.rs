//! Holds: the embedded engine: a process that serves GGUF models and voices on a Unix socket in OpenAI's protocol.
//!
//! [`run`] is that process; [`Supervisor`] is its parent's end. Nothing here knows accounts, prices or the store: to
//! the rest of the system the engine is one more model server. Without the feature `llama` only the parent's end is
//! built, and no C++ is compiled.

mod options;
mod supervise;

#[cfg(feature = "llama")]
mod embed;
#[cfg(feature = "llama")]
mod generate;
#[cfg(feature = "llama")]
mod http;
#[cfg(feature = "llama")]
mod instruction_sets;
#[cfg(kernels)]
mod kernels;
#[cfg(feature = "llama")]
mod metrics;
#[cfg(feature = "llama")]
mod native;
#[cfg(feature = "llama")]
mod process;
#[cfg(feature = "llama")]
mod speech;
#[cfg(feature = "llama")]
mod text;

pub use options::{
    DEFAULT_CONTEXT_TOKENS, DEFAULT_LOG_FILTER, DEFAULT_SLOTS, DEFAULT_SPEECH_LIMIT, DEFAULT_WAITING_LIMIT,
    EngineOptions, ModelKind, ModelOptions, ModelOptionsError,
};
pub use supervise::{EngineState, Supervisor, SupervisorOptions};

#[cfg(feature = "llama")]
pub use native::{QuantizeError, quantize_q8_0};
#[cfg(feature = "llama")]
pub use process::{EngineError, run, run_until};
