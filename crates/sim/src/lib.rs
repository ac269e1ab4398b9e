//! Holds: a simulated model server, and a real chain that a test steers: the outside world of tests or benchmarks.
//!
//! It speaks OpenAI's protocol over real sockets and does what its script says: answers, delays, errors in every
//! server's shape, cut connections. Its token counts follow from the request alone, so that a test can work out the
//! exact price. It holds no model and is never part of the product. Beside it stand fakes of a ComfyUI and of Stripe.

mod answer;
mod behaviour;
pub mod chain;
pub mod comfyui;
mod films;
mod form;
mod native;
pub mod pictures;
mod received;
mod reply;
mod server;
pub mod stripe;
pub mod voice;
mod wire;

pub use answer::{prompt_tokens, token_text};
pub use behaviour::{Answer, Behaviour, End, Refusal, UsageMode};
pub use films::{FILM, FilmFormat, FilmJob, FilmScript, SDCPP_FILM};
pub use form::ReceivedForm;
pub use received::ReceivedRequest;
pub use server::SimServer;
pub use wire::{Then, WireRequest, WireServer, Written};
