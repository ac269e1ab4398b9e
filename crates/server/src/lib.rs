//! Holds: the parts of the executable: configuration, wiring, telemetry, roles, the command line.
//!
//! Wires crates together and decides nothing about requests, money or models.

pub mod cli;
pub mod commands;
pub mod config;
pub mod faults;
mod secret_key;
mod serve;
pub mod telemetry;
pub mod tls;
mod wiring;
mod world;
