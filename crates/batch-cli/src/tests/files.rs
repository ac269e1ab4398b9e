//! Holds: inputs that are too large for one inline call.

use serde_json::json;

use super::fake::{Book, Fake};
use super::*;

/// Over 2,000,000 bytes.
fn large() -> String {
    let filler = "x".repeat(20_000);
    (0..120).map(|n| format!("\n{{\"custom_id\":\"task-{n}\",\"prompt\":\"{filler}\"}}\n")).collect()
}

fn expected() -> Vec<String> {
    (0..120).map(|n| format!("task-{n}")).collect()
}

#[tokio::test]
async fn a_large_input_is_uploaded_and_becomes_one_batch() {
    let fake = Fake::start(Book { busy_uploads: 1, ..Book::default() }).await;
    let desk = Desk::new(&fake.base, "k", &large());
    let mut run = desk.run();
    run.terms = Terms {
        priority: "low".parse().ok(),
        max_cost_cents: batchin_domain::Amount::parse_cents("12.5").ok(),
        window: Some("6h".to_owned()),
        webhook_url: Some("https://example.org/".to_owned()),
    };
    run.delivery.json = true;
    let ran = desk.execute_run(run).await;
    assert_eq!(ran.outcome.unwrap(), Outcome::Done);
    assert_eq!(ids(&desk.results()), expected(), "in the order of the input");
    let end: Value = serde_json::from_str(&ran.printed).unwrap();
    assert_eq!((&end["status"], &end["tokens"], &end["cost_cents"]), (&json!("completed"), &json!(360), &json!(0.25)));
    let book = fake.book.lock().unwrap();
    let file = lines(&book.files[0]);
    assert_eq!((book.files.len(), ids(&file)), (1, expected()));
    assert_eq!((&file[0]["method"], &file[0]["url"]), (&json!("POST"), &json!("/v1/completions")));
    assert_eq!(file[0]["body"]["model"], "chat-model");
    let body = json!({
        "input_file_id": "file-0", "completion_window": "6h", "priority": "low", "max_cost_cents": 12.5,
        "webhook_url": "https://example.org/",
    });
    assert_eq!(book.batches.iter().map(|(_, body)| body).collect::<Vec<_>>(), [&body]);
}

#[tokio::test]
async fn as_they_come_is_the_order_of_the_ends_also_when_the_server_goes_away() {
    let mut fake = Fake::start(Book::default()).await;
    let desk = Desk::new(&fake.base, "k", &large());
    let mut run = desk.run();
    run.delivery.ordered = false;
    let outage = async {
        while fake.polls() < 3 {
            tokio::task::yield_now().await;
        }
        fake.go_away();
        fake.come_back().await;
    };
    let (ran, ()) = tokio::join!(desk.execute_run(run), outage);
    assert_eq!(ran.outcome.unwrap(), Outcome::Done);
    let names = ids(&desk.results());
    let mut sorted = names.clone();
    sorted.sort_by_key(|name| name.trim_start_matches("task-").parse::<u32>().unwrap());
    assert_eq!(sorted, expected(), "each line once");
    // The first look had no cursor yet; from then on the order is that of the ends.
    assert_eq!(names[12..], expected().into_iter().rev().skip(12).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_the_servers_check_finds_has_the_lines_of_the_input() {
    let faults = json!([{ "line": 3, "code": "model_not_found", "message": "no such model", "param": "body.model" }]);
    let fake = Fake::start(Book { faults: Some(faults), ..Book::default() }).await;
    let desk = Desk::new(&fake.base, "k", &large());
    let error = desk.execute_run(desk.run()).await.outcome.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Misused);
    assert!(error.to_string().contains("in.jsonl:6: body.model: no such model"), "{error}");
}

#[tokio::test]
async fn an_estimate_submits_nothing() {
    let fake = Fake::start(Book::default()).await;
    for (input, files) in [(prompts(3), 0), (large(), 1)] {
        let desk = Desk::new(&fake.base, "k", &input);
        let mut run = desk.run();
        run.estimate = true;
        run.terms.priority = "fill".parse().ok();
        let ran = desk.execute_run(run.clone()).await;
        assert_eq!(ran.outcome.unwrap(), Outcome::Done);
        assert_eq!(
            ran.printed,
            "3 tasks, 12 prompt tokens: at most 0.5 cents, about 0.1 expected\n  \
                 m: 3 tasks, 12 prompt tokens: at most 0.5 cents, about 0.1 expected\n"
        );
        let book = fake.book.lock().unwrap();
        assert_eq!((book.batches.len(), book.files.len(), book.deleted), (0, files, files));
        assert_eq!(book.estimates.last().unwrap()["priority"], "fill");
    }
}
