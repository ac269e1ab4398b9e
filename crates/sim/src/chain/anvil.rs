//! Holds: a process of anvil, which mines when it is told to.

use std::{
    fmt::Display,
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use batchin_tasks::Tasks;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{
    http::{Http, client, post},
    token,
};

/// It is there within a second, on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(30);
/// Enough for a thousand transfers in one transaction.
const GAS: u64 = 100_000_000;
/// Above what a block of anvil's asks for, and the same each time: so a transaction that is sent again has the same hash.
const GAS_PRICE: u64 = 2_000_000_000;
/// What the payer has of each token.
const MINTED: u128 = 1 << 100;

/// A chain of its own, which ends with this value.
#[derive(Debug)]
pub struct Anvil {
    // Killed when it is dropped.
    _process: Child,
    _output: Tasks,
    url: String,
    http: Http,
    payer: String,
    forks: AtomicU64,
}

impl Anvil {
    /// Starts a chain with this number. The binary is npm's, below `BATCHIN_TEST_NODE_MODULES`.
    pub async fn start(chain_id: u64) -> Self {
        let mut process = Command::new(binary())
            .args([
                "--port",
                "0",
                "--no-mining",
                "--order",
                "fifo",
                "--hardfork",
                "cancun",
                "--gas-limit",
                "2000000000",
            ])
            .args(["--accounts", "1", "--balance", "1000000000", "--chain-id", &chain_id.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("anvil starts");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let listens = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some(address) = line.strip_prefix("Listening on ") {
                    return address.to_owned();
                }
            }
            panic!("anvil ended");
        };
        let address = timeout(PATIENCE, listens).await.expect("anvil listens");
        let output = Tasks::new();
        // What it says of each call is read away: it would wait for a reader.
        output.spawn("anvil_output", |stop| async move {
            while let Some(Ok(Some(_))) = stop.run_until_cancelled(lines.next_line()).await {}
        });
        let mut chain = Self {
            _process: process,
            _output: output,
            url: format!("http://{address}"),
            http: client(),
            payer: String::new(),
            forks: AtomicU64::new(0),
        };
        chain.payer = chain.call("eth_accounts", json!([])).await[0].as_str().unwrap().to_owned();
        chain
    }

    /// Its endpoint.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Who pays in [`transfer`](Self::transfer) and its like.
    pub fn payer(&self) -> &str {
        &self.payer
    }

    /// A call of JSON-RPC, which must succeed.
    pub async fn call(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let answer = timeout(PATIENCE, post(&self.http, &self.url, body.into())).await.expect("anvil answers").unwrap();
        let mut answer: Value = serde_json::from_slice(&answer).unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Puts the token's code at this address, whichever token shall be there, and gives the payer plenty of it. Mines a block.
    pub async fn place_token(&self, token: impl Display) {
        self.call("anvil_setCode", json!([token.to_string(), token::code()])).await;
        self.send(token, token::mint(&self.payer, MINTED)).await;
        self.mine(1).await;
    }

    /// Sends an amount of base units; it is in the next block. The transaction's hash.
    pub async fn transfer(&self, token: impl Display, to: impl Display, value: u128) -> String {
        self.send(token, token::transfer(&to.to_string(), value)).await
    }

    /// Several transfers in one transaction.
    pub async fn transfer_many(&self, token: impl Display, payments: &[(String, u128)]) -> String {
        self.send(token, token::transfer_many(payments)).await
    }

    /// Logs what a token of single pieces (ERC-721) logs: a `Transfer` with four topics.
    pub async fn transfer_piece(&self, token: impl Display, to: impl Display, piece: u128) -> String {
        self.send(token, token::transfer_piece(&to.to_string(), piece)).await
    }

    /// A transaction of the payer's. Sent again after a reorg, it has the same hash.
    pub async fn send(&self, to: impl Display, data: String) -> String {
        let (gas, price) = (format!("{GAS:#x}"), format!("{GAS_PRICE:#x}"));
        let transaction = json!({
            "from": self.payer, "to": to.to_string(), "data": data, "gas": gas, "gasPrice": price,
        });
        self.call("eth_sendTransaction", json!([transaction])).await.as_str().unwrap().to_owned()
    }

    /// Mines so many blocks; what was sent is in the first.
    pub async fn mine(&self, blocks: u64) {
        self.call("anvil_mine", json!([format!("{blocks:#x}")])).await;
    }

    /// The newest block's number.
    pub async fn height(&self) -> u64 {
        let number = self.call("eth_blockNumber", json!([])).await;
        u64::from_str_radix(number.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    }

    /// Replaces so many blocks by as many empty ones. What was in them is in no block, and not waiting either.
    pub async fn reorg(&self, depth: u64) {
        // Of another miner: empty blocks with the times of the old ones would be the old ones.
        let fork = self.forks.fetch_add(1, Ordering::Relaxed) + 1;
        self.call("anvil_setCoinbase", json!([format!("0x{fork:040x}")])).await;
        self.call("anvil_reorg", json!([depth, []])).await;
    }

    /// Takes the newest blocks away: the chain is shorter.
    pub async fn roll_back(&self, depth: u64) {
        self.call("anvil_rollback", json!([depth])).await;
    }

    /// Drops a transaction that waits.
    pub async fn drop_transaction(&self, hash: &str) {
        self.call("anvil_dropTransaction", json!([hash])).await;
    }

    /// All as it is now, to come back to.
    pub async fn snapshot(&self) -> String {
        self.call("evm_snapshot", json!([])).await.as_str().unwrap().to_owned()
    }

    /// Back to a snapshot, which is used up.
    pub async fn revert(&self, snapshot: &str) {
        assert_eq!(self.call("evm_revert", json!([snapshot])).await, json!(true));
    }
}

fn binary() -> PathBuf {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => panic!("npm has no anvil for {other}"),
    };
    let system = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
    #[expect(clippy::disallowed_methods, reason = "scripts/test.sh says where what it installed lies")]
    let modules = std::env::var("BATCHIN_TEST_NODE_MODULES").expect("scripts/test.sh installs anvil");
    PathBuf::from(modules).join(format!("@foundry-rs/anvil-{system}-{machine}/bin/anvil"))
}
