//! Holds: films as they are asked for and made: their frames, how long they last, and how a job that makes one stands.

use crate::{listed, stored};

stored! {
    /// How a job that makes a film stands. It never goes back.
    pub enum FilmStatus {
        /// No server has begun on it, as far as is known.
        Queued = 0 => "queued",
        /// A server makes it, or what it made is being fetched.
        InProgress = 1 => "in_progress",
        /// The film lies in our own store, and is paid for.
        Completed = 2 => "completed",
        /// There will be none. Nothing was charged.
        Failed = 3 => "failed",
        /// Its owner stopped it. Nothing was charged.
        Cancelled = 4 => "cancelled",
    }
}

impl FilmStatus {
    /// Whether nothing follows.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

listed! {
    /// The width of a picture to its height.
    pub enum AspectRatio {
        /// As screens are.
        Wide => "16:9",
        /// As telephones are held.
        Tall => "9:16",
        /// Of one length.
        Square => "1:1",
        /// As old screens were.
        Classic => "4:3",
        /// The same, upright.
        Portrait => "3:4",
    }
}

impl AspectRatio {
    /// What is made of a request that does not say.
    pub const DEFAULT: Self = Self::Wide;

    const fn sides(self) -> (u32, u32) {
        match self {
            Self::Wide => (16, 9),
            Self::Tall => (9, 16),
            Self::Square => (1, 1),
            Self::Classic => (4, 3),
            Self::Portrait => (3, 4),
        }
    }
}

listed! {
    /// A file that holds a film, by the ending of its name.
    pub enum FilmFile {
        /// MP4, or `QuickTime`, of which it was made.
        Mp4 => "mp4",
        /// `WebM`, or Matroska, of which it is a part.
        Webm => "webm",
        /// AVI.
        Avi => "avi",
        /// Animated `WebP`.
        Webp => "webp",
        /// GIF.
        Gif => "gif",
    }
}

impl FilmFile {
    /// Bytes that tell what a file is.
    pub const HEAD: usize = 12;

    /// What a file is that begins so: ISO/IEC 14496-12 (`ftyp`), EBML, RIFF with its form, GIF.
    pub fn told_by(begins: &[u8]) -> Option<Self> {
        const EBML: [u8; 4] = [0x1a, 0x45, 0xdf, 0xa3];
        match (begins.get(..4)?, begins.get(4..8), begins.get(8..12)) {
            (_, Some(b"ftyp"), _) => Some(Self::Mp4),
            (b"RIFF", _, Some(b"AVI ")) => Some(Self::Avi),
            (b"RIFF", _, Some(b"WEBP")) => Some(Self::Webp),
            (b"GIF8", ..) => Some(Self::Gif),
            (begins, ..) => (begins == EBML).then_some(Self::Webm),
        }
    }

    /// The media type of its bytes.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Mp4 => "video/mp4",
            Self::Webm => "video/webm",
            Self::Avi => "video/x-msvideo",
            Self::Webp => "image/webp",
            Self::Gif => "image/gif",
        }
    }
}

/// A picture's size, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// From left to right.
    pub width: u32,
    /// From top to bottom.
    pub height: u32,
}

/// Models of film cut pictures into blocks of so many pixels a side, and refuse or round what does not fit.
const BLOCK: u32 = 16;
/// The shortest side that is asked for, in pixels.
const LEAST_SIDE: u32 = 64;
/// The longest one: 4K.
const MOST_SIDE: u32 = 4_096;

/// How a model films.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilmStyle {
    /// Frames a second, 1 to 120.
    pub fps: u32,
    /// Pixels of the shorter side, 64 to 2160.
    pub short_edge: u32,
}

impl Default for FilmStyle {
    /// What most open models are made for.
    fn default() -> Self {
        Self { fps: 24, short_edge: 480 }
    }
}

impl FilmStyle {
    /// The frame of this ratio: its longer side is rounded to what models can make.
    pub fn frame(self, ratio: AspectRatio) -> Frame {
        let (across, down) = ratio.sides();
        let (long, short) = (across.max(down), across.min(down));
        let exact = u64::from(self.short_edge) * u64::from(long);
        let blocks = (exact + u64::from(short * BLOCK) / 2) / u64::from(short * BLOCK);
        let longer = u32::try_from(blocks * u64::from(BLOCK)).unwrap_or(MOST_SIDE).max(self.short_edge);
        if across >= down {
            Frame { width: longer, height: self.short_edge }
        } else {
            Frame { width: self.short_edge, height: longer }
        }
    }

