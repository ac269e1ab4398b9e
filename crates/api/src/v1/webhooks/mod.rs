//! Holds: webhooks as their account sees them.

pub(crate) mod list;
pub(crate) mod replay;
pub(crate) mod secret;

use batchin_domain::webhook::{FailureKind, without_secrets};
use batchin_store::{DeliveryRow, TryRow};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// An event on its way to its receiver.
#[derive(Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(crate) struct DeliveryObject {
    /// The event's id, and the `webhook-id` of every attempt.
    #[schema(example = "evt_0197f3a000007000800000000000abcd")]
    id: String,
    /// The event.
    #[schema(example = "batch.completed")]
    r#type: &'static str,
    /// Without credentials and query; `mailto:` and the account's address for one that goes by e-mail.
    #[schema(example = "https://example.com/hook")]
    url: String,
    /// `pending`, `delivered`, `failed` (every attempt did) or `off` (the receiver wants no more).
    #[schema(example = "delivered")]
    status: &'static str,
    /// The batch that it is about.
    #[schema(required = true)]
    batch_id: Option<Uuid>,
    /// The latest 50, oldest first.
    attempts: Vec<AttemptObject>,
    #[schema(required = true, format = DateTime)]
    next_try_at: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(required = true, format = DateTime)]
    finished_at: Option<String>,
}

/// One attempt to deliver an event.
#[derive(Serialize, ToSchema)]
#[schema(as = DeliveryAttempt)]
pub(crate) struct AttemptObject {
    #[schema(format = DateTime)]
    at: String,
    duration_ms: f64,
    /// The status of the receiver's answer, or of its mail server's, if there was one.
    #[schema(required = true, example = 204)]
    status: Option<u16>,
    /// What went wrong beside it: `forbidden_address`, `host_not_found`, `connection_failed`, `timeout`,
    /// `connection_broken`, `redirect` or `not_signed`; by e-mail also `mail_refused` (for good), `mail_deferred` (the mail server
    /// takes none now) or `mail_off` (none is set up).
    #[schema(required = true)]
    failure: Option<&'static str>,
}

impl From<TryRow> for AttemptObject {
    fn from(row: TryRow) -> Self {
        Self {
            at: row.at.to_string(),
            duration_ms: row.took.as_secs_f64() * 1_000.0,
            status: row.status,
            failure: row.failure.map(FailureKind::name),
        }
    }
}

impl From<DeliveryRow> for DeliveryObject {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: row.id.to_string(),
            r#type: row.kind.name(),
            url: without_secrets(&row.url),
            status: row.state.name(),
            batch_id: row.kind.is_of_batch().then_some(row.subject),
            attempts: row.tries.into_iter().map(AttemptObject::from).collect(),
            next_try_at: row.next_try_at.map(|at| at.to_string()),
            created_at: row.created_at.to_string(),
            finished_at: row.finished_at.map(|at| at.to_string()),
        }
    }
}
