//! Holds: payments in USDC: where they go, and what is needed for them.

use std::collections::{HashMap, hash_map::Entry};

use batchin_domain::{AccountId, Amount};
use batchin_evm::{Address, Chain, Reached, Standing, Tag, XpubError, payment_uri, qr_svg};
use batchin_store::{DepositRow, StoreError};

use crate::{
    Billing,
    chains::{WatchedChain, reached_of, units_of},
};

/// Where an account pays on a chain.
#[derive(Clone, Debug)]
pub struct DepositPlace {
    /// The chain.
    pub chain: Chain,
    /// The account's own address.
    pub address: String,
    /// Less than this waits for more.
    pub min: Amount,
    /// What wallets read (EIP-681), without an amount.
    pub payment_uri: String,
}

/// A payment on a chain, as its owner sees it.
#[derive(Clone, Debug)]
pub struct ShownDeposit {
    /// The payment.
    pub row: DepositRow,
    /// The chain's name; its number where it is not configured any more.
    pub chain: String,
    /// How far it is from being final; `None` where its chain is not watched.
    pub standing: Option<DepositStanding>,
    /// The transaction.
    pub transaction: String,
    /// The token's contract.
    pub token: String,
    /// Where it went.
    pub address: String,
}

/// What the name of a payment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DepositName {
    /// The transaction.
    pub transaction: String,
    /// The token's contract.
    pub token: String,
    /// Where it went.
    pub address: String,
}

impl DepositName {
    /// Of a stored payment; empty where it was not stored by this program.
    pub fn of(row: &DepositRow) -> Self {
        let name = row.seen.name.parse::<batchin_evm::TransferId>().ok();
        let told = |name: batchin_evm::TransferId| Self {
            transaction: name.transaction.to_string(),
            token: name.token.to_string(),
            address: name.to.to_string(),
        };
        name.map(told).unwrap_or_default()
    }
}

/// How far a payment is from being final.
#[derive(Clone, Copy, Debug)]
pub struct DepositStanding(Standing);

impl DepositStanding {
    /// Blocks from its own to the last one read, both counted.
    pub const fn confirmations(&self) -> u64 {
        self.0.confirmations
    }

    /// How many it needs.
    pub const fn required(&self) -> u32 {
        self.0.required
    }

    /// The chain's word that its block waits for: `safe` or `finalized`.
    pub const fn waits_for(&self) -> Option<&'static str> {
        match self.0.waits_for {
            Some(Tag::Safe) => Some("safe"),
            Some(Tag::Finalized) => Some("finalized"),
            None => None,
        }
    }
}

/// Why an account has no address.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// There is no such chain here.
    #[error("no such chain is set up")]
    NoChain,
    /// No address follows from the key.
    #[error(transparent)]
    Key(#[from] XpubError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Billing {
    /// Where an account pays in USDC, for each chain; nothing where none is set up.
    pub async fn deposit_places(&self, account: AccountId) -> Result<Vec<DepositPlace>, AddressError> {
        let Some(usdc) = self.usdc().filter(|usdc| !usdc.chains.is_empty()) else { return Ok(Vec::new()) };
        let derive = |index| usdc.options.xpub.address(index).map(|address| address.to_string());
        let address = self.deposits().deposit_address((account, &usdc.fingerprint), derive, self.now()).await??.address;
        let parsed: Address = address.parse().map_err(|_| XpubError::NoKey)?;
        let place = |watched: &WatchedChain| {
            let chain = watched.options.chain.clone();
            let payment_uri = payment_uri(chain.id, &chain.usdc, &parsed, None);
            DepositPlace { chain, address: address.clone(), min: usdc.options.min, payment_uri }
        };
        Ok(usdc.chains.iter().map(place).collect())
    }

    /// What a wallet reads to pay so much on a chain (or whatever its owner decides), as a picture in SVG.
    pub async fn deposit_picture(
        &self,
        account: AccountId,
        chain: &str,
        amount: Option<Amount>,
    ) -> Result<String, AddressError> {
        let places = self.deposit_places(account).await?;
        let place = places.into_iter().find(|place| place.chain.name == chain).ok_or(AddressError::NoChain)?;
        let to: Address = place.address.parse().map_err(|_| XpubError::NoKey)?;
        let uri = payment_uri(place.chain.id, &place.chain.usdc, &to, amount.map(units_of));
        qr_svg(&uri).map_err(|_| AddressError::NoChain)
    }

    /// Payments of an account on all chains, newest first.
    pub async fn shown_deposits(&self, account: AccountId, limit: u32) -> Result<Vec<ShownDeposit>, StoreError> {
        let rows = self.deposits().deposits(account, limit).await?;
        let mut reached: HashMap<u64, Option<Reached>> = HashMap::new();
        let mut shown = Vec::with_capacity(rows.len());
        for row in rows {
            let reached = match reached.entry(row.chain_id) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(fresh) => {
                    let progress = self.deposits().chain_progress(row.chain_id).await?;
                    *fresh.insert(progress.as_ref().map(reached_of))
                }
            };
            let chain = self.watched(row.chain_id);
            let standing = chain.zip(reached).map(|(watched, reached)| {
                DepositStanding(watched.options.chain.standing(row.seen.block_number, row.seen.base_units, &reached))
            });
            let DepositName { transaction, token, address } = DepositName::of(&row);
            shown.push(ShownDeposit {
                chain: chain.map_or_else(|| row.chain_id.to_string(), |watched| watched.options.chain.name.to_string()),
                standing,
                transaction,
                token,
                address,
                row,
            });
        }
        Ok(shown)
    }

    fn watched(&self, chain_id: u64) -> Option<&WatchedChain> {
        self.usdc()?.chains.iter().find(|watched| watched.options.chain.id == chain_id)
    }
}
