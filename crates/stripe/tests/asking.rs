//! Holds: the client against a fake Stripe: what is asked, what is read, and what is known after a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use batchin_sim::stripe::{DisputeEnd, FakeStripe, STRIPE_KEY, STRIPE_WEBHOOK_SECRET, SavedOutcome, StripeFault};
use batchin_stripe::{
    BuildError, CheckoutStatus, Customer, DisputeStatus, Event, EventKind, Mode, NewCharge, NewCheckout, NewSetup,
    Options, PaymentIntentStatus, PaymentStatus, RefundStatus, Stripe, StripeError, Subject, TOLERANCE_SECONDS, verify,
};
use secrecy::SecretString;
use serde_json::{Value, json};

const NOW: i64 = 1_790_000_000;
const DAY: i64 = 24 * 60 * 60;

struct World {
    fake: FakeStripe,
    stripe: Stripe,
}

fn client(base: String, key: &str, timeout: Duration) -> Result<Stripe, BuildError> {
    // Whoever installed one before installed the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Stripe::new(Options { api_base: base, secret_key: SecretString::from(key), timeout })
}

impl World {
    async fn new() -> Self {
        let fake = FakeStripe::start(NOW).await.unwrap();
        let stripe = client(fake.base_url() + "/", STRIPE_KEY, Duration::from_secs(20)).unwrap();
        Self { fake, stripe }
    }

    fn hasty(&self) -> Stripe {
        client(self.fake.base_url(), STRIPE_KEY, Duration::from_millis(300)).unwrap()
    }

    /// Pays a top-up: its session and payment intent.
    async fn paid(&self, topup: &str, cents: i64) -> (String, String) {
        let session = self.stripe.create_checkout(&checkout(topup, cents)).await.unwrap().id;
        let payment = self.fake.pay(&session).unwrap();
        (session, payment)
    }

    fn kinds(&self) -> Vec<EventKind> {
        let event = |body: String| Event::parse(body.as_bytes()).unwrap();
        self.fake.webhooks().into_iter().map(|webhook| event(webhook.body).kind).collect()
    }
}

fn checkout(topup: &str, cents: i64) -> NewCheckout {
    NewCheckout {
        topup: topup.to_owned(),
        amount: cents,
        currency: "usd".to_owned(),
        product: "Credit & more".to_owned(),
        success_url: "https://example.org/?done={CHECKOUT_SESSION_ID}".to_owned(),
        cancel_url: "https://example.org/no".to_owned(),
        customer: Customer::New { email: Some("a+b@example.org".to_owned()) },
        save_method: false,
    }
}

#[tokio::test]
async fn a_checkout_is_opened_paid_and_read() {
    let world = World::new().await;
    let opened = world.stripe.create_checkout(&checkout("t-1", 2_550)).await.unwrap();
    assert!(opened.url.is_some());
    assert_eq!((&opened.status, &opened.payment_status), (&CheckoutStatus::Open, &PaymentStatus::Unpaid));
    let request = &world.fake.requests()[0];
    assert_eq!(request.header("idempotency-key"), "topup:t-1");
    assert_eq!(request.header("stripe-version"), batchin_stripe::STRIPE_VERSION);

    world.fake.pay(&opened.id).unwrap();
    let read = world.stripe.checkout(&opened.id).await.unwrap();
    assert_eq!(
        (&read.mode, &read.status, &read.payment_status),
        (&Mode::Payment, &CheckoutStatus::Complete, &PaymentStatus::Paid)
    );
    assert_eq!((read.amount_total, read.currency.as_deref(), read.livemode), (Some(2_550), Some("usd"), false));
    assert_eq!(
        (read.client_reference_id.as_deref(), read.topup.as_deref(), &read.url),
        (Some("t-1"), Some("t-1"), &None)
    );
    let payment = read.payment.unwrap();
    assert_eq!((Some(&payment.id), payment.topup.as_deref()), (read.payment_intent.as_ref(), Some("t-1")));
    assert_eq!((&payment.status, payment.amount_received), (&PaymentIntentStatus::Succeeded, 2_550));
    let charge = payment.charge.clone().unwrap();
    assert_eq!((charge.amount_captured, charge.amount_refunded, charge.disputed), (2_550, 0, false));
    assert_eq!(charge.card.unwrap().last4.as_deref(), Some("4242"));
    assert!(read.receipt_url.is_some() && read.receipt_url == charge.receipt_url);
    assert!(read.invoice.is_some_and(|invoice| invoice.hosted_url.is_some() && invoice.number.is_some()));
    let buyer = read.buyer.unwrap();
    assert_eq!(
        (buyer.email.as_deref(), buyer.address.unwrap().country.as_deref()),
        (Some("a+b@example.org"), Some("DE"))
    );
    assert_eq!((buyer.tax_ids[0].kind.as_str(), buyer.tax_ids[0].value.as_str()), ("eu_vat", "DE123456789"));
    assert_eq!(world.stripe.payment(&payment.id).await.unwrap(), payment);
    assert_eq!(world.stripe.charge(&charge.id).await.unwrap().payment_intent, Some(payment.id));

    // The same buyer again.
    let known =
        NewCheckout { customer: Customer::Known(read.customer.unwrap()), save_method: true, ..checkout("t-2", 100) };
    let again = world.stripe.create_checkout(&known).await.unwrap();
    let payment = world.fake.pay(&again.id).unwrap();
    let method = world.stripe.payment(&payment).await.unwrap().payment_method.unwrap();
    assert_eq!(world.fake.object(&method).unwrap()["customer"], json!(again.customer));

    let foreign = NewCheckout { customer: Customer::Known("cus_other".to_owned()), ..checkout("t-3", 100) };
    let refused = world.stripe.create_checkout(&foreign).await.unwrap_err();
    assert!(refused.outcome_known() && refused.refusal().unwrap().is_missing(), "{refused}");
    let small = world.stripe.create_checkout(&checkout("t-4", 49)).await.unwrap_err();
    assert_eq!(small.refusal().unwrap().code.as_deref(), Some("amount_too_small"));
}

