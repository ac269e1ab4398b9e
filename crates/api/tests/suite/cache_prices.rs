//! Holds: what a model server found in its cache and wrote to it, charged at prices of its own.

use batchin_testkit::{TestServer, both, usd};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    inference::events,
    odd_servers::{JSON, raw, run_task, said, spent, streamed, whole},
};

/// Of 50 tokens 20 were found and 10 were written.
fn usage() -> Value {
    json!({"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55,
        "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 10}})
}

/// 20 at $0.02 a million, 20 at $0.005, 10 at $0.03, and 5 of the answer at $0.08.
const COST: i64 = 400 + 100 + 300 + 400;

both! {
    async fn a_cache_has_prices_of_its_own_in_every_call(backend) {
        let server = TestServer::start().on(backend).with_worker().with_cache_prices("0.005", "0.03").await;
        server.sim.script_all(raw(JSON, &whole(usage()).to_string()));
        assert_eq!(server.chat("chat-model").max_tokens(50).await.ok()["usage"], usage());
        assert_eq!(spent(&server).await, COST);
        let last = json!({"choices": [], "usage": usage()});
        server.sim.script_all(streamed(&[said("hello ", Value::Null), said("there", json!("stop")), last]));
        let asked = server.chat("chat-model").max_tokens(50).stream().with("stream_options", json!({"include_usage": true}));
        assert_eq!(events(&asked.await).last().unwrap()["usage"], usage());
        assert_eq!(spent(&server).await, 2 * COST);
        let line = run_task(&server).await;
        assert_eq!((&line["result"]["usage"], spent(&server).await), (&usage(), 3 * COST));
        let counts = [("prompt_tokens", 50), ("completion_tokens", 5), ("total_tokens", 55), ("cached_tokens", 20),
            ("cache_write_tokens", 10), ("characters", 0), ("images", 0)];
        assert!(counts.iter().all(|(name, count)| line["usage"][name] == *count), "{line}");

        let rows = server.get("/v1/usage/logs").await.ok();
        for row in rows.as_array().unwrap() {
            let counts = [&row["input_tokens"], &row["output_tokens"], &row["cached_tokens"], &row["cache_write_tokens"]];
            assert_eq!(counts, [50, 5, 20, 10]);
        }
        let batch = &server.get("/v1/batches").await.ok()[0];
        assert_eq!([&batch["input_tokens"], &batch["cached_tokens"], &batch["cache_write_tokens"]], [50, 20, 10]);
        for sums in [
            server.get("/v1/usage/summary").await.ok(),
            server.get("/v1/usage/by-model").await.ok()[0].clone(),
            server.get("/v1/usage/timeseries?interval=day").await.ok()["data"][0].clone(),
        ] {
            assert_eq!([&sums["total_input_tokens"], &sums["total_output_tokens"]], [150, 15], "{sums}");
            assert_eq!([&sums["total_cached_tokens"], &sums["total_cache_write_tokens"]], [60, 30], "{sums}");
        }
        server.stop().await;
    }

    async fn a_client_is_told_of_the_cache_what_it_pays_for(backend) {
        let server = TestServer::start().on(backend).with_cache_prices("0.005", "0.03").await;
        let mut beyond = usage();
        beyond["prompt_tokens_details"] = json!({"cached_tokens": 45, "cache_write_tokens": 1_000_000});
        let mut told = usage();
        told["prompt_tokens_details"] = json!({"cached_tokens": 45, "cache_write_tokens": 5});
        server.sim.script_all(raw(JSON, &whole(beyond).to_string()));
        assert_eq!(server.chat("chat-model").max_tokens(50).await.ok()["usage"], told);
        assert_eq!(spent(&server).await, 225 + 150 + 400);
        // In words of its own it is left as it is.
        let own = json!({"prompt_tokens": 50, "completion_tokens": 5, "prompt_cache_hit_tokens": 45});
        server.sim.script_all(raw(JSON, &whole(own.clone()).to_string()));
        assert_eq!(server.chat("chat-model").max_tokens(50).await.ok()["usage"], own);
        assert_eq!(spent(&server).await, 225 + 150 + 400 + 100 + 225 + 400);
        server.stop().await;
    }

    async fn a_hold_covers_a_prompt_that_is_all_written_to_a_cache(backend) {
        let dear = TestServer::start().on(backend).with_cache_prices("0.005", "0.2").with_balance("0.00004").await;
        let reply = dear.chat("chat-model").max_tokens(2_000).await;
        let error = reply.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        let message = error["message"].as_str().unwrap();
        let affordable: u64 = message.split("at most ").nth(1).unwrap().trim_end_matches('.').parse().unwrap();
        assert_eq!(dear.sim.calls(), 0);
        let all = json!({"prompt_tokens": 1_000_000, "completion_tokens": affordable,
            "prompt_tokens_details": {"cache_write_tokens": 1_000_000}});
        dear.sim.script_all(raw(JSON, &whole(all).to_string()));
        let refused = dear.chat("chat-model").max_tokens(affordable + 1).await;
        refused.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        let answer = dear.chat("chat-model").max_tokens(affordable).await.ok();
        let prompt = answer["usage"]["prompt_tokens"].as_u64().unwrap();
        assert_eq!(answer["usage"]["prompt_tokens_details"]["cache_write_tokens"], prompt);
        let left = dear.balance().await.nanos();
        assert_eq!(usd("0.00004").nanos() - left, i64::try_from(prompt * 200 + affordable * 80).unwrap());
        assert!((0..80).contains(&left), "all of it was held for: {left}");
        dear.stop().await;
    }

    async fn a_model_shows_what_a_cache_costs(backend) {
        let server = TestServer::start().on(backend).with_cache_prices("0.005", "0.03").await;
        let shown = server.get("/v1/models/chat-model").await.ok();
        assert_eq!(shown["pricing"], json!({
            "std_input": 0.02, "std_output": 0.08, "cached_input": 0.005, "cache_write": 0.03,
            "batch": {
                "high": { "input": 0.02, "output": 0.08, "cached_input": 0.005, "cache_write": 0.03 },
                "low": { "input": 0.01, "output": 0.04, "cached_input": 0.0025, "cache_write": 0.015 },
                "fill": { "input": 0.005, "output": 0.02, "cached_input": 0.00125, "cache_write": 0.0075 },
            },
        }));
        server.stop().await;
    }
}
