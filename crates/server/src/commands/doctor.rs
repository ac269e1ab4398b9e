//! Holds: `batchin doctor`.

mod payments;

use std::io::Write;

use anyhow::Result;
use batchin_batch_cli::{Outcome, counted};
use batchin_config::{Config, ConfigError, DatabaseUrl};
use batchin_files::{Blobs, BlobsPlace};
use batchin_store::{ConnectError, Store};
use batchin_webhooks::{MailError, Mailer, Vault, VaultError};

use super::check_models;
use crate::{
    cli::{self, doctor},
    secret_key,
    serve::BLOBS,
    wiring,
};

/// Looks at everything that this installation needs and says what is wrong with it.
pub(super) async fn run(loaded: &Result<Config, ConfigError>, as_json: bool, out: &mut impl Write) -> Result<Outcome> {
    let mut findings = vec![doctor::configuration(loaded)];
    if let Ok(config) = loaded {
        findings.extend(doctor::warnings(config));
        findings.push(doctor::data_folder(&config.server.data_dir));
        let serving = wiring::serving(&config.server.data_dir).map(|address| {
            let scheme = if config.server.tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{address}")
        });
        findings.push(doctor::port(config.server.listen, serving.as_deref()));
        match database(config).await {
            Database::Open(store) => {
                findings.push(doctor::database(ledger(&store).await));
                findings.push(doctor::secret_key(key(config, &store).await));
                findings.push(doctor::blobs(blobs(config, &store).await));
                findings.extend(payments::reports(config, &store).await);
                let fingerprint = wiring::price_list(config).0;
                // What cannot be asked has been told of above.
                let others = store.agreement().other_prices(None, &fingerprint).await.unwrap_or_default();
                findings.extend(doctor::prices(&others.iter().map(ToString::to_string).collect::<Vec<_>>()));
            }
            Database::ToCome(what) => {
                findings.push(doctor::database_to_come(what));
                findings.push(doctor::secret_key(key_alone(config)));
            }
            // Without a database there is nothing to open.
            Database::Broken(what) => findings.push(doctor::database(Err(what))),
        }
        let folder = wiring::weights_folder(config);
        let present = |name: &str| {
            let own = config.engine.voices.iter().find(|(known, _)| known == name);
            match (own, batchin_weights::find(name)) {
                (Some((_, file)), _) => Some(file.exists()),
                (None, Some(known)) if known.files.is_empty() => None,
                (None, known) => Some(known.is_some_and(|known| batchin_weights::installed(known, &folder).is_some())),
            }
        };
        if config.is_engine_needed() {
            findings.extend(doctor::weights(config, present));
            findings.extend(voices(config).as_ref().map(doctor::speech));
        }
        findings.extend(payments::look(config).await);
        findings.extend(mail(config).await);
        findings.extend(doctor::certificate(config.server.tls.as_ref()));
        // The engine is started by `serve`, and its weights are looked at above.
        match check_models::ask(config, |kind| !kind.is_ours).await {
            Ok(asked) => {
                findings.extend(asked.iter().map(|one| doctor::upstream(&one.name, one.is_well(), one.verdict())));
            }
            Err(cause) => findings.push(doctor::upstream("all", false, cli::explain(&*cause))),
        }
    }
    Ok(doctor::print(&findings, as_json, out)?)
}

/// None in a build without the engine.
#[cfg(not(feature = "engine"))]
fn voices(_config: &Config) -> Option<doctor::Voices> {
    None
}

#[cfg(feature = "engine")]
fn voices(config: &Config) -> Option<doctor::Voices> {
    use batchin_voices::{ESPEAK_NG, Espeak};

    let folder = wiring::weights_folder(config);
    let speaks = |known: &&batchin_weights::KnownModel| known.kind == batchin_weights::Kind::Speech;
    let known = batchin_weights::known().iter().filter(speaks).filter(|known| !known.files.is_empty());
    let (installed, to_fetch): (Vec<_>, Vec<_>) =
        known.partition(|known| batchin_weights::installed(known, &folder).is_some());
    let own = config.engine.voices.iter().filter(|(_, file)| file.exists()).map(|(name, _)| name.clone());
    let is_wanted = !config.engine.voices.is_empty() || wiring::engine_weights(config).iter().any(speaks);
    Some(doctor::Voices {
        languages: match Espeak::find(std::path::Path::new(ESPEAK_NG)) {
            Ok(espeak) => Ok(espeak.voices().count()),
            Err(cause) => Err(cli::explain(&cause)),
        },
        installed: installed.into_iter().map(|known| known.id.clone()).chain(own).collect(),
        to_fetch: to_fetch.into_iter().map(|known| known.id.clone()).collect(),
        is_wanted,
    })
}

