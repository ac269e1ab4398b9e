//! What is billed when a stream does not go as planned.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{Account, Address, PATIENCE, Settings, TOKEN, World, chat, nanos, on_both, text_of, until};

/// The only row of the usage log, once it is there and has ended.
async fn only_row(account: &Account, at: &Address) -> Value {
    let row = until("the usage is logged", async || {
        account.usage(at).await.into_iter().find(|row| row["status"] != "running")
    });
    let row = row.await;
    assert_eq!(account.usage(at).await.len(), 1);
    row
}

fn tokens(events: &[String]) -> i64 {
    i64::try_from(events.iter().filter(|data| text_of(data).is_some()).count()).unwrap()
}

on_both! {
    async fn a_client_that_leaves_pays_for_what_was_produced(backend) {
        let world = World::new(backend, Settings::default().model("flowing", "sim:tokens=2000,gap_ms=20")).await;
        let node = world.node().await;
        let (account, at) = (world.account(100).await, &node.address);
        let mut events = account.stream(at, chat("flowing", 2_000)).await;
        let mut seen = 0;
        while seen < 10 {
            let data = events.next().await.unwrap().expect("the stream goes on");
            seen += i64::from(text_of(&data).is_some());
        }
        drop(events);
        timeout(Duration::from_secs(2), world.sim().until_aborted(1)).await.expect("the model server is told at once");
        let row = only_row(&account, at).await;
        let billed = row["output_tokens"].as_i64().unwrap();
        assert!((seen..seen + 100).contains(&billed), "{seen} tokens were read and {billed} are billed");
        assert_eq!(row["status"], "client_gone");
        assert_eq!(nanos(&row["cost_cents"]), billed * TOKEN);
        assert_eq!(account.funded - account.balance(at).await, billed * TOKEN);
        world.settled().await;
    }

    async fn an_upstream_that_dies_is_paid_for_what_it_delivered(backend) {
        let world = World::new(backend, Settings::default().model("dying", "sim:tokens=7,gap_ms=5,end=cut")).await;
        let node = world.node().await;
        let (account, at) = (world.account(100).await, &node.address);
        let events = account.stream(at, chat("dying", 100)).await.all().await.unwrap();
        assert_eq!(tokens(&events), 7);
        let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], "upstream_error", "{events:?}");
        let said = last["error"]["message"].as_str().unwrap();
        assert!(!said.contains("127.0.0.1") && !said.contains("sim"), "{said}");
        let row = only_row(&account, at).await;
        assert_eq!((&row["status"], &row["output_tokens"], &row["estimated"]), (&json!("upstream_failed"), &json!(7), &json!(true)));
        assert_eq!(account.funded - account.balance(at).await, 7 * TOKEN);
        world.settled().await;
    }

    async fn an_upstream_without_usage_is_counted(backend) {
        let world = World::new(backend, Settings::default().model("mute", "sim:tokens=12,usage=never")).await;
        let node = world.node().await;
        let (account, at) = (world.account(100).await, &node.address);
        let events = account.stream(at, chat("mute", 100)).await.all().await.unwrap();
        assert_eq!((tokens(&events), events.last().map(String::as_str)), (12, Some("[DONE]")));
        let row = only_row(&account, at).await;
        assert_eq!((&row["status"], &row["output_tokens"], &row["estimated"]), (&json!("completed"), &json!(12), &json!(true)));
        assert_eq!(account.funded - account.balance(at).await, 12 * TOKEN);
    }

    async fn usage_is_asked_for_and_hidden_unless_the_client_wants_it(backend) {
        let world = World::new(backend, Settings::default().model("flowing", "sim:tokens=12")).await;
        let node = world.node().await;
        let (account, at) = (world.account(100).await, &node.address);
        let has_usage = |data: &String| {
            serde_json::from_str::<Value>(data).is_ok_and(|event| event["usage"].is_object())
        };
        let events = account.stream(at, chat("flowing", 100)).await.all().await.unwrap();
        assert!(!events.iter().any(has_usage), "{events:?}");
        assert_eq!((tokens(&events), events.last().map(String::as_str)), (12, Some("[DONE]")));
        let row = only_row(&account, at).await;
        assert_eq!((&row["output_tokens"], &row["estimated"]), (&json!(12), &json!(false)));

        let mut body = chat("flowing", 100);
        body["stream_options"] = json!({"include_usage": true});
        let events = account.stream(at, body).await.all().await.unwrap();
        assert_eq!(events.iter().filter(|data| has_usage(data)).count(), 1, "{events:?}");
        let asked = world.sim().requests();
        assert!(asked.iter().all(|request| String::from_utf8_lossy(&request.body).contains("include_usage")));
        // Billed when the client has its last event, not some time later.
        assert_eq!(account.funded - account.balance(at).await, 24 * TOKEN);
    }

    async fn an_upstream_that_fails_before_the_first_byte_costs_nothing(backend) {
        let settings = Settings::default().model_on(0, "refused", "sim:status=500").model_on(1, "dropped", "sim:drop");
        let world = World::with_sims(backend, 2, settings).await;
        let node = world.node().await;
        let (account, at) = (world.account(100).await, &node.address);
        for model in ["refused", "dropped"] {
            let reply = account.chat(at, &chat(model, 10)).await;
            assert!(matches!((reply.status, reply.code().as_str()), (502, "upstream_error") | (503, "service_unavailable")), "{reply:?}");
            assert!(!String::from_utf8_lossy(&reply.body).contains("127.0.0.1"), "{reply:?}");
        }
        assert_eq!(account.summary(at).await, (0, 0));
        let ledger = timeout(PATIENCE, world.settled()).await.unwrap();
        assert_eq!(ledger.usage_rows, 0);
    }
}
