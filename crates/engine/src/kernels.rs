//! Holds: kernels of our own for processors with AVX-512 VNNI, where most of a pass is spent: products with Q8_0
//! weights, and attention. What a token becomes does not depend on which others are computed with it, only on the order
//! in which the cells that it sees lie in the cache.
//!
//! ggml's product for Q8_0 takes rows as they lie in the file and works in 256 bits, with as many instructions around
//! each sum as in it. Here 16 rows are interleaved when a model is loaded, so that one instruction adds 64 products to
//! 16 sums. Its attention looks at every cell of the cache for every head, whoever the cell belongs to; here a token's
//! cells are listed first, 32 at a look, and only those are computed with. What the processor cannot do stays with ggml.

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

/// Puts the kernels to work for every model that is loaded from now on, if this processor has what they need; says
/// whether it has.
pub(crate) fn install() -> bool {
    static INSTALLED: Once = Once::new();
    if !is_available() {
        return false;
    }
    INSTALLED.call_once(|| {
        let kernels = Kernels {
            pack: q8::pack,
            quantized_size: q8::quantized_size,
            quantize: q8::quantize,
            multiply: q8::multiply,
            attend_size: attention::scratch_size,
            attend: attention::attend,
        };
        // SAFETY: the table is copied; its functions have the types of the seam's, and the processor can run them.
        unsafe { batchin_install_kernels(&raw const kernels) };
    });
    true
}

fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}
