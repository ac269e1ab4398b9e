//! Holds: requests that wait for a gate to open while their clients wait, in the order in which they came.
//!
//! One line for each model: only its first asks the gates, so that an event costs as much as there are lines, however long
//! they are.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

/// The lines of a node. Their length is bounded by the places of requests in flight.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// std mutex: held for one look-up, never across an await.
    lines: Mutex<HashMap<String, VecDeque<Arc<Notify>>>>,
    /// How many wait in all: while nobody does, events go by without the lock.
    waiting: AtomicUsize,
}

/// A place in a line. Dropped, it is left, and whoever is first then has its turn.
#[derive(Debug)]
pub(crate) struct Place {
    lines: Arc<Lines>,
    model: String,
    turn: Arc<Notify>,
}

impl Lines {
    /// Stands at the end of a model's line.
    pub(crate) fn stand(self: &Arc<Self>, model: &str) -> Place {
        let turn = Arc::new(Notify::new());
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let mut lines = self.lock();
        let line = lines.entry(model.to_owned()).or_default();
        line.push_back(Arc::clone(&turn));
        if line.len() == 1 {
            turn.notify_one();
        }
        drop(lines);
        Place { lines: Arc::clone(self), model: model.to_owned(), turn }
    }

    /// A gate may have opened.
    pub(crate) fn wake(&self) {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return;
        }
        self.lock().values().filter_map(VecDeque::front).for_each(|first| first.notify_one());
    }

    /// How many wait in all.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Arc<Notify>>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until it is worth asking the gates: at the head of the line, and something happened since the last time.
    pub(crate) async fn turn(&self) {
        self.turn.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get_mut(&self.model) {
            line.retain(|other| !Arc::ptr_eq(other, &self.turn));
            match line.front() {
                // It may have been left at the head, with a turn that it did not use.
                Some(first) => first.notify_one(),
                None => {
                    lines.remove(&self.model);
                }
            }
        }
        drop(lines);
        self.lines.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn has_turn(place: &Place) -> bool {
        place.turn().now_or_never().is_some()
    }

    #[test]
    fn only_the_first_of_each_line_has_its_turn() {
        let lines = Arc::new(Lines::default());
        let [first, second, third] = ["a", "a", "a"].map(|model| lines.stand(model));
        let other = lines.stand("b");
        assert!(has_turn(&first) && has_turn(&other), "at once");
        assert!(!has_turn(&first) && !has_turn(&second));
        lines.wake();
        assert!(has_turn(&first) && has_turn(&other) && !has_turn(&second));
        drop(first);
        assert!(has_turn(&second) && !has_turn(&third), "the next is not made to wait for an event");
        lines.wake();
        drop(second);
        drop(other);
        assert!(has_turn(&third));
        drop(third);
        assert!(lines.lock().is_empty() && lines.waiting.load(Ordering::Acquire) == 0);
    }
}
