//! Holds: questions about usage.

use std::time::Duration;

use batchin_db::{Row, Value};
use batchin_domain::{AccountId, Amount, BatchId, CallKind, Counts, KeyId, Measure, RequestId, Timestamp};

use crate::{
    Outcome, StoreError, Usage, UsageMarks,
    stored::{column, counted, counts_by, stored, stored_amount},
};

/// Which usage is asked about.
#[derive(Clone, Debug)]
pub struct UsageFilter {
    /// Whose.
    pub account: AccountId,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub to: Option<Timestamp>,
    /// Made with this key.
    pub key: Option<KeyId>,
    /// Of this model.
    pub model: Option<String>,
}

/// Part of a list.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// How many, at most.
    pub limit: u32,
    /// How many to pass over.
    pub offset: u32,
}

/// One request's usage.
#[derive(Clone, Debug)]
pub struct UsageRow {
    /// Names the request.
    pub request: RequestId,
    /// The key that it came with.
    pub key: Option<KeyId>,
    /// The model as asked for.
    pub model: String,
    /// The kind of call; `None` if this version does not know it.
    pub call: Option<CallKind>,
    /// The class's stored number.
    pub class: i16,
    /// The batch that it ran for.
    pub batch: Option<BatchId>,
    /// What it consumed.
    pub counts: Counts,
    /// What it cost.
    pub cost: Amount,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether we counted because the upstream did not.
    pub estimated: bool,
    /// What is odd about its counts.
    pub marks: UsageMarks,
    /// When it came in.
    pub created_at: Timestamp,
    /// Time from admission to the end.
    pub latency: Duration,
    /// Time to first token.
    pub ttft: Option<Duration>,
}

/// Sums over requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many requests.
    pub requests: u64,
    /// What they consumed.
    pub counts: Counts,
    /// What they cost, in nano-dollars.
    pub cost_nanos: i64,
}

/// Sums over one model's requests.
#[derive(Clone, Debug)]
pub struct ModelTotals {
    /// The model.
    pub model: String,
    /// Its sums.
    pub totals: Totals,
}

/// Sums over the requests of one stretch of time.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Where the stretch begins.
    pub start: Timestamp,
    /// Its sums.
    pub totals: Totals,
}

/// How far a request's time and the one in its id are apart, at most, where one clock gave both: a long wait in between.
const ID_CLOCK_MICROS: i64 = 3_600_000_000;

/// Sums of rows. Tokens are summed in two halves, which no number of rows makes overflow on either database. What is
/// charged is bounded by what was credited.
fn sums() -> String {
    let halves = Measure::ALL.map(column).map(|column| {
        format!(
            "CAST(coalesce(sum({column} >> 32), 0) AS bigint) AS {column}_high, \
             CAST(coalesce(sum({column} & 4294967295), 0) AS bigint) AS {column}_low"
        )
    });
    format!("count(*) AS requests, {}, CAST(coalesce(sum(cost_nano), 0) AS bigint) AS cost", halves.join(", "))
}

fn condition(filter: &UsageFilter) -> (String, Vec<Value>) {
    let mut sql = "account_id = $1".to_owned();
    let mut values: Vec<Value> = vec![filter.account.uuid().into()];
    let mut and = |clause: &str, value: Value| {
        values.push(value);
        sql.push_str(&format!(" AND {clause} ${}", values.len()));
    };
    if let Some(from) = filter.from {
        and("created_at >=", from.micros().into());
    }
    if let Some(to) = filter.to {
        and("created_at <", to.micros().into());
    }
    if let Some(key) = filter.key {
        and("key_id =", key.uuid().into());
    }
    if let Some(model) = &filter.model {
        and("model =", model.as_str().into());
    }
    (sql, values)
}

fn count(row: &Row, column: &'static str) -> Result<u64, StoreError> {
    let stored: i64 = row.get(column)?;
    u64::try_from(stored).map_err(|_| StoreError::Corrupt { table: "usage_log", column })
}

fn micros(stored: i64) -> Duration {
    Duration::from_micros(u64::try_from(stored).unwrap_or(0))
}

/// A sum of two halves, or the largest number that clients can be sent.
fn halves(high: u64, low: u64) -> u64 {
    let sum = (u128::from(high) << 32) + u128::from(low);
    u64::try_from(sum).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs())
}

fn totals(row: &Row) -> Result<Totals, StoreError> {
    let half = |column, half| {
        let sum: i64 = row.get(&format!("{column}_{half}"))?;
        u64::try_from(sum).map_err(|_| StoreError::Corrupt { table: "usage_log", column })
    };
    Ok(Totals {
        requests: count(row, "requests")?,
        counts: counts_by(|column| Ok(halves(half(column, "high")?, half(column, "low")?)))?,
        cost_nanos: row.get("cost")?,
    })
}

