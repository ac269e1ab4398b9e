//! Holds: paying over x402: its official clients pay an empty balance by its official facilitator on a real chain, and nothing but
//! the chain credits anything.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batchin_testkit::{
    Account, Reply, TestServer,
    money::{CHAIN_ID, FACILITATOR_KEY, facilitator_serves, usdc},
    sim::chain::Anvil,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

/// A client's whole run, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two blocks of the chain.
const BLOCK_TIME: Duration = Duration::from_millis(100);
/// Some key, and its address.
const PAYER: &str = "0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";
const PAYER_ADDRESS: &str = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23";
const UNITS_PER_CENT: u128 = 10_000;
const NANOS_PER_CENT: i64 = 10_000_000;

fn prepared(name: &str) -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "scripts/test.sh says where what it installed lies")]
    let path = std::env::var(name);
    PathBuf::from(path.unwrap_or_else(|_| panic!("{name} is not set: scripts/test.sh prepares it")))
}

fn script(program: &Path, name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let mut command = Command::new(program);
    command
        .arg(root.join("tests/sdk").join(name))
        .env("SDK_NODE_MODULES", prepared("BATCHIN_TEST_NODE_MODULES"))
        .kill_on_drop(true);
    command
}

/// A facilitator and the chain that it works on.
struct Quay {
    chain: Anvil,
    server: TestServer,
    facilitator: String,
    process: Child,
}

