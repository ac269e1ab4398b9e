//! Compiles the seam between ggml and the kernels of this crate, against the sources that `llama-cpp-sys-2` was built
//! from.

#![expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]

use std::{env, error::Error, fs, path::Path};

const SEAM: &str = "native/seam.cpp";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={SEAM}");
    println!("cargo:rustc-check-cfg=cfg(kernels)");
    let x86_64 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    if env::var_os("CARGO_FEATURE_LLAMA").is_none() || !x86_64 {
        return Ok(());
    }
    // Where it installed its cmake files: OUT/lib/cmake. What it was built from stands in OUT/build.
    let installed =
        env::var("DEP_LLAMA_GGML_CMAKE_DIR").map_err(|_| "llama-cpp-sys-2 does not say where its ggml is")?;
    let out = Path::new(&installed).ancestors().nth(2).ok_or("llama-cpp-sys-2 has no output folder")?;
    let cache = fs::read_to_string(out.join("build/CMakeCache.txt"))?;
    let source = cache
        .lines()
        .find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="))
        .ok_or("the CMake cache of llama.cpp does not name its sources")?;
    let ggml = Path::new(source).join("ggml");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .file(SEAM)
        .include(ggml.join("include"))
        .include(ggml.join("src"))
        .include(ggml.join("src/ggml-cpu"))
        .warnings(false)
        .compile("batchin_seam");
    println!("cargo:rustc-cfg=kernels");
    Ok(())
}
