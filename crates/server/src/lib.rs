//! Holds: the parts of the executable: wiring, connections, telemetry, the command line.
//!
//! Wires crates together and decides nothing about requests, money or models.

mod audit_log;
pub mod cli;
pub mod commands;
pub mod faults;
mod memory;
mod secret_key;
mod serve;
pub mod telemetry;
pub mod tls;
mod wiring;
mod world;
