//! A reload drops no request, and each is charged by the price that it began with.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};

use crate::harness::{Account, Address, Settings, TOKEN, World, chat, each_task_once, nanos, on_both, until};

const ANSWER: i64 = 10 * TOKEN;
const CLIENTS: usize = 8;
/// Of a batch that runs meanwhile.
const TASKS: usize = 200;
/// Prices after the first: times this.
const RELOADS: [i64; 3] = [2, 3, 4];

fn settings(factor: i64) -> Settings {
    let settings =
        Settings::default().model("brief", "sim:tokens=10,first_ms=20").model("slow", "sim:tokens=10,first_ms=2000");
    let price = (100 * factor).to_string();
    settings.priced("brief", &price).priced("slow", &price)
}

async fn ask(account: Account, at: Address, stop: watch::Receiver<bool>) -> u64 {
    let mut answered = 0;
    while !*stop.borrow() {
        let reply = account.chat(&at, &chat("brief", 10)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        answered += 1;
    }
    answered
}

/// The configuration with one of two model servers alone, which serves all.
fn served_by(text: &str, server: usize) -> String {
    let (gone, kept) = (format!("sim-{}", 1 - server), format!("sim-{server}"));
    let start = text.find(&format!("[[upstreams]]\nname = \"{gone}\"")).unwrap();
    let end = start + 2 + text[start + 2..].find("[[").unwrap();
    let rest = format!("{}{}", &text[..start], &text[end..]);
    rest.replace(&format!("upstreams = [\"{gone}\"]"), &format!("upstreams = [\"{kept}\"]"))
}

async fn price_shown(account: &Account, at: &Address) -> Option<f64> {
    let model: Value = account.get(at, "/v1/models/brief").await.json();
    model["pricing"]["std_output"].as_f64()
}

on_both! {
    async fn each_request_is_charged_by_the_price_it_began_with(backend) {
        let world = World::new(backend, settings(1)).await;
        let node = world.node().await;
        let (account, at) = (world.account(100_000).await, &node.address);
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(ask(account.clone(), at.clone(), stopped.clone()));
        }
        for factor in RELOADS {
            // Under way before the reload, answered after it.
            let asked = world.sim().calls();
            let (asking, slow_at) = (account.clone(), at.clone());
            let slow = JoinSet::from_iter([async move { asking.chat(&slow_at, &chat("slow", 10)).await.status }]);
            until("more requests are under way", async || (world.sim().calls() > asked + 20).then_some(())).await;
            world.configure(&settings(factor));
            node.reload();
            let shown = async || (price_shown(&account, at).await == Some(100.0 * factor as f64)).then_some(());
            until("the new price is shown", shown).await;
            assert_eq!(slow.join_all().await, [200]);
        }
        stop.send(true).unwrap();
        let answered: u64 = clients.join_all().await.into_iter().sum();
        let rows = account.usage(at).await;
        assert_eq!(rows.len() as u64, answered + RELOADS.len() as u64);
        let mut by_price: HashMap<i64, u64> = HashMap::new();
        let mut slow = Vec::new();
        for row in &rows {
            let cost = nanos(&row["cost_cents"]);
            assert_eq!(cost % ANSWER, 0, "{row}");
            if row["model"] == "slow" {
                slow.push(cost / ANSWER);
            } else {
                *by_price.entry(cost / ANSWER).or_default() += 1;
            }
        }
        slow.sort_unstable();
        assert_eq!(slow, [1, 2, 3], "a request under way keeps its price");
        let mut prices: Vec<i64> = by_price.keys().copied().collect();
        prices.sort_unstable();
        assert_eq!(prices, [1, 2, 3, 4], "{by_price:?}");
        world.settled().await;
    }

    async fn servers_come_and_go_without_a_lost_request(backend) {
        let world = World::with_sims(backend, 2, settings(1)).await;
        let text = world.configuration(&settings(1));
        world.overwrite_configuration(&served_by(&text, 0));
        let node = world.node().await;
        let (account, at) = (world.account(100_000).await, &node.address);
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            clients.spawn(ask(account.clone(), at.clone(), stopped.clone()));
        }
        let task = |n| json!({"custom_id": format!("task-{n}"), "model": "brief", "request_body": chat("brief", 10)});
        let tasks: Vec<Value> = (0..TASKS).map(task).collect();
        let batch = account.submit(at, "high", &tasks).await;
        let slots = text.replace("slots = 512", "slots = 511");
        // One removed and another one added; the same back, with a setting of the server that stays changed; and once more.
        for (server, text) in [(1, &text), (0, &slots), (1, &slots)] {
            let (here, gone) = (&world.sims[server], &world.sims[1 - server]);
            // Under way on the server that goes, answered after it has gone.
            let (asked, asking, slow_at) = (gone.calls(), account.clone(), at.clone());
            let slow = JoinSet::from_iter([async move { asking.chat(&slow_at, &chat("slow", 10)).await.status }]);
            until("more requests are under way", async || (gone.calls() > asked + 20).then_some(())).await;
            let before = here.calls();
            world.overwrite_configuration(&served_by(text, server));
            node.reload();
            until("the new server is asked", async || (here.calls() > before + 20).then_some(())).await;
            assert_eq!(slow.join_all().await, [200]);
            until("and it alone", async || {
                let (calls, seen) = (gone.calls(), here.calls());
                until("requests come", async || (here.calls() > seen + 50).then_some(())).await;
                (gone.calls() == calls).then_some(())
            })
            .await;
        }
        stop.send(true).unwrap();
        let answered: u64 = clients.join_all().await.into_iter().sum();
        each_task_once(&account, at, &batch, TASKS).await;
        assert_eq!(account.usage(at).await.len() as u64, answered + 3 + TASKS as u64);
        world.settled().await;
    }

    async fn a_faulty_configuration_changes_nothing(backend) {
        let world = World::new(backend, settings(1)).await;
        let node = world.node().await;
        let (account, at) = (world.account(100).await, &node.address);
        // A price below a millionth of a dollar cannot be charged exactly.
        world.configure(&settings(2).model("added", "sim:tokens=1").priced("brief", "0.0000001"));
        node.reload();
        until("the fault is reported", async || node.log().contains("the old one stays").then_some(())).await;
        assert_eq!(account.get(at, "/v1/models/added").await.status, 404);
        assert_eq!(account.chat(at, &chat("fixed", 10)).await.status, 200);
        assert_eq!(price_shown(&account, at).await, Some(100.0));
        world.configure(&settings(3));
        node.reload();
        until("the new price is shown", async || (price_shown(&account, at).await == Some(300.0)).then_some(())).await;
    }
    async fn an_emptied_file_and_one_that_is_cut_off_change_nothing(backend) {
        let world = World::new(backend, settings(1)).await;
        let node = world.node().await;
        let (account, at) = (world.account(100).await, &node.address);
        let whole = world.configuration(&settings(2));
        let cut = &whole[..whole.find("[[models]]").unwrap()];
        for (refusals, text, why) in [(1, "", "the file is empty"), (2, cut, "no [[models]] any more")] {
            world.overwrite_configuration(text);
            until("the loss is reported", async || {
                let log = node.log();
                let refused = log.matches("the old one stays").count();
                assert!(refused <= refusals, "each file is reported once");
                (refused == refusals && log.contains(why)).then_some(())
            })
            .await;
            assert_eq!(price_shown(&account, at).await, Some(100.0));
            assert_eq!(account.chat(at, &chat("fixed", 10)).await.status, 200);
            let metrics = String::from_utf8(account.get(at, "/metrics").await.body.to_vec()).unwrap();
            let counted = format!("batchin_config_reloads_total{{outcome=\"refused\"}} {refusals}\n");
            assert!(metrics.contains(&counted), "{metrics}");
        }
        // A limit needs a restart; the prices beside it do not.
        let waiting = Settings { max_in_flight: 77, ..settings(2) };
        world.overwrite_configuration(&world.configuration(&waiting));
        until("the new price is shown", async || (price_shown(&account, at).await == Some(200.0)).then_some(())).await;
        until("the limit is named", async || {
            node.log().contains("need a restart: server.max_in_flight").then_some(())
        })
        .await;
        let metrics = String::from_utf8(account.get(at, "/metrics").await.body.to_vec()).unwrap();
        assert!(metrics.contains("batchin_config_reloads_total{outcome=\"taken_over\"} 1\n"), "{metrics}");
    }
}
