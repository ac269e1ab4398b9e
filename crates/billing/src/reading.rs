//! Holds: what a payment's state at Stripe comes to. Pure.

use batchin_domain::{Amount, TopupStatus, TransferId, ledger::Movement};
use batchin_store::{Entry, TopupDetails, TopupRow};
use batchin_stripe::{
    Buyer, Checkout, CheckoutStatus, Dispute, DisputeStatus, Mode, Payment, PaymentIntentStatus, PaymentStatus, Refund,
    RefundStatus,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::options::{CURRENCY, amount_of};

/// Everything that Stripe says of a payment, read one after the other.
#[derive(Default)]
pub(crate) struct Snapshot {
    pub(crate) checkout: Option<Checkout>,
    pub(crate) payment: Option<Payment>,
    pub(crate) refunds: Vec<Refund>,
    pub(crate) disputes: Vec<Dispute>,
}

/// What it comes to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Comes {
    pub(crate) status: TopupStatus,
    pub(crate) entries: Vec<Entry>,
    pub(crate) details: TopupDetails,
    /// What an operator has to see to: nothing is booked for it.
    pub(crate) alarms: Vec<&'static str>,
    /// There is nothing more to be read of it.
    pub(crate) is_last: bool,
}

impl Comes {
    /// It stands so, and no money moves.
    pub(crate) const fn only(status: TopupStatus, details: TopupDetails) -> Self {
        Self { status, entries: Vec::new(), details, alarms: Vec::new(), is_last: false }
    }
}

/// What a payment's state comes to, by the references and ids of its movements.
pub(crate) fn comes_to(
    topup: &TopupRow,
    snapshot: &Snapshot,
    is_live: Option<bool>,
    mut fresh: impl FnMut() -> Uuid,
) -> Comes {
    let mut details = details_of(snapshot);
    let verdict = verdict(topup, snapshot, is_live);
    let mut comes = match verdict {
        Verdict::Open => Comes::only(TopupStatus::Pending, details),
        Verdict::Expired => Comes::only(TopupStatus::Expired, details),
        Verdict::Failed(why) => {
            details.failure = Some(why.to_owned());
            Comes::only(TopupStatus::Failed, details)
        }
        // Money came, or may have, and not as it was asked for: a person must look.
        Verdict::Odd(why) => {
            details.failure = Some(why.to_owned());
            Comes { alarms: vec![why], ..Comes::only(TopupStatus::Failed, details) }
        }
        Verdict::Paid(reference) => {
            let (entries, alarms) = movements(topup.amount, &reference, snapshot, &mut fresh);
            Comes { entries, alarms, ..Comes::only(TopupStatus::Completed, details) }
        }
    };
    // What was credited stays credited, whatever a session says of itself later.
    if topup.status == TopupStatus::Completed && comes.status != TopupStatus::Completed {
        comes.alarms.push("a payment that was credited is not paid any more");
        comes.status = TopupStatus::Completed;
    }
    comes
}

