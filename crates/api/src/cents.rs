//! Holds: money and prices as they stand in answers: exact decimal JSON numbers.

use batchin_domain::{Amount, Balance, Rate};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// US cents, exact, possibly with a fraction.
#[derive(Clone, Debug, ToSchema)]
#[schema(value_type = f64, example = 0.00076)]
pub(crate) struct Cents(Box<RawValue>);

/// US dollars per one million tokens, exact.
#[derive(Clone, Debug, ToSchema)]
#[schema(value_type = f64, example = 0.02)]
pub(crate) struct DollarsPerMillion(Box<RawValue>);

/// US dollars for one of what is counted, exact.
#[derive(Clone, Debug, ToSchema)]
#[schema(value_type = f64, example = 0.003)]
pub(crate) struct Dollars(Box<RawValue>);

impl From<Rate> for Dollars {
    fn from(rate: Rate) -> Self {
        Self(number(rate.to_dollars_text()))
    }
}

impl Serialize for Dollars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl From<Amount> for Cents {
    fn from(amount: Amount) -> Self {
        Self(number(amount.to_cents_text()))
    }
}

impl From<Balance> for Cents {
    fn from(balance: Balance) -> Self {
        Self(number(balance.to_cents_text()))
    }
}

impl From<Rate> for DollarsPerMillion {
    fn from(rate: Rate) -> Self {
        Self(number(rate.to_dollars_per_million_text()))
    }
}

#[expect(clippy::expect_used, reason = "a sign, digits, a point and digits are a JSON number")]
fn number(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("decimal text is JSON")
}

impl Serialize for Cents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Serialize for DollarsPerMillion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}
