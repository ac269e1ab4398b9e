//! Holds: how checked settings become the parts that they configure.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use batchin_config::{Config, DatabaseUrl};
use batchin_domain::{IdSource, NodeId};
use batchin_engine::{EngineOptions, ModelKind, ModelOptions};
use batchin_store::{ConnectError, ConnectOptions, PriceList, Store};
use batchin_weights::KnownModel;
use secrecy::ExposeSecret as _;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The file whose lock the server of a data folder has.
const LOCK: &str = "node.lock";
/// Longest address that can stand in it, in bytes.
const MAX_ADDRESS: u64 = 128;

/// This node's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeFolderError {
    /// It cannot be read or written.
    #[error("the data folder {folder} cannot be used")]
    Io {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
    /// Another server uses it.
    #[error("another batchin serves from the data folder {folder}; give this one its own with --data")]
    InUse {
        /// Which.
        folder: PathBuf,
    },
}

/// This node's lasting identity, and the lock that keeps a second server out while this one lives.
pub struct NodeFolder {
    /// The same over restarts.
    pub id: NodeId,
    /// Also says where the server listens.
    lock: std::fs::File,
}

impl NodeFolder {
    /// Makes the folder if need be, takes its lock, and reads or makes the identity.
    pub fn open(folder: &Path, ids: &dyn IdSource) -> Result<Self, NodeFolderError> {
        let io = |cause| NodeFolderError::Io { folder: folder.to_owned(), cause };
        create_private(folder).map_err(io)?;
        // Not cut off before it is ours: another server's address may stand in it.
        let options = std::fs::File::options().write(true).create(true).truncate(false).open(folder.join(LOCK));
        let lock = options.map_err(io)?;
        match lock.try_lock() {
            Ok(()) => lock.set_len(0).map_err(io)?,
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(NodeFolderError::InUse { folder: folder.to_owned() });
            }
            Err(std::fs::TryLockError::Error(cause)) => return Err(io(cause)),
        }
        let file = folder.join("node_id");
        let known = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<Uuid>().ok());
        let id = match known {
            Some(id) => id,
            None => {
                let id = ids.uuid();
                std::fs::write(&file, id.to_string()).map_err(io)?;
                id
            }
        };
        Ok(Self { id: NodeId::new(id), lock })
    }

    /// Leaves word for `batchin doctor` of where this server listens.
    pub fn note_address(&self, address: SocketAddr) -> std::io::Result<()> {
        (&self.lock).write_all(address.to_string().as_bytes())
    }
}

/// Where the server that has this data folder listens, if there is one and it has come so far.
pub fn serving(folder: &Path) -> Option<SocketAddr> {
    let lock = std::fs::File::open(folder.join(LOCK)).ok()?;
    let mut address = String::new();
    (&lock).take(MAX_ADDRESS).read_to_string(&mut address).ok()?;
    let address = address.parse().ok()?;
    // A server that ended in any way has let go of it. Asked only where a server once came so far, and for an instant.
    let is_held = matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock));
    is_held.then_some(address)
}

/// Makes a folder that nobody else on the machine may look into; one that is there keeps its mode.
pub fn create_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Another server has the database.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseLockError {
    /// SQLite's file serves one server: two would each lease the same money without a word to the other.
    #[error(
        "another batchin serves from the database {file}; one SQLite file is for one server, several servers share a \
         PostgreSQL (database.url)"
    )]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// The lock beside it cannot be taken.
    #[error("the lock {lock} cannot be taken")]
    Io {
        /// The lock's file.
        lock: PathBuf,
        /// Why.
        #[source]
        cause: std::io::Error,
    },
}

/// Keeps a second server out of a SQLite file, under whatever name it comes; ends with the process, however that ends.
/// Commands that run beside the server need no lock. `None` on PostgreSQL.
pub fn lock_database(config: &Config) -> Result<Option<std::fs::File>, DatabaseLockError> {
    let DatabaseUrl::Sqlite(file) = &config.database.url else { return Ok(None) };
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        // A folder that cannot be made is told of where the database is opened.
        let _ = create_private(folder);
    }
    // The file may not be there yet; where it will be is known.
    let whole = std::fs::canonicalize(file).or_else(|_| {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::canonicalize(folder).map(|folder| folder.join(file.file_name().unwrap_or_default()))
    });
    let file = whole.unwrap_or_else(|_| file.clone());
    let mut lock = file.clone().into_os_string();
    lock.push(".lock");
    let path = PathBuf::from(lock);
    let io = |cause| DatabaseLockError::Io { lock: path.clone(), cause };
    let lock = std::fs::File::create(&path).map_err(io)?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(std::fs::TryLockError::WouldBlock) => Err(DatabaseLockError::InUse { file }),
        Err(std::fs::TryLockError::Error(cause)) => Err(io(cause)),
    }
}

/// Opens the configured database, brought up to date unless told otherwise.
pub async fn connect(config: &Config, migrate: bool) -> Result<Store, ConnectError> {
    let url = config.database.url.connection().expose_secret().to_owned();
    Store::connect(ConnectOptions { url, max_connections: config.database.max_connections }, migrate).await
}

/// The folder of model weights.
pub fn weights_folder(config: &Config) -> PathBuf {
    config.server.data_dir.join("models")
}

/// The price list as JSON, and the fingerprint that tells one version from another.
pub fn price_list(config: &Config) -> (String, String) {
    let body = PriceList::body(config.models.iter().map(|model| (model.id.as_str(), &model.prices)));
    let fingerprint = hex::encode(Sha256::digest(body.as_bytes()));
    (fingerprint, body)
}

/// The known weights that the engine loads. A voice of the operator's own goes before a known one of its name.
pub fn engine_weights(config: &Config) -> Vec<&'static KnownModel> {
    let is_own = |id: &str| config.engine.voices.iter().any(|(name, _)| name == id);
    let named = config.engine.models.iter().filter(|id| !is_own(id));
    named.filter_map(|id| batchin_weights::find(id)).collect()
}

/// What the engine's process is started with, once the weights of these models are in their folder.
pub fn engine_options(config: &Config, models: &[&'static KnownModel]) -> EngineOptions {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute(&weights_folder(config));
    let model = |id: &str, path: PathBuf, kind| ModelOptions {
        id: id.to_owned(),
        path,
        kind,
        context_tokens: config.engine.context,
        slots: usize::try_from(config.engine.slots).unwrap_or(usize::MAX),
    };
    let known = models.iter().map(|known| {
        let kind = match known.kind {
            batchin_weights::Kind::Generate => ModelKind::Generate,
            batchin_weights::Kind::Embed => ModelKind::Embed,
            batchin_weights::Kind::Speech if known.files.is_empty() => ModelKind::Espeak,
            batchin_weights::Kind::Speech => ModelKind::Piper,
        };
        let program = known.program.as_ref().filter(|_| kind == ModelKind::Espeak);
        let path = program.map_or_else(|| batchin_weights::path(known, &folder), PathBuf::from);
        model(&known.id, path, kind)
    });
    let own = config.engine.voices.iter().map(|(name, file)| model(name, absolute(file), ModelKind::Piper));
    let mut options = EngineOptions::new(config.engine.socket.clone(), known.chain(own).collect());
    options.threads = config.engine.threads.and_then(|threads| usize::try_from(threads).ok());
    options
}
