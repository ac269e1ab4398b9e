//! Holds: attention for AVX-512, 16 lanes at a time.

use std::arch::x86_64::{
    __m128, __m512, _mm_add_ps, _mm_mul_ps, _mm_set1_ps, _mm_storeu_ps, _mm256_loadu_si256, _mm512_add_epi32,
    _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps512_ps128, _mm512_cmpneq_epi16_mask,
    _mm512_cvtph_ps, _mm512_extractf32x4_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_maskz_compress_epi32, _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_reduce_max_ps,
    _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32,
    _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps, _mm512_unpackhi_pd,
    _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};

use super::{Attention, HEADS, HIDDEN, Seen};

/// Computes the heads' outputs: the sum of the values, weighted by the softmax of `scale` times query times key.
///
/// # Safety
///
/// `attention` describes what is there: queries and outputs in single precision, keys, values and mask in half; `cells`
/// a multiple of 32, both widths of 16. `scratch` has [`scratch_size`](super::scratch_size) bytes for this thread alone.
/// AVX-512 is there.
#[target_feature(enable = "avx512f,avx512bw")]
pub(in crate::kernels) unsafe extern "C" fn attend(attention: *const Attention, scratch: *mut u8) {
    // SAFETY: by contract of this function, for all of it.
    unsafe {
        let attention = &*attention;
        let list = scratch.cast::<u32>();
        let seen = look(attention, list);
        let scores = list.add(attention.cells + 16).cast::<f32>();
        let mut head = 0;
        while head < attention.heads {
            match attention.heads - head {
                1 => attend_heads::<1>(attention, head, seen, scores),
                2 => attend_heads::<2>(attention, head, seen, scores),
                3 => attend_heads::<3>(attention, head, seen, scores),
                _ => attend_heads::<HEADS>(attention, head, seen, scores),
            }
            head += HEADS;
        }
    }
}

/// Lists what the token sees.
///
/// # Safety
///
/// As [`attend`]; `list` has room for 16 more than all cells.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn look(attention: &Attention, list: *mut u32) -> Seen {
    let hidden = _mm512_set1_epi16(HIDDEN);
    let mut cells = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let step = _mm512_set1_epi32(16);
    let mut count = 0;
    // SAFETY: inside of what the contract of this function grants.
    unsafe {
        for at in (0..attention.cells).step_by(32) {
            let seen = _mm512_cmpneq_epi16_mask(_mm512_loadu_si512(attention.mask.add(at).cast()), hidden);
            for half in [seen as u16, (seen >> 16) as u16] {
                if half != 0 {
                    _mm512_storeu_si512(list.add(count).cast(), _mm512_maskz_compress_epi32(half, cells));
                    count += half.count_ones() as usize;
                }
                cells = _mm512_add_epi32(cells, step);
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
#[target_feature(enable = "avx512f,avx512bw")]
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
            if attention.value_width - at >= 64 {
                add_values::<H, 4>(attention, (head, at), seen, scores, shares);
                at += 64;
            } else {
                add_values::<H, 1>(attention, (head, at), seen, scores, shares);
                at += 16;
            }
        }
    }
}

