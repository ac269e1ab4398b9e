//! Holds: what an answer brings that is kept as files.

use batchin_files::WriteFileError;
use batchin_openai::{Pictures, SoundFormat, Wanted};
use bytes::Bytes;
use serde_json::json;

use crate::{
    Gateway,
    picture::MadePictures,
    shelf::{Kept, Order},
};

/// What is not kept yet.
pub(crate) enum Made {
    /// A whole sound.
    Sound { bytes: Bytes, format: SoundFormat },
    /// Pictures, and how they were asked for.
    Pictures(MadePictures, Pictures),
}

impl Made {
    /// A whole sound, where one was asked for.
    pub(crate) fn sound(wanted: Wanted, bytes: Bytes) -> Option<Self> {
        if let Wanted::Sound(spoken) = wanted { Some(Self::Sound { bytes, format: spoken.format }) } else { None }
    }

    /// Bytes of all of it.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Sound { bytes, .. } => bytes.len(),
            Self::Pictures(made, _) => made.bytes(),
        }
    }

    /// Keeps it; the answer that tells of it.
    pub(crate) async fn keep(self, gateway: &Gateway, order: &Order<'_>) -> Result<(Bytes, Kept), WriteFileError> {
        match self {
            Self::Sound { bytes, format } => sound(gateway, order, bytes, format).await,
            Self::Pictures(made, wanted) => made.keep(gateway, order, wanted).await,
        }
    }
}

async fn sound(
    gateway: &Gateway,
    order: &Order<'_>,
    sound: Bytes,
    format: SoundFormat,
) -> Result<(Bytes, Kept), WriteFileError> {
    let (ending, length) = (format!(".{}", format.name()), sound.len());
    let filename = format!("{}{ending}", order.name);
    let kept = gateway.shelf().keep((gateway.ids(), gateway.tasks()), order, &[(ending, sound)]).await?;
    let id = kept.ids.first().map(ToString::to_string);
    let answer = json!({ "object": "audio.speech", "file_id": id, "filename": filename,
        "content_type": format.content_type(), "bytes": length });
    Ok((answer.to_string().into(), kept))
}
