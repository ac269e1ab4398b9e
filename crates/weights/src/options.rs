//! Holds: how a model is pulled: where to, where from, with what patience.

use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use secrecy::SecretString;

use crate::progress::{NoProgress, Progress};

/// Requantises the GGUF file at the first path to Q8_0 at the second. Called on a thread that may block.
pub type Requantize = Arc<dyn Fn(&Path, &Path) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync>;

/// How to pull.
#[derive(Clone)]
pub struct PullOptions {
    /// Where models are installed.
    pub dir: PathBuf,
    /// Local directories to look in first, for `<file>` or `<id>/<file>`.
    pub search_dirs: Vec<PathBuf>,
    /// Where Hugging Face is, or a mirror of it.
    pub huggingface_url: String,
    /// Sent to `huggingface_url` and nowhere else.
    pub huggingface_token: Option<SecretString>,
    /// The package index pip should ask; its own settings decide when `None`.
    pub pip_index_url: Option<String>,
    /// The Python interpreter whose pip is used.
    pub python: PathBuf,
    /// Makes Q8_0 of models that want it; without it they are installed as fetched.
    pub requantize: Option<Requantize>,
    /// Told how it goes.
    pub progress: Arc<dyn Progress>,
    /// How long to wait for a source.
    pub patience: Patience,
}

impl PullOptions {
    /// Installs into `dir`, with the public sources, without a token, an engine or a display.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            search_dirs: Vec::new(),
            huggingface_url: "https://huggingface.co".to_owned(),
            huggingface_token: None,
            pip_index_url: None,
            python: PathBuf::from("python3"),
            requantize: None,
            progress: Arc::new(NoProgress),
            patience: Patience::default(),
        }
    }
}

/// How long to wait for a source before it is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until it answers at all.
    pub answer: Duration,
    /// For the next bytes, once it has answered.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { answer: Duration::from_secs(5), stall: Duration::from_secs(60) }
    }
}
