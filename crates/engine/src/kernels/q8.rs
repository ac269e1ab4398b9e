//! Holds: products of Q8_0 weights with the activations of several tokens.
//!
//! Q8_0 (ggml): each row in blocks of 32 values, a block being a scale in half precision and 32 signed bytes. Packed,
//! 16 rows of one block are 8 vectors of 64 bytes, vector `v` with values `4v..4v + 4` of each row. Behind the bytes of all
//! rows come the scales, 16 for each block.
//!
//! Activations are quantised as Q8_0, with scales in single precision, for up to [`TILE`] tokens at a time.

pub(super) mod avx2;
pub(super) mod avx512;

use std::{ops::Range, slice};

/// Rows that are packed together.
const ROWS: usize = 16;

/// Values of a block.
const BLOCK: usize = 32;

/// Bytes of a block in a file: its scale and its values.
const FILED: usize = 2 + BLOCK;

/// Bytes of a packed block of [`ROWS`] rows, without their scales.
const PACKED: usize = ROWS * BLOCK;

/// Tokens that are computed together: sums in half of the registers.
const TILE: usize = 8;

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

/// Packs `count` rows of `width` values, with `ADDED` added to each byte.
///
/// # Safety
///
/// `count` is a multiple of 16, `width` one of 32; both sides have `count * width / 32 * 34` bytes and do not overlap.
pub(super) unsafe extern "C" fn pack<const ADDED: u8>(packed: *mut u8, rows: *const u8, count: usize, width: usize) {
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
                place[4 * row..4 * row + 4].copy_from_slice(&four.map(|byte| byte.wrapping_add(ADDED)));
            }
        }
    }
}

/// One group of rows, values and scales, with the tokens of a tile in so many blocks: products to `out`, a token's behind the
/// one's before by a stride.
type Tile = unsafe fn((*const u8, *const u8), *const u8, usize, *mut f32, usize);

/// `$tile` for each number of tokens from one to [`TILE`].
macro_rules! tiles {
    ($tile:ident) => {
        [$tile::<1>, $tile::<2>, $tile::<3>, $tile::<4>, $tile::<5>, $tile::<6>, $tile::<7>, $tile::<8>]
    };
}
use tiles;

