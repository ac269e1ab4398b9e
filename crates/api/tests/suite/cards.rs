//! Holds: payments by card, against a fake Stripe: what is paid is credited, what goes back is taken, once.

use std::{collections::HashMap, time::Duration};

use batchin_domain::Clock as _;
use batchin_testkit::{
    Backend, Reply, ServerBuilder, TestServer, both, left_after,
    sim::stripe::{DisputeEnd, FakeStripe, SignedEvent, StripeFault, stripe_signature},
};
use http::Method;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

const CHECKOUT: &str = "/v1/topup/stripe/checkout";
const REPORTS: &str = "/v1/webhooks/stripe";
const OK: u16 = 200;
const BAD_REQUEST: u16 = 400;
const PAYMENT_REQUIRED: u16 = 402;
const SERVICE_UNAVAILABLE: u16 = 503;
/// Longer than any claim, pause and catch-up.
const LATER: Duration = Duration::from_secs(3 * 3_600);
/// Between two catch-ups.
const CATCH_UP: Duration = Duration::from_secs(300);
const NANOS_PER_CENT: i64 = 10_000_000;

/// A member of what an error says.
fn told(reply: &Reply, member: &str) -> String {
    reply.json()["error"][member].as_str().unwrap_or_default().to_owned()
}

pub(crate) struct Shop {
    pub(crate) stripe: FakeStripe,
    pub(crate) server: TestServer,
}

impl Shop {
    async fn open(backend: Backend) -> Self {
        Self::of(TestServer::start().on(backend).with_balance("0")).await
    }

    pub(crate) async fn of(builder: ServerBuilder) -> Self {
        let stripe = FakeStripe::start(0).await.unwrap();
        let server = builder.with_stripe(&stripe.base_url()).await;
        let shop = Self { stripe, server };
        shop.keep_time();
        shop
    }

    /// Both clocks show the same.
    fn keep_time(&self) {
        self.stripe.set_now(self.server.clock.now().seconds());
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.server.clock.advance(time);
        self.keep_time();
    }

    async fn checkout(&self, cents: u32) -> Reply {
        self.server.post(CHECKOUT, json!({ "amount_cents": cents })).await
    }

    pub(crate) async fn paid(&self, cents: u32) -> (String, String) {
        let session = self.checkout(cents).await.ok()["session_id"].as_str().unwrap().to_owned();
        let payment = self.stripe.pay(&session).unwrap();
        (session, payment)
    }

    async fn deliver(&self, event: &SignedEvent) -> u16 {
        let sent = self.server.anonymous(Method::POST, REPORTS).header("stripe-signature", &event.signature);
        sent.body(event.body.clone()).await.status
    }

    /// Delivers everything so far, and deals with it.
    pub(crate) async fn hear(&self) {
        for event in self.stripe.webhooks() {
            assert_eq!(self.deliver(&event).await, OK);
        }
        self.look().await;
    }

    async fn look(&self) {
        while self.server.billing.look(CATCH_UP).await.unwrap() {}
    }

    async fn cents(&self) -> i64 {
        self.server.balance().await.nanos() / NANOS_PER_CENT
    }

    pub(crate) async fn history(&self) -> Vec<Value> {
        self.server.get("/v1/topup/history").await.ok().as_array().unwrap().clone()
    }

    pub(crate) async fn clean(&self) {
        let report = self.server.store.check().await.unwrap();
        assert_eq!(report.faults, []);
    }
}

