//! Holds: giving work up whose answer nobody waits for.

use crate::generate::Cancelled;

/// Gives the sequences of a request up when its answer is dropped, which is how a closed connection arrives here.
#[derive(Default)]
pub(super) struct CancelOnDrop {
    pub(super) cancelled: Cancelled,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.cancelled.set();
    }
}
