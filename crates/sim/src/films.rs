//! Holds: a fake server of films, in the formats of those that there are. It makes none: each film is the same file.
//!
//! A job takes as long as its script says; it can fail, stall, be forgotten as by a restart, and be of any length in bytes.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Four seconds of dark blue, 24 frames each, written once by ffmpeg.
pub const FILM: &[u8] = include_bytes!("films/film.mp4");
/// Frames in it.
const FRAMES: u64 = 96;
const FPS: u64 = 24;
/// As many and one more, as stable-diffusion.cpp makes them of a number that is asked for.
pub const SDCPP_FILM: &[u8] = include_bytes!("films/film.webm");
const SDCPP_FRAMES: u64 = 97;
/// What a box that nobody reads is filled with, piece by piece.
static FILLING: [u8; 65_536] = [0; 65_536];

/// In whose format it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilmFormat {
    /// OpenAI's.
    OpenAi,
    /// vLLM-Omni's.
    #[default]
    VllmOmni,
    /// SGLang Diffusion's.
    SglangDiffusion,
    /// stable-diffusion.cpp's, whose film lies in what it says.
    Sdcpp,
}

/// What becomes of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilmScript {
    /// In whose format it is told.
    pub format: FilmFormat,
    /// How long it takes.
    pub takes: Duration,
    /// It fails then, with this status and message.
    pub fails: Option<(u16, String)>,
    /// Bytes that the film has beyond [`FILM`].
    pub padding: u64,
    /// Jobs that are refused with 503 before one is taken.
    pub busy: u64,
}

impl Default for FilmScript {
    fn default() -> Self {
        Self { format: FilmFormat::default(), takes: Duration::ZERO, fails: None, padding: 0, busy: 0 }
    }
}

/// A job as it was asked for.
#[derive(Clone, Debug)]
pub struct FilmJob {
    /// What this server calls it.
    pub id: String,
    /// The body, as it came.
    pub body: Bytes,
    /// Its media type.
    pub content_type: String,
    /// Whether it was deleted.
    pub deleted: bool,
    began: Instant,
    script: FilmScript,
    /// Known no more, as after a restart.
    forgotten: bool,
}

/// The jobs of one server.
#[derive(Debug, Default)]
pub(crate) struct Films {
    /// std mutex: held for look-ups, never across an await.
    state: Mutex<State>,
    pub(crate) begun: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    script: FilmScript,
    jobs: Vec<FilmJob>,
}

/// What is answered: a status, and JSON or a film with so many bytes more.
pub(crate) enum Told {
    Json(u16, Value),
    Film(u64),
}

impl Films {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn script(&self, script: FilmScript) {
        self.lock().script = script;
    }

    pub(crate) fn forget(&self) {
        for job in &mut self.lock().jobs {
            job.forgotten = true;
        }
    }

    pub(crate) fn finish(&self) {
        for job in &mut self.lock().jobs {
            job.script.takes = Duration::ZERO;
        }
    }

    pub(crate) fn jobs(&self) -> Vec<FilmJob> {
        self.lock().jobs.clone()
    }

    /// Answers a call at `/v1/videos` or below, or below `/sdcpp/v1`.
    pub(crate) fn answer(&self, (method, path): (&Method, &str), headers: &HeaderMap, body: Bytes) -> Told {
        let is_sdcpp = self.lock().script.format == FilmFormat::Sdcpp;
        let (below, is_its_own) = match path.strip_prefix("/v1/videos") {
            Some(below) => (below, !is_sdcpp),
            None if path == "/sdcpp/v1/vid_gen" => ("", is_sdcpp),
            None => (path.strip_prefix("/sdcpp/v1/jobs").unwrap_or_default(), is_sdcpp),
        };
        if !is_its_own {
            return unknown();
        }
        match (method, below.strip_prefix('/')) {
            (&Method::POST, None) => self.begin(headers, body),
            (&Method::POST, Some(rest)) if is_sdcpp => match rest.strip_suffix("/cancel") {
                Some(id) => self.cancel(id),
                None => unknown(),
            },
            (&Method::GET, Some(id)) if is_sdcpp => self.show(id),
            (&Method::GET, Some(rest)) => match rest.strip_suffix("/content") {
                Some(id) => self.content(id),
                None => self.show(rest),
            },
            (&Method::DELETE, Some(id)) => self.delete(id),
            _ => unknown(),
        }
    }

    fn begin(&self, headers: &HeaderMap, body: Bytes) -> Told {
        let mut state = self.lock();
        if state.script.busy > 0 {
            state.script.busy -= 1;
            return Told::Json(503, json!({ "error": { "message": "too many jobs", "code": 503 } }));
        }
        let content_type =
            headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let is_form = content_type.starts_with("multipart/form-data; boundary=");
        if is_form != (state.script.format == FilmFormat::VllmOmni) {
            return Told::Json(422, json!({ "detail": [{ "loc": ["body", "prompt"], "msg": "Field required" }] }));
        }
        let begun = self.begun.fetch_add(1, Ordering::AcqRel);
        let prefix = match state.script.format {
            FilmFormat::VllmOmni => "video_gen_",
            FilmFormat::Sdcpp => "job_",
            FilmFormat::OpenAi | FilmFormat::SglangDiffusion => "",
        };
        let id = format!("{prefix}{begun:016x}");
        let (began, script) = (Instant::now(), state.script.clone());
        let job = FilmJob { id, body, content_type, deleted: false, began, script, forgotten: false };
        let told = match job.script.format {
            FilmFormat::Sdcpp => {
                let url = format!("/sdcpp/v1/jobs/{}", job.id);
                Told::Json(
                    202,
                    json!({ "id": job.id, "kind": "vid_gen", "status": "queued", "created": 1, "poll_url": url }),
                )
            }
            FilmFormat::OpenAi | FilmFormat::VllmOmni | FilmFormat::SglangDiffusion => {
                Told::Json(200, told(&job, "queued"))
            }
        };
        state.jobs.push(job);
        told
    }

