//! Holds: products of Q8_0 weights with the activations of several tokens.
//!
//! Q8_0 (ggml): each row in blocks of 32 values, a block being a scale in half precision and 32 signed bytes. Packed,
//! 16 rows of one block are 8 vectors of 64 bytes, vector `v` with values `4v..4v + 4` of each row, all with 128 added,
//! as `vpdpbusd` multiplies unsigned by signed bytes. Behind the bytes of all rows come the scales, 16 for each block.
//!
//! Activations are quantised as Q8_0, with scales in single precision, for up to [`TILE`] tokens at a time: for each
//! block first the tokens' bytes, then their scales, then what takes the 128 out of their sums again.

use std::arch::x86_64::{
    _mm_storeu_si128, _mm256_loadu_si256, _mm512_abs_ps, _mm512_add_epi32, _mm512_cvtepi32_epi8, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_cvtps_epi32, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_add_epi32, _mm512_reduce_max_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
};
use std::slice;

/// Rows that are computed together: one for each lane of 32 bits.
const ROWS: usize = 16;

/// Values of a block.
const BLOCK: usize = 32;

/// Bytes of a block in a file: its scale and its values.
const FILED: usize = 2 + BLOCK;

/// Bytes of a packed block of [`ROWS`] rows, without their scales.
const PACKED: usize = ROWS * BLOCK;

/// Tokens that are computed together: sums in half of the registers.
const TILE: usize = 8;

/// Bytes of a block of one token: values, scale, correction.
const QUANTIZED: usize = BLOCK + 8;

/// Packed weights and quantised tokens, and where their products go: `out[token * rows + row]`; `batchin_product` of the
/// seam.
#[repr(C)]
pub(super) struct Product {
    packed: *const u8,
    rows: usize,
    width: usize,
    quantized: *const u8,
    tokens: usize,
    out: *mut f32,
}

/// Packs `count` rows of `width` values.
///
/// # Safety
///
/// `count` is a multiple of 16, `width` one of 32; both sides have `count * width / 32 * 34` bytes and do not overlap.
pub(super) unsafe extern "C" fn pack(packed: *mut u8, rows: *const u8, count: usize, width: usize) {
    let blocks = width / BLOCK;
    let size = count * blocks * FILED;
    // SAFETY: by contract of this function.
    let (packed, rows) = unsafe { (slice::from_raw_parts_mut(packed, size), slice::from_raw_parts(rows, size)) };
    let (values, scales) = packed.split_at_mut(count * width);
    let places = values.chunks_exact_mut(PACKED).zip(scales.chunks_exact_mut(2 * ROWS));
    for (at, (values, scales)) in places.enumerate() {
        let (group, block) = (at / blocks, at % blocks);
        for row in 0..ROWS {
            let from = ((group * ROWS + row) * blocks + block) * FILED;
            let (scale, bytes) = rows[from..from + FILED].split_at(2);
            scales[2 * row..2 * row + 2].copy_from_slice(scale);
            let places = values.chunks_exact_mut(4 * ROWS);
            for (place, four) in places.zip(bytes.as_chunks::<4>().0) {
                place[4 * row..4 * row + 4].copy_from_slice(&four.map(|byte| byte ^ 0x80));
            }
        }
    }
}

/// Bytes that quantised activations of this many tokens take.
pub(super) extern "C" fn quantized_size(width: usize, tokens: usize) -> usize {
    width / BLOCK * QUANTIZED * tokens
}

