//! Holds: the products for AVX-512 VNNI: `vpdpbusd` adds four products of unsigned with signed bytes to each of 16 sums.
//!
//! Packed weights have 128 added. Tokens lie in tiles of [`TILE`]: for each block first the tokens' bytes, then their
//! scales, then what takes the 128 out of their sums again.

use std::arch::x86_64::{
    _mm_storeu_si128, _mm256_loadu_si256, _mm512_abs_ps, _mm512_add_epi32, _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_cvtps_epi32, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_add_epi32, _mm512_reduce_max_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
};

use super::{BLOCK, PACKED, Product, ROWS, TILE, multiply_groups, tiles};

/// Added to the weights' bytes.
pub(in crate::kernels) const ADDED: u8 = 0x80;

/// Bytes of a block of one token: values, scale, correction.
const QUANTIZED: usize = BLOCK + 8;

/// Bytes that quantised activations of this many tokens take.
pub(in crate::kernels) extern "C" fn quantized_size(width: usize, tokens: usize) -> usize {
    width / BLOCK * QUANTIZED * tokens
}

/// Quantises one of `tokens` tokens.
///
/// # Safety
///
/// `quantized` has room for all tokens, `values` are `width`, a multiple of 32. AVX-512 is there.
#[target_feature(enable = "avx512f,avx512bw")]
pub(in crate::kernels) unsafe extern "C" fn quantize(
    quantized: *mut u8,
    values: *const f32,
    width: usize,
    token: usize,
    tokens: usize,
) {
    let blocks = width / BLOCK;
    let (tile, lane) = (token / TILE, token % TILE);
    let beside = TILE.min(tokens - tile * TILE);
    for block in 0..blocks {
        // SAFETY: inside of what the contract of this function grants.
        unsafe {
            let at = quantized.add((tile * TILE * blocks + block * beside) * QUANTIZED);
            let low = _mm512_loadu_ps(values.add(block * BLOCK));
            let high = _mm512_loadu_ps(values.add(block * BLOCK + 16));
            let most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
            let by = _mm512_set1_ps(if most > 0.0 { 127.0 / most } else { 0.0 });
            let low = _mm512_cvtps_epi32(_mm512_mul_ps(low, by));
            let high = _mm512_cvtps_epi32(_mm512_mul_ps(high, by));
            let bytes = at.add(lane * BLOCK);
            _mm_storeu_si128(bytes.cast(), _mm512_cvtepi32_epi8(low));
            _mm_storeu_si128(bytes.add(16).cast(), _mm512_cvtepi32_epi8(high));
            at.add(beside * BLOCK).cast::<f32>().add(lane).write_unaligned(most / 127.0);
            let correction = -128 * _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
            at.add(beside * (BLOCK + 4)).cast::<i32>().add(lane).write_unaligned(correction);
        }
    }
}

/// Multiplies `count` groups of 16 rows, from group `first` on, with all tokens.
///
/// # Safety
///
/// `product` describes what is there, and the groups lie within the rows. AVX-512 VNNI is there.
pub(in crate::kernels) unsafe extern "C" fn multiply(product: *const Product, first: usize, count: usize) {
    // SAFETY: by contract of this function.
    unsafe { multiply_groups(product, first..first + count, QUANTIZED, tiles!(multiply_tile)) }
}

/// One group of rows with `N` tokens.
///
/// # Safety
///
/// As [`multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn multiply_tile<const N: usize>(
    (values, scales): (*const u8, *const u8),
    quantized: *const u8,
    blocks: usize,
    out: *mut f32,
    stride: usize,
) {
    let mut totals = [_mm512_setzero_ps(); N];
    for block in 0..blocks {
        // SAFETY: inside of what the contract of this function grants.
        unsafe {
            let values = values.add(block * PACKED);
            let bytes = quantized.add(block * N * QUANTIZED);
            let factors = bytes.add(N * BLOCK).cast::<f32>();
            let corrections = bytes.add(N * (BLOCK + 4)).cast::<i32>();
            let mut sums = [_mm512_setzero_si512(); N];
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_set1_epi32(corrections.add(n).read_unaligned());
            }
            for v in 0..BLOCK / 4 {
                let weights = _mm512_loadu_si512(values.add(v * 64).cast());
                for (n, sum) in sums.iter_mut().enumerate() {
                    let four = bytes.add(n * BLOCK + v * 4).cast::<i32>().read_unaligned();
                    *sum = _mm512_dpbusd_epi32(*sum, weights, _mm512_set1_epi32(four));
                }
            }
            let scale = _mm512_cvtph_ps(_mm256_loadu_si256(scales.add(block * 2 * ROWS).cast()));
            for (n, (total, sum)) in totals.iter_mut().zip(sums).enumerate() {
                let factor = _mm512_mul_ps(scale, _mm512_set1_ps(factors.add(n).read_unaligned()));
                *total = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), factor, *total);
            }
        }
    }
    for (n, total) in totals.iter().enumerate() {
        // SAFETY: inside of what the contract of this function grants.
        unsafe { _mm512_storeu_ps(out.add(n * stride), *total) };
    }
}
