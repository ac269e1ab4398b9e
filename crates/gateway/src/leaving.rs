//! Holds: what becomes of an answer whose client leaves while nothing of it is there.
//!
//! Most model servers stop when their connection is closed: the call is cancelled and costs nothing. A hosted one goes on
//! computing, and charges the operator for it; there the answer is taken to its end, or a stream to its first event, and
//! charged for. Its place among the requests in flight is taken until then, so that leaving gains nobody room.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use batchin_tasks::Tasks;
use batchin_upstream::Kind;

/// Whoever waits for an answer.
#[derive(Debug, Default)]
pub(crate) struct Client {
    gone: AtomicBool,
    /// Its call is at a server that does not stop when it is left.
    is_owed: AtomicBool,
}

impl Client {
    /// Whether it has left.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Its call is about to go to a server of this kind.
    pub(crate) fn is_called_for(&self, kind: Kind) {
        self.is_owed.store(!kind.stops_when_left, Ordering::Release);
    }

    /// No server works for it now.
    pub(crate) fn waits(&self) {
        self.is_owed.store(false, Ordering::Release);
    }
}

/// Work that goes on as a task when its waiter leaves while the work is at a server that does not stop. Elsewhere it is
/// dropped, which cancels it.
pub(crate) struct SeenThrough<T: 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    client: Arc<Client>,
    tasks: Tasks,
}

impl<T: 'static> SeenThrough<T> {
    /// The work that `begin` makes for its client.
    pub(crate) fn new(
        tasks: &Tasks,
        begin: impl FnOnce(Arc<Client>) -> Pin<Box<dyn Future<Output = T> + Send>>,
    ) -> Self {
        let client = Arc::new(Client::default());
        Self { work: Some(begin(Arc::clone(&client))), client, tasks: tasks.clone() }
    }
}

impl<T: 'static> Future for SeenThrough<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<T: 'static> Drop for SeenThrough<T> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        self.client.gone.store(true, Ordering::Release);
        if self.client.is_owed.load(Ordering::Acquire) {
            // What it brings is charged for; nobody takes it.
            self.tasks.spawn("see_answer_through", |_| async move {
                batchin_faults::point("answer.left");
                drop(work.await);
            });
        }
    }
}
