//! Batches from end to end: models and priorities, cancelling, failing, and running out of money.

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{Account, Address, PATIENCE, Settings, TOKEN, World, chat, nanos, on_both, until};

fn task(custom_id: &str, model: &str, max_tokens: i64) -> Value {
    json!({"custom_id": custom_id, "model": model, "request_body": chat(model, max_tokens)})
}

async fn until_status(account: &Account, at: &Address, id: &str, status: &str) -> Value {
    until(&format!("the batch is {status}"), async || {
        Some(account.batch(at, id).await).filter(|batch| batch["status"] == status)
    })
    .await
}

on_both! {
    async fn models_mix_and_each_priority_has_its_price(backend) {
        let settings = Settings::default().model("wordy", "sim:tokens=40");
        let world = World::new(backend, settings).await;
        let node = world.node().await;
        let (account, at) = (world.account(1000).await, &node.address);
        for (priority, divisor) in [("high", 1), ("low", 2), ("fill", 4)] {
            let before = account.balance(at).await;
            let mut tasks: Vec<Value> = (0..6).map(|index| task(&format!("fixed-{index}"), "fixed", 10)).collect();
            tasks.extend((0..3).map(|index| task(&format!("wordy-{index}"), "wordy", 40)));
            tasks.push(json!({"custom_id": "prompt", "model": "fixed", "url": "/v1/completions",
                "request_body": {"prompt": "once upon a time", "max_tokens": 4}}));
            let id = account.submit(at, priority, &tasks).await;
            let batch = until_status(&account, at, &id, "completed").await;
            assert_eq!((&batch["total_tasks"], &batch["completed_tasks"], &batch["failed_tasks"]), (&json!(10), &json!(10), &json!(0)));
            assert_eq!(batch["priority"], priority);
            let tokens = 6 * 10 + 3 * 40 + 4;
            assert_eq!(before - account.balance(at).await, tokens * TOKEN / divisor);
            let mut results = account.results(at, &id).await;
            results.sort_by_key(|line| line["index"].as_u64());
            let names: Vec<&str> = results.iter().map(|line| line["custom_id"].as_str().unwrap()).collect();
            let given: Vec<&str> = tasks.iter().map(|task| task["custom_id"].as_str().unwrap()).collect();
            assert_eq!(names, given);
            let cost: i64 = results.iter().map(|line| nanos(&line["cost_cents"])).sum();
            assert_eq!(cost, tokens * TOKEN / divisor);
            assert_eq!(results[7]["result"]["usage"]["completion_tokens"], 40);
            assert_eq!(results[9]["result"]["object"], "text_completion");
        }
        world.settled().await;
    }

    async fn cancelling_stops_what_runs(backend) {
        let world = World::new(backend, Settings::default().model("endless", "sim:hang")).await;
        let node = world.node().await;
        let (account, at) = (world.account(1000).await, &node.address);
        let tasks: Vec<Value> = (0..20).map(|index| task(&format!("task-{index}"), "endless", 10)).collect();
        let id = account.submit(at, "high", &tasks).await;
        timeout(PATIENCE, world.sim().until_calls(2)).await.expect("tasks run");
        assert_eq!(account.batch(at, &id).await["status"], "in_progress");
        let cancelled = account.post(at, &format!("/v1/batches/{id}/cancel"), &json!({})).await;
        assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
        until("the model server is told", async || (world.sim().aborted() == world.sim().calls()).then_some(())).await;
        let batch = account.batch(at, &id).await;
        assert!(batch["tasks"].as_array().unwrap().iter().all(|task| task["status"] == "cancelled"), "{batch}");
        let calls = world.sim().calls();
        // Another batch runs to its end, and nothing of the first one is taken up again meanwhile.
        let id = account.submit(at, "high", &[task("after", "fixed", 10)]).await;
        until_status(&account, at, &id, "completed").await;
        assert_eq!(world.sim().calls(), calls + 1);
        assert_eq!(account.funded - account.balance(at).await, 10 * TOKEN);
        world.settled().await;
    }

    async fn a_task_that_keeps_failing_fails_and_the_others_do_not(backend) {
        let settings = Settings::default().model_on(1, "broken", "sim:status=500");
        let world = World::with_sims(backend, 2, settings).await;
        let node = world.node().await;
        let (account, at) = (world.account(1000).await, &node.address);
        let tasks = [task("good", "fixed", 10), task("bad", "broken", 10), task("better", "fixed", 10)];
        let id = account.submit(at, "high", &tasks).await;
        let batch = until_status(&account, at, &id, "completed").await;
        assert_eq!((&batch["completed_tasks"], &batch["failed_tasks"]), (&json!(2), &json!(1)), "{batch}");
        let failed = &batch["tasks"][1];
        assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!("upstream_error")));
        let said = failed["error"]["message"].as_str().unwrap();
        assert!(!said.contains("127.0.0.1") && !said.contains("sim"), "{said}");
        assert_eq!(world.sims[1].calls(), 3, "as often as is configured");
        assert_eq!(account.funded - account.balance(at).await, 20 * TOKEN);
        world.settled().await;
    }

    async fn a_batch_without_money_waits_and_goes_on(backend) {
        let world = World::new(backend, Settings::default()).await;
        let node = world.node().await;
        let (account, at) = (world.account(1).await, &node.address);
        let tasks: Vec<Value> = (0..15).map(|index| task(&format!("task-{index}"), "fixed", 10)).collect();
        let id = account.submit(at, "high", &tasks).await;
        let batch = until("the batch waits for money", async || {
            Some(account.batch(at, &id).await).filter(|batch| !batch["blocked"].is_null())
        })
        .await;
        assert_eq!((&batch["status"], &batch["blocked"]), (&json!("in_progress"), &json!("payment_required")));
        let waiting = |priority: &str, tasks: u32| format!("batchin_batch_tasks_waiting{{priority=\"{priority}\"}} {tasks}\n");
        until("what waits is seen in the metrics", async || {
            let metrics = String::from_utf8(account.get(at, "/metrics").await.body.to_vec()).unwrap();
            (metrics.contains(&waiting("high", 5)) && metrics.contains(&waiting("low", 0))).then_some(())
        })
        .await;
        until("what can be paid for is done", async || (account.balance(at).await == 0).then_some(())).await;
        let batch = account.batch(at, &id).await;
        assert_eq!((&batch["completed_tasks"], &batch["failed_tasks"]), (&json!(10), &json!(0)), "{batch}");
        world.grant(&account.email, 2).await;
        let batch = until_status(&account, at, &id, "completed").await;
        assert_eq!((&batch["completed_tasks"], &batch["blocked"]), (&json!(15), &Value::Null), "{batch}");
        assert_eq!(account.balance(at).await, 150 * TOKEN);
        assert_eq!(world.sim().calls(), 15);
        world.settled().await;
    }
}
