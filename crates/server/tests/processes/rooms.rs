//! A model whose server is slow, dead or gone takes no room from other models, and one account none from another.

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::{Account, Address, PATIENCE, Settings, World, chat, on_both, until};

fn tasks(model: &str, number: usize) -> Vec<Value> {
    let task = |index| json!({"custom_id": format!("{index}"), "model": model, "request_body": chat(model, 10)});
    (0..number).map(task).collect()
}

async fn until_completed(account: &Account, at: &Address, id: &str) {
    until("the batch is completed", async || (account.batch(at, id).await["status"] == "completed").then_some(()))
        .await;
}

on_both! {
    async fn a_server_that_hangs_keeps_no_room_from_other_models(backend) {
        let settings = Settings { tasks_at_once: 16, ..Settings::default() }.model_on(1, "endless", "sim:hang");
        let world = World::with_sims(backend, 2, settings.clone()).await;
        let node = world.node().await;
        let (slow, quick, at) = (world.account(1000).await, world.account(1000).await, &node.address);
        let stuck = slow.submit(at, "high", &tasks("endless", 400)).await;
        timeout(PATIENCE, world.sims[1].until_calls(14)).await.expect("all of it runs but what is left to others");
        for priority in ["high", "low", "fill"] {
            let id = quick.submit(at, priority, &tasks("fixed", 10)).await;
            until_completed(&quick, at, &id).await;
        }
        // Cancelled, it makes room for others of its own model at once.
        slow.post(at, &format!("/v1/batches/{stuck}/cancel"), &json!({})).await;
        let calls = world.sims[1].calls();
        let next = slow.submit(at, "high", &tasks("endless", 14)).await;
        timeout(PATIENCE, world.sims[1].until_calls(calls + 14)).await.expect("the next batch runs");
        // A model that is served no more fails what waits for it, in words.
        slow.post(at, &format!("/v1/batches/{next}/cancel"), &json!({})).await;
        let orphans = slow.submit(at, "high", &tasks("endless", 100)).await;
        timeout(PATIENCE, world.sims[1].until_calls(calls + 28)).await.expect("the next batch runs");
        world.configure(&Settings { models: settings.models[..1].to_vec(), ..settings });
        let batch = until("what waited has failed", async || {
            Some(slow.batch(at, &orphans).await).filter(|batch| batch["failed_tasks"].as_u64() >= Some(86))
        })
        .await;
        let errors: Vec<&Value> = batch["tasks"].as_array().unwrap().iter().map(|task| &task["error"]["code"]).collect();
        assert_eq!(errors.iter().filter(|code| **code == "model_not_found").count(), 86, "{batch}");
        slow.post(at, &format!("/v1/batches/{orphans}/cancel"), &json!({})).await;
        world.settled().await;
    }

    async fn several_servers_that_hang_keep_no_room_from_other_models(backend) {
        let settings = Settings { tasks_at_once: 16, ..Settings::default() };
        let settings = settings.model_on(1, "endless", "sim:hang").model_on(2, "stuck", "sim:hang");
        let world = World::with_sims(backend, 3, settings).await;
        let node = world.node().await;
        let (slow, quick, at) = (world.account(1000).await, world.account(1000).await, &node.address);
        let endless = slow.submit(at, "high", &tasks("endless", 100)).await;
        timeout(PATIENCE, world.sims[1].until_calls(14)).await.expect("all of it runs but what is left to others");
        let stuck = slow.submit(at, "high", &tasks("stuck", 100)).await;
        timeout(PATIENCE, world.sims[2].until_calls(2)).await.expect("it has what is left");
        let id = quick.submit(at, "low", &tasks("fixed", 10)).await;
        until_completed(&quick, at, &id).await;
        for id in [endless, stuck] {
            slow.post(at, &format!("/v1/batches/{id}/cancel"), &json!({})).await;
        }
        world.settled().await;
    }
}
