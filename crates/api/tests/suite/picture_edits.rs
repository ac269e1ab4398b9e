//! Holds: pictures that are changed: what a form or a body brings, and what it costs.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batchin_testkit::{
    Reply, TestServer, both,
    sim::pictures::{JPEG, PictureMaker, PictureScript, png},
};
use batchin_upstream::Kind;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::odd_servers::spent;

const PATH: &str = "/v1/images/edits";
/// Nano-dollars of a pixel, times as many pixels.
const COST: i64 = 3_000_000;
const PIXELS: i64 = 1_024 * 1_024;
/// What the simulated server makes where nobody says a size.
const EDITED: i64 = 768 * 512;

/// A form with these fields; what has a media type is a file.
fn form(fields: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content_type, value) in fields {
        let file = content_type.map(|kind| format!("; filename=\"../x\"\r\ncontent-type: {kind}")).unwrap_or_default();
        let head = format!("--b\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend_from_slice(&[head.as_bytes(), value, b"\r\n"].concat());
    }
    body.extend_from_slice(b"--b--\r\n");
    body
}

async fn sent(server: &TestServer, fields: &[(&str, Option<&str>, &[u8])]) -> Reply {
    let asked: [(&str, Option<&str>, &[u8]); 2] =
        [("model", None, b"draw-model"), ("prompt", None, b"Make it \"blue\".")];
    let body = form(&[&asked, fields].concat());
    server.call(Method::POST, PATH).header("content-type", "multipart/form-data; boundary=b").body(body).await
}

fn uri(bytes: &[u8]) -> String {
    format!("data:image/x;base64,{}", STANDARD.encode(bytes))
}

#[tokio::test]
async fn a_form_s_pictures_reach_every_server_as_files() {
    for (kind, maker) in [
        (Kind::VLLM_OMNI, PictureMaker::VllmOmni),
        (Kind::SGLANG_DIFFUSION, PictureMaker::SglangDiffusion),
        (Kind::SDCPP, PictureMaker::Sdcpp),
        (Kind::OPENAI, PictureMaker::OpenAi),
    ] {
        let server = TestServer::start().with_kind(kind).await;
        server.sim.script_pictures(PictureScript { maker, ..PictureScript::default() });
        let (picture, mask) = (png((64, 64)), png((32, 32)));
        let one: &[(&str, Option<&str>, &[u8])] =
            &[("image", Some("text/html"), &picture), ("mask", Some("image/png"), &mask), ("n", None, b"2")];
        let answer = sent(&server, one).await.ok();
        assert_eq!(
            (answer["data"].as_array().unwrap().len(), &answer["size"]),
            (2, &json!("768x512")),
            "{kind}: {answer}"
        );
        let received = server.sim.requests().last().unwrap().form().await.unwrap();
        let files: Vec<_> = received
            .pictures
            .iter()
            .map(|(name, kind, bytes)| (name.as_str(), kind.as_str(), bytes.to_vec()))
            .collect();
        assert_eq!(files, [("image", "image/png", picture.clone()), ("mask", "image/png", mask)], "{kind}");
        let field =
            |name: &str| received.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        assert_eq!(
            (field("prompt"), field("n"), field("size")),
            (Some("Make it \"blue\"."), Some("2"), None),
            "{kind}"
        );
        assert!(
            ["image", "mask"].iter().all(|name| field(name).is_none()),
            "a file is no field: {:?}",
            received.fields
        );
        assert_eq!(spent(&server).await, 2 * EDITED * COST / PIXELS, "{kind}");
        // Several, and a size.
        let several: &[(&str, Option<&str>, &[u8])] = &[
            ("image[]", Some("image/png"), &picture),
            ("image[]", Some("image/png"), JPEG),
            ("size", None, b"512x512"),
        ];
        let answer = sent(&server, several).await.ok();
        assert_eq!(answer["size"], "512x512");
        let received = server.sim.requests().last().unwrap().form().await.unwrap();
        let names: Vec<_> = received.pictures.iter().map(|(name, kind, _)| (name.as_str(), kind.as_str())).collect();
        assert_eq!(names, [("image[]", "image/png"), ("image[]", "image/jpeg")], "{kind}");
        server.ledger_check().await;
        server.stop().await;
    }
}

both! {
    async fn a_batch_changes_pictures_that_its_lines_bring(backend) {
        let server = TestServer::start().on(backend).with_kind(Kind::VLLM_OMNI).with_worker().await;
        let task = |id: &str, image: Value| json!({ "custom_id": id, "model": "draw-model", "url": PATH,
            "request_body": { "prompt": "Make it blue.", "image": image } });
        let tasks = [task("a", uri(&png((64, 64))).into()), task("b", json!([uri(&png((64, 64))), uri(JPEG)]))];
        let batch = server.post("/v1/batches", json!({ "tasks": tasks, "priority": "high" })).await.ok();
        let ended = crate::batches::until_final(&server, batch["id"].as_str().unwrap()).await;
        assert_eq!((&ended["status"], &ended["completed_tasks"]), (&json!("completed"), &json!(2)), "{ended}");
        assert_eq!(ended["tasks"][1]["usage"]["pixels"], EDITED, "{ended}");
        assert_eq!(spent(&server).await, 2 * EDITED * COST / PIXELS);
        let bad = json!({ "tasks": [task("c", "https://example.com/a.png".into())] });
        let refused = server.post("/v1/batches", bad).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text());
        assert!(refused.text().contains("addresses are not fetched"), "{}", refused.text());
        server.ledger_check().await;
        server.stop().await;
    }
}

#[tokio::test]
async fn what_is_no_picture_is_refused_and_costs_nothing() {
    let server = TestServer::start().with_kind(Kind::VLLM_OMNI).await;
    let picture = png((64, 64));
    let file: (&str, Option<&str>, &[u8]) = ("image", Some("image/png"), &picture);
    for (fields, param) in [
        (vec![], "image"),
        (vec![("image", Some("image/png"), &b"GIF89a"[..])], "image"),
        (vec![file, ("mask", Some("image/png"), b"")], "mask"),
        (vec![file, ("mask", Some("image/png"), &picture), ("mask", Some("image/png"), &picture)], "mask"),
        (vec![file; 17], "image"),
        (vec![file, ("stream", None, b"true")], "stream"),
        (vec![file, ("size", None, b"9x9")], "size"),
        (vec![file, ("n", None, b"11")], "n"),
    ] {
        let reply = sent(&server, &fields).await;
        let error = reply.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(error["param"], param, "{error}");
    }
    let nothing = server.post(PATH, json!({ "model": "draw-model", "prompt": "a" })).await;
    assert_eq!(nothing.error(StatusCode::BAD_REQUEST, "invalid_request")["param"], "image");
    assert_eq!((server.sim.calls(), spent(&server).await), (0, 0));
    server.stop().await;
}

#[tokio::test]
async fn what_a_large_picture_may_become_is_held_for() {
    // Twice 1024 by 1024 is what may come back of a small one; a larger one may come back as large as it is.
    let server = TestServer::start().with_kind(Kind::VLLM_OMNI).with_balance("0.006").await;
    server.post(PATH, json!({ "model": "draw-model", "prompt": "a", "image": uri(&png((64, 64))) })).await.ok();
    server.stop().await;
    let server = TestServer::start().with_kind(Kind::VLLM_OMNI).with_balance("0.006").await;
    let body = json!({ "model": "draw-model", "prompt": "a", "image": uri(&png((2_048, 1_025))) });
    assert_eq!(server.post(PATH, body).await.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(server.sim.calls(), 0);
    server.stop().await;
}
