//! Holds: attention over the cells that a token may see, which lie anywhere in the cache.
//!
//! For each token ggml's mask says of every cell, 0 or minus infinity, whether it sees it. With many sequences in one
//! cache it sees few, and of a sequence that is being generated no two lie side by side. So their numbers are listed
//! first, and then everything runs over that list, for all heads that read the same keys at once.

pub(super) mod avx2;
pub(super) mod avx512;

/// The most heads that are computed together.
const HEADS: usize = 4;

/// Minus infinity in half precision.
const HIDDEN: i16 = 0xFC00_u16.cast_signed();

/// The heads of one token that read the same keys; `batchin_attention` of the seam. Strides are in bytes.
#[repr(C)]
pub(super) struct Attention {
    query: *const u8,
    query_stride: usize,
    keys: *const u8,
    key_stride: usize,
    values: *const u8,
    value_stride: usize,
    mask: *const u16,
    out: *mut u8,
    out_stride: usize,
    cells: usize,
    heads: usize,
    key_width: usize,
    value_width: usize,
    scale: f32,
}

/// The cells that a token sees: a list, filled up to a multiple of 16 with the last of them.
#[derive(Clone, Copy)]
struct Seen {
    cells: *const u32,
    count: usize,
    filled: usize,
}

/// Bytes that `attend` needs for itself.
pub(super) extern "C" fn scratch_size(cells: usize, heads: usize) -> usize {
    (cells + 16 + cells * heads.min(HEADS)) * size_of::<u32>()
}

impl Seen {
    /// A list of `count` cells, filled up.
    ///
    /// # Safety
    ///
    /// `list` has `count` of them, and room for as many as fill it up.
    unsafe fn filled_up(list: *mut u32, count: usize) -> Self {
        let filled = count.next_multiple_of(16);
        if let Some(last) = count.checked_sub(1) {
            // SAFETY: by contract of this function.
            unsafe {
                let last = *list.add(last);
                (count..filled).for_each(|at| list.add(at).write(last));
            }
        }
        Self { cells: list, count, filled }
    }
}

#[cfg(test)]
mod tests {
    use std::arch::x86_64::{_mm_cvtps_ph, _mm_extract_epi16, _mm_set1_ps};

    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::kernels::Kernels;

    struct Case {
        heads: usize,
        cells: usize,
        key_width: usize,
        value_width: usize,
        /// Which cells are seen, of how many.
        seen: fn(usize, usize) -> bool,
    }

    fn half(x: f32) -> u16 {
        // SAFETY: whatever has kernels has F16C.
        unsafe { narrow(x) }
    }

    #[target_feature(enable = "f16c")]
    fn narrow(x: f32) -> u16 {
        _mm_extract_epi16::<0>(_mm_cvtps_ph::<0>(_mm_set1_ps(x))) as u16
    }

    fn check(kernels: &Kernels, case: &Case) {
        let mut random = StdRng::seed_from_u64(8);
        let mut some = |count: usize| -> Vec<f32> { (0..count).map(|_| random.random_range(-2.0..2.0)).collect() };
        let &Case { heads, cells, key_width, value_width, seen } = case;
        let (query, keys, values) = (some(heads * key_width), some(cells * key_width), some(cells * value_width));
        let halves = |of: &[f32]| of.iter().map(|&x| half(x)).collect::<Vec<_>>();
        let (narrow_keys, narrow_values) = (halves(&keys), halves(&values));
        let mask: Vec<u16> = (0..cells).map(|at| if seen(at, cells) { 0 } else { HIDDEN.cast_unsigned() }).collect();
        let mut out = vec![f32::NAN; heads * value_width];
        let mut scratch = vec![0_u8; (kernels.attend_size)(cells, heads)];
        let scale = 0.125;
        let attention = Attention {
            query: query.as_ptr().cast(),
            query_stride: 4 * key_width,
            keys: narrow_keys.as_ptr().cast(),
            key_stride: 2 * key_width,
            values: narrow_values.as_ptr().cast(),
            value_stride: 2 * value_width,
            mask: mask.as_ptr(),
            out: out.as_mut_ptr().cast(),
            out_stride: 4 * value_width,
            cells,
            heads,
            key_width,
            value_width,
            scale,
        };
        // SAFETY: everything has the shape that is said.
        unsafe { (kernels.attend)(&raw const attention, scratch.as_mut_ptr()) };

        for head in 0..heads {
            let query = &query[head * key_width..][..key_width];
            let weights: Vec<f64> = (0..cells)
                .map(|at| {
                    let key = &keys[at * key_width..][..key_width];
                    let score: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                    if seen(at, cells) { (score * f64::from(scale)).exp() } else { 0.0 }
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            for column in 0..value_width {
                let value = |at: usize| f64::from(values[at * value_width + column]);
                let exact: f64 = weights.iter().enumerate().map(|(at, weight)| weight * value(at)).sum();
                let exact = if sum == 0.0 { 0.0 } else { exact / sum };
                let got = f64::from(out[head * value_width + column]);
                assert!((got - exact).abs() < 4e-3, "head {head}, column {column}: {got}, not {exact}");
            }
        }
    }

    #[test]
    fn outputs_are_the_values_weighted_by_the_softmax() {
        let seen: [fn(usize, usize) -> bool; 5] = [
            |_, _| true,
            |at, _| at % 16 == 3,
            |at, cells| at + 1 == cells,
            |at, cells| at < cells / 2 + 5,
            |_, _| false,
        ];
        for seen in seen {
            for (heads, cells, key_width, value_width) in [
                (1, 32, 16, 16),
                (3, 256, 64, 64),
                (4, 64, 32, 48),
                (5, 512, 80, 80),
                (8, 96, 128, 128),
                (2, 64, 192, 144),
            ] {
                Kernels::available()
                    .for_each(|kernels| check(&kernels, &Case { heads, cells, key_width, value_width, seen }));
            }
        }
    }
}
