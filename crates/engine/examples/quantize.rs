//! Requantises a GGUF to Q8_0: `cargo run --release -p batchin-engine --example quantize -- IN.gguf OUT.gguf`.

#![expect(clippy::print_stderr, reason = "an example speaks to its terminal")]

use std::{path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [input, output] = paths.as_slice() else {
        eprintln!("usage: quantize IN.gguf OUT.gguf");
        return ExitCode::from(2);
    };
    match batchin_engine::quantize_q8_0(input, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
