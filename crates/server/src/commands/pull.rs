//! Holds: `batchin models pull`, and the same for a server that finds weights missing.

use std::{
    io::{IsTerminal as _, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use batchin_batch_cli::Outcome;
use batchin_config::Config;
use batchin_weights::{KnownModel, Progress, PullOptions, SourceFailure, Stage, find, nearest, pull};
use indicatif::{ProgressBar, ProgressStyle};

use crate::wiring;

/// `batchin models pull NAME`
pub(super) async fn run(name: &str, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    let Some(model) = find(name) else {
        let hint = nearest(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        bail!("no weights are known as {name}{hint}");
    };
    super::expect_folder(&config.server.data_dir)?;
    let path = fetch(model, config, Arc::new(Bar::new(&model.id))).await?;
    writeln!(out, "{}", path.display())?;
    Ok(Outcome::Done)
}

/// Fetches a model's weights unless they are here.
pub(crate) async fn fetch(model: &KnownModel, config: &Config, progress: Arc<dyn Progress>) -> Result<PathBuf> {
    let mut options = PullOptions::new(wiring::weights_folder(config));
    options.huggingface_token = huggingface_token();
    options.progress = progress;
    #[cfg(feature = "engine")]
    {
        options.requantize = Some(Arc::new(|from, to| Ok(batchin_engine::quantize_q8_0(from, to)?)));
    }
    pull(model, &options).await.with_context(|| format!("the weights of {} could not be fetched", model.id))
}

/// Where Hugging Face's own tools keep it.
#[expect(clippy::disallowed_methods, reason = "the server reads the environment; this one name is not ours")]
fn huggingface_token() -> Option<secrecy::SecretString> {
    std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()).map(Into::into)
}

/// Progress on a terminal as a bar, elsewhere as a line a stage.
struct Bar {
    name: String,
    /// std mutex: held to set a position.
    bar: Mutex<Option<ProgressBar>>,
}

impl Bar {
    fn new(name: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} {msg:14} {bar:30} {bytes}/{total_bytes}");
            let bar = ProgressBar::new(0).with_prefix(name.to_owned());
            style.map_or(bar.clone(), |style| bar.with_style(style))
        });
        Self { name: name.to_owned(), bar: Mutex::new(bar) }
    }

    fn say(&self, text: String) {
        match &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bar) => bar.set_message(text),
            // Nothing is left to do when standard error is closed.
            None => drop(writeln!(std::io::stderr(), "{}: {text}", self.name)),
        }
    }
}

impl Progress for Bar {
    fn stage(&self, stage: &Stage) {
        self.say(stage.to_string());
    }

    fn bytes(&self, done: u64, total: u64) {
        if let Some(bar) = &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    fn passed_over(&self, failure: &SourceFailure) {
        self.say(failure.to_string());
    }
}
