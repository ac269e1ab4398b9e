//! Holds: WAV files of 16-bit mono samples: reading whole ones, and the header of one whose length is not known yet.

/// Bytes of [`streamed_header`].
pub const STREAMED_HEADER_BYTES: usize = 44;

/// What players take for "until the end".
const UNKNOWN: [u8; 4] = u32::MAX.to_le_bytes();

/// The header of a WAV file of s16le mono samples whose length is not known: both lengths are 0xFFFFFFFF.
pub fn streamed_header(sample_rate: u32) -> [u8; STREAMED_HEADER_BYTES] {
    let mut header = [0; STREAMED_HEADER_BYTES];
    let fields: [&[u8]; 12] = [
        b"RIFF",
        &UNKNOWN,
        b"WAVEfmt ",
        &16_u32.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &sample_rate.to_le_bytes(),
        &sample_rate.saturating_mul(2).to_le_bytes(),
        &2_u16.to_le_bytes(),
        &16_u16.to_le_bytes(),
        b"data",
        &UNKNOWN,
    ];
    for (to, from) in header.iter_mut().zip(fields.into_iter().flatten()) {
        *to = *from;
    }
    header
}

/// Sample rate and samples of a WAV file of s16le mono, whose lengths may be wrong: espeak-ng writes them before it
/// knows them. None for anything else.
pub(crate) fn parse(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut rest = bytes.strip_prefix(b"RIFF")?.get(4..)?.strip_prefix(b"WAVE")?;
    let mut rate = None;
    loop {
        let (name, length) = (rest.get(..4)?, rest.get(4..8)?);
        let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
        rest = rest.get(8..)?;
        match (name, rate) {
            (b"fmt ", _) => {
                let [form, channels] = [rest.get(..2)?, rest.get(2..4)?];
                let bits = rest.get(14..16)?;
                if (form, channels, bits) != (&[1, 0], &[1, 0], &[16, 0]) {
                    return None;
                }
                rate = Some(u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?)).filter(|rate| *rate > 0);
            }
            (b"data", Some(rate)) => {
                let samples = rest.get(..length).unwrap_or(rest);
                return Some((rate, samples.get(..samples.len() / 2 * 2)?));
            }
            _ => {}
        }
        rest = rest.get(length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streamed_file_can_be_read_and_others_are_refused() {
        let mut file = streamed_header(22_050).to_vec();
        assert_eq!(parse(&file), Some((22_050, &[][..])));
        file.extend([1, 2, 3, 4, 5]);
        assert_eq!(parse(&file), Some((22_050, &[1, 2, 3, 4][..])), "half a sample is none");
        for length in 0..STREAMED_HEADER_BYTES {
            assert_eq!(parse(&file[..length]), None, "{length}");
        }
        file[22] = 2;
        assert_eq!(parse(&file), None, "stereo");
    }
}
