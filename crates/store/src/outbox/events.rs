//! Holds: the outbox: events that customers are told of, written with the change that they tell of.

use std::collections::HashMap;

use batchin_db::{Value, WriteTx};
use batchin_domain::{
    AccountId, BatchId, BatchStatus, Timestamp,
    webhook::{DeliveryState, EventId, EventKind, mail_address, origin},
};
use uuid::Uuid;

use crate::{StoreError, stored::named};

/// An event to be told to one URL.
#[derive(Clone, Debug)]
pub(crate) struct NewEvent {
    /// What has happened.
    pub kind: EventKind,
    /// What it has happened to.
    pub subject: Uuid,
    /// Whom it concerns.
    pub account: AccountId,
    /// Which time, of what happens to the same more than once.
    pub occasion: Option<i64>,
    /// Where its owner wants to hear of it: a URL, or a place of mail.
    pub url: String,
}

/// Queues the events of batches that became final in this transaction; batches without a URL have none.
pub(crate) async fn batches_ended(
    tx: &WriteTx,
    ended: &[(BatchId, BatchStatus)],
    now: Timestamp,
) -> Result<(), StoreError> {
    let kinds: HashMap<Uuid, EventKind> = ended
        .iter()
        .filter_map(|(batch, status)| EventKind::of_batch(*status).map(|kind| (batch.uuid(), kind)))
        .collect();
    let ids = kinds.keys().map(|id| Value::from(*id)).collect();
    let sql = |these: &str| {
        format!("SELECT id, account_id, webhook_url FROM batch WHERE webhook_url IS NOT NULL AND id {these}")
    };
    for row in tx.all_of(ids, Vec::new(), sql).await? {
        let subject: Uuid = row.get("id")?;
        let Some(kind) = kinds.get(&subject).copied() else { continue };
        let account = AccountId::new(row.get("account_id")?);
        let event = NewEvent { kind, subject, account, occasion: None, url: row.get("webhook_url")? };
        enqueue(tx, &event, now).await?;
    }
    Ok(())
}

/// Queues an event; whether it is new. The same kind of event of the same subject is queued once. What a receiver has
/// switched off is noted and not sent.
pub(crate) async fn enqueue(tx: &WriteTx, event: &NewEvent, now: Timestamp) -> Result<bool, StoreError> {
    let (pending, off) = (DeliveryState::Pending.code(), DeliveryState::Off.code());
    let is_off = "EXISTS (SELECT 1 FROM webhook_off o WHERE o.account_id = $2 AND o.url = $5)";
    let queued = tx.run(
        format!(
            "INSERT INTO webhook_delivery (id, account_id, kind, subject, url, endpoint, due_at, created_at, state, \
             finished_at) VALUES ($1,$2,$3,$4,$5,$6,$7,$8, CASE WHEN {is_off} THEN {off} ELSE {pending} END, \
             CASE WHEN {is_off} THEN $9 ELSE NULL END) ON CONFLICT (id) DO NOTHING"
        ),
        [
            event_id(event).uuid().into(),
            event.account.uuid().into(),
            event.kind.code().into(),
            event.subject.into(),
            event.url.as_str().into(),
            endpoint_id(event.account, &event.url).into(),
            now.micros().into(),
            now.micros().into(),
            now.micros().into(),
        ],
    )
    .await?;
    Ok(queued == 1)
}

/// An event's id follows from what it is, so that the transaction that writes it may be run again.
fn event_id(event: &NewEvent) -> EventId {
    let (kind, occasion) = (event.kind.code().to_be_bytes(), event.occasion.map(i64::to_be_bytes));
    let mut parts: Vec<&[u8]> = vec![b"batchin event", &kind, event.subject.as_bytes()];
    parts.extend(occasion.as_ref().map(|occasion| &occasion[..]));
    // The same is told by more than one way.
    parts.extend(mail_address(&event.url).map(|_| &b"mailto:"[..]));
    EventId::new(named(&parts))
}

/// An account's deliveries to one server share what that server can bear. All mail leaves by the operator's one server,
/// so that all of it shares a few places: while that server is out, webhooks have the others.
pub(crate) fn endpoint_id(account: AccountId, url: &str) -> Uuid {
    if mail_address(url).is_some() {
        return named(&[b"batchin endpoint of mail"]);
    }
    named(&[b"batchin endpoint", account.uuid().as_bytes(), origin(url).as_bytes()])
}
