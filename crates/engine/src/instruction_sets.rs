//! Holds: whether llama.cpp was compiled for the processor that it runs on. A build for plain x86-64 decodes eight
//! times slower than one for AVX-512, and nothing else would show it.

use tracing::{info, warn};

/// Logs what is compiled in, and warns about what the processor has beyond that.
pub(crate) fn report(system_info: &str) {
    info!(engine.features = system_info, "engine built with {}", compiled_in(system_info).join(" "));
    let unused = unused(system_info, &available());
    if !unused.is_empty() {
        warn!(
            "this processor has {} and the engine was built without; build with RUSTFLAGS=\"-C target-cpu=native\" for \
             several times the speed",
            unused.join(", ")
        );
    }
}

fn compiled_in(system_info: &str) -> Vec<&str> {
    system_info
        .split(['|', ':'])
        .filter_map(|part| part.split_once('='))
        .filter(|(_, value)| value.trim() == "1")
        .map(|(name, _)| name.trim())
        .collect()
}

fn unused<'a>(system_info: &str, available: &[&'a str]) -> Vec<&'a str> {
    let built = compiled_in(system_info);
    available.iter().filter(|name| !built.contains(name)).copied().collect()
}

/// Names as llama.cpp writes them.
#[cfg(target_arch = "x86_64")]
fn available() -> Vec<&'static str> {
    let mut names = Vec::new();
    macro_rules! has {
        ($($feature:tt => $name:literal),*) => {
            $(if std::arch::is_x86_feature_detected!($feature) { names.push($name); })*
        };
    }
    has!("avx" => "AVX", "avx2" => "AVX2", "fma" => "FMA", "f16c" => "F16C", "bmi2" => "BMI2", "avx512f" => "AVX512",
        "avx512vnni" => "AVX512_VNNI", "avx512bf16" => "AVX512_BF16");
    names
}

#[cfg(not(target_arch = "x86_64"))]
fn available() -> Vec<&'static str> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_llama_cpps_own_words() {
        let info = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | REPACK = 1 | ";
        assert_eq!(compiled_in(info), ["SSE3", "AVX2", "REPACK"]);
        assert_eq!(unused(info, &["AVX2", "AVX512"]), ["AVX512"]);
    }
}
