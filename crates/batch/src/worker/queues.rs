//! Holds: claimed tasks that wait for a gate, a queue for each model.
//!
//! A closed gate of one model says nothing about another's, and its tasks take no room from another's.

use std::collections::HashMap;

use batchin_gateway::{Inbound, Work};
use batchin_scheduler::{Entry, Queue};
use batchin_store::{Claim, ClaimedTask};

/// A claimed task whose body has been read.
pub(super) struct Ready {
    pub task: ClaimedTask,
    pub inbound: Inbound,
    /// What it is to the scheduler.
    pub work: Work,
    /// The model's id.
    pub model: String,
}

/// The queues of this node's claims.
pub(super) struct Queues {
    by_model: HashMap<String, Queue<Ready>>,
    /// Room for each model.
    each: usize,
}

impl Queues {
    /// With room for so many tasks of each model.
    pub fn new(each: usize) -> Self {
        Self { by_model: HashMap::new(), each }
    }

    /// How many more of a model are to be claimed.
    pub fn room(&self, model: &str) -> u32 {
        u32::try_from(self.each.saturating_sub(self.waiting(model))).unwrap_or(u32::MAX)
    }

    /// Whether as many of a model wait as are to.
    pub fn is_full(&self, model: &str) -> bool {
        self.room(model) == 0
    }

    /// A claim is a transaction: one for half of what is kept ready, and not one for every task that ends.
    pub fn is_hungry(&self, model: &str) -> bool {
        self.waiting(model) <= self.each / 2
    }

    /// Models of which something waits.
    pub fn models(&self) -> impl Iterator<Item = &String> {
        self.by_model.keys()
    }

    pub fn each_mut(&mut self) -> impl Iterator<Item = (&String, &mut Queue<Ready>)> {
        self.by_model.iter_mut()
    }

    /// Gives the task back where there is no room at all.
    pub fn push(&mut self, entry: Entry, ready: Ready) -> Option<Ready> {
        if !self.by_model.contains_key(&ready.model) {
            self.by_model.insert(ready.model.clone(), Queue::default());
        }
        match self.by_model.get_mut(&ready.model) {
            Some(queue) => queue.push(entry, ready).err().map(|full| full.0),
            None => Some(ready),
        }
    }

    /// Takes out what is claimed no more.
    pub fn forget(&mut self, is_lost: impl Fn(&Claim) -> bool) -> Vec<Ready> {
        let gone = |ready: &Ready| is_lost(&ready.task.claim);
        self.by_model.values_mut().flat_map(|queue| queue.remove_where(gone)).collect()
    }

    /// Takes out all that waits for the models that are `gone`.
    pub fn take_models(&mut self, gone: impl Fn(&str) -> bool) -> Vec<Ready> {
        let models: Vec<String> = self.by_model.keys().filter(|model| gone(model)).cloned().collect();
        let queues = models.iter().filter_map(|model| self.by_model.remove(model));
        queues.flat_map(|mut queue| queue.remove_where(|_| true)).collect()
    }

    pub fn drop_empty(&mut self) {
        self.by_model.retain(|_, queue| !queue.is_empty());
    }

    pub fn clear(&mut self) {
        self.by_model.clear();
    }

    fn waiting(&self, model: &str) -> usize {
        self.by_model.get(model).map_or(0, Queue::len)
    }
}