    /// One that is generated cannot be stopped; that it was asked for is noted.
    fn cancel(&self, id: &str) -> Told {
        let mut state = self.lock();
        let Some(job) = state.jobs.iter_mut().find(|job| job.id == id && !job.forgotten) else { return unknown() };
        job.deleted = true;
        if job.began.elapsed() >= job.script.takes {
            return Told::Json(200, told(job, "completed"));
        }
        Told::Json(409, json!({ "error": "job is currently generating and cannot be interrupted yet" }))
    }

    fn show(&self, id: &str) -> Told {
        let state = self.lock();
        let Some(job) = known(&state, id) else { return unknown() };
        let is_over = job.began.elapsed() >= job.script.takes;
        match (&job.script.fails, is_over) {
            (_, false) => Told::Json(200, told(job, "in_progress")),
            (None, true) => Told::Json(200, told(job, "completed")),
            (Some((status, _)), true) => {
                let status = if job.script.format == FilmFormat::VllmOmni { *status } else { 200 };
                Told::Json(status, told(job, "failed"))
            }
        }
    }

    fn content(&self, id: &str) -> Told {
        let state = self.lock();
        match known(&state, id) {
            Some(job) if job.script.fails.is_none() && job.began.elapsed() >= job.script.takes => {
                Told::Film(job.script.padding)
            }
            Some(job) if job.script.fails.is_some() => Told::Json(422, json!({ "detail": "Video generation failed" })),
            _ => unknown(),
        }
    }

    fn delete(&self, id: &str) -> Told {
        let mut state = self.lock();
        let Some(job) = state.jobs.iter_mut().find(|job| job.id == id && !job.forgotten) else { return unknown() };
        job.deleted = true;
        match job.script.format {
            FilmFormat::SglangDiffusion => Told::Json(200, told(job, "deleted")),
            FilmFormat::OpenAi | FilmFormat::VllmOmni | FilmFormat::Sdcpp => {
                Told::Json(200, json!({ "id": id, "object": "video.deleted", "deleted": true }))
            }
        }
    }
}

fn known<'a>(state: &'a State, id: &str) -> Option<&'a FilmJob> {
    state.jobs.iter().find(|job| job.id == id && !job.forgotten && !job.deleted)
}

fn unknown() -> Told {
    Told::Json(404, json!({ "detail": "Video not found" }))
}

/// As stable-diffusion.cpp tells of a job: its members by their names, so that the film comes before the status.
fn told_as_sdcpp(job: &FilmJob, status: &str) -> Value {
    let status = if status == "in_progress" { "generating" } else { status };
    let result = (status == "completed").then(|| {
        json!({ "b64_json": STANDARD.encode(SDCPP_FILM), "fps": FPS, "frame_count": SDCPP_FRAMES, "mime_type": "video/webm",
            "output_format": "webm" })
    });
    let failed = job.script.fails.as_ref().filter(|_| status == "failed");
    let error = failed.map(|(_, message)| json!({ "code": "generation_failed", "message": message }));
    json!({ "completed": 1, "created": 1, "error": error, "id": job.id, "kind": "vid_gen", "queue_position": 0, "result": result,
        "started": 1, "status": status })
}

fn told(job: &FilmJob, status: &str) -> Value {
    if job.script.format == FilmFormat::Sdcpp {
        return told_as_sdcpp(job, status);
    }
    let part = job.began.elapsed().as_secs_f64() / job.script.takes.as_secs_f64().max(0.001);
    let progress = if status == "completed" { 100 } else { (part * 100.0).clamp(0.0, 99.0) as u32 };
    let error = match (&job.script.fails, status) {
        (Some((code, message)), "failed") => json!({ "code": code, "message": message }),
        _ => Value::Null,
    };
    let mut told = json!({ "id": job.id, "object": "video", "model": "film", "status": status, "progress": progress,
        "created_at": 1, "completed_at": null, "expires_at": null, "error": error, "seconds": "4", "size": "848x480",
        "quality": "standard" });
    match job.script.format {
        FilmFormat::VllmOmni if status == "completed" => {
            told["num_frames"] = FRAMES.into();
            told["fps"] = FPS.into();
            told["duration_s"] = json!(4.0);
            told["media_type"] = "video/mp4".into();
        }
        FilmFormat::SglangDiffusion => {
            told["file_path"] = "/srv/outputs/film.mp4".into();
            told["url"] = Value::Null;
        }
        FilmFormat::VllmOmni | FilmFormat::OpenAi | FilmFormat::Sdcpp => {}
    }
    told
}

/// The pieces of a film with so many bytes more, in a box that players pass over.
pub(crate) fn pieces(padding: u64) -> impl Iterator<Item = Bytes> {
    let head = (padding > 0).then(|| {
        let size = (padding + 16).to_be_bytes();
        Bytes::from([&1_u32.to_be_bytes()[..], b"free", &size].concat())
    });
    let whole = FILLING.len() as u64;
    let full = (0..padding / whole).map(move |_| whole);
    let filling = full.chain([padding % whole]).filter(|bytes| *bytes > 0);
    let filling = filling.map(|bytes| Bytes::from_static(FILLING.get(..bytes as usize).unwrap_or_default()));
    [Bytes::from_static(FILM)].into_iter().chain(head).chain(filling)
}

/// The status, which is one.
pub(crate) fn status_of(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