both! {
    async fn a_payment_is_credited_when_stripe_says_so(backend) {
        let shop = Shop::open(backend).await;
        let opened = shop.checkout(2_500).await.ok();
        let session = opened["session_id"].as_str().unwrap();
        assert!(opened["checkout_url"].as_str().unwrap().starts_with("https://checkout.stripe.example/"), "{opened}");
        let open = shop.history().await;
        assert_eq!(open.len(), 1);
        assert_eq!([&open[0]["status"], &open[0]["source"], &open[0]["reference_id"]], ["pending", "stripe", session]);
        assert_eq!(open[0]["checkout_url"], opened["checkout_url"]);

        shop.stripe.pay(session).unwrap();
        assert_eq!(shop.cents().await, 0, "coming back credits nothing");
        shop.hear().await;
        assert_eq!(shop.cents().await, 2_500);
        let row = &shop.history().await[0];
        assert_eq!([&row["status"], &row["kind"], &row["amount_cents"]], [&json!("completed"), &json!("payment"), &json!(2_500)]);
        assert!(row["receipt_url"].is_string() && row["invoice_url"].is_string() && row["checkout_url"].is_null(), "{row}");
        // Two events tell of one payment, and each comes again.
        shop.hear().await;
        assert_eq!(shop.cents().await, 2_500);
        shop.clean().await;
    }

    async fn what_nobody_reported_is_found(backend) {
        let shop = Shop::open(backend).await;
        let (session, payment) = shop.paid(1_000).await;
        shop.pass(Duration::from_secs(180));
        shop.look().await;
        assert_eq!(shop.cents().await, 1_000, "{session}");
        // A refund of which no report comes is in Stripe's own list.
        shop.stripe.refund(&payment, 400, false).unwrap();
        shop.pass(Duration::from_secs(600));
        shop.look().await;
        assert_eq!(shop.cents().await, 600);
        shop.clean().await;
    }

    async fn an_answer_that_was_lost_opens_one_page(backend) {
        let shop = Shop::open(backend).await;
        for fault in [StripeFault::BrokenAfterCommit, StripeFault::Busy(1), StripeFault::Error(503)] {
            shop.stripe.fail("POST", "/checkout/sessions", fault);
        }
        // Broken and busy, and then 503: that is given up, though a page may be open.
        let refused = shop.checkout(700).await;
        assert_eq!((refused.status, told(&refused, "code")), (SERVICE_UNAVAILABLE, "service_unavailable".to_owned()));
        let [session] = shop.stripe.sessions().try_into().unwrap();
        shop.stripe.pay(&session).unwrap();
        shop.hear().await;
        assert_eq!(shop.cents().await, 700, "found by the name that it was given");
        shop.stripe.fail("POST", "/checkout/sessions", StripeFault::BrokenAfterCommit);
        shop.checkout(800).await.ok();
        assert_eq!(shop.stripe.sessions().len(), 2, "asked again under the same key");
        shop.clean().await;
    }

    async fn what_is_not_as_it_was_asked_for_is_not_credited(backend) {
        for (member, lie) in [("amount_total", json!(9_999)), ("currency", json!("eur")), ("livemode", json!(true)), ("client_reference_id", json!("x"))] {
            let shop = Shop::open(backend).await;
            let (session, _) = shop.paid(1_000).await;
            shop.stripe.lie(&session, member, lie);
            shop.hear().await;
            assert_eq!(shop.cents().await, 0, "{member}");
            let row = &shop.history().await[0];
            assert_eq!(row["status"], "failed", "{member}: {row}");
            shop.clean().await;
        }
    }

    async fn refunds_and_disputes_take_back_and_freeze(backend) {
        let shop = Shop::open(backend).await;
        let (_, payment) = shop.paid(1_000).await;
        shop.hear().await;
        shop.server.chat("chat-model").max_tokens(3).await.ok();
        let spent = 1_000 * NANOS_PER_CENT - shop.server.balance().await.nanos();
        assert!(spent > 0);
        shop.stripe.refund(&payment, 250, false).unwrap();
        let failed = shop.stripe.refund(&payment, 100, true).unwrap();
        shop.hear().await;
        assert_eq!(shop.server.balance().await.nanos(), 650 * NANOS_PER_CENT - spent);
        shop.stripe.end_refund(&failed, "failed");
        shop.hear().await;
        assert_eq!(shop.server.balance().await.nanos(), 750 * NANOS_PER_CENT - spent);
        let dispute = shop.stripe.dispute(&payment, 750).unwrap();
        shop.hear().await;
        assert_eq!(shop.server.balance().await.nanos(), -spent);
        let refused = shop.server.chat("chat-model").await;
        assert_eq!((refused.status, told(&refused, "code")), (PAYMENT_REQUIRED, "payment_required".to_owned()));
        let me = shop.server.get("/v1/users/me").await.ok();
        assert_eq!(me["frozen"], true, "{me}");
        shop.stripe.end_dispute(&dispute, DisputeEnd::Won);
        shop.hear().await;
        shop.server.chat("chat-model").await.ok();
        assert_eq!(shop.server.get("/v1/users/me").await.ok()["frozen"], false);
        let kinds: Vec<_> = shop.history().await.iter().map(|row| row["kind"].as_str().unwrap().to_owned()).collect();
        let expected = ["dispute_won", "dispute", "refund_failed", "refund", "refund", "payment"];
        assert_eq!(kinds.len(), expected.len(), "{kinds:?}");
        assert!(expected.iter().all(|kind| kinds.iter().any(|is| is == kind)), "{kinds:?}");
        shop.clean().await;
    }

    async fn what_the_ledger_refuses_keeps_nothing_else_from_being_booked(backend) {
        let shop = Shop::open(backend).await;
        let (_, payment) = shop.paid(1_000).await;
        let first = shop.stripe.refund(&payment, 100, false).unwrap();
        shop.hear().await;
        assert_eq!(shop.cents().await, 900);
        // A refund is never another amount; a second one is booked all the same.
        shop.stripe.lie(&first, "amount", json!(300));
        shop.stripe.refund(&payment, 200, false).unwrap();
        shop.hear().await;
        assert_eq!(shop.cents().await, 700);
        shop.stripe.tell_the_truth();
        shop.pass(LATER);
        shop.hear().await;
        assert_eq!(shop.cents().await, 700);
        shop.clean().await;
    }

    async fn a_long_list_of_reports_is_read_to_its_end(backend) {
        let shop = Shop::open(backend).await;
        // Days in which no report came, of which one had more than a page.
        let mut expected = 0;
        for day in 0..3 {
            for _ in 0..if day == 1 { 15 } else { 1 } {
                shop.paid(100).await;
                expected += 100;
            }
            shop.pass(Duration::from_secs(20 * 3_600));
        }
        // Sessions are not looked at by themselves before their reports are.
        shop.stripe.fail("GET", "/events", StripeFault::Busy(1));
        shop.look().await;
        shop.pass(Duration::from_secs(130));
        shop.look().await;
        assert_eq!(shop.cents().await, expected);
        let read = |from: usize| shop.stripe.requests()[from..].iter().filter(|call| call.path.starts_with("/v1/events?")).count();
        let before = shop.stripe.requests().len();
        assert!(read(0) > 10, "in stretches");
        shop.pass(Duration::from_secs(310));
        shop.look().await;
        assert_eq!(read(before), 1, "and no more of it again");
        shop.clean().await;
    }

    async fn a_report_that_is_not_stripes_is_refused_and_not_stored(backend) {
        let shop = Shop::open(backend).await;
        shop.paid(1_000).await;
        let events = shop.stripe.webhooks();
        let event = events.last().unwrap();
        let now = shop.server.clock.now().seconds();
        let sign = |secret: &str, time| stripe_signature(event.body.as_bytes(), secret, time);
        let good = &event.signature;
        for signature in ["", "t=1", "v1=00", &sign("whsec_other", now), &sign(batchin_testkit::sim::stripe::STRIPE_WEBHOOK_SECRET, now - 400)] {
            let forged = SignedEvent { signature: signature.to_owned(), ..event.clone() };
            assert_eq!(shop.deliver(&forged).await, BAD_REQUEST, "{signature}");
        }
        let tampered = SignedEvent { body: event.body.replace("1000", "9000"), ..event.clone() };
        assert_eq!(shop.deliver(&tampered).await, BAD_REQUEST);
        let odd = SignedEvent {
            body: "[1]".to_owned(),
            signature: stripe_signature(b"[1]", batchin_testkit::sim::stripe::STRIPE_WEBHOOK_SECRET, now),
            ..event.clone()
        };
        assert_eq!(shop.deliver(&odd).await, BAD_REQUEST);
        assert_eq!(shop.server.store.inbox().waiting_events().await.unwrap().0, 0);
        // Signed twice, once by a secret that is not ours.
        let (time, ours) = good.split_once(',').unwrap();
        let twice = SignedEvent { signature: format!("{time},v1={},{ours}", "ab".repeat(32)), ..event.clone() };
        assert_eq!(shop.deliver(&twice).await, OK);
        assert_eq!(shop.server.store.inbox().waiting_events().await.unwrap().0, 1);
    }

    async fn an_event_of_next_year_is_set_aside(backend) {
        let shop = Shop::open(backend).await;
        let now = shop.server.clock.now().seconds();
        let secret = batchin_testkit::sim::stripe::STRIPE_WEBHOOK_SECRET;
        for (id, body) in [
            ("evt_1", json!({ "id": "evt_1", "object": "event", "type": "credit.orbital.drifted", "data": { "object": 7 } })),
            ("evt_2", json!({ "id": "evt_2", "object": "v2.core.event", "type": "v2.money.moved", "related_object": null })),
            ("evt_3", json!({ "id": "evt_3", "type": "charge.refunded", "data": { "object": { "id": "ch_unknown" } } })),
            ("evt_4", json!({ "id": "evt_4", "type": "checkout.session.completed", "data": { "object": { "id": "cs_unknown" } } })),
        ] {
            let body = body.to_string();
            let signature = stripe_signature(body.as_bytes(), secret, now);
            let event = SignedEvent { id: id.to_owned(), kind: String::new(), body, signature };
            assert_eq!(shop.deliver(&event).await, OK, "{id}");
        }
        shop.look().await;
        assert_eq!(shop.server.store.inbox().waiting_events().await.unwrap().0, 0);
    }

    async fn amounts_that_are_none_are_refused(backend) {
        let shop = Shop::open(backend).await;
        for amount in [json!(-5), json!(0), json!(99), json!(10.5), json!(1_000_001), json!("1000"), json!(null), json!(1e30), json!([])] {
            let refused = shop.server.post(CHECKOUT, json!({ "amount_cents": amount })).await;
            assert_eq!((refused.status, told(&refused, "param")), (BAD_REQUEST, "amount_cents".to_owned()), "{amount}");
        }
        let unknown = shop.server.post(CHECKOUT, json!({ "amount_cents": 500, "currency": "eur" })).await;
        assert_eq!((unknown.status, told(&unknown, "param")), (BAD_REQUEST, "currency".to_owned()));
        assert!(shop.stripe.sessions().is_empty() && shop.history().await.is_empty());
        // The same request under its key is one page.
        let sent = || {
            let request = shop.server.anonymous(Method::POST, CHECKOUT).key(&shop.server.owner.key);
            request.header("idempotency-key", "once").json(json!({ "amount_cents": 500 }))
        };
        assert_eq!(sent().await.ok(), sent().await.ok());
        assert_eq!(shop.stripe.sessions().len(), 1);
        let other = shop.server.account("eve@example.com").await;
        let theirs = shop.server.anonymous(Method::GET, "/v1/topup/history").key(&other.key).await.ok();
        assert_eq!(theirs, json!([]));
    }

    async fn without_stripe_nobody_pays_by_card(backend) {
        let server = TestServer::start().on(backend).await;
        let refused = server.post(CHECKOUT, json!({ "amount_cents": 500 })).await;
        assert_eq!((refused.status, told(&refused, "code")), (SERVICE_UNAVAILABLE, "service_unavailable".to_owned()));
        assert!(told(&refused, "message").contains("stripe.secret_key"));
        assert_eq!(server.anonymous(Method::POST, REPORTS).body("{}".to_owned()).await.status, SERVICE_UNAVAILABLE);
    }

    async fn whatever_happens_what_is_credited_is_what_was_paid_and_not_taken_back(backend) {
        for seed in 0..4 {
            let mut run = Run { shop: Shop::open(backend).await, rng: StdRng::seed_from_u64(seed), payments: Vec::new(), refunds: HashMap::new(), disputes: HashMap::new() };
            for _ in 0..60 {
                run.step().await;
            }
            run.end(seed).await;
        }
    }
}

