//! Holds: payments that are made by themselves, by a card that was saved for it.

use std::error::Error;

use batchin_domain::AccountId;
use batchin_store::{AutoTopup, AutoWish, SavedForAuto, StoreError, TopupKey};
use batchin_stripe::{Checkout, CheckoutStatus, Customer, Mode, NewSetup};
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    Billing, CheckoutError, OpenedCheckout,
    options::{CURRENCY, OPEN_LOOK, cents_of},
    reconcile::Named,
};

/// Accounts whose payments are begun in one look.
const AT_ONCE: u32 = 32;

impl Billing {
    /// How it stands with an account's payments by themselves; `None`: nothing was ever asked for.
    pub async fn auto_topup(&self, account: AccountId) -> Result<Option<AutoTopup>, StoreError> {
        self.auto().auto_topup(account).await
    }

    /// Puts another wish in place of an owner's.
    pub async fn set_auto_topup(&self, account: AccountId, wish: &AutoWish) -> Result<(), CheckoutError> {
        let cards = self.cards().ok_or(CheckoutError::NotSetUp)?;
        let (min, max) = (cards.options.min_cents, cards.options.max_cents);
        let cents = cents_of(wish.amount).ok_or(CheckoutError::NotCents)?;
        if wish.enabled && !(min..=max).contains(&cents) {
            return Err(CheckoutError::OutOfBounds { min, max });
        }
        self.auto().set_auto_topup(account, wish, self.now()).await.map_err(CheckoutError::Store)
    }

    /// Opens a page where an owner saves a payment method. Nothing is paid there.
    pub async fn open_setup(&self, account: AccountId, email: Option<String>) -> Result<OpenedCheckout, CheckoutError> {
        let cards = self.cards().ok_or(CheckoutError::NotSetUp)?;
        let setup = self.ids().uuid();
        let known = self.auto().auto_topup(account).await.map_err(CheckoutError::Store)?;
        self.auto().note_setup(account, setup, self.now()).await.map_err(CheckoutError::Store)?;
        let customer = known.and_then(|known| known.customer);
        let asked = NewSetup {
            reference: setup.to_string(),
            currency: CURRENCY.to_owned(),
            success_url: cards.options.success_url.clone(),
            cancel_url: cards.options.cancel_url.clone(),
            customer: customer.map_or(Customer::New { email }, Customer::Known),
        };
        match cards.stripe.create_setup(&asked).await {
            Ok(Checkout { id, url: Some(url), .. }) => Ok(OpenedCheckout { url, session: id }),
            Ok(_) => Err(CheckoutError::Unavailable),
            Err(cause) => {
                warn!(error = &cause as &dyn Error, "no page to save a payment method could be opened");
                Err(if cause.refusal().is_some() { CheckoutError::Refused } else { CheckoutError::Unavailable })
            }
        }
    }

    /// A page to save a payment method has come to an end: whether it was one of ours.
    pub(crate) async fn take_setup(&self, checkout: &Checkout) -> Result<bool, StoreError> {
        let setup = checkout.client_reference_id.as_deref().and_then(|name| Uuid::try_parse(name).ok());
        let (Mode::Setup, CheckoutStatus::Complete, Some(setup)) = (&checkout.mode, &checkout.status, setup) else {
            return Ok(false);
        };
        let (Some(customer), Some(method)) = (&checkout.customer, &checkout.saved_method) else { return Ok(false) };
        let shown = method.card.as_ref().map(|card| match &card.last4 {
            Some(last4) => format!("{} {last4}", card.brand),
            None => card.brand.clone(),
        });
        let saved = SavedForAuto { customer: customer.clone(), method: method.id.clone(), shown };
        Ok(self.auto().save_method(setup, &saved).await?.is_some())
    }

    /// Begins the payments of accounts that have less than they want to; whether there were any.
    pub(crate) async fn top_up_low(&self) -> Result<bool, StoreError> {
        let now = self.now();
        let month = now.month().start();
        let accounts = self.auto().due_accounts(month, AT_ONCE).await?;
        let mut any = false;
        for account in accounts {
            let id = self.topup_id();
            if !self.auto().open_automatic((account, id), month, (now, now.after(OPEN_LOOK))).await? {
                continue;
            }
            any = true;
            batchin_faults::point("topup.due");
            info!(topup = %id, %account, "a balance is low: a payment is made by its owner's wish");
            if let Err(cause) = self.reconcile(TopupKey::Id(id), Named::default()).await {
                // Whether it was charged is found out when it is due.
                warn!(topup = %id, error = &cause as &dyn Error, "a payment by itself may not be made");
            }
        }
        Ok(any)
    }
}
