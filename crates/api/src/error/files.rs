//! Holds: what a client is told when a file cannot be written or deleted.

use std::time::Duration;

use batchin_domain::Amount;
use batchin_files::{DeleteError, WriteFileError};
use batchin_openai::Code;

use super::ApiError;

/// What a client waits for an operator to make room; nothing is gained by asking more often.
const DISK_PAUSE: Duration = Duration::from_secs(60);

impl From<WriteFileError> for ApiError {
    fn from(cause: WriteFileError) -> Self {
        match cause {
            WriteFileError::TooLarge { limit } => Self::file_too_large(limit),
            WriteFileError::Busy => Self::unavailable("Too many uploads at once; try again in a moment."),
            WriteFileError::OverShare => {
                let message = "This account has as many uploads under way as the server gives to one account now; \
                               wait for some of them to end.";
                Self::over_share(message)
            }
            WriteFileError::NoRoom { bytes, files, without_credit } => {
                let (whose, advice) = match without_credit {
                    true => ("An account without credit", "add credit, or delete files"),
                    false => ("This account", "delete files, or let them expire sooner"),
                };
                let message = format!("{whose} keeps at most {files} files with {bytes} bytes together; {advice}.");
                match without_credit {
                    true => Self::new(Code::PaymentRequired, message).at("file").permanent().unpaid(Amount::ZERO),
                    false => Self::new(Code::PayloadTooLarge, message).at("file").permanent(),
                }
            }
            WriteFileError::NoDisk => {
                let message = "The server's disk is nearly full and takes no files and batches now; try again later. \
                               Other calls are not affected.";
                Self::new(Code::InsufficientStorage, message).retry_after(DISK_PAUSE)
            }
            WriteFileError::Interrupted => Self::internal(),
            WriteFileError::TooLate => Self::new(Code::RequestTimeout, "The file did not arrive in time."),
            WriteFileError::Blob(cause) => Self::blob(&cause),
            WriteFileError::Line(cause) | WriteFileError::Spool(cause) => Self::blob(&cause),
            WriteFileError::Store(cause) => cause.into(),
        }
    }
}

impl From<DeleteError> for ApiError {
    fn from(cause: DeleteError) -> Self {
        match cause {
            DeleteError::NotFound => Self::not_found("file"),
            DeleteError::InUse => {
                let message = "A batch that has not ended reads this file; cancel the batch first.";
                Self::new(Code::Conflict, message).permanent()
            }
            DeleteError::Store(cause) => cause.into(),
        }
    }
}