impl Quay {
    async fn open(facilitator: &[(&str, &str)]) -> Self {
        let chain = Anvil::start(CHAIN_ID).await;
        chain.place_token(usdc()).await;
        chain.transfer(usdc(), PAYER_ADDRESS, 10_000 * UNITS_PER_CENT).await;
        chain.mine(60).await;
        let mut process = script(Path::new("node"), "x402_facilitator_node.mjs")
            .env("SDK_CHAIN_URL", chain.url())
            .env("SDK_CHAIN_ID", CHAIN_ID.to_string())
            .env("SDK_FACILITATOR_KEY", FACILITATOR_KEY)
            .envs(facilitator.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = timeout(PATIENCE, lines.next_line()).await.expect("it listens").unwrap().unwrap();
        let urls = vec![chain.url().to_owned()];
        let server = TestServer::start().with_balance("0").with_usdc(urls).with_x402(&address).await;
        let quay = Self { chain, server, facilitator: address, process };
        quay.look().await;
        quay
    }

    async fn look(&self) {
        while self.server.billing.look_at_chain("base").await.unwrap().more {}
    }

    /// What comes of it while the chain goes on and is watched.
    async fn meanwhile<T>(&self, work: impl Future<Output = T>) -> T {
        let going_on = async {
            loop {
                self.chain.mine(1).await;
                self.look().await;
                sleep(BLOCK_TIME).await;
            }
        };
        tokio::select! {
            () = going_on => unreachable!("it goes on for ever"),
            done = timeout(PATIENCE, work) => done.expect("in time"),
        }
    }

    /// What a client printed, for which two accounts pay.
    async fn run(&self, mut command: Command, [one, other]: [&Account; 2]) -> String {
        command.env("SDK_URL", self.server.url("")).env("SDK_PAYER", PAYER);
        command.env("SDK_KEY", &one.key).env("SDK_OTHER_KEY", &other.key);
        let ran = self.meanwhile(command.output()).await.unwrap();
        let (out, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{out}{error}");
        out.into_owned()
    }

    async fn pay(&self, account: &Account, signature: &str) -> Reply {
        let call = self.server.anonymous(Method::POST, "/v1/topup/x402").key(&account.key);
        self.meanwhile(call.header("PAYMENT-SIGNATURE", signature).send()).await
    }

    async fn cents(&self, account: &Account) -> f64 {
        let me = self.server.anonymous(Method::GET, "/v1/users/me").key(&account.key).await.ok();
        me["credit_balance_cents"].as_f64().unwrap()
    }

    /// How often the facilitator was asked to look at a payment and to carry one out.
    async fn asked(&self) -> [u64; 2] {
        let mut stream = TcpStream::connect(self.facilitator.trim_start_matches("http://")).await.unwrap();
        stream.write_all(b"GET /asked HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let told: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        [&told["/verify"], &told["/settle"]].map(|count| count.as_u64().unwrap())
    }

    async fn payer_has(&self) -> Value {
        let data = format!("0x70a08231{:0>64}", PAYER_ADDRESS.trim_start_matches("0x"));
        self.chain.call("eth_call", json!([{ "to": usdc(), "data": data }, "latest"])).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn official_clients_pay_an_empty_balance_and_nothing_else_pays_anything() {
    let quay = Quay::open(&[]).await;
    assert_eq!(facilitator_serves(&quay.facilitator).await, [("base".to_owned(), true)]);
    let mut accounts = Vec::new();
    for name in ["one", "two", "three", "four", "five"] {
        accounts.push(quay.server.account(&format!("{name}@example.com")).await);
    }
    let [one, two, three, four, poor] = accounts.as_slice() else { unreachable!() };
    let to_sign = json!([
        // For somebody else, which is an address here all the same.
        {},
        { "maxTimeoutSeconds": 1 },
        { "amount": "999999" },
        { "asset": "0x0000000000000000000000000000000000f00d05" },
    ]);
    let mut node = script(Path::new("node"), "x402_node.mjs");
    node.env("SDK_TO_SIGN", to_sign.to_string());
    let told: Value = serde_json::from_str(&quay.run(node, [one, two]).await).unwrap();
    quay.run(script(&prepared("BATCHIN_TEST_PYTHON"), "x402_python.py"), [three, four]).await;
    for account in [one, two, three, four] {
        let cents = quay.cents(account).await;
        assert!((99.0..100.0).contains(&cents), "a dollar came, and a chat was charged: {cents}");
    }

    // What was asked for: the account's own address, and the real token.
    let asked = &told["required"];
    assert_eq!(asked["resource"]["url"], "http://batchin.test/v1/topup/x402");
    let places = quay.server.anonymous(Method::GET, "/v1/topup/usdc/chains").key(&one.key).await.ok();
    let expected = json!([{ "scheme": "exact", "network": "eip155:8453", "amount": "1000000", "asset": usdc(),
        "payTo": places["chains"][0]["deposit_address"], "maxTimeoutSeconds": 300,
        "extra": { "name": "USD Coin", "version": "2" } }]);
    assert_eq!(asked["accepts"], expected);

    // Signatures that do nothing, each really signed by who could pay.
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let [for_one, expired, underpaid, other_token] = [0, 1, 2, 3].map(|place| text(&told["signed"][place]));
    let (had, settled) = (quay.payer_has().await, quay.asked().await[1]);
    assert_eq!(settled, 4);
    let used = quay.pay(one, &text(&told["sent"][0])).await;
    used.error(StatusCode::CONFLICT, "conflict");
    assert_eq!(used.header("payment-required"), "", "nobody is to pay again");
    let chat = json!({ "model": "chat-model", "messages": [{ "role": "user", "content": "hello" }] });
    let call = quay.server.post("/v1/chat/completions", chat).key(&one.key);
    let answered = call.header("PAYMENT-SIGNATURE", &text(&told["sent"][0])).send().await;
    assert_eq!((answered.status, answered.header("payment-response")), (200, ""), "{}", answered.text());
    let before = quay.asked().await;
    for (account, signature, why) in [
        (poor, &for_one, "another address than this account's own"),
        (one, &expired, "expired"),
        (one, &underpaid, "too little"),
        (one, &other_token, "another token"),
    ] {
        let refused = quay.pay(account, signature).await;
        let error = refused.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        assert!(error["message"].as_str().unwrap().contains(why), "{error}");
        assert_eq!(error["param"], "PAYMENT-SIGNATURE");
        assert!(!refused.header("payment-required").is_empty());
    }
    quay.pay(one, "e30=").await.error(StatusCode::BAD_REQUEST, "invalid_request");
    assert_eq!(quay.asked().await, before, "the facilitator is not asked for what would be refused");
    let forged = quay.pay(one, &forged(&for_one)).await;
    let error = forged.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
    assert!(error["message"].as_str().unwrap().contains("invalid_exact_evm_signature"), "{error}");
    assert_eq!((quay.payer_has().await, quay.asked().await[1]), (had, settled));
    assert!(quay.cents(poor).await.abs() < f64::EPSILON);

    // Sent twice at once it pays once.
    let before = quay.cents(one).await;
    let send = || {
        let call = quay.server.anonymous(Method::POST, "/v1/topup/x402").key(&one.key);
        call.header("PAYMENT-SIGNATURE", &for_one).send()
    };
    let (first, second) = quay.meanwhile(async { tokio::join!(send(), send()) }).await;
    assert!([first.status, second.status].contains(&200), "{} {}", first.text(), second.text());
    quay.meanwhile(async { sleep(BLOCK_TIME * 10).await }).await;
    assert!((quay.cents(one).await - before - 100.0).abs() < 1e-6);
    assert_eq!(quay.server.store.check().await.unwrap().faults, []);
}

/// The same payment with another signature.
fn forged(header: &str) -> String {
    let mut payment: Value = serde_json::from_slice(&STANDARD.decode(header).unwrap()).unwrap();
    payment["payload"]["authorization"]["nonce"] = format!("0x{}", "22".repeat(32)).into();
    STANDARD.encode(payment.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_facilitator_that_lies_mints_nothing_and_refusals_say_how_to_pay() {
    let mut quay = Quay::open(&[("SDK_LIES", "1")]).await;
    let owner = quay.server.owner.clone();
    let places = quay.server.get("/v1/topup/usdc/chains").await.ok();
    let address = places["chains"][0]["deposit_address"].as_str().unwrap().to_owned();

    // Every call that is refused for want of money says so, in whichever protocol.
    let words = json!([{ "role": "user", "content": "hello" }]);
    let chat = json!({ "model": "chat-model", "messages": words, "max_tokens": 5 });
    let text = json!({ "model": "embed-model", "input": "a kite" });
    for (path, body, code) in [
        ("/v1/chat/completions", chat.clone(), "payment_required"),
        (
            "/openai/v1/chat/completions",
            json!({ "model": "chat-model", "messages": words, "stream": true }),
            "payment_required",
        ),
        ("/v1/messages", chat.clone(), "billing_error"),
        ("/v1/embeddings", text, "payment_required"),
        ("/v1/topup/x402", json!({}), "payment_required"),
    ] {
        let refused = quay.server.post(path, body).await;
        assert_eq!(refused.status, 402, "{path}: {}", refused.text());
        let error = refused.json()["error"].clone();
        assert!(error["code"] == code || error["type"] == code, "{path}: {error}");
        let offer = offer_of(&refused);
        assert_eq!((&offer["x402Version"], &offer["accepts"][0]["payTo"]), (&json!(2), &json!(address)), "{path}");
    }
    // As much as the call may cost, in whole cents, where that is more than the least.
    let dear = quay.server.chat("chat-model").with("n", 100).max_tokens(4_000).await;
    let least = quay.server.post("/v1/topup/x402", json!({ "amount_cents": 2500.5 })).await;
    assert_eq!(offer_of(&least)["accepts"][0]["amount"], "25010000");
    let message = dear.json()["error"]["message"].as_str().unwrap().to_owned();
    let cost: f64 = message.split("up to ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let asked: f64 = offer_of(&dear)["accepts"][0]["amount"].as_str().unwrap().parse().unwrap();
    assert!((asked - (cost.max(100.0)).ceil() * 10_000.0).abs() < 0.5, "{message} {asked}");
    quay.server
        .post("/v1/topup/x402", json!({ "amount_cents": "x" }))
        .await
        .error(StatusCode::BAD_REQUEST, "invalid_request");

    // What was never paid is in no balance, whoever says that it was.
    let mut node = script(Path::new("node"), "x402_node.mjs");
    node.env("SDK_TO_SIGN", "[{}]")
        .env("SDK_URL", quay.server.url(""))
        .env("SDK_PAYER", PAYER)
        .env("SDK_KEY", &owner.key);
    let ran = timeout(PATIENCE, node.output()).await.unwrap().unwrap();
    let told: Value =
        serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&ran.stderr)));
    let signature = told["signed"][0].as_str().unwrap().to_owned();
    let paid = quay.pay(&owner, &signature).await;
    assert_eq!(paid.status, 200, "{}", paid.text());
    assert_eq!((&paid.json()["status"], &paid.json()["confirmations"]), (&json!("settled"), &Value::Null));
    assert!(!paid.header("payment-response").is_empty());
    let chatted = quay.meanwhile(quay.server.chat("chat-model").header("PAYMENT-SIGNATURE", &signature).send()).await;
    chatted.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
    assert_eq!(quay.server.balance().await.nanos(), 0);
    assert_eq!(quay.server.get("/v1/topup/usdc/deposits").await.ok(), json!([]));

    // While a payment is on its way nobody is asked for another one, but who wants to pay.
    quay.chain.transfer(usdc(), &address, 500 * UNITS_PER_CENT).await;
    quay.chain.mine(1).await;
    quay.look().await;
    let refused = quay.server.post("/v1/chat/completions", chat.clone()).await;
    refused.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
    assert_eq!(refused.header("payment-required"), "");
    assert_eq!(offer_of(&quay.server.post("/v1/topup/x402", json!({})).await)["accepts"][0]["payTo"], address);
    quay.chain.mine(10).await;
    quay.look().await;
    assert_eq!(quay.server.balance().await.nanos(), 500 * NANOS_PER_CENT);
    // A budget is no matter of money in the balance.
    let key = quay.server.post("/v1/keys", json!({ "monthly_budget_cents": 0.000001 })).await;
    let key = key.json()["key"].as_str().unwrap_or_else(|| panic!("{}", key.text())).to_owned();
    let refused = quay.server.post("/v1/chat/completions", chat).key(&key).await;
    let error = refused.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
    assert!(error["message"].as_str().unwrap().contains("budget"), "{error}");
    assert_eq!(refused.header("payment-required"), "");

    quay.process.kill().await.unwrap();
    let refused = quay.pay(&owner, &signature).await;
    let error = refused.error(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable");
    assert!(error["message"].as_str().unwrap().contains("nothing was paid"), "{error}");
    assert!(!refused.text().contains("127.0.0.1") && !refused.text().contains(FACILITATOR_KEY));
    assert_eq!(quay.server.store.check().await.unwrap().faults, []);
}

/// What the header says.
fn offer_of(refused: &Reply) -> Value {
    let header = refused.header("payment-required");
    assert!(!header.is_empty(), "{}", refused.text());
    serde_json::from_slice(&STANDARD.decode(header).unwrap()).unwrap()
}

#[tokio::test]
async fn without_a_facilitator_nothing_is_said_of_paying() {
    let server = TestServer::start().with_balance("0").with_usdc(vec!["http://127.0.0.1:1".to_owned()]).await;
    let refused = server.chat("chat-model").header("PAYMENT-SIGNATURE", "e30=").await;
    refused.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
    assert_eq!(refused.header("payment-required"), "");
    for signature in [None, Some("e30=")] {
        let call = server.call(Method::POST, "/v1/topup/x402");
        let call = match signature {
            Some(signature) => call.header("PAYMENT-SIGNATURE", signature),
            None => call,
        };
        let error = call.await.error(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable");
        assert!(error["message"].as_str().unwrap().contains("usdc.x402.facilitator"), "{error}");
    }
}
