//! Holds: what makes bytes of samples in this process, and how it fails.

use std::io;

/// Why sound could not be encoded after it had begun.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The program said that it failed, or ended before its input did.
    #[error("{program} failed ({status}): {said}")]
    ProgramFailed {
        /// Its name.
        program: &'static str,
        /// Its exit status, in words.
        status: String,
        /// The end of what it wrote to its standard error.
        said: String,
    },
    /// The program neither wrote nor ended after its input had.
    #[error("{program} did not finish within {seconds} s after its input had ended")]
    ProgramStuck {
        /// Its name.
        program: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Its pipes could not be read or written.
    #[error("could not talk with {program}")]
    Pipe {
        /// Its name.
        program: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A library refused samples.
    #[error("the {encoder} encoder failed: {said}")]
    Library {
        /// Which one.
        encoder: &'static str,
        /// What it said.
        said: String,
    },
}

/// Makes bytes of samples.
pub(crate) trait Codec: Send {
    /// Appends what can be said by now. The samples are whole moments.
    fn push(&mut self, samples: &[i16], out: &mut Vec<u8>) -> Result<(), EncodeError>;

    /// Appends the end. Nothing is pushed after it.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError>;
}
