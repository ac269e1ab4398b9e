//! Holds: how long a film lasts, by the frames that an MP4 says it has.
//!
//! By frames and their rate: the length that a container states for itself is whatever its writer made of the last frame.

use batchin_files::{BlobError, Blobs};
use batchin_store::BlobRange;

/// The largest index of frames that is read: hours of film have less.
const MAX_MOOV_BYTES: u64 = 16 * 1024 * 1024;
/// Boxes of a file that are passed over on the way to it.
const MAX_BOXES: u32 = 4_096;
/// Runs of equal frames; a film of one rate has a few.
const MAX_RUNS: usize = 1_000_000;
/// A box's head with a long size.
const HEAD_BYTES: u64 = 16;

/// A film's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frames {
    /// How many.
    pub(crate) count: u64,
    /// Thousandths of a frame a second, of most frames; `None` of fewer than two.
    pub(crate) milli_fps: Option<u64>,
}

/// Looks for the index of frames in a blob of so many bytes; `None` where there is none that can be read.
pub(crate) async fn frames(blobs: &Blobs, blob: &str, bytes: u64) -> Result<Option<Frames>, BlobError> {
    let read =
        |offset: u64, len: u64| async move { blobs.read(&BlobRange { blob: blob.to_owned(), offset, len }).await };
    let mut at = 0;
    for _ in 0..MAX_BOXES {
        if bytes.saturating_sub(at) < 8 {
            return Ok(None);
        }
        let head = read(at, HEAD_BYTES.min(bytes - at)).await?;
        let Some(Head { kind, head: inside, size }) = head_of(&head) else { return Ok(None) };
        let size = size.unwrap_or(bytes - at);
        if &kind == b"moov" {
            let len = size.saturating_sub(inside);
            if len > MAX_MOOV_BYTES || at.saturating_add(size) > bytes {
                return Ok(None);
            }
            return Ok(in_moov(&read(at + inside, len).await?));
        }
        at = at.saturating_add(size);
    }
    Ok(None)
}

struct Head {
    kind: [u8; 4],
    /// Bytes of the head itself.
    head: u64,
    /// Bytes of the whole box; `None` up to the file's end.
    size: Option<u64>,
}

fn head_of(bytes: &[u8]) -> Option<Head> {
    let short = u64::from(u32_at(bytes, 0)?);
    let kind = *bytes.get(4..)?.first_chunk::<4>()?;
    let (head, size) = match short {
        0 => (8, None),
        1 => (16, Some(u64::from_be_bytes(*bytes.get(8..)?.first_chunk::<8>()?))),
        size => (8, Some(size)),
    };
    // A box has its head at least.
    size.is_none_or(|size| size >= head).then_some(Head { kind, head, size })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk::<4>()?))
}

/// What is in the boxes of this kind that lie in a row.
fn boxes<'a>(mut bytes: &'a [u8], kind: &'static [u8; 4]) -> impl Iterator<Item = &'a [u8]> {
    std::iter::from_fn(move || {
        loop {
            let found = head_of(bytes)?;
            let size = found.size.map_or(Some(bytes.len()), |size| usize::try_from(size).ok())?;
            let whole = bytes.get(..size)?;
            bytes = bytes.get(size..).unwrap_or_default();
            if found.kind == *kind {
                return whole.get(usize::try_from(found.head).ok()?..);
            }
        }
    })
}

fn one<'a>(bytes: &'a [u8], path: &[&'static [u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, kind| boxes(bytes, kind).next())
}

