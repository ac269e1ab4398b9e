//! Holds: films as model servers are asked for them: a job that is begun, looked at, fetched and left, in each server's words.
//!
//! Pure: what is sent and what an answer means. Who sends it is `replica/filming.rs`.

use batchin_domain::{Frame, film::film_ms};
use batchin_openai::{UpstreamError, upstream_error_message};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use crate::{
    adapters::{FilmJobs, Path},
    breaker::Asker,
    form::Form,
};

/// Longest name that a server may have for a job, in bytes.
const MAX_REMOTE_BYTES: usize = 128;

/// What a server is asked for.
#[derive(Clone, Copy)]
pub struct FilmAsk<'a> {
    /// What is to be seen.
    pub prompt: &'a str,
    /// The server's own name of the model.
    pub upstream_model: &'a str,
    /// The model's name that the client sees.
    pub public_model: &'a str,
    /// How long it is to last.
    pub seconds: u32,
    /// Frames a second.
    pub fps: u32,
    /// Its size.
    pub frame: Frame,
    /// Passed on as `x-request-id`.
    pub request_id: &'a str,
    /// Who asks, for what the server's failures are evidence of.
    pub asker: Asker,
}

/// How a server's job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilmState {
    /// It goes on.
    Running {
        /// How far it is, in percent, where the server says so.
        progress: u32,
    },
    /// The film can be fetched.
    Done {
        /// How long it lasts in milliseconds, by its frames where the server tells them.
        ms: Option<u64>,
    },
    /// There will be none.
    Failed(Box<UpstreamError>),
    /// The server does not know the job: it was restarted, or somebody took it away there.
    Lost,
}

/// A body and its media type.
pub(crate) struct FilmBody {
    pub(crate) content_type: String,
    pub(crate) bytes: Bytes,
}

/// Frames that models of video make, at least so many: a multiple of four and one more, as the first is coded by itself.
/// Servers round down to that, and a film would be shorter than it is asked for.
pub(crate) const fn whole_frames(least: u64) -> u64 {
    least.saturating_add(2) / 4 * 4 + 1
}

impl FilmJobs {
    /// What begins a job.
    pub(crate) fn body(self, ask: &FilmAsk<'_>) -> FilmBody {
        let FilmAsk { prompt, upstream_model: model, seconds, fps, .. } = *ask;
        let (size, frames) = (ask.frame.to_string(), u64::from(seconds) * u64::from(fps));
        match self {
            Self::OpenAi => {
                json_body(&json!({ "model": model, "prompt": prompt, "seconds": seconds.to_string(), "size": size }))
            }
            Self::Frames => json_body(&json!({ "model": model, "prompt": prompt, "seconds": seconds, "size": size,
                "fps": fps, "num_frames": frames })),
            Self::Form => form_body(
                ask.request_id,
                &[
                    ("prompt", prompt),
                    ("model", model),
                    ("seconds", &seconds.to_string()),
                    ("size", &size),
                    ("width", &ask.frame.width.to_string()),
                    ("height", &ask.frame.height.to_string()),
                    ("fps", &fps.to_string()),
                    ("num_frames", &frames.to_string()),
                ],
            ),
            Self::Sdcpp => json_body(&json!({ "prompt": prompt, "width": ask.frame.width, "height": ask.frame.height,
                "video_frames": whole_frames(frames), "fps": fps })),
        }
    }

    /// Where jobs are begun.
    pub(crate) const fn begins(self) -> Path {
        match self {
            Self::OpenAi | Self::Form | Self::Frames => Path::BelowBase("/videos"),
            Self::Sdcpp => Path::AtRoot("/sdcpp/v1/vid_gen"),
        }
    }

    /// Where they are asked for, by their names behind it.
    pub(crate) const fn jobs(self) -> Path {
        match self {
            Self::OpenAi | Self::Form | Self::Frames => Path::BelowBase("/videos"),
            Self::Sdcpp => Path::AtRoot("/sdcpp/v1/jobs"),
        }
    }

