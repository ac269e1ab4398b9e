//! Holds: `batchin models pull`, and the same for a server that finds weights missing.

use std::{
    io::{IsTerminal as _, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use batchin_batch_cli::Outcome;
use batchin_config::Config;
use batchin_weights::{Kind, KnownModel, Progress, PullOptions, SourceFailure, Stage, best, find, nearest, pull};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{memory, wiring};

/// `batchin models pull NAME`
pub(super) async fn run(name: &str, config: &Config, out: &mut impl Write) -> Result<Outcome> {
    let memory = memory::total();
    let model = named(name, memory)?;
    super::expect_folder(&config.server.data_dir)?;
    if let Some(memory) = memory.filter(|memory| *memory < model.memory_bytes()) {
        let (needs, has) = (gigabytes(model.memory_bytes()), gigabytes(memory));
        warn(&format!("{} takes some {needs} of memory while it is served, and this machine has {has}", model.id));
    }
    let path = fetch(model, config, Arc::new(Bar::new(&model.id))).await?;
    writeln!(out, "{}", path.display())?;
    if model.kind == Kind::Generate && !config.models.iter().any(|known| known.id == model.id) {
        warn(&how_to_serve(model));
    }
    Ok(Outcome::Done)
}

fn named(name: &str, memory: Option<u64>) -> Result<&'static KnownModel> {
    let for_code = match name {
        "best" => false,
        "best-coder" => true,
        name => {
            let hint = || nearest(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            return find(name).with_context(|| format!("no weights are known as {name}{}", hint()));
        }
    };
    let Some(memory) = memory else { bail!("this machine does not say how much memory it has; name a model") };
    best(for_code, memory).with_context(|| {
        format!("no known model fits into half of this machine's memory ({}); name one", gigabytes(memory))
    })
}

/// What belongs into the configuration, with prices of nothing for whoever tries it alone.
fn how_to_serve(model: &KnownModel) -> String {
    let KnownModel { id, context_length, license, .. } = model;
    let capabilities: Vec<_> = model.capabilities.iter().map(|can| format!("\"{}\"", can.as_str())).collect();
    format!(
        "to serve it, add to the configuration:\n\n[[models]]\nid = \"{id}\"\nupstreams = [\"engine\"]\ncapabilities = [{}]\n\
         context_length = {context_length}\nlicense = \"{license}\"\n[models.pricing]\nstd_input = 0\nstd_output = 0",
        capabilities.join(", ")
    )
}

fn warn(text: &str) {
    // Nothing is left to do when standard error is closed.
    drop(writeln!(std::io::stderr(), "{text}"));
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
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