/// The frames of the first picture track.
fn in_moov(moov: &[u8]) -> Option<Frames> {
    let is_film = |media: &&[u8]| one(media, &[b"hdlr"]).is_some_and(|hdlr| hdlr.get(8..12) == Some(b"vide"));
    let media = boxes(moov, b"trak").filter_map(|track| one(track, &[b"mdia"])).find(is_film)?;
    let header = one(media, &[b"mdhd"])?;
    // The second version has long times before it.
    let timescale = u32_at(header, if header.first() == Some(&1) { 20 } else { 12 })?;
    let runs = one(media, &[b"minf", b"stbl", b"stts"])?;
    let length = usize::try_from(u32_at(runs, 4)?).ok().filter(|length| *length <= MAX_RUNS)?;
    let (mut count, mut longest) = (0_u64, (0, 0));
    for run in 0..length {
        let (frames, each) = (u32_at(runs, 8 + run * 8)?, u32_at(runs, 12 + run * 8)?);
        count = count.saturating_add(u64::from(frames));
        if frames > longest.0 {
            longest = (frames, each);
        }
    }
    let rate = u64::from(timescale) * 1_000;
    let milli_fps = (count > 1).then(|| rate.checked_div(u64::from(longest.1))).flatten().filter(|rate| *rate > 0);
    (count > 0).then_some(Frames { count, milli_fps })
}

#[cfg(test)]
mod tests {
    use batchin_files::BlobsPlace;

    use super::*;

    fn boxed(kind: &[u8; 4], inside: &[u8]) -> Vec<u8> {
        let size = u32::try_from(inside.len() + 8).unwrap().to_be_bytes();
        [&size[..], kind, inside].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn track(handler: &[u8; 4], timescale: u32, runs: &[(u32, u32)]) -> Vec<u8> {
        let mut stts = words(&[0, u32::try_from(runs.len()).unwrap()]);
        stts.extend(runs.iter().flat_map(|(count, each)| words(&[*count, *each])));
        let stbl = boxed(b"stbl", &boxed(b"stts", &stts));
        let hdlr = boxed(b"hdlr", &[&words(&[0, 0])[..], handler, &[0; 13]].concat());
        let mdhd = boxed(b"mdhd", &words(&[0, 0, 0, timescale, 9_999_999, 0]));
        boxed(b"trak", &boxed(b"mdia", &[mdhd, hdlr, boxed(b"minf", &stbl)].concat()))
    }

    fn film(tracks: &[Vec<u8>]) -> Vec<u8> {
        let moov = boxed(b"moov", &[boxed(b"mvhd", &[0; 100]), tracks.concat()].concat());
        [boxed(b"ftyp", b"isom\0\0\0\0"), boxed(b"mdat", &[7; 5_000]), moov].concat()
    }

    async fn looked_at(bytes: Vec<u8>) -> Option<Frames> {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&BlobsPlace::Folder(folder.path().to_owned())).unwrap();
        let length = bytes.len() as u64;
        blobs.put("film", bytes.into()).await.unwrap();
        frames(&blobs, "film", length).await.unwrap()
    }

    #[tokio::test]
    async fn frames_are_counted_whatever_the_container_says_it_lasts() {
        let sound = track(b"soun", 48_000, &[(187, 1_024)]);
        let picture = track(b"vide", 12_288, &[(96, 512)]);
        let expected = Some(Frames { count: 96, milli_fps: Some(24_000) });
        assert_eq!(looked_at(film(&[sound, picture])).await, expected);
        // The last frame lasts for whatever its writer thought.
        let odd = track(b"vide", 90_000, &[(80, 5_625), (1, 1)]);
        assert_eq!(looked_at(film(&[odd])).await, Some(Frames { count: 81, milli_fps: Some(16_000) }));
        let one = track(b"vide", 90_000, &[(1, 1)]);
        assert_eq!(looked_at(film(&[one])).await, Some(Frames { count: 1, milli_fps: None }));
    }

    #[tokio::test]
    async fn what_is_no_film_has_no_frames() {
        let whole = film(&[track(b"vide", 12_288, &[(96, 512)])]);
        for broken in [
            Vec::new(),
            b"<html>not found</html>".to_vec(),
            whole[..whole.len() - 40].to_vec(),
            film(&[track(b"soun", 48_000, &[(9, 9)])]),
            film(&[track(b"vide", 12_288, &[])]),
            boxed(b"ftyp", b"isom"),
            words(&[1, 0]),
            [&words(&[3])[..], b"moov"].concat(),
        ] {
            assert_eq!(looked_at(broken).await, None);
        }
    }
}
