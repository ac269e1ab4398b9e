//! Holds: requests that carry an Idempotency-Key: carried out once, answered as often as they are asked.

use std::time::Duration;

use batchin_store::{Answers, Begun, IdempotencyScope, NodeIdentity, StoreError, StoredAnswer};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::warn;

use crate::{Fenced, Gateway, waiters::Waiting};

/// Between two looks; doubles up to [`LOOK_MAX`].
const LOOK: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_secs(1);

/// The client's own name for a request, from the `Idempotency-Key` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(pub String);

/// A request that carries a key.
pub struct Keyed<'a> {
    /// Whose it is, and its key.
    pub scope: IdempotencyScope,
    /// Which call: a key is good for one.
    pub route: &'static str,
    /// What was sent: a key is good for one body.
    pub body: &'a [u8],
    /// How long it waits for the answer of a first one that still runs.
    pub patience: Duration,
}

/// Why a request that carries a key was neither begun nor answered.
#[derive(Debug, thiserror::Error)]
pub enum KeyedError {
    /// The key was used for another request.
    #[error("the Idempotency-Key was used for another request")]
    Mismatch,
    /// The first request under this key is still running after a long wait.
    #[error("the first request with this Idempotency-Key is still running")]
    Running,
    /// As many requests as may already wait for the answer under this key, or under this account's keys.
    #[error("too many requests wait under Idempotency-Keys")]
    Crowded,
    /// The first request under this key was carried out and its answer cannot be given again.
    #[error("the first answer with this Idempotency-Key cannot be given again")]
    Cut,
    /// This node may not spend now.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
}

/// What became of a request that carries a key.
pub enum Turn {
    /// It is the caller's to carry out.
    First(IdempotencyGuard),
    /// It was carried out before.
    Replay(StoredAnswer),
}

impl Gateway {
    /// Begins a request under its key, or waits for whoever began it before. The caller may stop waiting at any time.
    /// `node` is asked with each try: who carries a request out under an epoch that has ended would lose its key to others.
    pub async fn begin_idempotent(
        &self,
        node: impl Fn() -> NodeIdentity,
        keyed: Keyed<'_>,
    ) -> Result<Turn, KeyedError> {
        let fingerprint: [u8; 32] = Sha256::digest(keyed.body).into();
        let (began, mut pause) = (Instant::now(), LOOK);
        let mut waiting: Option<Waiting> = None;
        loop {
            let begin = self.clone().begin(node(), keyed.scope.clone(), keyed.route, fingerprint);
            let begun = self.tasks().see_through("begin_idempotent", begin).await;
            if let Some(turn) = begun.ok_or(Fenced)?? {
                return Ok(turn);
            }
            if began.elapsed() >= keyed.patience {
                return Err(KeyedError::Running);
            }
            if waiting.is_none() {
                waiting = Some(self.waiters().join(&keyed.scope).ok_or(KeyedError::Crowded)?);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_MAX);
        }
    }

    /// `None`: somebody else is carrying it out.
    async fn begin(
        self,
        node: NodeIdentity,
        scope: IdempotencyScope,
        route: &'static str,
        fingerprint: [u8; 32],
    ) -> Result<Option<Turn>, KeyedError> {
        let now = self.clock().now();
        match self.answers().begin_idempotent(&scope, route, fingerprint, node, now).await {
            Ok(Begun::First) => {
                batchin_faults::point("idempotency.begun");
                Ok(Some(Turn::First(IdempotencyGuard { gateway: self, node, scope, is_owed: true })))
            }
            Ok(Begun::Done(answer)) if answer.body.is_some() => Ok(Some(Turn::Replay(answer))),
            Ok(Begun::Done(_)) => Err(KeyedError::Cut),
            Ok(Begun::Mismatch) => Err(KeyedError::Mismatch),
            Ok(Begun::Running) => Ok(None),
            Err(cause) => Err(KeyedError::Store(cause)),
        }
    }
}

/// A key whose request is being carried out; dropped, it is free for another try.
#[must_use = "a dropped guard lets go of its key"]
pub struct IdempotencyGuard {
    gateway: Gateway,
    node: NodeIdentity,
    scope: IdempotencyScope,
    is_owed: bool,
}

impl IdempotencyGuard {
    /// The key.
    pub fn scope(&self) -> &IdempotencyScope {
        &self.scope
    }

    /// The key stays taken: its answer is about to be remembered.
    pub fn keep(mut self) -> IdempotencyScope {
        self.is_owed = false;
        self.scope.clone()
    }

    /// Remembers the answer of a request that cost nothing.
    pub async fn remember(self, answer: &StoredAnswer) -> Result<(), StoreError> {
        let answers = self.gateway.answers().clone();
        answers.remember_answer(&self.keep(), answer).await
    }

    /// Lets go of the key, and waits until that is done.
    pub async fn release(mut self) {
        self.is_owed = false;
        forget(self.gateway.answers().clone(), self.node, self.scope.clone()).await;
    }
}

impl Drop for IdempotencyGuard {
    fn drop(&mut self) {
        if self.is_owed {
            let forgetting = forget(self.gateway.answers().clone(), self.node, self.scope.clone());
            self.gateway.tasks().spawn("forget_idempotent", move |_| forgetting);
        }
    }
}

async fn forget(answers: Answers, node: NodeIdentity, scope: IdempotencyScope) {
    batchin_faults::point("idempotency.forgetting");
    if let Err(cause) = answers.forget_idempotent(&scope, node).await {
        warn!(error = &cause as &dyn std::error::Error, "an Idempotency-Key could not be released");
    }
    batchin_faults::point("idempotency.forgotten");
}
