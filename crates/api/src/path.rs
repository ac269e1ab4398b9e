//! Holds: ids in paths. What is no id names nothing.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use batchin_domain::BatchId;
use http::request::Parts;
use uuid::Uuid;

use crate::{app::App, error::ApiError};

/// What OpenAI's ids of batches begin with.
pub(crate) const BATCH: &str = "batch_";
/// Of a UUID without hyphens.
const HEX_DIGITS: usize = 32;

/// The one text in the path.
pub(crate) struct PathText(String);

impl PathText {
    /// As it stands.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As an id of a `what`.
    pub(crate) fn id<I: FromStr>(&self, what: &'static str) -> Result<I, ApiError> {
        self.0.parse().map_err(|_| ApiError::not_found(what))
    }

    /// As the id of a batch, in either flavour's form.
    pub(crate) fn batch(&self) -> Result<BatchId, ApiError> {
        batch_id(&self.0).ok_or_else(|| ApiError::not_found("batch"))
    }
}

/// A batch made either way is the same batch: OpenAI's `batch_` with 32 hex digits, or the UUID that we show.
pub(crate) fn batch_id(text: &str) -> Option<BatchId> {
    let uuid = match text.strip_prefix(BATCH) {
        Some(digits) if digits.len() == HEX_DIGITS => Uuid::try_parse(digits),
        Some(_) => return None,
        None => Uuid::try_parse(text),
    };
    uuid.ok().map(BatchId::new)
}

/// A batch's id in OpenAI's form.
pub(crate) fn batch_name(id: BatchId) -> String {
    format!("{BATCH}{}", id.uuid().simple())
}

impl FromRequestParts<App> for PathText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, app).await;
        path.map(|Path(text)| Self(text)).map_err(|_| ApiError::not_found("object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_answers_to_both_its_names() {
        let id = BatchId::new(Uuid::from_u128(0x0197_f3a0_0000_7000_8000_0000_0000_00ab));
        assert_eq!(batch_name(id), "batch_0197f3a00000700080000000000000ab");
        assert_eq!(batch_id(&batch_name(id)), Some(id));
        assert_eq!(batch_id(&id.to_string()), Some(id));
        for wrong in [
            "",
            "batch_",
            "batch_x",
            "batch_0197f3a0-0000-7000-8000-0000000000ab",
            "file-0197f3a00000700080000000000000ab",
        ] {
            assert_eq!(batch_id(wrong), None, "{wrong}");
        }
    }
}
