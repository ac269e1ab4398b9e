//! Holds: numbers, from and to their columns.

use batchin_db::Row;
use batchin_domain::Amount;

use crate::StoreError;

/// A count as its column has it: as far as that goes.
pub(crate) fn to_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count from its column.
pub(crate) fn unsigned(row: &Row, table: &'static str, column: &'static str) -> Result<u64, StoreError> {
    u64::try_from(row.get::<i64>(column)?).map_err(|_| StoreError::Corrupt { table, column })
}

/// Money from its column.
pub(crate) fn stored_amount(row: &Row, table: &'static str, column: &'static str) -> Result<Amount, StoreError> {
    Amount::from_nanos(row.get(column)?).ok_or(StoreError::Corrupt { table, column })
}