/// Queries times keys, four cells at a time.
///
/// # Safety
///
/// As [`attend`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn score<const H: usize>(attention: &Attention, head: usize, seen: Seen, scores: *mut f32) {
    let scale = _mm_set1_ps(attention.scale);
    // SAFETY: inside of what the contract of this function grants.
    unsafe {
        let query = attention.query.add(head * attention.query_stride);
        for at in (0..seen.filled).step_by(4) {
            let keys: [*const u8; 4] =
                std::array::from_fn(|i| attention.keys.add(*seen.cells.add(at + i) as usize * attention.key_stride));
            let mut sums = [[_mm512_setzero_ps(); 4]; H];
            for d in (0..attention.key_width).step_by(16) {
                for (i, key) in keys.iter().enumerate() {
                    let key = _mm512_cvtph_ps(_mm256_loadu_si256(key.add(2 * d).cast()));
                    for (h, sums) in sums.iter_mut().enumerate() {
                        let query = _mm512_loadu_ps(query.add(h * attention.query_stride).cast::<f32>().add(d));
                        sums[i] = _mm512_fmadd_ps(query, key, sums[i]);
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
#[target_feature(enable = "avx512f")]
fn add_up([a, b, c, d]: [__m512; 4]) -> __m128 {
    let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    let each =
        _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
    let half = _mm512_add_ps(each, _mm512_shuffle_f32x4::<0b01_00_11_10>(each, each));
    _mm_add_ps(_mm512_castps512_ps128(half), _mm512_extractf32x4_ps::<1>(half))
}

/// Turns scores into their exponentials, at most 1; returns what makes their sum 1. What only fills up becomes 0.
///
/// # Safety
///
/// `scores` has as many as the list is long, filled up.
#[target_feature(enable = "avx512f")]
unsafe fn soften(scores: *mut f32, seen: Seen) -> f32 {
    // SAFETY: inside of what the contract of this function grants.
    unsafe {
        (seen.count..seen.filled).for_each(|at| scores.add(at).write(f32::NEG_INFINITY));
        let mut most = _mm512_set1_ps(f32::NEG_INFINITY);
        for at in (0..seen.filled).step_by(16) {
            most = _mm512_max_ps(most, _mm512_loadu_ps(scores.add(at)));
        }
        let most = _mm512_set1_ps(_mm512_reduce_max_ps(most));
        let mut sum = _mm512_setzero_ps();
        for at in (0..seen.filled).step_by(16) {
            let power = exp(_mm512_sub_ps(_mm512_loadu_ps(scores.add(at)), most));
            _mm512_storeu_ps(scores.add(at), power);
            sum = _mm512_add_ps(sum, power);
        }
        _mm512_reduce_add_ps(sum).recip()
    }
}

/// e^x for x up to 0, to about two units in the last place: 2^n times a polynomial of what is left, as in Cephes.
#[target_feature(enable = "avx512f")]
fn exp(x: __m512) -> __m512 {
    // Below, single precision has nothing left; and minus infinity would become NaN.
    let x = _mm512_max_ps(x, _mm512_set1_ps(-104.0));
    let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    // ln 2 in two parts, the first of which has few bits.
    let rest = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), x);
    let rest = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), rest);
    let mut sum = _mm512_set1_ps(1.987_569_1e-4);
    for factor in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5, 1.0, 1.0] {
        sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(factor));
    }
    _mm512_scalef_ps(sum, n)
}

/// The weighted sum of `16 * D` of the values' columns from `column` on.
///
/// # Safety
///
/// As [`attend`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn add_values<const H: usize, const D: usize>(
    attention: &Attention,
    (head, column): (usize, usize),
    seen: Seen,
    scores: *const f32,
    shares: [f32; H],
) {
    // SAFETY: inside of what the contract of this function grants.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); D]; H];
        for at in 0..seen.count {
            let row = attention.values.add(*seen.cells.add(at) as usize * attention.value_stride + 2 * column);
            let values: [__m512; D] =
                std::array::from_fn(|i| _mm512_cvtph_ps(_mm256_loadu_si256(row.add(32 * i).cast())));
            for (h, sums) in sums.iter_mut().enumerate() {
                let weight = _mm512_set1_ps(*scores.add(h * attention.cells + at));
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = _mm512_fmadd_ps(weight, value, *sum);
                }
            }
        }
        for (h, (sums, share)) in sums.into_iter().zip(shares).enumerate() {
            // Who sees nothing has nothing to say.
            let share = _mm512_set1_ps(if seen.count == 0 { 0.0 } else { share });
            let out = attention.out.add((head + h) * attention.out_stride).cast::<f32>().add(column);
            for (i, sum) in sums.into_iter().enumerate() {
                _mm512_storeu_ps(out.add(16 * i), _mm512_mul_ps(sum, share));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::arch::x86_64::_mm512_cvtss_f32;

    use super::*;

    #[test]
    fn exponentials_are_exact_down_to_nothing() {
        if !crate::kernels::Level::Avx512Vnni.is_available() {
            return;
        }
        for x in (0..2100).map(|i| -0.05 * i as f32).chain([f32::NEG_INFINITY]) {
            // SAFETY: AVX-512 is there.
            let got = unsafe { _mm512_cvtss_f32(exp(_mm512_set1_ps(x))) };
            let exact = x.exp();
            assert!((got - exact).abs() <= 3e-7 * exact.max(f32::MIN_POSITIVE), "e^{x}: {got}, not {exact}");
        }
    }
}
