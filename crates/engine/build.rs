//! Compiles the seam between ggml and the kernels of this crate, and what makes grammars, against the sources that
//! `llama-cpp-sys-2` was built from.

#![expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]

use std::{env, error::Error, fs, path::Path};

const SEAM: &str = "native/seam.cpp";
const GRAMMAR: &str = "native/grammar.cpp";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={SEAM}");
    println!("cargo:rerun-if-changed={GRAMMAR}");
    println!("cargo:rustc-check-cfg=cfg(kernels)");
    if env::var_os("CARGO_FEATURE_LLAMA").is_none() {
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
    let (source, ggml) = (Path::new(source), Path::new(source).join("ggml"));
    // Two megabytes of templates, of which a request runs little.
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(1)
        .debug(false)
        .define("NDEBUG", None)
        .file(GRAMMAR)
        .include(source.join("common"))
        .include(source.join("include"))
        .include(source.join("vendor"))
        .include(ggml.join("include"))
        .warnings(false)
        .compile("batchin_grammar");
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch != "x86_64") {
        return Ok(());
    }
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
