//! Holds: attention for AVX2, 8 lanes at a time.

use std::arch::x86_64::{
    __m128, __m256, _CMP_GE_OQ, _mm_add_ps, _mm_cvtss_f32, _mm_hadd_ps, _mm_loadu_si128, _mm_max_ps, _mm_max_ss,
    _mm_movehdup_ps, _mm_movehl_ps, _mm_mul_ps, _mm_set1_ps, _mm_storeu_ps, _mm256_add_epi32, _mm256_add_ps,
    _mm256_and_ps, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cmpeq_epi16, _mm256_cvtph_ps,
    _mm256_cvtps_epi32, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_hadd_ps, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_max_ps, _mm256_movemask_epi8, _mm256_mul_ps, _mm256_packs_epi16,
    _mm256_permute4x64_epi64, _mm256_round_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_slli_epi32, _mm256_storeu_ps, _mm256_sub_ps,
};

use super::{Attention, HIDDEN, Seen};

/// Heads that are computed together: with four cells each, sums in twelve of sixteen registers.
const HEADS: usize = 3;
const _: () = assert!(HEADS <= super::HEADS, "the scratch memory is for no more");

/// Lanes of 32 bits.
const LANES: usize = 8;

/// Computes the heads' outputs: the sum of the values, weighted by the softmax of `scale` times query times key.
///
/// # Safety
///
/// `attention` describes what is there: queries and outputs in single precision, keys, values and mask in half; `cells`
/// a multiple of 32, both widths of 16. `scratch` has [`scratch_size`](super::scratch_size) bytes for this thread alone.
/// AVX2, FMA and F16C are there.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels) unsafe extern "C" fn attend(attention: *const Attention, scratch: *mut u8) {
    // SAFETY: by contract of this function, for all of it.
    unsafe {
        let attention = &*attention;
        let list = scratch.cast::<u32>();
        let seen = look(attention, list);
        let scores = list.add(attention.cells + 16).cast::<f32>();
        let mut head = 0;
        while head < attention.heads {
            // As evenly as can be: four heads are two and two.
            let left = attention.heads - head;
            let now = left.div_ceil(left.div_ceil(HEADS));
            match now {
                1 => attend_heads::<1>(attention, head, seen, scores),
                2 => attend_heads::<2>(attention, head, seen, scores),
                _ => attend_heads::<HEADS>(attention, head, seen, scores),
            }
            head += now;
        }
    }
}

/// Lists what the token sees.
///
/// # Safety
///
/// As [`attend`]; `list` has room for 16 more than all cells.
#[target_feature(enable = "avx2")]
unsafe fn look(attention: &Attention, list: *mut u32) -> Seen {
    let hidden = _mm256_set1_epi16(HIDDEN);
    let mut count = 0;
    // SAFETY: inside of what the contract of this function grants.
    unsafe {
        for at in (0..attention.cells).step_by(32) {
            let [low, high] = [0, 16]
                .map(|beside| _mm256_cmpeq_epi16(_mm256_loadu_si256(attention.mask.add(at + beside).cast()), hidden));
            let in_order = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(low, high));
            let mut seen = !_mm256_movemask_epi8(in_order).cast_unsigned();
            while seen != 0 {
                // A cache has as many cells as a model's context, which is counted in 32 bits.
                list.add(count).write(at as u32 + seen.trailing_zeros());
                count += 1;
                seen &= seen - 1;
            }
        }
        Seen::filled_up(list, count)
    }
}

/// `H` heads from `head` on.
///
/// # Safety
///
/// As [`attend`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn attend_heads<const H: usize>(attention: &Attention, head: usize, seen: Seen, scores: *mut f32) {
    // SAFETY: inside of what the contract of this function grants.
    unsafe {
        score::<H>(attention, head, seen, scores);
        let mut shares = [0.0; H];
        for (h, share) in shares.iter_mut().enumerate() {
            *share = soften(scores.add(h * attention.cells), seen);
        }
        let mut at = 0;
        while at < attention.value_width {
            if attention.value_width - at >= 4 * LANES {
                add_values::<H, 4>(attention, (head, at), seen, scores, shares);
                at += 4 * LANES;
            } else {
                add_values::<H, 2>(attention, (head, at), seen, scores, shares);
                at += 2 * LANES;
            }
        }
    }
}

/// Queries times keys, four cells at a time.
///
/// # Safety
///
/// As [`attend`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn score<const H: usize>(attention: &Attention, head: usize, seen: Seen, scores: *mut f32) {
    let scale = _mm_set1_ps(attention.scale);
    // SAFETY: inside of what the contract of this function grants.
    unsafe {
        let query = attention.query.add(head * attention.query_stride);
        for at in (0..seen.filled).step_by(4) {
            let keys: [*const u8; 4] =
                std::array::from_fn(|i| attention.keys.add(*seen.cells.add(at + i) as usize * attention.key_stride));
            let mut sums = [[_mm256_setzero_ps(); 4]; H];
            for d in (0..attention.key_width).step_by(LANES) {
                for (i, key) in keys.iter().enumerate() {
                    let key = _mm256_cvtph_ps(_mm_loadu_si128(key.add(2 * d).cast()));
                    for (h, sums) in sums.iter_mut().enumerate() {
                        let query = _mm256_loadu_ps(query.add(h * attention.query_stride).cast::<f32>().add(d));
                        sums[i] = _mm256_fmadd_ps(query, key, sums[i]);
                    }
                }
            }
            for (h, sums) in sums.into_iter().enumerate() {
                _mm_storeu_ps(scores.add(h * attention.cells + at), _mm_mul_ps(add_up(sums), scale));
            }
        }
    }
}

