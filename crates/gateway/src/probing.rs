//! Holds: reading media for what they are: a few at once, away from those who wait for other things.

use tokio::{sync::Semaphore, task::spawn_blocking};

/// Files read at once. Each takes a core, for up to a second where it is large.
static PLACES: Semaphore = Semaphore::const_new(4);

/// Does such work. `None`: it broke off.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let place = PLACES.acquire().await.ok()?;
    let working = spawn_blocking(move || {
        let read = work();
        // Whoever waited for it may have gone; the place is free when the core is.
        drop(place);
        read
    });
    working.await.ok()
}
