//! Holds: what an MP4's tables say of its tracks, in one file or in fragments.
//!
//! Only tables are read, never samples, and of a track's length only what its samples add up to: the durations that stand
//! in headers are whatever the muxer wrote there.

use std::io::{self, Read, Seek, SeekFrom};

/// Tables of an hour of video are 3 MB.
const MOST_TABLE_BYTES: u64 = 64 << 20;
/// A fragment is a second or more; this is days of them.
const MOST_BOXES: u32 = 1 << 20;
/// Pictures, sounds and subtitles in many languages.
const MOST_TRACKS: usize = 64;

/// Why an MP4's tables were not read.
#[derive(Debug, thiserror::Error)]
pub enum Mp4Error {
    /// The reader failed.
    #[error("could not read the file")]
    Io(#[from] io::Error),
    /// No tables in it.
    #[error("the MP4 has no moov box; it may be cut off")]
    NoTables,
    /// More of something than any real file has.
    #[error("the MP4 has more {what} than are read")]
    TooMuch {
        /// Of what.
        what: &'static str,
    },
    /// A table that ends before its entries do, or contradicts another one.
    #[error("the MP4's box {name} is broken")]
    Broken {
        /// Its four letters.
        name: &'static str,
    },
}

/// One track, as its tables have it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Track {
    id: u32,
    pub(crate) handler: [u8; 4],
    /// Units a second, not 0 where the track is complete.
    pub(crate) timescale: u32,
    /// Samples: frames of a video, packets of sound.
    pub(crate) samples: u64,
    /// What they add up to.
    pub(crate) units: u64,
    /// Units at the start that are decoded and not shown.
    pub(crate) skipped: u64,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Of sound.
    pub(crate) rate: u32,
    pub(crate) channels: u16,
    /// Of a sample in a fragment that says nothing of it.
    default_units: u32,
}

/// Reads the tables of a file that begins with `ftyp`, or with any other box.
pub(crate) fn tracks(reader: &mut (impl Read + Seek)) -> Result<Vec<Track>, Mp4Error> {
    let length = reader.seek(SeekFrom::End(0))?;
    let mut tracks = None;
    let mut at = 0;
    for _ in 0..MOST_BOXES {
        reader.seek(SeekFrom::Start(at))?;
        let Some((name, inside, end)) = next_box(reader, at, length)? else {
            let tracks: Vec<Track> = tracks.ok_or(Mp4Error::NoTables)?;
            // A sample has a byte; whoever says otherwise counts what is not there.
            let has_too_many = tracks.iter().any(|track| track.samples > length);
            return if has_too_many { Err(Mp4Error::Broken { name: "stsz" }) } else { Ok(tracks) };
        };
        match &name {
            b"moov" if tracks.is_none() => tracks = Some(moov(&table(reader, end - inside)?)?),
            b"moof" => {
                let fragment = table(reader, end - inside)?;
                moof(&fragment, tracks.as_mut().ok_or(Mp4Error::NoTables)?)?;
            }
            _ => {}
        }
        at = end;
    }
    Err(Mp4Error::TooMuch { what: "boxes" })
}

/// Its name, where its content begins, where it ends; `None` at the end of the file, or where no box can be.
fn next_box(reader: &mut impl Read, at: u64, length: u64) -> Result<Option<([u8; 4], u64, u64)>, Mp4Error> {
    let mut header = [0; 8];
    if length.saturating_sub(at) < 8 {
        return Ok(None);
    }
    reader.read_exact(&mut header)?;
    let [a, b, c, d, name @ ..] = header;
    let (inside, size) = match u32::from_be_bytes([a, b, c, d]) {
        0 => (at + 8, length - at),
        1 if length - at >= 16 => {
            let mut size = [0; 8];
            reader.read_exact(&mut size)?;
            (at + 16, u64::from_be_bytes(size))
        }
        size => (at + 8, size.into()),
    };
    let end = at.saturating_add(size).min(length);
    Ok((end >= inside).then_some((name, inside, end)))
}

fn table(reader: &mut impl Read, bytes: u64) -> Result<Vec<u8>, Mp4Error> {
    if bytes > MOST_TABLE_BYTES {
        return Err(Mp4Error::TooMuch { what: "tables" });
    }
    let mut table = Vec::new();
    reader.take(bytes).read_to_end(&mut table)?;
    Ok(table)
}

/// The boxes in a box.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (size, rest) = bytes.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_first_chunk::<4>()?;
        let size = match u32::from_be_bytes(*size) {
            0 => rest.len(),
            size => (size as usize).checked_sub(8)?,
        };
        let (inside, after) = rest.split_at_checked(size)?;
        bytes = after;
        Some((*name, inside))
    })
}

fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter()
        .try_fold(bytes, |bytes, wanted| boxes(bytes).find(|(name, _)| name == *wanted).map(|(_, inside)| inside))
}

fn moov(moov: &[u8]) -> Result<Vec<Track>, Mp4Error> {
    let mut tracks = Vec::new();
    for (_, inside) in boxes(moov).filter(|(name, _)| name == b"trak") {
        if tracks.len() == MOST_TRACKS {
            return Err(Mp4Error::TooMuch { what: "tracks" });
        }
        tracks.push(trak(inside)?);
    }
    for (_, trex) in boxes(find(moov, &[b"mvex"]).unwrap_or_default()).filter(|(name, _)| name == b"trex") {
        let (Some(id), Some(units)) = (word(trex, 4), word(trex, 12)) else { continue };
        if let Some(track) = tracks.iter_mut().find(|track| track.id == id) {
            track.default_units = units;
        }
    }
    Ok(tracks)
}

fn trak(trak: &[u8]) -> Result<Track, Mp4Error> {
    let mut track = Track::default();
    if let Some(tkhd) = find(trak, &[b"tkhd"]) {
        // Version 1 has dates and a duration of twice the width.
        let wide = if tkhd.first() == Some(&1) { 12 } else { 0 };
        track.id = word(tkhd, 12 + wide / 12 * 8).unwrap_or_default();
        track.width = word(tkhd, 76 + wide).unwrap_or_default() >> 16;
        track.height = word(tkhd, 80 + wide).unwrap_or_default() >> 16;
    }
    let mdia = find(trak, &[b"mdia"]).ok_or(Mp4Error::Broken { name: "trak" })?;
    let mdhd = find(mdia, &[b"mdhd"]).ok_or(Mp4Error::Broken { name: "mdhd" })?;
    let at = if mdhd.first() == Some(&1) { 20 } else { 12 };
    track.timescale = word(mdhd, at).filter(|scale| *scale > 0).ok_or(Mp4Error::Broken { name: "mdhd" })?;
    let handler = find(mdia, &[b"hdlr"]).and_then(|hdlr| hdlr.get(8..)?.first_chunk());
    track.handler = *handler.ok_or(Mp4Error::Broken { name: "hdlr" })?;
    let stbl = find(mdia, &[b"minf", b"stbl"]).ok_or(Mp4Error::Broken { name: "stbl" })?;
    describe(&mut track, stbl);
    count(&mut track, stbl)?;
    track.skipped = find(trak, &[b"edts", b"elst"]).map_or(0, |elst| skipped(elst, track.timescale));
    Ok(track)
}

/// From the first description of samples.
fn describe(track: &mut Track, stbl: &[u8]) {
    let Some((_, entry)) = find(stbl, &[b"stsd"]).and_then(|stsd| boxes(stsd.get(8..)?).next()) else { return };
    match &track.handler {
        b"vide" => {
            let size = (half(entry, 24), half(entry, 26));
            if let (Some(width @ 1..), Some(height @ 1..)) = size {
                track.width = width.into();
                track.height = height.into();
            }
        }
        b"soun" => {
            // Beside AAC stands a 2, whatever is in it.
            let written = half(entry, 16).unwrap_or_default();
            track.channels = entry.get(28..).and_then(aac_channels).unwrap_or(written);
            // 16.16; what has no room in it stands as 0, and the timescale is the rate then.
            let rate = word(entry, 24).unwrap_or_default() >> 16;
            track.rate = if rate == 0 { track.timescale } else { rate };
        }
        _ => {}
    }
}

/// By the configuration of AAC (ISO 14496-1, 7.2.6, and 14496-3, 1.6): descriptors inside of each other.
fn aac_channels(boxes_of_entry: &[u8]) -> Option<u16> {
    const STREAM: u8 = 3;
    const DECODER: u8 = 4;
    const CONFIGURATION: u8 = 5;
    const FREE_RATE: u16 = 15;
    let stream = descriptor(find(boxes_of_entry, &[b"esds"])?.get(4..)?, STREAM)?;
    let flags = stream.get(2)?;
    let optional = if flags & 0x80 != 0 { 2 } else { 0 };
    // A stream with an address, or a clock of another, does not lie in a file.
    let decoder = descriptor(stream.get(3 + optional..).filter(|_| flags & 0x60 == 0)?, DECODER)?;
    let configuration = descriptor(decoder.get(13..)?, CONFIGURATION)?;
    // Five bits of the object's type, four of the rate, four of the channels.
    let bits = half(configuration, 0)?;
    match (bits >> 7 & 0xf == FREE_RATE, bits >> 3 & 0xf) {
        (false, channels @ 1..=6) => Some(channels),
        (false, 7) => Some(8),
        _ => None,
    }
}

