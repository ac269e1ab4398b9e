//! Holds: a server that dies in the middle of a scene, and what must hold once it has started again.

use std::time::Duration;

use batchin_testkit::{
    Backend,
    sim::{FilmFormat, FilmScript},
};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

use super::Scene;
use crate::harness::{
    ANSWER, Account, Bucket, Node, PATIENCE, Settings, TOKEN, World, charged_once, chat, streamed, until, whole,
};

/// What the account is given. One request can hold all of it, so that one request shows that nothing is stuck.
const CENTS: u32 = 600;
/// Tokens of a stream that goes on for longer than the gateway waits before it flushes usage.
const LONG: i64 = 56;

/// Nano-dollars of the simulated server's film of four seconds, at the price below.
const FILM: i64 = 4_000_000;
/// Dollars of a second of film.
const FILM_SECOND: &str = "0.001";
/// Dollars of a picture: as much as of an answer.
const PICTURE: &str = "0.001";
/// Longer than any test.
const HOUR: Duration = Duration::from_secs(3_600);

/// One server, which dies again and again, on one database.
pub struct Stage {
    world: World,
    /// Where its blobs are, unless in a folder.
    _bucket: Option<Bucket>,
    node: Node,
    account: Account,
    /// The ids of answers that came whole.
    acknowledged: Vec<String>,
    /// What the model servers may have produced beyond ten tokens a call, in nano-dollars.
    beyond: i64,
    /// Rows of usage, batches and charged films at the last look.
    known: (usize, usize, usize),
    scenes: usize,
}

/// What is to be looked at after the server has started again.
enum After {
    Nothing,
    /// A stream's usage was flushed, and it never ended.
    Flushed,
    /// The same request again gives one answer, for one charge.
    Once(String),
    /// The same request again is refused for the same reason.
    RefusedOnce(String),
    /// The same batch again is the same one.
    BatchOnce(String),
    /// A batch of this account ends.
    PoorBatch(Account),
    /// Every film comes to this, and the last of them was asked of servers so many times at most.
    Films {
        status: &'static str,
        asked: usize,
    },
}

fn tasks(models: &[&str]) -> Vec<Value> {
    let task = |(index, model): (usize, &&str)| json!({"custom_id": format!("task-{index}"), "model": model, "request_body": chat(model, 10)});
    models.iter().enumerate().map(task).collect()
}

/// Of ten characters, which cost what ten tokens do.
/// A call that makes a sound, or a picture.
fn asked(scene: Scene) -> (&'static str, Value) {
    match scene {
        Scene::Speech | Scene::SpeechBatch => {
            ("/v1/audio/speech", json!({"model": "voice", "input": "Ten of it.", "response_format": "wav"}))
        }
        _ => ("/v1/images/generations", json!({"model": "picture", "prompt": "A kite."})),
    }
}

fn batch(models: &[&str]) -> Value {
    json!({"priority": "high", "tasks": tasks(models)})
}

impl Stage {
    pub async fn new(backend: Backend, bucket: Option<Bucket>) -> Self {
        let settings = Settings { lease_seconds: 1, slots: 2, max_attempts: 2, hosted: Some(1), ..Settings::default() }
            .model("brief", "sim:tokens=10,first_ms=5")
            .model("flowing", "sim:tokens=10,gap_ms=2")
            .model("dripping", "sim:tokens=10,gap_ms=100")
            .model("long", &format!("sim:tokens={LONG},gap_ms=100"))
            .model("late", "sim:tokens=10,first_ms=4000")
            .model("task", "sim:tokens=10,first_ms=30")
            .model("slow", "sim:tokens=10,first_ms=300")
            .model_on(1, "broken", "sim:status=500")
            .speaking_model_on(1, "voice", "sim:gap_ms=2")
            .model_on(1, "hosted", "sim:tokens=10,first_ms=300")
            .picture_model_on(1, "picture", PICTURE)
            .film_model_on(1, "film", FILM_SECOND);
        let mut world = World::with_sims(backend, 2, settings).await;
        if let Some(bucket) = &bucket {
            world = world.with_bucket(bucket);
        }
        let account = world.account(CENTS).await;
        let budget = world.key(&account.email, &["--rpm", "10000000", "--budget-cents", "100000"]).await;
        let account = account.with_key(&budget);
        let node = world.new_node();
        Self { world, _bucket: bucket, node, account, acknowledged: Vec::new(), beyond: 0, known: (0, 0, 0), scenes: 0 }
    }

