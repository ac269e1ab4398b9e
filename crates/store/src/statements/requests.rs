//! Holds: finding the usage rows of requests that were charged.
//!
//! A usage row is named by account, time and request, and a charge knows its request alone: an index by request would
//! cost every request for what is asked once a month. A request's id tells nearly when it came in, and its charge comes
//! soon after.

use std::collections::HashMap;

use batchin_db::{Row, Snapshot};
use batchin_domain::{AccountId, KeyId, PriceVersion};
use uuid::Uuid;

use super::of_account;
use crate::{
    Outcome, StoreError,
    stored::{stored, unsigned},
};

/// What a statement needs of a usage row.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) key: Option<KeyId>,
    pub(super) model: String,
    pub(super) price_version: PriceVersion,
    pub(super) input_tokens: u64,
    pub(super) output_tokens: u64,
    pub(super) cost: i64,
    pub(super) has_ended: bool,
    pub(super) came_at: i64,
}

/// Rows read at once.
const PAGE: i64 = 10_000;
/// How far a request's time is from that in its id, both from one clock, unless it waited. In microseconds.
const ID_SLACK: i64 = 2_000_000;
/// How long before its charge a request came in, unless it took longer than nearly all do. In microseconds.
const CHARGED_WITHIN: i64 = 3_600_000_000;
/// Times further apart than this are looked for apart, so that one old request does not have everything since it read.
const APART: i64 = 600_000_000;

/// The usage rows of requests, each of which comes with the time of its first charge.
pub(super) async fn of(
    view: &Snapshot,
    account: AccountId,
    wanted: &HashMap<Uuid, i64>,
) -> Result<HashMap<Uuid, Request>, StoreError> {
    let mut search = Search { view, account, wanted, found: HashMap::with_capacity(wanted.len()) };
    let by_id = wanted.keys().filter_map(|id| id_micros(*id)).map(|at| (at - ID_SLACK, at + ID_SLACK)).collect();
    search.within(by_id).await?;
    let missing = wanted.iter().filter(|(id, _)| !search.found.contains_key(*id));
    let by_charge = missing.map(|(_, at)| (at.saturating_sub(CHARGED_WITHIN), *at)).collect();
    search.within(by_charge).await?;
    if search.found.len() < wanted.len() {
        search.scan(0, i64::MAX).await?;
    }
    Ok(search.found)
}

struct Search<'a> {
    view: &'a Snapshot,
    account: AccountId,
    wanted: &'a HashMap<Uuid, i64>,
    found: HashMap<Uuid, Request>,
}

impl Search<'_> {
    /// Looks in stretches of time, those that lie near each other as one.
    async fn within(&mut self, mut stretches: Vec<(i64, i64)>) -> Result<(), StoreError> {
        stretches.sort_unstable();
        let mut whole: Vec<(i64, i64)> = Vec::new();
        for (from, to) in stretches {
            match whole.last_mut() {
                Some(last) if from <= last.1.saturating_add(APART) => last.1 = last.1.max(to),
                _ => whole.push((from, to)),
            }
        }
        for (from, to) in whole {
            self.scan(from, to).await?;
        }
        Ok(())
    }

    async fn scan(&mut self, from: i64, to: i64) -> Result<(), StoreError> {
        let (mut at, mut after) = (from, Uuid::nil());
        while self.found.len() < self.wanted.len() {
            let rows = self
                .view
                .all(
                    "SELECT request_id, key_id, model, price_version, input_tokens, output_tokens, cost_nano, outcome, \
                     created_at FROM usage_log WHERE account_id = $1 AND (created_at, request_id) > ($2, $3) \
                     AND created_at <= $4 ORDER BY created_at, request_id LIMIT $5"
                        .to_owned(),
                    of_account(self.account, [at.into(), after.into(), to.into(), PAGE.into()]),
                )
                .await?;
            for row in &rows {
                (at, after) = (row.get("created_at")?, row.get("request_id")?);
                if self.wanted.contains_key(&after) {
                    self.found.insert(after, request(row)?);
                }
            }
            if (rows.len() as u64) < PAGE.unsigned_abs() {
                break;
            }
        }
        Ok(())
    }
}

fn request(row: &Row) -> Result<Request, StoreError> {
    let outcome: Outcome = stored(row, "usage_log", "outcome")?;
    Ok(Request {
        key: row.get::<Option<_>>("key_id")?.map(KeyId::new),
        model: row.get("model")?,
        price_version: PriceVersion(row.get("price_version")?),
        input_tokens: unsigned(row, "usage_log", "input_tokens")?,
        output_tokens: unsigned(row, "usage_log", "output_tokens")?,
        cost: row.get("cost_nano")?,
        has_ended: outcome != Outcome::Running,
        came_at: row.get("created_at")?,
    })
}

fn id_micros(id: Uuid) -> Option<i64> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    i64::try_from(seconds).ok()?.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1_000))
}
