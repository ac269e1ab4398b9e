//! Holds: commands against the real router, store and worker; only the model server and the network are fakes.

use batchin_testkit::TestServer;
use batchin_testkit::sim::{Answer, Behaviour};
use serde_json::json;
use tokio::task::LocalSet;

use super::wire::Wire;
use super::*;
use crate::arguments::{BatchCancel, BatchList, BatchResults, BatchWatch};

async fn local<T>(work: impl Future<Output = T>) -> T {
    LocalSet::new().run_until(work).await
}

async fn server() -> TestServer {
    TestServer::start().with_worker().await
}

fn desk(server: &TestServer, input: &str) -> Desk {
    Desk::new(&server.url("/v1/"), &server.owner.key, input)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_run_in_order_and_its_answers_are_printed() {
    let server = server().await;
    let desk = desk(&server, &prompts(30));
    let ran = desk.execute_run(desk.run()).await;
    assert_eq!((ran.outcome.unwrap(), ran.printed.as_str()), (Outcome::Done, ""));
    let expected: Vec<String> = (0..30).map(|n| format!("task-{n}")).collect();
    assert_eq!(ids(&desk.results()), expected);

    let delivery = Delivery::default();
    let ran = desk.execute_run(BatchRun { delivery, ..desk.run() }).await;
    let mut names: Vec<&str> = ran.printed.lines().map(|line| line.split_once(':').unwrap().0).collect();
    names.sort_by_key(|name| name.trim_start_matches("task-").parse::<u32>().unwrap());
    assert_eq!(ran.outcome.unwrap(), Outcome::Done);
    assert_eq!(names, expected);

    let ran = desk.execute(Batch::List(BatchList { limit: 1, after: None, offset: 0, json: true })).await;
    let listed: Vec<Value> = serde_json::from_str(&ran.printed).unwrap();
    assert_eq!((listed.len(), &listed[0]["completed_tasks"]), (1, &json!(30)));
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    let ran = desk.execute(Batch::List(BatchList { limit: 5, after: None, offset: 0, json: false })).await;
    assert!(ran.printed.contains(&format!("{id}  completed    high")), "{}", ran.printed);

    let delivery = Delivery { json: true, ordered: true, ..Delivery::default() };
    let results = BatchResults { id, after: None, delivery: delivery.clone() };
    let ran = desk.execute(Batch::Results(results.clone())).await;
    assert_eq!(ids(&lines(&ran.printed)), expected);
    let cursor = |line: &Value| line["seq"].as_u64().or(line["index"].as_u64()).unwrap();
    let mut places: Vec<u64> = lines(&ran.printed).iter().map(cursor).collect();
    places.sort_unstable();
    let ran = desk.execute(Batch::Results(BatchResults { after: Some(places[24]), ..results })).await;
    assert_eq!(lines(&ran.printed).len(), 5, "what came after the cursor");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_comes_in_between_two_pages_shows_none_twice() {
    let server = TestServer::start().await;
    let desk = desk(&server, "");
    let submitted = async || {
        let task = json!({"custom_id": "a", "model": "chat-model", "request_body": {"prompt": "x"}});
        let made = server.post("/v1/batches", json!({ "tasks": [task] })).await.ok();
        made["id"].as_str().unwrap().to_owned()
    };
    let page = async |after: Option<&str>| {
        let after = after.map(|id| id.parse().unwrap());
        let ran = desk.execute(Batch::List(BatchList { limit: 2, after, offset: 0, json: true })).await;
        let listed: Vec<Value> = serde_json::from_str(&ran.printed).unwrap();
        listed.iter().map(|batch| batch["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let [first, second, third] = [submitted().await, submitted().await, submitted().await];
    assert_eq!(page(None).await, [third.as_str(), second.as_str()]);
    let shown = desk.execute(Batch::List(BatchList { limit: 2, after: None, offset: 0, json: false })).await;
    assert!(shown.printed.ends_with(&format!("\nfor older ones: --after {second}\n")), "{}", shown.printed);
    submitted().await;
    assert_eq!(page(Some(&second)).await, [first.as_str()]);
    assert_eq!(page(Some(&first)).await, Vec::<String>::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_a_template_is_run() {
    let server = server().await;
    let desk = desk(&server, "");
    let file = desk.path("in.csv");
    std::fs::write(&file, "id,text\na,\"one\ntwo\"\nb,three\n").unwrap();
    let template = Some("Translate: {{text}}".to_owned());
    let run = BatchRun { file: file.clone(), template, id_column: Some("id".to_owned()), ..desk.run() };
    assert_eq!(desk.execute_run(run.clone()).await.outcome.unwrap(), Outcome::Done);
    assert_eq!(ids(&desk.results()), ["a", "b"]);
    let sent: Vec<String> = server.sim.requests().iter().map(|request| format!("{request:?}")).collect();
    assert!(sent.iter().any(|request| request.contains("Translate: three")), "{sent:?}");
    let error = desk.execute_run(BatchRun { template: None, ..run }).await.outcome.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Misused);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stray_quote_and_an_output_that_cannot_be_written_submit_nothing() {
    let server = server().await;
    let desk = desk(&server, &prompts(3));
    let rows: String =
        (1..=10).map(|n| if n == 3 { "3,\"text 3\n".to_owned() } else { format!("{n},text {n}\n") }).collect();
    std::fs::write(desk.path("in.csv"), format!("id,text\n{rows}")).unwrap();
    let table = BatchRun { file: desk.path("in.csv"), template: Some("{{text}}".to_owned()), ..desk.run() };
    let error = desk.execute_run(table).await.outcome.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Misused);
    assert!(error.to_string().contains("in.csv:4: the quote that opens on line 4 is never closed"), "{error}");
    assert!(!desk.path("out.jsonl.part").exists());

    let to = |out: &str| {
        let delivery = Delivery { out: Some(desk.path(out)), ..Delivery::default() };
        BatchRun { delivery, ..desk.run() }
    };
    std::fs::write(desk.path("there.jsonl"), "mine").unwrap();
    for (out, why) in [("none/out.jsonl", "No such file"), ("there.jsonl", "--force replaces it"), (".", "directory")] {
        let error = desk.execute_run(to(out)).await.outcome.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Misused);
        let said = format!("{:#}", anyhow::Error::from(error));
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(std::fs::read_to_string(desk.path("there.jsonl")).unwrap(), "mine");
    let ran = desk.execute(Batch::List(BatchList { limit: 50, after: None, offset: 0, json: true })).await;
    assert_eq!((ran.printed.as_str(), server.sim.calls()), ("[]\n", 0));

    let mut run = to("there.jsonl");
    run.delivery.force = true;
    assert_eq!(desk.execute_run(run).await.outcome.unwrap(), Outcome::Done);
    assert_eq!(lines(&std::fs::read_to_string(desk.path("there.jsonl")).unwrap()).len(), 3);
    let missing = BatchRun { file: desk.path("none.jsonl"), ..desk.run() };
    assert_eq!(desk.execute_run(missing).await.outcome.unwrap_err().outcome(), Outcome::Misused);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_have_their_lines_whoever_finds_them_and_nothing_is_sent() {
    let server = server().await;
    let desk = desk(&server, "{\"prompt\":\"x\"}\n\n{\n");
    let error = desk.execute_run(desk.run()).await.outcome.unwrap_err();
    assert_eq!(error.outcome(), Outcome::Misused);
    assert!(error.to_string().contains("in.jsonl:3: is not valid JSON"), "{error}");

    let text = "\n{\"prompt\":\"x\"}\n\n{\"model\":\"nobody; has it\",\"prompt\":\"x\"}\n{\"model\":\"embed-model\",\"prompt\":\"x\"}\n";
    std::fs::write(desk.path("in.jsonl"), text).unwrap();
    let error = desk.execute_run(desk.run()).await.outcome.unwrap_err();
    let said = error.to_string();
    assert!(said.contains("in.jsonl:4: model: no model `nobody; has it`"), "{said}");
    assert!(said.contains("in.jsonl:5: model: the model `embed-model`"), "{said}");
    let ran = desk.execute(Batch::List(BatchList { limit: 50, after: None, offset: 0, json: true })).await;
    assert_eq!(ran.printed, "[]\n");

    let nobody = Desk { environment: Environment::default(), ..desk };
    assert!(matches!(nobody.execute_run(nobody.run()).await.outcome, Err(BatchError::NoKey)));
    let wrong = Desk::new(&server.url(""), "batchin_api_wrong", &prompts(1));
    let error = wrong.execute_run(wrong.run()).await.outcome.unwrap_err();
    assert!(error.outcome() == Outcome::Failed && error.to_string().contains("401"), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_is_asked_for_again_and_makes_nothing_twice() {
    local(async {
        let server = server().await;
        let wire = Wire::to(&server.url("")).await;
        let desk = Desk::new(&wire.base, &server.owner.key, &prompts(5));
        // The call that looks whether somebody is there is answered; the next ones make the batch.
        wire.lose(1, 2);
        assert_eq!(desk.execute_run(desk.run()).await.outcome.unwrap(), Outcome::Done);
        assert!(wire.connections() >= 3);
        assert_eq!(ids(&desk.results()).len(), 5);
        let ran = desk.execute(Batch::List(BatchList { limit: 50, after: None, offset: 0, json: true })).await;
        assert_eq!(serde_json::from_str::<Vec<Value>>(&ran.printed).unwrap().len(), 1);
        assert_eq!(server.sim.calls(), 5);
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_breaks_in_the_middle_is_made_again_and_every_line_comes_once() {
    local(async {
        let server = server().await;
        let slow = Answer { first_byte: std::time::Duration::from_millis(20), ..Answer::of(3) };
        server.sim.script_all(Behaviour::Answer(slow));
        let wire = Wire::to(&server.url("")).await;
        let desk = Desk::new(&wire.base, &server.owner.key, &prompts(60));
        let cuts = async {
            for calls in [8, 25, 40] {
                server.sim.until_calls(calls).await;
                wire.cut();
                // Work goes on while nobody watches.
                server.sim.until_calls(calls + 8).await;
                wire.mend();
            }
        };
        let delivery = Delivery { ordered: false, ..desk.run().delivery };
        let (ran, ()) = tokio::join!(desk.execute_run(BatchRun { delivery, ..desk.run() }), cuts);
        assert_eq!(ran.outcome.unwrap(), Outcome::Done);
        let mut names = ids(&desk.results());
        names.sort();
        let mut expected: Vec<String> = (0..60).map(|n| format!("task-{n}")).collect();
        expected.sort();
        assert_eq!(names, expected);
        server.stop().await;
    })
    .await;
}

/// A batch that does not end by itself, and a person who presses Ctrl-C when it runs.
async fn interrupted(answers: &[&str], presses: usize) -> (Ran, String, usize) {
    let server = server().await;
    server.sim.script_all(Behaviour::Hang);
    let desk = desk(&server, &prompts(3));
    let (press, interrupts, asked) = person(answers);
    let pressing = async {
        server.sim.until_calls(1).await;
        for _ in 0..presses {
            press.send(()).await.unwrap();
        }
    };
    let run = Batch::Run(Box::new(desk.run()));
    let (ran, ()) = tokio::join!(desk.execute_with(run, interrupts), pressing);
    let listed = desk.execute(Batch::List(BatchList { limit: 1, after: None, offset: 0, json: true })).await;
    let listed: Vec<Value> = serde_json::from_str(&listed.printed).unwrap();
    let (id, status) = (listed[0]["id"].as_str().unwrap(), listed[0]["status"].as_str().unwrap().to_owned());
    let cancel = BatchCancel { id: id.to_owned(), json: false };
    let cancelled = desk.execute(Batch::Cancel(cancel)).await;
    assert_eq!(cancelled.outcome.unwrap(), Outcome::Done);
    assert!(cancelled.printed.starts_with(&format!("{id}: cancelled")), "{}", cancelled.printed);
    let watch = BatchWatch { id: id.to_owned(), delivery: Delivery { json: true, ..Delivery::default() } };
    assert_eq!(desk.execute(Batch::Watch(watch)).await.outcome.unwrap(), Outcome::Failed);
    server.stop().await;
    let asked = *asked.lock().unwrap();
    (ran, status, asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_asks_and_yes_cancels() {
    let (ran, status, asked) = interrupted(&["n\n", "y\n"], 2).await;
    assert_eq!((ran.outcome.unwrap(), status.as_str(), asked), (Outcome::Failed, "cancelled", 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detaching_leaves_the_batch_running() {
    let (ran, status, asked) = interrupted(&["d\n"], 1).await;
    assert_eq!((ran.outcome.unwrap(), status.as_str(), asked), (Outcome::Failed, "in_progress", 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_interrupt_detaches() {
    let (ran, status, asked) = interrupted(&[], 2).await;
    assert_eq!((ran.outcome.unwrap(), status.as_str(), asked), (Outcome::Failed, "in_progress", 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_batch_is_refused_in_the_servers_words() {
    let server = server().await;
    let desk = desk(&server, "");
    let id = "01890a5d-ac96-774b-bcce-b302099a8057".to_owned();
    let commands = [
        Batch::Watch(BatchWatch { id: id.clone(), delivery: Delivery::default() }),
        Batch::Results(BatchResults { id: id.clone(), after: None, delivery: Delivery::default() }),
        Batch::Cancel(BatchCancel { id, json: true }),
    ];
    for command in commands {
        let error = desk.execute(command).await.outcome.unwrap_err();
        assert!(error.to_string().starts_with("the server refused with 404: "), "{error}");
    }
    server.stop().await;
}
