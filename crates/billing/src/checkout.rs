//! Holds: asking for a payment by card.

use std::time::Duration;

use batchin_domain::{AccountId, Amount, TopupId, TopupSource, TopupStatus};
use batchin_store::{NewTopup, OpenTopupError, Reading, SettleTopupError, StoreError, TopupDetails};
use batchin_stripe::{Checkout, Customer, NewCheckout, StripeError};
use tokio::time::sleep;
use tracing::{error, warn};

use crate::{
    Billing,
    billing::Cards,
    options::{CURRENCY, OPEN_LOOK, cents_of},
};

/// How often Stripe is asked for one page, where its answers are lost; each time under the same Idempotency-Key.
const TRIES: u32 = 3;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(300);

/// A page where a payment is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedCheckout {
    /// The page.
    pub url: String,
    /// Stripe's name for it, `cs_…`.
    pub session: String,
}

/// Why there is no page to pay at. Nothing was paid.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// The operator has not set up Stripe.
    #[error("no payments by card are set up")]
    NotSetUp,
    /// Not whole cents.
    #[error("a payment by card is of whole cents")]
    NotCents,
    /// Below or above what the operator takes.
    #[error("a payment must be {min} to {max} cents")]
    OutOfBounds {
        /// The smallest, in cents.
        min: i64,
        /// The largest, in cents.
        max: i64,
    },
    /// No such account.
    #[error("there is no such account")]
    NoAccount,
    /// The account has so many pages open.
    #[error("the account has {most} payments open")]
    TooMany {
        /// Most at once.
        most: u64,
    },
    /// Stripe cannot be reached or fails; trying again is fine.
    #[error("Stripe does not answer")]
    Unavailable,
    /// Stripe will not: the operator has to see to it.
    #[error("Stripe refused")]
    Refused,
    /// The store failed.
    #[error("the payment could not be stored")]
    Store(#[source] StoreError),
}

impl From<OpenTopupError> for CheckoutError {
    fn from(cause: OpenTopupError) -> Self {
        match cause {
            OpenTopupError::NoAccount => Self::NoAccount,
            OpenTopupError::TooMany { most } => Self::TooMany { most },
            OpenTopupError::Store(cause) => Self::Store(cause),
        }
    }
}

impl Billing {
    /// Opens a page where an account pays so much by card. It is credited once Stripe says that it is paid, never by the
    /// buyer's coming back. Runs on where its caller leaves: a page that was asked for is remembered.
    pub async fn open_checkout(
        &self,
        account: AccountId,
        email: Option<String>,
        amount: Amount,
    ) -> Result<OpenedCheckout, CheckoutError> {
        let cards = self.cards().ok_or(CheckoutError::NotSetUp)?;
        let (min, max) = (cards.options.min_cents, cards.options.max_cents);
        let cents = cents_of(amount).ok_or(CheckoutError::NotCents)?;
        if !(min..=max).contains(&cents) {
            return Err(CheckoutError::OutOfBounds { min, max });
        }
        let this = self.clone();
        let opening = self.tasks().see_through("open_checkout", async move { this.open(account, email, amount).await });
        opening.await.unwrap_or(Err(CheckoutError::Unavailable))
    }

    async fn open(
        &self,
        account: AccountId,
        email: Option<String>,
        amount: Amount,
    ) -> Result<OpenedCheckout, CheckoutError> {
        let cards = self.cards().ok_or(CheckoutError::NotSetUp)?;
        let (id, now) = (TopupId::new(self.ids().uuid()), self.now());
        let source = TopupSource::Checkout;
        let new = NewTopup { id, account, source, amount, due_at: now.after(OPEN_LOOK), now };
        self.topups().open_topup(&new).await?;
        batchin_faults::point("topup.opened");
        let asked = asked(cards, id, email, cents_of(amount).ok_or(CheckoutError::NotCents)?);
        let checkout = match create(cards, &asked).await {
            Ok(checkout) => checkout,
            Err(cause) => return Err(self.not_opened(id, &cause).await),
        };
        batchin_faults::point("topup.created");
        let Some(url) = checkout.url.clone() else {
            error!(topup = %id, "Stripe opened a checkout without an address");
            return Err(CheckoutError::Unavailable);
        };
        let details =
            TopupDetails { session: Some(checkout.id.clone()), url: Some(url.clone()), ..TopupDetails::default() };
        self.note(id, TopupStatus::Pending, details).await.map_err(CheckoutError::Store)?;
        batchin_faults::point("topup.noted");
        Ok(OpenedCheckout { url, session: checkout.id })
    }

    /// What Stripe surely has not opened is over; anything else is looked for later.
    async fn not_opened(&self, id: TopupId, cause: &StripeError) -> CheckoutError {
        let (why, told) = match cause.refusal() {
            Some(refusal) => {
                error!(topup = %id, error = %refusal, "Stripe refused to open a checkout");
                ("refused", CheckoutError::Refused)
            }
            None => {
                warn!(topup = %id, error = cause as &dyn std::error::Error, "a checkout could not be opened");
                ("unavailable", CheckoutError::Unavailable)
            }
        };
        if !cause.outcome_known() {
            return told;
        }
        let details = TopupDetails { failure: Some(why.to_owned()), ..TopupDetails::default() };
        match self.note(id, TopupStatus::Failed, details).await {
            Ok(()) => told,
            Err(cause) => CheckoutError::Store(cause),
        }
    }

    /// Writes down where a payment stands that has moved no money. One that was read in the meantime knows better.
    pub(crate) async fn note(
        &self,
        topup: TopupId,
        status: TopupStatus,
        details: TopupDetails,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let due_at = status.is_open().then(|| now.after(OPEN_LOOK));
        let reading = Reading { topup, version: 0, status, entries: Vec::new(), details, due_at, now };
        match self.topups().settle_topup(&reading).await {
            Ok(_) | Err(SettleTopupError::Stale | SettleTopupError::Conflict { .. } | SettleTopupError::Overflow) => {
                Ok(())
            }
            Err(SettleTopupError::Store(cause)) => Err(cause),
        }
    }
}

fn asked(cards: &Cards, id: TopupId, email: Option<String>, cents: i64) -> NewCheckout {
    NewCheckout {
        topup: id.uuid().to_string(),
        amount: cents,
        currency: CURRENCY.to_owned(),
        product: cards.options.product.clone(),
        success_url: cards.options.success_url.clone(),
        cancel_url: cards.options.cancel_url.clone(),
        customer: Customer::New { email },
        save_method: false,
    }
}

/// Asks again where the answer was lost: under its key Stripe opens one page.
async fn create(cards: &Cards, asked: &NewCheckout) -> Result<Checkout, StripeError> {
    let mut tries = 1;
    loop {
        match cards.stripe.create_checkout(asked).await {
            Err(cause) if tries < TRIES && cause.refusal().is_none() => {
                tries += 1;
                sleep(PAUSE).await;
            }
            ended => return ended,
        }
    }
}
