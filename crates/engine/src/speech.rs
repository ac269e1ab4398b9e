//! Holds: the voices that are served, and the threads on which they speak.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use batchin_voices::{Chunk, ESPEAK_NG, Espeak, Speech, Voice};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::error;

use crate::{
    metrics::ModelMetrics,
    options::{ModelKind, ModelOptions},
};

/// Threads that compute a Piper voice, for all requests together. One makes several seconds of sound in a second, and
/// leaves the other cores to text.
const THREADS: usize = 1;

/// Pieces that are made before they are sent. More would be made for clients that have gone.
const AHEAD: usize = 2;

/// A voice that is served.
pub(crate) struct ServedVoice {
    pub(crate) id: String,
    pub(crate) voice: Arc<Voice>,
    pub(crate) metrics: Arc<ModelMetrics>,
    /// Seconds since 1970 when it was loaded.
    pub(crate) loaded_at: i64,
}

/// Loads a voice. Blocks for some tenths of a second. None for a model that does not speak.
pub(crate) fn load(options: &ModelOptions) -> Option<Result<Voice, Box<dyn std::error::Error>>> {
    match options.kind {
        ModelKind::Piper => Some(piper(&options.path)),
        ModelKind::Espeak => Some(Espeak::find(&options.path).map(Voice::espeak).map_err(Into::into)),
        ModelKind::Generate | ModelKind::Embed => None,
    }
}

fn piper(path: &Path) -> Result<Voice, Box<dyn std::error::Error>> {
    let espeak = Espeak::find(Path::new(ESPEAK_NG))?;
    Ok(Voice::piper(path, espeak, THREADS)?)
}

/// What a speaking thread tells. Without an end it has broken off.
pub(crate) enum Said {
    Piece(Chunk),
    End,
}

/// Speaks on a thread of its own, until the end or until the receiver is dropped. `place` is kept so long.
pub(crate) fn begin(speech: Speech, metrics: Arc<ModelMetrics>, place: OwnedSemaphorePermit) -> mpsc::Receiver<Said> {
    let (sender, inbox) = mpsc::channel(AHEAD);
    let working = Working::begin(metrics);
    // Ends with the receiver, after the piece under way.
    tokio::task::spawn_blocking(move || {
        let (_place, _working) = (place, working);
        for piece in speech {
            let said = match piece {
                Ok(chunk) => Said::Piece(chunk),
                Err(error) => {
                    let cause: &dyn std::error::Error = &error;
                    return error!(cause, "speech broke off: {error}");
                }
            };
            if sender.blocking_send(said).is_err() {
                return;
            }
        }
        // Whoever has gone needs no end.
        let _ = sender.blocking_send(Said::End);
    });
    inbox
}

/// One request counted among those that are worked on.
struct Working(Arc<ModelMetrics>);

impl Working {
    fn begin(metrics: Arc<ModelMetrics>) -> Self {
        metrics.processing.fetch_add(1, Relaxed);
        Self(metrics)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.processing.fetch_sub(1, Relaxed);
    }
}
