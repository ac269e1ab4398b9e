//! Holds: statements, against sums of what the rest of the API tells and by programs that are not ours.

use std::{collections::BTreeMap, time::Duration};

use batchin_domain::{Balance, Clock as _, Month, Timestamp};
use batchin_testkit::{
    TestServer, both,
    sim::{Answer, Behaviour, stripe::DisputeEnd},
    usd,
};
use http::{Method, StatusCode};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{batches::until_final, cards::Shop};

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);
const NANOS_PER_CENT: f64 = 1e7;
/// Sums of a table by DuckDB, and the text of a document by pypdf.
const READER: &str = "import sys, duckdb, pypdf\n\
    csv = \"read_csv('%s', all_varchar=true)\" % sys.argv[1]\n\
    sql = \"SELECT sum(CAST(amount_nano AS HUGEINT)) FILTER (section NOT IN ('opening', 'closing')), \
    max(CAST(amount_nano AS HUGEINT)) FILTER (section = 'closing') - max(CAST(amount_nano AS HUGEINT)) FILTER (section = 'opening') FROM \"\n\
    print(*duckdb.sql(sql + csv).fetchall()[0])\n\
    print('\\n'.join(page.extract_text() for page in pypdf.PdfReader(sys.argv[2]).pages))";

/// Exact for what tests spend.
fn nanos(cents: &Value) -> i64 {
    (cents.as_f64().unwrap() * NANOS_PER_CENT).round() as i64
}

fn nano(text: &Value) -> i64 {
    text.as_str().unwrap().parse().unwrap()
}

async fn statement(server: &TestServer, month: Month) -> Value {
    let statement = server.get(&format!("/v1/statements/{month}")).await.ok();
    let all = |list: &str, member: &str| -> i64 {
        statement[list].as_array().unwrap().iter().map(|row| nano(&row[member])).sum()
    };
    let (moved, used) = (all("movements", "amount_nano"), all("usage", "cost_nano"));
    assert_eq!(moved, nano(&statement["totals"]["movements_nano"]));
    assert_eq!(used, nano(&statement["totals"]["usage_nano"]));
    assert_eq!(nano(&statement["opening_balance_nano"]) + moved - used, nano(&statement["closing_balance_nano"]));
    for member in ["opening_balance", "closing_balance"] {
        assert_eq!(nanos(&statement[format!("{member}_cents")]), nano(&statement[format!("{member}_nano")]));
    }
    statement
}

/// The three forms of a month.
async fn forms(server: &TestServer, month: Month) -> [Vec<u8>; 3] {
    let form = async |form: &str| {
        let reply = server.get(&format!("/v1/statements/{month}.{form}")).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
        reply.body.to_vec()
    };
    [form("json").await, form("csv").await, form("pdf").await]
}

fn until(server: &TestServer, at: Timestamp) {
    server.clock.advance(at.since(server.clock.now()));
}

/// What a key and model come to: requests, both kinds of tokens, nano-dollars.
type Sums = BTreeMap<(String, String), [i64; 4]>;

fn add(sums: &mut Sums, row: &Value, counts: [i64; 4]) {
    let sum = sums.entry((row["key_id"].to_string(), row["model"].to_string())).or_default();
    for (sum, count) in sum.iter_mut().zip(counts) {
        *sum += count;
    }
}

async fn logged(server: &TestServer) -> Sums {
    let mut sums = Sums::new();
    let mut after = String::new();
    loop {
        let page = server.get(&format!("/v1/usage/logs?limit=500{after}")).await.ok();
        let rows = page.as_array().unwrap();
        for row in rows {
            let count = |member: &str| row[member].as_i64().unwrap();
            add(&mut sums, row, [1, count("input_tokens"), count("output_tokens"), nanos(&row["cost_cents"])]);
        }
        let Some(last) = rows.last() else { return sums };
        after = format!("&after={}", last["id"].as_str().unwrap());
    }
}

/// A month of one thing and another.
async fn live(shop: &Shop, rng: &mut StdRng, second_key: &str) {
    let server = &shop.server;
    let mut payments = Vec::new();
    for _ in 0..16 {
        match rng.random_range(0..12) {
            0..5 => {
                let tokens = rng.random_range(1..40);
                let call = server.chat("chat-model").max_tokens(tokens);
                let call = if rng.random_bool(0.5) { call.stream() } else { call };
                let call = if rng.random_bool(0.5) { call.key(second_key) } else { call };
                assert_eq!(call.await.status, StatusCode::OK);
            }
            5 => {
                let body = json!({ "model": "embed-model", "input": "hello there" });
                server.post("/v1/embeddings", body).await.ok();
            }
            6 => server.grant(&server.owner, usd("0.37")).await,
            7 | 8 => payments.push(shop.paid(rng.random_range(100..900)).await.1),
            9 => {
                if let Some(payment) = payments.pop() {
                    let pending = rng.random_bool(0.5);
                    let refund = shop.stripe.refund(&payment, 50, pending).unwrap();
                    if pending {
                        shop.hear().await;
                        shop.stripe.end_refund(&refund, "failed");
                    }
                }
            }
            10 => {
                if let Some(payment) = payments.pop() {
                    let dispute = shop.stripe.dispute(&payment, 100).unwrap();
                    shop.hear().await;
                    let end = if rng.random_bool(0.5) { DisputeEnd::Won } else { DisputeEnd::Lost };
                    shop.stripe.end_dispute(&dispute, end);
                }
            }
            _ => shop.pass(HOUR * 5),
        }
        if rng.random_bool(0.2) {
            shop.hear().await;
        }
    }
    shop.hear().await;
}

