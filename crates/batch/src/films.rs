//! Holds: films: jobs that go on without whoever asked for them, as their owners see them.
//!
//! `films/maker.rs` has them made.

pub(crate) mod fetch;
pub(crate) mod maker;
pub(crate) mod mp4;
pub(crate) mod outcome;

use std::{ops::Range, sync::Arc, time::Duration};

use batchin_domain::{
    AccountId, AspectRatio, FilmFile, Frame, RequestId, Timestamp, VideoId,
    film::{DEFAULT_FILM_SECONDS, MAX_FILM_SECONDS},
};
use batchin_files::{Blobs, ContentError, Files, WriteFileError};
use batchin_gateway::{AnswerError, Caller, Gateway, Model};
use batchin_store::{
    BlobRange, FilmOrder, FilmPage, FilmRow, FilmRows, IdempotencyScope, NewFilm, StoreError, StoredAnswer, StoredFilm,
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::sync::Notify;
use tracing::info;

/// What the operator may set.
#[derive(Clone, Copy, Debug)]
pub struct FilmsOptions {
    /// How long a film, or the word that there is none, is kept after the end of its job.
    pub keep: Duration,
    /// How long a server may take for one, from when it was asked.
    pub timeout: Duration,
    /// The most seconds that one may be asked to last, 1 to 60.
    pub max_seconds: u32,
    /// Jobs of one account that are not over.
    pub max_open: u64,
    /// Jobs that this node waits for at once.
    pub concurrency: u32,
}

impl Default for FilmsOptions {
    fn default() -> Self {
        Self {
            keep: Duration::from_secs(168 * 3_600),
            timeout: Duration::from_secs(3_600),
            max_seconds: MAX_FILM_SECONDS,
            max_open: 100,
            concurrency: 64,
        }
    }
}

/// The shape of a picture, as it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilmShape {
    /// As usual.
    #[default]
    Usual,
    /// By the ratio of its sides.
    Ratio(AspectRatio),
    /// By its sides.
    Frame(Frame),
}

/// What somebody wants to have made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilmWish {
    /// The model as asked for.
    pub model: String,
    /// What is to be seen.
    pub prompt: String,
    /// How long it is to last; four seconds without it.
    pub seconds: Option<u32>,
    /// Its shape.
    pub shape: FilmShape,
}

