//! Holds: payments in USDC on a real chain: what is final is credited once, what goes with its block is taken back.

use std::collections::HashMap;

use batchin_billing::Looked;
use batchin_testkit::{
    Backend, TestServer, both, left_after,
    money::{CHAIN_ID, CONFIRMATIONS, bridged, usdc},
    sim::chain::{Anvil, Fault, Liar},
};
use http::Method;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

const UNITS_PER_CENT: u128 = 10_000;
const NANOS_PER_CENT: i64 = 10_000_000;
const FALSE_TOKEN: &str = "0x00000000000000000000000000000000000f00d5";

struct Till {
    chain: Anvil,
    server: TestServer,
    address: String,
}

impl Till {
    async fn open(backend: Backend) -> Self {
        let anvil = Anvil::start(CHAIN_ID).await;
        let urls = vec![anvil.url().to_owned()];
        Self::behind(backend, anvil, urls).await
    }

    async fn behind(backend: Backend, anvil: Anvil, urls: Vec<String>) -> Self {
        anvil.place_token(usdc()).await;
        anvil.mine(60).await;
        let server = TestServer::start().on(backend).with_balance("0").with_usdc(urls).await;
        let chains = server.get("/v1/topup/usdc/chains").await.ok();
        let address = chains["chains"][0]["deposit_address"].as_str().unwrap().to_owned();
        let till = Self { chain: anvil, server, address };
        till.look().await;
        till
    }

    async fn pay(&self, cents: u32) -> String {
        self.chain.transfer(usdc(), &self.address, u128::from(cents) * UNITS_PER_CENT).await
    }

    async fn look(&self) -> Looked {
        let mut all = Looked::default();
        loop {
            let looked = self.server.billing.look_at_chain("base").await.unwrap();
            all.seen += looked.seen;
            all.credited += looked.credited;
            if !looked.more {
                return all;
            }
        }
    }

    async fn mine_and_look(&self, blocks: u64) -> Looked {
        self.chain.mine(blocks).await;
        self.look().await
    }

    async fn cents(&self) -> i64 {
        self.server.balance().await.nanos() / NANOS_PER_CENT
    }

    async fn deposits(&self) -> Vec<Value> {
        self.server.get("/v1/topup/usdc/deposits").await.ok().as_array().unwrap().clone()
    }

    async fn clean(&self) {
        assert_eq!(self.server.store.check().await.unwrap().faults, []);
    }
}