/// A batch of which some is charged before midnight of the month's last day and some after.
async fn over_midnight(shop: &Shop, month: Month) {
    let server = &shop.server;
    until(server, month.next().start().before(Duration::from_secs(600)));
    shop.pass(Duration::ZERO);
    let slow = Answer { first_byte: Duration::from_millis(100), ..Answer::default() };
    server.sim.script_all(Behaviour::Answer(slow));
    let task = |index: u32| {
        let messages = json!([{ "role": "user", "content": "hi" }]);
        let body = json!({ "messages": messages, "max_tokens": 5 });
        json!({ "custom_id": index.to_string(), "model": "chat-model", "request_body": body })
    };
    let tasks: Vec<Value> = (0..24).map(task).collect();
    let made = server.post("/v1/batches", json!({ "tasks": tasks, "priority": "high" })).await.ok();
    let id = made["id"].as_str().unwrap();
    let some = async {
        while server.get(&format!("/v1/batches/{id}?limit=0")).await.ok()["completed_tasks"] == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), some).await.expect("some tasks end");
    shop.pass(Duration::from_secs(900));
    assert_eq!(until_final(server, id).await["completed_tasks"], 24);
    server.sim.script_all(Behaviour::Answer(Answer::default()));
}

both! {
    async fn three_months_add_up_and_stay(backend) {
        let shop = Shop::of(TestServer::start().on(backend).with_balance("50.00").with_worker()).await;
        let server = &shop.server;
        until(server, server.clock.now().month().next().start().after(DAY));
        shop.pass(Duration::ZERO);
        let second = server.post("/v1/keys", json!({ "name": "second" })).await.ok()["key"].as_str().unwrap().to_owned();
        let mut rng = StdRng::seed_from_u64(7);
        let first = server.clock.now().month();
        let mut kept = Vec::new();
        let mut month = first;
        for _ in 0..3 {
            live(&shop, &mut rng, &second).await;
            over_midnight(&shop, month).await;
            shop.pass(HOUR * 3);
            let stands = forms(server, month).await;
            assert_eq!(statement(server, month).await["closed"], true);
            kept.push((month, stands));
            month = month.next();
        }
        let (mut used, mut moved, mut before) = (Sums::new(), BTreeMap::new(), None);
        let summary = server.get("/v1/statements").await.ok();
        let months: Vec<_> = summary["data"].as_array().unwrap().iter().rev().map(|row| row["month"].as_str().unwrap()).collect();
        // The balance of the beginning was given in the month before.
        assert_eq!(months.len(), 5);
        for name in months {
            let told = statement(server, Month::parse(name).unwrap()).await;
            assert_eq!(before.take().unwrap_or(0), nano(&told["opening_balance_nano"]));
            before = Some(nano(&told["closing_balance_nano"]));
            for row in told["usage"].as_array().unwrap() {
                assert!(row["date"].as_str().unwrap().starts_with(name), "{row}");
                let count = |member: &str| row[member].as_i64().unwrap();
                add(&mut used, row, [count("requests"), count("input_tokens"), count("output_tokens"), nano(&row["cost_nano"])]);
            }
            for row in told["movements"].as_array().unwrap() {
                assert!(row["created_at"].as_str().unwrap().starts_with(name), "{row}");
                let is_payment = row["kind"] == "payment";
                assert!(!is_payment || row["receipt_url"].is_string() && row["reference_id"].is_string(), "{row}");
                let id = if is_payment { &row["payment_id"] } else { &row["id"] };
                moved.insert(id.to_string(), nano(&row["amount_nano"]));
            }
        }
        assert_eq!(before, Some(server.balance().await.nanos()));
        assert_eq!(used, logged(server).await);
        let history = shop.history().await;
        let completed = history.iter().filter(|row| row["status"] == "completed");
        let completed: BTreeMap<_, _> = completed.map(|row| (row["id"].to_string(), nanos(&row["amount_cents"]))).collect();
        assert_eq!(moved, completed);
        // A batch ran across each end of a month.
        let last_day = |month: Month| month.next().start().before(DAY).to_string()[..10].to_owned();
        for (month, _) in &kept {
            let told = statement(server, *month).await;
            assert!(told["usage"].as_array().unwrap().iter().any(|row| row["date"] == last_day(*month)), "{told}");
            let next = statement(server, month.next()).await;
            let first_day = month.next().start().to_string()[..10].to_owned();
            assert!(next["usage"].as_array().unwrap().iter().any(|row| row["date"] == first_day), "{next}");
        }
        for (month, stands) in &kept {
            assert_eq!(forms(server, *month).await, *stands, "{month}");
        }
        read_by_others(&kept[1].1);
        shop.clean().await;
    }

    async fn what_is_committed_later_stands_in_the_next_month(backend) {
        let server = TestServer::start().on(backend).with_balance("1.00").await;
        let before = server.clock.now().month();
        until(&server, before.next().start().after(HOUR * 2));
        let closed = forms(&server, before).await;
        assert_eq!(statement(&server, before).await["closed"], true);
        // A node of which the clock is behind, or whose commit took that long.
        let late = batchin_store::CreditGrant {
            id: batchin_domain::TransferId::new(server.owner.key_id.uuid()),
            account: server.owner.id,
            amount: usd("0.25"),
            actor: "test".to_owned(),
            reason: "test".to_owned(),
            reference: None,
            reverses: None,
            now: before.next().start().before(Duration::from_secs(1)),
        };
        server.store.credit().grant_credit(late).await.unwrap();
        assert_eq!(forms(&server, before).await, closed);
        let next = statement(&server, before.next()).await;
        assert_eq!(next["movements"].as_array().unwrap().len(), 1, "{next}");
        assert_eq!(nano(&next["closing_balance_nano"]), 1_250_000_000);
    }

    async fn what_is_no_month_has_no_statement(backend) {
        let server = TestServer::start().on(backend).await;
        let month = server.clock.now().month();
        for wrong in ["november", "2026-13", "2026-1", "2026-11.xml", "2026-11-30"] {
            let error = server.get(&format!("/v1/statements/{wrong}")).await.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert!(error["message"].as_str().unwrap().contains("yyyy-mm"), "{error}");
            assert_eq!(error["param"], "month");
        }
        for none in [month.next().to_string(), "2020-01".to_owned(), "9999-12".to_owned()] {
            let error = server.get(&format!("/v1/statements/{none}")).await.error(StatusCode::NOT_FOUND, "not_found");
            assert!(error["message"].as_str().unwrap().contains(&none), "{error}");
        }
        let eve = server.account("eve@example.com").await;
        let theirs = server.anonymous(Method::GET, "/v1/statements").key(&eve.key).await.ok();
        assert_eq!(theirs["data"], json!([]));
        let path = format!("/v1/statements/{month}");
        server.anonymous(Method::GET, &path).key(&eve.key).await.error(StatusCode::NOT_FOUND, "not_found");
        server.anonymous(Method::GET, &path).await.error(StatusCode::UNAUTHORIZED, "unauthorized");
        let csv = server.get(&path).header("accept", "text/csv").await;
        assert!(csv.header("content-type").starts_with("text/csv") && csv.text().starts_with("section,"), "{}", csv.text());
        let pdf = server.get(&path).header("accept", "application/pdf").await;
        assert!(pdf.body.starts_with(b"%PDF"));
    }

    async fn a_name_that_latin_1_lacks_stands_in_the_document(backend) {
        let server = TestServer::start().on(backend).await;
        let name = "成都算力科技 Дмитрий (Müller)";
        server.anonymous(Method::PATCH, "/v1/users/me").key(&server.owner.key).json(json!({ "name": name })).await.ok();
        let text = read_by_others(&forms(&server, server.clock.now().month()).await);
        assert!(text.contains(&format!("{name} <ada@example.com>")), "{text}");
    }
}

