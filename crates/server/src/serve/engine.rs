//! Holds: bringing the embedded engine up: weights first, then the supervised process.

use std::{
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::Result;
use batchin_config::Config;
use batchin_engine::{EngineOptions, EngineState, Supervisor, SupervisorOptions};
use batchin_tasks::Tasks;
use batchin_upstream::Fleet;
use batchin_weights::{Kind, KnownModel, Progress, SourceFailure, Stage};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{commands::pull, wiring};

/// Starts the engine if some model needs it. Until it answers, its models show as offline.
pub(super) fn start(config: &Config, fleet: &Fleet, tasks: &Tasks) {
    if !config.is_engine_needed() {
        return;
    }
    let (config, fleet, group) = (config.clone(), fleet.clone(), tasks.clone());
    tasks.spawn("engine_start", move |stop| bring_up(config, fleet, group, stop));
}

async fn bring_up(config: Config, fleet: Fleet, tasks: Tasks, stop: CancellationToken) {
    let mut known: Vec<&'static KnownModel> = Vec::new();
    for model in wiring::engine_weights(&config) {
        // A program needs no weights.
        if model.files.is_empty() {
            known.push(model);
            continue;
        }
        let fetched = stop.run_until_cancelled(fetch(model, &config)).await;
        match fetched {
            Some(Ok(())) => known.push(model),
            // Other models do not need it, and its source may have vanished.
            Some(Err(cause)) if model.kind == Kind::Speech => warn!("voice {} is not served: {cause:#}", model.id),
            Some(Err(cause)) => {
                error!("the engine does not start: {cause:#}");
                return;
            }
            None => return,
        }
    }
    let options = wiring::engine_options(&config, &known);
    if options.models.is_empty() {
        warn!("the engine does not start: none of its models is here");
        return;
    }
    match supervisor_options(&options) {
        Ok(options) => {
            let supervisor = Supervisor::start(options, &tasks);
            let mut state = supervisor.state();
            // Its models are served as soon as it answers, not when the next round of probes is due.
            while supervisor.ready().await {
                info!("the engine answers");
                fleet.probe_all().await;
                if state.wait_for(|state| *state != EngineState::Ready).await.is_err() {
                    return;
                }
            }
        }
        Err(cause) => error!("the engine does not start: {cause}"),
    }
}

/// With a line in the log when it begins, now and then, and at its end; silent when the weights are here.
async fn fetch(model: &KnownModel, config: &Config) -> Result<()> {
    if batchin_weights::installed(model, &wiring::weights_folder(config)).is_none() {
        info!("the weights of {} are not here: fetching {}", model.id, megabytes(model.download_bytes()));
    }
    let logged = Arc::new(Logged::new(&model.id, Instant::now()));
    let progress: Arc<dyn Progress> = logged.clone();
    pull::fetch(model, config, progress).await?;
    logged.end(Instant::now());
    Ok(())
}

/// Progress as lines of the log.
struct Logged {
    model: String,
    began: Instant,
    /// Nothing was to be done until there is a stage.
    has_worked: AtomicBool,
    /// Tenths that have been told of.
    tenths: AtomicU64,
}

impl Logged {
    fn new(model: &str, began: Instant) -> Self {
        Self { model: model.to_owned(), began, has_worked: AtomicBool::new(false), tenths: AtomicU64::new(0) }
    }

    fn end(&self, now: Instant) {
        if self.has_worked.load(Ordering::Relaxed) {
            let seconds = now.duration_since(self.began).as_secs_f64();
            info!("the weights of {} are here, after {seconds:.1} s", self.model);
        }
    }
}

impl Progress for Logged {
    fn stage(&self, stage: &Stage) {
        self.has_worked.store(true, Ordering::Relaxed);
        info!("the weights of {}: {stage}", self.model);
    }

    fn bytes(&self, done: u64, total: u64) {
        let tenths = done.saturating_mul(10).checked_div(total).unwrap_or(0);
        if (1..10).contains(&tenths) && self.tenths.fetch_max(tenths, Ordering::Relaxed) < tenths {
            info!("the weights of {}: {} of {}", self.model, megabytes(done), megabytes(total));
        }
    }

    fn passed_over(&self, failure: &SourceFailure) {
        // Its causes may name an index with a password in its address, which `batchin models pull` may show.
        warn!("the weights of {}: {}: {}", self.model, failure.source, failure.why);
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

/// How this very program is run as the engine's process.
fn supervisor_options(options: &EngineOptions) -> std::io::Result<SupervisorOptions> {
    let mut arguments: Vec<OsString> = vec!["engine".into(), "--socket".into(), options.socket.clone().into()];
    for model in &options.models {
        arguments.extend(["--model".into(), model.to_string().into()]);
    }
    if let Some(threads) = options.threads {
        arguments.extend(["--threads".into(), threads.to_string().into()]);
    }
    Ok(SupervisorOptions { program: std::env::current_exe()?, arguments, socket: options.socket.clone() })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::Mutex,
        time::Duration,
    };

    use batchin_weights::SourceError;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_fetch_is_told_in_the_log_from_its_begin_to_its_end() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let began = Instant::now();
            let logged = Logged::new("m", began);
            logged.end(began);
            logged.stage(&Stage::Fetching { source: "Hugging Face".to_owned() });
            for done in [0, 10_000, 1_500_000, 1_600_000, 9_900_000, 10_000_000] {
                logged.bytes(done, 10_000_000);
            }
            let why = SourceError::NotThere { file: "a.gguf".to_owned() };
            logged.passed_over(&SourceFailure { source: "Hugging Face".to_owned(), why });
            logged.end(began + Duration::from_secs(2));
        });
        let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            said.lines().map(str::trim).collect::<Vec<_>>(),
            [
                "INFO the weights of m: fetching from Hugging Face",
                "INFO the weights of m: 1.5 MB of 10.0 MB",
                "INFO the weights of m: 9.9 MB of 10.0 MB",
                "WARN the weights of m: Hugging Face: a.gguf is not there",
                "INFO the weights of m are here, after 2.0 s",
            ]
        );
    }
}
