//! Holds: a value that a statement is run with.

use std::error::Error;

use bytes::BytesMut;
use rusqlite::types::{self as sqlite, ToSqlOutput};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

/// A value, or that there is none: what it would be is known either way, since PostgreSQL asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `boolean`.
    Bool(Option<bool>),
    /// `smallint`.
    Small(Option<i16>),
    /// `integer`.
    Int(Option<i32>),
    /// `bigint`.
    Big(Option<i64>),
    /// `text`.
    Text(Option<String>),
    /// `uuid`, on SQLite its sixteen bytes.
    Uuid(Option<Uuid>),
    /// `bytea`, on SQLite `blob`.
    Bytes(Option<Vec<u8>>),
    /// An array of one kind, at least one of it. Only PostgreSQL has arrays.
    Many(Vec<Value>),
}

macro_rules! from {
    ($($of:ty => $variant:ident),+) => {$(
        impl From<$of> for Value {
            fn from(value: $of) -> Self {
                Self::$variant(Some(value.into()))
            }
        }

        impl From<Option<$of>> for Value {
            fn from(value: Option<$of>) -> Self {
                Self::$variant(value.map(Into::into))
            }
        }
    )+};
}
from!(bool => Bool, i16 => Small, i32 => Int, i64 => Big, String => Text, &str => Text, Uuid => Uuid, Vec<u8> => Bytes, &[u8] => Bytes);

impl Value {
    /// What PostgreSQL is told that it is.
    pub(crate) fn postgres_type(&self) -> Type {
        match self {
            Self::Bool(_) => Type::BOOL,
            Self::Small(_) => Type::INT2,
            Self::Int(_) => Type::INT4,
            Self::Big(_) => Type::INT8,
            Self::Text(_) => Type::TEXT,
            Self::Uuid(_) => Type::UUID,
            Self::Bytes(_) => Type::BYTEA,
            Self::Many(values) => values.first().map_or(Type::UNKNOWN, Self::postgres_array),
        }
    }

    fn postgres_array(&self) -> Type {
        match self {
            Self::Bool(_) => Type::BOOL_ARRAY,
            Self::Small(_) => Type::INT2_ARRAY,
            Self::Int(_) => Type::INT4_ARRAY,
            Self::Big(_) => Type::INT8_ARRAY,
            Self::Text(_) => Type::TEXT_ARRAY,
            Self::Uuid(_) => Type::UUID_ARRAY,
            Self::Bytes(_) => Type::BYTEA_ARRAY,
            Self::Many(_) => Type::UNKNOWN,
        }
    }
}

impl ToSql for Value {
    fn to_sql(&self, kind: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Bool(value) => value.to_sql(kind, out),
            Self::Small(value) => value.to_sql(kind, out),
            Self::Int(value) => value.to_sql(kind, out),
            Self::Big(value) => value.to_sql(kind, out),
            Self::Text(value) => value.to_sql(kind, out),
            Self::Uuid(value) => value.to_sql(kind, out),
            Self::Bytes(value) => value.to_sql(kind, out),
            Self::Many(values) => values.to_sql(kind, out),
        }
    }

    /// A statement is prepared for the values that it is run with.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Bool(value) => rusqlite::ToSql::to_sql(value),
            Self::Small(value) => rusqlite::ToSql::to_sql(value),
            Self::Int(value) => rusqlite::ToSql::to_sql(value),
            Self::Big(value) => rusqlite::ToSql::to_sql(value),
            Self::Text(value) => rusqlite::ToSql::to_sql(value),
            Self::Uuid(Some(value)) => Ok(ToSqlOutput::from(value.as_bytes().as_slice())),
            Self::Uuid(None) => Ok(ToSqlOutput::Owned(sqlite::Value::Null)),
            Self::Bytes(value) => rusqlite::ToSql::to_sql(value),
            Self::Many(_) => Err(rusqlite::Error::ToSqlConversionFailure("there are no arrays".into())),
        }
    }
}
