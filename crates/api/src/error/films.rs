//! Holds: what a client is told when a film is not begun.

use std::time::Duration;

use batchin_batch::CreateFilmError;
use batchin_openai::Code;

use super::ApiError;

/// Before another film is asked for when too many are: they take minutes.
const OPEN_FILMS_PAUSE: Duration = Duration::from_secs(30);

impl From<CreateFilmError> for ApiError {
    fn from(cause: CreateFilmError) -> Self {
        match cause {
            CreateFilmError::TooLong { most } => {
                let message = format!("A film may last at most {most} seconds here.");
                Self::invalid("duration_seconds", message)
            }
            CreateFilmError::Size { asked, model, sizes } => {
                let listed: Vec<String> = sizes.iter().map(ToString::to_string).collect();
                let message = format!(
                    "`size` {asked} is none that the model {model} makes: give {}, or sides in steps of 16 pixels with no \
                     more pixels than the largest of these.",
                    listed.join(", ")
                );
                Self::invalid("size", message)
            }
            CreateFilmError::TooManyOpen { most } => {
                let message = format!(
                    "{most} films of this account are being made, and no more may be; wait for some, or cancel some."
                );
                Self::new(Code::RateLimitExceeded, message).retry_after(OPEN_FILMS_PAUSE)
            }
            CreateFilmError::Refused(cause) => cause.into(),
            CreateFilmError::NoRoom(cause) => cause.into(),
            CreateFilmError::Store(cause) => cause.into(),
        }
    }
}
