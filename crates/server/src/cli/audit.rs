//! Holds: `batchin audit`. A record is checked with nothing but keys: no server, no database, no configuration.

use std::{
    fs,
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
};

use batchin_batch_cli::Outcome;
use batchin_receipts::{Checked, NoteKey, ShownRecord, VerifyingKey, verify_record};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use super::Report;

/// Longest file that is read: a record has a few kilobytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// `batchin audit`
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Check a record, offline: what is signed, by whom, and that it is in the log
    #[command(after_help = "Examples:
  curl -s https://api.example.com/v1/audit/pubkeys > keys.json    once, from whom you trust
  curl -s https://api.example.com/v1/audit/$ID > record.json
  batchin audit verify record.json --keys keys.json
  batchin audit verify record.json --key 19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1 --json

Exit codes: 0 in order, 1 not in order, 2 cannot be read.")]
    Verify(Verify),
    /// Have another key sign the audit log from now on, which the log says, signed by both
    #[command(after_help = "Examples:
  batchin audit rotate-key --config batchin.toml

Keys follow from server.secret_key. Nodes that run take the new one up within some seconds; what was signed stays valid.")]
    RotateKey(Report),
}

/// `batchin audit verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// The record as GET /v1/audit/{id} answers; - for standard input
    pub file: PathBuf,
    /// Keys that may have signed, as GET /v1/audit/pubkeys answers
    #[arg(long, value_name = "FILE", required_unless_present = "key")]
    pub keys: Option<PathBuf>,
    /// A key that may have signed, in hex; several if given again
    #[arg(long, value_name = "HEX")]
    pub key: Vec<VerifyingKey>,
    /// A witness whose cosignature must be on the checkpoint, as NAME+ID+BASE64; several if given again
    #[arg(long, value_name = "VKEY", value_parser = witness)]
    pub witness: Vec<NoteKey>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `GET /v1/audit/pubkeys`, what counts.
#[derive(Deserialize)]
struct KeysFile {
    origin: String,
    data: Vec<KeyEntry>,
}

#[derive(Deserialize)]
struct KeyEntry {
    verify_key_hex: String,
}

/// What was given cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("cannot read {file}")]
    Unread { file: PathBuf, source: io::Error },
    #[error("{file} is no record as GET /v1/audit/{{id}} answers")]
    NoRecord { file: PathBuf, source: serde_json::Error },
    #[error("{file} has no keys as GET /v1/audit/pubkeys answers")]
    NoKeys { file: PathBuf },
}

/// Checks a record and says what was found, and what was not checked.
pub fn verify(asked: &Verify, out: &mut impl Write) -> io::Result<Outcome> {
    let (shown, keys, origin) = match read(asked) {
        Ok(read) => read,
        Err(cause) => {
            let message = super::explain(&cause);
            if asked.json {
                writeln!(out, "{}", json!({ "valid": null, "error": message }))?;
            } else {
                writeln!(out, "{message}")?;
            }
            return Ok(Outcome::Misused);
        }
    };
    let found = check(asked, (&shown, &keys), origin.as_deref());
    let valid = found.is_ok();
    if asked.json {
        writeln!(out, "{}", report(&shown, &found))?;
    } else {
        match &found {
            Ok(checked) => told(checked, out)?,
            Err(why) => writeln!(out, "NOT in order: {why}")?,
        }
    }
    Ok(if valid { Outcome::Done } else { Outcome::Failed })
}

fn read(asked: &Verify) -> Result<(ShownRecord, Vec<VerifyingKey>, Option<String>), Unusable> {
    let file = &asked.file;
    let shown =
        serde_json::from_slice(&bytes(file)?).map_err(|source| Unusable::NoRecord { file: file.clone(), source })?;
    let (mut keys, mut origin) = (asked.key.clone(), None);
    if let Some(file) = &asked.keys {
        let no_keys = || Unusable::NoKeys { file: file.clone() };
        let read: KeysFile = serde_json::from_slice(&bytes(file)?).map_err(|_| no_keys())?;
        for entry in read.data {
            keys.push(entry.verify_key_hex.parse().map_err(|_| no_keys())?);
        }
        origin = Some(read.origin);
    }
    Ok((shown, keys, origin))
}

fn bytes(file: &Path) -> Result<Vec<u8>, Unusable> {
    let unread = |source| Unusable::Unread { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        io::stdin().take(MAX_BYTES).read_to_end(&mut bytes).map_err(unread)?;
    } else {
        fs::File::open(file).map_err(unread)?.take(MAX_BYTES).read_to_end(&mut bytes).map_err(unread)?;
    }
    Ok(bytes)
}