#[tokio::test]
async fn a_saved_method_is_charged_and_a_decline_is_told() {
    let world = World::new().await;
    let setup = NewSetup {
        reference: "s-1".to_owned(),
        currency: "usd".to_owned(),
        success_url: "https://example.org/yes".to_owned(),
        cancel_url: "https://example.org/no".to_owned(),
        customer: Customer::New { email: None },
    };
    let opened = world.stripe.create_setup(&setup).await.unwrap();
    assert_eq!((opened.mode, opened.amount_total), (Mode::Setup, None));
    let method = world.fake.pay(&opened.id).unwrap();
    let read = world.stripe.checkout(&opened.id).await.unwrap();
    let saved = read.saved_method.unwrap();
    assert_eq!((&saved.id, saved.card.unwrap().brand.as_str()), (&method, "visa"));

    let charge = |topup: &str| NewCharge {
        topup: topup.to_owned(),
        amount: 1_000,
        currency: "usd".to_owned(),
        customer: read.customer.clone().unwrap(),
        payment_method: method.clone(),
        description: "Credit".to_owned(),
    };
    let paid = world.stripe.charge_saved(&charge("a-1")).await.unwrap();
    assert_eq!(
        (paid.status.clone(), paid.amount_received, paid.topup.as_deref()),
        (PaymentIntentStatus::Succeeded, 1_000, Some("a-1"))
    );
    assert_eq!(world.stripe.charge_saved(&charge("a-1")).await.unwrap(), paid, "the same key is the same payment");

    world.fake.script_saved(&method, SavedOutcome::Declined("insufficient_funds".to_owned()));
    let declined = world.stripe.charge_saved(&charge("a-2")).await.unwrap_err();
    let refusal = declined.refusal().unwrap();
    assert!(declined.outcome_known() && refusal.is_decline() && !refusal.needs_customer());
    assert_eq!(
        (refusal.code.as_deref(), refusal.decline_code.as_deref()),
        (Some("card_declined"), Some("insufficient_funds"))
    );
    let failed = world.stripe.payment(refusal.payment_intent.as_ref().unwrap()).await.unwrap();
    assert_eq!((failed.status, failed.amount_received), (PaymentIntentStatus::RequiresPaymentMethod, 0));
    assert_eq!(failed.last_error.unwrap().decline_code.as_deref(), Some("insufficient_funds"));

    world.fake.script_saved(&method, SavedOutcome::NeedsCustomer);
    let absent = world.stripe.charge_saved(&charge("a-3")).await.unwrap_err();
    assert!(
        absent.refusal().is_some_and(|refusal| refusal.needs_customer() && refusal.payment_intent.is_some()),
        "{absent}"
    );

    world.fake.script_saved(&method, SavedOutcome::Processing);
    let slow = world.stripe.charge_saved(&charge("a-4")).await.unwrap();
    assert_eq!(slow.status, PaymentIntentStatus::Processing);
    world.fake.settle(&slow.id, true);
    assert_eq!(world.stripe.payment(&slow.id).await.unwrap().status, PaymentIntentStatus::Succeeded);
}

