//! Holds: taking over a changed configuration without dropping a request.
//!
//! Models, prices, upstreams and the certificate change; all else needs a restart, and the log names what does. A file
//! is read once it has stood still, as whoever writes it may be half way, and one that takes everything away is refused.

use std::{os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use batchin_config::{Config, Sources, read_file};
use batchin_gateway::{Catalog, Gateway};
use batchin_store::Prices;
use batchin_tasks::Tasks;
use metrics::{counter, gauge};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};
use tracing::{error, info, warn};

use super::listen::Tls;
use crate::wiring;

/// Between two looks at whether the file has changed.
const LOOK: Duration = Duration::from_millis(250);
/// A file that has not changed for this long is whole: editors and copies pause for less in the middle of one.
const STILL: Duration = Duration::from_secs(1);

/// Counts them by how they ended.
const RELOADS: &str = "batchin_config_reloads_total";

/// What a reload changes, and what it goes by.
pub(super) struct Reloader {
    /// Where the configuration comes from.
    pub sources: Sources,
    /// What the server was started with: the rest of it stays in force until a restart.
    pub started: Config,
    /// Numbers the prices.
    pub prices: Prices,
    /// Serves by it.
    pub gateway: Gateway,
    /// Shows the certificate, if there is one.
    pub tls: Option<Tls>,
}

/// Reloads on SIGHUP and when the file has changed.
pub(super) fn watch(reloader: Reloader, tasks: &Tasks) {
    tasks.spawn("config_reload", move |stop| async move {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(cause) => {
                error!(%cause, "SIGHUP cannot be listened for");
                return;
            }
        };
        let file = reloader.sources.file.clone();
        let look = || file.as_deref().and_then(stamp);
        let mut in_force = reloader.started.clone();
        let mut stillness = Stillness::new(look(), Instant::now());
        if let Some(file) = &file {
            // It may have changed while the server came up.
            let is_same = read_file(file).is_ok_and(|text| in_force.written.is_of(&text));
            stillness.is_due = !is_same;
        }
        count("taken_over", 0);
        count("refused", 0);
        reloader.note_time();
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = hangup.recv() => stillness.is_due = true,
                _ = ticks.tick() => {}
            }
            if !stillness.look(look(), Instant::now()) {
                continue;
            }
            match reloader.take_over(&in_force).await {
                Ok(config) => {
                    info!("the configuration was taken over");
                    reloader.name_what_waits(&in_force, &config);
                    in_force = config;
                    count("taken_over", 1);
                    reloader.note_time();
                }
                Err(cause) => {
                    warn!("the configuration was not taken over; the old one stays: {cause:#}");
                    count("refused", 1);
                }
            }
            reloader.reload_certificate();
        }
    });
}

fn count(outcome: &'static str, by: u64) {
    counter!(RELOADS, "outcome" => outcome).increment(by);
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    seconds: i64,
    nanos: i64,
}

fn stamp(file: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(file).ok()?;
    let (seconds, nanos) = (meta.mtime(), meta.mtime_nsec());
    Some(Stamp { device: meta.dev(), inode: meta.ino(), bytes: meta.len(), seconds, nanos })
}

/// Tells when the file is to be read: it has changed, or somebody has asked, and it has stood still for long enough.
#[derive(Debug)]
struct Stillness {
    seen: Option<Stamp>,
    since: Instant,
    is_due: bool,
}

impl Stillness {
    fn new(seen: Option<Stamp>, now: Instant) -> Self {
        Self { seen, since: now, is_due: false }
    }

    /// Whether it is to be read now.
    fn look(&mut self, stamp: Option<Stamp>, now: Instant) -> bool {
        if stamp != self.seen {
            *self = Self { seen: stamp, since: now, is_due: true };
        }
        let is_time = self.is_due && now.duration_since(self.since) >= STILL;
        self.is_due &= !is_time;
        is_time
    }
}

impl Reloader {
    /// What is in force from now on; nothing has changed when there is an error.
    async fn take_over(&self, in_force: &Config) -> Result<Config> {
        let text = self.sources.file.as_deref().map_or(Ok(String::new()), read_file)?;
        let config = Config::of_text(&text, &self.sources)?;
        refuse_losses(in_force, &config)?;
        let (fingerprint, body) = wiring::price_list(&config);
        let now = self.gateway.clock().now();
        let version = self.prices.publish_prices(&fingerprint, &body, now).await.context("prices")?;
        let catalog = Catalog::new(version, config.models.clone())?;
        self.gateway.fleet().reload(config.upstreams.clone())?;
        self.gateway.reload(catalog);
        Ok(config)
    }

    /// Says what of a configuration that was taken over is not in force.
    fn name_what_waits(&self, before: &Config, config: &Config) {
        let gone: Vec<&str> = lost_models(before, config);
        if !gone.is_empty() {
            warn!("models that are not served any more: {}", gone.join(", "));
        }
        let waiting = self.started.written.differing(&config.written);
        if !waiting.is_empty() {
            warn!("settings that have changed and need a restart: {}", waiting.join(", "));
        }
        let known = &self.started.engine.models;
        let unloaded: Vec<&str> =
            config.engine.models.iter().filter(|id| !known.contains(id)).map(String::as_str).collect();
        if !unloaded.is_empty() {
            warn!("weights that the embedded engine loads only after a restart: {}", unloaded.join(", "));
        }
    }

