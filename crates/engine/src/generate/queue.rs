//! Holds: sequences that wait for a slot, by class. Bounded; full means that the caller is told so at once.

use std::{
    collections::VecDeque,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use batchin_domain::Class;

use super::Sequence;

/// The waiting room of one model.
#[derive(Debug)]
pub(crate) struct Queue {
    /// std mutex: held for a few pushes or pops, never across an await.
    lanes: Mutex<[VecDeque<Sequence>; Class::ALL.len()]>,
    wake: Condvar,
    limit: usize,
    closed: AtomicBool,
}

/// No more may wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueueFull;

impl Queue {
    pub(crate) fn new(limit: usize) -> Self {
        Self { lanes: Mutex::default(), wake: Condvar::new(), limit, closed: AtomicBool::new(false) }
    }

    /// Adds all of a request's sequences or none.
    pub(crate) fn push(&self, sequences: Vec<Sequence>) -> Result<(), QueueFull> {
        let mut lanes = self.lock();
        let waiting: usize = lanes.iter().map(VecDeque::len).sum();
        if self.closed.load(Relaxed) || waiting + sequences.len() > self.limit {
            return Err(QueueFull);
        }
        for sequence in sequences {
            lanes[sequence.class as usize].push_back(sequence);
        }
        drop(lanes);
        self.wake.notify_one();
        Ok(())
    }

    /// Puts back a sequence that had a slot. It goes before those of its class, and the limit does not apply: there
    /// are never more of these than slots.
    pub(super) fn put_back(&self, sequence: Sequence) {
        self.lock()[sequence.class as usize].push_front(sequence);
    }

    /// The next sequence, if `fits` takes it. One that does not fit is not overtaken, or large ones would starve.
    pub(super) fn pop(&self, fits: impl FnOnce(&Sequence) -> bool) -> Option<Sequence> {
        let mut lanes = self.lock();
        let lane = lanes.iter_mut().find(|lane| !lane.is_empty())?;
        if fits(lane.front()?) { lane.pop_front() } else { None }
    }

    /// The class of the next sequence.
    pub(super) fn next_class(&self) -> Option<Class> {
        let lanes = self.lock();
        Class::ALL.into_iter().find(|&class| !lanes[class as usize].is_empty())
    }

    /// Forgets sequences whose clients have gone, and returns how many still wait.
    pub(super) fn purge(&self) -> usize {
        let mut lanes = self.lock();
        for lane in lanes.iter_mut() {
            lane.retain(|sequence| !sequence.is_cancelled());
        }
        lanes.iter().map(VecDeque::len).sum()
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().iter().map(VecDeque::len).sum()
    }

    /// Sleeps until something waits. False when the queue is closed.
    pub(super) fn wait_for_work(&self) -> bool {
        let lanes = self.lock();
        let idle =
            |lanes: &mut [VecDeque<Sequence>; 4]| !self.closed.load(Relaxed) && lanes.iter().all(VecDeque::is_empty);
        drop(self.wake.wait_while(lanes, idle).unwrap_or_else(PoisonError::into_inner));
        !self.closed.load(Relaxed)
    }

    /// Ends the worker: nothing is accepted any more, and what waits is dropped.
    pub(crate) fn close(&self) {
        let mut lanes = self.lock();
        self.closed.store(true, Relaxed);
        lanes.iter_mut().for_each(VecDeque::clear);
        drop(lanes);
        self.wake.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    // A panic while the lock is held leaves whole sequences in whole queues, so the data is still good.
    fn lock(&self) -> MutexGuard<'_, [VecDeque<Sequence>; 4]> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
