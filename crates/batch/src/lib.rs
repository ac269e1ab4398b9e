//! Holds: answering later: intake → claim → execute → close.
//!
//! Tasks run through the gateway's pipeline like any request, at their class's price and after interactive ones. A task
//! finishes exactly once: its result, its charge and its end are one transaction under the claim's epoch. So does a film,
//! which is a job of its own, made by a server over minutes.

mod closing;
mod depth;
mod films;
mod input;
mod intake;
mod json;
mod lines;
mod loading;
mod moving;
mod outcome;
mod reading;
mod results;
mod steward;
mod submit;
mod worker;

pub use films::maker::{FilmParts, Maker};
pub use films::{CreateFilmError, FilmShape, FilmWish, Films, FilmsOptions, RememberFilm};
pub use intake::{CheckedTask, MAX_FAULTS, MAX_TASKS, Order, RawTerms, TaskFault};
pub use lines::LineFault;
pub use reading::MAX_LINES;
pub use submit::{Batches, Estimate, FileOrder, OpenLimits, Remember, SubmitError};
pub use worker::{Worker, WorkerOptions, WorkerParts};