struct Run {
    shop: Shop,
    rng: StdRng,
    /// Payment intents that were paid, with what is left to be given back.
    payments: Vec<(String, i64)>,
    refunds: HashMap<String, i64>,
    disputes: HashMap<String, i64>,
}

impl Run {
    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..15 => self.checkout().await,
            15..35 => self.buyer(),
            35..45 => self.refund(),
            45..52 => self.dispute(),
            52..60 => self.end_something(),
            60..78 => self.report().await,
            78..92 => {
                let polls = self.rng.random_range(0..60);
                left_after(polls, self.shop.server.billing.look(CATCH_UP)).await;
            }
            92..96 => self.shop.pass(Duration::from_secs(90)),
            _ => {
                // May be refused, for what is there is little.
                self.shop.server.chat("chat-model").max_tokens(2).await;
            }
        }
    }

    async fn checkout(&mut self) {
        let fault = match self.rng.random_range(0..6) {
            0 => Some(StripeFault::BrokenAfterCommit),
            1 => Some(StripeFault::ErrorAfterCommit),
            2 => Some(StripeFault::Error(503)),
            _ => None,
        };
        if let Some(fault) = fault {
            self.shop.stripe.fail("POST", "/checkout/sessions", fault);
        }
        let cents = self.rng.random_range(100..5_000);
        self.shop.checkout(cents).await;
    }

    fn one_of(&mut self, all: &[String]) -> Option<String> {
        if all.is_empty() { None } else { Some(all[self.rng.random_range(0..all.len())].clone()) }
    }

    fn buyer(&mut self) {
        let stripe = &self.shop.stripe;
        let is_open = |id: &String| stripe.object(id).is_some_and(|one| one["status"] == "open");
        let open: Vec<String> = stripe.sessions().into_iter().filter(is_open).collect();
        let Some(session) = self.one_of(&open) else { return };
        let stripe = &self.shop.stripe;
        let amount = stripe.object(&session).unwrap()["amount_total"].as_i64().unwrap();
        match self.rng.random_range(0..10) {
            0..6 => self.payments.push((stripe.pay(&session).unwrap(), amount)),
            6..9 => {
                let payment = stripe.pay_later(&session).unwrap();
                if self.rng.random_bool(0.5) {
                    self.shop.stripe.settle(&payment, true);
                    self.payments.push((payment, amount));
                } else {
                    self.shop.stripe.settle(&payment, false);
                }
            }
            _ => stripe.expire(&session),
        }
    }

    /// Some of a payment that was not given back yet.
    fn part(&mut self) -> Option<(String, i64)> {
        if self.payments.is_empty() {
            return None;
        }
        let place = self.rng.random_range(0..self.payments.len());
        let left = self.payments[place].1;
        if left == 0 {
            return None;
        }
        let amount = self.rng.random_range(1..=left);
        self.payments[place].1 -= amount;
        Some((self.payments[place].0.clone(), amount))
    }

    fn refund(&mut self) {
        let Some((payment, amount)) = self.part() else { return };
        let pending = self.rng.random_bool(0.5);
        let refund = self.shop.stripe.refund(&payment, amount, pending).unwrap();
        self.refunds.insert(refund, amount);
    }

    fn dispute(&mut self) {
        let Some((payment, amount)) = self.part() else { return };
        let dispute = self.shop.stripe.dispute(&payment, amount).unwrap();
        self.disputes.insert(dispute, amount);
    }

    fn end_something(&mut self) {
        let stripe = &self.shop.stripe;
        let is = |id: &String, status: &str| stripe.object(id).is_some_and(|one| one["status"] == status);
        let pending: Vec<String> = self.refunds.keys().filter(|id| is(id, "pending")).cloned().collect();
        let disputed: Vec<String> = self.disputes.keys().filter(|id| is(id, "needs_response")).cloned().collect();
        if let Some(refund) = self.one_of(&pending) {
            let status = ["succeeded", "failed", "canceled"][self.rng.random_range(0..3)];
            self.shop.stripe.end_refund(&refund, status);
        }
        if let Some(dispute) = self.one_of(&disputed) {
            let end = if self.rng.random_bool(0.5) { DisputeEnd::Won } else { DisputeEnd::Lost };
            self.shop.stripe.end_dispute(&dispute, end);
        }
    }

    /// Any report so far, however old, and perhaps for the third time.
    async fn report(&mut self) {
        let events = self.shop.stripe.webhooks();
        if !events.is_empty() {
            let event = &events[self.rng.random_range(0..events.len())];
            assert_eq!(self.shop.deliver(event).await, OK);
        }
    }

    /// Time passes, Stripe answers, and nothing more is reported.
    async fn end(self, seed: u64) {
        let Self { shop, refunds, disputes, .. } = self;
        for _ in 0..3 {
            shop.pass(LATER);
            shop.look().await;
        }
        let number = |id: &String, member: &str| shop.stripe.object(id).unwrap()[member].as_i64().unwrap();
        let status = |id: &String| shop.stripe.object(id).unwrap()["status"].as_str().unwrap().to_owned();
        let paid: i64 = shop
            .stripe
            .sessions()
            .iter()
            .filter(|id| shop.stripe.object(id).unwrap()["payment_status"] == "paid")
            .map(|id| number(id, "amount_total"))
            .sum();
        let refunded: i64 = refunds
            .iter()
            .filter(|(id, _)| !["failed", "canceled"].contains(&&*status(id)))
            .map(|(_, amount)| amount)
            .sum();
        let disputed: i64 = disputes.iter().filter(|(id, _)| status(id) != "won").map(|(_, amount)| amount).sum();
        let spent = shop.server.get("/v1/usage/summary").await.ok()["total_cost_cents"].as_f64().unwrap();
        let spent = (spent * NANOS_PER_CENT as f64).round() as i64;
        let expected = (paid - refunded - disputed) * NANOS_PER_CENT - spent;
        assert_eq!(shop.server.balance().await.nanos(), expected, "seed {seed}: {paid} - {refunded} - {disputed}");
        let completed = |row: &&Value| row["status"] == "completed";
        let sum: i64 =
            shop.history().await.iter().filter(completed).map(|row| row["amount_cents"].as_i64().unwrap()).sum();
        assert_eq!(sum, paid - refunded - disputed, "seed {seed}");
        assert_eq!(shop.server.get("/v1/users/me").await.ok()["frozen"], expected < 0, "seed {seed}");
        shop.clean().await;
    }
}
