//! Holds: numbers and what they stand for, from and to their columns; ids that follow from what they name.

use batchin_db::{Row, Value};
use batchin_domain::{Amount, Counts, Measure, stored::Stored};

use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

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

/// What a column's number stands for.
pub(crate) fn stored<T: Stored>(row: &Row, table: &'static str, column: &'static str) -> Result<T, StoreError> {
    T::from_code(row.get(column)?).ok_or(StoreError::Corrupt { table, column })
}

/// What a column's number stands for, where there is one.
pub(crate) fn stored_if<T: Stored>(
    row: &Row,
    table: &'static str,
    column: &'static str,
) -> Result<Option<T>, StoreError> {
    let code: Option<i16> = row.get(column)?;
    code.map(|code| T::from_code(code).ok_or(StoreError::Corrupt { table, column })).transpose()
}

/// The column that counts a measure: in the usage log, and of tasks and batches. What is counted of few requests
/// ([`Measure::made`]) is null in the others.
pub(crate) const fn column(measure: Measure) -> &'static str {
    match measure {
        Measure::PromptTokens => "input_tokens",
        Measure::CachedTokens => "cached_tokens",
        Measure::CacheWriteTokens => "cache_write_tokens",
        Measure::CompletionTokens => "output_tokens",
        Measure::Characters => "characters",
        Measure::AudioMs => "audio_ms",
        Measure::Images => "images",
        Measure::Pixels => "pixels",
        Measure::VideoMs => "video_ms",
        Measure::Searches => "searches",
    }
}

/// The columns of what is counted of few requests.
pub(crate) fn made_columns() -> impl Iterator<Item = &'static str> {
    Measure::made().map(column)
}

/// Their values.
pub(crate) fn made_values(counts: Counts) -> impl Iterator<Item = Value> {
    Measure::made().map(move |measure| to_i64(counts.of(measure)).into())
}

/// A count from its column, which may be null.
pub(crate) fn counted(row: &Row, table: &'static str, column: &'static str) -> Result<u64, StoreError> {
    let stored: Option<i64> = row.get(column)?;
    u64::try_from(stored.unwrap_or(0)).map_err(|_| StoreError::Corrupt { table, column })
}

/// Counts of which each is read from its column.
pub(crate) fn counts_by(mut read: impl FnMut(&'static str) -> Result<u64, StoreError>) -> Result<Counts, StoreError> {
    let read = |counts: Counts, measure| Ok(counts.with(measure, read(column(measure))?));
    Measure::ALL.into_iter().try_fold(Counts::NONE, read)
}

/// A UUID (version 8) from the hash of what it names.
pub(crate) fn named(parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}