    /// Plays the scene to its death, starts the server again and looks whether anything was lost or doubled.
    pub async fn die_at(&mut self, point: &str, hit: u32, scene: Scene) {
        self.scenes += 1;
        let lived = self.node.start_to_die(point, hit).await;
        assert_eq!(lived, scene != Scene::Start, "{point} in {scene:?}");
        let after = self.play(scene, point).await;
        self.world.ledger().await;
        self.node.start_again().await;
        self.look_after(after).await;
        self.look().await;
        self.node.kill().await;
    }

    async fn play(&mut self, scene: Scene, point: &str) -> After {
        let (account, at) = (self.account.clone(), self.node.address.clone());
        let key = format!("scene-{}", self.scenes);
        let mut after = After::Nothing;
        match scene {
            Scene::Start => {}
            Scene::Whole | Scene::Quiet => self.acknowledged.extend(whole(&account, &at).await),
            Scene::Stream => self.acknowledged.extend(streamed(&account, &at).await),
            Scene::LongStream => {
                self.beyond += (LONG - 10) * TOKEN;
                let events = account.stream(&at, chat("long", LONG)).await;
                assert!(events.all().await.is_err(), "it died before the end");
                after = After::Flushed;
            }
            Scene::LeftWhole => {
                // Charged or not, and once at most.
                self.beyond += ANSWER;
                let calls = self.world.sims[1].calls();
                let body = chat("hosted", 10);
                tokio::select! {
                    _ = account.try_chat(&at, &body) => panic!("it was not left"),
                    called = timeout(PATIENCE, self.world.sims[1].until_calls(calls + 1)) => called.expect("it is called"),
                }
            }
            Scene::Speech | Scene::Picture => self.make(scene).await,
            Scene::SpeechBatch | Scene::PictureBatch => self.make_in_batch(scene).await,
            Scene::LeftStream => {
                let mut events = account.stream(&at, chat("dripping", 10)).await;
                for _ in 0..3 {
                    events.next().await.unwrap().expect("the stream goes on");
                }
            }
            Scene::Once => {
                account.try_chat_once(&at, &chat("brief", 10), &key).await.expect_err("it died before it answered");
                after = After::Once(key);
            }
            Scene::RefusedOnce => {
                // The answer need not wait for what happens to the key.
                let _ = account.try_chat_once(&at, &chat("broken", 10), &key).await;
                after = After::RefusedOnce(key);
            }
            Scene::Batch | Scene::BucketBatch => drop(account.try_post(&at, "/v1/batches", &batch(&["task"; 4])).await),
            Scene::FileBatch => self.file_batch().await,
            Scene::BatchOnce => {
                drop(account.try_post_once(&at, "/v1/batches", &batch(&["task"; 2]), &key).await);
                after = After::BatchOnce(key);
            }
            Scene::FailingTask => drop(account.try_post(&at, "/v1/batches", &batch(&["task", "broken"])).await),
            Scene::PoorBatch => after = self.poor_batch(point).await,
            Scene::Stop => {
                self.acknowledged.extend(whole(&account, &at).await);
                let calls = self.world.sim().calls();
                account.submit(&at, "high", &tasks(&["slow"; 5])).await;
                timeout(PATIENCE, self.world.sim().until_calls(calls + 1)).await.expect("tasks run");
                self.node.stop();
            }
            Scene::Film
            | Scene::LostFilm
            | Scene::FailingFilm
            | Scene::CancelledFilm
            | Scene::RemovedFilm
            | Scene::StoppedFilm => after = self.film(scene).await,
            Scene::AskOther | Scene::GiveOther | Scene::DeadOther => self.beside_another(scene, point).await,
            Scene::Stalled => self.stall(point).await,
            Scene::Checkout
            | Scene::Payment
            | Scene::Refund
            | Scene::Automatic
            | Scene::Deposit
            | Scene::Orphan
            | Scene::Record => unreachable!("they are played on stages of their own"),
        }
        self.node.died_at(point).await;
        if let (After::PoorBatch(poor), "batch.blocked") = (&after, point) {
            self.world.grant(&poor.email, 1).await;
        }
        after
    }