    /// What stands behind a job's name where its film is.
    pub(crate) const fn content(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Form | Self::Frames => "/content",
            Self::Sdcpp => "",
        }
    }

    /// Whether films lie in what is said of their jobs, in base64.
    pub(crate) const fn inlays(self) -> bool {
        match self {
            Self::OpenAi | Self::Form | Self::Frames => false,
            Self::Sdcpp => true,
        }
    }

    /// How a job is left, and what stands behind its name then.
    pub(crate) const fn leaves(self) -> (Method, &'static str) {
        match self {
            Self::OpenAi | Self::Form | Self::Frames => (Method::DELETE, ""),
            Self::Sdcpp => (Method::POST, "/cancel"),
        }
    }

    /// The server's name for the job that it has begun; `None` where it says none that can be asked for.
    pub(crate) fn begun(body: &[u8]) -> Option<String> {
        let said: Value = serde_json::from_slice(body).ok()?;
        let id = said["id"].as_str().filter(|id| is_remote(id))?;
        Some(id.to_owned())
    }

    /// What an answer to the question how a job stands means; `None` where it says nothing of the job.
    pub(crate) fn state(status: u16, body: &[u8]) -> Option<FilmState> {
        let said = serde_json::from_slice::<Value>(body).ok();
        let word = said.as_ref().and_then(|said| said["status"].as_str());
        match (status, word) {
            // vLLM-Omni tells of a failed job by its error's status.
            (_, Some("failed")) => Some(FilmState::Failed(Box::new(upstream_error_message(status.max(400), body)))),
            (404 | 410, _) => Some(FilmState::Lost),
            (200..=299, Some("cancelled" | "canceled" | "deleted" | "expired")) => Some(FilmState::Lost),
            (200..=299, Some("completed" | "succeeded")) => {
                Some(FilmState::Done { ms: said.as_ref().and_then(delivered) })
            }
            (200..=299, Some("queued" | "in_progress" | "running" | "processing" | "generating")) => {
                let progress = said.and_then(|said| said["progress"].as_f64()).unwrap_or(0.0);
                // From nothing to 100, whatever it says.
                Some(FilmState::Running { progress: progress.clamp(0.0, 100.0) as u32 })
            }
            _ => None,
        }
    }
}

/// Whether it can stand in a path as it is.
pub(crate) fn is_remote(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_REMOTE_BYTES).contains(&id.len()) && id.bytes().all(is_plain) && !id.starts_with('.')
}

/// How long a film lasts that is described so, in milliseconds: by its frames, or as it says.
fn delivered(said: &Value) -> Option<u64> {
    // stable-diffusion.cpp has it with the film.
    let inlaid = &said["result"];
    let (said, frames) = if inlaid.is_object() { (inlaid, "frame_count") } else { (said, "num_frames") };
    let positive = |name: &str| said[name].as_f64().filter(|number| number.is_finite() && *number > 0.0);
    let by_frames = said[frames].as_u64().zip(positive("fps")).and_then(|(frames, fps)| {
        // Thousandths of a frame: 29.97 is as exact as anybody says it.
        let milli = (fps * 1_000.0).round();
        film_ms(frames, milli as u64)
    });
    by_frames.or_else(|| positive("duration_s").map(|seconds| (seconds * 1_000.0).round() as u64)).filter(|ms| *ms > 0)
}

fn json_body(value: &Value) -> FilmBody {
    FilmBody { content_type: "application/json".to_owned(), bytes: value.to_string().into() }
}

