//! Holds: the order of the batch work of one model.
//!
//! Class first; inside a class deficit round robin between accounts by cost; inside an account oldest first. The queue
//! knows nothing of replicas: the caller's gate says whether an item may start.

mod lane;

use std::collections::{BTreeSet, HashMap};

use batchin_domain::{AccountId, Class, Priority, Timestamp};

use crate::Gate;
use lane::{Lane, Node};

/// Cost units that one account may start before the next one's turn: a long prompt with a short answer.
pub const QUANTUM: u32 = 8_192;
/// Items kept; the durable queue keeps the rest, so this only has to cover what can start before the next claim.
pub const MAX_QUEUED: usize = 16_384;
/// Items of an account that are looked at for one that fits.
const LOOK_AHEAD: usize = 256;
/// An item that others overtook this often goes next, and its class and those below wait until it fits.
pub const MAX_PASSED_OVER: u32 = 64;
/// Weights above this would let one account hold a class for too long.
const MAX_WEIGHT: u32 = 1_000;

/// An item's cost in the units that accounts share by: uncached prompt tokens and twice the output tokens.
pub fn cost_units(uncached_prompt: u32, output: u32) -> u64 {
    u64::from(uncached_prompt) + 2 * u64::from(output)
}

/// What the order depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who pays.
    pub account: AccountId,
    /// Share of the account among those that wait, 1 to 1,000; the latest pushed one counts.
    pub weight: u32,
    /// The batch's priority.
    pub priority: Priority,
    /// See [`cost_units`].
    pub cost: u64,
    /// From then on it counts as high; `None` never.
    pub latest_start: Option<Timestamp>,
}

/// Names a queued item, for removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u64);

/// The queue is full; the item is handed back.
#[derive(Debug, PartialEq, Eq)]
pub struct QueueFull<T>(pub T);

/// What the caller's gate says about an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It starts.
    Start,
    /// Not this one; another one of the class may.
    PassOver,
    /// None of the class may.
    CloseClass,
}

impl From<Gate> for Verdict {
    fn from(gate: Gate) -> Self {
        match gate {
            Gate::Prompt => Self::PassOver,
            Gate::FirstByte | Gate::Limit | Gate::Slots | Gate::Unavailable => Self::CloseClass,
        }
    }
}

/// An item that starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Popped<T> {
    /// The item.
    pub item: T,
    /// The class it starts in, which is high after a promotion.
    pub class: Class,
    /// Whose.
    pub account: AccountId,
}

/// Batch work of one model that could start as soon as a gate opens.
#[derive(Debug)]
pub struct Queue<T> {
    lanes: [Lane<T>; 3],
    places: HashMap<Place, (Priority, AccountId)>,
    /// Items that may still be promoted, by when.
    promotions: BTreeSet<(Timestamp, Place)>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            lanes: std::array::from_fn(|_| Lane::default()),
            places: HashMap::new(),
            promotions: BTreeSet::new(),
            next: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an item behind its account's others, unless [`MAX_QUEUED`] wait.
    pub fn push(&mut self, entry: Entry, item: T) -> Result<Place, QueueFull<T>> {
        if self.places.len() >= MAX_QUEUED {
            return Err(QueueFull(item));
        }
        let place = Place(self.next);
        self.next += 1;
        self.places.insert(place, (entry.priority, entry.account));
        if let Some(at) = entry.latest_start.filter(|_| entry.priority != Priority::High) {
            self.promotions.insert((at, place));
        }
        let entry = Entry { weight: entry.weight.clamp(1, MAX_WEIGHT), ..entry };
        self.lanes[lane_of(entry.priority)].insert(place, Node { entry, item, passed_over: 0 });
        Ok(place)
    }

    /// Takes out the next item that `gate` lets start. Asked with each item's class, most urgent class first; call it
    /// again until it gives `None`. It looks at what it passes over and at most once at each account.
    pub fn pop_where(&mut self, now: Timestamp, mut gate: impl FnMut(&T, Class) -> Verdict) -> Option<Popped<T>> {
        self.promote(now);
        for priority in [Priority::High, Priority::Low, Priority::Fill] {
            let class = priority.class();
            match self.lanes[lane_of(priority)].pop(|item| gate(item, class)) {
                lane::Pop::Start(place, node) => {
                    self.forget(place, &node.entry);
                    return Some(Popped { item: node.item, class, account: node.entry.account });
                }
                lane::Pop::HeldBack => return None,
                lane::Pop::Nothing => {}
            }
        }
        None
    }

    /// Takes an item out, as when its batch is cancelled.
    pub fn remove(&mut self, place: Place) -> Option<T> {
        let (priority, account) = *self.places.get(&place)?;
        let node = self.lanes[lane_of(priority)].remove(account, place)?;
        self.forget(place, &node.entry);
        Some(node.item)
    }

    /// Takes out all items that are `gone`. Looks at every item.
    pub fn remove_where(&mut self, gone: impl Fn(&T) -> bool) -> Vec<T> {
        let is_gone = |(place, (priority, account)): (&Place, &(Priority, AccountId))| {
            let item = self.lanes[lane_of(*priority)].item(*account, *place);
            item.is_some_and(&gone).then_some(*place)
        };
        let places: Vec<Place> = self.places.iter().filter_map(is_gone).collect();
        places.into_iter().filter_map(|place| self.remove(place)).collect()
    }

    /// Items waiting as high, low and fill; promoted ones count as high.
    pub fn len_per_class(&self) -> [usize; 3] {
        self.lanes.each_ref().map(Lane::len)
    }

    /// Items waiting.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// When the next item is promoted, which may open a way for it.
    pub fn next_promotion(&self) -> Option<Timestamp> {
        self.promotions.first().map(|(at, _)| *at)
    }

    fn promote(&mut self, now: Timestamp) {
        while let Some((at, place)) = self.promotions.first().copied().filter(|(at, _)| *at <= now) {
            self.promotions.remove(&(at, place));
            let Some((priority, account)) = self.places.get_mut(&place) else { continue };
            let from = std::mem::replace(priority, Priority::High);
            if let Some(node) = self.lanes[lane_of(from)].remove(*account, place) {
                self.lanes[lane_of(Priority::High)].insert(place, Node { passed_over: 0, ..node });
            }
        }
    }

    fn forget(&mut self, place: Place, entry: &Entry) {
        self.places.remove(&place);
        if let Some(at) = entry.latest_start {
            self.promotions.remove(&(at, place));
        }
    }
}

fn lane_of(priority: Priority) -> usize {
    priority.class().index() - Class::High.index()
}
