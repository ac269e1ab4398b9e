//! Holds: what a piece of an account's movements comes to. Pure.

use std::collections::{BTreeMap, HashMap};

use batchin_domain::{Amount, Month, Timestamp, ledger::Movement};
use uuid::Uuid;

use super::{NO_KEY, cursor::Cursor, requests::Request, signed};
use crate::StoreError;

pub(super) const DAY_MICROS: i64 = 86_400_000_000;
/// A request that nobody has ended for so long is counted as it stands: its node has died. In microseconds.
const LEFT_AFTER: i64 = 7 * DAY_MICROS;

/// A movement with a place in its account's order.
pub(super) struct Transfer {
    pub(super) seq: i64,
    pub(super) movement: Movement,
    pub(super) amount: Amount,
    pub(super) request: Option<Uuid>,
    pub(super) created_at: Timestamp,
}

/// A request of which not all was charged, or that ran, when its charges were added up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) came_at: i64,
    /// Of its last charge.
    pub(super) day: i64,
    /// All its charges so far, in nano-dollars.
    pub(super) charged: i64,
}

/// What is added up by: month, day, key, model, version of the prices.
pub(super) type Line = (i64, i64, Uuid, String, i64);

/// Sums to be added.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) requests: i64,
    pub(super) input_tokens: i64,
    pub(super) output_tokens: i64,
    pub(super) charged: i64,
}

/// A month that has ended with this movement and this balance.
pub(super) struct Ended {
    pub(super) month: Month,
    pub(super) last_seq: i64,
    pub(super) closing: i64,
}

/// What a piece comes to.
pub(super) struct Piece {
    pub(super) cursor: Cursor,
    pub(super) ended: Vec<Ended>,
    pub(super) sums: BTreeMap<Line, Sum>,
    /// Requests to be counted later.
    pub(super) waiting: HashMap<Uuid, Waiting>,
    /// Requests that were to be counted later and need not be any more.
    pub(super) done: Vec<Uuid>,
}

/// Where a request's last charge stands.
struct Seen {
    month: i64,
    waiting: Waiting,
    was_waiting: bool,
}

/// Adds up movements that follow the cursor.
pub(super) fn add_up(
    mut cursor: Cursor,
    transfers: &[Transfer],
    (requests, waiting): (&HashMap<Uuid, Request>, HashMap<Uuid, Waiting>),
    now: Timestamp,
) -> Result<Piece, StoreError> {
    let open = cursor.month;
    let mut seen: HashMap<Uuid, Seen> = HashMap::with_capacity(waiting.len() + transfers.len());
    for (id, mut waiting) in waiting {
        waiting.day = waiting.day.max(first_day(open));
        seen.insert(id, Seen { month: open.index(), waiting, was_waiting: true });
    }
    let (mut ended, mut sums): (Vec<Ended>, BTreeMap<Line, Sum>) = (Vec::new(), BTreeMap::new());
    for transfer in transfers {
        if transfer.created_at.month() > cursor.month {
            ended.push(Ended { month: cursor.month, last_seq: cursor.seq, closing: cursor.balance });
            cursor.month = transfer.created_at.month();
        }
        let amount = signed(transfer.movement, transfer.amount);
        cursor.balance = cursor.balance.saturating_add(amount);
        cursor.seq = transfer.seq;
        if transfer.movement.is_of_credit() {
            continue;
        }
        let day = transfer.created_at.micros().div_euclid(DAY_MICROS).max(first_day(cursor.month));
        let missing = StoreError::Corrupt { table: "transfer", column: "request_id" };
        let Some((id, request)) = transfer.request.and_then(|id| Some((id, requests.get(&id)?))) else {
            return Err(missing);
        };
        let charged = amount.saturating_neg();
        let sum = sums.entry(line(cursor.month.index(), day, request)).or_default();
        sum.charged = sum.charged.saturating_add(charged);
        let fresh = Waiting { came_at: request.came_at, day, charged: 0 };
        let one = seen.entry(id).or_insert(Seen { month: 0, waiting: fresh, was_waiting: false });
        one.month = cursor.month.index();
        one.waiting.day = day;
        one.waiting.charged = one.waiting.charged.saturating_add(charged);
    }
    let mut piece = Piece { cursor, ended, sums, waiting: HashMap::new(), done: Vec::new() };
    piece.count(seen, requests, now);
    Ok(piece)
}

impl Piece {
    /// A request is counted once, with its tokens, where the charge stands that completed it.
    fn count(&mut self, seen: HashMap<Uuid, Seen>, requests: &HashMap<Uuid, Request>, now: Timestamp) {
        for (id, Seen { month, waiting, was_waiting }) in seen {
            let Some(request) = requests.get(&id) else { continue };
            let is_left = now.micros().saturating_sub(request.came_at) > LEFT_AFTER;
            if waiting.charged == request.cost && (request.has_ended || is_left) {
                let sum = self.sums.entry(line(month, waiting.day, request)).or_default();
                let more = |sum: i64, count: u64| sum.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
                sum.requests = sum.requests.saturating_add(1);
                sum.input_tokens = more(sum.input_tokens, request.input_tokens);
                sum.output_tokens = more(sum.output_tokens, request.output_tokens);
            // What goes on after it was counted comes to nothing in the end.
            } else if waiting.charged != 0 || request.cost == 0 {
                self.waiting.insert(id, waiting);
                continue;
            }
            if was_waiting {
                self.done.push(id);
            }
        }
    }
}

fn line(month: i64, day: i64, request: &Request) -> Line {
    let key = request.key.map_or(NO_KEY, batchin_domain::KeyId::uuid);
    (month, day, key, request.model.clone(), request.price_version.0)
}

/// In days since the epoch.
pub(super) fn first_day(month: Month) -> i64 {
    month.start().micros().div_euclid(DAY_MICROS)
}
