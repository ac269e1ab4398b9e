//! Holds: the voices that accounts have made: recordings that model servers are to sound like.

use std::time::Duration;

use batchin_db::{Rerun, Row, retried};
use batchin_domain::{AccountId, Timestamp};

use crate::{StoreError, Voices, stored::unsigned};

/// Recordings that one account keeps. They lie in the database, and each may have some megabytes.
pub const MAX_VOICES: u32 = 50;

/// A recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoiceSound {
    /// Its bytes.
    pub sound: Vec<u8>,
    /// Their media type.
    pub content_type: String,
    /// What is said in it.
    pub words: String,
}

/// A voice to be kept.
#[derive(Clone, Debug)]
pub struct NewVoice {
    /// Whose.
    pub account: AccountId,
    /// What the account calls it.
    pub name: String,
    /// The recording.
    pub recording: VoiceSound,
    /// What whoever made it says of the speaker's consent.
    pub consent: String,
    /// How long the recording is.
    pub duration: Duration,
    /// Now.
    pub now: Timestamp,
}

/// A voice without its recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoiceRow {
    /// What the account calls it.
    pub name: String,
    /// What is said in the recording.
    pub words: String,
    /// What was said of the speaker's consent.
    pub consent: String,
    /// The recording's media type.
    pub content_type: String,
    /// How long it is.
    pub duration: Duration,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Why a voice was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepVoiceError {
    /// The account has one of that name.
    #[error("the account has a voice of that name")]
    Taken,
    /// The account has [`MAX_VOICES`].
    #[error("the account keeps no more voices")]
    Full,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Voices {
    /// Keeps a voice. The same one again, after an answer that was not heard, is taken.
    pub async fn keep_voice(&self, new: &NewVoice) -> Result<VoiceRow, KeepVoiceError> {
        let kept = retried(Rerun::IfRolledBack, || async {
            let tx = self.db.write().await?;
            // Whoever makes another one at the same time waits here.
            let lock = tx.dialect.for_update();
            tx.one(format!("SELECT id FROM account WHERE id = $1{lock}"), [new.account.uuid().into()]).await?;
            let count = tx.one("SELECT count(*) AS n FROM voice WHERE account_id = $1", [new.account.uuid().into()]);
            let count = count.await?.map_or(Ok(0), |row| row.get::<i64>("n"))?;
            if count >= i64::from(MAX_VOICES) {
                return Ok(Err(KeepVoiceError::Full));
            }
            let added = tx
                .run(
                    "INSERT INTO voice (account_id, name, words, consent, content_type, duration_ms, sound, created_at) \
                     VALUES ($1,$2,$3,$4,$5,$6,$7,$8) ON CONFLICT (account_id, name) DO NOTHING",
                    vec![
                        new.account.uuid().into(),
                        new.name.as_str().into(),
                        new.recording.words.as_str().into(),
                        new.consent.as_str().into(),
                        new.recording.content_type.as_str().into(),
                        i64::try_from(new.duration.as_millis()).unwrap_or(i64::MAX).into(),
                        new.recording.sound.clone().into(),
                        new.now.micros().into(),
                    ],
                )
                .await?;
            if added == 0 {
                return Ok(Err(KeepVoiceError::Taken));
            }
            tx.commit().await?;
            Ok::<_, StoreError>(Ok(()))
        });
        kept.await??;
        Ok(VoiceRow {
            name: new.name.clone(),
            words: new.recording.words.clone(),
            consent: new.consent.clone(),
            content_type: new.recording.content_type.clone(),
            duration: new.duration,
            created_at: new.now,
        })
    }

    /// An account's voices, by name.
    pub async fn voices(&self, account: AccountId) -> Result<Vec<VoiceRow>, StoreError> {
        let sql = "SELECT name, words, consent, content_type, duration_ms, created_at FROM voice \
                   WHERE account_id = $1 ORDER BY name";
        self.db.all(sql, [account.uuid().into()]).await?.iter().map(voice_row).collect()
    }

    /// The recording of a voice.
    pub async fn voice(&self, account: AccountId, name: &str) -> Result<Option<VoiceSound>, StoreError> {
        let sql = "SELECT sound, content_type, words FROM voice WHERE account_id = $1 AND name = $2";
        let row = self.db.one(sql, [account.uuid().into(), name.into()]).await?;
        row.map(|row| {
            let (content_type, words) = (row.get("content_type")?, row.get("words")?);
            Ok(VoiceSound { sound: row.get("sound")?, content_type, words })
        })
        .transpose()
    }

    /// Forgets a voice; `false`: the account has none of that name.
    pub async fn forget_voice(&self, account: AccountId, name: &str) -> Result<bool, StoreError> {
        retried(Rerun::Harmless, || async {
            let tx = self.db.write().await?;
            let sql = "DELETE FROM voice WHERE account_id = $1 AND name = $2";
            let touched = tx.run(sql, [account.uuid().into(), name.into()]).await?;
            tx.commit().await?;
            Ok(touched > 0)
        })
        .await
    }
}

fn voice_row(row: &Row) -> Result<VoiceRow, StoreError> {
    Ok(VoiceRow {
        name: row.get("name")?,
        words: row.get("words")?,
        consent: row.get("consent")?,
        content_type: row.get("content_type")?,
        duration: Duration::from_millis(unsigned(row, "voice", "duration_ms")?),
        created_at: Timestamp::from_micros(row.get("created_at")?),
    })
}