fn check(
    asked: &Verify,
    (shown, keys): (&ShownRecord, &[VerifyingKey]),
    origin: Option<&str>,
) -> Result<Checked, String> {
    let checked = verify_record(shown, keys, &asked.witness).map_err(|cause| cause.to_string())?;
    if let (Some(checkpoint), Some(origin)) = (&checked.checkpoint, origin)
        && checkpoint.origin.as_str() != origin
    {
        return Err(format!("the record is in the log {}, and the keys are of {origin}", checkpoint.origin));
    }
    match asked.witness.iter().find(|witness| !checked.signed_by.contains(witness)) {
        Some(missing) => Err(format!("the checkpoint is not cosigned by {}", missing.name)),
        None => Ok(checked),
    }
}

fn told(checked: &Checked, out: &mut impl Write) -> io::Result<()> {
    let record = &checked.record;
    writeln!(out, "in order: {} of {}, {}", record.audit_id, record.created_at, record.source.name())?;
    writeln!(out, "  model {}, input {}, output {}", record.model_id, record.input_hash, record.output_hash)?;
    match &checked.checkpoint {
        Some(checkpoint) => {
            let signers: Vec<_> = checked.signed_by.iter().map(|key| key.name.as_str()).collect();
            let (origin, size) = (&checkpoint.origin, checkpoint.size);
            writeln!(out, "  in the log {origin} of {size} entries, signed by {}", signers.join(", "))?;
        }
        None => writeln!(out, "  its place in the log was NOT checked: the record has none yet")?,
    }
    writeln!(out, "  not checked: that the texts are those of the hashes, and that the model named has answered")
}

fn report(shown: &ShownRecord, found: &Result<Checked, String>) -> serde_json::Value {
    match found {
        Ok(checked) => {
            let signers: Vec<_> = checked.signed_by.iter().map(|key| key.name.as_str()).collect();
            let checkpoint = checked.checkpoint.as_ref();
            json!({ "audit_id": shown.audit_id, "valid": true, "logged": checkpoint.is_some(),
                "origin": checkpoint.map(|checkpoint| checkpoint.origin.as_str()),
                "log_size": checkpoint.map(|checkpoint| checkpoint.size), "signed_by": signers })
        }
        Err(why) => json!({ "audit_id": shown.audit_id, "valid": false, "error": why }),
    }
}

fn witness(text: &str) -> Result<NoteKey, batchin_receipts::BadNote> {
    NoteKey::parse(text)
}

#[cfg(test)]
mod tests {
    use batchin_receipts::{Record, SigningKey, Source};

    use super::*;

    fn run(folder: &Path, record: &str, keys: &str, json: bool) -> (Outcome, String) {
        let (file, keys_file) = (folder.join("record.json"), folder.join("keys.json"));
        fs::write(&file, record).unwrap();
        fs::write(&keys_file, keys).unwrap();
        let asked = Verify { file, keys: Some(keys_file), key: Vec::new(), witness: Vec::new(), json };
        let mut out = Vec::new();
        let outcome = verify(&asked, &mut out).unwrap();
        (outcome, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_record_is_in_order_or_not_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let signer = SigningKey::from_seed(&[3; 32]).unwrap();
        let record = Record {
            audit_id: "id".to_owned(),
            account_id: "account".to_owned(),
            created_at: "2026-12-01T00:00:00Z".to_owned(),
            source: Source::ClientAsserted,
            input_hash: "00".to_owned(),
            output_hash: "11".to_owned(),
            model_id: "m".to_owned(),
            gpu_id: None,
            blind: "22".to_owned(),
        };
        let payload = record.payload();
        let shown = json!({ "audit_id": "id", "input_hash": "00", "output_hash": "11", "model_id": "m", "gpu_id": null,
            "source": "client_asserted", "created_at": "2026-12-01T00:00:00Z", "log": null, "signed_payload": payload,
            "signature": hex::encode(signer.sign_record(&payload)), "key_id": signer.verifying().id().as_str() });
        let keys = json!({ "origin": "log", "data": [{ "verify_key_hex": signer.verifying().hex() }] }).to_string();
        let (outcome, said) = run(folder.path(), &shown.to_string(), &keys, false);
        assert_eq!(outcome, Outcome::Done, "{said}");
        assert!(said.starts_with("in order: id") && said.contains("NOT checked"), "{said}");
        let mut bent = shown.clone();
        bent["model_id"] = "n".into();
        let (outcome, said) = run(folder.path(), &bent.to_string(), &keys, false);
        assert_eq!((outcome, said.as_str()), (Outcome::Failed, "NOT in order: `model_id` is not what is signed\n"));
        let (outcome, said) = run(folder.path(), &bent.to_string(), &keys, true);
        assert_eq!(outcome, Outcome::Failed);
        assert!(said.contains("\"valid\":false"), "{said}");
        let others = json!({ "origin": "log", "data": [] }).to_string();
        assert_eq!(run(folder.path(), &shown.to_string(), &others, false).0, Outcome::Failed);
        for (record, keys) in [("{}", &keys), (&shown.to_string(), &"{}".to_owned())] {
            assert_eq!(run(folder.path(), record, keys, false).0, Outcome::Misused);
        }
    }
}
