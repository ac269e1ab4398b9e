//! Holds: fetching a film from its server into our store, and measuring it there.

use batchin_domain::{FilmFile, film::film_ms};
use batchin_files::Blobs;
use batchin_gateway::{FilmSeat, FilmTrouble, Gateway};
use batchin_store::{FilmClaim, StoredFilm};
use tracing::warn;

use super::{folder_of, mp4};

/// The largest film that is taken, in bytes: a minute of 4K has less.
pub(crate) const MAX_FILM_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// A film that lies in our store.
pub(crate) struct Fetched {
    pub(crate) film: StoredFilm,
    /// Its length was not measured: it is what was asked for.
    pub(crate) estimated: bool,
}

/// Why a film is not here.
#[derive(Debug)]
pub(crate) enum NotFetched {
    /// The server does not have it.
    Gone,
    /// It could not be fetched to its end.
    Broken(FilmTrouble),
    /// It is larger than is taken.
    TooLarge,
    /// It could not be stored.
    NotStored,
}

/// What is known of a film's length before it is here.
#[derive(Clone, Copy)]
pub(crate) struct Length {
    /// As the server tells it.
    pub(crate) told: Option<u64>,
    /// Frames a second, as they were asked for.
    pub(crate) fps: u32,
    /// Seconds, as they were asked for.
    pub(crate) seconds: u32,
}

/// Streams a film into a blob of this claim's own, and measures it.
pub(crate) async fn fetch(
    (gateway, blobs): (&Gateway, &Blobs),
    (seat, remote): (&FilmSeat, &str),
    claim: FilmClaim,
    length: Length,
) -> Result<Fetched, NotFetched> {
    // Two nodes never write one blob, whatever one of them has not heard of.
    let blob = format!("{}/{}", folder_of(claim.video), claim.epoch);
    let mut pieces = seat.content(remote).await.map_err(NotFetched::Broken)?.ok_or(NotFetched::Gone)?;
    let mut writer = blobs.writer(&blob).map_err(not_stored)?;
    let (mut bytes, mut begins) = (0_u64, Vec::with_capacity(FilmFile::HEAD));
    let broken = loop {
        match pieces.next().await {
            Ok(None) => break None,
            Err(cause) => break Some(NotFetched::Broken(cause)),
            Ok(Some(piece)) => {
                bytes = bytes.saturating_add(piece.len() as u64);
                begins.extend(piece.iter().take(FilmFile::HEAD - begins.len()));
                if bytes > MAX_FILM_BYTES {
                    break Some(NotFetched::TooLarge);
                }
                if !gateway.epoch().holds() {
                    break Some(NotFetched::NotStored);
                }
                if let Err(cause) = writer.write(piece).await {
                    break Some(not_stored(cause));
                }
            }
        }
    };
    // A page that says what is wrong is no film, whatever its status.
    let broken = broken.or_else(|| FilmFile::told_by(&begins).is_none().then_some(NotFetched::Gone));
    if let Some(broken) = broken {
        // What is left of it goes with the job.
        let _ = writer.abort().await;
        return Err(broken);
    }
    writer.finish().await.map_err(not_stored)?;
    batchin_faults::point("film.stored");
    let measured = match length.told {
        Some(ms) => Some(ms),
        None => measured(blobs, &blob, bytes, length.fps).await?,
    };
    let asked = u64::from(length.seconds) * 1_000;
    Ok(Fetched { film: StoredFilm { blob, bytes, ms: measured.unwrap_or(asked) }, estimated: measured.is_none() })
}

async fn measured(blobs: &Blobs, blob: &str, bytes: u64, fps: u32) -> Result<Option<u64>, NotFetched> {
    let frames = mp4::frames(blobs, blob, bytes).await.map_err(not_stored)?;
    Ok(frames.and_then(|frames| film_ms(frames.count, frames.milli_fps.unwrap_or(u64::from(fps) * 1_000))))
}

fn not_stored(cause: batchin_files::BlobError) -> NotFetched {
    warn!(error = &cause as &dyn std::error::Error, "a film could not be stored");
    NotFetched::NotStored
}