enum Verdict {
    Open,
    Expired,
    /// Nothing came, and nothing will.
    Failed(&'static str),
    /// What came is not what was asked for.
    Odd(&'static str),
    /// It is there, under this reference.
    Paid(String),
}

fn verdict(topup: &TopupRow, snapshot: &Snapshot, is_live: Option<bool>) -> Verdict {
    let Some(checkout) = &snapshot.checkout else { return of_payment(topup, snapshot.payment.as_ref(), is_live) };
    let name = topup.id.uuid().to_string();
    let names = [&checkout.topup, &checkout.client_reference_id];
    if checkout.mode != Mode::Payment || names.iter().any(|named| named.as_deref() != Some(&*name)) {
        return Verdict::Odd("foreign_session");
    }
    match (&checkout.payment_status, &checkout.status) {
        (PaymentStatus::Paid, _) => {
            let asked = Some(topup.amount);
            if checkout.currency.as_deref() != Some(CURRENCY) {
                Verdict::Odd("currency_mismatch")
            } else if checkout.amount_total.and_then(amount_of) != asked {
                Verdict::Odd("amount_mismatch")
            } else if is_live.is_some_and(|is_live| is_live != checkout.livemode) {
                Verdict::Odd("livemode_mismatch")
            } else {
                Verdict::Paid(format!("stripe:{}", checkout.id))
            }
        }
        // Whoever made the page cheaper at Stripe has to say what was bought.
        (PaymentStatus::NoPaymentRequired, CheckoutStatus::Complete) => Verdict::Odd("nothing_to_pay"),
        (_, CheckoutStatus::Expired) => Verdict::Expired,
        // Through, and the money is under way, or did not come.
        (_, CheckoutStatus::Complete) => match snapshot.payment.as_ref().map(|payment| &payment.status) {
            Some(PaymentIntentStatus::Canceled | PaymentIntentStatus::RequiresPaymentMethod) => {
                Verdict::Failed("payment_failed")
            }
            Some(PaymentIntentStatus::RequiresCapture) => Verdict::Odd("not_captured"),
            _ => Verdict::Open,
        },
        (_, CheckoutStatus::Open | CheckoutStatus::Other(_)) => Verdict::Open,
    }
}

/// A payment without a page: a saved card was charged.
fn of_payment(topup: &TopupRow, payment: Option<&Payment>, is_live: Option<bool>) -> Verdict {
    let Some(payment) = payment else { return Verdict::Open };
    if payment.topup.as_deref() != Some(&*topup.id.uuid().to_string()) {
        return Verdict::Odd("foreign_payment");
    }
    match &payment.status {
        PaymentIntentStatus::Succeeded => {
            if payment.currency != CURRENCY {
                Verdict::Odd("currency_mismatch")
            } else if amount_of(payment.amount_received) != Some(topup.amount) {
                Verdict::Odd("amount_mismatch")
            } else if is_live.is_some_and(|is_live| is_live != payment.livemode) {
                Verdict::Odd("livemode_mismatch")
            } else {
                Verdict::Paid(format!("stripe:{}", payment.id))
            }
        }
        PaymentIntentStatus::Canceled
        | PaymentIntentStatus::RequiresPaymentMethod
        | PaymentIntentStatus::RequiresAction => Verdict::Failed("card_declined"),
        PaymentIntentStatus::RequiresCapture => Verdict::Odd("not_captured"),
        _ => Verdict::Open,
    }
}

/// The payment, and everything that went back of it or came again, the oldest first.
fn movements(
    paid: Amount,
    reference: &str,
    snapshot: &Snapshot,
    fresh: &mut impl FnMut() -> Uuid,
) -> (Vec<Entry>, Vec<&'static str>) {
    let mut alarms = Vec::new();
    let mut entry = |reference: String, movement, amount, reverses: Option<&str>, reason: Option<&str>| Entry {
        id: TransferId::new(fresh()),
        reference,
        movement,
        amount,
        reverses: reverses.map(str::to_owned),
        reason: reason.map(str::to_owned),
    };
    let mut entries = vec![entry(reference.to_owned(), Movement::Paid, paid, None, None)];
    let in_dollars =
        |cents: i64, currency: &str| amount_of(cents).filter(|amount| currency == CURRENCY && !amount.is_zero());
    for refund in snapshot.refunds.iter().rev() {
        let Some(amount) = in_dollars(refund.amount, &refund.currency) else {
            alarms.push("a refund is not in dollars");
            continue;
        };
        let (name, reason) = (format!("stripe:{}", refund.id), refund.reason.as_deref());
        let failed = match &refund.status {
            RefundStatus::Pending | RefundStatus::RequiresAction | RefundStatus::Succeeded => false,
            RefundStatus::Failed | RefundStatus::Canceled => true,
            RefundStatus::Other(_) => {
                alarms.push("a refund has a status that is not known");
                continue;
            }
        };
        entries.push(entry(name.clone(), Movement::Refunded, amount, Some(reference), reason));
        if failed {
            let back = format!("{name}:failed");
            entries.push(entry(back, Movement::RefundFailed, amount, Some(&name), None));
        }
    }
    for dispute in snapshot.disputes.iter().rev() {
        let Some(amount) = in_dollars(dispute.amount, &dispute.currency) else {
            alarms.push("a dispute is not in dollars");
            continue;
        };
        let (name, reason) = (format!("stripe:{}", dispute.id), dispute.reason.as_deref());
        let (taken, won) = match &dispute.status {
            DisputeStatus::NeedsResponse
            | DisputeStatus::UnderReview
            | DisputeStatus::AppealNeedsResponse
            | DisputeStatus::AppealUnderReview
            | DisputeStatus::Lost => (true, false),
            DisputeStatus::Won => (true, true),
            // Inquiries take no money; what was prevented took some only if it says so.
            DisputeStatus::WarningNeedsResponse
            | DisputeStatus::WarningUnderReview
            | DisputeStatus::WarningClosed
            | DisputeStatus::Prevented => {
                (dispute.balance_transactions.iter().map(|moved| moved.amount).sum::<i64>() < 0, false)
            }
            DisputeStatus::Other(_) => {
                alarms.push("a dispute has a status that is not known");
                continue;
            }
        };
        if taken {
            entries.push(entry(name.clone(), Movement::Disputed, amount, Some(reference), reason));
        }
        if won {
            let back = format!("{name}:won");
            entries.push(entry(back, Movement::DisputeWon, amount, Some(&name), None));
        }
    }
    (entries, alarms)
}

fn details_of(snapshot: &Snapshot) -> TopupDetails {
    let checkout = snapshot.checkout.as_ref();
    let charge = snapshot.payment.as_ref().and_then(|payment| payment.charge.as_ref());
    let invoice = checkout.and_then(|checkout| checkout.invoice.as_ref());
    TopupDetails {
        session: checkout.map(|checkout| checkout.id.clone()),
        url: checkout.and_then(|checkout| checkout.url.clone()),
        payment: checkout
            .and_then(|checkout| checkout.payment_intent.clone())
            .or_else(|| snapshot.payment.as_ref().map(|payment| payment.id.clone())),
        failure: None,
        receipt_url: checkout
            .and_then(|checkout| checkout.receipt_url.clone())
            .or_else(|| charge.and_then(|charge| charge.receipt_url.clone())),
        invoice_url: invoice.and_then(|invoice| invoice.hosted_url.clone()),
        invoice: invoice.and_then(|invoice| invoice.number.clone()),
        buyer: checkout.and_then(|checkout| checkout.buyer.as_ref()).map(|buyer| buyer_of(buyer).to_string()),
    }
}

fn buyer_of(buyer: &Buyer) -> Value {
    let address = buyer.address.as_ref().map(|address| {
        json!({ "line1": address.line1, "line2": address.line2, "city": address.city, "state": address.state,
            "postal_code": address.postal_code, "country": address.country })
    });
    let tax_ids: Vec<Value> = buyer.tax_ids.iter().map(|id| json!({ "type": id.kind, "value": id.value })).collect();
    json!({ "name": buyer.name, "email": buyer.email, "address": address, "tax_ids": tax_ids })
}