/// What is in the first descriptor, if it has this tag.
fn descriptor(bytes: &[u8], wanted: u8) -> Option<&[u8]> {
    let (tag, mut rest) = bytes.split_first()?;
    let mut length = 0_usize;
    for _ in 0..4 {
        let (byte, after) = rest.split_first()?;
        rest = after;
        length = length << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return rest.get(..length).filter(|_| *tag == wanted);
        }
    }
    None
}

/// From the table of times, as far as there are samples.
fn count(track: &mut Track, stbl: &[u8]) -> Result<(), Mp4Error> {
    let broken = |name| move || Mp4Error::Broken { name };
    let sizes = find(stbl, &[b"stsz"]).or_else(|| find(stbl, &[b"stz2"])).ok_or_else(broken("stsz"))?;
    let all = u64::from(word(sizes, 8).ok_or_else(broken("stsz"))?);
    let times = find(stbl, &[b"stts"]).and_then(|stts| stts.get(8..)).ok_or_else(broken("stts"))?;
    for entry in times.as_chunks::<8>().0 {
        let (samples, units) = (word(entry, 0).unwrap_or_default(), word(entry, 4).unwrap_or_default());
        let samples = u64::from(samples).min(all - track.samples);
        track.samples += samples;
        // At most 2^32 samples of 2^32 units.
        track.units = track.units.saturating_add(samples * u64::from(units));
    }
    Ok(())
}

/// What an edit list drops at the start: what the encoder put before the sound. More than a second is no such thing.
fn skipped(elst: &[u8], timescale: u32) -> u64 {
    let is_wide = elst.first() == Some(&1);
    let entries = elst.get(8..).unwrap_or_default().chunks_exact(if is_wide { 20 } else { 12 });
    let times = entries.filter_map(|entry| {
        if is_wide {
            entry.get(8..)?.first_chunk().map(|time| i64::from_be_bytes(*time))
        } else {
            entry.get(4..)?.first_chunk().map(|time| i64::from(i32::from_be_bytes(*time)))
        }
    });
    // -1 is a pause before the track, which is no sound of it.
    let first = times.map(u64::try_from).find_map(Result::ok).unwrap_or_default();
    if first > timescale.into() { 0 } else { first }
}

fn moof(moof: &[u8], tracks: &mut [Track]) -> Result<(), Mp4Error> {
    const BROKEN: Mp4Error = Mp4Error::Broken { name: "traf" };
    for (_, traf) in boxes(moof).filter(|(name, _)| name == b"traf") {
        let tfhd = find(traf, &[b"tfhd"]).ok_or(BROKEN)?;
        let (flags, id) = (word(tfhd, 0).ok_or(BROKEN)?, word(tfhd, 4).ok_or(BROKEN)?);
        let Some(track) = tracks.iter_mut().find(|track| track.id == id) else { continue };
        // Before it stand an offset, if flag 1 is set, and an index, if flag 2 is.
        let at = 8 + if flags & 1 != 0 { 8 } else { 0 } + if flags & 2 != 0 { 4 } else { 0 };
        let units = if flags & 8 != 0 { word(tfhd, at).ok_or(BROKEN)? } else { track.default_units };
        for (_, trun) in boxes(traf).filter(|(name, _)| name == b"trun") {
            run(trun, units, track).ok_or(Mp4Error::Broken { name: "trun" })?;
        }
    }
    Ok(())
}

/// A run of samples.
fn run(trun: &[u8], default_units: u32, track: &mut Track) -> Option<()> {
    const DURATION: u32 = 0x100;
    const OF_EACH: [u32; 4] = [DURATION, 0x200, 0x400, 0x800];
    let flags = word(trun, 0)?;
    let samples = u64::from(word(trun, 4)?);
    let width = OF_EACH.iter().filter(|flag| flags & **flag != 0).count() * 4;
    let at = 8 + [1, 4].iter().filter(|flag| flags & **flag != 0).count() * 4;
    track.samples = track.samples.saturating_add(samples);
    if flags & DURATION == 0 {
        track.units = track.units.saturating_add(samples.saturating_mul(default_units.into()));
        return Some(());
    }
    let entries = trun.get(at..)?.chunks_exact(width);
    if (entries.len() as u64) < samples {
        return None;
    }
    for entry in entries.take(samples as usize) {
        track.units = track.units.saturating_add(word(entry, 0)?.into());
    }
    Some(())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}
