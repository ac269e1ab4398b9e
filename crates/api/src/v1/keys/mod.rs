//! Holds: API keys as their owner manages them.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod update;

use batchin_store::KeyRow;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{cents::Cents, error::ApiError, secret::KEY_PREFIX};

/// Largest body of a call about keys, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Longest name, in characters.
const MAX_NAME_CHARS: usize = 200;
/// Highest rate limit; to shut a key off there is `is_active`.
const RPM: std::ops::RangeInclusive<u32> = 1..=10_000_000;

/// An API key without its secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
pub(crate) struct KeyObject {
    id: Uuid,
    #[schema(example = "batchin_api")]
    key_prefix: &'static str,
    /// The secret's last four characters.
    #[schema(example = "x7Qk")]
    last_four: String,
    #[schema(required = true)]
    name: Option<String>,
    /// Requests in a calendar minute.
    rate_limit_rpm: u32,
    /// What may be spent in a calendar month, UTC; null is no limit.
    #[schema(required = true)]
    monthly_budget_cents: Option<Cents>,
    spent_this_month_cents: Cents,
    is_active: bool,
    #[schema(format = DateTime)]
    created_at: String,
    /// To some seconds.
    #[schema(required = true, format = DateTime)]
    last_used_at: Option<String>,
}

impl From<KeyRow> for KeyObject {
    fn from(row: KeyRow) -> Self {
        Self {
            id: row.id.uuid(),
            key_prefix: KEY_PREFIX,
            last_four: row.last4,
            name: row.name,
            rate_limit_rpm: row.rate_limit_rpm,
            monthly_budget_cents: row.monthly_budget.map(Cents::from),
            spent_this_month_cents: row.spent_this_month.into(),
            is_active: row.is_active,
            created_at: row.created_at.to_string(),
            last_used_at: row.last_used_at.map(|at| at.to_string()),
        }
    }
}

/// A key's name: anything short without control characters.
fn name(text: &str) -> Result<String, ApiError> {
    let name = text.trim();
    if name.chars().count() > MAX_NAME_CHARS || text.contains(char::is_control) {
        let message = format!("`name` must have at most {MAX_NAME_CHARS} characters, none of them control characters.");
        return Err(ApiError::invalid("name", message));
    }
    Ok(name.to_owned())
}
