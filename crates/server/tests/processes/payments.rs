//! What an operator sees of payments by card and on a chain: by `batchin doctor`, and by `batchin deposits`.

use batchin_testkit::{
    chain::Anvil,
    sim::stripe::{FakeStripe, STRIPE_KEY},
};
use serde_json::Value;

use crate::harness::{Backend, CHAIN_ID, CONFIRMATIONS, Settings, USDC, World, until};

/// Five dollars.
const UNITS: u128 = 5_000_000;
/// Below the least that is credited alone.
const FEW_UNITS: u128 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_asks_stripe_and_chains_and_deposits_are_listed() {
    let (stripe, chain) = (FakeStripe::start(0).await.unwrap(), Anvil::start(CHAIN_ID).await);
    chain.place_token(USDC).await;
    let settings =
        Settings { stripe: Some(stripe.base_url()), chain: Some(chain.url().to_owned()), ..Settings::default() };
    let world = World::new(Backend::Sqlite, settings.clone()).await;
    let (node, first, second) = (world.node().await, world.beggar().await, world.beggar().await);
    let mut addresses = Vec::new();
    for account in [&first, &second] {
        let places = account.get(&node.address, "/v1/topup/usdc/chains").await.json();
        addresses.push(places["chains"][0]["deposit_address"].as_str().unwrap().to_owned());
    }
    assert_ne!(addresses[0], addresses[1], "each account has its own");
    let transaction = chain.transfer(USDC, &addresses[0], UNITS).await;
    chain.transfer(USDC, &addresses[1], FEW_UNITS).await;
    chain.mine(CONFIRMATIONS).await;

    let listed = async || {
        let out = world.command(&["deposits", "export", "--json"]).await;
        let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (rows.len() == 2).then_some(rows)
    };
    let rows = until("both payments are final", listed).await;
    let row = rows.iter().find(|row| row["account"] == first.email).unwrap();
    assert_eq!((&row["chain"], &row["chain_id"]), (&"local".into(), &CHAIN_ID.into()), "{row}");
    assert_eq!([&row["address"], &row["token"], &row["transaction"]], [&addresses[0], USDC, &transaction], "{row}");
    assert_eq!((&row["base_units"], &row["status"], &row["index"]), (&"5000000".into(), &"credited".into(), &0.into()));
    let held = rows.iter().find(|row| row["account"] == second.email).unwrap();
    assert_eq!((&held["status"], &held["index"]), (&"held".into(), &1.into()), "{held}");
    let text = world.command(&["deposits", "export"]).await;
    let line = format!("local {} 0 {USDC} 5000000 {transaction} credited {}\n", addresses[0], first.email);
    assert!(text.contains(&line) && text.lines().count() == 2, "{text}");

    // Read again from the first block on: what is held is held again, what is credited stays so.
    let refused = world.try_command(&["deposits", "restart", "bass", "--from", "1"]).await;
    assert!(refused.code != 0 && refused.err.contains("there is no chain bass: known are local"), "{}", refused.err);
    let refused = world.try_command(&["deposits", "restart", "local", "--from", "900"]).await;
    assert!(refused.err.contains("--from 900 would leave blocks out: the chain is read to "), "{}", refused.err);
    let told = world.command(&["deposits", "restart", "local", "--from", "1"]).await;
    assert!(told.starts_with("local is read from block 1 on, after 0x"), "{told}");
    assert!(told.contains("1 payment(s) from there on that are not credited count again once"), "{told}");
    assert!(told.contains("1 payment(s) from there on are credited and stay so"), "{told}");
    let rows = until("what was held is seen again", listed).await;
    let mut statuses: Vec<_> = rows.iter().map(|row| row["status"].as_str().unwrap()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, ["credited", "held"]);
    world.command(&["ledger", "check"]).await;

    let base = stripe.base_url();
    let doctor = async || {
        let out = world.try_command(&["doctor"]).await.out;
        for secret in [STRIPE_KEY, "sk_test_other", chain.url(), &base] {
            assert!(!out.contains(secret), "{out}");
        }
        out
    };
    let fine = doctor().await;
    assert!(fine.contains("ok     cards: Stripe answers to this key, which is for tests"), "{fine}");
    assert!(fine.contains("ok     chains: local #1 serves its chain, at block "), "{fine}");
    assert!(fine.contains("chains: local has one endpoint; payments of 100000¢ and more wait"), "{fine}");
    let text = world.configuration(&settings).replace(STRIPE_KEY, "sk_test_other");
    world.overwrite_configuration(&text.replace(&format!("chain_id = {CHAIN_ID}"), "chain_id = 5"));
    let wrong = doctor().await;
    assert!(wrong.contains("WRONG  cards: Stripe does not know this key"), "{wrong}");
    assert!(wrong.contains("WRONG  chains: local #1: the endpoint serves the chain 31337, not 5"), "{wrong}");
    stripe.stop().await;
    assert!(doctor().await.contains("WRONG  cards: Stripe cannot be reached"));
}
