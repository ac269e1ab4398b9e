//! Holds: the parts of the executable: configuration, command line, telemetry, TLS.
//!
//! Wires crates together and decides nothing about requests, money or models.

pub mod cli;
pub mod config;
pub mod telemetry;
pub mod tls;
