//! Holds: endpoints that lag, refuse, break off or lie. Nothing is believed of them, and no URL is in an error.

use std::time::Duration;

use batchin_evm::{Endpoint, Lie, Rpc, RpcError, ScanError, heads};
use batchin_sim::chain::{Fault, Liar};
use serde_json::{Value, json};

use crate::world::{ALICE, CHAIN, Watcher, chain, endpoint};

const OTHER_HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";

/// Changes the first log of every answer that has one.
fn log_with(member: &'static str, value: Value) -> Fault {
    Fault::bent(move |method, _, reply| {
        if method == "eth_getLogs" && reply["result"][0].is_object() {
            reply["result"][0][member] = value.clone();
        }
    })
}

fn logs_refused(code: i64, message: &'static str) -> Fault {
    Fault::bent(move |method, _, reply| {
        if method == "eth_getLogs" {
            *reply = json!({ "jsonrpc": "2.0", "id": reply["id"], "error": { "code": code, "message": message } });
        }
    })
}

#[tokio::test]
async fn answers_that_contradict_the_question_are_not_believed() {
    let chain = chain().await;
    let liar = Liar::start(chain.url()).await;
    let mut watcher = Watcher::start(&liar.url()).await;
    watcher.catch_up().await;
    chain.transfer(CHAIN.usdc, ALICE, 1).await;
    chain.mine(2).await;
    let stranger = "0x00000000000000000000000000000000000000000000000000000000000000aa";
    let transfer = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
    let twice = Fault::bent(|method, _, reply| {
        if method == "eth_getLogs" && reply["result"][0].is_object() {
            let log = reply["result"][0].clone();
            reply["result"].as_array_mut().unwrap().push(log);
        }
    });
    let unlinked = Fault::bent(|method, _, reply| {
        if method == "eth_getBlockByNumber" && reply["result"].is_object() {
            reply["result"]["parentHash"] = json!(OTHER_HASH);
        }
    });
    // Nothing could be counted on from there.
    let beyond = Fault::bent(|method, params, reply| {
        if method == "eth_getBlockByNumber" && params[0] == "latest" {
            reply["result"]["number"] = json!("0xffffffffffffffff");
        }
    });
    let before = watcher.state.clone();
    for (fault, lie) in [
        (log_with("blockHash", json!(OTHER_HASH)), Lie::OtherBlock),
        (log_with("blockNumber", json!("0x1")), Lie::OtherBlock),
        (log_with("address", json!("0x00000000000000000000000000000000000000aa")), Lie::OtherContract),
        (log_with("topics", json!([transfer, stranger, stranger])), Lie::OtherTopics),
        (log_with("topics", json!([stranger, stranger, stranger])), Lie::OtherTopics),
        (log_with("removed", json!(true)), Lie::Removed),
        (log_with("data", json!("0xzz")), Lie::Digits),
        (log_with("logIndex", json!("0x+1")), Lie::Digits),
        (twice, Lie::Twice),
        (unlinked, Lie::Parent),
        (beyond, Lie::Digits),
    ] {
        liar.script(fault);
        assert_eq!(watcher.step().await.unwrap_err(), ScanError::Rpc(RpcError::Lies(lie)));
    }
    assert_eq!(watcher.state, before);
    liar.script(None);
    watcher.catch_up().await;
    assert_eq!(watcher.values(), [1]);
}

#[tokio::test]
async fn what_an_endpoint_cannot_do_now_is_told_apart() {
    let chain = chain().await;
    let liar = Liar::start(chain.url()).await;
    let mut watcher = Watcher::start(&liar.url()).await;
    watcher.catch_up().await;
    chain.mine(2).await;
    let second = Duration::from_secs(1);
    for (fault, expected) in [
        (Fault::Busy { retry_after: Some(1) }, RpcError::Busy { retry_after: Some(second) }),
        (Fault::Status(401), RpcError::Unauthorised),
        (Fault::Status(302), RpcError::Refused { code: None, status: 302 }),
        (Fault::Status(502), RpcError::Unreachable),
        (Fault::Status(200), RpcError::Unreadable),
        (Fault::Truncated, RpcError::Unreadable),
        (logs_refused(-32005, "daily request count exceeded"), RpcError::Busy { retry_after: None }),
        (logs_refused(-32000, "query returned more than 10000 results"), RpcError::TooMany),
        (Fault::Behind(10), RpcError::Lags),
    ] {
        liar.script(fault);
        let step = watcher.step().await;
        // Headers alone are progress, where a step has got that far.
        let error = match step {
            Err(error) => error,
            Ok(_) => watcher.step().await.unwrap_err(),
        };
        assert_eq!(error, ScanError::Rpc(expected), "{expected:?}");
    }
    liar.script(Fault::Silent);
    let url = format!("{}/v2/secret-key", liar.url());
    let endpoint = |url: &str| Endpoint {
        name: "base[1]".to_owned(),
        url: url.to_owned().into(),
        timeout: Duration::from_millis(50),
        max_batch: 1,
    };
    let rpc = Rpc::new(endpoint(&url)).unwrap();
    assert_eq!(heads(&rpc).await, Err(RpcError::TimedOut));
    assert!(!format!("{rpc:?}").contains("secret-key"), "{rpc:?}");
    let nobody = Rpc::new(endpoint("http://127.0.0.1:1/secret-key")).unwrap();
    assert_eq!(heads(&nobody).await, Err(RpcError::Unreachable));
    assert!(Rpc::new(endpoint("ftp://host/secret-key")).is_err());
}

