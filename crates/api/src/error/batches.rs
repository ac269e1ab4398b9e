//! Holds: what a client is told when a batch cannot be made or stopped.

use std::time::Duration;

use batchin_batch::{LineFault, SubmitError};
use batchin_openai::Code;
use batchin_store::CancelError;

use super::{ApiError, sentence};

/// Faults of a batch that one message lists; the rest are counted.
const MAX_LISTED_FAULTS: usize = 10;
/// Before another batch is tried when too many are open: batches end in minutes.
const OPEN_BATCHES_PAUSE: Duration = Duration::from_secs(30);

impl From<SubmitError> for ApiError {
    fn from(cause: SubmitError) -> Self {
        match cause {
            SubmitError::Invalid(faults) => {
                let listed: Vec<String> = faults
                    .iter()
                    .take(MAX_LISTED_FAULTS)
                    .map(|fault| match fault.param.as_str() {
                        "" => fault.message.trim_end_matches('.').to_owned(),
                        param => format!("{param}: {}", fault.message.trim_end_matches('.')),
                    })
                    .collect();
                let more = faults.len().saturating_sub(listed.len());
                let tail = if more > 0 { format!("; and {more} more") } else { String::new() };
                let error = Self::new(Code::InvalidRequest, format!("{}{tail}.", listed.join("; ")));
                match faults.into_iter().next() {
                    Some(first) if !first.param.is_empty() => error.at(first.param),
                    Some(_) | None => error,
                }
            }
            SubmitError::BadLines(faults) => bad_lines(faults),
            SubmitError::NoFile => Self::not_found("input file").at("input_file_id"),
            SubmitError::TooManyOpen { open, most, unpaid } => {
                let credit = if unpaid { ", or add credit: more are allowed with some" } else { "" };
                let message = format!(
                    "{open} batches of this account have not ended and at most {most} may be open; wait for some to end, \
                     cancel some{credit}."
                );
                Self::new(Code::RateLimitExceeded, message).retry_after(OPEN_BATCHES_PAUSE)
            }
            SubmitError::File(cause) => cause.into(),
            SubmitError::Blob(cause) => Self::blob(&cause),
            SubmitError::Stopped => Self::unavailable("The batch was not read to its end; send it again."),
            SubmitError::Store(cause) => cause.into(),
        }
    }
}

impl From<CancelError> for ApiError {
    fn from(cause: CancelError) -> Self {
        match cause {
            CancelError::NotFound => Self::not_found("batch"),
            CancelError::Store(cause) => cause.into(),
        }
    }
}

/// The first fault of a batch's file, and how many more there are.
fn bad_lines(faults: Vec<LineFault>) -> ApiError {
    let more = match faults.len().saturating_sub(1) {
        0 => String::new(),
        1 => "; and 1 more fault".to_owned(),
        more => format!("; and {more} more faults"),
    };
    // Whoever reports faults has at least one.
    let Some(first) = faults.into_iter().next() else { return ApiError::internal() };
    let what = first.message.trim_end_matches('.');
    let message = match (first.line, &first.param) {
        (Some(line), Some(param)) => format!("Line {line}, {param}: {what}{more}."),
        (Some(line), None) => format!("Line {line}: {what}{more}."),
        (None, _) => sentence(format!("{what}{more}.")),
    };
    let error = ApiError::new(Code::InvalidRequest, message);
    match first.param {
        Some(param) => error.at(param),
        None => error,
    }
}