/// Why no job was begun. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum CreateFilmError {
    /// It would be longer than the operator allows.
    #[error("the film would last more than {most} seconds")]
    TooLong {
        /// The limit.
        most: u32,
    },
    /// The model cannot make a picture of this size.
    #[error("the model makes no such picture")]
    Size {
        /// What it is asked for.
        asked: Frame,
        /// The model's id.
        model: String,
        /// Sizes that it makes, one for each ratio.
        sizes: Vec<Frame>,
    },
    /// The account has as many jobs that are not over as it may.
    #[error("the account has {most} jobs that are not over")]
    TooManyOpen {
        /// The limit.
        most: u64,
    },
    /// No model can make it, or it cannot be paid for.
    #[error(transparent)]
    Refused(#[from] AnswerError),
    /// There is no room for it.
    #[error("there is no room for a film")]
    NoRoom(#[source] WriteFileError),
    /// It could not be stored.
    #[error("the job could not be stored")]
    Store(#[source] StoreError),
}

/// Says what to remember of a job for its request's Idempotency-Key.
pub type RememberFilm = Box<dyn FnOnce(&FilmRow) -> (IdempotencyScope, StoredAnswer) + Send>;

/// Films. Cheap to clone.
#[derive(Clone)]
pub struct Films {
    gateway: Gateway,
    rows: FilmRows,
    blobs: Blobs,
    files: Files,
    /// Tells this node's maker, if it has one, that there is something to do.
    wake: Arc<Notify>,
    options: FilmsOptions,
}

impl Films {
    /// Films that this gateway pays for and that are kept here.
    pub fn new(gateway: Gateway, rows: FilmRows, (blobs, files): (Blobs, Files), options: FilmsOptions) -> Self {
        Self { gateway, rows, blobs, files, wake: Arc::new(Notify::new()), options }
    }

    /// Begins a job, once it is known that it can be made and paid for now. What it may cost is set aside when its turn
    /// comes; until then it costs nothing.
    pub async fn create(
        &self,
        caller: &Caller,
        wish: FilmWish,
        remember: Option<RememberFilm>,
    ) -> Result<FilmRow, CreateFilmError> {
        let seconds = wish.seconds.unwrap_or_else(|| DEFAULT_FILM_SECONDS.min(self.options.max_seconds));
        if seconds > self.options.max_seconds {
            return Err(CreateFilmError::TooLong { most: self.options.max_seconds });
        }
        self.files.check_disk().map_err(CreateFilmError::NoRoom)?;
        let model = self.gateway.check_film(caller, (&wish.model, &wish.prompt, seconds)).await?;
        let frame = frame(&model, wish.shape)?;
        // Several at once may pass together; it bounds what waits, not what is spent.
        let open = self.rows.open_films(caller.account).await.map_err(CreateFilmError::Store)?;
        if open >= self.options.max_open {
            return Err(CreateFilmError::TooManyOpen { most: self.options.max_open });
        }
        let request = RequestId::new(self.gateway.ids().uuid());
        let mut new = NewFilm {
            id: VideoId::new(self.gateway.ids().uuid()),
            account: caller.account,
            key: caller.key,
            order: FilmOrder { request, model: wish.model, prompt: wish.prompt, seconds, frame },
            answer: None,
            now: self.now(),
        };
        let row = new.row();
        new.answer = remember.map(|remember| remember(&row));
        self.rows.create_film(&new).await.map_err(CreateFilmError::Store)?;
        batchin_faults::point("film.created");
        self.wake.notify_one();
        info!(video.id = %new.id, "film {} is to be made", new.id);
        Ok(row)
    }

    /// One of an account's jobs.
    pub async fn show(&self, account: AccountId, id: VideoId) -> Result<Option<FilmRow>, StoreError> {
        self.rows.film(account, id, self.now()).await
    }

    /// Part of an account's jobs.
    pub async fn list(&self, account: AccountId, page: FilmPage) -> Result<Vec<FilmRow>, StoreError> {
        self.rows.films(account, page, self.now()).await
    }

    /// Stops a job that is not over, for nothing; of one that is, the film goes, and the job with it. Returns the job as it
    /// stood before; `None`: there is none.
    pub async fn give_up(&self, account: AccountId, id: VideoId) -> Result<Option<FilmRow>, StoreError> {
        let now = self.now();
        let before = self.rows.give_up_film((account, id), now, now.after(self.options.keep)).await?;
        // A server may still be at it.
        self.wake.notify_one();
        Ok(before)
    }

    /// The bytes `range` of a film, which lie within its length. The stream ends with an error where it is gone.
    pub fn content(
        &self,
        film: &StoredFilm,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, ContentError>> + Send + 'static {
        let (offset, len) = (range.start, range.end.saturating_sub(range.start));
        self.blobs.content(&[BlobRange { blob: film.blob.clone(), offset, len }])
    }

    /// What a film's file is. One that is gone is told where it is read.
    pub async fn file(&self, film: &StoredFilm) -> FilmFile {
        let mut begins = Vec::with_capacity(FilmFile::HEAD);
        let mut pieces = std::pin::pin!(self.content(film, 0..film.bytes.min(FilmFile::HEAD as u64)));
        while let Some(Ok(piece)) = pieces.next().await {
            begins.extend_from_slice(&piece);
        }
        FilmFile::told_by(&begins).unwrap_or(FilmFile::Mp4)
    }

    pub(crate) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    pub(crate) fn options(&self) -> FilmsOptions {
        self.options
    }

    fn now(&self) -> Timestamp {
        self.gateway.clock().now()
    }
}

/// The size that is meant, if the model can make it.
fn frame(model: &Model, shape: FilmShape) -> Result<Frame, CreateFilmError> {
    match shape {
        FilmShape::Usual => Ok(model.film.frame(AspectRatio::DEFAULT)),
        FilmShape::Ratio(ratio) => Ok(model.film.frame(ratio)),
        FilmShape::Frame(asked) if model.film.takes(asked) => Ok(asked),
        FilmShape::Frame(asked) => {
            let sizes = AspectRatio::ALL.map(|ratio| model.film.frame(ratio)).to_vec();
            Err(CreateFilmError::Size { asked, model: model.id.clone(), sizes })
        }
    }
}

/// The folder of a job's blobs.
fn folder_of(id: VideoId) -> String {
    format!("films/{}", id.uuid())
}
