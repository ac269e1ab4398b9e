//! Holds: reading a request's body within its bounds.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header::CONTENT_LENGTH, header::EXPECT};
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::error::{ApiError, Code};

/// A body that takes longer is not being sent any more.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// What is read and thrown away of a body over its limit, so that the client gets to read the answer.
const MAX_DRAINED_BYTES: u64 = 64 * 1024 * 1024;
/// How long that may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// All larger bodies in memory at once, in KiB: 1 GiB. What comes on top is refused rather than swapped.
const MAX_KIB_IN_MEMORY: u32 = 1024 * 1024;
/// Bodies up to this size are bounded by the number of connections alone.
const SMALL_BYTES: usize = 64 * 1024;
/// What a body of unstated length takes at a time.
const STEP_BYTES: usize = 256 * 1024;

/// The memory that bodies may take.
#[derive(Clone)]
pub(crate) struct BodyMemory(Arc<Semaphore>);

/// A body and its place in memory, which is free again when this is dropped.
pub(crate) struct Received {
    /// The whole of it.
    pub(crate) bytes: Bytes,
    /// Keep it for as long as the bytes.
    pub(crate) place: Place,
}

/// A share of [`BodyMemory`].
#[derive(Default)]
pub(crate) struct Place(Option<OwnedSemaphorePermit>);

enum Fault {
    TooLarge,
    BrokenOff,
    NoMemory,
}

impl BodyMemory {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(MAX_KIB_IN_MEMORY).unwrap_or(usize::MAX))))
    }

    fn take(&self, place: &mut Place, bytes: usize) -> Result<(), Fault> {
        let kib = u32::try_from(bytes.div_ceil(1024)).map_err(|_| Fault::NoMemory)?;
        let more = Arc::clone(&self.0).try_acquire_many_owned(kib).map_err(|_| Fault::NoMemory)?;
        match &mut place.0 {
            Some(held) => held.merge(more),
            None => place.0 = Some(more),
        }
        Ok(())
    }
}

/// The body, if it has at most `limit` bytes.
pub(crate) async fn read(
    memory: &BodyMemory,
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
) -> Result<Received, ApiError> {
    let stated = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if stated.is_some_and(|length| length > limit) {
        // A client that asked first has not sent anything.
        if !headers.contains_key(EXPECT) {
            drain(body).await;
        }
        return Err(ApiError::too_large(limit));
    }
    match timeout(BODY_TIMEOUT, collect(memory, &mut body, stated, limit)).await {
        Ok(Ok(received)) => Ok(received),
        Ok(Err(Fault::TooLarge)) => {
            drain(body).await;
            Err(ApiError::too_large(limit))
        }
        Ok(Err(Fault::BrokenOff)) => Err(ApiError::new(Code::InvalidRequest, "The body broke off.")),
        Ok(Err(Fault::NoMemory)) => Err(ApiError::unavailable("Too many large bodies at once; try again in a moment.")),
        Err(_) => Err(ApiError::new(Code::RequestTimeout, "The body did not arrive in time.")),
    }
}

/// A body that comes in one piece is not copied.
async fn collect(memory: &BodyMemory, body: &mut Body, stated: Option<usize>, limit: usize) -> Result<Received, Fault> {
    let (mut place, mut paid) = (Place::default(), SMALL_BYTES);
    if let Some(stated) = stated.filter(|stated| *stated > SMALL_BYTES) {
        memory.take(&mut place, stated)?;
        paid = stated;
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Fault::BrokenOff)?.into_data() else { continue };
        let size = first.len() + rest.len() + data.len();
        if size > limit {
            return Err(Fault::TooLarge);
        }
        if size > paid {
            let step = (size - paid).max(STEP_BYTES);
            memory.take(&mut place, step)?;
            paid += step;
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(stated.unwrap_or(size).max(size));
            rest.extend_from_slice(&first);
            first.clear();
        }
        rest.extend_from_slice(&data);
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    Ok(Received { bytes, place })
}

/// Throws away what is left of a body that is refused, within bounds.
pub(crate) async fn drain(mut body: Body) {
    let throw_away = async {
        let mut seen = 0_u64;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, |data| data.len() as u64);
            if seen > MAX_DRAINED_BYTES {
                break;
            }
        }
    };
    // The answer is the same whether or not the rest came.
    let _ = timeout(DRAIN_TIMEOUT, throw_away).await;
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn large_bodies_take_memory_and_give_it_back() {
        let memory = BodyMemory::new();
        let free = memory.0.available_permits();
        let pieces = (0..10).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 100_000])));
        let body = Body::from_stream(stream::iter(pieces));
        let received = read(&memory, &HeaderMap::new(), body, 2_000_000).await.unwrap_or_else(|_| panic!("it fits"));
        assert_eq!(received.bytes.len(), 1_000_000);
        assert!(free - memory.0.available_permits() >= (1_000_000 - SMALL_BYTES) / 1024);
        drop(received);
        assert_eq!(memory.0.available_permits(), free);
    }

    #[tokio::test]
    async fn a_stated_length_without_room_is_refused_unread() {
        let memory = BodyMemory(Arc::new(Semaphore::new(10)));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, 1_000_000.into());
        let refused = read(&memory, &headers, Body::from("{}"), 2_000_000).await.err().map(|error| error.status());
        assert_eq!(refused, Some(http::StatusCode::SERVICE_UNAVAILABLE));
    }
}
