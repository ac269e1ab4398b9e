//! Holds: the frame before an MP3's sound that says where in its frames the sound begins and ends.
//!
//! Frames hold more than the sound: encoders begin late and fill the last one up. LAME invented the tag, and writes it into
//! files; through a pipe nobody can, so it is written here where the whole is known.

/// Moments by which the sound is late in its frames, with LAME as with all that are made of it.
const ENCODER_DELAY: u64 = 576;
/// The most that the tag's twelve bits can say.
const MOST_PADDING: u64 = 0xfff;
const HEADER_BYTES: usize = 4;
const INDEX_BYTES: usize = 100;

/// What a frame's header says.
#[derive(Clone, Copy)]
struct Frame {
    is_mpeg1: bool,
    is_mono: bool,
    kilobits: u32,
    rate: u32,
    is_padded: bool,
}

/// The same sound, of so many moments, with the tag. As it was where its frames are not of one rate from end to end.
pub(crate) fn tagged(mp3: Vec<u8>, moments: u64) -> Vec<u8> {
    match tag(&mp3, moments) {
        Some(mut tag) => {
            tag.extend_from_slice(&mp3);
            tag
        }
        None => mp3,
    }
}

fn tag(mp3: &[u8], moments: u64) -> Option<Vec<u8>> {
    let first = Frame::of(mp3)?;
    let mut frames: u64 = 0;
    let mut rest = mp3;
    while !rest.is_empty() {
        rest = rest.get(Frame::of(rest).filter(|frame| frame.rate == first.rate)?.bytes()..)?;
        frames += 1;
    }
    let padding = (frames * first.moments()).checked_sub(ENCODER_DELAY + moments)?;
    let frame = Frame { is_padded: false, ..first };
    let mut tag = mp3.first_chunk::<HEADER_BYTES>()?.to_vec();
    // Without a checksum and without the padding byte, whatever the first frame has.
    *tag.get_mut(1)? |= 1;
    *tag.get_mut(2)? &= !2;
    tag.resize(HEADER_BYTES + frame.side_bytes(), 0);
    let all = u32::try_from(mp3.len() + frame.bytes()).ok()?;
    tag.extend(b"Info");
    tag.extend([0, 0, 0, 0xf]);
    tag.extend(u32::try_from(frames).ok()?.to_be_bytes());
    tag.extend(all.to_be_bytes());
    // Where each hundredth lies, of 256: at one bitrate, evenly.
    tag.extend((0..INDEX_BYTES).map(|nth| (nth * 256 / INDEX_BYTES) as u8));
    tag.extend([0; 4]);
    tag.extend(lame(&first, padding.min(MOST_PADDING), all));
    tag.extend([0; 2]);
    let checksum = crc16(&tag);
    tag.extend(checksum.to_be_bytes());
    tag.resize(frame.bytes().max(tag.len()), 0);
    (tag.len() == frame.bytes()).then_some(tag)
}

/// LAME's part, up to the checksum of the music, which nobody reads.
fn lame(frame: &Frame, padding: u64, all: u32) -> Vec<u8> {
    const CONSTANT_BITRATE: u8 = 1;
    const LOWPASS_PEAK_AND_GAINS: [u8; 9] = [0; 9];
    let mut lame = b"LAME3.100".to_vec();
    lame.push(CONSTANT_BITRATE);
    lame.extend(LOWPASS_PEAK_AND_GAINS);
    lame.push(0);
    lame.push(frame.kilobits.min(255) as u8);
    let delays = (ENCODER_DELAY << 12) | padding;
    lame.extend(delays.to_be_bytes().iter().skip(5));
    lame.extend([0; 4]);
    lame.extend(all.to_be_bytes());
    lame
}

impl Frame {
    /// Of layer III.
    fn of(bytes: &[u8]) -> Option<Self> {
        const MPEG1_KILOBITS: [u32; 15] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
        const MPEG2_KILOBITS: [u32; 15] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
        const MPEG1_RATES: [u32; 3] = [44_100, 48_000, 32_000];
        let [0xff, second, third, fourth] = *bytes.first_chunk::<HEADER_BYTES>()? else { return None };
        let slowness = match second & 0b1111_1110 {
            0b1111_1010 => 1,
            0b1111_0010 => 2,
            0b1110_0010 => 4,
            _ => return None,
        };
        let is_mpeg1 = slowness == 1;
        let kilobits = if is_mpeg1 { MPEG1_KILOBITS } else { MPEG2_KILOBITS };
        Some(Self {
            is_mpeg1,
            is_mono: fourth >> 6 == 0b11,
            kilobits: *kilobits.get(usize::from(third >> 4)).filter(|kilobits| **kilobits > 0)?,
            rate: MPEG1_RATES.get(usize::from(third >> 2 & 0b11))? / slowness,
            is_padded: third & 0b10 != 0,
        })
    }

    const fn moments(self) -> u64 {
        if self.is_mpeg1 { 1152 } else { 576 }
    }

    const fn bytes(self) -> usize {
        let bytes = self.moments() as u32 / 8 * self.kilobits * 1_000 / self.rate;
        bytes as usize + self.is_padded as usize
    }

    const fn side_bytes(self) -> usize {
        match (self.is_mpeg1, self.is_mono) {
            (true, false) => 32,
            (true, true) | (false, false) => 17,
            (false, true) => 9,
        }
    }
}

/// CRC-16/ARC.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xa001 } else { crc >> 1 })
    })
}
