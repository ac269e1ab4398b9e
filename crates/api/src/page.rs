//! Holds: the parts of lists.

use batchin_store::Page;

use crate::{error::ApiError, query::Parameters};

/// Rows of a list when the client does not say.
const DEFAULT_LIMIT: u32 = 50;
/// Most rows of one answer.
const MAX_LIMIT: u32 = 500;
/// Deeper pages cost the database more than anybody reads; filters lead there.
const MAX_OFFSET: u32 = 1_000_000;

/// `limit` and `offset`.
pub(crate) fn page(parameters: &Parameters<'_>) -> Result<Page, ApiError> {
    Ok(Page {
        limit: parameters.count("limit", 1..=MAX_LIMIT, DEFAULT_LIMIT)?,
        offset: parameters.count("offset", 0..=MAX_OFFSET, 0)?,
    })
}
