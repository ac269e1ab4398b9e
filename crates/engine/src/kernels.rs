//! Holds: kernels of our own for x86-64 processors with AVX-512 VNNI or AVX2, where most of a pass is spent: products with
//! Q8_0 weights, and attention. What a token becomes does not depend on which others are computed with it, only on the
//! order in which the cells that it sees lie in the cache.
//!
//! ggml's product for Q8_0 takes rows as they lie in the file and works in 256 bits, with as many instructions around
//! each sum as in it. Here 16 rows are interleaved when a model is loaded, so that the lanes of a vector are rows, and
//! nothing has to be added up across it. Its attention looks at every cell of the cache for every head, whoever the cell
//! belongs to; here a token's cells are listed first, 32 at a look, and only those are computed with. What the processor
//! cannot do stays with ggml.

#![expect(unsafe_code, reason = "vector instructions on memory that ggml owns")]

mod attention;
mod q8;

use std::{arch::is_x86_feature_detected, sync::Once};

use attention::Attention;

/// What the seam (`native/seam.cpp`) calls. Every function is for the threads of a graph, several at a time.
#[repr(C)]
struct Kernels {
    pack: unsafe extern "C" fn(*mut u8, *const u8, usize, usize),
    quantized_size: extern "C" fn(usize, usize) -> usize,
    quantize: unsafe extern "C" fn(*mut u8, *const f32, usize, usize, usize),
    multiply: unsafe extern "C" fn(*const q8::Product, usize, usize),
    attend_size: extern "C" fn(usize, usize) -> usize,
    attend: unsafe extern "C" fn(*const Attention, *mut u8),
}

unsafe extern "C" {
    fn batchin_install_kernels(kernels: *const Kernels);
}

/// What a processor can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// AVX-512 with VNNI: Intel from Ice Lake, AMD from Zen 4.
    Avx512Vnni,
    /// AVX2 with FMA and F16C: Intel from Haswell, AMD from Zen.
    Avx2,
}

impl Level {
    /// The best first.
    const ALL: [Self; 2] = [Self::Avx512Vnni, Self::Avx2];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Avx512Vnni => "AVX-512 VNNI",
            Self::Avx2 => "AVX2",
        }
    }

    fn is_available(self) -> bool {
        match self {
            Self::Avx512Vnni => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
        }
    }

    fn kernels(self) -> Kernels {
        match self {
            Self::Avx512Vnni => Kernels {
                pack: q8::pack::<{ q8::avx512::ADDED }>,
                quantized_size: q8::avx512::quantized_size,
                quantize: q8::avx512::quantize,
                multiply: q8::avx512::multiply,
                attend_size: attention::scratch_size,
                attend: attention::avx512::attend,
            },
            Self::Avx2 => Kernels {
                pack: q8::pack::<{ q8::avx2::ADDED }>,
                quantized_size: q8::avx2::quantized_size,
                quantize: q8::avx2::quantize,
                multiply: q8::avx2::multiply,
                attend_size: attention::scratch_size,
                attend: attention::avx2::attend,
            },
        }
    }
}

/// Puts the best kernels that this processor can run to work for every model that is loaded from now on; says which, if
/// there are any.
pub(crate) fn install() -> Option<Level> {
    static INSTALLED: Once = Once::new();
    let level = Level::ALL.into_iter().find(|level| level.is_available())?;
    INSTALLED.call_once(|| {
        let kernels = level.kernels();
        // SAFETY: the table is copied; its functions have the types of the seam's, and the processor can run them.
        unsafe { batchin_install_kernels(&raw const kernels) };
    });
    Some(level)
}

#[cfg(test)]
impl Kernels {
    /// Those that can be tested here.
    fn available() -> impl Iterator<Item = Self> {
        Level::ALL.into_iter().filter(|level| level.is_available()).map(Level::kernels)
    }
}
