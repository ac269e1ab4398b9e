//! Holds: `[database]` and `[blobs]`: where things are kept.

use std::path::{Path, PathBuf};

use batchin_files::BlobsPlace;
use batchin_settings::{FaultKind, Kind, Preset, Scope, Setting, settings};
use secrecy::{ExposeSecret, SecretString};

/// `[database]`, checked.
#[derive(Debug, Clone)]
pub struct Database {
    /// Which database.
    pub url: DatabaseUrl,
    /// Most connections of this process.
    pub max_connections: u32,
}

/// Which database. A PostgreSQL address carries a password, so neither kind is printed.
#[derive(Debug, Clone)]
pub enum DatabaseUrl {
    /// A file of this machine.
    Sqlite(PathBuf),
    /// A server that several nodes share.
    Postgres(SecretString),
}

settings! {
    pub(super) const SETTINGS: &[&Setting];

    pub(crate) const URL: Setting = Setting {
        path: "database.url",
        kind: Kind::Secret,
        preset: Preset::Follows { example: "\"sqlite:data/batchin.db\"", other: "server.data_dir" },
        doc: "sqlite:FILE for one node, or postgres://USER:PASSWORD@HOST/NAME for any number of them.",
    };
    const MAX_CONNECTIONS: Setting = Setting {
        path: "database.max_connections",
        kind: Kind::Integer { min: 2, max: 1_000 },
        preset: Preset::Integer(16),
        doc: "Most database connections of this process.",
    };
}

settings! {
    pub(super) const BLOBS_SETTINGS: &[&Setting];

    const BLOBS_URL: Setting = Setting {
        path: "blobs.url",
        kind: Kind::Text,
        preset: Preset::Follows { example: "\"file:data/blobs\"", other: "server.data_dir" },
        doc: "Where request and result bodies lie: file:FOLDER for one node, s3://BUCKET/PREFIX for several.",
    };
}

impl Database {
    pub(super) fn read(scope: &Scope<'_>, data_dir: &Path) -> Self {
        let by_default = || DatabaseUrl::Sqlite(data_dir.join("batchin.db"));
        let url = match scope.secret(&URL) {
            None => by_default(),
            Some(text) => parse_database(text).unwrap_or_else(|| {
                let message = "must be sqlite:FILE or postgres://USER:PASSWORD@HOST/NAME";
                scope.fault(&URL, FaultKind::Value, message);
                by_default()
            }),
        };
        Self { url, max_connections: scope.count(&MAX_CONNECTIONS) }
    }
}

impl DatabaseUrl {
    /// The folder of a SQLite file; a bare name lies in the working directory.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        let Self::Sqlite(file) = self else { return None };
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        Some(folder.unwrap_or(Path::new(".")).to_owned())
    }

    /// The address as a database driver takes it; a SQLite file is made when it is not there.
    pub fn connection(&self) -> SecretString {
        match self {
            Self::Sqlite(path) => SecretString::from(format!("sqlite:{}?mode=rwc", path.display())),
            Self::Postgres(url) => url.clone(),
        }
    }
}

impl PartialEq for DatabaseUrl {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sqlite(left), Self::Sqlite(right)) => left == right,
            (Self::Postgres(left), Self::Postgres(right)) => left.expose_secret() == right.expose_secret(),
            (Self::Sqlite(_), Self::Postgres(_)) | (Self::Postgres(_), Self::Sqlite(_)) => false,
        }
    }
}

/// `[blobs]`, checked: where bodies and files are kept.
pub(super) fn read_blobs(scope: &Scope<'_>, data_dir: &Path) -> BlobsPlace {
    let by_default = || BlobsPlace::Folder(data_dir.join("blobs"));
    let Some(text) = scope.optional_text(&BLOBS_URL) else { return by_default() };
    parse_blobs(&text).unwrap_or_else(|| {
        scope.fault(&BLOBS_URL, FaultKind::Value, "must be file:FOLDER or s3://BUCKET/PREFIX");
        by_default()
    })
}

fn parse_database(secret: SecretString) -> Option<DatabaseUrl> {
    let text = secret.expose_secret();
    if let Some(file) = text.strip_prefix("sqlite:") {
        let file = file.strip_prefix("//").unwrap_or(file);
        let file = file.split_once('?').map_or(file, |(file, _)| file);
        return (!file.is_empty()).then(|| DatabaseUrl::Sqlite(PathBuf::from(file)));
    }
    let url = url::Url::parse(text).ok()?;
    let is_postgres = matches!(url.scheme(), "postgres" | "postgresql");
    is_postgres.then_some(DatabaseUrl::Postgres(secret))
}

fn parse_blobs(text: &str) -> Option<BlobsPlace> {
    if let Some(folder) = text.strip_prefix("file:") {
        let folder = folder.strip_prefix("//").unwrap_or(folder);
        return (!folder.is_empty()).then(|| BlobsPlace::Folder(PathBuf::from(folder)));
    }
    let rest = text.strip_prefix("s3://")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/').to_owned();
    (!bucket.is_empty()).then(|| BlobsPlace::S3 { bucket: bucket.to_owned(), prefix })
}