    fn reload_certificate(&self) {
        if let Some(Err(cause)) = self.tls.as_ref().map(Tls::reload) {
            warn!("the certificate was not taken over; the old one stays: {cause:#}");
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit 53 bits")]
    fn note_time(&self) {
        gauge!("batchin_config_last_success_timestamp_seconds").set(self.gateway.clock().now().seconds() as f64);
    }
}

fn lost_models<'a>(before: &'a Config, after: &Config) -> Vec<&'a str> {
    let is_gone = |id: &&str| !after.models.iter().any(|model| model.id == **id);
    before.models.iter().map(|model| model.id.as_str()).filter(is_gone).collect()
}

/// A file that is emptied, or cut off before its models, is a file that somebody is still writing; whoever means it
/// restarts the server.
fn refuse_losses(in_force: &Config, config: &Config) -> Result<()> {
    let (before, after) = (&in_force.written, &config.written);
    if after.is_empty() && !before.is_empty() {
        bail!("the file is empty; if that is meant, restart the server");
    }
    let has_none = config.models.is_empty() || (before.has("models") && !after.has("models"));
    if has_none && !in_force.models.is_empty() {
        bail!("the file has no [[models]] any more; if that is meant, restart the server");
    }
    let servers = |config: &Config| config.upstreams.iter().any(|upstream| !upstream.kind().is_ours);
    if servers(in_force) && !servers(config) {
        bail!("the file has no [[upstreams]] any more; if that is meant, restart the server");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVED: &str = "[server]\nmax_in_flight = 9\n[[upstreams]]\nname = \"u\"\nkind = \"openai\"\n\
                          base_url = \"http://127.0.0.1:1/v1\"\n[[models]]\nid = \"m\"\nupstreams = [\"u\"]\n\
                          capabilities = [\"embeddings\"]\ncontext_length = 10\npricing.std_input = 1\n";

    fn config(text: &str) -> Config {
        Config::of_text(text, &Sources::default()).unwrap()
    }

    fn stamp_of(bytes: u64) -> Option<Stamp> {
        Some(Stamp { device: 1, inode: 2, bytes, seconds: 3, nanos: 4 })
    }

    #[test]
    fn a_file_is_read_once_it_has_stood_still() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut file = Stillness::new(stamp_of(100), start);
        assert!(!file.look(stamp_of(100), at(5_000)), "nothing has changed");
        // Emptied, then written bit by bit.
        for (ms, bytes) in [(6_000, 0), (6_900, 10), (7_800, 20), (8_700, 30)] {
            assert!(!file.look(stamp_of(bytes), at(ms)), "{bytes} bytes");
        }
        assert!(!file.look(stamp_of(30), at(9_600)));
        assert!(file.look(stamp_of(30), at(9_700)), "it has stood still for a second");
        assert!(!file.look(stamp_of(30), at(20_000)), "and is read once");
        file.is_due = true;
        assert!(!file.look(stamp_of(0), at(20_001)), "whoever asks waits for a file that is being written, too");
        assert!(!file.look(None, at(20_900)));
        assert!(file.look(None, at(21_900)), "one that is gone is reported");
        file.is_due = true;
        assert!(file.look(None, at(30_000)), "and whoever asks gets an answer at once when nothing changes");
    }

    #[test]
    fn what_takes_everything_away_is_refused() {
        let served = config(SERVED);
        let cut = &SERVED[..SERVED.find("[[models]]").unwrap()];
        let on_engine = "[[models]]\nid = \"smollm2-135m-instruct\"\nupstreams = [\"engine\"]\n\
                         capabilities = [\"chat\"]\ncontext_length = 10\npricing = {std_input = 1, std_output = 1}\n";
        for (text, said) in [
            ("", "the file is empty"),
            ("# nothing yet\n\n", "the file is empty"),
            ("[server]\n", "no [[models]] any more"),
            (cut, "no [[models]] any more"),
            ("[engine]\nenabled = false\n", "no [[models]] any more"),
            (on_engine, "no [[upstreams]] any more"),
        ] {
            let refused = refuse_losses(&served, &config(text)).unwrap_err().to_string();
            assert!(refused.contains(said), "{text}: {refused}");
        }
        refuse_losses(&served, &served).unwrap();
        refuse_losses(&served, &config(&SERVED.replace("\"m\"", "\"other\""))).unwrap();
        refuse_losses(&config(""), &config("")).unwrap();
        refuse_losses(&config(""), &config("[server]\n")).unwrap();
    }

    #[test]
    fn settings_that_have_changed_are_named() {
        let served = config(SERVED);
        let differing = |text: &str| served.written.differing(&config(text).written);
        assert_eq!(differing(SERVED), Vec::<&str>::new());
        assert_eq!(differing(&SERVED.replace("\"m\"", "\"other\"")), Vec::<&str>::new());
        assert_eq!(differing(&SERVED.replace("= 9", "= 8")), ["server.max_in_flight"]);
        let default = format!("[server]\nmax_in_flight = 9\nlisten = \"127.0.0.1:8080\"\n{}", &SERVED[27..]);
        assert_eq!(differing(&default), Vec::<&str>::new(), "a default that is written is no change");
        let secret = SERVED.replace("[server]\n", "[server]\nsecret_key = \"0123456789abcdef0123456789abcdef\"\n");
        assert_eq!(differing(&secret), ["server.secret_key"]);
        assert!(!format!("{:?}", config(&secret)).contains("0123456789abcdef"));
    }
}