/// The database as it is, before which nothing is made.
enum Database {
    Open(Store),
    /// A server will make it, or bring it up to date.
    ToCome(String),
    Broken(String),
}

async fn database(config: &Config) -> Database {
    if let DatabaseUrl::Sqlite(file) = &config.database.url
        && !file.exists()
    {
        return Database::ToCome(format!("no database yet; `batchin serve` makes {}", file.display()));
    }
    match wiring::connect(config, false).await {
        Ok(store) => Database::Open(store),
        Err(ConnectError::TooOld { found: 0, .. }) => {
            Database::ToCome("answers, and is empty yet; `batchin serve` makes its tables".to_owned())
        }
        Err(ConnectError::TooOld { found, known }) => Database::ToCome(format!(
            "answers, with schema version {found}; `batchin serve` or `batchin migrate` brings it to {known}"
        )),
        Err(cause) => Database::Broken(cli::explain(&cause)),
    }
}

/// Connects and proves who we are; sends nothing.
async fn mail(config: &Config) -> Option<doctor::Finding> {
    let options = config.smtp.clone()?;
    let tried = async { Mailer::new(options)?.probe().await };
    Some(doctor::mail(tried.await.map_err(|cause: MailError| cli::explain(&cause))))
}

async fn ledger(store: &Store) -> Result<String, String> {
    let report = store.check().await.map_err(|cause| cli::explain(&cause))?;
    match report.faults.first() {
        None => Ok(format!("answers; {}, and the ledger adds up", counted(report.accounts, "account"))),
        Some(fault) => Err(format!("the ledger does not add up: {}; see `batchin ledger check`", fault.rule)),
    }
}

fn key_alone(config: &Config) -> Result<String, String> {
    match secret_key::find(config).map_err(|cause| cli::explain(&cause))? {
        None => Ok("none yet; the first start makes one".to_owned()),
        Some(_) => Ok("is there; no webhook secret has been sealed with it yet".to_owned()),
    }
}

/// Compares and changes nothing; a folder that is not there yet is made by `serve`.
async fn blobs(config: &Config, store: &Store) -> Result<String, String> {
    let place = &config.blobs;
    let agreed = store.agreement().agreed(BLOBS).await.map_err(|cause| cli::explain(&cause))?;
    if let BlobsPlace::Folder(folder) = place
        && !folder.exists()
    {
        return match agreed {
            None => Ok(format!("{place}; the first start makes it")),
            Some(_) => Err(format!("{place} is not there, and other blobs belong to this database")),
        };
    }
    let opened = Blobs::open(place).map_err(|cause| cli::explain(&cause))?;
    let found = opened.identity().await.map_err(|cause| cli::explain(&cause))?;
    match (agreed, found) {
        (Some(agreed), found) if found.as_ref() != Some(&agreed) => {
            Err(format!("{place} is not where this database's blobs lie"))
        }
        (None | Some(_), _) => Ok(place.to_string()),
    }
}

async fn key(config: &Config, store: &Store) -> Result<String, String> {
    let found = secret_key::find(config).map_err(|cause| cli::explain(&cause))?;
    let Some(key) = found else {
        let known = store.outbox().known_webhook_key_proof().await.map_err(|cause| cli::explain(&cause))?;
        return match known {
            None => Ok("none yet; the first start makes one".to_owned()),
            Some(_) => Err("the database has sealed webhook secrets, and their key is not here".to_owned()),
        };
    };
    match Vault::try_key(&store.outbox(), &key).await {
        Ok(()) => Ok("opens the webhook secrets".to_owned()),
        Err(cause @ (VaultError::OtherKey | VaultError::Store(_))) => Err(cli::explain(&cause)),
    }
}