/// Quantises one of `tokens` tokens.
///
/// # Safety
///
/// `quantized` has room for all tokens, `values` are `width`, a multiple of 32. AVX-512 is there.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe extern "C" fn quantize(
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
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe extern "C" fn multiply(product: *const Product, first: usize, count: usize) {
    // SAFETY: by contract of this function.
    let &Product { packed, rows, width, quantized, tokens, out } = unsafe { &*product };
    let blocks = width / BLOCK;
    for group in first..first + count {
        for tile in 0..tokens.div_ceil(TILE) {
            let kernel = match tokens - tile * TILE {
                1 => multiply_tile::<1>,
                2 => multiply_tile::<2>,
                3 => multiply_tile::<3>,
                4 => multiply_tile::<4>,
                5 => multiply_tile::<5>,
                6 => multiply_tile::<6>,
                7 => multiply_tile::<7>,
                _ => multiply_tile::<TILE>,
            };
            // SAFETY: inside of what the contract of this function grants.
            unsafe {
                let values = packed.add(group * blocks * PACKED);
                let scales = packed.add(rows * width + group * blocks * 2 * ROWS);
                let tokens = quantized.add(tile * TILE * blocks * QUANTIZED);
                kernel((values, scales), tokens, blocks, out.add(tile * TILE * rows + group * ROWS), rows);
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    /// The scale 2^-7 in half precision, and in single.
    const SCALE: (u16, f32) = (0x2000, 0.007_812_5);

    #[test]
    fn products_are_those_of_the_rows_in_the_file() {
        if !super::super::is_available() {
            return;
        }
        let mut random = StdRng::seed_from_u64(8);
        for (rows, width, tokens) in
            [(16, 32, 1), (32, 96, 3), (48, 576, 8), (64, 64, 9), (16, 1536, 20), (80, 128, 31)]
        {
            let weights: Vec<i8> = (0..rows * width).map(|_| random.random_range(-127..=127)).collect();
            let mut filed = Vec::new();
            for block in weights.chunks(BLOCK) {
                filed.extend(SCALE.0.to_le_bytes());
                filed.extend(block.iter().map(|&w| w.cast_unsigned()));
            }
            let values: Vec<f32> = (0..tokens * width).map(|_| random.random_range(-3.0..3.0)).collect();

            let mut packed = vec![0; filed.len()];
            let mut quantized = vec![0; quantized_size(width, tokens)];
            let mut out = vec![f32::NAN; rows * tokens];
            // SAFETY: sizes and shapes are those of the contracts.
            unsafe {
                pack(packed.as_mut_ptr(), filed.as_ptr(), rows, width);
                for (token, values) in values.chunks(width).enumerate() {
                    quantize(quantized.as_mut_ptr(), values.as_ptr(), width, token, tokens);
                }
                let product = Product {
                    packed: packed.as_ptr(),
                    rows,
                    width,
                    quantized: quantized.as_ptr(),
                    tokens,
                    out: out.as_mut_ptr(),
                };
                multiply(&raw const product, 0, 1);
                multiply(&raw const product, 1, rows / ROWS - 1);
            }

            for (token, values) in values.chunks(width).enumerate() {
                for row in 0..rows {
                    let weights = weights[row * width..][..width].iter().map(|&w| f64::from(w) * f64::from(SCALE.1));
                    let exact: f64 = weights.clone().zip(values).map(|(w, &x)| w * f64::from(x)).sum();
                    // Each value is off by half a step, a 127th of the largest, at most.
                    let step = 3.0 / 127.0 / 2.0;
                    let bound: f64 = weights.map(|w| w.abs() * step).sum::<f64>() + 1e-3;
                    let got = f64::from(out[token * rows + row]);
                    assert!(
                        (got - exact).abs() <= bound,
                        "{rows}x{width}, token {token}, row {row}: {got}, not {exact}"
                    );
                    // Errors of so many roundings cancel out; a sum near its bound is a wrong one.
                    assert!(width < 96 || (got - exact).abs() < bound / 4.0, "{got} is far from {exact}");
                }
            }
        }
    }

    #[test]
    fn nothing_times_anything_is_nothing() {
        if !super::super::is_available() {
            return;
        }
        let mut quantized = vec![0xAA; quantized_size(64, 2)];
        let zeros = [0.0; 64];
        let filed = [0x11; 16 * 2 * FILED];
        let mut packed = [0; 16 * 2 * FILED];
        let mut out = [f32::NAN; 32];
        // SAFETY: sizes and shapes are those of the contracts.
        unsafe {
            pack(packed.as_mut_ptr(), filed.as_ptr(), 16, 64);
            quantize(quantized.as_mut_ptr(), zeros.as_ptr(), 64, 0, 2);
            quantize(quantized.as_mut_ptr(), zeros.as_ptr(), 64, 1, 2);
            let (packed, quantized, out) = (packed.as_ptr(), quantized.as_ptr(), out.as_mut_ptr());
            let product = Product { packed, rows: 16, width: 64, quantized, tokens: 2, out };
            multiply(&raw const product, 0, 1);
        }
        assert_eq!(out, [0.0; 32]);
    }
}
