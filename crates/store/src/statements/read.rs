//! Holds: reading statements, each from one view of the database.

use batchin_db::{Row, Snapshot};
use batchin_domain::{
    AccountId, Balance, KeyId, Month, PriceVersion, Timestamp, TopupId, TransferId, ledger::Movement,
};
use uuid::Uuid;

use super::{
    NO_KEY, Statement, StatementHolder, StatementMonth, StatementMovement, StatementUsage, Statements,
    closing::{self, Links},
    codes_of_credit,
    cursor::{Cursor, current, cursor},
    of_account,
    piece::DAY_MICROS,
    signed,
};
use crate::{
    StoreError,
    stored::{stored, stored_amount, unsigned},
};

/// A month that has been written down.
struct Closed {
    month: Month,
    last_seq: i64,
    closing: i64,
}

/// A month, and the movements that are in it: those after the first number, to the second.
struct Place {
    month: StatementMonth,
    after: i64,
    last: i64,
}

impl Statements {
    /// The months of an account from its first movement on, newest first.
    pub async fn statements(&self, account: AccountId, now: Timestamp) -> Result<Vec<StatementMonth>, StoreError> {
        self.catch_up(account, now).await?;
        let places = places(&self.db.snapshot().await?, account, now).await?;
        Ok(places.into_iter().rev().map(|place| place.month).collect())
    }

    /// A month's statement; `None` where the account has no such month.
    pub async fn statement(
        &self,
        account: AccountId,
        month: Month,
        now: Timestamp,
    ) -> Result<Option<Statement>, StoreError> {
        self.catch_up(account, now).await?;
        let view = self.db.snapshot().await?;
        let places = places(&view, account, now).await?;
        let Some(place) = places.into_iter().find(|place| place.month.month == month) else { return Ok(None) };
        let (holder, links) = papers(&view, account, &place).await?;
        let movements = movements(&view, account, (&place, &links)).await?;
        let usage = usage(&view, account, month).await?;
        Ok(Some(Statement { month: place.month, holder, movements, usage }))
    }
}

/// All months, oldest first: those that were written down, those between in which nothing moved, and the open one.
async fn places(view: &Snapshot, account: AccountId, now: Timestamp) -> Result<Vec<Place>, StoreError> {
    let Some(cursor) = cursor(view, account).await? else { return Ok(Vec::new()) };
    let sql = "SELECT month, last_seq, closing FROM statement_month WHERE account_id = $1 ORDER BY month";
    let rows = view.all(sql.to_owned(), of_account(account, [])).await?;
    let closed = |row: &Row| {
        let month = Month::from_index(row.get("month")?);
        Ok(Closed { month, last_seq: row.get("last_seq")?, closing: row.get("closing")? })
    };
    let closed: Vec<Closed> = rows.iter().map(closed).collect::<Result<_, StoreError>>()?;
    Ok(in_a_row(&closed, cursor, current(cursor, now)))
}

fn in_a_row(closed: &[Closed], open: Cursor, until: Month) -> Vec<Place> {
    let mut places = Vec::new();
    let (mut month, mut balance, mut after) = (closed.first().map_or(open.month, |one| one.month), 0, 0);
    let mut closed = closed.iter().peekable();
    while month <= until {
        let (closing, last) = match closed.next_if(|one| one.month == month) {
            Some(one) => (one.closing, one.last_seq),
            None if month == open.month => (open.balance, open.seq),
            None => (balance, after),
        };
        let (opening, now) = (Balance::from_nanos(balance), Balance::from_nanos(closing));
        let month_place = StatementMonth { month, opening, closing: now, closed: month < open.month };
        places.push(Place { month: month_place, after, last });
        (month, balance, after) = (month.next(), closing, last);
    }
    places
}

/// Of a month that was written down what was known then, else what is known now.
async fn papers(view: &Snapshot, account: AccountId, place: &Place) -> Result<(StatementHolder, Links), StoreError> {
    let sql = "SELECT holder, links FROM statement_month WHERE account_id = $1 AND month <= $2 \
               ORDER BY month DESC LIMIT 1";
    let rows = view.all(sql.to_owned(), of_account(account, [place.month.month.index().into()])).await?;
    let (true, Some(row)) = (place.month.closed, rows.first()) else {
        return closing::so_far(view, account, (place.after, place.last)).await;
    };
    let corrupt = |column| StoreError::Corrupt { table: "statement_month", column };
    let (holder, links): (String, String) = (row.get("holder")?, row.get("links")?);
    Ok((
        serde_json::from_str(&holder).map_err(|_| corrupt("holder"))?,
        serde_json::from_str(&links).map_err(|_| corrupt("links"))?,
    ))
}

async fn movements(
    view: &Snapshot,
    account: AccountId,
    (place, links): (&Place, &Links),
) -> Result<Vec<StatementMovement>, StoreError> {
    let sql = format!(
        "SELECT id, movement, amount, reference, reason, topup_id, reverses, created_at FROM transfer \
         WHERE account_id = $1 AND seq > $2 AND seq <= $3 AND movement IN ({}) ORDER BY seq",
        codes_of_credit()
    );
    let rows = view.all(sql, of_account(account, [place.after.into(), place.last.into()])).await?;
    let movement = |row: &Row| {
        let movement: Movement = stored(row, "transfer", "movement")?;
        let amount = signed(movement, stored_amount(row, "transfer", "amount")?);
        let (topup, reverses): (Option<Uuid>, Option<Uuid>) = (row.get("topup_id")?, row.get("reverses")?);
        Ok(StatementMovement {
            id: TransferId::new(row.get("id")?),
            movement,
            amount: Balance::from_nanos(amount),
            reference: row.get("reference")?,
            reason: row.get("reason")?,
            links: topup.and_then(|topup| links.get(&topup)).cloned().unwrap_or_default(),
            topup: topup.map(TopupId::new),
            reverses: reverses.map(TransferId::new),
            created_at: Timestamp::from_micros(row.get("created_at")?),
        })
    };
    rows.iter().map(movement).collect()
}

async fn usage(view: &Snapshot, account: AccountId, month: Month) -> Result<Vec<StatementUsage>, StoreError> {
    const TABLE: &str = "statement_usage";
    let sql = "SELECT day, key_id, model, price_version, requests, input_tokens, output_tokens, charged \
               FROM statement_usage WHERE account_id = $1 AND month = $2 \
               ORDER BY day, key_id, model, price_version";
    let rows = view.all(sql.to_owned(), of_account(account, [month.index().into()])).await?;
    let usage = |row: &Row| {
        let (day, key): (i64, Uuid) = (row.get("day")?, row.get("key_id")?);
        Ok(StatementUsage {
            day: Timestamp::from_micros(day.saturating_mul(DAY_MICROS)),
            key: (key != NO_KEY).then(|| KeyId::new(key)),
            model: row.get("model")?,
            price_version: PriceVersion(row.get("price_version")?),
            requests: unsigned(row, TABLE, "requests")?,
            input_tokens: unsigned(row, TABLE, "input_tokens")?,
            output_tokens: unsigned(row, TABLE, "output_tokens")?,
            charged: Balance::from_nanos(row.get("charged")?),
        })
    };
    rows.iter().map(usage).collect()
}
