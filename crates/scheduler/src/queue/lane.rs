//! Holds: deficit round robin between the accounts of one class.
//!
//! An account with a positive deficit may start an item of any cost and then owes what it took too much. When no
//! account that could start has a positive deficit, all of those are paid the rounds that the first of them needs, so
//! a deficit never exceeds one quantum and two accounts that both wait never differ by more than a quantum and the
//! costliest item.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use batchin_domain::AccountId;

use super::{Entry, LOOK_AHEAD, MAX_PASSED_OVER, MAX_QUEUED, Place, QUANTUM, Verdict};

/// No item costs more than this for the order's purposes; sums of a full queue stay far inside 64 bits.
const MAX_COST: u64 = 1 << 40;

#[derive(Debug)]
pub(super) struct Node<T> {
    pub entry: Entry,
    pub item: T,
    /// Times that another item of the class started while this one was asked and did not fit.
    pub passed_over: u32,
}

pub(super) enum Pop<T> {
    Start(Place, Node<T>),
    /// An item was passed over too often: neither this class nor one below starts before it.
    HeldBack,
    Nothing,
}

#[derive(Debug)]
pub(super) struct Lane<T> {
    accounts: HashMap<AccountId, Account<T>>,
    /// Accounts with items, the next one first.
    ring: VecDeque<AccountId>,
    /// Rounds paid so far.
    round: i64,
    /// What accounts without items still owe, and the round they left in: who sends one item at a time pays as well.
    debts: HashMap<AccountId, (i64, i64)>,
    starved: BTreeSet<(Place, AccountId)>,
    len: usize,
}

#[derive(Debug)]
struct Account<T> {
    items: BTreeMap<Place, Node<T>>,
    deficit: i64,
    quantum: i64,
}

/// What the walk around the ring found.
struct Walk {
    /// Accounts that could start an item, in ring order.
    ready: Vec<(AccountId, Place)>,
    passed_over: Vec<(Place, AccountId)>,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self {
            accounts: HashMap::new(),
            ring: VecDeque::new(),
            round: 0,
            debts: HashMap::new(),
            starved: BTreeSet::new(),
            len: 0,
        }
    }
}

impl<T> Lane<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn insert(&mut self, place: Place, node: Node<T>) {
        let quantum = i64::from(QUANTUM) * i64::from(node.entry.weight);
        let (round, debts, ring) = (self.round, &mut self.debts, &mut self.ring);
        let account = self.accounts.entry(node.entry.account).or_insert_with_key(|id| {
            ring.push_back(*id);
            let (owed, since) = debts.remove(id).unwrap_or((0, round));
            let deficit = owed.saturating_add((round - since).saturating_mul(quantum)).min(0);
            Account { items: BTreeMap::new(), deficit, quantum }
        });
        account.quantum = quantum;
        account.items.insert(place, node);
        self.len += 1;
    }

    pub fn remove(&mut self, id: AccountId, place: Place) -> Option<Node<T>> {
        let account = self.accounts.get_mut(&id)?;
        let node = account.items.remove(&place)?;
        self.starved.remove(&(place, id));
        self.len -= 1;
        if account.items.is_empty() {
            let deficit = account.deficit;
            self.accounts.remove(&id);
            leave_ring(&mut self.ring, id);
            self.leave(id, deficit);
        }
        Some(node)
    }

    pub fn pop(&mut self, mut gate: impl FnMut(&T) -> Verdict) -> Pop<T> {
        if let Some((place, account)) = self.starved.first().copied() {
            let verdict = self.node(account, place).map_or(Verdict::CloseClass, |node| gate(&node.item));
            return match verdict {
                Verdict::Start => self.start(account, place),
                Verdict::PassOver => Pop::HeldBack,
                Verdict::CloseClass => Pop::Nothing,
            };
        }
        let walk = self.walk(gate);
        let Some((account, place)) = self.choose(&walk.ready) else { return Pop::Nothing };
        for (other, owner) in walk.passed_over {
            let Some(node) = self.accounts.get_mut(&owner).and_then(|owner| owner.items.get_mut(&other)) else {
                continue;
            };
            node.passed_over += 1;
            if node.passed_over >= MAX_PASSED_OVER {
                self.starved.insert((other, owner));
            }
        }
        self.start(account, place)
    }

    /// Stops at the first account that can start without being paid.
    fn walk(&self, mut gate: impl FnMut(&T) -> Verdict) -> Walk {
        let mut walk = Walk { ready: Vec::new(), passed_over: Vec::new() };
        for id in &self.ring {
            let Some(account) = self.accounts.get(id) else { continue };
            for (place, node) in account.items.iter().take(LOOK_AHEAD) {
                match gate(&node.item) {
                    Verdict::Start => {
                        walk.ready.push((*id, *place));
                        break;
                    }
                    Verdict::PassOver => walk.passed_over.push((*place, *id)),
                    Verdict::CloseClass => return walk,
                }
            }
            if account.deficit > 0 && walk.ready.last().is_some_and(|(ready, _)| ready == id) {
                break;
            }
        }
        walk
    }

    fn choose(&mut self, ready: &[(AccountId, Place)]) -> Option<(AccountId, Place)> {
        let rich = |lane: &Self| {
            ready.iter().copied().find(|(id, _)| lane.accounts.get(id).is_some_and(|account| account.deficit > 0))
        };
        if let Some(found) = rich(self) {
            return Some(found);
        }
        let rounds = ready.iter().filter_map(|(id, _)| self.accounts.get(id)).map(Account::rounds_to_start).min()?;
        self.round = self.round.saturating_add(rounds);
        for (id, _) in ready {
            if let Some(account) = self.accounts.get_mut(id) {
                account.deficit = account.deficit.saturating_add(rounds.saturating_mul(account.quantum));
            }
        }
        rich(self)
    }

    fn start(&mut self, id: AccountId, place: Place) -> Pop<T> {
        let cost = self.node(id, place).map_or(1, |node| node.entry.cost.clamp(1, MAX_COST));
        if let Some(account) = self.accounts.get_mut(&id) {
            account.deficit = account.deficit.saturating_sub_unsigned(cost);
            if account.deficit <= 0 {
                leave_ring(&mut self.ring, id);
                self.ring.push_back(id);
            }
        }
        self.remove(id, place).map_or(Pop::Nothing, |node| Pop::Start(place, node))
    }

    pub fn item(&self, account: AccountId, place: Place) -> Option<&T> {
        self.node(account, place).map(|node| &node.item)
    }

    fn node(&self, account: AccountId, place: Place) -> Option<&Node<T>> {
        self.accounts.get(&account)?.items.get(&place)
    }

    /// What was saved is lost, what is owed is kept while others wait.
    fn leave(&mut self, id: AccountId, deficit: i64) {
        if self.accounts.is_empty() || self.debts.len() >= MAX_QUEUED {
            self.debts.clear();
        }
        if deficit < 0 && !self.accounts.is_empty() {
            self.debts.insert(id, (deficit, self.round));
        }
    }
}

/// The one that starts is nearly always the first.
fn leave_ring(ring: &mut VecDeque<AccountId>, id: AccountId) {
    if ring.front() == Some(&id) {
        ring.pop_front();
    } else {
        ring.retain(|other| *other != id);
    }
}

impl<T> Account<T> {
    fn rounds_to_start(&self) -> i64 {
        (-self.deficit).max(0) / self.quantum + 1
    }
}
