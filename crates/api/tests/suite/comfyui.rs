//! Holds: pictures and films by workflows of ComfyUI, and films by stable-diffusion.cpp. Both servers are fakes.

use std::{collections::HashSet, future::IntoFuture as _, time::Duration};

use batchin_testkit::{
    Kind, ServerBuilder, TestServer, both,
    sim::{
        FILM, FilmFormat, FilmScript, SDCPP_FILM,
        comfyui::{FILM_WORKFLOW, PICTURES, WorkflowScript},
        pictures::png,
    },
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    films::{LONG, PRICE, begun, ended, until},
    odd_servers::spent,
};

const PATH: &str = "/v1/images/generations";

fn drawing() -> ServerBuilder {
    TestServer::start().with_kind(Kind::COMFYUI)
}

fn filming() -> ServerBuilder {
    drawing().with_worker().with_workflow(FILM_WORKFLOW, "58")
}

fn asking(members: Value) -> Value {
    let mut body = json!({ "model": "draw-model", "prompt": "A red kite over the sea.", "size": "96x64" });
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

fn taking(takes: Duration) -> WorkflowScript {
    WorkflowScript { takes, ..WorkflowScript::default() }
}

/// An input of the graph of an order.
fn sent(server: &TestServer, order: usize, node: &str, input: &str) -> Value {
    server.sim.workflows().orders()[order].graph[node]["inputs"][input].clone()
}

async fn pictures(server: &TestServer, answer: &Value) -> usize {
    let told = answer["data"].as_array().unwrap();
    for picture in told {
        let url = picture["url"].as_str().unwrap().strip_prefix("http://batchin.test").unwrap();
        let bytes = server.anonymous(Method::GET, url).await.body;
        assert_eq!(bytes, png((96, 64)));
    }
    told.len()
}

#[tokio::test]
async fn a_workflow_is_filled_with_what_is_asked_for() {
    let server = drawing().await;
    let prompt = "A \"kite\",\nand {{seed}} \\ {{height}}";
    let members = json!({ "prompt": prompt, "negative_prompt": "rain", "seed": 7, "num_inference_steps": 4, "n": 2,
        "3": { "class_type": "LoadImage" }, "workflow": {}, "width": null });
    let answer = server.post(PATH, asking(members)).await.ok();
    assert_eq!(pictures(&server, &answer).await, 2);
    assert_eq!(server.sim.workflows().orders().len(), 1, "both at once");
    for (node, input, value) in [
        ("6", "text", json!(prompt)),
        ("7", "text", json!("rain, watermark")),
        ("3", "seed", json!(7)),
        ("3", "steps", json!(4)),
        ("3", "model", json!(["4", 0])),
        ("5", "width", json!(96)),
        ("5", "height", json!(64)),
        ("5", "batch_size", json!(2)),
    ] {
        assert_eq!(sent(&server, 0, node, input), value, "{node}.{input}");
    }
    let mut graph: Value = serde_json::from_str(PICTURES).unwrap();
    let filled = server.sim.workflows().orders()[0].graph.clone();
    for node in ["3", "5", "6", "7"] {
        graph[node]["inputs"] = filled[node]["inputs"].clone();
    }
    assert_eq!(filled, graph, "nothing else was changed");
    // By their pixels: two of 96 by 64, rounded up.
    assert_eq!(spent(&server).await, 2 * 96 * 64 * 3_000_000 / (1_024 * 1_024) + 1);
    // Nobody says a seed: none comes twice.
    for _ in 0..3 {
        server.post(PATH, asking(json!({}))).await.ok();
    }
    let orders = server.sim.workflows().orders();
    let differ = |of: &dyn Fn(usize) -> String| (1..4).map(of).collect::<HashSet<_>>().len();
    assert_eq!(differ(&|order| sent(&server, order, "3", "seed").to_string()), 3);
    assert_eq!(differ(&|order| orders[order].id.clone()), 3);
    assert_eq!((sent(&server, 1, "3", "steps"), sent(&server, 1, "7", "text")), (json!(20), json!(", watermark")));
    for seed in [json!(-1), json!(1.5), json!("7"), json!(9_007_199_254_740_992_u64)] {
        let error =
            server.post(PATH, asking(json!({ "seed": seed }))).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(error["param"], "seed");
    }
    assert_eq!(server.sim.workflows().orders().len(), 4);
    server.ledger_check().await;
    server.stop().await;
}

#[tokio::test]
async fn where_a_workflow_makes_one_picture_it_runs_for_each() {
    let server = drawing().with_workflow(&PICTURES.replace("\"{{n}}\"", "1"), "9").await;
    server.sim.workflows().script(WorkflowScript { own_ids: true, ..WorkflowScript::default() });
    let answer = server.post(PATH, asking(json!({ "seed": 41, "n": 3 }))).await.ok();
    assert_eq!(pictures(&server, &answer).await, 3);
    let seeds: Vec<_> = (0..3).map(|order| sent(&server, order, "3", "seed")).collect();
    assert_eq!(seeds, [41, 42, 43]);
    // One that makes more at once than is asked for.
    let server = drawing().with_workflow(&PICTURES.replace("\"{{n}}\"", "4"), "9").await;
    let answer = server.post(PATH, asking(json!({ "n": 2 }))).await.ok();
    assert_eq!((pictures(&server, &answer).await, server.sim.workflows().orders().len()), (2, 1));
    server.stop().await;
}

#[tokio::test]
async fn what_nobody_waits_for_is_stopped_and_nothing_else() {
    let server = drawing().await;
    server.sim.workflows().script(taking(LONG));
    let ask = || server.post(PATH, asking(json!({}))).into_future();
    let (mut first, mut second) = (Box::pin(ask()), Box::pin(ask()));
    let both_ordered = async {
        tokio::select! {
            _ = &mut first => panic!("it takes long"),
            () = server.sim.workflows().until_orders(1) => {}
        }
        tokio::select! {
            _ = &mut second => panic!("it takes long"),
            () = server.sim.workflows().until_orders(2) => {}
        }
    };
    both_ordered.await;
    // One that waits is taken out of the queue, and the other one runs on.
    drop(second);
    server.sim.workflows().until_stopped(1).await;
    let stopped = || server.sim.workflows().orders().iter().map(|order| order.is_stopped).collect::<Vec<_>>();
    assert_eq!((stopped(), server.sim.workflows().interruptions()), (vec![false, true], 0));
    drop(first);
    server.sim.workflows().until_stopped(2).await;
    assert_eq!((stopped(), server.sim.workflows().interruptions()), (vec![true, true], 1));
    assert_eq!(spent(&server).await, 0);
    server.ledger_check().await;
    server.stop().await;
}

#[tokio::test]
async fn a_workflow_that_does_not_run_is_the_operator_s_fault() {
    for wrong in [
        PICTURES.replace("flux1-schnell-fp8", "flux2"),
        PICTURES.replace("VAEDecode", "VAEDecodeMine"),
        PICTURES.replace("SaveImage", "VAEDecode"),
    ] {
        let server = drawing().with_workflow(&wrong, "9").await;
        let reply = server.post(PATH, asking(json!({}))).await;
        let text = reply.text();
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{text}");
        assert!(!text.contains("flux") && !text.contains("kite"), "{text}");
        assert_eq!(spent(&server).await, 0);
        server.stop().await;
    }
    let server = drawing().with_second_sim().await;
    let fails = WorkflowScript { fails: Some("torch.OutOfMemoryError".to_owned()), ..WorkflowScript::default() };
    server.sim.workflows().script(fails.clone());
    for _ in 0..3 {
        let answer = server.post(PATH, asking(json!({}))).await.ok();
        assert_eq!(pictures(&server, &answer).await, 1);
    }
    server.other_sim.as_ref().unwrap().workflows().script(fails);
    assert_eq!(server.post(PATH, asking(json!({}))).await.status, StatusCode::BAD_GATEWAY);
    server.stop().await;
    // One that is started again has it nowhere.
    let server = drawing().await;
    server.sim.workflows().script(taking(LONG));
    let restarts = async {
        server.sim.workflows().until_orders(1).await;
        server.sim.workflows().restart();
    };
    let (reply, ()) = tokio::join!(server.post(PATH, asking(json!({}))).into_future(), restarts);
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
    server.ledger_check().await;
    server.stop().await;
}

both! {
    async fn a_film_by_a_workflow(backend) {
        let gifs = FILM_WORKFLOW.replace("SaveVideo", "VHS_VideoCombine");
        for graph in [FILM_WORKFLOW, &gifs] {
            let server = filming().on(backend).with_workflow(graph, "58").await;
            let id = begun(&server).await;
            let job = ended(&server, &id).await;
            let told = ["status", "delivered_seconds", "cost_cents", "error"].map(|name| job[name].clone());
            assert_eq!(told, [json!("completed"), json!(4.0), json!(20), Value::Null], "{job}");
            assert_eq!(server.get(&format!("/v1/video/{id}/content")).await.body, FILM);
            assert_eq!(spent(&server).await, PRICE);
            for (node, input, value) in [
                ("6", "text", json!("a kite")),
                ("55", "width", json!(480)),
                ("55", "height", json!(848)),
                ("55", "length", json!(97)),
                ("57", "fps", json!(24)),
            ] {
                assert_eq!(sent(&server, 0, node, input), value, "{node}.{input}");
            }
            server.ledger_check().await;
            server.stop().await;
        }
    }

    async fn a_film_by_stable_diffusion_cpp(backend) {
        let server = TestServer::start().on(backend).with_worker().with_kind(Kind::SDCPP).await;
        let script = FilmScript { format: FilmFormat::Sdcpp, ..FilmScript::default() };
        server.sim.script_films(script.clone());
        let id = begun(&server).await;
        let job = ended(&server, &id).await;
        assert_eq!((&job["status"], &job["delivered_seconds"]), (&json!("completed"), &json!(4.042)), "{job}");
        let film = server.get(&format!("/v1/video/{id}/content")).await;
        assert_eq!((film.header("content-type"), &film.body[..]), ("video/webm", SDCPP_FILM));
        assert!(film.header("content-disposition").contains(&format!("{id}.webm")));
        let described = server.get("/openapi.json").await.ok();
        let content = &described["paths"]["/v1/video/{id}/content"]["get"]["responses"]["200"]["content"];
        assert!(content["video/webm"].is_object() && content["video/mp4"].is_object(), "{content}");
        assert_eq!(spent(&server).await, PRICE / 4_000 * 4_042);
        let body: Value = serde_json::from_slice(&server.sim.films()[0].body).unwrap();
        assert_eq!(body, json!({ "prompt": "a kite", "width": 480, "height": 848, "video_frames": 97, "fps": 24 }));
        server.sim.until_films_deleted(1).await;
        // It fails, and says nothing that is the request's fault.
        server.sim.script_films(FilmScript { fails: Some((500, "generate_video returned no results".to_owned())), ..script.clone() });
        let job = ended(&server, &begun(&server).await).await;
        assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("upstream_error")), "{job}");
        // It is told that nobody waits any more, and what it forgot is begun again.
        server.sim.script_films(FilmScript { takes: LONG, ..script.clone() });
        let id = begun(&server).await;
        until(&server, &id, |job| job["status"] == "in_progress").await;
        server.call(Method::DELETE, &format!("/v1/video/{id}")).await.ok();
        server.sim.until_films_deleted(2).await;
        let id = begun(&server).await;
        server.sim.until_films(4).await;
        server.sim.script_films(script);
        server.sim.forget_films();
        assert_eq!(ended(&server, &id).await["status"], "completed");
        assert_eq!(server.sim.films().len(), 5);
        // A file of the server's is named in no prompt.
        let named = json!({ "model": "film-model", "prompt": "a <lora:kite:1>" });
        let id = server.post("/v1/video/generate", named).await.ok()["id"].as_str().unwrap().to_owned();
        let job = ended(&server, &id).await;
        assert!(job["status"] == "failed" && job["error"]["message"].as_str().unwrap().contains("<lora:"), "{job}");
        server.ledger_check().await;
        server.stop().await;
    }

    async fn a_film_by_a_workflow_is_lost_left_and_failed(backend) {
        let server = filming().on(backend).await;
        server.sim.workflows().script(taking(LONG));
        // Started again, it knows of nothing: the film is begun anew.
        let id = begun(&server).await;
        server.sim.workflows().until_orders(1).await;
        server.sim.workflows().script(WorkflowScript::default());
        server.sim.workflows().restart();
        let job = ended(&server, &id).await;
        assert_eq!((&job["status"], server.sim.workflows().orders().len()), (&json!("completed"), 2), "{job}");
        assert_eq!(spent(&server).await, PRICE);
        // Of two, the one that waits is taken out of the queue.
        server.sim.workflows().script(taking(LONG));
        let runs = begun(&server).await;
        server.sim.workflows().until_orders(3).await;
        let waits = begun(&server).await;
        server.sim.workflows().until_orders(4).await;
        for (id, interruptions) in [(&waits, 0), (&runs, 1)] {
            until(&server, id, |job| job["status"] == "in_progress").await;
            server.call(Method::DELETE, &format!("/v1/video/{id}")).await.ok();
            server.sim.workflows().until_stopped(1 + interruptions).await;
            assert_eq!(server.sim.workflows().interruptions(), interruptions as u64);
        }
        let fails = WorkflowScript { fails: Some("RuntimeError".to_owned()), ..WorkflowScript::default() };
        server.sim.workflows().script(fails);
        let job = ended(&server, &begun(&server).await).await;
        assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("upstream_error")), "{job}");
        assert_eq!(spent(&server).await, PRICE);
        server.ledger_check().await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_prompt_names_no_file_of_stable_diffusion_cpp() {
    let server = TestServer::start().with_kind(Kind::SDCPP).await;
    let named = asking(json!({ "prompt": "a kite <LoRA:style:0.8>" }));
    let error = server.post(PATH, named.clone()).await.error(StatusCode::BAD_REQUEST, "invalid_request");
    assert_eq!((&error["param"], server.sim.calls()), (&json!("prompt"), 0));
    let server = drawing().await;
    server.post(PATH, named).await.ok();
    assert_eq!(sent(&server, 0, "6", "text"), "a kite <LoRA:style:0.8>");
    server.stop().await;
}
