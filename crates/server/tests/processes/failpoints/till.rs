//! Holds: a server that dies while money comes in by card, and what must hold once it has started again.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use batchin_testkit::{
    Backend,
    sim::stripe::{FakeStripe, SignedEvent},
};
use serde_json::{Value, json};

use super::Scene;
use crate::harness::{Account, CENT, Node, Settings, World, until};

/// What each payment is of, and what goes back of it each time.
const PAID_CENTS: i64 = 1_000;
const REFUNDED_CENTS: i64 = 100;
/// Longer than a dead worker's claim on a report, shorter than a payment is left alone of which nothing is heard.
const CLAIM: Duration = Duration::from_secs(90);
/// Longer than a payment is left alone of which nothing is heard.
const LEFT_ALONE: Duration = Duration::from_secs(150);
/// Longer than a page may be opened under its Idempotency-Key.
const KEY_LIFE: Duration = Duration::from_secs(25 * 3_600);
/// What the operator has Stripe report: two reports of a payment, and two of a refund.
const REPORTED: [&str; 4] =
    ["payment_intent.succeeded", "checkout.session.completed", "refund.created", "charge.refunded"];
const OK: u16 = 200;

/// One server, which dies again and again, and a fake Stripe that takes the money.
pub struct Till {
    stripe: FakeStripe,
    world: World,
    node: Node,
    account: Account,
    http: reqwest::Client,
    /// How far the server's clock is ahead; it grows with each restart.
    ahead: Duration,
    /// Reports so far.
    reported: usize,
    /// The last payment, by its page and its payment intent.
    paid: (String, String),
    /// What the account was to be given, and what of it was to be taken back, in cents each.
    payments: Vec<i64>,
    refunds: Vec<i64>,
}

impl Till {
    pub async fn new(backend: Backend) -> Self {
        let stripe = FakeStripe::start(0).await.unwrap();
        let settings = Settings { lease_seconds: 1, stripe: Some(stripe.base_url()), ..Settings::default() };
        let world = World::new(backend, settings).await;
        let account = world.beggar().await;
        let node = world.new_node();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let (paid, payments, refunds) = Default::default();
        Self { stripe, world, node, account, http, ahead: Duration::ZERO, reported: 0, paid, payments, refunds }
    }

    /// Plays the scene to its death, starts the server again and looks whether a cent was lost or doubled.
    pub async fn die_at(&mut self, point: &str, hit: u32, scene: Scene) {
        assert!(self.node.start_to_die(point, hit).await, "{point} in {scene:?}");
        if scene == Scene::Automatic {
            return self.pay_by_itself(point).await;
        }
        let sessions = self.stripe.sessions();
        let unheard = match scene {
            Scene::Checkout => {
                let opened = self.checkout().await;
                assert!(opened.is_err(), "it died before it answered: {opened:?}");
                Vec::new()
            }
            Scene::Payment => {
                let opened = self.checkout().await.unwrap();
                let session = opened["session_id"].as_str().unwrap().to_owned();
                let payment = self.stripe.pay(&session).unwrap();
                self.paid = (session, payment);
                self.payments.push(PAID_CENTS);
                self.report().await
            }
            Scene::Refund => {
                self.stripe.refund(&self.paid.1, REFUNDED_CENTS, false).unwrap();
                self.refunds.push(REFUNDED_CENTS);
                self.report().await
            }
            other => unreachable!("{other:?} is no scene of the till"),
        };
        self.node.died_at(point).await;
        self.world.ledger().await;
        let reads = self.reads();
        self.restart(if point == "topup.opened" { KEY_LIFE } else { CLAIM }).await;
        if scene == Scene::Checkout {
            self.look_after_page(point, &sessions).await;
        } else {
            let unheard: Vec<&str> = unheard.iter().map(String::as_str).collect();
            self.stripe_repeats(&unheard).await;
            // Both reports are dealt with: each has the payment read.
            until("every report is dealt with", async || (self.reads() >= reads + 2).then_some(())).await;
        }
        self.look().await;
        self.node.kill().await;
    }

    /// Somebody without a cent saves a card that is to pay for them; the server dies while it does.
    async fn pay_by_itself(&mut self, point: &str) {
        self.keep_time();
        let (low, at) = (self.world.beggar().await, self.node.address.clone());
        let wish = json!({"enabled": true, "threshold_cents": 500, "amount_cents": PAID_CENTS, "monthly_ceiling_cents": PAID_CENTS});
        assert_eq!(low.put(&at, "/v1/topup/auto", &wish).await.status, OK);
        let opened = low.post(&at, "/v1/topup/auto/setup", &json!({})).await.json();
        self.stripe.pay(opened["session_id"].as_str().unwrap()).unwrap();
        let keys = self.charged_under();
        let unheard = self.report().await;
        self.node.died_at(point).await;
        self.world.ledger().await;
        self.restart(LEFT_ALONE).await;
        let unheard: Vec<&str> = unheard.iter().map(String::as_str).collect();
        self.stripe_repeats(&unheard).await;
        // It looks by itself, and Stripe may report what the dead server had it do.
        assert_eq!(self.report().await, Vec::<String>::new());
        let is_there = async || (low.balance(&at).await == PAID_CENTS * CENT).then_some(());
        until("what the card paid is there", is_there).await;
        assert_eq!(self.charged_under().len(), keys.len() + 1, "the card paid once");
        let history: Vec<Value> = serde_json::from_slice(&low.get(&at, "/v1/topup/history").await.body).unwrap();
        assert_eq!(history.len(), 1, "{history:?}");
        self.world.ledger().await;
        self.node.kill().await;
    }