    async fn make(&mut self, scene: Scene) {
        self.beyond += ANSWER;
        let (url, body) = asked(scene);
        let made = self.account.try_post(&self.node.address, url, &body).await;
        assert!(made.is_err(), "it died before the end: {made:?}");
    }

    async fn make_in_batch(&mut self, scene: Scene) {
        self.beyond += 4 * ANSWER;
        let (url, body) = asked(scene);
        let task = |index: usize| json!({"custom_id": format!("task-{index}"), "model": body["model"], "url": url, "request_body": body});
        let body = json!({"priority": "high", "tasks": (0..4).map(task).collect::<Vec<_>>()});
        drop(self.account.try_post(&self.node.address, "/v1/batches", &body).await);
    }

    async fn file_batch(&self) {
        let at = &self.node.address;
        let lines = |index: usize| {
            let body = chat("task", 10);
            let line = json!({"custom_id": format!("task-{index}"), "method": "POST",
                "url": "/v1/chat/completions", "body": body});
            format!("{line}\n")
        };
        let file = self.account.upload(at, (0..4).map(lines).collect()).await;
        let order = json!({"input_file_id": file, "completion_window": "24h", "priority": "high"});
        drop(self.account.try_post(at, "/openai/v1/batches", &order).await);
    }

    /// A batch that waits for money, and gets it unless the server is to die before that.
    async fn poor_batch(&self, point: &str) -> After {
        let (poor, at) = (self.world.beggar().await, &self.node.address);
        if point == "batch.blocked" {
            drop(poor.try_post(at, "/v1/batches", &batch(&["task"; 2])).await);
        } else {
            let id = poor.submit(at, "high", &tasks(&["task"; 2])).await;
            until("the batch waits for money", async || {
                (!poor.batch(at, &id).await["blocked"].is_null()).then_some(())
            })
            .await;
            self.world.grant(&poor.email, 1).await;
        }
        After::PoorBatch(poor)
    }

    /// A film, and what happens to it. The world's second server makes it, or does not.
    async fn film(&mut self, scene: Scene) -> After {
        let (account, at) = (self.account.clone(), self.node.address.clone());
        let sim = &self.world.sims[1];
        let before = sim.films().len();
        let plain = FilmScript { format: FilmFormat::OpenAi, ..FilmScript::default() };
        let lasting = FilmScript { takes: HOUR, ..plain.clone() };
        let script = match scene {
            Scene::Film | Scene::RemovedFilm => plain.clone(),
            Scene::FailingFilm => FilmScript { fails: Some((500, "out of memory".to_owned())), ..plain.clone() },
            _ => lasting,
        };
        sim.script_films(script);
        let wish = json!({"model": "film", "prompt": "a kite"});
        let begun = account.try_post(&at, "/v1/video/generate", &wish).await;
        let films = u64::try_from(before).unwrap() + 1;
        let mut after = After::Films { status: "completed", asked: before + 2 };
        match scene {
            // Its charge is not known to be refused: the film is made whatever happens.
            Scene::Film => self.beyond += FILM,
            Scene::LostFilm => {
                self.beyond += FILM;
                timeout(PATIENCE, sim.until_films(films)).await.expect("it is asked for");
                sim.script_films(plain);
                sim.forget_films();
                after = After::Films { status: "completed", asked: before + 3 };
            }
            Scene::FailingFilm => after = After::Films { status: "failed", asked: before + 1 },
            Scene::CancelledFilm | Scene::RemovedFilm => {
                let id = begun.expect("it lives").json()["id"].as_str().unwrap().to_owned();
                let path = format!("/v1/video/{id}");
                let (wanted, status) = match scene {
                    Scene::CancelledFilm => ("in_progress", "cancelled"),
                    _ => ("completed", ""),
                };
                until("the film goes on", async || {
                    (account.get(&at, &path).await.json()["status"] == wanted).then_some(())
                })
                .await;
                account.delete(&at, &path).await;
                if scene == Scene::RemovedFilm {
                    self.beyond += FILM;
                }
                after = After::Films { status, asked: before + 1 };
            }
            _ => {
                self.beyond += FILM;
                timeout(PATIENCE, sim.until_films(films)).await.expect("it is asked for");
                // A node that had no time to note where it is made asks again.
                sim.script_films(plain);
                self.node.stop();
                self.node.wait_for_death().await;
                self.world.sims[1].finish_films();
                after = After::Films { status: "completed", asked: before + 2 };
            }
        }
        after
    }