    /// Whether a frame that was asked for by its sides can be made, and costs no more than those of a ratio.
    pub fn takes(self, frame: Frame) -> bool {
        let is_side = |side: u32| (LEAST_SIDE..=MOST_SIDE).contains(&side) && side.is_multiple_of(BLOCK);
        let most = self.frame(AspectRatio::Wide);
        is_side(frame.width) && is_side(frame.height) && frame.pixels() <= most.pixels()
    }
}

impl Frame {
    /// How many it has.
    pub const fn pixels(self) -> u64 {
        self.width as u64 * self.height as u64
    }

    /// From `848x480`.
    pub fn parse(text: &str) -> Option<Self> {
        let side = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let (width, height) = text.split_once('x')?;
        Some(Self { width: side(width)?, height: side(height)? })
    }
}

impl std::fmt::Display for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// The most seconds that a film can be asked to last, whatever the operator allows.
pub const MAX_FILM_SECONDS: u32 = 60;
/// What a film lasts that nobody says more of, in seconds: OpenAI's default.
pub const DEFAULT_FILM_SECONDS: u32 = 4;
/// The longest text that says what is to be seen, in Unicode scalars: OpenAI's limit.
pub const MAX_FILM_PROMPT: usize = 32_000;

/// The most that can be delivered, and is charged, of a film of so many seconds: servers round frames to what their model
/// takes, which is less than a second.
pub const fn most_film_ms(seconds: u32) -> u64 {
    (seconds as u64 + 1) * 1_000
}

/// How long so many frames last at so many thousandths of a frame a second, to the nearest millisecond. `None` at no rate.
pub const fn film_ms(frames: u64, milli_fps: u64) -> Option<u64> {
    if milli_fps == 0 {
        return None;
    }
    match frames.checked_mul(1_000_000) {
        Some(exact) => Some(exact.saturating_add(milli_fps / 2) / milli_fps),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_their_ratio_in_blocks() {
        let sizes = |style: FilmStyle| AspectRatio::ALL.map(|ratio| style.frame(ratio).to_string());
        assert_eq!(sizes(FilmStyle::default()), ["848x480", "480x848", "480x480", "640x480", "480x640"]);
        assert_eq!(
            sizes(FilmStyle { fps: 24, short_edge: 720 }),
            ["1280x720", "720x1280", "720x720", "960x720", "720x960"]
        );
    }

    #[test]
    fn a_frame_costs_no_more_than_the_widest() {
        let takes = |text: &str| Frame::parse(text).is_some_and(|frame| FilmStyle::default().takes(frame));
        for fits in ["832x480", "480x832", "848x480", "64x64", "624x624"] {
            assert!(takes(fits), "{fits}");
        }
        for wrong in ["1280x720", "833x480", "48x480", "8192x64", "x480", "480", "+64x64", "64x", "64x64x64", ""] {
            assert!(!takes(wrong), "{wrong}");
        }
    }

    #[test]
    fn frames_are_counted_and_not_the_clock() {
        assert_eq!(film_ms(96, 24_000), Some(4_000));
        assert_eq!(film_ms(81, 16_000), Some(5_063));
        assert_eq!(film_ms(1, 29_970), Some(33));
        assert_eq!((film_ms(9, 0), film_ms(u64::MAX, 1)), (None, None));
        assert!(film_ms(97, 24_000).unwrap() <= most_film_ms(4));
    }

    #[test]
    fn films_are_told_by_their_first_bytes() {
        for (begins, file) in [
            (&b"\0\0\0\x18ftypisom"[..], Some(FilmFile::Mp4)),
            (b"\x1a\x45\xdf\xa3\x9f", Some(FilmFile::Webm)),
            (b"RIFF\x10\0\0\0AVI LIST", Some(FilmFile::Avi)),
            (b"RIFF\x10\0\0\0WEBPVP8X", Some(FilmFile::Webp)),
            (b"GIF89a", Some(FilmFile::Gif)),
            (b"RIFF\x10\0\0\0WAVE", None),
            (b"RIFF", None),
            (b"<html><body>", None),
            (b"", None),
        ] {
            assert_eq!(FilmFile::told_by(begins), file);
        }
    }

    #[test]
    fn a_job_is_over_once() {
        assert_eq!(FilmStatus::ALL.map(FilmStatus::is_over), [false, false, true, true, true]);
    }
}
