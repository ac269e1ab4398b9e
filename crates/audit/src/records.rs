//! Holds: records: made, signed, written, and told.

use batchin_domain::{AccountId, AuditId, AuditKind};
use batchin_receipts::{
    Checkpoint, Hash, LogProof, MAX_TEXT_BYTES, Note, Record, ShownLog, ShownRecord, Source, VerifyingKey,
    cose_receipt, verify_record,
};
use batchin_store::{AuditEntry, StoreError};
use batchin_tasks::NotWritten;

use crate::{Audit, log::LogError};

/// What somebody with a key says of two texts.
#[derive(Clone, Debug)]
pub struct Asserted {
    /// What went in. Not kept.
    pub input: String,
    /// What came out. Not kept.
    pub output: String,
    /// The model.
    pub model_id: String,
    /// The GPU, as they say.
    pub gpu_id: Option<String>,
}

/// What they are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Names the record.
    pub id: AuditId,
    /// SHA-256 of the input, in hex.
    pub input_hash: String,
    /// SHA-256 of the output, in hex.
    pub output_hash: String,
    /// The signature, in hex.
    pub signature: String,
}

/// Why a record was not made or told.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A text is longer than is hashed for anybody.
    #[error("`{field}` has more than {most} bytes")]
    TooLong {
        /// Which one.
        field: &'static str,
        /// The most.
        most: usize,
    },
    /// This node has another key than the one that signs the log.
    #[error("this node has not the key that signs the log")]
    OtherKey,
    /// Too many wait to be stored.
    #[error("too many records come at once")]
    Full,
    /// It could not be stored; the log says why.
    #[error("the record could not be stored")]
    NotStored,
    /// The store failed.
    #[error("the record could not be read")]
    Store(#[from] StoreError),
    /// The log cannot be read.
    #[error("the log could not be read")]
    Log(#[source] LogError),
}

impl From<NotWritten> for RecordError {
    fn from(cause: NotWritten) -> Self {
        match cause {
            NotWritten::Full => Self::Full,
            NotWritten::Failed => Self::NotStored,
        }
    }
}

impl From<LogError> for RecordError {
    fn from(cause: LogError) -> Self {
        match cause {
            LogError::Store(cause) => Self::Store(cause),
            cause @ (LogError::Torn | LogError::Memory { .. }) => Self::Log(cause),
        }
    }
}

impl Audit {
    /// Makes a record of what somebody says. It is signed and stored when this returns, and has its place in the log moments later.
    pub async fn assert(&self, account: AccountId, said: &Asserted) -> Result<Receipt, RecordError> {
        for (field, text) in [("input_text", &said.input), ("output_text", &said.output)] {
            if text.len() > MAX_TEXT_BYTES {
                return Err(RecordError::TooLong { field, most: MAX_TEXT_BYTES });
            }
        }
        let inner = &self.0;
        let signing = inner.signing.load_full();
        let signer = signing.signer.as_ref().ok_or(RecordError::OtherKey)?;
        let (id, now) = (AuditId::new(inner.ids.uuid()), inner.clock.now());
        let record = Record {
            audit_id: id.to_string(),
            account_id: account.to_string(),
            created_at: now.to_string(),
            source: Source::ClientAsserted,
            input_hash: Hash::of(said.input.as_bytes()).hex(),
            output_hash: Hash::of(said.output.as_bytes()).hex(),
            model_id: said.model_id.clone(),
            gpu_id: said.gpu_id.clone(),
            blind: hex::encode(inner.ids.secret()),
        };
        let body = record.payload();
        let signature = signer.sign_record(&body);
        let entry = AuditEntry {
            id,
            account: Some(account),
            kind: AuditKind::Receipt,
            created_at: now,
            body,
            key_id: signing.key_id.clone(),
            signature: signature.to_vec(),
            index: None,
        };
        inner.intake.written(entry).await?;
        let (input_hash, output_hash) = (record.input_hash, record.output_hash);
        Ok(Receipt { id, input_hash, output_hash, signature: hex::encode(signature) })
    }

    /// A record with its proof, as anybody may see it.
    pub async fn shown(&self, id: AuditId) -> Result<Option<ShownRecord>, RecordError> {
        match self.record(id).await? {
            Some(entry) => self.shown_of(entry).await,
            None => Ok(None),
        }
    }

    async fn shown_of(&self, entry: AuditEntry) -> Result<Option<ShownRecord>, RecordError> {
        let placed = self.placed(&entry).await?;
        Ok(Record::parse(&entry.body).ok().map(|record| {
            let log = placed.map(|placed| ShownLog {
                origin: placed.checkpoint.origin.to_string(),
                index: placed.index,
                inclusion_proof: placed.hashes.iter().map(Hash::to_string).collect(),
                checkpoint: placed.signed,
            });
            shown(record, entry, log)
        }))
    }

    /// An account's records, newest first, without proofs.
    pub async fn records(
        &self,
        account: AccountId,
        limit: u32,
        after: Option<AuditId>,
    ) -> Result<Vec<ShownRecord>, RecordError> {
        let entries = self.0.rows.audit_entries(account, limit, after).await?;
        let records = entries.into_iter().filter(|entry| entry.kind == AuditKind::Receipt);
        Ok(records.filter_map(|entry| Some(shown(Record::parse(&entry.body).ok()?, entry, None))).collect())
    }

    /// Whether a record is in order: signed by a key of this log and, once it has a place there, in it. `None`: there is none.
    pub async fn verify(&self, id: AuditId) -> Result<Option<bool>, RecordError> {
        let Some(entry) = self.record(id).await? else { return Ok(None) };
        let shown = match self.shown_of(entry).await {
            Ok(Some(shown)) => shown,
            // What is stored has been changed.
            Ok(None) | Err(RecordError::Log(LogError::Torn)) => return Ok(Some(false)),
            Err(cause) => return Err(cause),
        };
        let keys = self.0.rows.audit_keys().await?;
        let keys: Vec<VerifyingKey> =
            keys.iter().filter_map(|key| Some(VerifyingKey::new(key.public.as_slice().try_into().ok()?))).collect();
        Ok(Some(shown.audit_id == id.to_string() && verify_record(&shown, &keys, &[]).is_ok()))
    }

    /// A record's proof as C2SP's tlog-proof; `None`: there is none, or it has no place yet.
    pub async fn tlog_proof(&self, id: AuditId) -> Result<Option<String>, RecordError> {
        let Some(entry) = self.record(id).await? else { return Ok(None) };
        let Some(placed) = self.placed(&entry).await? else { return Ok(None) };
        let extra = Some(entry.body.into_bytes());
        Ok(Some(LogProof { extra, index: placed.index, hashes: placed.hashes, checkpoint: placed.signed }.to_text()))
    }

    /// A record's receipt in COSE; `None`: there is none, or it has no place yet.
    pub async fn cose(&self, id: AuditId) -> Result<Option<Vec<u8>>, RecordError> {
        let Some(entry) = self.record(id).await? else { return Ok(None) };
        let Some(placed) = self.placed(&entry).await? else { return Ok(None) };
        let signing = self.0.signing.load_full();
        let signer = signing.signer.as_ref().ok_or(RecordError::OtherKey)?;
        let subject = format!("urn:uuid:{id}");
        Ok(Some(cose_receipt(signer, &placed.checkpoint, &subject, (placed.index, &placed.hashes))))
    }

    async fn record(&self, id: AuditId) -> Result<Option<AuditEntry>, StoreError> {
        Ok(self.0.rows.audit_entry(id).await?.filter(|entry| entry.kind == AuditKind::Receipt))
    }

    /// Where an entry is in the log as it was published last.
    async fn placed(&self, entry: &AuditEntry) -> Result<Option<Placed>, LogError> {
        let Some(index) = entry.index else { return Ok(None) };
        let Some(log) = self.0.rows.audit_log().await? else { return Ok(None) };
        if index >= log.size {
            return Err(LogError::Torn);
        }
        let Some((size, signed)) = log.checkpoint else { return Ok(None) };
        if index >= size {
            return Ok(None);
        }
        let checkpoint = Note::parse(&signed).ok().and_then(|note| Checkpoint::parse(&note.text).ok());
        let checkpoint = checkpoint.filter(|checkpoint| checkpoint.size == size).ok_or(LogError::Torn)?;
        let hashes = self.inclusion(index, size).await?;
        Ok(Some(Placed { index, hashes, checkpoint, signed }))
    }
}

struct Placed {
    index: u64,
    hashes: Vec<Hash>,
    checkpoint: Checkpoint,
    signed: String,
}

fn shown(record: Record, entry: AuditEntry, log: Option<ShownLog>) -> ShownRecord {
    ShownRecord {
        audit_id: record.audit_id,
        input_hash: record.input_hash,
        output_hash: record.output_hash,
        model_id: record.model_id,
        gpu_id: record.gpu_id,
        source: record.source.name().to_owned(),
        created_at: record.created_at,
        signature: hex::encode(entry.signature),
        key_id: entry.key_id,
        signed_payload: entry.body,
        log,
    }
}