/// Multiplies groups of 16 rows with all tokens, whose blocks have `quantized_block` bytes.
///
/// # Safety
///
/// `product` describes what is there, and the groups lie within the rows; what `tiles` need is there.
unsafe fn multiply_groups(product: *const Product, groups: Range<usize>, quantized_block: usize, tiles: [Tile; TILE]) {
    // SAFETY: by contract of this function.
    let &Product { packed, rows, width, quantized, tokens, out } = unsafe { &*product };
    let blocks = width / BLOCK;
    for group in groups {
        for first in (0..tokens).step_by(TILE) {
            let tile = tiles[TILE.min(tokens - first) - 1];
            // SAFETY: inside of what the contract of this function grants.
            unsafe {
                let values = packed.add(group * blocks * PACKED);
                let scales = packed.add(rows * width + group * blocks * 2 * ROWS);
                let tokens = quantized.add(first * blocks * quantized_block);
                tile((values, scales), tokens, blocks, out.add(first * rows + group * ROWS), rows);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::kernels::Kernels;

    /// The scale 2^-7 in half precision, and in single.
    const SCALE: (u16, f32) = (0x2000, 0.007_812_5);

    #[test]
    fn products_are_those_of_the_rows_in_the_file() {
        for kernels in Kernels::available() {
            let mut random = StdRng::seed_from_u64(8);
            for (rows, width, tokens) in
                [(16, 32, 1), (32, 96, 3), (48, 576, 8), (64, 64, 9), (16, 1536, 20), (80, 128, 31)]
            {
                check(&kernels, &mut random, (rows, width, tokens), -127..=127, 3.0);
            }
        }
    }

    #[test]
    fn the_largest_products_fit() {
        for kernels in Kernels::available() {
            for weight in [-128, 127] {
                check(&kernels, &mut StdRng::seed_from_u64(8), (16, 64, 2), weight..=weight, 0.0);
            }
        }
    }

    /// Weights of this range times values up to 3 on both sides of zero, no less than 3 less `less`.
    fn check(
        kernels: &Kernels,
        random: &mut StdRng,
        (rows, width, tokens): (usize, usize, usize),
        range: RangeInclusive<i8>,
        less: f32,
    ) {
        let weights: Vec<i8> = (0..rows * width).map(|_| random.random_range(range.clone())).collect();
        let mut filed = Vec::new();
        for block in weights.chunks(BLOCK) {
            filed.extend(SCALE.0.to_le_bytes());
            filed.extend(block.iter().map(|&w| w.cast_unsigned()));
        }
        let mut value = || random.random_range(3.0 - less..=3.0) * if random.random() { 1.0 } else { -1.0 };
        let values: Vec<f32> = (0..tokens * width).map(|_| value()).collect();

        let mut packed = vec![0; filed.len()];
        let mut quantized = vec![0; (kernels.quantized_size)(width, tokens)];
        let mut out = vec![f32::NAN; rows * tokens];
        // SAFETY: sizes and shapes are those of the contracts.
        unsafe {
            (kernels.pack)(packed.as_mut_ptr(), filed.as_ptr(), rows, width);
            for (token, values) in values.chunks(width).enumerate() {
                (kernels.quantize)(quantized.as_mut_ptr(), values.as_ptr(), width, token, tokens);
            }
            let product = Product {
                packed: packed.as_ptr(),
                rows,
                width,
                quantized: quantized.as_ptr(),
                tokens,
                out: out.as_mut_ptr(),
            };
            (kernels.multiply)(&raw const product, 0, 1);
            (kernels.multiply)(&raw const product, 1, rows / ROWS - 1);
        }

        for (token, values) in values.chunks(width).enumerate() {
            for row in 0..rows {
                let weights = weights[row * width..][..width].iter().map(|&w| f64::from(w) * f64::from(SCALE.1));
                let exact: f64 = weights.clone().zip(values).map(|(w, &x)| w * f64::from(x)).sum();
                // Each value is off by half a step, a 127th of the largest, at most.
                let step = 3.0 / 127.0 / 2.0;
                let bound: f64 = weights.map(|w| w.abs() * step).sum::<f64>() + 1e-3;
                let got = f64::from(out[token * rows + row]);
                assert!((got - exact).abs() <= bound, "{rows}x{width}, token {token}, row {row}: {got}, not {exact}");
                // Errors of so many roundings cancel out; a sum near its bound is a wrong one.
                assert!(width < 96 || (got - exact).abs() < bound / 4.0, "{got} is far from {exact}");
            }
        }
    }

    #[test]
    fn nothing_times_anything_is_nothing() {
        for kernels in Kernels::available() {
            let mut quantized = vec![0xAA; (kernels.quantized_size)(64, 2)];
            let zeros = [0.0; 64];
            let filed = [0x11; 16 * 2 * FILED];
            let mut packed = [0; 16 * 2 * FILED];
            let mut out = [f32::NAN; 32];
            // SAFETY: sizes and shapes are those of the contracts.
            unsafe {
                (kernels.pack)(packed.as_mut_ptr(), filed.as_ptr(), 16, 64);
                (kernels.quantize)(quantized.as_mut_ptr(), zeros.as_ptr(), 64, 0, 2);
                (kernels.quantize)(quantized.as_mut_ptr(), zeros.as_ptr(), 64, 1, 2);
                let (packed, quantized, out) = (packed.as_ptr(), quantized.as_ptr(), out.as_mut_ptr());
                let product = Product { packed, rows: 16, width: 64, quantized, tokens: 2, out };
                (kernels.multiply)(&raw const product, 0, 1);
            }
            assert_eq!(out, [0.0; 32]);
        }
    }
}
