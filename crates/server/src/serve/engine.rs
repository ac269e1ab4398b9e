//! Holds: bringing the embedded engine up: weights first, then the supervised process.

use std::{ffi::OsString, sync::Arc};

use batchin_engine::{EngineOptions, EngineState, Supervisor, SupervisorOptions};
use batchin_tasks::Tasks;
use batchin_upstream::Fleet;
use batchin_weights::KnownModel;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{commands::pull, config::Config, wiring};

/// Starts the engine if some model needs it. Until it answers, its models show as offline.
pub(super) fn start(config: &Config, fleet: &Fleet, tasks: &Tasks) {
    if !config.is_engine_needed() {
        return;
    }
    let (config, fleet, group) = (config.clone(), fleet.clone(), tasks.clone());
    tasks.spawn("engine_start", move |stop| bring_up(config, fleet, group, stop));
}

async fn bring_up(config: Config, fleet: Fleet, tasks: Tasks, stop: CancellationToken) {
    let known: Vec<&'static KnownModel> =
        config.engine.models.iter().filter_map(|id| batchin_weights::find(id)).collect();
    for model in &known {
        let fetched =
            stop.run_until_cancelled(pull::fetch(model, &config, Arc::new(batchin_weights::NoProgress))).await;
        match fetched {
            Some(Ok(_)) => {}
            Some(Err(cause)) => {
                error!("the engine does not start: {cause:#}");
                return;
            }
            None => return,
        }
    }
    let options = wiring::engine_options(&config, &known);
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
