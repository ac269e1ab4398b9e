//! Holds: a fake Stripe: its calls, its objects with every member that Stripe's own packages expect, and its webhooks. No money
//! moves anywhere; what buyers, banks and the operator do, a test does.
//!
//! It checks calls as Stripe does, as far as ours go, and keeps answers by Idempotency-Key for a day, failures of its own too.
//! It delivers no webhook: a test takes them and delivers them as often, as late and in whichever order it likes.

mod asked;
mod calls;
mod life;
mod objects;
mod opening;
mod script;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::hmac;
use serde_json::Value;

use self::{calls::answer, objects::State};
use crate::wire::{WireRequest, WireServer};

pub use self::script::{DisputeEnd, SavedOutcome, StripeFault};

/// The key that the fake accepts.
pub const STRIPE_KEY: &str = "sk_test_fake";
/// What its webhooks are signed with.
pub const STRIPE_WEBHOOK_SECRET: &str = "whsec_fake0000000000000000000000";

/// A webhook as Stripe would deliver it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedEvent {
    /// `evt_…`.
    pub id: String,
    /// Such as `checkout.session.completed`.
    pub kind: String,
    /// The body.
    pub body: String,
    /// The header `stripe-signature`, of the time at which it was asked for.
    pub signature: String,
}

/// A running fake. It ends when [`stop`](Self::stop) is called or the runtime ends.
#[derive(Debug)]
pub struct FakeStripe {
    server: WireServer,
    /// std mutex: held for one call, never across an await.
    state: Arc<Mutex<State>>,
}

impl FakeStripe {
    /// Listens on a free port of the loopback address. Its clock stands at `now`, in seconds since 1970.
    pub async fn start(now: i64) -> std::io::Result<Self> {
        let state = Arc::new(Mutex::new(State::at(now)));
        let shared = Arc::clone(&state);
        let server = WireServer::start(move |request| answer(&mut lock(&shared), request)).await?;
        Ok(Self { server, state })
    }

    /// `http://HOST:PORT`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Puts its clock.
    pub fn set_now(&self, now: i64) {
        self.state().now = now;
    }

    /// What becomes of the next call with this method and a path that has this in it; several line up.
    pub fn fail(&self, method: &str, path: &str, fault: StripeFault) {
        self.state().faults.push((method.to_owned(), path.to_owned(), fault));
    }

    /// From now on an object is told with this member changed: a lie of the network's, which its webhooks do not have.
    pub fn lie(&self, id: &str, member: &str, value: Value) {
        self.state().lies.push((id.to_owned(), member.to_owned(), value));
    }

    /// An end of all lies.
    pub fn tell_the_truth(&self) {
        self.state().lies.clear();
    }

    /// An object as it stands, by its id.
    pub fn object(&self, id: &str) -> Option<Value> {
        self.state().objects.get(id).cloned()
    }

    /// The ids of all sessions, oldest first.
    pub fn sessions(&self) -> Vec<String> {
        self.state().ids_of("checkout.session")
    }

    /// The newest session with this reference.
    pub fn session_of(&self, reference: &str) -> Option<String> {
        let state = self.state();
        let has = |id: &String| state.text(id, "client_reference_id").as_deref() == Some(reference);
        state.ids_of("checkout.session").into_iter().rev().find(has)
    }

    /// The buyer pays, or saves a payment method: the session's payment intent, or the method's id.
    pub fn pay(&self, session: &str) -> Option<String> {
        self.state().complete(session, true)
    }

    /// The buyer is through, and the money comes later or never: [`settle`](Self::settle). The payment intent.
    pub fn pay_later(&self, session: &str) -> Option<String> {
        self.state().complete(session, false)
    }

    /// A payment under way comes in, or fails.
    pub fn settle(&self, payment_intent: &str, succeeds: bool) {
        self.state().settle(payment_intent, succeeds);
    }

    /// Nobody paid in time.
    pub fn expire(&self, session: &str) {
        self.state().expire(session);
    }

    /// The operator gives money back: the refund's id. It has left at once unless it is `pending`.
    pub fn refund(&self, payment_intent: &str, amount: i64, pending: bool) -> Option<String> {
        self.state().refund(payment_intent, amount, pending)
    }

    /// A refund takes this status: `succeeded`, or `failed` and `canceled`, after which the money is back.
    pub fn end_refund(&self, refund: &str, status: &str) {
        self.state().end_refund(refund, status);
    }

    /// The buyer disputes a payment, which takes the money: the dispute's id.
    pub fn dispute(&self, payment_intent: &str, amount: i64) -> Option<String> {
        self.state().dispute(payment_intent, amount, false)
    }

    /// The buyer's bank inquires, which takes nothing: the dispute's id.
    pub fn inquire(&self, payment_intent: &str, amount: i64) -> Option<String> {
        self.state().dispute(payment_intent, amount, true)
    }

    /// An inquiry becomes a dispute, which takes the money.
    pub fn escalate(&self, dispute: &str) {
        self.state().escalate(dispute);
    }

    /// A dispute ends.
    pub fn end_dispute(&self, dispute: &str, end: DisputeEnd) {
        self.state().end_dispute(dispute, end);
    }

    /// What becomes of charges of a saved payment method from now on.
    pub fn script_saved(&self, payment_method: &str, outcome: SavedOutcome) {
        self.state().outcomes.insert(payment_method.to_owned(), outcome);
    }

    /// Every webhook so far, oldest first, signed now.
    pub fn webhooks(&self) -> Vec<SignedEvent> {
        let state = self.state();
        let signed = |id: String| {
            let body = state.objects.get(&id).map(Value::to_string).unwrap_or_default();
            let signature = stripe_signature(body.as_bytes(), STRIPE_WEBHOOK_SECRET, state.now);
            SignedEvent { kind: state.text(&id, "type").unwrap_or_default(), id, body, signature }
        };
        state.ids_of("event").into_iter().map(signed).collect()
    }

    /// The calls so far.
    pub fn requests(&self) -> Vec<WireRequest> {
        self.server.requests()
    }

    /// Closes the socket and all connections.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// The header `stripe-signature` of a body, as Stripe makes it.
pub fn stripe_signature(body: &[u8], secret: &str, time: i64) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
    context.update(format!("{time}.").as_bytes());
    context.update(body);
    let hex: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={time},v1={hex}")
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
