//! Holds: `batchin doctor`.

use std::io::Write;

use anyhow::Result;

use crate::{
    cli::{self, Outcome, doctor},
    config::{Config, ConfigError},
    wiring,
};

/// Looks at everything that this installation needs and says what is wrong with it.
pub(super) async fn run(loaded: &Result<Config, ConfigError>, as_json: bool, out: &mut impl Write) -> Result<Outcome> {
    let mut findings = vec![doctor::configuration(loaded)];
    if let Ok(config) = loaded {
        findings.extend(doctor::warnings(config));
        findings.push(doctor::data_folder(&config.server.data_dir));
        findings.push(doctor::port(config.server.listen));
        findings.push(doctor::database(database(config).await));
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

async fn database(config: &Config) -> Result<String, String> {
    let explain = |cause: &dyn std::error::Error| cli::explain(cause);
    wiring::create_private(&config.server.data_dir).map_err(|cause| explain(&cause))?;
    let store = wiring::connect(config, false).await.map_err(|cause| explain(&cause))?;
    let report = store.check().await.map_err(|cause| explain(&cause))?;
    match report.faults.first() {
        None => Ok(format!("answers; {} accounts, and the ledger adds up", report.accounts)),
        Some(fault) => Err(format!("the ledger does not add up: {}; see `batchin ledger check`", fault.rule)),
    }
}
