//! Holds: what an event says that must be read anew. An event is never believed beyond that.

use std::ops::RangeInclusive;

use serde_json::Value;

use crate::{
    client::{Stripe, is_id},
    failure::StripeError,
    form::Form,
    members::Members,
    words::words,
};

/// Events in a page. A dispute's has all its evidence, up to half a mebibyte.
const PAGE: i64 = 25;
/// The events that are listed: all that name something to be read anew.
const LISTED: [EventKind; 16] = [
    EventKind::CheckoutCompleted,
    EventKind::CheckoutAsyncPaymentSucceeded,
    EventKind::CheckoutAsyncPaymentFailed,
    EventKind::CheckoutExpired,
    EventKind::ChargeRefunded,
    EventKind::RefundCreated,
    EventKind::RefundUpdated,
    EventKind::RefundFailed,
    EventKind::ChargeRefundUpdated,
    EventKind::DisputeCreated,
    EventKind::DisputeUpdated,
    EventKind::DisputeClosed,
    EventKind::DisputeFundsWithdrawn,
    EventKind::DisputeFundsReinstated,
    EventKind::PaymentSucceeded,
    EventKind::PaymentFailed,
];

words! {
    /// What happened, by Stripe's word for it.
    EventKind {
        /// The buyer is through; the money may still be under way.
        CheckoutCompleted = "checkout.session.completed",
        /// The money came later.
        CheckoutAsyncPaymentSucceeded = "checkout.session.async_payment_succeeded",
        /// The money did not come.
        CheckoutAsyncPaymentFailed = "checkout.session.async_payment_failed",
        /// It can no longer be paid.
        CheckoutExpired = "checkout.session.expired",
        /// Money was given back, in part or all.
        ChargeRefunded = "charge.refunded",
        /// A refund began.
        RefundCreated = "refund.created",
        /// A refund changed.
        RefundUpdated = "refund.updated",
        /// A refund came back.
        RefundFailed = "refund.failed",
        /// A refund changed, by its older word.
        ChargeRefundUpdated = "charge.refund.updated",
        /// A buyer disputes a payment.
        DisputeCreated = "charge.dispute.created",
        /// A dispute changed.
        DisputeUpdated = "charge.dispute.updated",
        /// A dispute ended.
        DisputeClosed = "charge.dispute.closed",
        /// A dispute took the money.
        DisputeFundsWithdrawn = "charge.dispute.funds_withdrawn",
        /// A dispute gave the money back.
        DisputeFundsReinstated = "charge.dispute.funds_reinstated",
        /// A payment is there.
        PaymentSucceeded = "payment_intent.succeeded",
        /// A payment failed.
        PaymentFailed = "payment_intent.payment_failed",
    }
}

/// What is to be read anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A checkout session, by its id.
    Checkout(String),
    /// A payment intent, by its id.
    Payment(String),
    /// A charge, by its id, where its payment intent is not named: [`Stripe::charge`](crate::Stripe::charge) tells it.
    Charge(String),
    /// Nothing of ours: the event is to be set aside.
    None,
}

/// An event, as far as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `evt_…`, the same at every delivery.
    pub id: String,
    /// What happened.
    pub kind: EventKind,
    /// Seconds since 1970; nothing in events of the API's second version, which write it out.
    pub created: Option<i64>,
    /// Real money, and no test; nothing where the event does not say.
    pub livemode: Option<bool>,
    /// The version of the API that the event was written in.
    pub api_version: Option<String>,
    /// What is to be read anew.
    pub subject: Subject,
}

/// An event from Stripe's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEvent {
    /// `evt_…`, the same as at its delivery.
    pub id: String,
    /// What happened, by Stripe's word for it.
    pub kind: String,
    /// What a delivery would bring.
    pub body: String,
}

/// A page of Stripe's list of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPage {
    /// Newest first.
    pub events: Vec<ListedEvent>,
    /// What the next page begins after; nothing where this is the last.
    pub next: Option<String>,
}

/// What was signed is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEvent {
    /// The body is no JSON.
    #[error("the body is no JSON")]
    NotJson,
    /// It has no id, or one that can be none.
    #[error("the event has no id")]
    NoId,
    /// It does not say what happened.
    #[error("the event has no type")]
    NoType,
}

impl Event {
    /// Reads an event of any version: one that is not known, or names nothing of ours, is set aside and no error.
    pub fn parse(payload: &[u8]) -> Result<Self, BadEvent> {
        let value: Value = serde_json::from_slice(payload).map_err(|_| BadEvent::NotJson)?;
        let event = Members::of(&value);
        let kind = EventKind::parse(&event.text("type").ok_or(BadEvent::NoType)?);
        Ok(Self {
            id: event.text("id").filter(|id| is_id(id)).ok_or(BadEvent::NoId)?,
            subject: subject(&kind, event.within("data").within("object")),
            kind,
            created: event.integer("created").unwrap_or(None),
            livemode: event.flag("livemode"),
            api_version: event.text("api_version"),
        })
    }
}

