//! Holds: Stripe's own packages as judges: they read the fake and verify what it signs, and ours reads what they write.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use batchin_sim::stripe::{FakeStripe, STRIPE_KEY, STRIPE_WEBHOOK_SECRET, SavedOutcome, StripeFault};
use batchin_stripe::{
    Customer, DEFAULT_TIMEOUT, Event, NewCheckout, Options, SignatureError, Stripe, TOLERANCE_SECONDS, verify,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

/// Loading the package takes some seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// The most that Stripe takes at once.
const MOST_CENTS: i64 = 99_999_999;

/// What `make test` prepares.
fn prepared(name: &str) -> PathBuf {
    let path = std::env::var_os(name).map(PathBuf::from);
    path.unwrap_or_else(|| panic!("{name} is not set: this test needs what `make test` prepares; run it with that"))
}

#[expect(clippy::disallowed_methods, reason = "the packages compare signatures with the machine's clock")]
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

fn checkout(topup: &str) -> NewCheckout {
    NewCheckout {
        topup: topup.to_owned(),
        amount: MOST_CENTS,
        currency: "usd".to_owned(),
        product: "Credit".to_owned(),
        success_url: "https://example.org/yes".to_owned(),
        cancel_url: "https://example.org/no".to_owned(),
        customer: Customer::New { email: Some("a@example.org".to_owned()) },
        save_method: true,
    }
}

async fn check_package(program: &Path, script: &str) {
    // Whoever installed one before installed the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let now = now();
    let fake = FakeStripe::start(now).await.unwrap();
    let options =
        Options { api_base: fake.base_url(), secret_key: SecretString::from(STRIPE_KEY), timeout: DEFAULT_TIMEOUT };
    let stripe = Stripe::new(options).unwrap();
    let session = stripe.create_checkout(&checkout("t-1")).await.unwrap().id;
    let payment = fake.pay(&session).unwrap();
    let paid = stripe.checkout(&session).await.unwrap();
    fake.refund(&payment, 1, true).unwrap();
    let refund = fake.refund(&payment, 42, false).unwrap();
    let dispute = fake.dispute(&payment, MOST_CENTS).unwrap();
    let method = paid.payment.as_ref().unwrap().payment_method.clone().unwrap();
    fake.script_saved(&method, SavedOutcome::Declined("do_not_honor".to_owned()));
    let webhooks: Vec<_> = fake.webhooks();
    let webhooks: Vec<_> =
        webhooks.iter().map(|event| json!({ "body": event.body, "signature": event.signature })).collect();
    let facts = json!({ "url": fake.base_url(), "key": STRIPE_KEY, "secret": STRIPE_WEBHOOK_SECRET, "now": now, "session": session,
        "payment": payment, "refund": refund, "refunded": 42, "dispute": dispute, "amount": MOST_CENTS, "method": method,
        "customer": paid.customer, "webhooks": webhooks });
    let run = Command::new(program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sdk").join(script))
        .env("STRIPE_FACTS", facts.to_string())
        .env("SDK_NODE_MODULES", std::env::var_os("BATCHIN_TEST_NODE_MODULES").unwrap_or_default())
        .kill_on_drop(true)
        .output();
    let run = timeout(PATIENCE, run).await.unwrap().unwrap();
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));

    let told: Value = serde_json::from_slice(&run.stdout).unwrap();
    let text = |name: &str| told[name].as_str().unwrap();
    let (payload, secrets) = (text("payload").as_bytes(), [SecretString::from(STRIPE_WEBHOOK_SECRET)]);
    let check = |header: &str, body: &[u8]| verify(body, header, &secrets, now, TOLERANCE_SECONDS);
    assert_eq!(check(text("header"), payload), Ok(()));
    assert_eq!(check(text("old"), payload), Err(SignatureError::Old));
    assert_eq!(check(text("header"), &payload[1..]), Err(SignatureError::Wrong));
    assert_eq!(Event::parse(payload).unwrap().id, fake.webhooks()[0].id);

    // An amount as the package writes it, and one that it asked for.
    fake.fail("GET", "/checkout", StripeFault::Body(text("session").to_owned()));
    let written = stripe.checkout(&session).await.unwrap();
    assert_eq!(
        (written.amount_total, &written.payment, &written.buyer),
        (Some(MOST_CENTS), &stripe.checkout(&session).await.unwrap().payment, &paid.buyer)
    );
    let asked = stripe.find_checkout(text("reference"), now - 1..=now + 1).await.unwrap().unwrap();
    assert_eq!((asked.amount_total, asked.currency.as_deref()), (Some(MOST_CENTS), Some("usd")));
}

#[tokio::test]
async fn the_official_python_package_agrees() {
    check_package(&prepared("BATCHIN_TEST_PYTHON"), "stripe_python.py").await;
}

#[tokio::test]
async fn the_official_node_package_agrees() {
    prepared("BATCHIN_TEST_NODE_MODULES");
    check_package(Path::new("node"), "stripe_node.mjs").await;
}
