//! Holds: what a payer signed, and whether it is what was asked for. Decided before anybody is asked to carry it out.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{SCHEME, VERSION, offer::Requirement};
use crate::{address::Address, hash::Hash};

/// Longest header, in bytes: a signature of a smart wallet with the call that would make it takes some thousands.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// What is signed must be good for so much longer, in seconds: less is over before it is in a block.
const LEAST_LEFT_SECONDS: i64 = 6;

/// A text is no payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaymentForm {
    /// It is not what x402 puts into a header.
    #[error("it must be base64 of a JSON object with `x402Version`, `accepted` and `payload`")]
    Unreadable,
    /// Of another version.
    #[error("its `x402Version` must be 2")]
    Version,
    /// By another way of paying than the one that was offered.
    #[error("its scheme must be `exact`, signed as TransferWithAuthorization (EIP-3009)")]
    Scheme,
    /// A member is not what it must be.
    #[error("its `{member}` must be {must}")]
    Member {
        /// Which.
        member: &'static str,
        /// What it must be.
        must: &'static str,
    },
}

/// A payment is not one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PaymentFault {
    /// Of a chain that is not offered.
    #[error("it is for a chain that was not offered")]
    Network,
    /// Of another token.
    #[error("it is in another token than the one that was offered")]
    Asset,
    /// To somebody else.
    #[error("it pays another address than this account's own")]
    PayTo,
    /// What is signed is not what is said to be accepted.
    #[error("the amount that was signed is not the one that was accepted")]
    Amount,
    /// Too little.
    #[error("it is too little")]
    Underpaid {
        /// What it would have to be at least, in base units.
        least: u128,
    },
    /// Its time is over, or nearly.
    #[error("it has expired, or does within seconds")]
    Expired,
    /// Its time is yet to come.
    #[error("it is not valid yet")]
    TooEarly,
}

impl PaymentFault {
    /// In the word that facilitators have for it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Network => "invalid_exact_evm_network_mismatch",
            Self::Asset => "invalid_exact_evm_asset_mismatch",
            Self::PayTo => "invalid_exact_evm_recipient_mismatch",
            Self::Amount => "invalid_exact_evm_payload_authorization_value_mismatch",
            Self::Underpaid { .. } => "invalid_exact_evm_authorization_value",
            Self::Expired => "invalid_exact_evm_payload_authorization_valid_before",
            Self::TooEarly => "invalid_exact_evm_payload_authorization_valid_after",
        }
    }
}

/// What a payer signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    network: String,
    asset: Address,
    pay_to: Address,
    accepted: u128,
    from: Address,
    to: Address,
    value: u128,
    valid_after: u64,
    valid_before: u64,
    nonce: Hash,
    signature: String,
}

impl Payment {
    /// What the header `PAYMENT-SIGNATURE` says. Members that are not known are let be.
    pub fn parse(header: &[u8]) -> Result<Self, PaymentForm> {
        if header.len() > MAX_HEADER_BYTES {
            return Err(PaymentForm::Unreadable);
        }
        let json = STANDARD.decode(header).map_err(|_| PaymentForm::Unreadable)?;
        let versioned: Versioned = serde_json::from_slice(&json).map_err(|_| PaymentForm::Unreadable)?;
        if versioned.x402_version != VERSION {
            return Err(PaymentForm::Version);
        }
        let told: Told = serde_json::from_slice(&json).map_err(|_| PaymentForm::Unreadable)?;
        let scheme = (told.accepted.scheme == SCHEME).then_some(told.payload);
        let signed: Signed =
            serde_json::from_value(scheme.ok_or(PaymentForm::Scheme)?).map_err(|_| PaymentForm::Scheme)?;
        let Signed { signature, authorization: allowed } = signed;
        Ok(Self {
            network: told.accepted.network,
            asset: address("accepted.asset", &told.accepted.asset)?,
            pay_to: address("accepted.payTo", &told.accepted.pay_to)?,
            accepted: number("accepted.amount", &told.accepted.amount)?,
            from: address("payload.authorization.from", &allowed.from)?,
            to: address("payload.authorization.to", &allowed.to)?,
            value: number("payload.authorization.value", &allowed.value)?,
            valid_after: number("payload.authorization.validAfter", &allowed.valid_after)?,
            valid_before: number("payload.authorization.validBefore", &allowed.valid_before)?,
            nonce: allowed.nonce.parse().map_err(|_| PaymentForm::Member {
                member: "payload.authorization.nonce",
                must: "0x and 64 hexadecimal digits",
            })?,
            signature: is_hex(&signature)
                .then_some(signature)
                .ok_or(PaymentForm::Member { member: "payload.signature", must: "0x and hexadecimal digits" })?,
        })
    }

