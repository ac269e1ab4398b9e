//! Holds: paying over x402 beside any call: what a refusal for want of money says of it, and a payment that comes with the call that
//! was refused.
//!
//! Both are done around the handlers, which know nothing of it: a refusal is marked where the one error table makes it.

use axum::response::Response;
use batchin_billing::{X402Ask, X402Error, X402Payment};
use batchin_domain::AccountId;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header::CACHE_CONTROL};
use tracing::warn;

use crate::{
    app::App,
    auth::Proof,
    error::{ApiError, Unpaid, Whom},
};

pub(crate) const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");
pub(crate) const PAYMENT_SIGNATURE: HeaderName = HeaderName::from_static("payment-signature");
const PAYMENT_RESPONSE: HeaderName = HeaderName::from_static("payment-response");

/// Where one pays without asking for anything else.
pub(crate) const PATH: &str = "/v1/topup/x402";

/// Who sent a call, where that may matter for paying.
pub(crate) struct Asker {
    app: App,
    proof: Proof,
}

impl Asker {
    /// None where nobody pays over x402.
    pub(crate) fn of(app: &App, headers: &HeaderMap) -> Option<Self> {
        app.billing.takes_x402().then(|| Self { app: app.clone(), proof: Proof::of(headers) })
    }

    async fn account(&self) -> Result<AccountId, ApiError> {
        Ok(self.proof.caller(&self.app).await?.account)
    }

    /// A refusal for want of money that says how to pay. It stays what it is where that cannot be said.
    pub(crate) async fn offered(self, unpaid: Unpaid, mut answer: Response) -> Response {
        match self.offer(unpaid).await {
            Ok(Some(offer)) => {
                answer.headers_mut().insert(PAYMENT_REQUIRED, offer);
                answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            }
            Ok(None) => {}
            Err(error) => warn!("what to pay over x402 could not be said: {}", error.message()),
        }
        answer
    }

    async fn offer(&self, unpaid: Unpaid) -> Result<Option<HeaderValue>, ApiError> {
        let (account, billing) = (self.account().await?, &self.app.billing);
        if unpaid.whom == Whom::Anybody && billing.is_deposit_under_way(account).await? {
            return Ok(None);
        }
        let url = format!("{}{PATH}", self.app.settings.public_url);
        let ask = X402Ask { url, amount: unpaid.missing, why: unpaid.why.into_owned() };
        Ok(billing.x402_offer(account, ask).await?.and_then(|offer| HeaderValue::try_from(offer).ok()))
    }
}

/// A payment that came with a call.
pub(crate) struct Brought {
    asker: Asker,
    signature: HeaderValue,
}

impl Brought {
    /// None where none came, where nobody pays over x402, and where paying is all that is asked for.
    pub(crate) fn with<B>(app: &App, request: &Request<B>) -> Option<Self> {
        let signature = request.headers().get(PAYMENT_SIGNATURE)?;
        if request.uri().path().ends_with(PATH.trim_start_matches("/v1")) {
            return None;
        }
        Some(Self { asker: Asker::of(app, request.headers())?, signature: signature.clone() })
    }

    /// Carried out, as far as a moment's patience goes; none where it was before. The call may be answered then.
    pub(crate) async fn paid(self) -> Result<Option<X402Payment>, ApiError> {
        let account = self.asker.account().await?;
        match handed(&self.asker.app, account, &self.signature).await? {
            Ok(payment) => Ok(Some(payment)),
            // The same request once more, say, whose first answer was lost: it is paid from the balance like any other.
            Err(X402Error::Used) => Ok(None),
            Err(cause) => Err(cause.into()),
        }
    }
}

/// Has a payment carried out, and waits for a moment for what comes of it.
pub(crate) async fn pay(app: &App, account: AccountId, signature: &HeaderValue) -> Result<X402Payment, ApiError> {
    Ok(handed(app, account, signature).await??)
}

async fn handed(
    app: &App,
    account: AccountId,
    signature: &HeaderValue,
) -> Result<Result<X402Payment, X402Error>, ApiError> {
    let place = app.payers.enter(account)?;
    let paid = app.billing.pay_by_x402(account, signature.as_bytes()).await;
    // Whoever waits for the chain keeps nobody from the facilitator.
    drop(place);
    match paid {
        Ok(payment) => Ok(Ok(app.billing.awaited_x402(account, payment).await)),
        Err(cause) => Ok(Err(cause)),
    }
}

/// An answer that says what became of the payment before it.
pub(crate) fn receipted(payment: &X402Payment, mut answer: Response) -> Response {
    if let Ok(response) = HeaderValue::try_from(&payment.response) {
        answer.headers_mut().insert(PAYMENT_RESPONSE, response);
    }
    answer
}
