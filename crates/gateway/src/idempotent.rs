//! Holds: requests that carry an Idempotency-Key: carried out once, answered as often as they are asked.

use std::time::Duration;

use batchin_domain::AccountId;
use batchin_store::{Begun, IdempotencyScope, StoredAnswer};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::warn;

use crate::{Epoch, Gateway, Inbound, RequestError};

/// How long a second request waits for the first one's answer: as long as clients wait.
const WAIT: Duration = Duration::from_secs(600);
/// Between two looks; doubles up to [`LOOK_MAX`].
const LOOK: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// The client's own name for a request, from the `Idempotency-Key` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(pub String);

/// What became of a request that carries a key.
pub(crate) enum Turn {
    /// It is ours to carry out.
    First(IdempotencyScope),
    /// It was carried out before.
    Replay(StoredAnswer),
}

impl Gateway {
    /// Begins a request under its key, or waits for whoever began it before.
    pub(crate) async fn begin_idempotent(
        &self,
        epoch: &Epoch,
        account: AccountId,
        key: &IdempotencyKey,
        inbound: &Inbound,
    ) -> Result<Turn, RequestError> {
        let scope = IdempotencyScope { account, key: key.0.clone() };
        let fingerprint: [u8; 32] = Sha256::digest(&inbound.body).into();
        let (began, mut pause) = (Instant::now(), LOOK);
        loop {
            let now = self.clock().now();
            let path = inbound.endpoint.path();
            match self.store().begin_idempotent(&scope, path, fingerprint, epoch.identity, now).await {
                Ok(Begun::First) => {
                    batchin_faults::point("idempotency.begun");
                    return Ok(Turn::First(scope));
                }
                Ok(Begun::Done(answer)) if answer.body.is_some() => return Ok(Turn::Replay(answer)),
                Ok(Begun::Done(_)) => return Err(RequestError::IdempotencyCut),
                Ok(Begun::Mismatch) => return Err(RequestError::IdempotencyMismatch),
                Ok(Begun::Running) if began.elapsed() < WAIT => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LOOK_MAX);
                }
                Ok(Begun::Running) => return Err(RequestError::IdempotencyRunning),
                Err(cause) => return Err(RequestError::Store(cause)),
            }
        }
    }

    /// Lets a request that did nothing be tried again under its key.
    pub(crate) fn forget_idempotent(&self, scope: IdempotencyScope) {
        let store = self.store().clone();
        self.tasks().spawn("forget_idempotent", move |_| async move {
            batchin_faults::point("idempotency.forgetting");
            if let Err(cause) = store.forget_idempotent(&scope).await {
                warn!(error = &cause as &dyn std::error::Error, "an Idempotency-Key could not be released");
            }
            batchin_faults::point("idempotency.forgotten");
        });
    }
}

/// Releases a key unless its request was charged.
pub(crate) struct IdempotencyGuard {
    gateway: Gateway,
    scope: Option<IdempotencyScope>,
}

impl IdempotencyGuard {
    pub(crate) fn new(gateway: Gateway, scope: Option<IdempotencyScope>) -> Self {
        Self { gateway, scope }
    }

    /// The settlement takes it over.
    pub(crate) fn take(&mut self) -> Option<IdempotencyScope> {
        self.scope.take()
    }

    pub(crate) fn is_some(&self) -> bool {
        self.scope.is_some()
    }
}

impl Drop for IdempotencyGuard {
    fn drop(&mut self) {
        if let Some(scope) = self.scope.take() {
            self.gateway.forget_idempotent(scope);
        }
    }
}