impl Stripe {
    /// A page of the events between two times, in seconds since 1970, that name something to be read anew, newest first; the
    /// first page, or the one behind [`EventPage::next`]. Stripe lists those of thirty days.
    pub async fn events(&self, created: RangeInclusive<i64>, after: Option<&str>) -> Result<EventPage, StripeError> {
        let times =
            Form::new().with_number("created[gte]", *created.start()).with_number("created[lte]", *created.end());
        let query = LISTED.iter().fold(times, |form, kind| form.with("types[]", kind.as_str()));
        let mut events = Vec::new();
        let each = |event: Members<'_>| {
            events.push(ListedEvent {
                id: event.needed_text("id")?,
                kind: event.needed_text("type")?,
                body: event.json(),
            });
            Ok(())
        };
        let next = self.page("/v1/events", (query, PAGE), after, each).await?;
        Ok(EventPage { events, next })
    }
}

fn subject(kind: &EventKind, object: Members<'_>) -> Subject {
    let id = |id: Option<String>| id.filter(|id| is_id(id));
    let own = || id(object.text("id"));
    let payment = || id(object.id("payment_intent")).map(Subject::Payment);
    let found = match kind {
        EventKind::CheckoutCompleted
        | EventKind::CheckoutAsyncPaymentSucceeded
        | EventKind::CheckoutAsyncPaymentFailed
        | EventKind::CheckoutExpired => own().map(Subject::Checkout),
        EventKind::PaymentSucceeded | EventKind::PaymentFailed => own().map(Subject::Payment),
        EventKind::ChargeRefunded => payment().or_else(|| own().map(Subject::Charge)),
        EventKind::RefundCreated
        | EventKind::RefundUpdated
        | EventKind::RefundFailed
        | EventKind::ChargeRefundUpdated
        | EventKind::DisputeCreated
        | EventKind::DisputeUpdated
        | EventKind::DisputeClosed
        | EventKind::DisputeFundsWithdrawn
        | EventKind::DisputeFundsReinstated => payment().or_else(|| id(object.id("charge")).map(Subject::Charge)),
        EventKind::Other(_) => None,
    };
    found.unwrap_or(Subject::None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(kind: &str, object: &Value) -> Event {
        let event = json!({ "id": "evt_1", "object": "event", "type": kind, "created": 1_790_000_000, "livemode": false,
            "api_version": "2027-09-29.fern", "data": { "object": object, "new": 1 }, "newer": {} });
        Event::parse(event.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn an_event_names_what_is_to_be_read() {
        let checkout = || Subject::Checkout("cs_1".to_owned());
        let payment = || Subject::Payment("pi_1".to_owned());
        let charge = || Subject::Charge("ch_1".to_owned());
        for (kind, object, subject) in [
            ("checkout.session.completed", json!({ "id": "cs_1", "payment_intent": "pi_1" }), checkout()),
            ("checkout.session.expired", json!({ "id": "cs_1" }), checkout()),
            ("payment_intent.succeeded", json!({ "id": "pi_1" }), payment()),
            ("charge.refunded", json!({ "id": "ch_1", "payment_intent": { "id": "pi_1" } }), payment()),
            ("charge.refunded", json!({ "id": "ch_1", "payment_intent": null }), charge()),
            ("refund.failed", json!({ "id": "re_1", "charge": "ch_1" }), charge()),
            ("charge.refund.updated", json!({ "id": "re_1", "charge": "ch_1", "payment_intent": "pi_1" }), payment()),
            ("charge.dispute.funds_withdrawn", json!({ "id": "du_1", "charge": { "id": "ch_1" } }), charge()),
            ("charge.dispute.closed", json!({ "id": "du_1" }), Subject::None),
            ("charge.dispute.closed", json!({ "id": "du_1", "payment_intent": "../x" }), Subject::None),
            ("invoice.paid", json!({ "id": "in_1", "payment_intent": "pi_1" }), Subject::None),
            ("charge.dispute.appealed", json!({ "id": "du_1", "payment_intent": "pi_1" }), Subject::None),
        ] {
            let event = read(kind, &object);
            assert_eq!((event.subject, event.kind.as_str()), (subject, kind));
        }
    }

    #[test]
    fn what_is_not_known_is_set_aside_and_what_is_none_refused() {
        let thin = json!({ "id": "evt_test_61", "object": "v2.core.event", "type": "v1.billing.meter.error_report_triggered",
            "created": "2026-11-30T00:00:00.000Z", "livemode": true, "related_object": { "id": "mtr_1" }, "context": null });
        let event = Event::parse(thin.to_string().as_bytes()).unwrap();
        assert_eq!((event.subject, event.created, event.livemode), (Subject::None, None, Some(true)));
        assert_eq!(event.kind, EventKind::Other("v1.billing.meter.error_report_triggered".to_owned()));
        for (body, fault) in [
            ("", BadEvent::NotJson),
            ("{", BadEvent::NotJson),
            ("[]", BadEvent::NoType),
            (r#"{"id":"evt_1"}"#, BadEvent::NoType),
            (r#"{"id":"evt_1","type":7}"#, BadEvent::NoType),
            (r#"{"type":"a.b"}"#, BadEvent::NoId),
            (r#"{"id":"evt 1","type":"a.b"}"#, BadEvent::NoId),
        ] {
            assert_eq!(Event::parse(body.as_bytes()), Err(fault), "{body}");
        }
    }
}
