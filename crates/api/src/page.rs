//! Holds: the parts of lists.

use std::str::FromStr;

use batchin_openai::Code;
use batchin_store::Page;

use crate::{
    error::ApiError,
    query::{Parameters, invalid},
};

/// Rows of a list when the client does not say.
const DEFAULT_LIMIT: u32 = 50;
/// Most rows of one answer.
const MAX_LIMIT: u32 = 500;
/// Deeper pages cost the database more than anybody reads; filters lead there.
const MAX_OFFSET: u32 = 1_000_000;

/// Where a list goes on: after the row with the id that `after` gives, which does not move when rows come in.
pub(crate) fn after<I: FromStr>(parameters: &Parameters<'_>) -> Result<Option<I>, ApiError> {
    let after = parameters.id("after")?;
    if after.is_some() && parameters.text("offset").is_some() {
        return Err(invalid("offset", "cannot be given together with `after`"));
    }
    Ok(after)
}

/// `after` names no row of this account's list.
pub(crate) fn no_row() -> ApiError {
    ApiError::new(Code::NotFound, "`after` names nothing in this list; give the `id` of the last row seen.").at("after")
}

/// `limit` and `offset`.
pub(crate) fn page(parameters: &Parameters<'_>) -> Result<Page, ApiError> {
    Ok(Page {
        limit: parameters.count("limit", 1..=MAX_LIMIT, DEFAULT_LIMIT)?,
        offset: parameters.count("offset", 0..=MAX_OFFSET, 0)?,
    })
}

/// Leaves a page of rows of which one more was read than it has; whether there are more.
pub(crate) fn cut<T>(rows: &mut Vec<T>, limit: u32) -> bool {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    has_more
}
