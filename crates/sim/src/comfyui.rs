//! Holds: a fake ComfyUI: its queue, its history and its files, in its formats. It runs no node: pictures are white, and each
//! film is the same file.
//!
//! It checks graphs as ComfyUI does before it takes them, as far as tests go, and runs one at a time. What is told of an order
//! follows from when it came; nothing runs beside.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Method, Uri};
use serde_json::{Map, Value, json};
use tokio::{sync::Notify, time::Instant};

use crate::pictures::png;

/// A workflow for pictures, with every mark that there is for them; node `9` saves them.
pub const PICTURES: &str = include_str!("comfyui/pictures.json");
/// A workflow for films; node `58` saves them.
pub const FILM_WORKFLOW: &str = include_str!("comfyui/film.json");

/// Classes of nodes that there are.
const CLASSES: [&str; 13] = [
    "CheckpointLoaderSimple",
    "CLIPLoader",
    "CLIPTextEncode",
    "CreateVideo",
    "EmptyHunyuanLatentVideo",
    "EmptyLatentImage",
    "KSampler",
    "SaveImage",
    "SaveVideo",
    "UNETLoader",
    "VAEDecode",
    "VAELoader",
    "VHS_VideoCombine",
];
/// Inputs that are whole numbers.
const NUMBERS: [&str; 8] = ["seed", "steps", "width", "height", "batch_size", "length", "fps", "frame_rate"];
/// The checkpoint that there is.
const CHECKPOINT: &str = "flux1-schnell-fp8.safetensors";
/// A folder whose name means something in a query.
const SUBFOLDER: &str = "day 1/&é";

/// What becomes of orders from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkflowScript {
    /// How long each takes.
    pub takes: Duration,
    /// It fails then in its `KSampler`, with this exception.
    pub fails: Option<String>,
    /// Orders get ids of the server's own, as those of servers of 2024.
    pub own_ids: bool,
}

/// An order as it came.
#[derive(Clone, Debug)]
pub struct WorkflowOrder {
    /// The id that it has here.
    pub id: String,
    /// The graph.
    pub graph: Value,
    /// It was taken out of the queue, or stopped.
    pub is_stopped: bool,
    came: Instant,
    script: WorkflowScript,
    deleted: bool,
    interrupted: Option<Instant>,
    forgotten: bool,
}

/// The orders of one server.
#[derive(Debug, Default)]
pub struct Workflows {
    /// std mutex: held for look-ups, never across an await.
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    script: WorkflowScript,
    orders: Vec<WorkflowOrder>,
    interruptions: u64,
}

/// What is answered: a status with JSON, or a file.
pub(crate) enum Shown {
    Json(u16, Value),
    Empty(u16),
    Picture(Vec<u8>),
    Film,
}

/// When an order runs.
#[derive(Clone, Copy, Debug)]
struct Run {
    begins: Instant,
    ends: Instant,
}

impl Workflows {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of orders that come from now on.
    pub fn script(&self, script: WorkflowScript) {
        self.lock().script = script;
    }

    /// Every order.
    pub fn orders(&self) -> Vec<WorkflowOrder> {
        self.lock().orders.clone()
    }

    /// How often whatever ran was to be stopped.
    pub fn interruptions(&self) -> u64 {
        self.lock().interruptions
    }

    /// Starts it again: nothing is in its queue or its history.
    pub fn restart(&self) {
        for order in &mut self.lock().orders {
            order.forgotten = true;
        }
    }

    /// Waits until so many orders have come.
    pub async fn until_orders(&self, count: usize) {
        self.until(|state| state.orders.len() >= count).await;
    }

    /// Waits until so many of them were stopped.
    pub async fn until_stopped(&self, count: usize) {
        self.until(|state| state.orders.iter().filter(|order| order.is_stopped).count() >= count).await;
    }

