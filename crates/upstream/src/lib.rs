//! Holds: talking to model servers.
//!
//! Where a server is and how it differs from others, one call to it, the stream that comes back, and whether it is
//! worth asking. It never decides who runs next, never charges, and never shows a server's address: what leaves this
//! crate names an upstream by its configured name alone.

mod absent;
mod adapters;
mod assembly;
mod body;
mod breaker;
mod call;
mod comfyui;
mod config;
mod decoding;
mod events;
mod failure;
mod film;
mod fleet;
mod form;
mod gathered;
mod health;
mod inlaid;
mod learnt;
mod lease;
mod meters;
mod middle;
mod mixed;
mod record;
mod refusal;
mod replica;
mod sound;
mod transport;
mod upload;
mod workflow;

pub use adapters::{Adapter, Kind};
pub use assembly::{Assembly, Progress};
pub use batchin_openai::{Fim, LimitName};
pub use breaker::{Asker, Breaker, BreakerState, Outcome, Phase, Shut, Ticket, Trouble, Whose};
pub use call::{Call, MAX_ANSWER_BYTES, Speech, Voice};
pub use config::{Address, ConfigError, FleetError, MAX_NAME_BYTES, UpstreamConfig, is_name};
pub use decoding::{Coding, UnknownCoding};
pub use events::{Event, EventKind, Events};
pub use failure::{CallError, CallErrorKind, Retry, StreamError};
pub use film::{FilmAsk, FilmState};
pub use fleet::Fleet;
pub use gathered::Gathered;
pub use health::{HEALTH_INTERVAL, Health};
pub use refusal::is_about_server;
pub use replica::{Answer, Check, FilmBytes, Replica, ReplicaStatus, Standing};
pub use sound::{Carried, MAX_SOUND_BYTES, Sound};
pub use upload::{Content, Upload, UploadReader};
pub use workflow::{MAX_WORKFLOW_BYTES, Mark, Workflow, WorkflowError};
