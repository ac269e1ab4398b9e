//! Holds: where the sounds in an Ogg file end, by its pages, and how much of Opus is in it, by its packets.
//!
//! The last packet holds more than the sound; only the position of its page says how much.

use std::io::{self, Read, Seek, SeekFrom};

use ogg::{OggReadError, PacketReader};

/// A page is 26 bytes or more, and this many are days of sound.
const MOST_PAGES: u32 = 1 << 22;

/// The last positions of these streams together, in moments.
pub(crate) fn ends(reader: &mut (impl Read + Seek), streams: &[u32]) -> io::Result<u64> {
    let mut ends: Vec<(u32, u64)> = streams.iter().map(|stream| (*stream, 0)).collect();
    let mut at = 0;
    for _ in 0..MOST_PAGES {
        reader.seek(SeekFrom::Start(at))?;
        let Some(page) = page(reader)? else { break };
        if let Some((_, end)) = ends.iter_mut().find(|(stream, _)| *stream == page.stream) {
            // -1 stands on a page in which no packet ends.
            *end = u64::try_from(page.position).unwrap_or(*end);
        }
        at = at.saturating_add(page.bytes);
    }
    Ok(ends.iter().fold(0, |sum, (_, end)| sum.saturating_add(*end)))
}

/// Moments of all packets of Opus in these streams, at 48 kHz, whatever their pages say.
pub(crate) fn opus_moments(reader: &mut (impl Read + Seek), streams: &[u32]) -> io::Result<u64> {
    const RATE: u32 = 48_000;
    reader.seek(SeekFrom::Start(0))?;
    let mut packets = PacketReader::new(reader);
    let mut moments: u64 = 0;
    loop {
        let packet = match packets.read_packet() {
            Ok(Some(packet)) => packet,
            Err(OggReadError::ReadError(error)) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            // Behind the last page that can be read is no sound.
            Ok(None) | Err(_) => return Ok(moments),
        };
        let is_header = packet.data.starts_with(b"OpusHead") || packet.data.starts_with(b"OpusTags");
        if streams.contains(&packet.stream_serial()) && !is_header {
            moments += opus::packet::get_nb_samples(&packet.data, RATE).unwrap_or_default() as u64;
        }
    }
}

struct Page {
    position: i64,
    stream: u32,
    bytes: u64,
}

/// `None` where no page begins.
fn page(reader: &mut impl Read) -> io::Result<Option<Page>> {
    const HEADER_BYTES: u64 = 27;
    let mut header = Vec::new();
    reader.take(HEADER_BYTES).read_to_end(&mut header)?;
    let Some((b"OggS", _)) = header.split_first_chunk() else { return Ok(None) };
    let position = header.get(6..).and_then(|rest| rest.first_chunk()).map(|bytes| i64::from_le_bytes(*bytes));
    let stream = header.get(14..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes));
    let (Some(position), Some(stream), Some(segments)) = (position, stream, header.get(26)) else { return Ok(None) };
    let mut lengths = Vec::new();
    reader.take((*segments).into()).read_to_end(&mut lengths)?;
    let body: u64 = lengths.iter().copied().map(u64::from).sum();
    Ok(Some(Page { position, stream, bytes: HEADER_BYTES + u64::from(*segments) + body }))
}