#[tokio::test]
async fn what_comes_back_is_listed_to_the_last() {
    let world = World::new().await;
    let (_, payment) = world.paid("t-1", 50_000).await;
    let (_, other) = world.paid("t-2", 50_000).await;
    world.fake.refund(&other, 1, false).unwrap();
    for cents in 1..=250 {
        world.fake.refund(&payment, cents, false).unwrap();
    }
    let refunds = world.stripe.refunds(&payment).await.unwrap();
    assert_eq!(refunds.iter().map(|refund| refund.amount).sum::<i64>(), (1..=250).sum::<i64>());
    assert!(refunds.iter().all(|refund| refund.status == RefundStatus::Succeeded && refund.currency == "usd"));
    world.fake.end_refund(&refunds[0].id, "failed");
    assert_eq!(world.stripe.refunds(&payment).await.unwrap()[0].status, RefundStatus::Failed);
    let charge = world.stripe.payment(&payment).await.unwrap().charge.unwrap();
    assert_eq!(charge.amount_refunded, (1..250).sum::<i64>());
    for _ in 0..751 {
        world.fake.refund(&payment, 1, true).unwrap();
    }
    let many = world.stripe.refunds(&payment).await.unwrap_err();
    assert!(matches!(many, StripeError::TooMany { most: 1_000 }), "{many}");

    let dispute = world.fake.dispute(&other, 49_999).unwrap();
    let read = world.stripe.disputes(&other).await.unwrap().remove(0);
    assert_eq!((&read.id, read.amount, &read.status), (&dispute, 49_999, &DisputeStatus::NeedsResponse));
    world.fake.end_dispute(&dispute, DisputeEnd::Won);
    let read = world.stripe.disputes(&other).await.unwrap().remove(0);
    let moved: Vec<_> = read.balance_transactions.iter().map(|moved| (moved.amount, moved.fee)).collect();
    assert_eq!((read.status, moved), (DisputeStatus::Won, vec![(-49_999, 1_500), (49_999, -1_500)]));
    assert!(world.stripe.disputes(&payment).await.unwrap().is_empty());
    for id in ["", "../events", "pi_1?x", "pi 1"] {
        assert!(matches!(world.stripe.refunds(id).await, Err(StripeError::NoId)), "{id}");
        assert!(matches!(world.stripe.checkout(id).await, Err(StripeError::NoId)), "{id}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_or_searched() {
    let world = World::new().await;
    let new = checkout("t-1", 1_000);
    for fault in [StripeFault::SilentAfterCommit, StripeFault::BrokenAfterCommit] {
        world.fake.fail("POST", "/checkout", fault);
        let lost = world.hasty().create_checkout(&new).await.unwrap_err();
        assert!(matches!(lost, StripeError::TimedOut | StripeError::Broken(_)), "{lost}");
        assert!(!lost.outcome_known());
    }
    let session = world.stripe.create_checkout(&new).await.unwrap().id;
    assert_eq!(world.fake.sessions(), [session.as_str()]);
    let other = world.stripe.create_checkout(&checkout("t-1", 1_001)).await.unwrap_err();
    assert_eq!(other.refusal().unwrap().kind, batchin_stripe::RefusalKind::Idempotency);

    // A failure of Stripe's own is kept with its key: reading tells.
    world.fake.fail("POST", "/checkout", StripeFault::ErrorAfterCommit);
    for _ in 0..2 {
        let failed = world.stripe.create_checkout(&checkout("t-2", 1_000)).await.unwrap_err();
        assert!(matches!(failed, StripeError::Busy { status: 500, .. }) && !failed.outcome_known(), "{failed}");
    }
    for number in 0..230 {
        world.stripe.create_checkout(&checkout(&format!("later-{number}"), 1_000)).await.unwrap();
    }
    let found = world.stripe.find_checkout("t-2", NOW - 60..=NOW + 60).await.unwrap().unwrap();
    assert_eq!(Some(found.id), world.fake.session_of("t-2"));
    assert_eq!(world.stripe.find_checkout("t-none", NOW - 60..=NOW).await.unwrap(), None);
    assert_eq!(world.stripe.find_checkout("t-2", NOW + 1..=NOW + 60).await.unwrap(), None);

    // After a day the key is forgotten, and the same call would make a second session.
    world.fake.set_now(NOW + DAY);
    assert_ne!(world.stripe.create_checkout(&new).await.unwrap().id, session);
}

#[tokio::test]
async fn a_failure_says_what_is_known() {
    let world = World::new().await;
    let try_one = async |fault| {
        world.fake.fail("POST", "/checkout", fault);
        world.stripe.create_checkout(&checkout("t-1", 1_000)).await.unwrap_err()
    };
    let busy = try_one(StripeFault::Busy(7)).await;
    assert!(
        matches!(busy, StripeError::Busy { status: 429, retry_after: Some(wait) } if wait == Duration::from_secs(7)),
        "{busy}"
    );
    assert!(busy.outcome_known());
    for status in [500, 503, 409] {
        let failed = try_one(StripeFault::Error(status)).await;
        assert!(matches!(failed, StripeError::Busy { status: is, .. } if is == status) && !failed.outcome_known());
    }
    let float = json!({ "id": "cs_1", "livemode": false, "created": 1, "amount_total": 10.5 }).to_string();
    for body in ["", "null", "[]", "{", r#"{"id":"cs_1"}"#, &float, &"x".repeat(1024 * 1024 + 1)] {
        let odd = try_one(StripeFault::Body(body.to_owned())).await;
        assert!(matches!(odd, StripeError::Unreadable { .. }) && !odd.outcome_known(), "{odd}");
    }
    let bare = json!({ "id": "cs_1", "livemode": true, "created": 1, "payment_intent": "pi_1", "status": "paused", "newer": [] });
    world.fake.fail("GET", "/checkout", StripeFault::Body(bare.to_string()));
    let read = world.stripe.checkout("cs_1").await.unwrap();
    assert_eq!(
        (read.status, read.payment_intent.as_deref()),
        (CheckoutStatus::Other("paused".to_owned()), Some("pi_1"))
    );
    assert_eq!((read.mode, read.amount_total, read.payment), (Mode::Other(String::new()), None, None));

    let wrong = client(world.fake.base_url(), "sk_test_wrong_key", Duration::from_secs(20)).unwrap();
    let refused = wrong.checkout("cs_1").await.unwrap_err();
    assert_eq!(refused.refusal().unwrap().status, 401);
    let gone = client("http://127.0.0.1:1".to_owned(), "sk_test_wrong_key", Duration::from_secs(20)).unwrap();
    let unreachable = gone.create_checkout(&checkout("t-1", 1_000)).await.unwrap_err();
    assert!(matches!(unreachable, StripeError::Unreachable(_)) && unreachable.outcome_known());
    for shown in [format!("{wrong:?} {refused:?} {refused}"), format!("{unreachable:?} {unreachable}")] {
        assert!(!shown.contains("wrong_key"), "{shown}");
    }
    for (base, key) in [("api.stripe.com", "sk_x"), ("ftp://a", "sk_x"), ("https://a", ""), ("https://a", "sk x\n")] {
        assert!(client(base.to_owned(), key, Duration::from_secs(1)).is_err(), "{base} {key:?}");
    }
}

#[tokio::test]
async fn webhooks_are_signed_and_name_what_is_to_be_read() {
    let world = World::new().await;
    let (session, payment) = world.paid("t-1", 1_000).await;
    let later = world.stripe.create_checkout(&checkout("t-2", 1_000)).await.unwrap().id;
    let slow = world.fake.pay_later(&later).unwrap();
    world.fake.settle(&slow, false);
    let open = world.stripe.create_checkout(&checkout("t-3", 1_000)).await.unwrap().id;
    world.fake.expire(&open);
    let refund = world.fake.refund(&payment, 400, false).unwrap();
    world.fake.end_refund(&refund, "failed");
    let dispute = world.fake.inquire(&payment, 1_000).unwrap();
    world.fake.escalate(&dispute);
    world.fake.end_dispute(&dispute, DisputeEnd::Lost);
    let secrets = [SecretString::from(STRIPE_WEBHOOK_SECRET)];
    let mut subjects = Vec::new();
    for webhook in world.fake.webhooks() {
        let body = webhook.body.as_bytes();
        assert_eq!(verify(body, &webhook.signature, &secrets, NOW, TOLERANCE_SECONDS), Ok(()));
        let event = Event::parse(body).unwrap();
        assert_eq!((event.id, event.kind.as_str(), event.created), (webhook.id, webhook.kind.as_str(), Some(NOW)));
        assert_eq!((event.livemode, event.api_version.as_deref()), (Some(false), Some(batchin_stripe::STRIPE_VERSION)));
        subjects.push((event.kind, event.subject));
    }
    let of_payment = || Subject::Payment(payment.clone());
    for expected in [
        (EventKind::CheckoutCompleted, Subject::Checkout(session)),
        (EventKind::CheckoutAsyncPaymentFailed, Subject::Checkout(later)),
        (EventKind::PaymentFailed, Subject::Payment(slow)),
        (EventKind::CheckoutExpired, Subject::Checkout(open)),
        (EventKind::ChargeRefunded, of_payment()),
        (EventKind::RefundFailed, of_payment()),
        (EventKind::DisputeFundsWithdrawn, of_payment()),
        (EventKind::DisputeClosed, of_payment()),
        (EventKind::Other("charge.succeeded".to_owned()), Subject::None),
    ] {
        assert!(subjects.contains(&expected), "{expected:?} is not among {subjects:?}");
    }
    assert_eq!(world.kinds().len(), subjects.len());
    world.fake.lie(&payment, "currency", Value::from("EUR"));
    assert_eq!(world.stripe.payment(&payment).await.unwrap().currency, "eur");
}
