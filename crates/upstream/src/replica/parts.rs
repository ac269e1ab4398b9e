//! Holds: an embeddings call as several, for servers that take only so many inputs in one.

use batchin_openai::{Parts, Vectors, Wanted, join_vectors, parts_of_input};
use http::StatusCode;
use tokio::time::Instant;

use super::{Answer, Replica, Reply};
use crate::{
    call::{Call, MAX_ANSWER_BYTES},
    failure::{CallError, CallErrorKind, Retry},
    learnt::Tries,
    middle::Middle,
};

impl Replica {
    /// The call in parts, where it has more inputs than one call to this server may have.
    pub(super) fn splits(&self, call: &Call<'_>) -> Option<(Vectors, Parts)> {
        let most = self.config.max_embedding_inputs?;
        match call.wanted {
            Wanted::Vectors(vectors) if vectors.inputs > most => Some((vectors, parts_of_input(&call.body, most)?)),
            Wanted::Vectors(_)
            | Wanted::Choices
            | Wanted::Ranking(_)
            | Wanted::Sound(_)
            | Wanted::Transcript
            | Wanted::Pictures(_) => None,
        }
    }

    /// Sends a call in parts, one after another, and puts their answers together. Nothing is answered where one fails.
    pub(super) async fn in_parts(
        &self,
        call: &Call<'_>,
        (vectors, parts): (Vectors, Parts),
        tries: &mut Tries,
    ) -> Result<Reply, CallError> {
        let unreadable = || CallError::other_replica(CallErrorKind::BadAnswer);
        let (mut answers, mut bytes) = (Vec::new(), 0);
        for (body, inputs) in parts {
            let wanted = Wanted::Vectors(Vectors { inputs, ..vectors });
            let part = Call { body, wanted, ..call.clone() };
            let Reply::Whole(Answer::Whole { body, usage, .. }) =
                self.exchange((&part, &Middle::default()), tries, Instant::now()).await?
            else {
                return Err(unreadable());
            };
            bytes += body.len();
            if bytes > MAX_ANSWER_BYTES {
                return Err(CallError { kind: CallErrorKind::TooLarge, retry: Retry::Never, client_error: None });
            }
            answers.push((body, inputs, usage));
        }
        let (body, usage) = join_vectors(&answers, vectors).ok_or_else(unreadable)?;
        Ok(Reply::Whole(Answer::Whole { status: StatusCode::OK, body, usage, text_bytes: 0 }))
    }
}