    /// The requirement that it meets, with the amount that was signed: of `offered`, whose amounts are the least. `now` in seconds
    /// since 1970.
    pub fn meets(&self, offered: &[Requirement], now: i64) -> Result<Requirement, PaymentFault> {
        let asked = offered.iter().find(|asked| asked.network() == self.network).ok_or(PaymentFault::Network)?;
        if self.asset != *asked.asset() {
            return Err(PaymentFault::Asset);
        }
        if self.pay_to != *asked.pay_to() || self.to != *asked.pay_to() {
            return Err(PaymentFault::PayTo);
        }
        if self.value < asked.amount() {
            return Err(PaymentFault::Underpaid { least: asked.amount() });
        }
        if self.value != self.accepted {
            return Err(PaymentFault::Amount);
        }
        let second = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
        if second(self.valid_before) < now.saturating_add(LEAST_LEFT_SECONDS) {
            return Err(PaymentFault::Expired);
        }
        if second(self.valid_after) > now {
            return Err(PaymentFault::TooEarly);
        }
        Ok(asked.of_amount(self.value))
    }

    /// Who pays.
    pub const fn payer(&self) -> &Address {
        &self.from
    }

    /// What a facilitator is sent. Made of what was read here and of nothing else, so that it cannot read another payment in it.
    pub(super) fn order(&self, requirement: &Requirement) -> Value {
        json!({
            "x402Version": VERSION,
            "paymentPayload": {
                "x402Version": VERSION,
                "accepted": requirement,
                "payload": {
                    "signature": self.signature,
                    "authorization": {
                        "from": self.from,
                        "to": self.to,
                        "value": self.value.to_string(),
                        "validAfter": self.valid_after.to_string(),
                        "validBefore": self.valid_before.to_string(),
                        "nonce": self.nonce,
                    },
                },
            },
            "paymentRequirements": requirement,
        })
    }
}

#[derive(Deserialize)]
struct Versioned {
    #[serde(rename = "x402Version")]
    x402_version: u64,
}

#[derive(Deserialize)]
struct Told {
    accepted: Accepted,
    payload: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    scheme: String,
    network: String,
    amount: String,
    asset: String,
    pay_to: String,
}

#[derive(Deserialize)]
struct Signed {
    signature: String,
    authorization: Authorization,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authorization {
    from: String,
    to: String,
    value: String,
    valid_after: String,
    valid_before: String,
    nonce: String,
}

fn address(member: &'static str, text: &str) -> Result<Address, PaymentForm> {
    text.parse().map_err(|_| PaymentForm::Member { member, must: "an address: 0x and 40 hexadecimal digits" })
}

fn number<T: std::str::FromStr>(member: &'static str, text: &str) -> Result<T, PaymentForm> {
    let fault = PaymentForm::Member { member, must: "a whole number in a text" };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(fault);
    }
    text.parse().map_err(|_| fault)
}

fn is_hex(text: &str) -> bool {
    let digits = text.strip_prefix("0x").unwrap_or_default();
    !digits.is_empty() && digits.len().is_multiple_of(2) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
