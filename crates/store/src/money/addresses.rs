//! Holds: the addresses that accounts are paid at on chains: one of each account, for all chains.

use batchin_db::{Rerun, Row, WriteTx, exactly, retried};
use batchin_domain::{AccountId, Timestamp};

use crate::{Deposits, StoreError, stored::to_i64};

/// Names the counter of addresses.
const COUNTER: &str = "deposit_address";

/// An address that an account is paid at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepositAddress {
    /// Whose.
    pub account: AccountId,
    /// The fingerprint of the extended public key that it is derived from.
    pub xpub: String,
    /// Which child; of all keys together each index is given once.
    pub index: u32,
    /// As people write it.
    pub address: String,
}

const SELECT: &str = "SELECT account_id, xpub, idx, address FROM deposit_address";

impl Deposits {
    /// An account's address of this key; the first time it gets one, which `derive` makes of its index.
    pub async fn deposit_address<E>(
        &self,
        (account, xpub): (AccountId, &str),
        derive: impl Fn(u32) -> Result<String, E> + Sync,
        now: Timestamp,
    ) -> Result<Result<DepositAddress, E>, StoreError>
    where
        E: Send,
    {
        let known =
            self.db.one(format!("{SELECT} WHERE account_id = $1 AND xpub = $2"), [account.uuid().into(), xpub.into()]);
        if let Some(row) = known.await? {
            return address(&row).map(Ok);
        }
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            // Numbers are given one after the other, so that whoever has read up to one has read all before.
            let index = next_index(&tx).await?;
            let sql = format!("{SELECT} WHERE account_id = $1 AND xpub = $2");
            if let Some(row) = tx.one(sql, [account.uuid().into(), xpub.into()]).await? {
                return address(&row).map(Ok);
            }
            let text = match derive(index) {
                Ok(text) => text,
                Err(cause) => return Ok(Err(cause)),
            };
            let sql =
                "INSERT INTO deposit_address (account_id, xpub, idx, address, created_at) VALUES ($1,$2,$3,$4,$5)";
            let values = [
                account.uuid().into(),
                xpub.into(),
                i64::from(index).into(),
                text.as_str().into(),
                now.micros().into(),
            ];
            exactly(tx.run(sql, values).await?, 1, "deposit_address")?;
            tx.commit().await?;
            Ok(Ok(DepositAddress { account, xpub: xpub.to_owned(), index, address: text }))
        })
        .await
    }

    /// Addresses from this index on, in their order.
    pub async fn addresses_from(&self, index: u64) -> Result<Vec<DepositAddress>, StoreError> {
        let sql = format!("{SELECT} WHERE idx >= $1 ORDER BY idx");
        self.db.all(sql, [to_i64(index).into()]).await?.iter().map(address).collect()
    }
}

async fn next_index(tx: &WriteTx) -> Result<u32, StoreError> {
    tx.run(
        "INSERT INTO money_cursor (name, value, due_at) VALUES ($1, 1, 0) \
         ON CONFLICT (name) DO UPDATE SET value = money_cursor.value + 1",
        [COUNTER.into()],
    )
    .await?;
    let row = tx.one("SELECT value FROM money_cursor WHERE name = $1", [COUNTER.into()]).await?;
    let row = row.ok_or(StoreError::RowCount { table: "money_cursor", expected: 1, touched: 0 })?;
    u32::try_from(row.get::<i64>("value")? - 1).map_err(|_| corrupt("value"))
}

fn address(row: &Row) -> Result<DepositAddress, StoreError> {
    Ok(DepositAddress {
        account: AccountId::new(row.get("account_id")?),
        xpub: row.get("xpub")?,
        index: u32::try_from(row.get::<i64>("idx")?).map_err(|_| corrupt("idx"))?,
        address: row.get("address")?,
    })
}

const fn corrupt(column: &'static str) -> StoreError {
    StoreError::Corrupt { table: "deposit_address", column }
}