    async fn until(&self, is: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            if is(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// Answers a call; `None` where the path is none of ComfyUI's.
    pub(crate) fn answer(&self, method: &Method, at: &Uri, body: &[u8]) -> Option<Shown> {
        let said = || serde_json::from_slice::<Value>(body).unwrap_or_default();
        let (now, path) = (Instant::now(), at.path());
        let mut state = self.lock();
        let shown = match (method, path) {
            (&Method::POST, "/prompt") => state.take(said(), now),
            (&Method::GET, "/queue") => state.queue(now),
            (&Method::POST, "/queue") => state.delete(&said()["delete"], now),
            (&Method::POST, "/interrupt") => state.interrupt(said()["prompt_id"].as_str(), now),
            (&Method::POST, "/history") => state.forget(&said()["delete"]),
            (&Method::GET, "/view") => state.view(at.query().unwrap_or_default(), now),
            (&Method::GET, "/system_stats") => Shown::Json(200, json!({ "system": { "comfyui_version": "0.3" } })),
            (&Method::GET, path) => state.history(path.strip_prefix("/history/")?, now),
            _ => return None,
        };
        drop(state);
        self.changed.notify_waiters();
        Some(shown)
    }
}

impl State {
    fn take(&mut self, said: Value, now: Instant) -> Shown {
        let graph = said["prompt"].clone();
        if let Err(refused) = check(&graph) {
            return Shown::Json(400, refused);
        }
        let number = self.orders.len();
        let own = || format!("00000000-0000-4000-8000-{number:012x}");
        let asked = said["prompt_id"].as_str().filter(|_| !self.script.own_ids);
        let id = asked.map_or_else(own, str::to_owned);
        let (script, told) = (self.script.clone(), json!({ "prompt_id": id, "number": number, "node_errors": {} }));
        self.orders.push(WorkflowOrder {
            id,
            graph,
            is_stopped: false,
            came: now,
            script,
            deleted: false,
            interrupted: None,
            forgotten: false,
        });
        Shown::Json(200, told)
    }

    /// When each order runs; `None` of one that never does.
    fn runs(&self) -> Vec<Option<Run>> {
        let mut free: Option<Instant> = None;
        let run = |order: &WorkflowOrder| {
            if order.deleted || order.forgotten {
                return None;
            }
            let begins = free.map_or(order.came, |free| free.max(order.came));
            let ends = order.interrupted.unwrap_or(begins + order.script.takes);
            free = Some(ends);
            Some(Run { begins, ends })
        };
        self.orders.iter().map(run).collect()
    }

    fn queue(&self, now: Instant) -> Shown {
        let (mut running, mut waiting) = (Vec::new(), Vec::new());
        for (number, (order, run)) in self.orders.iter().zip(self.runs()).enumerate() {
            let entry = json!([number, order.id, order.graph, { "client_id": order.id }, ["9"]]);
            match run {
                Some(run) if run.begins <= now && now < run.ends => running.push(entry),
                Some(run) if now < run.begins => waiting.push(entry),
                Some(_) | None => {}
            }
        }
        Shown::Json(200, json!({ "queue_running": running, "queue_pending": waiting }))
    }

    fn delete(&mut self, ids: &Value, now: Instant) -> Shown {
        let runs = self.runs();
        for (order, run) in self.orders.iter_mut().zip(runs) {
            let is_named = ids.as_array().is_some_and(|ids| ids.iter().any(|id| *id == *order.id));
            if is_named && run.is_some_and(|run| now < run.begins) {
                (order.deleted, order.is_stopped) = (true, true);
            }
        }
        Shown::Empty(200)
    }

    fn interrupt(&mut self, id: Option<&str>, now: Instant) -> Shown {
        let runs = self.runs();
        let mut running = self.orders.iter_mut().zip(runs).filter_map(|(order, run)| Some((order, run?)));
        let found =
            running.find(|(order, run)| run.begins <= now && now < run.ends && id.is_none_or(|id| id == order.id));
        if let Some((order, _)) = found {
            (order.interrupted, order.is_stopped) = (Some(now), true);
            self.interruptions += 1;
        }
        Shown::Empty(200)
    }

    fn forget(&mut self, ids: &Value) -> Shown {
        for order in &mut self.orders {
            order.forgotten |= ids.as_array().is_some_and(|ids| ids.iter().any(|id| *id == *order.id));
        }
        Shown::Empty(200)
    }

    fn history(&self, id: &str, now: Instant) -> Shown {
        let runs = self.runs();
        let found = self.orders.iter().zip(runs).enumerate().find(|(_, (order, _))| order.id == id);
        let found = found.filter(|(_, (_, run))| run.is_some_and(|run| run.ends <= now));
        let Some((number, (order, _))) = found else {
            return Shown::Json(200, json!({}));
        };
        let message = |name: &str, more: Value| {
            let mut told = json!({ "prompt_id": id, "timestamp": 1 });
            if let (Some(told), Value::Object(more)) = (told.as_object_mut(), more) {
                told.extend(more);
            }
            json!([name, told])
        };
        let begins = message("execution_start", json!({}));
        let (outputs, messages) = match (order.interrupted, &order.script.fails) {
            (Some(_), _) => (
                json!({}),
                [
                    begins,
                    message(
                        "execution_interrupted",
                        json!({ "node_id": "3", "node_type": "KSampler", "executed": [] }),
                    ),
                ],
            ),
            (None, Some(exception)) => {
                let texts: Vec<_> = order
                    .graph
                    .as_object()
                    .into_iter()
                    .flat_map(Map::values)
                    .map(|node| &node["inputs"]["text"])
                    .collect();
                let error = json!({ "node_id": "3", "node_type": "KSampler", "executed": ["4"], "exception_message": "Allocation failed",
                    "exception_type": exception, "traceback": [], "current_inputs": { "text": texts }, "current_outputs": [] });
                (json!({}), [begins, message("execution_error", error)])
            }
            (None, None) => (self.outputs(number), [begins, message("execution_success", json!({}))]),
        };
        let is_good = order.interrupted.is_none() && order.script.fails.is_none();
        let status = json!({ "status_str": if is_good { "success" } else { "error" }, "completed": is_good, "messages": messages });
        let prompt = json!([number, id, order.graph, { "client_id": id }, ["9"]]);
        Shown::Json(200, json!({ id: { "prompt": prompt, "outputs": outputs, "status": status, "meta": {} } }))
    }

    /// Of an equal graph nothing is made anew: the files are those of the first.
    fn outputs(&self, number: usize) -> Value {
        let graph = self.orders.get(number).map(|order| &order.graph);
        let first = self.orders.iter().position(|order| Some(&order.graph) == graph).unwrap_or(number);
        let nodes = graph.and_then(Value::as_object).into_iter().flatten();
        let outputs = nodes.filter_map(|(node, what)| {
            let file = |name: String| json!({ "filename": name, "subfolder": SUBFOLDER, "type": "output" });
            let told = match what["class_type"].as_str()? {
                "SaveImage" => {
                    let (_, pictures) = self.latent(first)?;
                    let files: Vec<_> = (0..pictures).map(|at| file(format!("batchin_{first:05}_{at}_.png"))).collect();
                    json!({ "images": files })
                }
                "SaveVideo" => json!({ "images": [file(format!("batchin_{first:05}_.mp4"))], "animated": [true] }),
                "VHS_VideoCombine" => {
                    let mut film = file(format!("batchin_{first:05}.mp4"));
                    film["format"] = "video/h264-mp4".into();
                    film["frame_rate"] = 24.0.into();
                    film["fullpath"] = "/srv/ComfyUI/output/batchin.mp4".into();
                    json!({ "gifs": [film] })
                }
                _ => return None,
            };
            Some((node.clone(), told))
        });
        Value::Object(outputs.collect())
    }

    /// The size and the number of the pictures that an order makes.
    fn latent(&self, number: usize) -> Option<((u32, u32), u64)> {
        let nodes = self.orders.get(number)?.graph.as_object()?;
        let latent = nodes.values().find(|node| node["class_type"] == "EmptyLatentImage")?;
        let side = |name: &str| u32::try_from(latent["inputs"][name].as_u64()?).ok();
        Some(((side("width")?, side("height")?), latent["inputs"]["batch_size"].as_u64()?))
    }

    fn view(&self, query: &str, now: Instant) -> Shown {
        let asked: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let text = |name: &str| asked.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref());
        let (Some(name), Some(SUBFOLDER), Some("output")) = (text("filename"), text("subfolder"), text("type")) else {
            return Shown::Empty(404);
        };
        let rest = name.strip_prefix("batchin_").unwrap_or_default();
        let number = rest.get(..5).and_then(|digits| digits.parse::<usize>().ok());
        let run = number.and_then(|number| self.runs().get(number).copied().flatten());
        match number.filter(|_| run.is_some_and(|run| run.ends <= now)) {
            Some(_) if name.ends_with(".mp4") => Shown::Film,
            Some(number) => match self.latent(number) {
                Some((size, _)) => Shown::Picture(png(size)),
                None => Shown::Empty(404),
            },
            None => Shown::Empty(404),
        }
    }
}

/// Whether ComfyUI would take a graph; what it says otherwise.
fn check(graph: &Value) -> Result<(), Value> {
    let Some(nodes) = graph.as_object() else {
        return Err(
            json!({ "error": { "type": "no_prompt", "message": "No prompt provided", "details": "No prompt provided",
            "extra_info": {} }, "node_errors": {} }),
        );
    };
    for (id, node) in nodes {
        let class = node["class_type"].as_str().unwrap_or_default();
        if !CLASSES.contains(&class) {
            let error = json!({ "type": "missing_node_type", "message": format!("Node '{class}' not found. The custom node may not be installed."),
                "details": format!("Node ID '#{id}'"), "extra_info": { "node_id": id, "class_type": class, "node_title": class } });
            return Err(json!({ "error": error, "node_errors": {} }));
        }
    }
    let mut faults = Map::new();
    for (id, node) in nodes {
        let inputs = node["inputs"].as_object().cloned().unwrap_or_default();
        let wrong = |kind: &str, name: &str| {
            json!({ "type": kind, "message": kind, "details": format!("{name}: {}", inputs[name]),
            "extra_info": { "input_name": name, "received_value": inputs[name] } })
        };
        let mut errors = Vec::new();
        for (name, value) in &inputs {
            if NUMBERS.contains(&name.as_str()) && !value.is_u64() {
                errors.push(wrong("invalid_input_type", name));
            } else if name == "ckpt_name" && *value != CHECKPOINT {
                errors.push(wrong("value_not_in_list", name));
            } else if value
                .as_array()
                .is_some_and(|link| !link.first().and_then(Value::as_str).is_some_and(|to| nodes.contains_key(to)))
            {
                errors.push(wrong("bad_linked_input", name));
            }
        }
        if !errors.is_empty() {
            let class = &node["class_type"];
            faults.insert(id.clone(), json!({ "errors": errors, "dependent_outputs": ["9"], "class_type": class }));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    let error = json!({ "type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation", "details": "",
        "extra_info": {} });
    Err(json!({ "error": error, "node_errors": faults }))
}
