//! Holds: paying by x402: what is offered to an account, and a signature handed to the facilitator. It credits nothing: what came
//! is seen on its chain by the watcher, like any other payment there.

use std::time::Duration;

use batchin_domain::{AccountId, Amount, DepositStatus, money::NANOS_PER_CENT};
use batchin_evm::{
    Address, Chain, Hash, XpubError,
    x402::{
        FacilitatorError, Offer, Payment, PaymentFault, PaymentForm, Requirement, Resource, Settlement, Verdict,
        network, to_header,
    },
};
use batchin_store::DepositRow;
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::{
    AddressError, Billing, DepositPlace, ShownDeposit,
    chains::{Usdc, WatchedChain, X402, amount_of_units, units_of},
};

/// How long a payment is waited for that is said to be carried out. Chains of minutes are not waited for; where a block is final at
/// once, the credit is there by then.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether it has come.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A payment that was seen longer ago, and is not final yet, is none that somebody waits for.
const UNDER_WAY: Duration = Duration::from_secs(3_600);
/// Newest payments of the account among which it is looked for.
const LOOKED_AT: u32 = 20;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct X402Ask {
    /// Where it is paid, as a whole URL.
    pub url: String,
    /// At least so much, in whole cents upwards; the operator's least where that is more.
    pub amount: Amount,
    /// Why, in a word or a sentence.
    pub why: String,
}

/// A payment that a facilitator says it has carried out, and what the chain says of it.
#[derive(Clone, Debug)]
pub struct X402Payment {
    /// The chain that it is on.
    pub chain: Chain,
    /// By which transaction, as the facilitator says.
    pub transaction: String,
    /// Who paid.
    pub payer: String,
    /// How much.
    pub amount: Amount,
    /// As the watcher sees it; `None` where it has not seen it yet.
    pub deposit: Option<ShownDeposit>,
    /// What the header `PAYMENT-RESPONSE` says.
    pub response: String,
}

