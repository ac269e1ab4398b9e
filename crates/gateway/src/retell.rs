//! Holds: which kinds of call are answered by asking another one, and through what their requests and answers go.

use batchin_domain::CallKind;
use batchin_openai::{
    AskedAs, AskedNatively, InvalidRequest, Native, Retelling, documents_as_texts, fim_as_completion, responses,
    transcript_asked,
};
use bytes::Bytes;

/// What model servers are asked for a request.
pub(crate) struct Asked {
    /// The kind of call that they are asked.
    pub(crate) call: CallKind,
    /// The body: the client's own where nothing is retold.
    pub(crate) body: Bytes,
    /// How the answer is told, where it is not told as it comes.
    pub(crate) retelling: Option<Box<dyn Retelling>>,
    /// How the answer is read and told where it comes in the request's own protocol, in place of that.
    pub(crate) native: Option<Box<dyn Native>>,
}

/// What is known of a request beside its body.
#[derive(Clone, Copy)]
pub(crate) struct Beside {
    /// How long the sound lasts that it brings, in milliseconds.
    pub(crate) sound_ms: u64,
    /// Its answer is kept in a batch.
    pub(crate) is_kept: bool,
}

/// A request in the protocol in which model servers are asked.
pub(crate) fn asked(call: CallKind, body: &Bytes, beside: Beside) -> Result<Asked, InvalidRequest> {
    let as_it_is = |body| Asked { call: call.asks(), body, retelling: None, native: None };
    let AskedAs { body, retelling } = match call {
        CallKind::Chat
        | CallKind::Completions
        | CallKind::Embeddings
        | CallKind::Speech
        | CallKind::Images
        | CallKind::ImageEdits
        | CallKind::Video => return Ok(as_it_is(body.clone())),
        CallKind::Rerank => return Ok(as_it_is(documents_as_texts(body))),
        CallKind::Responses => responses::ask_as_chat(body)?,
        CallKind::Messages => batchin_anthropic::ask_as_chat(body)?,
        CallKind::Fim => fim_as_completion(body)?,
        CallKind::Transcriptions | CallKind::Translations => transcript_asked(body, beside.sound_ms, beside.is_kept)?,
    };
    Ok(Asked { retelling: Some(retelling), ..as_it_is(body) })
}

/// A request that [`asked`] has taken, in its own protocol; `None` for calls that have none beside what they are asked as.
pub(crate) fn asked_natively(call: CallKind, body: &Bytes) -> Option<AskedNatively> {
    match call {
        CallKind::Responses => Some(responses::ask_natively(body)),
        CallKind::Messages => Some(batchin_anthropic::ask_natively(body)),
        CallKind::Chat
        | CallKind::Completions
        | CallKind::Embeddings
        | CallKind::Fim
        | CallKind::Rerank
        | CallKind::Speech
        | CallKind::Transcriptions
        | CallKind::Translations
        | CallKind::Images
        | CallKind::ImageEdits
        | CallKind::Video => None,
    }
}

impl Asked {
    /// The same fault by the names that the client knows.
    pub(crate) fn renamed(&self, mut fault: InvalidRequest) -> InvalidRequest {
        if let (Some(retelling), Some(param)) = (&self.retelling, &mut fault.param) {
            let known = retelling.member(param).to_owned();
            fault.message = fault.message.replace(&format!("`{param}`"), &format!("`{known}`"));
            *param = known;
        }
        fault
    }

    /// What the client calls this member.
    pub(crate) fn member(&self, name: &'static str) -> &'static str {
        self.retelling.as_ref().map_or(name, |retelling| retelling.member(name))
    }
}
