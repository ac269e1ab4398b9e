//! Holds: answering now: admit → reserve → dispatch → meter → settle.
//!
//! One pipeline for every request, interactive or from a batch. It never parses more of a body than routing and pricing
//! need, keeps no copy of it, and acknowledges nothing whose charge is not durable.

mod admit;
mod attempt;
mod bill;
mod caller;
mod catalog;
mod dispatch;
mod drains;
mod epoch;
mod escrow;
mod failover;
mod fallback;
mod film;
mod gateway;
mod idempotent;
mod leaving;
mod line;
mod links;
mod looks;
mod made;
mod meter;
mod meters;
mod pace;
mod picture;
mod probing;
mod reserve;
mod retell;
mod run;
mod shelf;
mod shown;
mod sound;
mod spoken;
mod stream;
mod task;
mod told;
mod waiters;

pub use admit::{AdmitError, Inbound};
pub use attempt::{DispatchError, NoRoom};
pub use batchin_upstream::{FilmBytes, FilmState};
pub use bill::{SettleError, Unsettled};
pub use caller::Caller;
pub use catalog::{Availability, Catalog, CatalogError, Model, OverLimit, TokenInput};
pub use dispatch::{Dispatcher, Running, Work};
pub use drains::{DrainError, Upstream};
pub use epoch::{Books, Epoch, Fenced, Keeper, KeeperOptions};
pub use escrow::{Escrow, EscrowError};
pub use film::{FilmSeat, FilmTrouble, HeldFilm};
pub use gateway::{FLEX_PATIENCE, Gateway, GatewayOptions, GatewayParts};
pub use idempotent::{IdempotencyGuard, IdempotencyKey, Keyed, KeyedError, Turn};
pub use links::Links;
pub use reserve::{CapError, PurseError, RateInfo, ReserveError, TakeError};
pub use run::{AnswerError, Checked, Promise, Reply, ReplyBody};
pub use shelf::{PICTURES_KEPT, Shelf};
pub use shown::{Brought, MAX_SHOWN, Shown};
pub use sound::Sound;
pub use spoken::{Recording, RecordingError, SoundError, SpokenStream, recording};
pub use stream::MeteredStream;
pub use task::{Again, TaskError, UpstreamFailure};
pub use told::Reader;
