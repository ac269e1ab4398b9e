//! Holds: a server that dies while payments come on a real chain, and what must hold once it has started again.

use std::time::Duration;

use batchin_testkit::{Backend, chain::Anvil};
use serde_json::Value;

use super::Scene;
use crate::harness::{Account, CENT, CHAIN_ID, CONFIRMATIONS, Node, Settings, USDC, World, until};

/// What the first payment is of, in cents; each is of one more, for two that are alike in two forks are one.
const PAID_CENTS: i64 = 500;
/// The token's smallest units in a cent.
const UNITS_PER_CENT: u128 = 10_000;
/// Longer than a dead watcher's turn.
const TURN: Duration = Duration::from_secs(60);

/// One server, which dies again and again, and the chain that it watches.
pub struct Quay {
    chain: Anvil,
    world: World,
    node: Node,
    account: Account,
    /// Where the account pays.
    address: String,
    /// How far the server's clock is ahead; it grows with each start.
    ahead: Duration,
    /// Payments that are in the chain, and those that were credited and are not in it any more, in cents.
    paid: Vec<i64>,
    gone: Vec<i64>,
}

impl Quay {
    pub async fn new(backend: Backend) -> Self {
        let chain = Anvil::start(CHAIN_ID).await;
        chain.place_token(USDC).await;
        let settings = Settings { lease_seconds: 1, chain: Some(chain.url().to_owned()), ..Settings::default() };
        let world = World::new(backend, settings).await;
        let account = world.beggar().await;
        let mut node = world.node().await;
        let places = account.get(&node.address, "/v1/topup/usdc/chains").await.json();
        let address = places["chains"][0]["deposit_address"].as_str().unwrap().to_owned();
        // From here on it has a place to go on from.
        until("the chain is read", async || {
            let metrics = account.get(&node.address, "/metrics").await;
            String::from_utf8_lossy(&metrics.body).contains("batchin_chain_block{chain=\"local\"}").then_some(())
        })
        .await;
        node.kill().await;
        Self { chain, world, node, account, address, ahead: Duration::ZERO, paid: Vec::new(), gone: Vec::new() }
    }

    /// Plays the scene to its death, starts the server again and looks whether a cent was lost or doubled.
    pub async fn die_at(&mut self, point: &str, hit: u32, scene: Scene) {
        self.pay().await;
        match scene {
            Scene::Deposit => {}
            Scene::Orphan => {
                self.later();
                self.node.start_again().await;
                self.look().await;
                self.node.kill().await;
                self.chain.reorg(CONFIRMATIONS).await;
                self.gone.extend(self.paid.pop());
            }
            other => unreachable!("{other:?} is no scene of the quay"),
        }
        self.later();
        // It may die before it is ready.
        self.node.start_to_die(point, hit).await;
        self.node.died_at(point).await;
        self.world.ledger().await;
        self.later();
        self.node.start_again().await;
        self.look().await;
        self.node.kill().await;
    }

    /// A payment that is final.
    async fn pay(&mut self) {
        let cents = PAID_CENTS + i64::try_from(self.paid.len() + self.gone.len()).unwrap();
        self.chain.transfer(USDC, &self.address, u128::from(cents.unsigned_abs()) * UNITS_PER_CENT).await;
        self.chain.mine(CONFIRMATIONS).await;
        self.paid.push(cents);
    }

    /// The next start is so much later that a dead watcher's turn is over.
    fn later(&mut self) {
        self.ahead += TURN;
        self.node.set_clock_ahead(self.ahead);
    }

    /// Each payment in the chain is credited once, each that went with its block was taken back once.
    async fn look(&self) {
        let at = &self.node.address;
        let states = async || -> Vec<String> {
            let rows = self.account.get(at, "/v1/topup/usdc/deposits").await.json();
            rows.as_array().unwrap().iter().map(|row| row["status"].as_str().unwrap().to_owned()).collect()
        };
        let count = |states: &[String], wanted: &str| states.iter().filter(|status| *status == wanted).count();
        until("every payment is dealt with", async || {
            let states = states().await;
            let found = (count(&states, "credited"), count(&states, "orphaned"), states.len());
            (found == (self.paid.len(), self.gone.len(), self.paid.len() + self.gone.len())).then_some(())
        })
        .await;
        let history = self.account.get(at, "/v1/topup/history").await.json();
        let moved = |kind: &str| -> Vec<i64> {
            let rows = history.as_array().unwrap().iter().filter(|row: &&Value| row["kind"] == kind);
            let mut cents: Vec<i64> = rows.map(|row| row["amount_cents"].as_i64().unwrap()).collect();
            cents.sort_unstable_by_key(|cents| cents.abs());
            cents
        };
        let mut paid = [&*self.paid, &*self.gone].concat();
        paid.sort_unstable();
        assert_eq!(moved("payment"), paid, "{history}");
        assert_eq!(moved("orphaned"), self.gone.iter().map(|cents| -cents).collect::<Vec<_>>(), "{history}");
        assert_eq!(self.account.balance(at).await, self.paid.iter().sum::<i64>() * CENT);
        self.world.ledger().await;
    }
}
