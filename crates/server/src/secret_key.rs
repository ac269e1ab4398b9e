//! Holds: where `server.secret_key` comes from: the configuration, or a file of this node's own that is made once.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use batchin_config::Config;
use batchin_domain::IdSource;
use batchin_webhooks::{MasterKey, ShortKey};
use secrecy::SecretString;

/// The file in the data folder.
const FILE: &str = "secret_key";
/// Where it is written before it gets its name, so that nobody ever reads half a key.
const FILE_IN_THE_MAKING: &str = "secret_key.new";

/// There is no key to be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretKeyError {
    /// The file cannot be read or written.
    #[error("the secret key {file} cannot be used")]
    Io {
        /// Which.
        file: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// What is there is no key.
    #[error("the secret key is too short")]
    Short(#[source] ShortKey),
}

/// The file in which this node's own key lies, whether it is there or not.
pub fn file(config: &Config) -> PathBuf {
    config.server.data_dir.join(FILE)
}

/// The key that is configured, or else this node's own if there is one.
pub fn find(config: &Config) -> Result<Option<MasterKey>, SecretKeyError> {
    if let Some(key) = &config.server.secret_key {
        return Ok(Some(key.clone()));
    }
    let file = file(config);
    match fs::read_to_string(&file) {
        Ok(text) => MasterKey::new(SecretString::from(text.trim())).map(Some).map_err(SecretKeyError::Short),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(SecretKeyError::Io { file, cause }),
    }
}

/// The key, made and kept if there is none. The caller holds the data folder's lock.
pub fn find_or_make(config: &Config, ids: &dyn IdSource) -> Result<MasterKey, SecretKeyError> {
    if let Some(key) = find(config)? {
        return Ok(key);
    }
    let text = hex::encode(ids.secret());
    make(&config.server.data_dir, &text).map_err(|cause| SecretKeyError::Io { file: file(config), cause })?;
    MasterKey::new(SecretString::from(text)).map_err(SecretKeyError::Short)
}

fn make(folder: &Path, text: &str) -> io::Result<()> {
    let new = folder.join(FILE_IN_THE_MAKING);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, folder.join(FILE))?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use batchin_config::{Flags, Sources};

    use crate::world::World;

    use super::*;

    fn config(folder: &Path, environment: &[(&str, &str)]) -> Config {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = environment.iter().map(owned).collect();
        let flags = Flags { data: Some(folder.display().to_string()), ..Flags::default() };
        Config::load(&Sources { environment, flags, ..Sources::default() }).unwrap()
    }

    #[test]
    fn a_node_makes_its_key_once_and_keeps_it_to_itself() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), &[]);
        assert!(find(&config).unwrap().is_none());
        find_or_make(&config, &World).unwrap();
        let made = fs::read_to_string(file(&config)).unwrap();
        assert_eq!(made.len(), 64);
        assert_eq!(fs::metadata(file(&config)).unwrap().permissions().mode() & 0o777, 0o600);
        find_or_make(&config, &World).unwrap();
        assert_eq!(fs::read_to_string(file(&config)).unwrap(), made);
    }

    #[test]
    fn a_configured_key_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let key = "k".repeat(32);
        let config = config(folder.path(), &[("BATCHIN_SERVER__SECRET_KEY", &key)]);
        find_or_make(&config, &World).unwrap();
        assert!(!file(&config).exists());
    }
}
