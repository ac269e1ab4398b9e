//! Holds: payments that are made by themselves, against a fake Stripe: when they are due, once each, and what ends them.

use std::time::Duration;

use batchin_domain::Clock as _;
use batchin_testkit::{
    Backend, Reply, TestServer, both,
    sim::stripe::{FakeStripe, SavedOutcome, StripeFault},
};
use http::Method;
use serde_json::{Value, json};

const AUTO: &str = "/v1/topup/auto";
const CATCH_UP: Duration = Duration::from_secs(300);
const NANOS_PER_CENT: i64 = 10_000_000;

struct Shop {
    stripe: FakeStripe,
    server: TestServer,
}

impl Shop {
    async fn open(backend: Backend, balance: &str) -> Self {
        let stripe = FakeStripe::start(0).await.unwrap();
        let server = TestServer::start().on(backend).with_balance(balance).with_stripe(&stripe.base_url()).await;
        stripe.set_now(server.clock.now().seconds());
        Self { stripe, server }
    }

    /// A card was charged, and Stripe says that it failed; with its list or without.
    async fn charged_unclearly(backend: Backend, with_list: bool) -> Self {
        let shop = Self::open(backend, "0").await;
        shop.save().await;
        shop.stripe.fail("POST", "/payment_intents", StripeFault::ErrorAfterCommit);
        if !with_list {
            shop.stripe.fail("GET", "/payment_intents", StripeFault::Error(500));
        }
        shop.wish(500, 1_000, 100_000).await;
        shop.look().await;
        shop
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Reply {
        self.server.anonymous(method, path).key(&self.server.owner.key).json(body).await
    }

    async fn wish(&self, threshold: u32, amount: u32, ceiling: u32) -> Value {
        let wish = json!({ "enabled": true, "threshold_cents": threshold, "amount_cents": amount, "monthly_ceiling_cents": ceiling });
        self.ask(Method::PUT, AUTO, wish).await.ok()
    }

    /// The owner saves a card: Stripe's name for it.
    async fn save(&self) -> String {
        let opened = self.ask(Method::POST, "/v1/topup/auto/setup", json!({})).await.ok();
        let session = opened["session_id"].as_str().unwrap();
        assert!(opened["setup_url"].as_str().unwrap().starts_with("https://"), "{opened}");
        let method = self.stripe.pay(session).unwrap();
        self.hear().await;
        method
    }

    async fn hear(&self) {
        for event in self.stripe.webhooks() {
            let sent = self.server.anonymous(Method::POST, "/v1/webhooks/stripe");
            assert_eq!(sent.header("stripe-signature", &event.signature).body(event.body).await.status, 200);
        }
        self.look().await;
    }

    fn pass(&self, time: Duration) {
        self.server.clock.advance(time);
        self.stripe.set_now(self.server.clock.now().seconds());
    }

    async fn look(&self) {
        while self.server.billing.look(CATCH_UP).await.unwrap() {}
    }

    async fn cents(&self) -> i64 {
        self.server.balance().await.nanos() / NANOS_PER_CENT
    }

    async fn shown(&self) -> Value {
        self.server.get(AUTO).await.ok()
    }

    fn charges(&self) -> usize {
        self.stripe.requests().iter().filter(|call| call.method == "POST" && call.path == "/v1/payment_intents").count()
    }

    async fn clean(&self) {
        assert_eq!(self.server.store.check().await.unwrap().faults, []);
    }
}

both! {
    async fn a_low_balance_is_topped_up_by_the_saved_card_up_to_the_ceiling(backend) {
        let shop = Shop::open(backend, "0").await;
        assert_eq!(shop.shown().await["status"], "off");
        let asked = shop.wish(500, 1_000, 1_500).await;
        assert_eq!([&asked["status"], &asked["payment_method"]], [&json!("needs_payment_method"), &Value::Null]);
        shop.look().await;
        assert_eq!((shop.cents().await, shop.charges()), (0, 0), "nothing is saved yet");
        shop.save().await;
        assert_eq!((shop.cents().await, shop.charges()), (1_000, 1), "at once, for the balance is low");
        let shown = shop.shown().await;
        assert_eq!(shown["status"], "active");
        assert!(shown["payment_method"].as_str().unwrap().contains("4242"), "{shown}");
        for _ in 0..3 {
            shop.hear().await;
        }
        assert_eq!((shop.cents().await, shop.charges()), (1_000, 1));
        // Another one would be above the ceiling of this month.
        shop.ask(Method::PUT, AUTO, json!({ "enabled": true, "threshold_cents": 5_000, "amount_cents": 1_000, "monthly_ceiling_cents": 1_500 })).await.ok();
        shop.look().await;
        assert_eq!((shop.cents().await, shop.charges()), (1_000, 1));
        shop.wish(5_000, 1_000, 2_000).await;
        shop.look().await;
        assert_eq!((shop.cents().await, shop.charges()), (2_000, 2));
        let history = shop.server.get("/v1/topup/history").await.ok();
        assert!(history.as_array().unwrap().iter().all(|row| row["source"] == "stripe" && row["status"] == "completed"), "{history}");
        shop.clean().await;
    }

    async fn a_refusal_stops_it_until_its_owner_does_something(backend) {
        let shop = Shop::open(backend, "0").await;
        let card = shop.save().await;
        shop.stripe.script_saved(&card, SavedOutcome::Declined("insufficient_funds".to_owned()));
        shop.wish(500, 1_000, 100_000).await;
        for _ in 0..3 {
            shop.hear().await;
        }
        assert_eq!((shop.cents().await, shop.charges()), (0, 1), "tried once");
        let shown = shop.shown().await;
        assert_eq!(shown["status"], "stopped", "{shown}");
        assert!(shown["stopped_by"].is_string(), "{shown}");
        let row = &shop.server.get("/v1/topup/history").await.ok()[0];
        assert_eq!(row["status"], "failed", "{row}");
        // Said again, it is tried again.
        shop.stripe.script_saved(&card, SavedOutcome::Paid);
        assert_eq!(shop.wish(500, 1_000, 100_000).await["status"], "active");
        shop.look().await;
        assert_eq!((shop.cents().await, shop.charges()), (1_000, 2));
        shop.clean().await;
    }

    async fn a_charge_whose_answer_was_lost_is_made_once(backend) {
        // What was done is found in the customer's list; what was not is done the next time.
        for (fault, at_once) in [(StripeFault::BrokenAfterCommit, 1_000), (StripeFault::Error(503), 0), (StripeFault::Busy(1), 0)] {
            let shop = Shop::open(backend, "0").await;
            shop.save().await;
            shop.stripe.fail("POST", "/payment_intents", fault);
            shop.wish(500, 1_000, 100_000).await;
            shop.look().await;
            let before = shop.cents().await;
            shop.pass(Duration::from_secs(600));
            shop.look().await;
            assert_eq!((before, shop.cents().await), (at_once, 1_000));
            shop.hear().await;
            assert_eq!(shop.cents().await, 1_000);
            shop.clean().await;
        }
    }

    async fn a_card_that_was_charged_though_stripe_says_that_it_failed_is_credited(backend) {
        // Under its key the failure is told for a day; the list of the customer's payments, a report and the key's end tell more.
        let shop = Shop::charged_unclearly(backend, true).await;
        assert_eq!((shop.cents().await, shop.charges()), (1_000, 1), "found in the list");
        shop.clean().await;

        let shop = Shop::charged_unclearly(backend, false).await;
        assert_eq!(shop.cents().await, 0);
        shop.hear().await;
        assert_eq!((shop.cents().await, shop.charges()), (1_000, 1), "reported");
        shop.clean().await;

        let shop = Shop::charged_unclearly(backend, false).await;
        shop.pass(Duration::from_secs(26 * 3_600));
        assert!(shop.server.billing.look(Duration::from_secs(30 * 24 * 3_600)).await.unwrap());
        assert_eq!((shop.cents().await, shop.charges()), (1_000, 1), "found after the key's end");
        shop.clean().await;
    }

    async fn what_is_wrong_with_the_key_is_no_refusal_of_the_card(backend) {
        let shop = Shop::open(backend, "0").await;
        shop.save().await;
        for status in [401, 403, 400] {
            shop.stripe.fail("POST", "/payment_intents", StripeFault::Error(status));
            shop.wish(500, 1_000, 100_000).await;
            shop.look().await;
            assert_eq!((shop.cents().await, &shop.shown().await["status"]), (0, &json!("active")), "{status}");
            shop.pass(Duration::from_secs(2 * 3_600));
        }
        shop.look().await;
        assert_eq!(shop.cents().await, 1_000);
        shop.clean().await;

        // A charge that never came about is given up with its key.
        let shop = Shop::open(backend, "0").await;
        shop.save().await;
        shop.stripe.fail("POST", "/payment_intents", StripeFault::Error(503));
        shop.wish(500, 1_000, 100_000).await;
        shop.look().await;
        shop.pass(Duration::from_secs(26 * 3_600));
        shop.look().await;
        assert_eq!((shop.cents().await, shop.charges()), (0, 1));
        assert_eq!(shop.shown().await["stopped_by"], "not_charged");
        shop.clean().await;
    }

    async fn what_was_paid_back_is_not_charged_again(backend) {
        let shop = Shop::open(backend, "0").await;
        shop.wish(500, 1_000, 100_000).await;
        shop.save().await;
        assert_eq!(shop.cents().await, 1_000);
        let paid = shop.stripe.webhooks().iter().rev().find(|event| event.kind == "payment_intent.succeeded").unwrap().body.clone();
        let paid: Value = serde_json::from_str(&paid).unwrap();
        shop.stripe.refund(paid["data"]["object"]["id"].as_str().unwrap(), 1_000, false).unwrap();
        shop.hear().await;
        assert_eq!((shop.cents().await, shop.charges()), (0, 1));
        assert_eq!(shop.shown().await["stopped_by"], "refunded");
        shop.clean().await;
    }

    async fn wishes_that_make_no_sense_are_refused(backend) {
        let shop = Shop::open(backend, "0").await;
        for (wish, param) in [
            (json!({}), "enabled"),
            (json!({ "enabled": "yes" }), "enabled"),
            (json!({ "enabled": true, "amount_cents": 500, "monthly_ceiling_cents": 500 }), "threshold_cents"),
            (json!({ "enabled": true, "threshold_cents": 5, "amount_cents": 500, "monthly_ceiling_cents": 499 }), "monthly_ceiling_cents"),
            (json!({ "enabled": true, "threshold_cents": 5, "amount_cents": 1, "monthly_ceiling_cents": 500 }), "amount_cents"),
            (json!({ "enabled": true, "threshold_cents": -1, "amount_cents": 500, "monthly_ceiling_cents": 500 }), "threshold_cents"),
            (json!({ "enabled": false, "often": true }), "often"),
        ] {
            let refused = shop.ask(Method::PUT, AUTO, wish.clone()).await;
            assert_eq!((refused.status, refused.json()["error"]["param"].clone()), (400, json!(param)), "{wish}");
        }
        assert_eq!(shop.ask(Method::PUT, AUTO, json!({ "enabled": false })).await.ok()["status"], "off");
        let bare = TestServer::start().on(backend).await;
        let refused = bare.anonymous(Method::POST, "/v1/topup/auto/setup").key(&bare.owner.key).json(json!({})).await;
        assert_eq!(refused.status, 503);
    }
}
