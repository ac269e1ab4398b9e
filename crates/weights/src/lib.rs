//! Holds: getting the weights of known models onto this machine, from whichever source has the right bytes.
//!
//! A model is its hash. A source that delivers other bytes is refused and what it delivered is deleted. Nothing
//! fetched is ever executed or installed, the environment is never read, and no native code is linked: the step
//! that needs the engine is a function the caller passes in.

mod bert;
mod catalogue;
mod digest;
mod disk;
mod gguf;
mod manifest;
mod options;
mod progress;
mod pull;
mod source;
mod workspace;

pub use bert::ConvertError;
pub use catalogue::{Artefact, Capability, Finish, Kind, KnownModel, Source, best, find, known, nearest};
pub use digest::{ParseSha256Error, Sha256};
pub use disk::DiskError;
pub use manifest::{Applied, FetchedFile, Manifest, VerifyError, forget, installed, path, verify};
pub use options::{Patience, PullOptions, Requantize};
pub use progress::{NoProgress, Progress, Stage};
pub use pull::{FinishError, PullError, pull};
pub use source::{PipError, SourceError, SourceFailure};
