//! Holds: what money in is made of.

use std::sync::Arc;

use batchin_domain::{Amount, Clock, IdSource, Timestamp};
use batchin_store::{AutoTopups, Deposits, Inbox, Topups};
use batchin_stripe::{BuildError, Stripe};
use batchin_tasks::{Sweeps, Tasks};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Notify;

use crate::{
    intake::Intake,
    usdc::{Usdc, UsdcError, UsdcOptions},
    watcher::{LookError, Looked, Watcher, holder_of},
    worker::{Pace, Worker},
};

/// How keys of Stripe's begin that move real money, and those that do not.
const LIVE: [&str; 2] = ["sk_live_", "rk_live_"];
const TEST: [&str; 2] = ["sk_test_", "rk_test_"];

/// `[stripe]`, checked.
#[derive(Clone, Debug)]
pub struct StripeOptions {
    /// Where Stripe is, and the key to it.
    pub client: batchin_stripe::Options,
    /// What Stripe signs its reports with; several while one replaces another.
    pub webhook_secrets: Vec<SecretString>,
    /// The smallest payment, in whole cents.
    pub min_cents: i64,
    /// The largest payment, in whole cents.
    pub max_cents: i64,
    /// What a buyer reads that it is.
    pub product: String,
    /// Where a buyer who has paid comes back to.
    pub success_url: String,
    /// Where a buyer who has not comes back to.
    pub cancel_url: String,
}

impl StripeOptions {
    /// Whether the key moves real money; `None` where that cannot be told by it.
    pub(crate) fn is_live(&self) -> Option<bool> {
        let key = self.client.secret_key.expose_secret();
        let begins = |with: [&str; 2]| with.iter().any(|prefix| key.starts_with(prefix));
        if begins(LIVE) { Some(true) } else { begins(TEST).then_some(false) }
    }
}

/// What money in needs.
pub struct BillingParts {
    /// Payments.
    pub topups: Topups,
    /// What Stripe reports.
    pub inbox: Inbox,
    /// Payments on chains.
    pub deposits: Deposits,
    /// Payments that are made by themselves.
    pub auto: AutoTopups,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Fresh ids.
    pub ids: Arc<dyn IdSource>,
    /// Ends before the store does.
    pub tasks: Tasks,
    /// Without it, nobody pays by card.
    pub stripe: Option<StripeOptions>,
    /// Without it, nobody pays in USDC.
    pub usdc: Option<UsdcOptions>,
}

/// Money in cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum BillingError {
    /// Stripe's settings are wrong.
    #[error(transparent)]
    Stripe(#[from] BuildError),
    /// A chain's are.
    #[error(transparent)]
    Usdc(#[from] UsdcError),
}

/// Money in. Cheap to clone.
#[derive(Clone)]
pub struct Billing(Arc<Inner>);

struct Inner {
    topups: Topups,
    inbox: Inbox,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    tasks: Tasks,
    deposits: Deposits,
    auto: AutoTopups,
    cards: Option<Cards>,
    usdc: Option<Usdc>,
}

/// Payments by card.
pub(crate) struct Cards {
    pub(crate) stripe: Stripe,
    pub(crate) options: StripeOptions,
    pub(crate) intake: Intake,
    /// Rung where something has been stored that the worker deals with.
    pub(crate) bell: Arc<Notify>,
}

impl Billing {
    /// From its parts. Reports are taken from now on; [`Billing::start`] has them dealt with.
    pub fn new(parts: BillingParts) -> Result<Self, BillingError> {
        let BillingParts { topups, inbox, deposits, auto, clock, ids, tasks, stripe, usdc } = parts;
        let usdc = usdc.map(Usdc::new).transpose()?;
        let cards = match stripe {
            Some(options) => {
                let bell = Arc::new(Notify::new());
                let intake = Intake::start(inbox.clone(), Arc::clone(&clock), Arc::clone(&bell), &tasks);
                Some(Cards { stripe: Stripe::new(options.client.clone())?, options, intake, bell })
            }
            None => None,
        };
        Ok(Self(Arc::new(Inner { topups, inbox, clock, ids, tasks, deposits, auto, cards, usdc })))
    }

    /// Deals with what comes in, from this node. Any number may.
    pub fn start(&self, pace: Pace, tasks: &Tasks) {
        if self.0.cards.is_some() {
            Worker::start(self.clone(), pace, tasks);
        }
        let holder = holder_of(self.ids().uuid());
        for place in 0..self.usdc().map_or(0, |usdc| usdc.chains.len()) {
            Watcher::new(self.clone(), place).start(holder, tasks);
        }
    }

    /// Has reports forgotten that were dealt with long ago.
    pub fn add_sweep(&self, sweeps: &mut Sweeps) {
        if self.0.cards.is_none() {
            return;
        }
        let billing = self.clone();
        sweeps.add("old reports of Stripe could not be swept", move || {
            let billing = billing.clone();
            async move { crate::intake::sweep(billing.inbox(), billing.now()).await }
        });
    }

    /// The smallest and the largest payment by card, where there are any.
    pub fn card_bounds(&self) -> Option<(Amount, Amount)> {
        let options = &self.0.cards.as_ref()?.options;
        Some((amount_of(options.min_cents)?, amount_of(options.max_cents)?))
    }

    /// Reads what is new on a chain by its name, as the watcher does, and credits what is final.
    pub async fn look_at_chain(&self, name: &str) -> Result<Looked, LookError> {
        let place =
            self.usdc().and_then(|usdc| usdc.chains.iter().position(|watched| watched.options.chain.name == name));
        match place {
            Some(place) => Watcher::new(self.clone(), place).look().await,
            None => Ok(Looked::default()),
        }
    }

    pub(crate) fn auto(&self) -> &AutoTopups {
        &self.0.auto
    }

    pub(crate) fn usdc(&self) -> Option<&Usdc> {
        self.0.usdc.as_ref()
    }

    pub(crate) fn deposits(&self) -> &Deposits {
        &self.0.deposits
    }

    pub(crate) fn cards(&self) -> Option<&Cards> {
        self.0.cards.as_ref()
    }

    pub(crate) fn topups(&self) -> &Topups {
        &self.0.topups
    }

    pub(crate) fn inbox(&self) -> &Inbox {
        &self.0.inbox
    }

    pub(crate) fn ids(&self) -> &dyn IdSource {
        &*self.0.ids
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}

/// Whole cents as money; `None` below zero or where a ledger cannot count it.
pub(crate) fn amount_of(cents: i64) -> Option<Amount> {
    cents.checked_mul(batchin_domain::money::NANOS_PER_CENT).and_then(Amount::from_nanos)
}

/// Money as whole cents; `None` where it is none.
pub(crate) fn cents_of(amount: Amount) -> Option<i64> {
    let per_cent = batchin_domain::money::NANOS_PER_CENT;
    (amount.nanos() % per_cent == 0).then_some(amount.nanos() / per_cent)
}