    /// Two servers want the same money, or one is dead.
    async fn beside_another(&mut self, scene: Scene, point: &str) {
        let (account, at) = (self.account.clone(), self.node.address.clone());
        let mut other = self.world.node().await;
        let first = if scene == Scene::GiveOther { &at } else { &other.address };
        self.acknowledged.extend(whole(&account, first).await);
        let all = account.balance(first).await / TOKEN;
        match scene {
            Scene::AskOther => drop(account.try_chat(&at, &chat("fixed", all)).await),
            Scene::GiveOther => {
                let (asking, there) = (account.clone(), other.address.clone());
                let asked = JoinSet::from_iter([async move { asking.chat(&there, &chat("fixed", all)).await }]);
                self.node.wait_for_death().await;
                // What the dead server had is only missed until it is back.
                let reply = asked.join_all().await.remove(0);
                assert!(matches!(reply.status, 200 | 402), "{point}: {reply:?}");
            }
            _ => {
                other.kill().await;
                self.node.wait_for_death().await;
                return;
            }
        }
        assert!(other.terminate().await.success());
    }

    /// The server stands still until another one has taken its leases back.
    async fn stall(&mut self, point: &str) {
        let (account, at) = (self.account.clone(), self.node.address.clone());
        let mut other = self.world.node().await;
        let calls = self.world.sim().calls();
        let asking = account.clone();
        let asked = JoinSet::from_iter([async move { asking.try_chat(&at, &chat("late", 10)).await }]);
        timeout(PATIENCE, self.world.sim().until_calls(calls + 1)).await.expect("the request runs");
        self.node.freeze();
        self.world.settled().await;
        self.node.thaw();
        self.node.wait_for_death().await;
        // Late usage is booked beside the refusal.
        if let Ok(reply) = asked.join_all().await.remove(0) {
            assert_eq!(reply.status, 503, "{point}: {reply:?}");
        }
        assert!(other.terminate().await.success());
    }

