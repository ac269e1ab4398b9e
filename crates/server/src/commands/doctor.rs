//! Holds: `batchin doctor`.

use std::io::Write;

use anyhow::Result;
use batchin_store::Store;
use batchin_webhooks::{Vault, VaultError};

use crate::{
    cli::{self, Outcome, doctor},
    config::{Config, ConfigError},
    secret_key, wiring,
};

/// Looks at everything that this installation needs and says what is wrong with it.
pub(super) async fn run(loaded: &Result<Config, ConfigError>, as_json: bool, out: &mut impl Write) -> Result<Outcome> {
    let mut findings = vec![doctor::configuration(loaded)];
    if let Ok(config) = loaded {
        findings.extend(doctor::warnings(config));
        findings.push(doctor::data_folder(&config.server.data_dir));
        findings.push(doctor::port(config.server.listen));
        let store = store(config).await;
        findings.push(doctor::database(match &store {
            Ok(store) => ledger(store).await,
            Err(what) => Err(what.clone()),
        }));
        // Without a database there is nothing to open.
        if let Ok(store) = &store {
            findings.push(doctor::secret_key(key(config, store).await));
        }
        let folder = wiring::weights_folder(config);
        let present = |name: &str| {
            batchin_weights::find(name).is_some_and(|known| batchin_weights::installed(known, &folder).is_some())
        };
        if config.is_engine_needed() {
            findings.extend(doctor::weights(config, present));
        }
        findings.extend(doctor::certificate(config.server.tls.as_ref()));
    }
    Ok(doctor::print(&findings, as_json, out)?)
}

async fn store(config: &Config) -> Result<Store, String> {
    wiring::create_private(&config.server.data_dir).map_err(|cause| cli::explain(&cause))?;
    wiring::connect(config, false).await.map_err(|cause| cli::explain(&cause))
}

async fn ledger(store: &Store) -> Result<String, String> {
    let report = store.check().await.map_err(|cause| cli::explain(&cause))?;
    match report.faults.first() {
        None => Ok(format!("answers; {} accounts, and the ledger adds up", report.accounts)),
        Some(fault) => Err(format!("the ledger does not add up: {}; see `batchin ledger check`", fault.rule)),
    }
}

async fn key(config: &Config, store: &Store) -> Result<String, String> {
    let found = secret_key::find(config).map_err(|cause| cli::explain(&cause))?;
    let Some(key) = found else {
        let known = store.known_webhook_key_proof().await.map_err(|cause| cli::explain(&cause))?;
        return match known {
            None => Ok("none yet; the first start makes one".to_owned()),
            Some(_) => Err("the database has sealed webhook secrets, and their key is not here".to_owned()),
        };
    };
    match Vault::try_key(store, &key).await {
        Ok(()) => Ok("opens the webhook secrets".to_owned()),
        Err(cause @ (VaultError::OtherKey | VaultError::Store(_))) => Err(cli::explain(&cause)),
    }
}