    /// The Idempotency-Keys of charges of saved cards: under each Stripe charges once.
    fn charged_under(&self) -> BTreeSet<String> {
        let asked = self.stripe.requests();
        let charges = asked.iter().filter(|call| call.method == "POST" && call.path == "/v1/payment_intents");
        charges.map(|call| call.header("idempotency-key").to_owned()).collect()
    }

    async fn checkout(&self) -> Result<Value, reqwest::Error> {
        self.keep_time();
        let body = json!({"amount_cents": PAID_CENTS});
        let reply = self.account.try_post(&self.node.address, "/v1/topup/stripe/checkout", &body).await?;
        assert_eq!(reply.status, OK, "{reply:?}");
        Ok(reply.json())
    }

    /// Starts the server again, so much later.
    async fn restart(&mut self, later: Duration) {
        self.ahead += later;
        self.node.set_clock_ahead(self.ahead);
        self.keep_time();
        self.node.start_again().await;
    }

    /// Stripe's clock shows what the server's does.
    fn keep_time(&self) {
        #[expect(clippy::disallowed_methods, reason = "the server's clock, as far as it is not ahead")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + self.ahead;
        self.stripe.set_now(now.as_secs().try_into().unwrap());
    }

    /// Reports what is new; the ids of what was not acknowledged.
    async fn report(&mut self) -> Vec<String> {
        let events = self.stripe.webhooks();
        let mut unheard = Vec::new();
        for event in events.iter().skip(self.reported).filter(|event| REPORTED.contains(&&*event.kind)) {
            if !self.deliver(event).await {
                unheard.push(event.id.clone());
            }
        }
        self.reported = events.len();
        unheard
    }

    /// Reports again what was not acknowledged, as Stripe does.
    async fn stripe_repeats(&self, unheard: &[&str]) {
        self.keep_time();
        for event in self.stripe.webhooks().iter().filter(|event| unheard.contains(&&*event.id)) {
            assert!(self.deliver(event).await, "{event:?}");
        }
    }

    /// Whether a report was acknowledged.
    async fn deliver(&self, event: &SignedEvent) -> bool {
        let url = format!("{}/v1/webhooks/stripe", self.node.address.url());
        let sent = self.http.post(url).header("stripe-signature", &event.signature).body(event.body.clone());
        sent.send().await.is_ok_and(|reply| reply.status().as_u16() == OK)
    }

    /// How often the last page was read.
    fn reads(&self) -> usize {
        let page = format!("/v1/checkout/sessions/{}", self.paid.0);
        self.stripe.requests().iter().filter(|asked| asked.method == "GET" && asked.path.starts_with(&page)).count()
    }

    /// A page whose opener died: there is none, or it can be paid at, whether or not anybody heard of it.
    async fn look_after_page(&mut self, point: &str, before: &[String]) {
        let sessions = self.stripe.sessions();
        if point == "topup.opened" {
            assert_eq!(sessions, before, "Stripe was not asked yet");
            let expired = async || (self.history().await[0]["status"] == "expired").then_some(());
            return until("a page that was never opened is given up", expired).await;
        }
        let [fresh] = &sessions[before.len()..] else { panic!("one page was opened: {sessions:?}") };
        let open = &self.history().await[0];
        let is_known = open["reference_id"] == **fresh && open["checkout_url"].is_string();
        assert_eq!((&open["status"], is_known), (&json!("pending"), point == "topup.noted"), "{open}");
        let payment = self.stripe.pay(fresh).unwrap();
        self.paid = (fresh.clone(), payment);
        self.payments.push(PAID_CENTS);
        assert_eq!(self.report().await, Vec::<String>::new());
        until("both reports are dealt with", async || (self.reads() >= 2).then_some(())).await;
    }

    async fn history(&self) -> Vec<Value> {
        let history = self.account.get(&self.node.address, "/v1/topup/history").await;
        serde_json::from_slice(&history.body).unwrap()
    }

    /// Each payment is credited once, each refund taken once, and nothing else has moved.
    async fn look(&self) {
        let left = self.payments.iter().sum::<i64>() - self.refunds.iter().sum::<i64>();
        let is_there = async || (self.account.balance(&self.node.address).await == left * CENT).then_some(());
        until("what was paid and not given back is there", is_there).await;
        let history = self.history().await;
        let moved = |kind: &str| -> Vec<i64> {
            let is_of = |row: &&Value| row["kind"] == kind && row["status"] == "completed";
            history.iter().filter(is_of).map(|row| row["amount_cents"].as_i64().unwrap()).collect()
        };
        assert_eq!(moved("payment"), self.payments, "{history:?}");
        assert_eq!(moved("refund"), self.refunds.iter().map(|cents| -cents).collect::<Vec<_>>(), "{history:?}");
        let others = history.iter().filter(|row| row["status"] == "pending").count();
        assert_eq!(others, 0, "nothing is left open: {history:?}");
        self.world.ledger().await;
    }
}
