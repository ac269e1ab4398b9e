//! Holds: the simulated model server as a program, for benchmarks and hand tests.
//!
//! `sim --port 19999` answers every request at once with about 1 KB; a model named `sim:…` describes what else to do.

use std::net::SocketAddr;

use batchin_sim::{Answer, Behaviour, FILM, FilmFormat, FilmScript, SimServer};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A simulated model server. It holds no model: answers are made up, counts are exact.
#[derive(Parser)]
#[command(after_help = "Examples:\n  sim --port 19999\n  sim --port 19999 --threads 2 --tokens 200 --gap-ms 5")]
struct Arguments {
    /// Port on the loopback address.
    #[arg(long, default_value_t = 19999)]
    port: u16,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Tokens of an answer; 110 make 1 KB.
    #[arg(long, default_value_t = 110)]
    tokens: u32,
    /// Milliseconds before each delta of a stream.
    #[arg(long, default_value_t = 0)]
    gap_ms: u64,
    /// Milliseconds before the first byte.
    #[arg(long, default_value_t = 0)]
    first_ms: u64,
    /// Bytes of each film, about.
    #[arg(long, default_value_t = 0)]
    film_bytes: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(arguments.threads).enable_all().build()?;
    runtime.block_on(async {
        let server = SimServer::start_unrecorded(SocketAddr::from(([127, 0, 0, 1], arguments.port))).await?;
        server.script_all(Behaviour::Answer(Answer {
            first_byte: std::time::Duration::from_millis(arguments.first_ms),
            gap: std::time::Duration::from_millis(arguments.gap_ms),
            ..Answer::of(arguments.tokens)
        }));
        let padding = arguments.film_bytes.saturating_sub(FILM.len() as u64);
        server.script_films(FilmScript { format: FilmFormat::OpenAi, padding, ..FilmScript::default() });
        tokio::signal::ctrl_c().await?;
        server.stop().await;
        Ok(())
    })
}