#[tokio::test]
async fn anvil_says_what_we_take_it_to_say() {
    let chain = chain().await;
    let rpc = endpoint(chain.url());
    assert_eq!(rpc.check_chain(1).await, Err(RpcError::WrongChain { expected: 1, found: CHAIN.id }));
    let tip = heads(&rpc).await.unwrap();
    assert_eq!((tip.latest.number, tip.safe.unwrap().number, tip.finalized.unwrap().number), (101, 69, 37));
    assert_eq!(rpc.header(500).await, Ok(None));
    assert_eq!(rpc.header_by_hash(tip.latest.hash).await, Ok(Some(tip.latest)));
    chain.reorg(1).await;
    assert_eq!(rpc.header_by_hash(tip.latest.hash).await, Ok(None));
}

#[tokio::test]
async fn a_block_that_goes_between_two_questions_is_no_fault_of_the_endpoint() {
    let chain = chain().await;
    let liar = Liar::start(chain.url()).await;
    let mut watcher = Watcher::start(&liar.url()).await;
    watcher.catch_up().await;
    chain.transfer(CHAIN.usdc, ALICE, 1).await;
    chain.mine(2).await;
    // Headers come from before a reorganisation, logs from after it.
    liar.script(logs_refused(-32000, "unknown block"));
    let scan = watcher.step().await.unwrap();
    assert_eq!((scan.events.len(), scan.behind), (0, 2));
    assert_eq!(watcher.step().await, Err(ScanError::Rpc(RpcError::UnknownBlock)));
    liar.script(None);
    chain.reorg(2).await;
    chain.transfer(CHAIN.usdc, ALICE, 1).await;
    chain.mine(1).await;
    watcher.catch_up().await;
    assert_eq!((watcher.values(), watcher.told, watcher.orphaned), (vec![1], 1, 2));
}

#[tokio::test]
async fn what_an_endpoint_has_no_logs_of_yet_is_not_missed() {
    let chain = chain().await;
    let liar = Liar::start(chain.url()).await;
    let mut watcher = Watcher::start(&liar.url()).await;
    watcher.catch_up().await;
    // It has the headers of new blocks, and not yet what was logged in them.
    let unindexed = || {
        Fault::bent(|method, _, reply| {
            if method == "eth_getLogs" {
                reply["result"] = json!([]);
            }
        })
    };
    for (value, late) in [(1, 20), (2, 70)] {
        liar.script(unindexed());
        chain.transfer(CHAIN.usdc, ALICE, value).await;
        chain.mine(late).await;
        watcher.catch_up().await;
        liar.script(None);
        chain.mine(CHAIN.window().into()).await;
        watcher.catch_up().await;
    }
    assert_eq!(watcher.values(), [1, 2]);
    // And where nothing is read for so long that the rest comes by ranges.
    liar.script(unindexed());
    chain.transfer(CHAIN.usdc, ALICE, 3).await;
    chain.mine(3).await;
    watcher.catch_up().await;
    liar.script(None);
    chain.mine(1_000).await;
    watcher.catch_up().await;
    assert_eq!(watcher.values(), [1, 2, 3]);
}

#[tokio::test]
async fn ranges_are_halved_until_an_endpoint_takes_them() {
    let chain = chain().await;
    let liar = Liar::start(chain.url()).await;
    let mut watcher = Watcher::start(&liar.url()).await;
    chain.transfer(CHAIN.usdc, ALICE, 1).await;
    chain.mine(1000).await;
    liar.script(Fault::bent(|method, params, reply| {
        let number = |name: &str| u64::from_str_radix(params[0][name].as_str()?.trim_start_matches("0x"), 16).ok();
        let (Some(from), Some(to)) = (number("fromBlock"), number("toBlock")) else { return };
        if method == "eth_getLogs" && to - from >= 100 {
            *reply = json!({ "jsonrpc": "2.0", "id": reply["id"], "error": { "code": -32600, "message": "Block range is too wide" } });
        }
    }));
    watcher.catch_up().await;
    assert_eq!(watcher.values(), [1]);
}
