//! Holds: the configuration, checked: every setting as the options that the parts take.
//!
//! A component receives its checked section and never a key, a text or an environment variable. Every fault is found
//! in one pass and names its line; nothing starts with a wrong configuration.

mod audio;
mod audit;
mod batches;
mod database;
mod engine;
mod example;
mod files;
mod models;
mod observability;
mod schema;
mod server;
mod shutdown;
mod smtp;
mod sources;
mod stripe;
mod upstreams;
mod usdc;
mod users;
mod video;
mod webhooks;
mod x402;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

pub use audio::Audio;
pub use audit::Audit;
pub use batches::Batches;
use batchin_batch::FilmsOptions;
use batchin_billing::{StripeOptions, UsdcOptions};
use batchin_files::{BlobsPlace, FilesOptions};
use batchin_gateway::Model;
use batchin_settings::{Collector, Document, Faults, Scope, Written};
use batchin_upstream::UpstreamConfig;
use batchin_webhooks::MailOptions;
pub use database::{Database, DatabaseUrl};
pub use engine::Engine;
pub use example::example;
pub use observability::{Log, LogFormat, Metrics, Telemetry};
pub use schema::PREFIX;
use schema::SCHEMA;
pub use server::{Roles, Server, TlsFiles};
pub use shutdown::Shutdown;
pub use sources::{Flags, Sources};
use upstreams::ENGINE_UPSTREAM;
use url::{Host, Url};
pub use users::{Keys, Users};
pub use webhooks::Webhooks;

/// A larger file is no configuration.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// What the place without a file is called in messages.
const NO_FILE: &str = "configuration";

/// Everything that can be configured, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// `[database]`
    pub database: Database,
    /// `[blobs]`
    pub blobs: BlobsPlace,
    /// `[users]`
    pub users: Users,
    /// `[keys]`
    pub keys: Keys,
    /// `[batches]`
    pub batches: Batches,
    /// `[files]`
    pub files: FilesOptions,
    /// `[audio]`
    pub audio: Audio,
    /// `[video]`
    pub films: FilmsOptions,
    /// `[webhooks]`
    pub webhooks: Webhooks,
    /// The server that mail leaves by, where there is one.
    pub smtp: Option<MailOptions>,
    /// Payments by card, where there are any.
    pub stripe: Option<StripeOptions>,
    /// Payments in USDC, where there are any.
    pub usdc: Option<UsdcOptions>,
    /// `[audit]`
    pub audit: Audit,
    /// `[[upstreams]]`, in the order of the file; the embedded engine last, when a model is on it.
    pub upstreams: Vec<UpstreamConfig>,
    /// `[[models]]`, in the order of the file.
    pub models: Vec<Model>,
    /// `[engine]`
    pub engine: Engine,
    /// `[log]`
    pub log: Log,
    /// `[telemetry]`
    pub telemetry: Telemetry,
    /// `[metrics]`
    pub metrics: Metrics,
    /// To tell what has changed.
    pub written: Written,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{} is larger than {MAX_FILE_BYTES} bytes and no configuration", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// What is written is wrong.
    #[error(transparent)]
    Faults(Faults),
}

