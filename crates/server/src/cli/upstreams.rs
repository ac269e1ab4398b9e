//! Holds: `batchin upstreams` as it is typed.

use clap::Subcommand;

use super::Report;

/// `batchin upstreams`
#[derive(Debug, Subcommand)]
pub enum Upstreams {
    /// List the configured model servers: models, which are drained, and what is under way at those
    #[command(after_help = "Examples:\n  batchin upstreams list\n  batchin upstreams list --json")]
    List(Report),
    /// Send a model server no new calls, within two seconds on every node; what is under way there goes on
    #[command(after_help = "Examples:\n  batchin upstreams drain gpu-1")]
    Drain {
        /// Its name in the configuration
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Send a drained model server calls again, within two seconds on every node
    #[command(after_help = "Examples:\n  batchin upstreams resume gpu-1")]
    Resume {
        /// Its name in the configuration, or that of a drained one that has left it
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}