    async fn look_after(&self, after: After) {
        let (account, at) = (&self.account, &self.node.address);
        match after {
            After::Nothing => {}
            After::Flushed => {
                let rows = account.usage(at).await;
                assert!(rows.iter().any(|row| row["status"] == "running"), "{rows:?}");
                let mut running = rows.iter().filter(|row| row["status"] == "running");
                assert!(running.all(|row| row["estimated"] == true), "{rows:?}");
            }
            After::Once(key) => {
                let body = chat("brief", 10);
                let again = account.chat_once(at, &body, &key).await;
                assert_eq!(again.status, 200, "{again:?}");
                let third = account.chat_once(at, &body, &key).await;
                assert_eq!((third.header("idempotent-replayed"), &third.body), (Some("true"), &again.body));
                assert_eq!(account.usage(at).await.len(), self.known.0 + 1, "it was charged once");
            }
            After::RefusedOnce(key) => {
                let again = account.chat_once(at, &chat("broken", 10), &key).await;
                assert_eq!(again.code(), "upstream_error", "{again:?}");
                assert_eq!(account.usage(at).await.len(), self.known.0);
            }
            After::BatchOnce(key) => {
                let body = batch(&["task"; 2]);
                let again = account.try_post_once(at, "/v1/batches", &body, &key).await.unwrap();
                assert_eq!(again.status, 200, "{again:?}");
                let third = account.try_post_once(at, "/v1/batches", &body, &key).await.unwrap();
                assert_eq!((third.header("idempotent-replayed"), &third.body), (Some("true"), &again.body));
                assert_eq!(account.batches(at).await.len(), self.known.1 + 1, "it is one batch");
            }
            After::Films { status, asked } => {
                let over = async || {
                    let films: Vec<Value> = serde_json::from_slice(&account.get(at, "/v1/video").await.body).unwrap();
                    let is_over = |film: &Value| !film["completed_at"].is_null() || film["expires_at"].is_string();
                    films.iter().all(is_over).then_some(films)
                };
                let films = until("every film is over", over).await;
                let last = films.first().map_or("", |film| film["status"].as_str().unwrap());
                assert!(status.is_empty() || last == status, "{films:?}");
                assert!(self.world.sims[1].films().len() <= asked, "it is asked for again only where it may be lost");
                let rows = account.usage(at).await;
                let charged = rows.iter().filter(|row| row["endpoint"] == "/v1/video/generate").count();
                assert_eq!(
                    charged,
                    self.known.2 + usize::from(matches!(status, "completed" | "")),
                    "one film, one charge"
                );
                if status == "completed" {
                    let id = films[0]["id"].as_str().unwrap();
                    let film = account.get(at, &format!("/v1/video/{id}/content")).await;
                    assert_eq!((film.status, &film.body[..]), (200, batchin_testkit::sim::FILM));
                }
            }
            After::PoorBatch(poor) => {
                self.batches_end(&poor).await;
                // One cent is ten answers.
                assert_eq!(poor.balance(at).await, 8 * ANSWER);
            }
        }
    }

    /// Every batch of the account ends, each task with one result and at most one charge.
    async fn batches_end(&self, account: &Account) -> usize {
        let at = &self.node.address;
        let ended = async || {
            let batches = account.batches(at).await;
            batches.iter().all(|batch| !batch["finished_at"].is_null()).then_some(batches)
        };
        let batches = until("every batch ends", ended).await;
        let rows = account.usage(at).await;
        for batch in &batches {
            let id = batch["id"].as_str().unwrap();
            let charged = rows.iter().filter(|row| row["batch_id"] == id).count();
            assert_eq!(Some(charged as u64), batch["completed_tasks"].as_u64(), "each task is charged once: {batch}");
            assert_eq!(batch["status"], "completed", "{batch}");
            let failed = account.results(at, id).await.iter().filter(|line| line["custom_id"] == "task-1").count();
            assert_eq!(failed, 1, "each task has one result: {batch}");
        }
        batches.len()
    }

    /// Acknowledged ≤ charged ≤ run, each charge once, every batch at its end, and every cent free to be spent.
    async fn look(&mut self) {
        let (account, at) = (&self.account, &self.node.address);
        let batches = self.batches_end(account).await;
        let run = i64::try_from(self.world.sim().calls()).unwrap() * ANSWER + self.beyond;
        charged_once(account, at, &self.acknowledged, run).await;
        let left = account.balance(at).await / TOKEN;
        let all = account.chat(at, &chat("fixed", left)).await;
        assert_eq!(all.status, 200, "something is stuck: {all:?}");
        self.acknowledged.push(all.json()["id"].as_str().unwrap().to_owned());
        let rows = account.usage(at).await;
        let films = rows.iter().filter(|row| row["endpoint"] == "/v1/video/generate").count();
        self.world.ledger().await;
        self.known = (rows.len(), batches, films);
    }
}
