//! Holds: talking to model servers.
//!
//! Where a server is and how it differs from others, one call to it, the stream that comes back, and whether it is
//! worth asking. It never decides who runs next, never charges, and never shows a server's address: what leaves this
//! crate names an upstream by its configured name alone.

mod absent;
mod assembly;
mod breaker;
mod call;
mod config;
mod decoding;
mod dialect;
mod events;
mod fleet;
mod gathered;
mod health;
mod learnt;
mod meters;
mod mixed;
mod refusal;
mod replica;
mod transport;

pub use assembly::{Assembly, Progress};
pub use batchin_openai::LimitName;
pub use breaker::{Asker, Breaker, Outcome, Phase, Shut, Ticket, Trouble, Whose};
pub use call::{Answer, Call, CallError, CallErrorKind, MAX_ANSWER_BYTES, Retry};
pub use config::{Address, ConfigError, UpstreamConfig};
pub use decoding::{Coding, UnknownCoding};
pub use dialect::{Kind, UnknownKind};
pub use events::{Event, EventKind, Events, StreamError};
pub use fleet::{Fleet, FleetError};
pub use gathered::Gathered;
pub use health::{HEALTH_INTERVAL, Health};
pub use replica::{BreakerState, Check, Replica, ReplicaStatus, Standing};