/// DuckDB adds the table up, and pypdf finds the same numbers in the document; the document's text.
fn read_by_others([json, csv, pdf]: &[Vec<u8>; 3]) -> String {
    let told: Value = serde_json::from_slice(json).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (csv_path, pdf_path) = (folder.path().join("s.csv"), folder.path().join("s.pdf"));
    std::fs::write(&csv_path, csv).unwrap();
    std::fs::write(&pdf_path, pdf).unwrap();
    let python = std::env::var_os("BATCHIN_TEST_PYTHON");
    let python =
        python.expect("BATCHIN_TEST_PYTHON is not set: run this with `make test`, which prepares what it needs");
    let read = std::process::Command::new(python).args(["-c", READER]).arg(csv_path).arg(pdf_path).output().unwrap();
    let text = String::from_utf8(read.stdout).unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let (sums, text) = text.split_once('\n').unwrap();
    let moved = nano(&told["closing_balance_nano"]) - nano(&told["opening_balance_nano"]);
    assert_eq!(sums, format!("{moved} {moved}"));
    for member in ["opening_balance_nano", "closing_balance_nano"] {
        let balance = Balance::from_nanos(nano(&told[member])).to_cents_text();
        assert!(text.contains(&format!(" {balance} US cents")), "{member}: {text}");
    }
    for row in told["usage"].as_array().unwrap() {
        let cost = Balance::from_nanos(-nano(&row["cost_nano"])).to_cents_text();
        assert!(text.contains(&format!(" {cost} US cents")), "{row}: {text}");
    }
    text.to_owned()
}