both! {
    async fn a_payment_is_shown_at_first_sight_and_credited_when_it_is_final(backend) {
        let till = Till::open(backend).await;
        let hash = till.pay(2_500).await;
        till.mine_and_look(1).await;
        assert_eq!(till.cents().await, 0);
        let row = &till.deposits().await[0];
        assert_eq!([&row["status"], &row["confirmations"], &row["required_confirmations"], &row["amount_cents"]], [&json!("confirming"), &json!(1), &json!(CONFIRMATIONS), &json!(2_500)]);
        assert_eq!([&row["transaction"], &row["deposit_address"], &row["chain"]], [&json!(hash), &json!(till.address), &json!("base")]);
        let pending = &till.server.get("/v1/topup/history").await.ok()[0];
        assert_eq!([&pending["source"], &pending["status"], &pending["confirmations"], &pending["reference_id"]], [&json!("usdc"), &json!("pending"), &json!(1), &json!(hash)]);
        till.mine_and_look(u64::from(CONFIRMATIONS) - 2).await;
        assert_eq!(till.cents().await, 0);
        assert_eq!(till.mine_and_look(1).await.credited, 1);
        assert_eq!(till.cents().await, 2_500);
        let row = &till.deposits().await[0];
        let history = till.server.get("/v1/topup/history").await.ok();
        assert_eq!([&history[0]["source"], &history[0]["status"], &history[0]["amount_cents"]], [&json!("usdc"), &json!("completed"), &json!(2_500)]);
        assert_eq!([&row["status"], &row["payment_id"]], [&json!("credited"), &history[0]["id"]]);
        for _ in 0..3 {
            assert_eq!(till.mine_and_look(2).await.credited, 0);
        }
        assert_eq!(till.cents().await, 2_500);
        // What a wallet scans.
        let picture = till.server.get("/v1/topup/usdc/chains/base/qr.svg?amount_cents=500").await;
        assert_eq!((picture.status, picture.header("content-type")), (200, "image/svg+xml"));
        assert!(picture.text().starts_with("<svg "));
        assert_eq!(till.server.get("/v1/topup/usdc/chains/doge/qr.svg").await.status, 404);
        // Nobody sees another's.
        let eve = till.server.account("eve@example.com").await;
        let theirs = async |path: &str| till.server.anonymous(Method::GET, path).key(&eve.key).await.ok();
        assert_eq!(theirs("/v1/topup/usdc/deposits").await, json!([]));
        assert_ne!(theirs("/v1/topup/usdc/chains").await["chains"][0]["deposit_address"], json!(till.address));
        till.clean().await;
    }

    async fn only_usdc_itself_is_credited(backend) {
        let till = Till::open(backend).await;
        for token in [bridged(), FALSE_TOKEN.to_owned()] {
            till.chain.place_token(&token).await;
            till.chain.transfer(&token, &till.address, 5_000 * UNITS_PER_CENT).await;
        }
        till.chain.transfer(usdc(), &till.address, 0).await;
        let two = [(till.address.clone(), 300 * UNITS_PER_CENT), (till.address.clone(), 200 * UNITS_PER_CENT)];
        till.chain.transfer_many(usdc(), &two).await;
        till.mine_and_look(10).await;
        assert_eq!(till.cents().await, 500, "both of one transaction");
        let mut statuses: Vec<_> = till.deposits().await.iter().map(|row| row["status"].as_str().unwrap().to_owned()).collect();
        statuses.sort();
        assert_eq!(statuses, ["credited", "credited", "unsupported_token"], "a bridged one is shown, the rest is nothing");
        till.clean().await;
    }

    async fn small_payments_wait_until_they_are_enough(backend) {
        let till = Till::open(backend).await;
        till.pay(40).await;
        till.mine_and_look(10).await;
        assert_eq!((till.cents().await, &till.deposits().await[0]["status"]), (0, &json!("held")));
        till.pay(70).await;
        till.mine_and_look(10).await;
        assert_eq!(till.cents().await, 110);
        let history = till.server.get("/v1/topup/history").await.ok();
        assert_eq!((history.as_array().unwrap().len(), &history[0]["amount_cents"]), (1, &json!(110)));
        till.clean().await;
    }

    async fn what_goes_with_its_block_is_taken_back_and_credited_anew(backend) {
        for depth in [1, 5, 40] {
            let till = Till::open(backend).await;
            let snapshot = till.chain.snapshot().await;
            till.pay(1_000).await;
            till.mine_and_look(depth).await;
            let was_credited = depth >= u64::from(CONFIRMATIONS);
            assert_eq!(till.cents().await, if was_credited { 1_000 } else { 0 }, "{depth}");
            till.chain.reorg(depth).await;
            till.look().await;
            assert_eq!(till.cents().await, 0, "{depth}");
            assert_eq!(till.deposits().await[0]["status"], "orphaned", "{depth}");
            // The same transaction again, in another block.
            till.chain.revert(&snapshot).await;
            till.chain.mine(3).await;
            till.pay(1_000).await;
            till.mine_and_look(50).await;
            assert_eq!(till.cents().await, 1_000, "{depth}");
            let deposits = till.deposits().await;
            assert_eq!((deposits.len(), &deposits[0]["status"]), (1, &json!("credited")), "{depth}");
            let kinds: Vec<_> = till.server.get("/v1/topup/history").await.ok().as_array().unwrap().iter()
                .map(|row| row["kind"].as_str().unwrap().to_owned()).collect();
            assert_eq!(kinds.len(), if was_credited { 3 } else { 1 }, "{kinds:?}");
            till.clean().await;
        }
    }

    async fn a_large_payment_needs_a_second_endpoint_that_says_the_same(backend) {
        let anvil = Anvil::start(CHAIN_ID).await;
        let second = Liar::start(anvil.url()).await;
        let urls = vec![anvil.url().to_owned(), second.url()];
        let till = Till::behind(backend, anvil, urls).await;
        second.script(Fault::bent(|method, _, reply| {
            if method == "eth_getTransactionReceipt"
                && let Some(logs) = reply["result"]["logs"].as_array_mut()
            {
                logs.clear();
            }
        }));
        till.pay(500_000).await;
        till.pay(2_000).await;
        till.mine_and_look(10).await;
        assert_eq!(till.cents().await, 2_000, "the small one alone");
        second.script(Fault::Busy { retry_after: Some(1) });
        till.mine_and_look(2).await;
        assert_eq!(till.cents().await, 2_000, "nobody says the same");
        second.script(None);
        till.mine_and_look(2).await;
        assert_eq!(till.cents().await, 502_000);
        till.clean().await;
    }

    async fn a_large_sum_in_small_parts_needs_a_second_endpoint_too(backend) {
        let anvil = Anvil::start(CHAIN_ID).await;
        let second = Liar::start(anvil.url()).await;
        let urls = vec![anvil.url().to_owned(), second.url()];
        let till = Till::behind(backend, anvil, urls).await;
        second.script(Fault::Status(502));
        let bob = till.server.account("bob@example.com").await;
        let places = till.server.anonymous(Method::GET, "/v1/topup/usdc/chains").key(&bob.key).await.ok();
        let his = places["chains"][0]["deposit_address"].as_str().unwrap();
        till.chain.transfer(usdc(), his, 90_000 * UNITS_PER_CENT).await;
        for _ in 0..3 {
            till.pay(40_000).await;
        }
        assert_eq!(till.mine_and_look(10).await.credited, 1, "the other account's, which is less than asks for a second");
        assert_eq!(till.cents().await, 0, "none of the three");
        second.script(None);
        assert_eq!(till.look().await.credited, 3);
        assert_eq!(till.cents().await, 120_000);
        till.clean().await;
    }

    async fn a_chain_does_not_stand_still_at_one_endpoint(backend) {
        let anvil = Anvil::start(CHAIN_ID).await;
        let liar = Liar::start(anvil.url()).await;
        let urls = vec![liar.url(), anvil.url().to_owned()];
        let till = Till::behind(backend, anvil, urls).await;
        let root = till.server.admin("root@example.com").await;
        let shown = async || {
            let listed = till.server.anonymous(Method::GET, "/v1/admin/chains").key(&root.key).await.ok();
            listed["data"][0].clone()
        };
        let too_many = Fault::bent(|method, _, reply| {
            if method == "eth_getLogs" {
                *reply = json!({ "jsonrpc": "2.0", "id": reply["id"], "error": { "code": -32005, "message": "query returned more than 10000 results" } });
            }
        });
        let other_fork = Fault::bent(|method, _, reply| {
            for member in ["hash", "parentHash"] {
                if method == "eth_getBlockByNumber" && let Some(hash) = reply["result"][member].as_str() {
                    reply["result"][member] = json!(format!("0xffff{}", &hash[6..]));
                }
            }
        });
        for (fault, trouble, cents) in [(too_many, "answer_too_large", 700), (other_fork, "deep_reorganisation", 1_400)] {
            till.pay(700).await;
            till.chain.mine(10).await;
            liar.script(fault);
            let mut watcher = till.server.billing.watcher("base").unwrap();
            watcher.turn(1).await;
            let chain = shown().await;
            assert_eq!([&chain["chain"], &chain["endpoint"], &chain["trouble"], &chain["behind"]], [&json!("base"), &json!("base #1"), &json!(trouble), &json!(null)]);
            watcher.turn(1).await;
            let chain = shown().await;
            assert_eq!([&chain["endpoint"], &chain["trouble"], &chain["behind"], &chain["watched_here"]], [&json!("base #2"), &json!(null), &json!(0), &json!(true)]);
            assert_eq!(chain["read_to"], json!(till.chain.height().await));
            assert_eq!(till.cents().await, cents, "{trouble}");
        }
        // Another node has the turn: this one says nothing of it.
        till.server.billing.watcher("base").unwrap().turn(2).await;
        let chain = shown().await;
        assert_eq!([&chain["watched_here"], &chain["endpoint"], &chain["looked_at"]], [&json!(false), &json!(null), &json!(null)]);
        till.clean().await;
    }

    async fn what_another_watcher_missed_meanwhile_is_read_again(backend) {
        let anvil = Anvil::start(CHAIN_ID).await;
        let liar = Liar::start(anvil.url()).await;
        let urls = vec![liar.url()];
        let till = Till::behind(backend, anvil, urls).await;
        let mut first = till.server.billing.watcher("base").unwrap();
        first.look().await.unwrap();
        till.pay(700).await;
        till.chain.mine(1).await;
        liar.script(Fault::bent(|method, _, reply| if method == "eth_getLogs" { reply["result"] = json!([]) }));
        till.look().await;
        liar.script(None);
        assert_eq!(till.deposits().await.len(), 0);
        first.look().await.unwrap();
        assert_eq!(till.deposits().await.len(), 1, "it sees that another one has read");
    }

    async fn an_endpoint_that_lies_lags_or_breaks_credits_nothing(backend) {
        let anvil = Anvil::start(CHAIN_ID).await;
        let liar = Liar::start(anvil.url()).await;
        let urls = vec![liar.url()];
        let till = Till::behind(backend, anvil, urls).await;
        let genuine = till.chain.height().await;
        till.pay(700).await;
        till.chain.mine(10).await;
        let faults: [(&str, Fault); 6] = [
            ("busy", Fault::Busy { retry_after: None }),
            ("truncated", Fault::Truncated),
            ("lags", Fault::Behind(genuine)),
            ("another chain", Fault::bent(|method, _, reply| if method == "eth_chainId" { reply["result"] = json!("0x1") })),
            ("another token", Fault::bent(|method, _, reply| {
                if method == "eth_getLogs" && let Some(logs) = reply["result"].as_array_mut() {
                    logs.iter_mut().for_each(|log| log["address"] = json!(FALSE_TOKEN));
                }
            })),
            ("another block", Fault::bent(|method, _, reply| {
                if method == "eth_getLogs" && let Some(logs) = reply["result"].as_array_mut() {
                    logs.iter_mut().for_each(|log| log["blockHash"] = json!(format!("0x{}", "ab".repeat(32))));
                }
            })),
        ];
        for (what, fault) in faults {
            liar.script(fault);
            // Refused, or nothing new; never credited.
            let _ = till.server.billing.look_at_chain("base").await;
            assert_eq!(till.cents().await, 0, "{what}");
        }
        liar.script(None);
        till.look().await;
        assert_eq!(till.cents().await, 700);
        till.clean().await;
    }

    async fn whatever_the_chain_does_what_is_credited_is_what_is_final(backend) {
        for seed in 0..3 {
            let till = Till::open(backend).await;
            let mut rng = StdRng::seed_from_u64(seed);
            let mut sent: HashMap<String, u32> = HashMap::new();
            for _ in 0..50 {
                match rng.random_range(0..100) {
                    0..25 => {
                        let cents = rng.random_range(30..900);
                        sent.insert(till.pay(cents).await, cents);
                    }
                    25..50 => till.chain.mine(rng.random_range(1..4)).await,
                    50..60 => till.chain.reorg(rng.random_range(1..9)).await,
                    60..90 => left_after(rng.random_range(0..80), till.server.billing.look_at_chain("base")).await,
                    _ => drop(till.look().await),
                }
            }
            till.mine_and_look(20).await;
            till.look().await;
            let mut there = 0_i64;
            for (hash, cents) in &sent {
                let receipt = till.chain.call("eth_getTransactionReceipt", json!([hash])).await;
                there += if receipt["blockNumber"].is_string() { i64::from(*cents) } else { 0 };
            }
            let held: i64 = till.deposits().await.iter().filter(|row| row["status"] == "held").map(|row| row["amount_cents"].as_i64().unwrap()).sum();
            assert!(held < 100, "seed {seed}: {held}");
            assert_eq!(till.cents().await + held, there, "seed {seed}");
            till.clean().await;
        }
    }
}