/// Why a payment was not carried out. Nothing was paid but where it says that nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum X402Error {
    /// No facilitator, or no chain that it could pay on.
    #[error("no payments by x402 are set up")]
    NotSetUp,
    /// It is no payment.
    #[error(transparent)]
    Form(#[from] PaymentForm),
    /// It is not what was asked for.
    #[error(transparent)]
    Fault(#[from] PaymentFault),
    /// The facilitator does not carry it out.
    #[error("the facilitator refuses it")]
    Refused {
        /// Why, in its word.
        reason: String,
    },
    /// It was carried out before, and that is all that it was good for.
    #[error("this signature was used")]
    Used,
    /// The facilitator cannot be asked.
    #[error("the facilitator cannot be asked")]
    Unavailable(#[source] FacilitatorError),
    /// The facilitator was told to carry it out and did not answer.
    #[error("the facilitator does not say whether it carried it out")]
    Unsure(#[source] FacilitatorError),
    /// The account has no address.
    #[error(transparent)]
    Address(#[from] AddressError),
}

impl Billing {
    /// Whether accounts can pay by x402.
    pub fn takes_x402(&self) -> bool {
        self.x402_parts().is_some()
    }

    /// What the header `PAYMENT-REQUIRED` says to an account; `None` where nobody pays by x402.
    pub async fn x402_offer(&self, account: AccountId, ask: X402Ask) -> Result<Option<String>, AddressError> {
        let Some((usdc, x402)) = self.x402_parts() else { return Ok(None) };
        let asked = requirements(usdc, &self.deposit_places(account).await?, whole_cents(ask.amount.max(x402.least)))?;
        let resource = Resource { url: ask.url, description: "Prepaid credit", mime_type: "application/json" };
        Ok(Some(to_header(&Offer::new(ask.why, resource, asked))))
    }

    /// Whether a payment to the account is on its way, so that another one would most likely be one too many.
    pub async fn is_deposit_under_way(&self, account: AccountId) -> Result<bool, AddressError> {
        let Some((usdc, _)) = self.x402_parts() else { return Ok(false) };
        let since = self.now().before(UNDER_WAY);
        let is_watched = |id| usdc.chains.iter().any(|watched| watched.options.chain.id == id);
        let is_coming = |row: &DepositRow| {
            row.status == DepositStatus::Confirming
                && (row.seen.supported && row.seen.amount >= usdc.options.min)
                && (row.seen_at > since && is_watched(row.chain_id))
        };
        Ok(self.deposits().deposits(account, LOOKED_AT).await?.iter().any(is_coming))
    }

    /// Hands what the header `PAYMENT-SIGNATURE` says to the facilitator, if it pays this account what is asked for. The same
    /// signature pays once, however often it comes.
    pub async fn pay_by_x402(&self, account: AccountId, header: &[u8]) -> Result<X402Payment, X402Error> {
        let (usdc, x402) = self.x402_parts().ok_or(X402Error::NotSetUp)?;
        let payment = Payment::parse(header)?;
        let offered = requirements(usdc, &self.deposit_places(account).await?, whole_cents(x402.least))?;
        let met = payment.meets(&offered, self.now().seconds())?;
        let amount = amount_of_units(met.amount()).ok_or(PaymentFault::Amount)?;
        let chain = chain_of(usdc, &met).ok_or(AddressError::NoChain)?;
        match x402.facilitator.verify(&payment, &met).await {
            Ok(Verdict::Valid) => {}
            Ok(Verdict::Used) => return Err(X402Error::Used),
            Ok(Verdict::Invalid(reason)) => return Err(X402Error::Refused { reason }),
            Err(cause) => {
                warn!("a payment by x402 could not be looked at: {cause}");
                return Err(X402Error::Unavailable(cause));
            }
        }
        let transaction = match x402.facilitator.settle(&payment, &met).await {
            Ok(Settlement::Done(transaction) | Settlement::Pending(transaction)) => transaction,
            Ok(Settlement::Used) => return Err(X402Error::Used),
            Ok(Settlement::Failed(reason)) => return Err(X402Error::Refused { reason }),
            // It was told nothing.
            Err(cause @ FacilitatorError::Unreachable) => return Err(X402Error::Unavailable(cause)),
            Err(cause) => {
                warn!("whether a payment by x402 was carried out is not known: {cause}");
                return Err(X402Error::Unsure(cause));
            }
        };
        info!("a payment by x402 on {} is said to be in {transaction}", chain.name);
        Ok(X402Payment {
            chain,
            response: response(&payment, &met, transaction),
            transaction: transaction.to_string(),
            payer: payment.payer().to_string(),
            amount,
            deposit: None,
        })
    }

    /// The payment as the watcher sees it, once it is credited or can be waited for no longer.
    pub async fn awaited_x402(&self, account: AccountId, mut payment: X402Payment) -> X402Payment {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.shown_deposits(account, LOOKED_AT).await {
                Ok(shown) => {
                    payment.deposit = shown.into_iter().find(|deposit| deposit.transaction == payment.transaction);
                }
                // It was carried out all the same.
                Err(cause) => warn!("what came of a payment by x402 could not be read: {cause}"),
            }
            let now = Instant::now();
            let is_over = |deposit: &ShownDeposit| deposit.row.status != DepositStatus::Confirming;
            if payment.deposit.as_ref().is_some_and(is_over) || now >= until {
                return payment;
            }
            sleep_until(until.min(now + LOOK_EVERY)).await;
        }
    }

    /// Where there is a facilitator and a chain that it could pay on.
    fn x402_parts(&self) -> Option<(&Usdc, &X402)> {
        let usdc = self.usdc()?;
        let is_offered = usdc.chains.iter().any(|watched| watched.options.domain.is_some());
        usdc.x402.as_ref().filter(|_| is_offered).map(|x402| (usdc, x402))
    }
}

/// What is asked for on each chain whose token can be signed for.
fn requirements(usdc: &Usdc, places: &[DepositPlace], amount: Amount) -> Result<Vec<Requirement>, AddressError> {
    let mut asked = Vec::new();
    for (watched, place) in usdc.chains.iter().zip(places) {
        let Some(domain) = watched.options.domain.clone() else { continue };
        let to: Address = place.address.parse().map_err(|_| XpubError::NoKey)?;
        asked.push(Requirement::new(&place.chain, domain, to, units_of(amount)));
    }
    Ok(asked)
}

fn chain_of(usdc: &Usdc, met: &Requirement) -> Option<Chain> {
    let of = |watched: &&WatchedChain| network(watched.options.chain.id) == met.network();
    usdc.chains.iter().find(of).map(|watched| watched.options.chain.clone())
}

/// Upwards: less would not cover it.
fn whole_cents(amount: Amount) -> Amount {
    let over = amount.nanos() % NANOS_PER_CENT;
    let missing = if over == 0 { 0 } else { NANOS_PER_CENT - over };
    amount.nanos().checked_add(missing).and_then(Amount::from_nanos).unwrap_or(amount)
}

fn response(payment: &Payment, met: &Requirement, transaction: Hash) -> String {
    to_header(&json!({
        "success": true,
        "transaction": transaction,
        "network": met.network(),
        "payer": payment.payer(),
        "amount": met.amount().to_string(),
    }))
}