fn usage_row(row: &Row) -> Result<UsageRow, StoreError> {
    Ok(UsageRow {
        request: RequestId::new(row.get("request_id")?),
        key: row.get::<Option<_>>("key_id")?.map(KeyId::new),
        model: row.get("model")?,
        call: CallKind::from_code(row.get("endpoint")?),
        class: row.get("class")?,
        batch: row.get::<Option<_>>("batch_id")?.map(BatchId::new),
        counts: counts_by(|column| counted(row, "usage_log", column))?,
        cost: stored_amount(row, "usage_log", "cost_nano")?,
        outcome: stored(row, "usage_log", "outcome")?,
        estimated: row.get("estimated")?,
        marks: UsageMarks::from_code(row.get("marks")?),
        created_at: Timestamp::from_micros(row.get("created_at")?),
        latency: micros(row.get("latency_us")?),
        ttft: row.get::<Option<i64>>("ttft_us")?.map(micros),
    })
}

/// What a row of the log is read from.
const ROW: &str = "request_id, key_id, model, endpoint, class, batch_id, input_tokens, output_tokens, cached_tokens, \
     cache_write_tokens, characters, audio_ms, images, pixels, video_ms, searches, cost_nano, outcome, estimated, marks, \
     created_at, latency_us, ttft_us";

impl Usage {
    /// Requests one by one, newest first.
    pub async fn usage_logs(&self, filter: &UsageFilter, page: Page) -> Result<Vec<UsageRow>, StoreError> {
        let (condition, mut values) = condition(filter);
        values.extend([i64::from(page.limit).into(), i64::from(page.offset).into()]);
        let sql = format!(
            "SELECT {ROW} FROM usage_log WHERE {condition} ORDER BY created_at DESC, request_id DESC LIMIT ${} OFFSET ${}",
            values.len() - 1,
            values.len()
        );
        self.db.all(sql, values).await?.iter().map(usage_row).collect()
    }

    /// Requests one by one, newest first, that come after this one in that order, whatever has come in since. `None`: the
    /// account has no such request.
    pub async fn usage_logs_after(
        &self,
        filter: &UsageFilter,
        after: RequestId,
        limit: u32,
    ) -> Result<Option<Vec<UsageRow>>, StoreError> {
        let Some(at) = self.usage_time(filter.account, after).await? else { return Ok(None) };
        let (condition, mut values) = condition(filter);
        values.extend([at.into(), after.uuid().into(), i64::from(limit).into()]);
        let next = values.len();
        let sql = format!(
            "SELECT {ROW} FROM usage_log WHERE {condition} AND (created_at, request_id) < (${}, ${}) ORDER BY created_at DESC, request_id DESC LIMIT ${next}",
            next - 2,
            next - 1
        );
        self.db.all(sql, values).await?.iter().map(usage_row).collect::<Result<_, _>>().map(Some)
    }

    /// When a request came in. Its row is named by that time, which its id nearly tells.
    async fn usage_time(&self, account: AccountId, request: RequestId) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT created_at FROM usage_log WHERE account_id = $1 AND request_id = $2 \
                   AND created_at BETWEEN $3 AND $4";
        let made = request.uuid().get_timestamp().map(|at| at.to_unix());
        let made = made.and_then(|(seconds, nanos)| {
            i64::try_from(seconds).ok()?.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1_000))
        });
        // Where two clocks are apart, all of the account's rows are looked at.
        let near = made.map(|made| (made.saturating_sub(ID_CLOCK_MICROS), made.saturating_add(ID_CLOCK_MICROS)));
        for (from, to) in near.into_iter().chain([(0, i64::MAX)]) {
            let row = self.db.one(sql, [account.uuid().into(), request.uuid().into(), from.into(), to.into()]).await?;
            if let Some(row) = row {
                return Ok(Some(row.get("created_at")?));
            }
        }
        Ok(None)
    }

    /// Sums over all of it.
    pub async fn usage_totals(&self, filter: &UsageFilter) -> Result<Totals, StoreError> {
        let (condition, values) = condition(filter);
        let row = self.db.one(format!("SELECT {} FROM usage_log WHERE {condition}", sums()), values).await?;
        row.map_or(Ok(Totals::default()), |row| totals(&row))
    }

    /// Sums per model, the costliest first.
    pub async fn usage_by_model(&self, filter: &UsageFilter) -> Result<Vec<ModelTotals>, StoreError> {
        let (condition, values) = condition(filter);
        let sums = sums();
        let sql =
            format!("SELECT model, {sums} FROM usage_log WHERE {condition} GROUP BY model ORDER BY cost DESC, model");
        let rows = self.db.all(sql, values).await?;
        rows.iter().map(|row| Ok(ModelTotals { model: row.get("model")?, totals: totals(row)? })).collect()
    }

    /// Sums per stretch of time, oldest first; stretches without usage are left out. At most `limit`, the newest.
    pub async fn usage_series(
        &self,
        filter: &UsageFilter,
        width: Duration,
        limit: u32,
    ) -> Result<Vec<Bucket>, StoreError> {
        let (condition, mut values) = condition(filter);
        let width = i64::try_from(width.as_micros()).unwrap_or(i64::MAX).max(1);
        values.push(i64::from(limit).into());
        let sql = format!(
            "SELECT created_at / {width} * {width} AS start, {sums} FROM usage_log WHERE {condition} \
             GROUP BY created_at / {width} * {width} ORDER BY start DESC LIMIT ${}",
            values.len(),
            sums = sums()
        );
        let rows = self.db.all(sql, values).await?;
        rows.iter()
            .rev()
            .map(|row| Ok(Bucket { start: Timestamp::from_micros(row.get("start")?), totals: totals(row)? }))
            .collect()
    }
}
