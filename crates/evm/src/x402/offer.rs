//! Holds: what is asked for: how much of which token, on which chain, to which address.

use std::borrow::Cow;

use serde::Serialize;

use super::{SCHEME, VERSION, network};
use crate::{
    address::Address,
    chain::{Chain, KNOWN},
};

/// How long what a payer signs is good for, in seconds: longer than a facilitator takes, and short enough that a signature which
/// was forgotten somewhere moves nothing.
const GOOD_FOR_SECONDS: u64 = 300;

/// What a token is called where it is signed for (EIP-712), which is not always what it is called elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenDomain {
    /// As its contract's `name()` says.
    pub name: Cow<'static, str>,
    /// As its contract's `version()` says.
    pub version: Cow<'static, str>,
}

impl TokenDomain {
    /// Of native USDC on the known chains.
    pub fn of_known(chain_id: u64) -> Option<Self> {
        let is_known = KNOWN.iter().any(|chain| chain.id == chain_id);
        is_known.then_some(Self { name: Cow::Borrowed("USD Coin"), version: Cow::Borrowed("2") })
    }
}

/// What is asked for on one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    scheme: &'static str,
    network: String,
    #[serde(serialize_with = "as_text")]
    amount: u128,
    asset: Address,
    pay_to: Address,
    max_timeout_seconds: u64,
    extra: TokenDomain,
}

impl Requirement {
    /// So many base units of the chain's USDC to this address.
    pub fn new(chain: &Chain, domain: TokenDomain, pay_to: Address, amount: u128) -> Self {
        Self {
            scheme: SCHEME,
            network: network(chain.id),
            amount,
            asset: chain.usdc,
            pay_to,
            max_timeout_seconds: GOOD_FOR_SECONDS,
            extra: domain,
        }
    }

    /// The same of another amount, in base units.
    #[must_use]
    pub fn of_amount(&self, amount: u128) -> Self {
        Self { amount, ..self.clone() }
    }

    /// The chain, as x402 names it.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// How much, in base units.
    pub const fn amount(&self) -> u128 {
        self.amount
    }

    /// The token.
    pub const fn asset(&self) -> &Address {
        &self.asset
    }

    /// Where it goes.
    pub const fn pay_to(&self) -> &Address {
        &self.pay_to
    }
}

/// What is paid for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Its address.
    pub url: String,
    /// What it is, for a person.
    pub description: &'static str,
    /// What it answers.
    pub mime_type: &'static str,
}

/// What the header `PAYMENT-REQUIRED` says.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    x402_version: u64,
    /// Why it is asked for, in a word or a sentence.
    error: String,
    resource: Resource,
    accepts: Vec<Requirement>,
}

impl Offer {
    /// One of these is to be paid.
    pub fn new(error: impl Into<String>, resource: Resource, accepts: Vec<Requirement>) -> Self {
        Self { x402_version: VERSION, error: error.into(), resource, accepts }
    }
}

fn as_text<S: serde::Serializer>(amount: &u128, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(amount)
}
