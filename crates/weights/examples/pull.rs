//! Pulls one known model into a directory: `cargo run -p batchin-weights --example pull -- DIR ID`.
//!
//! Without the engine, so a model that wants requantising is installed as fetched.

use std::{
    error::Error,
    io::{Write, stderr, stdout},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use batchin_weights::{Progress, PullOptions, SourceFailure, Stage, find, nearest, pull, verify};

/// Prints a line for each stage and each tenth of the bytes.
#[derive(Default)]
struct Lines {
    tenths: AtomicU64,
}

impl Lines {
    fn say(text: &str) {
        // A closed terminal is no reason to stop.
        let _ = writeln!(stderr(), "{text}");
    }
}

impl Progress for Lines {
    fn stage(&self, stage: &Stage) {
        self.tenths.store(0, Ordering::Relaxed);
        Self::say(&stage.to_string());
    }

    fn bytes(&self, done: u64, total: u64) {
        let tenths = done * 10 / total.max(1);
        if self.tenths.swap(tenths, Ordering::Relaxed) != tenths {
            Self::say(&format!("  {done} of {total} bytes"));
        }
    }

    fn passed_over(&self, failure: &SourceFailure) {
        Self::say(&format!("  passed over {failure}"));
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "there is a provider already")?;
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, id] = &args[..] else {
        return Err("usage: pull DIR ID".into());
    };
    let Some(model) = find(id) else {
        let hint = nearest(id).map(|near| format!(", did you mean {near}?")).unwrap_or_default();
        return Err(format!("{id} is not a known model{hint}").into());
    };
    let options = PullOptions { progress: Arc::new(Lines::default()), ..PullOptions::new(dir) };
    let path = pull(model, &options).await.map_err(|error| error.to_string())?;
    let manifest = verify(model, &options.dir)?;
    writeln!(stdout(), "{} sha256 {} from {}", path.display(), manifest.sha256, manifest.source)?;
    Ok(())
}