/// A form. Its boundary has the request's id in it, which nobody knew who wrote the texts.
fn form_body(request_id: &str, fields: &[(&str, &str)]) -> FilmBody {
    let form = fields.iter().fold(Form::new(request_id), |form, (name, value)| form.field(name, value));
    let (content_type, bytes) = form.end();
    FilmBody { content_type, bytes: bytes.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> FilmAsk<'static> {
        FilmAsk {
            prompt: "a \"kite\"",
            upstream_model: "wan",
            public_model: "film",
            seconds: 4,
            fps: 24,
            frame: Frame { width: 848, height: 480 },
            request_id: "r1",
            asker: Asker::default(),
        }
    }

    #[test]
    fn each_server_is_asked_in_its_words() {
        let json = |jobs: FilmJobs| serde_json::from_slice::<Value>(&jobs.body(&ask()).bytes).unwrap();
        assert_eq!(json(FilmJobs::OpenAi), json!({"model":"wan","prompt":"a \"kite\"","seconds":"4","size":"848x480"}));
        assert_eq!(
            json(FilmJobs::Frames),
            json!({"model":"wan","prompt":"a \"kite\"","seconds":4,"size":"848x480","fps":24,"num_frames":96})
        );
        assert_eq!(
            json(FilmJobs::Sdcpp),
            json!({"prompt":"a \"kite\"","width":848,"height":480,"video_frames":97,"fps":24})
        );
        assert_eq!([1, 80, 81, 96, 125].map(whole_frames), [1, 81, 81, 97, 125]);
        let form = FilmJobs::Form.body(&ask());
        assert_eq!(form.content_type, "multipart/form-data; boundary=batchin-r1");
        let text = String::from_utf8(form.bytes.to_vec()).unwrap();
        let begins =
            "--batchin-r1\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na \"kite\"\r\n--batchin-r1\r\n";
        assert!(text.starts_with(begins) && text.ends_with("\r\n96\r\n--batchin-r1--\r\n"), "{text}");
    }

    #[test]
    fn what_a_server_says_of_a_job_is_understood() {
        let state = |status, body: &str| FilmJobs::state(status, body.as_bytes());
        let running = |progress| Some(FilmState::Running { progress });
        assert_eq!(state(200, r#"{"status":"queued","progress":0}"#), running(0));
        assert_eq!(state(200, r#"{"status":"in_progress","progress":41.7}"#), running(41));
        assert_eq!(state(200, r#"{"status":"in_progress","progress":-1e9}"#), running(0));
        let done = |body: &str| state(200, body);
        let lasts = |ms| Some(FilmState::Done { ms });
        assert_eq!(done(r#"{"status":"completed","num_frames":81,"fps":16,"duration_s":5.0}"#), lasts(Some(5_063)));
        assert_eq!(done(r#"{"status":"completed","num_frames":null,"fps":24,"duration_s":3.875}"#), lasts(Some(3_875)));
        assert_eq!(done(r#"{"status":"completed","seconds":"4"}"#), lasts(None));
        let inlaid = r#"{"completed":9,"result":{"b64_json":"","fps":16,"frame_count":33,"mime_type":"video/webm"},"status":"completed"}"#;
        assert_eq!(done(inlaid), lasts(Some(2_063)));
        assert_eq!(state(200, r#"{"id":"job_1","queue_position":2,"result":null,"status":"generating"}"#), running(0));
        assert_eq!(done(r#"{"status":"completed","num_frames":5,"fps":0}"#), lasts(None));
        for (status, body) in [
            (404, ""),
            (404, r#"{"detail":"Not Found"}"#),
            (410, "{}"),
            (200, r#"{"status":"cancelled","error":{"code":"cancelled"}}"#),
            (200, r#"{"status":"deleted"}"#),
        ] {
            assert_eq!(state(status, body), Some(FilmState::Lost), "{status} {body}");
        }
        for (status, body) in [(200, "{}"), (200, "<html>"), (500, "oh"), (503, r#"{"status":"healthy"}"#)] {
            assert_eq!(state(status, body), None, "{status} {body}");
        }
    }

    #[test]
    fn a_job_that_failed_says_why_with_whatever_status() {
        let body = r#"{"id":"v","status":"failed","error":{"code":400,"message":"prompt is unsafe"}}"#;
        for status in [200, 400, 500] {
            let Some(FilmState::Failed(said)) = FilmJobs::state(status, body.as_bytes()) else { panic!("{status}") };
            assert_eq!((said.message.as_str(), said.status), ("prompt is unsafe", Some(400)));
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        let begun = |id: &str| FilmJobs::begun(json!({ "id": id }).to_string().as_bytes());
        assert_eq!(begun("video_gen_0a1b").as_deref(), Some("video_gen_0a1b"));
        for wrong in ["", "..", "a/b", "a?b", "a b", &"x".repeat(129)] {
            assert_eq!(begun(wrong), None, "{wrong}");
        }
    }
}
