//! Holds: the products for AVX2: `vpmaddubsw` adds two products of unsigned with signed bytes to each of 16 sums of 16 bits.
//!
//! As those have no room for two products of 8 bits without a sign, the weights lie as they are; their signs are given to the
//! activations, which leaves numbers up to 127 on both sides. Tokens lie in tiles of [`TILE`]: for each block first the
//! tokens' bytes, then their scales.

use std::arch::x86_64::{
    _mm_cvtss_f32, _mm_loadu_si128, _mm_max_ps, _mm_max_ss, _mm_movehdup_ps, _mm_movehl_ps, _mm256_abs_epi8,
    _mm256_add_epi32, _mm256_andnot_ps, _mm256_castps256_ps128, _mm256_cvtepi32_ps, _mm256_cvtph_ps,
    _mm256_cvtps_epi32, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_max_ps, _mm256_mul_ps, _mm256_packs_epi16, _mm256_packs_epi32,
    _mm256_permutevar8x32_epi32, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_ps, _mm256_storeu_si256,
};

use super::{BLOCK, PACKED, Product, ROWS, TILE, multiply_groups, tiles};

/// Added to the weights' bytes.
pub(in crate::kernels) const ADDED: u8 = 0;

/// Bytes of a block of one token: values, scale.
const QUANTIZED: usize = BLOCK + 4;

/// Lanes of 32 bits.
const LANES: usize = 8;

/// Bytes that quantised activations of this many tokens take.
pub(in crate::kernels) extern "C" fn quantized_size(width: usize, tokens: usize) -> usize {
    width / BLOCK * QUANTIZED * tokens
}

/// Quantises one of `tokens` tokens.
///
/// # Safety
///
/// `quantized` has room for all tokens, `values` are `width`, a multiple of 32. AVX2 is there.
#[target_feature(enable = "avx2")]
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
            let values: [_; 4] = std::array::from_fn(|i| _mm256_loadu_ps(values.add(block * BLOCK + i * LANES)));
            let sizes = values.map(|value| _mm256_andnot_ps(_mm256_set1_ps(-0.0), value));
            let most = _mm256_max_ps(_mm256_max_ps(sizes[0], sizes[1]), _mm256_max_ps(sizes[2], sizes[3]));
            let most = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps::<1>(most));
            let most = _mm_max_ps(most, _mm_movehl_ps(most, most));
            let most = _mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most)));
            let by = _mm256_set1_ps(if most > 0.0 { 127.0 / most } else { 0.0 });
            let [a, b, c, d] = values.map(|value| _mm256_cvtps_epi32(_mm256_mul_ps(value, by)));
            // Packing keeps to halves of 128 bits; what four of them give in turn is put in order again.
            let bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
            let bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            _mm256_storeu_si256(at.add(lane * BLOCK).cast(), bytes);
            at.add(beside * BLOCK).cast::<f32>().add(lane).write_unaligned(most / 127.0);
        }
    }
}

/// Multiplies `count` groups of 16 rows, from group `first` on, with all tokens.
///
/// # Safety
///
/// `product` describes what is there, and the groups lie within the rows. AVX2, FMA and F16C are there.
pub(in crate::kernels) unsafe extern "C" fn multiply(product: *const Product, first: usize, count: usize) {
    // SAFETY: by contract of this function.
    unsafe { multiply_groups(product, first..first + count, QUANTIZED, tiles!(multiply_tile)) }
}

/// One group of rows with `N` tokens.
///
/// # Safety
///
/// As [`multiply`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply_tile<const N: usize>(
    (values, scales): (*const u8, *const u8),
    quantized: *const u8,
    blocks: usize,
    out: *mut f32,
    stride: usize,
) {
    let ones = _mm256_set1_epi16(1);
    let mut totals = [[_mm256_setzero_ps(); N]; ROWS / LANES];
    for block in 0..blocks {
        for (half, totals) in totals.iter_mut().enumerate() {
            // SAFETY: inside of what the contract of this function grants.
            unsafe {
                let values = values.add(block * PACKED + half * 4 * LANES);
                let bytes = quantized.add(block * N * QUANTIZED);
                let factors = bytes.add(N * BLOCK).cast::<f32>();
                let mut sums = [_mm256_setzero_si256(); N];
                for v in 0..BLOCK / 4 {
                    let weights = _mm256_loadu_si256(values.add(v * 4 * ROWS).cast());
                    let sizes = _mm256_abs_epi8(weights);
                    for (n, sum) in sums.iter_mut().enumerate() {
                        let four = _mm256_set1_epi32(bytes.add(n * BLOCK + v * 4).cast::<i32>().read_unaligned());
                        let pairs = _mm256_maddubs_epi16(sizes, _mm256_sign_epi8(four, weights));
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                    }
                }
                let scale = scales.add((block * ROWS + half * LANES) * 2);
                let scale = _mm256_cvtph_ps(_mm_loadu_si128(scale.cast()));
                for (n, (total, sum)) in totals.iter_mut().zip(sums).enumerate() {
                    let factor = _mm256_mul_ps(scale, _mm256_set1_ps(factors.add(n).read_unaligned()));
                    *total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), factor, *total);
                }
            }
        }
    }
    for (half, totals) in totals.iter().enumerate() {
        for (n, total) in totals.iter().enumerate() {
            // SAFETY: inside of what the contract of this function grants.
            unsafe { _mm256_storeu_ps(out.add(n * stride + half * LANES), *total) };
        }
    }
}
