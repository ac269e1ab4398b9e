//! Holds: what is going on when a process dies.

/// One kind of work that a server is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// A whole answer.
    Whole,
    /// A stream.
    Stream,
    /// A stream that lasts until its usage has been flushed.
    LongStream,
    /// A whole answer of a hosted server, whose client goes away.
    LeftWhole,
    /// A text that is spoken.
    Speech,
    /// A batch of texts that are spoken.
    SpeechBatch,
    /// A picture.
    Picture,
    /// A batch of pictures.
    PictureBatch,
    /// A stream whose client goes away.
    LeftStream,
    /// A request that carries an Idempotency-Key.
    Once,
    /// The same, of a model that only fails.
    RefusedOnce,
    /// A batch.
    Batch,
    /// A batch that is submitted under an Idempotency-Key.
    BatchOnce,
    /// A batch, one of whose tasks only fails.
    FailingTask,
    /// A batch of somebody who has no money.
    PoorBatch,
    /// A film.
    Film,
    /// A film whose server forgets it.
    LostFilm,
    /// A film that its server fails at.
    FailingFilm,
    /// A film that is cancelled while it is made.
    CancelledFilm,
    /// A film that is removed once it is made.
    RemovedFilm,
    /// The server is told to stop while a film is made.
    StoppedFilm,
    /// The server starts.
    Start,
    /// A batch made from a file.
    FileBatch,
    /// A batch, where blobs are in a bucket.
    BucketBatch,
    /// Nothing happens any more after a request.
    Quiet,
    /// The server is told to stop while a batch runs.
    Stop,
    /// The server asks for what another one has leased.
    AskOther,
    /// Another server asks for what this one has leased.
    GiveOther,
    /// Another server has died.
    DeadOther,
    /// The server has stood still for longer than its lease, in the middle of a request.
    Stalled,
    /// A page for a payment by card is opened.
    Checkout,
    /// A card has paid, and Stripe says so.
    Payment,
    /// A part of a payment goes back, and Stripe says so.
    Refund,
    /// A saved card pays by itself, since a balance is low.
    Automatic,
    /// A payment on a chain is final.
    Deposit,
    /// A payment on a chain that was credited goes with its block.
    Orphan,
    /// Records are made, and get their places in the log.
    Record,
}

/// Scenes that are played together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    Requests,
    Batches,
    Buckets,
    Films,
    Server,
    Servers,
    Money,
    Chain,
    Records,
}

impl Scene {
    /// The play that it belongs to.
    pub const fn play(self) -> Play {
        match self {
            Self::Whole
            | Self::Stream
            | Self::LongStream
            | Self::LeftStream
            | Self::LeftWhole
            | Self::Speech
            | Self::Picture
            | Self::Once
            | Self::RefusedOnce => Play::Requests,
            Self::Batch
            | Self::SpeechBatch
            | Self::PictureBatch
            | Self::FileBatch
            | Self::BatchOnce
            | Self::FailingTask
            | Self::PoorBatch => Play::Batches,
            Self::BucketBatch => Play::Buckets,
            Self::Film
            | Self::LostFilm
            | Self::FailingFilm
            | Self::CancelledFilm
            | Self::RemovedFilm
            | Self::StoppedFilm => Play::Films,
            Self::Start | Self::Quiet | Self::Stop => Play::Server,
            Self::AskOther | Self::GiveOther | Self::DeadOther | Self::Stalled => Play::Servers,
            Self::Checkout | Self::Payment | Self::Refund | Self::Automatic => Play::Money,
            Self::Deposit | Self::Orphan => Play::Chain,
            Self::Record => Play::Records,
        }
    }
}