/// The sum of each vector's lanes.
#[target_feature(enable = "avx")]
fn add_up([a, b, c, d]: [__m256; 4]) -> __m128 {
    let each = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_add_ps(_mm256_castps256_ps128(each), _mm256_extractf128_ps::<1>(each))
}

/// Turns scores into their exponentials, at most 1; returns what makes their sum 1. What only fills up becomes 0.
///
/// # Safety
///
/// `scores` has as many as the list is long, filled up.
#[target_feature(enable = "avx2,fma")]
unsafe fn soften(scores: *mut f32, seen: Seen) -> f32 {
    // SAFETY: inside of what the contract of this function grants.
    unsafe {
        (seen.count..seen.filled).for_each(|at| scores.add(at).write(f32::NEG_INFINITY));
        let mut most = _mm256_set1_ps(f32::NEG_INFINITY);
        for at in (0..seen.filled).step_by(LANES) {
            most = _mm256_max_ps(most, _mm256_loadu_ps(scores.add(at)));
        }
        let most = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps::<1>(most));
        let most = _mm_max_ps(most, _mm_movehl_ps(most, most));
        let most = _mm256_set1_ps(_mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most))));
        let mut sum = _mm256_setzero_ps();
        for at in (0..seen.filled).step_by(LANES) {
            let power = exp(_mm256_sub_ps(_mm256_loadu_ps(scores.add(at)), most));
            _mm256_storeu_ps(scores.add(at), power);
            sum = _mm256_add_ps(sum, power);
        }
        let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        let sum = _mm_hadd_ps(sum, sum);
        _mm_cvtss_f32(_mm_hadd_ps(sum, sum)).recip()
    }
}

/// e^x for x up to 0, to about two units in the last place: 2^n times a polynomial of what is left, as in Cephes.
#[target_feature(enable = "avx2,fma")]
fn exp(x: __m256) -> __m256 {
    // Below, what comes out would be no normal number; it becomes 0.
    let least = _mm256_set1_ps(-87.0);
    let counts = _mm256_cmp_ps::<_CMP_GE_OQ>(x, least);
    let x = _mm256_max_ps(x, least);
    let n = _mm256_round_ps::<0>(_mm256_mul_ps(x, _mm256_set1_ps(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first of which has few bits.
    let rest = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693_359_4), x);
    let rest = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.121_944_4e-4), rest);
    let mut sum = _mm256_set1_ps(1.987_569_1e-4);
    for factor in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0] {
        sum = _mm256_fmadd_ps(sum, rest, _mm256_set1_ps(factor));
    }
    // The exponent of a float lies 23 bits up and has 127 added.
    let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
    _mm256_and_ps(_mm256_mul_ps(sum, _mm256_castsi256_ps(power)), counts)
}

/// The weighted sum of `8 * D` of the values' columns from `column` on.
///
/// # Safety
///
/// As [`attend`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_values<const H: usize, const D: usize>(
    attention: &Attention,
    (head, column): (usize, usize),
    seen: Seen,
    scores: *const f32,
    shares: [f32; H],
) {
    // SAFETY: inside of what the contract of this function grants.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); D]; H];
        for at in 0..seen.count {
            let row = attention.values.add(*seen.cells.add(at) as usize * attention.value_stride + 2 * column);
            let weights: [__m256; H] = std::array::from_fn(|h| _mm256_set1_ps(*scores.add(h * attention.cells + at)));
            for d in 0..D {
                let value = _mm256_cvtph_ps(_mm_loadu_si128(row.add(2 * LANES * d).cast()));
                for (sums, weight) in sums.iter_mut().zip(weights) {
                    sums[d] = _mm256_fmadd_ps(weight, value, sums[d]);
                }
            }
        }
        for (h, (sums, share)) in sums.into_iter().zip(shares).enumerate() {
            // Who sees nothing has nothing to say.
            let share = _mm256_set1_ps(if seen.count == 0 { 0.0 } else { share });
            let out = attention.out.add((head + h) * attention.out_stride).cast::<f32>().add(column);
            for (d, sum) in sums.into_iter().enumerate() {
                _mm256_storeu_ps(out.add(LANES * d), _mm256_mul_ps(sum, share));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_exact_down_to_the_smallest_normal_number() {
        if !crate::kernels::Level::Avx2.is_available() {
            return;
        }
        for x in (0..2100).map(|i| -0.05 * i as f32).chain([f32::NEG_INFINITY]) {
            // SAFETY: AVX2 is there.
            let got = unsafe { _mm_cvtss_f32(_mm256_castps256_ps128(exp(_mm256_set1_ps(x)))) };
            let exact = x.exp();
            let bound = if x < -87.0 { 2.0 * f32::MIN_POSITIVE } else { 3e-7 * exact };
            assert!((got - exact).abs() <= bound, "e^{x}: {got}, not {exact}");
        }
    }
}
