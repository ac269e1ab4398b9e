//! Holds: what money in is made of.

use std::sync::Arc;

use batchin_domain::{Amount, Clock, IdSource, Timestamp, TopupId};
use batchin_store::{AutoTopups, Deposits, Inbox, Topups};
use batchin_stripe::{BuildError, Stripe};
use batchin_tasks::Tasks;
use tokio::sync::Notify;

use crate::{
    chains::{Usdc, UsdcError},
    intake::Intake,
    options::{StripeOptions, UsdcOptions, amount_of},
};

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

    /// The smallest and the largest payment by card, where there are any.
    pub fn card_bounds(&self) -> Option<(Amount, Amount)> {
        let options = &self.0.cards.as_ref()?.options;
        Some((amount_of(options.min_cents)?, amount_of(options.max_cents)?))
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

    /// A fresh name for a payment.
    pub(crate) fn topup_id(&self) -> TopupId {
        TopupId::new(self.ids().uuid())
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