impl Config {
    /// Reads and checks everything: flags over environment over file over defaults.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let text = sources.file.as_deref().map_or(Ok(String::new()), read_file)?;
        Self::of_text(&text, sources)
    }

    /// The same, with what the file says given.
    pub fn of_text(text: &str, sources: &Sources) -> Result<Self, ConfigError> {
        let name = sources.file.as_ref().map_or_else(|| NO_FILE.to_owned(), |path| path.display().to_string());
        let faults = Collector::default();
        let file = Document::parse(text, &faults);
        SCHEMA.check_keys(&file, &faults);
        let mut whole = file.clone();
        SCHEMA.apply_environment(&mut whole, &sources.environment, &faults);
        sources::apply_flags(&mut whole, &sources.flags);
        let written = Written::of(&SCHEMA, text, &file, &whole);
        let config = Self::read(&mut whole, written, &faults);
        let list = faults.finish();
        if list.is_empty() { Ok(config) } else { Err(ConfigError::Faults(Faults { file: name, list })) }
    }

    /// Checks one file by itself, whatever the environment says.
    pub fn check(path: &Path) -> Result<Self, ConfigError> {
        Self::load(&Sources { file: Some(path.to_owned()), ..Sources::default() })
    }

    /// What is allowed and yet deserves a word at start-up.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        warnings.extend(self.lookup_warning());
        warnings.extend(self.smtp.as_ref().and_then(smtp::warning));
        if matches!(self.database.url, DatabaseUrl::Postgres(_)) && self.server.secret_key.is_none() {
            warnings.push(
                "server.secret_key is not set: with several nodes on this database it must be set, and be the same on \
                 all of them, or only the first one delivers webhooks"
                    .to_owned(),
            );
        }
        if self.models.is_empty() {
            warnings.push("no model is served: add [[models]], or set engine.enabled = true".to_owned());
        }
        warnings
    }

    /// Whether the look-up by email answers somebody who has no internal token.
    pub fn is_lookup_open(&self) -> bool {
        self.users.internal_token.is_none() && (self.reached_by_others().is_none() || self.users.public_lookup)
    }

    /// Why others than this machine reach the server, as far as the configuration tells.
    fn reached_by_others(&self) -> Option<&'static str> {
        if !self.server.listen.ip().is_loopback() {
            Some("the server listens beyond this machine")
        } else if !self.server.trusted_proxies.is_empty() {
            Some("server.trusted_proxies names a proxy in front of the server")
        } else if !is_local(&self.server.public_url) {
            Some("server.public_url is not an address of this machine")
        } else {
            None
        }
    }

    /// A word on the look-up by email, where others could ask it.
    fn lookup_warning(&self) -> Option<String> {
        let reason = self.reached_by_others().filter(|_| self.users.internal_token.is_none())?;
        Some(if self.users.public_lookup {
            format!(
                "users.public_lookup is on while {reason}: whoever knows an email can read its balance; set \
                 users.internal_token, or public_lookup = false"
            )
        } else {
            format!("the look-up by email answers 401 because {reason}; set users.internal_token for a site's back end")
        })
    }

    /// Whether the embedded engine is to be started.
    pub fn is_engine_needed(&self) -> bool {
        self.upstreams.iter().any(|upstream| upstream.kind().is_ours)
    }

    fn read(document: &mut Document, written: Written, faults: &Collector) -> Self {
        let is_engine_enabled = Scope::root(document, &Collector::default()).flag(&engine::ENABLED);
        if is_engine_enabled && !document.has("models") {
            document.extend(Document::parse(models::DEFAULT_MODELS, faults));
        }
        let scope = Scope::root(document, faults);
        let server = Server::read(&scope);
        let mut engine = Engine::read(&scope, &server.data_dir);
        let mut upstreams = upstreams::read_all(&scope, &engine);
        let mut names = upstreams::names(&scope);
        if engine.enabled && !names.iter().any(|name| name == ENGINE_UPSTREAM) {
            names.push(ENGINE_UPSTREAM.to_owned());
        }
        let models = models::read_all(&scope, &names, &upstreams);
        if !scope.is_set(&engine::MODELS) {
            engine.models = models::weights(&models, &upstreams);
        }
        let is_written = upstreams.iter().any(|upstream| upstream.name() == ENGINE_UPSTREAM);
        if !is_written && models.iter().any(|model| model.upstreams.iter().any(|name| name == ENGINE_UPSTREAM)) {
            upstreams.extend(upstreams::embedded(&engine, faults));
        }
        let database = Database::read(&scope, &server.data_dir);
        let blobs = database::read_blobs(&scope, &server.data_dir);
        let folder = match &blobs {
            BlobsPlace::Folder(folder) => Some(folder.clone()),
            BlobsPlace::S3 { .. } => None,
        };
        let spool = server.data_dir.join("uploads");
        let folders = folder.into_iter().chain(database.url.folder()).chain([server.data_dir.clone()]).collect();
        Self {
            files: files::read(&scope, (folders, spool), server.gateway.max_account_percent),
            audio: Audio::read(&scope),
            films: video::read(&scope),
            webhooks: Webhooks::read(&scope, server.listen.ip()),
            smtp: smtp::read(&scope, &server.public_url),
            stripe: stripe::read(&scope, &server.public_url),
            usdc: usdc::read(&scope),
            audit: Audit::read(&scope, &server.public_url),
            database,
            blobs,
            server,
            shutdown: Shutdown::read(&scope),
            users: Users::read(&scope),
            keys: Keys::read(&scope),
            batches: Batches::read(&scope),
            upstreams,
            models,
            engine,
            log: Log::read(&scope),
            telemetry: Telemetry::read(&scope),
            metrics: Metrics::read(&scope),
            written,
        }
    }
}

/// Whether a URL leads to this machine alone.
fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        None => false,
    }
}

/// What a configuration file says, whether or not that is right.
pub fn read_file(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
