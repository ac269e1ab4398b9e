//! Holds: pictures and films as the packages that clients use ask for them. Whoever makes them is a fake.

use batchin_testkit::{
    Kind, TestServer,
    sim::{FILM, pictures::png},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::odd_servers::{prepared, told_by};

fn sha(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn openai_s_packages_and_the_ai_sdk_get_their_pictures_and_films() {
    let server = TestServer::start().with_worker().with_kind(Kind::VLLM_OMNI).with_balance("10").await;
    let picture = sha(&png((96, 64)));
    let film = sha(FILM);
    let python = told_by(&server, prepared("BATCHIN_TEST_PYTHON"), "makers_python.py").await;
    let expected = json!({
        "pictures": [picture, picture, picture], "refused": "size", "statuses": ["completed", "completed", "completed"],
        "film": ["4", "480x848", 100, Value::Null], "listed": true, "content": film, "deleted": [true, true, true, true],
    });
    assert_eq!(python, expected);
    let node = told_by(&server, "node".into(), "makers_node.mjs").await;
    let expected = json!({
        "pictures": [picture, picture, picture], "ai": [["image/png", picture], ["image/png", picture]], "refused": "size",
        "film": ["completed", "4", "480x848", 100, Value::Null], "listed": true, "content": film,
        "deleted": [true, true, true, true],
    });
    assert_eq!(node, expected);
    let sums = server.get("/v1/usage/summary").await.ok();
    let counted = ["total_images", "total_video_seconds", "total_requests"].map(|name| sums[name].clone());
    // The AI SDK asks for its two pictures one by one.
    assert_eq!(counted, [json!(8), json!(12.0), json!(9)], "{sums}");
    server.stop().await;
}
